//! Windows of one track become stretches of time with one calibrated probability each.
//!
//! Each window's log-odds are first averaged with its neighbours', so that a few bad windows
//! neither condemn nor acquit; then a state machine with hysteresis cuts the track where the
//! state changes for long enough; then each stretch gets the trimmed mean of its windows.

use std::ops::Range;

use super::calibration::{Calibration, logit, sigmoid};
use crate::report::SegmentVerdict;

/// One judged window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
    /// Calibrated log-odds of being fake.
    pub logit: f32,
    /// How much it counts, above 0 and up to 1.
    pub weight: f32,
    /// How far it lies from what the network was trained on, in units of the limit: above 1 it is
    /// out of the domain. 0 where the network does not say.
    pub distance: f32,
}

impl Window {
    /// Out of the domain a window counts less, the less the further it lies.
    fn influence(&self) -> f32 {
        self.weight / self.distance.max(1.0).powi(2)
    }

    fn centre(&self) -> i64 {
        (self.start_ms + self.end_ms) / 2
    }
}

/// How windows of a kind are merged.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Half width of the triangular kernel that averages neighbours.
    pub reach_ms: i64,
    /// A longer stretch without windows cuts a segment.
    pub max_gap_ms: i64,
    /// A change of state that does not last this long is ignored.
    pub min_length_ms: i64,
    /// Windows closer than this say nearly the same: the number of independent observations in a
    /// stretch is its length over this.
    pub correlation_ms: i64,
}

impl Rule {
    /// Faces: a window is one crop, several a second.
    pub const FACE: Self =
        Self { reach_ms: 1_000, max_gap_ms: 2_000, min_length_ms: 1_000, correlation_ms: 1_000 };
    /// Speech: windows of 4 s, one a second.
    pub const SPEECH: Self =
        Self { reach_ms: 1_500, max_gap_ms: 2_000, min_length_ms: 1_500, correlation_ms: 4_000 };
}

/// Standard deviation, in log-odds, of the network's own error on a stretch however long: what
/// more windows of the same track cannot average away.
const MODEL_DEVIATION: f32 = 0.4;
/// Standard deviation, in log-odds, of single windows of one track around its mean: about what
/// faces show on real clips.
const WINDOW_DEVIATION: f32 = 0.8;
/// Standard deviation, in log-odds, that is added for a stretch wholly out of the network's
/// domain: about what the network's answers spread by where there is nothing to be right about
/// (`docs/models/face-swap.md`).
const DOMAIN_DEVIATION: f32 = 2.0;
/// Two-sided 90 % of a normal distribution.
const Z90: f32 = 1.645;
/// Log-odds below the threshold at which a fake stretch ends.
const HYSTERESIS: f32 = 0.5;
/// Share of windows that is left out at either end of a stretch's ranking.
const TRIM: f32 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    pub start_ms: i64,
    pub end_ms: i64,
    pub probability: f32,
    /// Half width of the 90 % interval, 0 to 0.5.
    pub uncertainty: f32,
    pub peak_ms: i64,
    pub peak_probability: f32,
    pub verdict: SegmentVerdict,
    /// The place of its first window, and how many it has.
    pub first: usize,
    pub windows: usize,
    /// Share of the windows, by weight, that are out of the network's domain.
    pub outside: f32,
}

impl Stretch {
    /// The windows, by their places in `windows`, that its probability is averaged over, and how
    /// much each counts.
    pub fn pooled(&self, windows: &[Window]) -> impl Iterator<Item = (usize, f32)> {
        let part = self.first..self.first + self.windows;
        untrimmed(windows, part).into_iter().map(|i| (i, windows[i].influence()))
    }
}

/// `windows` in order of time.
pub fn segments(windows: &[Window], rule: &Rule, calibration: &Calibration) -> Vec<Stretch> {
    let smooth = smoothed(windows, rule.reach_ms);
    let threshold = logit(calibration.threshold);
    let mut out = Vec::new();
    for run in unbroken(windows, rule.max_gap_ms) {
        let mut states = hysteresis(&smooth[run.clone()], threshold);
        drop_short(&mut states, windows, &run, rule.min_length_ms);
        let mut from = 0;
        while from < states.len() {
            let len = states[from..].iter().take_while(|s| **s == states[from]).count();
            let (first, last) = (run.start + from, run.start + from + len);
            out.push(stretch(windows, &smooth, first..last, run.clone(), rule, threshold));
            from += len;
        }
    }
    out
}

