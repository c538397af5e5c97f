//! The operations on a GPU: weights in device memory, and launches of the kernels in `kernels/`
//! through candle's own device and stream.
//!
//! Values are f32, or half where the input is half: then standard and pointwise convolutions run
//! on the tensor cores, every sum is f32, and pools and linear layers give f32. By this room's rule
//! a batch changes no bit of a result; which precision is used is the caller's choice by the type
//! of the input, and nothing chooses half by itself.
//!
//! A device should come from [`crate::device::start`]: one of `Device::new_cuda` has a stream for
//! each thread, and a tensor that one thread made is then not ordered before another's use of it.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::Arc;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig,
    PushKernelArg,
};
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Error, Layout, Result, Shape, Tensor, bail,
};
use half::f16;

use super::gpu::conv::{self, ConvParams, ConvShape, DepthwiseParams, Tile};
use super::gpu::features::{self, Spectrum, SpectrumParams};
use super::gpu::picture::{Affine, Crop, Surface, Target, TargetParams};
use super::gpu::pool::{self, PoolParams};
use super::gpu::{Launch, Module, ValueType};

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::Conv => "veriscope conv",
            Self::ConvHalf => "veriscope conv_half",
            Self::Depthwise => "veriscope depthwise",
            Self::Pool => "veriscope pool",
            Self::Picture => "veriscope picture",
            Self::Features => "veriscope features",
        }
    }

    fn ptx(self) -> &'static str {
        match self {
            Self::Conv => include_str!(concat!(env!("OUT_DIR"), "/conv.ptx")),
            Self::ConvHalf => include_str!(concat!(env!("OUT_DIR"), "/conv_half.ptx")),
            Self::Depthwise => include_str!(concat!(env!("OUT_DIR"), "/depthwise.ptx")),
            Self::Pool => include_str!(concat!(env!("OUT_DIR"), "/pool.ptx")),
            Self::Picture => include_str!(concat!(env!("OUT_DIR"), "/picture.ptx")),
            Self::Features => include_str!(concat!(env!("OUT_DIR"), "/features.ptx")),
        }
    }
}

// SAFETY of the five: `repr(C)`, plain numbers without padding, and as large as in the kernels
// (tests/kernels.rs compares them).
unsafe impl DeviceRepr for ConvParams {}
unsafe impl DeviceRepr for DepthwiseParams {}
unsafe impl DeviceRepr for PoolParams {}
unsafe impl DeviceRepr for SpectrumParams {}
unsafe impl DeviceRepr for TargetParams {}

/// A type that activations are stored in.
trait Stored: CudaDType + DeviceRepr + 'static {
    const VALUES: ValueType;
}

impl Stored for f32 {
    const VALUES: ValueType = ValueType::F32;
}

impl Stored for f16 {
    const VALUES: ValueType = ValueType::F16;
}

/// What operations asked of a GPU: the least that any program for it must calculate and move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    pub launches: u64,
    /// Multiplications and additions of convolutions and linear layers.
    pub flops: u64,
    /// Each operation's inputs, weights and output once.
    pub bytes: u64,
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work { launches: 0, flops: 0, bytes: 0 }) };
}

/// What this thread's operations asked for since the last call.
pub fn take_work() -> Work {
    WORK.take()
}

fn count(launches: u64, flops: usize, bytes: usize) {
    let work = WORK.get();
    WORK.set(Work {
        launches: work.launches + launches,
        flops: work.flops + flops as u64,
        bytes: work.bytes + bytes as u64,
    });
}

/// No residual.
const NULL: u64 = 0;

fn failed(op: &str, what: &Launch, error: impl std::fmt::Display) -> Error {
    let Launch { kernel, grid, block, .. } = what;
    Error::Cuda(format!("{op}: {kernel} over {grid:?} blocks of {block:?}: {error}").into())
}

/// A kernel, and the stream that it will run on.
struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// Loads the module on its first use, which has the driver compile it.
fn kernel(op: &str, device: &CudaDevice, what: &Launch) -> Result<Kernel> {
    let function = device
        .get_or_load_custom_func(what.kernel, what.module.name(), what.module.ptx())
        .map_err(|e| failed(op, what, e))?
        .into_cuda_function();
    Ok(Kernel { function, stream: device.cuda_stream() })
}

