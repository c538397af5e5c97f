//! Convolutions and linear layers.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::depthwise::Depthwise;
use super::matrix::{Line, Packed, Product, Rows, ToBf16};
use super::separable::Stages;
use super::simd::{Isa, dispatch};
use super::team::{for_each_task, is_alone, threads};
use super::{Activation, Output, OutputPtr, Precision, contiguous, nhwc, shaped};
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
    /// Only pointwise convolutions with stride 1 heed it; in others it would not pay.
    pub precision: Precision,
}

impl Default for ConvConfig {
    fn default() -> Self {
        Self {
            stride: (1, 1),
            padding: Padding::default(),
            groups: 1,
            activation: Activation::None,
            precision: Precision::F32,
        }
    }
}

/// 2-D convolution with bias, activation and, optionally, a residual: standard, pointwise (1×1)
/// or depthwise. A 1-D convolution is one over pictures of height 1.
pub struct Conv2d {
    pub(super) kernel: (usize, usize),
    pub(super) channels: usize,
    pub(super) out_channels: usize,
    pub(super) config: ConvConfig,
    pub(super) weights: Weights,
    /// Where the weights came on a GPU.
    #[cfg(feature = "cuda")]
    device_weights: Option<cuda::LayerWeights>,
}

pub(super) enum Weights {
    Matrix(Packed),
    Depthwise(Depthwise),
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
            let precision =
                if pointwise((kh, kw), &config) { config.precision } else { Precision::F32 };
            let k = kh * kw * per_group;
            let isa = matrix_isa(isa, precision);
            let packed = Packed::new(isa, precision, out, k, at, bias.as_deref());
            (per_group, Weights::Matrix(packed))
        } else if config.groups == out && per_group == 1 {
            let mut taps = vec![0.0; values.len()];
            for c in 0..out {
                for tap in 0..kh * kw {
                    taps[tap * out + c] = values[c * kh * kw + tap];
                }
            }
            let bias = bias.unwrap_or_else(|| vec![0.0; out]);
            let depthwise = Depthwise {
                isa,
                weights: taps,
                bias,
                c: out,
                kernel: (kh, kw),
                stride: config.stride,
                activation: config.activation,
            };
            (out, Weights::Depthwise(depthwise))
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

    pub(super) fn is_pointwise(&self) -> bool {
        matches!(self.weights, Weights::Matrix(_)) && pointwise(self.kernel, &self.config)
    }

    pub(super) fn matrix(&self) -> Option<(&Packed, Activation)> {
        match &self.weights {
            Weights::Matrix(packed) => Some((packed, self.config.activation)),
            Weights::Depthwise(_) => None,
        }
    }

    /// Height and width of the output.
    pub(super) fn out_size(&self, [n, h, w]: [usize; 3]) -> Result<[usize; 2]> {
        let p = self.config.padding;
        let (padded_h, padded_w) = (h + p.top + p.bottom, w + p.left + p.right);
        if padded_h < self.kernel.0 || padded_w < self.kernel.1 {
            bail!(
                "conv2d: input {:?} does not fit a {}x{} kernel over {} channels with {p:?}",
                [n, h, w, self.channels],
                self.kernel.0,
                self.kernel.1,
                self.channels
            );
        }
        Ok([
            (padded_h - self.kernel.0) / self.config.stride.0 + 1,
            (padded_w - self.kernel.1) / self.config.stride.1 + 1,
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

    fn out_shape(&self, layout: &Layout) -> Result<[usize; 4]> {
        let [n, h, w, c] = nhwc("conv2d", layout)?;
        if c != self.channels {
            bail!("conv2d: input {:?}, expected {} channels", [n, h, w, c], self.channels);
        }
        let [out_h, out_w] = self.out_size([n, h, w])?;
        Ok([n, out_h, out_w, self.out_channels])
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
            Weights::Matrix(packed) if self.is_pointwise() => {
                rows_times_matrix(packed, x, n * h * w, residual, out, self.config.activation);
            }
            Weights::Matrix(packed) => {
                self.standard(packed, x, [n, h, w], out_shape, residual, out);
            }
            Weights::Depthwise(depthwise) => Stages {
                expand: None,
                depthwise,
                padding: self.config.padding,
                project: None,
                input: x,
                size: [n, h, w],
                inputs: self.channels,
                out_size: [out_shape[1], out_shape[2]],
                residual,
                max_pool: false,
                out,
            }
            .run(),
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
        let fair = (n * out_h).div_ceil(STANDARD_TASKS * threads());
        let rows = (STANDARD_BLOCK / out_w).min(fair).clamp(1, out_h);
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
            // SAFETY: `first` is a pixel of the output.
            let to = unsafe { out.at(first * self.out_channels) };
            let residual = residual.map(|r| &r[first * self.out_channels..]);
            let work = Product {
                weights: packed,
                input: Rows::listed(padded.as_ptr(), &starts),
                segments: self.kernel.0,
                segment_stride: padded_w * c,
                rows: 0..starts.len(),
                panels: 0..packed.panels(),
                output: Rows::dense(to, self.out_channels),
                residual: residual.map(|r| Rows::dense(r.as_ptr(), self.out_channels)),
                activation: self.config.activation,
            };
            // SAFETY: the set was checked in `with_isa`; the last run of the last pixel ends with
            // the padded copy, because the output's size was worked out from the padded size;
            // each task has its own output rows.
            unsafe { dispatch(packed.isa(), work) }
        });
    }
}

/// The set for a matrix in `precision` where other layers run with `isa`.
fn matrix_isa(isa: Isa, precision: Precision) -> Isa {
    if precision == Precision::Bf16 && isa == Isa::Avx512 && Isa::Avx512Bf16.is_available() {
        Isa::Avx512Bf16
    } else {
        isa
    }
}

/// Whether each output pixel comes from one input pixel.
fn pointwise(kernel: (usize, usize), config: &ConvConfig) -> bool {
    kernel == (1, 1) && config.stride == (1, 1) && config.padding == Padding::default()
}

/// Output pixels in a task of a standard convolution.
const STANDARD_BLOCK: usize = 1280;
/// Tasks a thread to aim at, so that threads end together.
const STANDARD_TASKS: usize = 4;
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
    match packed.precision() {
        Precision::F32 => multiply(packed, x.as_ptr(), rows, residual, out, activation),
        Precision::Bf16 => {
            let mut pairs = vec![Line::default(); (rows * packed.steps()).div_ceil(16)];
            let to = pairs.as_mut_ptr().cast();
            let work = ToBf16 { from: x.as_ptr(), to, rows, k: packed.k };
            // SAFETY: the set was checked when the weights were packed; `pairs` has the room.
            unsafe { dispatch(packed.isa(), work) };
            multiply(packed, pairs.as_ptr().cast(), rows, residual, out, activation);
        }
    }
}

