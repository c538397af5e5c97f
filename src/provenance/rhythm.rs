//! The audible label of GB 45438-2025 (as reported): the rhythm short-long short-short, "AI" in
//! Morse code (·– ··), looked for as pulses of one steady tone at the proportions of Recommendation
//! ITU-R M.1677-1 (a dash is three dots, letters are three dots apart), with wide tolerance.
//!
//! A tone has to stand out of everything else that sounds with it, so a rhythm under loud speech or
//! music is not found, and one of drum beats is none.

use std::collections::VecDeque;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use crate::report::{Label, LabelVerdict, Seen};

/// Hz; the sound must be mono at this rate.
const RATE: usize = 16_000;
const FRAME: usize = 512;
const HOP: usize = 160;
const HOP_MS: i64 = (HOP * 1000 / RATE) as i64;
/// Hz of a bin.
const BIN: f32 = RATE as f32 / FRAME as f32;
/// Bins of 250 to 4,000 Hz, where signals that are meant to be heard lie.
const BINS: std::ops::Range<usize> = 8..129;
/// Share of a frame's energy that lies within two bins of its strongest for it to be a tone.
const TONAL: f32 = 0.6;
/// Mean square of a frame: -50 dBFS. Quieter ones are silence.
const QUIET: f32 = 1e-5;
/// Frames without the tone that do not end a pulse.
const DROP_OUT: i64 = 1;
/// Milliseconds of a dot.
const DOT: std::ops::RangeInclusive<f32> = 50.0..=500.0;
/// Labels of one stream that are kept.
const MOST: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Pulse {
    bin: usize,
    /// Frames; `end` is the last one's next.
    start: i64,
    end: i64,
}

/// Listens to one stream.
pub struct Rhythm {
    fft: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    pending: Vec<f32>,
    /// Time of the first sample in `pending`, in samples.
    at: i64,
    /// The pulse that sounds, and the last ended ones, at most six.
    open: Option<Pulse>,
    pulses: VecDeque<Pulse>,
    found: Vec<(i64, i64, f32, f32)>,
}

impl Default for Rhythm {
    fn default() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FRAME);
        let turn = |i: usize| (2.0 * std::f32::consts::PI * i as f32 / FRAME as f32).cos();
        Self {
            hann: (0..FRAME).map(|i| 0.5 - 0.5 * turn(i)).collect(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            pending: Vec::new(),
            at: 0,
            open: None,
            pulses: VecDeque::new(),
            found: Vec::new(),
        }
    }
}

impl Rhythm {
    /// The next samples, mono at 16 kHz; `start` is the first one's time in samples. After a gap the
    /// rhythm begins anew.
    pub fn push(&mut self, start: i64, samples: &[f32]) {
        if start != self.at + self.pending.len() as i64 {
            self.close();
            self.pulses.clear();
            self.pending.clear();
            self.at = start;
        }
        self.pending.extend_from_slice(samples);
        let mut done = 0;
        while done + FRAME <= self.pending.len() {
            let tone = self.tone(done);
            self.frame((self.at + done as i64) / HOP as i64, tone);
            done += HOP;
        }
        self.pending.drain(..done);
        self.at += done as i64;
    }

    /// The bin of the tone that fills the frame at `from` in `pending`, if one does.
    fn tone(&mut self, from: usize) -> Option<usize> {
        let frame = self.pending.get(from..from + FRAME)?;
        if frame.iter().map(|v| v * v).sum::<f32>() / (FRAME as f32) < QUIET {
            return None;
        }
        let mut windowed: Vec<f32> = frame.iter().zip(&self.hann).map(|(v, w)| v * w).collect();
        let output = &mut self.spectrum;
        self.fft.process_with_scratch(&mut windowed, output, &mut self.scratch).ok()?;
        let power = |bin: usize| self.spectrum.get(bin).map_or(0.0, Complex::norm_sqr);
        // The first bins are left out: hum and offset are heard by nobody.
        let total: f32 = (3..=FRAME / 2).map(power).sum();
        let peak = BINS.max_by(|a, b| power(*a).total_cmp(&power(*b)))?;
        let near: f32 = (peak - 2..=peak + 2).map(power).sum();
        (near >= TONAL * total).then_some(peak)
    }

