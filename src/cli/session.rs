//! What happens to each file's report while the engine works: store, sink, totals, progress.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::complain;
use super::inputs::{Input, named_like_media};
use super::progress::{Progress, suspended};
use crate::engine::Observer;
use crate::report::store::{Store, StoreError};
use crate::report::{EngineInfo, ReasonCode, Report, Sink, Status, Totals, path_text};

/// The engine as a session needs it: scans paths, tells the observer, heeds the stop flag.
pub trait Scan {
    fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool);
}

impl Scan for crate::engine::Engine {
    fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool) {
        Self::scan(self, paths, observer, stop);
    }
}

/// How a session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub totals: Totals,
    /// The reader of stdout went away.
    pub broken_pipe: bool,
    /// Store or output failed; the scan was stopped. stderr has the cause.
    pub broken: bool,
}

/// One scan's bookkeeping. The engine's threads call it through [`Observer`].
pub struct Session<'a> {
    stop: &'a AtomicBool,
    fingerprint: &'a str,
    state: Mutex<State>,
}

struct State {
    store: Store,
    sink: Box<dyn Sink + Send>,
    progress: Progress,
    /// Files without a report so far, by the path that their report will carry.
    open: HashMap<String, Input>,
    /// Contents in work, each with the paths that wait for its report.
    in_work: HashMap<String, Vec<PathBuf>>,
    outcome: Outcome,
}

fn key(path: &Path) -> String {
    path_text(path)
}

impl<'a> Session<'a> {
    pub fn new(
        files: Vec<Input>,
        store: Store,
        fingerprint: &'a str,
        sink: Box<dyn Sink + Send>,
        stop: &'a AtomicBool,
    ) -> Self {
        let bytes = files.iter().fold(0u64, |sum, f| sum.saturating_add(f.bytes));
        let progress = Progress::new(files.len(), bytes);
        let open = files.into_iter().map(|input| (key(&input.path), input)).collect();
        let state = State {
            store,
            sink,
            progress,
            open,
            in_work: HashMap::new(),
            outcome: Outcome::default(),
        };
        Self { stop, fingerprint, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves nothing half-changed here that a report could miss.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Scans all files; returns once each has its report or the scan was stopped.
    pub fn run(self, engine: &dyn Scan) -> Outcome {
        let mut paths: Vec<PathBuf> = {
            let state = self.state();
            let mut paths: Vec<PathBuf> = state.open.values().map(|f| f.path.clone()).collect();
            paths.sort();
            paths
        };
        while !paths.is_empty() {
            engine.scan(&paths, &self, self.stop);
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            // Paths that waited for another one with the same content which then got no report
            // under that content: now they are scanned themselves.
            let waiting = std::mem::take(&mut self.state().in_work);
            let waiting: Vec<PathBuf> = waiting.into_values().flatten().collect();
            debug_assert!(waiting.len() < paths.len());
            paths = waiting;
            paths.sort();
        }
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !self.stop.load(Ordering::SeqCst) {
            let mut forgotten: Vec<PathBuf> = state.open.values().map(|f| f.path.clone()).collect();
            forgotten.sort();
            for path in forgotten {
                let message = format!("{}: the engine gave no report", key(&path));
                let report = failed(&path, "inference_error", message);
                state.emit(report, true, self.stop);
            }
        }
        state.progress.clear();
        if !state.outcome.broken_pipe && !state.outcome.broken {
            let done = state.sink.finish(&state.outcome.totals.clone());
            state.written(done, self.stop);
        }
        state.outcome
    }

    /// Puts a report of a path that the engine never saw into the output, as a failure.
    pub fn add_failure(&self, path: &Path, code: &str, message: String) {
        let report = failed(path, code, message);
        self.state().emit(report, true, self.stop);
    }
}

/// A failed report of a file that no engine touched.
fn failed(path: &Path, code: &str, message: String) -> Report {
    let engine = EngineInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        weights: Default::default(),
        device: "none".into(),
        device_note: None,
        decoder: None,
        options: Default::default(),
    };
    Report::failed(&key(path), code, message, engine)
}

impl State {
    /// Writes a report out and counts it.
    fn emit(&mut self, report: Report, scanned: bool, stop: &AtomicBool) {
        let input = self.open.remove(&report.media.path);
        let path = input.as_ref().map_or(Path::new(&report.media.path), |i| i.path.as_path());
        let bytes = input.as_ref().map_or(0, |i| i.bytes);
        self.progress.finished(path, bytes, report.media.duration_ms, scanned);
        if self.outcome.broken_pipe || self.outcome.broken {
            return;
        }
        let named = input.as_ref().is_none_or(|i| i.named);
        if !named && is_no_media(&report, path) {
            self.outcome.totals.not_media += 1;
            tracing::info!("{}: skipped, not media", report.media.path);
            return;
        }
        if let Some(error) = &report.error {
            complain(&error.message);
        }
        self.outcome.totals.add(&report);
        self.outcome.totals.reused += usize::from(!scanned);
        let done = suspended(|| self.sink.report(&report));
        self.written(done, stop);
    }

