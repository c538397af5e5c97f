//! Launches of `kernels/features.cu`: a log-power spectrogram whose bands move around their means.

use std::f64::consts::TAU;

use candle_core::{Result, bail};

use super::{Launch, Module, axis, grid};

/// Points of the transform, and length of the Hann window.
pub const FFT: usize = 512;
/// The kernels' limit.
const MAX_BANDS: usize = 128;

/// What is computed. Bands are two bins wide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spectrum {
    /// In a window.
    pub samples: usize,
    /// From frame to frame.
    pub hop: usize,
    pub first_bin: usize,
    pub bands: usize,
    /// A window is brought to this level; one below `min_rms` as if it had that.
    pub target_rms: f64,
    pub min_rms: f64,
    /// Added to a band's mean: this share of the mean over all bands, and this power.
    pub band_floor: f64,
    pub abs_floor: f64,
    /// Result: `scale * (ln(power / mean + log_floor) + offset)`.
    pub log_floor: f32,
    pub offset: f32,
    pub scale: f32,
}

/// `SpectrumParams` of `kernels/features.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct SpectrumParams {
    samples: i32,
    hop: i32,
    frames: i32,
    first_bin: i32,
    bands: i32,
    log_floor: f32,
    offset: f32,
    scale: f32,
    target_rms: f64,
    min_rms: f64,
    band_floor: f64,
    abs_floor: f64,
}

/// The three launches, in order. Arguments of `level`: samples [n, samples], levels [n, 2],
/// parameters; of `power`: samples, levels, [`tables`], power [n, bands, frames], parameters; of
/// `log`: power (in place), parameters.
#[derive(Debug, Clone)]
pub struct SpectrumLaunches {
    pub level: Launch,
    pub power: Launch,
    pub log: Launch,
    pub params: SpectrumParams,
}

/// Hann window (periodic), cosines and negative sines of [`FFT`] points, as `spectrum_power` takes
/// them.
pub fn tables() -> Vec<f64> {
    let turn = |n: usize| TAU * n as f64 / FFT as f64;
    let hann = (0..FFT).map(|n| 0.5 - 0.5 * turn(n).cos());
    let cosines = (0..FFT / 2).map(|n| turn(n).cos());
    let sines = (0..FFT / 2).map(|n| -turn(n).sin());
    hann.chain(cosines).chain(sines).collect()
}

impl Spectrum {
    /// In a window.
    pub fn frames(&self) -> usize {
        self.samples.saturating_sub(FFT) / self.hop.max(1) + 1
    }

    /// What runs it over `n` windows, at least one.
    ///
    /// # Errors
    /// Sizes that the kernels cannot take.
    pub fn launches(&self, op: &str, n: usize) -> Result<SpectrumLaunches> {
        if self.samples < FFT || self.hop == 0 {
            bail!("{op}: windows of {} samples with a hop of {}", self.samples, self.hop);
        }
        // Bin 0 would meet itself mirrored at bin FFT.
        if self.bands == 0
            || self.bands > MAX_BANDS
            || self.first_bin == 0
            || self.first_bin + 2 * self.bands > FFT / 2 + 1
        {
            bail!("{op}: {} bands from bin {}", self.bands, self.first_bin);
        }
        let frames = self.frames();
        axis(op, "bands times frames", self.bands.saturating_mul(frames))?;
        let params = SpectrumParams {
            samples: axis(op, "samples of a window", self.samples)?,
            hop: axis(op, "hop", self.hop)?,
            frames: axis(op, "frames", frames)?,
            first_bin: axis(op, "first bin", self.first_bin)?,
            bands: axis(op, "bands", self.bands)?,
            log_floor: self.log_floor,
            offset: self.offset,
            scale: self.scale,
            target_rms: self.target_rms,
            min_rms: self.min_rms,
            band_floor: self.band_floor,
            abs_floor: self.abs_floor,
        };
        let launch = |kernel, y: u64, threads| -> Result<Launch> {
            let grid = grid(op, &[n, self.samples], [n as u64, y, 1])?;
            Ok(Launch { module: Module::Features, kernel, grid, block: [threads, 1, 1] })
        };
        Ok(SpectrumLaunches {
            level: launch("spectrum_level", 1, 256)?,
            power: launch("spectrum_power", frames.div_ceil(2) as u64, 256)?,
            log: launch("spectrum_log", 1, MAX_BANDS as u32)?,
            params,
        })
    }
}
