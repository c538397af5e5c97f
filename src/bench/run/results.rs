//! What a run comes to: `metrics.json`, and what the HTML report is made of. `docs/bench.md`
//! describes the fields for people.
//!
//! Scores, thresholds and probabilities are in the detector's own direction throughout
//! ([`Detector::direction`]), as its authors know them; rates always have fakes as positives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::bench::dataset::MediaKind as Media;
use crate::bench::evaluate::Scale;
use crate::bench::metrics::operating::Transfer;
use crate::bench::metrics::paired::{DeLong, PairedBootstrap};
use crate::bench::metrics::{Metric, metric_json};
use crate::bench::output::{Bootstrap, Level};
use crate::bench::protocol::Direction;

/// Version of these types as JSON.
pub const SCHEMA: u32 = 1;
/// Name of the degradation that leaves files as they are.
pub const CLEAN: &str = "none";
/// Points of a ROC or DET curve at most.
pub const CURVE_POINTS: usize = 200;
/// Bins of a histogram.
pub const HISTOGRAM_BINS: usize = 40;
/// Wrong calls that a cell lists at most.
pub const WORST: usize = 12;

/// Everything that a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Of the suite.
    pub name: String,
    /// What identifies the run: suite, manifests, weights, engine (sha256, lower-case hex).
    pub fingerprint: String,
    /// Version of the program.
    pub engine: String,
    pub bootstrap: Bootstrap,
    pub data_sets: Vec<DataSet>,
    pub detectors: Vec<Detector>,
    /// The first is [`CLEAN`].
    pub degradations: Vec<Degradation>,
    /// In the order of data sets, then detectors, then degradations. Combinations that have no
    /// meaning (a sound detector on pictures, a score file on degraded copies) have no cell.
    pub cells: Vec<Cell>,
    pub comparisons: Vec<Comparison>,
    pub transfers: Vec<Transferred>,
    /// What people should look at; stderr said the same.
    pub hints: Vec<String>,
}

impl Results {
    /// The cell of a combination of names.
    pub fn cell(&self, data_set: &str, detector: &str, degradation: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| {
            c.data_set == data_set && c.detector == detector && c.degradation == degradation
        })
    }
}

/// What is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSet {
    /// Unique in a suite.
    pub name: String,
    pub media: Media,
    /// As the suite names it.
    pub manifest: String,
    pub manifest_sha256: String,
    pub split: Option<String>,
    pub source: String,
    pub licence: String,
    pub consent: String,
    pub fake: u64,
    pub real: u64,
    /// Identities or speakers; None where the set does not know them.
    pub groups: Option<u64>,
    /// Files of the split, where the suite took fewer of them.
    pub drawn_from: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    /// Unique in a suite.
    pub name: String,
    pub kind: DetectorKind,
    /// Detector and tier, network, command line or score file, as the suite names it.
    pub what: String,
    /// Of weights, options and device; for a command of its line and the files named beside it; for
    /// a score file its sha256.
    pub fingerprint: String,
    pub direction: Direction,
    pub scale: Scale,
    /// Fixed before the run.
    pub threshold: Option<Threshold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    Ours,
    /// A published network that `veriscope weights import` brought.
    Imported,
    Command,
    Scores,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// In the detector's direction: fake is what lies at it or beyond.
    pub value: f64,
    /// Where it was fixed, such as `the weights' manifest` or `the suite`.
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Degradation {
    /// `none`, `jpeg-50`, `h264-23`, `telephone`: family and value. Unique in a suite.
    pub name: String,
    pub family: String,
    /// None where the family has none (`none`, `telephone`).
    pub value: Option<f64>,
    /// What the value is in: `quality`, `CRF`, `of the side`, `pixels`, `8-bit steps`, `frames/s`,
    /// `kbit/s`, `s`, `dB`. Empty where there is no value.
    pub unit: String,
    /// Whether a larger value is the stronger degradation.
    pub worse_upwards: bool,
    /// Kinds of data set that it is made of.
    pub media: Vec<Media>,
}

