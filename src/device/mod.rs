//! Where networks can run: what CUDA there is on this machine, and why one cannot use it.
//!
//! The program starts everywhere. With the feature `cuda`, the CUDA libraries are opened when they
//! are first called ([`libraries`]).

#[cfg(feature = "cuda")]
pub mod libraries;

use candle_core::Device;

/// Why a CUDA device cannot be used. Every message says exactly what is missing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    #[error("this program was built without CUDA (the feature `cuda`)")]
    NotBuilt,
    #[error("{library} cannot be opened: {reason}")]
    Library { library: String, reason: String },
    #[error("the NVIDIA driver does not start: {0}")]
    Driver(String),
    #[error(
        "the NVIDIA driver is for CUDA {found}, this program needs a driver for CUDA {needed} or newer"
    )]
    OldDriver { found: String, needed: String },
    #[error("there is no device {ordinal}: the NVIDIA driver offers {count}")]
    NoDevice { ordinal: usize, count: usize },
    #[error("{name} has compute capability {found}, this program needs {needed} or newer")]
    OldDevice { name: String, found: String, needed: String },
    #[error("device {ordinal} does not start: {reason}")]
    Start { ordinal: usize, reason: String },
}

impl DeviceError {
    /// Whether somebody who has a GPU would be surprised: there is a driver, and still no device.
    pub fn is_surprising(&self) -> bool {
        has_kernel_driver() && *self != Self::NotBuilt
    }
}

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    pub ordinal: usize,
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

/// A CUDA library's file name; where it was found, or why it cannot be opened.
pub type LibraryState = (String, Result<String, String>);

/// What there is of CUDA.
#[derive(Debug, Clone, PartialEq)]
pub struct Cuda {
    /// Each library that this program may call; empty where it was built without CUDA.
    pub libraries: Vec<LibraryState>,
    /// The CUDA version of the driver, such as `13.0`.
    pub driver: Result<String, DeviceError>,
    pub gpus: Vec<Gpu>,
}

/// Whether the kernel has an NVIDIA driver.
pub fn has_kernel_driver() -> bool {
    std::path::Path::new("/proc/driver/nvidia/version").exists()
}

/// Looks at what there is. Opens every library.
#[cfg(not(feature = "cuda"))]
pub fn cuda() -> Cuda {
    Cuda { libraries: Vec::new(), driver: Err(DeviceError::NotBuilt), gpus: Vec::new() }
}

