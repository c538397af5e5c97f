//! Random cases and what must come out of them, for the tests of the GPU's kernels: on the host
//! (`tests/kernels.rs`) and on a GPU (`tests/cuda.rs`).
#![allow(dead_code)] // Each test file uses its own part.

use candle_core::{Device, Tensor};
use veriscope::nn::gpu::conv::ConvShape;
use veriscope::nn::gpu::picture::{Matrix, YuvColour};
use veriscope::nn::{Activation, Conv2d, ConvConfig, Isa, Padding};
use veriscope::speech::features as speech;

#[path = "random.rs"]
mod random;
pub use random::{ACTIVATIONS, Random, apply};

pub fn needs_exponential(activation: Activation) -> bool {
    !matches!(activation, Activation::None | Activation::Relu | Activation::Relu6)
}

/// One convolution with everything that it needs.
#[derive(Clone)]
pub struct Case {
    pub shape: ConvShape,
    pub groups: usize,
    pub padding: Padding,
    pub x: Vec<f32>,
    /// [out, in / groups, kh, kw].
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    /// How many values lie before x and the residual.
    pub skips: [usize; 2],
}

impl Case {
    pub fn weight_dims(&self) -> [usize; 4] {
        let (kh, kw) = self.shape.kernel;
        [self.shape.output[3], self.shape.input[3] / self.groups, kh, kw]
    }

    pub fn random(
        random: &mut Random,
        batch: usize,
        kernel: (usize, usize),
        channels: usize,
        out: Option<usize>,
        size: (usize, usize),
    ) -> Self {
        let plain = kernel == (1, 1) && random.below(3) > 0;
        let mut pad = |n: usize| if plain { 0 } else { random.below(n) };
        let padding = Padding { top: pad(3), bottom: pad(3), left: pad(4), right: pad(3) };
        let stride =
            if plain { (1, 1) } else { (random.pick(&[1, 2]), random.pick(&[1, 1, 2, 2, 3])) };
        let (h, w) = (kernel.0 + random.below(size.0), kernel.1 + random.below(size.1));
        let out_h = (h + padding.top + padding.bottom - kernel.0) / stride.0 + 1;
        let out_w = (w + padding.left + padding.right - kernel.1) / stride.1 + 1;
        let groups = if out.is_some() { 1 } else { channels };
        let out = out.unwrap_or(channels);
        let shape = ConvShape {
            input: [batch, h, w, channels],
            output: [batch, out_h, out_w, out],
            kernel,
            stride,
            padding: (padding.top, padding.left),
            activation: random.pick(&ACTIVATIONS),
        };
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        let weights = out * (channels / groups) * kernel.0 * kernel.1;
        Self {
            shape,
            groups,
            padding,
            x: random.values(len(shape.input)),
            weight: random.values(weights),
            bias: (random.below(3) > 0).then(|| random.values(out)),
            residual: (random.below(2) > 0).then(|| random.values(len(shape.output))),
            skips: [random.pick(&[0, 0, 1, 4, 7]), random.pick(&[0, 0, 2, 8])],
        }
    }

    /// Convolution by its definition.
    pub fn reference(&self) -> Vec<f64> {
        let [n, h, w, c] = self.shape.input;
        let [_, out_h, out_w, out] = self.shape.output;
        let (kh, kw) = self.shape.kernel;
        let per_group = c / self.groups;
        let mut y = Vec::new();
        for i in 0..n {
            for oy in 0..out_h {
                for ox in 0..out_w {
                    for o in 0..out {
                        let group = o / (out / self.groups);
                        let mut sum = self.bias.as_ref().map_or(0.0, |b| f64::from(b[o]));
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let iy =
                                    (oy * self.shape.stride.0 + ky).wrapping_sub(self.padding.top);
                                let ix =
                                    (ox * self.shape.stride.1 + kx).wrapping_sub(self.padding.left);
                                if iy >= h || ix >= w {
                                    continue;
                                }
                                for j in 0..per_group {
                                    let at = ((i * h + iy) * w + ix) * c + group * per_group + j;
                                    let b = self.weight[((o * per_group + j) * kh + ky) * kw + kx];
                                    sum += f64::from(self.x[at]) * f64::from(b);
                                }
                            }
                        }
                        if let Some(r) = &self.residual {
                            sum += f64::from(r[y.len()]);
                        }
                        y.push(apply(self.shape.activation, sum));
                    }
                }
            }
        }
        y
    }

    /// The CPU's operation.
    pub fn cpu(&self) -> Vec<f32> {
        let tensor = |v: &[f32], dims: [usize; 4]| {
            Tensor::from_vec(v.to_vec(), &dims, &Device::Cpu).unwrap()
        };
        let config = ConvConfig {
            stride: self.shape.stride,
            padding: self.padding,
            groups: self.groups,
            activation: self.shape.activation,
            ..ConvConfig::default()
        };
        let bias =
            self.bias.as_ref().map(|b| Tensor::from_slice(b, b.len(), &Device::Cpu).unwrap());
        let weight = tensor(&self.weight, self.weight_dims());
        let conv = Conv2d::new(&weight, bias.as_ref(), config).unwrap();
        let x = tensor(&self.x, self.shape.input);
        let y = match &self.residual {
            Some(r) => conv.forward_add(&x, &tensor(r, self.shape.output)).unwrap(),
            None => conv.forward(&x).unwrap(),
        };
        y.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// For messages.
    pub fn what(&self) -> String {
        format!("{:?} skips {:?}", self.shape, self.skips)
    }

    /// Kernels and CPU work through the same chain; only an exponential may differ.
    pub fn assert_as_cpu(&self, got: &[f32]) {
        let fused = cfg!(target_arch = "x86_64") && Isa::best() != Isa::Portable;
        if fused && !needs_exponential(self.shape.activation) {
            let cpu = self.cpu();
            let same = got.iter().zip(&cpu).filter(|(a, b)| a == b).count();
            assert_eq!(same, cpu.len(), "{}: not the CPU's bits", self.what());
        }
    }
}

