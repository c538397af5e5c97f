//! Whisper's front end for a window of 4 s: the logarithm of the power in 80 mel bands. The same as
//! `LogMel` in `scripts/train/voice_clone/whisper.py`, whose header says it in words.
//!
//! Radford et al.: "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023 (arXiv
//! 2212.04356); mel scale and bands after Slaney: "Auditory Toolbox", 1998.

use std::f64::consts::TAU;
use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::RATE;
use super::features::{FeaturesError, WINDOW, levelled};

/// Mel bands, 0 to 8 kHz.
pub const BANDS: usize = 80;
/// Frames in a window, 10 ms apart.
pub const FRAMES: usize = WINDOW / HOP;

/// Also the length of the Hann window.
const FFT: usize = 400;
const HOP: usize = 160;
/// Samples that are mirrored at each end, so that a frame's middle is its time.
const PAD: usize = FFT / 2;
const BINS: usize = FFT / 2 + 1;
const POWER_FLOOR: f32 = 1e-10;
/// Decades below a window's loudest value at which the others are cut off.
const RANGE: f32 = 8.0;

/// A triangle over the bins.
pub(super) struct Band {
    pub first: usize,
    pub weights: Vec<f32>,
}

/// The front end with its tables.
pub struct LogMel {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Periodic Hann window.
    hann: Vec<f32>,
    bands: Vec<Band>,
}

impl Default for LogMel {
    fn default() -> Self {
        Self::new()
    }
}

impl LogMel {
    pub fn new() -> Self {
        let hann = (0..FFT).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FFT as f64).cos()) as f32);
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            hann: hann.collect(),
            bands: bands(BANDS),
        }
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

        let mut frame = vec![0.0f32; FFT];
        let mut spectrum = vec![Complex::new(0.0f32, 0.0); BINS];
        let mut power = [0.0f32; BINS];
        let mut scratch = self.fft.make_scratch_vec();
        let mut loudest = f32::NEG_INFINITY;
        for (t, features) in features.chunks_exact_mut(BANDS).enumerate() {
            for ((f, v), w) in frame.iter_mut().zip(&wave[t * HOP..]).zip(&self.hann) {
                *f = v * w;
            }
            self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
            for (p, bin) in power.iter_mut().zip(&spectrum) {
                *p = bin.norm_sqr();
            }
            for (value, band) in features.iter_mut().zip(&self.bands) {
                let bins = power[band.first..].iter().zip(&band.weights);
                let sum: f32 = bins.map(|(p, w)| p * w).sum();
                *value = sum.max(POWER_FLOOR).log10();
                loudest = loudest.max(*value);
            }
        }
        for value in features {
            *value = (value.max(loudest - RANGE) + 4.0) / 4.0;
        }
        Ok(())
    }
}

/// Slaney's bands: triangles between points that are evenly spaced on his mel scale, which is linear
/// to 1 kHz and logarithmic above; each has the same area over Hz. `count` of them from 0 to 8 kHz,
/// over the bins of a transform of 400 samples.
pub(super) fn bands(count: usize) -> Vec<Band> {
    const LINEAR_HZ: f64 = 200.0 / 3.0;
    const BEND: f64 = 15.0;
    let step = 6.4f64.ln() / 27.0;
    let hertz = |mel: f64| {
        if mel < BEND { mel * LINEAR_HZ } else { 1_000.0 * (step * (mel - BEND)).exp() }
    };
    let top = BEND + (RATE as f64 / 2.0 / 1_000.0).ln() / step;
    let point = |i: usize| hertz(top / (count + 1) as f64 * i as f64);
    (0..count)
        .map(|i| {
            let (low, middle, high) = (point(i), point(i + 1), point(i + 2));
            let weight = |bin: usize| {
                let f = bin as f64 * RATE as f64 / FFT as f64;
                let side = ((f - low) / (middle - low)).min((high - f) / (high - middle));
                (side.max(0.0) * (2.0 / (high - low))) as f32
            };
            let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            let weights = (first..BINS).map(weight).take_while(|w| *w > 0.0).collect();
            Band { first, weights }
        })
        .collect()
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
    fn every_band_covers_bins_and_has_the_same_area() {
        let bands = bands(BANDS);
        assert_eq!(bands.len(), BANDS);
        assert!(bands.iter().all(|b| !b.weights.is_empty()));
        assert!(bands.windows(2).all(|b| b[0].first <= b[1].first));
        let last = &bands[BANDS - 1];
        // The last bin lies where the triangle ends; rounding may leave it a trace.
        assert!((BINS - 1..=BINS).contains(&(last.first + last.weights.len())));
        // Bins are 40 Hz apart; a wide triangle's samples sum to its area of 1.
        let area: f32 = last.weights.iter().sum::<f32>() * 40.0;
        assert!((area - 1.0).abs() < 0.02, "{area}");
    }

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