/// One probability for a whole track: its windows pooled as those of one stretch.
pub fn pooled(windows: &[Window], rule: &Rule, calibration: &Calibration) -> Option<Stretch> {
    if windows.is_empty() {
        return None;
    }
    let smooth = smoothed(windows, rule.reach_ms);
    let all = 0..windows.len();
    Some(stretch(windows, &smooth, all.clone(), all, rule, logit(calibration.threshold)))
}

/// Each window's log-odds averaged with its neighbours' under a triangular kernel.
pub fn smoothed(windows: &[Window], reach_ms: i64) -> Vec<f32> {
    let mut first = 0;
    (0..windows.len())
        .map(|i| {
            let centre = windows[i].centre();
            while centre - windows[first].centre() >= reach_ms {
                first += 1;
            }
            let (mut sum, mut total) = (0.0, 0.0);
            for w in windows[first..].iter().take_while(|w| w.centre() - centre < reach_ms) {
                let near = 1.0 - (w.centre() - centre).abs() as f32 / reach_ms as f32;
                sum += w.influence() * near * w.logit;
                total += w.influence() * near;
            }
            if total > 0.0 { sum / total } else { windows[i].logit }
        })
        .collect()
}

/// Runs of windows with no gap longer than `max_gap_ms` between them.
fn unbroken(windows: &[Window], max_gap_ms: i64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for i in 1..=windows.len() {
        if i == windows.len() || windows[i].start_ms - windows[i - 1].end_ms > max_gap_ms {
            runs.push(start..i);
            start = i;
        }
    }
    runs
}

fn hysteresis(smooth: &[f32], threshold: f32) -> Vec<bool> {
    let mut fake = false;
    let mut states: Vec<bool> = smooth
        .iter()
        .map(|z| {
            fake = if fake { *z >= threshold - HYSTERESIS } else { *z >= threshold };
            fake
        })
        .collect();
    // The rising edge gets the same benefit as the falling one, so that a stretch does not depend
    // on the direction in which time is read.
    for i in (0..states.len().saturating_sub(1)).rev() {
        if states[i + 1] && smooth[i] >= threshold - HYSTERESIS {
            states[i] = true;
        }
    }
    states
}

/// Where a part of an unbroken run begins and ends: inside the run half-way between two windows'
/// centres, at its ends with its windows.
fn bounds(windows: &[Window], part: &Range<usize>, run: &Range<usize>) -> (i64, i64) {
    let between = |i: usize| (windows[i - 1].centre() + windows[i].centre()) / 2;
    let start =
        if part.start == run.start { windows[part.start].start_ms } else { between(part.start) };
    let end = if part.end == run.end { windows[part.end - 1].end_ms } else { between(part.end) };
    (start, end)
}

/// Gives stretches shorter than `min_ms` the state around them, shortest first.
fn drop_short(states: &mut [bool], windows: &[Window], run: &Range<usize>, min_ms: i64) {
    loop {
        let mut runs: Vec<(i64, usize, usize)> = Vec::new();
        let mut from = 0;
        while from < states.len() {
            let len = states[from..].iter().take_while(|s| **s == states[from]).count();
            let (start, end) = bounds(windows, &(run.start + from..run.start + from + len), run);
            runs.push((end - start, from, from + len));
            from += len;
        }
        if runs.len() < 2 {
            return;
        }
        match runs.iter().filter(|r| r.0 < min_ms).min() {
            Some(&(_, from, to)) => states[from..to].iter_mut().for_each(|s| *s = !*s),
            None => return,
        }
    }
}

/// The windows of `part` without the ends of their ranking by log-odds.
fn untrimmed(windows: &[Window], part: Range<usize>) -> Vec<usize> {
    let mut ranked: Vec<usize> = part.collect();
    ranked.sort_by(|a, b| windows[*a].logit.total_cmp(&windows[*b].logit));
    let trim = (ranked.len() as f32 * TRIM) as usize;
    ranked.drain(ranked.len() - trim..);
    ranked.drain(..trim);
    ranked
}