/// # Safety
/// `arguments` are those that the launch's own documentation lists, and their buffers hold what
/// its shape says.
unsafe fn start(op: &str, what: &Launch, arguments: &mut LaunchArgs<'_>) -> Result<()> {
    let three = |[x, y, z]: [u32; 3]| (x, y, z);
    let config = LaunchConfig {
        grid_dim: three(what.grid),
        block_dim: three(what.block),
        shared_mem_bytes: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { arguments.launch(config) }.map_err(|e| failed(op, what, e))?;
    count(1, 0, 0);
    Ok(())
}

/// Device memory that a kernel will fill. Not even an empty batch gets none: a driver refuses
/// that.
fn output<T: DeviceRepr>(device: &CudaDevice, len: usize) -> Result<CudaSlice<T>> {
    // SAFETY: whoever asks for it writes every value before anyone reads one.
    unsafe { device.alloc::<T>(len.max(1)) }
}

/// A contiguous argument: its values, and how many lie before them in its allocation.
fn view<'a, T: Stored>(
    op: &str,
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<(CudaView<'a, T>, usize)> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{op}: an argument of shape {:?} is not contiguous", layout.shape().dims());
    };
    let slice = storage.as_cuda_slice::<T>()?;
    match slice.try_slice(start..end) {
        Some(view) => Ok((view, start)),
        None => bail!("{op}: storage is shorter than shape {:?}", layout.shape().dims()),
    }
}

/// The same device memory, and the same stream.
fn same_device(op: &str, a: &CudaDevice, b: &CudaDevice) -> Result<()> {
    if !a.same_device(b) {
        bail!("{op}: arguments on {:?} and {:?}", a.location(), b.location());
    }
    Ok(())
}

/// The weights of one layer in device memory, packed for the kernels.
pub(super) struct LayerWeights {
    device: CudaDevice,
    weights: CudaSlice<f32>,
    /// Of standard convolutions only.
    half: Option<CudaSlice<f16>>,
    bias: CudaSlice<f32>,
}

impl LayerWeights {
    /// `None` where `weight` is not on a GPU. `weight`: [out, in / groups, kh, kw], or [out, in];
    /// `bias`: [out].
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, depthwise: bool) -> Result<Option<Self>> {
        let Device::Cuda(device) = weight.device() else { return Ok(None) };
        let dims = match *weight.dims() {
            [out, per_group, kh, kw] => [out, per_group, kh, kw],
            [out, inputs] => [out, inputs, 1, 1],
            ref other => bail!("weights of shape {other:?}"),
        };
        if let Some(bias) = bias
            && bias.dims() != [dims[0]]
        {
            bail!("bias {:?} for weights of shape {dims:?}", bias.dims());
        }
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        let bias = bias.map(|b| b.to_vec1::<f32>()).transpose()?;
        let packed = if depthwise {
            conv::pack_depthwise(&values, dims, bias.as_deref())
        } else {
            conv::pack_matrix(&values, dims, bias.as_deref())
        };
        let half = (!depthwise)
            .then(|| {
                let half: Vec<f16> = packed.weights.iter().map(|v| f16::from_f32(*v)).collect();
                device.clone_htod(&half)
            })
            .transpose()?;
        let weights = Self {
            device: device.clone(),
            weights: device.clone_htod(&packed.weights)?,
            half,
            bias: device.clone_htod(&packed.bias)?,
        };
        // Whatever stream a layer is used on, its weights are there.
        device.synchronize()?;
        Ok(Some(weights))
    }
}

/// An argument of an operation.
pub(super) type Argument<'a> = (&'a CudaStorage, &'a Layout);

/// A convolution; the output is flat.
pub(super) fn conv2d(
    op: &str,
    weights: Option<&LayerWeights>,
    shape: &ConvShape,
    x: Argument<'_>,
    residual: Option<Argument<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let Some(weights) = weights else {
        bail!("{op}: input {:?} on a GPU, weights on the CPU", shape.input);
    };
    if let Some((_, layout)) = residual
        && layout.shape().dims() != shape.output
    {
        let found = layout.shape().dims();
        bail!("{op}: residual {found:?} for an output of {:?}", shape.output);
    }
    match x.0.dtype() {
        DType::F32 => convolve::<f32>(op, weights, shape, x, residual),
        DType::F16 => convolve::<f16>(op, weights, shape, x, residual),
        other => bail!("{op}: input {:?} of type {other:?}, expected f32 or f16", shape.input),
    }
}

