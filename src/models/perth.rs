//! The detector of PerTh, the watermark that Resemble AI's programs (Chatterbox and others) put into
//! every sound they make: from a stretch of sound how surely it carries the mark.
//!
//! Method and weights: Resemble AI, package resemble-perth 1.0.1 (MIT), which publishes no paper; the
//! mark lies in the magnitudes below 2 kHz, hidden by psychoacoustic masking. The weights do not
//! ship (`scripts/setup` installs them). The arithmetic is that of the package's `get_watermark`: sound at
//! 32 kHz, decibels of a short-time Fourier transform, convolutions over time, means over all frames
//! that are not silent, and a softmax between three branches, of which two see the sound stretched
//! to 1.25 and 0.75 of its length.
//!
//! In the published weights those two branches are dead: over noise, silence, tones, music and
//! speech, marked or not, their means stayed the same to 3e-4. So here they are numbers, and one
//! branch is computed.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{Conv2d, ConvConfig, Padding};

/// Its name in the manifest.
pub const NETWORK: &str = "perth";
/// The fewest samples that it takes: 0.1 s.
pub const SHORTEST: usize = 1_600;

/// What the dead branches answer: how much each counts, and what it says.
const DEAD: [[f64; 2]; 2] = [[-0.044_75, 0.062_02], [-0.079_21, 0.036_98]];
/// The outer two are pointwise.
const LAYERS: usize = 7;
const KERNEL: usize = 7;
const WIDTH: usize = 256;
/// Slope below zero.
const LEAK: f64 = 0.01;

/// Samples of a frame at 32 kHz, and from one to the next.
const FFT: usize = 2_048;
const HOP: usize = 320;
/// Bins that the network sees: up to 2 kHz.
const BINS: usize = 128;
/// The least magnitude, and the decibels that become 1 (0 are those of the least).
const LEAST: f32 = 1e-9;
const LEAST_DB: f32 = -180.0;
const MOST_DB: f32 = 15.0;
/// Frames count whose sum over all bins is above this share of the loudest frame's.
const SILENT: f32 = 0.05;
/// Taps of the filter that doubles the rate, on each side of its middle.
const HALF: usize = 20;

/// The detector with its front end.
pub struct Perth {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Periodic Hann window.
    hann: Vec<f32>,
    filter: [f32; 2 * HALF + 1],
    layers: Vec<Conv2d>,
    device: Device,
}

/// Inputs, outputs and kernel of a layer.
fn layer(i: usize) -> (usize, usize, usize) {
    match i {
        0 => (BINS, WIDTH, 1),
        _ if i == LAYERS - 1 => (WIDTH, 2, 1),
        _ => (WIDTH, WIDTH, KERNEL),
    }
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    for i in 0..LAYERS {
        let (inputs, outputs, kernel) = layer(i);
        shapes.push((format!("{i}.weight"), vec![outputs, inputs, kernel]));
        shapes.push((format!("{i}.bias"), vec![outputs]));
    }
    shapes
}

fn conv(tensors: &Tensors, i: usize) -> std::result::Result<Conv2d, WeightsError> {
    let (inputs, outputs, kernel) = layer(i);
    let padding = Padding { left: kernel / 2, right: kernel / 2, ..Padding::default() };
    let bias = tensors.get(&format!("{i}.bias"))?;
    tensors
        .get(&format!("{i}.weight"))?
        .reshape((outputs, inputs, 1, kernel))
        .and_then(|w| Conv2d::new(&w, Some(bias), ConvConfig { padding, ..ConvConfig::default() }))
        .map_err(|e| tensors.unfit(&format!("{i}.weight"), &e))
}

