//! The light voice-clone network: inverted residual blocks over a spectrogram, then mean and
//! standard deviation over all positions.
//!
//! Blocks after Sandler et al.: "MobileNetV2", CVPR 2018; pooling after Snyder et al.: "X-Vectors:
//! Robust DNN Embeddings for Speaker Recognition", ICASSP 2018. Weights: ours, trained by
//! `scripts/train/voice_clone`. The spectrogram is that of [`crate::speech::features`].

use candle_core::{Device, Result, Tensor, bail};

use super::Shapes;
use super::inverted_residual::{BlockSpec, ConvBn};
use super::weights::{Tensors, WeightsError};
use crate::nn::{Activation, Conv2d, Linear, Separable, in_groups, mean_std_pool};
use crate::speech::features::{BANDS, FRAMES, Features};

/// Its name in the manifest.
pub const NETWORK: &str = "voice-cnn";

/// Inputs that go through all layers together.
const GROUP: usize = 1;
const BN_EPS: f64 = 1e-5;
const POOL_EPS: f32 = 1e-5;
const STEM: usize = 16;
const HEAD: usize = 256;
/// Inner channels, output channels, stride.
const BLOCKS: [(usize, usize, usize); 8] = [
    (16, 24, 2),
    (48, 24, 1),
    (48, 40, 2),
    (80, 40, 1),
    (80, 40, 1),
    (160, 112, 2),
    (224, 112, 1),
    (224, 112, 1),
];
/// Windows whose spectrograms are in memory together.
const BATCH: usize = 32;

/// The network with its front end.
pub struct VoiceCnn {
    features: Features,
    stem: Conv2d,
    blocks: Vec<Separable>,
    head: Conv2d,
    classifier: Linear,
    device: Device,
}

const fn stem() -> ConvBn {
    ConvBn {
        inputs: 1,
        outputs: STEM,
        kernel: 3,
        stride: 2,
        depthwise: false,
        activation: Activation::Relu,
    }
}

fn blocks() -> (Vec<BlockSpec>, usize) {
    let (mut specs, mut inputs) = (Vec::new(), STEM);
    for (inner, outputs, stride) in BLOCKS {
        specs.push(BlockSpec {
            inputs,
            inner,
            outputs,
            kernel: 3,
            stride,
            activation: Activation::Relu,
            depthwise_name: "dw",
        });
        inputs = outputs;
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
    ConvBn::pointwise(last, HEAD, Activation::Relu).shapes("head", &mut shapes);
    shapes.push(("classifier.weight".to_owned(), vec![1, 2 * HEAD]));
    shapes.push(("classifier.bias".to_owned(), vec![1]));
    shapes
}

impl VoiceCnn {
    /// Folds the batch norms and packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let (specs, last) = blocks();
        let weight = tensors.get("classifier.weight")?;
        let bias = tensors.get("classifier.bias")?;
        Ok(Self {
            features: Features::new(),
            stem: stem().load(tensors, "stem", BN_EPS)?,
            blocks: specs
                .iter()
                .enumerate()
                .map(|(i, spec)| spec.load(tensors, &format!("blocks.{i}"), BN_EPS))
                .collect::<std::result::Result<_, _>>()?,
            head: ConvBn::pointwise(last, HEAD, Activation::Relu).load(tensors, "head", BN_EPS)?,
            classifier: Linear::new(weight, Some(bias), Activation::None)
                .map_err(|e| tensors.unfit("classifier.weight", &e))?,
            device: weight.device().clone(),
        })
    }

    /// One logit a window, higher = fake. A window is 64,000 samples (4 s at 16 kHz, mono, any
    /// level).
    ///
    /// # Errors
    /// A window of another length.
    pub fn forward(&self, windows: &[&[f32]]) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(windows.len());
        for windows in windows.chunks(BATCH) {
            let features = self.features.batch(windows).map_err(candle_core::Error::wrap)?;
            let shape = (windows.len(), BANDS, FRAMES, 1);
            logits.extend(self.forward_features(&Tensor::from_vec(
                features,
                shape,
                &self.device,
            )?)?);
        }
        Ok(logits)
    }

    /// The network alone: [n, 112 bands, 318 frames, 1] → n logits.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward_features(&self, x: &Tensor) -> Result<Vec<f32>> {
        match *x.dims() {
            [_, BANDS, FRAMES, 1] => {}
            ref other => bail!("voice-cnn: expected [n, {BANDS}, {FRAMES}, 1], got {other:?}"),
        }
        in_groups(x, GROUP, |x| {
            let mut y = self.stem.forward(x)?;
            for block in &self.blocks {
                y = block.forward(&y)?;
            }
            let pooled = mean_std_pool(&self.head.forward(&y)?, POOL_EPS)?;
            self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()
        })
    }
}
