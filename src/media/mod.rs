//! What is in a file: probe, demux, decode, sampling. The only room that names FFmpeg.
//!
//! Every type here is plain data, so that decoding can move into a separate, limited process
//! without its callers noticing.

mod convert;
mod decode;
mod hardware;
pub mod installed;
mod io;
mod source;
mod still;

use std::path::PathBuf;

pub(crate) use io::FORMATS;
pub use source::{MAX_AUDIO_STREAMS, Source};

/// What a file holds, as its container and streams say.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MediaInfo {
    /// FFmpeg's short name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    pub kind: MediaKind,
    /// Length of the presentation in milliseconds; 0 for a picture, `None` where nothing says.
    pub duration_ms: Option<i64>,
    pub streams: Vec<StreamInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    Video,
    Audio,
    Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    Video,
    Audio,
    /// Cover art: a still that travels inside a sound file. Listed, never scanned.
    Cover,
    Other,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StreamInfo {
    /// Index in the container.
    pub index: usize,
    pub kind: StreamKind,
    /// FFmpeg's codec name, such as `h264`.
    pub codec: String,
    pub duration_ms: Option<i64>,
    pub language: Option<String>,
    /// Size as displayed: rotation applied, pixels as stored (not stretched by the aspect ratio).
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// Clockwise, degrees: 0, 90, 180 or 270.
    pub rotation: Option<i32>,
    /// Average frames a second as the container says.
    pub frame_rate: Option<f64>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u32>,
    pub bit_rate: Option<i64>,
}

/// One sampled picture, upright, 8-bit RGB.
#[derive(Debug, Clone)]
pub struct Frame {
    pub stream: usize,
    /// Presentation time from the start of the presentation (edit lists and start offset
    /// applied), in milliseconds; never negative.
    pub time_ms: i64,
    pub width: usize,
    pub height: usize,
    /// `width * height * 3` bytes, rows packed.
    pub rgb: Vec<u8>,
}

/// A run of 16 kHz mono sound, in -1..1 nominally.
#[derive(Debug, Clone)]
pub struct Audio {
    pub stream: usize,
    /// Position of the first sample on the presentation's timeline, in 16 kHz samples. Runs of a
    /// stream come in order; a gap in the stream's timestamps shows as a jump here.
    pub start: i64,
    pub samples: Vec<f32>,
}

/// A place where the file could not be decoded; decoding went on after it where it could.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub stream: Option<usize>,
    /// The last good time before the fault.
    pub time_ms: Option<i64>,
    pub message: String,
}

#[derive(Debug)]
pub enum Event {
    Frame(Frame),
    Audio(Audio),
    Fault(Fault),
}

#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// Pictures a second to sample; every picture where it is not positive. A still yields one.
    pub fps: f64,
    pub video: bool,
    pub audio: bool,
    /// Threads for FFmpeg's decoders; 0 lets FFmpeg choose.
    pub threads: usize,
    /// The NVIDIA GPU that is to decode videos, by its CUDA number. Where it cannot, or breaks
    /// off, software decodes the same pictures, and [`DecoderUse`] says why.
    pub hardware: Option<usize>,
}

/// What decoded a video.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DecoderUse {
    pub kind: DecoderKind,
    /// Why the GPU did not decode it, or not to the end.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// The GPU's own decoder, from the first picture to the last.
    Nvdec,
    Software,
}

/// Bounds that keep one hostile file from harming the others.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Pixels in one picture.
    pub max_pixels: u64,
    /// Wall time for opening and probing.
    pub open_timeout: std::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // 8192 x 8192 is the largest picture that H.264 level 6.2 and most cameras know.
        Self { max_pixels: 8192 * 8192, open_timeout: std::time::Duration::from_secs(30) }
    }
}

/// Why a file could not be opened at all. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    #[error("{path}: cannot be read: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: not a regular file ({what})")]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("{path}: empty file")]
    Empty { path: PathBuf },
    #[error("{path}: no container or picture format is recognised in its content")]
    Unrecognised { path: PathBuf },
    #[error("{path}: damaged or cut short: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("{path}: no stream that can be decoded ({detail})")]
    NoStreams { path: PathBuf, detail: String },
    #[error("{path}: opening took longer than {seconds} s")]
    TimedOut { path: PathBuf, seconds: f64 },
    #[error("{path}: over the limit: {detail}")]
    Limit { path: PathBuf, detail: String },
}

impl MediaError {
    /// The code that the report carries.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "unreadable",
            Self::NotAFile { .. } => "not_a_file",
            Self::Empty { .. } => "empty",
            Self::Unrecognised { .. } => "unrecognised",
            Self::Damaged { .. } => "damaged",
            Self::NoStreams { .. } => "no_streams",
            Self::TimedOut { .. } => "timed_out",
            Self::Limit { .. } => "over_limit",
        }
    }
}
