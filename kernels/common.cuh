// What all kernels share. A kernel is compiled by nvcc for the GPU and, unchanged, as ordinary C++
// against host/emulate.h for its tests.
//
// Rules: no contraction is left to the compiler (-fmad=false; fmaf where it is meant), so that one
// source gives one result. Offsets into tensors are 64-bit; sizes along one axis are 32-bit, which
// src/nn/gpu checks. Each kernel declares at most one SHARED struct.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <mma.h>
#define SHARED(type, name) __shared__ type name
#else
#include "host/emulate.h"
#endif

// As src/nn/gpu/mod.rs numbers them.
enum ActivationCode : int {
    ACTIVATION_NONE = 0,
    ACTIVATION_RELU = 1,
    ACTIVATION_RELU6 = 2,
    ACTIVATION_SILU = 3,
    ACTIVATION_SIGMOID = 4,
    ACTIVATION_SELU = 5,
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The activations that need no exponential. What is not a number stays so.
__device__ __forceinline__ float bounded(float x, int activation) {
    if (activation == ACTIVATION_RELU || activation == ACTIVATION_RELU6) {
        x = x < 0.0f ? 0.0f : x;
    }
    return activation == ACTIVATION_RELU6 && x > 6.0f ? 6.0f : x;
}

__device__ __forceinline__ bool is_exponential(int activation) {
    return activation >= ACTIVATION_SILU;
}

// The others. They are long: kernels that hold many values in registers call this in a rolled loop.
__device__ __forceinline__ float exponential(float x, int activation) {
    if (activation == ACTIVATION_SELU) {
        const float scale = 1.05070098f, alpha = 1.67326324f;
        return x > 0.0f ? scale * x : scale * alpha * expm1f(x);
    }
    const float s = sigmoid(x);
    return activation == ACTIVATION_SILU ? x * s : s;
}

__device__ __forceinline__ float activate(float x, int activation) {
    return is_exponential(activation) ? exponential(x, activation) : bounded(x, activation);
}

// Four values that travel together: 16 bytes of float, 8 of half. The address must be aligned so.
struct alignas(8) Half4 {
    __half v[4];
};

__device__ __forceinline__ float load1(const float* p) { return *p; }
__device__ __forceinline__ float load1(const __half* p) { return __half2float(*p); }
__device__ __forceinline__ void store1(float* p, float v) { *p = v; }
__device__ __forceinline__ void store1(__half* p, float v) { *p = __float2half_rn(v); }

__device__ __forceinline__ float4 load4(const float* p) {
    return *reinterpret_cast<const float4*>(p);
}
__device__ __forceinline__ float4 load4(const __half* p) {
    const Half4 h = *reinterpret_cast<const Half4*>(p);
    return make_float4(__half2float(h.v[0]), __half2float(h.v[1]), __half2float(h.v[2]),
                       __half2float(h.v[3]));
}
__device__ __forceinline__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
__device__ __forceinline__ void store4(__half* p, float4 v) {
    Half4 h;
    h.v[0] = __float2half_rn(v.x);
    h.v[1] = __float2half_rn(v.y);
    h.v[2] = __float2half_rn(v.z);
    h.v[3] = __float2half_rn(v.w);
    *reinterpret_cast<Half4*>(p) = h;
}

// One or four neighbouring channels, with the arithmetic that the kernels need.
template <int LANES> struct Lanes;

template <> struct Lanes<1> {
    float v[1];
    template <class T> static __device__ __forceinline__ Lanes load(const T* p) {
        return {{load1(p)}};
    }
    template <class T> __device__ __forceinline__ void store(T* p) const { store1(p, v[0]); }
};

template <> struct Lanes<4> {
    float v[4];
    template <class T> static __device__ __forceinline__ Lanes load(const T* p) {
        const float4 f = load4(p);
        return {{f.x, f.y, f.z, f.w}};
    }
    template <class T> __device__ __forceinline__ void store(T* p) const {
        store4(p, make_float4(v[0], v[1], v[2], v[3]));
    }
};
