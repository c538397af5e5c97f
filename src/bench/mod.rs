//! `veriscope bench`: judging any detector by its scores.

pub mod evaluate;
pub mod metrics;