/// The modified Bessel function of the first kind, order 0.
fn bessel(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..50 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

/// A half-band low pass: a sinc in a Kaiser window of beta 5, as `scipy.signal.resample_poly` has it
/// for a rate that doubles; its sum is 2.
fn doubling_filter() -> [f32; 2 * HALF + 1] {
    let taps: [f64; 2 * HALF + 1] = std::array::from_fn(|k| {
        let m = k as f64 - HALF as f64;
        let sinc = if m == 0.0 { 1.0 } else { (PI * m / 2.0).sin() / (PI * m / 2.0) };
        sinc * bessel(5.0 * (1.0 - (m / HALF as f64).powi(2)).max(0.0).sqrt())
    });
    let sum: f64 = taps.iter().sum();
    taps.map(|tap| (2.0 * tap / sum) as f32)
}

/// Decibels in the bins that the network sees, frame by frame, and which frames are not silent.
struct Spectrum {
    values: Vec<f32>,
    heard: Vec<bool>,
}

impl Perth {
    /// Packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let turn = |n: usize| (TAU * n as f64 / FFT as f64).cos();
        Ok(Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            hann: (0..FFT).map(|n| (0.5 - 0.5 * turn(n)) as f32).collect(),
            filter: doubling_filter(),
            layers: (0..LAYERS).map(|i| conv(tensors, i)).collect::<std::result::Result<_, _>>()?,
            device: tensors.get("0.weight")?.device().clone(),
        })
    }

    /// How surely each stretch of sound (16 kHz, mono, at least [`SHORTEST`] samples) carries the
    /// mark, from about 0 to about 1 (the package cuts off what lies beyond); none where all of it is
    /// digital silence. A stretch's answer does not depend on the others.
    ///
    /// # Errors
    /// A shorter stretch.
    pub fn forward(&self, stretches: &[&[f32]]) -> Result<Vec<Option<f32>>> {
        stretches.iter().map(|samples| self.stretch(samples)).collect()
    }

    fn stretch(&self, samples: &[f32]) -> Result<Option<f32>> {
        if samples.len() < SHORTEST {
            bail!("{NETWORK}: {} samples, at least {SHORTEST} are needed", samples.len());
        }
        let Spectrum { values, heard } = self.spectrum(samples)?;
        if !heard.contains(&true) {
            return Ok(None);
        }
        let x = Tensor::from_vec(values, (1, 1, heard.len(), BINS), &self.device)?;
        let answers = self.run(x)?;
        let (mut sum, mut n) = ([0.0f64; 2], 0.0f64);
        for (answer, _) in answers.as_chunks::<2>().0.iter().zip(heard).filter(|(_, h)| *h) {
            sum[0] += f64::from(answer[0]);
            sum[1] += f64::from(answer[1]);
            n += 1.0;
        }
        let branches = [DEAD[0], sum.map(|s| s / n), DEAD[1]];
        let most = branches.iter().map(|[weight, _]| *weight).fold(f64::NEG_INFINITY, f64::max);
        let shares = branches.map(|[weight, mark]| ((weight - most).exp(), mark));
        let sure = shares.iter().map(|(share, mark)| share * mark).sum::<f64>();
        Ok(Some((sure / shares.iter().map(|(share, _)| share).sum::<f64>()) as f32))
    }

    /// Two values a frame: how much the branch counts, and what it says.
    fn run(&self, mut x: Tensor) -> Result<Vec<f32>> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            if i + 1 < LAYERS {
                x = (&x * LEAK)?.maximum(&x)?;
            }
        }
        x.flatten_all()?.to_vec1()
    }

    /// At twice the rate, as long again.
    fn doubled(&self, samples: &[f32]) -> Vec<f32> {
        let side = HALF / 2;
        let at = |i: usize| i.checked_sub(side).and_then(|i| samples.get(i)).copied();
        let mut out = Vec::with_capacity(2 * samples.len());
        for (i, v) in samples.iter().enumerate() {
            // Every other tap is zero but the middle one.
            out.push(v * self.filter[HALF]);
            let odd = (0..HALF).map(|m| self.filter[2 * m + 1] * at(i + HALF - m).unwrap_or(0.0));
            out.push(odd.sum());
        }
        out
    }

    fn spectrum(&self, samples: &[f32]) -> Result<Spectrum> {
        let wave = self.doubled(samples);
        // Mirrored at both ends, the outmost sample not repeated.
        let pad = FFT / 2;
        let before = wave[1..=pad].iter().rev();
        let behind = wave[wave.len() - 1 - pad..wave.len() - 1].iter().rev();
        let padded: Vec<f32> = before.chain(&wave).chain(behind).copied().collect();

        let mut frame = vec![0.0f32; FFT];
        let mut bins = vec![Complex::new(0.0f32, 0.0); FFT / 2 + 1];
        let mut scratch = self.fft.make_scratch_vec();
        let (mut values, mut sums) = (Vec::new(), Vec::new());
        for from in padded.windows(FFT).step_by(HOP) {
            for ((f, v), w) in frame.iter_mut().zip(from).zip(&self.hann) {
                *f = v * w;
            }
            self.fft
                .process_with_scratch(&mut frame, &mut bins, &mut scratch)
                .map_err(candle_core::Error::wrap)?;
            let mut sum = 0.0;
            for (i, bin) in bins.iter().enumerate() {
                let db = 20.0 * bin.norm().max(LEAST).log10();
                let value = (db - LEAST_DB) / (MOST_DB - LEAST_DB);
                sum += value;
                if i < BINS {
                    values.push(value);
                }
            }
            sums.push(sum);
        }
        let loudest = sums.iter().copied().fold(0.0, f32::max);
        let heard = sums.iter().map(|sum| *sum > SILENT * loudest).collect();
        Ok(Spectrum { values, heard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_that_of_scipy() {
        // scipy.signal.firwin(41, 0.5, window=("kaiser", 5.0)) * 2.
        let filter = doubling_filter();
        for (k, tap) in [(20, 1.000_517_5), (19, 0.633_400_7), (18, 0.0), (1, -0.002_102_9)] {
            assert!((filter[k] - tap).abs() < 1e-6, "{k}: {}", filter[k]);
        }
        assert!((filter.iter().sum::<f32>() - 2.0).abs() < 1e-5);
    }
}
