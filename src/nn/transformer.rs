//! The encoder block of a vision transformer as one operation, and layer norm.
//!
//! On the CPU some rows (tokens) at a time go from one norm to the next sum while what is between
//! the layers lies in the core's second-level cache; only attention needs all tokens of an input.
//! Sums over a row are 16 partial sums that are added in a fixed order, whatever the instruction
//! set's vectors hold. Norms, attention, GELU and residual sums are f32 in every precision. On
//! another device the same is put together from tensor operations.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

use super::conv::Linear;
use super::matrix::{Line, Packed, Product, Rows, ToBf16};
use super::separable::room;
use super::simd::{Isa, Kernel, Simd, dispatch};
use super::team::{for_each_task, is_alone, threads};
use super::{Activation, Output, OutputPtr, Precision, contiguous, shaped};

/// Partial sums of a row.
const SUMS: usize = 16;
/// Rows that go through the layers together: what is between them (four times the width) shares the
/// second-level cache with a panel of weights, and all weights are read once for them.
const ROWS: usize = 48;
/// Values in a task of [`gelu`].
const GELUS: usize = 32 * 1024;

/// Layer norm: each row to mean 0 and variance 1, then times `weight` plus `bias`.
///
/// Ba, Kiros, Hinton: "Layer Normalization", 2016 (arXiv 1607.06450).
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    /// The same on the CPU.
    values: (Vec<f32>, Vec<f32>),
    eps: f32,
}

impl LayerNorm {
    /// `weight`, `bias`: [d], d a multiple of 16. `eps` is added to the variance.
    ///
    /// # Errors
    /// Other shapes.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Self> {
        let d = weight.dim(0)?;
        if weight.dims() != [d] || bias.dims() != [d] || d == 0 || d % SUMS != 0 {
            bail!("layer_norm: weight {:?}, bias {:?}", weight.dims(), bias.dims());
        }
        let values = (weight.to_vec1()?, bias.to_vec1()?);
        Ok(Self { weight: weight.clone(), bias: bias.clone(), values, eps })
    }

    fn width(&self) -> usize {
        self.values.0.len()
    }

    /// [.., d] → the same shape.
    ///
    /// # Errors
    /// Another width or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x.shape())?;
        if !x.device().is_cpu() {
            return self.by_tensors(x);
        }
        shaped(&x.contiguous()?.apply_op1_no_bwd(self)?, x.shape())
    }

    fn by_tensors(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + f64::from(self.eps))?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        match shape.dims().last() {
            Some(&d) if d == self.width() => Ok(()),
            _ => bail!("layer_norm: expected [.., {}], got {:?}", self.width(), shape.dims()),
        }
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.check(layout.shape())?;
        let x = contiguous("layer_norm", storage, layout)?;
        let mut output = Output::new(x.len());
        let to = Target::F32(output.ptr().0);
        let rows = x.len() / self.width();
        let work = NormRows { norm: self, from: x.as_ptr(), to, rows };
        // SAFETY: `best` is available; both sides hold `rows` rows.
        unsafe { dispatch(Isa::best(), work) };
        // SAFETY: all rows were written.
        Ok(unsafe { output.finish() })
    }
}

/// The exact GELU of every value; on the CPU to 1e-6.
///
/// # Errors
/// Another type than f32.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.gelu_erf();
    }
    shaped(&x.contiguous()?.apply_op1_no_bwd(&Gelus)?, x.shape())
}

struct Gelus;

impl CustomOp1 for Gelus {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous("gelu", storage, layout)?;
        let mut output = Output::new(x.len());
        let out = output.ptr();
        for_each_task(x.len().div_ceil(GELUS), |task| {
            let part = &x[task * GELUS..((task + 1) * GELUS).min(x.len())];
            // SAFETY: each part of the output, as long as that of the input, is written by one
            // task; `best` is available.
            unsafe {
                let to = Target::F32(out.at(task * GELUS));
                dispatch(Isa::best(), Gelu { from: part.as_ptr(), to, n: part.len() });
            }
        });
        // SAFETY: the tasks cover all values.
        Ok(unsafe { output.finish() })
    }
}