fn convolve<T: Stored>(
    op: &str,
    weights: &LayerWeights,
    shape: &ConvShape,
    x: Argument<'_>,
    residual: Option<Argument<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let device = x.0.device();
    same_device(op, device, &weights.device)?;
    let len = shape.output.iter().product::<usize>();
    let mut y = output::<T>(device, len)?;
    if len == 0 {
        return Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(len)));
    }
    let (x, x_offset) = view::<T>(op, x.0, x.1)?;
    let residual = match residual {
        Some((storage, layout)) => {
            same_device(op, device, storage.device())?;
            Some(view::<T>(op, storage, layout)?)
        }
        None => None,
    };
    let residual_offset = residual.as_ref().map(|(_, offset)| *offset);
    let taps = shape.kernel.0 * shape.kernel.1;
    let per_output = if weights.half.is_some() { taps * shape.input[3] } else { taps };
    let moved = shape.input.iter().product::<usize>() + len * (1 + usize::from(residual.is_some()));
    let weight_bytes = per_output * shape.output[3] * size_of::<T>() + 4 * shape.output[3];
    count(0, 2 * len * per_output, moved * size_of::<T>() + weight_bytes);
    match &weights.half {
        Some(half) => {
            let tile = Tile::best(shape, T::VALUES);
            let (what, params) = conv::standard(op, shape, tile, x_offset, residual_offset)?;
            let function = kernel(op, device, &what)?;
            let mut arguments = function.builder();
            arguments.arg(&x);
            if TypeId::of::<T>() == TypeId::of::<f16>() {
                arguments.arg(half);
            } else {
                arguments.arg(&weights.weights);
            }
            arguments.arg(&weights.bias);
            match &residual {
                Some((values, _)) => arguments.arg(values),
                None => arguments.arg(&NULL),
            };
            arguments.arg(&mut y).arg(&params);
            // SAFETY: the arguments that `conv::standard` lists; x and the residual hold their
            // shapes, y was allocated for the output's, weights and bias were packed for it.
            unsafe { start(op, &what, &mut arguments)? };
        }
        None => {
            let (what, params) = conv::depthwise(op, shape, T::VALUES, x_offset, residual_offset)?;
            let function = kernel(op, device, &what)?;
            let mut arguments = function.builder();
            arguments.arg(&x).arg(&weights.weights).arg(&weights.bias);
            match &residual {
                Some((values, _)) => arguments.arg(values),
                None => arguments.arg(&NULL),
            };
            arguments.arg(&mut y).arg(&params);
            // SAFETY: as above, with `conv::depthwise`.
            unsafe { start(op, &what, &mut arguments)? };
        }
    }
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(len)))
}

/// [n, h, w, c] → [n, h / 2, w / 2, c], flat.
pub(super) fn max_pool(
    op: &str,
    shape: [usize; 4],
    x: Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    match x.0.dtype() {
        DType::F32 => max_pool_as::<f32>(op, shape, x),
        DType::F16 => max_pool_as::<f16>(op, shape, x),
        other => bail!("{op}: input {shape:?} of type {other:?}, expected f32 or f16"),
    }
}

fn max_pool_as<T: Stored>(
    op: &str,
    shape: [usize; 4],
    (storage, layout): Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    let device = storage.device();
    let [n, h, w, c] = shape;
    let len = n * (h / 2) * (w / 2) * c;
    let mut y = output::<T>(device, len)?;
    if len > 0 {
        let (x, offset) = view::<T>(op, storage, layout)?;
        let (what, params) = pool::max_pool(op, shape, T::VALUES, offset)?;
        count(0, 0, (n * h * w * c + len) * size_of::<T>());
        let function = kernel(op, device, &what)?;
        let mut arguments = function.builder();
        arguments.arg(&x).arg(&mut y).arg(&params);
        // SAFETY: the arguments that `pool::max_pool` lists, of its shapes.
        unsafe { start(op, &what, &mut arguments)? };
    }
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(len)))
}

/// `shape` [n, h, w, c] is that of `x`, twice the size of `small`; the output is flat.
pub(super) fn upsample_add(
    op: &str,
    shape: [usize; 4],
    x: Argument<'_>,
    small: Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    match x.0.dtype() {
        DType::F32 => upsample_add_as::<f32>(op, shape, x, small),
        DType::F16 => upsample_add_as::<f16>(op, shape, x, small),
        other => bail!("{op}: input {shape:?} of type {other:?}, expected f32 or f16"),
    }
}

