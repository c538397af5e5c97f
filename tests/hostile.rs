//! Files that no scan may trip over: each gets a clear line and a reason, and the scan goes on.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::{os::unix::process::CommandExt, process::Command, time::Duration};

use common::{PROGRAM, ffmpeg, finish, root, run_within, scan, scan_within, talking_head, write};
use veriscope::report::{ReasonCode, Report, SegmentVerdict, Status};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn code(report: &Report) -> &str {
    report.error.as_ref().map_or("", |e| e.code.as_str())
}

fn has(report: &Report, reason: ReasonCode) -> bool {
    report.reasons.iter().any(|r| r.code == reason)
}

/// The file fails with `error`, stderr names it, and a good file beside it is scanned all the same.
fn fails_alone(bad: &std::path::Path, error: &str) {
    let good = ffmpeg(
        &["-f", "lavfi", "-i", "color=gray:size=64x64", "-frames:v", "1"],
        bad.with_file_name("good.png"),
    );
    let scan = scan(&[&bad, &good]);
    assert_eq!(scan.code, Some(1), "{}", scan.stderr);
    assert_eq!(scan.reports.len(), 2);
    let name = bad.file_name().and_then(|n| n.to_str()).expect("a plain name");
    let report = scan.report(name);
    assert_eq!((report.status, code(report)), (Status::Failed, error), "{:?}", report.error);
    assert!(report.error.as_ref().is_some_and(|e| e.message.contains(name)));
    assert!(scan.stderr.contains(name), "stderr does not name {name}: {}", scan.stderr);
    assert_eq!(scan.report("good.png").status, Status::Ok);
}

#[test]
fn zero_bytes() {
    let dir = dir();
    fails_alone(&write(dir.path(), "zero.mp4", b""), "empty");
}

#[test]
fn text_named_mp4() {
    let dir = dir();
    let text = "Not a film, only words.\n".repeat(500);
    fails_alone(&write(dir.path(), "words.mp4", text.as_bytes()), "unrecognised");
}

#[test]
fn playlists_and_subtitles_open_nothing_else() {
    let dir = dir();
    let target = talking_head();
    let list = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        target.display()
    );
    fails_alone(&write(dir.path(), "list.m3u8", list.as_bytes()), "unrecognised");
    let concat = format!("ffconcat version 1.0\nfile '{}'\n", target.display());
    fails_alone(&write(dir.path(), "list.ffconcat", concat.as_bytes()), "unrecognised");
    fails_alone(
        &write(dir.path(), "words.srt", b"1\n00:00:00,000 --> 00:00:02,000\nHello\n"),
        "unrecognised",
    );
}

#[test]
fn mp4_without_moov() {
    let dir = dir();
    let bytes = std::fs::read(talking_head()).expect("the demo is there");
    // Boxes before and of the media data, never the index: what a broken-off recording leaves.
    let mut head = Vec::new();
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let size =
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        assert!(size >= 8);
        if &bytes[at + 4..at + 8] != b"moov" {
            head.extend_from_slice(&bytes[at..(at + size).min(bytes.len())]);
        }
        at += size;
    }
    fails_alone(&write(dir.path(), "no-moov.mp4", &head), "damaged");
}

#[test]
fn mp4_cut_in_its_media_data_keeps_its_good_part() {
    let dir = dir();
    let whole = ffmpeg(
        &["-i", talking_head().to_str().expect("UTF-8"), "-c", "copy", "-movflags", "+faststart"],
        dir.path().join("whole.mp4"),
    );
    let bytes = std::fs::read(whole).expect("just made");
    let cut = write(dir.path(), "cut.mp4", &bytes[..bytes.len() / 2]);
    let scan = scan(&[&cut]);
    assert_eq!(scan.code, Some(1));
    let report = scan.report("cut.mp4");
    assert_eq!((report.status, code(report)), (Status::Partial, "decode_error"));
    assert!(has(report, ReasonCode::DecodeError));
    let place = report.error.as_ref().and_then(|e| e.time_ms).expect("the place is named");
    let length = report.media.duration_ms.expect("moov tells the length");
    assert!(place > length / 8 && place < length, "{place} of {length}");
    assert!(report.segments.iter().any(|s| s.track.starts_with("face")), "the good part is judged");
    assert!(scan.stderr.contains("cut.mp4"));
}

