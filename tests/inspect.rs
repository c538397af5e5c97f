//! `veriscope inspect` as people and programs call it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{PROGRAM, ffmpeg, root, run_within};
use veriscope::report::inspection::Inspection;
use veriscope::report::{DispositionState, LabelVerdict, Report, SegmentVerdict, Status};

fn run(args: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("inspect").args(args).args(files).env_remove("COLUMNS").env_remove("RUST_LOG");
    let output = run_within(Duration::from_secs(120), command);
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The objects of the JSONL output, by path.
fn read(output: &Output) -> Vec<Inspection> {
    let mut all: Vec<Inspection> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

fn jsonl(args: &[&str], files: &[&Path]) -> Vec<Inspection> {
    let args: Vec<&str> = ["--format", "jsonl"].iter().chain(args).copied().collect();
    read(&run(&args, files))
}

fn one(args: &[&str], file: &Path) -> Inspection {
    let mut all = jsonl(args, &[file]);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn the_demo_for_people() {
    let demo = root().join("demo");
    let output = run(&["--ascii"], &[&demo.join("label-intact.png")]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    for line in ["aigc, says AI", "Label           1", "nothing shows that a label was taken off"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("disposition confirmed"), "{said}");
    let output = run(&["--ascii"], &[&demo.join("label-stripped.mp4")]);
    let said = text(&output.stdout);
    for line in ["label gone  ", "label-strip a label was taken off  p 0.", "disposition suspected"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
}

/// One object a file, with the types and the values of the report of `scan`.
#[test]
fn it_says_what_scan_says() {
    let demo = root().join("demo");
    let mut command = Command::new(PROGRAM);
    command.args(["scan", "--detectors", "label-strip", "--format", "jsonl"]).arg(&demo);
    let scan = run_within(Duration::from_secs(120), command);
    let reports: Vec<Report> =
        text(&scan.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let inspected = jsonl(&["--jobs", "2"], &[&demo]);
    assert_eq!(inspected.len(), 3);
    for this in &inspected {
        let report = reports.iter().find(|r| r.media.path == this.path).unwrap();
        assert_eq!(this.labels, report.labels);
        assert_eq!(this.strip_evidence, report.strip_evidence);
        assert_eq!(this.disposition, report.disposition);
        let segment = &report.segments[0];
        let judged = this.label_strip.as_ref().unwrap();
        assert_eq!((judged.probability, judged.verdict), (segment.probability, segment.verdict));
        assert_eq!(this.status, Status::Ok);
    }
}

#[test]
fn folders_are_walked_and_a_broken_file_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::copy(root().join("demo/label-intact.png"), at("good.png")).unwrap();
    fs::create_dir(at("inner")).unwrap();
    fs::copy(root().join("demo/label-stripped.mp4"), at("inner/stripped.mp4")).unwrap();
    fs::write(at("notes.txt"), "no media").unwrap();
    fs::write(at("words.mp4"), "no media, though it says so").unwrap();
    fs::write(at("empty.wav"), "").unwrap();
    let whole = fs::read(root().join("demo/label-intact.png")).unwrap();
    fs::write(at("cut.png"), &whole[..whole.len() / 2]).unwrap();

    let output = run(&["--format", "jsonl"], &[dir.path()]);
    assert_eq!(output.status.code(), Some(1));
    let all = read(&output);
    let code = |name: &str| {
        let this = all.iter().find(|i| i.path.ends_with(name)).unwrap();
        (this.status, this.error.as_ref().map_or("", |e| e.code.as_str()).to_owned())
    };
    assert_eq!(all.len(), 5, "{all:?}");
    assert_eq!(code("good.png"), (Status::Ok, String::new()));
    assert_eq!(code("inner/stripped.mp4"), (Status::Ok, String::new()));
    assert_eq!(code("words.mp4"), (Status::Failed, "unread_container".into()));
    assert_eq!(code("empty.wav"), (Status::Failed, "empty".into()));
    assert_eq!(code("cut.png"), (Status::Partial, "partly_read".into()));
    let said = text(&output.stderr);
    for name in ["words.mp4", "empty.wav", "cut.png"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("1 files in folders skipped"), "{said}");

    // Named, it was meant.
    let output = run(&[], &[&at("notes.txt"), &at("none.png")]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("(unread_container)") && said.contains("(unreadable)"), "{said}");
}

#[test]
fn a_declaration_is_evidence_where_no_label_says_it() {
    let dir = tempfile::tempdir().unwrap();
    let plain = ffmpeg(
        &["-f", "lavfi", "-i", "color=gray:size=64x64", "-frames:v", "1"],
        dir.path().join("plain.png"),
    );
    assert_eq!(one(&[], &plain).disposition.state, DispositionState::None);
    let declared = one(&["--declared-ai"], &plain).disposition;
    assert_eq!(declared.state, DispositionState::Possible);
    assert_eq!(declared.evidence, ["the uploader declared it to be made by AI"]);
    let labelled = root().join("demo/label-intact.png");
    assert_eq!(one(&["--declared-ai"], &labelled).disposition.state, DispositionState::Confirmed);
    // And so says scan, whether or not labels are read.
    for detectors in ["label-strip", "voice-clone"] {
        let mut command = Command::new(PROGRAM);
        command.args(["scan", "--format", "jsonl", "--declared-ai", "--detectors", detectors]);
        command.arg(&plain);
        let output = run_within(Duration::from_secs(120), command);
        let report: Report = serde_json::from_str(&text(&output.stdout)).unwrap();
        assert_eq!(report.disposition.state, DispositionState::Possible, "{detectors}");
        assert_eq!(report.engine.options["declared_ai"], true);
    }
}

#[test]
fn what_wrote_a_file_is_told_and_says_nothing_of_ai() {
    let dir = tempfile::tempdir().unwrap();
    for (name, codec, muxed) in [
        ("a.mp4", "libx264", "Lavf"),
        ("b.mkv", "libx264", "Lavf"),
        ("c.flv", "libx264", "Lavf"),
        ("d.avi", "libx264", "Lavf"),
        ("e.mp4", "libx265", "Lavf"),
        ("f.mkv", "libx265", "Lavf"),
        ("g.mp4", "libx264", "handler: VideoHandler"),
    ] {
        let mut args = vec!["-f", "lavfi", "-i", "testsrc=d=0.4:s=128x128:r=10", "-c:v", codec];
        if name == "g.mp4" {
            args.extend(["-movflags", "frag_keyframe+empty_moov"]);
        }
        let found = one(&[], &ffmpeg(&args, dir.path().join(name)));
        let said: Vec<&str> = found
            .labels
            .iter()
            .filter(|l| l.system == "encoder")
            .inspect(|l| assert_eq!((l.verdict, l.ai), (LabelVerdict::Inconclusive, None)))
            .map(|l| l.content.as_str())
            .collect();
        let encoder = format!("{}: ", &codec[3..]);
        assert!(said.iter().any(|s| s.starts_with(&encoder)), "{name}: {said:?}");
        assert!(said.iter().any(|s| s.contains(muxed)), "{name}: {said:?}");
        assert_eq!(found.disposition.state, DispositionState::None, "{name}");
        let judged = found.label_strip.unwrap();
        assert_eq!(judged.verdict, SegmentVerdict::Bonafide, "{name}: {:?}", found.reasons);
    }
}

#[test]
fn wrong_usage_and_bad_anchors_say_what_is_wrong() {
    let output = run(&[], &[]);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&["--format", "xml"], &[Path::new("a")]);
    assert_eq!(output.status.code(), Some(2));
    let anchors = root().join("Cargo.toml");
    let file = root().join("demo/label-intact.png");
    for (path, why) in
        [(anchors.as_path(), "no certificate"), (Path::new("none"), "cannot be read")]
    {
        let output = run(&["--trust-anchors", path.to_str().unwrap()], &[&file]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("--trust-anchors") && said.contains(why), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_closed_pipe_ends_it() {
    let demo = root().join("demo");
    let script =
        format!("'{PROGRAM}' inspect '{}' | true; echo ${{PIPESTATUS[0]}}", demo.display());
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let output = run_within(Duration::from_secs(60), command);
    let code = text(&output.stdout);
    // Where all was written before the reader left, nothing was lost.
    assert!(["141", "0"].contains(&code.trim()), "{code}");
}
