//! `face-swap`: one aligned crop of one followed face, scored by a light convolutional network.

use candle_core::{Device, Tensor};

use super::{Detector, calibration};
use crate::{
    face::crop::SIDE,
    models::{
        efficientnet_lite::{EfficientNetLite, MEAN, STD},
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::Calibration,
};

pub const WEIGHTS: &str = "face-swap-fast";

pub struct FaceSwap {
    network: EfficientNetLite,
    calibration: Calibration,
    device: Device,
}

impl FaceSwap {
    pub fn load(store: &WeightStore, device: &Device) -> Result<Self, WeightsError> {
        Ok(Self {
            network: EfficientNetLite::new(&store.load(WEIGHTS, device)?)?,
            calibration: calibration(store, WEIGHTS)?,
            device: device.clone(),
        })
    }
}

impl Detector for FaceSwap {
    /// `SIDE * SIDE * 3` bytes of RGB from [`crate::face::crop`].
    type Window = Vec<u8>;

    fn weights(&self) -> &'static str {
        WEIGHTS
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn score(&self, windows: &[Vec<u8>]) -> candle_core::Result<Vec<f32>> {
        let scale: [f32; 3] = std::array::from_fn(|c| 1.0 / (255.0 * STD[c]));
        let shift: [f32; 3] = std::array::from_fn(|c| -MEAN[c] / STD[c]);
        let mut values = Vec::with_capacity(windows.len() * SIDE * SIDE * 3);
        for crop in windows {
            for p in crop.chunks_exact(3) {
                values.extend((0..3).map(|c| f32::from(p[c]) * scale[c] + shift[c]));
            }
        }
        let input = Tensor::from_vec(values, (windows.len(), SIDE, SIDE, 3), &self.device)?;
        self.network.forward(&input)
    }
}
