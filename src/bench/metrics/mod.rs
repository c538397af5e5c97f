//! Metrics over score files: pure functions of scores and labels, one file a family.
//!
//! Everything here works on [`Ranked`]: trials sorted from the score that speaks most for fake to
//! the one that speaks least. Equal scores are one operating point: no threshold can part them, so
//! no metric does (one exception says so: [`operating::eer_asvspoof`]). A metric that has no meaning
//! for its input is [`Absent`] with a code, never a number.
//!
//! Definitions and sources: `docs/bench.md`.

use serde::{Deserialize, Serialize};

pub mod bootstrap;
pub mod calibration;
pub mod detection_cost;
pub mod localization;
pub mod operating;
pub mod paired;
pub mod ranking;
pub mod selective;
pub mod tandem;

/// Why a metric has no value. The codes are part of the JSON that `veriscope bench metrics` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AbsentCode {
    /// Only fakes or only reals: nothing is told apart.
    OneClass,
    /// Every trial has the same score.
    ConstantScore,
    /// Too few reals for a false-positive rate this low to be told from zero.
    TooFewReals,
    /// The highest score alone already has more false positives than allowed.
    NoOperatingPoint,
    /// No threshold was fixed beforehand.
    NoThreshold,
    /// Scores are not probabilities (or were not said to be).
    NotProbabilities,
    /// Scores are not log-likelihood ratios (or were not said to be).
    NotLogLikelihoodRatios,
    /// The value is infinite: a file was judged with certainty, and wrongly.
    Infinite,
    /// No scores of a speaker verifier, or not of all three kinds of trial.
    NoAsvScores,
    /// The speaker verifier rejects so much that a countermeasure beside it has no cost to save.
    AsvUseless,
    /// No forged stretch in the key, or no proposal.
    NothingToFind,
    /// The two detectors never differ: the test statistic is 0 / 0.
    NoDifference,
    /// The metric had no value in more than a tenth of the bootstrap rounds.
    TooFewRounds,
    /// Fewer than two groups to resample.
    TooFewGroups,
}

/// A metric without a value, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Absent {
    pub code: AbsentCode,
    /// One sentence for people.
    pub why: String,
}

impl Absent {
    pub fn new(code: AbsentCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

/// A metric's value or why it has none.
pub type Metric<T = f64> = Result<T, Absent>;

/// Trials of one detector, sorted by falling score. Higher means fake.
#[derive(Debug, Clone)]
pub struct Ranked {
    scores: Vec<f64>,
    /// Bit 0: fake. Bit 1: the last trial of its score.
    codes: Vec<u8>,
    /// Position → index in the order the trials came in.
    order: Vec<u32>,
    fakes: u64,
    reals: u64,
}

const FAKE: u8 = 1;
const LAST: u8 = 2;

impl Ranked {
    /// Sorts trials; `scores[i]` is the score of trial i (higher means fake), `fake[i]` its truth.
    ///
    /// Trials beyond 2³² − 1 and scores that are not finite have no place here: readers refuse them
    /// by file and line. They make this None, as do lengths that differ.
    pub fn new(scores: &[f64], fake: &[bool]) -> Option<Self> {
        let n = u32::try_from(scores.len()).ok()?;
        if scores.len() != fake.len() || scores.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let mut order: Vec<u32> = (0..n).collect();
        // Stable: equal scores keep the order they came in, so that sums do not depend on the sort.
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        // −0 and 0 are one score, and `total_cmp` put all zeros side by side.
        let sorted: Vec<f64> = order.iter().map(|&i| scores[i as usize] + 0.0).collect();
        let codes: Vec<u8> = order
            .iter()
            .enumerate()
            .map(|(at, &i)| {
                let last = sorted.get(at + 1).is_none_or(|&next| next != sorted[at]);
                u8::from(fake[i as usize]) * FAKE + u8::from(last) * LAST
            })
            .collect();
        let fakes = fake.iter().filter(|&&f| f).count() as u64;
        Some(Self { scores: sorted, codes, order, fakes, reals: u64::from(n) - fakes })
    }

    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// How many trials are fake.
    pub fn fakes(&self) -> u64 {
        self.fakes
    }

    /// How many trials are real.
    pub fn reals(&self) -> u64 {
        self.reals
    }

    /// Scores by falling value.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Whether the trial at a position is fake.
    pub fn is_fake(&self, at: usize) -> bool {
        self.codes[at] & FAKE != 0
    }

    /// Position → index in the order the trials came in.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// How many different scores there are.
    pub fn distinct(&self) -> usize {
        self.codes.iter().filter(|&&c| c & LAST != 0).count()
    }

    /// How many trials a threshold calls fake: those with score ≥ `threshold`.
    pub fn called_fake(&self, threshold: f64) -> usize {
        self.scores.partition_point(|&s| s >= threshold)
    }

    /// Both classes and at least two scores, or why not.
    pub fn comparable(&self) -> Metric<()> {
        comparable(self.fakes, self.reals)?;
        if self.scores.first() == self.scores.last() {
            let why = format!("all {} trials have the same score", self.len());
            return Err(Absent::new(AbsentCode::ConstantScore, why));
        }
        Ok(())
    }

    /// Runs over the operating points: for every different score, how many fakes and reals have it,
    /// from the score that speaks most for fake on.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let score = *self.scores.get(at)?;
            let mut block = Block { score, fakes: 0, reals: 0 };
            loop {
                let code = *self.codes.get(at)?;
                at += 1;
                if code & FAKE != 0 {
                    block.fakes += 1
                } else {
                    block.reals += 1
                }
                if code & LAST != 0 {
                    return Some(block);
                }
            }
        })
    }
}

