//! Published voice-clone networks that run beside ours, from weights that `veriscope weights
//! import` made. They are not calibrated: they give scores, never probabilities.

use candle_core::Device;

use crate::models::{
    aasist::{self, Aasist},
    rawgat_st::{self, RawGatSt},
    weights::{WeightStore, WeightsError},
};

/// A published network.
pub struct ImportedVoice {
    network: Network,
}

enum Network {
    Aasist(Box<Aasist>),
    RawGatSt(Box<RawGatSt>),
}

impl ImportedVoice {
    /// Whether weights for `network` are an imported network's.
    pub fn knows(network: &str) -> bool {
        network == rawgat_st::NETWORK || aasist::shapes(network).is_some()
    }

    /// The entry `name` of the store, on the CPU.
    ///
    /// # Errors
    /// No such entry; weights that cannot be loaded; a network of which [`Self::knows`] is false.
    pub fn load(store: &WeightStore, name: &str) -> Result<Self, WeightsError> {
        let entry = store.entry(name)?;
        let tensors = store.load(name, &Device::Cpu)?;
        let network = match entry.network.as_str() {
            rawgat_st::NETWORK => Network::RawGatSt(Box::new(RawGatSt::new(&tensors)?)),
            other => Network::Aasist(Box::new(Aasist::new(other, &tensors)?)),
        };
        Ok(Self { network })
    }

    /// Samples at 16 kHz that it looks at.
    pub fn samples(&self) -> usize {
        aasist::SAMPLES
    }

    /// One score a recording: of its first [`Self::samples`] samples, or of all of them repeated up
    /// to that, as the authors' evaluation has it. The score is theirs with its sign turned, minus
    /// the logit for bona fide, so that higher means fake. `None`: no sample.
    pub fn score(&self, recordings: Vec<Vec<f32>>) -> candle_core::Result<Vec<Option<f32>>> {
        let fitted: Vec<Option<Vec<f32>>> = recordings.into_iter().map(aasist::fitted).collect();
        let windows: Vec<&[f32]> = fitted.iter().flatten().map(Vec::as_slice).collect();
        let logits = match &self.network {
            Network::Aasist(network) => network.forward(&windows)?,
            Network::RawGatSt(network) => network.forward(&windows)?,
        };
        let mut logits = logits.into_iter();
        let next = |wave: &Option<Vec<f32>>| {
            wave.as_ref().and_then(|_| logits.next()).map(|[_, bona_fide]| -bona_fide)
        };
        Ok(fitted.iter().map(next).collect())
    }
}
