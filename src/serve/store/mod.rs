//! The service's jobs, reports, tenants and webhook deliveries in one SQLite file, and the queue of
//! what is to be done.
//!
//! One thread writes. It takes writes from a bounded channel and commits as many as wait in one
//! transaction, each in a savepoint of its own, so that a hundred submissions cost one sync of the
//! disk. A write is answered ([`Pending`]) when it is on the disk. Reads go through a few
//! connections of their own and never wait for the writer (SQLite's write-ahead log).
//!
//! The queue is in memory and holds only what the database holds too: it is filled from there when
//! the store is opened, and a job enters it when its row is on the disk. A job leaves its unfinished
//! states exactly once ([`Store::finish`], [`Store::delete`]), in the transaction that writes its
//! report, its audit entry and its webhook delivery.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::{JobId, Outcome};
use super::queue::Aging;
use crate::report::Report;

use self::work::Work;

mod audit;
mod deliveries;
mod inline;
mod jobs;
mod pending;
mod removal;
mod retention;
mod rows;
mod tenants;
#[cfg(test)]
mod tests;
mod work;

pub use audit::AuditEntry;
pub use deliveries::{Delivery, DeliveryCounts, DeliveryState, WebhookBody};
pub use inline::MOST_INLINE;
pub use jobs::{
    Counts, Cursor, FetchTask, Finished, Idempotency, JobFilter, MAX_ATTEMPTS, NewJob, Submission,
    Task,
};
pub use pending::Pending;
pub use retention::Swept;
pub use tenants::{ApiKey, KeyInfo, Scope, Tenant};

/// "VSCS": says that an SQLite file is a service's store.
const APPLICATION_ID: i64 = 0x5653_4353;
/// Version of the tables, kept in `user_version`.
const STORE_VERSION: i64 = 1;
const TABLES: &str = include_str!("schema.sql");
/// What stores of this version that were made earlier may lack.
const LATER: &str = "CREATE INDEX IF NOT EXISTS deliveries_of_job ON deliveries (job, id)";

/// Writes that may wait for the writer; who comes then waits, or is told that the store is full.
const WAITING_WRITES: usize = 4096;
/// Writes in one transaction at most, so that the first does not wait long for the last.
const GROUP: usize = 512;
/// Connections for reading.
const READERS: usize = 4;
/// Files that may wait to be deleted by the thread that does so.
const WAITING_DELETIONS: usize = 1024;

/// Why the store cannot be used or a write was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{path}: the store cannot be opened: {detail}")]
    Open { path: PathBuf, detail: String },
    #[error("{path}: another server works in this folder")]
    Locked { path: PathBuf },
    #[error("{path}: not a service's store: the file belongs to another program")]
    Foreign { path: PathBuf },
    #[error("{path}: the store has version {found}, this program reads version {STORE_VERSION}")]
    Version { path: PathBuf, found: i64 },
    #[error("{path}: what the store holds cannot be read: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("{path}: the store failed: {source}")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Invalid(String),
    /// A write that shared its transaction with others, none of which reached the disk.
    #[error("the store could not write: {0}")]
    Commit(String),
    #[error("the store has stopped")]
    Stopped,
}

/// Makes the outcome of a tenant's report; the last argument says whether the uploader declared the
/// content to be made by AI. The report it is given has that applied.
pub type MakeOutcome = Arc<dyn Fn(&str, &Report, bool) -> Outcome + Send + Sync>;

#[derive(Clone)]
pub struct StoreOptions {
    /// Jobs that may wait, all tenants together.
    pub max_queued: usize,
    pub aging: Aging,
    /// The engine's: reports of other engines are not given to new jobs.
    pub fingerprint: String,
    /// For jobs that end without an engine: same content as before, or crashed too often.
    pub outcome: MakeOutcome,
}

/// The store of one data folder. Clones share it; it is closed with the last one, after what was
/// given to write is written.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    writes: Option<Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the store is open.
    _lock: Option<File>,
}

