//! AV-Deepfake1M: `SPLIT_metadata.json`, `[{"file": …, "modify_type": …, "fake_segments": [[start,
//! end], …], …}, …]` in seconds, and the videos under `SPLIT/`.

use std::fmt;
use std::io::{BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::index::check_periods;
use super::{DatasetError, Entry, Listing, MAX_ITEMS, Set, short};
use crate::bench::protocol::av_deepfake1m::identity;

/// The training set's metadata are some hundred bytes a file and more.
const MAX_BYTES: u64 = 16 << 30;

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
        let file = std::fs::File::open(&path)
            .map_err(|e| DatasetError::new(&path, format!("cannot be read: {e}")))?;
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(file.take(MAX_BYTES)));
        let mut wrong = None;
        let seed = Entries { path: &path, split, list, listing: &mut listing, wrong: &mut wrong };
        let read = seed.deserialize(&mut json).and_then(|()| json.end());
        if let Some(error) = wrong {
            return Err(error);
        }
        read.map_err(|e| {
            let line = (e.line() > 0).then_some(e.line() as u64);
            DatasetError::new(&path, format!("is no metadata of the set: {e}")).at(line)
        })?;
    }
    Ok(listing)
}

/// Takes one file's metadata after the other: all of them at once would not fit everywhere.
struct Entries<'a> {
    path: &'a Path,
    split: &'a str,
    list: u32,
    listing: &'a mut Listing,
    /// An error that knows more than serde's.
    wrong: &'a mut Option<DatasetError>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects with file and fake_segments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(metadata) = seq.next_element::<Metadata>()? {
            if self.listing.entries.len() == MAX_ITEMS {
                return Err(de::Error::custom(format!("more than {MAX_ITEMS} files")));
            }
            let pushed = self.entry(metadata).and_then(|entry| self.listing.push(entry));
            if let Err(error) = pushed {
                let message = error.message.clone();
                *self.wrong = Some(error);
                return Err(de::Error::custom(message));
            }
        }
        Ok(())
    }
}

impl Entries<'_> {
    fn entry(&self, metadata: Metadata) -> Result<Entry, DatasetError> {
        let Metadata { file, split, modify_type, fake_segments } = metadata;
        let wrong =
            |what: String| Err(DatasetError::new(self.path, format!("'{}': {what}", short(&file))));
        if let Some(split) = split.filter(|split| split != self.split) {
            return wrong(format!("is in split '{}'; '{}' is expected", short(&split), self.split));
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
            id: format!("{}/{file}", self.split),
            fake,
            split: self.split.to_owned(),
            group: identity(&file).map(str::to_owned),
            generator: modify_type.filter(|_| fake),
            // A fake without stretches: when it is forged is not known.
            periods: Some(fake_segments).filter(|found| !found.is_empty()),
            sha256: None,
            list: self.list,
            line: None,
        })
    }
}
