//! Tells voices apart: some seconds of speech become a vector that lies near those of the same
//! speaker.
//!
//! Wan et al.: "Generalized End-to-End Loss for Speaker Verification", ICASSP 2018: three LSTM
//! layers over a mel spectrogram, the last hidden state through a linear layer. Weights: those of
//! Resemblyzer 0.1.4 (Apache-2.0), converted by `scripts/weights/convert_speaker.py`. The
//! spectrogram is that of [`crate::speech::mel`].

use candle_core::{Device, Result, Tensor, bail};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{Activation, Conv2d, ConvConfig, Linear, in_groups};
use crate::speech::mel::{BANDS, MelSpectrogram};

/// Its name in the manifest.
pub const NETWORK: &str = "ge2e-lstm";

/// Values in an embedding.
pub const EMBEDDING: usize = 256;
const HIDDEN: usize = 256;
const LAYERS: usize = 3;
/// The four gates in PyTorch's order: input, forget, cell, output.
const GATES: usize = 4 * HIDDEN;
/// Windows that go through all layers together on one thread: the weights are read once a time
/// step for all of them.
const GROUP: usize = 8;

/// A voice as a vector of length 1; the product of two says how alike they are, 0 to 1.
pub type Embedding = [f32; EMBEDDING];

/// The network with its front end.
pub struct SpeakerEncoder {
    mel: MelSpectrogram,
    layers: Vec<Lstm>,
    output: Linear,
    device: Device,
}

/// All gates come through one sigmoid: `tanh(x) = 2 sigmoid(2 x) - 1`, and the weights of the cell
/// gate are doubled when they are loaded, which is exact.
struct Lstm {
    /// From the layer below to the gates, with both biases.
    input: Linear,
    /// From the hidden state to the gates; takes what comes from below as its residual.
    recurrent: Conv2d,
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    for layer in 0..LAYERS {
        let inputs = if layer == 0 { BANDS } else { HIDDEN };
        shapes.push((format!("lstm.{layer}.input.weight"), vec![GATES, inputs]));
        shapes.push((format!("lstm.{layer}.input.bias"), vec![GATES]));
        shapes.push((format!("lstm.{layer}.recurrent.weight"), vec![GATES, HIDDEN]));
    }
    shapes.push(("output.weight".to_owned(), vec![EMBEDDING, HIDDEN]));
    shapes.push(("output.bias".to_owned(), vec![EMBEDDING]));
    shapes
}

/// Doubles the rows of the cell gate.
fn doubled(gates: &Tensor) -> Result<Tensor> {
    let rows = |from: usize, n: usize| gates.narrow(0, from * HIDDEN, n * HIDDEN);
    Tensor::cat(&[&rows(0, 2)?, &(rows(2, 1)? * 2.0)?, &rows(3, 1)?], 0)
}

impl Lstm {
    fn new(tensors: &Tensors, layer: usize) -> std::result::Result<Self, WeightsError> {
        let gates = |part: &str| {
            let name = format!("lstm.{layer}.{part}");
            doubled(tensors.get(&name)?).map_err(|e| tensors.unfit(&name, &e))
        };
        let (input, bias) = (gates("input.weight")?, gates("input.bias")?);
        let recurrent = gates("recurrent.weight")?;
        let precision = tensors.precision();
        let config =
            ConvConfig { activation: Activation::Sigmoid, precision, ..ConvConfig::default() };
        Linear::with_precision(&input, Some(&bias), Activation::None, precision)
            .and_then(|input| {
                let recurrent =
                    Conv2d::new(&recurrent.reshape((GATES, HIDDEN, 1, 1))?, None, config)?;
                Ok(Self { input, recurrent })
            })
            .map_err(|e| tensors.unfit(&format!("lstm.{layer}"), &e))
    }

