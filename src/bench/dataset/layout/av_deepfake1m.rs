//! AV-Deepfake1M: `SPLIT_metadata.json`, `[{"file": …, "modify_type": …, "fake_segments": [[start,
//! end], …], …}, …]` in seconds, and the videos under `SPLIT/`.

use std::path::Path;

use serde::Deserialize;

use super::array::each;
use super::index::check_periods;
use super::{DatasetError, Entry, Listing, Set, short};
use crate::bench::protocol::av_deepfake1m::identity;

#[derive(Deserialize)]
struct Metadata {
    file: String,
    split: Option<String>,
    modify_type: Option<String>,
    #[serde(alias = "fake_periods")]
    fake_segments: Vec<[f64; 2]>,
}

pub fn list(set: &Set) -> Result<Listing, DatasetError> {
    // The test set's truth is not published; whoever has it writes it the same way.
    set.known_splits(&["train", "val", "test"])?;
    let mut listing = Listing { has_periods: true, ..Listing::default() };
    for split in set.splits() {
        let place = format!("{split}_metadata.json");
        let path = set.first(&format!("the metadata of split '{split}'"), &[place])?;
        let list = listing.list(&path);
        each(&path, |metadata: Metadata| listing.push(entry(&path, split, list, metadata)?))?;
    }
    Ok(listing)
}

fn entry(path: &Path, own: &str, list: u32, metadata: Metadata) -> Result<Entry, DatasetError> {
    let Metadata { file, split, modify_type, fake_segments } = metadata;
    let wrong = |what: String| Err(DatasetError::new(path, format!("'{}': {what}", short(&file))));
    if let Some(split) = split.filter(|split| split != own) {
        return wrong(format!("is in split '{}'; '{}' is expected", short(&split), own));
    }
    if let Err(message) = check_periods(&fake_segments) {
        return wrong(message);
    }
    // The set's own loader writes them with a hyphen in places.
    let modify_type = modify_type.map(|name| name.replace('-', "_"));
    let fake = match modify_type.as_deref() {
        Some("real") if !fake_segments.is_empty() => {
            return wrong("is real, and has forged stretches".to_owned());
        }
        Some("real") => false,
        Some("visual_modified" | "audio_modified" | "both_modified") => true,
        Some(other) => {
            return wrong(format!(
                "modify_type '{}'; real, visual_modified, audio_modified or both_modified is \
                     expected",
                short(other)
            ));
        }
        None => !fake_segments.is_empty(),
    };
    Ok(Entry {
        id: format!("{}/{file}", own),
        fake,
        split: own.to_owned(),
        group: identity(&file).map(str::to_owned),
        generator: modify_type.filter(|_| fake),
        // A fake without stretches: when it is forged is not known.
        periods: Some(fake_segments).filter(|found| !found.is_empty()),
        sha256: None,
        list,
        line: None,
    })
}