/// What the writer and the callers share.
struct Shared {
    data: PathBuf,
    path: PathBuf,
    options: StoreOptions,
    readers: (Sender<Connection>, Receiver<Connection>),
    deletions: Sender<PathBuf>,
    work: Mutex<Work>,
    /// Something can be taken, or the store is closed.
    work_came: Condvar,
    /// The same for those who fetch.
    fetch_came: tokio::sync::Notify,
    keys: tenants::Cache,
    tally: deliveries::Tally,
    /// Transactions and the writes in them since the store was opened.
    commits: Arc<[AtomicU64; 2]>,
}

/// What is done once a write is on the disk, or is known not to be.
type Then = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A write: runs in its own savepoint and says what follows.
struct Write {
    run: Box<dyn FnOnce(&Connection) -> Ran + Send>,
    /// The upload's name in its folder has to be on the disk too.
    upload: bool,
}
struct Ran {
    /// Nothing of it may stay.
    undo: bool,
    then: Then,
}

impl Store {
    /// Opens the store of a data folder, makes it where there is none, and takes up what an earlier
    /// server left: jobs it was working on wait again, those begun more than [`MAX_ATTEMPTS`] times get a
    /// failed report (`crashed`), files that belong to no job are deleted.
    ///
    /// # Errors
    /// Another server works in the folder; it cannot be written; its database is damaged, foreign or
    /// of another version.
    pub fn open(data: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        for folder in [data.to_path_buf(), data.join("uploads"), data.join("contents")] {
            std::fs::create_dir_all(&folder)
                .map_err(|source| StoreError::Io { path: folder, source })?;
        }
        let store = Self::start(data, options, Some(lock(data)?))?;
        store.recover()?;
        Ok(store)
    }

    /// Opens a data folder's store beside the server that works in it: for tenants and keys, not for
    /// jobs. Nothing is recovered and [`Store::next`] gives nothing.
    ///
    /// # Errors
    /// As [`Store::open`], save for the other server.
    pub fn open_admin(data: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(data)
            .map_err(|source| StoreError::Io { path: data.into(), source })?;
        let outcome: MakeOutcome = Arc::new(|_, report: &Report, _| Outcome {
            action: super::model::Action::Review,
            disposition: report.disposition.state,
            because: vec!["no policy was asked".into()],
            policy_version: "none".into(),
        });
        let options = StoreOptions {
            max_queued: 0,
            aging: Aging::default(),
            fingerprint: String::new(),
            outcome,
        };
        let store = Self::start(data, options, None)?;
        store.close();
        Ok(store)
    }

