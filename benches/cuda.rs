//! What a GPU makes of the networks: one JSON line a network, batch and type of values, with the
//! work that was counted and the least time that this GPU needs for it (measured here: a copy, and
//! a large matrix product by cuBLAS). `scripts/bench-cuda` makes a table of it.
//!
//! A figure is the median over runs. A run takes a batch in device memory through the network and
//! ends when its result is on the host (of YuNet: when it is in device memory).

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use serde_json::json;
use veriscope::models::efficientnet_lite::{self, EfficientNetLite};
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::WeightStore;
use veriscope::models::yunet::YuNet;
use veriscope::nn::cuda::{SpectralFrontEnd, take_work};
use veriscope::speech::features::{BANDS, FRAMES, SPECTRUM, WINDOW};

type Failure = Box<dyn std::error::Error>;

const BATCHES: [usize; 3] = [1, 32, 256];
/// At least this long is measured, and this many runs.
const MEASURED: Duration = Duration::from_secs(1);
const RUNS: usize = 20;
const WARM_UP: usize = 5;

/// Median seconds of a run, which must leave nothing to do on the device.
fn median(mut run: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    for _ in 0..WARM_UP {
        run()?;
    }
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < RUNS || start.elapsed() < MEASURED {
        let began = Instant::now();
        run()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What the GPU can do: bytes a second, and operations a second in f32 and in f16.
struct Roof {
    bytes: f64,
    f32: f64,
    f16: f64,
}

impl Roof {
    fn measure(device: &Device) -> Result<Self, Failure> {
        const COPIED: usize = 1 << 28;
        const SIDE: usize = 8192;
        let from = Tensor::zeros(COPIED, DType::F32, device)?;
        let copy = median(|| {
            from.copy()?;
            Ok(device.synchronize()?)
        })?;
        drop(from);
        let product = |dtype: DType| -> Result<f64, Failure> {
            let a = Tensor::randn(0f32, 1.0, (SIDE, SIDE), device)?.to_dtype(dtype)?;
            let seconds = median(|| {
                a.matmul(&a)?;
                Ok(device.synchronize()?)
            })?;
            Ok(2.0 * (SIDE as f64).powi(3) / seconds)
        };
        let bytes = 2.0 * (COPIED * size_of::<f32>()) as f64 / copy;
        Ok(Self { bytes, f32: product(DType::F32)?, f16: product(DType::F16)? })
    }
}

struct Case<'a> {
    network: &'a str,
    batch: usize,
    values: DType,
}

fn report(
    case: Case<'_>,
    roof: &Roof,
    mut run: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    take_work();
    run()?;
    let work = take_work();
    let seconds = median(run)?;
    let peak = if case.values == DType::F16 { roof.f16 } else { roof.f32 };
    let least = (work.flops as f64 / peak).max(work.bytes as f64 / roof.bytes);
    println!(
        "{}",
        json!({
            "network": case.network,
            "batch": case.batch,
            "values": case.values.as_str(),
            "ms": seconds * 1e3,
            "per_second": case.batch as f64 / seconds,
            "launches": work.launches,
            "flops": work.flops,
            "bytes": work.bytes,
            "roof_ms": least * 1e3,
            "share_of_roof": least / seconds,
        })
    );
    Ok(())
}

fn noise(shape: &[usize], device: &Device, values: DType) -> Result<Tensor, Failure> {
    Ok(Tensor::rand(0f32, 1.0, shape, device)?.to_dtype(values)?)
}

fn main() -> Result<(), Failure> {
    let (device, gpu) = veriscope::device::start(0)?;
    let roof = Roof::measure(&device)?;
    println!(
        "{}",
        json!({
            "gpu": gpu.name,
            "copied_bytes_per_second": roof.bytes,
            "f32_product_flops": roof.f32,
            "f16_product_flops": roof.f16,
        })
    );
    let store = WeightStore::open(None)?;
    let face = EfficientNetLite::new(&store.load("face-swap-fast", &device)?)?;
    let voice = VoiceCnn::new(&store.load("voice-clone-fast", &device)?)?;
    let yunet = YuNet::new(&store.load("yunet", &device)?)?;
    let front_end = SpectralFrontEnd::new(SPECTRUM, &device)?;
    let side = efficientnet_lite::SIZE;
    for batch in BATCHES {
        for values in [DType::F32, DType::F16] {
            let case = |network| Case { network, batch, values };
            let x = noise(&[batch, side, side, 3], &device, values)?;
            report(case("face-swap-fast"), &roof, || {
                face.forward(&x)?;
                Ok(())
            })?;
            let x = noise(&[batch, BANDS, FRAMES, 1], &device, values)?;
            report(case("voice-clone-fast"), &roof, || {
                voice.forward_features(&x)?;
                Ok(())
            })?;
            let x = (noise(&[batch, 384, 640, 3], &device, DType::F32)? * 255.0)?;
            let x = x.to_dtype(values)?;
            report(case("yunet 384x640"), &roof, || {
                yunet.heads(&x)?;
                Ok(device.synchronize()?)
            })?;
        }
        let x = noise(&[batch, WINDOW], &device, DType::F32)?;
        let case = Case { network: "voice front end", batch, values: DType::F32 };
        report(case, &roof, || {
            front_end.forward(&x)?;
            Ok(device.synchronize()?)
        })?;
    }
    Ok(())
}
