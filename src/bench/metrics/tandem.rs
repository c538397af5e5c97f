//! Countermeasures beside a speaker verifier: min t-DCF (ASVspoof 2019's and the revised one) and
//! min a-DCF.

use serde::Serialize;

use super::detection_cost::smallest;
use super::{Absent, AbsentCode, Metric, Ranked, Sweep, comparable};

/// Error rates of the speaker verifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AsvRates {
    /// Share of target trials that it rejects.
    pub miss: f64,
    /// Share of non-target trials that it accepts.
    pub false_alarm: f64,
    /// Share of spoofed trials that it accepts.
    pub spoof_false_alarm: f64,
}

/// ASVspoof 5's verifier at its operating point, fixed in the evaluation package for track 2
/// (`calculate_metrics.py`), which gives no scores of it.
pub const ASVSPOOF5_ASV: AsvRates = AsvRates {
    miss: 0.018_801_410_105_757_93,
    false_alarm: 0.018_810_165_575_664_23,
    spoof_false_alarm: 0.460_708_290_760_472_9,
};

/// Rates of a verifier at its own equal error rate between targets and non-targets, as ASVspoof sets
/// its threshold. Higher scores speak for the target.
pub fn asv_rates(targets: &[f64], nontargets: &[f64], spoofs: &[f64]) -> Metric<AsvRates> {
    for (scores, what) in [(targets, "target"), (nontargets, "non-target"), (spoofs, "spoof")] {
        if scores.is_empty() {
            let why = format!("the verifier has no {what} trials");
            return Err(Absent::new(AbsentCode::NoAsvScores, why));
        }
    }
    // `Ranked` begins at the end that is rejected: non-targets play the fakes, scores change sign.
    let scores: Vec<f64> = targets.iter().chain(nontargets).map(|s| -s).collect();
    let rejected: Vec<bool> = (0..scores.len()).map(|i| i >= targets.len()).collect();
    let ranked = Ranked::new(&scores, &rejected).ok_or_else(|| {
        Absent::new(AbsentCode::NoAsvScores, "a score of the verifier is not finite")
    })?;
    ranked.comparable()?;
    // Of the scores that are passed over, the last is the threshold, and what equals it is accepted.
    let passed = Sweep::new(&ranked, &[]).eer_touched;
    let threshold = passed
        .checked_sub(1)
        .and_then(|last| ranked.blocks().nth(last))
        .map_or(f64::NEG_INFINITY, |block| -block.score);
    let rejected = |s: &&f64| **s < threshold;
    let accepted = |s: &&f64| **s >= threshold;
    Ok(AsvRates {
        miss: targets.iter().filter(rejected).count() as f64 / targets.len() as f64,
        false_alarm: nontargets.iter().filter(accepted).count() as f64 / nontargets.len() as f64,
        spoof_false_alarm: spoofs.iter().filter(accepted).count() as f64 / spoofs.len() as f64,
    })
}

/// Priors and costs of ASVspoof 2019 to 5: π_spf 0.05, π_tar 0.9405, π_non 0.0095; misses cost 1,
/// false alarms 10.
const P_SPOOF: f64 = 0.05;
const P_TARGET: f64 = (1.0 - P_SPOOF) * 0.99;
const P_NONTARGET: f64 = (1.0 - P_SPOOF) * 0.01;
const C_MISS: f64 = 1.0;
const C_FA: f64 = 10.0;

/// C₀, C₁, C₂: what the verifier costs anyway, what a rejected bona fide trial adds, what an
/// accepted spoof adds.
fn constants(asv: AsvRates) -> Metric<(f64, f64, f64)> {
    let anyway = P_TARGET * C_MISS * asv.miss + P_NONTARGET * C_FA * asv.false_alarm;
    let (c1, c2) = (P_TARGET * C_MISS - anyway, C_FA * P_SPOOF * asv.spoof_false_alarm);
    if c1 <= 0.0 || c2 <= 0.0 {
        let why = "the verifier's errors leave a countermeasure nothing to save";
        return Err(Absent::new(AbsentCode::AsvUseless, why));
    }
    Ok((anyway, c1, c2))
}

