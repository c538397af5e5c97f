//! `face-swap`: one aligned crop of one followed face, scored by a light convolutional network.

use candle_core::{Device, Tensor};

use super::{Detector, calibration};
use crate::{
    face::crop::SIDE,
    models::{
        domain::Domain,
        efficientnet_lite::{EfficientNetLite, MEAN, STD},
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::{Calibration, sigmoid},
};

pub const WEIGHTS: &str = "face-swap-fast";

/// What the network says of one crop.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceScore {
    /// The network's raw output; higher = fake.
    pub logit: f32,
    /// How likely each cell of the crop was altered: probability times 255, `side * side` of them,
    /// row by row.
    pub cells: Vec<u8>,
    /// How far the crop lies from what the network was trained on, in units of the distance that 1
    /// of 100 real faces exceed: above 1 it is out of the network's domain.
    pub distance: f32,
}

pub struct FaceSwap {
    network: EfficientNetLite,
    domain: Domain,
    calibration: Calibration,
    device: Device,
}

impl FaceSwap {
    pub fn load(store: &WeightStore, device: &Device) -> Result<Self, WeightsError> {
        let tensors = store.load(WEIGHTS, device)?;
        Ok(Self {
            network: EfficientNetLite::new(&tensors)?,
            domain: Domain::new(&tensors, store.domain(WEIGHTS)?.threshold as f32)?,
            calibration: calibration(store, WEIGHTS)?,
            device: device.clone(),
        })
    }
}

impl Detector for FaceSwap {
    /// `SIDE * SIDE * 3` bytes of RGB from [`crate::face::crop`].
    type Window = Vec<u8>;
    type Score = FaceScore;

    fn weights(&self) -> &'static str {
        WEIGHTS
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn score(&self, windows: &[Vec<u8>]) -> candle_core::Result<Vec<FaceScore>> {
        let scale: [f32; 3] = std::array::from_fn(|c| 1.0 / (255.0 * STD[c]));
        let shift: [f32; 3] = std::array::from_fn(|c| -MEAN[c] / STD[c]);
        let mut values = Vec::with_capacity(windows.len() * SIDE * SIDE * 3);
        for crop in windows {
            for p in crop.chunks_exact(3) {
                values.extend((0..3).map(|c| f32::from(p[c]) * scale[c] + shift[c]));
            }
        }
        let input = Tensor::from_vec(values, (windows.len(), SIDE, SIDE, 3), &self.device)?;
        let output = self.network.forward(&input)?;
        let crops = output.logits.into_iter().zip(output.cells).zip(&output.features);
        Ok(crops
            .map(|((logit, cells), features)| FaceScore {
                logit,
                cells: cells.into_iter().map(|c| (sigmoid(c) * 255.0).round() as u8).collect(),
                distance: self.domain.distance(features),
            })
            .collect())
    }
}
