//! Explicit labels: text in pictures that says that AI made them.
//!
//! [`lines`] finds where lines of text may stand, [`tesseract`] reads them, [`rule`] says what they
//! mean. Which pictures are looked at is the engine's business.

pub mod grey;
pub mod lines;
pub mod rule;
pub mod tesseract;
