//! speech

pub mod features;
