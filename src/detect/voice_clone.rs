//! `voice-clone`: 4 s of speech, scored by a convolutional network over a spectrogram.

use candle_core::Device;

use super::{Detector, calibration};
use crate::{
    models::{
        voice_cnn::VoiceCnn,
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::Calibration,
};

pub const WEIGHTS: &str = "voice-clone-fast";

pub struct VoiceClone {
    network: VoiceCnn,
    calibration: Calibration,
}

impl VoiceClone {
    pub fn load(store: &WeightStore, device: &Device) -> Result<Self, WeightsError> {
        Ok(Self {
            network: VoiceCnn::new(&store.load(WEIGHTS, device)?)?,
            calibration: calibration(store, WEIGHTS)?,
        })
    }
}

impl Detector for VoiceClone {
    /// [`crate::speech::WINDOW`] samples at 16 kHz.
    type Window = Vec<f32>;
    type Score = f32;

    fn weights(&self) -> &'static str {
        WEIGHTS
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn score(&self, windows: &[Vec<f32>]) -> candle_core::Result<Vec<f32>> {
        let windows: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
        self.network.forward(&windows)
    }
}