    fn start(data: &Path, options: StoreOptions, lock: Option<File>) -> Result<Self, StoreError> {
        let path = data.join("serve.sqlite");
        let mut db = connect(&path)?;
        prepare(&mut db, &path)?;
        let readers = crossbeam_channel::bounded(READERS);
        for _ in 0..READERS {
            let reader = connect(&path)?;
            reader.pragma_update(None, "query_only", true).map_err(|e| sqlite_error(&path, e))?;
            // Filled to its bound and no further.
            let _ = readers.0.try_send(reader);
        }
        let thread_failed = |source| StoreError::Io { path: data.into(), source };
        let (deletions, doomed) = crossbeam_channel::bounded(WAITING_DELETIONS);
        std::thread::Builder::new()
            .name("store-deletions".into())
            .spawn(move || delete_all(&doomed))
            .map_err(thread_failed)?;
        let work = Work::new(options.aging);
        let commits: Arc<[AtomicU64; 2]> = Arc::default();
        let shared = Arc::new(Shared {
            data: data.into(),
            path: path.clone(),
            options,
            readers,
            deletions,
            work: Mutex::new(work),
            work_came: Condvar::new(),
            fetch_came: tokio::sync::Notify::new(),
            keys: tenants::Cache::default(),
            tally: deliveries::Tally::default(),
            commits: commits.clone(),
        });
        let (writes, waiting) = crossbeam_channel::bounded(WAITING_WRITES);
        let uploads = data.join("uploads");
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(db, &path, &uploads, &waiting, &commits))
            .map_err(thread_failed)?;
        Ok(Self(Arc::new(Inner {
            shared,
            writes: Some(writes),
            writer: Some(writer),
            _lock: lock,
        })))
    }

    /// Ends the waiting in [`Store::next`] and [`Store::next_fetch`]: they give nothing any more.
    /// Everything else goes on working.
    pub fn close(&self) {
        let shared = &self.0.shared;
        shared.work().closed = true;
        shared.work_came.notify_all();
        shared.fetch_came.notify_waiters();
    }

    /// The folder of everything that the service keeps.
    pub fn data(&self) -> &Path {
        &self.0.shared.data
    }

    /// Gives the writer a write; waits while 4,096 others wait. `run` gives the answer and what
    /// `after` is told once it is on the disk, before whoever waits for the answer is.
    fn write<T: Send + 'static, A: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection) -> Result<(T, A), StoreError> + Send + 'static,
        after: impl FnOnce(&Shared, A) + Send + 'static,
    ) -> Pending<T> {
        let (write, pending) = self.make(false, run, move |shared, value, committed| {
            if committed {
                after(shared, value);
            }
        });
        // A writer that is gone answers by dropping it.
        if let Some(writes) = &self.0.writes {
            let _ = writes.send(write);
        }
        pending
    }

    /// A write and its answer. `after` is called too where the write turns out not to be on the disk
    /// (false), unless `run` itself failed.
    fn make<T: Send + 'static, A: Send + 'static>(
        &self,
        upload: bool,
        run: impl FnOnce(&Connection) -> Result<(T, A), StoreError> + Send + 'static,
        after: impl FnOnce(&Shared, A, bool) + Send + 'static,
    ) -> (Write, Pending<T>) {
        let (answer, pending) = pending::pending();
        let shared = self.0.shared.clone();
        let run = Box::new(move |db: &Connection| match run(db) {
            Ok((value, told)) => {
                let then = move |committed: Result<(), StoreError>| {
                    after(&shared, told, committed.is_ok());
                    answer.give(committed.map(|()| value));
                };
                Ran { undo: false, then: Box::new(then) as Then }
            }
            Err(error) => Ran { undo: true, then: Box::new(move |_| answer.give(Err(error))) },
        });
        (Write { run, upload }, pending)
    }

    /// Runs a query on one of the reading connections; waits while all are at work.
    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (back, readers) = &self.0.shared.readers;
        let db = readers.recv().map_err(|_| StoreError::Stopped)?;
        let result = query(&db);
        let _ = back.try_send(db);
        result
    }

    fn sqlite(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        self.0.shared.sqlite()
    }

    /// Empties SQLite's log of writes; where readers or writers are too busy, the next one does.
    fn empty_log(&self) -> Result<(), StoreError> {
        let db = connect(&self.0.shared.path)?;
        db.busy_timeout(Duration::from_secs(1))
            .and_then(|()| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .map_err(self.sqlite())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a sender the writer ends after the last write that was given to it.
        self.writes = None;
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
        {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sqlite(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |e| sqlite_error(&path, e)
    }

    fn upload(&self, id: JobId) -> PathBuf {
        self.data.join("uploads").join(id.to_string())
    }

    /// Has a file or folder deleted, here where the thread that does so has too much to do.
    fn doom(&self, path: PathBuf) {
        if let Err(refused) = self.deletions.try_send(path) {
            delete(&refused.into_inner());
        }
    }
}

/// Locks a folder until the file is dropped.
fn lock(data: &Path) -> Result<File, StoreError> {
    let path = data.join("lock");
    let lock = match File::create(&path) {
        Ok(lock) => lock,
        Err(source) => return Err(StoreError::Io { path, source }),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: data.into() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path, source }),
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let fail = |e: rusqlite::Error| sqlite_error(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(fail)?;
    db.busy_timeout(Duration::from_secs(60)).map_err(fail)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Checks that the database is ours, makes the tables where it is empty.
fn prepare(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let fail = |e: rusqlite::Error| sqlite_error(path, e);
    check(db, path)?;
    if db.is_readonly(MAIN_DB).map_err(fail)? {
        let detail = "the file or its folder is read-only".into();
        return Err(StoreError::Open { path: path.into(), detail });
    }
    db.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    // What was answered with "accepted" survives a power cut.
    db.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    db.pragma_update(None, "foreign_keys", true).map_err(fail)?;
    // What is deleted is overwritten: uploads are in the database too.
    db.pragma_update(None, "secure_delete", true).map_err(fail)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    if check(&tx, path)? {
        tx.execute_batch(TABLES).map_err(fail)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        tx.pragma_update(None, "user_version", STORE_VERSION).map_err(fail)?;
    }
    tx.execute_batch(LATER).map_err(fail)?;
    tx.commit().map_err(fail)
}

/// Whether the database is empty; one that is not ours is an error.
fn check(db: &Connection, path: &Path) -> Result<bool, StoreError> {
    let read = |sql: &str| {
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|e| sqlite_error(path, e))
    };
    let id = read("PRAGMA application_id")?;
    let version = read("PRAGMA user_version")?;
    match (id, version, read("SELECT count(*) FROM sqlite_schema")?) {
        (0, 0, 0) => Ok(true),
        (APPLICATION_ID, STORE_VERSION, _) => Ok(false),
        (APPLICATION_ID, found, _) => Err(StoreError::Version { path: path.into(), found }),
        _ => Err(StoreError::Foreign { path: path.into() }),
    }
}

fn sqlite_error(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Foreign { path },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            StoreError::Open { path, detail: source.to_string() }
        }
        _ => StoreError::Sqlite { path, source },
    }
}

