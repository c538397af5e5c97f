//! All metrics of one score file, with their bootstrap intervals.

use serde::{Deserialize, Serialize};

use super::metrics::bootstrap::{self, Interval, Units, dot_by_sign, resample};
use super::metrics::calibration::{Bin, Probabilities};
use super::metrics::detection_cost::{self, ASVSPOOF5, bits};
use super::metrics::localization::{AP_IOUS, AR_PROPOSALS, Localization, Located1d};
use super::metrics::selective::{RiskAt, Selective};
use super::metrics::tandem::{self, ASVSPOOF5_ADCF, AsvRates, SasvTrials};
use super::metrics::{Absent, AbsentCode, Metric, Ranked, Sweep, operating, ranking};

/// Points of the risk–coverage curve.
const COVERAGES: usize = 100;

/// What scores are, which decides what may be computed from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Any number; only its order has a meaning.
    Raw,
    /// Natural logarithm of a likelihood ratio.
    Llr,
    /// Probability at equal prior odds.
    Probability,
}

/// How to evaluate.
#[derive(Debug, Clone)]
pub struct Options {
    pub scale: Scale,
    /// Fixed beforehand; higher means fake, as in [`Ranked`].
    pub threshold: Option<f64>,
    /// Error rates of the speaker verifier that the countermeasure stands beside.
    pub asv: Option<AsvRates>,
    /// Bootstrap rounds; 0: no intervals.
    pub rounds: u32,
    pub seed: u64,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    pub value: Metric,
    /// Absent with the value's own reason where there is no value; None: no rounds were asked for.
    pub interval: Option<Metric<Interval>>,
}

/// Everything that one set of trials comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub metrics: Vec<Entry>,
    /// Scores from which on trials are called fake: at ASVspoof's EER, and at 1 in 100 and 1 in
    /// 1,000 false positives.
    pub thresholds: Vec<(&'static str, Metric)>,
    pub reliability: Metric<Vec<Bin>>,
    pub risk_coverage: Metric<Vec<RiskAt>>,
}

const NAMES: [&str; 19] = [
    "auc",
    "ap",
    "eer_asvspoof",
    "eer_hull",
    "tpr_at_fpr_1pct",
    "tpr_at_fpr_0.1pct",
    "accuracy",
    "balanced_accuracy",
    "tpr_at_threshold",
    "fpr_at_threshold",
    "min_dcf",
    "act_dcf",
    "cllr",
    "min_cllr",
    "min_tdcf",
    "min_tdcf_legacy",
    "brier",
    "ece",
    "aurc",
];

/// What is prepared once and weighed in every round.
struct Tables<'a> {
    ranked: &'a Ranked,
    /// Positions of the Bayes threshold and of the fixed one.
    cuts: [usize; 2],
    threshold: bool,
    /// Cost in bits by position: of fakes as it is, of reals with its sign turned.
    bits: Metric<Vec<f64>>,
    probabilities: Metric<Probabilities>,
    selective: Metric<Selective>,
    asv: Option<AsvRates>,
}

impl<'a> Tables<'a> {
    fn new(ranked: &'a Ranked, options: &Options) -> Self {
        let llr = |score: f64| match options.scale {
            Scale::Probability => (score / (1.0 - score)).ln(),
            _ => score,
        };
        let probabilities = match options.scale {
            Scale::Probability => Probabilities::new(ranked),
            _ => Err(Absent::new(AbsentCode::NotProbabilities, "scores are not probabilities")),
        };
        let bits = match (options.scale, &probabilities) {
            (Scale::Raw, _) => {
                let why = "scores are not log-likelihood ratios";
                Err(Absent::new(AbsentCode::NotLogLikelihoodRatios, why))
            }
            (Scale::Probability, Err(absent)) => Err(absent.clone()),
            _ => Ok((0..ranked.len())
                .map(|at| {
                    let llr = llr(ranked.scores()[at]);
                    if ranked.is_fake(at) { bits(-llr) } else { -bits(llr) }
                })
                .collect()),
        };
        let bayes = ASVSPOOF5.bayes_threshold();
        Self {
            ranked,
            cuts: [
                ranked.scores().partition_point(|&s| llr(s) > bayes),
                options.threshold.map_or(0, |t| ranked.called_fake(t)),
            ],
            threshold: options.threshold.is_some(),
            bits,
            probabilities,
            selective: options
                .threshold
                .ok_or_else(no_threshold)
                .and_then(|t| Selective::new(ranked, t)),
            asv: options.asv,
        }
    }

