//! Silero VAD, a voice activity detector.
//!
//! Silero Team: "Silero VAD: pre-trained enterprise-grade Voice Activity Detector",
//! <https://github.com/snakers4/silero-vad>. Weights: version 6.2.3, 16 kHz, MIT, converted by
//! `scripts/weights/convert_third_party.py`.

use candle_core::{Device, Result, Tensor, bail};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{Activation, Conv2d, ConvConfig, Linear, Padding, sigmoid};

/// Its name in the manifest.
pub const NETWORK: &str = "silero-vad";
/// Samples that one probability is for: 32 ms at 16 kHz.
pub const CHUNK: usize = 512;

/// Samples before a chunk that the network sees too.
const CONTEXT: usize = 64;
/// Mirrored samples behind a chunk.
const MIRRORED: usize = 64;
const SEEN: usize = CONTEXT + CHUNK + MIRRORED;
const FFT: usize = 256;
const HOP: usize = 128;
const BINS: usize = FFT / 2 + 1;
const HIDDEN: usize = 128;
/// Chunks that the convolutions take together; bounds the memory of a long call.
const BATCH: usize = 256;
/// Name, input and output channels, stride.
const ENCODER: [(&str, usize, usize, usize); 4] =
    [("conv1", BINS, 128, 1), ("conv2", 128, 64, 2), ("conv3", 64, 64, 2), ("conv4", 64, 128, 1)];

/// The network.
pub struct SileroVad {
    stft: Conv2d,
    encoder: Vec<Conv2d>,
    /// The part of the LSTM's gates that comes from the input, with both biases.
    gates: Linear,
    /// From the hidden state to the gates, [from][to].
    recurrent: Vec<f32>,
    output: Vec<f32>,
    output_bias: f32,
    device: Device,
}

/// Where a stream is: what the network remembers, and samples that wait for their chunk to fill.
#[derive(Debug, Clone)]
pub struct VadState {
    hidden: [f32; HIDDEN],
    cell: [f32; HIDDEN],
    /// The last samples before `pending`.
    context: [f32; CONTEXT],
    pending: Vec<f32>,
}

impl Default for VadState {
    fn default() -> Self {
        Self {
            hidden: [0.0; HIDDEN],
            cell: [0.0; HIDDEN],
            context: [0.0; CONTEXT],
            pending: Vec::new(),
        }
    }
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = vec![("stft_conv.weight".to_owned(), vec![2 * BINS, 1, FFT])];
    for (name, from, to, _) in ENCODER {
        shapes.push((format!("{name}.weight"), vec![to, from, 3]));
        shapes.push((format!("{name}.bias"), vec![to]));
    }
    for side in ["ih", "hh"] {
        shapes.push((format!("lstm_cell.weight_{side}"), vec![4 * HIDDEN, HIDDEN]));
        shapes.push((format!("lstm_cell.bias_{side}"), vec![4 * HIDDEN]));
    }
    shapes.push(("final_conv.weight".to_owned(), vec![1, HIDDEN, 1]));
    shapes.push(("final_conv.bias".to_owned(), vec![1]));
    shapes
}

