//! `face-swap`: one aligned crop of one followed face, scored by a network of the chosen tier.

use candle_core::{Device, Tensor};

use super::{Detector, Tier, calibration};
use crate::{
    models::{
        FaceOutput,
        dinov2::{self, Dinov2},
        efficientnet_lite::{self, EfficientNetLite},
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::Calibration,
};

/// Name of a tier's weights in the manifest.
pub fn weights(tier: Tier) -> &'static str {
    match tier {
        Tier::Fast => "face-swap-fast",
        Tier::Accurate => "face-swap-accurate",
    }
}

enum Network {
    Fast(Box<EfficientNetLite>),
    Accurate(Box<Dinov2>),
}

impl Network {
    fn load(store: &WeightStore, device: &Device, tier: Tier) -> Result<Self, WeightsError> {
        let name = weights(tier);
        Ok(match tier {
            Tier::Fast => Self::Fast(Box::new(EfficientNetLite::new(&store.load(name, device)?)?)),
            Tier::Accurate => {
                let base = store.load_base(name, device)?;
                Self::Accurate(Box::new(Dinov2::new(&base, &store.load(name, device)?)?))
            }
        })
    }

    /// Side of its input, and what is subtracted from R, G and B in 0..1 before they are divided.
    fn input(&self) -> (usize, [f32; 3], [f32; 3]) {
        match self {
            Self::Fast(_) => {
                (efficientnet_lite::SIZE, efficientnet_lite::MEAN, efficientnet_lite::STD)
            }
            Self::Accurate(_) => (dinov2::SIZE, dinov2::MEAN, dinov2::STD),
        }
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<FaceOutput> {
        match self {
            Self::Fast(network) => {
                Ok(FaceOutput { logits: network.forward(x)?, ..FaceOutput::default() })
            }
            Self::Accurate(network) => network.forward(x),
        }
    }
}

pub struct FaceSwap {
    tier: Tier,
    network: Network,
    calibration: Calibration,
    device: Device,
}

impl FaceSwap {
    pub fn load(store: &WeightStore, device: &Device, tier: Tier) -> Result<Self, WeightsError> {
        Ok(Self {
            tier,
            network: Network::load(store, device, tier)?,
            calibration: calibration(store, weights(tier))?,
            device: device.clone(),
        })
    }

    /// Height and width of the crops that it takes.
    pub fn side(&self) -> usize {
        self.network.input().0
    }
}

impl Detector for FaceSwap {
    /// `side * side * 3` bytes of RGB from [`crate::face::crop`].
    type Window = Vec<u8>;

    fn weights(&self) -> &'static str {
        weights(self.tier)
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn score(&self, windows: &[Vec<u8>]) -> candle_core::Result<Vec<f32>> {
        let (side, mean, std) = self.network.input();
        let scale: [f32; 3] = std::array::from_fn(|c| 1.0 / (255.0 * std[c]));
        let shift: [f32; 3] = std::array::from_fn(|c| -mean[c] / std[c]);
        let mut values = Vec::with_capacity(windows.len() * side * side * 3);
        for crop in windows {
            for p in crop.chunks_exact(3) {
                values.extend((0..3).map(|c| f32::from(p[c]) * scale[c] + shift[c]));
            }
        }
        let input = Tensor::from_vec(values, (windows.len(), side, side, 3), &self.device)?;
        Ok(self.network.forward(&input)?.logits)
    }
}
