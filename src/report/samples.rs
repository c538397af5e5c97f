//! Reports of every shape, for tests.

use std::collections::BTreeMap;

use super::*;
use crate::media::{DecoderKind, StreamKind};

pub fn engine() -> EngineInfo {
    EngineInfo {
        version: "0.1.0".into(),
        weights: BTreeMap::from([("face-lite".to_string(), "ab".repeat(32))]),
        device: "cpu".into(),
        device_note: None,
        decoder: None,
        options: BTreeMap::from([("fps".to_string(), serde_json::json!(4.0))]),
    }
}

fn stream(index: usize, kind: StreamKind, codec: &str) -> StreamInfo {
    let video = kind == StreamKind::Video;
    StreamInfo {
        index,
        kind,
        codec: codec.into(),
        duration_ms: Some(60_000),
        language: Some("eng".into()),
        width: video.then_some(1920),
        height: video.then_some(1080),
        rotation: video.then_some(0),
        frame_rate: video.then_some(25.0),
        sample_rate: (!video).then_some(48_000),
        channels: (!video).then_some(2),
        bit_rate: Some(1_200_000),
    }
}

fn reason(code: ReasonCode, detail: &str) -> Reason {
    Reason { code, detail: detail.into() }
}

fn segment(
    track: &str,
    detector: DetectorKind,
    ms: (i64, i64),
    p: f32,
    v: SegmentVerdict,
) -> Segment {
    Segment {
        track: track.into(),
        detector,
        start_ms: ms.0,
        end_ms: ms.1,
        probability: Some(p),
        uncertainty: Some(0.05),
        peak_ms: Some((ms.0 + ms.1) / 2),
        peak_probability: Some((p + 0.02).min(1.0)),
        verdict: v,
        reasons: Vec::new(),
        heat_map: (detector == DetectorKind::FaceSwap).then(|| heat_map(p)),
    }
}

/// Hot from the mouth down.
fn heat_map(p: f32) -> HeatMap {
    let cell = |i: usize| if i / 9 >= 5 { 0.9 * p } else { 0.1 };
    HeatMap { columns: 9, rows: 9, values: (0..81).map(cell).collect() }
}

/// Windows of `step` ms from `ms.0` to `ms.1`, each with the probability that `p` gives it.
pub fn windows(ms: (i64, i64), step: usize, p: impl Fn(i64) -> f32) -> Vec<WindowScore> {
    (ms.0..ms.1)
        .step_by(step)
        .map(|t| WindowScore {
            start_ms: t,
            end_ms: (t + step as i64).min(ms.1),
            probability: p(t),
            smoothed: p(t),
        })
        .collect()
}

/// A minute of video: one face swapped from 12 s to 18 s, one face too small, a voice cloned in
/// two places, a label that was taken off.
pub fn video() -> Report {
    let mut report = Report::failed("clips/interview.mp4", "damaged", String::new(), engine());
    report.status = Status::Ok;
    report.error = None;
    report.media = Media {
        path: "clips/interview.mp4".into(),
        sha256: Some("cd".repeat(32)),
        bytes: Some(12_345_678),
        container: Some("mov,mp4,m4a,3gp,3g2,mj2".into()),
        kind: Some(MediaKind::Video),
        duration_ms: Some(60_000),
        streams: vec![stream(0, StreamKind::Video, "h264"), stream(1, StreamKind::Audio, "aac")],
    };
    let small = reason(ReasonCode::FaceTooSmall, "The face is 31 px wide; 48 px are needed.");
    report.tracks = vec![
        Track {
            id: "face-1".into(),
            kind: TrackKind::Face,
            stream: Some(0),
            start_ms: 0,
            end_ms: 50_000,
            boxes: vec![TimedBox { time_ms: 0, x: 800.0, y: 200.0, w: 240.0, h: 300.0 }],
            windows: windows((0, 50_000), 250, |t| match t {
                12_000..18_000 => 0.95,
                11_000..12_000 | 18_000..19_000 => 0.55,
                _ => 0.04,
            }),
            reasons: Vec::new(),
        },
        Track {
            id: "face-2".into(),
            kind: TrackKind::Face,
            stream: Some(0),
            start_ms: 30_000,
            end_ms: 45_000,
            boxes: Vec::new(),
            windows: Vec::new(),
            reasons: vec![small.clone()],
        },
        Track {
            id: "speech-1".into(),
            kind: TrackKind::Speech,
            stream: Some(1),
            start_ms: 1_000,
            end_ms: 59_000,
            boxes: Vec::new(),
            windows: [
                windows((1_000, 9_000), 4_000, |_| 0.1),
                windows((20_000, 28_000), 4_000, |_| 0.9),
                windows((30_000, 42_000), 4_000, |_| 0.3),
                windows((50_000, 58_000), 4_000, |_| 0.8),
            ]
            .concat(),
            reasons: Vec::new(),
        },
    ];
    let mut undetermined = segment(
        "face-2",
        DetectorKind::FaceSwap,
        (30_000, 45_000),
        0.0,
        SegmentVerdict::Undetermined,
    );
    undetermined.probability = None;
    undetermined.uncertainty = None;
    undetermined.peak_ms = None;
    undetermined.peak_probability = None;
    undetermined.heat_map = None;
    undetermined.reasons = vec![small];
    use DetectorKind::{FaceSwap, VoiceClone};
    use SegmentVerdict::{Bonafide, Fake};
    report.segments = vec![
        segment("face-1", FaceSwap, (0, 12_000), 0.04, Bonafide),
        segment("face-1", FaceSwap, (12_000, 18_000), 0.93, Fake),
        segment("face-1", FaceSwap, (18_000, 50_000), 0.04, Bonafide),
        undetermined,
        segment("speech-1", VoiceClone, (1_000, 9_000), 0.1, Bonafide),
        segment("speech-1", VoiceClone, (20_000, 28_000), 0.9, Fake),
        segment("speech-1", VoiceClone, (30_000, 42_000), 0.3, Bonafide),
        segment("speech-1", VoiceClone, (50_000, 58_000), 0.8, Fake),
    ];
    report.labels = vec![Label {
        system: "aigc".into(),
        place: "moov.udta.meta.ilst[AIGC] at byte 4096".into(),
        content: "{\"AIGC\":{\"Label\":\"1\",\"ContentProducer\":\"豆包\"}}".into(),
        verdict: LabelVerdict::Noncompliant,
        deviations: vec!["producer_characters".into(), "missing_produce_id".into()],
        ai: Some(true),
        seen: Seen::default(),
    }];
    report.labels.push(Label {
        system: "explicit-text".into(),
        place: "pictures".into(),
        content: "豆包AI生成".into(),
        verdict: LabelVerdict::Noncompliant,
        deviations: vec!["text_too_small".into()],
        ai: Some(true),
        seen: Seen {
            region: Some(Region { x: 1560, y: 960, w: 320, h: 40 }),
            start_ms: Some(0),
            end_ms: Some(58_000),
        },
    });
    report.strip_evidence = vec![Evidence {
        kind: "label_bytes_in_free_box".into(),
        place: "free at byte 81234".into(),
        weight: 3.2,
        detail: "A free box still holds 212 bytes of an AIGC label.".into(),
        seen: Seen::default(),
    }];
    report.disposition = Disposition {
        state: DispositionState::Confirmed,
        evidence: vec!["AIGC label in moov.udta.meta says Label 1".into()],
    };
    report.reasons =
        vec![reason(ReasonCode::TooCompressed, "Faces are coded at 0.03 bits a pixel.")];
    report.timings = Timings { total_ms: 4200, frames: 240, ..Timings::default() };
    report
}

