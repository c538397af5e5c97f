//! What `veriscope bench metrics` prints: one JSON object, described in `docs/bench.md`.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub level: String,
    pub counts: Counts,
    /// What the bootstrap drew.
    pub units: Drawn,
    pub metrics: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_metric")]
    pub reliability: Option<Metric<Vec<Bin>>>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_metric")]
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
            .map(|(name, threshold)| (name.to_owned(), threshold.map(|t| reading.turn(t))));
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    Classes { fake: u64, real: u64, distinct_scores: u64 },
    Sasv { target: u64, nontarget: u64, spoof: u64 },
    Located { files: u64, stretches: u64, proposals: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    pub kind: String,
    pub count: u64,
}

/// Metrics by name: `{"value": …, "low": …, "high": …}` or `{"absent": …}`.
#[derive(Debug, Clone, PartialEq)]
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

/// The same without an order: names come back sorted.
impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Read {
            Absent { absent: Absent },
            Interval { value: f64, low: f64, high: f64 },
            NoInterval { value: f64, interval: Missing },
            Value { value: f64 },
        }
        #[derive(Deserialize)]
        struct Missing {
            absent: Absent,
        }
        let read = BTreeMap::<String, Read>::deserialize(deserializer)?;
        let entry = |(name, read)| {
            let (value, interval) = match read {
                Read::Absent { absent } => (Err(absent.clone()), Some(Err(absent))),
                Read::Interval { value, low, high } => {
                    (Ok(value), Some(Ok(Interval { low, high })))
                }
                Read::NoInterval { value, interval } => (Ok(value), Some(Err(interval.absent))),
                Read::Value { value } => (Ok(value), None),
            };
            Entry { name, value, interval }
        };
        Ok(Self(read.into_iter().map(entry).collect()))
    }
}

/// Thresholds by name, in the file's direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(pub Vec<(String, Metric)>);

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

#[derive(Deserialize)]
struct Owned<T>(
    #[serde(with = "metric_json", bound(deserialize = "T: Deserialize<'de>"))] Metric<T>,
);

impl<'de> Deserialize<'de> for Thresholds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = BTreeMap::<String, Owned<f64>>::deserialize(deserializer)?;
        Ok(Self(read.into_iter().map(|(name, Owned(threshold))| (name, threshold)).collect()))
    }
}

mod some_metric {
    use super::*;

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        metric: &Option<Metric<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match metric {
            Some(metric) => metric_json::serialize(metric, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Metric<T>>, D::Error> {
        let read = Option::<Owned<T>>::deserialize(deserializer)?;
        Ok(read.map(|Owned(metric)| metric))
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
