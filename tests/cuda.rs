//! The operations and networks on a GPU, against f64 references and the CPU. Where there is no GPU,
//! each test says so and why, and ends.

#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

use std::path::Path;
use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{DType, Device, Tensor};
use veriscope::device::Gpu;
use veriscope::face::Rect;
use veriscope::face::resample::{Picture, resample};
use veriscope::models::efficientnet_lite::{self, EfficientNetLite};
use veriscope::models::silero_vad::{SileroVad, VadState};
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::WeightStore;
use veriscope::models::yunet::YuNet;
use veriscope::nn::cuda::{self, SpectralFrontEnd};
use veriscope::nn::gpu::picture::{
    Crop, Matrix, Orientation, Plane, Planes, Surface, Target, YuvColour,
};
use veriscope::nn::{self, Activation, Conv2d, ConvConfig, Linear};
use veriscope::speech::features as speech;

#[path = "common/cases.rs"]
mod cases;

use cases::{Case, Random, Yuv, scene, spectrum_reference, standard_case};

/// One for all tests.
fn gpu() -> Option<(&'static Device, &'static Gpu)> {
    static GPU: OnceLock<Result<(Device, Gpu), String>> = OnceLock::new();
    let found = GPU.get_or_init(|| veriscope::device::start(0).map_err(|e| e.to_string()));
    match found {
        Ok((device, gpu)) => Some((device, gpu)),
        Err(reason) => {
            println!("skipped: no GPU to test on: {reason}");
            None
        }
    }
}

fn flat(t: &Tensor) -> Vec<f32> {
    let host = t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    host.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*g) - w).abs();
        assert!(off <= tolerance * (1.0 + w.abs()), "{what}: value {i} is {g}, not {w}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// `values` on the device, behind `skip` others in the same allocation.
fn placed(values: &[f32], dims: &[usize], skip: usize, dtype: DType, device: &Device) -> Tensor {
    let mut all = vec![f32::NAN; skip];
    all.extend_from_slice(values);
    let all = Tensor::from_vec(all, skip + values.len(), &Device::Cpu).unwrap();
    let all = all.to_dtype(dtype).unwrap().to_device(device).unwrap();
    all.narrow(0, skip, values.len()).unwrap().reshape(dims).unwrap()
}

/// What of values is left in half.
fn halved(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect()
}

fn convolve(case: &Case, dtype: DType, device: &Device) -> Vec<f32> {
    let config = ConvConfig {
        stride: case.shape.stride,
        padding: case.padding,
        groups: case.groups,
        activation: case.shape.activation,
        ..ConvConfig::default()
    };
    let weight = Tensor::from_slice(&case.weight, &case.weight_dims(), device).unwrap();
    let bias = case.bias.as_ref().map(|b| Tensor::from_slice(b, b.len(), device).unwrap());
    let conv = Conv2d::new(&weight, bias.as_ref(), config).unwrap();
    let x = placed(&case.x, &case.shape.input, case.skips[0], dtype, device);
    let y = match &case.residual {
        Some(r) => {
            let r = placed(r, &case.shape.output, case.skips[1], dtype, device);
            conv.forward_add(&x, &r).unwrap()
        }
        None => conv.forward(&x).unwrap(),
    };
    assert_eq!(y.dims(), case.shape.output);
    assert_eq!(y.dtype(), dtype);
    flat(&y)
}

fn random_case(random: &mut Random, i: usize) -> Case {
    if i.is_multiple_of(2) {
        return standard_case(random);
    }
    let kernel = random.pick(&[(3, 3), (3, 3), (5, 5), (1, 4), (7, 2)]);
    let channels = random.pick(&[2, 3, 4, 8, 15, 16, 17, 24, 33, 96]);
    let batch = random.pick(&[1, 2, 3]);
    Case::random(random, batch, kernel, channels, None, (9, 20))
}

#[test]
fn convolutions_match_the_reference_and_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let mut random = Random(21);
    for i in 0..160 {
        let case = random_case(&mut random, i);
        let got = convolve(&case, DType::F32, device);
        assert_close(&case.what(), &got, &case.reference(), 2e-5);
        case.assert_as_cpu(&got);
    }
}

