//! Labels read from containers, and what shows that one was taken off.
//!
//! Reads bytes, not what a media library chooses to show, because labels and their remains sit in
//! odd places. One reader a container, chosen by content. Every reader runs under one budget
//! (256 MiB and 400,000 reads in all, single pieces of at most 16 MiB in memory), so that no file,
//! however large or hostile, takes unbounded time or memory. Media data is never read except to
//! find the ends of JPEG and GIF, the tables of MPEG-TS and the links of a chained Ogg.
//!
//! `docs/labels.md` lists what is read where.

mod aigc;
mod apev2;
pub mod c2pa;
mod collect;
mod encoder;
pub(crate) mod evidence;
mod exif;
mod flv;
mod gif;
mod heif;
mod id3;
mod input;
mod jpeg;
mod jumbf;
mod matroska;
mod mp4;
mod mpegts;
mod png;
pub mod rhythm;
mod riff;
mod tiff;
mod traces;
pub mod watermark;
pub mod write;
mod xiph;
mod xmp;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::report::{Evidence, Label, Seen};
use collect::{Collector, NotVerified};
use input::{Input, Source, Stop};

/// What one file says about its origin, and what is left of what it once said.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// The container whose labels were read; none where this version reads none of it.
    pub container: Option<&'static str>,
    /// Every label found, at most 256. Where no AIGC label was found, one more entry stands first and
    /// says so (place `file`; verdict `not_found`, or `inconclusive` where not everything could be
    /// read).
    pub labels: Vec<Label>,
    /// At most 256 pieces of residue, and one for each generator's trace.
    pub strip_evidence: Vec<Evidence>,
    /// What kept a part of the file from being read, one sentence each, at most 16.
    pub unread: Vec<String>,
    /// Why a C2PA manifest could not be verified, where the verifier failed: another try may succeed.
    pub unverified: Option<String>,
}

impl Findings {
    /// Adds a label that was found in the pictures or the sound. A watermark with no label beside it
    /// is evidence that one was taken off, or never set.
    pub fn add_seen(&mut self, label: Label) {
        if label.system == "watermark" && !labelled(&self.labels) {
            let kind = &evidence::WATERMARK_WITHOUT_LABEL;
            self.strip_evidence.push(Evidence {
                kind: kind.code.to_owned(),
                place: label.place.clone(),
                weight: kind.weight,
                detail: format!("a watermark and no label beside it ({})", label.content),
                seen: Seen::default(),
            });
        }
        self.labels.push(label);
    }

    /// The first trace of a generator, if any.
    pub fn ai_trace(&self) -> Option<&Label> {
        self.labels.iter().find(|l| l.system == "generator-trace")
    }
}

/// Whether one of them says AI and is more than the trace that a generator leaves.
fn labelled(labels: &[Label]) -> bool {
    let trace = |l: &Label| matches!(l.system.as_str(), "generator-trace" | "watermark");
    labels.iter().any(|l| l.ai == Some(true) && !trace(l))
}

/// Why a file's labels could not be read. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    #[error("{path}: cannot be read: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not a regular file")]
    NotAFile { path: PathBuf },
}

/// What a container is told by: four packets of MPEG-TS with their checksums.
const HEAD: usize = 1024;

/// One container's reader.
trait Reader: Sync {
    fn name(&self) -> &'static str;
    /// Whether the first bytes of a file (up to [`HEAD`]) are of this container.
    fn recognises(&self, head: &[u8]) -> bool;
    /// Damage is noted in `out` and ends the reading of what it touches; an error is of the file
    /// system, or the budget that is used up.
    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop>;
}

const READERS: [&dyn Reader; 13] = [
    &png::Png,
    &jpeg::Jpeg,
    &gif::Gif,
    &tiff::Tiff,
    &riff::Riff,
    &matroska::Matroska,
    &xiph::Flac,
    &xiph::Ogg,
    &flv::Flv,
    // Before MP4, whose boxes it has.
    &mp4::Heif,
    &mp4::Mp4,
    &mpegts::Mpegts,
    // Last: a frame of MPEG audio has only 11 fixed bits.
    &id3::Mp3,
];

/// How a file's labels are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InspectOptions {
    /// What verifies C2PA manifests. None: they are reported and stay `inconclusive`.
    pub c2pa: Option<c2pa::Worker>,
}

/// Reads a file's labels and strip evidence with the default options: C2PA manifests are found and
/// not verified.
///
/// # Errors
/// See [`inspect_with`].
pub fn inspect(path: &Path) -> Result<Findings, InspectError> {
    inspect_with(path, &InspectOptions::default())
}

