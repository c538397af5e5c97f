//! The worker process: started with the file as its stdin, limited, killed at its deadline.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Answer;
pub use crate::child::confine;
use crate::child::output;

/// Bytes that an answer may have; the worker keeps to a few kilobytes.
const MAX_ANSWER: u64 = 256 << 10;
const MAX_ANCHORS: u64 = 16 << 20;
/// How often one who waits for a turn looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Workers at a time in one process, so that files made to fill the memory can fill this many times
/// [`MEMORY`]. One takes some 30 ms for an ordinary picture.
const MAX_WORKERS: usize = 4;
/// Address space of a worker: the program itself, the two pieces of 256 MiB at a time in which the
/// crate hashes, and a picture, which it reads as a whole.
const MEMORY: u64 = 2 << 30;
/// The hard binding is a hash over the file: a large file gets a second more for this many bytes.
const BYTES_A_SECOND: u64 = 100 << 20;

/// A file of certificates in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    path: PathBuf,
    sha256: String,
}

impl TrustAnchors {
    /// Reads the file, to know that it is one; the worker reads it again.
    ///
    /// # Errors
    /// One line that names the file, where it cannot be read, is larger than 16 MiB, or holds no
    /// certificate in PEM.
    pub fn open(path: &Path) -> Result<Self, String> {
        let text = Self::read(path)?;
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err(format!("{}: no certificate in PEM", path.display()));
        }
        let digest = Sha256::digest(text.as_bytes());
        let sha256 = digest.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { path: path.to_owned(), sha256 })
    }

    /// The file's text.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn read(path: &Path) -> Result<String, String> {
        let failed = |what: String| format!("{}: {what}", path.display());
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_ANCHORS + 1).read_to_string(&mut text))
            .map_err(|e| failed(format!("cannot be read: {e}")))?;
        if text.len() as u64 > MAX_ANCHORS {
            return Err(failed("larger than 16 MiB".to_owned()));
        }
        Ok(text)
    }

    /// Of the file's bytes, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// At most this much is added for a file's size.
const MAX_MORE: Duration = Duration::from_secs(300);

/// How manifests are verified: a program that is started for each file that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The program; `veriscope` itself, or whatever else understands the arguments.
    pub program: PathBuf,
    /// Arguments before `--format EXT`, `--seconds N` and `--memory BYTES`.
    pub arguments: Vec<OsString>,
    /// Certificates whose signatures are trusted. None: no signer is looked up.
    pub trust_anchors: Option<TrustAnchors>,
    /// Wall-clock time and CPU time a file, plus a second for each 100 MiB of it, 300 s at most.
    pub deadline: Duration,
}

impl Worker {
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// `program` is a `veriscope` executable.
    pub fn new(program: PathBuf, trust_anchors: Option<TrustAnchors>) -> Self {
        let arguments = vec!["c2pa-worker".into()];
        Self { program, arguments, trust_anchors, deadline: Self::DEADLINE }
    }

    /// What the manifests of `file` say.
    ///
    /// # Errors
    /// One sentence: the worker could not be started, was killed at its deadline, by its limits or
    /// because `stop` was set, or gave no answer.
    pub(crate) fn ask(
        &self,
        file: &File,
        format: &str,
        stop: &AtomicBool,
    ) -> Result<Answer, String> {
        let bytes = file.metadata().map_or(0, |m| m.len());
        // Files may be of any size that they state: sparse ones take no space.
        let more = Duration::from_secs(bytes / BYTES_A_SECOND).min(MAX_MORE);
        let deadline = self.deadline.saturating_add(more);
        // Waiting for the turn is bounded by the others' deadlines, and is not held against this file.
        let _turn = Turn::take(stop).ok_or("the file was given up")?;
        let stdin = file.try_clone().map_err(|e| format!("the file cannot be handed over: {e}"))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--format").arg(format);
        command.arg("--seconds").arg(deadline.as_secs().saturating_add(1).to_string());
        command.arg("--memory").arg(MEMORY.to_string());
        if let Some(anchors) = &self.trust_anchors {
            command.arg("--trust-anchors").arg(&anchors.path);
        }
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null());
        // Out of reach of the terminal's Ctrl-C, which is to end the scan and not one file's check.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|e| format!("{} cannot be started: {e}", self.program.display()))?;
        let text = output(child, &[], MAX_ANSWER, deadline, stop)?;
        serde_json::from_slice(&text)
            .map_err(|e| format!("the worker's answer cannot be read: {e}"))
    }
}

/// The right to have one of the [`MAX_WORKERS`].
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    /// None: `stop` was set before it came.
    fn take(stop: &AtomicBool) -> Option<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= MAX_WORKERS {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let woken = FREED.wait_timeout(running, LOOK);
            running = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *running += 1;
        Some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