/// A pre-norm encoder block: `x += project(attention(qkv(norm1(x))))`, then
/// `x += fc2(gelu(fc1(norm2(x))))`, with the exact GELU. A factor for each channel of what is added
/// (layer scale) belongs into the weights of `project` and `fc2`.
///
/// Dosovitskiy et al.: "An Image is Worth 16x16 Words", ICLR 2021.
pub struct EncoderBlock {
    heads: usize,
    norm1: LayerNorm,
    qkv: Linear,
    project: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// The layers of an [`EncoderBlock`], d channels wide.
pub struct EncoderLayers {
    pub norm1: LayerNorm,
    /// [3 d, d]: the rows of q, then k, then v, head by head.
    pub qkv: Linear,
    /// [d, d].
    pub project: Linear,
    pub norm2: LayerNorm,
    /// [m, d].
    pub fc1: Linear,
    /// [d, m].
    pub fc2: Linear,
}

impl EncoderBlock {
    /// # Errors
    /// Layers that do not fit each other, have an activation or different precisions; heads that do
    /// not divide the width.
    pub fn new(heads: usize, layers: EncoderLayers) -> Result<Self> {
        let EncoderLayers { norm1, qkv, project, norm2, fc1, fc2 } = layers;
        let d = norm1.width();
        if heads == 0 || d % heads != 0 {
            bail!("encoder block: {heads} heads of {d} channels");
        }
        let inner = fc1.packed().out;
        let precision = qkv.packed().precision();
        for (name, layer, k, out) in [
            ("qkv", &qkv, d, 3 * d),
            ("project", &project, d, d),
            ("fc1", &fc1, d, inner),
            ("fc2", &fc2, inner, d),
        ] {
            let packed = layer.packed();
            if (packed.k, packed.out) != (k, out)
                || layer.activation() != Activation::None
                || packed.precision() != precision
            {
                bail!("encoder block: {name} is no plain layer [{out}, {k}] in {precision:?}");
            }
        }
        // bf16 rows are cut from one row into the next without a gap.
        if norm2.width() != d || inner % 2 != 0 {
            bail!("encoder block: norms of {d} and {}, {inner} inner values", norm2.width());
        }
        Ok(Self { heads, norm1, qkv, project, norm2, fc1, fc2 })
    }

    /// [n, tokens, d] → the same shape.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.sizes(x.shape())?;
        if !x.device().is_cpu() {
            return self.by_tensors(x);
        }
        shaped(&x.contiguous()?.apply_op1_no_bwd(self)?, x.shape())
    }

