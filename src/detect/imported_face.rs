//! Published face-swap networks that judge instead of ours, from weights that `veriscope weights
//! import` made, and who judges faces: ours or one of those. Published ones are not calibrated: they
//! give scores, never probabilities.

use candle_core::{Device, Tensor};

use super::{
    Detector, Tier,
    face_swap::{FaceCrop, FaceScore, FaceSwap, Framing},
};
use crate::{
    models::{
        mesonet::{self, MesoNet},
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::Calibration,
};

/// No calibration: how a published network's scores go through the probabilities of a report and
/// back. So flat that the probabilities' digits suffice for scores of up to ±100.
const THROUGH_REPORTS: Calibration = Calibration { a: 0.125, b: 0.0, threshold: 0.5 };

/// A published network.
pub struct ImportedFace {
    name: String,
    network: MesoNet,
}

impl ImportedFace {
    /// Whether weights for `network` are an imported network's.
    pub fn knows(network: &str) -> bool {
        mesonet::shapes(network).is_some()
    }

    /// The entry `name` of the store, on the CPU.
    ///
    /// # Errors
    /// No such entry; weights that cannot be loaded; a network of which [`Self::knows`] is false.
    pub fn load(store: &WeightStore, name: &str) -> Result<Self, WeightsError> {
        let entry = store.entry(name)?;
        let network = MesoNet::new(&entry.network, &store.load(name, &Device::Cpu)?)?;
        Ok(Self { name: name.to_owned(), network })
    }

    /// The score is the authors' with its sign turned, minus the logit for a real face, so that
    /// higher means fake. No mask, and no distance.
    fn score(&self, crops: &[FaceCrop]) -> candle_core::Result<Vec<FaceScore>> {
        let mut values = Vec::with_capacity(crops.len() * mesonet::SIDE * mesonet::SIDE * 3);
        for crop in crops {
            let cut = crop.plain(mesonet::SIDE).unwrap_or_default();
            values.extend(cut.iter().map(|v| f32::from(*v) / 255.0));
        }
        let shape = (crops.len(), mesonet::SIDE, mesonet::SIDE, 3);
        let faces = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let score = |real: f32| FaceScore { logit: -real, cells: Vec::new(), distance: 0.0 };
        Ok(self.network.forward(&faces)?.into_iter().map(score).collect())
    }
}

/// Who judges faces.
pub enum FaceJudge {
    Ours(FaceSwap),
    Published(Box<ImportedFace>),
}

impl FaceJudge {
    /// `published`: the name of a published network's weights; `device` and `tier` are for ours.
    ///
    /// # Errors
    /// Weights that cannot be loaded.
    pub fn load(
        store: &WeightStore,
        device: &Device,
        tier: Tier,
        published: Option<&str>,
    ) -> Result<Self, WeightsError> {
        Ok(match published {
            Some(name) => Self::Published(Box::new(ImportedFace::load(store, name)?)),
            None => Self::Ours(FaceSwap::load(store, device, tier)?),
        })
    }

    /// Names of the weights in the manifest, bases aside.
    pub fn weights(&self) -> Vec<&str> {
        match self {
            Self::Ours(detector) => detector.all_weights().collect(),
            Self::Published(network) => vec![&network.name],
        }
    }

    /// A published network's is no calibration: its probabilities are nothing to show.
    pub fn calibration(&self) -> Calibration {
        match self {
            Self::Ours(detector) => detector.calibration(),
            Self::Published(_) => THROUGH_REPORTS,
        }
    }

    pub fn is_calibrated(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// Least time between two pictures of one face that are worth judging, in milliseconds.
    pub fn pace_ms(&self) -> i64 {
        match self {
            Self::Ours(detector) => detector.pace_ms(),
            Self::Published(_) => 0,
        }
    }

    /// How faces are to be cut for it.
    pub fn framing(&self) -> Framing {
        match self {
            Self::Ours(detector) => Framing::Ours { sides: detector.sides() },
            Self::Published(_) => Framing::MesoNet { side: mesonet::SIDE },
        }
    }

    /// Scores in the order of `crops`. A crop's score does not depend on its company.
    ///
    /// # Errors
    /// A network that fails; crops of another framing.
    pub fn score(&self, crops: &[FaceCrop]) -> candle_core::Result<Vec<FaceScore>> {
        match self {
            Self::Ours(detector) => detector.score(crops),
            Self::Published(network) => network.score(crops),
        }
    }
}
