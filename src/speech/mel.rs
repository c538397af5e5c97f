//! The spectral front end of the speaker network: power in 40 mel bands. The same as
//! `librosa.feature.melspectrogram` with Resemblyzer's parameters.

use std::f64::consts::TAU;
use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{FftError, RealFftPlanner, RealToComplex};

use super::log_mel::{Band, bands};

pub const BANDS: usize = 40;

/// Also the length of the Hann window: 25 ms.
const FFT: usize = 400;
/// 10 ms.
const HOP: usize = 160;
/// Quieter sound is raised to this level, as in training.
const LEVEL_DB: f32 = -30.0;

/// The front end with its tables.
pub struct MelSpectrogram {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Periodic Hann window.
    hann: Vec<f32>,
    bands: Vec<Band>,
}

impl Default for MelSpectrogram {
    fn default() -> Self {
        Self::new()
    }
}

impl MelSpectrogram {
    pub fn new() -> Self {
        let hann = (0..FFT).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FFT as f64).cos()) as f32);
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            hann: hann.collect(),
            bands: bands(BANDS),
        }
    }

    /// Spectrograms of some windows, one after the other, each [frames, 40] with a frame every
    /// 10 ms, the first around the first sample and silence before and after. A window's
    /// spectrogram does not depend on the others.
    ///
    /// # Errors
    /// None that could be met: those of the Fourier transform are passed on.
    pub fn batch(&self, windows: &[&[f32]]) -> Result<Vec<f32>, FftError> {
        let made: Result<Vec<Vec<f32>>, FftError> =
            windows.par_iter().map(|w| self.window(w)).collect();
        Ok(made?.concat())
    }

    fn window(&self, samples: &[f32]) -> Result<Vec<f32>, FftError> {
        let power = samples.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let rms = (power / samples.len().max(1) as f64).sqrt() as f32;
        // Nothing is as loud as nothing.
        let gain = (10.0f32.powf(LEVEL_DB / 20.0) / rms.max(f32::MIN_POSITIVE)).max(1.0);
        let gain = if rms > 0.0 { gain } else { 1.0 };
        let mut wave = vec![0.0; samples.len() + FFT];
        for (to, from) in wave[FFT / 2..].iter_mut().zip(samples) {
            *to = from * gain;
        }
        let frames = samples.len() / HOP + 1;
        let mut frame = vec![0.0f32; FFT];
        let mut spectrum = vec![Complex::new(0.0f32, 0.0); FFT / 2 + 1];
        let mut scratch = self.fft.make_scratch_vec();
        let mut mel = Vec::with_capacity(frames * BANDS);
        for from in wave.windows(FFT).step_by(HOP).take(frames) {
            for ((f, v), w) in frame.iter_mut().zip(from).zip(&self.hann) {
                *f = v * w;
            }
            self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
            mel.extend(self.bands.iter().map(|band| {
                let bins = &spectrum[band.first..];
                band.weights.iter().zip(bins).map(|(w, c)| w * c.norm_sqr()).sum::<f32>()
            }));
        }
        Ok(mel)
    }
}