    /// All metrics, in the order of [`NAMES`].
    fn metrics(&self, sweep: &Sweep, weights: Option<&[u16]>) -> [Metric; NAMES.len()] {
        let fixed = if self.threshold {
            operating::at_threshold(sweep, sweep.calls[1])
        } else {
            Err(no_threshold())
        };
        let at = |rate: fn(&operating::AtThreshold) -> f64| {
            fixed.as_ref().map(rate).map_err(Absent::clone)
        };
        let costs = self.bits.as_ref().map_err(Absent::clone);
        let cllr = costs.clone().and_then(|bits| {
            let (fake, real) = dot_by_sign(weights, bits);
            detection_cost::cllr(sweep, fake, real)
        });
        let act = costs.and_then(|_| detection_cost::act_dcf(sweep, sweep.calls[0], ASVSPOOF5));
        let asv = self
            .asv
            .ok_or_else(|| Absent::new(AbsentCode::NoAsvScores, "no scores of a speaker verifier"));
        let empty = || Absent::new(AbsentCode::OneClass, "there are no trials");
        let calibration = self
            .probabilities
            .as_ref()
            .map_err(Absent::clone)
            .and_then(|p| p.measure(self.ranked, weights).ok_or_else(empty));
        let aurc = self
            .selective
            .as_ref()
            .map_err(Absent::clone)
            .and_then(|s| s.aurc(weights).ok_or_else(empty));
        [
            ranking::auc(sweep),
            ranking::average_precision(sweep),
            operating::eer_asvspoof(sweep),
            operating::eer_hull(sweep),
            operating::tpr_at(sweep, 0),
            operating::tpr_at(sweep, 1),
            at(|f| f.accuracy),
            at(|f| f.balanced_accuracy),
            at(|f| f.true_positive_rate),
            at(|f| f.false_positive_rate),
            detection_cost::min_dcf(sweep, ASVSPOOF5),
            act,
            cllr,
            detection_cost::min_cllr(sweep),
            asv.clone().and_then(|asv| tandem::min_tdcf(sweep, asv)),
            asv.and_then(|asv| tandem::min_tdcf_legacy(sweep, asv)),
            calibration.as_ref().map(|c| c.brier).map_err(Absent::clone),
            calibration.map(|c| c.ece),
            aurc,
        ]
    }
}

fn no_threshold() -> Absent {
    Absent::new(AbsentCode::NoThreshold, "no threshold was fixed beforehand")
}

/// Computes every metric that has a meaning for these trials. `units` are those of the trials in
/// their order of arrival.
///
/// # Errors
///
/// One class only, or one score for all: nothing can be said of such a file.
pub fn evaluate(ranked: &Ranked, units: &Units, options: &Options) -> Metric<Evaluation> {
    ranked.comparable()?;
    let tables = Tables::new(ranked, options);
    let points = tables.metrics(&Sweep::new(ranked, &tables.cuts), None);
    let units = units.reordered(ranked.order());
    let rounds =
        resample(&units, options.rounds, options.seed, Sweep::default, |sweep, weights| {
            sweep.again(ranked, weights, &tables.cuts);
            tables.metrics(sweep, Some(weights)).map(|metric| metric.unwrap_or(f64::NAN))
        });
    let metrics = entries(NAMES.map(String::from).into_iter().zip(points), &units, &rounds);
    Ok(Evaluation {
        metrics,
        thresholds: vec![
            ("eer_asvspoof", operating::eer_threshold(ranked)),
            ("fpr_1pct", operating::threshold_at(ranked, 100)),
            ("fpr_0.1pct", operating::threshold_at(ranked, 1000)),
        ],
        reliability: tables
            .probabilities
            .as_ref()
            .map(|p| p.reliability(ranked))
            .map_err(Absent::clone),
        risk_coverage: tables.selective.as_ref().map(|s| s.curve(COVERAGES)).map_err(Absent::clone),
    })
}

/// Puts points and what the rounds gave together; no rounds: no intervals.
fn entries<const N: usize>(
    points: impl Iterator<Item = (String, Metric)>,
    units: &Units,
    rounds: &[[f64; N]],
) -> Vec<Entry> {
    points
        .enumerate()
        .map(|(which, (name, value))| {
            let interval = (!rounds.is_empty()).then(|| match &value {
                Err(absent) => Err(absent.clone()),
                Ok(_) => bootstrap::interval(units, rounds.iter().map(|round| round[which])),
            });
            Entry { name, value, interval }
        })
        .collect()
}