    fn written(&mut self, done: io::Result<()>, stop: &AtomicBool) {
        let Err(error) = done else { return };
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.outcome.broken_pipe = true;
        } else {
            complain(&format!("stdout: {error}"));
            self.outcome.broken = true;
        }
        stop.store(true, Ordering::SeqCst);
    }

    /// The value, or none once a failure of the store has been told and the scan stopped.
    fn stored<T>(&mut self, result: Result<T, StoreError>, stop: &AtomicBool) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if !self.outcome.broken {
                    complain(&error.to_string());
                }
                self.outcome.broken = true;
                stop.store(true, Ordering::SeqCst);
                None
            }
        }
    }

    /// A report from the store for `path`, written out.
    fn reuse(&mut self, report: Report, fingerprint: &str, stop: &AtomicBool) {
        if let Some(sha256) = &report.media.sha256 {
            let result = self.store.put_path(&report.media.path, fingerprint, sha256);
            if self.stored(result, stop).is_none() {
                return;
            }
        }
        self.emit(report, false, stop);
    }
}

impl Observer for Session<'_> {
    fn progress(&self, path: &Path, media_ms: i64, duration_ms: Option<i64>) {
        let mut state = self.state();
        let bytes = state.open.get(&key(path)).map_or(0, |input| input.bytes);
        state.progress.working(path, bytes, media_ms, duration_ms);
    }

    fn known(&self, path: &Path, sha256: &str) -> bool {
        let mut state = self.state();
        if let Some(waiting) = state.in_work.get_mut(sha256) {
            waiting.push(path.to_path_buf());
            return true;
        }
        let result = state.store.get(sha256, self.fingerprint, &key(path));
        match state.stored(result, self.stop) {
            // The store failed and the scan is being stopped.
            None => true,
            Some(Some(report)) => {
                state.reuse(report, self.fingerprint, self.stop);
                true
            }
            Some(None) => {
                state.in_work.insert(sha256.to_string(), Vec::new());
                false
            }
        }
    }

    fn done(&self, report: Report) {
        let mut state = self.state();
        let mut waiting = Vec::new();
        if let Some(sha256) = &report.media.sha256 {
            waiting = state.in_work.remove(sha256).unwrap_or_default();
            // Kept before it is told, so that what was told is never lost.
            if is_lasting(&report) {
                let result = state.store.put(&report, self.fingerprint);
                if state.stored(result, self.stop).is_none() {
                    return;
                }
            }
        }
        let copies: Vec<Report> =
            waiting.iter().map(|path| report.clone().with_path(&key(path))).collect();
        let lasting = is_lasting(&report);
        state.emit(report, true, self.stop);
        for copy in copies {
            if lasting {
                state.reuse(copy, self.fingerprint, self.stop);
            } else {
                state.emit(copy, false, self.stop);
            }
        }
    }
}

/// Whether another run on the same bytes would say the same: a failure of reading or of the
/// machine is tried again instead, and so is what a device that was lost left to another one, and a
/// manifest whose verifier, or a text whose reader, was too slow.
fn is_lasting(report: &Report) -> bool {
    let mut reasons = report.reasons.iter().chain(report.segments.iter().flat_map(|s| &s.reasons));
    use ReasonCode::{DeviceLost, ManifestNotVerified, TextReaderFailed};
    if reasons.any(|r| matches!(r.code, DeviceLost | ManifestNotVerified | TextReaderFailed)) {
        return false;
    }
    let code = report.error.as_ref().map(|e| e.code.as_str());
    !matches!(code, Some("unreadable" | "timed_out" | "inference_error" | "internal_error"))
}

