//! Any program as a detector: it gets a list of paths and gives back a table of scores.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::journal::Record;
use super::suite::Times;
use crate::bench::evaluate::Scale;
use crate::bench::files::read_small;
use crate::child::{Supervised, Supervision, supervise};

/// Bytes that a table may have besides those for each file's line.
const HEADROOM: usize = 64 << 10;
/// Bytes of one line: a path and a number.
const LINE: usize = 8 << 10;
/// Lines with times of one file: an hour at 27 frames a second.
const MAX_TIMED: usize = 100_000;
/// Bytes that they may have, and all that a call may answer where there are any.
const TIMED: usize = 16 << 20;
const MOST_TIMED: usize = 1 << 30;

/// How a program is called.
#[derive(Debug, Clone)]
pub struct External {
    /// For a shell; `{list}` and `{out}` stand for paths.
    pub command: String,
    /// Where it starts.
    pub folder: PathBuf,
    pub time_limit: Duration,
    pub scale: Scale,
    /// What lines with times are; None: further columns are left alone.
    pub times: Option<Times>,
}

/// What a program said of a list of files.
#[derive(Debug)]
pub struct Answer {
    /// In the list's order.
    pub files: Vec<Judged>,
    pub peak_memory_bytes: Option<u64>,
}

/// What it said of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// None: an empty score, the program did not judge it.
    pub score: Option<f64>,
    /// Start and end in seconds, score.
    pub timed: Vec<(f64, f64, f64)>,
}

impl Judged {
    /// As the run keeps it.
    pub fn record(self, times: Option<Times>) -> Record {
        let skipped = self.score.is_none().then(|| "no_score".to_owned());
        let mut record = Record { score: self.score, skipped, ..Record::default() };
        let timed = self.timed.into_iter();
        match times {
            None => {}
            Some(Times::Windows) => {
                let ms = |s: f64| (s * 1000.0).round() as u32;
                record.windows = timed.map(|(a, b, score)| (ms(a), ms(b), score)).collect();
            }
            Some(Times::Segments) => {
                let all = timed.map(|(a, b, score)| (a as f32, b as f32, score as f32));
                record.proposals = Some(all.collect());
            }
        }
        record
    }
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
        let most_output = match self.times {
            None => HEADROOM + paths.len() * LINE,
            Some(_) => (HEADROOM + paths.len() * TIMED).min(MOST_TIMED),
        };
        let limits = Supervision { deadline: self.time_limit, most_output };
        let ended = supervise(child, Vec::new(), limits, stop).map_err(&failed)?;
        let Supervised::Ended { stdout, peak_memory_bytes } = ended else { return Ok(None) };
        let (text, place) = if self.command.contains("{out}") {
            let text = read_small(&out, most_output as u64);
            (text.map_err(|e| failed(format!("{{out}}: {e}")))?, "{out}")
        } else {
            (stdout, "stdout")
        };
        let files = self.table(&text, paths).map_err(|e| failed(format!("{place}:{e}")))?;
        Ok(Some(Answer { files, peak_memory_bytes }))
    }

    /// `path<TAB>score`, further columns left alone, in any order; a first line `path<TAB>score` is a header.
    /// An empty score is a file that was not judged. Where there are times, a line `path<TAB>score<TAB>start`
    /// or `…<TAB>start<TAB>end` is of a moment or a stretch. Errors begin with the line's number.
    fn table(&self, text: &[u8], paths: &[PathBuf]) -> Result<Vec<Judged>, String> {
        let places: HashMap<&[u8], usize> =
            paths.iter().enumerate().map(|(i, p)| (p.as_os_str().as_bytes(), i)).collect();
        let mut files = vec![Judged::default(); paths.len()];
        let mut lines = vec![0_usize; paths.len()];
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
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
            let score = match score.trim_ascii() {
                b"" => None,
                score => Some(self.score(score).map_err(|e| format!("{number}: {e}"))?),
            };
            let mut time = || fields.next().map(<[u8]>::trim_ascii).filter(|text| !text.is_empty());
            if let Some(times) = self.times
                && let Some(start) = time()
            {
                let (from, to) =
                    stretch(start, time(), times).map_err(|e| format!("{number}: {e}"))?;
                let Some(score) = score else {
                    return Err(format!("{number}: a time without a score"));
                };
                let timed = &mut files[at].timed;
                if timed.len() == MAX_TIMED {
                    let what = shown(path);
                    return Err(format!("{number}: more than {MAX_TIMED} times of '{what}'"));
                }
                timed.push((from, to, score));
                continue;
            }
            if lines[at] != 0 {
                let before = lines[at];
                return Err(format!("{number}: '{}' was in line {before} already", shown(path)));
            }
            lines[at] = number;
            files[at].score = score;
        }
        let missing = lines.iter().filter(|l| **l == 0).count();
        if let Some(first) = lines.iter().position(|l| *l == 0) {
            let kind = if self.times.is_some() { " without times" } else { "" };
            return Err(format!(
                " no line{kind} for {missing} of {} paths, the first is '{}'",
                paths.len(),
                paths[first].display()
            ));
        }
        let silent = |file: &Judged| file.score.is_none() && !file.timed.is_empty();
        if let Some(at) = files.iter().position(silent) {
            let path = paths[at].display();
            return Err(format!("{}: '{path}' has no score, and times", lines[at]));
        }
        Ok(files)
    }

    fn score(&self, text: &[u8]) -> Result<f64, String> {
        let value =
            number(text).ok_or_else(|| format!("the score '{}' is no number", shown(text)))?;
        if !value.is_finite() {
            return Err(format!("the score is {value}"));
        }
        if self.scale == Scale::Probability && !(0.0..=1.0).contains(&value) {
            return Err(format!("the score {value} is no probability"));
        }
        Ok(value)
    }
}

