//! EfficientNet-Lite0 with two outputs: the logit that a face crop is forged, and where.
//!
//! Tan, Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
//! in the Lite form (ReLU6, no squeeze and excitation). Weights: ours, trained by
//! `scripts/train/face_swap` from ImageNet weights.

use candle_core::{DType, Result, Tensor, bail};

use super::inverted_residual::{BlockSpec, ConvBn};
use super::weights::{Tensors, WeightsError};
use super::{FaceOutput, Shapes, conv, domain};
use crate::nn::{
    Activation, Conv2d, ConvConfig, Linear, Padding, Separable, global_avg_pool, in_groups,
    mean_std_pool,
};

/// Its name in the manifest.
pub const NETWORK: &str = "efficientnet-lite0";
/// Height and width of the input.
pub const SIZE: usize = 144;
/// What is subtracted from R, G and B in 0..1.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// What they are then divided by.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Inputs that go through all layers together.
const GROUP: usize = 4;
const BN_EPS: f64 = 1e-3;
const STEM: usize = 32;
const HEAD: usize = 1280;
/// The block that the mask is read off: the last at `CELLS` x `CELLS`.
const MASK_AT: usize = 10;
/// Side of the grid of cells of the mask.
pub const CELLS: usize = 9;
const MASK_HIDDEN: usize = 32;
/// The blocks whose outputs' means and deviations are the features; how strange a crop looks shows
/// there better than at the end (`docs/models/face-swap.md`).
const FEATURES_AT: [usize; 3] = [4, 7, MASK_AT];
/// Mean and deviation of 40, 80 and 112 channels.
const FEATURES: usize = 2 * (40 + 80 + 112);
const FEATURES_EPS: f32 = 1e-5;
/// Blocks, kernel, stride of the first, expansion, output channels.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

/// The network.
pub struct EfficientNetLite {
    stem: Conv2d,
    blocks: Vec<Separable>,
    head: Conv2d,
    classifier: Linear,
    mask: Conv2d,
    mask_out: Conv2d,
    /// What each cell's logit begins from: [CELLS * CELLS].
    mask_prior: Vec<f32>,
}

const fn stem() -> ConvBn {
    ConvBn {
        inputs: 3,
        outputs: STEM,
        kernel: 3,
        stride: 2,
        depthwise: false,
        activation: Activation::Relu6,
    }
}

fn blocks() -> (Vec<BlockSpec>, usize) {
    let (mut specs, mut inputs) = (Vec::new(), STEM);
    for (count, kernel, first_stride, expansion, outputs) in STAGES {
        for i in 0..count {
            specs.push(BlockSpec {
                inputs,
                inner: inputs * expansion,
                outputs,
                kernel,
                stride: if i == 0 { first_stride } else { 1 },
                activation: Activation::Relu6,
                depthwise_name: "depthwise",
            });
            inputs = outputs;
        }
    }
    (specs, inputs)
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    stem().shapes("stem", &mut shapes);
    let (specs, last) = blocks();
    for (i, spec) in specs.iter().enumerate() {
        spec.shapes(&format!("blocks.{i}"), &mut shapes);
    }
    ConvBn::pointwise(last, HEAD, Activation::Relu6).shapes("head", &mut shapes);
    shapes.push(("classifier.weight".to_owned(), vec![1, HEAD]));
    shapes.push(("classifier.bias".to_owned(), vec![1]));
    let inputs = specs.get(MASK_AT).map_or(0, |spec| spec.outputs);
    shapes.push(("mask.conv.weight".to_owned(), vec![MASK_HIDDEN, inputs, 3, 3]));
    shapes.push(("mask.conv.bias".to_owned(), vec![MASK_HIDDEN]));
    shapes.push(("mask.out.weight".to_owned(), vec![1, MASK_HIDDEN, 1, 1]));
    shapes.push(("mask.out.bias".to_owned(), vec![1]));
    shapes.push(("mask.prior".to_owned(), vec![CELLS, CELLS]));
    shapes.extend(domain::shapes(FEATURES));
    shapes
}