/// Whether a failed file from a folder was never meant to be media.
fn is_no_media(report: &Report, path: &Path) -> bool {
    let code = report.error.as_ref().map(|e| e.code.as_str());
    report.status == Status::Failed
        && matches!(code, Some("empty" | "unrecognised" | "no_streams"))
        && !named_like_media(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::jsonl::JsonLines;
    use crate::report::samples;
    use std::io::Write;
    use std::sync::Arc;

    /// Output that the test reads afterwards; fails like a closed pipe after `lines` lines.
    #[derive(Clone)]
    struct Out {
        text: Arc<Mutex<Vec<u8>>>,
        lines: usize,
    }

    impl Out {
        fn new(lines: usize) -> Self {
            Self { text: Arc::default(), lines }
        }

        fn reports(&self) -> Vec<Report> {
            let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
            let mut all: Vec<Report> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            all.sort_by(|a, b| a.media.path.cmp(&b.media.path));
            all
        }

        fn paths(&self) -> Vec<String> {
            self.reports().into_iter().map(|r| r.media.path).collect()
        }
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut text = self.text.lock().unwrap();
            if text.iter().filter(|b| **b == b'\n').count() >= self.lines {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An engine whose files' content is their name up to the dash: `a-1` and `a-2` are the same.
    /// Files of one call are all asked for before the first is done, the hardest order.
    #[derive(Default)]
    struct Fake {
        scanned: Mutex<Vec<String>>,
        /// Scans this many files, then sets the stop flag.
        stop_after: Option<usize>,
        /// Contents whose report carries no sha256 the first time.
        forgets: Vec<String>,
        /// Contents that fail, with this code.
        fails: Vec<(String, &'static str)>,
        /// Paths that never get a report.
        drops: Vec<String>,
    }

    impl Scan for Fake {
        fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool) {
            let mut todo = Vec::new();
            for path in paths {
                let name = key(path);
                let content = name.split('-').next().unwrap().to_string();
                if !observer.known(path, &content) {
                    todo.push((name, content));
                }
            }
            for (n, (name, content)) in todo.into_iter().enumerate() {
                if self.stop_after == Some(n) {
                    stop.store(true, Ordering::SeqCst);
                }
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                if self.drops.contains(&name) {
                    continue;
                }
                observer.progress(Path::new(&name), 10, Some(100));
                let mut scanned = self.scanned.lock().unwrap();
                let mut report = samples::partial().with_path(&name);
                report.status = Status::Ok;
                report.error = None;
                report.media.sha256 = Some(content.clone());
                if self.forgets.contains(&content)
                    && !scanned.iter().any(|s| s.starts_with(&content))
                {
                    report.media.sha256 = None;
                }
                if let Some((_, code)) = self.fails.iter().find(|(c, _)| *c == content) {
                    let sha256 = report.media.sha256.clone();
                    report = failed(Path::new(&name), code, format!("{name}: no good"));
                    report.media.sha256 = sha256;
                }
                scanned.push(name);
                observer.done(report);
            }
        }
    }

    fn inputs(names: &[&str], named: bool) -> Vec<Input> {
        names.iter().map(|n| Input { path: n.into(), named, bytes: 10 }).collect()
    }

    fn scan(engine: &Fake, names: &[&str], store: Store, out: &Out) -> Outcome {
        let stop = AtomicBool::new(false);
        let sink = Box::new(JsonLines::new(out.clone()));
        Session::new(inputs(names, true), store, "e", sink, &stop).run(engine)
    }

    #[test]
    fn equal_contents_are_scanned_once_and_reported_for_each_path() {
        let (engine, out) = (Fake::default(), Out::new(99));
        let names = ["a-1", "a-2", "a-3", "b-1"];
        let outcome = scan(&engine, &names, Store::temporary().unwrap(), &out);
        assert_eq!(*engine.scanned.lock().unwrap(), ["a-1", "b-1"]);
        assert_eq!(out.paths(), names);
        assert_eq!((outcome.totals.ok, outcome.totals.reused), (4, 2));
    }

    #[test]
    fn a_stopped_scan_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.sqlite");
        let names = ["a-1", "b-1", "c-1", "c-2", "d-1"];
        let (first, out) = (Fake { stop_after: Some(2), ..Fake::default() }, Out::new(99));
        let outcome = scan(&first, &names, Store::open(&file).unwrap(), &out);
        assert_eq!(out.paths(), ["a-1", "b-1"]);
        assert_eq!((outcome.totals.ok, outcome.totals.failed), (2, 0));
        let (second, out) = (Fake::default(), Out::new(99));
        let outcome = scan(&second, &names, Store::open(&file).unwrap(), &out);
        assert_eq!(*second.scanned.lock().unwrap(), ["c-1", "d-1"]);
        assert_eq!(out.paths(), names);
        assert_eq!((outcome.totals.ok, outcome.totals.reused), (5, 3));
        let third = Fake::default();
        scan(&third, &["other-path", "a-9"], Store::open(&file).unwrap(), &Out::new(99));
        assert_eq!(*third.scanned.lock().unwrap(), ["other-path"]);
    }

    #[test]
    fn copies_are_scanned_where_the_first_gave_nothing_for_their_content() {
        let out = Out::new(99);
        let engine = Fake { forgets: vec!["a".into()], ..Fake::default() };
        scan(&engine, &["a-1", "a-2", "a-3"], Store::temporary().unwrap(), &out);
        assert_eq!(*engine.scanned.lock().unwrap(), ["a-1", "a-2"]);
        assert_eq!(out.paths(), ["a-1", "a-2", "a-3"]);
    }

    #[test]
    fn passing_failures_are_not_kept_and_lasting_ones_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.sqlite");
        let fails = vec![("a".to_string(), "inference_error"), ("b".to_string(), "damaged")];
        for round in 0..2 {
            let (engine, out) = (Fake { fails: fails.clone(), ..Fake::default() }, Out::new(99));
            let outcome = scan(&engine, &["a-1", "b-1"], Store::open(&file).unwrap(), &out);
            assert_eq!(outcome.totals.failed, 2);
            let scanned = engine.scanned.lock().unwrap().clone();
            assert_eq!(scanned, if round == 0 { vec!["a-1", "b-1"] } else { vec!["a-1"] });
            assert_eq!(out.reports()[1].error.as_ref().unwrap().message, "b-1: no good");
        }
    }

    #[test]
    fn a_file_without_a_report_is_a_failure() {
        let (engine, out) = (Fake { drops: vec!["a-1".into()], ..Fake::default() }, Out::new(99));
        let outcome = scan(&engine, &["a-1", "b-1"], Store::temporary().unwrap(), &out);
        assert_eq!((outcome.totals.ok, outcome.totals.failed), (1, 1));
        assert_eq!(out.reports()[0].error.as_ref().unwrap().code, "inference_error");
    }

    #[test]
    fn in_folders_what_is_no_media_is_skipped_unless_its_name_says_media() {
        let stop = AtomicBool::new(false);
        let out = Out::new(99);
        let names = ["a-x.txt", "b-x.mp4", "c-x.txt", "d-x"];
        let fails = ["a", "b", "c"].map(|c| (c.to_string(), "unrecognised"));
        let mut fails = fails.to_vec();
        fails.push(("d".into(), "damaged"));
        let engine = Fake { fails, ..Fake::default() };
        let mut files = inputs(&names, false);
        files[2].named = true;
        let sink = Box::new(JsonLines::new(out.clone()));
        let store = Store::temporary().unwrap();
        let outcome = Session::new(files, store, "e", sink, &stop).run(&engine);
        assert_eq!(out.paths(), ["b-x.mp4", "c-x.txt", "d-x"]);
        assert_eq!((outcome.totals.failed, outcome.totals.not_media), (3, 1));
    }

    #[test]
    fn a_closed_pipe_stops_the_scan_and_keeps_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.sqlite");
        let (engine, out) = (Fake::default(), Out::new(1));
        let names = ["a-1", "b-1", "c-1"];
        let outcome = scan(&engine, &names, Store::open(&file).unwrap(), &out);
        assert!(outcome.broken_pipe && !outcome.broken);
        assert_eq!(*engine.scanned.lock().unwrap(), ["a-1", "b-1"]);
        let (engine, out) = (Fake::default(), Out::new(99));
        scan(&engine, &names, Store::open(&file).unwrap(), &out);
        assert_eq!(*engine.scanned.lock().unwrap(), ["c-1"]);
        assert_eq!(out.paths(), names);
    }
}