    /// [time * n, inputs] → [time * n, 256].
    fn forward(&self, x: &Tensor, n: usize) -> Result<Tensor> {
        let time = x.dim(0)? / n;
        let from_below = self.input.forward(x)?.reshape((time, n, 1, 1, GATES))?;
        let mut hidden = vec![0.0f32; n * HIDDEN];
        let mut cell = hidden.clone();
        let mut all = Vec::with_capacity(time * hidden.len());
        for t in 0..time {
            let before = Tensor::from_slice(&hidden, (n, 1, 1, HIDDEN), x.device())?;
            let gates = self.recurrent.forward_add(&before, &from_below.get(t)?)?;
            let gates = gates.flatten_all()?.to_vec1::<f32>()?;
            let states = hidden.chunks_exact_mut(HIDDEN).zip(cell.chunks_exact_mut(HIDDEN));
            for ((hidden, cell), gates) in states.zip(gates.chunks_exact(GATES)) {
                let (input, rest) = gates.split_at(HIDDEN);
                let (forget, rest) = rest.split_at(HIDDEN);
                let (new, output) = rest.split_at(HIDDEN);
                let gates = input.iter().zip(forget).zip(new).zip(output);
                for ((h, c), (((i, f), n), o)) in hidden.iter_mut().zip(cell).zip(gates) {
                    *c = f * *c + i * (2.0 * n - 1.0);
                    *h = o * c.tanh();
                }
            }
            all.extend_from_slice(&hidden);
        }
        Tensor::from_vec(all, (time * n, HIDDEN), x.device())
    }
}

impl SpeakerEncoder {
    /// Packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let weight = tensors.get("output.weight")?;
        Ok(Self {
            mel: MelSpectrogram::new(),
            layers: (0..LAYERS)
                .map(|layer| Lstm::new(tensors, layer))
                .collect::<std::result::Result<_, _>>()?,
            output: Linear::new(weight, Some(tensors.get("output.bias")?), Activation::Relu)
                .map_err(|e| tensors.unfit("output.weight", &e))?,
            device: weight.device().clone(),
        })
    }

    /// The embedding of each window: 16 kHz mono, any level, all of one length; 1.6 s is what the
    /// network was trained on. An embedding does not depend on the other windows.
    ///
    /// # Errors
    /// Windows of several lengths.
    pub fn forward(&self, windows: &[&[f32]]) -> Result<Vec<Embedding>> {
        let Some(first) = windows.first() else { return Ok(Vec::new()) };
        if let Some(odd) = windows.iter().find(|w| w.len() != first.len()) {
            bail!("{NETWORK}: windows of {} and of {} samples", first.len(), odd.len());
        }
        let mel = self.mel.batch(windows).map_err(candle_core::Error::wrap)?;
        let frames = mel.len() / (windows.len() * BANDS);
        self.forward_mel(&Tensor::from_vec(mel, (windows.len(), frames, BANDS), &self.device)?)
    }

    /// The network alone: [n, frames, 40 bands] → n embeddings.
    ///
    /// # Errors
    /// Another shape or type, or no frame.
    pub fn forward_mel(&self, x: &Tensor) -> Result<Vec<Embedding>> {
        let frames = match *x.dims() {
            [_, frames, BANDS] if frames > 0 => frames,
            ref other => bail!("{NETWORK}: expected [n, frames, {BANDS}], got {other:?}"),
        };
        in_groups(x, GROUP, |x| {
            let n = x.dim(0)?;
            // Time first, so that a step's windows lie side by side.
            let mut y = x.transpose(0, 1)?.contiguous()?.reshape((frames * n, BANDS))?;
            for layer in &self.layers {
                y = layer.forward(&y, n)?;
            }
            let last = y.narrow(0, (frames - 1) * n, n)?;
            let values = self.output.forward(&last)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.as_chunks::<EMBEDDING>().0.iter().map(|e| unit(*e)).collect())
        })
    }
}

/// Of length 1, where there is anything.
fn unit(mut e: Embedding) -> Embedding {
    let length = e.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    e.iter_mut().for_each(|v| *v /= length);
    e
}
