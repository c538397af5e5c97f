//! The main job, end to end, on the demo whose truth is known.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{PROGRAM, ffmpeg, root, scan, talking_head};
use veriscope::report::{
    DetectorKind, DispositionState, SCHEMA, SegmentVerdict, Status, TrackKind,
};

fn valid(report: &veriscope::report::Report) {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let value = serde_json::to_value(report).expect("reports are JSON");
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn the_demo_is_read_from_end_to_end() {
    let scan = scan(&[&root().join("demo")]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    let report = scan.report("talking-head.mp4");
    valid(report);
    assert_eq!(report.status, Status::Ok);
    let length = report.media.duration_ms.expect("a length");
    let faces: Vec<_> = report.tracks.iter().filter(|t| t.kind == TrackKind::Face).collect();
    assert!(!faces.is_empty(), "a face is followed");
    let seen: i64 = faces.iter().map(|t| t.end_ms - t.start_ms).sum();
    assert!(seen * 10 > length * 8, "the face is in sight all the time: {seen} of {length} ms");
    let speech = report.tracks.iter().find(|t| t.kind == TrackKind::Speech).expect("speech");
    assert!(speech.windows.len() > 5);
    // The map is that of the tier's first network.
    let side = if report.engine.options["tier"] == "accurate" { 12 } else { 9 };
    for segment in &report.segments {
        let face = segment.detector == DetectorKind::FaceSwap && segment.probability.is_some();
        assert_eq!(segment.heat_map.is_some(), face, "{segment:?}");
        if let Some(map) = &segment.heat_map {
            assert_eq!((map.columns, map.rows, map.values.len()), (side, side, side * side));
        }
        assert!(segment.start_ms <= segment.end_ms && segment.end_ms <= length + 500);
    }
}

#[test]
fn a_stripped_label_is_found_and_an_intact_one_is_not_taken_for_one() {
    let scan = scan(&[&root().join("demo"), &"--detectors", &"label-strip"]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    let stripped = scan.report("label-stripped.mp4");
    valid(stripped);
    assert!(!stripped.strip_evidence.is_empty());
    let found = stripped.segments.iter().find(|s| s.detector == DetectorKind::LabelStrip);
    assert_eq!(found.map(|s| s.verdict), Some(SegmentVerdict::Fake));
    let intact = scan
        .reports
        .iter()
        .find(|r| r.media.path.contains("label-intact"))
        .expect("the demo has an intact label");
    valid(intact);
    assert_eq!(intact.disposition.state, DispositionState::Confirmed);
    assert!(intact.strip_evidence.is_empty());
    assert!(intact.segments.iter().all(|s| s.verdict != SegmentVerdict::Fake));
}

#[test]
fn the_same_input_gives_the_same_report() {
    let reports: Vec<_> = (0..2)
        .map(|_| {
            let mut report = scan(&[&talking_head()]).reports.remove(0);
            report.timings = Default::default();
            report
        })
        .collect();
    assert_eq!(reports[0], reports[1]);
}

#[test]
fn sound_alone_and_pictures_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let demo = talking_head();
    let demo = demo.to_str().expect("UTF-8");
    let sound = ffmpeg(&["-i", demo, "-vn", "-c:a", "libmp3lame"], dir.path().join("voice.mp3"));
    let picture = ffmpeg(&["-i", demo, "-frames:v", "1"], dir.path().join("face.jpg"));
    let mute = ffmpeg(&["-i", demo, "-an", "-c:v", "copy", "-t", "4"], dir.path().join("mute.mkv"));
    let scan = scan(&[&sound, &picture, &mute]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    scan.reports.iter().for_each(valid);
    let kinds = |name: &str| -> Vec<TrackKind> {
        scan.report(name)
            .tracks
            .iter()
            .map(|t| t.kind)
            .filter(|k| *k != TrackKind::Labels)
            .collect()
    };
    // The demo has two voices, one of them made by a machine.
    assert_eq!(kinds("voice.mp3"), [TrackKind::Speech, TrackKind::Speech]);
    assert_eq!(kinds("face.jpg"), [TrackKind::Face]);
    assert_eq!(kinds("mute.mkv"), [TrackKind::Face]);
}

#[test]
fn an_altered_weights_file_stops_the_scan_before_it_starts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(root().join("weights")).expect("weights").flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
    }
    let victim = dir.path().join("face-swap-fast.safetensors");
    let mut bytes = std::fs::read(&victim).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).expect("a temporary file");
    let output = Command::new(PROGRAM)
        .args(["scan", "--weights"])
        .args([dir.path(), &talking_head()])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("face-swap-fast.safetensors"), "{stderr}");
}
