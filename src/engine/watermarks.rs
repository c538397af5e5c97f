//! One stream of sound: windows in which PerTh is looked for, with bounded sound in work.
//!
//! The detector takes some music for marked, and what is marked is speech; so a window counts only if
//! it holds speech, too, and most of those near each other have to agree.

use std::collections::VecDeque;

use super::owner::{Client, InferenceError, Ticket};
use crate::{
    media::Audio,
    models::silero_vad::VadState,
    report::{Label, LabelVerdict, Seen},
    speech::{RATE, WINDOW, activity::FRAME, to_ms},
};

/// A stream of less than a window is looked at as a whole, unless it is shorter than this.
const SHORTEST: usize = RATE;
/// Requests that may be under way; a window is 256 KB.
const IN_WORK: usize = 4;
/// How sure the network must be of a window (`docs/labels.md`).
const SURE: f32 = 0.9;
/// The mark is there where three of five carry it of so many windows in a row, 40 s; of all of them
/// where a stream has fewer.
const STRETCH: usize = 10;
/// Frames of a window that have to be speech, 1 s, and from which probability on one is.
const SPEECH_FRAMES: usize = RATE / FRAME;
const SPEECH: f32 = 0.5;

struct Asked {
    start: i64,
    wave: Vec<f32>,
    answer: Ticket<Vec<Option<f32>>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    /// In samples.
    start: i64,
    end: i64,
    /// How sure the network is of the mark, where the window carries it and speech.
    mark: Option<f32>,
}

/// Listens to one stream.
pub struct Watermarks {
    client: Client,
    /// Time of the first sample in `pending`, in samples.
    at: i64,
    pending: Vec<f32>,
    asked: VecDeque<Asked>,
    /// Those that were not digital silence.
    windows: Vec<Window>,
}

impl Watermarks {
    pub fn new(client: Client) -> Self {
        Self { client, at: 0, pending: Vec::new(), asked: VecDeque::new(), windows: Vec::new() }
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
        let answer = self.client.watermarks(vec![wave.clone()]);
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
        let end = start + wave.len() as i64;
        let mark = (sure >= SURE && self.is_speech(wave)?).then_some(sure.min(1.0));
        self.windows.push(Window { start, end, mark });
        Ok(())
    }

    fn is_speech(&self, mut wave: Vec<f32>) -> Result<bool, InferenceError> {
        wave.truncate(wave.len() / FRAME * FRAME);
        let (probabilities, _) = self.client.activity(wave, Box::<VadState>::default()).wait()?;
        Ok(probabilities.iter().filter(|p| **p >= SPEECH).count() >= SPEECH_FRAMES)
    }

    /// Waits for everything in work.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        let looked_at = !self.windows.is_empty() || !self.asked.is_empty();
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
        label(&self.windows)
    }
}

/// The windows with the mark that lie in stretches where most have it.
fn marked(windows: &[Window]) -> Vec<Window> {
    let length = STRETCH.min(windows.len()).max(1);
    let needed = (3 * length).div_ceil(5);
    let mut in_stretch = vec![false; windows.len()];
    for (i, stretch) in windows.windows(length).enumerate() {
        if stretch.iter().filter(|w| w.mark.is_some()).count() >= needed {
            in_stretch[i..i + length].fill(true);
        }
    }
    let kept = windows.iter().zip(in_stretch).filter(|(w, kept)| *kept && w.mark.is_some());
    kept.map(|(w, _)| *w).collect()
}

fn label(windows: &[Window]) -> Option<Label> {
    let marked = marked(windows);
    let (first, last) = (marked.first()?, marked.last()?);
    let sure = marked.iter().filter_map(|w| w.mark).sum::<f32>() / marked.len() as f32;
    let seconds = |samples: i64| samples as f64 / RATE as f64;
    Some(Label {
        system: "watermark".to_owned(),
        place: format!("sound from {:.2} to {:.2} s", seconds(first.start), seconds(last.end)),
        content: format!(
            "PerTh (Resemble AI): in {} of {} windows of {} s, confidence {sure:.4}",
            marked.len(),
            windows.len(),
            WINDOW / RATE
        ),
        verdict: LabelVerdict::Inconclusive,
        deviations: Vec::new(),
        ai: Some(true),
        seen: Seen {
            start_ms: Some(to_ms(first.start)),
            end_ms: Some(to_ms(last.end)),
            region: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of 4 s, each marked or not, as surely as they say.
    fn judge(marks: &[Option<f32>]) -> Option<Label> {
        let window = |(i, mark): (usize, &Option<f32>)| {
            let start = (i * WINDOW) as i64;
            Window { start, end: start + WINDOW as i64, mark: *mark }
        };
        label(&marks.iter().enumerate().map(window).collect::<Vec<_>>())
    }

    #[test]
    fn most_of_a_stretch_have_to_agree() {
        let mut marks = [None; 30];
        assert!(judge(&marks).is_none());
        for i in [3, 4, 6, 8, 12, 20, 27] {
            marks[i] = Some(1.0);
        }
        // Five of 3 to 12.
        assert!(judge(&marks).is_none());
        marks[9] = Some(0.97);
        let label = judge(&marks).unwrap();
        // Those further off do not count.
        assert_eq!(label.place, "sound from 12.00 to 52.00 s");
        assert_eq!((label.seen.start_ms, label.seen.end_ms), (Some(12_000), Some(52_000)));
        assert!(label.content.contains("in 6 of 30"), "{}", label.content);
        assert!(label.content.ends_with("0.9950"), "{}", label.content);
        assert_eq!(label.ai, Some(true));
    }

    #[test]
    fn in_a_short_stream_it_is_most_of_all() {
        let one = Some(1.0);
        assert!(judge(&[]).is_none());
        assert!(judge(&[None]).is_none());
        assert!(judge(&[one]).is_some());
        assert!(judge(&[one, None]).is_none());
        assert!(judge(&[one, one]).is_some());
        assert!(judge(&[one, None, one]).is_some());
        assert!(judge(&[one, None, None, one]).is_none());
    }
}