/// min a-DCF of spoofing-robust speaker verification, with ASVspoof 5's costs.
pub fn evaluate_sasv(trials: &SasvTrials, units: &Units, rounds: u32, seed: u64) -> Vec<Entry> {
    let point = trials.min_adcf(ASVSPOOF5_ADCF, None);
    let units = units.reordered(trials.order());
    let drawn = resample(
        &units,
        rounds,
        seed,
        || (),
        |(), weights| [trials.min_adcf(ASVSPOOF5_ADCF, Some(weights)).unwrap_or(f64::NAN)],
    );
    entries(std::iter::once(("min_adcf".to_owned(), point)), &units, &drawn)
}

const LOCATED: usize = 2 * (AP_IOUS.len() + AR_PROPOSALS.len());

/// AP@IoU and AR@N; `units` are those of the files.
///
/// # Errors
///
/// Nothing to find, or nothing proposed.
pub fn evaluate_localization(
    localization: &Localization,
    units: &Units,
    rounds: u32,
    seed: u64,
) -> Metric<Vec<Entry>> {
    let flat = |found: Located1d| -> [f64; LOCATED] {
        let mut values =
            found.ap.into_iter().chain(found.ar).chain(found.ap_complete).chain(found.ar_complete);
        std::array::from_fn(|_| values.next().unwrap_or(f64::NAN))
    };
    let nothing = || Absent::new(AbsentCode::NothingToFind, "no file has a forged stretch");
    let points = flat(localization.measure(None).ok_or_else(nothing)?);
    let drawn = resample(
        units,
        rounds,
        seed,
        || (),
        |(), weights| localization.measure(Some(weights)).map_or([f64::NAN; LOCATED], flat),
    );
    let names = ["", "_complete"].into_iter().flat_map(|suffix| {
        let ap = AP_IOUS.iter().map(move |iou| format!("ap@{iou}{suffix}"));
        ap.chain(AR_PROPOSALS.iter().map(move |n| format!("ar@{n}{suffix}")))
    });
    Ok(entries(names.zip(points.map(Ok)), units, &drawn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metrics::bootstrap::Random;
    use crate::bench::metrics::localization::{Located, Proposal};

    /// Trials with ties, probabilities, and how often each is drawn.
    fn case(seed: u64) -> (Vec<f64>, Vec<bool>, Vec<u16>) {
        let mut random = Random::new(seed, 0);
        let n = 3 + random.below(60);
        let mut scores = Vec::new();
        let mut fake = Vec::new();
        let mut weights = Vec::new();
        for i in 0..n {
            fake.push(if i < 2 { i == 0 } else { random.below(2) == 0 });
            let lead = if fake[i] { random.below(8) } else { 0 };
            scores.push((1 + random.below(20) + lead) as f64 / 32.0);
            // The first two keep both classes alive.
            weights.push(random.below(4) as u16 + u16::from(i < 2));
        }
        (scores, fake, weights)
    }

    fn options(threshold: f64) -> Options {
        let scale = Scale::Probability;
        let asv = Some(tandem::ASVSPOOF5_ASV);
        Options { scale, threshold: Some(threshold), asv, rounds: 0, seed: 0 }
    }

    #[test]
    fn a_weight_counts_like_as_many_trials() {
        for seed in 0..500 {
            let (scores, fake, weights) = case(seed);
            let copies = |i: usize| usize::from(weights[i]);
            let all = 0..scores.len();
            let many_scores: Vec<f64> =
                all.clone().flat_map(|i| vec![scores[i]; copies(i)]).collect();
            let many_fake: Vec<bool> = all.flat_map(|i| vec![fake[i]; copies(i)]).collect();
            let once = Ranked::new(&scores, &fake).unwrap();
            let many = Ranked::new(&many_scores, &many_fake).unwrap();
            let weights: Vec<u16> = once.order().iter().map(|&i| weights[i as usize]).collect();
            let options = options(0.5);
            let (weighed, counted) = (Tables::new(&once, &options), Tables::new(&many, &options));
            let mut sweep = Sweep::default();
            sweep.again(&once, &weights, &weighed.cuts);
            let weighed = weighed.metrics(&sweep, Some(&weights));
            let counted = counted.metrics(&Sweep::new(&many, &counted.cuts), None);
            for (name, (w, c)) in NAMES.iter().zip(weighed.iter().zip(&counted)) {
                match (w, c) {
                    (Ok(w), Ok(c)) => assert!((w - c).abs() < 1e-12, "{seed} {name}: {w} {c}"),
                    _ => assert_eq!(w, c, "{seed} {name}"),
                }
            }
        }
    }

    #[test]
    fn located_files_count_like_as_many_files() {
        let mut random = Random::new(5, 0);
        for _ in 0..100 {
            let mut files = Vec::new();
            let mut weights = Vec::new();
            for number in 0..2 + random.below(6) {
                let mut file = Located { truth: vec![(1.0, 3.0)], proposals: Vec::new() };
                for place in 0..random.below(5) {
                    let start = random.below(3) as f32;
                    // No confidence twice, for its order among copies would be the files' order.
                    let confidence = (100 * (10 - place) + number) as f32;
                    file.proposals.push(Proposal { confidence, start, end: start + 2.0 });
                }
                files.push(file);
                weights.push(random.below(3) as u16);
            }
            let copies: Vec<Located> = files
                .iter()
                .zip(&weights)
                .flat_map(|(file, &w)| vec![file.clone(); usize::from(w)])
                .collect();
            let Ok(once) = Localization::new(&files) else { continue };
            let weighed = once.measure(Some(&weights));
            let counted = Localization::new(&copies).ok().and_then(|l| l.measure(None));
            let Some((weighed, counted)) = weighed.zip(counted) else { continue };
            for (w, c) in weighed.ap_complete.iter().zip(counted.ap_complete) {
                assert!((w - c).abs() < 1e-12);
            }
            for (w, c) in weighed
                .ar
                .iter()
                .chain(&weighed.ar_complete)
                .zip(counted.ar.iter().chain(&counted.ar_complete))
            {
                assert!((w - c).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_has_no_meaning_has_no_number() {
        let code = |evaluation: &Evaluation, name: &str| {
            let entry = evaluation.metrics.iter().find(|e| e.name == name).unwrap();
            entry.value.as_ref().map_err(|absent| absent.code).copied()
        };
        let real = 50;
        let scores: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
        let fake: Vec<bool> = (0..100).map(|i| i >= real).collect();
        let ranked = Ranked::new(&scores, &fake).unwrap();
        let units = Units::Trials(100);
        let raw = Options { scale: Scale::Raw, threshold: None, asv: None, rounds: 0, seed: 0 };
        let found = evaluate(&ranked, &units, &raw).unwrap();
        assert_eq!(code(&found, "auc"), Ok(1.0));
        assert_eq!(code(&found, "tpr_at_fpr_1pct"), Err(AbsentCode::TooFewReals));
        assert_eq!(code(&found, "accuracy"), Err(AbsentCode::NoThreshold));
        assert_eq!(code(&found, "aurc"), Err(AbsentCode::NoThreshold));
        assert_eq!(code(&found, "act_dcf"), Err(AbsentCode::NotLogLikelihoodRatios));
        assert_eq!(code(&found, "ece"), Err(AbsentCode::NotProbabilities));
        assert_eq!(code(&found, "min_tdcf"), Err(AbsentCode::NoAsvScores));
        assert!(found.reliability.is_err() && found.risk_coverage.is_err());
        // A real that was certainly fake costs infinitely many bits.
        let certain: Vec<f64> = (0..100).map(|i| if i == 0 { 1.0 } else { 0.5 }).collect();
        let ranked = Ranked::new(&certain, &fake).unwrap();
        let found = evaluate(&ranked, &units, &options(0.5)).unwrap();
        assert_eq!(code(&found, "cllr"), Err(AbsentCode::Infinite));
        assert!(code(&found, "brier").is_ok());
        // One class, one score.
        let constant = Ranked::new(&[0.5; 100], &fake).unwrap();
        let error = |ranked: &Ranked| evaluate(ranked, &units, &raw).unwrap_err().code;
        assert_eq!(error(&constant), AbsentCode::ConstantScore);
        let reals = Ranked::new(&scores, &[false; 100]).unwrap();
        assert_eq!(error(&reals), AbsentCode::OneClass);
        assert!(Ranked::new(&[f64::NAN], &[true]).is_none());
    }

    #[test]
    fn groups_that_repeat_themselves_widen_the_interval() {
        // Every person has 40 files with one score: 40 times less is known than files suggest.
        let mut random = Random::new(1, 1);
        let (mut scores, mut fake, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for person in 0..60_u32 {
            let is_fake = person % 2 == 0;
            let score = random.below(100) as f64 + if is_fake { 40.0 } else { 0.0 };
            for _ in 0..40 {
                scores.push(score);
                fake.push(is_fake);
                of.push(person);
            }
        }
        let ranked = Ranked::new(&scores, &fake).unwrap();
        let width = |units: &Units| {
            let options = Options { rounds: 300, scale: Scale::Raw, ..options(0.5) };
            let found = evaluate(&ranked, units, &options).unwrap();
            let interval = found.metrics[0].interval.clone().unwrap().unwrap();
            assert!(interval.low < interval.high);
            interval.high - interval.low
        };
        let files = width(&Units::Trials(scores.len()));
        let people = width(&Units::Groups { of, count: 60 });
        assert!(people > 4.0 * files, "{people} {files}");
    }
}
