//! Degraded copies of media: what a file goes through on its way to a detector. `docs/bench.md` lists
//! every family with its exact arguments.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use sha2::{Digest as _, Sha256};

use super::results::{self, Media};
use crate::bench::metrics::bootstrap::Random;

mod ffmpeg;
mod picture;
mod sound;
mod video;

pub use ffmpeg::Ffmpeg;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Jpeg,
    H264,
    Hevc,
    Resize,
    Blur,
    Noise,
    FrameRate,
    Mp3,
    Aac,
    Opus,
    Amr,
    Telephone,
    Reverb,
    WhiteNoise,
    Babble,
}

/// What of a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Pictures,
    Sound,
}

/// The values that a family has.
struct Range {
    from: f64,
    to: f64,
    whole: bool,
}

impl Family {
    pub const ALL: [Self; 15] = [
        Self::Jpeg,
        Self::H264,
        Self::Hevc,
        Self::Resize,
        Self::Blur,
        Self::Noise,
        Self::FrameRate,
        Self::Mp3,
        Self::Aac,
        Self::Opus,
        Self::Amr,
        Self::Telephone,
        Self::Reverb,
        Self::WhiteNoise,
        Self::Babble,
    ];

    /// As in suites.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Resize => "resize",
            Self::Blur => "blur",
            Self::Noise => "noise",
            Self::FrameRate => "frame-rate",
            Self::Mp3 => "mp3",
            Self::Aac => "aac",
            Self::Opus => "opus",
            Self::Amr => "amr",
            Self::Telephone => "telephone",
            Self::Reverb => "reverb",
            Self::WhiteNoise => "white-noise",
            Self::Babble => "babble",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// What its values are in; empty for a family without values.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Jpeg => "quality",
            Self::H264 | Self::Hevc => "CRF",
            Self::Resize => "of the side",
            Self::Blur => "pixels",
            Self::Noise => "8-bit steps",
            Self::FrameRate => "frames/s",
            Self::Mp3 | Self::Aac | Self::Opus | Self::Amr => "kbit/s",
            Self::Telephone => "",
            Self::Reverb => "s",
            Self::WhiteNoise | Self::Babble => "dB",
        }
    }

    /// Whether a larger value is the stronger degradation.
    pub fn worse_upwards(self) -> bool {
        matches!(self, Self::H264 | Self::Hevc | Self::Blur | Self::Noise | Self::Reverb)
    }

    pub fn part(self) -> Part {
        match self {
            Self::Jpeg
            | Self::H264
            | Self::Hevc
            | Self::Resize
            | Self::Blur
            | Self::Noise
            | Self::FrameRate => Part::Pictures,
            _ => Part::Sound,
        }
    }

    /// Kinds of data set whose files it can be done to.
    pub fn media(self) -> &'static [Media] {
        match self {
            Self::Jpeg => &[Media::Picture],
            Self::H264 | Self::Hevc | Self::FrameRate => &[Media::Video],
            Self::Resize | Self::Blur | Self::Noise => &[Media::Video, Media::Picture],
            _ => &[Media::Audio, Media::Video],
        }
    }

    fn range(self) -> Option<Range> {
        let range = |from, to, whole| Some(Range { from, to, whole });
        match self {
            Self::Jpeg => range(1.0, 100.0, true),
            Self::H264 | Self::Hevc => range(0.0, 51.0, true),
            Self::Resize => range(0.01, 0.99, false),
            Self::Blur => range(0.1, 100.0, false),
            // FFmpeg's filter goes up to 100, which is the square root of 3 times the deviation.
            Self::Noise => range(1.0, 57.0, false),
            Self::FrameRate => range(0.1, 240.0, false),
            Self::Mp3 | Self::Aac => range(8.0, 320.0, true),
            Self::Opus => range(6.0, 256.0, true),
            Self::Amr => range(4.75, 12.2, false),
            Self::Telephone => None,
            Self::Reverb => range(0.05, 10.0, false),
            Self::WhiteNoise | Self::Babble => range(-30.0, 100.0, false),
        }
    }

    /// One degradation a value.
    ///
    /// # Errors
    /// One sentence: a value that the family does not have.
    pub fn sweep(self, values: &[f64]) -> Result<Vec<Degradation>, String> {
        let name = self.name();
        let Some(range) = self.range() else {
            if !values.is_empty() {
                return Err(format!("{name} takes no `values`"));
            }
            return Ok(vec![Degradation { family: self, value: None }]);
        };
        if values.is_empty() {
            return Err(format!("{name} needs `values`"));
        }
        let one = |&value: &f64| {
            let fits = (range.from..=range.to).contains(&value)
                && (!range.whole || value.fract() == 0.0)
                && (self != Self::Amr || sound::AMR_RATES.contains(&value));
            if !fits {
                let kind = match self {
                    Self::Amr => ", AMR-NB's eight rates",
                    _ if range.whole => ", whole numbers",
                    _ => "",
                };
                let (from, to) = (range.from, range.to);
                return Err(format!(
                    "{name} has no value {value}: it goes from {from} to {to}{kind}"
                ));
            }
            Ok(Degradation { family: self, value: Some(value) })
        };
        values.iter().map(one).collect()
    }

    /// Encoders, decoders and filters that `ffmpeg` has to have for it.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Jpeg => &[],
            Self::H264 => &["libx264"],
            Self::Hevc => &["libx265"],
            Self::Resize => &["scale", "png", "libx264"],
            Self::Blur => &["gblur", "png", "libx264"],
            Self::Noise => &["noise", "png", "libx264"],
            Self::FrameRate => &["libx264"],
            Self::Mp3 => &["libmp3lame"],
            Self::Aac => &["aac"],
            Self::Opus => &["libopus"],
            Self::Amr => &["libopencore_amrnb"],
            Self::Telephone => &["highpass", "lowpass", "pcm_mulaw"],
            Self::Reverb | Self::WhiteNoise | Self::Babble => &[],
        }
    }
}

