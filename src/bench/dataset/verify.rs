//! Whether a data set's files are there and whole, and whether its splits are apart.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use walkdir::WalkDir;

use super::manifest::Layout;
use super::place::{Look, Root};
use super::{DatasetError, Entry, Listing, Manifest, Request, layout, short};
use crate::digest::{hex, sha256_of_file};

/// Findings of one fault that are named; all are counted.
const MAX_NAMED: usize = 1000;

/// Files under the root that are looked at for the count of extra ones.
const MAX_WALKED: u64 = 20_000_000;

/// What is wrong with a file or with the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Listed, and not there.
    Missing,
    /// Its SHA-256 is another.
    Altered,
    /// There, and cannot be read.
    Unreadable,
    /// Something else than a regular file.
    NotAFile,
    /// Without a byte.
    Empty,
    /// A link leads out of the root.
    OutsideRoot,
    ListedTwice,
    /// The same file in two splits.
    InTwoSplits,
    /// The same identity, speaker or clip in two splits.
    GroupInTwoSplits,
    /// Nothing is listed that could be verified.
    NothingListed,
}

impl Fault {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Altered => "altered",
            Self::Unreadable => "unreadable",
            Self::NotAFile => "no file",
            Self::Empty => "empty",
            Self::OutsideRoot => "outside the root",
            Self::ListedTwice => "listed twice",
            Self::InTwoSplits => "in two splits",
            Self::GroupInTwoSplits => "leak",
            Self::NothingListed => "nothing listed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub fault: Fault,
    /// The file's path below the root, or the group's name.
    pub what: String,
    pub detail: String,
}

/// What was found of one data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    pub name: String,
    pub manifest: PathBuf,
    pub root: PathBuf,
    pub split: Option<String>,
    /// Files that the set lists in what was verified.
    pub listed: u64,
    /// Of them: real, fake.
    pub real: u64,
    pub fake: u64,
    /// Files whose SHA-256 was compared.
    pub compared: u64,
    /// Files under the root that nothing lists. None where that cannot be told: only a part of the
    /// set was read.
    pub extra: Option<u64>,
    /// At most 1,000 of each fault.
    pub findings: Vec<Finding>,
    /// How many of each there are.
    pub counts: Vec<(Fault, u64)>,
    /// Groups in several splits that the manifest gives a reason for.
    pub overlapping: u64,
}

impl Verification {
    /// Nothing is wrong.
    pub fn whole(&self) -> bool {
        self.counts.is_empty()
    }

    fn found(&mut self, fault: Fault, what: &str, detail: String) {
        let at = match self.counts.iter().position(|(f, _)| *f == fault) {
            Some(at) => at,
            None => {
                self.counts.push((fault, 0));
                self.counts.len() - 1
            }
        };
        self.counts[at].1 += 1;
        if self.counts[at].1 <= MAX_NAMED as u64 {
            self.findings.push(Finding { fault, what: short(what), detail });
        }
    }
}

/// Verifies a data set: every listed file is there and, where a SHA-256 is known, unaltered; none is
/// listed twice; no file, identity or speaker is in two splits.
///
/// # Errors
///
/// A manifest, list or root that cannot be read. What is wrong with the files is no error: it stands
/// in the result.
pub fn verify(request: &Request) -> Result<Verification, DatasetError> {
    let manifest = Manifest::read(&request.manifest)?;
    manifest.check_split(request.split.as_deref())?;
    let root = Root::open(&manifest, request.root.as_deref())?;
    let listing = match manifest.layout {
        Layout::Archives => Listing::default(),
        _ => layout::list(&manifest, &root, request.split.as_deref())?,
    };
    let mut result = Verification {
        name: manifest.name.clone(),
        manifest: request.manifest.clone(),
        root: root.path().to_owned(),
        split: request.split.clone(),
        listed: 0,
        real: 0,
        fake: 0,
        compared: 0,
        extra: None,
        findings: Vec::new(),
        counts: Vec::new(),
        overlapping: 0,
    };
    lists(&listing, &mut result);
    leaks(&manifest, &listing, &mut result);
    files(&manifest, &root, &listing, &mut result);
    if result.listed == 0 && manifest.files.is_empty() {
        let what = request.split.as_deref().unwrap_or(&manifest.name);
        result.found(Fault::NothingListed, what, "nothing can be verified".to_owned());
    }
    if request.split.is_none() && manifest.layout != Layout::Archives {
        result.extra = Some(extra(&manifest, &root, &listing)?);
    }
    result.counts.sort_unstable();
    Ok(result)
}

