//! Records → metrics, curves, histograms, worst errors.

use std::collections::{BTreeMap, HashMap};

use super::journal::{Batch, Record};
use super::results::{
    CURVE_POINTS, Cell, CellLevel, Comparison, Cost, HISTOGRAM_BINS, Histogram, Holm, Localisation,
    Media, Transferred, WORST, Worst,
};
use crate::bench::dataset::Item;
use crate::bench::evaluate::{Options, evaluate, evaluate_localization};
use crate::bench::hints::{self, Setting};
use crate::bench::metrics::bootstrap::Units;
use crate::bench::metrics::localization::{Localization, Located, Proposal};
use crate::bench::metrics::{Metric, Ranked, operating, paired};
use crate::bench::output::{Counts, Drawn, Entries, Level};
use crate::bench::protocol::{MAX_NOT_JUDGED, Reading};

/// Names of the levels below whole files.
const TRACK: &str = "track";
const WINDOW: &str = "window";
const FRAME: &str = "frame";

/// How all cells are evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub rounds: u32,
    pub seed: u64,
}

/// What a cell is made of.
pub struct Given<'a> {
    pub names: [&'a str; 3],
    pub media: Media,
    pub items: &'a [Item],
    pub records: &'a [Option<Record>],
    pub batches: &'a [Batch],
    pub reading: Reading,
    /// In the detector's direction.
    pub threshold: Option<f64>,
    pub setting: Setting,
    /// Whether hints on metrics are wanted.
    pub clean: bool,
    /// Whether the detector says when a file is fake.
    pub locates: bool,
    /// Whether it says of whole files that they are.
    pub scores_files: bool,
}

/// Trials of one level.
#[derive(Default)]
struct Trials {
    /// Higher means fake.
    scores: Vec<f64>,
    fake: Vec<bool>,
    /// Place of the item.
    of: Vec<u32>,
}

impl Trials {
    fn push(&mut self, score: f64, fake: bool, item: usize) {
        self.scores.push(score);
        self.fake.push(fake);
        self.of.push(u32::try_from(item).unwrap_or(u32::MAX));
    }

    fn ranked(&self) -> Option<Ranked> {
        Ranked::new(&self.scores, &self.fake)
    }

    /// What the bootstrap draws: the items' groups where all are known; else files, with all that
    /// belongs to them.
    fn units(&self, items: &[Item]) -> (Units, &'static str) {
        let grouped = self.of.iter().all(|&i| items[i as usize].group.is_some());
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut of = Vec::with_capacity(self.of.len());
        for &item in &self.of {
            let item = &items[item as usize];
            let name = item.group.as_deref().filter(|_| grouped).unwrap_or(&item.id);
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            of.push(*numbers.entry(name).or_insert(next));
        }
        let count = numbers.len();
        let kind = if grouped { "group" } else { "file" };
        if count == of.len() {
            (Units::Trials(count), kind)
        } else {
            (Units::Groups { of, count }, kind)
        }
    }
}

/// Whether a stretch is fake: where the data set says when, at least half of it has to be forged.
fn stretch_is_fake(item: &Item, start_ms: u32, end_ms: u32) -> bool {
    let Some(periods) = &item.fake_periods else { return item.fake };
    let (start, end) = (f64::from(start_ms) / 1000.0, f64::from(end_ms) / 1000.0);
    let forged: f64 = periods.iter().map(|[a, b]| (b.min(end) - a.max(start)).max(0.0)).sum();
    let at = |t: f64| periods.iter().any(|[a, b]| (*a..=*b).contains(&t));
    if end > start { forged * 2.0 >= end - start } else { at(start) }
}

/// All levels of a cell: files, then what they are made of.
fn levels(given: &Given) -> Vec<(&'static str, Trials)> {
    if !given.scores_files {
        return Vec::new();
    }
    let mut files = Trials::default();
    let (mut tracks, mut windows, mut frames) =
        (Trials::default(), Trials::default(), Trials::default());
    for (at, (item, record)) in given.items.iter().zip(given.records).enumerate() {
        let Some(record) = record else { continue };
        let Some(score) = record.score else { continue };
        files.push(given.reading.turn(score), item.fake, at);
        for score in &record.frames {
            frames.push(given.reading.turn(*score), item.fake, at);
        }
        // A picture is one moment: its faces are no level of their own.
        if given.media == Media::Picture {
            continue;
        }
        for track in &record.tracks {
            let truth: Vec<bool> =
                track.windows.iter().map(|(a, b, _)| stretch_is_fake(item, *a, *b)).collect();
            tracks.push(f64::from(track.probability), truth.contains(&true), at);
            for ((.., probability), fake) in track.windows.iter().zip(truth) {
                windows.push(f64::from(*probability), fake, at);
            }
        }
        for (start, end, score) in &record.windows {
            windows.push(given.reading.turn(*score), stretch_is_fake(item, *start, *end), at);
        }
    }
    let mut all = vec![(given.media.name(), files)];
    let below = [(TRACK, tracks), (WINDOW, windows), (FRAME, frames)];
    all.extend(below.into_iter().filter(|(_, trials)| !trials.scores.is_empty()));
    all
}

