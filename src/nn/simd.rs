//! Vector arithmetic behind one trait, so that each kernel is written once and compiled for every
//! instruction set that matters. Which one runs is found at run time.

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, for every machine; on aarch64 the compiler turns it into NEON.
    Portable,
    /// AVX2 with FMA: 8 lanes.
    Avx2,
    /// AVX-512F: 16 lanes.
    Avx512,
    /// AVX-512F with products of pairs of bf16. [`best`](Self::best) does not pick it, because in
    /// f32 it is [`Avx512`](Self::Avx512).
    Avx512Bf16,
}

impl Isa {
    /// The widest set that this machine has. Found out once.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| {
            [Self::Avx512, Self::Avx2]
                .into_iter()
                .find(|isa| isa.is_available())
                .unwrap_or(Self::Portable)
        })
    }

    /// Whether this machine can run kernels of this set.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx512.is_available()
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// f32 values in one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LANES,
            Self::Avx2 => 8,
            Self::Avx512 | Self::Avx512Bf16 => 16,
        }
    }
}

/// f32 vectors of one instruction set.
///
/// # Safety
/// Every method may only be called where the instruction set is there, inside a function that
/// enables it; pointers must be valid for as many values as the method reads or writes.
pub(crate) trait Simd: Copy {
    const LANES: usize;
    /// Output rows in the matrix kernel's tile: as many as the registers hold beside two vectors
    /// of weights.
    const TILE_ROWS: usize;
    /// Whether there are 32 registers instead of 16.
    const WIDE: bool = false;
    type V: Copy;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n` lanes from `p`, the others zero.
    unsafe fn load_partial(p: *const f32, n: usize) -> Self::V;
    /// The first `n` lanes to `p`.
    unsafe fn store_partial(p: *mut f32, v: Self::V, n: usize);
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// The greater of both; `x` where either is not a number.
    unsafe fn max(bound: Self::V, x: Self::V) -> Self::V;
    /// The lesser of both; `x` where either is not a number.
    unsafe fn min(bound: Self::V, x: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2 to the power of whole numbers from -126 to 127.
    unsafe fn power_of_2(n: Self::V) -> Self::V;

    /// Each lane holds two bf16 values, the first in its lower half: `a0 * b0 + a1 * b1 + c`.
    #[inline(always)]
    unsafe fn dot2(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: as this method.
        unsafe { dot2_by_lanes::<Self>(a, b, c) }
    }
    /// The first `n` lanes, rounded to bf16, to `p`.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V, n: usize) {
        // SAFETY: as this method.
        unsafe { store_bf16_by_lanes::<Self>(p, v, n) }
    }

    /// `exp(x)`, to two units in the last place; where the result would be no normal number, the
    /// nearest one.
    ///
    /// Range reduction and polynomial of Moshier's Cephes library (`expf`).
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: arithmetic only.
        unsafe {
            let x = Self::min(Self::splat(88.0), Self::max(Self::splat(-87.3), x));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            // ln 2 in two parts, so that little is lost.
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut y = Self::splat(1.987_569_1e-4);
            for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                y = Self::fma(y, r, Self::splat(c));
            }
            let y = Self::fma(y, Self::mul(r, r), Self::add(r, Self::splat(1.0)));
            Self::mul(y, Self::power_of_2(n))
        }
    }
}

/// More lanes than any set has.
const MOST_LANES: usize = 16;

/// [`Simd::dot2`] without an instruction for it.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn dot2_by_lanes<S: Simd>(a: S::V, b: S::V, c: S::V) -> S::V {
    let [mut x, mut y, mut z] = [[0.0f32; MOST_LANES]; 3];
    let halves = |v: f32| {
        let bits = v.to_bits();
        (f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000))
    };
    // SAFETY: the arrays hold a vector of every set.
    unsafe {
        S::store(x.as_mut_ptr(), a);
        S::store(y.as_mut_ptr(), b);
        S::store(z.as_mut_ptr(), c);
        for ((x, y), z) in x.into_iter().zip(y).zip(&mut z) {
            let ((x0, x1), (y0, y1)) = (halves(x), halves(y));
            *z = x1 * y1 + (x0 * y0 + *z);
        }
        S::load(z.as_ptr())
    }
}

/// [`Simd::store_bf16`] without an instruction for it.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn store_bf16_by_lanes<S: Simd>(p: *mut u16, v: S::V, n: usize) {
    let mut values = [0.0f32; MOST_LANES];
    // SAFETY: the array holds a vector of every set; the caller promises room for `n` values.
    unsafe {
        S::store(values.as_mut_ptr(), v);
        for (i, value) in values.into_iter().enumerate().take(n) {
            *p.add(i) = half::bf16::from_f32(value).to_bits();
        }
    }
}

/// Work that is written once over [`Simd`].
pub(crate) trait Kernel {
    /// Must be `#[inline(always)]`, so that it is compiled with the features of its caller.
    ///
    /// # Safety
    /// As [`Simd`], and whatever the kernel asks of its fields.
    unsafe fn run<S: Simd>(self);
}