/// All trials of one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    pub score: f64,
    pub fakes: u64,
    pub reals: u64,
}

fn comparable(fakes: u64, reals: u64) -> Metric<()> {
    let why = match (fakes, reals) {
        (0, 0) => "there are no trials",
        (0, _) => "all trials are real",
        (_, 0) => "all trials are fake",
        _ => return Ok(()),
    };
    Err(Absent::new(AbsentCode::OneClass, why))
}

/// What a threshold did: how many fakes and how many reals were called fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Fakes called fake.
    pub true_positives: u64,
    /// Reals called fake.
    pub false_positives: u64,
}

/// One pass over ranked trials, each counted `weight` times: all counts that the metrics need.
///
/// Weights are what a bootstrap round draws; `Sweep::new` counts each trial once.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    pub fakes: u64,
    pub reals: u64,
    /// Twice the number of pairs of a fake and a real in which the fake has the higher score, pairs
    /// with equal scores counted as one.
    pub(crate) pairs_won_twice: u64,
    /// Σ over scores of fakes × precision at that score.
    pub(crate) precision_sum: f64,
    /// ASVspoof's equal error rate (see [`operating::eer_asvspoof`]).
    pub(crate) eer_asvspoof: f64,
    /// How many different scores lie at or above it, the nearest to it where it parts equal scores.
    pub(crate) eer_blocks: usize,
    /// The same with one that it parts counted.
    pub(crate) eer_touched: usize,
    /// For 1 in `RATES` false positives: the calls at the last threshold that keeps to it.
    pub(crate) at_rate: [Calls; RATES.len()],
    /// Calls at each of the thresholds that were asked for, in their order.
    pub calls: Vec<Calls>,
    /// Corners of the upper convex hull of the ROC, (false positives, true positives), from (0, 0)
    /// to (reals, fakes).
    pub(crate) hull: Vec<(u64, u64)>,
}

/// False-positive rates 1 in 100 and 1 in 1,000.
pub const RATES: [u64; 2] = [100, 1000];

/// What weighs the trials of a [`Sweep`].
trait Weights {
    fn of(&self, at: usize) -> u64;
}

/// Each trial once.
struct Once;

impl Weights for Once {
    #[inline(always)]
    fn of(&self, _: usize) -> u64 {
        1
    }
}

impl Weights for &[u16] {
    #[inline(always)]
    fn of(&self, at: usize) -> u64 {
        u64::from(self[at])
    }
}

impl Sweep {
    /// `thresholds` as positions: how many trials each calls fake ([`Ranked::called_fake`]).
    pub fn new(ranked: &Ranked, thresholds: &[usize]) -> Self {
        let mut sweep = Self::default();
        sweep.totals(ranked, None);
        sweep.run(ranked, &Once, thresholds);
        sweep
    }

