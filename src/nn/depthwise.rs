//! Depthwise convolution, channels last: one small kernel a channel, over input that has its zeros
//! around it.

use super::Activation;
use super::matrix::{Bounds, exponential};
use super::simd::{Isa, Kernel, Simd};

/// Output pixels that share the loads of a kernel row: as many as the registers hold with their
/// input.
const TILE: usize = 4;
const WIDE_TILE: usize = 8;
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
    /// Channels outside, so that a vector of channels is read from a lower cache once for all
    /// rows of the kernel. `NEAR`: a kernel row's pixels fit into [`REACH`] registers.
    #[inline(always)]
    unsafe fn all<S: Simd, const NEAR: bool>(&self, kh: usize, kw: usize, stride: usize) {
        let mut c = 0;
        while c < self.channels.len() {
            let lanes = (self.channels.len() - c).min(S::LANES);
            for row in 0..self.rows {
                let mut ox = 0;
                // SAFETY: `ox + T <= out_w`.
                unsafe {
                    while S::WIDE && ox + WIDE_TILE <= self.out_w {
                        if lanes == S::LANES {
                            self.tile::<S, WIDE_TILE, NEAR, true>(
                                row, ox, c, lanes, kh, kw, stride,
                            );
                        } else {
                            self.tile::<S, WIDE_TILE, NEAR, false>(
                                row, ox, c, lanes, kh, kw, stride,
                            );
                        }
                        ox += WIDE_TILE;
                    }
                    while ox + TILE <= self.out_w {
                        if lanes == S::LANES {
                            self.tile::<S, TILE, NEAR, true>(row, ox, c, lanes, kh, kw, stride);
                        } else {
                            self.tile::<S, TILE, NEAR, false>(row, ox, c, lanes, kh, kw, stride);
                        }
                        ox += TILE;
                    }
                    while ox < self.out_w {
                        if lanes == S::LANES {
                            self.tile::<S, 1, NEAR, true>(row, ox, c, lanes, kh, kw, stride);
                        } else {
                            self.tile::<S, 1, NEAR, false>(row, ox, c, lanes, kh, kw, stride);
                        }
                        ox += 1;
                    }
                }
            }
            c += lanes;
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
