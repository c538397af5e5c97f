//! Small uploads: kept in the database instead of as files.
//!
//! Making, syncing and deleting a file costs more than everything else that a small upload needs
//! (measured: `scripts/bench-serve`); a row comes to the disk with the job's own transaction.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::model::JobId;

/// Uploads up to this size are kept so; SQLite is faster than files up to about 100 kB
/// (<https://sqlite.org/fasterthanfs.html>). None where there are no files in memory.
pub const MOST_INLINE: usize = if cfg!(target_os = "linux") { 64 << 10 } else { 0 };

pub(super) fn put(db: &Connection, job: JobId, bytes: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO uploads (job, bytes) VALUES (?1, ?2)")?
        .execute(params![job.into_bytes(), bytes])
        .map(|_| ())
}

pub(super) fn get(db: &Connection, job: JobId) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT bytes FROM uploads WHERE job = ?1")?
        .query_row([job.into_bytes()], |row| row.get(0))
        .optional()
}

/// Whether there was any.
pub(super) fn delete(db: &Connection, job: JobId) -> rusqlite::Result<bool> {
    let mut delete = db.prepare_cached("DELETE FROM uploads WHERE job = ?1")?;
    Ok(delete.execute([job.into_bytes()])? > 0)
}

/// A file that lies in memory and is gone when it is closed.
#[cfg(target_os = "linux")]
pub(super) fn in_memory(bytes: &[u8]) -> io::Result<File> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the name is a string with a zero at its end; the descriptor is checked and nobody
    // else's.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"upload".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.write_all(bytes)?;
    Ok(file)
}

/// A path by which this process and its children open such a file anew, each with a position of its
/// own, as long as it is held.
#[cfg(target_os = "linux")]
pub(super) fn path_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn in_memory(_: &[u8]) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn path_of(_: &File) -> PathBuf {
    PathBuf::new()
}
