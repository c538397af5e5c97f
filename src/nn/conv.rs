//! Convolutions and linear layers.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::depthwise::{Depthwise, DepthwiseRows};
use super::matrix::{Packed, RowsTimesPanels};
use super::simd::{Isa, dispatch};
use super::{Activation, Output, OutputPtr, contiguous, nhwc, shaped};
#[cfg(feature = "cuda")]
use super::{cuda, gpu::conv::ConvShape};

/// Zeros around the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

impl Padding {
    /// The same on all four sides.
    pub fn all(n: usize) -> Self {
        Self { top: n, bottom: n, left: n, right: n }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvConfig {
    /// Vertical, horizontal.
    pub stride: (usize, usize),
    pub padding: Padding,
    /// 1, or the number of channels for a depthwise convolution.
    pub groups: usize,
    pub activation: Activation,
}

impl Default for ConvConfig {
    fn default() -> Self {
        Self {
            stride: (1, 1),
            padding: Padding::default(),
            groups: 1,
            activation: Activation::None,
        }
    }
}

/// 2-D convolution with bias, activation and, optionally, a residual: standard, pointwise (1×1)
/// or depthwise. A 1-D convolution is one over pictures of height 1.
pub struct Conv2d {
    kernel: (usize, usize),
    channels: usize,
    out_channels: usize,
    config: ConvConfig,
    weights: Weights,
    /// Where the weights came on a GPU.
    #[cfg(feature = "cuda")]
    device_weights: Option<cuda::LayerWeights>,
}

enum Weights {
    Matrix(Packed),
    /// [ky][kx][c] and [c].
    Depthwise {
        isa: Isa,
        weights: Vec<f32>,
        bias: Vec<f32>,
    },
}

impl Conv2d {
    /// `weight`: [out, in / groups, kh, kw]; `bias`: [out].
    ///
    /// # Errors
    /// Other shapes, a stride of 0, and groups that are neither 1 nor the number of channels.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, config: ConvConfig) -> Result<Self> {
        Self::with_isa(weight, bias, config, Isa::best())
    }

    /// As [`new`](Self::new), with the kernels of one instruction set.
    ///
    /// # Errors
    /// Also where this machine lacks that set.
    pub fn with_isa(
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: ConvConfig,
        isa: Isa,
    ) -> Result<Self> {
        if !isa.is_available() {
            bail!("conv2d: this machine has no {isa:?}");
        }
        let (out, per_group, kh, kw) = weight.dims4()?;
        if out == 0 || per_group == 0 || kh == 0 || kw == 0 {
            bail!("conv2d: empty weight {:?}", weight.dims());
        }
        if config.stride.0 == 0 || config.stride.1 == 0 {
            bail!("conv2d: stride {:?}", config.stride);
        }
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        #[cfg(feature = "cuda")]
        let device_weights = cuda::LayerWeights::new(weight, bias, config.groups != 1)?;
        let bias = bias_values("conv2d", bias, out)?;
        let (channels, weights) = if config.groups == 1 {
            // Input values come as [ky][kx][channel].
            let at = |o: usize, i: usize| {
                let (tap, c) = (i / per_group, i % per_group);
                values[(o * per_group + c) * kh * kw + tap]
            };
            let packed = Packed::new(isa, out, kh * kw * per_group, at, bias.as_deref());
            (per_group, Weights::Matrix(packed))
        } else if config.groups == out && per_group == 1 {
            let mut taps = vec![0.0; values.len()];
            for c in 0..out {
                for tap in 0..kh * kw {
                    taps[tap * out + c] = values[c * kh * kw + tap];
                }
            }
            let bias = bias.unwrap_or_else(|| vec![0.0; out]);
            (out, Weights::Depthwise { isa, weights: taps, bias })
        } else {
            bail!(
                "conv2d: weight {:?} with {} groups is neither standard nor depthwise",
                weight.dims(),
                config.groups
            );
        };
        Ok(Self {
            kernel: (kh, kw),
            channels,
            out_channels: out,
            config,
            weights,
            #[cfg(feature = "cuda")]
            device_weights,
        })
    }

    /// [n, h, w, in] → [n, (h + padding - kh) / stride + 1, likewise, out].
    ///
    /// # Errors
    /// Another rank, type or number of channels; a padded picture smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.out_shape(x.layout())?;
        shaped(&x.contiguous()?.apply_op1_no_bwd(self)?, shape.to_vec())
    }