/// The answer for `part` of the unbroken `run`.
fn stretch(
    windows: &[Window],
    smooth: &[f32],
    part: Range<usize>,
    run: Range<usize>,
    rule: &Rule,
    threshold: f32,
) -> Stretch {
    let (start_ms, end_ms) = bounds(windows, &part, &run);
    let ranked: Vec<&Window> =
        untrimmed(windows, part.clone()).into_iter().map(|i| &windows[i]).collect();
    let total: f32 = ranked.iter().map(|w| w.influence()).sum();
    let mean = ranked.iter().map(|w| w.influence() * w.logit).sum::<f32>() / total;
    let spread = ranked.iter().map(|w| w.influence() * (w.logit - mean).powi(2)).sum::<f32>();
    // A few windows say little of their own spread, and one says nothing: the usual spread counts
    // as one more window.
    let variance = (spread + WINDOW_DEVIATION.powi(2)) / (total + 1.0);
    // Independent observations, weak windows counting less.
    let independent =
        ((end_ms - start_ms) as f32 / rule.correlation_ms as f32).min(part.len() as f32).max(1.0)
            * (total / ranked.len() as f32);
    let outside = outside(&windows[part.clone()]);
    let own = MODEL_DEVIATION.powi(2) + (outside * DOMAIN_DEVIATION).powi(2);
    let deviation = (variance / independent + own).sqrt();
    let (low, high) = (mean - Z90 * deviation, mean + Z90 * deviation);

    let peak = part.clone().max_by(|&a, &b| smooth[a].total_cmp(&smooth[b])).unwrap_or(part.start);
    Stretch {
        first: part.start,
        windows: part.len(),
        outside,
        start_ms,
        end_ms,
        probability: sigmoid(mean),
        uncertainty: (sigmoid(high) - sigmoid(low)) / 2.0,
        peak_ms: windows[peak].centre(),
        peak_probability: sigmoid(smooth[peak]),
        verdict: if low >= threshold {
            SegmentVerdict::Fake
        } else if high < threshold {
            SegmentVerdict::Bonafide
        } else {
            SegmentVerdict::Undetermined
        },
    }
}

