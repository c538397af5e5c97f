//! `scores.jsonl`: what was judged, one line a file, written once and only added to. A run that was cut
//! short goes on from it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::short;

/// Bytes of one line at most: the windows of a day of one face.
const MAX_LINE: u64 = 64 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    /// Version of the lines.
    veriscope_bench: u32,
    fingerprint: String,
    suite: String,
    engine: String,
}

const VERSION: u32 = 1;

/// Which detector, which data set, in which state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellName {
    pub data_set: String,
    pub detector: String,
    pub degradation: String,
}

/// One file's line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    pub cell: CellName,
    pub id: String,
    pub fake: bool,
    /// The data set's file when the run that judged it began. None: it was not there, or is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Stamp>,
    #[serde(flatten)]
    pub record: Record,
}

/// What tells, without reading it, that a file is another than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub bytes: u64,
    /// When it was written last, since 1970.
    pub modified_ns: i64,
}

impl Stamp {
    /// None: there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        let modified_ns =
            meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Some(Self { bytes: meta.len(), modified_ns })
    }
}

/// What a detector said of a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// In the detector's direction. None: `skipped` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Of being fake, where the detector gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Whether the detector gives no verdict although it has a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<bool>,
    /// Code of the reason why there is no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What there is to say about the file, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Wall time, where the file was judged by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<TrackRecord>,
    /// Stretches of time: start and end in milliseconds, probability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<(u32, u32, f32)>,
    /// Scores of a video's frames, from a score file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<f64>,
    /// What a command said of moments and stretches: start and end in milliseconds, score in its
    /// direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<(u32, u32, f64)>,
    /// Stretches that a command or a file of proposals calls forged: start and end in seconds, confidence
    /// in the detector's direction. None: the detector proposes none in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposals: Option<Vec<(f32, f32, f32)>>,
}

/// One face or speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackRecord {
    /// Probability of being fake.
    pub probability: f32,
    /// Start and end in milliseconds, probability.
    pub windows: Vec<(u32, u32, f32)>,
}

/// What judging some files of a cell took together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    #[serde(flatten)]
    pub cell: CellName,
    pub files: u64,
    pub wall_ms: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct BatchLine {
    batch: Batch,
}

/// The cells of a run and their files.
pub struct Index {
    pub cells: HashMap<CellName, usize>,
    /// For each cell the data set's items by id.
    pub set_of: Vec<usize>,
    pub items: Vec<HashMap<String, usize>>,
}

/// What is known so far.
pub struct Done {
    /// By cell, then item.
    pub records: Vec<Vec<Option<Record>>>,
    /// Of the files that the records are of.
    pub stamps: Vec<Vec<Option<Stamp>>>,
    /// By cell.
    pub batches: Vec<Vec<Batch>>,
}

