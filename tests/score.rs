//! `veriscope score`: one row a file, in the list's order.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{PROGRAM, ffmpeg, talking_head, write};

/// Exit code, rows of columns without the header, stderr.
fn score(args: &[&str]) -> (Option<i32>, Vec<Vec<String>>, String) {
    let output = Command::new(PROGRAM).arg("score").args(args).output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("path\tscore\tprobability\treasons"));
    let rows = lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    (output.status.code(), rows, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn videos_sounds_and_crops_get_a_row_each_in_order() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let demo = talking_head();
    let demo = demo.to_str().expect("UTF-8");
    let clip = ffmpeg(&["-ss", "1", "-t", "4", "-i", demo, "-c", "copy"], dir.path().join("b.mp4"));
    let blank = ffmpeg(
        &["-f", "lavfi", "-i", "color=gray:size=64x64", "-frames:v", "1"],
        dir.path().join("a.png"),
    );
    let missing = dir.path().join("missing.jpg");
    let list = format!(
        "path\tlabel\n{}\t0\n{}\t0\n{}\t1\n",
        clip.display(),
        blank.display(),
        missing.display()
    );
    let list = write(dir.path(), "list.tsv", list.as_bytes());
    let list = list.to_str().expect("UTF-8");

    let (code, rows, stderr) = score(&["--detector", "face-swap", "--list", list]);
    assert_eq!(code, Some(1), "a file is missing");
    assert!(stderr.contains("missing.jpg"), "{stderr}");
    let names: Vec<&str> = rows.iter().map(|r| r[0].rsplit('/').next().unwrap_or("")).collect();
    assert_eq!(names, ["b.mp4", "a.png", "missing.jpg"]);
    let probability: f32 = rows[0][2].parse().expect("the video's face has a probability");
    assert!((0.0..=1.0).contains(&probability));
    assert_eq!(rows[1][1..], ["", "", "no_face"]);
    assert_eq!(rows[2][1..], ["", "", "unreadable"]);

    // Taken as a face already, even a blank picture has a score.
    let (_, rows, _) = score(&["--detector", "face-swap", "--precropped", "--list", list]);
    assert!(rows[1][1].parse::<f32>().is_ok(), "{rows:?}");

    let (code, rows, _) = score(&["--detector", "voice-clone", "--list", list]);
    assert_eq!(code, Some(1));
    assert!(rows[0][1].parse::<f32>().is_ok(), "{rows:?}");
    assert_eq!(rows[1][1], "");
}

/// A crop of the demo's face is nothing strange to the network; what is no face is.
#[test]
fn a_crop_that_is_no_face_is_out_of_the_domain() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let demo = talking_head();
    let demo = demo.to_str().expect("UTF-8");
    let make = |input: &[&str], name: &str| {
        let args = [input, &["-frames:v", "1"]].concat();
        ffmpeg(&args, dir.path().join(name)).display().to_string()
    };
    // The face's box at the start, framed as src/face/crop.rs does.
    let face = make(&["-i", demo, "-vf", "crop=285:325:239:147"], "face.png");
    let bars = make(&["-f", "lavfi", "-i", "testsrc=size=224x224"], "bars.png");
    let noise = "nullsrc=size=224x224,geq=random(1)*255:128:128";
    let noise = make(&["-f", "lavfi", "-i", noise], "noise.png");
    let list = write(dir.path(), "list.txt", format!("{face}\n{bars}\n{noise}\n").as_bytes());
    let list = list.to_str().expect("UTF-8");
    let (code, rows, stderr) = score(&["--detector", "face-swap", "--precropped", "--list", list]);
    assert_eq!(code, Some(0), "{stderr}");
    let reasons: Vec<&str> = rows.iter().map(|row| row[3].as_str()).collect();
    assert_eq!(reasons, ["", "out_of_domain", "out_of_domain"], "{rows:?}");
    // It is scored all the same.
    assert!(rows.iter().all(|row| row[1].parse::<f32>().is_ok()), "{rows:?}");
}

#[test]
fn a_list_that_is_not_there_is_named() {
    let output = Command::new(PROGRAM)
        .args(["score", "--detector", "face-swap", "--list", "/nowhere/list.txt"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/list.txt"));
}
