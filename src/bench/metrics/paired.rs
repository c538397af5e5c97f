//! Whether two detectors differ, on the same trials: DeLong's test and the paired bootstrap.

use serde::{Deserialize, Serialize};

use super::bootstrap::{self, Interval, Units, resample};
use super::{Absent, AbsentCode, Metric, Ranked, Sweep, operating, ranking};

/// DeLong's test of the difference between two AUCs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    pub auc_a: f64,
    pub auc_b: f64,
    /// `auc_a` − `auc_b`.
    pub difference: f64,
    pub standard_error: f64,
    pub z: f64,
    /// Two-sided.
    pub p: f64,
}

/// DeLong, DeLong & Clarke-Pearson (Biometrics 1988): covariance of two AUCs from each trial's share
/// in them. Trials are taken as independent of each other; where several come from one person,
/// [`paired_bootstrap`] over people is the test to trust.
///
/// `a` and `b` rank the same trials in the same order of arrival.
pub fn delong(a: &Ranked, b: &Ranked) -> Metric<DeLong> {
    a.comparable()?;
    b.comparable()?;
    if a.fakes() < 2 || a.reals() < 2 {
        let why = "a variance needs two fakes and two reals";
        return Err(Absent::new(AbsentCode::OneClass, why));
    }
    let (shares_a, shares_b) = (shares(a), shares(b));
    let fake = truth(a);
    let [auc_a, auc_b] =
        [a, b].map(|r| ranking::auc(&Sweep::new(r, &[]))).map(|auc| auc.unwrap_or(f64::NAN));
    // Variance of the difference: that of the differences of shares, class by class.
    let mut variance = 0.0;
    for class in [true, false] {
        let differences: Vec<f64> = (0..fake.len())
            .filter(|&i| fake[i] == class)
            .map(|i| shares_a[i] - shares_b[i])
            .collect();
        let n = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
        variance += squares / (n - 1.0) / n;
    }
    let difference = auc_a - auc_b;
    // Rounding leaves about 1e-17 where all shares are equal.
    if variance < 1e-24 {
        let why = "no trial's rank differs in a way that has a variance";
        return Err(Absent::new(AbsentCode::NoDifference, why));
    }
    let standard_error = variance.sqrt();
    let z = difference / standard_error;
    Ok(DeLong { auc_a, auc_b, difference, standard_error, z, p: two_sided(z) })
}

fn truth(ranked: &Ranked) -> Vec<bool> {
    let mut fake = vec![false; ranked.len()];
    for (at, &i) in ranked.order().iter().enumerate() {
        fake[i as usize] = ranked.is_fake(at);
    }
    fake
}

/// Per trial, in order of arrival: the share of the other class on the right side of it.
fn shares(ranked: &Ranked) -> Vec<f64> {
    let mut shares = vec![0.0; ranked.len()];
    let (fakes, reals) = (ranked.fakes() as f64, ranked.reals() as f64);
    let (mut fakes_above, mut reals_above) = (0_u64, 0_u64);
    let mut at = 0;
    for block in ranked.blocks() {
        let reals_below = ranked.reals() - reals_above - block.reals;
        let of_fake = (reals_below as f64 + block.reals as f64 / 2.0) / reals;
        let of_real = (fakes_above as f64 + block.fakes as f64 / 2.0) / fakes;
        for _ in 0..block.fakes + block.reals {
            shares[ranked.order()[at] as usize] =
                if ranked.is_fake(at) { of_fake } else { of_real };
            at += 1;
        }
        fakes_above += block.fakes;
        reals_above += block.reals;
    }
    shares
}

/// What the paired bootstrap says of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The metric of a minus that of b.
    pub difference: f64,
    /// 95 % percentile interval.
    pub interval: Interval,
    /// Two-sided: twice the smaller share of rounds on either side of 0, (k + 1) / (rounds + 1).
    pub p: f64,
}

/// Differences of AUC and of the hull's EER.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedBootstrap {
    #[serde(with = "super::metric_json")]
    pub auc: Metric<Difference>,
    #[serde(with = "super::metric_json")]
    pub eer_hull: Metric<Difference>,
}

/// Draws the same units for both detectors in every round. `units` are those of the trials in their
/// order of arrival.
pub fn paired_bootstrap(
    a: &Ranked,
    b: &Ranked,
    units: &Units,
    rounds: u32,
    seed: u64,
) -> PairedBootstrap {
    let both = |sweeps: [&Sweep; 2]| {
        let difference = |metric: fn(&Sweep) -> Metric| -> Metric {
            Ok(metric(sweeps[0])? - metric(sweeps[1])?)
        };
        [difference(ranking::auc), difference(operating::eer_hull)]
    };
    let points = both([&Sweep::new(a, &[]), &Sweep::new(b, &[])]);
    let drawn = resample(
        units,
        rounds,
        seed,
        || (Sweep::default(), Sweep::default(), Vec::new()),
        |(sweep_a, sweep_b, by_rank), weights| {
            for (sweep, ranked) in [(&mut *sweep_a, a), (&mut *sweep_b, b)] {
                by_rank.clear();
                by_rank.extend(ranked.order().iter().map(|&i| weights[i as usize]));
                sweep.again(ranked, by_rank, &[]);
            }
            both([sweep_a, sweep_b]).map(|d| d.unwrap_or(f64::NAN))
        },
    );
    let [auc, eer_hull] = points;
    let finish = |point: Metric, which: usize| {
        let difference = point?;
        let values = || drawn.iter().map(|round| round[which]);
        let interval = bootstrap::interval(units, values())?;
        let (low, high) = values().fold((0_u32, 0_u32), |(low, high), d| {
            (low + u32::from(d <= 0.0), high + u32::from(d >= 0.0))
        });
        let p = 2.0 * f64::from(low.min(high) + 1) / f64::from(rounds + 1);
        Ok(Difference { difference, interval, p: p.min(1.0) })
    };
    PairedBootstrap { auc: finish(auc, 0), eer_hull: finish(eer_hull, 1) }
}

/// p corrected for the number of tests, so that the chance of any false one among those below α is at
/// most α, however they depend on each other: Holm (Scandinavian Journal of Statistics 1979). In the
/// order of `p`.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (done, at) in order.into_iter().enumerate() {
        largest = largest.max(p[at] * (p.len() - done) as f64).min(1.0);
        corrected[at] = largest;
    }
    corrected
}

/// Probability that a standard normal variable is further from 0 than z.
pub fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    if x < 2.0 {
        // erf(x) = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)): all terms positive.
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    }
    // erfc(x) = e^(−x²) / √π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …)))), from the inside out.
    let fraction = (1..=60).rev().fold(x, |f, k| x + f64::from(k) / 2.0 / f);
    (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction
}

#[cfg(test)]
mod tests {
    use super::holm;

    #[test]
    fn holms_correction_is_that_of_r() {
        // p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.5, 0.9), "holm")
        let found = holm(&[0.01, 0.04, 0.03, 0.005, 0.5, 0.9]);
        let want = [0.05, 0.12, 0.12, 0.03, 1.0, 1.0];
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.2]), [0.2]);
    }
}