/// Files that are listed more than once.
fn lists(listing: &Listing, result: &mut Verification) {
    let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(listing.entries.len());
    for entry in &listing.entries {
        let Some(first) = seen.get(entry.id.as_str()) else {
            seen.insert(&entry.id, entry);
            continue;
        };
        let line = |entry: &Entry| match (listing.lists.get(entry.list as usize), entry.line) {
            (Some(path), Some(line)) => format!("{}:{line}", name(path)),
            (Some(path), None) => name(path),
            _ => String::new(),
        };
        if first.split == entry.split {
            let detail = format!("{} and {}", line(first), line(entry));
            result.found(Fault::ListedTwice, &entry.id, detail);
        } else {
            let detail =
                format!("{} ({}) and {} ({})", first.split, line(first), entry.split, line(entry));
            result.found(Fault::InTwoSplits, &entry.id, detail);
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Identities, speakers, clips in several splits.
fn leaks(manifest: &Manifest, listing: &Listing, result: &mut Verification) {
    let mut splits: HashMap<&str, Vec<(&str, u64)>> = HashMap::new();
    let mut order = Vec::new();
    for entry in &listing.entries {
        let Some(group) = &entry.group else { continue };
        let known = splits.entry(group).or_insert_with(|| {
            order.push(group.as_str());
            Vec::new()
        });
        match known.iter_mut().find(|(split, _)| *split == entry.split) {
            Some((_, files)) => *files += 1,
            None => known.push((&entry.split, 1)),
        }
    }
    for group in order {
        let Some(known) = splits.get(group).filter(|known| known.len() > 1) else { continue };
        if manifest.overlap.is_some() {
            result.overlapping += 1;
            continue;
        }
        let files: Vec<String> = known.iter().map(|(s, n)| format!("{s} ({n} files)")).collect();
        result.found(Fault::GroupInTwoSplits, group, format!("is in {}", files.join(" and ")));
    }
}

/// What is on the disk.
fn files(manifest: &Manifest, root: &Root, listing: &Listing, result: &mut Verification) {
    let mut inside = HashSet::new();
    let mut looked: HashSet<&str> = HashSet::with_capacity(listing.entries.len());
    let mut wanted: Vec<(&str, Option<&str>)> = Vec::new();
    for entry in &listing.entries {
        if result.split.as_ref().is_some_and(|split| *split != entry.split) {
            continue;
        }
        if looked.insert(&entry.id) {
            result.listed += 1;
            if entry.fake {
                result.fake += 1;
            } else {
                result.real += 1;
            }
            wanted.push((&entry.id, entry.sha256.as_deref()));
        }
    }
    wanted.extend(manifest.files.iter().map(|f| (f.name.as_str(), Some(f.sha256.as_str()))));
    let mut there = Vec::new();
    for (id, sha256) in wanted {
        match root.look(id, &mut inside) {
            Look::There => there.push((id, sha256)),
            Look::Missing => result.found(Fault::Missing, id, "is not there".to_owned()),
            Look::Outside => {
                result.found(Fault::OutsideRoot, id, "a link leads out of the root".to_owned());
            }
        }
    }
    // In the order of the list, whichever thread is done first.
    let checked: Vec<(bool, Option<(Fault, String)>)> =
        there.par_iter().map(|(id, sha256)| check(&root.path().join(id), *sha256)).collect();
    for ((id, _), (compared, fault)) in there.into_iter().zip(checked) {
        result.compared += u64::from(compared);
        if let Some((fault, detail)) = fault {
            result.found(fault, id, detail);
        }
    }
}

/// Whether the file's content was compared, and what is wrong with it.
fn check(path: &Path, sha256: Option<&str>) -> (bool, Option<(Fault, String)>) {
    let unreadable = |e: std::io::Error| (false, Some((Fault::Unreadable, e.to_string())));
    match std::fs::metadata(path) {
        Err(e) => return unreadable(e),
        // Before it is opened: opening a pipe would wait.
        Ok(meta) if !meta.is_file() => {
            return (false, Some((Fault::NotAFile, "is no regular file".to_owned())));
        }
        Ok(meta) if meta.len() == 0 => {
            return (false, Some((Fault::Empty, "has no bytes".to_owned())));
        }
        Ok(_) => {}
    }
    let Some(wanted) = sha256 else { return (false, None) };
    match sha256_of_file(path).map(|sum| hex(&sum)) {
        Ok(found) if found.eq_ignore_ascii_case(wanted) => (true, None),
        Ok(found) => {
            let cut = |text: &str| text.get(..12).unwrap_or(text).to_owned();
            let detail = format!("sha256 {}…, {}… is expected", cut(&found), cut(wanted));
            (true, Some((Fault::Altered, detail)))
        }
        Err(e) => unreadable(e),
    }
}

/// Files under the root that nothing lists. Links are not followed and count as files.
fn extra(manifest: &Manifest, root: &Root, listing: &Listing) -> Result<u64, DatasetError> {
    let mut known: HashSet<PathBuf> = HashSet::with_capacity(listing.entries.len());
    known.extend(listing.entries.iter().map(|entry| root.path().join(&entry.id)));
    known.extend(manifest.files.iter().map(|file| root.path().join(&file.name)));
    known.extend(listing.lists.iter().cloned());
    known.extend(std::fs::canonicalize(&manifest.path));
    let mut extra = 0;
    let mut walked = 0_u64;
    for entry in WalkDir::new(root.path()).follow_links(false) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root.path()).to_owned();
            DatasetError::new(&path, format!("cannot be read: {e}"))
        })?;
        walked += 1;
        if walked > MAX_WALKED {
            let message = format!("more than {MAX_WALKED} files");
            return Err(DatasetError::new(root.path(), message));
        }
        if !entry.file_type().is_dir() && !known.contains(entry.path()) {
            extra += 1;
        }
    }
    Ok(extra)
}
