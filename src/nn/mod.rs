//! The operations that candle lacks or does slowly on a CPU.
//!
//! Layers are candle custom operations ([`candle_core::CustomOp1`] and `CustomOp2`): a model calls
//! `forward` on tensors and does not know which device runs. Activations are NHWC (channels last),
//! contiguous f32; weights come in PyTorch's layout and are packed once, when a layer is made. A 1-D
//! convolution is one over pictures of height 1.
//!
//! On the CPU an output value is one chain of fused multiply-adds in a fixed order, however the
//! work is cut into blocks. Hence the same input gives the same bits on the same machine, whatever
//! the batch that it travels in and however many threads run (`team.rs`).

mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
mod depthwise;
pub mod gpu;
mod matrix;
mod pool;
mod separable;
mod simd;
mod team;
mod transformer;

pub use conv::{Conv2d, ConvConfig, Linear, Padding};
pub use pool::{global_avg_pool, max_pool_2x2, max_pool_columns, mean_std_pool, upsample_2x_add};
pub use separable::Separable;
pub use simd::Isa;
pub use transformer::{EncoderBlock, EncoderLayers, LayerNorm, gelu};

use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// What is applied to an output value after the bias and the residual were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * sigmoid(x)`.
    Silu,
    /// Klambauer et al.: "Self-Normalizing Neural Networks", NeurIPS 2017, section 2.
    Selu,
    Sigmoid,
}

/// The constants of SELU: alpha and lambda.
const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_LAMBDA: f32 = 1.050_701;

impl Activation {
    /// Those that need an exponential; the others are applied inside the kernels.
    fn is_exponential(self) -> bool {
        matches!(self, Self::Silu | Self::Selu | Self::Sigmoid)
    }
}

/// In what numbers a layer multiplies. Sums, biases, residuals and what passes between layers are
/// f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    /// Factors of matrix products are rounded to bf16 (8 bits of significand). Fast only where the
    /// machine has instructions for it (AVX512-BF16): ask [`Precision::here`] first.
    Bf16,
}

impl Precision {
    /// This, or f32 where this machine has no instructions for it.
    pub fn here(self) -> Self {
        if Isa::Avx512Bf16.is_available() { self } else { Self::F32 }
    }
}

/// `1 / (1 + exp(-x))`, within 0..=1 for every number.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Folds a batch norm into the convolution before it: `weight` [out, ...] is scaled by
/// `gamma / sqrt(var + eps)` per output channel, and a bias takes the rest. `bias` is that of the
/// convolution, where it has one. The arithmetic is f64, the result f32.
///
/// # Errors
/// Vectors whose length is not `out`.
pub fn fold_bn(
    weight: &Tensor,
    bias: Option<&Tensor>,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let out = weight.dim(0)?;
    let vector = |name: &str, t: &Tensor| -> Result<Vec<f32>> {
        if t.dims() != [out] {
            bail!(
                "fold_bn: {name} is {:?}, the weight {:?} needs [{out}]",
                t.dims(),
                weight.dims()
            );
        }
        t.to_vec1()
    };
    let (gamma, beta) = (vector("gamma", gamma)?, vector("beta", beta)?);
    let (mean, var) = (vector("mean", mean)?, vector("variance", var)?);
    let bias = bias.map_or_else(|| Ok(vec![0.0; out]), |b| vector("bias", b))?;
    let mut values = weight.flatten_all()?.to_vec1::<f32>()?;
    let per_channel = values.len() / out.max(1);
    let mut folded = Vec::with_capacity(out);
    for (c, kernel) in values.chunks_mut(per_channel.max(1)).enumerate() {
        let scale = f64::from(gamma[c]) / (f64::from(var[c]) + eps).sqrt();
        for w in kernel {
            *w = (f64::from(*w) * scale) as f32;
        }
        folded
            .push((f64::from(beta[c]) + (f64::from(bias[c]) - f64::from(mean[c])) * scale) as f32);
    }
    let device = weight.device();
    Ok((Tensor::from_vec(values, weight.shape(), device)?, Tensor::from_vec(folded, out, device)?))
}

