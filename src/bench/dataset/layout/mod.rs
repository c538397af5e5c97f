//! How each set's files and labels are laid out; docs/datasets.md says where that is written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::manifest::{Layout, Manifest};
use super::place::Root;
use super::{DatasetError, Entry, Listing, MAX_ITEMS, short};

mod array;
mod asvspoof;
mod av_deepfake1m;
mod celeb_df;
mod deep_fake_detection;
mod dfdc;
mod faceforensics;
mod index;
mod lav_df;

/// What a set lists in the splits of its manifest, or in one of them. A table of all splits is given
/// whole whatever split is wanted.
pub fn list(
    manifest: &Manifest,
    root: &Root,
    split: Option<&str>,
) -> Result<Listing, DatasetError> {
    let set = Set { manifest, root, split };
    match &manifest.layout {
        Layout::Index { index, columns, fake_label } => {
            index::list(&set, index, columns, fake_label.clone())
        }
        Layout::FaceForensics { compression, methods } => {
            faceforensics::list(&set, compression, methods.as_deref())
        }
        Layout::CelebDf => celeb_df::list(&set),
        Layout::Dfdc => dfdc::list(&set),
        Layout::AvDeepfake1m => av_deepfake1m::list(&set),
        Layout::LavDf => lav_df::list(&set),
        Layout::DeepFakeDetection { compression } => deep_fake_detection::list(&set, compression),
        Layout::Asvspoof { edition, protocol, audio } => {
            asvspoof::list(&set, *edition, protocol.as_deref(), audio.as_deref())
        }
        Layout::Archives => {
            let message = "'archives': the media lie inside archives that scripts read. This is a \
                           record of what a network was trained on, nothing can be run over it";
            Err(DatasetError::new(&manifest.path, message).field("layout"))
        }
    }
}

/// The set that is listed.
struct Set<'a> {
    manifest: &'a Manifest,
    root: &'a Root,
    split: Option<&'a str>,
}

impl Set<'_> {
    /// Splits that are wanted.
    fn splits(&self) -> impl Iterator<Item = &str> {
        self.manifest.splits.keys().map(String::as_str).filter(|s| self.wants(s))
    }

    /// Whether items of a split are wanted that the set has and the manifest may not name.
    fn wants(&self, split: &str) -> bool {
        self.manifest.splits.contains_key(split) && self.split.is_none_or(|s| s == split)
    }

    /// That the manifest names no split but those that the layout has.
    fn known_splits(&self, known: &[&str]) -> Result<(), DatasetError> {
        match self.manifest.splits.keys().find(|s| !known.contains(&s.as_str())) {
            Some(other) => {
                let layout = self.manifest.layout.name();
                let message = format!(
                    "layout '{layout}' has no split '{}'; it has {}",
                    short(other),
                    known.join(", ")
                );
                Err(DatasetError::new(&self.manifest.path, message).field("splits"))
            }
            None => Ok(()),
        }
    }

    /// The first of several places below the root where something lies.
    fn first(&self, what: &str, places: &[String]) -> Result<PathBuf, DatasetError> {
        let mut inside = HashSet::new();
        for place in places {
            match self.root.look(place, &mut inside) {
                super::place::Look::There => return Ok(self.root.path().join(place)),
                super::place::Look::Missing => {}
                super::place::Look::Outside => {
                    let message = format!("'{place}' is a link that leaves the root");
                    return Err(DatasetError::new(&self.manifest.path, message));
                }
            }
        }
        let message = format!(
            "{what} is not there: looked for {} in {}",
            places.join(", "),
            self.root.path().display()
        );
        Err(DatasetError::new(&self.manifest.path, message))
    }
}

/// Names in a folder, sorted: what is listed must not depend on the disk.
fn names(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let wrong = |e: std::io::Error| DatasetError::new(folder, format!("cannot be read: {e}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name();
        let Some(name) = name.to_str() else {
            let message = format!("'{}' is no UTF-8 name", name.to_string_lossy());
            return Err(DatasetError::new(folder, short(&message)));
        };
        if names.len() == MAX_ITEMS {
            return Err(DatasetError::new(folder, format!("more than {MAX_ITEMS} files")));
        }
        names.push(name.to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// `name` without `.mp4`.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".mp4").filter(|stem| !stem.is_empty() && !stem.starts_with('.'))
}
