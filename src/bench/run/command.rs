//! Any program as a detector: it gets a list of paths and gives back a table of scores.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::bench::evaluate::Scale;
use crate::child::{Supervised, Supervision, supervise};

/// Bytes that a table may have besides those for each file's line.
const HEADROOM: usize = 64 << 10;
/// Bytes of one line: a path and a number.
const LINE: usize = 8 << 10;

/// How a program is called.
#[derive(Debug, Clone)]
pub struct External {
    /// For a shell; `{list}` and `{out}` stand for paths.
    pub command: String,
    /// Where it starts.
    pub folder: PathBuf,
    pub time_limit: Duration,
    pub scale: Scale,
}

/// What a program said of a list of files.
#[derive(Debug)]
pub struct Answer {
    /// In the list's order; None: an empty score, the program did not judge it.
    pub scores: Vec<Option<f64>>,
    pub peak_memory_bytes: Option<u64>,
}

impl External {
    /// Lets the program judge `paths`; None: it was stopped. `scratch` is an empty folder.
    ///
    /// # Errors
    /// One line that names the command, and of its table the line: it could not be started, failed, took
    /// too long, said too much, or its table is not one line a path with a finite score.
    pub fn judge(
        &self,
        paths: &[PathBuf],
        scratch: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<Answer>, String> {
        let failed = |what: String| format!("command '{}': {what}", self.command);
        let list = scratch.join("list.txt");
        let out = scratch.join("scores.tsv");
        write_list(&list, paths).map_err(|e| failed(format!("its list: {e}")))?;
        let line = self.command.replace("{list}", &quoted(&list)).replace("{out}", &quoted(&out));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&line).current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only prctl is called, which touches no memory.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().map_err(|e| failed(format!("cannot be started: {e}")))?;
        let most_output = HEADROOM + paths.len() * LINE;
        let limits = Supervision { deadline: self.time_limit, most_output };
        let ended = supervise(child, Vec::new(), limits, stop).map_err(&failed)?;
        let Supervised::Ended { stdout, peak_memory_bytes } = ended else { return Ok(None) };
        let (text, place) = if self.command.contains("{out}") {
            let mut text = Vec::new();
            File::open(&out)
                .and_then(|file| file.take(most_output as u64 + 1).read_to_end(&mut text))
                .map_err(|e| failed(format!("{{out}}: cannot be read: {e}")))?;
            if text.len() > most_output {
                return Err(failed(format!("{{out}}: more than {most_output} bytes")));
            }
            (text, "{out}")
        } else {
            (stdout, "stdout")
        };
        let scores = table(&text, paths, self.scale).map_err(|e| failed(format!("{place}:{e}")))?;
        Ok(Some(Answer { scores, peak_memory_bytes }))
    }
}