#[test]
fn a_file_without_streams_we_know() {
    let dir = dir();
    let srt = write(dir.path(), "words.srt", b"1\n00:00:00,000 --> 00:00:02,000\nHello\n");
    let mkv = ffmpeg(
        &["-i", srt.to_str().expect("UTF-8"), "-c:s", "srt"],
        dir.path().join("subtitles.mkv"),
    );
    fails_alone(&mkv, "no_streams");
}

#[test]
fn pictures_from_one_pixel_to_the_largest() {
    let dir = dir();
    let one = ffmpeg(
        &["-f", "lavfi", "-i", "color=red:size=2x2,format=rgb24,crop=1:1", "-frames:v", "1"],
        dir.path().join("one.png"),
    );
    let large = ffmpeg(
        &["-f", "lavfi", "-i", "testsrc=size=8192x8192", "-frames:v", "1"],
        dir.path().join("large.jpg"),
    );
    let scan = scan(&[&one, &large]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    for name in ["one.png", "large.jpg"] {
        let report = scan.report(name);
        assert_eq!(report.status, Status::Ok);
        assert!(has(report, ReasonCode::NoFace), "{name}: {:?}", report.reasons);
    }
}

#[test]
fn a_picture_over_the_limit() {
    let dir = dir();
    let huge = ffmpeg(
        &["-f", "lavfi", "-i", "color=red:size=16384x8192", "-frames:v", "1"],
        dir.path().join("huge.png"),
    );
    fails_alone(&huge, "over_limit");
}

#[test]
fn a_fifth_of_a_second_of_sound() {
    let dir = dir();
    let wav = ffmpeg(
        &["-f", "lavfi", "-i", "sine=frequency=200:duration=0.2"],
        dir.path().join("blip.wav"),
    );
    let scan = scan(&[&wav]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    let report = scan.report("blip.wav");
    assert!(
        has(report, ReasonCode::TooShort) && has(report, ReasonCode::NoSpeech),
        "{:?}",
        report.reasons
    );
    assert!(report.segments.iter().all(|s| s.verdict != SegmentVerdict::Fake));
}

#[test]
fn silence() {
    let dir = dir();
    let wav = ffmpeg(
        &["-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-t", "20"],
        dir.path().join("silence.wav"),
    );
    let report = &scan(&[&wav]).reports[0];
    assert_eq!(report.status, Status::Ok);
    assert!(has(report, ReasonCode::NoSpeech), "{:?}", report.reasons);
}

#[test]
fn a_slideshow_of_ninety_minutes() {
    let dir = dir();
    let file = ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=640x360:rate=1/60:duration=5400",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
        ],
        dir.path().join("slides.mp4"),
    );
    let scan = scan_within(Duration::from_secs(60), &[&file]);
    let report = scan.report("slides.mp4");
    assert_eq!((scan.code, report.status), (Some(0), Status::Ok), "{}", scan.stderr);
    assert!((report.media.duration_ms.unwrap_or(0) - 5_400_000).abs() < 61_000);
    assert!(
        report.timings.frames >= 85 && report.timings.frames <= 95,
        "{}",
        report.timings.frames
    );
}

