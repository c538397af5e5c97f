//! Launches and weight layouts of `kernels/conv.cu`, `conv_half.cu` and `depthwise.cu`.

use candle_core::{Result, bail};

use super::{Launch, Module, ValueType, activation_code, axis, grid, moves_fours};
use crate::nn::Activation;

/// A convolution as the launch sees it. A linear layer is one over pictures of one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// [n, h, w, channels].
    pub input: [usize; 4],
    /// [n, h, w, channels].
    pub output: [usize; 4],
    /// Vertical, horizontal.
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    /// Zeros above, zeros to the left.
    pub padding: (usize, usize),
    pub activation: Activation,
}

/// `ConvParams` of `kernels/conv.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct ConvParams {
    rows: i64,
    h: i32,
    w: i32,
    c: i32,
    out_h: i32,
    out_w: i32,
    out: i32,
    kernel_h: i32,
    kernel_w: i32,
    stride_y: i32,
    stride_x: i32,
    pad_y: i32,
    pad_x: i32,
    k: i32,
    out_padded: i32,
    activation: i32,
    vector_out: i32,
}

/// `DepthwiseParams` of `kernels/depthwise.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct DepthwiseParams {
    h: i32,
    w: i32,
    c: i32,
    out_h: i32,
    out_w: i32,
    kernel_h: i32,
    kernel_w: i32,
    stride_y: i32,
    stride_x: i32,
    pad_y: i32,
    pad_x: i32,
    activation: i32,
}

/// Rows of packed weights come in multiples of the deepest tile, columns of the widest.
const PACK_K: usize = 32;
const PACK_OUT: usize = 64;

/// Weights [k, out] for the standard kernels, padded with zeros, and the bias, padded likewise.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMatrix {
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Packs `weight` [out, in, kh, kw]; k counts [ky][kx][in].
pub fn pack_matrix(
    weight: &[f32],
    [out, per_group, kh, kw]: [usize; 4],
    bias: Option<&[f32]>,
) -> PackedMatrix {
    let k = per_group * kh * kw;
    let columns = out.next_multiple_of(PACK_OUT);
    let mut weights = vec![0.0; k.next_multiple_of(PACK_K) * columns];
    for o in 0..out {
        for c in 0..per_group {
            for tap in 0..kh * kw {
                weights[(tap * per_group + c) * columns + o] =
                    weight[(o * per_group + c) * kh * kw + tap];
            }
        }
    }
    PackedMatrix { weights, bias: padded_bias(bias, columns) }
}

/// Packs `weight` [channels, 1, kh, kw] as [ky][kx][channel].
pub fn pack_depthwise(
    weight: &[f32],
    [channels, _, kh, kw]: [usize; 4],
    bias: Option<&[f32]>,
) -> PackedMatrix {
    let mut weights = vec![0.0; weight.len()];
    for c in 0..channels {
        for tap in 0..kh * kw {
            weights[tap * channels + c] = weight[c * kh * kw + tap];
        }
    }
    PackedMatrix { weights, bias: padded_bias(bias, channels) }
}

fn padded_bias(bias: Option<&[f32]>, len: usize) -> Vec<f32> {
    let mut padded = vec![0.0; len];
    if let Some(bias) = bias {
        padded[..bias.len()].copy_from_slice(bias);
    }
    padded
}

impl ConvShape {
    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1)
            && self.stride == (1, 1)
            && self.padding == (0, 0)
            && self.input[..3] == self.output[..3]
    }

    /// All sizes as the kernels take them: input h, w, c; output h, w, c; kernel; stride; padding.
    fn sizes(&self, op: &str) -> Result<[i32; 12]> {
        let [_, h, w, c] = self.input;
        let [_, out_h, out_w, out] = self.output;
        let named = [
            ("input height", h),
            ("input width", w),
            ("input channels", c),
            ("output height", out_h),
            ("output width", out_w),
            ("output channels", out),
            ("kernel height", self.kernel.0),
            ("kernel width", self.kernel.1),
            ("vertical stride", self.stride.0),
            ("horizontal stride", self.stride.1),
            ("padding above", self.padding.0),
            ("padding to the left", self.padding.1),
        ];
        let mut sizes = [0; 12];
        for (to, (what, size)) in sizes.iter_mut().zip(named) {
            *to = axis(op, what, size)?;
        }
        // Where the last window starts; with the kernel added it stays below 2^30.
        for (out, stride) in [(out_h, self.stride.0), (out_w, self.stride.1)] {
            axis(op, "last window's place", out.saturating_mul(stride))?;
        }
        Ok(sizes)
    }
}

/// Output pixels and channels that a block of a standard kernel works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// f32, 128 × 64.
    Large,
    /// f32, 64 × 32. Gives the same bits as `Large`.
    Small,
    /// Half, 64 × 64.
    Half,
}

impl Tile {
    fn size(self) -> (u64, u64) {
        match self {
            Self::Large => (128, 64),
            Self::Small => (64, 32),
            Self::Half => (64, 64),
        }
    }

    /// Large tiles where they are enough to fill a GPU. The batch may count here, because both
    /// f32 tiles give the same bits.
    pub fn best(shape: &ConvShape, values: ValueType) -> Self {
        let pixels = shape.output[..3].iter().product::<usize>();
        let channels = shape.output[3];
        match values {
            ValueType::F16 => Self::Half,
            ValueType::F32 if channels > 32 && pixels / 128 * channels.div_ceil(64) >= 256 => {
                Self::Large
            }
            ValueType::F32 => Self::Small,
        }
    }
}

