//! What a GPU is asked to do: which kernel of `kernels/`, over which grid, with which parameters
//! and in which layout of the weights. Nothing here needs a GPU, so that the tests run the kernels
//! on the host with the very launches that `nn::cuda` makes.
//!
//! Kernels take 32-bit sizes along an axis and 64-bit offsets; a shape that does not fit is an
//! error that names the operation.

pub mod conv;
pub mod features;
pub mod picture;
pub mod pool;

use candle_core::{Result, bail};

use super::Activation;

/// A file of kernels, `kernels/*.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    Conv,
    ConvHalf,
    Depthwise,
    Pool,
    Picture,
    Features,
}

/// One kernel launch, save for its arguments. Shared memory is static in all kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub module: Module,
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
}

/// How activations are stored in device memory. Sums are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    F32,
    /// Half; standard and pointwise convolutions run on the tensor cores.
    F16,
}

/// The greatest size along one axis that the kernels' 32-bit arithmetic is safe with.
const AXIS_MAX: usize = 1 << 28;
/// What the hardware takes in x, and in y and z.
const GRID_X_MAX: u64 = (1 << 31) - 1;
const GRID_YZ_MAX: u64 = 65_535;

/// The numbers of `ActivationCode` in `kernels/common.cuh`.
fn activation_code(activation: Activation) -> i32 {
    match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 2,
        Activation::Silu => 3,
        Activation::Sigmoid => 4,
        Activation::Selu => 5,
    }
}

/// A size for a kernel; `what` is for the message.
fn axis(op: &str, what: &str, size: usize) -> Result<i32> {
    match i32::try_from(size) {
        Ok(small) if size <= AXIS_MAX => Ok(small),
        _ => bail!("{op}: {what} of {size} is more than the GPU kernels take ({AXIS_MAX})"),
    }
}

/// Blocks in x, y and z within the hardware's limits.
fn grid(op: &str, shape: &[usize], blocks: [u64; 3]) -> Result<[u32; 3]> {
    let limits = [GRID_X_MAX, GRID_YZ_MAX, GRID_YZ_MAX];
    let mut grid = [0; 3];
    for ((to, from), limit) in grid.iter_mut().zip(blocks).zip(limits) {
        *to = match u32::try_from(from) {
            Ok(blocks) if from <= limit && from > 0 => blocks,
            _ => {
                bail!("{op}: shape {shape:?} needs a grid of {blocks:?} blocks, at most {limits:?}")
            }
        };
    }
    Ok(grid)
}

/// Whether four values may be moved at once: `width` values a row, the first at `offset` of an
/// allocation (whose own address is a multiple of 256 bytes).
fn moves_fours(width: usize, offset: usize) -> bool {
    width.is_multiple_of(4) && offset.is_multiple_of(4)
}
