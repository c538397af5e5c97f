//! The report's schema (version 1) and its sinks. Knows no network and no FFmpeg.
//!
//! `report.schema.json` beside this file is the published JSON Schema; a test checks that every
//! report we write satisfies it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::media::{DecoderUse, MediaKind, StreamInfo};

pub mod inspection;
pub mod jsonl;
mod label;
pub mod store;
pub mod table;

pub use label::{Evidence, Label, LabelVerdict, Region, Seen};

#[cfg(test)]
pub(crate) mod samples;

pub const SCHEMA_VERSION: u32 = 1;

/// The published JSON Schema (draft 2020-12) of one [`Report`].
pub const SCHEMA: &str = include_str!("report.schema.json");

/// Where finished reports go, one after the other.
pub trait Sink {
    /// Writes one report and flushes it, so that nothing that was said to be done is lost.
    fn report(&mut self, report: &Report) -> std::io::Result<()>;
    /// Writes what comes after the last report.
    fn finish(&mut self, totals: &Totals) -> std::io::Result<()>;
}

/// A path as reports carry it: as it is where it is UTF-8, otherwise with the bytes that are not
/// written as `\\xHH`, so that two files never get one name.
pub fn path_text(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text += chunk.valid();
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// What a whole scan came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files by the status of their report.
    pub ok: usize,
    pub partial: usize,
    pub failed: usize,
    /// Files found in folders that hold no media.
    pub not_media: usize,
    /// Reports among the above that were taken from the store or from another path with the same
    /// content.
    pub reused: usize,
    /// Segments judged to be fake, by detector.
    pub fakes: BTreeMap<DetectorKind, usize>,
}

impl Totals {
    /// Counts one report.
    pub fn add(&mut self, report: &Report) {
        match report.status {
            Status::Ok => self.ok += 1,
            Status::Partial => self.partial += 1,
            Status::Failed => self.failed += 1,
        }
        for segment in report.segments.iter().filter(|s| s.verdict == SegmentVerdict::Fake) {
            *self.fakes.entry(segment.detector).or_default() += 1;
        }
    }
}

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

impl Report {
    /// The report of a file of which nothing could be judged. `message` is one line that begins
    /// with the path.
    pub fn failed(path: &str, code: &str, message: String, engine: EngineInfo) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            status: Status::Failed,
            error: Some(Failure { code: code.into(), message, time_ms: None }),
            media: Media {
                path: path.into(),
                sha256: None,
                bytes: None,
                container: None,
                kind: None,
                duration_ms: None,
                streams: Vec::new(),
            },
            tracks: Vec::new(),
            segments: Vec::new(),
            labels: Vec::new(),
            strip_evidence: Vec::new(),
            disposition: Disposition {
                state: DispositionState::Undetermined,
                evidence: Vec::new(),
            },
            reasons: Vec::new(),
            engine,
            timings: Timings::default(),
        }
    }

    /// The same report for another path with the same content: the path is replaced where the
    /// report names it.
    pub fn with_path(mut self, path: &str) -> Self {
        if let Some(error) = &mut self.error
            && let Some(rest) = error.message.strip_prefix(self.media.path.as_str())
        {
            error.message = format!("{path}{rest}");
        }
        self.media.path = path.into();
        self
    }
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
    /// `over_limit`, `timed_out`, `decode_error`, `inference_error`, `internal_error`, `crashed`
    /// (the server died while it judged the file, again and again).
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

/// One face followed through time, one speaker of a speech stream, or the file's labels.
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
    /// The same averaged with its neighbours' (their log-odds, by nearness and quality): what
    /// segments are cut from and timelines draw.
    pub smoothed: f32,
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
    /// Where the face was altered; for judged faces only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_map: Option<HeatMap>,
}

/// Where on a face crop something was altered: a grid over the crop, which reaches from the
/// forehead to the chin and a little beyond the cheeks, upright as the picture shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    pub columns: usize,
    pub rows: usize,
    /// How likely each cell was altered, 0 to 1, averaged over the segment's windows as its
    /// probability is: row by row from the top left.
    pub values: Vec<f32>,
}

/// The parts of a face from the top of its crop down, and where each ends as a share of the crop's
/// height. In training crops eyes lie at 0.28, the nose's tip at 0.50 and the mouth at 0.70
/// (medians).
const PARTS: [(&str, f32); 5] =
    [("forehead", 0.2), ("eyes", 0.4), ("nose", 0.6), ("mouth", 0.8), ("chin", 1.0)];
/// A map that nowhere reaches this singles out no place.
const LEAST_HEAT: f32 = 0.25;
/// A part is named where its mean is at least this share of the hottest part's.
const NEAR_HOTTEST: f32 = 0.8;
/// A side is named where it is hotter than the other by this.
const ONE_SIDED: f32 = 1.5;

