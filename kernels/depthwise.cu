// Depthwise convolution, channels last: one small kernel a channel. A block works on one output
// row; neighbouring threads on neighbouring channels, then on neighbouring pixels.
//
// An output value is one chain: bias, then one fused multiply-add for each tap in the order
// [ky][kx], then residual and activation. Sums are f32 whatever is stored.
#include "common.cuh"

// As src/nn/gpu/conv.rs lays it out.
struct DepthwiseParams {
    int h, w, c;
    int out_h, out_w;
    int kernel_h, kernel_w, stride_y, stride_x;
    int pad_y, pad_x; // zeros above and to the left
    int activation;
};

// K and S: side of a square kernel and horizontal stride, or 0 where they are known at run time
// only. TILE neighbouring output pixels share what they read.
template <class T, int K, int S, int TILE, int LANES>
__device__ __forceinline__ void depthwise(const T* __restrict__ x, const float* __restrict__ weights,
                                          const float* __restrict__ bias,
                                          const T* __restrict__ residual, T* __restrict__ y,
                                          const DepthwiseParams& p) {
    const int kernel_h = K > 0 ? K : p.kernel_h, kernel_w = K > 0 ? K : p.kernel_w;
    const int stride_x = S > 0 ? S : p.stride_x;
    const int groups = p.c / LANES;
    const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    const int channel = index % groups * LANES;
    const int ox = index / groups * TILE;
    if (ox >= p.out_w) {
        return;
    }
    const long long row = blockIdx.x; // of the output, over the whole batch
    const long long image = row / p.out_h;
    const int top = static_cast<int>(row % p.out_h) * p.stride_y - p.pad_y;
    const int left = ox * stride_x - p.pad_x;

    const Lanes<LANES> first = Lanes<LANES>::load(bias + channel);
    Lanes<LANES> acc[TILE];
    for (int t = 0; t < TILE; ++t) {
        acc[t] = first;
    }
    for (int ky = 0; ky < kernel_h; ++ky) {
        const int iy = top + ky;
        if (static_cast<unsigned>(iy) >= static_cast<unsigned>(p.h)) {
            continue;
        }
        const T* line = x + (((image * p.h + iy) * p.w) * p.c + channel);
        const float* w = weights + (static_cast<long long>(ky) * kernel_w * p.c + channel);
        if (K > 0) {
            constexpr int COLUMNS = (TILE - 1) * (S > 0 ? S : 1) + (K > 0 ? K : 1);
            Lanes<LANES> column[COLUMNS];
#pragma unroll
            for (int i = 0; i < COLUMNS; ++i) {
                const int ix = left + i;
                if (static_cast<unsigned>(ix) < static_cast<unsigned>(p.w)) {
                    column[i] = Lanes<LANES>::load(line + static_cast<long long>(ix) * p.c);
                } else {
                    for (int l = 0; l < LANES; ++l) {
                        column[i].v[l] = 0.0f;
                    }
                }
            }
#pragma unroll
            for (int kx = 0; kx < K; ++kx) {
                const Lanes<LANES> tap = Lanes<LANES>::load(w + static_cast<long long>(kx) * p.c);
#pragma unroll
                for (int t = 0; t < TILE; ++t) {
#pragma unroll
                    for (int l = 0; l < LANES; ++l) {
                        acc[t].v[l] = fmaf(column[t * S + kx].v[l], tap.v[l], acc[t].v[l]);
                    }
                }
            }
        } else {
            for (int kx = 0; kx < kernel_w; ++kx) {
                const Lanes<LANES> tap = Lanes<LANES>::load(w + static_cast<long long>(kx) * p.c);
                for (int t = 0; t < TILE; ++t) {
                    const int ix = left + t * stride_x + kx;
                    if (static_cast<unsigned>(ix) < static_cast<unsigned>(p.w)) {
                        const Lanes<LANES> v =
                            Lanes<LANES>::load(line + static_cast<long long>(ix) * p.c);
                        for (int l = 0; l < LANES; ++l) {
                            acc[t].v[l] = fmaf(v.v[l], tap.v[l], acc[t].v[l]);
                        }
                    }
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < TILE; ++t) {
        if (ox + t >= p.out_w) {
            break;
        }
        const long long at = (row * p.out_w + ox + t) * p.c + channel;
        if (residual != nullptr) {
            const Lanes<LANES> r = Lanes<LANES>::load(residual + at);
            for (int l = 0; l < LANES; ++l) {
                acc[t].v[l] += r.v[l];
            }
        }
        for (int l = 0; l < LANES; ++l) {
            acc[t].v[l] = bounded(acc[t].v[l], p.activation);
        }
        if (!is_exponential(p.activation)) {
            acc[t].store(y + at);
        }
    }
    if (is_exponential(p.activation)) {
        // Rolled over the pixels by sending each in turn through the first one's registers.
#pragma unroll 1
        for (int t = 0; t < TILE && ox + t < p.out_w; ++t) {
            for (int l = 0; l < LANES; ++l) {
                acc[0].v[l] = exponential(acc[0].v[l], p.activation);
            }
            acc[0].store(y + ((row * p.out_w + ox + t) * p.c + channel));
#pragma unroll
            for (int u = 1; u < TILE; ++u) {
                acc[u - 1] = acc[u];
            }
        }
    }
}

// Sizes, tiles and lanes as src/nn/gpu/conv.rs knows them.
#define DEPTHWISE(name, type, k, s, tile, lanes)                                                   \
    extern "C" __global__ void __launch_bounds__(128)                                              \
        name(const type* x, const float* weights, const float* bias, const type* residual,         \
             type* y, DepthwiseParams p) {                                                         \
        depthwise<type, k, s, tile, lanes>(x, weights, bias, residual, y, p);                      \
    }

DEPTHWISE(depthwise_f32_3_1, float, 3, 1, 4, 4)
DEPTHWISE(depthwise_f32_3_2, float, 3, 2, 4, 4)
DEPTHWISE(depthwise_f32_5_1, float, 5, 1, 4, 4)
DEPTHWISE(depthwise_f32_5_2, float, 5, 2, 4, 4)
DEPTHWISE(depthwise_f32_vector, float, 0, 0, 1, 4)
DEPTHWISE(depthwise_f32_scalar, float, 0, 0, 1, 1)
DEPTHWISE(depthwise_f16_3_1, __half, 3, 1, 4, 4)
DEPTHWISE(depthwise_f16_3_2, __half, 3, 2, 4, 4)
DEPTHWISE(depthwise_f16_5_1, __half, 5, 1, 4, 4)
DEPTHWISE(depthwise_f16_5_2, __half, 5, 2, 4, 4)
DEPTHWISE(depthwise_f16_vector, __half, 0, 0, 1, 4)
DEPTHWISE(depthwise_f16_scalar, __half, 0, 0, 1, 1)