    /// As [`forward`](Self::forward) with `residual`, of the output's shape, added before the
    /// activation.
    ///
    /// # Errors
    /// As `forward`, and a residual of another shape.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let shape = self.out_shape(x.layout())?;
        let raw = x.contiguous()?.apply_op2_no_bwd(&residual.contiguous()?, self)?;
        shaped(&raw, shape.to_vec())
    }

    fn out_shape(&self, layout: &Layout) -> Result<[usize; 4]> {
        let [n, h, w, c] = nhwc("conv2d", layout)?;
        let p = self.config.padding;
        let (padded_h, padded_w) = (h + p.top + p.bottom, w + p.left + p.right);
        if c != self.channels || padded_h < self.kernel.0 || padded_w < self.kernel.1 {
            bail!(
                "conv2d: input {:?} does not fit a {}x{} kernel over {} channels with {p:?}",
                [n, h, w, c],
                self.kernel.0,
                self.kernel.1,
                self.channels
            );
        }
        Ok([
            n,
            (padded_h - self.kernel.0) / self.config.stride.0 + 1,
            (padded_w - self.kernel.1) / self.config.stride.1 + 1,
            self.out_channels,
        ])
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        x: cuda::Argument<'_>,
        residual: Option<cuda::Argument<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = ConvShape {
            input: nhwc("conv2d", x.1)?,
            output: self.out_shape(x.1)?,
            kernel: self.kernel,
            stride: self.config.stride,
            padding: (self.config.padding.top, self.config.padding.left),
            activation: self.config.activation,
        };
        cuda::conv2d("conv2d", self.device_weights.as_ref(), &shape, x, residual)
    }

    fn cpu(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        residual: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let out_shape = self.out_shape(layout)?;
        let x = contiguous("conv2d", storage, layout)?;
        let residual = match residual {
            Some((storage, layout)) => {
                if layout.shape().dims() != out_shape {
                    bail!(
                        "conv2d: residual {:?} for an output of {out_shape:?}",
                        layout.shape().dims()
                    );
                }
                Some(contiguous("conv2d", storage, layout)?)
            }
            None => None,
        };
        let [n, h, w, _] = nhwc("conv2d", layout)?;
        let mut output = Output::new(out_shape.iter().product());
        let out = output.ptr();
        match &self.weights {
            Weights::Matrix(packed)
                if self.kernel == (1, 1)
                    && self.config.stride == (1, 1)
                    && self.config.padding == Padding::default() =>
            {
                rows_times_matrix(packed, x, n * h * w, residual, out, self.config.activation);
            }
            Weights::Matrix(packed) => {
                self.standard(packed, x, [n, h, w], out_shape, residual, out);
            }
            Weights::Depthwise { isa, weights, bias } => {
                let op = Depthwise {
                    input: x,
                    weights,
                    bias,
                    residual,
                    out,
                    h,
                    w,
                    c: self.channels,
                    out_h: out_shape[1],
                    out_w: out_shape[2],
                    kernel: self.kernel,
                    stride: self.config.stride,
                    pad: (self.config.padding.top, self.config.padding.left),
                    activation: self.config.activation,
                };
                let rows = n * out_shape[1];
                let block = (DEPTHWISE_BLOCK / (out_shape[2] * self.channels).max(1)).max(1);
                for_each_task(rows.div_ceil(block), |t| {
                    let rows = t * block..((t + 1) * block).min(rows);
                    // SAFETY: the set was checked in `with_isa`; sizes come from the shapes above;
                    // each task has its own rows.
                    unsafe { dispatch(*isa, DepthwiseRows { op: &op, rows }) }
                });
            }
        }
        // SAFETY: the tasks cover all rows and all channels.
        Ok(unsafe { output.finish() })
    }

    /// Any kernel, as a matrix product over the runs of `kw * channels` values that lie together
    /// in a padded picture.
    fn standard(
        &self,
        packed: &Packed,
        x: &[f32],
        [n, h, w]: [usize; 3],
        [_, out_h, out_w, _]: [usize; 4],
        residual: Option<&[f32]>,
        out: OutputPtr,
    ) {
        let c = self.channels;
        let (stride, p) = (self.config.stride, self.config.padding);
        let image = out_h * out_w;
        if n * image == 0 {
            return;
        }
        // A task is some rows of one picture, or some whole small pictures.
        let rows = (STANDARD_BLOCK / out_w).clamp(1, out_h);
        let images = if rows == out_h { (STANDARD_BLOCK / image).clamp(1, n) } else { 1 };
        let parts = out_h.div_ceil(rows);
        for_each_task(n.div_ceil(images) * parts, |t| {
            let from_image = t / parts * images;
            let to_image = (from_image + images).min(n);
            let from_row = t % parts * rows;
            let to_row = (from_row + rows).min(out_h);
            // The input rows of this task, with their zeros around them.
            let padded_w = w + p.left + p.right;
            let padded_h = (to_row - from_row - 1) * stride.0 + self.kernel.0;
            let mut padded = vec![0.0f32; (to_image - from_image) * padded_h * padded_w * c];
            for i in from_image..to_image {
                for y in 0..padded_h {
                    let Some(iy) = (from_row * stride.0 + y).checked_sub(p.top) else { continue };
                    if iy < h {
                        let from = (i * h + iy) * w * c;
                        let to = (((i - from_image) * padded_h + y) * padded_w + p.left) * c;
                        padded[to..to + w * c].copy_from_slice(&x[from..from + w * c]);
                    }
                }
            }
            let mut starts = Vec::with_capacity((to_image - from_image) * rows * out_w);
            for i in 0..to_image - from_image {
                for y in 0..to_row - from_row {
                    let line = (i * padded_h + y * stride.0) * padded_w;
                    starts.extend((0..out_w).map(|ox| (line + ox * stride.1) * c));
                }
            }
            let first = (from_image * out_h + from_row) * out_w;
            let (starts, padded) = (starts.as_slice(), padded.as_slice());
            let work = RowsTimesPanels {
                weights: packed,
                row: |r: usize| padded.as_ptr().wrapping_add(starts[r - first]),
                segments: self.kernel.0,
                segment_stride: padded_w * c,
                rows: first..first + starts.len(),
                panels: 0..packed.panels(),
                out,
                residual,
                activation: self.config.activation,
            };
            // SAFETY: the set was checked in `with_isa`; the last run of the last pixel ends with
            // the padded copy, because the output's size was worked out from the padded size;
            // each task has its own output rows.
            unsafe { dispatch(packed.isa(), work) }
        });
    }
}

