//! `veriscope bench run`: data sets × detectors × degradations, from a suite to `scores.jsonl` and
//! [`results::Results`]. `docs/bench.md` describes all files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

mod cells;
mod command;
mod degrade;
mod journal;
mod judge;
pub mod results;
mod score_file;
mod suite;
pub mod thumbnail;

use super::dataset::{self, DataSet, Item};
use super::hints::Setting;
use super::metrics::bootstrap::Random;
use super::output::Bootstrap;
use super::protocol::short;
use super::report::report_html;
use cells::{Clean, Given, Place, Rules};
use degrade::{Degradation, Fault, Ffmpeg, Maker, Original};
use journal::{Batch, CellName, Done, Index, Journal, Record, Row, Stamp};
use judge::{Answer, Files, Judge, Loading, Set, Took};
use results::{CLEAN, DetectorKind, Results};
use suite::{MAX_CELLS, Suite};

use crate::digest::{hex, sha256};
use crate::engine::DeviceChoice;

/// Degraded copies that are there at a time, and their bytes, beyond which no further one is begun.
const BATCH_FILES: usize = 256;
const BATCH_BYTES: u64 = 4 << 30;
/// Reasons that may be gone the next time: a run that goes on tries such files again.
const PASSING: [&str; 5] =
    ["unreadable", "timed_out", "inference_error", "internal_error", "degradation_failed"];

/// Names of the files in the folder of a run.
pub const SCORES: &str = "scores.jsonl";
pub const METRICS: &str = "metrics.json";
pub const REPORT: &str = "report.html";
/// Degraded copies while they are judged.
const WORK: &str = ".veriscope-work";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub suite: PathBuf,
    /// Folder of the results; it is made.
    pub out: PathBuf,
    /// Throw away the results of an earlier run in `out`.
    pub fresh: bool,
    pub device: DeviceChoice,
    /// Files in work at the same time; 0: the engine chooses.
    pub jobs: usize,
    pub weights: Option<PathBuf>,
}

/// What a run tells while it works.
pub trait Observer {
    /// All judgements of the run, and those that an earlier one did.
    fn begins(&self, all: u64, done: u64);
    /// One judgement more, of this cell.
    fn judged(&self, detector: &str, data_set: &str, degradation: &str);
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// `metrics.json` is written.
    Finished(Box<Results>),
    /// The stop flag was set; what was judged is kept.
    Stopped,
}

/// A data set as the run uses it.
struct Drawn {
    set: DataSet,
    left_out: Vec<Item>,
}

/// One combination.
struct Cell {
    set: usize,
    judge: usize,
    /// None: the files as they are.
    degradation: Option<usize>,
}

struct Plan {
    suite: Suite,
    sets: Vec<Drawn>,
    judges: Vec<Judge>,
    degradations: Vec<Degradation>,
    ffmpeg: Option<Ffmpeg>,
    cells: Vec<Cell>,
    fingerprint: String,
}

/// Runs a suite, or goes on with a run that was cut short.
///
/// # Errors
/// One line that names the file or the operation: the suite, a data set, a detector, a degradation
/// that this machine cannot make, a folder that cannot be written to or belongs to another run, a
/// command whose table is not one score a path. What was judged before is kept.
pub fn run(
    options: &Options,
    observer: &dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, String> {
    let plan = Plan::new(options)?;
    let out = &absolute(&options.out)?;
    std::fs::create_dir_all(out).map_err(|e| format!("{}: cannot be made: {e}", out.display()))?;
    if !out.join(SCORES).exists()
        && let Some(name) = [METRICS, REPORT].into_iter().find(|name| out.join(name).exists())
    {
        let name = out.join(name);
        return Err(format!("{}: is no run's, for there is no {SCORES}", name.display()));
    }
    let index = plan.index();
    let (journal, done) = Journal::open(
        &out.join(SCORES),
        &plan.fingerprint,
        &plan.suite.name,
        options.fresh,
        &index,
    )?;
    // From here on this run alone writes in the folder. What an earlier one found goes, so that it is
    // not taken for this one's where that does not come to its end.
    remove(&out.join(METRICS))?;
    remove(&out.join(REPORT))?;
    let work = out.join(WORK);
    clear(&work)?;
    let stamps = plan.stamps();
    let mut run = Run { plan: &plan, journal, done, stamps, observer, stop, work: &work };
    let finished = run.all();
    clear(&work)?;
    if !finished? {
        return Ok(Outcome::Stopped);
    }
    let results = plan.results(&run.done);
    let json = serde_json::to_vec_pretty(&results)
        .map_err(|e| format!("{}: {e}", out.join(METRICS).display()))?;
    let html = report_html(&results, &thumbnail::thumbnail);
    write(out, REPORT, html.as_bytes())?;
    // Last: where it is there, the run is whole.
    write(out, METRICS, &json)?;
    Ok(Outcome::Finished(Box::new(results)))
}

/// Commands start in another folder than this process.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whole or not at all.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = folder.join(name);
    let part = folder.join(format!(".{name}.part"));
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, &path))
        .map_err(|e| format!("{}: cannot be written: {e}", path.display()))
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: cannot be removed: {e}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the folder of degraded copies, this run's or one's that was killed.
fn clear(work: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(work) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: cannot be removed: {e}", work.display()))
        }
        _ => Ok(()),
    }
}