/// A family with its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Degradation {
    pub family: Family,
    pub value: Option<f64>,
}

/// Why there is no degraded copy of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `degradation_failed`, or the code of the reader that could not read the file.
    pub code: String,
    /// One line that names the file.
    pub message: String,
}

/// What a copy is made with.
pub struct Maker<'a> {
    pub ffmpeg: &'a Ffmpeg,
    pub seed: u64,
    pub stop: &'a AtomicBool,
}

/// A file that is to be degraded.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    pub path: &'a Path,
    /// Chooses the noise, with the seed and the degradation's name.
    pub id: &'a str,
    pub media: Media,
}

impl Degradation {
    /// `jpeg-50`, `telephone`.
    pub fn name(self) -> String {
        match self.value {
            Some(value) => format!("{}-{value}", self.family.name()),
            None => self.family.name().to_owned(),
        }
    }

    /// Makes the copy `folder/stem` with the ending that fits, or None where the maker was stopped.
    ///
    /// # Errors
    /// A file that cannot be read or that the degradation cannot be done to; nothing is left of the
    /// copy then.
    pub fn make(
        self,
        original: Original,
        folder: &Path,
        stem: &str,
        maker: &Maker,
    ) -> Result<Option<PathBuf>, Fault> {
        let made = match (self.family.part(), original.media) {
            (Part::Sound, Media::Audio) => {
                let out = folder.join(format!("{stem}.wav"));
                sound::make(self, original, &out, maker).map(|done| done.then_some(out))
            }
            (Part::Sound, _) => {
                let wav = folder.join(format!("{stem}.wav"));
                let out = folder.join(format!("{stem}.mkv"));
                let made = sound::make(self, original, &wav, maker)
                    .and_then(|done| Ok(done && video::with_sound(original, &wav, &out, maker)?));
                // Not there where it could not be made; the folder goes with the batch.
                let _ = std::fs::remove_file(&wav);
                made.map(|done| done.then_some(out))
            }
            (Part::Pictures, Media::Picture) => {
                let ending = if self.family == Family::Jpeg { "jpg" } else { "png" };
                let out = folder.join(format!("{stem}.{ending}"));
                picture::make(self, original, &out, maker).map(|done| done.then_some(out))
            }
            (Part::Pictures, _) => {
                let out = folder.join(format!("{stem}.mkv"));
                video::make(self, original, &out, maker).map(|done| done.then_some(out))
            }
        };
        made.map_err(|fault| {
            let name = original.path.display();
            let named = fault.message.starts_with(&name.to_string());
            let what = self.name();
            let message =
                if named { fault.message } else { format!("{name}: {what}: {}", fault.message) };
            Fault { message, ..fault }
        })
    }

    /// For the results.
    pub fn described(self) -> results::Degradation {
        results::Degradation {
            name: self.name(),
            family: self.family.name().to_owned(),
            value: self.value,
            unit: self.family.unit().to_owned(),
            worse_upwards: self.family.worse_upwards(),
            media: self.family.media().to_vec(),
        }
    }

    fn value(self) -> f64 {
        self.value.unwrap_or_default()
    }

    /// The generator of this file's noise.
    fn random(self, original: Original, maker: &Maker) -> Random {
        let text = format!("{}\n{}\n{}", maker.seed, self.name(), original.id);
        let digest = Sha256::digest(text.as_bytes());
        let number = digest.iter().take(8).fold(0, |number, b| number << 8 | u64::from(*b));
        Random::new(number, 0)
    }
}

impl Fault {
    fn failed(message: impl Into<String>) -> Self {
        Self { code: "degradation_failed".to_owned(), message: message.into() }
    }
}

/// Gaussian numbers of mean 0 and deviation 1 (Box & Muller).
struct Gaussian {
    random: Random,
    second: Option<f64>,
}

impl Gaussian {
    fn new(random: Random) -> Self {
        Self { random, second: None }
    }

    fn next(&mut self) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        let radius = (-2.0 * (1.0 - self.random.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.random.uniform()).sin_cos();
        self.second = Some(radius * sin);
        radius * cos
    }
}