/// `x`, [rows, steps] of values or of pairs of bf16, times the weights.
pub(super) fn multiply(
    packed: &Packed,
    x: *const f32,
    rows: usize,
    residual: Option<&[f32]>,
    out: OutputPtr,
    activation: Activation,
) {
    let k = packed.steps();
    // A multiple of every instruction set's tile.
    let mut block = (MATRIX_BLOCK / k / 24).clamp(1, 20) * 24;
    let mut groups = 1;
    if rows * k * packed.out < MATRIX_SMALL {
        block = rows.max(1);
    } else if !is_alone() {
        block = block.min(rows.div_ceil(MATRIX_TASKS).div_ceil(24) * 24);
        groups = MATRIX_TASKS.div_ceil(rows.div_ceil(block)).min(packed.panels());
    }
    let group = packed.panels().div_ceil(groups);
    let groups = packed.panels().div_ceil(group);
    let x = OutputPtr(x.cast_mut());
    for_each_task(rows.div_ceil(block) * groups, |t| {
        let (b, g) = (t / groups, t % groups);
        // SAFETY: the set was checked when the weights were packed; `x` holds rows * k values;
        // each task has its own rows and panels.
        unsafe {
            let work = Product {
                weights: packed,
                input: Rows::dense(x.at(0), k),
                segments: 1,
                segment_stride: 0,
                rows: b * block..((b + 1) * block).min(rows),
                panels: g * group..((g + 1) * group).min(packed.panels()),
                output: Rows::dense(out.at(0), packed.out),
                residual: residual.map(|r| Rows::dense(r.as_ptr(), packed.out)),
                activation,
            };
            dispatch(packed.isa(), work);
        }
    });
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
    /// In f32. `weight`: [out, in]; `bias`: [out].
    ///
    /// # Errors
    /// Other shapes.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Self> {
        Self::with_precision(weight, bias, activation, Precision::F32)
    }

    /// As [`new`](Self::new), in a precision, which layers on a GPU do not heed.
    ///
    /// # Errors
    /// Other shapes.
    pub fn with_precision(
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        precision: Precision,
    ) -> Result<Self> {
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
            weights: Packed::new(
                matrix_isa(Isa::best(), precision),
                precision,
                out,
                k,
                at,
                bias.as_deref(),
            ),
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

    pub(super) fn packed(&self) -> &Packed {
        &self.weights
    }

    pub(super) fn activation(&self) -> Activation {
        self.activation
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
