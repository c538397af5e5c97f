//! The CUDA kernels without a GPU: compiled as C++ (`kernels/host`), launched over the very grids
//! that a GPU gets, compared with the CPU's operations and with f64 references. Memory before and
//! behind each buffer cannot be touched or is checked to be untouched.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are no tests to clippy

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use half::f16;
use veriscope::face::Rect;
use veriscope::face::resample::{Picture, resample};
use veriscope::nn::gpu::conv::{self, ConvShape, Tile};
use veriscope::nn::gpu::picture::{
    Affine, Crop, Matrix, Orientation, Plane, Planes, Surface, Target, TargetParams, YuvColour,
};
use veriscope::nn::gpu::{Launch, ValueType, features, picture, pool};
use veriscope::nn::{self, Activation, Linear, Padding};
use veriscope::speech::features as speech;

#[path = "common/cases.rs"]
mod cases;

use cases::{Case, Random, Yuv, scene, spectrum_reference, standard_case};

// ---- the emulator --------------------------------------------------------------------------

type EmulateLaunch = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    *mut *mut c_void,
    usize,
    i32,
) -> *const c_char;
type EmulateSizes = unsafe extern "C" fn(*mut usize);

struct Emulator {
    launch: EmulateLaunch,
    sizes: EmulateSizes,
}

