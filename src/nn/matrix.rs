//! The matrix kernel under convolutions and linear layers: rows of activations, found by pointer,
//! times packed weights, with bias, residual and activation applied before the result is stored.
//!
//! In bf16 a row is a row of pairs of values, and one step takes a pair where it takes one value in
//! f32; the rest is the same.

use super::simd::{Isa, Kernel, Simd};
use super::{Activation, Precision, SELU_ALPHA, SELU_LAMBDA};

/// 16 values on their own cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
pub(super) struct Line([f32; 16]);

/// Weights [out, k] cut into panels of two vectors of output channels (one, where no more are
/// left), within a panel ordered [k][channel] in f32, [k / 2][channel][2] in bf16, and padded with
/// zeros.
pub(super) struct Packed {
    isa: Isa,
    precision: Precision,
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
    /// `at(o, i)` is the weight of output `o` for input value `i`. `isa` must be
    /// [`Isa::Avx512Bf16`] where the precision is to be bf16 and fast.
    pub fn new(
        isa: Isa,
        precision: Precision,
        out: usize,
        k: usize,
        at: impl Fn(usize, usize) -> f32,
        bias: Option<&[f32]>,
    ) -> Self {
        let mut packed = Self { isa, precision, lines: Vec::new(), bias: Vec::new(), k, out };
        let lanes = isa.lanes();
        let padded = out.div_ceil(lanes) * lanes;
        packed.bias = vec![0.0; padded];
        if let Some(bias) = bias {
            packed.bias[..out].copy_from_slice(bias);
        }
        packed.lines = vec![Line::default(); (padded * packed.steps()).div_ceil(16)];
        for p in 0..packed.panels() {
            let panel = packed.panel(p);
            let width = panel.vectors * lanes;
            match precision {
                Precision::F32 => {
                    let values: &mut [f32] = bytemuck::cast_slice_mut(&mut packed.lines);
                    for i in 0..k {
                        for c in 0..panel.channels {
                            values[panel.offset + i * width + c] = at(panel.channel + c, i);
                        }
                    }
                }
                Precision::Bf16 => {
                    let values: &mut [u16] = bytemuck::cast_slice_mut(&mut packed.lines);
                    for i in 0..k {
                        for c in 0..panel.channels {
                            let pair = panel.offset + i / 2 * width + c;
                            values[2 * pair + i % 2] =
                                half::bf16::from_f32(at(panel.channel + c, i)).to_bits();
                        }
                    }
                }
            }
        }
        packed
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What a row of input is wide, in units of 4 bytes: one value, or a pair of them.
    pub fn steps(&self) -> usize {
        match self.precision {
            Precision::F32 => self.k,
            Precision::Bf16 => self.k.div_ceil(2),
        }
    }

    pub fn panels(&self) -> usize {
        self.out.div_ceil(self.panel_width())
    }

    /// Output channels in a panel.
    pub fn panel_width(&self) -> usize {
        2 * self.isa.lanes()
    }

    fn panel(&self, index: usize) -> Panel {
        let lanes = self.isa.lanes();
        let channel = index * 2 * lanes;
        let channels = (self.out - channel).min(2 * lanes);
        // All panels before this one are full.
        let offset = channel * self.steps();
        Panel { channel, channels, vectors: channels.div_ceil(lanes), offset }
    }
}

/// Where rows of values lie: `base` plus `table[r]`, or plus `r * stride` without a table.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub base: *const f32,
    pub stride: usize,
    pub table: Option<&'a [usize]>,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` values, one behind the other.
    pub fn dense(base: *const f32, stride: usize) -> Self {
        Self { base, stride, table: None }
    }

    pub fn listed(base: *const f32, table: &'a [usize]) -> Self {
        Self { base, stride: 0, table: Some(table) }
    }

    #[inline(always)]
    fn at(&self, r: usize) -> *const f32 {
        let offset = match self.table {
            Some(table) => table.get(r).copied().unwrap_or_default(),
            None => r * self.stride,
        };
        self.base.wrapping_add(offset)
    }
}

