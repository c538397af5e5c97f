//! The operations of the networks, one by one, and the networks, at batch 1 and 8.

use std::hint::black_box;

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use veriscope::models::efficientnet_lite::{self, EfficientNetLite};
use veriscope::models::silero_vad::{SileroVad, VadState};
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::WeightStore;
use veriscope::models::yunet::YuNet;
use veriscope::nn::{Activation, Conv2d, ConvConfig, Padding, Precision, Separable, max_pool_2x2};
use veriscope::speech::features::{BANDS, FRAMES, Features, WINDOW};

type Failure = Box<dyn std::error::Error>;

const BATCHES: [usize; 2] = [1, 8];

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect()
}

fn tensor(shape: &[usize]) -> Result<Tensor, candle_core::Error> {
    Tensor::from_vec(ramp(shape.iter().product()), shape, &Device::Cpu)
}

/// Name, height and width, input and output channels, kernel, stride, depthwise.
type Case = (&'static str, [usize; 2], usize, usize, usize, usize, bool);

/// Layers as they come in EfficientNet-Lite0 at 144 pixels and YuNet at 640×384.
const CASES: [Case; 10] = [
    ("stem 3x3 s2", [144, 144], 3, 32, 3, 2, false),
    ("yunet stem 3x3 s2", [384, 640], 3, 16, 3, 2, false),
    ("3x3 64-64", [56, 56], 64, 64, 3, 1, false),
    ("pointwise 16-16", [192, 320], 16, 16, 1, 1, false),
    ("pointwise 16-96", [72, 72], 16, 96, 1, 1, false),
    ("pointwise 480-112", [9, 9], 480, 112, 1, 1, false),
    ("pointwise 320-1280", [5, 5], 320, 1280, 1, 1, false),
    ("depthwise 3x3", [192, 320], 16, 16, 3, 1, true),
    ("depthwise 3x3 s2", [72, 72], 96, 96, 3, 2, true),
    ("depthwise 5x5", [18, 18], 240, 240, 5, 1, true),
];

/// Name, height and width; input, inner and output channels; kernel, stride.
type Block = (&'static str, [usize; 2], [usize; 3], usize, usize);

/// Blocks of the same networks, from the largest picture to the smallest.
const BLOCKS: [Block; 4] = [
    ("block 16-96-24 3x3 s2", [72, 72], [16, 96, 24], 3, 2),
    ("block 40-240-40 5x5", [18, 18], [40, 240, 40], 5, 1),
    ("block 112-672-112 5x5", [9, 9], [112, 672, 112], 5, 1),
    ("block 192-1152-192 5x5", [5, 5], [192, 1152, 192], 5, 1),
];

fn blocks(criterion: &mut Criterion) -> Result<(), Failure> {
    for (name, [h, w], [inputs, inner, outputs], kernel, stride) in BLOCKS {
        let mut group = criterion.benchmark_group(name);
        for precision in [Precision::F32, Precision::Bf16] {
            if precision.here() != precision {
                continue;
            }
            let pointwise = |from: usize, to: usize, activation| {
                let config = ConvConfig { activation, precision, ..ConvConfig::default() };
                Conv2d::new(&tensor(&[to, from, 1, 1])?, Some(&tensor(&[to])?), config)
            };
            let depthwise = ConvConfig {
                stride: (stride, stride),
                padding: Padding::all(kernel / 2),
                groups: inner,
                activation: Activation::Relu6,
                ..ConvConfig::default()
            };
            let weight = tensor(&[inner, 1, kernel, kernel])?;
            let block = Separable::new(
                Some(pointwise(inputs, inner, Activation::Relu6)?),
                Conv2d::new(&weight, Some(&tensor(&[inner])?), depthwise)?,
                Some(pointwise(inner, outputs, Activation::None)?),
                stride == 1 && inputs == outputs,
            )?;
            for batch in BATCHES {
                let x = tensor(&[batch, h, w, inputs])?;
                let (before, after) =
                    (batch * h * w, batch * h.div_ceil(stride) * w.div_ceil(stride));
                let multiplications =
                    before * inputs * inner + after * inner * (kernel * kernel + outputs);
                group.throughput(Throughput::Elements(multiplications as u64));
                let id = BenchmarkId::new(format!("{precision:?}"), batch);
                group.bench_with_input(id, &x, |b, x| b.iter(|| black_box(block.forward(x))));
            }
        }
        group.finish();
    }
    Ok(())
}

fn operations(criterion: &mut Criterion) -> Result<(), Failure> {
    for (name, [h, w], inputs, outputs, kernel, stride, depthwise) in CASES {
        let config = ConvConfig {
            stride: (stride, stride),
            padding: Padding::all(kernel / 2),
            groups: if depthwise { inputs } else { 1 },
            activation: Activation::Relu6,
            ..ConvConfig::default()
        };
        let per_group = if depthwise { 1 } else { inputs };
        let bias = tensor(&[outputs])?;
        let conv =
            Conv2d::new(&tensor(&[outputs, per_group, kernel, kernel])?, Some(&bias), config)?;
        let mut group = criterion.benchmark_group(name);
        for batch in BATCHES {
            let x = tensor(&[batch, h, w, inputs])?;
            let pixels = batch * (h / stride) * (w / stride);
            let multiplications = pixels * outputs * per_group * kernel * kernel;
            group.throughput(Throughput::Elements(multiplications as u64));
            group.bench_with_input(BenchmarkId::from_parameter(batch), &x, |b, x| {
                b.iter(|| black_box(conv.forward(x)));
            });
        }
        group.finish();
    }
    let x = tensor(&[8, 192, 320, 16])?;
    criterion.bench_function("max pool 2x2", |b| b.iter(|| black_box(max_pool_2x2(&x))));
    Ok(())
}

fn networks(criterion: &mut Criterion) -> Result<(), Failure> {
    let store = WeightStore::open(None)?;
    let load = |name: &str| store.load(name, &Device::Cpu);
    let yunet = YuNet::new(&load("yunet")?)?;
    let face = EfficientNetLite::new(&load("face-swap-fast")?)?;
    let voice = VoiceCnn::new(&load("voice-clone-fast")?)?;
    let vad = SileroVad::new(&load("silero-vad")?)?;
    let mut group = criterion.benchmark_group("network");
    group.sample_size(20);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        for (h, w) in [(192, 320), (384, 640)] {
            let x = tensor(&[batch, h, w, 3])?;
            let id = BenchmarkId::new(format!("yunet {w}x{h}"), batch);
            group.bench_with_input(id, &x, |b, x| b.iter(|| black_box(yunet.forward(x, 0.6))));
        }
        let x = tensor(&[batch, efficientnet_lite::SIZE, efficientnet_lite::SIZE, 3])?;
        let id = BenchmarkId::new("face-swap-fast", batch);
        group.bench_with_input(id, &x, |b, x| b.iter(|| black_box(face.forward(x))));
        let x = tensor(&[batch, BANDS, FRAMES, 1])?;
        let id = BenchmarkId::new("voice-clone-fast", batch);
        group.bench_with_input(id, &x, |b, x| b.iter(|| black_box(voice.forward_features(x))));
        let wave = ramp(WINDOW);
        let windows = vec![wave.as_slice(); batch];
        let front_end = Features::new();
        let id = BenchmarkId::new("voice features", batch);
        group.bench_with_input(id, &windows, |b, w| b.iter(|| black_box(front_end.batch(w))));
    }
    group.throughput(Throughput::Elements(1));
    let minute = ramp(60 * 16_000);
    group.bench_function("silero-vad, a minute", |b| {
        b.iter(|| black_box(vad.forward(&minute, &mut VadState::default())));
    });
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    let all = operations(criterion).and_then(|()| blocks(criterion));
    if let Err(e) = all.and_then(|()| networks(criterion)) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
