//! Bodies that come in: streamed to disk, hashed on the way, bounded in size and in time.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use super::multipart::Chunks;
use super::problem::{Code, Problem};
use crate::digest::{self, hex};
use crate::serve::store::MOST_INLINE;

/// Longest silence inside a body.
const IDLE: Duration = Duration::from_secs(15);
/// Least pace of a body, counted from this long after its beginning.
const PACE: u64 = 8 << 10;
const PACE_FROM: Duration = Duration::from_secs(20);
/// Bytes that are gathered before they go to the disk.
const PIECE: usize = 512 << 10;
const _: () = assert!(MOST_INLINE < PIECE);
/// As many bytes decide whether a file is media.
const MAGIC: usize = 12;

/// A request's body, read no faster than it is asked for.
pub struct Bounded {
    body: Body,
    read: u64,
    most: u64,
    since: Instant,
}

impl Bounded {
    /// At most `most` bytes.
    pub fn new(body: Body, most: u64) -> Self {
        Self { body, read: 0, most, since: Instant::now() }
    }

    /// The whole body.
    pub async fn all(mut self) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

impl Chunks for Bounded {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout(IDLE, self.body.frame()).await.map_err(|_| {
                let detail = format!("nothing came for {} s", IDLE.as_secs());
                Problem::new(Code::TooSlow, detail)
            })?;
            let data = match frame {
                None => return Ok(None),
                Some(Err(e)) => {
                    let detail = format!("the body broke off after {} bytes: {e}", self.read);
                    return Err(Problem::new(Code::TruncatedBody, detail));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => data,
                    // Trailers.
                    Err(_) => continue,
                },
            };
            self.read += data.len() as u64;
            if self.read > self.most {
                return Err(too_large(self.most));
            }
            let late = self.since.elapsed().saturating_sub(PACE_FROM);
            if self.read < late.as_secs() * PACE {
                let detail = format!("less than {} KiB/s came", PACE >> 10);
                return Err(Problem::new(Code::TooSlow, detail));
            }
            return Ok(Some(data));
        }
    }
}

pub fn too_large(most: u64) -> Problem {
    Problem::new(Code::TooLarge, format!("at most {most} bytes are accepted"))
}

/// A file that is gone unless it was kept.
struct Part {
    path: PathBuf,
    kept: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = std::fs::remove_file(&self.path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{}: cannot be removed: {e}", self.path.display());
        }
    }
}

/// An upload on its way to `uploads/<id>`; whoever drops it leaves nothing behind.
pub struct Upload {
    /// None once writing it failed.
    disk: Option<Disk>,
    pending: Vec<u8>,
    bytes: u64,
    most: u64,
}

/// What is written by threads that may wait for the disk. It goes to them whole and comes back, so
/// that the file is removed after the last write where the upload was dropped in the meantime.
struct Disk {
    part: Part,
    to: PathBuf,
    file: Option<File>,
    hash: Sha256,
}

impl Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create_new(&self.part.path)?),
        };
        file.write_all(bytes)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        // The store synchronises the folder, and with it the name, once for many uploads.
        self.file.as_ref().map_or(Ok(()), File::sync_data)?;
        std::fs::rename(&self.part.path, &self.to)?;
        self.part.path = std::mem::take(&mut self.to);
        Ok(())
    }
}

/// An upload that is whole. Dropped, its file is removed, unless it is kept.
pub struct Received {
    /// None: the store is given the content.
    part: Option<Part>,
    /// The content of a small one, which has no file.
    pub content: Option<Vec<u8>>,
    pub sha256: String,
    pub bytes: u64,
}

impl Received {
    /// From here on the file is the store's.
    pub fn keep(mut self) {
        if let Some(part) = &mut self.part {
            part.kept = true;
        }
    }
}

