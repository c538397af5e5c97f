//! Depthwise convolution, channels last: one small kernel a channel.

use super::matrix::Bounds;
use super::simd::{Kernel, Simd};
use super::{Activation, OutputPtr};

/// Output pixels that share the loads of one kernel row.
const TILE: usize = 4;

/// What stays the same over all rows of a call.
pub(super) struct Depthwise<'a> {
    /// [n, h, w, c].
    pub input: &'a [f32],
    /// [ky][kx][c].
    pub weights: &'a [f32],
    pub bias: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub out: OutputPtr,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub out_w: usize,
    pub out_h: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    /// Zeros above and to the left.
    pub pad: (usize, usize),
    pub activation: Activation,
}

/// A range of output rows, counted over the whole batch.
///
/// Safety (see [`Kernel::run`]): the slices and the output have the sizes that the fields of
/// [`Depthwise`] say; nobody else writes these rows.
pub(super) struct DepthwiseRows<'a, 'b> {
    pub op: &'b Depthwise<'a>,
    pub rows: std::ops::Range<usize>,
}

impl Kernel for DepthwiseRows<'_, '_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let op = self.op;
        for row in self.rows {
            // SAFETY: the fields' promise. The usual sizes are compiled as constants.
            unsafe {
                match (op.kernel, op.stride) {
                    ((3, 3), (_, 1)) => op.row::<S>(row, 3, 1),
                    ((3, 3), (_, 2)) => op.row::<S>(row, 3, 2),
                    ((5, 5), (_, 1)) => op.row::<S>(row, 5, 1),
                    ((5, 5), (_, 2)) => op.row::<S>(row, 5, 2),
                    _ => op.row::<S>(row, op.kernel.1, op.stride.1),
                }
            }
        }
    }
}

impl Depthwise<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, row: usize, kw: usize, stride: usize) {
        let (image, oy) = (row / self.out_h, row % self.out_h);
        // Rows of the kernel that meet the picture; the others meet zeros.
        let top = oy * self.stride.0;
        let first = self.pad.0.saturating_sub(top);
        let last = self.kernel.0.min((self.h + self.pad.0).saturating_sub(top));
        let line = Line {
            input: image * self.h * self.w * self.c,
            ky: first..last.max(first),
            iy: (top + first).saturating_sub(self.pad.0),
            out: row * self.out_w * self.c,
        };
        // Output pixels whose whole kernel row lies inside the picture.
        let from = self.pad.1.div_ceil(stride).min(self.out_w);
        let to = match (self.w + self.pad.1).checked_sub(kw) {
            Some(room) => (room / stride + 1).clamp(from, self.out_w),
            None => from,
        };
        // SAFETY: tiles of 4 only inside from..to; the edges look at each column by itself.
        unsafe {
            for ox in 0..from {
                self.edge::<S>(&line, ox, kw, stride);
            }
            let mut ox = from;
            while ox + TILE <= to {
                self.pixels::<S, TILE>(&line, ox, 0..kw, kw, stride);
                ox += TILE;
            }
            while ox < to {
                self.pixels::<S, 1>(&line, ox, 0..kw, kw, stride);
                ox += 1;
            }
            for ox in to..self.out_w {
                self.edge::<S>(&line, ox, kw, stride);
            }
        }
    }

    #[inline(always)]
    unsafe fn edge<S: Simd>(&self, line: &Line, ox: usize, kw: usize, stride: usize) {
        let left = ox * stride;
        let first = self.pad.1.saturating_sub(left).min(kw);
        let last = kw.min((self.w + self.pad.1).saturating_sub(left)).max(first);
        // SAFETY: kx is limited to columns inside the picture.
        unsafe { self.pixels::<S, 1>(line, ox, first..last, kw, stride) }
    }

    /// `T` neighbouring output pixels, all channels, over columns `kx` of the kernel.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const T: usize>(
        &self,
        line: &Line,
        ox: usize,
        kx: std::ops::Range<usize>,
        kw: usize,
        stride: usize,
    ) {
        let mut channel = 0;
        // SAFETY: `channel + LANES <= c` in the first loop; the second reads and writes only the
        // channels that are left.
        unsafe {
            while channel + S::LANES <= self.c {
                self.vector::<S, T, true>(line, ox, kx.clone(), kw, stride, channel, S::LANES);
                channel += S::LANES;
            }
            if channel < self.c {
                let left = self.c - channel;
                self.vector::<S, T, false>(line, ox, kx.clone(), kw, stride, channel, left);
            }
        }
        if let Some(f) = self.activation.exponential() {
            for at in line.out + ox * self.c..line.out + (ox + T) * self.c {
                // SAFETY: these values were written above, by this task.
                unsafe { *self.out.at(at) = f(*self.out.at(at)) };
            }
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // constants once inlined
    unsafe fn vector<S: Simd, const T: usize, const FULL: bool>(
        &self,
        line: &Line,
        ox: usize,
        kx: std::ops::Range<usize>,
        kw: usize,
        stride: usize,
        channel: usize,
        lanes: usize,
    ) {
        // SAFETY: kernel rows and columns that lie inside the picture, `lanes` channels of them.
        unsafe {
            let load = |p: *const f32| {
                if FULL { S::load(p) } else { S::load_partial(p, lanes) }
            };
            let mut acc = [load(self.bias.as_ptr().add(channel)); T];
            for (dy, ky) in line.ky.clone().enumerate() {
                let weights = self.weights.as_ptr().add(ky * kw * self.c + channel);
                let pixels = self
                    .input
                    .as_ptr()
                    .add(line.input + (line.iy + dy) * self.w * self.c + channel);
                for kx in kx.clone() {
                    let w = load(weights.add(kx * self.c));
                    for (t, acc) in acc.iter_mut().enumerate() {
                        // Not below 0: the columns outside were left out.
                        let ix = (ox + t) * stride + kx - self.pad.1;
                        *acc = S::fma(load(pixels.add(ix * self.c)), w, *acc);
                    }
                }
            }
            // As in the matrix kernel: no branch in these loops, so that they are unrolled.
            let first = line.out + ox * self.c + channel;
            if let Some(residual) = self.residual {
                let residual = residual.as_ptr().add(first);
                for (t, y) in acc.iter_mut().enumerate() {
                    *y = S::add(*y, load(residual.add(t * self.c)));
                }
            }
            let bounds = Bounds::<S>::of(self.activation);
            let out = self.out.at(first);
            for (t, y) in acc.iter().enumerate() {
                let (p, y) = (out.add(t * self.c), bounds.apply(*y));
                if FULL { S::store(p, y) } else { S::store_partial(p, y, lanes) }
            }
        }
    }
}

/// One output row: offsets of the image and of the row, the kernel rows that count, and the input
/// row that the first of them meets.
struct Line {
    input: usize,
    ky: std::ops::Range<usize>,
    iy: usize,
    out: usize,
}
