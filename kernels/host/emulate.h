// Enough of CUDA to compile the kernels as ordinary C++ and run them, block after block, for their
// tests. Threads of a block are fibres that hand over at barriers.
//
// What it finds beside wrong results: reads of shared memory that nobody wrote (it is filled with
// NaN before each block), accesses behind shared memory (its end is a page that cannot be touched),
// barriers that not all threads reach, missing barriers (blocks and threads run in several orders),
// misaligned vectors and fragments (checked here and by the compiler's sanitizer).
#pragma once

#include <cstdint>
#include <cstring>
#include <math.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __restrict__

struct EmulatedIndex {
    unsigned x, y, z;
};
extern thread_local EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// IEEE 754 binary16, rounded to nearest even.
struct __half {
    uint16_t bits;
};

inline float __half2float(__half h) {
    const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16;
    const int exponent = h.bits >> 10 & 31;
    const uint32_t fraction = h.bits & 0x3ff;
    float value;
    if (exponent == 31) {
        const uint32_t bits = 0x7f800000 | fraction << 13;
        memcpy(&value, &bits, 4);
    } else if (exponent == 0) {
        value = ldexpf(static_cast<float>(fraction), -24);
    } else {
        const uint32_t bits = static_cast<uint32_t>(exponent + 112) << 23 | fraction << 13;
        memcpy(&value, &bits, 4);
    }
    return sign ? -value : value;
}

inline __half __float2half_rn(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    const float magnitude = fabsf(value);
    if (magnitude != magnitude) {
        return {static_cast<uint16_t>(sign | 0x7fff)};
    }
    if (magnitude >= 65520.0f) {
        return {static_cast<uint16_t>(sign | 0x7c00)};
    }
    if (magnitude < 6.103515625e-5f) { // below the least normal number: a multiple of 2^-24
        return {static_cast<uint16_t>(sign | static_cast<uint16_t>(rintf(ldexpf(magnitude, 24))))};
    }
    const uint32_t plain = bits & 0x7fffffff;
    const uint32_t rounded = plain + 0xfff + (plain >> 13 & 1);
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13))};
}

namespace emulate {
// The block's shared memory, of which a kernel declares one piece. It ends where its page ends, or
// as close as its alignment allows.
void* shared(size_t size, size_t alignment);
void barrier();
[[noreturn]] void fail(const char* what);

inline void check_alignment(const void* p, size_t alignment) {
    if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
        fail("misaligned address");
    }
}
} // namespace emulate

inline void __syncthreads() { emulate::barrier(); }

#define SHARED(type, name)                                                                         \
    type& name = *static_cast<type*>(emulate::shared(sizeof(type), alignof(type)))

namespace nvcuda {
namespace wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
enum layout_t { mem_row_major };

// A warp's fragments are its first thread's; the others only take part in control flow. Values are
// kept as float.
inline bool leads() { return threadIdx.x % 32 == 0; }

template <class Use, int M, int N, int K, class T, class Order = void> struct fragment {
    float x[16][16];
};

inline void fill_fragment(fragment<accumulator, 16, 16, 16, float>& f, float value) {
    for (auto& row : f.x) {
        for (auto& v : row) {
            v = value;
        }
    }
}

template <class Use>
void load_matrix_sync(fragment<Use, 16, 16, 16, __half, row_major>& f, const __half* from,
                      unsigned line) {
    emulate::check_alignment(from, 32);
    emulate::check_alignment(reinterpret_cast<const void*>(line * sizeof(__half)), 16);
    for (int i = 0; leads() && i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            f.x[i][j] = __half2float(from[i * line + j]);
        }
    }
}

inline void mma_sync(fragment<accumulator, 16, 16, 16, float>& d,
                     const fragment<matrix_a, 16, 16, 16, __half, row_major>& a,
                     const fragment<matrix_b, 16, 16, 16, __half, row_major>& b,
                     const fragment<accumulator, 16, 16, 16, float>& c) {
    for (int i = 0; leads() && i < 16; ++i) {
        for (int k = 0; k < 16; ++k) {
            for (int j = 0; j < 16; ++j) {
                d.x[i][j] = (k == 0 ? c.x[i][j] : d.x[i][j]) + a.x[i][k] * b.x[k][j];
            }
        }
    }
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& f,
                              unsigned line, layout_t) {
    emulate::check_alignment(to, 32);
    emulate::check_alignment(reinterpret_cast<const void*>(line * sizeof(float)), 16);
    for (int i = 0; leads() && i < 16; ++i) {
        memcpy(to + i * line, f.x[i], sizeof f.x[i]);
    }
}
} // namespace wmma
} // namespace nvcuda