/// Looks at what there is. Opens every library.
#[cfg(feature = "cuda")]
pub fn cuda() -> Cuda {
    let libraries = libraries::Library::ALL
        .iter()
        .map(|library| (library.file(), libraries::open(*library).clone()))
        .collect();
    let driver = driver::version();
    let gpus = match &driver {
        Ok(_) => driver::gpus().unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    Cuda { libraries, driver: driver.map(driver::dotted), gpus }
}

/// Starts the CUDA device `ordinal`.
///
/// # Errors
/// The first thing that is missing.
#[cfg(not(feature = "cuda"))]
pub fn start(_ordinal: usize) -> Result<(Device, Gpu), DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Starts the CUDA device `ordinal`.
///
/// # Errors
/// The first thing that is missing.
#[cfg(feature = "cuda")]
pub fn start(ordinal: usize) -> Result<(Device, Gpu), DeviceError> {
    driver::start(ordinal)
}

#[cfg(feature = "cuda")]
mod driver {
    use candle_core::Device;
    use cudarc::driver::{result, sys};

    use super::{DeviceError, Gpu, libraries};

    /// What CUDA the program was built with, as the driver counts: 13000 is 13.0. The driver must
    /// know the PTX of that version.
    fn needed() -> i32 {
        let mut parts = env!("VERISCOPE_CUDA_VERSION").split('.').map(|p| p.parse().unwrap_or(0));
        parts.next().unwrap_or(0) * 1000 + parts.next().unwrap_or(0) * 10
    }

    /// The compute capability that kernels were compiled for, 80 is 8.0.
    fn needed_capability() -> i32 {
        env!("VERISCOPE_CUDA_COMPUTE_CAP").parse().unwrap_or(80)
    }

    pub fn dotted(version: i32) -> String {
        format!("{}.{}", version / 1000, version % 1000 / 10)
    }

    fn told(e: result::DriverError) -> String {
        let text = e.error_string().map(|t| t.to_string_lossy().into_owned());
        match text {
            Ok(text) => format!("{text} ({:?})", e.0),
            Err(_) => format!("{:?}", e.0),
        }
    }

    fn opened(library: libraries::Library) -> Result<(), DeviceError> {
        match libraries::open(library) {
            Ok(_) => Ok(()),
            Err(reason) => {
                Err(DeviceError::Library { library: library.file(), reason: reason.clone() })
            }
        }
    }

    /// The driver's CUDA version.
    pub fn version() -> Result<i32, DeviceError> {
        opened(libraries::Library::Driver)?;
        result::init().map_err(|e| DeviceError::Driver(told(e)))?;
        let mut version = 0;
        // SAFETY: the call writes one number.
        unsafe { sys::cuDriverGetVersion(&mut version) }
            .result()
            .map_err(|e| DeviceError::Driver(told(e)))?;
        Ok(version)
    }

    /// All devices, after the driver was started.
    pub fn gpus() -> Result<Vec<Gpu>, DeviceError> {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let described = |ordinal: i32| -> Result<Gpu, result::DriverError> {
            let device = result::device::get(ordinal)?;
            // SAFETY: the device is one that the driver gave.
            let (memory, major, minor) = unsafe {
                (
                    result::device::total_mem(device)?,
                    result::device::get_attribute(device, MAJOR)?,
                    result::device::get_attribute(device, MINOR)?,
                )
            };
            Ok(Gpu {
                ordinal: usize::try_from(ordinal).unwrap_or(0),
                name: result::device::get_name(device)?,
                memory: memory as u64,
                capability: (major, minor),
            })
        };
        result::device::get_count()
            .and_then(|count| (0..count).map(described).collect())
            .map_err(|e| DeviceError::Driver(told(e)))
    }

    /// Has threads sleep while they wait for the device: the processor has files to decode. FFmpeg
    /// wants the same, and does not share the device's primary context where it is started
    /// otherwise, as candle would do. Where the driver refuses, FFmpeg's decoders will say so.
    fn wait_without_spinning(ordinal: usize) {
        let flags = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
        let set = i32::try_from(ordinal).ok().map(|ordinal| {
            let device = result::device::get(ordinal)?;
            // SAFETY: the device is one that the driver gave.
            unsafe { sys::cuDevicePrimaryCtxSetFlags_v2(device, flags) }.result()
        });
        if let Some(Err(e)) = set {
            tracing::info!("cuda:{ordinal}: the context's flags cannot be set: {}", told(e));
        }
    }

    pub fn start(ordinal: usize) -> Result<(Device, Gpu), DeviceError> {
        let found = version()?;
        if found < needed() {
            return Err(DeviceError::OldDriver { found: dotted(found), needed: dotted(needed()) });
        }
        let gpus = gpus()?;
        let count = gpus.len();
        let gpu = gpus.into_iter().nth(ordinal).ok_or(DeviceError::NoDevice { ordinal, count })?;
        let (major, minor) = gpu.capability;
        if major * 10 + minor < needed_capability() {
            let dotted = |c: i32| format!("{}.{}", c / 10, c % 10);
            return Err(DeviceError::OldDevice {
                name: gpu.name,
                found: format!("{major}.{minor}"),
                needed: dotted(needed_capability()),
            });
        }
        // candle makes handles of these two when a device starts.
        opened(libraries::Library::Cublas)?;
        opened(libraries::Library::Curand)?;
        wait_without_spinning(ordinal);
        // One stream for all threads: `new_cuda` would give each thread its own, and nothing would
        // order what one thread wrote before what another reads.
        let device = Device::new_cuda_with_stream(ordinal).map_err(|e| {
            let reason = e.to_string().lines().next().unwrap_or_default().to_owned();
            DeviceError::Start { ordinal, reason }
        })?;
        Ok((device, gpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_there_is_refused_with_the_cause() {
        // No machine has this many; without CUDA or a driver the cause comes earlier.
        let refused = start(60_000).err().unwrap();
        let cuda = cuda();
        match (&cuda.driver, &refused) {
            (Err(why), _) => assert_eq!(&refused, why),
            (Ok(_), DeviceError::NoDevice { count, .. }) => assert_eq!(*count, cuda.gpus.len()),
            (Ok(_), other) => assert!(matches!(other, DeviceError::OldDriver { .. }), "{other}"),
        }
        assert_eq!(cuda.libraries.is_empty(), !cfg!(feature = "cuda"));
    }
}