/// Reads a file's labels and strip evidence.
///
/// # Errors
/// Where the file cannot be opened or read, or is not a regular file. A damaged or unknown file is
/// no error: [`Findings::unread`] and [`Findings::container`] say so. Nor is a manifest that could
/// not be verified in time.
pub fn inspect_with(path: &Path, options: &InspectOptions) -> Result<Findings, InspectError> {
    inspect_until(path, options, &AtomicBool::new(false))
}

/// The same; once `stop` is set, the verifier is ended as at its deadline.
///
/// # Errors
/// See [`inspect_with`].
pub(crate) fn inspect_until(
    path: &Path,
    options: &InspectOptions,
    stop: &AtomicBool,
) -> Result<Findings, InspectError> {
    let failed = |source| InspectError::Io { path: path.to_owned(), source };
    // Asked first, because opening a FIFO waits for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(InspectError::NotAFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(failed)?;
    let (container, mut out) = read(&mut file).map_err(failed)?;
    if out.wants_c2pa() {
        let answer = match &options.c2pa {
            Some(worker) => {
                worker.ask(&file, extension(container), stop).map_err(NotVerified::Failed)
            }
            None => Err(NotVerified::NotAsked),
        };
        let trust_list = options.c2pa.as_ref().is_some_and(|w| w.trust_anchors.is_some());
        out.c2pa_answer(answer, trust_list);
    }
    Ok(out.finish(container))
}

/// The same over bytes in memory, without a verifier; for tests and fuzzing.
///
/// # Errors
/// Never for bytes in memory; the type is that of [`std::io::Read`].
pub fn inspect_bytes(bytes: &[u8]) -> io::Result<Findings> {
    inspect_stream(&mut io::Cursor::new(bytes))
}

/// The same over whatever can be read and sought in, without a verifier.
///
/// # Errors
/// Those of `stream`.
pub fn inspect_stream(stream: &mut (impl Read + Seek)) -> io::Result<Findings> {
    let (container, mut out) = read(stream)?;
    if out.wants_c2pa() {
        out.c2pa_answer(Err(NotVerified::NotAsked), false);
    }
    Ok(out.finish(container))
}

/// A name for the container that the verifier knows; it looks at the content first.
fn extension(container: Chosen) -> &'static str {
    match container {
        Some("jpeg") => "jpg",
        Some("riff") => "avi",
        Some("matroska") => "mkv",
        Some(name) => name,
        None => "",
    }
}

fn read(source: &mut dyn Source) -> io::Result<(Chosen, Collector)> {
    let mut input = Input::new(source)?;
    let mut out = Collector::default();
    let done = dispatch(&mut input, &mut out);
    let container = match done {
        Ok(container) => container,
        Err((container, Stop::Budget)) => {
            out.note("the structure takes more reading than one file is given".to_owned());
            container
        }
        Err((_, Stop::Io(error))) => return Err(error),
    };
    Ok((container, out))
}

type Chosen = Option<&'static str>;

fn dispatch(input: &mut Input<'_>, out: &mut Collector) -> Result<Chosen, (Chosen, Stop)> {
    let head = input.read(0, HEAD).map_err(|stop| (None, stop))?;
    let Some(reader) = READERS.iter().find(|r| r.recognises(&head)) else { return Ok(None) };
    match reader.read(input, out) {
        Ok(()) => Ok(Some(reader.name())),
        Err(stop) => Err((Some(reader.name()), stop)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LabelVerdict;

    #[test]
    fn a_watermark_is_evidence_only_where_no_label_says_ai() {
        let label = |system: &str, ai| Label {
            system: system.into(),
            place: "p".into(),
            content: "c".into(),
            verdict: LabelVerdict::Compliant,
            deviations: vec![],
            ai,
            seen: Seen::default(),
        };
        let seen = |beside: Vec<Label>| {
            let mut findings = Findings {
                container: Some("png"),
                labels: beside,
                strip_evidence: vec![],
                unread: vec![],
                unverified: None,
            };
            findings.add_seen(label("watermark", Some(true)));
            assert_eq!(findings.labels.last().map(|l| l.system.as_str()), Some("watermark"));
            findings.strip_evidence.into_iter().map(|e| e.kind).collect::<Vec<_>>()
        };
        let alone = ["watermark_without_label"];
        assert_eq!(seen(vec![]), alone);
        assert_eq!(seen(vec![label("generator-trace", Some(true))]), alone);
        // A camera's statement is no label that says AI.
        assert_eq!(seen(vec![label("iptc", Some(false))]), alone);
        assert!(seen(vec![label("aigc", Some(true))]).is_empty());
        assert!(seen(vec![label("c2pa", Some(true))]).is_empty());
    }
}
