//! The matrix kernel under convolutions and linear layers: rows of activations, found by pointer,
//! times packed weights, with bias, residual and activation applied before the result is stored.

use super::simd::{Isa, Kernel, Simd};
use super::{Activation, OutputPtr};

/// 16 values on their own cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
struct Line([f32; 16]);

/// Weights [out, k] cut into panels of two vectors of output channels (one, where no more are
/// left), within a panel ordered [k][channel] and padded with zeros.
pub(super) struct Packed {
    isa: Isa,
    lines: Vec<Line>,
    /// As long as all panels together; zero where a layer has none.
    bias: Vec<f32>,
    pub k: usize,
    pub out: usize,
}

/// One panel of [`Packed`].
#[derive(Clone, Copy)]
struct Panel {
    /// First output channel.
    channel: usize,
    /// Output channels that are there.
    channels: usize,
    vectors: usize,
    /// Of its first value in the packed weights.
    offset: usize,
}

impl Packed {
    /// `at(o, i)` is the weight of output `o` for input value `i`.
    pub fn new(
        isa: Isa,
        out: usize,
        k: usize,
        at: impl Fn(usize, usize) -> f32,
        bias: Option<&[f32]>,
    ) -> Self {
        let mut packed = Self { isa, lines: Vec::new(), bias: Vec::new(), k, out };
        let lanes = isa.lanes();
        let padded = out.div_ceil(lanes) * lanes;
        packed.bias = vec![0.0; padded];
        if let Some(bias) = bias {
            packed.bias[..out].copy_from_slice(bias);
        }
        packed.lines = vec![Line::default(); (padded * k).div_ceil(16)];
        for p in 0..packed.panels() {
            let panel = packed.panel(p);
            let width = panel.vectors * lanes;
            let values: &mut [f32] = bytemuck::cast_slice_mut(&mut packed.lines);
            for i in 0..k {
                for c in 0..panel.channels {
                    values[panel.offset + i * width + c] = at(panel.channel + c, i);
                }
            }
        }
        packed
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn panels(&self) -> usize {
        self.out.div_ceil(2 * self.isa.lanes())
    }

    fn panel(&self, index: usize) -> Panel {
        let lanes = self.isa.lanes();
        let channel = index * 2 * lanes;
        let channels = (self.out - channel).min(2 * lanes);
        // All panels before this one are full.
        Panel { channel, channels, vectors: channels.div_ceil(lanes), offset: channel * self.k }
    }
}

/// Rows `rows` of the output, for panels `panels` of the weights. `row(r)` points at the first of
/// `segments` runs of `k / segments` input values that belong to output row `r`; the runs are
/// `segment_stride` apart.
///
/// Safety (see [`Kernel::run`]): every run that `row` leads to is readable; `out` and `residual`
/// hold [rows.end, weights.out] values; nobody else writes these rows and panels.
pub(super) struct RowsTimesPanels<'a, R: Fn(usize) -> *const f32> {
    pub weights: &'a Packed,
    pub row: R,
    pub segments: usize,
    pub segment_stride: usize,
    pub rows: std::ops::Range<usize>,
    pub panels: std::ops::Range<usize>,
    pub out: OutputPtr,
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl<R: Fn(usize) -> *const f32> Kernel for RowsTimesPanels<'_, R> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for index in self.panels.clone() {
            let panel = self.weights.panel(index);
            // SAFETY: the fields' promise.
            unsafe {
                if panel.vectors == 2 {
                    self.panel::<S, 2>(panel);
                } else {
                    self.panel::<S, 1>(panel);
                }
            }
        }
    }
}