impl HeatMap {
    /// Where most was altered, in words: `mouth and chin`, `the whole face`, `eyes, left side`
    /// (the picture's left). `None` where no place stands out from a face at rest.
    pub fn place(&self) -> Option<String> {
        if self.columns == 0 || self.values.len() != self.columns * self.rows {
            return None;
        }
        let rows: Vec<&[f32]> = self.values.chunks_exact(self.columns).collect();
        let mean = |cells: &mut dyn Iterator<Item = f32>| {
            let (n, sum) = cells.fold((0.0, 0.0), |(n, sum), cell| (n + 1.0f32, sum + cell));
            if n > 0.0 { sum / n } else { 0.0 }
        };
        let mut top = 0.0;
        let parts: Vec<(&str, &[&[f32]])> = PARTS
            .iter()
            .map(|&(name, end)| {
                let row = |share: f32| (share * self.rows as f32).round() as usize;
                let part = &rows[row(top)..row(end).min(rows.len())];
                top = end;
                (name, part)
            })
            .collect();
        // Ears and what lies beside the face dilute every part alike.
        let edge = self.columns / 6;
        let inner = edge..self.columns - edge;
        let heat = |part: &[&[f32]]| {
            mean(&mut part.iter().flat_map(|row| row[inner.clone()].iter().copied()))
        };
        let hottest = parts.iter().map(|(_, part)| heat(part)).fold(0.0, f32::max);
        if hottest < LEAST_HEAT {
            return None;
        }
        let named: Vec<_> =
            parts.iter().filter(|(_, part)| heat(part) >= NEAR_HOTTEST * hottest).collect();
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let mut text = match names.as_slice() {
            [most @ .., last] if !most.is_empty() && names.len() < 4 => {
                format!("{} and {last}", most.join(", "))
            }
            [one] => (*one).to_owned(),
            _ => "the whole face".to_owned(),
        };
        let half = |columns: std::ops::Range<usize>| {
            let rows = named.iter().flat_map(|(_, part)| part.iter());
            mean(&mut rows.flat_map(|row| row[columns.clone()].iter().copied()))
        };
        let middle = self.columns / 2;
        let left = half(0..middle);
        let right = half(self.columns - middle..self.columns);
        if left > ONE_SIDED * right {
            text += ", left side";
        } else if right > ONE_SIDED * left {
            text += ", right side";
        }
        Some(text)
    }
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
    ManifestNotVerified,
    WatermarkNotRead,
    TextNotRead,
    TextReaderFailed,
    DeviceLost,
}

impl Reason {
    pub fn new(code: ReasonCode, detail: String) -> Self {
        Self { code, detail }
    }
}

impl ReasonCode {
    /// As in reports.
    pub fn name(self) -> String {
        let json = serde_json::to_value(self).ok();
        json.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The code in plain words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoFace => "no face",
            Self::FaceTooSmall => "face too small",
            Self::TooBlurred => "too blurred",
            Self::TooCompressed => "too compressed",
            Self::ExtremePose => "face turned away",
            Self::NoSpeech => "no speech",
            Self::TooShort => "too short",
            Self::BandLimited => "narrow band of sound",
            Self::Clipped => "sound clipped",
            Self::Music => "music",
            Self::OutOfDomain => "unlike anything known",
            Self::DecodeError => "cannot be decoded",
            Self::NoVideo => "no pictures",
            Self::NoAudio => "no sound",
            Self::InferenceError => "scoring failed",
            Self::UnreadContainer => "labels not read here",
            Self::LabelsPartlyRead => "labels partly read",
            Self::ManifestNotVerified => "manifest not verified",
            Self::WatermarkNotRead => "watermark not read",
            Self::TextNotRead => "text in pictures not read",
            Self::TextReaderFailed => "text in pictures not read",
            Self::DeviceLost => "device lost",
        }
    }
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
    /// `cpu`, or `cuda:0` and the GPU's name; both with ` + ` between them where the GPU was lost
    /// on the way.
    pub device: String,
    /// Why the CPU was taken although the program can use a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_note: Option<String>,
    /// What decoded the pictures; only where a GPU was to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderUse>,
    /// The options that can change a result.
    pub options: BTreeMap<String, serde_json::Value>,
}