/// An open `scores.jsonl`, locked against a second run.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens `path` for the run of this fingerprint, or makes it; `fresh` throws away what is there. Also
    /// reads what was done. A last line that was cut short is dropped.
    ///
    /// # Errors
    /// One line that names the file: it cannot be read or written, another process writes it, it belongs
    /// to another run, or a line of it is damaged.
    pub fn open(
        path: &Path,
        fingerprint: &str,
        suite: &str,
        fresh: bool,
        index: &Index,
    ) -> Result<(Self, Done), String> {
        let failed = |what: String| format!("{}: {what}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| failed(format!("cannot be written: {e}")))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(failed("another run is writing it".to_owned()));
            }
            Err(TryLockError::Error(e)) => return Err(failed(format!("cannot be locked: {e}"))),
        }
        let mut journal = Self { path: path.to_owned(), file };
        if fresh {
            // Only what a run wrote.
            journal.first()?;
            journal.file.set_len(0).map_err(|e| failed(format!("cannot be emptied: {e}")))?;
        }
        let header = Header {
            veriscope_bench: VERSION,
            fingerprint: fingerprint.to_owned(),
            suite: suite.to_owned(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let done = journal.read(&header, index)?;
        Ok((journal, done))
    }

    fn failed(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.path.display())
    }

    /// The first line; None: there is none that is whole.
    fn first(&mut self) -> Result<Option<Header>, String> {
        let read = |e: std::io::Error| self.failed(format!("cannot be read: {e}"));
        let mut lines = BufReader::new(self.file.try_clone().map_err(read)?);
        lines.seek(SeekFrom::Start(0)).map_err(read)?;
        let mut line = Vec::new();
        (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).map_err(read)?;
        // What a run that was killed began with is no line of another program's.
        if line.last() != Some(&b'\n')
            && b"{\"veriscope_bench\":".starts_with(&line[..line.len().min(19)])
        {
            return Ok(None);
        }
        let header = serde_json::from_slice(&line);
        header.map(Some).map_err(|_| self.failed("line 1: not a file of bench run"))
    }

    fn read(&mut self, header: &Header, index: &Index) -> Result<Done, String> {
        let sizes = || index.set_of.iter().map(|set| index.items[*set].len());
        let mut done = Done {
            records: sizes().map(|n| vec![None; n]).collect(),
            stamps: sizes().map(|n| vec![None; n]).collect(),
            batches: vec![Vec::new(); index.set_of.len()],
        };
        let read = |e: std::io::Error| format!("cannot be read: {e}");
        if let Some(found) = self.first()?
            && found != *header
        {
            return Err(self.failed(format!(
                "belongs to another run: of suite '{}' with fingerprint {} by version {}, and this one is \
                 '{}' with {} by {}. Something of suite, manifests, files, weights or program is not what \
                 it was; --fresh throws that run away",
                short(&found.suite),
                short(&found.fingerprint),
                short(&found.engine),
                header.suite,
                header.fingerprint,
                header.engine
            )));
        }
        let mut whole = 0;
        let file = self.file.try_clone().map_err(|e| self.failed(read(e)))?;
        let mut lines = BufReader::new(file);
        lines.seek(SeekFrom::Start(0)).map_err(|e| self.failed(read(e)))?;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let length = (&mut lines)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|e| self.failed(read(e)))? as u64;
            if line.last() != Some(&b'\n') {
                if length == MAX_LINE {
                    return Err(self.failed(format!("line {number}: over {MAX_LINE} bytes")));
                }
                // The end, or a line that was cut short.
                break;
            }
            whole += length;
            let place = |what: String| self.failed(format!("line {number}: {what}"));
            if number == 1 {
                continue;
            }
            take(&line, index, &mut done).map_err(place)?;
        }
        self.file.set_len(whole).map_err(|e| self.failed(format!("cannot be written: {e}")))?;
        if whole == 0 {
            self.line(header)?;
        }
        Ok(done)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<Vec<u8>, String> {
        let mut line = serde_json::to_vec(value).map_err(|e| self.failed(e))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| self.failed(format!("cannot be written: {e}")))?;
        Ok(line)
    }

    /// Adds a file's line. What comes back is what the line says, so that a run that was cut short
    /// computes with the same numbers as one that was not.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn record(&mut self, row: &Row) -> Result<Record, String> {
        let line = self.line(row)?;
        serde_json::from_slice::<Row>(&line).map(|row| row.record).map_err(|e| self.failed(e))
    }

    /// Adds what a batch took.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn batch(&mut self, batch: Batch) -> Result<Batch, String> {
        let line = self.line(&BatchLine { batch })?;
        serde_json::from_slice::<BatchLine>(&line).map(|l| l.batch).map_err(|e| self.failed(e))
    }
}

