//! All metrics of one score file, with their bootstrap intervals.

use serde::Serialize;

use super::metrics::bootstrap::{self, Interval, Units, dot_by_sign, resample};
use super::metrics::calibration::{Bin, Probabilities};
use super::metrics::detection_cost::{self, ASVSPOOF5, bits};
use super::metrics::localization::{AP_IOUS, AR_PROPOSALS, Localization, Located1d};
use super::metrics::selective::{RiskAt, Selective};
use super::metrics::tandem::{self, ASVSPOOF5_ADCF, AsvRates, SasvTrials};
use super::metrics::{
    Absent, AbsentCode, Metric, Ranked, Sweep, metric_json, operating, ranking,
};

/// Points of the risk–coverage curve.
const COVERAGES: usize = 100;

/// What scores are, which decides what may be computed from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub name: String,
    #[serde(with = "metric_json")]
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
        let at = |rate: fn(&operating::AtThreshold) -> f64| fixed.as_ref().map(rate).map_err(Absent::clone);
        let costs = self.bits.as_ref().map_err(Absent::clone);
        let cllr = costs.clone().and_then(|bits| {
            let (fake, real) = dot_by_sign(weights, bits);
            detection_cost::cllr(sweep, fake, real)
        });
        let act = costs.and_then(|_| detection_cost::act_dcf(sweep, sweep.calls[0], ASVSPOOF5));
        let asv = self.asv.ok_or_else(|| {
            Absent::new(AbsentCode::NoAsvScores, "no scores of a speaker verifier")
        });
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
    let rounds = resample(&units, options.rounds, options.seed, Sweep::default, |sweep, weights| {
        sweep.again(ranked, weights, &tables.cuts);
        tables.metrics(sweep, Some(weights)).map(|metric| metric.unwrap_or(f64::NAN))
    });
    let metrics = entries(NAMES.map(String::from).into_iter().zip(points), &units, &rounds);
    let eer = operating::eer_threshold(ranked).and_then(|threshold| {
        threshold.ok_or_else(|| {
            Absent::new(AbsentCode::NoOperatingPoint, "nothing is called fake at that point")
        })
    });
    Ok(Evaluation {
        metrics,
        thresholds: vec![
            ("eer_asvspoof", eer),
            ("fpr_1pct", operating::threshold_at(ranked, 100)),
            ("fpr_0.1pct", operating::threshold_at(ranked, 1000)),
        ],
        reliability: tables.probabilities.as_ref().map(|p| p.reliability(ranked)).map_err(Absent::clone),
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
    let drawn = resample(&units, rounds, seed, || (), |(), weights| {
        [trials.min_adcf(ASVSPOOF5_ADCF, Some(weights)).unwrap_or(f64::NAN)]
    });
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
        let mut values = found
            .ap
            .into_iter()
            .chain(found.ar)
            .chain(found.ap_complete)
            .chain(found.ar_complete);
        std::array::from_fn(|_| values.next().unwrap_or(f64::NAN))
    };
    let nothing = || Absent::new(AbsentCode::NothingToFind, "no file has a forged stretch");
    let points = flat(localization.measure(None).ok_or_else(nothing)?);
    let drawn = resample(units, rounds, seed, || (), |(), weights| {
        localization.measure(Some(weights)).map_or([f64::NAN; LOCATED], flat)
    });
    let names = ["", "_complete"].into_iter().flat_map(|suffix| {
        let ap = AP_IOUS.iter().map(move |iou| format!("ap@{iou}{suffix}"));
        ap.chain(AR_PROPOSALS.iter().map(move |n| format!("ar@{n}{suffix}")))
    });
    Ok(entries(names.zip(points.map(Ok)), units, &drawn))
}