    /// The same through tensor operations, for devices without kernels of our own for it.
    pub(super) fn by_tensors(&self, x: &Tensor) -> Result<Tensor> {
        let [n, tokens, d] = self.sizes(x.shape())?;
        let flat = |t: &Tensor| t.contiguous()?.reshape((n * tokens, ()));
        let whole = |t: Tensor| t.reshape((n, tokens, d));
        let qkv = self.qkv.forward(&flat(&self.norm1.by_tensors(x)?)?)?;
        let qkv = qkv.reshape((n, tokens, 3, self.heads, d / self.heads))?;
        let part = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? * f64::from(self.scale()))?;
        let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let shares = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
        let seen = shares.matmul(&v)?.transpose(1, 2)?;
        let x = (x + whole(self.project.forward(&flat(&seen)?)?)?)?;
        let inner = self.fc1.forward(&flat(&self.norm2.by_tensors(&x)?)?)?.gelu_erf()?;
        x + whole(self.fc2.forward(&inner)?)?
    }

    fn sizes(&self, shape: &Shape) -> Result<[usize; 3]> {
        match *shape.dims() {
            [n, tokens, d] if d == self.norm1.width() => Ok([n, tokens, d]),
            ref other => {
                bail!(
                    "encoder block: expected [batch, tokens, {}], got {other:?}",
                    self.norm1.width()
                )
            }
        }
    }

    /// Of the products of q and k.
    fn scale(&self) -> f32 {
        ((self.norm1.width() / self.heads) as f32).sqrt().recip()
    }

    fn cpu(&self, x: &[f32], [n, tokens, d]: [usize; 3], out: OutputPtr) {
        let rows = n * tokens;
        let parts = rows.div_ceil(ROWS);
        // Threads that share the rows end together.
        let parts = if is_alone() { parts } else { parts.next_multiple_of(threads()) };
        // Whole tiles of every instruction set but one.
        let each = rows.div_ceil(parts.max(1)).next_multiple_of(8);
        let range = |part: usize| part * each..((part + 1) * each).min(rows);
        let parts = rows.div_ceil(each.max(1));
        let mut between = BETWEEN.take();
        let qkv = OutputPtr(room(&mut between.qkv, rows * 3 * d));
        let seen = OutputPtr(room(&mut between.seen, rows * d));
        for_each_task(parts, |part| {
            let range = range(part);
            with_scratch(|scratch| {
                // SAFETY: this task alone reads and writes the rows of `range`.
                unsafe {
                    let from = x.as_ptr().add(range.start * d);
                    let to = qkv.at(range.start * 3 * d);
                    self.normed(&self.norm1, &self.qkv, from, range.len(), to, scratch);
                }
            });
        });
        for_each_task(n * self.heads, |task| {
            let (input, head) = (task / self.heads, task % self.heads);
            with_scratch(|scratch| {
                // SAFETY: all of `qkv` was written; each head of an input has its own part of
                // `seen`.
                unsafe {
                    let (from, to) = (qkv.at(input * tokens * 3 * d), seen.at(input * tokens * d));
                    self.attend(head, tokens, from, to, scratch);
                }
            });
        });
        for_each_task(parts, |part| {
            let range = range(part);
            with_scratch(|scratch| {
                // SAFETY: all of `seen` was written; this task alone writes the rows of `range`.
                unsafe {
                    let (x, seen) = (x.as_ptr().add(range.start * d), seen.at(range.start * d));
                    self.rest(x, seen, range.len(), out.at(range.start * d), scratch);
                }
            });
        });
        BETWEEN.set(between);
    }

    /// `layer(norm(rows))` to `to`.
    ///
    /// # Safety
    /// `rows` rows of d values are readable at `from`, as many of the layer's width writable at `to`.
    unsafe fn normed(
        &self,
        norm: &LayerNorm,
        layer: &Linear,
        from: *const f32,
        rows: usize,
        to: *mut f32,
        scratch: &mut Scratch,
    ) {
        let packed = layer.packed();
        let (input, target) = Target::of(packed, &mut scratch.input, rows);
        // SAFETY: the set was checked when the weights were packed; the scratch has the room; the
        // rest is the caller's promise.
        unsafe {
            dispatch(packed.isa(), NormRows { norm, from, to: target, rows });
            multiply(packed, input, packed.steps(), rows, None, to, packed.out);
        }
    }

    /// Attention of one head over one input's tokens.
    ///
    /// # Safety
    /// `qkv` leads to `tokens` rows of 3 d values, `to` to as many of d; nobody else writes this
    /// head's part.
    unsafe fn attend(
        &self,
        head: usize,
        tokens: usize,
        qkv: *const f32,
        to: *mut f32,
        scratch: &mut Scratch,
    ) {
        let d = self.norm1.width();
        let size = d / self.heads;
        let isa = Isa::best();
        // SAFETY: the caller's promise; `o`, `i` and `c` stay below `tokens`, `tokens` and `size`.
        unsafe {
            let (q, k, v) =
                (qkv.add(head * size), qkv.add(d + head * size), qkv.add(2 * d + head * size));
            let keys =
                Packed::new(isa, Precision::F32, tokens, size, |o, i| *k.add(o * 3 * d + i), None);
            let stride = tokens.next_multiple_of(SUMS);
            let scores = room(&mut scratch.inner, tokens * stride);
            multiply(&keys, q, 3 * d, tokens, None, scores, stride);
            let scale = self.scale();
            dispatch(isa, SoftmaxRows { p: scores, rows: tokens, n: tokens, stride, scale });
            let values =
                Packed::new(isa, Precision::F32, size, tokens, |c, i| *v.add(i * 3 * d + c), None);
            multiply(&values, scores, stride, tokens, None, to.add(head * size), d);
        }
    }

    /// What comes behind attention, for `rows` rows.
    ///
    /// # Safety
    /// As many rows of d values are readable at `x` and `seen`, and writable at `to`.
    unsafe fn rest(
        &self,
        x: *const f32,
        seen: *const f32,
        rows: usize,
        to: *mut f32,
        scratch: &mut Scratch,
    ) {
        let d = self.norm1.width();
        let (project, fc1, fc2) = (self.project.packed(), self.fc1.packed(), self.fc2.packed());
        // SAFETY: the sets were checked when the weights were packed; the buffers have the room;
        // the rest is the caller's promise. A tile reads its part of the residual before it writes
        // there.
        unsafe {
            let input = match project.precision() {
                Precision::F32 => seen,
                Precision::Bf16 => {
                    let pairs = room(&mut scratch.input, rows * project.steps());
                    let work = ToBf16 { from: seen, to: pairs.cast(), rows, k: d };
                    dispatch(project.isa(), work);
                    pairs.cast_const()
                }
            };
            multiply(project, input, project.steps(), rows, Some(x), to, d);
            let inner = room(&mut scratch.inner, rows * fc1.out);
            self.normed(&self.norm2, &self.fc1, to, rows, inner, scratch);
            let (input, target) = match fc2.precision() {
                // In place.
                Precision::F32 => (inner.cast_const(), Target::F32(inner)),
                Precision::Bf16 => Target::of(fc2, &mut scratch.rounded, rows),
            };
            dispatch(fc2.isa(), Gelu { from: inner, to: target, n: rows * fc1.out });
            multiply(fc2, input, fc2.steps(), rows, Some(to), to, d);
        }
    }
}