#[test]
fn half_convolutions_match_the_reference() {
    let Some((device, _)) = gpu() else { return };
    let mut random = Random(22);
    for i in 0..80 {
        let mut case = random_case(&mut random, i);
        case.x = halved(&case.x);
        case.residual = case.residual.map(|r| halved(&r));
        if case.groups == 1 {
            case.weight = halved(&case.weight);
        }
        let got = convolve(&case, DType::F16, device);
        assert_close(&case.what(), &got, &case.reference(), 1e-3);
    }
}

/// Large enough for the large tiles, with a row and a column of tiles that are not full.
#[test]
fn large_tiles_match_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let mut random = Random(23);
    for (kernel, c, out) in [((1, 1), 36, 100), ((1, 1), 35, 100), ((3, 3), 8, 68), ((3, 3), 3, 65)]
    {
        let mut case = Case::random(&mut random, 3, kernel, c, Some(out), (1, 1));
        case.shape.input = [3, 97, 101, c];
        case.shape.stride = (1, 1);
        case.padding = nn::Padding::default();
        case.shape.padding = (0, 0);
        case.shape.output = [3, 98 - kernel.0, 102 - kernel.1, out];
        case.x = random.values(case.shape.input.iter().product());
        case.residual = Some(random.values(case.shape.output.iter().product()));
        case.shape.activation = Activation::Relu;
        let got = convolve(&case, DType::F32, device);
        case.assert_as_cpu(&got);
        assert_close(&case.what(), &got, &wide(&case.cpu()), 1e-5);
        let half = convolve(&case, DType::F16, device);
        assert_close(&case.what(), &half, &wide(&case.cpu()), 2e-2);
    }
}

#[test]
fn linear_layers_and_pools_match_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let mut random = Random(24);
    for (n, k, out) in [(1, 1, 1), (1, 512, 1), (7, 33, 17), (64, 1280, 40), (257, 1280, 1)] {
        let tensor = |v: Vec<f32>, dims: &[usize]| Tensor::from_vec(v, dims, &Device::Cpu).unwrap();
        let weight = tensor(random.values(out * k), &[out, k]);
        let bias = tensor(random.values(out), &[out]);
        let x = tensor(random.values(n * k), &[n, k]);
        let run = |device: &Device| {
            let [weight, bias, x] = [&weight, &bias, &x].map(|t| t.to_device(device).unwrap());
            let linear = Linear::new(&weight, Some(&bias), Activation::None).unwrap();
            flat(&linear.forward(&x).unwrap())
        };
        assert_close("linear", &run(device), &wide(&run(&Device::Cpu)), 2e-5);
    }
    for _ in 0..20 {
        let (n, h, w) = (1 + random.below(3), 2 + random.below(9), 2 + random.below(9));
        let c = random.pick(&[1, 3, 4, 16, 21, 40, 132]);
        let x = halved(&random.values(n * h * w * c));
        let large = halved(&random.values(4 * n * h * w * c));
        let skip = random.pick(&[0, 0, 4, 5]);
        let cpu = placed(&x, &[n, h, w, c], skip, DType::F32, &Device::Cpu);
        let cpu_large = placed(&large, &[n, 2 * h, 2 * w, c], 0, DType::F32, &Device::Cpu);
        let want = [
            nn::max_pool_2x2(&cpu).unwrap(),
            nn::global_avg_pool(&cpu).unwrap(),
            nn::mean_std_pool(&cpu, 1e-5).unwrap(),
            nn::upsample_2x_add(&cpu_large, &cpu).unwrap(),
        ];
        for dtype in [DType::F32, DType::F16] {
            let x = placed(&x, &[n, h, w, c], skip, dtype, device);
            let large = placed(&large, &[n, 2 * h, 2 * w, c], 0, dtype, device);
            let got = [
                nn::max_pool_2x2(&x).unwrap(),
                nn::global_avg_pool(&x).unwrap(),
                nn::mean_std_pool(&x, 1e-5).unwrap(),
                nn::upsample_2x_add(&large, &x).unwrap(),
            ];
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(got.dims(), want.dims());
                let (got, want) = (flat(got), flat(want));
                if dtype == DType::F32 || i < 3 {
                    assert_eq!(got, want, "pool {i} of [{n}, {h}, {w}, {c}] {dtype:?}");
                } else {
                    assert_close("add", &got, &wide(&want), 1e-3);
                }
            }
        }
    }
}

