//! The schedule: decoders → batches across files → device → windows.
//!
//! Each file in work has a thread that decodes it, follows its faces and cuts its speech; one
//! [`owner`] thread a device runs the networks for all of them in batches. Every queue between
//! them is bounded, so a slow network slows the decoders instead of filling the memory.

mod faces;
mod job;
mod owner;
pub mod score;
mod voices;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use candle_core::Device;
use sha2::{Digest, Sha256};

use crate::{
    models::weights::{WeightStore, WeightsError},
    report::{DetectorKind, EngineInfo, Report, path_text},
};

/// What a scan is asked to do.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    pub detectors: Vec<DetectorKind>,
    /// Pictures a second that are looked at; every picture where it is not positive.
    pub fps: f64,
    /// Files in work at the same time; 0 lets the engine choose.
    pub jobs: usize,
    pub device: DeviceChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

/// Pictures a second that are looked at unless told otherwise.
pub const DEFAULT_FPS: f64 = 4.0;

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            detectors: DetectorKind::ALL.to_vec(),
            fps: DEFAULT_FPS,
            jobs: 0,
            device: DeviceChoice::Auto,
        }
    }
}

/// What the engine tells while it works. Calls come from the engine's threads.
pub trait Observer: Sync {
    /// A file is being worked on; `media_ms` of its `duration_ms` have been looked at.
    fn progress(&self, path: &Path, media_ms: i64, duration_ms: Option<i64>);

    /// Asked once a file, as soon as its content is hashed (`sha256` in lower-case hex) and before
    /// anything else is done with it. True where the observer has the content's report already,
    /// or waits for the one that another path with the same content is getting: the engine then
    /// leaves the file alone and does not call `done` for it.
    ///
    /// After the answer false the engine owes a call of `done` whose report carries this
    /// `sha256`, unless it is stopped.
    fn known(&self, _path: &Path, _sha256: &str) -> bool {
        false
    }

    /// A file is done, scanned or failed. The report's `status` says which.
    fn done(&self, report: Report);
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("device cuda:{0} is not available: this program was built without CUDA")]
    NoCuda(usize),
}

/// Networks loaded on one device.
pub struct Engine {
    options: ScanOptions,
    networks: owner::Networks,
    info: EngineInfo,
}

impl Engine {
    /// Loads and verifies the weights that the detectors need.
    pub fn new(options: ScanOptions, weights: &WeightStore) -> Result<Self, EngineError> {
        let device = match options.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Cuda(n) => return Err(EngineError::NoCuda(n)),
        };
        let networks = owner::Networks::load(weights, &device, &options.detectors)?;
        let mut sums = BTreeMap::new();
        let mut precisions = BTreeMap::new();
        for name in networks.names() {
            sums.insert(name.to_owned(), weights.entry(name)?.sha256.clone());
            precisions.insert(name, weights.precision(name, &device)?);
        }
        let mut kinds = options.detectors.clone();
        kinds.sort();
        kinds.dedup();
        let names: Vec<&str> = kinds.iter().map(|k| k.name()).collect();
        let info = EngineInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            weights: sums,
            device: "cpu".to_owned(),
            options: BTreeMap::from([
                ("detectors".to_owned(), serde_json::json!(names)),
                ("fps".to_owned(), serde_json::json!(options.fps)),
                ("precision".to_owned(), serde_json::json!(precisions)),
            ]),
        };
        Ok(Self { options, networks, info })
    }

    /// What identifies results of this engine: version, weights, device, FFmpeg and options. Two engines
    /// with the same fingerprint give the same report for the same bytes.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        // Maps are ordered, so the text is the same for the same content.
        let text = serde_json::json!({
            "schema": crate::report::SCHEMA_VERSION,
            "version": self.info.version,
            "weights": self.info.weights,
            "device": self.info.device,
            "ffmpeg": crate::media::installed::installed().map(|i| i.libraries).ok(),
            "options": self.info.options,
        });
        digest.update(text.to_string());
        digest.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// Threads of each file's decoder. Fixed for a machine, so that what a decoder may skip does not
    /// depend on how many files are in work; few, so that many cores do not multiply by many files.
    fn decoder_threads(&self) -> usize {
        cores().min(4)
    }

    fn jobs(&self) -> usize {
        if self.options.jobs == 0 { cores() } else { self.options.jobs }
    }

    /// Scans files, several at a time. Stops taking new files once `stop` is set; files in work
    /// are then given up without a report.
    pub fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool) {
        let (client, inbox) = owner::queue();
        let jobs = self.jobs();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(paths.len()) {
                let client = client.clone();
                let next = &next;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        // A defect that one file brings out must not cost the others.
                        let work = || job::scan(self, &client, path, observer, stop);
                        let report = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                            let message = format!("{}: a defect in this program", path.display());
                            Some(Report::failed(
                                &path_text(path),
                                "internal_error",
                                message,
                                self.info.clone(),
                            ))
                        });
                        if let Some(report) = report {
                            observer.done(report);
                        }
                    }
                });
            }
            // The owner ends with the last clone of the client.
            drop(client);
            inbox.serve(&self.networks);
        });
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