impl Plan {
    fn new(options: &Options) -> Result<Self, String> {
        let suite = Suite::open(&options.suite).map_err(|e| e.to_string())?;
        let named = |message: String| format!("{}: {message}", options.suite.display());
        let degradations = suite.degradations().map_err(named)?;
        let ffmpeg = if degradations.is_empty() {
            None
        } else {
            Some(Ffmpeg::for_all(&degradations).map_err(named)?)
        };
        let mut sets: Vec<Drawn> = Vec::new();
        for spec in &suite.data_sets {
            let request = dataset::Request {
                manifest: spec.manifest.clone(),
                root: spec.root.clone(),
                split: spec.split.clone(),
            };
            let mut set = dataset::load(&request).map_err(|e| e.to_string())?;
            if let Some(name) = &spec.name {
                set.name.clone_from(name);
            }
            if sets.iter().any(|other| other.set.name == set.name) {
                return Err(named(format!(
                    "two data sets of the name '{}': give one a `name`",
                    set.name
                )));
            }
            let mut items = std::mem::take(&mut set.items);
            for item in &mut items {
                item.path = absolute(&item.path)?;
            }
            let (drawn, left_out) = draw(items, spec.limit, suite.seed);
            set.items = drawn;
            sets.push(Drawn { set, left_out });
        }
        let parent = options.suite.parent().filter(|p| !p.as_os_str().is_empty());
        let loading = Loading {
            device: options.device,
            jobs: options.jobs,
            weights: options.weights.clone(),
            folder: parent.unwrap_or(Path::new(".")).to_owned(),
        };
        let as_seen: Vec<Set> = sets
            .iter()
            .map(|drawn| Set {
                name: &drawn.set.name,
                media: drawn.set.kind,
                drawn: &drawn.set.items,
                left_out: &drawn.left_out,
            })
            .collect();
        let judges = suite
            .detectors
            .iter()
            .map(|spec| Judge::load(spec, &loading, &as_seen).map_err(named))
            .collect::<Result<Vec<_>, _>>()?;
        let cells = combinations(&sets, &judges, &degradations);
        if cells.len() > MAX_CELLS {
            return Err(named(format!("{} combinations, over {MAX_CELLS}", cells.len())));
        }
        for (i, degradation) in degradations.iter().enumerate() {
            if !cells.iter().any(|cell| cell.degradation == Some(i)) {
                return Err(named(format!(
                    "{} changes nothing that a detector of the suite looks at in its data sets",
                    degradation.name()
                )));
            }
        }
        let mut plan =
            Self { suite, sets, judges, degradations, ffmpeg, cells, fingerprint: String::new() };
        plan.fingerprint = plan.fingerprint(&options.suite)?;
        Ok(plan)
    }

