//! LAV-DF: `metadata.min.json` (or `metadata.json`), `[{"file": "test/000001.mp4", "split": "test",
//! "original": …, "modify_video": …, "modify_audio": …, "fake_periods": [[start, end], …]}, …]` in
//! seconds; `file` is below the root.

use std::path::Path;

use serde::Deserialize;

use super::array::each;
use super::index::check_periods;
use super::{DatasetError, Entry, Listing, Set, short};

const LISTS: [&str; 2] = ["metadata.min.json", "metadata.json"];

#[derive(Deserialize)]
struct Metadata {
    file: String,
    split: String,
    /// The real video that a fake was made of.
    original: Option<String>,
    modify_video: bool,
    modify_audio: bool,
    fake_periods: Vec<[f64; 2]>,
}

pub fn list(set: &Set) -> Result<Listing, DatasetError> {
    set.known_splits(&["train", "dev", "test"])?;
    let mut listing = Listing { has_periods: true, ..Listing::default() };
    let path = set.first("the metadata", &LISTS.map(str::to_owned))?;
    let list = listing.list(&path);
    each(&path, |metadata: Metadata| {
        let entry = entry(&path, list, metadata)?;
        if set.manifest.splits.contains_key(&entry.split) {
            listing.push(entry)?;
        }
        Ok(())
    })?;
    Ok(listing)
}

fn entry(path: &Path, list: u32, metadata: Metadata) -> Result<Entry, DatasetError> {
    let Metadata { file, split, original, modify_video, modify_audio, fake_periods } = metadata;
    let wrong = |what: String| Err(DatasetError::new(path, format!("'{}': {what}", short(&file))));
    if !["train", "dev", "test"].contains(&split.as_str()) {
        let split = short(&split);
        return wrong(format!("is in split '{split}'; train, dev or test is expected"));
    }
    if let Err(message) = check_periods(&fake_periods) {
        return wrong(message);
    }
    let generator = match (modify_video, modify_audio) {
        (false, false) if !fake_periods.is_empty() => {
            return wrong("is not modified, and has forged stretches".to_owned());
        }
        (false, false) => None,
        (true, false) => Some("visual_modified"),
        (false, true) => Some("audio_modified"),
        (true, true) => Some("both_modified"),
    };
    // A real video is its own original.
    let group = original.filter(|o| !o.is_empty()).unwrap_or_else(|| file.clone());
    Ok(Entry {
        fake: generator.is_some(),
        split,
        group: Some(group),
        generator: generator.map(str::to_owned),
        // A fake without stretches: when it is forged is not known.
        periods: Some(fake_periods).filter(|found| !found.is_empty()),
        sha256: None,
        list,
        line: None,
        id: file,
    })
}
