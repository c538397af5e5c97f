//! One stream of sound: the stretches of it in which PerTh is looked for, with bounded sound in work.
//!
//! A mark is in all of what a program of synthesis made, so a part of it is enough: of every
//! [`SPAN`] the loudest [`WINDOW`], since silence carries no mark.

use std::collections::VecDeque;

use super::owner::{Client, InferenceError, Ticket};
use crate::{
    media::Audio,
    report::{Label, LabelVerdict},
    speech::{RATE, WINDOW},
};

/// Of each of these many samples one window is looked at.
const SPAN: usize = 3 * WINDOW;
/// Places in it from which a window may begin lie so far apart.
const STEP: usize = RATE;
/// What is shorter is not looked at.
const SHORTEST: usize = RATE;
/// Requests that may be under way; a window is 256 KB.
const IN_WORK: usize = 4;
/// How sure the network must be of a window (`docs/labels.md`).
const SURE: f32 = 0.95;

struct Asked {
    start: i64,
    end: i64,
    answer: Ticket<Vec<Option<f32>>>,
}

/// Listens to one stream.
pub struct Watermarks {
    client: Client,
    /// Time of the first sample in `pending`, in samples.
    at: i64,
    pending: Vec<f32>,
    asked: VecDeque<Asked>,
    /// Windows that were not silent.
    windows: usize,
    /// Start, end and confidence of those with the mark.
    found: Vec<(i64, i64, f32)>,
}

impl Watermarks {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            at: 0,
            pending: Vec::new(),
            asked: VecDeque::new(),
            windows: 0,
            found: Vec::new(),
        }
    }

    /// Takes the stream's next run of sound.
    pub fn push(&mut self, audio: &Audio) -> Result<(), InferenceError> {
        if audio.start != self.at + self.pending.len() as i64 {
            self.ask(self.pending.len())?;
            self.at = audio.start;
        }
        self.pending.extend_from_slice(&audio.samples);
        while self.pending.len() >= SPAN {
            self.ask(SPAN)?;
        }
        Ok(())
    }

    /// Has the loudest window of the first `n` samples looked at, all of them where there are fewer.
    fn ask(&mut self, n: usize) -> Result<(), InferenceError> {
        let from = loudest(&self.pending[..n]);
        let wave = &self.pending[from..n.min(from + WINDOW)];
        if wave.len() >= SHORTEST {
            let start = self.at + from as i64;
            let end = start + wave.len() as i64;
            let answer = self.client.marks(vec![wave.to_vec()]);
            self.asked.push_back(Asked { start, end, answer });
        }
        self.pending.drain(..n);
        self.at += n as i64;
        while self.asked.len() > IN_WORK {
            self.answered()?;
        }
        Ok(())
    }

    fn answered(&mut self) -> Result<(), InferenceError> {
        let Some(asked) = self.asked.pop_front() else { return Ok(()) };
        for sure in asked.answer.wait()?.into_iter().flatten() {
            self.windows += 1;
            if sure >= SURE {
                self.found.push((asked.start, asked.end, sure.min(1.0)));
            }
        }
        Ok(())
    }

    /// Waits for everything in work, to the last sample.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        self.ask(self.pending.len())?;
        while !self.asked.is_empty() {
            self.answered()?;
        }
        Ok(())
    }

    /// The mark, where it was found.
    pub fn finish(self) -> Option<Label> {
        label(&self.found, self.windows)
    }
}

/// Where the window begins whose samples have the most energy.
fn loudest(samples: &[f32]) -> usize {
    let energy = |from: &usize| {
        let window = samples.iter().skip(*from).take(WINDOW);
        window.map(|v| f64::from(*v).powi(2)).sum::<f64>()
    };
    let last = samples.len().saturating_sub(WINDOW);
    let starts = (0..=last).step_by(STEP).map(|from| (from, energy(&from)));
    starts.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(from, _)| from)
}

fn label(found: &[(i64, i64, f32)], windows: usize) -> Option<Label> {
    let (first, last) = (found.first()?, found.last()?);
    let sure = found.iter().map(|(_, _, sure)| sure).sum::<f32>() / found.len() as f32;
    let seconds = |samples: i64| samples as f64 / RATE as f64;
    Some(Label {
        system: "watermark".to_owned(),
        place: format!("sound from {:.2} to {:.2} s", seconds(first.0), seconds(last.1)),
        content: format!(
            "PerTh (Resemble AI): in {} of {windows} stretches that were looked at, confidence {sure:.4}",
            found.len()
        ),
        verdict: LabelVerdict::Inconclusive,
        deviations: Vec::new(),
        ai: Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_window_is_chosen() {
        let mut samples = vec![0.0f32; SPAN];
        assert_eq!(loudest(&samples[..WINDOW / 2]), 0);
        samples[5 * RATE..7 * RATE].fill(0.5);
        let from = loudest(&samples);
        assert!((3 * RATE..=5 * RATE).contains(&from), "{from}");
        samples[SPAN - 1] = 100.0;
        assert_eq!(loudest(&samples), SPAN - WINDOW);
    }

    #[test]
    fn a_label_says_where_and_how_surely() {
        assert!(label(&[], 9).is_none());
        let rate = RATE as i64;
        let label = label(&[(rate, 5 * rate, 0.96), (20 * rate, 24 * rate, 1.0)], 3).unwrap();
        assert_eq!(label.place, "sound from 1.00 to 24.00 s");
        assert!(label.content.contains("in 2 of 3") && label.content.ends_with("0.9800"));
        assert_eq!(label.ai, Some(true));
    }
}