impl CustomOp1 for EncoderBlock {
    fn name(&self) -> &'static str {
        "encoder block"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(layout.shape())?;
        let x = contiguous("encoder block", storage, layout)?;
        let mut output = Output::new(x.len());
        self.cpu(x, sizes, output.ptr());
        // SAFETY: the tasks cover all rows.
        Ok(unsafe { output.finish() })
    }
}

/// Buffers that a thread keeps between calls, because fresh pages cost more than the work in them.
/// Each is as large as the largest use so far.
#[derive(Default)]
struct Scratch {
    /// What goes into a layer.
    input: Vec<Line>,
    /// What comes out of `fc1`; scores of attention.
    inner: Vec<Line>,
    /// What goes into `fc2`.
    rounded: Vec<Line>,
}

/// What all tasks of one call share.
#[derive(Default)]
struct Between {
    qkv: Vec<Line>,
    seen: Vec<Line>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
    static BETWEEN: Cell<Between> = Cell::default();
}

fn with_scratch(run: impl FnOnce(&mut Scratch)) {
    let mut scratch = SCRATCH.take();
    run(&mut scratch);
    SCRATCH.set(scratch);
}

/// `rows` rows of input, `stride` units of 4 bytes apart, times the weights, plus `residual`; rows
/// of the output (and of the residual) are `width` values apart.
///
/// # Safety
/// All that is readable and writable; nobody else writes the output.
unsafe fn multiply(
    weights: &Packed,
    input: *const f32,
    stride: usize,
    rows: usize,
    residual: Option<*const f32>,
    to: *mut f32,
    width: usize,
) {
    let work = Product {
        weights,
        input: Rows::dense(input, stride),
        segments: 1,
        segment_stride: 0,
        rows: 0..rows,
        panels: 0..weights.panels(),
        output: Rows::dense(to, width),
        residual: residual.map(|r| Rows::dense(r, width)),
        activation: Activation::None,
    };
    // SAFETY: the set was checked when the weights were packed; the rest is the caller's promise.
    unsafe { dispatch(weights.isa(), work) }
}

/// Where a kernel's results go, rounded or not.
#[derive(Clone, Copy)]
enum Target {
    F32(*mut f32),
    Bf16(*mut u16),
}

impl Target {
    /// `rows` rows of what goes into a layer: where they are, and how they are written.
    fn of(packed: &Packed, buffer: &mut Vec<Line>, rows: usize) -> (*const f32, Self) {
        let p = room(buffer, rows * packed.steps());
        let target = match packed.precision() {
            Precision::F32 => Self::F32(p),
            Precision::Bf16 => Self::Bf16(p.cast()),
        };
        (p, target)
    }