/// Puts what one line says in its place. A file that was judged twice counts as it was the last time.
fn take(line: &[u8], index: &Index, done: &mut Done) -> Result<(), String> {
    let unknown = || "names what the suite does not have".to_owned();
    if line.starts_with(b"{\"batch\":") {
        let BatchLine { batch } =
            serde_json::from_slice(line).map_err(|e| format!("is damaged: {e}"))?;
        let cell = *index.cells.get(&batch.cell).ok_or_else(unknown)?;
        done.batches[cell].push(batch);
        return Ok(());
    }
    let row: Row = serde_json::from_slice(line).map_err(|e| format!("is damaged: {e}"))?;
    let cell = *index.cells.get(&row.cell).ok_or_else(unknown)?;
    let item = *index.items[index.set_of[cell]].get(&row.id).ok_or_else(unknown)?;
    done.records[cell][item] = Some(row.record);
    done.stamps[cell][item] = row.file;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> CellName {
        CellName { data_set: "s".into(), detector: name.into(), degradation: "none".into() }
    }

    fn index() -> Index {
        Index {
            cells: HashMap::from([(cell("a"), 0), (cell("b"), 1)]),
            set_of: vec![0, 0],
            items: vec![HashMap::from([("x".into(), 0), ("y".into(), 1)])],
        }
    }

    fn row(id: &str, score: f64) -> Row {
        let windows = vec![(0, 4000, 0.1)];
        let record = Record {
            score: Some(score),
            tracks: vec![TrackRecord { probability: 0.3, windows }],
            ..Record::default()
        };
        Row { cell: cell("a"), id: id.into(), fake: true, file: None, record }
    }

    fn open(path: &Path, fingerprint: &str, fresh: bool) -> Result<(Journal, Done), String> {
        Journal::open(path, fingerprint, "s", fresh, &index())
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        let (mut journal, done) = open(&path, "f", false).unwrap();
        assert!(done.records.iter().flatten().all(Option::is_none));
        let first = journal.record(&row("x", 0.1 + 0.2)).unwrap();
        let batch = Batch { cell: cell("a"), files: 1, wall_ms: 2.5, peak_memory_bytes: Some(7) };
        assert_eq!(journal.batch(batch.clone()).unwrap(), batch);
        let locked = open(&path, "f", false).err().unwrap();
        assert!(locked.contains("another run is writing it"), "{locked}");
        drop(journal);
        let whole = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"data_set\":").unwrap();
        let (mut journal, done) = open(&path, "f", false).unwrap();
        assert_eq!(done.records[0], [Some(first), None]);
        assert_eq!(done.batches, [vec![batch], vec![]]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        journal.record(&row("x", 5.0)).unwrap();
        drop(journal);
        let (_, done) = open(&path, "f", false).unwrap();
        assert_eq!(done.records[0][0].as_ref().unwrap().score, Some(5.0));
    }

    #[test]
    fn another_runs_file_is_refused_until_it_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        open(&path, "f", false).unwrap().0.record(&row("x", 1.0)).unwrap();
        let error = open(&path, "g", false).err().unwrap();
        assert!(error.contains("belongs to another run") && error.contains("--fresh"), "{error}");
        let (_, done) = open(&path, "g", true).unwrap();
        assert_eq!(done.records[0], [None, None]);
        for other in ["path\tscore\n", "no line"] {
            for fresh in [false, true] {
                std::fs::write(&path, other).unwrap();
                let error = open(&path, "g", fresh).err().unwrap();
                assert!(error.contains("line 1: not a file of bench run"), "{error}");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
            }
        }
        // Killed while it wrote its first line.
        for torn in ["", "{\"veri", "{\"veriscope_bench\":1,\"fing"] {
            std::fs::write(&path, torn).unwrap();
            assert!(open(&path, "g", false).is_ok(), "{torn}");
        }
    }

    #[test]
    fn damaged_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        drop(open(&path, "f", false).unwrap());
        let good = std::fs::read_to_string(&path).unwrap();
        let mut strange = row("x", 1.0);
        strange.id = "z".into();
        let strange = serde_json::to_string(&strange).unwrap();
        for (line, says) in
            [("{\"a\"\n", "line 2: is damaged"), (&format!("{strange}\n"), "line 2: names what")]
        {
            std::fs::write(&path, format!("{good}{line}")).unwrap();
            let error = open(&path, "f", false).err().unwrap();
            assert!(error.contains(says), "{error}");
        }
    }
}