/// A sound file that breaks off at 31 s.
pub fn partial() -> Report {
    let mut report = Report::failed("b/talk.flac", "damaged", String::new(), engine());
    report.status = Status::Partial;
    report.error = Some(Failure {
        code: "decode_error".into(),
        message: "b/talk.flac: stream 0 cannot be decoded after 31.000 s: invalid data".into(),
        time_ms: Some(31_000),
    });
    report.media.sha256 = Some("ef".repeat(32));
    report.media.kind = Some(MediaKind::Audio);
    report.media.container = Some("flac".into());
    report.media.duration_ms = Some(90_000);
    report.media.streams = vec![stream(0, StreamKind::Audio, "flac")];
    report.tracks = vec![Track {
        id: "speech-1".into(),
        kind: TrackKind::Speech,
        stream: Some(0),
        start_ms: 0,
        end_ms: 31_000,
        boxes: Vec::new(),
        windows: windows((0, 31_000), 4_000, |_| 0.06),
        reasons: Vec::new(),
    }];
    report.segments = vec![segment(
        "speech-1",
        DetectorKind::VoiceClone,
        (0, 31_000),
        0.06,
        SegmentVerdict::Bonafide,
    )];
    report.reasons = vec![reason(ReasonCode::DecodeError, "Nothing after 31.000 s was read.")];
    report
}

/// A text file that calls itself a film.
pub fn failed() -> Report {
    Report::failed(
        "c/notes.mp4",
        "unrecognised",
        "c/notes.mp4: no container or picture format is recognised in its content".into(),
        engine(),
    )
}

/// A picture with a swapped face and one that is real.
pub fn picture() -> Report {
    let mut report = Report::failed("d/group.png", "damaged", String::new(), engine());
    report.status = Status::Ok;
    report.error = None;
    report.media.sha256 = Some("01".repeat(32));
    report.media.bytes = Some(400_000);
    report.media.kind = Some(MediaKind::Image);
    report.media.container = Some("png_pipe".into());
    report.media.duration_ms = Some(0);
    report.media.streams = vec![stream(0, StreamKind::Video, "png")];
    let mut add = |id: &str, x: f32, p: f32, verdict: SegmentVerdict| {
        report.tracks.push(Track {
            id: id.into(),
            kind: TrackKind::Face,
            stream: Some(0),
            start_ms: 0,
            end_ms: 0,
            boxes: vec![TimedBox { time_ms: 0, x, y: 90.0, w: 120.0, h: 150.0 }],
            windows: vec![WindowScore { start_ms: 0, end_ms: 0, probability: p, smoothed: p }],
            reasons: Vec::new(),
        });
        report.segments.push(segment(id, DetectorKind::FaceSwap, (0, 0), p, verdict));
    };
    add("face-1", 100.0, 0.88, SegmentVerdict::Fake);
    add("face-2", 700.0, 0.03, SegmentVerdict::Bonafide);
    report.disposition.state = DispositionState::Suspected;
    report.disposition.evidence = vec!["face-1 is swapped with p 0.88".into()];
    report
}

/// The same, scanned by a GPU that was lost on the way.
pub fn lost() -> Report {
    let mut report = picture();
    report.engine.device = "cuda:0 NVIDIA H200 + cpu".into();
    report.engine.device_note = Some("device cuda:0 is not available: no driver".into());
    report.engine.decoder = Some(DecoderUse {
        kind: DecoderKind::Software,
        reason: Some("png: FFmpeg has no NVDEC decoder for it".into()),
    });
    report.reasons.push(reason(ReasonCode::DeviceLost, "cuda:0 NVIDIA H200 was lost: unplugged"));
    report
}

pub fn all() -> Vec<Report> {
    vec![video(), partial(), failed(), picture(), lost()]
}