/// Runs a kernel compiled for `isa`.
///
/// # Safety
/// `isa` must be available on this machine; the kernel's own conditions hold.
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) {
    // SAFETY: the caller promises that the instruction set is there.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::run_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => x86::run_avx512_bf16(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::run_avx2(kernel),
            _ => kernel.run::<Portable>(),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn fma1(a: f32, b: f32, c: f32) -> f32 {
        // Where the machine has no fused form, `mul_add` is a slow call into the C library.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
}

// SAFETY of the implementation: only reads and writes that the trait's contract allows.
impl Simd for Portable {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;
    type V = [f32; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller promises four values at `p`.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller promises room for four values at `p`.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; 4];
        for (i, lane) in v.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` values at `p`.
            *lane = unsafe { *p.add(i) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, v: Self::V, n: usize) {
        for (i, lane) in v.iter().enumerate().take(n) {
            // SAFETY: the caller promises room for `n` values at `p`.
            unsafe { *p.add(i) = *lane };
        }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| Self::fma1(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn max(bound: Self::V, x: Self::V) -> Self::V {
        std::array::from_fn(|i| if bound[i] > x[i] { bound[i] } else { x[i] })
    }
    #[inline(always)]
    unsafe fn min(bound: Self::V, x: Self::V) -> Self::V {
        std::array::from_fn(|i| if bound[i] < x[i] { bound[i] } else { x[i] })
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn power_of_2(n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Simd, dot2_by_lanes, store_bf16_by_lanes};

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) {
        // SAFETY: the features are enabled here; the rest is the caller's promise.
        unsafe { kernel.run::<Avx512<false>>() }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) {
        // SAFETY: as above.
        unsafe { kernel.run::<Avx512<true>>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) {
        // SAFETY: as above.
        unsafe { kernel.run::<Avx2>() }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    impl Avx2 {
        /// All ones in the first `n` lanes.
        #[inline(always)]
        unsafe fn mask(n: usize) -> __m256i {
            // SAFETY: AVX2 is there by the trait's contract.
            unsafe {
                let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane)
            }
        }
    }

    // SAFETY of every block below: the instruction set is there and the pointers are valid by the
    // trait's contract; no alignment is asked for.
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;
        type V = __m256;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_partial(p: *const f32, n: usize) -> Self::V {
            unsafe { _mm256_maskload_ps(p, Self::mask(n)) }
        }
        #[inline(always)]
        unsafe fn store_partial(p: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm256_maskstore_ps(p, Self::mask(n), v) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(bound: Self::V, x: Self::V) -> Self::V {
            unsafe { _mm256_max_ps(bound, x) }
        }
        #[inline(always)]
        unsafe fn min(bound: Self::V, x: Self::V) -> Self::V {
            unsafe { _mm256_min_ps(bound, x) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn round(v: Self::V) -> Self::V {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
        }
        #[inline(always)]
        unsafe fn power_of_2(n: Self::V) -> Self::V {
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
        }
    }

    /// With products of pairs of bf16 or without.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512<const BF16: bool>;

    impl<const BF16: bool> Avx512<BF16> {
        /// A bit for each of the first `n` lanes; `n` is at most 16.
        #[inline(always)]
        fn mask(n: usize) -> __mmask16 {
            ((1u32 << n) - 1) as __mmask16
        }
    }

    impl<const BF16: bool> Simd for Avx512<BF16> {
        const LANES: usize = 16;
        const TILE_ROWS: usize = 8;
        const WIDE: bool = true;
        type V = __m512;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_partial(p: *const f32, n: usize) -> Self::V {
            unsafe { _mm512_maskz_loadu_ps(Self::mask(n), p) }
        }
        #[inline(always)]
        unsafe fn store_partial(p: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm512_mask_storeu_ps(p, Self::mask(n), v) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(bound: Self::V, x: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(bound, x) }
        }
        #[inline(always)]
        unsafe fn min(bound: Self::V, x: Self::V) -> Self::V {
            unsafe { _mm512_min_ps(bound, x) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn round(v: Self::V) -> Self::V {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
        }
        #[inline(always)]
        unsafe fn power_of_2(n: Self::V) -> Self::V {
            unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
        }
        #[inline(always)]
        unsafe fn dot2(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: bf16 values are plain bits; `BF16` says that the instruction is there.
            unsafe {
                if BF16 {
                    let bits = |v: __m512| std::mem::transmute::<__m512, __m512bh>(v);
                    _mm512_dpbf16_ps(c, bits(a), bits(b))
                } else {
                    dot2_by_lanes::<Self>(a, b, c)
                }
            }
        }
        #[inline(always)]
        unsafe fn store_bf16(p: *mut u16, v: Self::V, n: usize) {
            // SAFETY: as above.
            unsafe {
                if BF16 {
                    let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                    if n == 16 {
                        _mm256_storeu_si256(p.cast(), rounded);
                    } else {
                        _mm256_mask_storeu_epi16(p.cast(), Self::mask(n), rounded);
                    }
                } else {
                    store_bf16_by_lanes::<Self>(p, v, n);
                }
            }
        }
    }
}
