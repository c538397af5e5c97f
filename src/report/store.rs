//! Results kept in one SQLite file, so that a scan that was cut short goes on where it was.
//!
//! A result belongs to a content (SHA-256) and an engine (its fingerprint: version, weights,
//! device, options). What differs from run to run (timings, wall clock) lies in a table of its
//! own, so that two stores can be compared; `docs/report.md` has the queries.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, TransactionBehavior};

use super::{Report, Timings};

/// "VSCP": says that an SQLite file is a store of this program.
const APPLICATION_ID: i64 = 0x5653_4350;
/// Version of the tables below, kept in `user_version`.
const STORE_VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE results (
    sha256      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status      TEXT NOT NULL,
    report      TEXT NOT NULL,
    PRIMARY KEY (sha256, fingerprint)
) STRICT;
CREATE TABLE files (
    path        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    PRIMARY KEY (path, fingerprint)
) STRICT;
CREATE TABLE runs (
    sha256      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    finished_at TEXT NOT NULL,
    timings     TEXT NOT NULL,
    PRIMARY KEY (sha256, fingerprint)
) STRICT;
";

/// Why the store cannot be used. Every message names its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{path}: the store cannot be opened: {detail}")]
    Open { path: PathBuf, detail: String },
    #[error("{path}: not a store: the file is no SQLite database")]
    NotSqlite { path: PathBuf },
    #[error("{path}: not a store: the SQLite database belongs to another program")]
    Foreign { path: PathBuf },
    #[error(
        "{path}: the store has version {found}, this program reads version {STORE_VERSION}; \
         give another file"
    )]
    Version { path: PathBuf, found: i64 },
    #[error("{path}: the store cannot be written: {detail}")]
    ReadOnly { path: PathBuf, detail: String },
    #[error("{path}: the store's result for content {sha256} cannot be read: {detail}")]
    Damaged { path: PathBuf, sha256: String, detail: String },
    #[error("{path}: the store failed: {source}")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// An open store. Each write is a transaction of its own and is on the disk when it returns.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the store at `path` and makes it where there is none. Several processes may have it
    /// open at the same time.
    ///
    /// # Errors
    /// A file that is not SQLite, that another program or another version made, or that cannot be
    /// written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |e: rusqlite::Error| sqlite_error(path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(fail)?;
        // Long enough for another process's transaction, which is one result.
        db.busy_timeout(Duration::from_secs(60)).map_err(fail)?;
        check(&db, path)?;
        // Read-only files are opened without a word by SQLite.
        if db.is_readonly(MAIN_DB).map_err(fail)? {
            return Err(StoreError::ReadOnly {
                path: path.into(),
                detail: "the file or its folder is read-only".into(),
            });
        }
        db.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
        // Next to the cost of a scan a sync per file is nothing, and power cuts lose nothing.
        db.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        Self { db, path: path.into() }.prepare()
    }

    /// A private store in a temporary file that vanishes with it: where no store was asked for,
    /// files with equal content are still scanned once.
    ///
    /// # Errors
    /// SQLite's, where it has no place for temporary files.
    pub fn temporary() -> Result<Self, StoreError> {
        let path = PathBuf::from("temporary store");
        // The empty name is SQLite's way to ask for a file that it deletes itself.
        let db = Connection::open("").map_err(|e| sqlite_error(&path, e))?;
        Self { db, path }.prepare()
    }

    fn prepare(mut self) -> Result<Self, StoreError> {
        let path = self.path.clone();
        let fail = |e: rusqlite::Error| sqlite_error(&path, e);
        // Immediate, so that of two processes that make the same store one waits for the other.
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        if check(&tx, &path)? == Found::Nothing {
            tx.execute_batch(TABLES).map_err(fail)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
            tx.pragma_update(None, "user_version", STORE_VERSION).map_err(fail)?;
        }
        tx.commit().map_err(fail)?;
        Ok(self)
    }

    /// The report for a content, under `path`, with the timings of the run that made it.
    ///
    /// # Errors
    /// SQLite's, or a stored report that cannot be read.
    pub fn get(
        &self,
        sha256: &str,
        fingerprint: &str,
        path: &str,
    ) -> Result<Option<Report>, StoreError> {
        let row: Option<(String, String)> = self
            .db
            .prepare_cached(
                "SELECT report, timings FROM results JOIN runs USING (sha256, fingerprint)
                 WHERE sha256 = ?1 AND fingerprint = ?2",
            )
            .and_then(|mut query| {
                query
                    .query_row([sha256, fingerprint], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .map_err(|e| sqlite_error(&self.path, e))?;
        let Some((report, timings)) = row else { return Ok(None) };
        let damaged = |e: serde_json::Error| StoreError::Damaged {
            path: self.path.clone(),
            sha256: sha256.into(),
            detail: e.to_string(),
        };
        let mut report: Report = serde_json::from_str(&report).map_err(damaged)?;
        report.timings = serde_json::from_str(&timings).map_err(damaged)?;
        Ok(Some(report.with_path(path)))
    }

    /// Keeps a report under its content; false where its content is not known (no sha256) and
    /// nothing was kept. Where another process was quicker, its result stays.
    ///
    /// # Errors
    /// SQLite's: no space, locked for more than a minute, damaged.
    pub fn put(&mut self, report: &Report, fingerprint: &str) -> Result<bool, StoreError> {
        let Some(sha256) = report.media.sha256.clone() else { return Ok(false) };
        let fail = |e: rusqlite::Error| sqlite_error(&self.path, e);
        let json = |e: serde_json::Error| {
            sqlite_error(&self.path, rusqlite::Error::ToSqlConversionFailure(e.into()))
        };
        let path = report.media.path.clone();
        let timings = serde_json::to_string(&report.timings).map_err(json)?;
        // The content's part of the report: the same whichever path was scanned, when, and on
        // which of the machines with the same device.
        let mut bare = report.clone().with_path("");
        bare.timings = Timings::default();
        bare.engine.device_note = None;
        let status = serde_json::to_value(bare.status).map_err(json)?;
        let bare = serde_json::to_string(&bare).map_err(json)?;
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        tx.execute(
            "INSERT INTO results (sha256, fingerprint, status, report) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
            (&sha256, fingerprint, status.as_str(), bare),
        )
        .map_err(fail)?;
        tx.execute(
            "INSERT INTO runs (sha256, fingerprint, finished_at, timings)
             VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%fZ'), ?3) ON CONFLICT DO NOTHING",
            (&sha256, fingerprint, timings),
        )
        .map_err(fail)?;
        put_path(&tx, &path, fingerprint, &sha256).map_err(fail)?;
        tx.commit().map_err(fail)?;
        Ok(true)
    }

    /// Notes that `path` holds this content too.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_path(
        &mut self,
        path: &str,
        fingerprint: &str,
        sha256: &str,
    ) -> Result<(), StoreError> {
        put_path(&self.db, path, fingerprint, sha256)
            .map(|_| ())
            .map_err(|e| sqlite_error(&self.path, e))
    }
}

fn put_path(
    db: &Connection,
    path: &str,
    fingerprint: &str,
    sha256: &str,
) -> rusqlite::Result<usize> {
    db.execute(
        "INSERT INTO files (path, fingerprint, sha256) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET sha256 = excluded.sha256",
        [path, fingerprint, sha256],
    )
}

#[derive(PartialEq)]
enum Found {
    Nothing,
    Store,
}

/// Whether the database is empty or a store of ours; anything else is an error.
fn check(db: &Connection, path: &Path) -> Result<Found, StoreError> {
    let read = |sql: &str| {
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|e| sqlite_error(path, e))
    };
    let id = read("PRAGMA application_id")?;
    let version = read("PRAGMA user_version")?;
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    match (id, version, tables) {
        (0, 0, 0) => Ok(Found::Nothing),
        (APPLICATION_ID, STORE_VERSION, _) => Ok(Found::Store),
        (APPLICATION_ID, found, _) => Err(StoreError::Version { path: path.into(), found }),
        _ => Err(StoreError::Foreign { path: path.into() }),
    }
}

