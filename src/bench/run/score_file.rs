//! Score files as detectors: their rows joined to the items of data sets.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::short;
use super::suite::{DetectorSpec, Join};
use crate::bench::dataset::Item;
use crate::bench::protocol::table::{self, Benchmark, Columns, Truth};
use crate::bench::protocol::{Reading, av_deepfake1m, deepfakebench};

/// Names of protocols, as `veriscope bench metrics` has them.
pub const PROTOCOLS: [&str; 9] = [
    "csv",
    "asvspoof2019-la",
    "asvspoof2019-pa",
    "asvspoof2021-la",
    "asvspoof2021-pa",
    "asvspoof2021-df",
    "asvspoof5",
    "deepfakebench",
    PROPOSALS,
];

/// The one of stretches of time.
pub const PROPOSALS: &str = "av-deepfake1m";

/// What a score file says of one item, in its own direction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Of the file or the video; None: it has no score.
    pub score: Option<f64>,
    /// Of a video's frames.
    pub frames: Vec<f64>,
    /// Forged stretches that it proposes: start and end in seconds, confidence.
    pub proposals: Option<Vec<(f32, f32, f32)>>,
}

/// The data sets that a score file belongs to: what was drawn of each, and what was not.
pub struct Part<'a> {
    pub drawn: &'a [Item],
    pub left_out: &'a [Item],
}

/// Joins the file of `spec` with items; one answer an item drawn, in the order of `parts`.
///
/// # Errors
/// One line with file and line: everything that `bench metrics` refuses, but few files, one class or a
/// constant score; names of items that are not told apart by what they are joined by.
pub fn read(
    spec: &DetectorSpec,
    reading: Reading,
    parts: &[Part],
) -> Result<Vec<Vec<Said>>, String> {
    let Some(path) = &spec.scores else { return Err("no score file".to_owned()) };
    let join = spec.join.unwrap_or_default();
    if spec.proposals() {
        return proposals(path, spec, join, parts);
    }
    // Name → part and item.
    let mut places: HashMap<Box<str>, (usize, usize)> = HashMap::new();
    let source = format!("[the data sets of '{}']", spec.name()).into();
    let mut truth = Truth { source, ..Truth::default() };
    for (part, Part { drawn, left_out }) in parts.iter().enumerate() {
        for (at, item) in drawn.iter().enumerate() {
            let name = joined(&item.id, join);
            if let Some(before) = places.insert(name.into(), (part, at)) {
                let other = &parts[before.0].drawn[before.1].id;
                return Err(format!(
                    "{}: '{}' and '{}' are one name to `join`",
                    path.display(),
                    short(other),
                    short(&item.id)
                ));
            }
            truth.files.push((name.into(), item.fake));
        }
        truth.outside.extend(left_out.iter().map(|item| joined(&item.id, join).into()));
    }
    let mut said: Vec<Vec<Said>> =
        parts.iter().map(|part| vec![Said::default(); part.drawn.len()]).collect();
    if let Some(benchmark) = benchmark(spec.protocol.as_deref()) {
        let options = table::Options {
            benchmark,
            reading,
            subset: None,
            columns: Columns {
                file: spec.file_column.clone(),
                score: spec.score_column.clone().unwrap_or_else(|| "score".to_owned()),
                ..Columns::default()
            },
            groups: None,
        };
        let trials = table::read_beside(path, truth, &options).map_err(|e| e.to_string())?;
        for (name, score) in trials.names.iter().zip(&trials.scores) {
            if let Some(&(part, at)) = places.get(name) {
                said[part][at].score = Some(reading.turn(*score));
            }
        }
        return Ok(said);
    }
    frames(path, spec, reading, join, &places, &truth, &mut said)?;
    Ok(said)
}

