//! Whisper's front end for a window of 4 s: the logarithm of the power in 80 mel bands. The same as
//! `LogMel` in `scripts/train/voice_clone/whisper.py`, whose header says it in words.
//!
//! Radford et al.: "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023 (arXiv
//! 2212.04356).

use rayon::prelude::*;

use super::features::{FeaturesError, WINDOW, levelled};
use super::mel_bank::{FFT, HOP, MelBank};

/// Mel bands, 0 to 8 kHz.
pub const BANDS: usize = 80;
/// Frames in a window, 10 ms apart.
pub const FRAMES: usize = WINDOW / HOP;

/// Samples that are mirrored at each end, so that a frame's middle is its time.
const PAD: usize = FFT / 2;
const POWER_FLOOR: f32 = 1e-10;
/// Decades below a window's loudest value at which the others are cut off.
const RANGE: f32 = 8.0;

/// The front end with its tables.
pub struct LogMel {
    bank: MelBank,
}

impl Default for LogMel {
    fn default() -> Self {
        Self::new()
    }
}

impl LogMel {
    pub fn new() -> Self {
        Self { bank: MelBank::new(BANDS) }
    }

    /// Features of some windows of [`WINDOW`] samples, one after the other, each
    /// [`FRAMES`] × [`BANDS`], lowest band first, from about -1 to 1.5. A window's features do not
    /// depend on the others, nor on its level or mean.
    ///
    /// # Errors
    /// A window of another length.
    pub fn batch(&self, windows: &[&[f32]]) -> Result<Vec<f32>, FeaturesError> {
        if let Some(index) = windows.iter().position(|w| w.len() != WINDOW) {
            return Err(FeaturesError::Length { index, found: windows[index].len() });
        }
        let mut features = vec![0.0; windows.len() * FRAMES * BANDS];
        features
            .par_chunks_mut(FRAMES * BANDS)
            .zip(windows)
            .try_for_each(|(features, window)| self.window(window, features))?;
        Ok(features)
    }

    fn window(&self, samples: &[f32], features: &mut [f32]) -> Result<(), FeaturesError> {
        let wave = levelled(samples);
        // The outmost sample is not repeated.
        let before = wave[1..=PAD].iter().rev();
        let behind = wave[WINDOW - 1 - PAD..WINDOW - 1].iter().rev();
        let wave: Vec<f32> = before.chain(&wave).chain(behind).copied().collect();

        self.bank.power(&wave, features)?;
        let mut loudest = f32::NEG_INFINITY;
        for value in features.iter_mut() {
            *value = value.max(POWER_FLOOR).log10();
            loudest = loudest.max(*value);
        }
        for value in features {
            *value = (value.max(loudest - RANGE) + 4.0) / 4.0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f32, level: f32) -> Vec<f32> {
        let step = std::f32::consts::TAU * hertz / 16_000.0;
        (0..WINDOW).map(|n| level * (n as f32 * step).sin()).collect()
    }

    /// All but the highest two points of the scale are known: 1 kHz is its fifteenth unit.
    #[test]
    fn a_tone_is_loudest_in_its_band_and_the_rest_is_cut_off() {
        let features = LogMel::new().batch(&[&tone(1_000.0, 0.1)]).unwrap();
        let frame = &features[200 * BANDS..201 * BANDS];
        let loudest = (0..BANDS).max_by(|a, b| frame[*a].total_cmp(&frame[*b])).unwrap();
        // 1 kHz is at 15 of 45.25 units, which 81 steps divide.
        assert_eq!(loudest, 26, "{frame:?}");
        let (most, least) = (frame[loudest], features.iter().copied().fold(f32::MAX, f32::min));
        assert!((most - least - RANGE / 4.0).abs() < 0.01, "{most} {least}");
    }

    #[test]
    fn level_and_offset_do_not_count() {
        let loud = tone(440.0, 0.3);
        let quiet: Vec<f32> = loud.iter().map(|v| v * 0.125 + 0.01).collect();
        let both = LogMel::new().batch(&[&loud, &quiet]).unwrap();
        let (a, b) = both.split_at(FRAMES * BANDS);
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-2));
    }

    #[test]
    fn silence_is_finite_and_a_window_of_another_length_an_error() {
        let features = LogMel::new().batch(&[&[0.0; WINDOW]]).unwrap();
        assert!(features.iter().all(|v| *v == -1.5));
        let text = LogMel::new().batch(&[&[0.0; 9]]).unwrap_err().to_string();
        assert!(text.contains("window 0 has 9 samples"), "{text}");
    }
}