/// The values of a contiguous f32 argument, or an error that names the operation.
fn contiguous<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{op}: an argument of shape {:?} is not contiguous", layout.shape().dims());
    };
    match storage.as_slice::<f32>()?.get(start..end) {
        Some(values) => Ok(values),
        None => bail!("{op}: storage is shorter than shape {:?}", layout.shape().dims()),
    }
}

/// [n, h, w, c] of an argument, or an error that names the operation.
fn nhwc(op: &str, layout: &Layout) -> Result<[usize; 4]> {
    match *layout.shape().dims() {
        [n, h, w, c] => Ok([n, h, w, c]),
        ref other => bail!("{op}: expected [batch, height, width, channels], got {other:?}"),
    }
}

/// An output under construction, to which several threads write disjoint parts. Nothing is zeroed
/// first: the kernels write every value. The values start on a cache line, because a vector that
/// lies across two lines costs twice; the gap before them stays in the storage, and [`shaped`]
/// leaves it out.
struct Output {
    values: Vec<f32>,
    gap: usize,
    len: usize,
}

/// Bytes in a cache line, and f32 values.
const LINE: usize = 64;
const LINE_VALUES: usize = LINE / size_of::<f32>();

/// Where threads write. Blocks of the work never overlap.
#[derive(Clone, Copy)]
struct OutputPtr(*mut f32);

// SAFETY: each task writes only the part of the output that is its own.
unsafe impl Send for OutputPtr {}
// SAFETY: as above.
unsafe impl Sync for OutputPtr {}

impl OutputPtr {
    /// # Safety
    /// `offset` lies within the output.
    #[inline(always)]
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

impl Output {
    fn new(len: usize) -> Self {
        let mut values: Vec<f32> = Vec::with_capacity(len + LINE_VALUES - 1);
        let gap = values.as_ptr().align_offset(LINE).min(LINE_VALUES - 1);
        values.resize(gap, 0.0);
        Self { values, gap, len }
    }

    /// Where value 0 goes.
    fn ptr(&mut self) -> OutputPtr {
        // SAFETY: the gap is within the capacity.
        OutputPtr(unsafe { self.values.as_mut_ptr().add(self.gap) })
    }

    /// Storage for [`shaped`].
    ///
    /// # Safety
    /// All `len` values have been written.
    unsafe fn finish(mut self) -> (CpuStorage, Shape) {
        let all = self.gap + self.len;
        // SAFETY: the capacity holds `all`; the gap is zeros, and the caller promises the rest.
        unsafe { self.values.set_len(all) };
        (CpuStorage::F32(self.values), Shape::from(all))
    }
}

/// The result of an operation, which is its output behind a gap (see [`Output`]), in its shape.
/// Nothing is copied.
fn shaped(raw: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let len = shape.elem_count();
    raw.narrow(0, raw.elem_count().saturating_sub(len), len)?.reshape(shape)
}

/// Runs a network over a batch. As many inputs as the threads can share evenly go through all
/// layers on one thread each, at most `group` together, so that what passes between layers stays
/// in that core's cache and no layer waits for another thread; the threads share the layers of
/// the inputs that are left. By this room's rule the groups change no bit of the result. On a GPU
/// the whole batch goes together.
///
/// # Errors
/// The first group's that fails.
pub fn in_groups<T: Send>(
    x: &Tensor,
    group: usize,
    run: impl Fn(&Tensor) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let n = x.dim(0)?;
    if !x.device().is_cpu() {
        // The threads of the team are for the CPU's operations.
        return run(x);
    }
    team::team().lead(|threads| {
        let shared = n % threads;
        let each = (n - shared) / threads;
        let mut results = Vec::with_capacity(n);
        if each > 0 {
            let group = each.div_ceil(each.div_ceil(group.max(1)));
            let starts: Vec<_> = (0..threads)
                .map(|t| t * each..(t + 1) * each)
                .flat_map(|inputs| inputs.clone().step_by(group).map(move |i| (i, inputs.end)))
                .collect();
            let parts = team::map(starts.len(), |i| {
                let (from, end) = starts[i];
                run(&x.narrow(0, from, group.min(end - from))?)
            });
            for part in parts {
                results.extend(part?);
            }
        }
        if shared > 0 {
            results.extend(run(&x.narrow(0, n - shared, shared)?)?);
        }
        Ok(results)
    })
}

#[cfg(test)]
mod tests;
