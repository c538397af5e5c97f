//! Depthwise convolution, channels last: one small kernel a channel, over input that has its zeros
//! around it.

use super::Activation;
use super::matrix::{Bounds, exponential};
use super::simd::{Isa, Kernel, Simd};

/// Output pixels that share the loads of a kernel row: as many as the registers hold with their
/// input.
const TILE: usize = 4;
const WIDE_TILE: usize = 8;
/// Cache lines of input that the rows of a kernel may span: half of a first-level cache of 32 KiB.
const NEAR_LINES: usize = 256;
/// The most input pixels that a tile of the kernels compiled as constants meets in a row.
const REACH: usize = (WIDE_TILE - 1) * 2 + 5;

/// Weights and what else stays the same over all calls.
pub(super) struct Depthwise {
    pub isa: Isa,
    /// [ky][kx][c].
    pub weights: Vec<f32>,
    /// [c].
    pub bias: Vec<f32>,
    pub c: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub activation: Activation,
}

/// Where the result goes; pixels are `stride` values apart.
#[derive(Clone, Copy)]
pub(super) enum Target {
    F32 { to: *mut f32, stride: usize },
    Bf16 { to: *mut u16, stride: usize },
}

/// Some output rows of one picture, for a range of channels.
///
/// Safety (see [`Kernel::run`]): `input` leads to `(rows - 1) * stride + kernel` rows of `line`
/// values, which hold the pixels that the kernel meets, `pixel` values apart, the first channel of
/// `channels` first; target and residual lead to that channel of the first output pixel and hold
/// `rows * out_w` pixels; nobody else writes them.
pub(super) struct DepthwiseRows<'a> {
    pub op: &'a Depthwise,
    pub channels: std::ops::Range<usize>,
    pub input: *const f32,
    pub pixel: usize,
    pub line: usize,
    pub rows: usize,
    pub out_w: usize,
    pub target: Target,
    /// Of the target's layout; only for f32.
    pub residual: Option<*const f32>,
}

impl Kernel for DepthwiseRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the fields' promise. The usual sizes are compiled as constants.
        unsafe {
            match (self.op.kernel, self.op.stride) {
                ((3, 3), (_, 1)) => self.all::<S, true>(3, 3, 1),
                ((3, 3), (_, 2)) => self.all::<S, true>(3, 3, 2),
                ((5, 5), (_, 1)) => self.all::<S, true>(5, 5, 1),
                ((5, 5), (_, 2)) => self.all::<S, true>(5, 5, 2),
                ((kh, kw), (_, stride)) => self.all::<S, false>(kh, kw, stride),
            }
        }
    }
}

