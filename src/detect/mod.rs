//! The detectors, one file each.

pub mod label_strip;
