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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::process::Command;

    use super::*;
    use crate::media::{DecodeOptions, Event, Limits, MediaInfo, Source};

    fn make_media(arguments: &[&str], out: &Path) {
        let command = ["-v", "error", "-y"].iter().chain(arguments);
        let status = Command::new("ffmpeg").args(command).arg(out).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    /// What is in a file: info, pictures, sound.
    fn decoded(path: &Path) -> (MediaInfo, Vec<crate::media::Frame>, Vec<f32>) {
        let source = Source::open(path, &Limits::default()).unwrap();
        let info = source.info().clone();
        let options =
            DecodeOptions { fps: 0.0, video: true, audio: true, threads: 1, hardware: None };
        let (mut frames, mut sound) = (Vec::new(), Vec::new());
        source
            .decode(&options, &mut |event| {
                match event {
                    Event::Frame(frame) => frames.push(frame),
                    Event::Audio(audio) => sound.extend(audio.samples),
                    Event::Fault(fault) => panic!("{}: {}", path.display(), fault.message),
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        (info, frames, sound)
    }

    struct Bench {
        dir: tempfile::TempDir,
        ffmpeg: Ffmpeg,
        stop: AtomicBool,
    }

    impl Bench {
        fn new() -> Self {
            // Debian's ffmpeg has no AMR encoder; what that says is tested below.
            let all: Vec<Degradation> = Family::ALL
                .into_iter()
                .filter(|f| *f != Family::Amr)
                .map(|family| Degradation { family, value: None })
                .collect();
            let ffmpeg = Ffmpeg::for_all(&all).unwrap();
            assert!(ffmpeg.version.starts_with("ffmpeg version"), "{}", ffmpeg.version);
            Self { dir: tempfile::tempdir().unwrap(), ffmpeg, stop: AtomicBool::new(false) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn degrade(
            &self,
            family: Family,
            value: Option<f64>,
            path: &Path,
            media: Media,
        ) -> Result<PathBuf, Fault> {
            let maker = Maker { ffmpeg: &self.ffmpeg, seed: 7, stop: &self.stop };
            let original = Original { path, id: "a", media };
            let degradation = Degradation { family, value };
            let made = degradation.make(original, self.dir.path(), "copy", &maker)?.unwrap();
            let first = std::fs::read(&made).unwrap();
            // The same every time.
            let again = degradation.make(original, self.dir.path(), "again", &maker)?.unwrap();
            assert!(first == std::fs::read(again).unwrap(), "{} differs", degradation.name());
            Ok(made)
        }
    }

    /// Mean difference of brightness between neighbours: how much detail there is.
    fn detail(frame: &crate::media::Frame) -> f64 {
        let rows = frame.rgb.chunks(3 * frame.width);
        let sum: u64 = rows
            .flat_map(|row| row.windows(4).step_by(3).map(|p| u64::from(p[0].abs_diff(p[3]))))
            .sum();
        sum as f64 / (frame.width * frame.height) as f64
    }

    #[test]
    fn videos() {
        let bench = Bench::new();
        let clip = bench.path("clip.mp4");
        let pictures = "testsrc2=size=200x150:rate=20:duration=1.5,format=yuv444p,\
                        crop=161:121:0:0:exact=1";
        let sound = "sine=frequency=440:sample_rate=44100:duration=1.5";
        make_media(
            &[
                "-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", sound, "-c:v", "libx264",
                "-qp", "2", "-c:a", "aac",
            ],
            &clip,
        );
        let (_, before, sound) = decoded(&clip);
        let degrade = |family, value| {
            let copy = bench.degrade(family, Some(value), &clip, Media::Video).unwrap();
            let (info, frames, heard) = decoded(&copy);
            assert_eq!(info.container, "matroska,webm");
            // The sound goes along.
            assert!(heard.len().abs_diff(sound.len()) < 800, "{} {}", heard.len(), sound.len());
            let codec = info.streams.iter().find(|s| s.width.is_some()).unwrap().codec.clone();
            (codec, frames)
        };
        let (fine, rough) = (degrade(Family::H264, 15.0), degrade(Family::H264, 48.0));
        assert_eq!((fine.0.as_str(), fine.1.len()), ("h264", before.len()));
        assert_eq!((fine.1[3].width, fine.1[3].height), (160, 120));
        assert!(detail(&rough.1[9]) < 0.8 * detail(&fine.1[9]));
        assert_eq!(degrade(Family::Hevc, 40.0).0, "hevc");
        let small = degrade(Family::Resize, 0.5).1;
        assert_eq!((small[0].width, small[0].height), (80, 60));
        assert!(detail(&degrade(Family::Blur, 3.0).1[9]) < 0.6 * detail(&before[9]));
        assert!(detail(&degrade(Family::Noise, 20.0).1[9]) > 1.5 * detail(&before[9]));
        let slow = degrade(Family::FrameRate, 5.0).1;
        assert!((6..=9).contains(&slow.len()), "{}", slow.len());
        // Slower than that already: not made faster.
        assert_eq!(degrade(Family::FrameRate, 50.0).1.len(), before.len());

        let copy = bench.degrade(Family::WhiteNoise, Some(0.0), &clip, Media::Video).unwrap();
        let (_, frames, heard) = decoded(&copy);
        assert_eq!(frames.len(), before.len());
        assert!(frames[4].rgb == before[4].rgb, "the pictures are as they were");
        let power = |s: &[f32]| s.iter().map(|s| f64::from(s * s)).sum::<f64>() / s.len() as f64;
        assert!(power(&heard) > 1.2 * power(&sound), "{} {}", power(&heard), power(&sound));
    }

    #[test]
    fn pictures() {
        let bench = Bench::new();
        let photo = bench.path("photo.png");
        make_media(
            &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=200x150,crop=161:121:0:0:exact=1",
                "-frames:v",
                "1",
            ],
            &photo,
        );
        let before = decoded(&photo).1.remove(0);
        let degrade = |family, value| {
            let copy = bench.degrade(family, Some(value), &photo, Media::Picture).unwrap();
            let bytes = std::fs::metadata(&copy).unwrap().len();
            (decoded(&copy).1.remove(0), bytes)
        };
        let (fine, rough) = (degrade(Family::Jpeg, 95.0), degrade(Family::Jpeg, 10.0));
        assert_eq!((fine.0.width, fine.0.height), (161, 121));
        assert!(rough.1 * 3 < fine.1, "{} {}", rough.1, fine.1);
        let small = degrade(Family::Resize, 0.5).0;
        assert_eq!((small.width, small.height), (80, 60));
        assert!(detail(&degrade(Family::Blur, 2.0).0) < 0.7 * detail(&before));
        assert!(detail(&degrade(Family::Noise, 20.0).0) > 1.5 * detail(&before));
        let fault = bench.degrade(Family::Jpeg, Some(50.0), &bench.path("no"), Media::Picture);
        assert_eq!(fault.unwrap_err().code, "unreadable");
    }

    #[test]
    fn sound() {
        let bench = Bench::new();
        let speech = bench.path("speech.flac");
        let sweep = "aevalsrc=0.2*sin(2*PI*(200*t+900*t*t))|0.1*sin(2*PI*300*t):s=22050:d=3";
        make_media(&["-f", "lavfi", "-i", sweep], &speech);
        let (_, _, before) = decoded(&speech);
        // The sweep passes 3.8 kHz at 2 s.
        let energy = |s: &[f32], from: f64| {
            let part = &s[(from * 16_000.0) as usize..][..8_000];
            part.iter().map(|s| f64::from(s * s)).sum::<f64>()
        };
        for (family, value) in [
            (Family::Mp3, Some(32.0)),
            (Family::Aac, Some(32.0)),
            (Family::Opus, Some(16.0)),
            (Family::Telephone, None),
            (Family::Reverb, Some(0.4)),
            (Family::WhiteNoise, Some(10.0)),
            (Family::Babble, Some(10.0)),
        ] {
            let copy = bench.degrade(family, value, &speech, Media::Audio).unwrap();
            let (info, _, after) = decoded(&copy);
            let stream = &info.streams[0];
            assert_eq!(stream.codec, "pcm_s16le");
            assert_eq!(
                (stream.sample_rate, stream.channels),
                (Some(22_050), Some(2)),
                "{family:?}"
            );
            let longer = after.len() as f64 / before.len() as f64;
            assert!((0.97..1.1).contains(&longer), "{family:?} {longer}");
            let kept = energy(&after, 0.5) / energy(&before, 0.5);
            assert!((0.3..2.0).contains(&kept), "{family:?} {kept}");
            let high = energy(&after, 2.4) / energy(&before, 2.4);
            if family == Family::Telephone {
                assert!(high < 0.5, "{high}");
            }
        }
        let silent = bench.path("silent.mp4");
        make_media(&["-f", "lavfi", "-i", "testsrc2=size=64x48:duration=0.2"], &silent);
        let fault = bench.degrade(Family::Mp3, Some(64.0), &silent, Media::Audio).unwrap_err();
        assert_eq!(fault.code, "no_audio");
        assert!(fault.message.contains("silent.mp4"), "{}", fault.message);
        let broken = bench.path("broken.wav");
        std::fs::write(&broken, [b'x'; 4000]).unwrap();
        let fault = bench.degrade(Family::Reverb, Some(0.5), &broken, Media::Audio).unwrap_err();
        assert_eq!(fault.code, "unrecognised");
    }

    #[test]
    fn a_stopped_maker_makes_nothing() {
        let bench = Bench::new();
        let photo = bench.path("photo.png");
        make_media(&["-f", "lavfi", "-i", "testsrc2=size=64x48", "-frames:v", "1"], &photo);
        let stop = AtomicBool::new(true);
        let maker = Maker { ffmpeg: &bench.ffmpeg, seed: 7, stop: &stop };
        let original = Original { path: &photo, id: "a", media: Media::Picture };
        let degradation = Degradation { family: Family::Blur, value: Some(1.0) };
        assert_eq!(degradation.make(original, bench.dir.path(), "x", &maker), Ok(None));
    }
}
