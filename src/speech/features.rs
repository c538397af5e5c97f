//! The spectral front end of the voice-clone network: how the power in narrow bands moves around
//! its mean, so that neither level nor a fixed frequency response counts. The same as
//! `scripts/train/voice_clone/frontend.py`.

use std::f64::consts::TAU;
use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::nn::gpu::{self, features::Spectrum};

/// Samples in a window: 4 s at 16 kHz.
pub const WINDOW: usize = 64_000;
/// Bands of two FFT bins each, 125 Hz to 7,094 Hz.
pub const BANDS: usize = 112;
/// Frames in a window.
pub const FRAMES: usize = (WINDOW - FFT) / HOP + 1;

/// Also the length of the Hann window.
const FFT: usize = gpu::features::FFT;
const HOP: usize = 200;
const FIRST_BIN: usize = 4;
const TARGET_RMS: f64 = 0.05;
/// A quieter window is scaled as if it were this loud.
const MIN_RMS: f64 = 1e-5;
/// Against a band that holds next to nothing.
const BAND_FLOOR: f64 = 1e-6;
const ABS_FLOOR: f64 = 1e-9;
/// 30 dB below a band's own mean power.
const LOG_FLOOR: f32 = 1e-3;
const OFFSET: f32 = 3.0;
const SCALE: f32 = 0.5;

/// Why features cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeaturesError {
    #[error("window {index} has {found} samples, expected {WINDOW}")]
    Length { index: usize, found: usize },
    #[error("Fourier transform: {0}")]
    Fft(#[from] realfft::FftError),
}

/// The same front end as a GPU's kernels take it. Results agree to 1e-3, save in bands that hold
/// next to nothing while others are loud: there the f32 transform here shows its rounding.
pub const SPECTRUM: Spectrum = Spectrum {
    samples: WINDOW,
    hop: HOP,
    first_bin: FIRST_BIN,
    bands: BANDS,
    target_rms: TARGET_RMS,
    min_rms: MIN_RMS,
    band_floor: BAND_FLOOR,
    abs_floor: ABS_FLOOR,
    log_floor: LOG_FLOOR,
    offset: OFFSET,
    scale: SCALE,
};

/// The front end with its tables.
pub struct Features {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Periodic Hann window.
    hann: Vec<f32>,
}

impl Default for Features {
    fn default() -> Self {
        Self::new()
    }
}

impl Features {
    pub fn new() -> Self {
        let hann = (0..FFT).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FFT as f64).cos()) as f32);
        Self { fft: RealFftPlanner::new().plan_fft_forward(FFT), hann: hann.collect() }
    }

    /// Features of some windows of [`WINDOW`] samples, one after the other, each
    /// [`BANDS`] × [`FRAMES`], lowest band first. A window's features do not depend on the others.
    ///
    /// # Errors
    /// A window of another length.
    pub fn batch(&self, windows: &[&[f32]]) -> Result<Vec<f32>, FeaturesError> {
        if let Some(index) = windows.iter().position(|w| w.len() != WINDOW) {
            return Err(FeaturesError::Length { index, found: windows[index].len() });
        }
        let mut features = vec![0.0; windows.len() * BANDS * FRAMES];
        features
            .par_chunks_mut(BANDS * FRAMES)
            .zip(windows)
            .try_for_each(|(features, window)| self.window(window, features))?;
        Ok(features)
    }

    fn window(&self, samples: &[f32], features: &mut [f32]) -> Result<(), FeaturesError> {
        let wave = levelled(samples);
        let mut frame = vec![0.0f32; FFT];
        let mut spectrum = vec![Complex::new(0.0f32, 0.0); FFT / 2 + 1];
        let mut scratch = self.fft.make_scratch_vec();
        for t in 0..FRAMES {
            let from = &wave[t * HOP..t * HOP + FFT];
            for ((f, v), w) in frame.iter_mut().zip(from).zip(&self.hann) {
                *f = v * w;
            }
            self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
            let bins = &spectrum[FIRST_BIN..FIRST_BIN + 2 * BANDS];
            for (band, [a, b]) in bins.as_chunks::<2>().0.iter().enumerate() {
                features[band * FRAMES + t] = a.norm_sqr() + b.norm_sqr();
            }
        }

        let means: Vec<f64> = features
            .chunks(FRAMES)
            .map(|band| band.iter().map(|v| f64::from(*v)).sum::<f64>() / FRAMES as f64)
            .collect();
        let overall = means.iter().sum::<f64>() / BANDS as f64;
        for (band, mean) in features.chunks_mut(FRAMES).zip(&means) {
            let scale = (1.0 / (mean + BAND_FLOOR * overall + ABS_FLOOR)) as f32;
            for value in band {
                *value = SCALE * ((*value * scale + LOG_FLOOR).ln() + OFFSET);
            }
        }
        Ok(())
    }
}

/// A window without its mean, at an RMS of 0.05.
pub(super) fn levelled(samples: &[f32]) -> Vec<f32> {
    let (mut wave, n) = (samples.to_vec(), samples.len().max(1) as f64);
    let mean = (wave.iter().map(|v| f64::from(*v)).sum::<f64>() / n) as f32;
    wave.iter_mut().for_each(|v| *v -= mean);
    let power = wave.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    let gain = (TARGET_RMS / (power / n).sqrt().max(MIN_RMS)) as f32;
    wave.iter_mut().for_each(|v| *v *= gain);
    wave
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f32, level: f32) -> Vec<f32> {
        let step = std::f32::consts::TAU * hertz / 16_000.0;
        (0..WINDOW)
            .map(|n| level * (1.0 + (n / 8000 % 2) as f32) * (n as f32 * step).sin())
            .collect()
    }

    #[test]
    fn level_and_offset_do_not_count() {
        let features = Features::new();
        let loud = tone(1000.0, 0.3);
        let quiet: Vec<f32> = loud.iter().map(|v| v * 0.125 + 0.01).collect();
        for (a, b) in
            features.batch(&[&loud]).unwrap().iter().zip(features.batch(&[&quiet]).unwrap())
        {
            assert!((a - b).abs() < 2e-2, "{a} {b}");
        }
    }

    #[test]
    fn a_band_moves_around_its_own_mean() {
        let features = Features::new().batch(&[&tone(1000.0, 0.1)]).unwrap();
        // Bin 32 of 31.25 Hz each is in band 14. Its power is p, then 4 p, and so on: 0.4 and 1.6
        // of the mean.
        let band = &features[14 * FRAMES..15 * FRAMES];
        let expected = |ratio: f32| 0.5 * ((ratio + 1e-3).ln() + 3.0);
        assert!((band[10] - expected(0.4)).abs() < 0.02, "{}", band[10]);
        assert!((band[55] - expected(1.6)).abs() < 0.02, "{}", band[55]);
    }

    #[test]
    fn silence_gives_the_floor_and_nothing_infinite() {
        let features = Features::new().batch(&[&[0.0; WINDOW]]).unwrap();
        let floor = 0.5 * (1e-3f32.ln() + 3.0);
        assert!(features.iter().all(|v| (v - floor).abs() < 1e-5));
    }

    #[test]
    fn a_window_of_another_length_is_an_error() {
        let text = Features::new().batch(&[&[0.0; WINDOW], &[0.0; 9]]).unwrap_err().to_string();
        assert!(text.contains("window 1 has 9 samples"), "{text}");
    }
}
