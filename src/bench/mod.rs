//! `veriscope bench`: judging any detector by its scores. Knows no network and no media.

pub mod dataset;
pub mod evaluate;
pub mod metrics;
pub mod output;
pub mod protocol;