fn upsample_add_as<T: Stored>(
    op: &str,
    shape: [usize; 4],
    x: Argument<'_>,
    small: Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    let device = x.0.device();
    same_device(op, device, small.0.device())?;
    let len = shape.iter().product::<usize>();
    let mut y = output::<T>(device, len)?;
    if len > 0 {
        let (x, x_offset) = view::<T>(op, x.0, x.1)?;
        let (small, small_offset) = view::<T>(op, small.0, small.1)?;
        let (what, params) = pool::upsample_add(op, shape, T::VALUES, [x_offset, small_offset])?;
        count(0, 0, (2 * len + len / 4) * size_of::<T>());
        let function = kernel(op, device, &what)?;
        let mut arguments = function.builder();
        arguments.arg(&x).arg(&small).arg(&mut y).arg(&params);
        // SAFETY: the arguments that `pool::upsample_add` lists, of its shapes.
        unsafe { start(op, &what, &mut arguments)? };
    }
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(len)))
}

/// Means, and deviations where `eps` is given: [n, c] or [n, 2 * c], f32.
pub(super) fn statistics(
    op: &str,
    shape: [usize; 4],
    eps: Option<f32>,
    x: Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    match x.0.dtype() {
        DType::F32 => statistics_as::<f32>(op, shape, eps, x),
        DType::F16 => statistics_as::<f16>(op, shape, eps, x),
        other => bail!("{op}: input {shape:?} of type {other:?}, expected f32 or f16"),
    }
}

fn statistics_as<T: Stored>(
    op: &str,
    shape: [usize; 4],
    eps: Option<f32>,
    (storage, layout): Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    let device = storage.device();
    let [n, _, _, c] = shape;
    let width = if eps.is_some() { 2 * c } else { c };
    let mut y = output::<f32>(device, n * width)?;
    if n * width > 0 {
        let (x, _) = view::<T>(op, storage, layout)?;
        let (what, params) = pool::statistics(op, shape, T::VALUES)?;
        count(0, 0, shape.iter().product::<usize>() * size_of::<T>() + 4 * n * width);
        let eps = eps.unwrap_or(-1.0);
        let function = kernel(op, device, &what)?;
        let mut arguments = function.builder();
        arguments.arg(&x).arg(&mut y).arg(&params).arg(&eps);
        // SAFETY: the arguments that `pool::statistics` lists, of its shapes.
        unsafe { start(op, &what, &mut arguments)? };
    }
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from((n, width))))
}

fn cuda_device<'a>(op: &str, device: &'a Device) -> Result<&'a CudaDevice> {
    match device {
        Device::Cuda(device) => Ok(device),
        other => bail!("{op}: on {:?} instead of a GPU", other.location()),
    }
}

fn tensor<T: CudaDType>(
    values: CudaSlice<T>,
    shape: impl Into<Shape>,
    device: &CudaDevice,
) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(values, device.clone());
    Tensor::from_storage(
        candle_core::Storage::Cuda(storage),
        shape,
        candle_core::op::BackpropOp::none(),
        false,
    )
}

/// A spectral front end with its tables in device memory.
pub struct SpectralFrontEnd {
    spectrum: Spectrum,
    tables: CudaSlice<f64>,
    device: CudaDevice,
}

impl SpectralFrontEnd {
    /// # Errors
    /// A device that is no GPU; CUDA's errors.
    pub fn new(spectrum: Spectrum, device: &Device) -> Result<Self> {
        let device = cuda_device("spectral front end", device)?.clone();
        let tables = device.clone_htod(&features::tables())?;
        device.synchronize()?;
        Ok(Self { spectrum, tables, device })
    }

