//! What `inspect` says of one file: the part of a [`Report`](super::Report) that needs no network
//! and no decoder.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{
    Disposition, DispositionState, Evidence, Failure, Label, Reason, SCHEMA_VERSION,
    SegmentVerdict, Status,
};

/// A file's labels and what is left of labels. Fields that a [`Report`](super::Report) has, too,
/// have its types and meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// That of the report.
    pub schema_version: u32,
    /// `partial`: a part of the file's structure could not be read; `reasons` say which.
    pub status: Status,
    pub error: Option<Failure>,
    pub path: String,
    pub bytes: Option<u64>,
    /// The container whose labels were read.
    pub container: Option<String>,
    pub labels: Vec<Label>,
    pub strip_evidence: Vec<Evidence>,
    /// Whether a label was taken off, judged by the evidence; none where nothing could be read.
    pub label_strip: Option<LabelStrip>,
    pub disposition: Disposition,
    /// What was not read, or not verified.
    pub reasons: Vec<Reason>,
}

/// The verdict of the detector label-strip on a whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelStrip {
    /// That a label was taken off, 0 to 1; none where the container is not read.
    pub probability: Option<f32>,
    /// Half width of the 90 % interval, 0 to 0.5.
    pub uncertainty: Option<f32>,
    /// `fake`: a label was taken off.
    pub verdict: SegmentVerdict,
}

impl Inspection {
    /// Of a file of which nothing could be read. `message` is one line that begins with the path.
    pub fn failed(path: String, code: &str, message: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            status: Status::Failed,
            error: Some(Failure { code: code.into(), message, time_ms: None }),
            path,
            bytes: None,
            container: None,
            labels: Vec::new(),
            strip_evidence: Vec::new(),
            label_strip: None,
            disposition: Disposition {
                state: DispositionState::Undetermined,
                evidence: Vec::new(),
            },
            reasons: Vec::new(),
        }
    }
}

/// Where inspections go, one after the other.
pub trait InspectionSink {
    /// Writes one and flushes it.
    fn inspection(&mut self, inspection: &Inspection) -> io::Result<()>;
}

impl<W: Write> InspectionSink for super::jsonl::JsonLines<W> {
    fn inspection(&mut self, inspection: &Inspection) -> io::Result<()> {
        self.line(inspection)
    }
}