/// Evaluates a cell; also what people should look at.
pub fn cell(given: &Given, rules: Rules) -> (Cell, Vec<String>) {
    let [data_set, detector, degradation] = given.names;
    let state = if given.clean { String::new() } else { format!(", {degradation}") };
    let subject = format!("{detector} on {data_set}{state}");
    let mut hints = Vec::new();
    let options = Options {
        scale: given.reading.scale,
        threshold: given.threshold.map(|t| given.reading.turn(t)),
        asv: None,
        rounds: rules.rounds,
        seed: rules.seed,
    };
    let mut worst = Vec::new();
    let mut evaluated = Vec::new();
    for (place, (name, trials)) in levels(given).into_iter().enumerate() {
        // Scores are finite and fewer than 2³²: whoever wrote them saw to it.
        let Some(ranked) = trials.ranked() else { continue };
        let (units, kind) = trials.units(given.items);
        let metrics = evaluate(&ranked, &units, &options).map(|evaluation| {
            let counts = Counts::Classes {
                fake: ranked.fakes(),
                real: ranked.reals(),
                distinct_scores: ranked.distinct() as u64,
            };
            let drawn = Drawn { kind: kind.to_owned(), count: units.count() as u64 };
            Level::of(name, counts, drawn, evaluation, given.reading)
        });
        if place == 0 {
            match &metrics {
                // What is said of clean files is not said again of each of their copies, and a detector that
                // is wrong on those alone has no wrong sign.
                Ok(level) if given.clean => hints.extend(hints::hints(
                    &subject,
                    level,
                    &ranked,
                    given.reading,
                    rules.rounds,
                    given.setting,
                )),
                Ok(_) => {}
                Err(absent) => hints.push(format!("{subject}: no metrics: {absent}")),
            }
            worst = worst_of(given, &trials, &ranked, options.threshold);
        }
        let curves = metrics.is_ok();
        evaluated.push(CellLevel {
            level: name.to_owned(),
            fake: ranked.fakes(),
            real: ranked.reals(),
            metrics,
            roc: if curves { roc(&ranked) } else { Vec::new() },
            det: if curves { det(&ranked) } else { Vec::new() },
            histogram: if curves { histogram(&trials, given.reading) } else { None },
        });
    }
    let mut skipped: BTreeMap<String, u64> = BTreeMap::new();
    let (mut judged, mut undecided, mut decides) = (0_u64, 0_u64, false);
    for record in given.records.iter().flatten() {
        match &record.skipped {
            Some(code) => *skipped.entry(code.clone()).or_default() += 1,
            None => judged += 1,
        }
        decides |= record.undecided.is_some();
        undecided += u64::from(record.undecided == Some(true) && record.skipped.is_none());
    }
    let files = given.items.len() as u64;
    let left = files - judged;
    let too_many_skipped = left as f64 > MAX_NOT_JUDGED * files as f64;
    if left > 0 {
        let reasons: Vec<String> = skipped.iter().map(|(code, n)| format!("{code} {n}")).collect();
        let reasons = reasons.join(", ");
        let much = if too_many_skipped { ", MORE THAN 5 %: THE RUN FAILS" } else { "" };
        hints.push(format!(
            "{subject}: {left} of {files} files have no score and are in no metric ({reasons}){much}"
        ));
    }
    let cell = Cell {
        data_set: data_set.to_owned(),
        detector: detector.to_owned(),
        degradation: degradation.to_owned(),
        files,
        judged,
        skipped,
        too_many_skipped,
        abstained: decides.then_some(undecided),
        levels: evaluated,
        localisation: localisation(given, rules),
        cost: cost(given.records, given.batches),
        worst,
    };
    (cell, hints)
}