fn sqlite_error(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::NotSqlite { path },
        Some(ErrorCode::CannotOpen) => StoreError::Open { path, detail: source.to_string() },
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path, detail: source.to_string() },
        _ => StoreError::Sqlite { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn sha(report: &Report) -> String {
        report.media.sha256.clone().unwrap()
    }

    #[test]
    fn a_report_comes_back_equal_after_the_store_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.sqlite");
        let report = samples::partial();
        assert!(Store::open(&file).unwrap().put(&report, "e1").unwrap());
        let store = Store::open(&file).unwrap();
        let back = store.get(&sha(&report), "e1", "b/talk.flac").unwrap();
        assert_eq!(back, Some(report.clone()));
        // Another engine knows nothing of it.
        assert_eq!(store.get(&sha(&report), "e2", "b/talk.flac").unwrap(), None);
        let elsewhere = store.get(&sha(&report), "e1", "z.flac").unwrap().unwrap();
        assert_eq!(elsewhere.media.path, "z.flac");
        assert!(elsewhere.error.unwrap().message.starts_with("z.flac: stream 0"));
    }

    #[test]
    fn a_report_without_content_is_not_kept() {
        let mut store = Store::temporary().unwrap();
        assert!(!store.put(&samples::failed(), "e").unwrap());
    }

    #[test]
    fn results_do_not_depend_on_path_or_time() {
        let dump = |path: &str, total_ms: u64| {
            let mut store = Store::temporary().unwrap();
            let mut report = samples::partial().with_path(path);
            report.timings.total_ms = total_ms;
            report.engine.device_note = Some(format!("no driver on machine {total_ms}"));
            store.put(&report, "e").unwrap();
            store.put_path("one.flac", "e", &sha(&report)).unwrap();
            store.put_path("two.flac", "e", &sha(&report)).unwrap();
            let rows = |sql: &str| -> Vec<String> {
                let mut query = store.db.prepare(sql).unwrap();
                query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            };
            (
                rows("SELECT sha256||fingerprint||status||report FROM results ORDER BY 1"),
                rows("SELECT path||fingerprint||sha256 FROM files ORDER BY 1"),
            )
        };
        let one = dump("one.flac", 10);
        assert_eq!(one, dump("two.flac", 99));
        assert_eq!((one.0.len(), one.1.len()), (1, 2));
    }

    #[test]
    fn the_first_result_stays_and_a_path_follows_its_content() {
        let mut store = Store::temporary().unwrap();
        let first = samples::partial();
        store.put(&first, "e").unwrap();
        let mut second = samples::partial();
        second.segments.clear();
        store.put(&second, "e").unwrap();
        assert_eq!(store.get(&sha(&first), "e", "b/talk.flac").unwrap(), Some(first));
        store.put_path("b/talk.flac", "e", "new").unwrap();
        let now: String =
            store.db.query_row("SELECT sha256 FROM files", [], |row| row.get(0)).unwrap();
        assert_eq!(now, "new");
    }

    #[test]
    fn files_that_are_no_store_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(
            &text,
            "This is a text and no database, however long it may be. ".repeat(40),
        )
        .unwrap();
        let before = std::fs::read(&text).unwrap();
        assert!(matches!(Store::open(&text), Err(StoreError::NotSqlite { .. })));
        assert_eq!(std::fs::read(&text).unwrap(), before);

        let other = dir.path().join("other.sqlite");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let before = std::fs::read(&other).unwrap();
        assert!(matches!(Store::open(&other), Err(StoreError::Foreign { .. })));
        assert_eq!(std::fs::read(&other).unwrap(), before);

        let old = dir.path().join("old.sqlite");
        drop(Store::open(&old).unwrap());
        Connection::open(&old).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(&old).unwrap_err();
        assert!(matches!(error, StoreError::Version { found: 99, .. }));
        assert!(error.to_string().contains("old.sqlite"));

        let nowhere = dir.path().join("no/such/folder/s.sqlite");
        assert!(matches!(Store::open(&nowhere), Err(StoreError::Open { .. })));
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Open { .. })));
    }

    #[test]
    fn a_damaged_result_is_an_error_that_names_the_content() {
        let mut store = Store::temporary().unwrap();
        let report = samples::partial();
        store.put(&report, "e").unwrap();
        store.db.execute("UPDATE results SET report = '{'", []).unwrap();
        let error = store.get(&sha(&report), "e", "p").unwrap_err();
        assert!(error.to_string().contains(&sha(&report)));
    }

    #[test]
    fn two_connections_write_one_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.sqlite");
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let file = &file;
                scope.spawn(move || {
                    let mut store = Store::open(file).unwrap();
                    for n in 0..20 {
                        let mut report = samples::partial();
                        // Every second content is written by both.
                        let owner = if n % 2 == 0 { 0 } else { worker };
                        report.media.sha256 = Some(format!("{owner}-{n}"));
                        store.put(&report, "e").unwrap();
                    }
                });
            }
        });
        let store = Store::open(&file).unwrap();
        let count = |sql: &str| store.db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM results"), 30);
        let whole: String =
            store.db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }
}
