//! Meso4 and MesoInception-4: small convolutional networks over one face, imported from the authors'
//! weights. Inference only, on the CPU.
//!
//! Afchar, Nozick, Yamagishi and Echizen: "MesoNet: a Compact Facial Video Forgery Detection
//! Network", WIFS 2018. Weights: <https://github.com/DariusAf/MesoNet> (Apache-2.0), trained on the
//! authors' sets of deepfakes (`_DF`) or Face2Face (`_F2F`); they do not ship, `veriscope weights
//! import --as meso4` and `--as mesoinception4` read them.
//!
//! Built after `classifiers.py` there. Tensors are named by kind and by the order in which Keras made
//! the layers: `conv1` to `conv4` or `conv16`, `bn1` to `bn4`, `dense1` and `dense2`.

use candle_core::{Device, Result, Tensor, bail};

use super::weights::{Tensors, WeightsError};
use super::{Shapes, conv};
use crate::nn::{Activation, Conv2d, ConvConfig, Linear, Padding, in_groups};

/// Names of the two in the manifest.
pub const MESO4: &str = "meso4";
pub const MESO_INCEPTION4: &str = "mesoinception4";

/// Height and width of a face.
pub const SIDE: usize = 256;

/// Inputs that go through all layers together.
const GROUP: usize = 1;
/// Keras' own.
const BN_EPS: f64 = 1e-3;
/// Of the leaky rectifier, below 0.
const SLOPE: f32 = 0.1;
/// Outputs of the hidden layer, and its inputs: 8 × 8 pixels of 16 channels.
const HIDDEN: usize = 16;
const FLAT: usize = 1024;

/// What a stage begins with; then batch norm and the maximum of squares.
enum Plan {
    /// Kernel's side, channels in and out.
    Conv(usize, usize, usize),
    /// Channels in, and out of each of the four branches.
    Inception(usize, [usize; 4]),
}

use Plan::{Conv, Inception};

/// Stages, with the side of the squares.
fn plan(network: &str) -> Option<[(Plan, usize); 4]> {
    match network {
        MESO4 => Some([
            (Conv(3, 3, 8), 2),
            (Conv(5, 8, 8), 2),
            (Conv(5, 8, 16), 2),
            (Conv(5, 16, 16), 4),
        ]),
        MESO_INCEPTION4 => Some([
            (Inception(3, [1, 4, 4, 2]), 2),
            (Inception(11, [2, 4, 4, 2]), 2),
            (Conv(5, 12, 16), 2),
            (Conv(5, 16, 16), 4),
        ]),
        _ => None,
    }
}

/// Side of the kernel, channels in and out, of each convolution of a stage, in the order in which
/// Keras made them: of the branches 1×1; 1×1 and 3×3; 1×1 and 3×3 over every second pixel; 1×1 and
/// 3×3 over every third.
fn convolutions(plan: &Plan) -> Vec<[usize; 3]> {
    match *plan {
        Conv(side, inputs, outputs) => vec![[side, inputs, outputs]],
        Inception(inputs, [a, b, c, d]) => {
            let branch = |n| [[1, inputs, n], [3, n, n]];
            [&[[1, inputs, a]][..], &branch(b), &branch(c), &branch(d)].concat()
        }
    }
}

fn channels(plan: &Plan) -> usize {
    match plan {
        Conv(_, _, outputs) => *outputs,
        Inception(_, branches) => branches.iter().sum(),
    }
}

/// The tensors of a weights file, in PyTorch's layouts; `None` for a network that is neither of the
/// two.
pub fn shapes(network: &str) -> Option<Shapes> {
    let mut shapes = Shapes::new();
    let mut number = 0;
    for (i, (plan, _)) in plan(network)?.iter().enumerate() {
        for [side, inputs, outputs] in convolutions(plan) {
            number += 1;
            shapes.push((format!("conv{number}.weight"), vec![outputs, inputs, side, side]));
            shapes.push((format!("conv{number}.bias"), vec![outputs]));
        }
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("bn{}.{part}", i + 1), vec![channels(plan)]));
        }
    }
    for (name, outputs, inputs) in [("dense1", HIDDEN, FLAT), ("dense2", 1, HIDDEN)] {
        shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("{name}.bias"), vec![outputs]));
    }
    Some(shapes)
}