/// Output values in a depthwise task.
const DEPTHWISE_BLOCK: usize = 32 * 1024;
/// Output pixels in a task of a standard convolution.
const STANDARD_BLOCK: usize = 320;
/// Input values in a task of a matrix product: what a second-level cache holds beside the weights.
const MATRIX_BLOCK: usize = 24 * 1024;
/// A product with fewer multiplications is not worth a second thread.
const MATRIX_SMALL: usize = 64 * 1024;
/// Tasks to aim at, so that threads end together.
const MATRIX_TASKS: usize = 8;

/// `x` [rows, k] times the weights.
fn rows_times_matrix(
    packed: &Packed,
    x: &[f32],
    rows: usize,
    residual: Option<&[f32]>,
    out: OutputPtr,
    activation: Activation,
) {
    let k = packed.k;
    // A multiple of every instruction set's tile.
    let mut block = (MATRIX_BLOCK / k / 24).clamp(1, 20) * 24;
    let mut groups = 1;
    if rows * k * packed.out < MATRIX_SMALL {
        block = rows.max(1);
    } else {
        block = block.min(rows.div_ceil(MATRIX_TASKS).div_ceil(24) * 24);
        groups = MATRIX_TASKS.div_ceil(rows.div_ceil(block)).min(packed.panels());
    }
    let group = packed.panels().div_ceil(groups);
    let groups = packed.panels().div_ceil(group);
    for_each_task(rows.div_ceil(block) * groups, |t| {
        let (b, g) = (t / groups, t % groups);
        let work = RowsTimesPanels {
            weights: packed,
            row: |r: usize| x.as_ptr().wrapping_add(r * k),
            segments: 1,
            segment_stride: 0,
            rows: b * block..((b + 1) * block).min(rows),
            panels: g * group..((g + 1) * group).min(packed.panels()),
            out,
            residual,
            activation,
        };
        // SAFETY: the set was checked when the weights were packed; `x` holds rows * k values;
        // each task has its own rows and panels.
        unsafe { dispatch(packed.isa(), work) }
    });
}