impl DepthwiseRows<'_> {
    /// Channels outside, then blocks of columns, so that what the kernel meets again in the next
    /// row is still in the first-level cache. `NEAR`: a kernel row's pixels fit into [`REACH`]
    /// registers.
    #[inline(always)]
    unsafe fn all<S: Simd, const NEAR: bool>(&self, kh: usize, kw: usize, stride: usize) {
        let columns = (NEAR_LINES / (kh * stride) / WIDE_TILE).max(1) * WIDE_TILE;
        let mut c = 0;
        while c < self.channels.len() {
            let lanes = (self.channels.len() - c).min(S::LANES);
            for from in (0..self.out_w).step_by(columns) {
                let to = (from + columns).min(self.out_w);
                for row in 0..self.rows {
                    // SAFETY: these output pixels are there.
                    unsafe {
                        if lanes == S::LANES {
                            self.pixels::<S, NEAR, true>(row, from..to, c, lanes, kh, kw, stride);
                        } else {
                            self.pixels::<S, NEAR, false>(row, from..to, c, lanes, kh, kw, stride);
                        }
                    }
                }
            }
            c += lanes;
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // constants once inlined
    unsafe fn pixels<S: Simd, const NEAR: bool, const FULL: bool>(
        &self,
        row: usize,
        range: std::ops::Range<usize>,
        c: usize,
        lanes: usize,
        kh: usize,
        kw: usize,
        stride: usize,
    ) {
        let mut ox = range.start;
        // SAFETY: `ox + T <= range.end`.
        unsafe {
            while S::WIDE && ox + WIDE_TILE <= range.end {
                self.tile::<S, WIDE_TILE, NEAR, FULL>(row, ox, c, lanes, kh, kw, stride);
                ox += WIDE_TILE;
            }
            while ox + TILE <= range.end {
                self.tile::<S, TILE, NEAR, FULL>(row, ox, c, lanes, kh, kw, stride);
                ox += TILE;
            }
            while ox < range.end {
                self.tile::<S, 1, NEAR, FULL>(row, ox, c, lanes, kh, kw, stride);
                ox += 1;
            }
        }
    }

    /// `T` neighbouring output pixels, `lanes` channels from `c`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // constants once inlined
    unsafe fn tile<S: Simd, const T: usize, const NEAR: bool, const FULL: bool>(
        &self,
        row: usize,
        ox: usize,
        c: usize,
        lanes: usize,
        kh: usize,
        kw: usize,
        stride: usize,
    ) {
        let op = self.op;
        let channel = self.channels.start + c;
        // SAFETY: rows and pixels that the kernel meets, `lanes` channels of them.
        unsafe {
            let load = |p: *const f32| if FULL { S::load(p) } else { S::load_partial(p, lanes) };
            let mut acc = [load(op.bias.as_ptr().add(channel)); T];
            let first =
                self.input.add(row * op.stride.0 * self.line + ox * stride * self.pixel + c);
            for ky in 0..kh {
                let weights = op.weights.as_ptr().add(ky * kw * op.c + channel);
                let pixels = first.add(ky * self.line);
                if NEAR {
                    // Each pixel is loaded once for all columns of the kernel.
                    let mut x = [S::splat(0.0); REACH];
                    for (i, x) in x.iter_mut().enumerate().take((T - 1) * stride + kw) {
                        *x = load(pixels.add(i * self.pixel));
                    }
                    for kx in 0..kw {
                        let w = load(weights.add(kx * op.c));
                        for (t, acc) in acc.iter_mut().enumerate() {
                            *acc = S::fma(x[t * stride + kx], w, *acc);
                        }
                    }
                } else {
                    for kx in 0..kw {
                        let w = load(weights.add(kx * op.c));
                        for (t, acc) in acc.iter_mut().enumerate() {
                            let x = load(pixels.add((t * stride + kx) * self.pixel));
                            *acc = S::fma(x, w, *acc);
                        }
                    }
                }
            }
            let pixel = row * self.out_w + ox;
            let bounds = Bounds::<S>::of(op.activation);
            // As in the matrix kernel: no branch in these loops, so that they are unrolled.
            match self.target {
                Target::F32 { to, stride } => {
                    if let Some(residual) = self.residual {
                        let residual = residual.add(pixel * stride + c);
                        for (t, y) in acc.iter_mut().enumerate() {
                            *y = S::add(*y, load(residual.add(t * stride)));
                        }
                    }
                    let to = to.add(pixel * stride + c);
                    for (t, y) in acc.iter().enumerate() {
                        let (p, y) = (to.add(t * stride), bounds.apply(*y));
                        if FULL { S::store(p, y) } else { S::store_partial(p, y, lanes) }
                    }
                    if op.activation.is_exponential() {
                        for t in 0..T {
                            exponential::<S>(op.activation, to.add(t * stride), lanes);
                        }
                    }
                }
                Target::Bf16 { to, stride } => {
                    let to = to.add(pixel * stride + c);
                    if op.activation.is_exponential() {
                        for y in &mut acc {
                            let mut values = [0.0f32; 16];
                            S::store(values.as_mut_ptr(), *y);
                            exponential::<S>(op.activation, values.as_mut_ptr(), lanes);
                            *y = S::load(values.as_ptr());
                        }
                    }
                    for (t, y) in acc.iter().enumerate() {
                        S::store_bf16(to.add(t * stride), bounds.apply(*y), lanes);
                    }
                }
            }
        }
    }
}