    fn frame(&mut self, now: i64, tone: Option<usize>) {
        if let Some(pulse) = &mut self.open {
            match tone {
                Some(bin) if bin.abs_diff(pulse.bin) <= 1 && now - pulse.end <= DROP_OUT => {
                    pulse.end = now + 1;
                    return;
                }
                None if now - pulse.end < DROP_OUT => return,
                _ => self.close(),
            }
        }
        self.open = tone.map(|bin| Pulse { bin, start: now, end: now + 1 });
    }

    /// The pulse that sounds ends. The rhythm is looked for one pulse late, so that what follows
    /// it is known.
    fn close(&mut self) {
        let Some(pulse) = self.open.take() else { return };
        self.pulses.push_back(pulse);
        if self.pulses.len() > 6 {
            self.pulses.pop_front();
        }
        self.look(self.pulses.len().checked_sub(5), Some(pulse.start));
    }

    /// Whether the four pulses from `first` on are the rhythm, no other pulse near them.
    fn look(&mut self, first: Option<usize>, next: Option<i64>) {
        let Some(first) = first else { return };
        let four: Vec<Pulse> = self.pulses.iter().skip(first).take(4).copied().collect();
        let before = first.checked_sub(1).and_then(|i| self.pulses.get(i)).map(|p| p.end);
        let [a, b, c, d] = four[..] else { return };
        if [b, c, d].iter().any(|p| p.bin.abs_diff(a.bin) > 1) {
            return;
        }
        let length = |p: Pulse| (p.end - p.start) as f32;
        let (short, gaps) = ([length(a), length(c), length(d)], [b.start - a.end, d.start - c.end]);
        // A window is longer than a hop: pulses seem longer and gaps shorter by as much, so that a
        // pulse with its gap, twice the dot, is what is measured best.
        let beat = (b.start - a.start + d.start - c.start) as f32 / 4.0;
        let apart = (c.start - b.start) as f32;
        let well = short.iter().all(|s| (0.4 * beat..=1.7 * beat).contains(s))
            && gaps.iter().all(|g| (0.4 * beat..=1.7 * beat).contains(&(*g as f32)))
            && (2.2 * beat..=4.2 * beat).contains(&length(b))
            && (4.2 * beat..=10.0 * beat).contains(&apart)
            && DOT.contains(&(beat * HOP_MS as f32));
        let alone = |other: i64| other as f32 >= 2.2 * beat;
        let lonely = before.is_none_or(|end| alone(a.start - end))
            && next.is_none_or(|start| alone(start - d.end));
        if well && lonely && self.found.len() < MOST {
            self.found.push((
                a.start * HOP_MS,
                d.end * HOP_MS,
                a.bin as f32 * BIN,
                beat * HOP_MS as f32,
            ));
        }
    }

