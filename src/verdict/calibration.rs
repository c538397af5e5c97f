//! Raw scores to probabilities by Platt scaling (Platt, "Probabilistic Outputs for Support Vector
//! Machines", 1999): probability = sigmoid(a * score + b), fitted on media that the network did
//! not train on, at equal prior odds of real and fake.

/// From the weights' manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub a: f32,
    pub b: f32,
    /// Probability at and above which a window counts as fake: 5 % of real validation windows lie
    /// above it.
    pub threshold: f32,
}

impl Calibration {
    /// Log-odds of being fake.
    pub fn logit(&self, score: f32) -> f32 {
        self.a * score + self.b
    }

    pub fn probability(&self, score: f32) -> f32 {
        sigmoid(self.logit(score))
    }
}

pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Inverse of [`sigmoid`]; probabilities are kept within 1e-6 of the ends.
pub fn logit(probability: f32) -> f32 {
    let p = probability.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_inverts_sigmoid() {
        for p in [0.001, 0.2, 0.5, 0.97] {
            assert!((sigmoid(logit(p)) - p).abs() < 1e-5);
        }
    }

    #[test]
    fn the_fitted_line_is_applied() {
        let c = Calibration { a: 2.0, b: -1.0, threshold: 0.5 };
        assert!((c.probability(0.5) - 0.5).abs() < 1e-6);
        assert!(c.probability(3.0) > 0.99);
    }
}