    /// [n, samples], f32 → [n, bands, frames, 1], f32.
    ///
    /// # Errors
    /// Another shape, type or device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let op = "spectral front end";
        let n = match *x.dims() {
            [n, samples] if samples == self.spectrum.samples => n,
            ref other => bail!("{op}: expected [n, {}], got {other:?}", self.spectrum.samples),
        };
        let device = &self.device;
        let (bands, frames) = (self.spectrum.bands, self.spectrum.frames());
        let mut power = output::<f32>(device, n * bands * frames)?;
        if n > 0 {
            let x = x.contiguous()?;
            let (storage, layout) = x.storage_and_layout();
            let candle_core::Storage::Cuda(storage) = &*storage else {
                bail!("{op}: windows on {:?} instead of the GPU", x.device().location());
            };
            same_device(op, device, storage.device())?;
            let (samples, _) = view::<f32>(op, storage, layout)?;
            let mut levels = output::<f32>(device, 2 * n)?;
            // The transforms are not counted: against what is moved they are little.
            count(0, 0, 4 * n * (self.spectrum.samples + bands * frames));
            let what = self.spectrum.launches(op, n)?;
            let params = &what.params;
            let function = kernel(op, device, &what.level)?;
            let mut arguments = function.builder();
            arguments.arg(&samples).arg(&mut levels).arg(params);
            // SAFETY: for the three: the arguments that `SpectrumLaunches` lists; samples hold
            // [n, samples], levels [n, 2], power [n, bands, frames].
            unsafe { start(op, &what.level, &mut arguments)? };
            let function = kernel(op, device, &what.power)?;
            let mut arguments = function.builder();
            arguments.arg(&samples).arg(&levels).arg(&self.tables).arg(&mut power).arg(params);
            // SAFETY: as above.
            unsafe { start(op, &what.power, &mut arguments)? };
            let function = kernel(op, device, &what.log)?;
            let mut arguments = function.builder();
            arguments.arg(&mut power).arg(params);
            // SAFETY: as above.
            unsafe { start(op, &what.log, &mut arguments)? };
        }
        Ok(tensor(power, (n, bands, frames, 1), device))
    }
}

/// Cuts rectangles out of decoded pictures and makes network inputs of them, in one pass:
/// [n, h, w, 3] (or [n, 3, h, w] where the target is planar), f32, in the order of `crops`.
///
/// # Errors
/// What [`Target::crops`] refuses; a device that is no GPU; CUDA's errors.
///
/// # Safety
/// The planes of `surfaces` are device memory of `device` with as many rows of the pitch that they
/// name as their pictures have, written before (on its stream, or synchronised with it), and stay
/// there until the stream has passed this point.
pub unsafe fn crop(
    target: &Target,
    surfaces: &[Surface],
    crops: &[Crop],
    device: &Device,
) -> Result<Tensor> {
    let launches = target.crops(crops, surfaces.len())?;
    // SAFETY: the caller's promise; the crops were checked.
    unsafe { picture(target, surfaces, crops, &launches, device) }
}

/// As [`crop`], along affine maps.
///
/// # Errors
/// What [`Target::maps`] refuses; a device that is no GPU; CUDA's errors.
///
/// # Safety
/// As [`crop`].
pub unsafe fn crop_affine(
    target: &Target,
    surfaces: &[Surface],
    maps: &[Affine],
    device: &Device,
) -> Result<Tensor> {
    let launches = target.maps(maps, surfaces.len())?;
    // SAFETY: the caller's promise; the maps were checked.
    unsafe { picture(target, surfaces, maps, &launches, device) }
}

/// # Safety
/// As [`crop`]; `places` are of the type that the launches' kernel takes, and name surfaces that
/// are there.
unsafe fn picture<P: bytemuck::Pod>(
    target: &Target,
    surfaces: &[Surface],
    places: &[P],
    launches: &[(Launch, TargetParams)],
    device: &Device,
) -> Result<Tensor> {
    let op = "picture";
    let device = cuda_device(op, device)?;
    let n = places.len();
    let mut out = output::<f32>(device, n * target.len())?;
    if n > 0 {
        let surfaces = device.clone_htod(bytemuck::cast_slice::<Surface, u8>(surfaces))?;
        let places = device.clone_htod(bytemuck::cast_slice::<P, u8>(places))?;
        for (what, params) in launches {
            let function = kernel(op, device, what)?;
            let mut arguments = function.builder();
            arguments.arg(&surfaces).arg(&places).arg(&mut out).arg(params);
            // SAFETY: the arguments that `Target::crops` and `Target::maps` list; `out` holds all
            // inputs; the planes are the caller's promise.
            unsafe { start(op, what, &mut arguments)? };
        }
    }
    let (width, height) = target.canvas;
    let shape = if target.planar { [n, 3, height, width] } else { [n, height, width, 3] };
    Ok(tensor(out, shape.to_vec(), device))
}
