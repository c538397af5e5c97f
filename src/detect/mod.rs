//! The detectors, one file each. Two of them score windows with a network behind one trait; the
//! third, [`label_strip`], weighs evidence found in the file's bytes.

pub mod face_swap;
pub mod imported_face;
pub mod imported_voice;
pub mod label_strip;
pub mod marks;
pub mod voice_clone;

use crate::{
    models::weights::{WeightStore, WeightsError},
    verdict::calibration::Calibration,
};

/// Which networks a detector runs, where it has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The light network alone.
    Fast,
    /// A larger one beside it: better, several times slower. Its base does not ship,
    /// `scripts/setup` installs it.
    Accurate,
}

impl Tier {
    pub const ALL: [Self; 2] = [Self::Fast, Self::Accurate];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Accurate => "accurate",
        }
    }
}

/// The tier of each detector that has several networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    pub face_swap: Tier,
    pub voice_clone: Tier,
}

impl From<Tier> for Tiers {
    fn from(tier: Tier) -> Self {
        Self { face_swap: tier, voice_clone: tier }
    }
}

/// Windows in, one score a window out.
pub trait Detector: Send {
    /// One window, prepared by the room that cuts it.
    type Window;
    /// What is said of one; its logit is higher for fake.
    type Score;

    /// Name of its weights in the manifest.
    fn weights(&self) -> &'static str;

    fn calibration(&self) -> Calibration;

    /// Scores in the order of `windows`. A window's score does not depend on its company.
    fn score(&self, windows: &[Self::Window]) -> candle_core::Result<Vec<Self::Score>>;
}

/// The calibration that the manifest gives for `name`; a network without one cannot be a detector.
fn calibration(store: &WeightStore, name: &str) -> Result<Calibration, WeightsError> {
    let c = store.calibration(name)?;
    Ok(Calibration { a: c.a as f32, b: c.b as f32, threshold: c.threshold as f32 })
}