fn write_list(list: &Path, paths: &[PathBuf]) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(File::create(list)?);
    for path in paths {
        let bytes = path.as_os_str().as_bytes();
        if bytes.iter().any(|b| matches!(b, b'\n' | b'\t' | b'\r')) {
            let message = format!("{}: a line break or tab in its name", path.display());
            return Err(std::io::Error::other(message));
        }
        out.write_all(bytes)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// `path<TAB>score`, further columns left alone, in any order; a first line `path<TAB>score` is a header.
/// An empty score is a file that was not judged. Errors begin with the line's number.
fn table(text: &[u8], paths: &[PathBuf], scale: Scale) -> Result<Vec<Option<f64>>, String> {
    let places: HashMap<&[u8], usize> =
        paths.iter().enumerate().map(|(i, p)| (p.as_os_str().as_bytes(), i)).collect();
    let mut scores = vec![None; paths.len()];
    let mut lines = vec![0_usize; paths.len()];
    for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let shown = |bytes: &[u8]| super::short(&String::from_utf8_lossy(bytes));
        let mut fields = line.split(|b| *b == b'\t');
        let (Some(path), Some(score)) = (fields.next(), fields.next()) else {
            return Err(format!("{number}: '{}' is not path, tab, score", shown(line)));
        };
        if number == 1 && path == b"path" && score == b"score" {
            continue;
        }
        let Some(&at) = places.get(path) else {
            return Err(format!("{number}: '{}' was not in its list", shown(path)));
        };
        if lines[at] != 0 {
            return Err(format!("{number}: '{}' was in line {} already", shown(path), lines[at]));
        }
        lines[at] = number;
        if score.trim_ascii().is_empty() {
            continue;
        }
        let number_of = std::str::from_utf8(score).ok().and_then(|s| s.trim().parse::<f64>().ok());
        let Some(value) = number_of else {
            return Err(format!("{number}: the score '{}' is no number", shown(score)));
        };
        if !value.is_finite() {
            return Err(format!("{number}: the score is {value}"));
        }
        if scale == Scale::Probability && !(0.0..=1.0).contains(&value) {
            return Err(format!("{number}: the score {value} is no probability"));
        }
        scores[at] = Some(value);
    }
    let missing = lines.iter().filter(|l| **l == 0).count();
    if let Some(first) = lines.iter().position(|l| *l == 0) {
        return Err(format!(
            " no line for {missing} of {} paths, the first is '{}'",
            paths.len(),
            paths[first].display()
        ));
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(command: &str) -> External {
        External {
            command: command.to_owned(),
            folder: std::env::temp_dir(),
            time_limit: Duration::from_secs(20),
            scale: Scale::Raw,
        }
    }

    fn judge(external: &External, paths: &[&str]) -> Result<Option<Answer>, String> {
        let scratch = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        external.judge(&paths, scratch.path(), &AtomicBool::new(false))
    }

    #[test]
    fn scores_come_by_stdout_or_by_a_file_in_any_order() {
        let paths = ["/a b/1.wav", "/a b/2.wav"];
        for command in [
            "tac {list} | awk '{print $0 \"\\t\" NR}'",
            "printf 'path\\tscore\\n' > {out}; tac {list} | awk '{print $0 \"\\t\" NR \"\\tmore\"}' >> {out}",
        ] {
            let answer = judge(&external(command), &paths).unwrap().unwrap();
            assert_eq!(answer.scores, [Some(2.0), Some(1.0)], "{command}");
            assert!(answer.peak_memory_bytes.unwrap() > 100 << 10);
        }
        let empty = "awk 'NR == 1 {print $0 \"\\t\"} NR == 2 {print $0 \"\\t5\"}' {list}";
        assert_eq!(judge(&external(empty), &paths).unwrap().unwrap().scores, [None, Some(5.0)]);
    }

    #[test]
    fn what_is_wrong_is_named_with_command_file_and_line() {
        let paths = ["/x/1", "/x/2"];
        let line = |format: &str| format!("printf '{format}' # {{list}}");
        for (command, says) in [
            (line("/x/1\\t1\\n"), "stdout: no line for 1 of 2 paths, the first is '/x/2'"),
            (line("/x/1\\t1\\n/x/1\\t1\\n"), "stdout:2: '/x/1' was in line 1 already"),
            (line("/x/1\\t1\\n/x/2\\tnan\\n"), "stdout:2: the score is NaN"),
            (line("/x/1\\tinf\\n"), "stdout:1: the score is inf"),
            (line("/x/1\\thigh\\n"), "stdout:1: the score 'high' is no number"),
            (line("/x/1 1\\n"), "stdout:1: '/x/1 1' is not path, tab, score"),
            (line("/y\\t1\\n"), "stdout:1: '/y' was not in its list"),
            ("echo much >&2; exit 3 # {list}".into(), "exit code 3; it said: much"),
            ("kill -9 $$ # {list}".into(), "ended by signal 9"),
            ("no-such-program {list}".into(), "exit code 127"),
            ("true {list} {out}".into(), "{out}: cannot be read"),
            ("yes {list}".into(), "it wrote more than 81920 bytes to its stdout"),
        ] {
            let error = judge(&external(&command), &paths).unwrap_err();
            assert!(error.starts_with(&format!("command '{command}': ")), "{error}");
            assert!(error.contains(says), "{command}: {error}");
        }
        let probability =
            External { scale: Scale::Probability, ..external(&line("/x/1\\t1.5\\n")) };
        assert!(judge(&probability, &paths).unwrap_err().contains("1.5 is no probability"));
        let odd = judge(&external("cat {list}"), &["/x/\n"]).unwrap_err();
        assert!(odd.contains("a line break or tab in its name"), "{odd}");
    }

    #[test]
    fn a_program_that_does_not_end_dies_with_its_children() {
        let scratch = tempfile::tempdir().unwrap();
        let seen = scratch.path().join("child");
        let command =
            format!("sh -c 'echo $$ > {}; exec sleep 1000' & wait # {{list}}", seen.display());
        let slow = External { time_limit: Duration::from_millis(700), ..external(&command) };
        let started = std::time::Instant::now();
        let error = judge(&slow, &["/x"]).unwrap_err();
        assert!(error.contains("it took more than 0.7 s and was ended"), "{error}");
        gone(&seen);
        // One that ends and leaves a child behind.
        let command = format!(
            "sh -c 'echo $$ > {}; exec sleep 1000' & sleep 0.3; cat {{list}} | sed 's/$/\\t1/'",
            seen.display()
        );
        std::fs::remove_file(&seen).unwrap();
        assert_eq!(judge(&external(&command), &["/x"]).unwrap().unwrap().scores, [Some(1.0)]);
        gone(&seen);
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    /// The process whose number stands in the file has ended.
    fn gone(file: &Path) {
        let id: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        for _ in 0..100 {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{id} is still there");
    }
}
