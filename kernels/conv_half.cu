// Standard and pointwise convolutions whose values are stored as half and multiplied by the tensor
// cores, with sums in f32. Bias, residual and activation are f32 too; only what is stored is
// rounded.
#include "conv.cuh"

namespace {
constexpr int BM = 64, BN = 64, BK = 32, THREADS = 128;
// Pads keep the rows of a fragment on different banks and its corners on 32 bytes.
constexpr int A_LINE = BK + 8, B_LINE = BN + 8, C_LINE = BN + 4;

struct alignas(32) HalfTiles {
    __half a[BM * A_LINE];
    __half b[BK * B_LINE];
    float c[BM * C_LINE];
    Rows<BM> rows;
};

struct alignas(16) Half8 {
    __half v[8];
};

template <bool POINTWISE, bool VECTOR>
__device__ __forceinline__ void conv_half_tile(const __half* __restrict__ x,
                                               const __half* __restrict__ weights,
                                               const float* __restrict__ bias,
                                               const __half* __restrict__ residual,
                                               __half* __restrict__ y, const ConvParams& p) {
    using namespace nvcuda;
    constexpr int LANES = VECTOR ? 4 : 1;
    constexpr int PLACES = BK / LANES, A_LOADS = BM * PLACES / THREADS, A_STEP = THREADS / PLACES;
    constexpr int B_LOADS = BK * BN / 8 / THREADS;

    SHARED(HalfTiles, tiles);
    const int thread = threadIdx.x, warp = thread / 32;
    const long long first_row = static_cast<long long>(blockIdx.x) * BM;
    const int first_column = blockIdx.y * BN;
    find_rows<BM, THREADS, POINTWISE>(tiles.rows, first_row, p);

    // Four warps, 32 by 32 outputs each.
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc[2][2];
    for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
            wmma::fill_fragment(acc[i][j], 0.0f);
        }
    }
    const int place = thread % PLACES * LANES, fetch_row = thread / PLACES;
    for (int k0 = 0; k0 < p.k; k0 += BK) {
        // The rows are known; everyone is done with the tiles before.
        __syncthreads();
        const Tap tap = tap_at<POINTWISE>(k0 + place, p);
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
            const int row = fetch_row + i * A_STEP;
            __half* to = &tiles.a[row * A_LINE + place];
            const bool there = meets<BM, POINTWISE>(tiles.rows, row, tap, p);
            const __half* from = x + (there ? tiles.rows.base[row] + tap.offset : 0);
            if (VECTOR) {
                Half4 four;
                if (there) {
                    four = *reinterpret_cast<const Half4*>(from);
                } else {
                    for (int l = 0; l < 4; ++l) {
                        four.v[l] = __float2half_rn(0.0f);
                    }
                }
                *reinterpret_cast<Half4*>(to) = four;
            } else {
                *to = there ? *from : __float2half_rn(0.0f);
            }
        }
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            const int eight = thread + i * THREADS;
            const int k = eight / (BN / 8), column = eight % (BN / 8) * 8;
            const long long at = static_cast<long long>(k0 + k) * p.out_padded + first_column;
            *reinterpret_cast<Half8*>(&tiles.b[k * B_LINE + column]) =
                *reinterpret_cast<const Half8*>(weights + (at + column));
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a[2];
            wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> b[2];
            for (int i = 0; i < 2; ++i) {
                const int row = warp_row + i * 16, column = warp_column + i * 16;
                wmma::load_matrix_sync(a[i], &tiles.a[row * A_LINE + k], A_LINE);
                wmma::load_matrix_sync(b[i], &tiles.b[k * B_LINE + column], B_LINE);
            }
            for (int i = 0; i < 2; ++i) {
                for (int j = 0; j < 2; ++j) {
                    wmma::mma_sync(acc[i][j], a[i], b[j], acc[i][j]);
                }
            }
        }
    }
    for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
            float* to = &tiles.c[(warp_row + i * 16) * C_LINE + warp_column + j * 16];
            wmma::store_matrix_sync(to, acc[i][j], C_LINE, wmma::mem_row_major);
        }
    }
    __syncthreads();

    for (int quad = thread; quad < BM * BN / 4; quad += THREADS) {
        const int i = quad / (BN / 4), j = quad % (BN / 4) * 4;
        const long long row = first_row + i;
        const int column = first_column + j;
        if (row >= p.rows || column >= p.out) {
            continue;
        }
        const long long at = row * p.out + column;
        const float4 sum = load4(&tiles.c[i * C_LINE + j]);
        float v[4] = {sum.x + bias[column], sum.y + bias[column + 1], sum.z + bias[column + 2],
                      sum.w + bias[column + 3]};
        const int lanes = p.vector_out ? 4 : (p.out - column < 4 ? p.out - column : 4);
        if (residual != nullptr) {
            for (int l = 0; l < lanes; ++l) {
                v[l] += load1(residual + (at + l));
            }
        }
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            v[l] = activate(v[l], p.activation);
        }
        if (p.vector_out) {
            store4(y + at, make_float4(v[0], v[1], v[2], v[3]));
        } else {
            for (int l = 0; l < lanes; ++l) {
                store1(y + (at + l), v[l]);
            }
        }
    }
}
} // namespace

#define CONV_HALF(name, pointwise, vector)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                          \
        name(const __half* x, const __half* weights, const float* bias, const __half* residual,    \
             __half* y, ConvParams p) {                                                            \
        conv_half_tile<pointwise, vector>(x, weights, bias, residual, y, p);                       \
    }

CONV_HALF(conv_f16_pointwise_vector, true, true)
CONV_HALF(conv_f16_pointwise_scalar, true, false)
CONV_HALF(conv_f16_standard_vector, false, true)
CONV_HALF(conv_f16_standard_scalar, false, false)