    /// What was found, when the stream has ended.
    pub fn finish(mut self) -> Vec<Label> {
        self.close();
        self.look(self.pulses.len().checked_sub(4), None);
        let label = |(start, end, hertz, dot): (i64, i64, f32, f32)| Label {
            system: "explicit-audio".to_owned(),
            place: format!("sound from {:.2} to {:.2} s", start as f64 / 1e3, end as f64 / 1e3),
            content: format!("rhythm short-long short-short at {hertz:.0} Hz, dots of {dot:.0} ms"),
            verdict: LabelVerdict::Compliant,
            deviations: Vec::new(),
            ai: Some(true),
            seen: Seen { start_ms: Some(start), end_ms: Some(end), region: None },
        };
        self.found.into_iter().map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dots, dashes and pauses as (sounds, dots).
    fn sound(units: &[(bool, f32)], dot_ms: f32, hertz: f32) -> Vec<f32> {
        let mut out = Vec::new();
        for (on, dots) in units {
            let n = (dots * dot_ms * 16.0) as usize;
            out.extend((0..n).map(|i| {
                // Edges of 5 ms, as a signal that does not click has.
                let edge = (i.min(n - i) as f32 / 80.0).min(1.0);
                let t = i as f32 / RATE as f32;
                if *on { 0.2 * edge * (2.0 * std::f32::consts::PI * hertz * t).sin() } else { 0.0 }
            }));
        }
        out
    }

    const AI: [(bool, f32); 9] = [
        (false, 5.0),
        (true, 1.0),
        (false, 1.0),
        (true, 3.0),
        (false, 3.0),
        (true, 1.0),
        (false, 1.0),
        (true, 1.0),
        (false, 6.0),
    ];

    fn hear(samples: &[f32]) -> Vec<Label> {
        let mut rhythm = Rhythm::default();
        for (i, part) in samples.chunks(1_000).enumerate() {
            rhythm.push(i as i64 * 1_000, part);
        }
        rhythm.finish()
    }

    #[test]
    fn the_rhythm_is_found_at_many_speeds_and_pitches() {
        for dot in [60.0, 80.0, 120.0, 250.0] {
            for hertz in [440.0, 800.0, 2_000.0] {
                let found = hear(&sound(&AI, dot, hertz));
                assert_eq!(found.len(), 1, "{dot} ms, {hertz} Hz: {found:?}");
                assert_eq!(found[0].ai, Some(true));
                let start: f32 = found[0].place.split(' ').nth(2).unwrap().parse().unwrap();
                assert!((start - 5.0 * dot / 1e3).abs() < 0.04, "{}", found[0].place);
            }
        }
    }

    #[test]
    fn it_is_found_in_the_middle_and_over_quiet_noise() {
        let mut state = 1u64;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut samples: Vec<f32> = (0..40_000).map(|_| 0.3 * noise()).collect();
        samples.extend(sound(&AI, 90.0, 1_000.0).iter().map(|v| v + 0.01 * noise()));
        samples.extend((0..40_000).map(|_| 0.3 * noise()));
        assert_eq!(hear(&samples).len(), 1);
    }

    #[test]
    fn other_signals_are_not_the_rhythm() {
        let even: Vec<(bool, f32)> = (0..20).map(|i| (i % 2 == 0, 1.0)).collect();
        assert!(hear(&sound(&even, 100.0, 800.0)).is_empty(), "even beeps");
        let steady = sound(&[(true, 50.0)], 100.0, 800.0);
        assert!(hear(&steady).is_empty(), "a tone");
        // "L" (·–··) and "AI" with more letters around it.
        let letter = [
            (false, 5.0),
            (true, 1.0),
            (false, 1.0),
            (true, 3.0),
            (false, 1.0),
            (true, 1.0),
            (false, 1.0),
            (true, 1.0),
            (false, 6.0),
        ];
        assert!(hear(&sound(&letter, 80.0, 800.0)).is_empty(), "another letter");
        let mut longer = AI[..8].to_vec();
        longer.extend([(false, 1.0), (true, 1.0), (false, 5.0)]);
        assert!(hear(&sound(&longer, 80.0, 800.0)).is_empty(), "AS");
        // The same lengths, but a melody.
        let mut melody = Vec::new();
        for (i, unit) in AI.iter().enumerate() {
            melody.extend(sound(&[*unit], 100.0, 500.0 + 90.0 * i as f32));
        }
        assert!(hear(&melody).is_empty(), "a melody");
        assert!(hear(&[]).is_empty());
    }

    #[test]
    fn a_gap_ends_what_was_heard() {
        let samples = sound(&AI, 80.0, 800.0);
        let (first, second) = samples.split_at(samples.len() / 2);
        let mut rhythm = Rhythm::default();
        rhythm.push(0, first);
        rhythm.push(100_000, second);
        assert!(rhythm.finish().is_empty());
    }
}
