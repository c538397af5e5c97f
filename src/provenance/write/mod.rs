//! Writing the implicit label of GB 45438 (as reported), and a platform's propagation elements, into
//! files whose pictures and sound stay as they are.
//!
//! A container's writer reads the structure and gives a [`Plan`]: which bytes give way to which.
//! Everything else is copied as it stands, nothing is encoded anew. The result is written beside the
//! output, read back by [`super::inspect`], and only then given the output's name: it must hold
//! exactly one compliant label and everything that the input said before. Nothing here takes a label
//! away.
//!
//! `docs/labels.md` lists what is written where.

mod flv;
mod gif;
mod heif;
mod id3;
mod jpeg;
mod json;
mod matroska;
mod mp4;
mod png;
mod riff;
mod tiff;
mod xiph;
mod xmp;

use std::fs::File;
use std::io::{self, Read, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::input::{Input, Source, Stop};
use super::{Findings, InspectError, aigc, inspect, inspect_bytes};
use crate::report::{Label, LabelVerdict};

/// The fields that a producer writes.
#[derive(Debug, Clone, Copy)]
pub struct Producer<'a> {
    /// `1` is AI, `2` possibly, `3` suspected.
    pub label: &'a str,
    /// ContentProducer: `001`, `1`, a unified social credit code of 18 characters, 5 digits.
    pub code: &'a str,
    /// ProduceID: the producer's number of this content.
    pub id: &'a str,
    /// ReservedCode1, empty where there is none.
    pub reserved: &'a str,
}

/// The fields that a platform adds.
#[derive(Debug, Clone, Copy)]
pub struct Propagator<'a> {
    /// ContentPropagator, built like [`Producer::code`].
    pub code: &'a str,
    /// PropagateID: the platform's number of this content.
    pub id: &'a str,
    /// ReservedCode2; none leaves what is there.
    pub reserved: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Replace an output that is there already. The input is never replaced.
    pub force: bool,
    /// Write although the file carries a C2PA manifest, whose hash then no longer matches.
    pub break_c2pa: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub container: &'static str,
    /// The label as it was read back from the output.
    pub label: Label,
}

/// Why nothing was written. The output is then as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("{path}: {what}: {source}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("the label would not comply: {0}")]
    Value(String),
    #[error("{0}: is the input, which is never overwritten")]
    IsInput(PathBuf),
    #[error("{0}: exists already")]
    Exists(PathBuf),
    #[error("{path}: labels cannot be written into {container}")]
    Container { path: PathBuf, container: String },
    #[error("{path}: carries an AIGC label already, at {place}; a second one would not comply")]
    Labelled { path: PathBuf, place: String },
    #[error("{path}: its AIGC label at {place} does not comply: {deviations}")]
    Noncompliant { path: PathBuf, place: String, deviations: String },
    #[error("{0}: carries no AIGC label to which propagation elements could be added")]
    NoLabel(PathBuf),
    #[error("{0}: carries a C2PA manifest, whose hash a write would break")]
    C2pa(PathBuf),
    #[error("{path}: not written: {what}")]
    Structure { path: PathBuf, what: String },
    #[error("{path}: not written, because the result could not be confirmed: {what}")]
    Unconfirmed { path: PathBuf, what: String },
}

/// Writes a new label.
///
/// # Errors
/// Where a value would not comply, the file has an AIGC label already, its container cannot be
/// written or is damaged, it carries a C2PA manifest (without [`WriteOptions::break_c2pa`]), the
/// output exists (without [`WriteOptions::force`]), or the result does not read back.
pub fn add(
    input: &Path,
    output: &Path,
    producer: &Producer<'_>,
    options: WriteOptions,
) -> Result<Written, WriteError> {
    let text = json::label(producer, None);
    compliant(&text)?;
    let before = look(input, output, options)?;
    unlabelled(input, &before)?;
    write(input, output, &before, &Change::Add(&text), &text, options)
}

