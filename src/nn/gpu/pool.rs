//! Launches of `kernels/pool.cu`.

use candle_core::Result;

use super::{Launch, Module, ValueType, axis, grid, moves_fours};

/// `PoolParams` of `kernels/pool.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct PoolParams {
    h: i32,
    w: i32,
    c: i32,
}

fn params(op: &str, [_, h, w, c]: [usize; 4]) -> Result<PoolParams> {
    Ok(PoolParams {
        h: axis(op, "height", h)?,
        w: axis(op, "width", w)?,
        c: axis(op, "channels", c)?,
    })
}

/// A block a piece of an output row.
fn by_rows(
    op: &str,
    shape: [usize; 4],
    kernel: &'static str,
    [rows, columns, groups]: [usize; 3],
) -> Result<(Launch, PoolParams)> {
    let threads = (columns as u64).saturating_mul(groups as u64);
    let grid = grid(op, &shape, [rows as u64, threads.div_ceil(256), 1])?;
    let launch = Launch { module: Module::Pool, kernel, grid, block: [256, 1, 1] };
    Ok((launch, params(op, shape)?))
}

/// Maximum over 2×2 pixels of `shape` [n, h, w, c], not empty: arguments x, y, parameters.
/// `offset` counts values from the start of the allocation.
///
/// # Errors
/// A shape that the kernels cannot take; the message names `op` and the shape.
pub fn max_pool(
    op: &str,
    shape: [usize; 4],
    values: ValueType,
    offset: usize,
) -> Result<(Launch, PoolParams)> {
    let [n, h, w, c] = shape;
    let fours = moves_fours(c, offset);
    let kernel = match (values, fours) {
        (ValueType::F32, true) => "max_pool_f32_vector",
        (ValueType::F32, false) => "max_pool_f32_scalar",
        (ValueType::F16, true) => "max_pool_f16_vector",
        (ValueType::F16, false) => "max_pool_f16_scalar",
    };
    let groups = if fours { c / 4 } else { c };
    by_rows(op, shape, kernel, [n.saturating_mul(h / 2), w / 2, groups])
}

/// A picture of `shape` [n, h, w, c], not empty, plus one of half its size: arguments x, small, y,
/// parameters. `offsets` as for [`max_pool`], of both.
///
/// # Errors
/// As [`max_pool`].
pub fn upsample_add(
    op: &str,
    shape: [usize; 4],
    values: ValueType,
    offsets: [usize; 2],
) -> Result<(Launch, PoolParams)> {
    let [n, h, w, c] = shape;
    let fours = offsets.iter().all(|offset| moves_fours(c, *offset));
    let kernel = match (values, fours) {
        (ValueType::F32, true) => "upsample_add_f32_vector",
        (ValueType::F32, false) => "upsample_add_f32_scalar",
        (ValueType::F16, true) => "upsample_add_f16_vector",
        (ValueType::F16, false) => "upsample_add_f16_scalar",
    };
    let groups = if fours { c / 4 } else { c };
    by_rows(op, shape, kernel, [n.saturating_mul(h), w, groups])
}

/// Means, or means and deviations, of `shape` [n, h, w, c], not empty: arguments x, y (f32),
/// parameters, eps (f32; below 0 for means alone).
///
/// # Errors
/// As [`max_pool`].
pub fn statistics(op: &str, shape: [usize; 4], values: ValueType) -> Result<(Launch, PoolParams)> {
    let kernel = match values {
        ValueType::F32 => "statistics_f32",
        ValueType::F16 => "statistics_f16",
    };
    let blocks = [shape[0] as u64, (shape[3] as u64).div_ceil(128), 1];
    let grid = grid(op, &shape, blocks)?;
    let launch = Launch { module: Module::Pool, kernel, grid, block: [128, 1, 1] };
    Ok((launch, params(op, shape)?))
}
