//! From raw scores to answers: calibration, windows → segments. Knows no network and no FFmpeg.

pub mod boundaries;
pub mod calibration;
pub mod disposition;
pub mod segments;
