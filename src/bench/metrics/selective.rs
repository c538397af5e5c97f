//! Risk and coverage of a detector that may abstain: the nearer a score lies to the threshold, the
//! sooner it abstains.

use serde::{Deserialize, Serialize};

use super::{Metric, Ranked, comparable};

/// Trials by falling distance between score and threshold.
#[derive(Debug, Clone)]
pub struct Selective {
    /// Positions in [`Ranked`].
    positions: Vec<u32>,
    /// Bit 0: called wrongly. Bit 1: the last trial at its distance.
    codes: Vec<u8>,
}

/// One point of the risk–coverage curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RiskAt {
    /// Share of trials that are answered.
    pub coverage: f64,
    /// Share of the answered that are wrong.
    pub risk: f64,
}

impl Selective {
    /// A trial is called fake where its score ≥ `threshold`.
    pub fn new(ranked: &Ranked, threshold: f64) -> Metric<Self> {
        comparable(ranked.fakes(), ranked.reals())?;
        let distance = |at: usize| (ranked.scores()[at] - threshold).abs();
        // From both ends inwards: distances on either side of the threshold are sorted already.
        let called = ranked.called_fake(threshold);
        let (mut low, mut high) = (0, ranked.len());
        let mut positions = Vec::with_capacity(ranked.len());
        let mut codes = Vec::with_capacity(ranked.len());
        while low < high {
            let take_low = low < called && (high == called || distance(low) >= distance(high - 1));
            let at = if take_low { low } else { high - 1 };
            if take_low {
                low += 1
            } else {
                high -= 1
            }
            let next = [low, high.saturating_sub(1)]
                .into_iter()
                .filter(|&at| at >= low && at < high)
                .map(distance)
                .fold(f64::NEG_INFINITY, f64::max);
            let wrong = (at < called) != ranked.is_fake(at);
            positions.push(u32::try_from(at).unwrap_or(u32::MAX));
            codes.push(u8::from(wrong) | u8::from(next != distance(at)) << 1);
        }
        Ok(Self { positions, codes })
    }

    /// Area under the risk–coverage curve (Geifman & El-Yaniv, NeurIPS 2017): the mean over trials,
    /// by falling distance, of the share of wrong calls among those answered so far; trials at one
    /// distance are answered together.
    pub fn aurc(&self, weights: Option<&[u16]>) -> Option<f64> {
        let (mut answered, mut wrong, mut area, mut here) = (0_u64, 0_u64, 0.0, 0_u64);
        for (&at, &code) in self.positions.iter().zip(&self.codes) {
            let weight = weights.map_or(1, |w| u64::from(w[at as usize]));
            here += weight;
            wrong += weight * u64::from(code & 1);
            if code & 2 != 0 {
                answered += here;
                area += (here * wrong) as f64 / answered.max(1) as f64;
                here = 0;
            }
        }
        (answered > 0).then(|| area / answered as f64)
    }

    /// The risk–coverage curve at `points` coverages evenly from 1 / `points` to 1, each taken where
    /// the trials at one distance end.
    pub fn curve(&self, points: usize) -> Vec<RiskAt> {
        let total = self.codes.len();
        let mut curve: Vec<RiskAt> = Vec::with_capacity(points);
        let mut wrong = 0_u64;
        let mut due = 1;
        for (i, &code) in self.codes.iter().enumerate() {
            wrong += u64::from(code & 1);
            let answered = i + 1;
            if code & 2 != 0 && answered * points >= due * total {
                let coverage = answered as f64 / total as f64;
                curve.push(RiskAt { coverage, risk: wrong as f64 / answered as f64 });
                due = answered * points / total + 1;
            }
        }
        curve
    }
}
