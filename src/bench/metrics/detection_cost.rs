//! Costs of decisions: minDCF and actDCF with ASVspoof 5's prior and costs, Cllr and min Cllr.
//!
//! Log-likelihood ratios here are natural logarithms of p(score | fake) / p(score | real). ASVspoof
//! writes them the other way round (bona fide over spoof); the costs are the same.

use std::f64::consts::LN_2;

use super::{Absent, AbsentCode, Metric, Sweep, comparable};

/// Prior and costs of a detection cost function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostModel {
    /// Prior probability of a fake.
    pub p_fake: f64,
    /// Cost of rejecting a real.
    pub c_miss: f64,
    /// Cost of accepting a fake.
    pub c_fa: f64,
}

/// ASVspoof 5, track 1 (evaluation plan, section 5.1): π_spf = 0.05, C_miss = 1, C_fa = 10.
pub const ASVSPOOF5: CostModel = CostModel { p_fake: 0.05, c_miss: 1.0, c_fa: 10.0 };

impl CostModel {
    fn real(&self) -> f64 {
        self.c_miss * (1.0 - self.p_fake)
    }

    fn fake(&self) -> f64 {
        self.c_fa * self.p_fake
    }

    /// Normalised by the better of accepting everything and rejecting everything.
    fn cost(&self, real_rejected: f64, fake_accepted: f64) -> f64 {
        (self.real() * real_rejected + self.fake() * fake_accepted) / self.real().min(self.fake())
    }

    /// The log-likelihood ratio (fake over real) from which on rejecting costs less.
    pub fn bayes_threshold(&self) -> f64 {
        (self.real() / self.fake()).ln()
    }
}

/// The smallest of a cost that is linear in both error rates, `real × reals rejected + fake × fakes
/// accepted`, over all thresholds: its minimum lies in a corner of the hull.
pub(crate) fn smallest(sweep: &Sweep, real: f64, fake: f64) -> f64 {
    let (fakes, reals) = (sweep.fakes as f64, sweep.reals as f64);
    sweep.hull.iter().fold(f64::INFINITY, |least, &(fp, tp)| {
        let cost = real * (fp as f64 / reals) + fake * ((sweep.fakes - tp) as f64 / fakes);
        least.min(cost)
    })
}

/// Minimum of the normalised detection cost over all thresholds.
pub fn min_dcf(sweep: &Sweep, model: CostModel) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    Ok(smallest(sweep, model.real(), model.fake()) / model.real().min(model.fake()))
}

/// Normalised detection cost at the Bayes threshold: `calls` are those of scores, as log-likelihood
/// ratios of fake over real, that lie **above** [`CostModel::bayes_threshold`].
pub fn act_dcf(sweep: &Sweep, calls: super::Calls, model: CostModel) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let rejected = calls.false_positives as f64 / sweep.reals as f64;
    let accepted = (sweep.fakes - calls.true_positives) as f64 / sweep.fakes as f64;
    Ok(model.cost(rejected, accepted))
}

/// log₂(1 + eˣ), without overflow: the cost in bits of a log-likelihood ratio that speaks by x for
/// the wrong side.
pub fn bits(x: f64) -> f64 {
    (x.max(0.0) + (-x.abs()).exp().ln_1p()) / LN_2
}

/// Cllr in bits: ½ (mean over fakes of log₂(1 + e^−llr) + mean over reals of log₂(1 + e^llr)), from
/// the two sums (Brümmer & du Preez 2006).
pub fn cllr(sweep: &Sweep, fake_bits: f64, real_bits: f64) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let cost = f64::midpoint(fake_bits / sweep.fakes as f64, real_bits / sweep.reals as f64);
    if !cost.is_finite() {
        let why = "a trial was judged with certainty, and wrongly";
        return Err(Absent::new(AbsentCode::Infinite, why));
    }
    Ok(cost)
}

/// Cllr after the best monotone calibration (pool adjacent violators; its pools are the segments of
/// the ROC's hull, each with the log-likelihood ratio that is the logarithm of its slope).
pub fn min_cllr(sweep: &Sweep) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let (fakes, reals) = (sweep.fakes as f64, sweep.reals as f64);
    let mut cost = 0.0;
    for pair in sweep.hull.windows(2) {
        let real = (pair[1].0 - pair[0].0) as f64 / reals;
        let fake = (pair[1].1 - pair[0].1) as f64 / fakes;
        // A pool of one class costs nothing.
        if real > 0.0 && fake > 0.0 {
            cost += fake * (1.0 + real / fake).log2() + real * (1.0 + fake / real).log2();
        }
    }
    Ok(cost / 2.0)
}