    /// Counts the trial at position i `weights[i]` times; keeps this value's memory.
    pub(crate) fn again(&mut self, ranked: &Ranked, weights: &[u16], thresholds: &[usize]) {
        self.totals(ranked, Some(weights));
        self.run(ranked, &weights, thresholds);
    }

    fn totals(&mut self, ranked: &Ranked, weights: Option<&[u16]>) {
        (self.fakes, self.reals) = match weights {
            None => (ranked.fakes, ranked.reals),
            Some(weights) => {
                let (mut all, mut fakes) = (0_u64, 0_u64);
                // In pieces whose sums fit 32 bits, which is what vector units add.
                for (w, c) in weights.chunks(1 << 15).zip(ranked.codes.chunks(1 << 15)) {
                    let (mut a, mut f) = (0_u32, 0_u32);
                    for (&w, &c) in w.iter().zip(c) {
                        a += u32::from(w);
                        f += u32::from(w) * u32::from(c & FAKE);
                    }
                    all += u64::from(a);
                    fakes += u64::from(f);
                }
                (fakes, all - fakes)
            }
        };
    }

    fn run<W: Weights>(&mut self, ranked: &Ranked, weights: &W, thresholds: &[usize]) {
        self.calls.clear();
        self.calls.resize(thresholds.len(), Calls::default());
        let mut by_place: Vec<usize> = (0..thresholds.len()).collect();
        by_place.sort_by_key(|&t| thresholds[t]);
        self.hull.clear();
        self.hull.push((0, 0));
        self.at_rate = Default::default();
        let mut state = State { eer: f64::NAN, ..State::default() };
        let mut at = 0;
        for t in by_place {
            // A threshold never parts equal scores, so every stretch ends with a block.
            let end = thresholds[t].min(ranked.len());
            self.stretch(ranked, weights, at, end, &mut state);
            self.calls[t] = Calls { true_positives: state.tp, false_positives: state.fp };
            at = end.max(at);
        }
        self.stretch(ranked, weights, at, ranked.len(), &mut state);
        let last = (self.reals, self.fakes);
        corner(&mut self.hull, last);
        self.pairs_won_twice = state.pairs;
        self.precision_sum = state.precision;
        self.eer_asvspoof = state.eer;
        self.eer_blocks = state.eer_blocks;
        self.eer_touched = state.eer_touched;
    }

