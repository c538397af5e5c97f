//! What a file says of its origin, and what is left of what it said. Apart from the rest of the
//! report, so that the readers can be built for fuzzing without the engine.

use serde::{Deserialize, Serialize};

/// A statement about origin that the file carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// `aigc`, `c2pa`, `iptc`, `generator-trace`, `encoder`, …
    pub system: String,
    /// Where in the file: `moov.udta.meta.ilst[AIGC]`, `tEXt:AIGC`, with a byte offset.
    pub place: String,
    /// What it says, cut at 4 KiB.
    pub content: String,
    pub verdict: LabelVerdict,
    /// Each way in which it departs from the rule, coded.
    pub deviations: Vec<String>,
    /// Whether it says that AI made or changed the content; none where it says nothing of it.
    pub ai: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelVerdict {
    Compliant,
    Noncompliant,
    NotFound,
    Inconclusive,
}

/// What shows that a label was there and is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Stable code, such as `label_bytes_in_free_box`.
    pub kind: String,
    pub place: String,
    /// Log-odds that this evidence adds to "a label was taken off".
    pub weight: f32,
    pub detail: String,
}