    /// What identifies the numbers of a run.
    fn fingerprint(&self, suite: &Path) -> Result<String, String> {
        // As the file has it: where the suite lies does not matter.
        let text = std::fs::read_to_string(suite)
            .map_err(|e| format!("{}: cannot be read: {e}", suite.display()))?;
        let suite: toml::Value =
            toml::from_str(&text).map_err(|e| format!("{}: {e}", suite.display()))?;
        let sets: Vec<_> = self
            .sets
            .iter()
            .map(|drawn| {
                let mut digest = Sha256::new();
                for item in drawn.set.items.iter().chain(&drawn.left_out) {
                    let line =
                        serde_json::json!([item.id, item.fake, item.group, item.fake_periods]);
                    digest.update(line.to_string());
                }
                (&drawn.set.name, &drawn.set.manifest_sha256, hex(&digest.finalize()))
            })
            .collect();
        let text = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "suite": suite,
            "data_sets": sets,
            "detectors": self.judges.iter().map(|j| &j.fingerprint).collect::<Vec<_>>(),
            "ffmpeg": self.ffmpeg.as_ref().map(|f| &f.version),
        });
        Ok(sha256(text.to_string()))
    }

    fn name(&self, cell: &Cell) -> CellName {
        CellName {
            data_set: self.sets[cell.set].set.name.clone(),
            detector: self.judges[cell.judge].name.clone(),
            degradation: self.state(cell.degradation),
        }
    }

    /// Name of a degradation.
    fn state(&self, degradation: Option<usize>) -> String {
        degradation.map_or_else(|| CLEAN.to_owned(), |i| self.degradations[i].name())
    }

    fn index(&self) -> Index {
        let by_id = |drawn: &Drawn| {
            let items = drawn.set.items.iter().enumerate();
            items.map(|(at, item)| (item.id.clone(), at)).collect()
        };
        Index {
            cells: self.cells.iter().enumerate().map(|(at, c)| (self.name(c), at)).collect(),
            set_of: self.cells.iter().map(|c| c.set).collect(),
            items: self.sets.iter().map(by_id).collect(),
        }
    }

    /// Of each data set's files, now.
    fn stamps(&self) -> Vec<Vec<Option<Stamp>>> {
        let of_set =
            |drawn: &Drawn| drawn.set.items.par_iter().map(|item| Stamp::of(&item.path)).collect();
        self.sets.iter().map(of_set).collect()
    }

    fn results(&self, done: &Done) -> Results {
        let rules = Rules { rounds: self.suite.rounds, seed: self.suite.seed };
        let mut hints = Vec::new();
        let mut cells = Vec::new();
        let mut comparisons = Vec::new();
        let mut transfers = Vec::new();
        let records = |set: usize, judge: usize, degradation| {
            let fits = |c: &Cell| c.set == set && c.judge == judge && c.degradation == degradation;
            Some(&done.records[self.cells.iter().position(fits)?][..])
        };
        for (place, cell) in self.cells.iter().enumerate() {
            let name = self.name(cell);
            let (set, judge) = (&self.sets[cell.set].set, &self.judges[cell.judge]);
            let given = Given {
                names: [&name.data_set, &name.detector, &name.degradation],
                media: set.kind,
                items: &set.items,
                records: &done.records[place],
                batches: &done.batches[place],
                reading: judge.reading,
                threshold: judge.threshold.as_ref().map(|t| t.value),
                setting: match judge.sort {
                    DetectorKind::Command | DetectorKind::Scores => Setting::Suite,
                    _ => Setting::Fixed,
                },
                clean: cell.degradation.is_none(),
                locates: judge.locates(set.kind),
                scores_files: judge.scores_files(),
            };
            let (cell, said) = cells::cell(&given, rules);
            cells.push(cell);
            hints.extend(said);
        }
        for (place, drawn) in self.sets.iter().enumerate() {
            let clean: Vec<Clean> = (0..self.judges.len())
                .filter_map(|judge| {
                    let of = &self.judges[judge];
                    let records = records(place, judge, None).filter(|_| of.scores_files())?;
                    Some(Clean { name: &of.name, records, reading: of.reading })
                })
                .collect();
            for (i, a) in clean.iter().enumerate() {
                for b in &clean[i + 1..] {
                    let set = &drawn.set;
                    comparisons.extend(cells::compare(&set.name, &set.items, *a, *b, rules));
                }
            }
        }
        cells::correct(&mut comparisons);
        for (at, judge) in self.judges.iter().enumerate().filter(|(_, j)| j.scores_files()) {
            let places: Vec<Place> = (0..self.sets.len())
                .filter_map(|place| {
                    let set = &self.sets[place].set;
                    let records = records(place, at, None)?;
                    let clean = Clean { name: &judge.name, records, reading: judge.reading };
                    Some(Place { data_set: &set.name, items: &set.items, clean })
                })
                .collect();
            for from in &places {
                let others = places.iter().filter(|to| to.data_set != from.data_set);
                transfers.extend(others.filter_map(|to| cells::transfer(*from, *to)));
            }
        }
        let none = results::Degradation {
            name: CLEAN.to_owned(),
            family: CLEAN.to_owned(),
            value: None,
            unit: String::new(),
            worse_upwards: true,
            media: vec![results::Media::Video, results::Media::Audio, results::Media::Picture],
        };
        Results {
            schema: results::SCHEMA,
            name: self.suite.name.clone(),
            fingerprint: self.fingerprint.clone(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            bootstrap: Bootstrap::new(rules.rounds, rules.seed),
            data_sets: self.sets.iter().map(described).collect(),
            detectors: self
                .judges
                .iter()
                .map(|judge| results::Detector {
                    name: judge.name.clone(),
                    kind: judge.sort,
                    what: judge.what.clone(),
                    fingerprint: judge.fingerprint.clone(),
                    direction: judge.reading.direction,
                    scale: judge.reading.scale,
                    threshold: judge.threshold.clone(),
                })
                .collect(),
            degradations: std::iter::once(none)
                .chain(self.degradations.iter().map(|d| d.described()))
                .collect(),
            cells,
            comparisons,
            transfers,
            hints,
        }
    }
}

