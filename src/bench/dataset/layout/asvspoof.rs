//! ASVspoof 2019 LA and PA, 2021 LA, PA and DF, and 5: protocol files of one line a file, and folders of FLAC.

use super::{DatasetError, Entry, Listing, Set, short};
use crate::bench::dataset::manifest::Edition;
use crate::bench::protocol::lines::Lines;
use crate::bench::protocol::table::Labels;

/// A protocol's columns, counted from 0; speaker and file are the first two.
struct Protocol {
    counts: &'static [usize],
    attack: Option<usize>,
    label: usize,
    split: Option<usize>,
}

pub fn list(
    set: &Set,
    edition: Edition,
    protocol: Option<&str>,
    audio: Option<&str>,
) -> Result<Listing, DatasetError> {
    let mut listing = Listing::default();
    match edition {
        Edition::La2019 | Edition::Pa2019 => {
            set.known_splits(&["train", "dev", "eval"])?;
            let task = if edition == Edition::La2019 { "LA" } else { "PA" };
            for split in set.splits() {
                let list = match split {
                    "train" => "train.trn",
                    "dev" => "dev.trl",
                    _ => "eval.trl",
                };
                let bases = [String::new(), format!("{task}/")];
                let names = bases.each_ref().map(|base| {
                    let folder = format!("{base}ASVspoof2019_{task}_cm_protocols");
                    format!("{folder}/ASVspoof2019.{task}.cm.{list}.txt")
                });
                let folders = bases.map(|base| format!("{base}ASVspoof2019_{task}_{split}/flac"));
                // speaker file -|environment attack key
                let columns = Protocol { counts: &[5], attack: Some(3), label: 4, split: None };
                let places = Places { protocol, audio, protocols: &names, folders: &folders };
                read(set, &mut listing, &places, &columns, Some(split))?;
            }
        }
        Edition::La2021 | Edition::Pa2021 | Edition::Df2021 => {
            set.known_splits(&["progress", "eval", "hidden"])?;
            let (task, columns) = match edition {
                Edition::La2021 => {
                    // speaker file codec transmission attack key trim subset
                    ("LA", Protocol { counts: &[8], attack: Some(4), label: 5, split: Some(7) })
                }
                Edition::Pa2021 => {
                    // speaker file, seven conditions, key trim subset
                    ("PA", Protocol { counts: &[12], attack: None, label: 9, split: Some(11) })
                }
                // speaker file compression source attack key trim subset vocoder, four more in full
                _ => {
                    ("DF", Protocol { counts: &[13, 9], attack: Some(4), label: 5, split: Some(7) })
                }
            };
            let names = [
                format!("keys/{task}/CM/trial_metadata.txt"),
                format!("{task}-keys-full/keys/{task}/CM/trial_metadata.txt"),
                format!("ASVspoof2021_{task}_eval/keys/{task}/CM/trial_metadata.txt"),
            ];
            let folders = [format!("ASVspoof2021_{task}_eval/flac"), "flac".to_owned()];
            let places = Places { protocol, audio, protocols: &names, folders: &folders };
            read(set, &mut listing, &places, &columns, None)?;
        }
        Edition::Five => {
            set.known_splits(&["train", "dev", "eval"])?;
            for split in set.splits() {
                let (list, folder) = match split {
                    "train" => ("train", "flac_T"),
                    "dev" => ("dev.track_1", "flac_D"),
                    _ => ("eval.track_1", "flac_E_eval"),
                };
                let names = ["", "ASVspoof5_protocols/"]
                    .map(|folder| format!("{folder}ASVspoof5.{list}.tsv"));
                // speaker file gender codec quality seed attack-tag attack key, and one unused
                let columns = Protocol { counts: &[10], attack: Some(7), label: 8, split: None };
                let folders = [folder.to_owned()];
                let places = Places { protocol, audio, protocols: &names, folders: &folders };
                read(set, &mut listing, &places, &columns, Some(split))?;
            }
        }
    }
    Ok(listing)
}

/// Where a protocol and its audio lie: what the manifest says, else where archives put them.
struct Places<'a> {
    protocol: Option<&'a str>,
    audio: Option<&'a str>,
    protocols: &'a [String],
    folders: &'a [String],
}

fn read(
    set: &Set,
    listing: &mut Listing,
    places: &Places,
    columns: &Protocol,
    split: Option<&str>,
) -> Result<(), DatasetError> {
    let path = match places.protocol {
        Some(own) => set.first("the protocol", &[own.to_owned()])?,
        None => set.first("the protocol", places.protocols)?,
    };
    let folder = match places.audio {
        Some(own) => own.to_owned(),
        None => {
            let found = set.first("the audio", places.folders)?;
            let place = places.folders.iter().find(|place| set.root.path().join(place) == found);
            place.cloned().unwrap_or_default()
        }
    };
    let list = listing.list(&path);
    let mut labels = Labels::asvspoof();
    let mut lines = Lines::open(&path)?;
    while let Some((number, line)) = lines.next()? {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if !columns.counts.contains(&fields.len()) {
            let message = format!("{} columns, {} expected", fields.len(), columns.counts[0]);
            return Err(DatasetError::new(&path, message).at(number));
        }
        let split = match (split, columns.split) {
            (Some(split), _) => split,
            (None, Some(at)) => fields[at],
            (None, None) => "",
        };
        let fake = labels.fake(fields[columns.label], &path, number)?;
        if !set.wants(split) {
            continue;
        }
        let attack = columns.attack.map(|at| fields[at]);
        listing.push(Entry {
            id: format!("{folder}/{}.flac", fields[1]),
            fake,
            split: split.to_owned(),
            group: Some(fields[0].to_owned()),
            generator: attack.filter(|a| fake && *a != "-").map(short),
            periods: None,
            sha256: None,
            list,
            line: Some(number),
        })?;
    }
    Ok(())
}