pub fn standard_case(random: &mut Random) -> Case {
    let batch = random.pick(&[1, 1, 2, 3, 5]);
    let kernel = random.pick(&[(1, 1), (1, 1), (3, 3), (5, 3), (1, 3), (2, 4), (1, 9)]);
    let channels = random.pick(&[1, 2, 3, 4, 5, 8, 16, 19, 36, 70]);
    let out = random.pick(&[1, 2, 4, 16, 17, 33, 64, 68, 96]);
    Case::random(random, batch, kernel, channels, Some(out), (9, 14))
}

/// The front end by its definition, in f64 from the samples brought to their level on.
pub fn spectrum_reference(samples: &[f32]) -> Vec<f64> {
    let p = speech::SPECTRUM;
    let n = samples.len() as f64;
    let mean = (samples.iter().map(|v| f64::from(*v)).sum::<f64>() / n) as f32;
    let wave: Vec<f32> = samples.iter().map(|v| v - mean).collect();
    let rms = (wave.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n).sqrt();
    let gain = (p.target_rms / rms.max(p.min_rms)) as f32;
    let turns: Vec<(f64, f64)> =
        (0..512).map(|i| (std::f64::consts::TAU * f64::from(i) / 512.0).sin_cos()).collect();
    let mut power = vec![0.0f64; p.bands * p.frames()];
    for t in 0..p.frames() {
        let frame: Vec<f64> = (0..512)
            .map(|i| {
                let hann = (0.5 - 0.5 * turns[i].1) as f32;
                f64::from(wave[t * p.hop + i] * gain * hann)
            })
            .collect();
        for bin in p.first_bin..p.first_bin + 2 * p.bands {
            let (mut re, mut im) = (0.0, 0.0);
            for (i, v) in frame.iter().enumerate() {
                let (sin, cos) = turns[i * bin % 512];
                re += v * cos;
                im += v * sin;
            }
            power[(bin - p.first_bin) / 2 * p.frames() + t] += re * re + im * im;
        }
    }
    let means: Vec<f64> =
        power.chunks(p.frames()).map(|b| b.iter().sum::<f64>() / b.len() as f64).collect();
    let overall = means.iter().sum::<f64>() / means.len() as f64;
    for (band, mean) in power.chunks_mut(p.frames()).zip(means) {
        for v in band {
            let ratio = *v / (mean + p.band_floor * overall + p.abs_floor);
            *v = f64::from(p.scale) * ((ratio + f64::from(p.log_floor)).ln() + f64::from(p.offset));
        }
    }
    power
}

/// Smooth with some noise: the kinds of picture where a wrong tap shows.
pub fn scene(random: &mut Random, w: usize, h: usize) -> Vec<u8> {
    (0..w * h * 3)
        .map(|i| {
            let (x, y, c) = (i / 3 % w, i / 3 / w, i % 3);
            let wave = ((x * (c + 1)) as f32 * 0.3).sin() + (y as f32 * 0.21).cos();
            (128.0 + 50.0 * wave + 20.0 * random.value()) as u8
        })
        .collect()
}

/// A 4:2:0 picture: luma, U, V.
pub struct Yuv {
    pub w: usize,
    pub h: usize,
    pub planes: [Vec<u8>; 3],
}

impl Yuv {
    pub fn random(random: &mut Random, w: usize, h: usize) -> Self {
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        Self { w, h, planes: [w * h, cw * ch, cw * ch].map(|n| random.bytes(n)) }
    }

    /// By the definition, in f64.
    pub fn rgb(&self, x: usize, y: usize, colour: YuvColour) -> [f64; 3] {
        let cw = self.w.div_ceil(2);
        let near = y / 2;
        let mean = y.is_multiple_of(2) || y + 1 == self.h;
        let above = if mean { near.saturating_sub(1) } else { near };
        let chroma = |p: usize| {
            let at = |row: usize| f64::from(self.planes[p][row * cw + x / 2]);
            0.5 * at(near) + 0.5 * at(above) - 128.0
        };
        let (kr, kb) = match colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let luma = f64::from(self.planes[0][y * self.w + x]);
        let (l, s) = if colour.full_range {
            (luma, 1.0)
        } else {
            ((luma - 16.0) * 255.0 / 219.0, 255.0 / 224.0)
        };
        let (u, v) = (chroma(1) * s, chroma(2) * s);
        let (r, b) = (l + 2.0 * (1.0 - kr) * v, l + 2.0 * (1.0 - kb) * u);
        let g = (l - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|v| v.clamp(0.0, 255.0))
    }
}