impl EfficientNetLite {
    /// Folds the batch norms and packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let (specs, last) = blocks();
        let weight = tensors.get("classifier.weight")?;
        let bias = tensors.get("classifier.bias")?;
        Ok(Self {
            stem: stem().load(tensors, "stem", BN_EPS)?,
            blocks: specs
                .iter()
                .enumerate()
                .map(|(i, spec)| spec.load(tensors, &format!("blocks.{i}"), BN_EPS))
                .collect::<std::result::Result<_, _>>()?,
            head: ConvBn::pointwise(last, HEAD, Activation::Relu6).load(tensors, "head", BN_EPS)?,
            classifier: Linear::new(weight, Some(bias), Activation::None)
                .map_err(|e| tensors.unfit("classifier.weight", &e))?,
            mask: conv(
                tensors,
                "mask.conv",
                ConvConfig {
                    padding: Padding::all(1),
                    activation: Activation::Relu,
                    ..ConvConfig::default()
                },
            )?,
            mask_out: conv(tensors, "mask.out", ConvConfig::default())?,
            mask_prior: tensors
                .get("mask.prior")?
                .flatten_all()
                .and_then(|t| t.to_vec1())
                .map_err(|e| tensors.unfit("mask.prior", &e))?,
        })
    }

    /// `x`: [n, 144, 144, 3], f32, RGB, `(x / 255 - MEAN) / STD`. Features are the
    /// means of block 4's, 7's and 10's channels and their deviations: each block's means, then its
    /// deviations.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<FaceOutput> {
        match *x.dims() {
            [_, SIZE, SIZE, 3] => {}
            ref other => {
                bail!("efficientnet-lite0: expected [n, {SIZE}, {SIZE}, 3], got {other:?}")
            }
        }
        let crops = in_groups(x, GROUP, |x| {
            let mut y = self.stem.forward(x)?;
            let mut cells = Vec::new();
            let mut features = Vec::with_capacity(FEATURES_AT.len());
            for (at, block) in self.blocks.iter().enumerate() {
                y = block.forward(&y)?;
                if FEATURES_AT.contains(&at) {
                    features.push(mean_std_pool(&y, FEATURES_EPS)?);
                }
                if at == MASK_AT {
                    cells = self.cells(&y)?;
                }
            }
            let pooled = global_avg_pool(&self.head.forward(&y)?)?;
            let logits: Vec<f32> = self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()?;
            let features = Tensor::cat(&features, 1)?.to_dtype(DType::F32)?;
            let features: Vec<Vec<f32>> = features.to_vec2()?;
            Ok(logits.into_iter().zip(cells).zip(features).collect())
        })?;
        let mut output = FaceOutput { side: CELLS, ..FaceOutput::default() };
        for ((logit, cells), features) in crops {
            output.logits.push(logit);
            output.cells.push(cells.into_iter().map(|cell| both(logit, cell)).collect());
            output.features.push(features);
        }
        Ok(output)
    }

    /// The logits that cells were altered if the face was forged, from what block `MASK_AT` gave.
    fn cells(&self, y: &Tensor) -> Result<Vec<Vec<f32>>> {
        let logits = self.mask_out.forward(&self.mask.forward(y)?)?;
        let logits = logits.flatten_from(1)?.to_dtype(DType::F32)?;
        let mut cells: Vec<Vec<f32>> = logits.to_vec2()?;
        for (cell, prior) in cells.iter_mut().flat_map(|crop| crop.iter_mut().zip(&self.mask_prior))
        {
            *cell += prior;
        }
        Ok(cells)
    }
}

/// The logit of `sigmoid(a) * sigmoid(b)`.
fn both(a: f32, b: f32) -> f32 {
    // log(1 + exp(-x)) without overflow.
    let softplus = |x: f32| (-x).max(0.0) + (-x.abs()).exp().ln_1p();
    let s = softplus(a) + softplus(b);
    // From 40 on the product and its logit's exponential are the same number.
    if s > 40.0 { -s } else { -s.exp_m1().ln() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::sigmoid;

    #[test]
    fn two_probabilities_are_multiplied() {
        for (a, b) in [(0.0, 0.0), (2.0, -1.0), (-3.0, 4.0), (-8.0, -5.0)] {
            assert!((sigmoid(both(a, b)) - sigmoid(a) * sigmoid(b)).abs() < 1e-6, "{a} {b}");
        }
        assert!((both(50.0, 3.0) - 3.0).abs() < 1e-4);
        assert!((both(-200.0, 2.0) + 200.0).abs() < 1.0);
        assert!((both(-30.0, -20.0) + 50.0).abs() < 1e-3);
    }
}