/// Share of windows, by weight, that are out of the network's domain.
pub fn outside(windows: &[Window]) -> f32 {
    let out: f32 = windows.iter().filter(|w| w.distance > 1.0).map(|w| w.weight).sum();
    let all: f32 = windows.iter().map(|w| w.weight).sum();
    if all > 0.0 { out / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: Calibration = Calibration { a: 1.0, b: 0.0, threshold: 0.5 };

    /// Four windows a second from `start_ms`.
    fn windows(start_ms: i64, logits: &[f32]) -> Vec<Window> {
        logits
            .iter()
            .enumerate()
            .map(|(i, &logit)| Window {
                start_ms: start_ms + i as i64 * 250,
                end_ms: start_ms + (i as i64 + 1) * 250,
                logit,
                weight: 1.0,
                distance: 0.5,
            })
            .collect()
    }

    fn judged(logits: &[f32]) -> Vec<Stretch> {
        segments(&windows(0, logits), &Rule::FACE, &CALIBRATION)
    }

    #[test]
    fn a_swapped_stretch_gets_its_own_segment() {
        let mut logits = vec![-3.0; 40];
        logits.extend([3.0; 24]);
        logits.extend([-3.0; 40]);
        let found = judged(&logits);
        assert_eq!(
            found.iter().map(|s| s.verdict).collect::<Vec<_>>(),
            [SegmentVerdict::Bonafide, SegmentVerdict::Fake, SegmentVerdict::Bonafide]
        );
        assert!((found[1].start_ms - 10_000).abs() <= 500, "{found:?}");
        assert!((found[1].end_ms - 16_000).abs() <= 500, "{found:?}");
        assert_eq!((found[0].start_ms, found[2].end_ms), (0, 26_000));
        assert!(found[1].peak_ms > 10_000 && found[1].peak_ms < 16_000);
    }

    #[test]
    fn a_few_bad_windows_neither_condemn_nor_acquit() {
        let mut logits = vec![-3.0; 40];
        logits[20] = 6.0;
        assert_eq!(judged(&logits).len(), 1);
        let mut logits = vec![3.0; 40];
        logits[20] = -6.0;
        let found = judged(&logits);
        assert_eq!((found.len(), found[0].verdict), (1, SegmentVerdict::Fake));
    }

    #[test]
    fn segments_do_not_depend_on_the_direction_of_time() {
        let mut logits = vec![-2.0; 20];
        logits.extend([-0.3, -0.3, -0.3, -0.3, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        logits.extend([-2.0; 20]);
        let there = judged(&logits);
        logits.reverse();
        let back = judged(&logits);
        let end = logits.len() as i64 * 250;
        let mirrored: Vec<_> =
            back.iter().rev().map(|s| (end - s.end_ms, end - s.start_ms)).collect();
        assert_eq!(there.iter().map(|s| (s.start_ms, s.end_ms)).collect::<Vec<_>>(), mirrored);
    }

    #[test]
    fn a_long_gap_cuts_and_a_short_one_does_not() {
        let mut all = windows(0, &[-3.0; 12]);
        all.extend(windows(4_500, &[-3.0; 12]));
        assert_eq!(segments(&all, &Rule::FACE, &CALIBRATION).len(), 1);
        all.extend(windows(20_000, &[-3.0; 12]));
        let found = segments(&all, &Rule::FACE, &CALIBRATION);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].end_ms, found[1].start_ms), (7_500, 20_000));
    }

    #[test]
    fn doubt_near_the_threshold_is_said() {
        let found = judged(&[0.1; 40]);
        assert_eq!(found[0].verdict, SegmentVerdict::Undetermined);
        assert!(found[0].uncertainty > 0.1);
    }

    #[test]
    fn one_window_is_less_certain_than_many() {
        let noisy: Vec<f32> = (0..40).map(|i| if i % 2 == 0 { 0.0 } else { 4.0 }).collect();
        let long = judged(&noisy)[0];
        let two = judged(&noisy[..2])[0];
        assert!(two.uncertainty > long.uncertainty, "{two:?} {long:?}");
        let steady = judged(&[1.0; 40])[0];
        let mut one = windows(0, &[1.0]);
        let single = segments(&one, &Rule::FACE, &CALIBRATION)[0];
        assert!(single.uncertainty > steady.uncertainty * 1.3, "{single:?} {steady:?}");
        one[0].weight = 0.1;
        let weak = segments(&one, &Rule::FACE, &CALIBRATION)[0];
        assert!(weak.uncertainty > single.uncertainty, "{weak:?} {single:?}");
    }

    #[test]
    fn windows_out_of_the_domain_count_less_and_widen_the_interval() {
        let inside = windows(0, &[2.0; 40]);
        let calibration = Calibration { threshold: 0.7, ..CALIBRATION };
        let judge = |windows: &[Window]| {
            let found = segments(windows, &Rule::FACE, &calibration);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0]
        };
        let steady = judge(&inside);
        assert_eq!((steady.verdict, steady.outside), (SegmentVerdict::Fake, 0.0));
        let mut all = inside.clone();
        all.iter_mut().for_each(|w| w.distance = 1.2);
        let doubtful = judge(&all);
        assert_eq!((doubtful.verdict, doubtful.outside), (SegmentVerdict::Undetermined, 1.0));
        assert!((doubtful.probability - steady.probability).abs() < 1e-6);
        assert!(doubtful.uncertainty > steady.uncertainty * 2.0, "{doubtful:?} {steady:?}");
        // A quarter far outside hardly moves the rest's answer.
        let mut mixed = inside.clone();
        mixed.iter_mut().skip(15).take(10).for_each(|w| (w.distance, w.logit) = (3.0, -2.0));
        let quarter = judge(&mixed);
        assert!((quarter.outside - 0.25).abs() < 1e-6);
        mixed.iter_mut().for_each(|w| w.distance = 0.5);
        let unknowing = segments(&mixed, &Rule::FACE, &calibration);
        assert!(unknowing.len() > 1, "{unknowing:?}");
        assert!(quarter.probability > 0.85, "{quarter:?}");
    }

    #[test]
    fn pooled_windows_are_those_of_the_probability() {
        let mut all = windows(0, &[-1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0]);
        all[4].distance = 2.0;
        let found = segments(&all, &Rule::FACE, &CALIBRATION);
        assert_eq!(found.len(), 1, "{found:?}");
        let pooled: Vec<(usize, f32)> = found[0].pooled(&all).collect();
        assert!(pooled.iter().all(|(i, _)| (1..9).contains(i)) && pooled.len() == 8, "{pooled:?}");
        let weight: f32 = pooled.iter().map(|(_, w)| w).sum();
        let mean = pooled.iter().map(|(i, w)| w * all[*i].logit).sum::<f32>() / weight;
        assert!((sigmoid(mean) - found[0].probability).abs() < 1e-6);
        assert!(pooled.contains(&(4, 0.25)), "{pooled:?}");
    }

    #[test]
    fn one_window_of_speech_among_others_is_no_segment() {
        let speech: Vec<Window> = (0..12)
            .map(|i| Window {
                start_ms: i * 1_000,
                end_ms: i * 1_000 + 4_000,
                logit: if i == 6 { 4.0 } else { -1.0 },
                weight: 1.0,
                distance: 0.0,
            })
            .collect();
        let calibration = Calibration { threshold: 0.667, ..CALIBRATION };
        let found = segments(&speech, &Rule::SPEECH, &calibration);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, SegmentVerdict::Bonafide);
    }

    #[test]
    fn no_windows_no_segments() {
        assert!(judged(&[]).is_empty());
        assert!(pooled(&[], &Rule::FACE, &CALIBRATION).is_none());
    }
}
