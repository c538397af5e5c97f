//! One stream of sound: windows in which PerTh is looked for, with bounded sound in work.
//!
//! The detector takes some music for marked, and what is marked is speech; so a window counts only if
//! it holds speech, too, and in all but short streams several in a row have to agree.

use std::collections::VecDeque;

use super::owner::{Client, InferenceError, Ticket};
use crate::{
    media::Audio,
    models::silero_vad::VadState,
    report::{Label, LabelVerdict},
    speech::{RATE, WINDOW, activity::FRAME},
};

/// A stream of less than a window is looked at as a whole, unless it is shorter than this.
const SHORTEST: usize = RATE;
/// Requests that may be under way; a window is 256 KB.
const IN_WORK: usize = 4;
/// How sure the network must be of a window (`docs/labels.md`).
const SURE: f32 = 0.9;
/// Windows in a row that have to carry the mark; fewer where a stream has no more.
const IN_A_ROW: usize = 3;
/// Frames of a window that have to be speech, 1 s, and from which probability on one is.
const SPEECH_FRAMES: usize = RATE / FRAME;
const SPEECH: f32 = 0.5;

struct Asked {
    start: i64,
    wave: Vec<f32>,
    answer: Ticket<Vec<Option<f32>>>,
}

/// Windows in a row with the mark.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    /// In samples.
    start: i64,
    end: i64,
    windows: usize,
    /// Of what the network said.
    sum: f32,
}

/// Listens to one stream.
pub struct Watermarks {
    client: Client,
    /// Time of the first sample in `pending`, in samples.
    at: i64,
    pending: Vec<f32>,
    asked: VecDeque<Asked>,
    /// Windows that were not digital silence.
    windows: usize,
    runs: Vec<Run>,
}

impl Watermarks {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            at: 0,
            pending: Vec::new(),
            asked: VecDeque::new(),
            windows: 0,
            runs: Vec::new(),
        }
    }

    /// Takes the stream's next run of sound.
    pub fn push(&mut self, audio: &Audio) -> Result<(), InferenceError> {
        if audio.start != self.at + self.pending.len() as i64 {
            self.pending.clear();
            self.at = audio.start;
        }
        self.pending.extend_from_slice(&audio.samples);
        while self.pending.len() >= WINDOW {
            self.ask(WINDOW)?;
        }
        Ok(())
    }

    /// Has the first `n` samples in work looked at.
    fn ask(&mut self, n: usize) -> Result<(), InferenceError> {
        let wave: Vec<f32> = self.pending.drain(..n).collect();
        let answer = self.client.marks(vec![wave.clone()]);
        self.asked.push_back(Asked { start: self.at, wave, answer });
        self.at += n as i64;
        while self.asked.len() > IN_WORK {
            self.answered()?;
        }
        Ok(())
    }

    fn answered(&mut self) -> Result<(), InferenceError> {
        let Some(Asked { start, wave, answer }) = self.asked.pop_front() else { return Ok(()) };
        let Some(sure) = answer.wait()?.into_iter().flatten().next() else { return Ok(()) };
        self.windows += 1;
        if sure >= SURE {
            let end = start + wave.len() as i64;
            if self.is_speech(wave)? {
                add(&mut self.runs, Run { start, end, windows: 1, sum: sure.min(1.0) });
            }
        }
        Ok(())
    }

    fn is_speech(&self, mut wave: Vec<f32>) -> Result<bool, InferenceError> {
        wave.truncate(wave.len() / FRAME * FRAME);
        let (probabilities, _) = self.client.activity(wave, Box::<VadState>::default()).wait()?;
        Ok(probabilities.iter().filter(|p| **p >= SPEECH).count() >= SPEECH_FRAMES)
    }

    /// Waits for everything in work.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        let looked_at = self.windows > 0 || !self.asked.is_empty();
        if !looked_at && self.pending.len() >= SHORTEST {
            self.ask(self.pending.len())?;
        }
        while !self.asked.is_empty() {
            self.answered()?;
        }
        Ok(())
    }

    /// The mark, where it was found.
    pub fn finish(self) -> Option<Label> {
        label(&self.runs, self.windows)
    }
}

/// Lengthens the last run by a window that follows it, or begins a new one.
fn add(runs: &mut Vec<Run>, window: Run) {
    match runs.last_mut() {
        Some(run) if run.end == window.start => {
            run.end = window.end;
            run.windows += 1;
            run.sum += window.sum;
        }
        _ => runs.push(window),
    }
}

fn label(runs: &[Run], windows: usize) -> Option<Label> {
    let long = || runs.iter().filter(|run| run.windows >= windows.clamp(1, IN_A_ROW));
    let (first, last) = (long().next()?, long().next_back()?);
    let marked: usize = long().map(|run| run.windows).sum();
    let sure = long().map(|run| run.sum).sum::<f32>() / marked as f32;
    let seconds = |samples: i64| samples as f64 / RATE as f64;
    Some(Label {
        system: "watermark".to_owned(),
        place: format!("sound from {:.2} to {:.2} s", seconds(first.start), seconds(last.end)),
        content: format!(
            "PerTh (Resemble AI): in {marked} of {windows} stretches of {} s, confidence {sure:.4}",
            WINDOW / RATE
        ),
        verdict: LabelVerdict::Inconclusive,
        deviations: Vec::new(),
        ai: Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs out of windows of 4 s, each marked or not, as surely as they say.
    fn judge(windows: &[Option<f32>]) -> Option<Label> {
        let mut runs = Vec::new();
        for (i, sure) in windows.iter().enumerate() {
            let start = (i * WINDOW) as i64;
            if let Some(sum) = *sure {
                add(&mut runs, Run { start, end: start + WINDOW as i64, windows: 1, sum });
            }
        }
        label(&runs, windows.len())
    }

    #[test]
    fn several_in_a_row_have_to_agree() {
        let one = Some(1.0);
        assert!(judge(&[]).is_none());
        assert!(judge(&[None, one, one, None, one, one, None]).is_none());
        let windows = [None, one, Some(0.97), one, None, one, one, one, one, one];
        let label = judge(&windows).unwrap();
        assert_eq!(label.place, "sound from 4.00 to 40.00 s");
        assert!(label.content.contains("in 8 of 10"), "{}", label.content);
        assert!(label.content.ends_with("0.9963"), "{}", label.content);
        assert_eq!(label.ai, Some(true));
    }

    #[test]
    fn a_short_stream_has_fewer() {
        let one = Some(1.0);
        assert!(judge(&[one]).is_some());
        assert!(judge(&[one, one]).is_some());
        assert!(judge(&[one, None]).is_none());
        assert!(judge(&[one, one, None]).is_none());
    }
}
