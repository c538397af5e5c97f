//! The spectral front end of the speaker network: power in 40 mel bands. The same as
//! `librosa.feature.melspectrogram` with Resemblyzer's parameters.

use rayon::prelude::*;
use realfft::FftError;

use super::mel_bank::{FFT, HOP, MelBank};

pub const BANDS: usize = 40;

/// Quieter sound is raised to this level, as in training.
const LEVEL_DB: f32 = -30.0;

/// The front end with its tables.
pub struct MelSpectrogram {
    bank: MelBank,
}

impl Default for MelSpectrogram {
    fn default() -> Self {
        Self::new()
    }
}

impl MelSpectrogram {
    pub fn new() -> Self {
        Self { bank: MelBank::new(BANDS) }
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
        let mut mel = vec![0.0; (samples.len() / HOP + 1) * BANDS];
        self.bank.power(&wave, &mut mel)?;
        Ok(mel)
    }
}
