//! Veriscope says, for every stretch of time in a video, a sound or a picture, how likely it is
//! that a face was swapped, a voice was cloned, or a label saying "made by AI" was taken off.
//!
//! [`Engine`](engine::Engine) is the way in: give it paths and [`ScanOptions`](engine::ScanOptions),
//! get one [`Report`](report::Report) a file. `ARCHITECTURE.md` says which room does what.

pub mod bench;
pub mod child;
pub mod detect;
pub mod device;
pub mod digest;
pub mod engine;
pub mod explicit;
pub mod face;
pub mod media;
pub mod models;
pub mod nn;
pub mod provenance;
pub mod report;
pub mod serve;
pub mod speech;
pub mod verdict;

pub mod cli;
