//! How well scores rank fakes above reals, whatever the threshold: AUC and average precision.

use super::{Metric, Ranked, Sweep, comparable};

/// Area under the ROC curve: the probability that a fake's score is higher than a real's, equal
/// scores counting one half. Equal to scikit-learn's `roc_auc_score`.
pub fn auc(sweep: &Sweep) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    Ok(sweep.pairs_won_twice as f64 / (2.0 * sweep.fakes as f64 * sweep.reals as f64))
}

/// Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds by falling score, without interpolation.
/// Equal to scikit-learn's `average_precision_score` with fakes as positives.
pub fn average_precision(sweep: &Sweep) -> Metric {
    comparable(sweep.fakes, sweep.reals)?;
    Ok(sweep.precision_sum / sweep.fakes as f64)
}

/// The ROC curve as (false-positive rate, true-positive rate), thinned to its corners: points at
/// which it turns. Begins with (0, 0) and ends with (1, 1).
pub fn roc(ranked: &Ranked) -> Metric<Vec<(f64, f64)>> {
    comparable(ranked.fakes(), ranked.reals())?;
    let (mut fp, mut tp) = (0_u64, 0_u64);
    let mut points: Vec<(u64, u64)> = vec![(0, 0)];
    for block in ranked.blocks() {
        fp += block.reals;
        tp += block.fakes;
        if let [.., a, b] = points[..]
            && (b.1 - a.1) * (fp - b.0) == (tp - b.1) * (b.0 - a.0)
        {
            points.pop();
        }
        points.push((fp, tp));
    }
    let (reals, fakes) = (ranked.reals() as f64, ranked.fakes() as f64);
    Ok(points.into_iter().map(|(x, y)| (x as f64 / reals, y as f64 / fakes)).collect())
}
