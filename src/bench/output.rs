//! What `veriscope bench metrics` prints: one JSON object, described in `docs/bench.md`.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::evaluate::{Entry, Evaluation, Scale};
use super::metrics::bootstrap::{Interval, LEVEL};
use super::metrics::calibration::Bin;
use super::metrics::operating::Transfer;
use super::metrics::paired::{DeLong, PairedBootstrap};
use super::metrics::selective::RiskAt;
use super::metrics::tandem::AsvRates;
use super::metrics::{Absent, Metric, metric_json};
use super::protocol::{Direction, Reading};

/// The whole object.
#[derive(Debug, Serialize)]
pub struct Output {
    pub protocol: String,
    pub scores: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// As given: in the file's direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    pub not_judged: u64,
    pub outside_subset: u64,
    pub bootstrap: Bootstrap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asv: Option<AsvRates>,
    pub levels: Vec<Level>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versus: Option<Versus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfers>,
    pub hints: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Bootstrap {
    pub rounds: u32,
    pub seed: u64,
    pub level: f64,
}

impl Bootstrap {
    pub fn new(rounds: u32, seed: u64) -> Self {
        Self { rounds, seed, level: LEVEL }
    }
}

/// Metrics of one level: frames, videos, files, trials. Never mixed.
#[derive(Debug, Serialize)]
pub struct Level {
    pub level: String,
    pub counts: Counts,
    /// What the bootstrap drew.
    pub units: Drawn,
    pub metrics: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_metric")]
    pub reliability: Option<Metric<Vec<Bin>>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_metric")]
    pub risk_coverage: Option<Metric<Vec<RiskAt>>>,
}

impl Level {
    /// `reading` turns thresholds back into the file's direction.
    pub fn of(
        level: &str,
        counts: Counts,
        units: Drawn,
        evaluation: Evaluation,
        reading: Reading,
    ) -> Self {
        let thresholds = evaluation
            .thresholds
            .into_iter()
            .map(|(name, threshold)| (name, threshold.map(|t| reading.turn(t))));
        Self {
            level: level.to_owned(),
            counts,
            units,
            metrics: Entries(evaluation.metrics),
            thresholds: Some(Thresholds(thresholds.collect())),
            reliability: Some(evaluation.reliability),
            risk_coverage: Some(evaluation.risk_coverage),
        }
    }

    /// The value of a metric, where it has one.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.metrics.0.iter().find(|e| e.name == name)?.value.clone().ok()
    }
}

/// How many there are.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Counts {
    Classes { fake: u64, real: u64, distinct_scores: u64 },
    Sasv { target: u64, nontarget: u64, spoof: u64 },
    Located { files: u64, stretches: u64, proposals: u64 },
}

#[derive(Debug, Serialize)]
pub struct Drawn {
    pub kind: String,
    pub count: u64,
}

/// Metrics by name: `{"value": …, "low": …, "high": …}` or `{"absent": …}`.
#[derive(Debug)]
pub struct Entries(pub Vec<Entry>);

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for entry in &self.0 {
            map.serialize_entry(&entry.name, &Shown::of(entry))?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Absent { absent: &'a Absent },
    Value { value: f64 },
    Interval { value: f64, low: f64, high: f64 },
    NoInterval { value: f64, interval: NoInterval<'a> },
}

#[derive(Serialize)]
struct NoInterval<'a> {
    absent: &'a Absent,
}

impl<'a> Shown<'a> {
    fn of(entry: &'a Entry) -> Self {
        match (&entry.value, &entry.interval) {
            (Err(absent), _) => Self::Absent { absent },
            (Ok(value), None) => Self::Value { value: *value },
            (Ok(value), Some(Ok(Interval { low, high }))) => {
                Self::Interval { value: *value, low: *low, high: *high }
            }
            (Ok(value), Some(Err(absent))) => {
                Self::NoInterval { value: *value, interval: NoInterval { absent } }
            }
        }
    }
}

/// Thresholds by name, in the file's direction.
#[derive(Debug)]
pub struct Thresholds(pub Vec<(&'static str, Metric)>);

#[derive(Serialize)]
struct Whole<'a, T: Serialize>(#[serde(with = "metric_json")] &'a Metric<T>);

impl Serialize for Thresholds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, threshold) in &self.0 {
            map.serialize_entry(name, &Whole(threshold))?;
        }
        map.end()
    }
}

fn some_metric<T: Serialize, S: Serializer>(
    metric: &Option<Metric<T>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match metric {
        Some(metric) => metric_json::serialize(metric, serializer),
        None => serializer.serialize_none(),
    }
}

/// Another detector on the same files.
#[derive(Debug, Serialize)]
pub struct Versus {
    pub scores: String,
    pub level: String,
    #[serde(with = "metric_json")]
    pub delong: Metric<DeLong>,
    pub bootstrap: PairedBootstrap,
}

/// Thresholds that were fixed on other data.
#[derive(Debug, Serialize)]
pub struct Transfers {
    /// The scores they were fixed on.
    pub from: String,
    #[serde(with = "metric_json")]
    pub eer_asvspoof: Metric<Transfer>,
    #[serde(with = "metric_json")]
    pub fpr_1pct: Metric<Transfer>,
}