/// One detector on one data set in one state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub data_set: String,
    pub detector: String,
    pub degradation: String,
    /// Files that were to be judged.
    pub files: u64,
    /// Files with a score.
    pub judged: u64,
    /// Files without a score, by the code of the reason. They are in no metric.
    pub skipped: BTreeMap<String, u64>,
    /// More than 5 % of the files were skipped: the run fails for it.
    pub too_many_skipped: bool,
    /// Files with a score on which the detector itself would give no verdict, since its interval
    /// holds the threshold. They count in all metrics. None: it has no such state.
    pub abstained: Option<u64>,
    /// Files first, then tracks and windows where the detector gives their scores. Empty for a file of
    /// proposals in time, which scores no files.
    pub levels: Vec<CellLevel>,
    /// How well the forged stretches of time were found: AP@IoU and AR@N. None: the data set does not say
    /// of all files when they are forged, or the detector does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub localisation: Option<Localisation>,
    pub cost: Cost,
    /// Files called wrongly at the threshold fixed beforehand, else at ASVspoof's equal error rate of
    /// this cell, the furthest from it first; at most [`WORST`].
    pub worst: Vec<Worst>,
}

impl Cell {
    /// What files (whole videos, recordings, pictures) come to.
    pub fn files_level(&self) -> Option<&CellLevel> {
        self.levels.first()
    }
}

/// Metrics and curves of one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellLevel {
    /// `video`, `audio`, `picture` (whole files), `track` (one face or one speaker), `window` (one face
    /// at one moment, 4 s of speech, what a command gives a time for), `frame` (a score file's).
    pub level: String,
    pub fake: u64,
    pub real: u64,
    /// Absent where only one class or one score is left.
    #[serde(with = "metric_json")]
    pub metrics: Metric<Level>,
    /// [false-positive rate, true-positive rate], from (0, 0) to (1, 1); empty where `metrics` is
    /// absent, as are the next two.
    pub roc: Vec<[f64; 2]>,
    /// [false-positive rate, false-negative rate], both strictly between 0 and 1.
    pub det: Vec<[f64; 2]>,
    pub histogram: Option<Histogram>,
}

/// A detector's segments as proposals, their probability as confidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Localisation {
    /// Absent where nothing is forged or nothing was proposed.
    #[serde(with = "metric_json")]
    pub metrics: Metric<Level>,
}

/// Scores of both classes in the same bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub from: f64,
    /// Upper end of the last bin.
    pub to: f64,
    pub fake: Vec<u64>,
    pub real: Vec<u64>,
}

/// What judging costs. Wall-clock time of the machine at hand, with everything else that it did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time / files, with files in work side by side; None for score files.
    pub mean_ms: Option<f64>,
    /// Of single files' own times; None where files are judged in batches only.
    pub median_ms: Option<f64>,
    /// Largest resident memory: of this process, or of a command's largest process.
    pub peak_memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    pub id: String,
    /// The file as it lies in the data set, not the degraded copy.
    pub path: String,
    pub fake: bool,
    pub score: f64,
    /// Of being fake, where the detector gives probabilities.
    pub probability: Option<f64>,
    pub generator: Option<String>,
}

/// Two detectors on the files of one data set that both judged, as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub data_set: String,
    pub a: String,
    pub b: String,
    pub files: u64,
    #[serde(with = "metric_json")]
    pub delong: Metric<DeLong>,
    pub bootstrap: PairedBootstrap,
    #[serde(default)]
    pub holm: Holm,
}

/// The tests' p, corrected for the number of comparisons in the run after Holm, each test by itself.
/// None: the test has no p.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Holm {
    pub delong: Option<f64>,
    /// Of the paired bootstrap of AUC.
    pub auc: Option<f64>,
    /// Of the paired bootstrap of the hull's EER.
    pub eer_hull: Option<f64>,
}

/// A detector's threshold fixed on one data set and used on another, clean files both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transferred {
    pub detector: String,
    /// Where it was fixed.
    pub from: String,
    /// Where it was used.
    pub to: String,
    #[serde(with = "metric_json")]
    pub eer_asvspoof: Metric<Transfer>,
    #[serde(with = "metric_json")]
    pub fpr_1pct: Metric<Transfer>,
}
