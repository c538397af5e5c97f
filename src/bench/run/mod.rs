//! `veriscope bench run`: data sets × detectors × degradations.

pub mod results;
pub mod thumbnail;