struct Stage {
    /// Layers one after the other; the ends of all branches lie beside one another.
    branches: Vec<Vec<Conv2d>>,
    /// Batch norm: `x * scale + shift` per channel.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Side of the squares whose maximum is taken.
    pool: usize,
}

impl Stage {
    /// `number`: of the stage, from 1; `made`: convolutions of the stages before.
    fn load(
        tensors: &Tensors,
        number: usize,
        made: usize,
        plan: &Plan,
        pool: usize,
    ) -> std::result::Result<Self, WeightsError> {
        let layer = |i: usize, side: usize, dilation: usize| {
            let name = format!("conv{}", made + i);
            let config = ConvConfig {
                padding: Padding::all(side / 2 * dilation),
                activation: Activation::Relu,
                ..ConvConfig::default()
            };
            if dilation == 1 {
                return conv(tensors, &name, config);
            }
            let bias = tensors.get(&format!("{name}.bias"))?;
            dilated(tensors.get(&format!("{name}.weight"))?, dilation)
                .and_then(|weight| Conv2d::new(&weight, Some(bias), config))
                .map_err(|e| tensors.unfit(&name, &e))
        };
        let branches = match *plan {
            Conv(side, ..) => vec![vec![layer(1, side, 1)?]],
            Inception(..) => vec![
                vec![layer(1, 1, 1)?],
                vec![layer(2, 1, 1)?, layer(3, 3, 1)?],
                vec![layer(4, 1, 1)?, layer(5, 3, 2)?],
                vec![layer(6, 1, 1)?, layer(7, 3, 3)?],
            ],
        };
        let part = |part: &str| {
            let name = format!("bn{number}.{part}");
            let values = tensors.get(&name)?.to_vec1::<f32>();
            values.map_err(|e| tensors.unfit(&name, &e))
        };
        let (gamma, beta) = (part("weight")?, part("bias")?);
        let (mean, var) = (part("running_mean")?, part("running_var")?);
        let (mut scale, mut shift) = (Vec::new(), Vec::new());
        for (((gamma, beta), mean), var) in gamma.iter().zip(beta).zip(mean).zip(var) {
            let factor = f64::from(*gamma) / (f64::from(var) + BN_EPS).sqrt();
            scale.push(factor as f32);
            shift.push((f64::from(beta) - f64::from(mean) * factor) as f32);
        }
        Ok(Self { branches, scale, shift, pool })
    }

    /// [1, h, w, in] → [1, h / pool, w / pool, out].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut ends = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            let mut end = x.clone();
            for layer in branch {
                end = layer.forward(&end)?;
            }
            ends.push(end);
        }
        self.normed_and_pooled(&ends)
    }

    /// The norm stands between rectifier and maximum, so it can be folded into no convolution: the
    /// next one's zeros around the picture are not normed.
    fn normed_and_pooled(&self, ends: &[Tensor]) -> Result<Tensor> {
        let (mut height, mut width) = (0, 0);
        let channels = self.scale.len();
        let mut out = Vec::new();
        let mut first = 0;
        for end in ends {
            let (_, h, w, n) = end.dims4()?;
            (height, width) = (h / self.pool, w / self.pool);
            out.resize(height * width * channels, f32::NEG_INFINITY);
            let (Some(scale), Some(shift)) =
                (self.scale.get(first..first + n), self.shift.get(first..first + n))
            else {
                bail!("mesonet: {n} channels from {first} on, of {channels}");
            };
            let values: Vec<f32> = end.flatten_all()?.to_vec1()?;
            for (y, row) in values.chunks_exact(w * n).take(height * self.pool).enumerate() {
                let line = &mut out[y / self.pool * width * channels..][..width * channels];
                for (x, pixel) in row.chunks_exact(n).take(width * self.pool).enumerate() {
                    let most = &mut line[x / self.pool * channels + first..][..n];
                    for (((most, v), scale), shift) in
                        most.iter_mut().zip(pixel).zip(scale).zip(shift)
                    {
                        *most = most.max(v * scale + shift);
                    }
                }
            }
            first += n;
        }
        Tensor::from_vec(out, (1, height, width, channels), &Device::Cpu)
    }
}

