//! Speech: voice activity → windows → speakers. Sound comes in as 16 kHz mono from [`crate::media`].

pub mod activity;
pub mod features;
pub mod log_mel;
pub mod mel;
pub mod mel_bank;
pub mod quality;
pub mod speakers;
pub mod windows;

/// Samples a second everywhere behind `media`.
pub const RATE: usize = 16_000;
/// Samples in the window that the voice network scores: 4 s.
pub const WINDOW: usize = 4 * RATE;

/// The part of it that tells whose speech it is: its middle, 2 s, as windows follow each other
/// once a second.
pub const SPEAKER: std::ops::Range<usize> = RATE..3 * RATE;

/// A position in 16 kHz samples as milliseconds.
pub fn to_ms(samples: i64) -> i64 {
    samples / (RATE as i64 / 1_000)
}