/// min t-DCF as ASVspoof 2019 defined it (Kinnunen et al., Odyssey 2018; `compute_tDCF_legacy`):
/// min (C₁ P_miss + C₂ P_fa) / min (C₁, C₂). What the papers of ASVspoof 2019 report.
pub fn min_tdcf_legacy(sweep: &Sweep, asv: AsvRates) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let (_, c1, c2) = constants(asv)?;
    Ok(smallest(sweep, c1, c2) / c1.min(c2))
}

/// min t-DCF as revised (Kinnunen et al., TASLP 2020, eqs. 10 and 11; ASVspoof 2021): min (C₀ +
/// C₁ P_miss + C₂ P_fa) / (C₀ + min (C₁, C₂)).
pub fn min_tdcf(sweep: &Sweep, asv: AsvRates) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let (c0, c1, c2) = constants(asv)?;
    Ok((c0 + smallest(sweep, c1, c2)) / (c0 + c1.min(c2)))
}

/// What a trial of spoofing-robust speaker verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SasvClass {
    Target,
    Nontarget,
    Spoof,
}

/// Priors and costs of the a-DCF.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdcfModel {
    pub p_target: f64,
    pub p_nontarget: f64,
    pub p_spoof: f64,
    pub c_miss: f64,
    pub c_fa_nontarget: f64,
    pub c_fa_spoof: f64,
}

/// ASVspoof 5, track 2 (`evaluation-package/a_dcf.py`).
pub const ASVSPOOF5_ADCF: AdcfModel = AdcfModel {
    p_target: 0.9,
    p_nontarget: 0.05,
    p_spoof: 0.05,
    c_miss: 1.0,
    c_fa_nontarget: 10.0,
    c_fa_spoof: 20.0,
};

/// Trials of a system that verifies speakers and rejects spoofs, by rising score.
#[derive(Debug, Clone)]
pub struct SasvTrials {
    scores: Vec<f64>,
    classes: Vec<SasvClass>,
    order: Vec<u32>,
}

impl SasvTrials {
    /// Sorts trials; a higher score speaks for the target. None where lengths differ, a score is not
    /// finite, or there are more than 2³² − 1 trials.
    pub fn new(scores: &[f64], classes: &[SasvClass]) -> Option<Self> {
        let n = u32::try_from(scores.len()).ok()?;
        if scores.len() != classes.len() || scores.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let mut order: Vec<u32> = (0..n).collect();
        order.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        Some(Self {
            scores: order.iter().map(|&i| scores[i as usize] + 0.0).collect(),
            classes: order.iter().map(|&i| classes[i as usize]).collect(),
            order,
        })
    }

    /// Position → index in the order the trials came in.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// min a-DCF (Shim et al., Odyssey 2024): the smallest cost of one threshold over all three
    /// classes, normalised by the better of accepting and of rejecting everything. `weights[i]`
    /// counts the trial at position i; None: each once.
    pub fn min_adcf(&self, model: AdcfModel, weights: Option<&[u16]>) -> Metric {
        let weight = |at: usize| weights.map_or(1, |w| u64::from(w[at]));
        let mut totals = [0_u64; 3];
        for (at, &class) in self.classes.iter().enumerate() {
            totals[class as usize] += weight(at);
        }
        for (class, total) in ["target", "nontarget", "spoof"].iter().zip(totals) {
            if total == 0 {
                let why = format!("there are no {class} trials");
                return Err(Absent::new(AbsentCode::OneClass, why));
            }
        }
        let cost = |rejected: [u64; 3]| {
            let rate = |class: usize, count: u64| count as f64 / totals[class] as f64;
            model.c_miss * model.p_target * rate(0, rejected[0])
                + model.c_fa_nontarget * model.p_nontarget * rate(1, totals[1] - rejected[1])
                + model.c_fa_spoof * model.p_spoof * rate(2, totals[2] - rejected[2])
        };
        let mut rejected = [0_u64; 3];
        let mut least = cost(rejected);
        for (at, &class) in self.classes.iter().enumerate() {
            rejected[class as usize] += weight(at);
            // Equal scores are accepted or rejected together.
            if self.scores.get(at + 1) != Some(&self.scores[at]) {
                least = least.min(cost(rejected));
            }
        }
        let accept_all =
            model.c_fa_nontarget * model.p_nontarget + model.c_fa_spoof * model.p_spoof;
        Ok(least / accept_all.min(model.c_miss * model.p_target))
    }
}
