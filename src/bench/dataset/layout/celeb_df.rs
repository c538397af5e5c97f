//! Celeb-DF: the folders `Celeb-real`, `YouTube-real` and `Celeb-synthesis`; what is in
//! `List_of_testing_videos.txt` is the split `test`, all else `train`. In that list **1 means real**.

use std::collections::HashMap;

use super::{DatasetError, Entry, Listing, Set, names, short, stem};
use crate::bench::protocol::lines::Lines;

const LIST: &str = "List_of_testing_videos.txt";

/// Folders, and whether they hold fakes.
const FOLDERS: [(&str, bool); 3] =
    [("Celeb-real", false), ("YouTube-real", false), ("Celeb-synthesis", true)];

pub fn list(set: &Set) -> Result<Listing, DatasetError> {
    set.known_splits(&["train", "test"])?;
    let path = set.first("the list of test videos", &[LIST.to_owned()])?;
    let mut listing = Listing::default();
    let from_list = listing.list(&path);
    // Folder and name of the test's videos → line.
    let mut test: HashMap<String, u64> = HashMap::new();
    // Some copies of the set have the videos one folder further down.
    let below = FOLDERS.map(|(folder, _)| {
        let deeper = set.root.path().join(folder).join("videos").is_dir();
        if deeper { format!("{folder}/videos") } else { folder.to_owned() }
    });
    let mut lines = Lines::open(&path)?;
    while let Some((number, line)) = lines.next()? {
        let wrong = |message: String| DatasetError::new(&path, message).at(number);
        let parts = line.split_once(' ').map(|(label, file)| (label, file.trim()));
        let Some((label @ ("0" | "1"), file)) = parts else {
            let message = format!("'{}' is not '1 FOLDER/FILE' or '0 FOLDER/FILE'", short(line));
            return Err(wrong(message));
        };
        let folder = file.split_once('/').and_then(|(folder, name)| {
            stem(name)?;
            Some((FOLDERS.iter().position(|(f, _)| *f == folder)?, name))
        });
        let Some((at, name)) = folder else {
            let message = format!("'{}' is no .mp4 in one of the set's folders", short(file));
            return Err(wrong(message));
        };
        let fake = FOLDERS[at].1;
        if fake != (label == "0") {
            let message = format!(
                "'{}' is labelled {label}, and lies in {}; 1 means real here, 0 fake",
                short(file),
                FOLDERS[at].0
            );
            return Err(wrong(message));
        }
        let id = format!("{}/{name}", below[at]);
        if set.wants("test") {
            listing.push(entry(id.clone(), name, fake, "test", from_list, Some(number)))?;
        }
        test.insert(id, number);
    }
    if set.wants("train") {
        for ((_, fake), folder) in FOLDERS.into_iter().zip(&below) {
            let path = set.first("a folder of the set", std::slice::from_ref(folder))?;
            let list = listing.list(&path);
            for name in names(&path)? {
                let id = format!("{folder}/{name}");
                if stem(&name).is_some() && !test.contains_key(&id) {
                    listing.push(entry(id, &name, fake, "train", list, None))?;
                }
            }
        }
    }
    Ok(listing)
}

fn entry(id: String, name: &str, fake: bool, split: &str, list: u32, line: Option<u64>) -> Entry {
    Entry {
        id,
        fake,
        split: split.to_owned(),
        group: Some(identity(name)),
        generator: fake.then(|| "Celeb-synthesis".to_owned()),
        periods: None,
        sha256: None,
        list,
        line,
    }
}

/// `id0_id16_0009.mp4` and `id0_0009.mp4` are clips of person id0; who is in `00170.mp4` of
/// YouTube-real is not known: each stands for itself.
fn identity(name: &str) -> String {
    let stem = stem(name).unwrap_or(name);
    match stem.split_once('_') {
        Some((id, _)) if id.starts_with("id") => id.to_owned(),
        _ => format!("YouTube-{stem}"),
    }
}