/// Segments against the data set's periods, where both are there.
fn localisation(given: &Given, rules: Rules) -> Option<Localisation> {
    if !given.locates {
        return None;
    }
    let mut files = Vec::new();
    let mut judged = Trials::default();
    for (at, (item, record)) in given.items.iter().zip(given.records).enumerate() {
        let periods = item.fake_periods.as_ref()?;
        let Some(record) = record.as_ref().filter(|r| r.skipped.is_none()) else { continue };
        let second = |ms: u32| (f64::from(ms) / 1000.0) as f32;
        // Our segments have probabilities, whatever the scores are.
        let mut proposals: Vec<Proposal> = match &record.proposals {
            Some(proposals) => proposals
                .iter()
                .map(|&(start, end, score)| {
                    let confidence = given.reading.turn(f64::from(score)) as f32;
                    Proposal { confidence, start, end }
                })
                .collect(),
            None => record
                .segments
                .iter()
                .map(|(start, end, confidence)| Proposal {
                    confidence: *confidence,
                    start: second(*start),
                    end: second(*end),
                })
                .collect(),
        };
        proposals.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let truth = periods.iter().map(|[a, b]| (*a as f32, *b as f32)).collect();
        files.push(Located { truth, proposals });
        judged.push(0.0, item.fake, at);
    }
    let (units, kind) = judged.units(given.items);
    let metrics = Localization::new(&files).and_then(|table| {
        let entries = evaluate_localization(&table, &units, rules.rounds, rules.seed)?;
        Ok(Level {
            level: "stretch".to_owned(),
            counts: Counts::Located {
                files: files.len() as u64,
                stretches: files.iter().map(|f| f.truth.len() as u64).sum(),
                proposals: files.iter().map(|f| f.proposals.len() as u64).sum(),
            },
            units: Drawn { kind: kind.to_owned(), count: units.count() as u64 },
            metrics: Entries(entries),
            thresholds: None,
            reliability: None,
            risk_coverage: None,
        })
    });
    Some(Localisation { metrics })
}

/// Points of the ROC, the most even along its way from (0, 0) to (1, 1).
fn roc(ranked: &Ranked) -> Vec<[f64; 2]> {
    let mut points = vec![[0.0, 0.0]];
    points.extend(operating_points(ranked).map(|(fpr, tpr)| [fpr, tpr]));
    thinned(points, |[fpr, tpr]| fpr + tpr)
}

/// Points of the DET, the most even along its way on logarithmic axes.
fn det(ranked: &Ranked) -> Vec<[f64; 2]> {
    let inside = |rate: f64| rate > 0.0 && rate < 1.0;
    let points = operating_points(ranked)
        .map(|(fpr, tpr)| [fpr, 1.0 - tpr])
        .filter(|[fpr, fnr]| inside(*fpr) && inside(*fnr));
    let logit = |rate: f64| (rate / (1.0 - rate)).ln();
    thinned(points.collect(), |[fpr, fnr]| logit(fpr) - logit(fnr))
}

/// False- and true-positive rate after each different score.
fn operating_points(ranked: &Ranked) -> impl Iterator<Item = (f64, f64)> + '_ {
    let (mut fakes, mut reals) = (0, 0);
    ranked.blocks().map(move |block| {
        fakes += block.fakes;
        reals += block.reals;
        (reals as f64 / ranked.reals() as f64, fakes as f64 / ranked.fakes() as f64)
    })
}

/// At most [`CURVE_POINTS`] of the points, the first and the last among them; `way` rises along them.
fn thinned(points: Vec<[f64; 2]>, way: impl Fn([f64; 2]) -> f64) -> Vec<[f64; 2]> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return points };
    if points.len() <= CURVE_POINTS {
        return points;
    }
    let (from, to) = (way(*first), way(*last));
    let steps = (CURVE_POINTS - 1) as f64;
    let mut kept: Vec<usize> = (0..CURVE_POINTS)
        .map(|step| {
            let wanted = from + (to - from) * step as f64 / steps;
            points.partition_point(|p| way(*p) < wanted).min(points.len() - 1)
        })
        .collect();
    kept[CURVE_POINTS - 1] = points.len() - 1;
    kept.dedup();
    kept.into_iter().map(|at| points[at]).collect()
}

