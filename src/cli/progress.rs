//! The progress bar on a terminal's stderr, and stderr itself, which must not write through it.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The one bar of the process, so that logging finds it.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Runs `write` with the bar off the screen.
pub fn suspended<R>(write: impl FnOnce() -> R) -> R {
    match BAR.get() {
        Some(bar) if !bar.is_finished() => bar.suspend(write),
        _ => write(),
    }
}

/// Stderr that takes the bar off while it writes.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        suspended(|| io::stderr().lock().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        suspended(|| io::stderr().lock().write_all(bytes))
    }

    fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> io::Result<()> {
        // One write a line, so that lines of several threads do not mix.
        self.write_all(args.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// The bar on a terminal's stderr; nothing elsewhere.
fn bar(length: u64) -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let bar = BAR.get_or_init(|| ProgressBar::new(length.max(1)));
        // The template is fixed; an unparsable one would leave the default style.
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {wide_msg}") {
            bar.set_style(style.progress_chars("█▌░"));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        bar.clone()
    })
}

/// How many of many equal steps are done.
pub struct Steps {
    bar: Option<ProgressBar>,
    all: u64,
    /// Done before this began.
    before: u64,
    done: u64,
    started: Instant,
}

impl Steps {
    /// Shows a bar where stderr is a terminal, nothing elsewhere.
    pub fn new(all: u64, done: u64) -> Self {
        let steps = Self { bar: bar(all), all, before: done, done, started: Instant::now() };
        steps.show("");
        steps
    }

    /// One more; `of` says of what.
    pub fn step(&mut self, of: &str) {
        self.done += 1;
        self.show(of);
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, of: &str) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(self.done);
        bar.set_message(self.message(of, self.started.elapsed()));
    }

    fn message(&self, of: &str, elapsed: Duration) -> String {
        let mut message = format!("{}/{}", self.done, self.all);
        let (here, seconds) = (self.done - self.before, elapsed.as_secs_f64());
        if here > 0 && seconds >= 1.0 {
            message += &left((self.all - self.done) as f64 * seconds / here as f64);
        }
        if !of.is_empty() {
            message += &format!("  {of}");
        }
        message
    }
}

fn left(seconds: f64) -> String {
    let s = seconds.min(359_999.0 * 10.0) as u64;
    format!(", {}:{:02}:{:02} left", s / 3600, s / 60 % 60, s % 60)
}

/// How far a scan is. Work is measured in bytes of the files, because their lengths in time are
/// known only once they are opened.
pub struct Progress {
    bar: Option<ProgressBar>,
    files: usize,
    files_done: usize,
    bytes: u64,
    bytes_done: u64,
    /// Bytes and media of files that were scanned, not taken from the store.
    bytes_scanned: u64,
    media_scanned_ms: i64,
    in_work: HashMap<PathBuf, InWork>,
    started: Instant,
}

#[derive(Default, Clone, Copy)]
struct InWork {
    bytes: u64,
    media_ms: i64,
    duration_ms: Option<i64>,
}

impl Progress {
    /// Shows a bar where stderr is a terminal, nothing elsewhere.
    pub fn new(files: usize, bytes: u64) -> Self {
        let progress = Self {
            bar: bar(bytes),
            files,
            files_done: 0,
            bytes,
            bytes_done: 0,
            bytes_scanned: 0,
            media_scanned_ms: 0,
            in_work: HashMap::new(),
            started: Instant::now(),
        };
        progress.show();
        progress
    }

    pub fn working(&mut self, path: &Path, bytes: u64, media_ms: i64, duration_ms: Option<i64>) {
        self.in_work.insert(path.to_path_buf(), InWork { bytes, media_ms, duration_ms });
        self.show();
    }

    /// A file is finished; `scanned` is false where its report came from the store or a copy.
    pub fn finished(&mut self, path: &Path, bytes: u64, duration_ms: Option<i64>, scanned: bool) {
        self.in_work.remove(path);
        self.files_done += 1;
        self.bytes_done = self.bytes_done.saturating_add(bytes);
        if scanned {
            self.bytes_scanned = self.bytes_scanned.saturating_add(bytes);
            self.media_scanned_ms =
                self.media_scanned_ms.saturating_add(duration_ms.unwrap_or(0).max(0));
        }
        self.show();
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self) {
        let Some(bar) = &self.bar else { return };
        let now = self.at(self.started.elapsed());
        bar.set_position(now.position);
        bar.set_message(now.message);
    }

    fn at(&self, elapsed: Duration) -> Shown {
        let part: f64 = self.in_work.values().map(|w| w.bytes as f64 * w.fraction()).sum();
        let media: i64 = self.in_work.values().map(|w| w.media_ms.max(0)).sum();
        let media_ms = self.media_scanned_ms.saturating_add(media) as f64;
        let seconds = elapsed.as_secs_f64();
        let mut message = format!("{}/{} files", self.files_done, self.files);
        if media_ms > 0.0 && seconds >= 1.0 {
            // Milliseconds of media by milliseconds of wall time are hours by hours.
            message += &format!(", {:.1} media hours per hour", media_ms / (seconds * 1000.0));
        }
        let scanned = self.bytes_scanned as f64 + part;
        let left = (self.bytes.saturating_sub(self.bytes_done) as f64 - part).max(0.0);
        if scanned > 0.0 && seconds >= 1.0 {
            message += &self::left(left * seconds / scanned);
        }
        Shown { position: self.bytes_done.saturating_add(part as u64), message }
    }
}

struct Shown {
    position: u64,
    message: String,
}

impl InWork {
    fn fraction(self) -> f64 {
        match self.duration_ms {
            Some(total) if total > 0 => (self.media_ms as f64 / total as f64).clamp(0.0, 1.0),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_this_runs_steps_only() {
        let started = Instant::now();
        let mut steps = Steps { bar: None, all: 100, before: 40, done: 40, started };
        assert_eq!(steps.message("", Duration::from_secs(9)), "40/100");
        steps.done = 50;
        assert_eq!(steps.message("a", Duration::from_secs(10)), "50/100, 0:00:50 left  a");
    }

    #[test]
    fn speed_and_time_left_count_scanned_files_only() {
        let mut progress = Progress {
            bar: None,
            files: 4,
            files_done: 0,
            bytes: 400,
            bytes_done: 0,
            bytes_scanned: 0,
            media_scanned_ms: 0,
            in_work: HashMap::new(),
            started: Instant::now(),
        };
        assert_eq!(progress.at(Duration::from_secs(5)).message, "0/4 files");
        progress.finished(Path::new("a"), 100, Some(3_600_000), false);
        assert_eq!(progress.at(Duration::from_secs(5)).message, "1/4 files");
        progress.finished(Path::new("b"), 100, Some(60_000), true);
        progress.working(Path::new("c"), 100, 30_000, Some(60_000));
        // 150 bytes and 90 s of media in 10 s; 150 bytes are left.
        let now = progress.at(Duration::from_secs(10));
        assert_eq!(now.message, "2/4 files, 9.0 media hours per hour, 0:00:10 left");
        assert_eq!(now.position, 250);
    }
}