/// [`add`] over bytes in memory: the bytes of the output. For tests and fuzzing.
///
/// # Errors
/// As [`add`].
pub fn add_bytes(
    bytes: &[u8],
    producer: &Producer<'_>,
    options: WriteOptions,
) -> Result<Vec<u8>, WriteError> {
    let text = json::label(producer, None);
    compliant(&text)?;
    let (path, before) = look_at_bytes(bytes, options)?;
    unlabelled(path, &before)?;
    write_bytes(path, bytes, &before, &Change::Add(&text), &text)
}

/// Adds propagation elements to the label that is there, whose other fields stay as they are.
/// `unlabelled` is what to write, with the propagation elements, where there is no label: a platform
/// labels what is suspected (`3`) or possibly AI-made (`2`).
///
/// # Errors
/// As [`add`]; and where there is no label and `unlabelled` is none or says `1`, where there is one
/// and `unlabelled` is given, where the label that is there does not comply, or stands where it
/// cannot be changed.
pub fn propagate(
    input: &Path,
    output: &Path,
    propagator: &Propagator<'_>,
    unlabelled: Option<&Producer<'_>>,
    options: WriteOptions,
) -> Result<Written, WriteError> {
    may_propagate(propagator, unlabelled)?;
    let before = look(input, output, options)?;
    let (expected, change) = propagation(input, &before, propagator, unlabelled)?;
    write(input, output, &before, &change.change(&expected, propagator), &expected, options)
}

/// [`propagate`] over bytes in memory: the bytes of the output. For tests and fuzzing.
///
/// # Errors
/// As [`propagate`].
pub fn propagate_bytes(
    bytes: &[u8],
    propagator: &Propagator<'_>,
    unlabelled: Option<&Producer<'_>>,
    options: WriteOptions,
) -> Result<Vec<u8>, WriteError> {
    may_propagate(propagator, unlabelled)?;
    let (path, before) = look_at_bytes(bytes, options)?;
    let (expected, change) = propagation(path, &before, propagator, unlabelled)?;
    write_bytes(path, bytes, &before, &change.change(&expected, propagator), &expected)
}

/// What is wrong with the arguments is told before the file is looked at.
fn may_propagate(
    propagator: &Propagator<'_>,
    unlabelled: Option<&Producer<'_>>,
) -> Result<(), WriteError> {
    if propagator.code.is_empty() || propagator.id.is_empty() {
        return Err(WriteError::Value("ContentPropagator and PropagateID are needed".to_owned()));
    }
    // Judged in a label of its own.
    let sample =
        Producer { label: "1", code: "001100000000000000000000000", id: "0", reserved: "" };
    compliant(&json::label(unlabelled.unwrap_or(&sample), Some(propagator)))?;
    if unlabelled.is_some_and(|producer| producer.label == "1") {
        let why = "Label 1 is the producer's to write; a platform's own finding is 2 or 3";
        return Err(WriteError::Value(why.to_owned()));
    }
    Ok(())
}

/// How propagation elements come into a file.
enum Propagation {
    /// With a label of the platform's own.
    Add,
    /// Into the label that is there.
    Change,
}

impl Propagation {
    fn change<'a>(&self, text: &'a str, propagator: &'a Propagator<'a>) -> Change<'a> {
        match self {
            Self::Add => Change::Add(text),
            Self::Change => Change::Propagate(propagator),
        }
    }
}

/// The text of the label that is to be there afterwards, and how it gets there.
fn propagation(
    input: &Path,
    before: &Findings,
    propagator: &Propagator<'_>,
    unlabelled: Option<&Producer<'_>>,
) -> Result<(String, Propagation), WriteError> {
    let path = input.to_owned();
    let Some(old) = labels(before).next() else {
        let Some(producer) = unlabelled else { return Err(WriteError::NoLabel(path)) };
        return Ok((json::label(producer, Some(propagator)), Propagation::Add));
    };
    let place = old.place.clone();
    if unlabelled.is_some() {
        return Err(WriteError::Labelled { path, place });
    }
    if old.verdict != LabelVerdict::Compliant {
        let deviations = old.deviations.join(", ");
        return Err(WriteError::Noncompliant { path, place, deviations });
    }
    let Some(expected) = json::propagated(&old.content, propagator) else {
        let what = format!("the label at {place} cannot be understood well enough to change it");
        return Err(WriteError::Structure { path, what });
    };
    Ok((expected, Propagation::Change))
}

