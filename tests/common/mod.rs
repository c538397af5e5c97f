//! A small harness: makes media with the `ffmpeg` command, runs the program, reads its reports.
#![allow(dead_code)] // Each test file uses its own part.

pub mod service;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use veriscope::report::Report;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_veriscope");

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The demo's talking head: a real face and voice with planted stretches.
pub fn talking_head() -> PathBuf {
    root().join("demo/talking-head.mp4")
}

/// A file of data that does not ship; where it is missing, a line says so.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = root().join("../shared/data").join(path);
    if !file.is_file() {
        println!("skipped: {} is not there", file.display());
        return None;
    }
    Some(file)
}

/// Runs `ffmpeg -v error -y ARGS… OUT` and returns OUT.
pub fn ffmpeg(args: &[&str], out: PathBuf) -> PathBuf {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(args)
        .arg(&out)
        .output()
        .expect("the ffmpeg command is installed by scripts/setup --test");
    assert!(
        output.status.success(),
        "ffmpeg {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

pub struct Scan {
    pub code: Option<i32>,
    pub stderr: String,
    pub reports: Vec<Report>,
}

impl Scan {
    /// The report of the one file whose path ends in `name`.
    pub fn report(&self, name: &str) -> &Report {
        let mut found = self.reports.iter().filter(|r| r.media.path.ends_with(name));
        let report = found.next().unwrap_or_else(|| panic!("no report of {name}: {}", self.stderr));
        assert!(found.next().is_none(), "several reports of {name}");
        report
    }
}

/// `veriscope scan --format jsonl ARGS…`, which must end within `limit`.
pub fn scan_within(limit: Duration, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Scan {
    let mut command = Command::new(PROGRAM);
    command.args(["scan", "--format", "jsonl"]);
    for arg in args {
        command.arg(arg.as_ref());
    }
    finish(run_within(limit, command))
}

pub fn scan(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Scan {
    scan_within(Duration::from_secs(120), args)
}

pub fn finish(output: Output) -> Scan {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let stdout = String::from_utf8(output.stdout).expect("reports are UTF-8");
    let reports = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    Scan { code: output.status.code(), stderr, reports }
}

/// Runs a command and fails the test if it is not done within `limit`: a hang must not hang the
/// tests.
pub fn run_within(limit: Duration, mut command: Command) -> Output {
    use std::process::Stdio;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let id = child.id();
    let (send, receive) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        if receive.recv_timeout(limit).is_err() {
            // SAFETY: kill takes plain numbers; the child has not been waited for yet.
            unsafe { libc::kill(id as i32, libc::SIGKILL) };
            return true;
        }
        false
    });
    let started = Instant::now();
    let output = child.wait_with_output().expect("the program's output can be read");
    let _ = send.send(());
    let hung = watch.join().expect("the watch ends");
    assert!(!hung, "still running after {:?}", started.elapsed());
    output
}

pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("temporary files can be written");
    path
}

/// A temporary folder.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room for temporary files"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and the folders that it lies in.
    pub fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        let folder = path.parent().expect("it lies in this folder");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .expect("temporary files can be written");
        self
    }
}

/// Whole numbers that look random, as the scripts of golden files make them: a linear congruential
/// generator (scripts/train/original.py).
pub fn lcg(seed: u64, count: usize) -> impl Iterator<Item = u32> {
    let mut state = (seed * 2_654_435_761 + 1) as u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    })
    .take(count)
}
