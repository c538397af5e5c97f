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
    #[serde(flatten)]
    pub seen: Seen,
}

/// Where in the pictures or in the sound something was seen or heard. Nothing for what stands in
/// the file's bytes. Its fields stand beside those of the label or the evidence itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Milliseconds of the presentation; absent where it is not a matter of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<i64>,
}

/// A part of a picture, in pixels of the upright picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub x: u32,
    pub y: u32,
    pub w: u32,
    pub h: u32,
}

impl Region {
    /// Where its middle lies in a picture of this size, in thirds: `lower right`, `centre`.
    pub fn words(&self, width: u32, height: u32) -> &'static str {
        let third = |at: u32, length: u32, all: u32| {
            let middle = 2 * u64::from(at) + u64::from(length);
            (3 * middle / (2 * u64::from(all.max(1)))).min(2)
        };
        match (third(self.y, self.h, height), third(self.x, self.w, width)) {
            (0, 0) => "upper left",
            (0, 1) => "upper centre",
            (0, _) => "upper right",
            (1, 0) => "left",
            (1, 1) => "centre",
            (1, _) => "right",
            (_, 0) => "lower left",
            (_, 1) => "lower centre",
            (_, _) => "lower right",
        }
    }
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
    #[serde(flatten)]
    pub seen: Seen,
}