/// AV-Deepfake1M's proposals. There names are paths below the split's folder; those below the root are
/// known, too.
fn proposals(
    path: &Path,
    spec: &DetectorSpec,
    join: Join,
    parts: &[Part],
) -> Result<Vec<Vec<Said>>, String> {
    let names = |id: &'_ str| -> Vec<Box<str>> {
        let below = id.split_once('/').map(|(_, below)| below).filter(|_| join == Join::Id);
        std::iter::once(joined(id, join)).chain(below).map(Box::from).collect()
    };
    // Name → part and item, where it is one item's.
    let mut places: HashMap<Box<str>, Option<(usize, usize)>> = HashMap::new();
    let mut outside: HashSet<Box<str>> = HashSet::new();
    for (part, Part { drawn, left_out }) in parts.iter().enumerate() {
        for (at, item) in drawn.iter().enumerate() {
            for name in names(&item.id) {
                places.entry(name).and_modify(|place| *place = None).or_insert(Some((part, at)));
            }
        }
        outside.extend(left_out.iter().flat_map(|item| names(&item.id)));
    }
    let mut said: Vec<Vec<Said>> =
        parts.iter().map(|part| vec![Said::default(); part.drawn.len()]).collect();
    let fps = spec.proposal_fps.unwrap_or(1.0) as f32;
    for (name, found) in av_deepfake1m::proposals(path, fps).map_err(|e| e.to_string())? {
        let error = |what: &str| Err(format!("{}: '{}' {what}", path.display(), short(&name)));
        let (part, at) = match places.get(name.as_str()) {
            Some(Some(place)) => *place,
            Some(None) => return error("is the name of several files"),
            None if outside.contains(name.as_str()) => continue,
            None => return error("is no file of the data sets"),
        };
        let found = found.into_iter().map(|p| (p.start, p.end, p.confidence)).collect();
        if said[part][at].proposals.replace(found).is_some() {
            return error("is there twice");
        }
    }
    Ok(said)
}

/// DeepfakeBench's frames, and their mean for each video.
fn frames(
    path: &Path,
    spec: &DetectorSpec,
    reading: Reading,
    join: Join,
    places: &HashMap<Box<str>, (usize, usize)>,
    truth: &Truth,
    said: &mut [Vec<Said>],
) -> Result<(), String> {
    let split = spec.subset.as_deref().unwrap_or("test");
    let (trials, _) = deepfakebench::frames(path, spec.key.as_deref(), split, reading)
        .map_err(|e| e.to_string())?;
    let labels: HashMap<&str, bool> = truth.files.iter().map(|(n, f)| (n.as_ref(), *f)).collect();
    // Two folders that `join` takes for one would mix two videos.
    let mut folders: HashMap<(usize, usize), &str> = HashMap::new();
    let mut unknown = HashSet::new();
    for ((frame, score), fake) in trials.names.iter().zip(&trials.scores).zip(&trials.fake) {
        let folder = deepfakebench::video(frame).unwrap_or_default();
        let name = joined(folder, if join == Join::Stem { Join::FileName } else { join });
        let error = |what: String| Err(format!("{}: '{}' {what}", path.display(), short(folder)));
        let Some(&(part, at)) = places.get(name) else {
            if !truth.outside.contains(name) && unknown.insert(name) {
                return error("is no video of the data sets".to_owned());
            }
            continue;
        };
        if *folders.entry((part, at)).or_insert(folder) != folder {
            return error(format!("and '{}' are one name to `join`", folders[&(part, at)]));
        }
        if labels.get(name) != Some(fake) {
            let class = if *fake { "fake" } else { "real" };
            return error(format!("is {class} here and not in the data set"));
        }
        said[part][at].frames.push(reading.turn(*score));
    }
    for one in said.iter_mut().flatten().filter(|one| !one.frames.is_empty()) {
        one.score = Some(one.frames.iter().sum::<f64>() / one.frames.len() as f64);
    }
    Ok(())
}

fn benchmark(protocol: Option<&str>) -> Option<Benchmark> {
    Some(match protocol? {
        "csv" => Benchmark::Csv,
        "asvspoof2019-la" | "asvspoof2019-pa" => Benchmark::Asvspoof2019,
        "asvspoof2021-la" => Benchmark::Asvspoof2021La,
        "asvspoof2021-pa" => Benchmark::Asvspoof2021Pa,
        "asvspoof2021-df" => Benchmark::Asvspoof2021Df,
        "asvspoof5" => Benchmark::Asvspoof5,
        _ => return None,
    })
}

fn joined(id: &str, join: Join) -> &str {
    let last = || id.rsplit('/').next().unwrap_or(id);
    match join {
        Join::Id => id,
        Join::FileName => last(),
        Join::Stem => last().rsplit_once('.').map_or(last(), |(stem, _)| stem),
    }
}
