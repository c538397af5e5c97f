// Convolutions and linear layers in f32: a matrix product whose left side is gathered from the
// picture on the way into shared memory (implicit GEMM). Pointwise convolutions and linear layers
// are the case where nothing needs gathering.
//
// An output value is one chain: bias, then one fused multiply-add for each k in ascending order
// ([ky][kx][channel]), then residual and activation. All tile shapes give the same bits, and so
// does the CPU.
#include "conv.cuh"

// Places k in shared memory at a time.
constexpr int DEPTH = 16;

template <int BM, int BN> struct alignas(16) ConvTiles {
    // k outermost; a little wider than the tile, so that transposed stores meet fewer conflicts.
    float a[2][DEPTH][BM + 4];
    float b[2][DEPTH][BN];
    Rows<BM> rows;
};

// BM output pixels by BN output channels a block, TM by TN a thread in groups of four.
template <int BM, int BN, int TM, int TN, bool POINTWISE, bool VECTOR>
__device__ __forceinline__ void conv_tile(const float* __restrict__ x,
                                          const float* __restrict__ weights,
                                          const float* __restrict__ bias,
                                          const float* __restrict__ residual,
                                          float* __restrict__ y, const ConvParams& p) {
    constexpr int COLUMNS = BN / TN; // threads beside one another
    constexpr int THREADS = COLUMNS * (BM / TM);
    constexpr int LANES = VECTOR ? 4 : 1;
    // Each thread fetches the same place k of several rows.
    constexpr int PLACES = DEPTH / LANES;
    constexpr int A_LOADS = BM * PLACES / THREADS;
    constexpr int A_STEP = THREADS / PLACES;
    constexpr int B_LOADS = DEPTH * BN / 4 / THREADS;
    static_assert(THREADS % PLACES == 0 && BM * PLACES % THREADS == 0, "tile");
    static_assert(DEPTH * BN / 4 % THREADS == 0 && TM % 4 == 0 && TN % 4 == 0, "tile");

    typedef ConvTiles<BM, BN> Tiles;
    SHARED(Tiles, tiles);
    const int thread = threadIdx.x;
    const long long first_row = static_cast<long long>(blockIdx.x) * BM;
    const int first_column = blockIdx.y * BN;
    find_rows<BM, THREADS, POINTWISE>(tiles.rows, first_row, p);
    __syncthreads();

    const int place = thread % PLACES * LANES, fetch_row = thread / PLACES;
    Lanes<LANES> a_next[A_LOADS];
    float4 b_next[B_LOADS];
    auto fetch = [&](int k0) {
        const Tap tap = tap_at<POINTWISE>(k0 + place, p);
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
            const int row = fetch_row + i * A_STEP;
            if (meets<BM, POINTWISE>(tiles.rows, row, tap, p)) {
                a_next[i] = Lanes<LANES>::load(x + (tiles.rows.base[row] + tap.offset));
            } else {
                for (int l = 0; l < LANES; ++l) {
                    a_next[i].v[l] = 0.0f;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            const int quad = thread + i * THREADS;
            const int k = k0 + quad / (BN / 4), column = first_column + quad % (BN / 4) * 4;
            b_next[i] = load4(weights + (static_cast<long long>(k) * p.out_padded + column));
        }
    };
    auto put = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
#pragma unroll
            for (int l = 0; l < LANES; ++l) {
                tiles.a[buffer][place + l][fetch_row + i * A_STEP] = a_next[i].v[l];
            }
        }
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            const int quad = thread + i * THREADS;
            store4(&tiles.b[buffer][quad / (BN / 4)][quad % (BN / 4) * 4], b_next[i]);
        }
    };

    // A thread's rows and columns are groups of four, a whole tile's width of threads apart.
    const int my_row = thread / COLUMNS * 4, my_column = thread % COLUMNS * 4;
    constexpr int ROW_STEP = BM / (TM / 4), COLUMN_STEP = BN / (TN / 4);
    float acc[TM][TN];
