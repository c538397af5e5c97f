//! The report's schema (version 1) and its sinks. Knows no network and no FFmpeg.
//!
//! `report.schema.json` beside this file is the published JSON Schema; a test checks that every
//! report we write satisfies it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::media::{MediaKind, StreamInfo};

pub const SCHEMA_VERSION: u32 = 1;

/// Everything that is known about one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema_version: u32,
    pub status: Status,
    /// Why the file could not be scanned, or where scanning broke off.
    pub error: Option<Failure>,
    pub media: Media,
    pub tracks: Vec<Track>,
    /// In order of track, then time. Detectors stand side by side, never averaged.
    pub segments: Vec<Segment>,
    pub labels: Vec<Label>,
    pub strip_evidence: Vec<Evidence>,
    pub disposition: Disposition,
    /// What holds for the file as a whole.
    pub reasons: Vec<Reason>,
    pub engine: EngineInfo,
    pub timings: Timings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Read from start to end.
    Ok,
    /// A part could not be decoded; the rest was judged.
    Partial,
    /// Nothing could be judged.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code: `unreadable`, `not_a_file`, `empty`, `unrecognised`, `damaged`, `no_streams`,
    /// `over_limit`, `decode_error`, `inference_error`.
    pub code: String,
    /// One line that names the file and the place.
    pub message: String,
    pub time_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Media {
    pub path: String,
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
    pub container: Option<String>,
    pub kind: Option<MediaKind>,
    pub duration_ms: Option<i64>,
    pub streams: Vec<StreamInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    Face,
    Speech,
    Labels,
}

/// One face followed through time, one speech stream, or the file's labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// `face-1`, `speech-1`, `labels`.
    pub id: String,
    pub kind: TrackKind,
    /// Index of the container's stream; none for labels.
    pub stream: Option<usize>,
    pub start_ms: i64,
    pub end_ms: i64,
    /// Where a face was, about once a second, in pixels of the upright picture.
    pub boxes: Vec<TimedBox>,
    /// Calibrated probability of each judged window, in order of time.
    pub windows: Vec<WindowScore>,
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimedBox {
    pub time_ms: i64,
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
}

/// One window's stretch of time and its calibrated probability of being fake, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowScore {
    pub start_ms: i64,
    pub end_ms: i64,
    pub probability: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetectorKind {
    FaceSwap,
    VoiceClone,
    LabelStrip,
}

impl DetectorKind {
    pub const ALL: [Self; 3] = [Self::FaceSwap, Self::VoiceClone, Self::LabelStrip];

    pub fn name(self) -> &'static str {
        match self {
            Self::FaceSwap => "face-swap",
            Self::VoiceClone => "voice-clone",
            Self::LabelStrip => "label-strip",
        }
    }
}

/// Windows of one track merged into a stretch of time with one calibrated probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    pub track: String,
    pub detector: DetectorKind,
    pub start_ms: i64,
    pub end_ms: i64,
    /// Probability of being fake, 0 to 1; none where `reasons` says why it was not judged.
    pub probability: Option<f32>,
    /// Half width of the 90 % interval around the probability, 0 to 0.5.
    pub uncertainty: Option<f32>,
    /// The moment that speaks most for a fake.
    pub peak_ms: Option<i64>,
    pub peak_probability: Option<f32>,
    pub verdict: SegmentVerdict,
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentVerdict {
    /// Probability at or above the detector's threshold for good.
    Fake,
    /// Below it for good.
    Bonafide,
    /// "I can't tell": the interval spans the threshold, or nothing could be judged.
    Undetermined,
}

/// A coded cause why something was not or only weakly judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    pub code: ReasonCode,
    /// One sentence for people, with the figure that led to it.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasonCode {
    NoFace,
    FaceTooSmall,
    TooBlurred,
    TooCompressed,
    ExtremePose,
    NoSpeech,
    TooShort,
    BandLimited,
    Clipped,
    Music,
    OutOfDomain,
    DecodeError,
    NoVideo,
    NoAudio,
    InferenceError,
    UnreadContainer,
    LabelsPartlyRead,
}

/// A statement about origin that the file carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// `aigc`, `c2pa`, `iptc`, `generator-trace`, …
    pub system: String,
    /// Where in the file: `moov.udta.meta.ilst[AIGC]`, `tEXt:AIGC`, with a byte offset.
    pub place: String,
    /// What it says, cut at 4 KiB.
    pub content: String,
    pub verdict: LabelVerdict,
    /// Each way in which it departs from the rule, coded.
    pub deviations: Vec<String>,
    /// Whether it says that AI made or changed the content; none where it says nothing of it.
    pub ai: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelVerdict {
    Compliant,
    Noncompliant,
    NotFound,
    Inconclusive,
}

/// What shows that a label was there and is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Stable code, such as `label_bytes_in_free_box`.
    pub kind: String,
    pub place: String,
    /// Log-odds that this evidence adds to "a label was taken off".
    pub weight: f32,
    pub detail: String,
}

/// What a platform has to do (Measures for labeling AI-generated synthetic content, Art. 6, as
/// reported).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disposition {
    pub state: DispositionState,
    /// The evidence that the state rests on, one line each.
    pub evidence: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DispositionState {
    Confirmed,
    Possible,
    Suspected,
    None,
    Undetermined,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineInfo {
    pub version: String,
    /// Network name to sha256 of its weights.
    pub weights: BTreeMap<String, String>,
    pub device: String,
    /// The options that can change a result.
    pub options: BTreeMap<String, serde_json::Value>,
}

/// Wall time in milliseconds. The only part of a report that differs from run to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    pub total_ms: u64,
    pub hash_ms: u64,
    pub labels_ms: u64,
    pub decode_ms: u64,
    pub frames: u64,
    pub face_windows: u64,
    pub voice_windows: u64,
}