#[test]
fn a_loop_of_folders() {
    let dir = dir();
    let inner = dir.path().join("a/b");
    std::fs::create_dir_all(&inner).expect("temporary folders");
    std::os::unix::fs::symlink(dir.path(), inner.join("again")).expect("a symlink");
    ffmpeg(
        &["-f", "lavfi", "-i", "color=gray:size=64x64", "-frames:v", "1"],
        inner.join("only.png"),
    );
    let scan = scan_within(Duration::from_secs(30), &[&dir.path()]);
    assert_eq!(scan.reports.len(), 1, "{}", scan.stderr);
    assert!(scan.stderr.contains("again"), "the loop is named: {}", scan.stderr);
}

#[test]
fn a_fifo() {
    let dir = dir();
    let fifo = dir.path().join("pipe.mp4");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
    assert!(made.success());
    let scan = scan_within(Duration::from_secs(30), &[&fifo]);
    assert_eq!(
        (scan.code, code(scan.report("pipe.mp4"))),
        (Some(1), "not_a_file"),
        "{}",
        scan.stderr
    );
}

#[test]
fn an_unreadable_file() {
    // Root may read anything, so the program runs as nobody, from a place that nobody may enter.
    let dir = dir();
    let open = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    open(dir.path(), 0o755);
    let program = dir.path().join("veriscope");
    std::fs::copy(PROGRAM, &program).expect("the program can be copied");
    let weights = dir.path().join("weights");
    std::fs::create_dir(&weights).expect("a folder");
    open(&weights, 0o755);
    for entry in std::fs::read_dir(root().join("weights")).expect("weights").flatten() {
        let to = weights.join(entry.file_name());
        std::fs::copy(entry.path(), &to).expect("weights can be copied");
        open(&to, 0o644);
    }
    let good = ffmpeg(
        &["-f", "lavfi", "-i", "color=gray:size=64x64", "-frames:v", "1"],
        dir.path().join("good.png"),
    );
    open(&good, 0o644);
    let secret = write(dir.path(), "secret.mp4", b"0123456789");
    open(&secret, 0o000);
    let mut command = Command::new(&program);
    command.args(["scan", "--format", "jsonl", "--weights"]).arg(&weights).args([&secret, &good]);
    command.current_dir("/");
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65_534).gid(65_534);
    }
    let scan = finish(run_within(Duration::from_secs(60), command));
    assert_eq!(scan.code, Some(1), "{}", scan.stderr);
    assert_eq!(code(scan.report("secret.mp4")), "unreadable");
    assert!(scan.stderr.contains("secret.mp4"));
    assert_eq!(scan.report("good.png").status, Status::Ok);
}

#[test]
fn a_path_that_is_not_there() {
    let dir = dir();
    fails_alone(&dir.path().join("nowhere.mp4"), "unreadable");
}

#[test]
fn random_bytes_behind_every_magic() {
    let dir = dir();
    let mut state = 7u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let magics: [(&str, &[u8]); 9] = [
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42"),
        ("b.mkv", b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska"),
        ("c.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
        ("d.png", b"\x89PNG\r\n\x1a\n"),
        ("e.wav", b"RIFF\xff\xff\xff\x7fWAVEfmt "),
        ("f.flac", b"fLaC\0\0\0\x22"),
        ("g.ogg", b"OggS\0\x02"),
        ("h.flv", b"FLV\x01\x05\0\0\0\x09"),
        ("i.webp", b"RIFF\xff\xff\0\0WEBPVP8 "),
    ];
    for (name, magic) in magics {
        let mut bytes = magic.to_vec();
        bytes.extend((0..50_000).map(|_| noise()));
        write(dir.path(), name, &bytes);
    }
    let paths: Vec<_> = magics.iter().map(|(name, _)| dir.path().join(name)).collect();
    let args: Vec<&dyn AsRef<std::ffi::OsStr>> = paths.iter().map(|p| p as _).collect();
    let scan = scan(&args);
    assert_eq!(scan.code, Some(1));
    assert_eq!(scan.reports.len(), magics.len(), "{}", scan.stderr);
    for report in &scan.reports {
        assert_ne!(report.status, Status::Ok, "{}", report.media.path);
        assert!(report.error.is_some());
    }
}
