//! Operating points: equal error rates, true positives at few false alarms, fixed thresholds and
//! thresholds that come from other data.

use serde::{Deserialize, Serialize};

use super::{Absent, AbsentCode, Calls, Metric, RATES, Ranked, Sweep, comparable};

/// Equal error rate by the definition of the ASVspoof evaluation packages (`compute_eer`).
///
/// The trials are gone through one by one by rising score for bona fide, bona fide trials first
/// where scores are equal; of all these steps the first with the smallest |miss − false alarm| is
/// taken, and the mean of both is the EER. Depends on how ties are ordered and moves in steps; it is
/// what the challenges publish. [`eer_hull`] has neither property.
pub fn eer_asvspoof(sweep: &Sweep) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    Ok(sweep.eer_asvspoof)
}

/// Equal error rate on the ROC's convex hull (ROCCH-EER, as in BOSARIS): where the hull crosses
/// miss = false alarm, which choosing at random between two thresholds reaches. Does not depend on
/// the order of ties.
pub fn eer_hull(sweep: &Sweep) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let (fakes, reals) = (sweep.fakes as f64, sweep.reals as f64);
    for pair in sweep.hull.windows(2) {
        let [a, b] = [pair[0], pair[1]].map(|(fp, tp)| (fp as f64 / reals, tp as f64 / fakes));
        // Signed distance from false-positive rate = false-negative rate.
        let (before, after) = (a.0 + a.1 - 1.0, b.0 + b.1 - 1.0);
        if after >= 0.0 {
            let t = -before / (after - before);
            return Ok(a.0 + t * (b.0 - a.0));
        }
    }
    // The hull ends in (1, 1).
    Ok(1.0)
}

/// The score from which on trials are called fake at ASVspoof's equal error rate; where that parts
/// equal scores, the nearer end of them.
pub fn eer_threshold(ranked: &Ranked) -> Metric<f64> {
    ranked.comparable()?;
    let blocks = Sweep::new(ranked, &[]).eer_blocks;
    let last = blocks.checked_sub(1).and_then(|last| ranked.blocks().nth(last));
    last.map(|block| block.score).ok_or_else(|| {
        Absent::new(AbsentCode::NoOperatingPoint, "nothing is called fake at that point")
    })
}

/// True-positive rate at the last threshold whose false-positive rate is at most 1 / `RATES[rate]`.
///
/// Absent where there are fewer reals than it takes for one of them to be that share, and where the
/// highest score alone has more false positives than that: the only threshold left calls nothing
/// fake.
pub fn tpr_at(sweep: &Sweep, rate: usize) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    let one_in = RATES[rate];
    if sweep.reals < one_in {
        let why = format!(
            "too few reals ({}) to tell one false positive in {one_in} from none",
            sweep.reals
        );
        return Err(Absent::new(AbsentCode::TooFewReals, why));
    }
    let Calls { true_positives, false_positives } = sweep.at_rate[rate];
    if true_positives == 0 && false_positives == 0 {
        let why =
            format!("the highest score alone has more than one false positive in {one_in} reals");
        return Err(Absent::new(AbsentCode::NoOperatingPoint, why));
    }
    Ok(true_positives as f64 / sweep.fakes as f64)
}

/// The lowest score that may be called fake at a false-positive rate of at most 1 / `one_in`.
pub fn threshold_at(ranked: &Ranked, one_in: u64) -> Metric<f64> {
    ranked.comparable()?;
    if ranked.reals() < one_in {
        let why = format!(
            "too few reals ({}) to tell one false positive in {one_in} from none",
            ranked.reals()
        );
        return Err(Absent::new(AbsentCode::TooFewReals, why));
    }
    let mut threshold = None;
    let mut false_positives = 0;
    for block in ranked.blocks() {
        false_positives += block.reals;
        if false_positives * one_in > ranked.reals() {
            break;
        }
        threshold = Some(block.score);
    }
    threshold.ok_or_else(|| {
        let why =
            format!("the highest score alone has more than one false positive in {one_in} reals");
        Absent::new(AbsentCode::NoOperatingPoint, why)
    })
}

/// Rates at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtThreshold {
    /// Right calls / all calls.
    pub accuracy: f64,
    /// Mean of true-positive and true-negative rate.
    pub balanced_accuracy: f64,
    pub true_positive_rate: f64,
    pub false_positive_rate: f64,
}

/// The rates that calls come to, with fakes as positives.
pub fn at_threshold(sweep: &Sweep, calls: Calls) -> Metric<AtThreshold> {
    comparable(sweep.fakes, sweep.reals)?;
    let (fakes, reals) = (sweep.fakes as f64, sweep.reals as f64);
    let true_positive_rate = calls.true_positives as f64 / fakes;
    let false_positive_rate = calls.false_positives as f64 / reals;
    let right = calls.true_positives + (sweep.reals - calls.false_positives);
    Ok(AtThreshold {
        accuracy: right as f64 / (fakes + reals),
        balanced_accuracy: f64::midpoint(true_positive_rate, 1.0 - false_positive_rate),
        true_positive_rate,
        false_positive_rate,
    })
}

/// What a threshold that was fixed on other data does here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The score that was fixed, in this program's direction: higher means fake.
    pub threshold: f64,
    /// What it does on the data it was fixed on.
    pub there: AtThreshold,
    /// What it does here.
    pub here: AtThreshold,
    /// The best balanced accuracy that any threshold has here.
    pub best_balanced_accuracy_here: f64,
}

/// Takes a threshold that was fixed on `there` over to `here`.
pub fn transfer(threshold: f64, there: &Ranked, here: &Ranked) -> Metric<Transfer> {
    there.comparable()?;
    here.comparable()?;
    let on = |ranked: &Ranked| {
        let sweep = Sweep::new(ranked, &[ranked.called_fake(threshold)]);
        at_threshold(&sweep, sweep.calls[0])
    };
    let sweep = Sweep::new(here, &[]);
    let (fakes, reals) = (sweep.fakes as f64, sweep.reals as f64);
    // Balanced accuracy is linear in both rates: its best point is a corner of the hull.
    let best = sweep
        .hull
        .iter()
        .map(|&(fp, tp)| f64::midpoint(tp as f64 / fakes, 1.0 - fp as f64 / reals));
    Ok(Transfer {
        threshold,
        there: on(there)?,
        here: on(here)?,
        best_balanced_accuracy_here: best.fold(0.0, f64::max),
    })
}
