// What the two precisions of the standard convolution share: where an output pixel's window lies in
// the input, and which input value the k-th weight meets.
#pragma once
#include "common.cuh"

// As src/nn/gpu/conv.rs lays it out.
struct ConvParams {
    long long rows; // output pixels of the whole batch
    int h, w, c;
    int out_h, out_w, out;
    int kernel_h, kernel_w, stride_y, stride_x;
    int pad_y, pad_x;  // zeros above and to the left
    int k;             // kernel_h * kernel_w * c
    int out_padded;    // columns of the packed weights
    int activation;
    int vector_out;    // the output's and the residual's rows may be moved four values at a time
};

// Far enough below 0 that no tap brings it back into the picture.
constexpr int OUTSIDE = -(1 << 30);

// For each row of a block's tile: offset of the window's first value (which may lie outside, and is
// read only where the bounds allow), and the window's first row and column in the input.
template <int BM> struct Rows {
    long long base[BM];
    int y[BM];
    int x[BM];
};

template <int BM, int THREADS, bool POINTWISE>
__device__ __forceinline__ void find_rows(Rows<BM>& rows, long long first, const ConvParams& p) {
    for (int i = threadIdx.x; i < BM; i += THREADS) {
        const long long row = first + i;
        rows.base[i] = 0;
        rows.y[i] = OUTSIDE;
        rows.x[i] = 0;
        if (row >= p.rows) {
            continue;
        }
        if (POINTWISE) {
            rows.base[i] = row * p.c;
            rows.y[i] = 0;
        } else {
            const long long pixels = static_cast<long long>(p.out_h) * p.out_w;
            const long long image = row / pixels, pixel = row % pixels;
            const int y = static_cast<int>(pixel / p.out_w) * p.stride_y - p.pad_y;
            const int x = static_cast<int>(pixel % p.out_w) * p.stride_x - p.pad_x;
            rows.base[i] = ((image * p.h + y) * p.w + x) * p.c;
            rows.y[i] = y;
            rows.x[i] = x;
        }
    }
}

// Place k of a window: its row, its column, and how far it is from the window's first value.
struct Tap {
    int y, x;
    long long offset;
    bool exists;
};

template <bool POINTWISE> __device__ __forceinline__ Tap tap_at(int k, const ConvParams& p) {
    Tap tap = {0, 0, k, k < p.k};
    if (!POINTWISE) {
        const int position = k / p.c;
        tap.y = position / p.kernel_w;
        tap.x = position % p.kernel_w;
        tap.offset = (static_cast<long long>(tap.y) * p.w + tap.x) * p.c + k % p.c;
    }
    return tap;
}

template <int BM, bool POINTWISE>
__device__ __forceinline__ bool meets(const Rows<BM>& rows, int i, const Tap& tap,
                                      const ConvParams& p) {
    if (POINTWISE) {
        return tap.exists && rows.y[i] >= 0;
    }
    return tap.exists && static_cast<unsigned>(rows.y[i] + tap.y) < static_cast<unsigned>(p.h) &&
           static_cast<unsigned>(rows.x[i] + tap.x) < static_cast<unsigned>(p.w);
}