impl<R: Fn(usize) -> *const f32> RowsTimesPanels<'_, R> {
    #[inline(always)]
    unsafe fn panel<S: Simd, const V: usize>(&self, panel: Panel) {
        let mut r = self.rows.start;
        // SAFETY: the fields' promise; the tiles cover exactly `rows`.
        unsafe {
            // `TILE_ROWS` cannot be a constant argument; each set's own number is compiled.
            match S::TILE_ROWS {
                8 => r = self.tiles::<S, V, 8>(panel, r),
                6 => r = self.tiles::<S, V, 6>(panel, r),
                _ => {}
            }
            r = self.tiles::<S, V, 4>(panel, r);
            r = self.tiles::<S, V, 2>(panel, r);
            self.tiles::<S, V, 1>(panel, r);
        }
    }

    /// As many tiles of `M` rows as fit; the first row that is left.
    #[inline(always)]
    unsafe fn tiles<S: Simd, const V: usize, const M: usize>(
        &self,
        panel: Panel,
        mut r: usize,
    ) -> usize {
        while r + M <= self.rows.end {
            // SAFETY: the rows are within `rows`.
            unsafe { self.tile::<S, V, M>(panel, r) };
            r += M;
        }
        r
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const V: usize, const M: usize>(&self, panel: Panel, r: usize) {
        // SAFETY: `row` leads to readable runs; a panel holds k * V vectors; the epilogue touches
        // `panel.channels` values of rows r..r + M.
        unsafe {
            let mut a: [*const f32; M] = std::array::from_fn(|m| (self.row)(r + m));
            let mut b = self.weights.lines.as_ptr().cast::<f32>().add(panel.offset);
            let mut acc = [[S::splat(0.0); V]; M];
            for (v, first) in acc[0].iter_mut().enumerate() {
                let bias = self.weights.bias.as_ptr().add(panel.channel + v * S::LANES);
                *first = S::load(bias);
            }
            acc = [acc[0]; M];
            let run = self.weights.k / self.segments;
            for _ in 0..self.segments {
                for i in 0..run {
                    let mut w = [S::splat(0.0); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = S::load(b.add(v * S::LANES));
                    }
                    for m in 0..M {
                        let x = S::splat(*a[m].add(i));
                        for v in 0..V {
                            acc[m][v] = S::fma(x, w[v], acc[m][v]);
                        }
                    }
                    b = b.add(V * S::LANES);
                }
                for p in &mut a {
                    *p = p.wrapping_add(self.segment_stride);
                }
            }
            // Nothing in these loops may branch on what is the same for all tiles: then they are
            // unrolled, and the sums never leave the registers.
            let stride = self.weights.out;
            let first = r * stride + panel.channel;
            let last = panel.channels - (V - 1) * S::LANES;
            if let Some(residual) = self.residual {
                let residual = residual.as_ptr().add(first);
                for (m, row) in acc.iter_mut().enumerate() {
                    for (v, y) in row.iter_mut().enumerate() {
                        let lanes = if v + 1 == V { last } else { S::LANES };
                        let p = residual.add(m * stride + v * S::LANES);
                        *y = S::add(*y, S::load_partial(p, lanes));
                    }
                }
            }
            let bounds = Bounds::<S>::of(self.activation);
            let out = self.out.at(first);
            if last == S::LANES {
                for (m, row) in acc.iter().enumerate() {
                    for (v, y) in row.iter().enumerate() {
                        S::store(out.add(m * stride + v * S::LANES), bounds.apply(*y));
                    }
                }
            } else {
                for (m, row) in acc.iter().enumerate() {
                    for (v, y) in row.iter().enumerate() {
                        let lanes = if v + 1 == V { last } else { S::LANES };
                        let p = out.add(m * stride + v * S::LANES);
                        S::store_partial(p, bounds.apply(*y), lanes);
                    }
                }
            }
            if let Some(f) = self.activation.exponential() {
                for m in 0..M {
                    for c in 0..panel.channels {
                        let y = out.add(m * stride + c);
                        *y = f(*y);
                    }
                }
            }
        }
    }
}

/// The activations that need no exponential, as the least and the greatest value that they let
/// through.
#[derive(Clone, Copy)]
pub(super) struct Bounds<S: Simd> {
    least: S::V,
    greatest: S::V,
}

impl<S: Simd> Bounds<S> {
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub unsafe fn of(activation: Activation) -> Self {
        let (least, greatest) = match activation {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
            Activation::None | Activation::Silu | Activation::Sigmoid => {
                (f32::NEG_INFINITY, f32::INFINITY)
            }
        };
        // SAFETY: arithmetic only.
        unsafe { Self { least: S::splat(least), greatest: S::splat(greatest) } }
    }

    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub unsafe fn apply(&self, y: S::V) -> S::V {
        // SAFETY: arithmetic only.
        unsafe { S::min(self.greatest, S::max(self.least, y)) }
    }
}