/// Every AIGC label that a file holds.
fn labels(found: &Findings) -> impl Iterator<Item = &Label> {
    found.labels.iter().filter(|l| l.system == "aigc" && l.place != "file")
}

/// Judges a label's text by the rules that every label is judged by.
fn compliant(text: &str) -> Result<(), WriteError> {
    match aigc::read(text) {
        aigc::Reading::Label(label) if label.deviations.is_empty() => Ok(()),
        aigc::Reading::Label(label) => {
            let why: Vec<_> = label.deviations.iter().map(|code| aigc::explain(code)).collect();
            Err(WriteError::Value(why.join("; ")))
        }
        _ => Err(WriteError::Value("its values cannot be read back".to_owned())),
    }
}

/// What the input says, after everything that forbids to write was asked.
fn look(input: &Path, output: &Path, options: WriteOptions) -> Result<Findings, WriteError> {
    use std::os::unix::fs::MetadataExt as _;
    let found = inspect(input)?;
    if let Ok(there) = std::fs::metadata(output) {
        let same = std::fs::metadata(input)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (there.dev(), there.ino()));
        if same {
            return Err(WriteError::IsInput(output.to_owned()));
        }
    }
    // A link that leads nowhere is there, too.
    if !options.force && std::fs::symlink_metadata(output).is_ok() {
        return Err(WriteError::Exists(output.to_owned()));
    }
    unsigned(input, &found, options)?;
    Ok(found)
}

/// The same of bytes in memory, with the name that messages give them.
fn look_at_bytes(
    bytes: &[u8],
    options: WriteOptions,
) -> Result<(&'static Path, Findings), WriteError> {
    let path = Path::new("bytes in memory");
    let found = inspect_bytes(bytes)
        .map_err(|source| InspectError::Io { path: path.to_owned(), source })?;
    unsigned(path, &found, options)?;
    Ok((path, found))
}

fn unsigned(input: &Path, found: &Findings, options: WriteOptions) -> Result<(), WriteError> {
    if !options.break_c2pa && found.labels.iter().any(|l| l.system == "c2pa") {
        return Err(WriteError::C2pa(input.to_owned()));
    }
    Ok(())
}

/// No second label is added to a file that has one.
fn unlabelled(input: &Path, found: &Findings) -> Result<(), WriteError> {
    match labels(found).next() {
        Some(label) => {
            Err(WriteError::Labelled { path: input.to_owned(), place: label.place.clone() })
        }
        None => Ok(()),
    }
}

/// What is to be written.
pub(super) enum Change<'a> {
    /// A new label with this JSON.
    Add(&'a str),
    /// These elements into the label that is there.
    Propagate(&'a Propagator<'a>),
}

impl Change<'_> {
    /// The text that takes the place of a label's text; none where a label is to be added and this
    /// one has nothing to do with it.
    fn rewritten(&self, old: &str) -> Result<Option<String>, Refusal> {
        match self {
            Self::Add(_) => Ok(None),
            Self::Propagate(propagator) => json::propagated(old, propagator)
                .map(Some)
                .ok_or_else(|| "the label's text cannot be changed in its place".into()),
        }
    }
}

/// Why a container's writer gives no plan.
#[derive(Debug)]
pub(super) enum Refusal {
    Io(io::Error),
    What(String),
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Io(error) => Self::Io(error),
            Stop::Budget => Self::What("its structure takes more reading than is given".into()),
        }
    }
}

impl From<&str> for Refusal {
    fn from(what: &str) -> Self {
        Self::What(what.to_owned())
    }
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::What(what)
    }
}

/// `propagate` found no label in the places that a writer can change.
fn elsewhere() -> Refusal {
    "its label stands in a place that this version reads and does not write".into()
}

/// `remove` bytes from byte `at` of the input give way to `insert`.
#[derive(Debug)]
struct Edit {
    at: u64,
    remove: u64,
    insert: Vec<u8>,
}