fn histogram(trials: &Trials, reading: Reading) -> Option<Histogram> {
    let scores = || trials.scores.iter().map(|s| reading.turn(*s));
    let (mut from, mut to) = (0.0, 1.0);
    if reading.scale != crate::bench::evaluate::Scale::Probability {
        from = scores().fold(f64::INFINITY, f64::min);
        to = scores().fold(f64::NEG_INFINITY, f64::max);
    }
    let width = (to - from) / HISTOGRAM_BINS as f64;
    if !width.is_finite() || width <= 0.0 {
        return None;
    }
    let mut histogram =
        Histogram { from, to, fake: vec![0; HISTOGRAM_BINS], real: vec![0; HISTOGRAM_BINS] };
    for (score, fake) in scores().zip(&trials.fake) {
        let bin = (((score - from) / width) as usize).min(HISTOGRAM_BINS - 1);
        let counts = if *fake { &mut histogram.fake } else { &mut histogram.real };
        counts[bin] += 1;
    }
    Some(histogram)
}

/// Wrong calls at the threshold (higher means fake), the furthest from it first.
fn worst_of(given: &Given, trials: &Trials, ranked: &Ranked, threshold: Option<f64>) -> Vec<Worst> {
    let threshold = threshold.map_or_else(|| operating::eer_threshold(ranked).ok(), Some);
    let Some(threshold) = threshold else { return Vec::new() };
    let mut wrong: Vec<(f64, usize)> = (0..trials.scores.len())
        .filter(|&i| (trials.scores[i] >= threshold) != trials.fake[i])
        .map(|i| ((trials.scores[i] - threshold).abs(), i))
        .collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    wrong.truncate(WORST);
    let shown = |(_, i): (f64, usize)| {
        let at = trials.of[i] as usize;
        let item = &given.items[at];
        let record = given.records[at].as_ref();
        Worst {
            id: item.id.clone(),
            path: item.path.display().to_string(),
            fake: item.fake,
            score: given.reading.turn(trials.scores[i]),
            probability: record.and_then(|r| r.probability),
            generator: item.generator.clone(),
        }
    };
    wrong.into_iter().map(shown).collect()
}

fn cost(records: &[Option<Record>], batches: &[Batch]) -> Cost {
    let files: u64 = batches.iter().map(|b| b.files).sum();
    let wall: f64 = batches.iter().map(|b| b.wall_ms).sum();
    let mut own: Vec<f64> = records.iter().flatten().filter_map(|r| r.ms).collect();
    own.sort_by(f64::total_cmp);
    Cost {
        mean_ms: (files > 0).then(|| wall / files as f64),
        median_ms: match own.len() {
            0 => None,
            n => Some(f64::midpoint(own[(n - 1) / 2], own[n / 2])),
        },
        peak_memory_bytes: batches.iter().filter_map(|b| b.peak_memory_bytes).max(),
    }
}

/// One detector's clean records of a data set.
#[derive(Clone, Copy)]
pub struct Clean<'a> {
    pub name: &'a str,
    pub records: &'a [Option<Record>],
    pub reading: Reading,
}

impl Clean<'_> {
    fn score(&self, at: usize) -> Option<f64> {
        Some(self.reading.turn(self.records.get(at)?.as_ref()?.score?))
    }

    fn trials(&self, items: &[Item]) -> Trials {
        let mut trials = Trials::default();
        for (at, item) in items.iter().enumerate() {
            if let Some(score) = self.score(at) {
                trials.push(score, item.fake, at);
            }
        }
        trials
    }
}

/// Whether two detectors differ on the files that both judged. None where there is nothing to compare.
pub fn compare(
    data_set: &str,
    items: &[Item],
    a: Clean,
    b: Clean,
    rules: Rules,
) -> Option<Comparison> {
    let (mut of_a, mut of_b) = (Trials::default(), Trials::default());
    for (at, item) in items.iter().enumerate() {
        if let (Some(score_a), Some(score_b)) = (a.score(at), b.score(at)) {
            of_a.push(score_a, item.fake, at);
            of_b.push(score_b, item.fake, at);
        }
    }
    let (ranked_a, ranked_b) = (of_a.ranked()?, of_b.ranked()?);
    ranked_a.comparable().ok()?;
    ranked_b.comparable().ok()?;
    let (units, _) = of_a.units(items);
    Some(Comparison {
        data_set: data_set.to_owned(),
        a: a.name.to_owned(),
        b: b.name.to_owned(),
        files: of_a.scores.len() as u64,
        delong: paired::delong(&ranked_a, &ranked_b),
        bootstrap: paired::paired_bootstrap(&ranked_a, &ranked_b, &units, rules.rounds, rules.seed),
        holm: Holm::default(),
    })
}

