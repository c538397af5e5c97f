//! `veriscope bench`: judging any detector by its scores, and the runs that make the scores.

pub mod dataset;
pub mod evaluate;
mod files;
pub mod hints;
pub mod metrics;
pub mod output;
pub mod protocol;
pub mod report;
pub mod run;
