//! The bootstrap: resampling of files, or of the people in them, with replacement.
//!
//! Round r draws from its own generator, seeded with (seed, r), and sums in a fixed order: the same
//! numbers come out on every run and with any number of threads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Absent, AbsentCode, Metric};

/// How much of the bootstrap distribution an interval holds.
pub const LEVEL: f64 = 0.95;

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Units {
    /// Every one of this many trials by itself.
    Trials(usize),
    /// Groups: trial i belongs to `of[i]` < `count`.
    Groups { of: Vec<u32>, count: usize },
}

impl Units {
    /// How many units are drawn in a round.
    pub fn count(&self) -> usize {
        match self {
            Self::Trials(n) => *n,
            Self::Groups { count, .. } => *count,
        }
    }

    /// The same units for trials in another order: `order[i]` is the old index of trial i.
    #[must_use]
    pub fn reordered(&self, order: &[u32]) -> Self {
        match self {
            Self::Trials(n) => Self::Trials(*n),
            Self::Groups { of, count } => {
                let of = order.iter().map(|&i| of[i as usize]).collect();
                Self::Groups { of, count: *count }
            }
        }
    }

    /// Draws as many units as there are, with replacement; `weights[i]`: how often trial i came.
    fn draw(&self, random: &mut Random, weights: &mut Vec<u16>, counts: &mut Vec<u16>) {
        match self {
            Self::Trials(n) => scatter(*n, random, weights),
            Self::Groups { of, count } => {
                scatter(*count, random, counts);
                weights.clear();
                weights.extend(of.iter().map(|&group| counts[group as usize]));
            }
        }
    }
}

fn scatter(n: usize, random: &mut Random, counts: &mut Vec<u16>) {
    counts.clear();
    counts.resize(n, 0);
    for _ in 0..n {
        let at = random.below(n);
        // Beyond 65,535 times the same of n: for small n there are not as many draws, for large n
        // it will not be seen before the sun has gone out.
        counts[at] = counts[at].saturating_add(1);
    }
}

/// Runs `rounds` rounds in parallel; `measure` gets scratch memory of its thread and how often each
/// trial came.
pub fn resample<S: Send, R: Send>(
    units: &Units,
    rounds: u32,
    seed: u64,
    scratch: impl Fn() -> S + Sync + Send,
    measure: impl Fn(&mut S, &[u16]) -> R + Sync + Send,
) -> Vec<R> {
    (0..rounds)
        .into_par_iter()
        .map_init(
            || (scratch(), Vec::new(), Vec::new()),
            |(scratch, weights, counts), round| {
                let mut random = Random::new(seed, u64::from(round));
                units.draw(&mut random, weights, counts);
                measure(scratch, weights)
            },
        )
        .collect()
}

/// A percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The interval between the 2.5th and the 97.5th percentile of what the rounds gave (linear between
/// neighbours). NaN: no value in that round; where a tenth of the rounds has none, there is no
/// interval, because what is left is no sample of all.
pub fn interval(units: &Units, rounds: impl Iterator<Item = f64>) -> Metric<Interval> {
    if units.count() < 2 {
        let why = "one group cannot be resampled";
        return Err(Absent::new(AbsentCode::TooFewGroups, why));
    }
    let (mut values, mut all) = (Vec::new(), 0_usize);
    for value in rounds {
        all += 1;
        if value.is_finite() {
            values.push(value);
        }
    }
    if values.is_empty() || values.len() * 10 < all * 9 {
        let why = format!("no value in {} of {all} rounds", all - values.len());
        return Err(Absent::new(AbsentCode::TooFewRounds, why));
    }
    values.sort_by(f64::total_cmp);
    Ok(Interval {
        low: quantile(&values, (1.0 - LEVEL) / 2.0),
        high: quantile(&values, f64::midpoint(1.0, LEVEL)),
    })
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

const LANES: usize = 8;

/// Σ weights × values in a fixed order of additions.
pub(crate) fn dot(weights: Option<&[u16]>, values: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    match weights {
        None => {
            for chunk in values.chunks(LANES) {
                for (sum, &v) in sums.iter_mut().zip(chunk) {
                    *sum += v;
                }
            }
        }
        Some(weights) => {
            let whole = values.len() / LANES * LANES;
            let pairs = values[..whole].chunks_exact(LANES).zip(weights.chunks_exact(LANES));
            for (v, w) in pairs {
                for lane in 0..LANES {
                    sums[lane] += f64::from(w[lane]) * v[lane];
                }
            }
            for (lane, at) in (whole..values.len()).enumerate() {
                sums[lane] += f64::from(weights[at]) * values[at];
            }
        }
    }
    sums.iter().sum()
}

/// Σ weights × values over the positive values, and the same over the negative ones with the sign
/// taken off, in a fixed order of additions.
pub(crate) fn dot_by_sign(weights: Option<&[u16]>, values: &[f64]) -> (f64, f64) {
    let (mut above, mut below) = ([0.0; LANES], [0.0; LANES]);
    for (i, v) in values.chunks(LANES).enumerate() {
        let mut w = [1.0; LANES];
        if let Some(weights) = weights {
            for (w, &weight) in w.iter_mut().zip(&weights[i * LANES..]) {
                *w = f64::from(weight);
            }
        }
        for (lane, &v) in v.iter().enumerate() {
            above[lane] += w[lane] * v.max(0.0);
            below[lane] += w[lane] * (-v).max(0.0);
        }
    }
    (above.iter().sum(), below.iter().sum())
}

/// xoshiro256++ (Blackman & Vigna 2019), seeded through SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut state = seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95).rotate_left(32);
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }))
    }

    #[inline(always)]
    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 to below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below n; none is likelier than another by more than n / 2⁶⁴.
    #[inline(always)]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}