fn shown(bytes: &[u8]) -> String {
    super::short(&String::from_utf8_lossy(bytes))
}

fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// From and to in seconds; without an end a moment.
fn stretch(start: &[u8], end: Option<&[u8]>, times: Times) -> Result<(f64, f64), String> {
    let second = |text: &[u8]| {
        // Milliseconds of 32 bits: seven weeks.
        let there = number(text).filter(|s| (0.0..=4e6).contains(s));
        there.ok_or_else(|| format!("the time '{}' is no number of seconds from 0 on", shown(text)))
    };
    let from = second(start)?;
    let to = end.map_or(Ok(from), second)?;
    if to < from || to == from && times == Times::Segments {
        return Err(format!("no stretch of time from {from} to {to} s"));
    }
    Ok((from, to))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn external(command: &str) -> External {
        External {
            command: command.to_owned(),
            folder: std::env::temp_dir(),
            time_limit: Duration::from_secs(20),
            scale: Scale::Raw,
            times: None,
        }
    }

    fn judge(external: &External, paths: &[&str]) -> Result<Option<Answer>, String> {
        let scratch = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        external.judge(&paths, scratch.path(), &AtomicBool::new(false))
    }

    fn scores(answer: &Answer) -> Vec<Option<f64>> {
        assert!(answer.files.iter().all(|file| file.timed.is_empty()));
        answer.files.iter().map(|file| file.score).collect()
    }

    #[test]
    fn lines_with_times_are_moments_or_stretches() {
        let paths = ["/x/1", "/x/2"];
        let line = |format: &str| format!("printf '{format}' # {{list}}");
        let both = line(
            "path\\tscore\\tstart\\tend\\n/x/2\\t7\\n/x/1\\t3\\t0.5\\t1.25\\n/x/1\\t2\\t\\t\\n\
             /x/1\\t-4\\t2\\n",
        );
        let windows = External { times: Some(Times::Windows), ..external(&both) };
        let answer = judge(&windows, &paths).unwrap().unwrap();
        let timed = vec![(0.5, 1.25, 3.0), (2.0, 2.0, -4.0)];
        assert_eq!(answer.files[0], Judged { score: Some(2.0), timed });
        assert_eq!(answer.files[1], Judged { score: Some(7.0), timed: vec![] });
        let record = answer.files[0].clone().record(windows.times);
        assert_eq!(record.windows, [(500, 1250, 3.0), (2000, 2000, -4.0)]);
        let segments =
            |format: &str| External { times: Some(Times::Segments), ..external(&line(format)) };
        let answer = judge(&segments("/x/2\\t7\\n/x/1\\t3\\t0.5\\t1.25\\n/x/1\\t2\\n"), &paths);
        let records: Vec<Record> = answer
            .unwrap()
            .unwrap()
            .files
            .into_iter()
            .map(|f| f.record(segments("").times))
            .collect();
        assert_eq!(records[0].proposals, Some(vec![(0.5, 1.25, 3.0)]));
        // It looked, and found nothing.
        assert_eq!(records[1].proposals, Some(vec![]));
        for (format, says) in [
            ("/x/1\\t1\\t0\\t1\\n/x/2\\t1\\n", "stdout: no line without times for 1 of 2 paths"),
            ("/x/1\\t1\\t2\\t1\\n", "stdout:1: no stretch of time from 2 to 1 s"),
            ("/x/1\\t1\\t2\\n", "stdout:1: no stretch of time from 2 to 2 s"),
            ("/x/1\\t1\\tsoon\\n", "stdout:1: the time 'soon' is no number of seconds"),
            ("/x/1\\t1\\t-1\\t2\\n", "stdout:1: the time '-1' is no number of seconds"),
            ("/x/1\\t1\\t1\\tinf\\n", "stdout:1: the time 'inf' is no number of seconds"),
            ("/x/1\\t\\t1\\t2\\n", "stdout:1: a time without a score"),
            (
                "/x/2\\t1\\n/x/1\\t\\n/x/1\\t1\\t1\\t2\\n",
                "stdout:2: '/x/1' has no score, and times",
            ),
        ] {
            let error = judge(&segments(format), &paths).unwrap_err();
            assert!(error.contains(says), "{format}: {error}");
        }
    }

    #[test]
    fn scores_come_by_stdout_or_by_a_file_in_any_order() {
        let paths = ["/a b/1.wav", "/a b/2.wav"];
        for command in [
            "tac {list} | awk '{print $0 \"\\t\" NR}'",
            "printf 'path\\tscore\\n' > {out}; tac {list} | awk '{print $0 \"\\t\" NR \"\\tmore\"}' >> {out}",
        ] {
            let answer = judge(&external(command), &paths).unwrap().unwrap();
            assert_eq!(scores(&answer), [Some(2.0), Some(1.0)], "{command}");
            assert!(answer.peak_memory_bytes.unwrap() > 100 << 10);
        }
        let empty = "awk 'NR == 1 {print $0 \"\\t\"} NR == 2 {print $0 \"\\t5\"}' {list}";
        assert_eq!(scores(&judge(&external(empty), &paths).unwrap().unwrap()), [None, Some(5.0)]);
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
        assert_eq!(scores(&judge(&external(&command), &["/x"]).unwrap().unwrap()), [Some(1.0)]);
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
