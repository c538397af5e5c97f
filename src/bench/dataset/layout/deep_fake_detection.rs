//! DeepFakeDetection, the part of FaceForensics++ with paid actors:
//! `original_sequences/actors/C/videos/AA__SCENE.mp4` are real,
//! `manipulated_sequences/DeepFakeDetection/C/videos/AA_BB__SCENE__XXXXXXXX.mp4` are fakes with the face
//! of actor BB put into actor AA. It has no splits: all is in the one that the manifest names.

use super::{DatasetError, Entry, Listing, Set, names, short, stem};

/// What the fakes' folder is called, and what made them.
const METHOD: &str = "DeepFakeDetection";

pub fn list(set: &Set, compression: &str) -> Result<Listing, DatasetError> {
    let mut splits = set.manifest.splits.keys();
    let (Some(split), None) = (splits.next(), splits.next()) else {
        let message = "the set has no splits of its own: one is expected, with all of it";
        return Err(DatasetError::new(&set.manifest.path, message).field("splits"));
    };
    let mut listing = Listing::default();
    for (folder, fake) in [
        (format!("original_sequences/actors/{compression}/videos"), false),
        (format!("manipulated_sequences/{METHOD}/{compression}/videos"), true),
    ] {
        let path = set.first("a folder of the set", std::slice::from_ref(&folder))?;
        let list = listing.list(&path);
        for name in names(&path)? {
            let Some(stem) = stem(&name) else { continue };
            let Some(actor) = actor(stem, fake) else {
                let form = if fake { "AA_BB__SCENE__XXXXXXXX.mp4" } else { "AA__SCENE.mp4" };
                let message = format!("'{}' is not named as {form}", short(&name));
                return Err(DatasetError::new(&path, message));
            };
            listing.push(Entry {
                id: format!("{folder}/{name}"),
                fake,
                split: split.clone(),
                group: Some(actor.to_owned()),
                generator: fake.then(|| METHOD.to_owned()),
                periods: None,
                sha256: None,
                list,
                line: None,
            })?;
        }
    }
    Ok(listing)
}

/// Whose clip it is.
fn actor(stem: &str, fake: bool) -> Option<&str> {
    let (people, _) = stem.split_once("__")?;
    let known = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    match people.split_once('_') {
        Some((target, source)) if fake => Some(target).filter(|t| known(t) && known(source)),
        None if !fake => Some(people).filter(|p| known(p)),
        _ => None,
    }
}
