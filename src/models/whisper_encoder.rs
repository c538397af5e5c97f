//! The encoder of Whisper tiny, tuned lightly: from 4 s of speech the logit that the voice is made
//! by a machine, and for each 20 ms the logit that these are.
//!
//! Radford et al.: "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023 (arXiv
//! 2212.04356). Weights: the base is OpenAI's own and does not ship (`scripts/setup`
//! installs it); ours, trained by `scripts/train/voice_clone`, are what was changed: norms, biases
//! and heads whole, and a low-rank difference (Hu et al.: "LoRA", ICLR 2022) for the four matrices
//! of each block. The header of `scripts/train/voice_clone/whisper.py` says the same in other words.
//! The spectrogram is that of [`crate::speech::log_mel`].

use candle_core::{Device, Result, Tensor, bail};

use super::Shapes;
use super::tuned::{Encoder, head};
use super::weights::{Tensors, WeightsError};
use crate::nn::{
    Conv2d, ConvConfig, EncoderBlock, LayerNorm, Linear, Padding, gelu, in_groups, mean_std_pool,
};
use crate::speech::log_mel::{BANDS, FRAMES, LogMel};

/// Its name in the manifest: what was changed.
pub const NETWORK: &str = "whisper-tiny-encoder-lora";
/// The base's name in the manifest.
pub const BASE: &str = "whisper-tiny-encoder";
/// Tokens of a window, one for 20 ms.
pub const TOKENS: usize = FRAMES / 2;
/// From one token to the next.
pub const TOKEN_MS: i64 = 20;

/// Inputs that go through all layers together on one thread: all weights are read once for them.
const GROUP: usize = 2;
/// Windows whose spectrograms are in memory together.
const BATCH: usize = 32;
const WIDTH: usize = 384;
const DEPTH: usize = 4;
/// Blocks behind which the tokens go to the heads.
const TAPS: [usize; 2] = [1, 3];
const FEATURES: usize = 2 * TAPS.len() * WIDTH;
const ENCODER: Encoder = Encoder { width: WIDTH, heads: 6, eps: 1e-5, scaled: false };
const POOL_EPS: f32 = 1e-5;

/// What the network says of each window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VoiceOutput {
    /// That the voice is made by a machine, higher = fake.
    pub logits: Vec<f32>,
    /// The same of each 20 ms: [`TOKENS`] logits a window.
    pub tokens: Vec<Vec<f32>>,
    /// The 1536 values that the logit is made of.
    pub features: Vec<Vec<f32>>,
}

/// The network with its front end.
pub struct WhisperEncoder {
    log_mel: LogMel,
    conv1: Conv2d,
    conv2: Conv2d,
    /// [200, 384].
    positions: Tensor,
    blocks: Vec<EncoderBlock>,
    norms: Vec<LayerNorm>,
    classifier: Linear,
    local: Linear,
    device: Device,
}

/// Logit, tokens' logits and features of one window.
type Answer = (f32, Vec<f32>, Vec<f32>);

/// The tensors of the base's file.
pub fn base_shapes() -> Shapes {
    let mut shapes = vec![
        ("conv1.weight".to_owned(), vec![WIDTH, BANDS, 3]),
        ("conv1.bias".to_owned(), vec![WIDTH]),
        ("conv2.weight".to_owned(), vec![WIDTH, WIDTH, 3]),
        ("conv2.bias".to_owned(), vec![WIDTH]),
        ("positions".to_owned(), vec![TOKENS, WIDTH]),
        ("norm.weight".to_owned(), vec![WIDTH]),
        ("norm.bias".to_owned(), vec![WIDTH]),
    ];
    (0..DEPTH).for_each(|i| ENCODER.base_shapes(i, &mut shapes));
    shapes
}

/// The tensors of our file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    (0..DEPTH).for_each(|i| ENCODER.tuned_shapes(i, &mut shapes));
    for tap in 0..TAPS.len() {
        for part in ["weight", "bias"] {
            shapes.push((format!("norms.{tap}.{part}"), vec![WIDTH]));
        }
    }
    for (head, inputs) in [("classifier", FEATURES), ("local", TAPS.len() * WIDTH)] {
        shapes.push((format!("{head}.weight"), vec![1, inputs]));
        shapes.push((format!("{head}.bias"), vec![1]));
    }
    shapes
}