/// Changes of one file, each of bytes that no other one touches.
#[derive(Debug, Default)]
pub(super) struct Plan(Vec<Edit>);

impl Plan {
    fn replace(&mut self, at: u64, remove: u64, insert: Vec<u8>) {
        self.0.push(Edit { at, remove, insert });
    }

    fn insert(&mut self, at: u64, bytes: Vec<u8>) {
        self.replace(at, 0, bytes);
    }

    /// As many bytes in place of those that are there.
    fn overwrite(&mut self, at: u64, bytes: Vec<u8>) {
        self.replace(at, bytes.len() as u64, bytes);
    }

    /// Copies `from` (of `len` bytes) into `to` with the changes made.
    fn apply(mut self, from: &mut dyn Source, len: u64, to: &mut dyn Write) -> io::Result<()> {
        // Stable, so that what is inserted at one place keeps its order.
        self.0.sort_by_key(|edit| edit.at);
        let mut at = 0;
        for edit in &self.0 {
            let end = edit.at.checked_add(edit.remove).filter(|end| *end <= len);
            let (Some(gap), Some(end)) = (edit.at.checked_sub(at), end) else {
                return Err(io::Error::other("two changes of the same bytes"));
            };
            copy(from, at, gap, to)?;
            to.write_all(&edit.insert)?;
            at = end;
        }
        copy(from, at, len - at, to)
    }
}

fn copy(from: &mut dyn Source, at: u64, len: u64, to: &mut dyn Write) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    if io::copy(&mut from.take(len), to)? == len {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was copied"))
    }
}

fn plan(
    container: &'static str,
    input: &mut Input<'_>,
    change: &Change<'_>,
) -> Option<Result<Plan, Refusal>> {
    Some(match container {
        "png" => png::plan(input, change),
        "jpeg" => jpeg::plan(input, change),
        "gif" => gif::plan(input, change),
        "tiff" => tiff::plan(input, change),
        "riff" => riff::plan(input, change),
        "matroska" => matroska::plan(input, change),
        "flac" => xiph::flac(input, 0, change),
        "ogg" => xiph::ogg(input, change),
        "flv" => flv::plan(input, change),
        "mp4" => mp4::plan(input, change),
        "heif" => heif::plan(input, change),
        "mp3" => id3::plan(input, change),
        _ => return None,
    })
}

/// The changes that `change` asks for, with the container's name.
fn planned(
    input: &Path,
    source: &mut dyn Source,
    before: &Findings,
    change: &Change<'_>,
) -> Result<(&'static str, Plan), WriteError> {
    let path = || input.to_owned();
    let unwritable =
        |container: &str| WriteError::Container { path: path(), container: container.to_owned() };
    let Some(container) = before.container else {
        return Err(unwritable("a container that this version does not know"));
    };
    if let Some(what) = before.unread.first() {
        return Err(WriteError::Structure { path: path(), what: what.clone() });
    }
    let failed = |what| move |source| WriteError::Io { path: path(), what, source };
    let mut source = Input::unbounded(source).map_err(failed("cannot be read"))?;
    match plan(container, &mut source, change) {
        None => Err(unwritable(named(container))),
        Some(Err(Refusal::Io(error))) => Err(failed("cannot be read")(error)),
        Some(Err(Refusal::What(what))) => Err(WriteError::Structure { path: path(), what }),
        Some(Ok(plan)) => Ok((container, plan)),
    }
}