impl SileroVad {
    /// Packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let values = |name: &str| {
            let flat = tensors.get(name)?.flatten_all().and_then(|t| t.to_vec1::<f32>());
            flat.map_err(|e| tensors.unfit(name, &e))
        };
        // 1-D convolutions are 2-D ones over pictures of height 1.
        let flat_conv = |name: &str, bias: bool, config: ConvConfig| {
            let weight_name = format!("{name}.weight");
            let weight = tensors.get(&weight_name)?;
            let bias = if bias { Some(tensors.get(&format!("{name}.bias"))?) } else { None };
            weight
                .unsqueeze(2)
                .and_then(|w| Conv2d::new(&w, bias, config))
                .map_err(|e| tensors.unfit(&weight_name, &e))
        };
        let stft = ConvConfig { stride: (1, HOP), ..ConvConfig::default() };
        let encoder = ENCODER.iter().map(|(name, _, _, stride)| {
            let config = ConvConfig {
                stride: (1, *stride),
                padding: Padding { left: 1, right: 1, ..Padding::default() },
                groups: 1,
                activation: Activation::Relu,
                ..ConvConfig::default()
            };
            flat_conv(name, true, config)
        });
        let gates = tensors
            .get("lstm_cell.bias_ih")?
            .add(tensors.get("lstm_cell.bias_hh")?)
            .and_then(|bias| {
                let weight =
                    tensors.get("lstm_cell.weight_ih").map_err(candle_core::Error::wrap)?;
                Linear::new(weight, Some(&bias), Activation::None)
            })
            .map_err(|e| tensors.unfit("lstm_cell.weight_ih", &e))?;
        let name = "lstm_cell.weight_hh";
        let recurrent = tensors
            .get(name)?
            .t()
            .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
            .map_err(|e| tensors.unfit(name, &e))?;
        let output = values("final_conv.weight")?;
        let output_bias = values("final_conv.bias")?.iter().sum();
        Ok(Self {
            stft: flat_conv("stft_conv", false, stft)?,
            encoder: encoder.collect::<std::result::Result<_, _>>()?,
            gates,
            recurrent,
            output,
            output_bias,
            device: tensors.get("stft_conv.weight")?.device().clone(),
        })
    }

    /// The probability of speech, 0..=1, in each chunk of 512 samples that `samples` (16 kHz mono,
    /// -1..1) completes. How a stream is cut into calls changes nothing.
    ///
    /// # Errors
    /// None for finite memory; candle's errors are passed on.
    pub fn forward(&self, samples: &[f32], state: &mut VadState) -> Result<Vec<f32>> {
        // Context, what waited, what is new: one run of samples.
        let mut run = Vec::with_capacity(CONTEXT + state.pending.len() + samples.len());
        run.extend_from_slice(&state.context);
        run.extend_from_slice(&state.pending);
        run.extend_from_slice(samples);
        let chunks = (run.len() - CONTEXT) / CHUNK;
        let mut probabilities = Vec::with_capacity(chunks);
        for first in (0..chunks).step_by(BATCH) {
            let gates = self.encode(&run, first..(first + BATCH).min(chunks))?;
            for gates in gates.chunks_exact(4 * HIDDEN) {
                probabilities.push(self.step(gates, state));
            }
        }
        let (done, pending) = run.split_at(CONTEXT + chunks * CHUNK);
        if let Some(context) = done.last_chunk() {
            state.context = *context;
        }
        state.pending = pending.to_vec();
        Ok(probabilities)
    }

    /// Ends a stream: the probability of a last, incomplete chunk, filled up with zeros. The state
    /// is then that of a new stream.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn finish(&self, state: &mut VadState) -> Result<Option<f32>> {
        let missing = (CHUNK - state.pending.len()) % CHUNK;
        let last = self.forward(&vec![0.0; missing], state)?.pop();
        *state = VadState::default();
        Ok(last)
    }

    /// What the encoder says of some chunks of `run`, as gate inputs: [chunks * 512].
    fn encode(&self, run: &[f32], chunks: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let n = chunks.len();
        let mut seen = Vec::with_capacity(n * SEEN);
        for chunk in chunks {
            let from = chunk * CHUNK;
            let Some(part) = run.get(from..from + CONTEXT + CHUNK) else {
                bail!("silero-vad: chunk {chunk} is not within the samples");
            };
            seen.extend_from_slice(part);
            // Mirrored around the last sample, which is not repeated.
            seen.extend(part.iter().rev().skip(1).take(MIRRORED));
        }
        let frames = (SEEN - FFT) / HOP + 1;
        let spectrum =
            self.stft.forward(&Tensor::from_vec(seen, (n, 1, SEEN, 1), &self.device)?)?;
        let spectrum = spectrum.flatten_all()?.to_vec1::<f32>()?;
        let mut magnitude = Vec::with_capacity(n * frames * BINS);
        for frame in spectrum.chunks_exact(2 * BINS) {
            let (re, im) = frame.split_at(BINS);
            magnitude.extend(re.iter().zip(im).map(|(re, im)| (re * re + im * im).sqrt()));
        }
        let mut x = Tensor::from_vec(magnitude, (n, 1, frames, BINS), &self.device)?;
        for conv in &self.encoder {
            x = conv.forward(&x)?;
        }
        self.gates.forward(&x.reshape((n, HIDDEN))?)?.flatten_all()?.to_vec1()
    }

    /// One step of the LSTM (gates in the order input, forget, cell, output) and of the output.
    fn step(&self, from_input: &[f32], state: &mut VadState) -> f32 {
        let mut gates = [0.0f32; 4 * HIDDEN];
        gates.copy_from_slice(from_input);
        for (h, weights) in state.hidden.iter().zip(self.recurrent.chunks_exact(4 * HIDDEN)) {
            for (gate, w) in gates.iter_mut().zip(weights) {
                *gate += h * w;
            }
        }
        let mut sum = self.output_bias;
        for i in 0..HIDDEN {
            let cell = sigmoid(gates[HIDDEN + i]) * state.cell[i]
                + sigmoid(gates[i]) * gates[2 * HIDDEN + i].tanh();
            let hidden = sigmoid(gates[3 * HIDDEN + i]) * cell.tanh();
            state.cell[i] = cell;
            state.hidden[i] = hidden;
            sum += hidden.max(0.0) * self.output[i];
        }
        sigmoid(sum)
    }
}