/// Wall time in milliseconds. The only part of a report that differs from run to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    pub total_ms: u64,
    pub hash_ms: u64,
    pub labels_ms: u64,
    /// Reading text in pictures, once they are decoded.
    #[serde(default)]
    pub text_ms: u64,
    pub decode_ms: u64,
    pub frames: u64,
    pub face_windows: u64,
    pub voice_windows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn validator() -> jsonschema::Validator {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        jsonschema::draft202012::meta::validate(&schema).unwrap();
        jsonschema::draft202012::new(&schema).unwrap()
    }

    #[test]
    fn reports_of_every_shape_satisfy_the_schema() {
        let validator = validator();
        for report in samples::all() {
            let value = serde_json::to_value(&report).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", report.media.path);
        }
    }

    #[test]
    fn altered_reports_are_refused() {
        let validator = validator();
        let good = serde_json::to_value(samples::video()).unwrap();
        assert!(validator.is_valid(&good));
        let set = |pointer: &str, value: Value| {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            bad
        };
        let without = |parent: &str, field: &str| {
            let mut bad = good.clone();
            bad.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
            bad
        };
        let mut added = good.clone();
        added["extra"] = json!(1);
        for (what, bad) in [
            ("missing field", without("", "disposition")),
            ("missing inner field", without("/segments/1", "peak_ms")),
            ("field too many", added),
            ("probability over 1", set("/segments/1/probability", json!(1.5))),
            ("window below 0", set("/tracks/0/windows/0/probability", json!(-0.1))),
            ("uncertainty over 0.5", set("/segments/1/uncertainty", json!(0.6))),
            ("cell over 1", set("/segments/1/heat_map/values/4", json!(1.2))),
            ("no columns", set("/segments/1/heat_map/columns", json!(0))),
            ("map without rows", without("/segments/1/heat_map", "rows")),
            ("region without height", without("/labels/1/region", "h")),
            ("region outside", set("/labels/1/region/x", json!(-1))),
            ("unknown reason", set("/reasons/0/code", json!("bad_weather"))),
            ("unknown verdict", set("/segments/1/verdict", json!("perhaps"))),
            ("short sha256", set("/media/sha256", json!("cdcd"))),
            ("text for a number", set("/media/duration_ms", json!("60000"))),
            ("other version", set("/schema_version", json!(2))),
            (
                "ok with an error",
                set("/error", serde_json::to_value(samples::failed().error).unwrap()),
            ),
            ("failed without an error", set("/status", json!("failed"))),
        ] {
            assert!(!validator.is_valid(&bad), "accepted: {what}");
        }
    }

    #[test]
    fn every_code_of_the_program_is_in_the_schema() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let codes = |pointer: &str| schema.pointer(pointer).unwrap().as_array().unwrap().clone();
        let reasons = codes("/$defs/reason/properties/code/enum");
        use ReasonCode::*;
        let ours = [
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
            ManifestNotVerified,
            WatermarkNotRead,
            TextNotRead,
            TextReaderFailed,
            DeviceLost,
        ];
        // Breaks the build where a code is added without its line here.
        for code in ours {
            match code {
                NoFace | FaceTooSmall | TooBlurred | TooCompressed | ExtremePose | NoSpeech
                | TooShort | BandLimited | Clipped | Music | OutOfDomain | DecodeError
                | NoVideo | NoAudio | InferenceError | UnreadContainer | LabelsPartlyRead
                | ManifestNotVerified | WatermarkNotRead | TextNotRead | TextReaderFailed
                | DeviceLost => {}
            }
        }
        let ours: Vec<Value> = ours.iter().map(|c| serde_json::to_value(c).unwrap()).collect();
        assert_eq!(reasons, ours);
        let detectors = codes("/$defs/segment/properties/detector/enum");
        assert_eq!(detectors, DetectorKind::ALL.map(|d| json!(d.name())));
    }

    #[test]
    fn a_region_says_where() {
        let words = |x, y, w, h| Region { x, y, w, h }.words(1920, 1080);
        assert_eq!(words(1560, 960, 320, 90), "lower right");
        assert_eq!(words(0, 0, 10, 10), "upper left");
        assert_eq!(words(0, 1000, 1920, 80), "lower centre");
        assert_eq!(words(900, 500, 120, 80), "centre");
        assert_eq!(words(u32::MAX, u32::MAX, u32::MAX, u32::MAX), "lower right");
        assert_eq!(Region { x: 0, y: 0, w: 0, h: 0 }.words(0, 0), "upper left");
    }

    #[test]
    fn a_heat_map_says_where() {
        let place = |hot: &dyn Fn(usize, usize) -> bool| {
            let cell = |i: usize| if hot(i / 9, i % 9) { 0.8 } else { 0.1 };
            HeatMap { columns: 9, rows: 9, values: (0..81).map(cell).collect() }.place()
        };
        assert_eq!(place(&|y, _| y >= 5).as_deref(), Some("mouth and chin"));
        assert_eq!(place(&|y, _| (2..4).contains(&y)).as_deref(), Some("eyes"));
        assert_eq!(place(&|y, x| y >= 2 && (1..8).contains(&x)).as_deref(), Some("the whole face"));
        assert_eq!(place(&|y, x| y >= 7 && x < 4).as_deref(), Some("chin, left side"));
        assert_eq!(
            place(&|y, x| (4..7).contains(&y) && x > 4).as_deref(),
            Some("nose and mouth, right side")
        );
        assert_eq!(place(&|_, _| false), None);
        let bad = HeatMap { columns: 3, rows: 2, values: vec![1.0] };
        assert_eq!(bad.place(), None);
    }

    #[test]
    fn paths_that_are_not_utf8_stay_apart() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let text = |bytes: &[u8]| path_text(std::path::Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(text("电影/a b.mp4".as_bytes()), "电影/a b.mp4");
        assert_eq!(text(b"a\xff.mp4"), "a\\xff.mp4");
        assert_ne!(text(b"a\xff.mp4"), text(b"a\xfe.mp4"));
    }

    #[test]
    fn a_report_moves_to_another_path_with_its_message() {
        let moved = samples::partial().with_path("x/y.flac");
        assert_eq!(moved.media.path, "x/y.flac");
        assert!(moved.error.unwrap().message.starts_with("x/y.flac: stream 0"));
    }
}