/// Rows `rows` of the output, for panels `panels` of the weights. `input` leads to the first of
/// `segments` runs of `steps / segments` input values (f32, or pairs of bf16) that belong to a row;
/// the runs are `segment_stride` apart. `output` and `residual` lead to channel 0 of a row.
///
/// Safety (see [`Kernel::run`]): every run that `input` leads to is readable; `residual` is
/// readable and `output` writable for the channels of the panels; nobody else writes them.
pub(super) struct Product<'a> {
    pub weights: &'a Packed,
    pub input: Rows<'a>,
    pub segments: usize,
    pub segment_stride: usize,
    pub rows: std::ops::Range<usize>,
    pub panels: std::ops::Range<usize>,
    pub output: Rows<'a>,
    pub residual: Option<Rows<'a>>,
    pub activation: Activation,
}

impl Kernel for Product<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the fields' promise.
        unsafe {
            match self.weights.precision {
                Precision::F32 => self.all::<S, false>(),
                Precision::Bf16 => self.all::<S, true>(),
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    unsafe fn all<S: Simd, const BF16: bool>(&self) {
        for index in self.panels.clone() {
            let panel = self.weights.panel(index);
            // SAFETY: the fields' promise.
            unsafe {
                if panel.vectors == 2 {
                    self.panel::<S, BF16, 2>(panel);
                } else {
                    self.panel::<S, BF16, 1>(panel);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn panel<S: Simd, const BF16: bool, const V: usize>(&self, panel: Panel) {
        let mut r = self.rows.start;
        // SAFETY: the fields' promise; the tiles cover exactly `rows`.
        unsafe {
            // `TILE_ROWS` cannot be a constant argument; each set's own number is compiled.
            match S::TILE_ROWS {
                8 => r = self.tiles::<S, BF16, V, 8>(panel, r),
                6 => r = self.tiles::<S, BF16, V, 6>(panel, r),
                _ => {}
            }
            r = self.tiles::<S, BF16, V, 4>(panel, r);
            r = self.tiles::<S, BF16, V, 2>(panel, r);
            self.tiles::<S, BF16, V, 1>(panel, r);
        }
    }

    /// As many tiles of `M` rows as fit; the first row that is left.
    #[inline(always)]
    unsafe fn tiles<S: Simd, const BF16: bool, const V: usize, const M: usize>(
        &self,
        panel: Panel,
        mut r: usize,
    ) -> usize {
        while r + M <= self.rows.end {
            // SAFETY: the rows are within `rows`.
            unsafe { self.tile::<S, BF16, V, M>(panel, r) };
            r += M;
        }
        r
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const BF16: bool, const V: usize, const M: usize>(
        &self,
        panel: Panel,
        r: usize,
    ) {
        // SAFETY: `input` leads to readable runs; a panel holds steps * V vectors; the epilogue
        // touches `panel.channels` values of rows r..r + M.
        unsafe {
            let mut a: [*const f32; M] = std::array::from_fn(|m| self.input.at(r + m));
            let mut b = self.weights.lines.as_ptr().cast::<f32>().add(panel.offset);
            let mut acc = [[S::splat(0.0); V]; M];
            for (v, first) in acc[0].iter_mut().enumerate() {
                let bias = self.weights.bias.as_ptr().add(panel.channel + v * S::LANES);
                *first = S::load(bias);
            }
            acc = [acc[0]; M];
            let run = self.weights.steps() / self.segments;
            for _ in 0..self.segments {
                for i in 0..run {
                    let mut w = [S::splat(0.0); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = S::load(b.add(v * S::LANES));
                    }
                    for m in 0..M {
                        let x = S::splat(*a[m].add(i));
                        for v in 0..V {
                            acc[m][v] = if BF16 {
                                S::dot2(x, w[v], acc[m][v])
                            } else {
                                S::fma(x, w[v], acc[m][v])
                            };
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
            let last = panel.channels - (V - 1) * S::LANES;
            if let Some(residual) = self.residual {
                for (m, row) in acc.iter_mut().enumerate() {
                    let from = residual.at(r + m).wrapping_add(panel.channel);
                    for (v, y) in row.iter_mut().enumerate() {
                        let lanes = if v + 1 == V { last } else { S::LANES };
                        *y = S::add(*y, S::load_partial(from.add(v * S::LANES), lanes));
                    }
                }
            }
            let bounds = Bounds::<S>::of(self.activation);
            if last == S::LANES {
                for (m, row) in acc.iter().enumerate() {
                    let to = self.output.at(r + m).wrapping_add(panel.channel).cast_mut();
                    for (v, y) in row.iter().enumerate() {
                        S::store(to.add(v * S::LANES), bounds.apply(*y));
                    }
                }
            } else {
                for (m, row) in acc.iter().enumerate() {
                    let to = self.output.at(r + m).wrapping_add(panel.channel).cast_mut();
                    for (v, y) in row.iter().enumerate() {
                        let lanes = if v + 1 == V { last } else { S::LANES };
                        S::store_partial(to.add(v * S::LANES), bounds.apply(*y), lanes);
                    }
                }
            }
            if self.activation.is_exponential() {
                for m in 0..M {
                    let to = self.output.at(r + m).wrapping_add(panel.channel).cast_mut();
                    exponential::<S>(self.activation, to, panel.channels);
                }
            }
        }
    }
}

/// Applies an activation that needs an exponential to `n` stored values.
///
/// # Safety
/// As [`Simd`]; `n` values can be read and written at `p`.
#[inline(always)]
pub(super) unsafe fn exponential<S: Simd>(activation: Activation, p: *mut f32, n: usize) {
    let mut i = 0;
    while i < n {
        let lanes = (n - i).min(S::LANES);
        // SAFETY: at most `n` values.
        unsafe {
            let x = S::load_partial(p.add(i), lanes);
            let (zero, one) = (S::splat(0.0), S::splat(1.0));
            let y = match activation {
                // Both parts in one sum: one of them is zero.
                Activation::Selu => {
                    let below = S::add(S::exp(S::min(zero, x)), S::splat(-1.0));
                    let above = S::mul(S::splat(SELU_LAMBDA), S::max(zero, x));
                    S::fma(S::splat(SELU_LAMBDA * SELU_ALPHA), below, above)
                }
                _ => {
                    let e = S::exp(S::mul(x, S::splat(-1.0)));
                    let above = if activation == Activation::Silu { x } else { one };
                    S::div(above, S::add(one, e))
                }
            };
            S::store_partial(p.add(i), y, lanes);
        }
        i += lanes;
    }
}

/// Rounds `rows` rows of `k` values to bf16; a row of the result has an even number of values, the
/// last of them zero where `k` is odd.
///
/// Safety (see [`Kernel::run`]): both sides hold as many rows; nobody else uses the result.
pub(super) struct ToBf16 {
    pub from: *const f32,
    pub to: *mut u16,
    pub rows: usize,
    pub k: usize,
}

impl Kernel for ToBf16 {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.k.next_multiple_of(2);
        // Rows without a gap are one long row.
        let (rows, k) = if width == self.k { (1, self.rows * self.k) } else { (self.rows, self.k) };
        for r in 0..rows {
            let mut i = 0;
            // SAFETY: at most `k` values of a row.
            unsafe {
                let (from, to) = (self.from.add(r * k), self.to.add(r * width));
                while i < k {
                    let lanes = (k - i).min(S::LANES);
                    S::store_bf16(to.add(i), S::load_partial(from.add(i), lanes), lanes);
                    i += lanes;
                }
                if width != self.k {
                    *to.add(k) = 0;
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
            Activation::None | Activation::Silu | Activation::Selu | Activation::Sigmoid => {
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
