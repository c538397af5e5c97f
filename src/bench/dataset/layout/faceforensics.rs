//! FaceForensics++: `original_sequences/youtube/C/videos/NNN.mp4` are real,
//! `manipulated_sequences/METHOD/C/videos/AAA_BBB.mp4` are fakes with the face of BBB put into AAA.
//! `splits/SPLIT.json` holds pairs: both originals and both fakes of a pair are in that split.

use super::{DatasetError, Entry, Listing, Set, names, short};
use crate::bench::files::read_small;

/// A longer list of pairs is none.
const MAX_BYTES: u64 = 16 << 20;

/// A set of its own (`deep_fake_detection.rs`): its videos belong to no pair.
const NOT_A_METHOD: &str = "DeepFakeDetection";

pub fn list(
    set: &Set,
    compression: &str,
    methods: Option<&[String]>,
) -> Result<Listing, DatasetError> {
    set.known_splits(&["train", "val", "test"])?;
    let originals = {
        let places = ["original_sequences/youtube", "original_sequences"]
            .map(|folder| format!("{folder}/{compression}/videos"));
        let found = set.first(&format!("the folder of originals of {compression}"), &places)?;
        // As written in the list of places: without the root.
        let found = places.iter().find(|place| set.root.path().join(place) == found);
        found.cloned().unwrap_or_default()
    };
    let methods = match methods {
        Some(methods) => methods.to_vec(),
        None => {
            let folder = set.first("fakes", &["manipulated_sequences".to_owned()])?;
            let mut methods = names(&folder)?;
            methods.retain(|method| {
                method != NOT_A_METHOD && folder.join(method).join(compression).is_dir()
            });
            if methods.is_empty() {
                let message = format!("no method has a folder {compression}");
                return Err(DatasetError::new(&folder, message));
            }
            methods
        }
    };
    let mut listing = Listing::default();
    for split in set.splits() {
        let places = [format!("splits/{split}.json"), format!("{split}.json")];
        let path = set.first(&format!("the list of pairs of split '{split}'"), &places)?;
        let wrong = |message: String| DatasetError::new(&path, message);
        let bytes = read_small(&path, MAX_BYTES).map_err(wrong)?;
        let pairs: Vec<[String; 2]> = serde_json::from_slice(&bytes).map_err(|e| {
            wrong(format!("is no list of pairs of numbers: {e}")).at(e.line() as u64)
        })?;
        let list = listing.list(&path);
        for [a, b] in &pairs {
            for id in [a, b] {
                if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(wrong(format!("'{}' is no number of a video", short(id))));
                }
            }
            let group = format!("{}_{}", a.min(b), a.max(b));
            let mut push = |id: String, method: Option<&str>| {
                listing.push(Entry {
                    id,
                    fake: method.is_some(),
                    split: split.to_owned(),
                    group: Some(group.clone()),
                    generator: method.map(str::to_owned),
                    periods: None,
                    sha256: None,
                    list,
                    line: None,
                })
            };
            for id in [a, b] {
                push(format!("{originals}/{id}.mp4"), None)?;
            }
            for method in &methods {
                for (target, source) in [(a, b), (b, a)] {
                    let file = format!("{target}_{source}.mp4");
                    let id = format!("manipulated_sequences/{method}/{compression}/videos/{file}");
                    push(id, Some(method))?;
                }
            }
        }
    }
    Ok(listing)
}