#[test]
fn an_empty_batch_gives_an_empty_batch() {
    let Some((device, _)) = gpu() else { return };
    let x = Tensor::zeros((1, 8, 8, 3), DType::F32, device).unwrap().narrow(0, 0, 0).unwrap();
    let weight = Tensor::zeros((4, 3, 3, 3), DType::F32, device).unwrap();
    let conv = Conv2d::new(&weight, None, ConvConfig::default()).unwrap();
    assert_eq!(conv.forward(&x).unwrap().dims(), [0, 6, 6, 4]);
    assert_eq!(nn::max_pool_2x2(&x).unwrap().dims(), [0, 4, 4, 3]);
    assert_eq!(nn::global_avg_pool(&x).unwrap().dims(), [0, 3]);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_operation() {
    let Some((device, _)) = gpu() else { return };
    let weight = Tensor::zeros((4, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let conv = Conv2d::new(&weight, None, ConvConfig::default()).unwrap();
    let x = Tensor::zeros((1, 8, 8, 3), DType::F32, device).unwrap();
    let error = conv.forward(&x).unwrap_err().to_string();
    assert!(error.contains("conv2d") && error.contains("weights on the CPU"), "{error}");
    let conv = Conv2d::new(&weight.to_device(device).unwrap(), None, ConvConfig::default());
    let doubles = Tensor::zeros((1, 8, 8, 3), DType::F64, device).unwrap();
    let error = conv.unwrap().forward(&doubles).unwrap_err().to_string();
    assert!(error.contains("conv2d") && error.contains("F64"), "{error}");
}

/// Offsets of more than 32 bits, in values and not only in bytes.
#[test]
fn a_batch_of_more_than_two_to_the_31_values_is_right_at_its_end() {
    let Some((device, gpu)) = gpu() else { return };
    if gpu.memory < 40 << 30 {
        println!("skipped: {} has less than 40 GiB of memory", gpu.name);
        return;
    }
    let (n, h, w, c) = (2100, 256, 250, 16);
    assert!(n * h * w * c > 1 << 31);
    let last = Random(25).values(h * w * c);
    let one = Tensor::from_slice(&last, (1, h, w, c), device).unwrap();
    let x = Tensor::zeros((n, h, w, c), DType::F32, device).unwrap();
    x.slice_set(&one, 0, n - 1).unwrap();
    let values = Random(26).values(9 * c);
    let depthwise = Tensor::from_slice(&values, (c, 1, 3, 3), device).unwrap();
    let config = ConvConfig { groups: c, padding: nn::Padding::all(1), ..ConvConfig::default() };
    let depthwise = Conv2d::new(&depthwise, None, config).unwrap();
    let pointwise = Tensor::from_slice(&Random(27).values(c * c), (c, c, 1, 1), device).unwrap();
    let pointwise = Conv2d::new(&pointwise, None, ConvConfig::default()).unwrap();
    for conv in [&depthwise, &pointwise] {
        let y = conv.forward(&x).unwrap();
        let end = flat(&y.narrow(0, n - 1, 1).unwrap().force_contiguous().unwrap());
        assert!(end.iter().any(|v| *v != 0.0));
        assert_eq!(end, flat(&conv.forward(&one).unwrap()));
    }
}

struct Networks {
    face: EfficientNetLite,
    voice: VoiceCnn,
    yunet: YuNet,
    vad: SileroVad,
}

fn networks(device: &Device) -> Networks {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let store = WeightStore::open(Some(&weights)).unwrap();
    let store = store.with_precision(veriscope::models::weights::PrecisionChoice::F32);
    let load = |name: &str| store.load(name, device).unwrap();
    Networks {
        face: EfficientNetLite::new(&load("face-swap-fast")).unwrap(),
        voice: VoiceCnn::new(&load("voice-clone-fast")).unwrap(),
        yunet: YuNet::new(&load("yunet")).unwrap(),
        vad: SileroVad::new(&load("silero-vad")).unwrap(),
    }
}

fn crops(random: &mut Random, n: usize) -> Tensor {
    let side = efficientnet_lite::SIZE;
    Tensor::from_vec(random.values(n * side * side * 3), (n, side, side, 3), &Device::Cpu).unwrap()
}

fn windows(random: &mut Random, n: usize) -> Vec<Vec<f32>> {
    (0..n).map(|_| random.values(speech::WINDOW)).collect()
}

#[test]
fn networks_answer_as_on_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let (ours, cpu) = (networks(device), networks(&Device::Cpu));
    let mut random = Random(28);
    let x = crops(&mut random, 5);
    let on_gpu = x.to_device(device).unwrap();
    let on_cpu = cpu.face.forward(&x).unwrap();
    let want = wide(&on_cpu.logits);
    let got = ours.face.forward(&on_gpu).unwrap();
    assert_close("face", &got.logits, &want, 1e-3);
    assert_close("cells", &got.cells.concat(), &wide(&on_cpu.cells.concat()), 1e-3);
    assert_close("features", &got.features.concat(), &wide(&on_cpu.features.concat()), 1e-3);
    // Half is not used by itself; a logit must still be near.
    let half = x.to_dtype(DType::F16).unwrap().to_device(device).unwrap();
    let half = ours.face.forward(&half).unwrap().logits;
    println!("face in half: {half:?}, in f32: {want:?}");
    assert_close("face in half", &half, &want, 0.1);

    let windows = windows(&mut random, 3);
    let windows: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let want = wide(&cpu.voice.forward(&windows).unwrap());
    assert_close("voice", &ours.voice.forward(&windows).unwrap(), &want, 1e-3);

    let x = Tensor::from_vec(random.values(2 * 96 * 160 * 3), (2, 96, 160, 3), &Device::Cpu);
    let x = (x.unwrap() * 255.0).unwrap();
    let heads = ours.yunet.heads(&x.to_device(device).unwrap()).unwrap();
    for (got, want) in heads.iter().zip(&cpu.yunet.heads(&x).unwrap()) {
        assert_close("yunet", &flat(got), &wide(&flat(want)), 1e-3);
    }

    let sound = random.values(16_000);
    let said = |net: &SileroVad| net.forward(&sound, &mut VadState::default()).unwrap();
    assert_close("silero", &said(&ours.vad), &wide(&said(&cpu.vad)), 1e-3);
}

#[test]
fn the_batch_changes_no_bit() {
    let Some((device, _)) = gpu() else { return };
    let ours = networks(device);
    let mut random = Random(29);
    let x = crops(&mut random, 33);
    for dtype in [DType::F32, DType::F16] {
        let x = x.to_dtype(dtype).unwrap().to_device(device).unwrap();
        let together = ours.face.forward(&x).unwrap();
        assert_eq!(together, ours.face.forward(&x).unwrap(), "twice the same");
        for (from, len) in [(0, 1), (5, 3), (32, 1), (1, 32)] {
            let part = ours.face.forward(&x.narrow(0, from, len).unwrap()).unwrap();
            let place = from..from + len;
            assert_eq!(part.logits, together.logits[place.clone()], "{dtype:?} {from} {len}");
            assert_eq!(part.cells, together.cells[place.clone()], "{dtype:?} {from} {len}");
            assert_eq!(part.features, together.features[place], "{dtype:?} {from} {len}");
        }
    }
    let windows = windows(&mut random, 5);
    let windows: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let together = ours.voice.forward(&windows).unwrap();
    for (i, window) in windows.iter().enumerate() {
        assert_eq!(ours.voice.forward(&[window]).unwrap(), together[i..=i]);
    }
}

#[test]
fn the_spectral_front_end_matches_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let windows = windows(&mut Random(30), 3);
    let slices: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let cpu = speech::Features::new().batch(&slices).unwrap();
    let x = Tensor::from_vec(windows.concat(), (3, speech::WINDOW), device).unwrap();
    let front_end = SpectralFrontEnd::new(speech::SPECTRUM, device).unwrap();
    let got = front_end.forward(&x).unwrap();
    assert_eq!(got.dims(), [3, speech::BANDS, speech::FRAMES, 1]);
    assert_close("the CPU's", &flat(&got), &wide(&cpu), 1e-3);
    let exact: Vec<f64> = windows.iter().flat_map(|w| spectrum_reference(w)).collect();
    assert_close("the definition's", &flat(&got), &exact, 2e-5);
    assert!(front_end.forward(&x.narrow(1, 0, 9).unwrap()).is_err());
}

#[test]
fn crops_of_pictures_in_device_memory_are_those_of_the_cpu() {
    let Some((device, _)) = gpu() else { return };
    let Device::Cuda(cuda_device) = device else { return };
    let stream = cuda_device.cuda_stream();
    let mut random = Random(31);
    let (w, h) = (90, 70);
    let rgb = scene(&mut random, w, h);
    let yuv = Yuv::random(&mut random, w, h);
    let pairs: Vec<u8> =
        yuv.planes[1].iter().zip(&yuv.planes[2]).flat_map(|(u, v)| [*u, *v]).collect();
    let uploaded = [&rgb, &yuv.planes[0], &pairs].map(|p| stream.clone_htod(p).unwrap());
    let [(rgb_at, _a), (y_at, _b), (uv_at, _c)] =
        [0, 1, 2].map(|i| uploaded[i].device_ptr(&stream));
    let colour = YuvColour { matrix: Matrix::Bt709, full_range: false };
    let plane = |address, pitch| Plane { address, pitch };
    let surfaces = [
        Planes::Rgb(plane(rgb_at, w * 3)),
        Planes::Nv12([plane(y_at, w), plane(uv_at, w)], colour),
    ]
    .map(|p| Surface::new(p, (w, h), Orientation::default()).unwrap());
    let target = |size| Target {
        size,
        canvas: size,
        place: (0, 0),
        scale: [1.0; 3],
        shift: [0.0; 3],
        bgr: false,
        planar: false,
    };
    let crop = Crop { x0: -4.0, y0: 3.0, x1: 66.0, y1: 81.5, surface: 0 };
    for size in [(20, 30), (144, 144)] {
        // SAFETY: the planes were uploaded on the device's stream and live until the end.
        let got = unsafe { cuda::crop(&target(size), &surfaces, &[crop, crop], device) }.unwrap();
        assert_eq!(got.dims(), [2, size.1, size.0, 3]);
        let rect = Rect { x0: crop.x0, y0: crop.y0, x1: crop.x1, y1: crop.y1 };
        let want = resample(Picture::new(w, h, &rgb).unwrap(), rect, size.0, size.1);
        let want: Vec<f32> = want.into_iter().map(f32::from).collect();
        assert_eq!(flat(&got), [want.clone(), want].concat());
    }
    let whole = Crop { x0: 0.0, y0: 0.0, x1: w as f32, y1: h as f32, surface: 1 };
    // SAFETY: as above.
    let got = unsafe { cuda::crop(&target((w, h)), &surfaces, &[whole], device) }.unwrap();
    for (i, got) in flat(&got).chunks(3).enumerate() {
        for (g, want) in got.iter().zip(yuv.rgb(i % w, i / w, colour)) {
            assert!((f64::from(*g) - want).abs() <= 0.501, "{i}: {g} {want}");
        }
    }
}
