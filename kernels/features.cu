// The spectral front end of src/speech/features.rs: level, Fourier transforms, power in bands, and
// how it moves around each band's mean. Sums over a window are f64, as on the CPU. The transform is
// f64 too: it is little work, and so only the CPU's own rounding is left between the two.
#include "common.cuh"

// As src/nn/gpu/features.rs lays it out.
struct SpectrumParams {
    int samples; // in a window
    int hop, frames;
    int first_bin, bands; // bands of two bins each
    float log_floor, offset, scale;
    double target_rms, min_rms, band_floor, abs_floor;
};

namespace {
constexpr int FFT = 512, LOG_FFT = 9;
constexpr int BUTTERFLIES = FFT / 2; // of a stage; also threads in a block
constexpr int MAX_BANDS = 128;

struct LevelShared {
    double sums[BUTTERFLIES];
};

// The sum over all threads, in a fixed order.
__device__ __forceinline__ double sum_of_all(LevelShared& shared, double mine) {
    shared.sums[threadIdx.x] = mine;
    __syncthreads();
    for (int half = BUTTERFLIES / 2; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.x) < half) {
            shared.sums[threadIdx.x] += shared.sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    const double sum = shared.sums[0];
    __syncthreads(); // before the next sum overwrites it
    return sum;
}

struct FftShared {
    double re[2][FFT];
    double im[2][FFT];
};

struct LogShared {
    double means[MAX_BANDS];
    double overall;
};
} // namespace

// levels: [n, 2], a window's mean and gain. One block a window.
extern "C" __global__ void __launch_bounds__(BUTTERFLIES)
    spectrum_level(const float* samples, float* levels, SpectrumParams p) {
    SHARED(LevelShared, shared);
    const float* window = samples + static_cast<long long>(blockIdx.x) * p.samples;
    double sum = 0.0;
    for (int i = threadIdx.x; i < p.samples; i += BUTTERFLIES) {
        sum += static_cast<double>(window[i]);
    }
    const float mean = static_cast<float>(sum_of_all(shared, sum) / p.samples);
    sum = 0.0;
    for (int i = threadIdx.x; i < p.samples; i += BUTTERFLIES) {
        const double v = static_cast<double>(window[i] - mean);
        sum += v * v;
    }
    const double rms = sqrt(sum_of_all(shared, sum) / p.samples);
    if (threadIdx.x == 0) {
        levels[2 * static_cast<long long>(blockIdx.x)] = mean;
        levels[2 * static_cast<long long>(blockIdx.x) + 1] =
            static_cast<float>(p.target_rms / (rms > p.min_rms ? rms : p.min_rms));
    }
}

// tables: Hann window [FFT], then cos and -sin of 2 pi k / FFT, [FFT / 2] each.
// power: [n, bands, frames]. A block transforms two frames as the real and the imaginary part of
// one; grid: pairs of frames by windows.
extern "C" __global__ void __launch_bounds__(BUTTERFLIES)
    spectrum_power(const float* samples, const float* levels, const double* tables, float* power,
                   SpectrumParams p) {
    SHARED(FftShared, shared);
    const long long n = blockIdx.x;
    const int thread = threadIdx.x;
    const int frame = 2 * blockIdx.y;
    const bool both = frame + 1 < p.frames;
    const float* window = samples + n * p.samples;
    const float mean = levels[2 * n], gain = levels[2 * n + 1];
    for (int i = thread; i < FFT; i += BUTTERFLIES) {
        const int at = frame * p.hop + i;
        const float hann = static_cast<float>(tables[i]);
        shared.re[0][i] = static_cast<double>((window[at] - mean) * gain * hann);
        shared.im[0][i] =
            both ? static_cast<double>((window[at + p.hop] - mean) * gain * hann) : 0.0;
    }
    __syncthreads();
    // Stockham's form, radix 2: needs no bit reversal. Before a stage, runs of `run` values are
    // transformed.
    int from = 0;
    for (int stage = 0; stage < LOG_FFT; ++stage) {
        const int run = 1 << stage;
        const int k = thread & (run - 1);
        const int turn = k * (FFT / 2 / run);
        const double c = tables[FFT + turn], s = tables[FFT + FFT / 2 + turn];
        const double ar = shared.re[from][thread], ai = shared.im[from][thread];
        const double br = shared.re[from][thread + FFT / 2], bi = shared.im[from][thread + FFT / 2];
        const double tr = br * c - bi * s, ti = br * s + bi * c;
        const int to = (thread - k) * 2 + k;
        shared.re[from ^ 1][to] = ar + tr;
        shared.im[from ^ 1][to] = ai + ti;
        shared.re[from ^ 1][to + run] = ar - tr;
        shared.im[from ^ 1][to + run] = ai - ti;
        from ^= 1;
        __syncthreads();
    }
    if (thread < p.bands) {
        double first = 0.0, second = 0.0;
        for (int i = 0; i < 2; ++i) {
            const int bin = p.first_bin + 2 * thread + i;
            const double zr = shared.re[from][bin], zi = shared.im[from][bin];
            const double mr = shared.re[from][FFT - bin], mi = shared.im[from][FFT - bin];
            const double ar = 0.5 * (zr + mr), ai = 0.5 * (zi - mi);
            const double br = 0.5 * (zi + mi), bi = 0.5 * (mr - zr);
            first += ar * ar + ai * ai;
            second += br * br + bi * bi;
        }
        float* to = power + ((n * p.bands + thread) * p.frames + frame);
        to[0] = static_cast<float>(first);
        if (both) {
            to[1] = static_cast<float>(second);
        }
    }
}

// In place: power → features. One block of MAX_BANDS threads a window.
extern "C" __global__ void __launch_bounds__(MAX_BANDS)
    spectrum_log(float* features, SpectrumParams p) {
    SHARED(LogShared, shared);
    const int thread = threadIdx.x;
    float* window = features + static_cast<long long>(blockIdx.x) * p.bands * p.frames;
    if (thread < p.bands) {
        const float* band = window + thread * p.frames;
        double sum = 0.0;
        for (int t = 0; t < p.frames; ++t) {
            sum += static_cast<double>(band[t]);
        }
        shared.means[thread] = sum / p.frames;
    }
    __syncthreads();
    if (thread == 0) {
        double sum = 0.0;
        for (int b = 0; b < p.bands; ++b) {
            sum += shared.means[b];
        }
        shared.overall = sum / p.bands;
    }
    __syncthreads();
    for (int i = thread; i < p.bands * p.frames; i += MAX_BANDS) {
        const double mean = shared.means[i / p.frames];
        const double floors = p.band_floor * shared.overall + p.abs_floor;
        const float scale = static_cast<float>(1.0 / (mean + floors));
        window[i] = p.scale * (logf(window[i] * scale + p.log_floor) + p.offset);
    }
}