/// Corrects each test's p for all comparisons of the run.
pub fn correct(comparisons: &mut [Comparison]) {
    type P = fn(&Comparison) -> Option<f64>;
    type Place = fn(&mut Holm) -> &mut Option<f64>;
    let tests: [(P, Place); 3] = [
        (|c| Some(c.delong.as_ref().ok()?.p), |holm| &mut holm.delong),
        (|c| Some(c.bootstrap.auc.as_ref().ok()?.p), |holm| &mut holm.auc),
        (|c| Some(c.bootstrap.eer_hull.as_ref().ok()?.p), |holm| &mut holm.eer_hull),
    ];
    for (p, place) in tests {
        let there: Vec<usize> =
            (0..comparisons.len()).filter(|&i| p(&comparisons[i]).is_some()).collect();
        let raw: Vec<f64> = there.iter().filter_map(|&i| p(&comparisons[i])).collect();
        for (i, corrected) in there.into_iter().zip(paired::holm(&raw)) {
            *place(&mut comparisons[i].holm) = Some(corrected);
        }
    }
}

/// A data set and one detector's clean records of it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub data_set: &'a str,
    pub items: &'a [Item],
    pub clean: Clean<'a>,
}

/// The detector's thresholds of one data set on another.
pub fn transfer(from: Place, to: Place) -> Option<Transferred> {
    let reading = from.clean.reading;
    let there = from.clean.trials(from.items).ranked()?;
    let here = to.clean.trials(to.items).ranked()?;
    let taken = |threshold: Metric| {
        let mut transfer = operating::transfer(threshold?, &there, &here)?;
        transfer.threshold = reading.turn(transfer.threshold);
        Ok(transfer)
    };
    Some(Transferred {
        detector: from.clean.name.to_owned(),
        from: from.data_set.to_owned(),
        to: to.data_set.to_owned(),
        eer_asvspoof: taken(operating::eer_threshold(&there)),
        fpr_1pct: taken(operating::threshold_at(&there, 100)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(fake: bool, periods: Option<Vec<[f64; 2]>>) -> Item {
        Item {
            path: "x".into(),
            id: "x".into(),
            fake,
            group: None,
            generator: None,
            fake_periods: periods,
        }
    }

    #[test]
    fn half_of_a_stretch_has_to_be_forged() {
        let whole = item(true, None);
        assert!(stretch_is_fake(&whole, 0, 10));
        let part = item(true, Some(vec![[1.0, 2.0], [5.0, 5.5]]));
        for (start, end, fake) in [
            (0, 1000, false),
            (500, 1500, true),
            (400, 1400, false),
            (0, 2000, true),
            (1500, 1500, true),
            (2500, 2500, false),
            (4750, 5750, true),
        ] {
            assert_eq!(stretch_is_fake(&part, start, end), fake, "{start} {end}");
        }
        assert!(!stretch_is_fake(&item(false, Some(vec![])), 0, 4000));
    }

    #[test]
    fn thinned_curves_keep_their_ends_and_their_corner() {
        let n = 10_000;
        // The first half of the fakes lies above all reals.
        let scores: Vec<f64> = (0..n).map(|i| f64::from(-i)).collect();
        let fake: Vec<bool> = (0..n).map(|i| i < 2_500 || i % 3 == 0).collect();
        let ranked = Ranked::new(&scores, &fake).unwrap();
        let curve = roc(&ranked);
        assert!(curve.len() <= CURVE_POINTS && curve.len() > CURVE_POINTS / 2);
        assert_eq!((curve[0], curve[curve.len() - 1]), ([0.0, 0.0], [1.0, 1.0]));
        assert!(curve.windows(2).all(|p| p[0][0] <= p[1][0] && p[0][1] <= p[1][1]));
        let exact =
            crate::bench::metrics::ranking::auc(&crate::bench::metrics::Sweep::new(&ranked, &[]));
        let area: f64 =
            curve.windows(2).map(|p| (p[1][0] - p[0][0]) * (p[0][1] + p[1][1]) / 2.0).sum();
        assert!((area - exact.unwrap()).abs() < 1e-3);
        let det = det(&ranked);
        assert!(det.len() <= CURVE_POINTS && det.len() > 50);
        assert!(det.iter().flatten().all(|rate| *rate > 0.0 && *rate < 1.0));
    }
}