fn described(drawn: &Drawn) -> results::DataSet {
    let Drawn { set, left_out } = drawn;
    let fake = set.items.iter().filter(|item| item.fake).count() as u64;
    let all = (set.items.len() + left_out.len()) as u64;
    let groups: Option<HashSet<&str>> = set.items.iter().map(|i| i.group.as_deref()).collect();
    results::DataSet {
        name: set.name.clone(),
        media: set.kind,
        manifest: set.manifest.display().to_string(),
        manifest_sha256: set.manifest_sha256.clone(),
        split: set.split.clone(),
        source: set.source.clone(),
        licence: set.licence.clone(),
        consent: set.consent.clone(),
        fake,
        real: set.items.len() as u64 - fake,
        groups: groups.map(|groups| groups.len() as u64),
        drawn_from: (!left_out.is_empty()).then_some(all),
    }
}

/// All combinations that have a meaning, in the order of data sets, detectors, degradations.
fn combinations(sets: &[Drawn], judges: &[Judge], degradations: &[Degradation]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (set, Drawn { set: of, .. }) in sets.iter().enumerate() {
        for (judge, by) in judges.iter().enumerate() {
            if !by.judges(&of.name, of.kind) {
                continue;
            }
            cells.push(Cell { set, judge, degradation: None });
            for (i, Degradation { family, .. }) in degradations.iter().enumerate() {
                if family.media().contains(&of.kind) && by.looks_at(family.part(), of.kind) {
                    cells.push(Cell { set, judge, degradation: Some(i) });
                }
            }
        }
    }
    cells
}

/// Draws at most `limit` items, and gives the rest, too; both in the order that they came in. Where all
/// groups are known whole groups are drawn until the limit is reached, and the last one is cut;
/// else files, fakes and reals in their proportion.
fn draw(items: Vec<Item>, limit: Option<usize>, seed: u64) -> (Vec<Item>, Vec<Item>) {
    let Some(limit) = limit.filter(|limit| *limit < items.len()) else {
        return (items, Vec::new());
    };
    let mut random = Random::new(seed, u64::MAX);
    let mut taken = vec![false; items.len()];
    if items.iter().all(|item| item.group.is_some()) {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let name = item.group.as_deref().unwrap_or_default();
            let place = *places.entry(name).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(at);
        }
        shuffle(&mut groups, &mut random);
        groups.into_iter().flatten().take(limit).for_each(|at| taken[at] = true);
    } else {
        let of_class = |fake| (0..items.len()).filter(|at| items[*at].fake == fake).collect();
        let mut classes: [Vec<usize>; 2] = [true, false].map(of_class);
        let [fakes, reals] = classes.each_ref().map(Vec::len);
        // Both classes stay where there is room for both.
        let share = (limit * fakes + items.len() / 2) / items.len();
        let least = usize::from(fakes > 0);
        let most = limit - usize::from(reals > 0 && limit > 1);
        let share = share.max(least).min(most);
        for (class, wanted) in classes.iter_mut().zip([share, limit - share]) {
            shuffle(class, &mut random);
            class.iter().take(wanted).for_each(|at| taken[*at] = true);
        }
    }
    let mut taken = taken.into_iter();
    items.into_iter().partition(|_| taken.next().unwrap_or(false))
}

/// Fisher & Yates.
fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for last in (1..all.len()).rev() {
        all.swap(last, random.below(last + 1));
    }
}

/// A run at work.
struct Run<'a> {
    plan: &'a Plan,
    journal: Journal,
    done: Done,
    /// Of each data set's files, when the run began.
    stamps: Vec<Vec<Option<Stamp>>>,
    observer: &'a dyn Observer,
    stop: &'a AtomicBool,
    work: &'a Path,
}