fn compile(library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/host/emulate.cpp");
    let named = std::env::var("CXX").ok();
    let mut tried = Vec::new();
    for compiler in named.iter().map(String::as_str).chain(["g++", "clang++"]) {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing"]);
        command.args(["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]);
        // As on the GPU: what is fused is written as fmaf. longjmp between fibres is meant.
        command.args(["-ffp-contract=off", "-U_FORTIFY_SOURCE"]);
        command.arg("-fsanitize=bounds,alignment,shift,integer-divide-by-zero,null");
        command.args(["-fsanitize=signed-integer-overflow", "-fsanitize-undefined-trap-on-error"]);
        if cfg!(target_arch = "x86_64") && std::is_x86_feature_detected!("fma") {
            command.arg("-mfma");
        }
        match command.arg("-o").arg(library).arg(&source).output() {
            Ok(output) if output.status.success() => return,
            Ok(output) => {
                panic!("{compiler}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => tried.push(format!("{compiler}: {error}")),
        }
    }
    panic!("no C++ compiler (scripts/setup --test installs one): {}", tried.join("; "));
}

fn emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| {
        let name = format!("kernels-{}.so", std::process::id());
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        compile(&library);
        let path = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: the library was just compiled from our sources; its two functions have these
        // types; it is never closed.
        let emulator = unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
            let symbol = |name: &CStr| {
                let at = libc::dlsym(handle, name.as_ptr());
                assert!(!at.is_null(), "{name:?}");
                at
            };
            Emulator {
                launch: std::mem::transmute::<*mut c_void, EmulateLaunch>(symbol(
                    c"emulate_launch",
                )),
                sizes: std::mem::transmute::<*mut c_void, EmulateSizes>(symbol(c"emulate_sizes")),
            }
        };
        let _ = std::fs::remove_file(&library);
        emulator
    })
}

const PAGE: usize = 4096;

/// Device memory as a kernel sees it: aligned, ending where a page ends that cannot be touched,
/// after at most 15 bytes that are checked, as is what lies before.
struct Buffer {
    mapping: *mut u8,
    len: usize,
    at: usize,
    bytes: usize,
}

impl Buffer {
    /// `values` behind `skip` others (NaN), so that they start at an odd place.
    fn new<T: bytemuck::Pod>(values: &[T], skip: usize) -> Self {
        let bytes = size_of_val(values) + skip * size_of::<T>();
        let len = bytes.next_multiple_of(PAGE) + 2 * PAGE;
        // SAFETY: a fresh mapping; its last page is made untouchable before anyone uses it.
        let mapping = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let mapping = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let mapping = mapping.cast::<u8>();
            assert_eq!(libc::mprotect(mapping.add(len - PAGE).cast(), PAGE, libc::PROT_NONE), 0);
            std::ptr::write_bytes(mapping, 0xff, len - PAGE);
            mapping
        };
        let start = (len - PAGE - bytes) / 16 * 16;
        let at = start + skip * size_of::<T>();
        let buffer = Self { mapping, len, at, bytes: size_of_val(values) };
        // SAFETY: `at + size_of_val(values)` is at most `len - PAGE`.
        unsafe {
            let from = values.as_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(from, mapping.add(at), size_of_val(values));
        }
        buffer
    }

    /// As many values, all NaN (or the greatest number), for a kernel to fill.
    fn output<T: bytemuck::Pod>(len: usize) -> Self {
        Self::new(&vec![0xffu8; len * size_of::<T>()], 0)
    }

    fn address(&self) -> *mut c_void {
        // SAFETY: inside the mapping.
        unsafe { self.mapping.add(self.at).cast() }
    }

    fn read<T: bytemuck::Pod>(&self) -> Vec<T> {
        // SAFETY: the values are inside the mapping, and nobody writes now.
        let bytes = unsafe { std::slice::from_raw_parts(self.mapping.add(self.at), self.bytes) };
        bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    fn assert_surroundings_untouched(&self, what: &str) {
        // SAFETY: all but the last page is readable.
        let all = unsafe { std::slice::from_raw_parts(self.mapping, self.len - PAGE) };
        let (before, behind) = (&all[..self.at], &all[self.at + self.bytes..]);
        assert!(before.iter().chain(behind).all(|b| *b == 0xff), "{what}: written outside");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once.
        unsafe { libc::munmap(self.mapping.cast(), self.len) };
    }
}

enum Argument<'a> {
    Buffer(&'a Buffer),
    Null,
    Bytes(&'a [u8]),
}

fn params<T: bytemuck::Pod>(params: &T) -> Argument<'_> {
    Argument::Bytes(bytemuck::bytes_of(params))
}

fn launch(launch: &Launch, arguments: &[Argument<'_>], order: i32) {
    // Arguments are passed by address; 16 bytes of alignment are enough for any of them.
    let mut values: Vec<Vec<u128>> = Vec::new();
    for argument in arguments {
        let bytes = match argument {
            Argument::Buffer(buffer) => (buffer.address() as u64).to_ne_bytes().to_vec(),
            Argument::Null => vec![0; 8],
            Argument::Bytes(bytes) => bytes.to_vec(),
        };
        let mut value = vec![0u128; bytes.len().div_ceil(16)];
        bytemuck::cast_slice_mut::<u128, u8>(&mut value)[..bytes.len()].copy_from_slice(&bytes);
        values.push(value);
    }
    let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
    let name = CString::new(launch.kernel).unwrap();
    // SAFETY: the kernel gets the arguments that its launch function documents; the emulator
    // checks their number.
    let error = unsafe {
        (emulator().launch)(
            name.as_ptr(),
            launch.grid.as_ptr(),
            launch.block.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            order,
        )
    };
    if !error.is_null() {
        // SAFETY: a static string.
        panic!("{launch:?}: {}", unsafe { CStr::from_ptr(error) }.to_string_lossy());
    }
    for argument in arguments {
        if let Argument::Buffer(buffer) = argument {
            buffer.assert_surroundings_untouched(launch.kernel);
        }
    }
}

/// Launches in two orders of blocks and threads, which must give the same bits.
fn run<T: bytemuck::Pod + PartialEq + std::fmt::Debug>(
    what: &Launch,
    inputs: &[Argument<'_>],
    rest: &[Argument<'_>],
    len: usize,
) -> Vec<T> {
    let once = |order: i32| {
        let output = Buffer::output::<T>(len);
        let arguments: Vec<Argument<'_>> = inputs
            .iter()
            .chain(std::iter::once(&Argument::Buffer(&output)))
            .chain(rest)
            .map(|a| match a {
                Argument::Buffer(b) => Argument::Buffer(b),
                Argument::Null => Argument::Null,
                Argument::Bytes(b) => Argument::Bytes(b),
            })
            .collect();
        launch(what, &arguments, order);
        output.read::<T>()
    };
    let first = once(0);
    let second = once(1 + (len % 2) as i32);
    let bytes = |v: &[T]| bytemuck::cast_slice::<T, u8>(v).to_vec();
    assert!(bytes(&first) == bytes(&second), "{what:?}: the order of threads counts");
    first
}

// ---- how values are stored -----------------------------------------------------------------

/// A value as the kernels store it.
trait Stored: bytemuck::Pod + PartialEq + std::fmt::Debug {
    const VALUES: ValueType;
    /// Of an output, beside the rounding of its inputs.
    const TOLERANCE: f64;
    fn of(x: f32) -> Self;
    fn value(self) -> f64;
}

impl Stored for f32 {
    const VALUES: ValueType = ValueType::F32;
    const TOLERANCE: f64 = 2e-5;
    fn of(x: f32) -> Self {
        x
    }
    fn value(self) -> f64 {
        f64::from(self)
    }
}

/// Half, moved as its bits.
impl Stored for u16 {
    const VALUES: ValueType = ValueType::F16;
    const TOLERANCE: f64 = 1e-3;
    fn of(x: f32) -> Self {
        f16::from_f32(x).to_bits()
    }
    fn value(self) -> f64 {
        f16::from_bits(self).to_f64()
    }
}

fn stored<T: Stored>(values: &[f32]) -> Vec<T> {
    values.iter().map(|v| T::of(*v)).collect()
}

/// What is left of values when they are stored.
fn rounded<T: Stored>(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| T::of(*v).value() as f32).collect()
}

fn assert_close<T: Stored>(what: &str, got: &[T], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (g.value() - w).abs();
        assert!(off <= T::TOLERANCE * (1.0 + w.abs()), "{what}: value {i} is {g:?}, not {w}");
    }
}

impl Case {
    /// The same with everything as `T` stores it.
    fn rounded<T: Stored>(mut self, weights_too: bool) -> Self {
        self.x = rounded::<T>(&self.x);
        self.residual = self.residual.map(|r| rounded::<T>(&r));
        if weights_too {
            self.weight = rounded::<T>(&self.weight);
        }
        self
    }

    fn run<T: Stored, P: bytemuck::Pod>(
        &self,
        (what, parameters): (Launch, P),
        weights: &Buffer,
        bias: &Buffer,
    ) -> Vec<T> {
        let x = Buffer::new(&stored::<T>(&self.x), self.skips[0]);
        let residual = self.residual.as_ref().map(|r| Buffer::new(&stored::<T>(r), self.skips[1]));
        let inputs = [
            Argument::Buffer(&x),
            Argument::Buffer(weights),
            Argument::Buffer(bias),
            residual.as_ref().map_or(Argument::Null, Argument::Buffer),
        ];
        run::<T>(&what, &inputs, &[params(&parameters)], self.shape.output.iter().product())
    }

    fn residual_offset(&self) -> Option<usize> {
        self.residual.as_ref().map(|_| self.skips[1])
    }

    fn standard<T: Stored>(&self, tile: Tile) -> Vec<T> {
        let packed = conv::pack_matrix(&self.weight, self.weight_dims(), self.bias.as_deref());
        let bias = Buffer::new(&packed.bias, 0);
        let weights = match T::VALUES {
            ValueType::F32 => Buffer::new(&packed.weights, 0),
            ValueType::F16 => Buffer::new(&stored::<u16>(&packed.weights), 0),
        };
        let made =
            conv::standard("conv2d", &self.shape, tile, self.skips[0], self.residual_offset());
        self.run::<T, _>(made.unwrap(), &weights, &bias)
    }

    fn depthwise<T: Stored>(&self) -> Vec<T> {
        let packed = conv::pack_depthwise(&self.weight, self.weight_dims(), self.bias.as_deref());
        let made = conv::depthwise(
            "conv2d",
            &self.shape,
            T::VALUES,
            self.skips[0],
            self.residual_offset(),
        );
        let weights = Buffer::new(&packed.weights, 0);
        self.run::<T, _>(made.unwrap(), &weights, &Buffer::new(&packed.bias, 0))
    }
}

// ---- convolutions --------------------------------------------------------------------------

#[test]
fn standard_convolutions_match_the_reference_and_the_cpu() {
    let mut random = Random(1);
    for _ in 0..60 {
        let case = standard_case(&mut random);
        let want = case.reference();
        for tile in [Tile::Small, Tile::Large] {
            let got = case.standard::<f32>(tile);
            assert_close(&case.what(), &got, &want);
            case.assert_as_cpu(&got);
        }
    }
}

#[test]
fn half_convolutions_match_the_reference() {
    let mut random = Random(2);
    for _ in 0..25 {
        let case = standard_case(&mut random).rounded::<u16>(true);
        assert_close(&case.what(), &case.standard::<u16>(Tile::Half), &case.reference());
    }
}

#[test]
fn depthwise_convolutions_match_the_reference_and_the_cpu() {
    let mut random = Random(3);
    for _ in 0..80 {
        let batch = random.pick(&[1, 2, 3]);
        let kernel = random.pick(&[(3, 3), (3, 3), (5, 5), (1, 4), (7, 2), (1, 3)]);
        let channels = random.pick(&[2, 3, 4, 8, 15, 16, 17, 24, 33, 96]);
        let case = Case::random(&mut random, batch, kernel, channels, None, (9, 20));
        let got = case.depthwise::<f32>();
        assert_close(&case.what(), &got, &case.reference());
        case.assert_as_cpu(&got);
        let case = case.rounded::<u16>(false);
        assert_close(&case.what(), &case.depthwise::<u16>(), &case.reference());
    }
}

/// Every convolution of the networks that ship, at a small size of picture.
#[test]
fn the_networks_layers_match_the_cpu() {
    let mut random = Random(4);
    // Kernel, stride, channels, outputs (0 for depthwise).
    let layers = [
        ((3, 3), 2, 3, 32),
        ((3, 3), 1, 32, 0),
        ((1, 1), 1, 32, 16),
        ((3, 3), 2, 96, 0),
        ((5, 5), 2, 144, 0),
        ((5, 5), 1, 240, 0),
        ((1, 1), 1, 144, 40),
        ((1, 1), 1, 320, 1280),
        ((3, 3), 2, 1, 16),
        ((3, 3), 1, 224, 0),
        ((1, 256), 128, 1, 258),
        ((1, 3), 1, 129, 128),
        ((1, 1), 1, 64, 16),
    ];
    for (kernel, stride, channels, out) in layers {
        let (kh, kw): (usize, usize) = kernel;
        let (h, w) = if kh == 1 && kw > 1 { (1, kw + 3 * stride) } else { (9, 11) };
        let pad = if kw > 9 { 0 } else { kw / 2 };
        let padding = Padding { top: kh / 2, bottom: kh / 2, left: pad, right: pad };
        let depthwise = out == 0;
        let out = if depthwise { channels } else { out };
        let groups = if depthwise { channels } else { 1 };
        let stride = if kh == 1 { (1, stride) } else { (stride, stride) };
        let output =
            [2, (h + 2 * (kh / 2) - kh) / stride.0 + 1, (w + 2 * pad - kw) / stride.1 + 1, out];
        let case = Case {
            shape: ConvShape {
                input: [2, h, w, channels],
                output,
                kernel,
                stride,
                padding: (kh / 2, pad),
                activation: Activation::Relu6,
            },
            groups,
            padding,
            x: random.values(2 * h * w * channels),
            weight: random.values(out * (channels / groups) * kh * kw),
            bias: Some(random.values(out)),
            residual: None,
            skips: [0, 0],
        };
        let best = Tile::best(&case.shape, ValueType::F32);
        let got = if depthwise { case.depthwise::<f32>() } else { case.standard::<f32>(best) };
        case.assert_as_cpu(&got);
        assert_close(
            &case.what(),
            &got,
            &case.cpu().into_iter().map(f64::from).collect::<Vec<_>>(),
        );
    }
}

#[test]
fn the_batch_changes_no_bit() {
    let mut random = Random(5);
    for (kernel, channels, out) in
        [((3, 3), 5, Some(20)), ((1, 1), 36, Some(70)), ((3, 3), 8, None), ((5, 5), 3, None)]
    {
        let mut case = Case::random(&mut random, 5, kernel, channels, out, (6, 9));
        case.skips = [0, 0];
        let run = |case: &Case, tile| match out {
            Some(_) if tile == Tile::Half => {
                let half = case.standard::<u16>(tile);
                half.iter().map(|v| u32::from(*v)).collect::<Vec<u32>>()
            }
            Some(_) => case.standard::<f32>(tile).iter().map(|v| v.to_bits()).collect(),
            None => case.depthwise::<f32>().iter().map(|v| v.to_bits()).collect(),
        };
        for tiles in [[Tile::Large, Tile::Small], [Tile::Half, Tile::Half]] {
            let together = run(&case, tiles[0]);
            let (x_len, y_len) = (case.x.len() / 5, together.len() / 5);
            for i in 0..5 {
                let mut shape = case.shape;
                (shape.input[0], shape.output[0]) = (1, 1);
                let one = Case {
                    shape,
                    x: case.x[i * x_len..(i + 1) * x_len].to_vec(),
                    weight: case.weight.clone(),
                    bias: case.bias.clone(),
                    residual: case
                        .residual
                        .as_ref()
                        .map(|r| r[i * y_len..(i + 1) * y_len].to_vec()),
                    ..case
                };
                let alone = run(&one, tiles[1]);
                assert_eq!(alone, together[i * y_len..(i + 1) * y_len], "{}", case.what());
            }
        }
    }
}

#[test]
fn linear_layers_match_the_cpu() {
    let mut random = Random(6);
    for (n, k, out) in [(1, 1, 1), (1, 512, 1), (7, 33, 17), (64, 1280, 40), (3, 1280, 1)] {
        let shape = ConvShape {
            input: [n, 1, 1, k],
            output: [n, 1, 1, out],
            kernel: (1, 1),
            stride: (1, 1),
            padding: (0, 0),
            activation: Activation::Relu,
        };
        let case = Case {
            shape,
            groups: 1,
            padding: Padding::default(),
            x: random.values(n * k),
            weight: random.values(out * k),
            bias: Some(random.values(out)),
            residual: None,
            skips: [0, 0],
        };
        let got = case.standard::<f32>(Tile::best(&shape, ValueType::F32));
        let weight = Tensor::from_vec(case.weight.clone(), (out, k), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec(case.bias.clone().unwrap(), out, &Device::Cpu).unwrap();
        let linear = Linear::new(&weight, Some(&bias), Activation::Relu).unwrap();
        let x = Tensor::from_vec(case.x.clone(), (n, k), &Device::Cpu).unwrap();
        let y = linear.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_close("linear", &got, &y.into_iter().map(f64::from).collect::<Vec<_>>());
    }
}

#[test]
fn large_batches_get_large_tiles_and_what_does_not_fit_is_an_error() {
    let shape = |n: usize, side: usize, c: usize, out: usize| ConvShape {
        input: [n, side, side, c],
        output: [n, side, side, out],
        kernel: (1, 1),
        stride: (1, 1),
        padding: (0, 0),
        activation: Activation::None,
    };
    assert_eq!(Tile::best(&shape(1, 72, 32, 64), ValueType::F32), Tile::Small);
    assert_eq!(Tile::best(&shape(256, 72, 32, 64), ValueType::F32), Tile::Large);
    assert_eq!(Tile::best(&shape(256, 72, 32, 16), ValueType::F32), Tile::Small);
    // More than 2^31 output values and more than 65535 blocks in y.
    let big = shape(4096, 144, 96, 96);
    let (launch, _) = conv::standard("conv2d", &big, Tile::Large, 0, None).unwrap();
    assert_eq!(launch.grid, [4096 * 144 * 144 / 128, 2, 1]);
    let error =
        |result: candle_core::Result<(Launch, conv::ConvParams)>| result.err().unwrap().to_string();
    let wide = shape(1, 1, 1, 65_536 * 64);
    let text = error(conv::standard("conv2d", &wide, Tile::Large, 0, None));
    assert!(text.contains("conv2d") && text.contains("4194304"), "{text}");
    let text = error(conv::standard("conv2d", &shape(1, 1 << 29, 1, 1), Tile::Small, 0, None));
    assert!(text.contains("conv2d") && text.contains("536870912"), "{text}");
    let many = shape(1 << 20, 1 << 10, 1, 1);
    let text = error(conv::standard("linear", &many, Tile::Small, 0, None));
    assert!(text.contains("linear"), "{text}");
}

// ---- pools ---------------------------------------------------------------------------------

fn pools<T: Stored>(seed: u64, exact: bool) {
    let mut random = Random(seed);
    for _ in 0..25 {
        let (n, h, w) = (1 + random.below(3), 2 + random.below(9), 2 + random.below(9));
        let c = random.pick(&[1, 3, 4, 16, 21, 40, 132]);
        let skip = random.pick(&[0, 0, 4, 5]);
        let x = rounded::<T>(&random.values(n * h * w * c));
        let tensor = Tensor::from_slice(&x, (n, h, w, c), &Device::Cpu).unwrap();
        let cpu = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let input = Buffer::new(&stored::<T>(&x), skip);
        let what = format!("[{n}, {h}, {w}, {c}] behind {skip}");

        let (made, p) = pool::max_pool("max_pool_2x2", [n, h, w, c], T::VALUES, skip).unwrap();
        let want = cpu(nn::max_pool_2x2(&tensor).unwrap());
        let got = run::<T>(&made, &[Argument::Buffer(&input)], &[params(&p)], want.len());
        assert!(got.iter().zip(&want).all(|(g, w)| g.value() == f64::from(*w)), "max {what}");

        let (made, p) = pool::statistics("pool", [n, h, w, c], T::VALUES).unwrap();
        for eps in [None, Some(1e-5f32)] {
            let want = cpu(match eps {
                None => nn::global_avg_pool(&tensor).unwrap(),
                Some(eps) => nn::mean_std_pool(&tensor, eps).unwrap(),
            });
            let eps = eps.unwrap_or(-1.0);
            let rest = [params(&p), params(&eps)];
            let got = run::<f32>(&made, &[Argument::Buffer(&input)], &rest, want.len());
            assert_eq!(got, want, "statistics {what}");
        }

        let large = rounded::<T>(&random.values(4 * n * h * w * c));
        let large_tensor = Tensor::from_slice(&large, (n, 2 * h, 2 * w, c), &Device::Cpu).unwrap();
        let offsets = [random.pick(&[0, 4, 3]), skip];
        let large = Buffer::new(&stored::<T>(&large), offsets[0]);
        let shape = [n, 2 * h, 2 * w, c];
        let (made, p) = pool::upsample_add("upsample", shape, T::VALUES, offsets).unwrap();
        let want = cpu(nn::upsample_2x_add(&large_tensor, &tensor).unwrap());
        let inputs = [Argument::Buffer(&large), Argument::Buffer(&input)];
        let got = run::<T>(&made, &inputs, &[params(&p)], want.len());
        assert_close(&what, &got, &wide(&want));
        if exact {
            assert!(got.iter().zip(&want).all(|(g, w)| g.value() == f64::from(*w)), "add {what}");
        }
    }
}

#[test]
fn pools_give_the_cpus_bits() {
    pools::<f32>(7, true);
}

#[test]
fn half_pools_match_the_cpu() {
    pools::<u16>(8, false);
}

// ---- the spectral front end ----------------------------------------------------------------

#[test]
fn the_spectral_front_end_matches_the_cpu() {
    let mut random = Random(9);
    let tone = |hertz: f32, level: f32| -> Vec<f32> {
        let step = std::f32::consts::TAU * hertz / 16_000.0;
        (0..speech::WINDOW)
            .map(|n| level * (1.0 + (n / 8000 % 2) as f32) * (n as f32 * step).sin())
            .collect()
    };
    let mut windows = vec![tone(1000.0, 0.3), vec![0.0; speech::WINDOW], tone(3333.3, 0.001)];
    windows.push(random.values(speech::WINDOW));
    windows[2].iter_mut().for_each(|v| *v += 0.01 * random.value() + 0.2);
    let spectrum = speech::SPECTRUM;
    assert_eq!(spectrum.frames(), speech::FRAMES);
    let slices: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let want = speech::Features::new().batch(&slices).unwrap();
    let n = windows.len();
    let samples = Buffer::new(&windows.concat(), 0);
    let tables = Buffer::new(&features::tables(), 0);
    let made = spectrum.launches("features", n).unwrap();
    let p = || params(&made.params);
    let levels = run::<f32>(&made.level, &[Argument::Buffer(&samples)], &[p()], 2 * n);
    let levels = Buffer::new(&levels, 0);
    let inputs = [&samples, &levels, &tables].map(Argument::Buffer);
    let power = run::<f32>(&made.power, &inputs, &[p()], want.len());
    let got = Buffer::new(&power, 0);
    launch(&made.log, &[Argument::Buffer(&got), p()], 2);
    let len = speech::BANDS * speech::FRAMES;
    let got = got.read::<f32>();
    for (k, (got, want)) in got.chunks(len).zip(want.chunks(len)).enumerate() {
        let exact = spectrum_reference(&windows[k]);
        // In a pure tone's empty bands the CPU's f32 transform shows its own rounding.
        let near = if k == 0 { 1e-2 } else { 1e-3 };
        for (i, ((g, w), e)) in got.iter().zip(want).zip(exact).enumerate() {
            assert!((g - w).abs() <= near, "window {k}, value {i} is {g}, the CPU says {w}");
            assert!((f64::from(*g) - e).abs() <= 2e-5, "window {k}, value {i} is {g}, not {e}");
        }
    }
    // An odd number of frames: the last one has no partner.
    let odd = features::Spectrum { samples: 512 + 4 * 200, ..spectrum };
    assert_eq!(odd.frames(), 5);
    let made = odd.launches("features", 1).unwrap();
    let part = Buffer::new(&windows[3][..odd.samples], 0);
    let inputs = [&part, &levels, &tables].map(Argument::Buffer);
    let power = run::<f32>(&made.power, &inputs, &[params(&made.params)], 5 * odd.bands);
    assert!(power.iter().all(|v| v.is_finite()));
    assert!(odd.launches("features", 0).is_err());
    let text = features::Spectrum { bands: 200, ..spectrum }.launches("features", 1).unwrap_err();
    assert!(text.to_string().contains("200 bands"), "{text}");
}

// ---- pictures ------------------------------------------------------------------------------

fn plain(size: (usize, usize)) -> Target {
    Target {
        size,
        canvas: size,
        place: (0, 0),
        scale: [1.0; 3],
        shift: [0.0; 3],
        bgr: false,
        planar: false,
    }
}

fn run_picture<T: bytemuck::Pod>(
    made: Vec<(Launch, TargetParams)>,
    surfaces: &[Surface],
    places: &[T],
    len: usize,
) -> Vec<f32> {
    let (surfaces, places) = (Buffer::new(surfaces, 0), Buffer::new(places, 0));
    let inputs = [Argument::Buffer(&surfaces), Argument::Buffer(&places)];
    assert_eq!(made.len(), 1);
    run::<f32>(&made[0].0, &inputs, &[params(&made[0].1)], len)
}

fn cut(target: &Target, surfaces: &[Surface], crops: &[Crop]) -> Vec<f32> {
    let made = target.crops(crops, surfaces.len()).unwrap();
    run_picture(made, surfaces, crops, crops.len() * target.len())
}

/// A picture whose rows are `pitch` bytes apart; what lies between is 0xff.
fn pitched(rows: &[u8], row: usize, pitch: usize) -> Buffer {
    let mut bytes = Vec::new();
    for (i, line) in rows.chunks(row).enumerate() {
        bytes.resize(i * pitch, 0xff);
        bytes.extend_from_slice(line);
    }
    Buffer::new(&bytes, 0)
}

fn plane(buffer: &Buffer, pitch: usize) -> Plane {
    Plane { address: buffer.address() as u64, pitch }
}

fn rgb_surface(buffer: &Buffer, w: usize, h: usize, pitch: usize, o: Orientation) -> Surface {
    Surface::new(Planes::Rgb(plane(buffer, pitch)), (w, h), o).unwrap()
}

#[test]
fn crops_are_those_of_the_cpu() {
    let mut random = Random(10);
    for round in 0..40 {
        let (w, h) = (1 + random.below(90), 1 + random.below(70));
        let rgb = scene(&mut random, w, h);
        let pitch = w * 3 + random.below(20);
        let stored = pitched(&rgb, w * 3, pitch);
        let surfaces = [rgb_surface(&stored, w, h, pitch, Orientation::default())];
        let size = (1 + random.below(40), 1 + random.below(40));
        let mut edge = |length: usize| {
            let (a, b) = (random.value(), random.value());
            let (a, b) = (0.5 + a * 0.9, 0.5 + b * 0.9);
            let whole = random.below(2) == 0;
            let at = |v: f32| if whole { (v * length as f32).round() } else { v * length as f32 };
            (at(a.min(b)), at(a.max(b)))
        };
        let crops: Vec<Crop> = (0..3)
            .map(|i| {
                let ((x0, x1), (y0, y1)) = (edge(w), edge(h));
                match (round, i) {
                    (0, 0) => Crop { x0: 0.0, y0: 0.0, x1: w as f32, y1: h as f32, surface: 0 },
                    // Without area, and wholly outside.
                    (1, 0) => Crop { x0, y0, x1: x0, y1: y0, surface: 0 },
                    (1, 1) => Crop { x0: -90.0, y0: -50.0, x1: -10.0, y1: -20.5, surface: 0 },
                    _ => Crop { x0, y0, x1, y1, surface: 0 },
                }
            })
            .collect();
        let got = cut(&plain(size), &surfaces, &crops);
        for (crop, got) in crops.iter().zip(got.chunks(size.0 * size.1 * 3)) {
            let rect = Rect { x0: crop.x0, y0: crop.y0, x1: crop.x1, y1: crop.y1 };
            let picture = Picture::new(w, h, &rgb).unwrap();
            let want = resample(picture, rect, size.0, size.1);
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert_eq!(*g, f32::from(*w), "{crop:?} to {size:?}: value {i}");
            }
        }
    }
}

#[test]
fn all_orientations_show_the_turned_picture() {
    let mut random = Random(11);
    let (w, h) = (13, 9);
    let rgb = scene(&mut random, w, h);
    let buffer = pitched(&rgb, w * 3, w * 3);
    for bits in 0..8 {
        let o =
            Orientation { transpose: bits & 1 != 0, flip_x: bits & 2 != 0, flip_y: bits & 4 != 0 };
        // As the decoder turns pictures.
        let (uw, uh) = if o.transpose { (h, w) } else { (w, h) };
        let mut turned = Vec::new();
        for y in 0..uh {
            for x in 0..uw {
                let fx = if o.flip_x { uw - 1 - x } else { x };
                let fy = if o.flip_y { uh - 1 - y } else { y };
                let at = if o.transpose { fx * w + fy } else { fy * w + fx };
                turned.extend_from_slice(&rgb[at * 3..at * 3 + 3]);
            }
        }
        let surfaces = [rgb_surface(&buffer, w, h, w * 3, o)];
        let crop = Crop { x0: 1.0, y0: -1.0, x1: 8.5, y1: 7.0, surface: 0 };
        let got = cut(&plain((6, 11)), &surfaces, &[crop]);
        let picture = Picture::new(uw, uh, &turned).unwrap();
        let rect = Rect { x0: crop.x0, y0: crop.y0, x1: crop.x1, y1: crop.y1 };
        let want: Vec<f32> = resample(picture, rect, 6, 11).into_iter().map(f32::from).collect();
        assert_eq!(got, want, "{o:?}");
    }
}

#[test]
fn the_canvas_is_black_and_values_come_in_the_order_asked_for() {
    let mut random = Random(12);
    let (w, h) = (20, 15);
    let rgb = scene(&mut random, w, h);
    let (a, b) = (pitched(&rgb, w * 3, 64), pitched(&random.bytes(w * h * 3), w * 3, 60));
    let o = Orientation::default();
    let surfaces = [rgb_surface(&a, w, h, 64, o), rgb_surface(&b, w, h, 60, o)];
    let whole = |surface| Crop { x0: 0.0, y0: 0.0, x1: 20.0, y1: 15.0, surface };
    let crops = [whole(1), whole(0)];
    let bytes = cut(&plain((8, 6)), &surfaces, &crops);
    for (bgr, planar) in [(false, false), (true, false), (false, true), (true, true)] {
        let target = Target {
            canvas: (32, 16),
            place: (5, 3),
            scale: [0.5, 0.25, 2.0],
            shift: [1.0, -1.0, 0.125],
            bgr,
            planar,
            ..plain((8, 6))
        };
        let got = cut(&target, &surfaces, &crops);
        for n in 0..2 {
            for y in 0..16 {
                for x in 0..32 {
                    for c in 0..3 {
                        let colour = if bgr { 2 - c } else { c };
                        let inside = (5..13).contains(&x) && (3..9).contains(&y);
                        let byte = if inside {
                            bytes[((n * 6 + y - 3) * 8 + x - 5) * 3 + colour]
                        } else {
                            0.0
                        };
                        let at = if planar {
                            ((n * 3 + c) * 16 + y) * 32 + x
                        } else {
                            ((n * 16 + y) * 32 + x) * 3 + c
                        };
                        let want = byte * target.scale[colour] + target.shift[colour];
                        assert_eq!(got[at], want, "{bgr} {planar} {n} {x} {y} {c}");
                    }
                }
            }
        }
    }
}

#[test]
fn yuv_becomes_rgb() {
    let mut random = Random(13);
    for (w, h) in [(16, 8), (7, 5), (1, 1), (9, 2), (2, 9)] {
        let yuv = Yuv::random(&mut random, w, h);
        let cw = w.div_ceil(2);
        let pairs: Vec<u8> =
            yuv.planes[1].iter().zip(&yuv.planes[2]).flat_map(|(u, v)| [*u, *v]).collect();
        let y = pitched(&yuv.planes[0], w, w + 5);
        let uv = pitched(&pairs, cw * 2, cw * 2 + 3);
        let (u, v) = (pitched(&yuv.planes[1], cw, cw + 1), pitched(&yuv.planes[2], cw, cw + 2));
        for matrix in [Matrix::Bt601, Matrix::Bt709] {
            for full_range in [false, true] {
                let colour = YuvColour { matrix, full_range };
                let nv12 = Planes::Nv12([plane(&y, w + 5), plane(&uv, cw * 2 + 3)], colour);
                let planar = Planes::Yuv420(
                    [plane(&y, w + 5), plane(&u, cw + 1), plane(&v, cw + 2)],
                    colour,
                );
                let surfaces = [nv12, planar]
                    .map(|p| Surface::new(p, (w, h), Orientation::default()).unwrap());
                let whole =
                    |surface| Crop { x0: 0.0, y0: 0.0, x1: w as f32, y1: h as f32, surface };
                let got = cut(&plain((w, h)), &surfaces, &[whole(0), whole(1)]);
                let (first, second) = got.split_at(w * h * 3);
                assert_eq!(first, second, "NV12 and planar");
                for (i, got) in first.chunks(3).enumerate() {
                    let want = yuv.rgb(i % w, i / w, colour);
                    for (g, w) in got.iter().zip(want) {
                        assert!((f64::from(*g) - w).abs() <= 0.501, "{colour:?} {i}: {g} {w}");
                    }
                }
            }
        }
    }
}

/// What the host makes of a 4:2:0 picture, with the settings of `src/media/convert.rs`.
fn swscale(yuv: &Yuv, colour: YuvColour) -> Vec<u8> {
    use ffmpeg_next::ffi;

    let (w, h, cw) = (yuv.w as i32, yuv.h as i32, yuv.w.div_ceil(2) as i32);
    let pitch = (yuv.w * 3).next_multiple_of(64);
    let mut rgb = vec![0u8; pitch * yuv.h + 64];
    let matrix = match colour.matrix {
        Matrix::Bt601 => ffi::SWS_CS_ITU601,
        Matrix::Bt709 => ffi::SWS_CS_ITU709,
    };
    // SAFETY: the planes have the sizes and line sizes that are named, rows of the target have
    // room for what vector code writes past their ends, and the context is freed once.
    unsafe {
        let context = ffi::sws_getContext(
            w,
            h,
            ffi::AVPixelFormat::AV_PIX_FMT_YUV420P,
            w,
            h,
            ffi::AVPixelFormat::AV_PIX_FMT_RGB24,
            ffi::SWS_BILINEAR | ffi::SWS_ACCURATE_RND,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null(),
        );
        assert!(!context.is_null());
        ffi::sws_setColorspaceDetails(
            context,
            ffi::sws_getCoefficients(matrix),
            i32::from(colour.full_range),
            ffi::sws_getCoefficients(ffi::SWS_CS_DEFAULT),
            1,
            0,
            1 << 16,
            1 << 16,
        );
        let [y, u, v] = [0, 1, 2].map(|i| yuv.planes[i].as_ptr());
        let rows = ffi::sws_scale(
            context,
            [y, u, v, std::ptr::null()].as_ptr(),
            [w, cw, cw, 0].as_ptr(),
            0,
            h,
            [rgb.as_mut_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut()]
                .as_ptr(),
            [pitch as i32, 0, 0, 0].as_ptr(),
        );
        ffi::sws_freeContext(context);
        assert_eq!(rows, h);
    }
    rgb.chunks(pitch).take(yuv.h).flat_map(|row| row[..yuv.w * 3].to_vec()).collect()
}

#[test]
fn yuv_becomes_what_the_host_makes_of_it() {
    let mut random = Random(15);
    for (w, h) in [(64, 48), (62, 50), (32, 2), (128, 10)] {
        let mut yuv = Yuv::random(&mut random, w, h);
        // Colours that exist: noise would be clipped nearly everywhere.
        for (i, plane) in yuv.planes.iter_mut().enumerate() {
            for v in plane.iter_mut() {
                *v = if i == 0 { 60 + *v / 2 } else { 100 + *v / 5 };
            }
        }
        for matrix in [Matrix::Bt601, Matrix::Bt709] {
            for full_range in [false, true] {
                let colour = YuvColour { matrix, full_range };
                let want = swscale(&yuv, colour);
                let buffers = yuv.planes.each_ref().map(|p| Buffer::new(p, 0));
                let pitch = [w, w / 2, w / 2];
                let planes = [0, 1, 2].map(|i| plane(&buffers[i], pitch[i]));
                let planes = Planes::Yuv420(planes, colour);
                let surface = Surface::new(planes, (w, h), Orientation::default()).unwrap();
                let whole = Crop { x0: 0.0, y0: 0.0, x1: w as f32, y1: h as f32, surface: 0 };
                let got = cut(&plain((w, h)), &[surface], &[whole]);
                let off = got.iter().zip(&want).map(|(g, w)| (g - f32::from(*w)).abs());
                let worst = off.clone().fold(0.0, f32::max);
                let mean = off.sum::<f32>() / want.len() as f32;
                // swscale truncates luma and chroma each by themselves, and is darker for it by up
                // to two levels; a wrong row of chroma would be off by 40.
                assert!(worst <= 4.0 && mean <= 2.2, "{w}x{h} {colour:?}: {mean}, {worst}");
            }
        }
    }
}

#[test]
fn affine_maps_match_the_reference() {
    let mut random = Random(14);
    let (w, h) = (40, 30);
    let rgb = scene(&mut random, w, h);
    let buffer = pitched(&rgb, w * 3, w * 3);
    let surfaces = [rgb_surface(&buffer, w, h, w * 3, Orientation::default())];
    for zoom in [0.4f32, 0.9, 1.0, 2.3] {
        let (sin, cos) = (random.value() * 3.0).sin_cos();
        let m = [cos * zoom, -sin * zoom, 15.0, sin * zoom, cos * zoom, 10.0];
        let map = Affine::new(m, 0).unwrap();
        let target = plain((12, 9));
        let made = target.maps(&[map], 1).unwrap();
        let got = run_picture(made, &surfaces, &[map], target.len());
        let samples = (f64::from(zoom) - 1e-4).ceil().max(1.0) as usize;
        let at = |x: f64, y: f64, c: usize| {
            let (x, y) =
                ((x - 0.5).clamp(0.0, w as f64 - 1.0), (y - 0.5).clamp(0.0, h as f64 - 1.0));
            let (x0, y0) = (x as usize, y as usize);
            let p = |x: usize, y: usize| f64::from(rgb[(y.min(h - 1) * w + x.min(w - 1)) * 3 + c]);
            let (tx, ty) = (x - x0 as f64, y - y0 as f64);
            (p(x0, y0) * (1.0 - tx) + p(x0 + 1, y0) * tx) * (1.0 - ty)
                + (p(x0, y0 + 1) * (1.0 - tx) + p(x0 + 1, y0 + 1) * tx) * ty
        };
        let m = m.map(f64::from);
        for (i, got) in got.iter().enumerate() {
            let (u, v, c) = ((i / 3 % 12) as f64, (i / 3 / 12) as f64, i % 3);
            let mut sum = 0.0;
            for j in 0..samples {
                for k in 0..samples {
                    let step = |n: usize| (n as f64 + 0.5) / samples as f64;
                    let (u, v) = (u + step(k), v + step(j));
                    sum += at(m[0] * u + m[1] * v + m[2], m[3] * u + m[4] * v + m[5], c);
                }
            }
            let want = sum / (samples * samples) as f64;
            assert!((f64::from(*got) - want).abs() <= 0.51, "zoom {zoom}, {i}: {got} {want}");
        }
    }
    // An upright enlargement is what a rectangle gives.
    let crop = Crop { x0: 4.0, y0: 6.0, x1: 10.0, y1: 12.0, surface: 0 };
    let map = Affine::new([0.5, 0.0, 4.0, 0.0, 0.5, 6.0], 0).unwrap();
    let target = plain((12, 12));
    let made = target.maps(&[map], 1).unwrap();
    let mapped = run_picture(made, &surfaces, &[map], target.len());
    let cropped = cut(&target, &surfaces, &[crop]);
    for y in 1..11 {
        // Outermost pixels differ: a rectangle repeats its own edge, a map looks past it.
        for i in (y * 12 + 1) * 3..(y * 12 + 11) * 3 {
            assert!((mapped[i] - cropped[i]).abs() <= 1.0, "{y} {i}");
        }
    }
}

#[test]
fn surfaces_and_crops_that_make_no_sense_are_errors() {
    let plane = Plane { address: 0, pitch: 8 };
    let text = Surface::new(Planes::Rgb(plane), (3, 2), Orientation::default()).unwrap_err();
    assert!(text.to_string().contains("pitch of 8 bytes"), "{text}");
    assert!(Surface::new(Planes::Rgb(plane), (0, 2), Orientation::default()).is_err());
    let crop = Crop { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0, surface: 0 };
    let target = plain((4, 4));
    for bad in
        [Crop { surface: 1, ..crop }, Crop { surface: -1, ..crop }, Crop { x1: f32::NAN, ..crop }]
    {
        assert!(target.crops(&[crop, bad], 1).unwrap_err().to_string().contains("crop 1"));
    }
    assert!(Target { place: (1, 0), ..target }.crops(&[crop], 1).is_err());
    assert!(Affine::new([1e4, 0.0, 0.0, 0.0, 1.0, 0.0], 0).is_err());
    // More crops than one grid has layers.
    let made = target.crops(&vec![crop; 70_000], 1).unwrap();
    assert_eq!(made.iter().map(|(l, _)| l.grid[2]).collect::<Vec<_>>(), [65_535, 4_465]);
}

// ---- both sides ----------------------------------------------------------------------------

#[test]
fn parameter_structs_are_as_large_on_both_sides() {
    let mut sizes = [0usize; 8];
    // SAFETY: the function writes eight numbers.
    unsafe { (emulator().sizes)(sizes.as_mut_ptr()) };
    let ours = [
        size_of::<conv::ConvParams>(),
        size_of::<conv::DepthwiseParams>(),
        size_of::<pool::PoolParams>(),
        size_of::<features::SpectrumParams>(),
        size_of::<Surface>(),
        size_of::<Crop>(),
        size_of::<Affine>(),
        size_of::<picture::TargetParams>(),
    ];
    assert_eq!(sizes, ours);
}