/// Runs tasks on the current rayon pool, a single one right here.
pub(super) fn for_each_task(tasks: usize, task: impl Fn(usize) + Sync + Send) {
    if tasks == 1 {
        task(0);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

fn bias_values(op: &str, bias: Option<&Tensor>, out: usize) -> Result<Option<Vec<f32>>> {
    let Some(bias) = bias else { return Ok(None) };
    if bias.dims() != [out] {
        bail!("{op}: bias {:?} for {out} outputs", bias.dims());
    }
    bias.to_vec1().map(Some)
}

impl CustomOp1 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(storage, layout, None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda((storage, layout), None)
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d with residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu(s1, l1, Some((s2, l2)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda((s1, l1), Some((s2, l2)))
    }
}

/// `activation(x * weight^T + bias)`.
pub struct Linear {
    weights: Packed,
    activation: Activation,
    /// Where the weights came on a GPU.
    #[cfg(feature = "cuda")]
    device_weights: Option<cuda::LayerWeights>,
}

impl Linear {
    /// `weight`: [out, in]; `bias`: [out].
    ///
    /// # Errors
    /// Other shapes.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Self> {
        let (out, k) = weight.dims2()?;
        if out == 0 || k == 0 {
            bail!("linear: empty weight {:?}", weight.dims());
        }
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        #[cfg(feature = "cuda")]
        let device_weights = cuda::LayerWeights::new(weight, bias, false)?;
        let bias = bias_values("linear", bias, out)?;
        let at = |o: usize, i: usize| values[o * k + i];
        Ok(Self {
            weights: Packed::new(Isa::best(), out, k, at, bias.as_deref()),
            activation,
            #[cfg(feature = "cuda")]
            device_weights,
        })
    }

    /// [n, in] → [n, out].
    ///
    /// # Errors
    /// Another rank, type or width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let n = self.batch(x.layout())?;
        shaped(&x.contiguous()?.apply_op1_no_bwd(self)?, (n, self.weights.out))
    }

    fn batch(&self, layout: &Layout) -> Result<usize> {
        match *layout.shape().dims() {
            [n, k] if k == self.weights.k => Ok(n),
            ref other => bail!("linear: expected [batch, {}], got {other:?}", self.weights.k),
        }
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let n = self.batch(layout)?;
        let x = contiguous("linear", storage, layout)?;
        let mut output = Output::new(n * self.weights.out);
        rows_times_matrix(&self.weights, x, n, None, output.ptr(), self.activation);
        // SAFETY: the tasks cover all rows and all outputs.
        Ok(unsafe { output.finish() })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let n = self.batch(layout)?;
        let shape = ConvShape {
            input: [n, 1, 1, self.weights.k],
            output: [n, 1, 1, self.weights.out],
            kernel: (1, 1),
            stride: (1, 1),
            padding: (0, 0),
            activation: self.activation,
        };
        cuda::conv2d("linear", self.device_weights.as_ref(), &shape, (storage, layout), None)
    }
}