fn write(
    input: &Path,
    output: &Path,
    before: &Findings,
    change: &Change<'_>,
    expected: &str,
    options: WriteOptions,
) -> Result<Written, WriteError> {
    let failed = |what| move |source| WriteError::Io { path: input.to_owned(), what, source };
    let mut file = File::open(input).map_err(failed("cannot be read"))?;
    let (container, plan) = planned(input, &mut file, before, change)?;
    let len = file.metadata().map_err(failed("cannot be read"))?.len();

    let failed = |what| move |source| WriteError::Io { path: output.to_owned(), what, source };
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Removed when it is dropped, unless it got the output's name.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".veriscope-").suffix(".part");
    // The default is for secrets; the umask takes from this what it takes from any new file.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut part = builder
        .permissions(mode)
        .tempfile_in(folder)
        .map_err(failed("no file can be made beside it"))?;
    plan.apply(&mut file, len, part.as_file_mut())
        .and_then(|()| part.as_file().sync_all())
        .map_err(failed("cannot be written"))?;
    let label = inspect(part.path())
        .map_err(|error| error.to_string())
        .and_then(|after| confirm(&after, container, before, expected))
        .map_err(|what| WriteError::Unconfirmed { path: output.to_owned(), what })?;
    let persisted =
        if options.force { part.persist(output) } else { part.persist_noclobber(output) };
    match persisted {
        Ok(_) => Ok(Written { container: named(container), label }),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists && !options.force => {
            Err(WriteError::Exists(output.to_owned()))
        }
        Err(e) => Err(failed("cannot be given its name")(e.error)),
    }
}

/// [`write()`] over bytes in memory.
fn write_bytes(
    path: &Path,
    bytes: &[u8],
    before: &Findings,
    change: &Change<'_>,
    expected: &str,
) -> Result<Vec<u8>, WriteError> {
    let failed = |what| move |source| WriteError::Io { path: path.to_owned(), what, source };
    let mut source = io::Cursor::new(bytes);
    let (container, plan) = planned(path, &mut source, before, change)?;
    let mut output = Vec::new();
    plan.apply(&mut source, bytes.len() as u64, &mut output)
        .map_err(failed("cannot be written"))?;
    let after = inspect_bytes(&output).map_err(failed("cannot be read back"))?;
    confirm(&after, container, before, expected)
        .map_err(|what| WriteError::Unconfirmed { path: path.to_owned(), what })?;
    Ok(output)
}

/// A container's name for people.
fn named(container: &'static str) -> &'static str {
    match container {
        "heif" => "HEIF and AVIF",
        "mpegts" => "MPEG-TS",
        "riff" => "RIFF",
        "mp4" => "MP4",
        "mp3" => "MP3",
        "matroska" => "Matroska",
        "png" => "PNG",
        "jpeg" => "JPEG",
        "gif" => "GIF",
        "tiff" => "TIFF",
        "flac" => "FLAC",
        "ogg" => "Ogg",
        "flv" => "FLV",
        other => other,
    }
}

/// Reads the result: one compliant label with the fields of `expected`, and all that was said before.
fn confirm(
    after: &Findings,
    container: &str,
    before: &Findings,
    expected: &str,
) -> Result<Label, String> {
    if after.container != Some(container) {
        return Err(format!("it reads as {:?}", after.container));
    }
    if let Some(what) = after.unread.first() {
        return Err(what.clone());
    }
    let mut found = labels(after);
    let label = match (found.next(), found.next()) {
        (Some(label), None) => label,
        (first, _) => {
            let more = if first.is_some() { "more than one label" } else { "no label" };
            return Err(format!("{more} is read back"));
        }
    };
    if label.verdict != LabelVerdict::Compliant {
        let codes = label.deviations.join(", ");
        return Err(format!("the label at {} does not comply: {codes}", label.place));
    }
    let fields = |text: &str| match aigc::read(text) {
        aigc::Reading::Label(label) => Some(label.content()),
        _ => None,
    };
    if fields(expected).as_deref() != Some(label.content.as_str()) {
        return Err(format!("the label at {} reads otherwise than it was written", label.place));
    }
    // The rest of the labels; a C2PA manifest is still there, though its hash no longer matches.
    let said = |found: &Findings| {
        let mut said: Vec<(String, String)> = Vec::new();
        for label in found.labels.iter().filter(|l| l.system != "aigc") {
            let content =
                if label.system == "c2pa" { String::new() } else { label.content.clone() };
            said.push((label.system.clone(), content));
        }
        said.sort();
        said
    };
    if said(before) != said(after) {
        return Err("other labels are not what they were".to_owned());
    }
    Ok(label.clone())
}