#pragma unroll
    for (int j = 0; j < TN; ++j) {
        const float b = bias[first_column + my_column + j / 4 * COLUMN_STEP + j % 4];
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            acc[i][j] = b;
        }
    }

    fetch(0);
    put(0);
    __syncthreads();
    const int steps = (p.k + DEPTH - 1) / DEPTH;
    for (int step = 0; step < steps; ++step) {
        const bool more = step + 1 < steps;
        if (more) {
            fetch((step + 1) * DEPTH);
        }
        const int buffer = step & 1;
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
            float a[TM], b[TN];
#pragma unroll
            for (int g = 0; g < TM / 4; ++g) {
                const float4 four = load4(&tiles.a[buffer][k][my_row + g * ROW_STEP]);
                a[g * 4] = four.x;
                a[g * 4 + 1] = four.y;
                a[g * 4 + 2] = four.z;
                a[g * 4 + 3] = four.w;
            }
#pragma unroll
            for (int g = 0; g < TN / 4; ++g) {
                const float4 four = load4(&tiles.b[buffer][k][my_column + g * COLUMN_STEP]);
                b[g * 4] = four.x;
                b[g * 4 + 1] = four.y;
                b[g * 4 + 2] = four.z;
                b[g * 4 + 3] = four.w;
            }
#pragma unroll
            for (int i = 0; i < TM; ++i) {
#pragma unroll
                for (int j = 0; j < TN; ++j) {
                    acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
                }
            }
        }
        if (more) {
            // The other buffer was read in the step before, which the last barrier ended.
            put(buffer ^ 1);
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const long long row = first_row + my_row + i / 4 * ROW_STEP + i % 4;
        if (row >= p.rows) {
            continue;
        }
#pragma unroll
        for (int g = 0; g < TN / 4; ++g) {
            const int column = first_column + my_column + g * COLUMN_STEP;
            const long long at = row * p.out + column;
            if (p.vector_out) {
                // `out` is a multiple of four: a group is whole or absent.
                if (column < p.out) {
                    float4 v = make_float4(acc[i][g * 4], acc[i][g * 4 + 1], acc[i][g * 4 + 2],
                                           acc[i][g * 4 + 3]);
                    if (residual != nullptr) {
                        const float4 r = load4(residual + at);
                        v = make_float4(v.x + r.x, v.y + r.y, v.z + r.z, v.w + r.w);
                    }
                    store4(y + at,
                           make_float4(bounded(v.x, p.activation), bounded(v.y, p.activation),
                                       bounded(v.z, p.activation), bounded(v.w, p.activation)));
                }
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (column + j < p.out) {
                        float v = acc[i][g * 4 + j];
                        if (residual != nullptr) {
                            v += residual[at + j];
                        }
                        y[at + j] = bounded(v, p.activation);
                    }
                }
            }
        }
    }
    if (is_exponential(p.activation)) {
        // Over what this thread has just written.
#pragma unroll 1
        for (int i = 0; i < TM * TN; ++i) {
            const int r = i / TN, c = i % TN;
            const long long row = first_row + my_row + r / 4 * ROW_STEP + r % 4;
            const int column = first_column + my_column + c / 4 * COLUMN_STEP + c % 4;
            if (row < p.rows && column < p.out) {
                const long long at = row * p.out + column;
                y[at] = exponential(y[at], p.activation);
            }
        }
    }
}

// Tiles as src/nn/gpu/conv.rs knows them.
#define CONV(name, bm, bn, tm, tn, pointwise, vector)                                              \
    extern "C" __global__ void __launch_bounds__(bm / tm * (bn / tn))                              \
        name(const float* x, const float* weights, const float* bias, const float* residual,       \
             float* y, ConvParams p) {                                                             \
        conv_tile<bm, bn, tm, tn, pointwise, vector>(x, weights, bias, residual, y, p);            \
    }

CONV(conv_f32_large_pointwise_vector, 128, 64, 8, 8, true, true)
CONV(conv_f32_large_pointwise_scalar, 128, 64, 8, 8, true, false)
CONV(conv_f32_large_standard_vector, 128, 64, 8, 8, false, true)
CONV(conv_f32_large_standard_scalar, 128, 64, 8, 8, false, false)
CONV(conv_f32_small_pointwise_vector, 64, 32, 4, 4, true, true)
CONV(conv_f32_small_pointwise_scalar, 64, 32, 4, 4, true, false)
CONV(conv_f32_small_standard_vector, 64, 32, 4, 4, false, true)
CONV(conv_f32_small_standard_scalar, 64, 32, 4, 4, false, false)
