//! What the fuzz targets share: the readers, compiled from the engine's sources without the engine
//! (no networks, no FFmpeg, no C2PA verifier), a measure of the memory that they take, and what must
//! hold of whatever they find.

// The engine uses what the targets do not.
#![allow(dead_code, unused_imports)]

#[path = "../../src/provenance/mod.rs"]
pub mod provenance;

#[path = "../../src/report/label.rs"]
mod label;

#[path = "../../src/child.rs"]
pub mod child;

/// The part of the report that readers know.
pub mod report {
    pub use crate::label::*;
}

mod holes;
mod memory;

pub use holes::Holes;
use libfuzzer_sys::Corpus;
use provenance::{Findings, inspect_bytes};
use report::{Label, LabelVerdict};

pub use memory::bounded;

/// Runs the readers over `data` and keeps it only where it is still one of `containers`, so that a
/// target stays with its family.
pub fn inspect(data: &[u8], containers: &[&str]) -> Corpus {
    let found = bounded(|| inspect_bytes(data)).expect("bytes in memory do not fail");
    check(&found);
    match found.container {
        Some(name) if containers.contains(&name) => Corpus::Keep,
        _ => Corpus::Reject,
    }
}

/// What holds of every file's findings, however hostile the file.
pub fn check(found: &Findings) {
    // One more says that no AIGC label was found.
    assert!(found.labels.len() <= 257, "{} labels", found.labels.len());
    assert!(found.strip_evidence.len() <= 256 + found.labels.len());
    assert!(found.unread.len() <= 16);
    let aigc: Vec<&Label> =
        found.labels.iter().filter(|l| l.system == "aigc" && l.place != "file").collect();
    for label in &found.labels {
        assert!(label.content.len() <= 4 << 10, "{} bytes of content", label.content.len());
        assert!(!label.place.is_empty() && label.place.len() <= 4 << 10, "{}", label.place);
        assert!(label.deviations.len() <= 64, "{:?}", label.deviations);
    }
    for label in &aigc {
        let departs = label.deviations.iter().any(|d| d != "xmp_attribute_form");
        assert_eq!(label.verdict == LabelVerdict::Compliant, !departs, "{label:?}");
        assert_eq!(label.deviations.iter().any(|d| d == "duplicate_label"), aigc.len() > 1);
    }
    for piece in &found.strip_evidence {
        assert!(piece.weight.is_finite() && piece.weight > 0.0);
        assert!(piece.detail.len() <= 8 << 10 && piece.place.len() <= 4 << 10);
    }
}
