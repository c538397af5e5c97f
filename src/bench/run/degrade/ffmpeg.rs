//! The program `ffmpeg`: it reads untrusted media, so each call is a limited child.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::Degradation;
use crate::child::{Supervised, Supervision, confine_writing, supervise};
use crate::media::FORMATS;

/// Address space of one call.
const MEMORY: u64 = 4 << 30;
/// Bytes of one file that a call may write.
pub const MAX_FILE: u64 = 2 << 30;
/// Wall-clock time of one call.
const DEADLINE: Duration = Duration::from_secs(900);
/// What a question about its abilities may take and say.
const ASK: Supervision = Supervision { deadline: Duration::from_secs(20), most_output: 4 << 20 };
const BRING: &str = "apt-get install ffmpeg";

/// An `ffmpeg` that is there.
#[derive(Debug, Clone)]
pub struct Ffmpeg {
    program: PathBuf,
    /// Its first line of `-version`: degraded copies depend on it.
    pub version: String,
}

impl Ffmpeg {
    /// The one that `PATH` has, for these degradations.
    ///
    /// # Errors
    /// One sentence: it is not installed, or lacks what one of them takes.
    pub fn for_all(degradations: &[Degradation]) -> Result<Self, String> {
        let stop = AtomicBool::new(false);
        let mut ffmpeg = Self { program: "ffmpeg".into(), version: String::new() };
        let ask = |argument: &str| {
            let arguments = ["-hide_banner", argument].map(OsString::from);
            let said = ffmpeg.run(&arguments, Vec::new(), ASK, &stop);
            said.map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
        };
        let first = degradations.first().map_or(String::new(), |d| d.name());
        let needed = |e| format!("{first}: the program ffmpeg: {e}");
        let version = ask("-version").map_err(needed)?;
        // Lines such as ` V....D libx264  …` and ` T.C gblur  V->V  …`.
        let mut known = Vec::new();
        for list in ["-encoders", "-filters"] {
            let text = ask(list).map_err(needed)?;
            let names = text.lines().filter_map(|l| l.split_ascii_whitespace().nth(1));
            known.extend(names.map(str::to_owned));
        }
        for degradation in degradations {
            let lacks = degradation.family.needs().iter().find(|n| !known.iter().any(|k| k == *n));
            if let Some(lacks) = lacks {
                return Err(format!(
                    "{} cannot be made: the ffmpeg that is installed has no {lacks}",
                    degradation.name()
                ));
            }
        }
        ffmpeg.version = version.lines().next().unwrap_or_default().trim().to_owned();
        Ok(ffmpeg)
    }

    /// Lets it work with `input` on its stdin; what it wrote to stdout, or None where it was stopped.
    fn run(
        &self,
        arguments: &[OsString],
        input: Vec<u8>,
        limits: Supervision,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.env_remove("FFREPORT").process_group(0);
        let seconds = limits.deadline.as_secs() + 1;
        // SAFETY: between fork and exec only setrlimit and prctl are called, which are safe there;
        // nothing is allocated and no lock taken.
        unsafe { command.pre_exec(move || confine_writing(seconds, MEMORY, MAX_FILE)) };
        let child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => format!("it is not installed ({BRING})"),
            _ => format!("it cannot be started: {e}"),
        })?;
        Ok(match supervise(child, input, limits, stop)? {
            Supervised::Ended { stdout, .. } => Some(stdout),
            Supervised::Stopped => None,
        })
    }

    /// `ffmpeg COMMON INPUT… ARGUMENTS… OUTPUT`; `most`: bytes that it may write to its stdout.
    pub fn make(
        &self,
        call: Call,
        most: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<u8>>, String> {
        let limits = Supervision { deadline: DEADLINE, most_output: most };
        self.run(&call.arguments, call.input, limits, stop)
    }
}

/// The arguments of one call.
pub struct Call {
    arguments: Vec<OsString>,
    input: Vec<u8>,
}

impl Call {
    /// One thread and no build-dependent strings, so that the same input gives the same output; stdin is
    /// not listened to; an existing output is replaced.
    pub fn new() -> Self {
        let mut call = Self { arguments: Vec::new(), input: Vec::new() };
        call.arguments.extend(
            ["-hide_banner", "-v", "error", "-nostdin", "-y", "-filter_threads", "1"]
                .map(Into::into),
        );
        call
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, more: I) -> Self {
        self.arguments.extend(more.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A media file of anybody's. Only the formats that this program's own decoder takes are
    /// allowed, and no protocol besides files: playlists cannot name anything else.
    #[must_use]
    pub fn media(self, path: &Path) -> Self {
        let formats = FORMATS.join(",");
        self.args([
            "-protocol_whitelist",
            "file",
            "-format_whitelist",
            &formats,
            "-threads",
            "1",
            "-i",
        ])
        .args([file(path)])
    }

    /// Bytes on stdin, in a form that `arguments` say.
    #[must_use]
    pub fn bytes<S: AsRef<str>>(mut self, arguments: &[S], bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self.args(arguments.iter().map(AsRef::as_ref)).args([
            "-protocol_whitelist",
            "pipe",
            "-threads",
            "1",
            "-i",
            "pipe:0",
        ])
    }

    #[must_use]
    pub fn into_file(self, format: &str, path: &Path) -> Self {
        self.reproducible().args(["-f", format]).args([file(path)])
    }

    #[must_use]
    pub fn into_stdout(self, format: &str) -> Self {
        self.reproducible().args(["-f", format, "pipe:1"])
    }

    fn reproducible(self) -> Self {
        self.args(["-threads", "1", "-flags", "+bitexact", "-fflags", "+bitexact"])
            .args(["-map_metadata", "-1"])
    }
}

/// `file:` keeps a name with a colon from being taken for a protocol.
fn file(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}