    /// # Safety
    /// As [`Simd`]; `n` values from `i` on can be written.
    #[inline(always)]
    unsafe fn store<S: Simd>(self, i: usize, v: S::V, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(p) if n == S::LANES => S::store(p.add(i), v),
                Self::F32(p) => S::store_partial(p.add(i), v, n),
                Self::Bf16(p) => S::store_bf16(p.add(i), v, n),
            }
        }
    }
}

/// The sum of `at(i)` over all lanes of vectors that start at value i of `n`, a multiple of
/// [`SUMS`].
///
/// # Safety
/// As [`Simd`], and whatever `at` asks.
#[inline(always)]
unsafe fn sum<S: Simd>(n: usize, mut at: impl FnMut(usize) -> S::V) -> f32 {
    let mut lanes = [0.0f32; SUMS];
    // SAFETY: the array holds SUMS values.
    unsafe {
        // As many as the narrowest set needs.
        let mut sums = [S::splat(0.0); SUMS / 4];
        let used = SUMS / S::LANES;
        for i in (0..n).step_by(SUMS) {
            for (v, sum) in sums.iter_mut().enumerate().take(used) {
                *sum = S::add(*sum, at(i + v * S::LANES));
            }
        }
        for (v, sum) in sums.iter().enumerate().take(used) {
            S::store(lanes.as_mut_ptr().add(v * S::LANES), *sum);
        }
    }
    let mut half = SUMS / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Safety (see [`Kernel::run`]): both sides hold `rows` rows; nobody else writes the result.
struct NormRows<'a> {
    norm: &'a LayerNorm,
    from: *const f32,
    to: Target,
    rows: usize,
}

impl Kernel for NormRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (weight, bias) = &self.norm.values;
        let d = weight.len();
        let scale = 1.0 / d as f32;
        for r in 0..self.rows {
            // SAFETY: d is a multiple of every set's lanes; the fields' promise.
            unsafe {
                let row = self.from.add(r * d);
                let mean = sum::<S>(d, |i| S::load(row.add(i))) * scale;
                let less = S::splat(-mean);
                let variance = scale
                    * sum::<S>(d, |i| {
                        let v = S::add(S::load(row.add(i)), less);
                        S::mul(v, v)
                    });
                let steep = S::splat(1.0 / (variance + self.norm.eps).sqrt());
                for i in (0..d).step_by(S::LANES) {
                    let v = S::mul(S::add(S::load(row.add(i)), less), steep);
                    let (w, b) = (S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
                    self.to.store::<S>(r * d + i, S::fma(v, w, b), S::LANES);
                }
            }
        }
    }
}

/// Softmax of the first `n` values of each row, times `scale`, in place.
///
/// Safety (see [`Kernel::run`]): rows of `stride` values, which is `n` rounded up to a multiple of
/// [`SUMS`]; nobody else uses them.
struct SoftmaxRows {
    p: *mut f32,
    rows: usize,
    n: usize,
    stride: usize,
    scale: f32,
}

impl Kernel for SoftmaxRows {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for r in 0..self.rows {
            // SAFETY: all within the row.
            unsafe {
                let row = self.p.add(r * self.stride);
                let whole = self.n / S::LANES * S::LANES;
                let mut most = S::splat(f32::NEG_INFINITY);
                for i in (0..whole).step_by(S::LANES) {
                    most = S::max(most, S::load(row.add(i)));
                }
                let mut lanes = [f32::NEG_INFINITY; SUMS];
                S::store(lanes.as_mut_ptr(), most);
                let rest = (whole..self.n).map(|i| *row.add(i));
                let most = lanes.into_iter().chain(rest).fold(f32::NEG_INFINITY, f32::max);
                let (scale, less) = (S::splat(self.scale), S::splat(-most * self.scale));
                let total = sum::<S>(self.stride, |i| {
                    let e = S::exp(S::fma(S::load(row.add(i)), scale, less));
                    if i + S::LANES <= self.n {
                        S::store(row.add(i), e);
                        return e;
                    }
                    // What lies behind the row is no part of it.
                    let lanes = self.n.saturating_sub(i);
                    S::store_partial(row.add(i), e, lanes);
                    S::load_partial(row.add(i), lanes)
                });
                let share = S::splat(1.0 / total);
                for i in (0..self.stride).step_by(S::LANES) {
                    S::store(row.add(i), S::mul(S::load(row.add(i)), share));
                }
            }
        }
    }
}