/// The writer: takes writes until nobody can give any, as many as wait in one transaction.
fn write_all(
    mut db: Connection,
    path: &Path,
    uploads: &Path,
    waiting: &Receiver<Write>,
    commits: &[AtomicU64; 2],
) {
    while let Ok(first) = waiting.recv() {
        let group = std::iter::once(first).chain(waiting.try_iter().take(GROUP - 1));
        let (thens, result) = write_group(&mut db, uploads, group);
        commits[0].fetch_add(1, Ordering::Relaxed);
        commits[1].fetch_add(thens.len() as u64, Ordering::Relaxed);
        let problem = result.err().map(|e| write_failed(path, &e));
        if let Some(problem) = &problem {
            tracing::error!("{problem}");
        }
        for then in thens {
            then(problem.clone().map_or(Ok(()), |p| Err(StoreError::Commit(p))));
        }
    }
}

fn write_failed(path: &Path, error: &WriteFailed) -> String {
    match error {
        WriteFailed::Sqlite(e) => format!("{}: {e}", path.display()),
        WriteFailed::Sync(e) => format!("the uploads' folder cannot be synced: {e}"),
    }
}

enum WriteFailed {
    Sqlite(rusqlite::Error),
    Sync(std::io::Error),
}

impl From<rusqlite::Error> for WriteFailed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Runs writes in one transaction. All of them are run or dropped, so that each is answered.
fn write_group(
    db: &mut Connection,
    uploads: &Path,
    group: impl Iterator<Item = Write>,
) -> (Vec<Then>, Result<(), WriteFailed>) {
    let mut thens = Vec::new();
    let result = (|| {
        let mut tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut upload = false;
        for write in group {
            let point = tx.savepoint()?;
            upload |= write.upload;
            let ran = (write.run)(&point);
            thens.push(ran.then);
            if ran.undo {
                // Dropped, a savepoint is rolled back.
                drop(point);
            } else {
                point.commit()?;
            }
        }
        if upload {
            // The files themselves were synced by whoever wrote them.
            File::open(uploads).and_then(|f| f.sync_all()).map_err(WriteFailed::Sync)?;
        }
        Ok(tx.commit()?)
    })();
    (thens, result)
}

fn delete_all(doomed: &Receiver<PathBuf>) {
    while let Ok(path) = doomed.recv() {
        delete(&path);
    }
}

/// Deletes a file or a folder with everything in it; that it is gone already is no fault.
fn delete(path: &Path) {
    let result = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{}: cannot be deleted: {error}", path.display());
        }
        _ => {}
    }
}

/// An enumeration's name as the API shows it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        other => format!("{other:?}"),
    }
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Invalid(e.to_string()))
}

/// JSON in a column as a value; what cannot be read is SQLite's error for a column of a wrong type.
fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(unreadable)
}

/// The value of an enumeration's name.
fn from_word<T: DeserializeOwned>(text: String) -> rusqlite::Result<T> {
    serde_json::from_value(serde_json::Value::String(text)).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(0, kind, error.into())
}
