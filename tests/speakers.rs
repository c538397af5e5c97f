//! Several speakers in one stream: each gets a track of their own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{ffmpeg, scan};
use veriscope::report::{Report, Track, TrackKind};

/// Sentences of 4 to 8 s each, as ffmpeg's speech filter says them.
const SENTENCES: [&str; 4] = [
    "The harbour lay quiet in the early morning and only a few boats had left before the rain began to fall on the old stone houses",
    "Nobody in the village could remember when the bridge was built but everyone agreed that it would not stand for another winter",
    "She opened the letter at the kitchen table and read it twice before she put it back into the envelope and went to the window",
    "Seven engineers have looked at the turbine since Monday and none of them has found the reason why it stops after an hour",
];

/// One sentence in one of the filter's voices.
fn sentence(dir: &Path, voice: &str, number: usize) -> PathBuf {
    let text = SENTENCES[number % SENTENCES.len()];
    let filter = format!("flite=text='{text}':voice={voice}");
    let name = format!("{voice}-{number}.wav");
    ffmpeg(&["-f", "lavfi", "-i", &filter, "-ar", "16000"], dir.join(name))
}

/// Voices that speak in turn, half a second between them.
fn talk(dir: &Path, name: &str, voices: &[&str]) -> PathBuf {
    let mut args: Vec<String> = Vec::new();
    let mut graph = String::new();
    for (i, voice) in voices.iter().enumerate() {
        args.extend(["-i".to_owned(), sentence(dir, voice, i).display().to_string()]);
        graph += &format!("[{i}]apad=pad_dur=0.5[a{i}];");
    }
    for i in 0..voices.len() {
        graph += &format!("[a{i}]");
    }
    graph += &format!("concat=n={}:v=0:a=1", voices.len());
    args.extend(["-filter_complex".to_owned(), graph]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    ffmpeg(&args, dir.join(name))
}

fn speech(report: &Report) -> Vec<&Track> {
    report.tracks.iter().filter(|t| t.kind == TrackKind::Speech).collect()
}

#[test]
fn each_speaker_has_a_track_and_one_speaker_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let two = talk(dir.path(), "two.wav", &["rms", "slt", "rms", "slt", "rms", "slt"]);
    let alone = talk(dir.path(), "alone.wav", &["rms", "rms", "rms", "rms"]);
    let other = talk(dir.path(), "other.wav", &["slt", "slt", "slt", "slt"]);
    let empty = ffmpeg(
        &["-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "6"],
        dir.path().join("silence.wav"),
    );
    let short = ffmpeg(&["-i", alone.to_str().unwrap(), "-t", "2.5"], dir.path().join("short.wav"));
    let both: [&dyn AsRef<std::ffi::OsStr>; 7] =
        [&two, &alone, &other, &empty, &short, &"--detectors", &"voice-clone"];
    let scan = scan(&both);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);

    for (name, tracks) in [("alone.wav", 1), ("other.wav", 1), ("short.wav", 1), ("silence.wav", 0)]
    {
        assert_eq!(speech(scan.report(name)).len(), tracks, "{name}");
    }
    let report = scan.report("two.wav");
    let tracks = speech(report);
    let ids: Vec<&str> = tracks.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, ["speech-1", "speech-2"]);
    assert!(tracks[0].start_ms < tracks[1].start_ms);
    let all: usize = tracks.iter().map(|t| t.windows.len()).sum();
    assert_eq!(all as u64, report.timings.voice_windows);

    // Where the turns lie: by the lengths of the sentences.
    let (mut at, mut right, mut of) = (0, 0, 0);
    for turn in 0..6 {
        let voice = ["rms", "slt"][turn % 2];
        let bytes =
            std::fs::metadata(dir.path().join(format!("{voice}-{turn}.wav"))).unwrap().len();
        let end = at + bytes as i64 / 32;
        for (speaker, track) in tracks.iter().enumerate() {
            let middles = track.windows.iter().map(|w| (w.start_ms + w.end_ms) / 2);
            let said = middles.filter(|m| (at..end).contains(m)).count();
            of += said;
            right += if speaker == turn % 2 { said } else { 0 };
        }
        at = end + 500;
    }
    assert!(of > 20 && right * 10 >= of * 9, "{right} of {of} windows are the right speaker's");
    // Every segment belongs to a track, and lies within it.
    for segment in &report.segments {
        let track = tracks.iter().find(|t| t.id == segment.track).expect("its track");
        assert!(track.start_ms <= segment.start_ms && segment.end_ms <= track.end_ms);
    }
}

#[test]
fn company_in_the_batches_changes_no_speaker() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let two = talk(dir.path(), "two.wav", &["slt", "rms", "slt", "rms"]);
    let alone = talk(dir.path(), "alone.wav", &["rms", "rms", "rms"]);
    let run = |jobs: &str, files: &[&PathBuf]| {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--jobs", &jobs];
        args.extend(files.iter().map(|f| f as &dyn AsRef<std::ffi::OsStr>));
        let scan = scan(&args);
        let mut report = scan.report("two.wav").clone();
        report.timings = Default::default();
        report
    };
    assert_eq!(run("1", &[&two]), run("3", &[&alone, &two]));
}
