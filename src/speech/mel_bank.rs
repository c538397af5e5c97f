//! Power in mel bands, frame by frame: what the front ends of the speech networks share.
//!
//! Bands after Slaney: "Auditory Toolbox", 1998.

use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{FftError, RealFftPlanner, RealToComplex};

use super::RATE;

/// Samples in a frame, 25 ms; also the length of the Hann window.
pub const FFT: usize = 400;
/// From one frame to the next: 10 ms.
pub const HOP: usize = 160;
pub const BINS: usize = FFT / 2 + 1;

/// A triangle over the bins.
pub struct Band {
    pub first: usize,
    pub weights: Vec<f32>,
}

/// The transform's tables and the bands.
pub struct MelBank {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Periodic Hann window.
    hann: Vec<f32>,
    bands: Vec<Band>,
}

impl MelBank {
    /// `count` bands from 0 to 8 kHz.
    pub fn new(count: usize) -> Self {
        let hann = (0..FFT).map(|n| (0.5 - 0.5 * (TAU * n as f64 / FFT as f64).cos()) as f32);
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            hann: hann.collect(),
            bands: bands(count),
        }
    }

    /// Fills `out`, [frames, bands], with the power of the frames of `wave`, the first at its first
    /// sample. `wave` holds all samples of all of them.
    ///
    /// # Errors
    /// None that could be met: those of the Fourier transform are passed on.
    pub fn power(&self, wave: &[f32], out: &mut [f32]) -> Result<(), FftError> {
        let mut frame = vec![0.0f32; FFT];
        let mut spectrum = vec![Complex::new(0.0f32, 0.0); BINS];
        let mut power = [0.0f32; BINS];
        let mut scratch = self.fft.make_scratch_vec();
        let frames = wave.windows(FFT).step_by(HOP);
        for (values, from) in out.chunks_exact_mut(self.bands.len()).zip(frames) {
            for ((f, v), w) in frame.iter_mut().zip(from).zip(&self.hann) {
                *f = v * w;
            }
            self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
            for (p, bin) in power.iter_mut().zip(&spectrum) {
                *p = bin.norm_sqr();
            }
            for (value, band) in values.iter_mut().zip(&self.bands) {
                let bins = power[band.first..].iter().zip(&band.weights);
                *value = bins.map(|(p, w)| p * w).sum();
            }
        }
        Ok(())
    }
}

/// Slaney's bands: triangles between points that are evenly spaced on his mel scale, which is linear
/// to 1 kHz and logarithmic above; each has the same area over Hz. `count` of them from 0 to 8 kHz,
/// over the bins of a transform of 400 samples.
fn bands(count: usize) -> Vec<Band> {
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

    #[test]
    fn every_band_covers_bins_and_has_the_same_area() {
        let bands = bands(80);
        assert_eq!(bands.len(), 80);
        assert!(bands.iter().all(|b| !b.weights.is_empty()));
        assert!(bands.windows(2).all(|b| b[0].first <= b[1].first));
        let last = &bands[80 - 1];
        // The last bin lies where the triangle ends; rounding may leave it a trace.
        assert!((BINS - 1..=BINS).contains(&(last.first + last.weights.len())));
        // Bins are 40 Hz apart; a wide triangle's samples sum to its area of 1.
        let area: f32 = last.weights.iter().sum::<f32>() * 40.0;
        assert!((area - 1.0).abs() < 0.02, "{area}");
    }
}
