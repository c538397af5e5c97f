//! DFDC: parts with a `metadata.json`, `{"a.mp4": {"label": "FAKE", "split": "train", "original":
//! "b.mp4"}, …}`, in the root, in its folders or in theirs; the test set is a folder `test` with a
//! `labels.csv` of `filename,label` (1: fake).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{DatasetError, Entry, Listing, Set, names, short, stem};
use crate::bench::files::read_small;
use crate::bench::protocol::lines::Lines;

/// A part has about 2,500 videos and half a megabyte of metadata.
const MAX_BYTES: u64 = 256 << 20;

/// Folders that are looked into.
const MAX_FOLDERS: usize = 10_000;

const METADATA: &str = "metadata.json";

#[derive(Deserialize)]
struct Video {
    label: Option<String>,
    split: Option<String>,
    original: Option<String>,
}

pub fn list(set: &Set) -> Result<Listing, DatasetError> {
    set.known_splits(&["train", "test"])?;
    let mut listing = Listing::default();
    if set.wants("train") {
        let parts = parts(set)?;
        if parts.is_empty() {
            let message =
                format!("no folder with a {METADATA} under {}", set.root.path().display());
            return Err(DatasetError::new(&set.manifest.path, message));
        }
        for part in &parts {
            read_part(set, part, &mut listing)?;
        }
    }
    if set.wants("test") {
        read_test(set, &mut listing)?;
    }
    Ok(listing)
}

/// Folders that hold a `metadata.json`, relative to the root; the root is "".
fn parts(set: &Set) -> Result<Vec<String>, DatasetError> {
    let mut parts = Vec::new();
    let mut folders = vec![String::new()];
    let mut looked = 0;
    for depth in 0..=2 {
        let mut deeper = Vec::new();
        for folder in &folders {
            looked += 1;
            if looked > MAX_FOLDERS {
                let message = format!("more than {MAX_FOLDERS} folders");
                return Err(DatasetError::new(set.root.path(), message));
            }
            let path = set.root.path().join(folder);
            if path.join(METADATA).is_file() {
                parts.push(folder.clone());
                continue;
            }
            if depth == 2 {
                continue;
            }
            for name in names(&path)? {
                // Links are not followed: they could lead out of the root, or in circles.
                let entry = path.join(&name);
                let real = std::fs::symlink_metadata(&entry).is_ok_and(|m| m.is_dir());
                if real && !name.starts_with('.') && !(depth == 0 && name == "test") {
                    deeper.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
                }
            }
        }
        folders = deeper;
    }
    parts.sort_unstable();
    Ok(parts)
}

fn read_part(set: &Set, part: &str, listing: &mut Listing) -> Result<(), DatasetError> {
    let path = set.root.path().join(part).join(METADATA);
    let wrong = |message: String| DatasetError::new(&path, message);
    let bytes = read_small(&path, MAX_BYTES).map_err(wrong)?;
    let videos: BTreeMap<String, Video> = serde_json::from_slice(&bytes)
        .map_err(|e| wrong(format!("is no DFDC metadata: {e}")).at(e.line() as u64))?;
    let list = listing.list(&path);
    for (name, video) in videos {
        let fake = match video.label.as_deref() {
            Some("FAKE") => true,
            Some("REAL") => false,
            other => {
                let label =
                    other.map_or("no label".to_owned(), |l| format!("label '{}'", short(l)));
                let message = format!("'{}' has {label}; FAKE or REAL is expected", short(&name));
                return Err(wrong(message));
            }
        };
        if let Some(split) = video.split.as_deref().filter(|split| *split != "train") {
            let message =
                format!("'{}' is in split '{}'; train is expected", short(&name), short(split));
            return Err(wrong(message));
        }
        let Some(own) = stem(&name) else {
            return Err(wrong(format!("'{}' is no .mp4", short(&name))));
        };
        let original = video.original.as_deref().filter(|o| !o.is_empty());
        let group = original.map_or(own, |original| stem(original).unwrap_or(original)).to_owned();
        listing.push(Entry {
            id: if part.is_empty() { name } else { format!("{part}/{name}") },
            fake,
            split: "train".to_owned(),
            group: Some(group),
            generator: None,
            periods: None,
            sha256: None,
            list,
            line: None,
        })?;
    }
    Ok(())
}

fn read_test(set: &Set, listing: &mut Listing) -> Result<(), DatasetError> {
    let path = set.first("the test set's labels", &["test/labels.csv".to_owned()])?;
    let deeper = set.root.path().join("test/videos").is_dir();
    let folder = Path::new(if deeper { "test/videos" } else { "test" });
    let list = listing.list(&path);
    let mut lines = Lines::open(&path)?;
    let mut columns: Option<(usize, usize, usize)> = None;
    while let Some((number, line)) = lines.next()? {
        let wrong = |message: String| DatasetError::new(&path, message).at(number);
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let Some((count, at_name, at_label)) = columns else {
            let place = |name: &str| {
                let found = fields.iter().position(|f| *f == name);
                found.ok_or_else(|| wrong(format!("no column '{name}' in '{}'", short(line))))
            };
            columns = Some((fields.len(), place("filename")?, place("label")?));
            continue;
        };
        if fields.len() != count {
            return Err(wrong(format!("{} columns, {count} expected", fields.len())));
        }
        let fake = match fields[at_label] {
            "1" => true,
            "0" => false,
            other => {
                let message = format!("label '{}'; 1 (fake) or 0 is expected", short(other));
                return Err(wrong(message));
            }
        };
        if stem(fields[at_name]).is_none() {
            return Err(wrong(format!("'{}' is no .mp4", short(fields[at_name]))));
        }
        listing.push(Entry {
            id: format!("{}/{}", folder.display(), fields[at_name]),
            fake,
            split: "test".to_owned(),
            // Whose clips these are is not published with them.
            group: None,
            generator: None,
            periods: None,
            sha256: None,
            list,
            line: Some(number),
        })?;
    }
    Ok(())
}
