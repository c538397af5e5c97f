//! The schedule: decoders → batches across files → device → windows.

use std::path::PathBuf;

use crate::report::{DetectorKind, Report};

/// What a scan is asked to do.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    pub detectors: Vec<DetectorKind>,
    /// Pictures a second that are looked at.
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

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            detectors: DetectorKind::ALL.to_vec(),
            fps: 4.0,
            jobs: 0,
            device: DeviceChoice::Auto,
        }
    }
}

/// What the engine tells while it works. Calls come from the engine's threads.
pub trait Observer: Sync {
    /// A file is being worked on; `media_ms` of its `duration_ms` have been looked at.
    fn progress(&self, path: &std::path::Path, media_ms: i64, duration_ms: Option<i64>);
    /// A file is done, scanned or failed. The report's `status` says which.
    fn done(&self, report: Report);
}

/// Networks loaded on one device.
pub struct Engine {
    _private: (),
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error("{0}")]
    Weights(String),
    #[error("device {0} is not there: {1}")]
    Device(String, String),
}

impl Engine {
    /// Loads and verifies the weights that the detectors need.
    pub fn new(
        _options: ScanOptions,
        _weights: &crate::models::weights::WeightStore,
    ) -> Result<Self, EngineError> {
        Ok(Self { _private: () })
    }

    /// What identifies results of this engine: version, weights, device and options. Two engines
    /// with the same fingerprint give the same report for the same bytes.
    pub fn fingerprint(&self) -> String {
        String::new()
    }

    /// Scans files, several at a time. Stops taking new files once `stop` is set; files in work
    /// are then given up without a report.
    pub fn scan(
        &self,
        _paths: &[PathBuf],
        _observer: &dyn Observer,
        _stop: &std::sync::atomic::AtomicBool,
    ) {
    }
}
