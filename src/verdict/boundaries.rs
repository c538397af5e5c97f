//! Where exactly one stretch ends and the next begins. Windows of several seconds say which
//! stretches there are; a trace of finer scores says at which moment the one becomes the other.

use super::segments::Stretch;

/// A change is looked for so far to either side of where windows put it: half a window of speech.
const REACH_MS: i64 = 2_000;
/// Each side of a change has at least so much of the trace, so that a single syllable is not taken
/// for one.
const SIDE_MS: i64 = 300;

/// Scores in steps of equal length from time 0 on; where several windows cover a step, their mean.
#[derive(Debug, Clone)]
pub struct Trace {
    step_ms: i64,
    /// Sum and number of the scores of each step.
    steps: Vec<(f32, f32)>,
}

impl Trace {
    pub fn new(step_ms: i64) -> Self {
        Self { step_ms, steps: Vec::new() }
    }

    /// The scores of one window, the first of which is of the moment `start_ms`. What lies before
    /// time 0 is left out.
    pub fn add(&mut self, start_ms: i64, scores: &[f32]) {
        let first = (start_ms as f64 / self.step_ms as f64).round() as i64;
        for (at, score) in (first..).zip(scores) {
            let Ok(at) = usize::try_from(at) else { continue };
            if at >= self.steps.len() {
                self.steps.resize(at + 1, (0.0, 0.0));
            }
            self.steps[at].0 += score;
            self.steps[at].1 += 1.0;
        }
    }

    /// The moment between `from_ms` and `to_ms` at which the scores' level rises (or falls): the split
    /// into two parts of which each is closest to its own mean (least squares). None where the
    /// trace is too short, or goes the other way.
    fn change(&self, from_ms: i64, to_ms: i64, rising: bool) -> Option<i64> {
        let step = |ms: i64| usize::try_from(ms / self.step_ms).unwrap_or(0).min(self.steps.len());
        let (first, last) = (step(from_ms), step(to_ms));
        let part = self.steps.get(first..last)?;
        let total: f64 = part.iter().filter_map(mean).sum();
        let count = part.iter().filter(|s| s.1 > 0.0).count() as f64;
        let side = (SIDE_MS / self.step_ms) as f64;
        let (mut sum, mut n) = (0.0, 0.0);
        let mut best: Option<(f64, usize)> = None;
        for (at, score) in part.iter().enumerate() {
            let right = count - n;
            if n >= side && right >= side {
                let apart = (total - sum) / right - sum / n;
                let gain = n * right / count * apart * apart;
                if (apart > 0.0) == rising && best.is_none_or(|(most, _)| gain > most) {
                    best = Some((gain, first + at));
                }
            }
            if let Some(score) = mean(score) {
                sum += score;
                n += 1.0;
            }
        }
        best.map(|(_, at)| at as i64 * self.step_ms)
    }
}

fn mean((sum, count): &(f32, f32)) -> Option<f64> {
    (*count > 0.0).then(|| f64::from(sum / count))
}

/// Moves the boundaries between neighbours to where the trace changes, never past the middle of
/// either. Ends that no other stretch touches stay: there the speech itself begins or ends.
pub fn sharpen(stretches: &mut [Stretch], trace: &Trace) {
    for i in 1..stretches.len() {
        let [.., before, after] = &mut stretches[..=i] else { return };
        if before.end_ms != after.start_ms {
            continue;
        }
        let boundary = after.start_ms;
        let from = (boundary - REACH_MS).max((before.start_ms + before.end_ms) / 2);
        let to = (boundary + REACH_MS).min((after.start_ms + after.end_ms) / 2);
        let rising = after.probability > before.probability;
        if let Some(moment) = trace.change(from, to, rising) {
            before.end_ms = moment;
            after.start_ms = moment;
            before.peak_ms = before.peak_ms.min(moment);
            after.peak_ms = after.peak_ms.max(moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SegmentVerdict;

    fn stretch(start_ms: i64, end_ms: i64, probability: f32) -> Stretch {
        Stretch {
            start_ms,
            end_ms,
            probability,
            uncertainty: 0.1,
            peak_ms: (start_ms + end_ms) / 2,
            peak_probability: probability,
            verdict: SegmentVerdict::Undetermined,
            first: 0,
            windows: 1,
            outside: 0.0,
        }
    }

    /// Windows of 4 s, one a second, over `seconds`, that score fake from 10.2 to 12.0 s; `drift` is
    /// added to all.
    fn trace(seconds: i64, drift: f32) -> Trace {
        let mut trace = Trace::new(20);
        for start in (0..=(seconds - 4) * 1_000).step_by(1_000) {
            let score = |k: i64| {
                let t = start + k * 20;
                let wobble = ((t / 20 * 7_919) % 13) as f32 / 13.0 - 0.5;
                drift + wobble + if (10_200..12_000).contains(&t) { 1.5 } else { -1.5 }
            };
            trace.add(start, &(0..200).map(score).collect::<Vec<_>>());
        }
        trace
    }

    #[test]
    fn boundaries_move_to_where_the_trace_changes() {
        for drift in [-2.0, 0.0, 2.0] {
            let mut all =
                [stretch(0, 8_500, 0.1), stretch(8_500, 13_500, 0.8), stretch(13_500, 30_000, 0.2)];
            sharpen(&mut all, &trace(30, drift));
            let ends: Vec<i64> = all.iter().map(|s| s.end_ms).collect();
            assert!((ends[0] - 10_200).abs() <= 40, "{ends:?}");
            assert!((ends[1] - 12_000).abs() <= 40, "{ends:?}");
            assert_eq!((all[0].start_ms, ends[2]), (0, 30_000));
            assert_eq!((all[1].start_ms, all[2].start_ms), (ends[0], ends[1]));
            assert!(all.iter().all(|s| (s.start_ms..=s.end_ms).contains(&s.peak_ms)), "{all:?}");
        }
    }

    #[test]
    fn nothing_moves_without_a_change_in_that_direction() {
        let apart = [stretch(0, 8_500, 0.1), stretch(9_000, 14_000, 0.8)];
        let mut moved = apart;
        sharpen(&mut moved, &trace(30, 0.0));
        assert_eq!(moved, apart);
        // Where no window gave a trace, or one that only falls.
        let beside = [stretch(0, 8_500, 0.1), stretch(8_500, 14_000, 0.8)];
        let mut falling = Trace::new(20);
        falling.add(0, &(0..700).map(|k| -(k as f32)).collect::<Vec<_>>());
        for trace in [Trace::new(20), falling] {
            let mut moved = beside;
            sharpen(&mut moved, &trace);
            assert_eq!(moved, beside);
        }
    }

    #[test]
    fn what_lies_before_time_0_is_left_out() {
        let mut trace = Trace::new(20);
        trace.add(-40, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(trace.steps, [(3.0, 1.0), (4.0, 1.0)]);
    }
}