/// What runs a standard or pointwise convolution or a linear layer over a batch that is not empty:
/// arguments x, weights, bias, residual (or null), y, parameters. `x_offset` and
/// `residual_offset` count values from the start of their allocations.
///
/// # Errors
/// A shape that the kernels cannot take; the message names `op` and the shape.
pub fn standard(
    op: &str,
    shape: &ConvShape,
    tile: Tile,
    x_offset: usize,
    residual_offset: Option<usize>,
) -> Result<(Launch, ConvParams)> {
    let [h, w, c, out_h, out_w, out, kernel_h, kernel_w, stride_y, stride_x, pad_y, pad_x] =
        shape.sizes(op)?;
    let rows = shape.output[..3].iter().map(|v| *v as u64).product::<u64>();
    let k = shape.kernel.0.saturating_mul(shape.kernel.1).saturating_mul(shape.input[3]);
    let channels = shape.output[3];
    let params = ConvParams {
        rows: match i64::try_from(rows) {
            // Offsets of the last values stay far within 64 bits.
            Ok(rows) if rows < 1 << 34 => rows,
            _ => bail!("{op}: output {:?} has too many pixels for the GPU kernels", shape.output),
        },
        h,
        w,
        c,
        out_h,
        out_w,
        out,
        kernel_h,
        kernel_w,
        stride_y,
        stride_x,
        pad_y,
        pad_x,
        k: axis(op, "kernel times channels", k)?,
        out_padded: axis(op, "output channels", channels.next_multiple_of(PACK_OUT))?,
        activation: activation_code(shape.activation),
        vector_out: i32::from(moves_fours(channels, residual_offset.unwrap_or(0))),
    };
    let (m, n) = tile.size();
    let blocks = [rows.div_ceil(m), (channels as u64).div_ceil(n), 1];
    let fours = moves_fours(shape.input[3], x_offset);
    let (module, kernel) = match (tile, shape.is_pointwise(), fours) {
        (Tile::Large, true, true) => (Module::Conv, "conv_f32_large_pointwise_vector"),
        (Tile::Large, true, false) => (Module::Conv, "conv_f32_large_pointwise_scalar"),
        (Tile::Large, false, true) => (Module::Conv, "conv_f32_large_standard_vector"),
        (Tile::Large, false, false) => (Module::Conv, "conv_f32_large_standard_scalar"),
        (Tile::Small, true, true) => (Module::Conv, "conv_f32_small_pointwise_vector"),
        (Tile::Small, true, false) => (Module::Conv, "conv_f32_small_pointwise_scalar"),
        (Tile::Small, false, true) => (Module::Conv, "conv_f32_small_standard_vector"),
        (Tile::Small, false, false) => (Module::Conv, "conv_f32_small_standard_scalar"),
        (Tile::Half, true, true) => (Module::ConvHalf, "conv_f16_pointwise_vector"),
        (Tile::Half, true, false) => (Module::ConvHalf, "conv_f16_pointwise_scalar"),
        (Tile::Half, false, true) => (Module::ConvHalf, "conv_f16_standard_vector"),
        (Tile::Half, false, false) => (Module::ConvHalf, "conv_f16_standard_scalar"),
    };
    let grid = grid(op, &shape.output, blocks)?;
    Ok((Launch { module, kernel, grid, block: [128, 1, 1] }, params))
}

/// What runs a depthwise convolution over a batch that is not empty: arguments x, weights, bias,
/// residual (or null), y, parameters. Offsets as for [`standard`].
///
/// # Errors
/// A shape that the kernels cannot take; the message names `op` and the shape.
pub fn depthwise(
    op: &str,
    shape: &ConvShape,
    values: ValueType,
    x_offset: usize,
    residual_offset: Option<usize>,
) -> Result<(Launch, DepthwiseParams)> {
    let [h, w, c, out_h, out_w, _, kernel_h, kernel_w, stride_y, stride_x, pad_y, pad_x] =
        shape.sizes(op)?;
    let params = DepthwiseParams {
        h,
        w,
        c,
        out_h,
        out_w,
        kernel_h,
        kernel_w,
        stride_y,
        stride_x,
        pad_y,
        pad_x,
        activation: activation_code(shape.activation),
    };
    let channels = shape.input[3];
    let fours = moves_fours(channels, x_offset) && residual_offset.unwrap_or(0).is_multiple_of(4);
    let kinds = match (values, fours) {
        (ValueType::F32, false) => ["depthwise_f32_scalar"; 5],
        (ValueType::F16, false) => ["depthwise_f16_scalar"; 5],
        (ValueType::F32, true) => [
            "depthwise_f32_3_1",
            "depthwise_f32_3_2",
            "depthwise_f32_5_1",
            "depthwise_f32_5_2",
            "depthwise_f32_vector",
        ],
        (ValueType::F16, true) => [
            "depthwise_f16_3_1",
            "depthwise_f16_3_2",
            "depthwise_f16_5_1",
            "depthwise_f16_5_2",
            "depthwise_f16_vector",
        ],
    };
    let kind = match (shape.kernel, shape.stride.1) {
        ((3, 3), 1) => 0,
        ((3, 3), 2) => 1,
        ((5, 5), 1) => 2,
        ((5, 5), 2) => 3,
        _ => 4,
    };
    let tile = if fours && kind < 4 { 4 } else { 1 };
    let groups = if fours { channels / 4 } else { channels };
    let threads = (shape.output[2].div_ceil(tile) as u64).saturating_mul(groups as u64);
    let rows = (shape.output[0] as u64).saturating_mul(shape.output[1] as u64);
    let grid = grid(op, &shape.output, [rows, threads.div_ceil(128), 1])?;
    Ok((
        Launch { module: Module::Depthwise, kernel: kinds[kind], grid, block: [128, 1, 1] },
        params,
    ))
}