/// `x * Phi(x)`, Phi the normal distribution, to 1e-6: `max(x, 0) - |x| * Q(|x|)`, where
/// `Q(z) = erfc(z / sqrt 2) / 2` is its upper tail.
///
/// Hendrycks, Gimpel: "Gaussian Error Linear Units", 2016 (arXiv 1606.08415). The tail is formula
/// 7.1.26 of Abramowitz, Stegun: "Handbook of Mathematical Functions", off by at most 7.5e-8.
///
/// Safety (see [`Kernel::run`]): `n` values on both sides; nobody else writes the result.
struct Gelu {
    from: *const f32,
    to: Target,
    n: usize,
}

impl Kernel for Gelu {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut i = 0;
        while i < self.n {
            let lanes = (self.n - i).min(S::LANES);
            // SAFETY: at most `n` values.
            unsafe {
                let x = S::load_partial(self.from.add(i), lanes);
                let (zero, one) = (S::splat(0.0), S::splat(1.0));
                let z = S::max(x, S::mul(x, S::splat(-1.0)));
                // 0.3275911 / sqrt 2.
                let t = S::div(one, S::fma(z, S::splat(0.231_641_9), one));
                // Half of the formula's coefficients.
                let mut q = S::splat(0.530_702_7);
                for c in [-0.726_576, 0.710_706_9, -0.142_248_37, 0.127_414_8] {
                    q = S::fma(q, t, S::splat(c));
                }
                let bell = S::exp(S::mul(S::mul(z, z), S::splat(-0.5)));
                let tail = S::mul(S::mul(q, t), bell);
                let y = S::fma(S::mul(z, S::splat(-1.0)), tail, S::max(zero, x));
                self.to.store::<S>(i, y, lanes);
            }
            i += lanes;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::tests::random::Random;
    use super::*;

    const SETS: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    fn bits(t: &Tensor) -> Vec<u32> {
        let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let off = (a - b).unwrap().abs().unwrap();
        off.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    /// erf by its series, in f64.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn gelu_is_the_exact_one_and_keeps_the_shape() {
        // More than one task, and a last vector that is not full.
        let n = GELUS + 37;
        let x: Vec<f32> = (0..n).map(|i| (i % 1_201) as f32 / 100.0 - 6.0).collect();
        let x = Tensor::from_vec(x, (1, n), &Device::Cpu).unwrap();
        let y = gelu(&x).unwrap();
        assert_eq!(y.dims(), [1, n]);
        let (x, y) = (x.flatten_all().unwrap(), y.flatten_all().unwrap());
        for (x, y) in x.to_vec1::<f32>().unwrap().into_iter().zip(y.to_vec1::<f32>().unwrap()) {
            let x = f64::from(x);
            let exact = 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
            assert!((f64::from(y) - exact).abs() < 2e-6, "gelu({x}) = {y}, expected {exact}");
        }
    }

    #[test]
    fn gelu_is_the_exact_one_on_every_set() {
        let from: Vec<f32> =
            (-4000..4003).map(|i| i as f32 / 1000.0).chain([-100.0, -12.0, 12.0, 100.0]).collect();
        for isa in SETS.into_iter().filter(|isa| isa.is_available()) {
            let mut got = vec![f32::NAN; from.len()];
            let to = Target::F32(got.as_mut_ptr());
            // SAFETY: the set is available; both sides have the values.
            unsafe { dispatch(isa, Gelu { from: from.as_ptr(), to, n: from.len() }) };
            for (x, y) in from.iter().zip(&got) {
                let x = f64::from(*x);
                let phi = if x.abs() > 5.0 {
                    f64::from(x > 0.0)
                } else {
                    (1.0 + erf(x / 2f64.sqrt())) / 2.0
                };
                let off = (f64::from(*y) - x * phi).abs();
                assert!(off < 1e-6, "{isa:?}: gelu({x}) is {y}, off by {off}");
            }
        }
    }

    fn linear(random: &mut Random, out: usize, k: usize, precision: Precision) -> Linear {
        let weight = (random.tensor(&[out, k]) * (1.7 / (k as f64).sqrt())).unwrap();
        let bias = random.tensor(&[out]);
        Linear::with_precision(&weight, Some(&bias), Activation::None, precision).unwrap()
    }

    fn norm(random: &mut Random, d: usize) -> LayerNorm {
        LayerNorm::new(&random.tensor(&[d]), &random.tensor(&[d]), 1e-6).unwrap()
    }

    fn block(precision: Precision) -> EncoderBlock {
        let mut random = Random(9);
        let (d, inner) = (48, 192);
        let r = &mut random;
        let layers = EncoderLayers {
            norm1: norm(r, d),
            qkv: linear(r, 3 * d, d, precision),
            project: linear(r, d, d, precision),
            norm2: norm(r, d),
            fc1: linear(r, inner, d, precision),
            fc2: linear(r, d, inner, precision),
        };
        EncoderBlock::new(3, layers).unwrap()
    }

    /// The two ways are written independently of each other: one in kernels, one in candle's
    /// operations.
    #[test]
    fn the_kernels_and_the_tensor_operations_agree() {
        let mut random = Random(3);
        for (n, tokens) in [(1, 1), (1, 17), (3, 37), (2, 145)] {
            let x = random.tensor(&[n, tokens, 48]);
            let exact = block(Precision::F32);
            let want = exact.by_tensors(&x).unwrap();
            let off = worst(&exact.forward(&x).unwrap(), &want);
            assert!(off < 2e-5, "{n} {tokens}: {off}");
            let off = worst(&block(Precision::Bf16).forward(&x).unwrap(), &want);
            assert!(off > 0.0 && off < 0.1, "{n} {tokens}: {off}");
        }
    }

    #[test]
    fn an_input_gets_the_same_bits_in_any_batch() {
        for precision in [Precision::F32, Precision::Bf16] {
            let block = block(precision);
            let x = Random(5).tensor(&[5, 37, 48]);
            let together = block.forward(&x).unwrap();
            for i in 0..5 {
                let alone = block.forward(&x.narrow(0, i, 1).unwrap()).unwrap();
                assert_eq!(bits(&alone), bits(&together.narrow(0, i, 1).unwrap()));
            }
        }
    }

    #[test]
    fn norms_and_softmax_give_the_same_bits_on_every_set_with_fused_sums() {
        let mut random = Random(7);
        let norm = norm(&mut random, 48);
        let x = random.values(37 * 48);
        let mut all = Vec::new();
        for isa in SETS.into_iter().filter(|isa| isa.is_available()) {
            let mut y = vec![0.0f32; x.len()];
            let to = Target::F32(y.as_mut_ptr());
            // SAFETY: the set is available; both sides have the rows.
            unsafe {
                dispatch(isa, NormRows { norm: &norm, from: x.as_ptr(), to, rows: 37 });
                let p = y.as_mut_ptr();
                dispatch(isa, SoftmaxRows { p, rows: 37, n: 37, stride: 48, scale: 0.25 });
            }
            for row in y.chunks_exact(48) {
                let sum: f32 = row[..37].iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{isa:?}: {sum}");
            }
            let read: Vec<u32> =
                y.chunks_exact(48).flat_map(|row| row[..37].iter().map(|v| v.to_bits())).collect();
            if isa != Isa::Portable || cfg!(target_arch = "aarch64") {
                all.push(read);
            }
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let block = block(Precision::F32);
        let zeros =
            |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        for shape in [&[2, 3, 47][..], &[3, 48]] {
            let text = block.forward(&zeros(shape)).unwrap_err().to_string();
            assert!(
                text.contains("encoder block") && text.contains(&format!("{shape:?}")),
                "{text}"
            );
        }
        assert!(LayerNorm::new(&zeros(&[24]), &zeros(&[24]), 1e-6).is_err());
        assert_eq!(block.forward(&zeros(&[0, 5, 48])).unwrap().dims(), [0, 5, 48]);
    }
}
