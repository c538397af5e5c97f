//! `voice-clone`: 4 s of speech, scored by the networks of the chosen tier: a convolutional network
//! over a spectrogram, and beside it the tuned encoder of a speech recogniser.

use candle_core::Device;

use super::{Detector, Tier, calibration};
use crate::{
    models::{
        voice_cnn::VoiceCnn,
        weights::{WeightStore, WeightsError},
        whisper_encoder::WhisperEncoder,
    },
    verdict::calibration::Calibration,
};

const FAST: &str = "voice-clone-fast";
const ACCURATE: &str = "voice-clone-accurate";

/// Whether the manifest has a network for the accurate tier, installed or not. Without one both
/// tiers run the light network: that is no error.
pub fn has_accurate(store: &WeightStore) -> bool {
    store.entry(ACCURATE).is_ok()
}

/// Name of the weights in the manifest that a tier runs and is calibrated by.
pub fn weights(store: &WeightStore, tier: Tier) -> &'static str {
    match tier {
        Tier::Accurate if has_accurate(store) => ACCURATE,
        _ => FAST,
    }
}

/// Names of all weights that run with those of that name, bases aside, and how much each one's answer
/// counts. The accurate network is heard beside the light one: its 80 mel bands leave out fine
/// structure that the other sees, which costs little beside it.
fn networks(weights: &str) -> &'static [(&'static str, f32)] {
    match weights {
        ACCURATE => &[(ACCURATE, 1.0), (FAST, 1.0)],
        _ => &[(FAST, 1.0)],
    }
}

enum Network {
    Fast(Box<VoiceCnn>),
    Accurate(Box<WhisperEncoder>),
}

impl Network {
    fn load(store: &WeightStore, device: &Device, name: &str) -> Result<Self, WeightsError> {
        let tensors = store.load(name, device)?;
        if name == ACCURATE {
            let base = store.load_base(name, device)?;
            return Ok(Self::Accurate(Box::new(WhisperEncoder::new(&base, &tensors)?)));
        }
        Ok(Self::Fast(Box::new(VoiceCnn::new(&tensors)?)))
    }

    fn score(&self, windows: &[&[f32]]) -> candle_core::Result<Vec<VoiceScore>> {
        let (logits, moments) = match self {
            Self::Fast(network) => (network.forward(windows)?, vec![Vec::new(); windows.len()]),
            Self::Accurate(network) => {
                let found = network.forward(windows)?;
                (found.logits, found.tokens)
            }
        };
        let all = logits.into_iter().zip(moments);
        Ok(all.map(|(logit, moments)| VoiceScore { logit, moments }).collect())
    }
}

pub struct VoiceClone {
    weights: &'static str,
    /// In the order of `networks`.
    networks: Vec<Network>,
    calibration: Calibration,
}

impl VoiceClone {
    pub fn load(store: &WeightStore, device: &Device, tier: Tier) -> Result<Self, WeightsError> {
        let weights = weights(store, tier);
        if tier == Tier::Accurate && weights == FAST {
            tracing::info!("voice-clone has no accurate network: {FAST} runs in every tier");
        }
        let all = networks(weights).iter().map(|(name, _)| Network::load(store, device, name));
        Ok(Self {
            weights,
            networks: all.collect::<Result<_, _>>()?,
            calibration: calibration(store, weights)?,
        })
    }

    /// Names of its weights in the manifest, bases aside.
    pub fn all_weights(&self) -> impl Iterator<Item = &'static str> + use<> {
        networks(self.weights).iter().map(|(name, _)| *name)
    }
}

/// What is said of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceScore {
    /// Higher for fake.
    pub logit: f32,
    /// The same of each 20 ms ([`crate::models::whisper_encoder::TOKENS`] of them); empty where no network says.
    /// Only differences within a recording mean something: these logits are not calibrated.
    pub moments: Vec<f32>,
}

impl Detector for VoiceClone {
    /// [`crate::speech::WINDOW`] samples at 16 kHz.
    type Window = Vec<f32>;
    type Score = VoiceScore;

    fn weights(&self) -> &'static str {
        self.weights
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// The weighted mean of the networks' logits.
    fn score(&self, windows: &[Vec<f32>]) -> candle_core::Result<Vec<VoiceScore>> {
        let windows: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
        let shares = || networks(self.weights).iter().map(|(_, share)| *share);
        let total: f32 = shares().sum();
        let mut scores = vec![VoiceScore { logit: 0.0, moments: Vec::new() }; windows.len()];
        for (network, share) in self.networks.iter().zip(shares()) {
            for (score, found) in scores.iter_mut().zip(network.score(&windows)?) {
                score.logit += found.logit * (share / total);
                if !found.moments.is_empty() {
                    score.moments = found.moments;
                }
            }
        }
        Ok(scores)
    }
}
