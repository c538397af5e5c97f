//! Labels that stand in pictures as text, in files that FFmpeg makes.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are no tests to clippy

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A font with Chinese characters (`scripts/setup --test`).
const FONT: &str = "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc";

fn ffmpeg(arguments: &[&str], out: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y"]).args(arguments).arg(out);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Text of `size` pixels in half-transparent white.
fn text(text: &str, size: u32, place: &str, when: &str) -> String {
    format!(
        "drawtext=fontfile={FONT}:text='{text}':fontsize={size}:fontcolor=white@0.7:{place}{when}"
    )
}

const LOWER_RIGHT: &str = "x=w-tw-20:y=h-th-20";

fn scan(paths: &[PathBuf], path_variable: Option<&str>) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veriscope"));
    command.args(["scan", "--detectors", "label-strip", "--device", "cpu", "--format", "jsonl"]);
    command.args(paths);
    if let Some(path) = path_variable {
        command.env("PATH", path);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut reports: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let place = |report: &Value| {
        let of = report["media"]["path"].as_str().unwrap().to_owned();
        paths.iter().position(|path| path.to_str() == Some(&of)).unwrap()
    };
    reports.sort_by_key(place);
    reports
}

fn read(report: &Value) -> Vec<&Value> {
    let labels = report["labels"].as_array().unwrap();
    labels.iter().filter(|l| l["system"] == "explicit-text").collect()
}

#[test]
fn text_in_pictures_is_read_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let ground = "gradients=s=1280x720:c0=0x406080:c1=0x203040:seed=5:d=0.1";
    for (name, label) in [
        ("rule.png", text("AI生成", 48, LOWER_RIGHT, "")),
        ("small.jpg", text("豆包AI生成", 26, LOWER_RIGHT, "")),
        ("middle.png", text("AI生成", 48, "x=(w-tw)/2:y=h*0.14", "")),
        ("other.png", text("Hello", 48, LOWER_RIGHT, "")),
    ] {
        ffmpeg(&["-f", "lavfi", "-i", ground, "-vf", &label, "-frames:v", "1"], &file(name));
    }
    let names = ["rule.png", "small.jpg", "middle.png", "other.png"];
    let reports = scan(&names.map(file), None);
    let one = |i: usize| match read(&reports[i])[..] {
        [label] => label,
        ref other => panic!("{}: {other:?}", names[i]),
    };
    let rule = one(0);
    assert_eq!(rule["verdict"], "compliant", "{rule}");
    assert!(
        rule["region"]["x"].as_u64().unwrap() > 900 && rule["region"]["y"].as_u64().unwrap() > 600
    );
    assert_eq!(rule["start_ms"], Value::Null);
    assert_eq!(reports[0]["disposition"]["state"], "suspected");
    let small = one(1);
    assert!(small["content"].as_str().unwrap().contains("Doubao"), "{small}");
    assert_eq!(small["deviations"], serde_json::json!(["text_too_small"]));
    assert_eq!(one(2)["deviations"], serde_json::json!(["not_at_edge"]));
    assert!(read(&reports[3]).is_empty());
    assert_eq!(reports[3]["disposition"]["state"], "none");
}

#[test]
fn a_label_in_a_video_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let ground = "testsrc2=s=640x360:r=10:d=6,boxblur=6";
    for (name, when) in [("short.mp4", ":enable='lt(t,1.2)'"), ("whole.mp4", "")] {
        let label = text("AI生成", 36, LOWER_RIGHT, when);
        let from = format!("{ground},{label}");
        ffmpeg(&["-f", "lavfi", "-i", &from, "-pix_fmt", "yuv420p"], &file(name));
    }
    let reports = scan(&["short.mp4", "whole.mp4"].map(file), None);
    for (report, end, deviations) in
        [(&reports[0], 1_200, vec!["shown_too_short"]), (&reports[1], 6_000, vec![])]
    {
        let labels = read(report);
        assert_eq!(labels.len(), 1, "{labels:?}");
        assert_eq!(labels[0]["start_ms"], 0);
        let measured = labels[0]["end_ms"].as_i64().unwrap();
        assert!((measured - end).abs() <= 500, "{measured}");
        assert_eq!(labels[0]["deviations"], serde_json::json!(deviations), "{}", labels[0]);
    }
}

#[test]
fn without_tesseract_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.png");
    ffmpeg(&["-f", "lavfi", "-i", "color=gray:s=320x240:d=0.1", "-frames:v", "1"], &file);
    let reports = scan(&[file], Some("/nowhere"));
    let reasons = reports[0]["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|r| r["code"] == "text_not_read"), "{reasons:?}");
    assert!(reports[0]["engine"]["options"]["text_reader"].is_null());
}