/// A convolution over time, three frames wide.
fn conv(
    base: &Tensors,
    name: &str,
    inputs: usize,
    stride: usize,
) -> std::result::Result<Conv2d, WeightsError> {
    let (weight, bias) = (base.get(&format!("{name}.weight"))?, base.get(&format!("{name}.bias"))?);
    let padding = Padding { left: 1, right: 1, ..Padding::default() };
    let config = ConvConfig { stride: (1, stride), padding, ..ConvConfig::default() };
    weight
        .reshape((WIDTH, inputs, 1, 3))
        .and_then(|weight| Conv2d::new(&weight, Some(bias), config))
        .map_err(|e| base.unfit(name, &e))
}

impl WhisperEncoder {
    /// Puts the two files together, in f32, and packs the weights. `base` are the tensors of
    /// [`base_shapes`], `ours` those of [`shapes`], whose precision counts.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(base: &Tensors, ours: &Tensors) -> std::result::Result<Self, WeightsError> {
        let positions = base.get("positions")?.clone();
        Ok(Self {
            log_mel: LogMel::new(),
            conv1: conv(base, "conv1", BANDS, 1)?,
            conv2: conv(base, "conv2", WIDTH, 2)?,
            device: positions.device().clone(),
            positions,
            blocks: (0..DEPTH)
                .map(|i| ENCODER.block(base, ours, i, true))
                .collect::<std::result::Result<_, _>>()?,
            norms: (0..TAPS.len())
                .map(|tap| ENCODER.norm(ours, &format!("norms.{tap}")))
                .collect::<std::result::Result<_, _>>()?,
            classifier: head(ours, "classifier")?,
            local: head(ours, "local")?,
        })
    }

    /// What it says of each window of 64,000 samples (4 s at 16 kHz, mono, any level).
    ///
    /// # Errors
    /// A window of another length.
    pub fn forward(&self, windows: &[&[f32]]) -> Result<VoiceOutput> {
        let mut output = VoiceOutput::default();
        for windows in windows.chunks(BATCH) {
            let features = self.log_mel.batch(windows).map_err(candle_core::Error::wrap)?;
            let shape = (windows.len(), 1, FRAMES, BANDS);
            let found = self.forward_features(&Tensor::from_vec(features, shape, &self.device)?)?;
            output.logits.extend(found.logits);
            output.tokens.extend(found.tokens);
            output.features.extend(found.features);
        }
        Ok(output)
    }

    /// The network alone, on [n, 1, 400 frames, 80 bands].
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward_features(&self, x: &Tensor) -> Result<VoiceOutput> {
        match *x.dims() {
            [_, 1, FRAMES, BANDS] => {}
            ref other => bail!("{NETWORK}: expected [n, 1, {FRAMES}, {BANDS}], got {other:?}"),
        }
        let mut output = VoiceOutput::default();
        for (logit, tokens, features) in in_groups(x, GROUP, |x| self.group(x))? {
            output.logits.push(logit);
            output.tokens.push(tokens);
            output.features.push(features);
        }
        Ok(output)
    }

    fn group(&self, x: &Tensor) -> Result<Vec<Answer>> {
        let n = x.dim(0)?;
        let x = gelu(&self.conv1.forward(x)?)?;
        let x = gelu(&self.conv2.forward(&x)?)?.reshape((n, TOKENS, WIDTH))?;
        let mut x = x.broadcast_add(&self.positions)?;
        let (mut features, mut seen) = (Vec::new(), Vec::new());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if let Some(tap) = TAPS.iter().position(|tap| *tap == i) {
                let y = self.norms[tap].forward(&x)?;
                features.push(mean_std_pool(&y.reshape((n, 1, TOKENS, WIDTH))?, POOL_EPS)?);
                seen.push(y);
            }
        }
        let features = Tensor::cat(&features, 1)?;
        let logits = self.classifier.forward(&features)?.flatten_all()?.to_vec1::<f32>()?;
        let seen = Tensor::cat(&seen, 2)?.reshape((n * TOKENS, ()))?;
        let tokens = self.local.forward(&seen)?.reshape((n, TOKENS))?.to_vec2()?;
        let features = features.to_vec2()?;
        Ok(logits
            .into_iter()
            .zip(tokens)
            .zip(features)
            .map(|((logit, tokens), features)| (logit, tokens, features))
            .collect())
    }
}
