//! How far a network's features, brought to length 1, lie from those of its training: the signal
//! that its answer is a guess.
//!
//! Mahalanobis distance under a Gaussian whose covariance is that of the first principal components
//! of the training features and the same in all other directions (Tipping, Bishop: "Probabilistic
//! Principal Component Analysis", 1999; for this purpose Lee et al.: "A Simple Unified Framework
//! for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018). Fitted by
//! `scripts/train/face_swap/heads.py`.

use super::{
    Shapes,
    weights::{Tensors, WeightsError},
};

/// Principal components.
pub const COMPONENTS: usize = 64;

/// The Gaussian around the training features, and from where on something is outside.
pub struct Domain {
    mean: Vec<f32>,
    /// The components, one after the other, each of length 1.
    basis: Vec<f32>,
    /// One over each component's standard deviation.
    scale: Vec<f32>,
    /// One over the standard deviation in every other direction.
    rest: f32,
    threshold: f32,
}

/// The tensors that a weights file holds for a network with features of that width.
pub fn shapes(width: usize) -> Shapes {
    vec![
        ("domain.mean".to_owned(), vec![width]),
        ("domain.basis".to_owned(), vec![COMPONENTS, width]),
        ("domain.scale".to_owned(), vec![COMPONENTS]),
        ("domain.rest".to_owned(), vec![1]),
    ]
}

impl Domain {
    /// `threshold`: the distance that counts as 1.
    ///
    /// # Errors
    /// A tensor that is missing; a threshold that is not positive.
    pub fn new(tensors: &Tensors, threshold: f32) -> Result<Self, WeightsError> {
        let values = |name: &str| {
            let tensor = tensors.get(name)?;
            tensor
                .flatten_all()
                .and_then(|t| t.to_vec1::<f32>())
                .map_err(|e| tensors.unfit(name, &e))
        };
        let rest = values("domain.rest")?.first().copied().unwrap_or_default();
        if !(threshold > 0.0 && threshold.is_finite()) {
            let cause = format!("the manifest's threshold is {threshold}, not above 0");
            return Err(tensors.unfit("domain.mean", &cause));
        }
        Ok(Self {
            mean: values("domain.mean")?,
            basis: values("domain.basis")?,
            scale: values("domain.scale")?,
            rest,
            threshold,
        })
    }

    /// In units of the threshold: above 1 is out of the domain.
    pub fn distance(&self, features: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let length = dot(features, features).sqrt().max(f32::MIN_POSITIVE);
        let off: Vec<f32> = features.iter().zip(&self.mean).map(|(f, m)| f / length - m).collect();
        let (mut along, mut inside) = (0.0, 0.0);
        for (component, scale) in self.basis.chunks_exact(self.mean.len().max(1)).zip(&self.scale) {
            let z = dot(component, &off);
            along += (z * scale).powi(2);
            inside += z * z;
        }
        let outside = (dot(&off, &off) - inside).max(0.0) * self.rest.powi(2);
        (along + outside).sqrt() / self.threshold
    }
}
