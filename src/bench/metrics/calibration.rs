//! How far probabilities are from the truth: Brier score, expected calibration error, reliability.

use serde::{Deserialize, Serialize};

use super::bootstrap::dot;
use super::{Absent, AbsentCode, FAKE, Metric, Ranked, comparable};

/// Bins of equal width, as in Guo et al. (ICML 2017).
pub const BINS: usize = 15;

/// Probabilities of being fake, laid out for the sums that calibration needs.
#[derive(Debug, Clone)]
pub struct Probabilities {
    /// By position in [`Ranked`].
    p: Vec<f64>,
    /// (p − truth)².
    squares: Vec<f64>,
    /// Where the bins begin, from the one with the highest probabilities on; bin b has the positions
    /// `starts[b]..starts[b + 1]`.
    starts: [usize; BINS + 1],
}

/// One bin of the reliability curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Probabilities above this, up to `to`; the lowest bin has 0 too.
    pub from: f64,
    pub to: f64,
    pub files: u64,
    /// Mean probability of being fake.
    pub mean_probability: f64,
    /// Share that is fake.
    pub fake: f64,
}

/// What weighing the trials comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub brier: f64,
    pub ece: f64,
}

impl Probabilities {
    /// Takes the scores as probabilities; absent where one is not in 0..=1.
    pub fn new(ranked: &Ranked) -> Metric<Self> {
        comparable(ranked.fakes(), ranked.reals())?;
        if let Some(p) = ranked.scores().iter().find(|p| !(0.0..=1.0).contains(*p)) {
            let why = format!("{p} is no probability");
            return Err(Absent::new(AbsentCode::NotProbabilities, why));
        }
        let p = ranked.scores().to_vec();
        let squares = p
            .iter()
            .enumerate()
            .map(|(at, p)| (p - f64::from(u8::from(ranked.is_fake(at)))).powi(2))
            .collect();
        let mut starts = [0; BINS + 1];
        for (bin, start) in starts.iter_mut().enumerate().skip(1) {
            // Bins are open below; the last takes what is left, 0 included.
            let low = (BINS - bin) as f64 / BINS as f64;
            *start = if bin == BINS { p.len() } else { p.partition_point(|&p| p > low) };
        }
        Ok(Self { p, squares, starts })
    }

    /// Brier score (mean squared difference between probability and truth) and expected calibration
    /// error (mean over trials of |mean probability − share of fakes| of their bin).
    pub fn measure(&self, ranked: &Ranked, weights: Option<&[u16]>) -> Option<Calibration> {
        let mut total = 0_u64;
        let mut off = 0.0;
        for bin in self.bins(ranked, weights) {
            total += bin.0;
            off += (bin.1 - bin.2 as f64).abs();
        }
        let total = (total > 0).then_some(total as f64)?;
        Some(Calibration { brier: dot(weights, &self.squares) / total, ece: off / total })
    }

    /// The reliability curve: bins that have trials, by rising probability.
    pub fn reliability(&self, ranked: &Ranked) -> Vec<Bin> {
        let mut bins: Vec<Bin> = self
            .bins(ranked, None)
            .enumerate()
            .filter(|(_, (files, ..))| *files > 0)
            .map(|(bin, (files, sum, fakes))| Bin {
                from: (BINS - 1 - bin) as f64 / BINS as f64,
                to: (BINS - bin) as f64 / BINS as f64,
                files,
                mean_probability: sum / files as f64,
                fake: fakes as f64 / files as f64,
            })
            .collect();
        bins.reverse();
        bins
    }

    /// Per bin: trials, sum of probabilities, fakes.
    fn bins<'a>(
        &'a self,
        ranked: &'a Ranked,
        weights: Option<&'a [u16]>,
    ) -> impl Iterator<Item = (u64, f64, u64)> + 'a {
        self.starts.windows(2).map(move |range| {
            let (from, to) = (range[0], range[1]);
            let codes = &ranked.codes[from..to];
            let weights = weights.map(|w| &w[from..to]);
            let (mut all, mut fakes) = (0_u64, 0_u64);
            match weights {
                None => {
                    all = codes.len() as u64;
                    fakes = codes.iter().filter(|&&c| c & FAKE != 0).count() as u64;
                }
                Some(weights) => {
                    for (&w, &c) in weights.iter().zip(codes) {
                        all += u64::from(w);
                        fakes += u64::from(w) * u64::from(c & FAKE);
                    }
                }
            }
            (all, dot(weights, &self.p[from..to]), fakes)
        })
    }
}