    #[inline(always)]
    fn stretch<W: Weights>(
        &mut self,
        ranked: &Ranked,
        weights: &W,
        from: usize,
        to: usize,
        state: &mut State,
    ) {
        let allowed = RATES.map(|rate| self.reals / rate);
        let half = self.fakes * self.reals;
        let (mut fakes, mut reals) = (0_u64, 0_u64);
        let mut s = *state;
        for at in from..to {
            let code = ranked.codes[at];
            let weight = weights.of(at);
            let fake = weight * u64::from(code & FAKE);
            fakes += fake;
            reals += weight - fake;
            if code & LAST == 0 {
                continue;
            }
            s.blocks += 1;
            // Labels are as good as random here: what a branch would save, guessing it wrong costs.
            // Only where the ROC goes up and then right can its hull have a corner.
            if s.rising & (reals != 0) {
                corner(&mut self.hull, (s.fp, s.tp));
            }
            let (fp, tp) = (s.fp + reals, s.tp + fakes);
            if fp > s.allowed_next(&allowed) {
                for (i, (calls, &allowed)) in self.at_rate.iter_mut().zip(&allowed).enumerate() {
                    if s.rates_open & (1 << i) == 0 && fp > allowed {
                        s.rates_open |= 1 << i;
                        *calls = Calls { true_positives: s.tp, false_positives: s.fp };
                    }
                }
            }
            s.pairs += reals * (2 * s.tp + fakes);
            s.precision += (fakes * tp) as f64 / (fp + tp).max(1) as f64;
            if !s.crossed && fp * self.fakes + tp * self.reals >= half {
                s.crossed = true;
                let (eer, way) = equal_error(self.fakes, self.reals, (s.fp, s.tp), (fp, tp));
                s.eer = eer;
                s.eer_blocks = s.blocks - usize::from(way < 0.5);
                s.eer_touched = s.blocks - usize::from(way == 0.0);
            }
            s.rising = (fakes != 0) | (s.rising & (reals == 0));
            (s.fp, s.tp) = (fp, tp);
            (fakes, reals) = (0, 0);
        }
        *state = s;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fp: u64,
    tp: u64,
    pairs: u64,
    precision: f64,
    /// The last block with any trial had fakes.
    rising: bool,
    crossed: bool,
    eer: f64,
    eer_blocks: usize,
    eer_touched: usize,
    blocks: usize,
    /// Bit i: more false positives than rate i allows were seen.
    rates_open: u8,
}

impl State {
    /// The smallest number of false positives at which something has to be written down.
    #[inline(always)]
    fn allowed_next(&self, allowed: &[u64; RATES.len()]) -> u64 {
        // The strictest rate that still holds.
        match self.rates_open {
            0 => allowed[1],
            2 => allowed[0],
            _ => u64::MAX,
        }
    }
}

/// Adds the next point of the ROC to its upper hull.
#[inline(always)]
fn corner(hull: &mut Vec<(u64, u64)>, point: (u64, u64)) {
    while let [.., a, b] = hull[..] {
        // Slopes must fall: b stays where it lies above the line from a to the point.
        let up = (b.1 - a.1) * (point.0 - b.0);
        let along = (point.1 - b.1) * (b.0 - a.0);
        if up > along {
            break;
        }
        hull.pop();
    }
    if hull.last() != Some(&point) {
        hull.push(point);
    }
}

/// ASVspoof's equal error rate where the curve goes from one operating point over to the next: its
/// reals come first, one by one, then its fakes, and of all these steps the first with the smallest
/// |miss − false alarm| counts. Also which share of the way (0 to 1) that step is.
///
/// In double precision like the evaluation packages, whose choice among steps that are equally near
/// hangs on its rounding.
fn equal_error(fakes: u64, reals: u64, from: (u64, u64), to: (u64, u64)) -> (f64, f64) {
    let error = |fp: u64, tp: u64| {
        let miss = fp as f64 / reals as f64;
        let alarm = (fakes - tp) as f64 / fakes as f64;
        ((miss - alarm).abs(), (miss + alarm) / 2.0)
    };
    let mut best = error(from.0, from.1);
    let mut steps = 0;
    let mut consider = |fp: u64, tp: u64| {
        let candidate = error(fp, tp);
        if candidate.0 < best.0 {
            best = candidate;
            steps = (fp - from.0) + (tp - from.1);
        }
    };
    // Where the real line crosses on each leg; the best step is a neighbour of that.
    let cross = ((fakes - from.1) as f64 * reals as f64 / fakes as f64) as u64;
    for fp in cross.saturating_sub(2)..=cross + 2 {
        if fp > from.0 && fp <= to.0 {
            consider(fp, from.1);
        }
    }
    let end = to.0 as f64 * fakes as f64 / reals as f64;
    let cross = fakes.saturating_sub(end as u64);
    // The last step of the reals' leg, from where the fakes' leg starts.
    if to.0 > from.0 {
        consider(to.0, from.1);
    }
    for tp in cross.saturating_sub(2)..=cross + 2 {
        if tp > from.1 && tp <= to.1 {
            consider(to.0, tp);
        }
    }
    let all = (to.0 - from.0) + (to.1 - from.1);
    (best.1, steps as f64 / all as f64)
}

/// A metric in JSON: its value, or `{"absent": {"code": …, "why": …}}`.
pub(crate) mod metric_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Absent, Metric};

    #[derive(Serialize)]
    struct Missing<'a> {
        absent: &'a Absent,
    }

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        metric: &Metric<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match metric {
            Ok(value) => value.serialize(serializer),
            Err(absent) => Missing { absent }.serialize(serializer),
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read<T> {
        Missing { absent: Absent },
        Value(T),
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Metric<T>, D::Error> {
        Ok(match Read::deserialize(deserializer)? {
            Read::Missing { absent } => Err(absent),
            Read::Value(value) => Ok(value),
        })
    }
}
