//! A killed scan goes on where it was: nothing lost, nothing scanned twice.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{PROGRAM, ffmpeg, scan_within, talking_head};

/// Thirty short files: pieces of the demo, some of them sound or pictures alone.
fn library(dir: &Path) -> PathBuf {
    let media = dir.join("media");
    std::fs::create_dir(&media).expect("a temporary folder");
    let demo = talking_head();
    let demo = demo.to_str().expect("UTF-8");
    for i in 0..30 {
        let start = format!("{:.1}", f64::from(i) * 0.7);
        let seek = ["-ss", start.as_str(), "-t", "1.5", "-i", demo];
        let (extra, name): (&[&str], _) = match i % 5 {
            0 => (&["-vn", "-ac", "1"], format!("{i:02}.wav")),
            1 => (&["-frames:v", "1"], format!("{i:02}.jpg")),
            _ => {
                (&["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"], format!("{i:02}.mp4"))
            }
        };
        ffmpeg(&[&seek[..], extra].concat(), media.join(name));
    }
    media
}

/// Everything that the store says of contents and paths; times of day and timings lie in a table
/// of their own.
fn content(store: &Path) -> BTreeMap<String, String> {
    let db = rusqlite::Connection::open(store).expect("the store opens");
    let all = "SELECT 'result ' || sha256 || ' ' || fingerprint, status || ' ' || report FROM results \
               UNION ALL SELECT 'file ' || path || ' ' || fingerprint, sha256 FROM files";
    let mut statement = db.prepare(all).expect("the store has its tables");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("text")
}

#[test]
fn kill_minus_nine_at_ten_moments() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let media = library(dir.path());

    let whole = dir.path().join("whole.sqlite");
    let started = Instant::now();
    let scan = scan_within(Duration::from_secs(300), &[&media, &"--store", &whole]);
    let length = started.elapsed();
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    assert_eq!(scan.reports.len(), 30);
    let want = content(&whole);
    assert_eq!(want.len(), 60, "30 contents under 30 paths");

    let broken = dir.path().join("broken.sqlite");
    // Ten moments spread over the scan by a fixed pseudo-random sequence. Each run goes on with
    // what the last left, so later moments are drawn from what is left to do.
    let mut state = 20_250_901u32;
    let mut kept = 0i64;
    let mut interrupted = 0;
    for round in 0..10 {
        if round == 5 {
            std::fs::remove_file(&broken).expect("start over half-way");
            kept = 0;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let part = f64::from(state >> 8) / f64::from(1 << 24);
        let mut child = Command::new(PROGRAM)
            .args(["scan", "--format", "jsonl", "--store"])
            .args([&broken, &media])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(length.mul_f64(0.05 + part * 0.3));
        interrupted += usize::from(child.try_wait().expect("a child").is_none());
        child.kill().expect("kill -9");
        child.wait().expect("the child is gone");
        if broken.exists() {
            // A store that was killed before its first table is empty, not broken.
            let now = rusqlite::Connection::open(&broken)
                .and_then(|db| db.query_row("SELECT count(*) FROM results", [], |r| r.get(0)))
                .unwrap_or(0i64);
            assert!(now >= kept, "round {round}: {now} results after {kept}");
            kept = now;
        }
    }
    assert!(interrupted >= 5, "only {interrupted} of 10 kills met a running scan");

    let rerun = scan_within(Duration::from_secs(300), &[&media, &"--store", &broken]);
    assert_eq!(rerun.code, Some(0), "{}", rerun.stderr);
    assert_eq!(rerun.reports.len(), 30, "what was known is reported again");
    assert_eq!(content(&broken), want);

    // Nothing is left to do now: a rerun takes everything from the store.
    let again = scan_within(Duration::from_secs(300), &[&media, &"--store", &broken]);
    assert_eq!(again.reports.len(), 30);
    assert_eq!(content(&broken), want);
}

#[test]
fn an_interrupt_ends_cleanly_and_keeps_what_is_done() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let media = library(dir.path());
    let store = dir.path().join("store.sqlite");
    let child = Command::new(PROGRAM)
        .args(["scan", "--format", "jsonl", "--jobs", "1", "--store"])
        .args([&store, &media])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Until the first results are kept; the whole scan takes far longer than that.
    let results = || {
        rusqlite::Connection::open_with_flags(&store, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|db| db.query_row("SELECT count(*) FROM results", [], |r| r.get::<_, i64>(0)))
            .unwrap_or(0)
    };
    let started = Instant::now();
    while results() < 2 && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: kill takes plain numbers; the child has not been waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let interrupted = common::finish(child.wait_with_output().expect("it ends"));
    assert_eq!(interrupted.code, Some(130), "{}", interrupted.stderr);
    let kept = interrupted.reports.len();
    assert!((2..30).contains(&kept), "{kept} reports: {}", interrupted.stderr);
    assert_eq!(results(), kept as i64, "what was reported is kept");
    let rerun = scan_within(Duration::from_secs(300), &[&media, &"--store", &store]);
    assert_eq!((rerun.code, rerun.reports.len()), (Some(0), 30), "{}", rerun.stderr);
}

#[test]
fn results_do_not_depend_on_the_number_of_jobs() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let media = library(dir.path());
    let mut stores = Vec::new();
    for jobs in ["1", "4"] {
        let store = dir.path().join(format!("{jobs}.sqlite"));
        let scan =
            scan_within(Duration::from_secs(300), &[&media, &"--jobs", &jobs, &"--store", &store]);
        assert_eq!(scan.code, Some(0), "{}", scan.stderr);
        stores.push(content(&store));
    }
    assert_eq!(stores[0], stores[1]);
}