impl Upload {
    /// Into `folder`, of at most `most` bytes.
    pub fn new(folder: &Path, id: uuid::Uuid, most: u64) -> Self {
        Self {
            disk: Some(Disk {
                part: Part { path: folder.join(format!("{id}.part")), kept: false },
                to: folder.join(id.to_string()),
                file: None,
                hash: Sha256::new(),
            }),
            pending: Vec::new(),
            bytes: 0,
            most,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `too_large`; `unsupported_media` as soon as the first bytes are no media's; a full disk.
    pub async fn take(&mut self, bytes: &Bytes) -> Result<(), Problem> {
        let begins = self.bytes < MAGIC as u64;
        self.bytes += bytes.len() as u64;
        if self.bytes > self.most {
            return Err(too_large(self.most));
        }
        self.pending.extend_from_slice(bytes);
        if begins && self.pending.len() >= MAGIC {
            check_magic(&self.pending)?;
        }
        if self.pending.len() >= PIECE {
            self.disk = Some(self.write(false).await?);
        }
        Ok(())
    }

    /// The whole file was taken: where it is not small, it is written, synchronised and has its name.
    pub async fn finish(mut self) -> Result<Received, Problem> {
        if self.bytes < MAGIC as u64 {
            check_magic(&self.pending)?;
        }
        let bytes = self.bytes;
        if bytes <= MOST_INLINE as u64 {
            // Nothing of it was written: pieces are larger.
            let content = std::mem::take(&mut self.pending);
            let sha256 = digest::sha256(&content);
            return Ok(Received { part: None, content: Some(content), sha256, bytes });
        }
        let disk = self.write(true).await?;
        let sha256 = hex(&disk.hash.finalize());
        Ok(Received { part: Some(disk.part), content: None, sha256, bytes })
    }

    /// Writes what is pending, away from the threads that answer requests; at the end gives the
    /// file its name.
    async fn write(&mut self, last: bool) -> Result<Disk, Problem> {
        let doing = "storing the upload";
        let Some(mut disk) = self.disk.take() else {
            return Err(Problem::internal(doing, &"an earlier write failed"));
        };
        let pending = std::mem::take(&mut self.pending);
        let written = tokio::task::spawn_blocking(move || {
            disk.write(&pending)?;
            if last {
                disk.finish()?;
            }
            std::io::Result::Ok(disk)
        });
        match written.await {
            Ok(written) => written.map_err(|e| Problem::internal(doing, &e)),
            Err(e) => Err(Problem::internal(doing, &e)),
        }
    }
}

fn check_magic(head: &[u8]) -> Result<(), Problem> {
    if head.is_empty() {
        return Err(Problem::new(Code::UnsupportedMedia, "the file is empty"));
    }
    if is_media(head) {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMedia,
        "the file does not begin like a video, a sound or a picture that can be read",
    ))
}

/// Whether a file may begin like that which is in one of the formats that `media` opens.
fn is_media(head: &[u8]) -> bool {
    const BEGINNINGS: &[&[u8]] = &[
        b"\x1aE\xdf\xa3", // Matroska, WebM
        b"RIFF",          // AVI, WAV, WebP
        b"RF64",
        b"riff", // Wave64
        b"FLV",
        b"OggS",
        b"\x30\x26\xb2\x75", // ASF
        b"\x06\x0e\x2b\x34", // MXF
        b"nut/multimedia",
        b"nut/multim",
        b"DKIF",     // IVF
        b"\0\0\x01", // MPEG: program and elementary streams, H.264, HEVC
        b"\0\0\0\x01",
        b"\x12\0", // AV1: a temporal delimiter
        b"FORM",   // AIFF
        b".snd",
        b"caff",
        b"fLaC",
        b"ID3",
        b"\x56\xe0", // LOAS
        b"\x0bw",    // AC-3
        b"#!AMR",
        b"MAC ",
        b"wvpk",
        b"TTA1",
        b"TTA2",
        b"\xff\xd8\xff", // JPEG
        b"\x89PNG\r\n\x1a\n",
        b"GIF8",
        b"BM",
        b"II*\0", // TIFF
        b"MM\0*",
        b"\0\0\0\x0cjP  ", // JPEG 2000
        b"\xff\x4f\xff\x51",
        b"\xff\x0a", // JPEG XL
        b"\0\0\0\x0cJXL ",
        b"P4",
        b"P5",
        b"P6",
        b"P7", // Netpbm
    ];
    const BOXES: &[&[u8; 4]] = &[
        b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx",
        b"uuid", b"jumb", b"udta", b"meta",
    ];
    let iso = head.get(4..8).is_some_and(|kind| BOXES.iter().any(|b| kind == &b[..]));
    // Frames of MPEG audio and AAC: eleven bits set.
    let frames = head.len() > 1 && head[0] == 0xff && head[1] & 0xe0 == 0xe0;
    // Packets of a transport stream, with and without a time before each.
    let packets = head[0] == 0x47 || head.get(4) == Some(&0x47);
    iso || frames || packets || BEGINNINGS.iter().any(|b| head.starts_with(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_media_is_told_by_its_first_bytes() {
        for good in [
            &b"\0\0\0\x20ftypisom"[..],
            b"RIFF\x24\0\0\0WAVE",
            b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01",
            b"\xff\xfb\x90\x44\0\0\0\0\0\0\0\0",
            b"\x1aE\xdf\xa3\0\0\0\0\0\0\0\0",
        ] {
            assert!(check_magic(good).is_ok(), "{}", good.escape_ascii());
        }
        for bad in [
            &b""[..],
            b"x",
            b"<!DOCTYPE html>",
            b"PK\x03\x04 a zip archive",
            b"%PDF-1.7 .....",
            b"\x7fELF........",
            b"\x1f\x8b.........",
            b"{\"json\": true}",
            b"#!/bin/sh\nrm",
        ] {
            assert!(check_magic(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn uploads_are_whole_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let id = uuid::Uuid::now_v7();
        let content = [&b"RIFF\x24\0\0\0WAVE"[..], &vec![7; 2 << 20]].concat();
        run(async {
            let mut upload = Upload::new(folder.path(), id, 4 << 20);
            for piece in content.chunks(100_000) {
                upload.take(&Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert_eq!(names(folder.path()), [format!("{id}.part")]);
            let received = upload.finish().await.unwrap();
            assert_eq!(received.sha256, crate::digest::sha256(&content));
            assert_eq!(received.bytes, content.len() as u64);
            assert_eq!(std::fs::read(folder.path().join(id.to_string())).unwrap(), content);
            drop(received);
            assert!(names(folder.path()).is_empty());

            let mut upload = Upload::new(folder.path(), id, 1 << 20);
            upload.take(&Bytes::copy_from_slice(&content[..600_000])).await.unwrap();
            let error = upload.take(&Bytes::copy_from_slice(&content)).await.unwrap_err();
            assert_eq!(error.code(), Code::TooLarge);
            drop(upload);
            assert!(names(folder.path()).is_empty());

            let mut upload = Upload::new(folder.path(), id, 1 << 20);
            upload.take(&content.clone()[..MOST_INLINE + 1].to_vec().into()).await.unwrap();
            upload.finish().await.unwrap().keep();
            assert_eq!(names(folder.path()), [id.to_string()]);

            let mut upload = Upload::new(folder.path(), uuid::Uuid::now_v7(), 1 << 20);
            upload.take(&content.clone()[..MOST_INLINE].to_vec().into()).await.unwrap();
            let received = upload.finish().await.unwrap();
            assert_eq!(received.content.as_deref(), Some(&content[..MOST_INLINE]));
            assert_eq!(received.sha256, crate::digest::sha256(&content[..MOST_INLINE]));
            received.keep();
            assert_eq!(names(folder.path()), [id.to_string()], "small ones are no files");
        });
    }

    #[test]
    fn magic_is_checked_however_the_first_bytes_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        run(async {
            let mut upload = Upload::new(folder.path(), uuid::Uuid::now_v7(), 100);
            let mut error = None;
            for byte in b"PK\x03\x04.........." {
                if let Err(e) = upload.take(&Bytes::copy_from_slice(&[*byte])).await {
                    error = Some(e.code());
                    break;
                }
            }
            assert_eq!(error, Some(Code::UnsupportedMedia));
            let short = Upload::new(folder.path(), uuid::Uuid::now_v7(), 100);
            assert!(short.finish().await.is_err());
        });
        assert!(names(folder.path()).is_empty());
    }
}
