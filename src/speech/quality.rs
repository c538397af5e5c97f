//! What weakens a judgement on a voice: a narrow band, clipping, music.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{RATE, activity::FRAME};

/// Below this upper edge the sound is telephone speech or worse.
pub const BAND_LIMIT_HZ: f32 = 3_900.0;
/// Share of samples at the rail from which a window counts as clipped.
pub const CLIPPED: f32 = 0.005;
/// Quieter sound is silence, dBFS.
const SILENCE_DB: f32 = -50.0;
/// Spectral flatness (geometric over arithmetic mean of power): tones lie below, noise above.
const TONAL: f32 = 0.08;

/// Level of some sound in dBFS; -120 for digital silence.
pub fn level_db(samples: &[f32]) -> f32 {
    let power = samples.iter().map(|v| v * v).sum::<f32>() / samples.len().max(1) as f32;
    10.0 * power.max(1e-12).log10()
}

/// Share of samples that stand at the largest value, where that is near full scale.
pub fn clipped(samples: &[f32]) -> f32 {
    let peak = samples.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if peak < 0.9 {
        return 0.0;
    }
    let at_peak = samples.iter().filter(|v| v.abs() > 0.995 * peak).count();
    at_peak as f32 / samples.len() as f32
}

/// Power spectra of 512-sample frames.
pub struct Spectrum {
    fft: Arc<dyn RealToComplex<f32>>,
    input: Vec<f32>,
    output: Vec<Complex<f32>>,
    window: Vec<f32>,
}

impl Default for Spectrum {
    fn default() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FRAME);
        let step = std::f32::consts::TAU / FRAME as f32;
        Self {
            input: fft.make_input_vec(),
            output: fft.make_output_vec(),
            window: (0..FRAME).map(|i| 0.5 - 0.5 * (i as f32 * step).cos()).collect(),
            fft,
        }
    }
}

impl Spectrum {
    /// Adds the power of each of the 257 bins of `frame` (`FRAME` samples) to `sum`.
    fn add(&mut self, frame: &[f32], sum: &mut [f32]) {
        for ((x, v), w) in self.input.iter_mut().zip(frame).zip(&self.window) {
            *x = v * w;
        }
        // The buffers were made by the plan, so their lengths fit and this cannot fail.
        if self.fft.process(&mut self.input, &mut self.output).is_ok() {
            for (s, c) in sum.iter_mut().zip(&self.output) {
                *s += c.norm_sqr();
            }
        }
    }

    /// The frequency in Hz above which less than one part in 10,000 of the power lies, and the
    /// level falls off: where a telephone or a codec cut the band.
    pub fn upper_edge_hz(&mut self, samples: &[f32]) -> f32 {
        let mut sum = vec![0.0; FRAME / 2 + 1];
        for frame in samples.chunks_exact(FRAME) {
            self.add(frame, &mut sum);
        }
        let total: f32 = sum.iter().sum();
        let mut above = 0.0;
        for (bin, power) in sum.iter().enumerate().rev() {
            above += power;
            if above > total * 1e-4 {
                return bin as f32 * RATE as f32 / FRAME as f32;
            }
        }
        0.0
    }

    fn flatness(&mut self, frame: &[f32]) -> f32 {
        let mut power = [0.0; FRAME / 2 + 1];
        self.add(frame, &mut power);
        // Up to 4 kHz: above, band limits would look like tones.
        let band = &power[2..FRAME / 4];
        let n = band.len() as f32;
        let mean = band.iter().sum::<f32>() / n;
        let log_mean = band.iter().map(|p| p.max(1e-12).ln()).sum::<f32>() / n;
        log_mean.exp() / mean.max(1e-12)
    }
}

/// Tells music from silence and noise in the sound between and under speech.
#[derive(Default)]
pub struct Background {
    spectrum: Spectrum,
    quiet: u32,
    noise: u32,
    tonal: u32,
}

impl Background {
    /// One frame (`FRAME` samples) that is not speech.
    pub fn push(&mut self, frame: &[f32]) {
        if level_db(frame) < SILENCE_DB {
            self.quiet += 1;
        } else if self.spectrum.flatness(frame) < TONAL {
            self.tonal += 1;
        } else {
            self.noise += 1;
        }
    }

    fn seconds(frames: u32) -> f32 {
        frames as f32 * FRAME as f32 / RATE as f32
    }

    /// Seconds of music where most of what is not speech is tonal and goes on for a while.
    pub fn music_s(&self) -> Option<f32> {
        let all = self.quiet + self.noise + self.tonal;
        let s = Self::seconds(self.tonal);
        (s >= 2.0 && self.tonal * 2 > all).then_some(s)
    }

    /// Seconds that were not speech and not silence.
    pub fn loud_s(&self) -> f32 {
        Self::seconds(self.noise + self.tonal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, seconds: f32) -> Vec<f32> {
        let step = std::f32::consts::TAU * hz / RATE as f32;
        (0..(seconds * RATE as f32) as usize).map(|i| 0.3 * (i as f32 * step).sin()).collect()
    }

    fn noise(seconds: f32) -> Vec<f32> {
        let mut state = 1u32;
        (0..(seconds * RATE as f32) as usize)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 * 0.2 - 0.2
            })
            .collect()
    }

    #[test]
    fn the_band_edge_is_found() {
        let mut spectrum = Spectrum::default();
        let mut low = tone(300.0, 1.0);
        low.iter_mut().zip(tone(3_300.0, 1.0)).for_each(|(a, b)| *a += b);
        let edge = spectrum.upper_edge_hz(&low);
        assert!((3_200.0..3_500.0).contains(&edge), "{edge}");
        assert!(spectrum.upper_edge_hz(&noise(1.0)) > 7_500.0);
        assert_eq!(spectrum.upper_edge_hz(&[0.0; 2_048]), 0.0);
    }

    #[test]
    fn clipping_is_measured() {
        assert_eq!(clipped(&tone(200.0, 1.0)), 0.0);
        let hard: Vec<f32> = tone(200.0, 1.0).iter().map(|v| (v * 10.0).clamp(-1.0, 1.0)).collect();
        assert!(clipped(&hard) > 0.5);
    }

    #[test]
    fn chords_are_music_and_noise_is_not() {
        let mut background = Background::default();
        let chord: Vec<f32> = tone(261.6, 4.0)
            .iter()
            .zip(tone(329.6, 4.0))
            .zip(tone(392.0, 4.0))
            .map(|((a, b), c)| a + b + c)
            .collect();
        chord.chunks_exact(FRAME).for_each(|f| background.push(f));
        assert!(background.music_s().is_some_and(|s| s > 3.5));
        let mut background = Background::default();
        noise(4.0).chunks_exact(FRAME).for_each(|f| background.push(f));
        assert!(background.music_s().is_none());
        assert!(background.loud_s() > 3.5);
    }
}
