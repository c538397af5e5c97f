//! Data sets by manifest: which files there are, what is true of them, and by which right they are
//! used. A manifest says how the items are found; the media lie elsewhere. docs/datasets.md has the
//! format.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod layout;
mod manifest;
mod place;
mod verify;

pub use manifest::{FileRecord, Layout, Manifest};
pub use verify::{Fault, Finding, Verification, verify};

use super::files::shown;
use place::Root;

/// Items of one data set. Beyond it is an error, not a machine without memory.
pub const MAX_ITEMS: usize = 5_000_000;

/// What the items are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    Video,
    Audio,
    Picture,
}

impl MediaKind {
    /// As in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Picture => "picture",
        }
    }
}

/// One file with what is true of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    pub path: PathBuf,
    /// Path relative to the set's root, with `/`.
    pub id: String,
    pub fake: bool,
    /// Identity, speaker or clip: what the bootstrap draws. None: not known.
    pub group: Option<String>,
    /// What made the fake, where the set says so.
    pub generator: Option<String>,
    /// The forged stretches in seconds, start before end, where the set has them. Empty for a real
    /// item of a set that has them.
    pub fake_periods: Option<Vec<[f64; 2]>>,
}

/// The items of a split, and what the manifest says of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSet {
    pub name: String,
    pub kind: MediaKind,
    pub manifest: PathBuf,
    /// SHA-256 of the manifest's bytes, hexadecimal.
    pub manifest_sha256: String,
    pub source: String,
    pub licence: String,
    /// By which consent of the people shown or heard.
    pub consent: String,
    /// None: all splits of the manifest.
    pub split: Option<String>,
    /// In the order in which the set lists them.
    pub items: Vec<Item>,
}

/// What to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub manifest: PathBuf,
    /// The folder of the media; None: what the manifest says, else the manifest's folder.
    pub root: Option<PathBuf>,
    /// None: all splits of the manifest.
    pub split: Option<String>,
}

/// A data set that cannot be used. Names the file and, where there is one, the line and the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {}{message}", .file.display(), .line.map_or(String::new(), |l| format!(":{l}")), .field.as_ref().map_or(String::new(), |f| format!("`{f}`: ")))]
pub struct DatasetError {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<u64>,
    /// Of the manifest, or a column.
    pub field: Option<String>,
    pub message: String,
}

impl DatasetError {
    fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, field: None, message: message.into() }
    }

    fn at(self, line: impl Into<Option<u64>>) -> Self {
        Self { line: line.into(), ..self }
    }

    fn field(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }
}

impl From<super::protocol::ReadError> for DatasetError {
    fn from(error: super::protocol::ReadError) -> Self {
        Self { file: error.file, line: error.line, field: None, message: error.message }
    }
}

/// An item as a set lists it, before anything is known of the file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    id: String,
    fake: bool,
    split: String,
    group: Option<String>,
    generator: Option<String>,
    periods: Option<Vec<[f64; 2]>>,
    /// Hexadecimal, lower case.
    sha256: Option<String>,
    /// Which of the list's files says so, and its line.
    list: u32,
    line: Option<u64>,
}

/// What a layout lists.
#[derive(Debug, Default)]
struct Listing {
    entries: Vec<Entry>,
    /// Files that were read to know the entries.
    lists: Vec<PathBuf>,
    /// The set says for every fake when it is forged.
    has_periods: bool,
}

impl Listing {
    /// Numbers a file that entries stand in.
    fn list(&mut self, path: &Path) -> u32 {
        self.lists.push(path.to_owned());
        u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX)
    }

    fn push(&mut self, entry: Entry) -> Result<(), DatasetError> {
        if self.entries.len() == MAX_ITEMS {
            return Err(self.error(&entry, format!("more than {MAX_ITEMS} items")));
        }
        if let Err(why) = place::check(&entry.id) {
            let message = format!("'{}' {why}", short(&entry.id));
            return Err(self.error(&entry, message));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn error(&self, entry: &Entry, message: String) -> DatasetError {
        let file = self.lists.get(entry.list as usize).map_or(Path::new(""), PathBuf::as_path);
        DatasetError::new(file, message).at(entry.line)
    }
}

/// Loads a data set.
///
/// Whether the files are whole is not looked at ([`verify`] does); files that are missing stay among
/// the items, so that whoever runs a detector counts them as skipped.
///
/// # Errors
///
/// A manifest without source, licence, consent or split; a list that cannot be read, names a file
/// twice or a path that leaves the root; a split without items; a root that holds none of them.
pub fn load(request: &Request) -> Result<DataSet, DatasetError> {
    let manifest = Manifest::read(&request.manifest)?;
    manifest.check_split(request.split.as_deref())?;
    let root = Root::open(&manifest, request.root.as_deref())?;
    let listing = layout::list(&manifest, &root, request.split.as_deref())?;
    let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(listing.entries.len());
    for entry in &listing.entries {
        if let Some(first) = seen.insert(&entry.id, entry) {
            let line = first.line.map_or(String::new(), |l| format!(" (line {l})"));
            let message = if first.split == entry.split {
                format!("'{}' is listed twice{line}", short(&entry.id))
            } else {
                format!(
                    "'{}' is in split '{}' and in split '{}'{line}",
                    short(&entry.id),
                    entry.split,
                    first.split
                )
            };
            return Err(listing.error(entry, message));
        }
    }
    drop(seen);
    let wanted = |entry: &&Entry| request.split.as_ref().is_none_or(|s| *s == entry.split);
    let mut there = false;
    let mut inside = HashSet::new();
    for entry in listing.entries.iter().filter(wanted) {
        match root.look(&entry.id, &mut inside) {
            place::Look::There => there = true,
            place::Look::Missing => {}
            place::Look::Outside => {
                let message = format!("'{}' is a link that leaves the root", short(&entry.id));
                return Err(listing.error(entry, message));
            }
        }
    }
    let items: Vec<Item> = listing
        .entries
        .iter()
        .filter(wanted)
        .map(|entry| Item {
            path: root.path().join(&entry.id),
            id: entry.id.clone(),
            fake: entry.fake,
            group: entry.group.clone(),
            generator: entry.generator.clone(),
            fake_periods: match &entry.periods {
                None if listing.has_periods && !entry.fake => Some(Vec::new()),
                periods => periods.clone(),
            },
        })
        .collect();
    if items.is_empty() {
        let split = request.split.as_ref().map_or(String::new(), |s| format!(" in split '{s}'"));
        let message = format!("no items{split} under {}", root.path().display());
        return Err(DatasetError::new(&request.manifest, message));
    }
    if !there {
        let message = format!(
            "none of the {} files is there, the first is '{}': is {} the right root?",
            items.len(),
            short(&items[0].id),
            root.path().display()
        );
        return Err(DatasetError::new(&request.manifest, message));
    }
    Ok(DataSet {
        name: manifest.name,
        kind: manifest.kind,
        manifest: request.manifest.clone(),
        manifest_sha256: manifest.sha256,
        source: manifest.source,
        licence: manifest.licence,
        consent: manifest.consent,
        split: request.split.clone(),
        items,
    })
}

/// Text from a file, short enough for a message.
fn short(text: &str) -> String {
    shown(text, 120)
}