/// A 3×3 kernel over every `dilation`th pixel, as one over all pixels whose other weights are 0: the
/// layers are so narrow that the zeros cost little.
fn dilated(weight: &Tensor, dilation: usize) -> Result<Tensor> {
    let (outputs, inputs, side, _) = weight.dims4()?;
    let spread = (side - 1) * dilation + 1;
    let mut values = vec![0.0f32; outputs * inputs * spread * spread];
    let taps: Vec<f32> = weight.flatten_all()?.to_vec1()?;
    for (i, tap) in taps.into_iter().enumerate() {
        let (kernel, y, x) = (i / (side * side), i / side % side, i % side);
        values[(kernel * spread + y * dilation) * spread + x * dilation] = tap;
    }
    Tensor::from_vec(values, (outputs, inputs, spread, spread), weight.device())
}

/// One of the two networks.
pub struct MesoNet {
    stages: Vec<Stage>,
    hidden: Linear,
    out: Linear,
}

impl MesoNet {
    /// Packs the weights.
    ///
    /// # Errors
    /// A network that is neither of the two; a tensor that is missing, does not fit or is not in
    /// the CPU's memory.
    pub fn new(network: &str, tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let plan = plan(network)
            .ok_or_else(|| tensors.unfit("conv1", &format!("`{network}` is no MesoNet")))?;
        let mut made = 0;
        let mut stages = Vec::with_capacity(plan.len());
        for (i, (plan, pool)) in plan.iter().enumerate() {
            stages.push(Stage::load(tensors, i + 1, made, plan, *pool)?);
            made += convolutions(plan).len();
        }
        let dense = |name: &str| {
            let weight = tensors.get(&format!("{name}.weight"))?;
            let bias = tensors.get(&format!("{name}.bias"))?;
            Linear::new(weight, Some(bias), Activation::None).map_err(|e| tensors.unfit(name, &e))
        };
        Ok(Self { stages, hidden: dense("dense1")?, out: dense("dense2")? })
    }

    /// The logit of each face that it is real, as in the original before its sigmoid: [n, 256, 256,
    /// 3], RGB, 0 to 1.
    ///
    /// # Errors
    /// Another shape or device.
    pub fn forward(&self, x: &Tensor) -> Result<Vec<f32>> {
        if x.dims().get(1..) != Some(&[SIDE, SIDE, 3]) {
            bail!("mesonet: expected faces of [{SIDE}, {SIDE}, 3], got {:?}", x.dims());
        }
        in_groups(x, GROUP, |x| (0..x.dim(0)?).map(|i| self.face(&x.narrow(0, i, 1)?)).collect())
    }

    fn face(&self, x: &Tensor) -> Result<f32> {
        let mut x = x.clone();
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        let hidden = self.hidden.forward(&x.reshape((1, ()))?)?;
        let leaky = |v: f32| if v >= 0.0 { v } else { SLOPE * v };
        let hidden: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
        let hidden: Vec<f32> = hidden.into_iter().map(leaky).collect();
        let hidden = Tensor::from_vec(hidden, (1, HIDDEN), &Device::Cpu)?;
        self.out.forward(&hidden)?.flatten_all()?.get(0)?.to_scalar()
    }
}
