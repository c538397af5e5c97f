// Pooling and resizing over NHWC.
#include "common.cuh"

// As src/nn/gpu/pool.rs lays it out: the input's size; for `upsample_add` that of the larger one.
struct PoolParams {
    int h, w, c;
};

// A block works on one output row; neighbouring threads on neighbouring channels.
template <class T, int LANES>
__device__ __forceinline__ void max_pool(const T* __restrict__ x, T* __restrict__ y,
                                         const PoolParams& p) {
    const int groups = p.c / LANES, out_h = p.h / 2, out_w = p.w / 2;
    const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    const int channel = index % groups * LANES, ox = index / groups;
    if (ox >= out_w) {
        return;
    }
    const long long row = blockIdx.x;
    const long long top = row / out_h * p.h + row % out_h * 2;
    const T* from = x + ((top * p.w + 2 * ox) * p.c + channel);
    const long long line = static_cast<long long>(p.w) * p.c;
    const Lanes<LANES> a = Lanes<LANES>::load(from), b = Lanes<LANES>::load(from + p.c);
    const Lanes<LANES> c = Lanes<LANES>::load(from + line);
    const Lanes<LANES> d = Lanes<LANES>::load(from + (line + p.c));
    Lanes<LANES> m;
    for (int l = 0; l < LANES; ++l) {
        // As the CPU orders them: `x` where either is not a number.
        const float upper = a.v[l] > b.v[l] ? a.v[l] : b.v[l];
        const float lower = c.v[l] > d.v[l] ? c.v[l] : d.v[l];
        m.v[l] = upper > lower ? upper : lower;
    }
    m.store(y + ((row * out_w + ox) * p.c + channel));
}

template <class T, int LANES>
__device__ __forceinline__ void upsample_add(const T* __restrict__ x, const T* __restrict__ small,
                                             T* __restrict__ y, const PoolParams& p) {
    const int groups = p.c / LANES;
    const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    const int channel = index % groups * LANES, column = index / groups;
    if (column >= p.w) {
        return;
    }
    const long long row = blockIdx.x;
    const long long below = row / p.h * (p.h / 2) + row % p.h / 2;
    const long long at = (row * p.w + column) * p.c + channel;
    Lanes<LANES> v = Lanes<LANES>::load(x + at);
    const Lanes<LANES> s =
        Lanes<LANES>::load(small + ((below * (p.w / 2) + column / 2) * p.c + channel));
    for (int l = 0; l < LANES; ++l) {
        v.v[l] += s.v[l];
    }
    v.store(y + at);
}

// A thread takes one channel of one picture; its sums run over the pixels in order, as on the CPU.
// With `eps` below 0 only means are written, [n, c]; otherwise means, then deviations, [n, 2 * c].
template <class T>
__device__ __forceinline__ void statistics(const T* __restrict__ x, float* __restrict__ y,
                                           const PoolParams& p, float eps) {
    const int channel = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
    if (channel >= p.c) {
        return;
    }
    const long long image = blockIdx.x;
    const long long pixels = static_cast<long long>(p.h) * p.w;
    const T* from = x + (image * pixels * p.c + channel);
    const float scale = 1.0f / static_cast<float>(pixels);
    float sum = 0.0f;
#pragma unroll 8
    for (long long i = 0; i < pixels; ++i) {
        sum += load1(from + i * p.c);
    }
    const float mean = sum * scale;
    if (eps < 0.0f) {
        y[image * p.c + channel] = mean;
        return;
    }
    y[image * 2 * p.c + channel] = mean;
    sum = 0.0f;
#pragma unroll 8
    for (long long i = 0; i < pixels; ++i) {
        const float off = load1(from + i * p.c) - mean;
        sum += off * off;
    }
    y[(image * 2 + 1) * p.c + channel] = sqrtf(sum * scale + eps);
}

#define POOLS(suffix, type, lanes)                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        max_pool_##suffix(const type* x, type* y, PoolParams p) {                                  \
        max_pool<type, lanes>(x, y, p);                                                            \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        upsample_add_##suffix(const type* x, const type* small, type* y, PoolParams p) {           \
        upsample_add<type, lanes>(x, small, y, p);                                                 \
    }

POOLS(f32_vector, float, 4)
POOLS(f32_scalar, float, 1)
POOLS(f16_vector, __half, 4)
POOLS(f16_scalar, __half, 1)

extern "C" __global__ void __launch_bounds__(128)
    statistics_f32(const float* x, float* y, PoolParams p, float eps) {
    statistics<float>(x, y, p, eps);
}
extern "C" __global__ void __launch_bounds__(128)
    statistics_f16(const __half* x, float* y, PoolParams p, float eps) {
    statistics<__half>(x, y, p, eps);
}
