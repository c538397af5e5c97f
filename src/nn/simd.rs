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
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// f32 values in one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::LANES,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Simd};

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) {
        // SAFETY: the features are enabled here; the rest is the caller's promise.
        unsafe { kernel.run::<Avx512>() }
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
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    impl Avx512 {
        /// A bit for each of the first `n` lanes; `n` is at most 16.
        #[inline(always)]
        fn mask(n: usize) -> __mmask16 {
            ((1u32 << n) - 1) as __mmask16
        }
    }

    impl Simd for Avx512 {
        const LANES: usize = 16;
        const TILE_ROWS: usize = 8;
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
    }
}