impl Run<'_> {
    /// False: it was stopped.
    fn all(&mut self) -> Result<bool, String> {
        for record in self.done.records.iter_mut().flatten() {
            let passing = |r: &Record| r.skipped.as_deref().is_some_and(|s| PASSING.contains(&s));
            if record.as_ref().is_some_and(passing) {
                *record = None;
            }
        }
        self.forget_other_files();
        let all: usize = self.done.records.iter().map(Vec::len).sum();
        let done = self.done.records.iter().flatten().flatten().count();
        self.observer.begins(all as u64, done as u64);
        for set in 0..self.plan.sets.len() {
            let states = std::iter::once(None).chain((0..self.plan.degradations.len()).map(Some));
            for degradation in states {
                if !self.state(set, degradation)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What was said of a file that was another then is judged anew. One that is gone stands.
    fn forget_other_files(&mut self) {
        for (place, cell) in self.plan.cells.iter().enumerate() {
            if !self.plan.judges[cell.judge].opens_files() {
                continue;
            }
            let files = self.done.records[place].iter_mut().zip(&self.done.stamps[place]);
            for ((record, before), now) in files.zip(&self.stamps[cell.set]) {
                if now.is_some() && before != now {
                    *record = None;
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// One data set in one state, by all detectors that judge it so.
    fn state(&mut self, set: usize, degradation: Option<usize>) -> Result<bool, String> {
        let plan = self.plan;
        let cells: Vec<usize> = (0..plan.cells.len())
            .filter(|&c| plan.cells[c].set == set && plan.cells[c].degradation == degradation)
            .collect();
        let items = &plan.sets[set].set.items;
        let open = |run: &Self, at: usize| cells.iter().any(|&c| run.done.records[c][at].is_none());
        let mut waiting: Vec<usize> = (0..items.len()).filter(|&at| open(self, at)).collect();
        let Some(degradation) = degradation else {
            std::fs::create_dir_all(self.work).map_err(|e| self.unwritable(&e))?;
            let copies: Vec<(usize, PathBuf)> =
                waiting.into_iter().map(|at| (at, items[at].path.clone())).collect();
            return self.judge(&cells, &copies);
        };
        while !waiting.is_empty() {
            let Some((copies, faults, taken)) = self.copies(set, degradation, &waiting)? else {
                return Ok(false);
            };
            for (at, fault) in faults {
                self.fault(&cells, at, &fault)?;
            }
            if !self.judge(&cells, &copies)? {
                return Ok(false);
            }
            clear(self.work)?;
            waiting.drain(..taken);
        }
        Ok(true)
    }

    fn unwritable(&self, e: &std::io::Error) -> String {
        format!("{}: cannot be written: {e}", self.work.display())
    }

    /// Makes copies of the first items of `waiting`, as many as there may be at a time: which were made,
    /// which could not be, and how many that is together. None: stopped.
    #[allow(clippy::type_complexity)]
    fn copies(
        &self,
        set: usize,
        degradation: usize,
        waiting: &[usize],
    ) -> Result<Option<(Vec<(usize, PathBuf)>, Vec<(usize, Fault)>, usize)>, String> {
        let plan = self.plan;
        let Some(ffmpeg) = &plan.ffmpeg else { return Err("no ffmpeg".to_owned()) };
        std::fs::create_dir_all(self.work).map_err(|e| self.unwritable(&e))?;
        let maker = Maker { ffmpeg, seed: plan.suite.seed, stop: self.stop };
        let of = &plan.sets[set].set;
        let degradation = plan.degradations[degradation];
        let (mut copies, mut faults) = (Vec::new(), Vec::new());
        let (mut bytes, mut taken) = (0, 0);
        for some in waiting[..waiting.len().min(BATCH_FILES)].chunks(rayon::current_num_threads()) {
            if bytes >= BATCH_BYTES {
                break;
            }
            let make = |&at: &usize| {
                let item = &of.items[at];
                let original = Original { path: &item.path, id: &item.id, media: of.kind };
                (at, degradation.make(original, self.work, &format!("{at:07}"), &maker))
            };
            let made: Vec<_> = some.par_iter().map(make).collect();
            taken += some.len();
            for (at, made) in made {
                match made {
                    Ok(Some(copy)) => {
                        bytes += std::fs::metadata(&copy).map_or(0, |m| m.len());
                        copies.push((at, copy));
                    }
                    Ok(None) => return Ok(None),
                    Err(fault) => faults.push((at, fault)),
                }
            }
        }
        Ok(Some((copies, faults, taken)))
    }

    /// A file that cannot be degraded is skipped by all.
    fn fault(&mut self, cells: &[usize], at: usize, fault: &Fault) -> Result<(), String> {
        for &cell in cells {
            if self.done.records[cell][at].is_none() {
                let record = Record {
                    skipped: Some(fault.code.clone()),
                    message: Some(fault.message.clone()),
                    ..Record::default()
                };
                self.keep(cell, at, record)?;
            }
        }
        Ok(())
    }

    /// Lets every detector judge what it has not yet. False: stopped.
    fn judge(&mut self, cells: &[usize], copies: &[(usize, PathBuf)]) -> Result<bool, String> {
        let plan = self.plan;
        for &cell in cells {
            let open = copies.iter().filter(|(at, _)| self.done.records[cell][*at].is_none());
            let (items, paths): (Vec<usize>, Vec<PathBuf>) = open.cloned().unzip();
            if paths.is_empty() {
                continue;
            }
            let judge = &plan.judges[plan.cells[cell].judge];
            let (scratch, stop) = (self.work, self.stop);
            let files = Files { set: plan.cells[cell].set, items: &items, paths: &paths, scratch };
            judge.judge(&files, stop, &mut |answer| match answer {
                Answer::Judged(at, record) => self.keep(cell, items[at], record),
                Answer::Took(took) => self.took(cell, &took),
            })?;
            if self.stopped() {
                return Ok(false);
            }
            if let Some(at) = items.iter().find(|at| self.done.records[cell][**at].is_none()) {
                let id = &plan.sets[plan.cells[cell].set].set.items[*at].id;
                return Err(format!("detector {}: gave no answer for '{id}'", judge.name));
            }
        }
        Ok(!self.stopped())
    }

    /// Writes a record down and remembers it.
    fn keep(&mut self, cell: usize, at: usize, record: Record) -> Result<(), String> {
        let Cell { set, judge, .. } = self.plan.cells[cell];
        let name = self.plan.name(&self.plan.cells[cell]);
        let item = &self.plan.sets[set].set.items[at];
        self.observer.judged(&name.detector, &name.data_set, &name.degradation);
        let file = self.stamps[set][at].filter(|_| self.plan.judges[judge].opens_files());
        let row = Row { cell: name, id: item.id.clone(), fake: item.fake, file, record };
        self.done.records[cell][at] = Some(self.journal.record(&row)?);
        Ok(())
    }

    fn took(&mut self, cell: usize, took: &Took) -> Result<(), String> {
        let batch = Batch {
            cell: self.plan.name(&self.plan.cells[cell]),
            files: took.files,
            wall_ms: took.wall.as_secs_f64() * 1000.0,
            peak_memory_bytes: took.peak_memory_bytes,
        };
        let batch = self.journal.batch(batch)?;
        self.done.batches[cell].push(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(n: usize, grouped: bool) -> Vec<Item> {
        (0..n)
            .map(|i| Item {
                path: format!("{i}").into(),
                id: format!("{i}"),
                fake: i % 4 == 0,
                group: grouped.then(|| format!("g{}", i / 10)),
                generator: None,
                fake_periods: None,
            })
            .collect()
    }

    #[test]
    fn drawing_keeps_classes_or_groups_and_is_the_same_every_time() {
        let (drawn, rest) = draw(items(100, false), Some(20), 1);
        assert_eq!((drawn.len(), rest.len()), (20, 80));
        assert_eq!(drawn.iter().filter(|i| i.fake).count(), 5);
        assert!(
            drawn
                .windows(2)
                .all(|p| { p[0].id.parse::<u32>().unwrap() < p[1].id.parse::<u32>().unwrap() })
        );
        assert_eq!(draw(items(100, false), Some(20), 1).0, drawn);
        assert_ne!(draw(items(100, false), Some(20), 2).0, drawn);
        let (drawn, _) = draw(items(100, true), Some(20), 1);
        let groups: HashSet<_> = drawn.iter().map(|i| i.group.clone()).collect();
        assert_eq!((drawn.len(), groups.len()), (20, 2));
        // Few, but of both classes.
        let (drawn, _) = draw(items(100, false), Some(2), 3);
        assert_eq!(drawn.iter().filter(|i| i.fake).count(), 1);
        assert_eq!(draw(items(5, false), Some(5), 1).1.len(), 0);
        assert_eq!(draw(items(5, false), None, 1).0.len(), 5);
        assert_eq!(draw(items(9, false), Some(1), 1).0.len(), 1);
    }
}
