//! One stream of sound: voice activity → windows → scores and speakers, with bounded sound in work.

use std::collections::VecDeque;

use super::{
    faces::{scores, segment, unjudged},
    owner::{Client, InferenceError, Ticket},
};
use crate::{
    detect::voice_clone::VoiceScore,
    media::Audio,
    models::{silero_vad::VadState, speaker_encoder::Embedding, whisper_encoder::TOKEN_MS},
    report::{DetectorKind, Reason, ReasonCode, Segment, Track, TrackKind},
    speech::{
        RATE, SPEAKER,
        activity::FRAME,
        quality::{BAND_LIMIT_HZ, Background, CLIPPED, Spectrum, clipped, level_db},
        speakers::{SpeakerRule, Speakers},
        to_ms,
        windows::{MIN_SPEECH, SpeechWindow, Windower},
    },
    verdict::{
        boundaries::{Trace, sharpen},
        calibration::Calibration,
        segments::{Rule, Window, segments},
    },
};

/// Sound that goes to the voice activity network in one request: about 4 s.
const CHUNK: usize = 128 * FRAME;
/// Requests for scores that may be under way; a window is 256 KB.
const SCORES_IN_WORK: usize = 16;
/// What a window with a narrow band or clipping counts.
const WEAK: f32 = 0.5;

/// A window, as far as it is known before the networks answer.
#[derive(Clone, Copy)]
struct Heard {
    /// In samples.
    start: i64,
    end: i64,
    /// The part of it that no other speaker's window is nearer to.
    from: i64,
    to: i64,
    narrow: bool,
    clipped: bool,
}

struct Scoring {
    windows: Vec<Heard>,
    scores: Ticket<Vec<VoiceScore>>,
    speakers: Ticket<Vec<Embedding>>,
}

pub struct Voice {
    client: Client,
    stream: usize,
    /// Position of the first sample that the network has not seen.
    next: Option<i64>,
    /// Sound from there on.
    pending: Vec<f32>,
    state: Box<VadState>,
    windower: Windower,
    spectrum: Spectrum,
    background: Background,
    scoring: VecDeque<Scoring>,
    /// Windows with their raw scores, in order of time.
    scores: Vec<(Heard, f32)>,
    /// The moments' scores, where the network gives any.
    trace: Trace,
    speakers: Speakers,
    heard: i64,
    loudest_db: f32,
    pub windows: u64,
}

impl Voice {
    pub fn new(client: Client, stream: usize) -> Self {
        Self {
            client,
            stream,
            next: None,
            pending: Vec::new(),
            state: Box::default(),
            windower: Windower::default(),
            spectrum: Spectrum::default(),
            background: Background::default(),
            scoring: VecDeque::new(),
            scores: Vec::new(),
            trace: Trace::new(TOKEN_MS),
            speakers: Speakers::default(),
            heard: 0,
            loudest_db: -120.0,
            windows: 0,
        }
    }

    /// Takes the stream's next run of sound.
    pub fn push(&mut self, audio: Audio) -> Result<(), InferenceError> {
        let expected = self.next.map(|next| next + self.pending.len() as i64);
        if expected != Some(audio.start) {
            self.break_off(audio.start)?;
        }
        self.heard += audio.samples.len() as i64;
        self.pending.extend(audio.samples);
        while self.pending.len() >= CHUNK {
            self.listen(CHUNK)?;
        }
        Ok(())
    }

    /// Has the first `n` samples in work judged, whole frames only.
    fn listen(&mut self, n: usize) -> Result<(), InferenceError> {
        let chunk: Vec<f32> = self.pending.drain(..n).collect();
        self.next = self.next.map(|next| next + n as i64);
        let state = std::mem::take(&mut self.state);
        let (probabilities, state) = self.client.activity(chunk.clone(), state).wait()?;
        self.state = state;
        let mut windows = Vec::new();
        let (frames, _) = chunk.as_chunks::<FRAME>();
        for (frame, probability) in frames.iter().zip(probabilities) {
            self.loudest_db = self.loudest_db.max(level_db(frame));
            if probability < 0.35 {
                self.background.push(frame);
            }
            self.windower.push(frame, probability, &mut windows);
        }
        self.ask(windows)
    }

    fn ask(&mut self, windows: Vec<SpeechWindow>) -> Result<(), InferenceError> {
        if windows.is_empty() {
            return Ok(());
        }
        self.windows += windows.len() as u64;
        let heard = windows
            .iter()
            .map(|w| Heard {
                start: w.start,
                end: w.end,
                from: w.start,
                to: w.end,
                narrow: self.spectrum.upper_edge_hz(&w.wave) < BAND_LIMIT_HZ,
                clipped: clipped(&w.wave) > CLIPPED,
            })
            .collect();
        let middles = windows.iter().map(|w| w.wave[SPEAKER].to_vec()).collect();
        let waves = windows.into_iter().map(|w| w.wave).collect();
        self.scoring.push_back(Scoring {
            windows: heard,
            scores: self.client.clone_scores(waves),
            speakers: self.client.speakers(middles),
        });
        while self.scoring.len() > SCORES_IN_WORK {
            self.scored()?;
        }
        Ok(())
    }

    fn scored(&mut self) -> Result<(), InferenceError> {
        let Some(scoring) = self.scoring.pop_front() else { return Ok(()) };
        for (heard, score) in scoring.windows.into_iter().zip(scoring.scores.wait()?) {
            // Of a short stretch that was repeated, the first time counts.
            let own = (to_ms(heard.end - heard.start) / TOKEN_MS) as usize;
            let moments = score.moments.get(..own).unwrap_or(&score.moments);
            self.trace.add(to_ms(heard.start), moments);
            self.scores.push((heard, score.logit));
        }
        for embedding in scoring.speakers.wait()? {
            self.speakers.push(&embedding);
        }
        Ok(())
    }

    /// The sound ends here or goes on elsewhere: what is in work is judged to its last sample.
    fn break_off(&mut self, next: i64) -> Result<(), InferenceError> {
        if !self.pending.is_empty() {
            self.pending.resize(self.pending.len().next_multiple_of(FRAME), 0.0);
            self.listen(self.pending.len())?;
        }
        let mut windows = Vec::new();
        self.windower.gap(next, &mut windows);
        self.ask(windows)?;
        *self.state = VadState::default();
        self.next = Some(next);
        Ok(())
    }

    /// Waits for everything in work.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        let end = self.next.unwrap_or(0) + self.pending.len() as i64;
        self.break_off(end)?;
        while !self.scoring.is_empty() {
            self.scored()?;
        }
        Ok(())
    }

    /// Takes the scores that are there, without waiting for others.
    pub fn take_ready(&mut self) -> Result<(), InferenceError> {
        let ready = |s: &Scoring| s.scores.is_ready() && s.speakers.is_ready();
        while self.scoring.front().is_some_and(ready) {
            self.scored()?;
        }
        Ok(())
    }

    /// The judged segments of what has its scores so far, as [`finish`](Self::finish) would give them
    /// but for reasons that hold for the whole stream, and the number of speakers.
    pub fn so_far(&self, number: usize, calibration: &Calibration) -> (Vec<Segment>, usize) {
        if self.scores.is_empty() {
            return (Vec::new(), 0);
        }
        let speakers = self.speakers.clone().finish(&SpeakerRule::WINDOWS);
        let voices = by_speaker(&mut self.scores.clone(), &speakers);
        let tracks = voices.len();
        let segments = voices.into_iter().enumerate().flat_map(|(i, windows)| {
            let reasons = weaknesses(&windows);
            self.track(voice_id(number + i), &windows, reasons, calibration).1
        });
        (segments.collect(), tracks)
    }

    /// A track for each speaker, numbered from `number` on in the order of their first words.
    /// Without speech there is none, only reasons.
    pub fn finish(
        mut self,
        number: usize,
        calibration: &Calibration,
    ) -> (Vec<Track>, Vec<Segment>, Vec<Reason>) {
        let (speech, short) = (self.windower.speech(), self.windower.short());
        let music = self.background.music_s().map(|s| {
            Reason::new(
                ReasonCode::Music,
                format!("{s:.1} s of tonal sound beside the speech, music most likely"),
            )
        });
        if speech == 0 {
            let mut reasons = self.no_speech();
            reasons.extend(music);
            return (Vec::new(), Vec::new(), reasons);
        }
        let speakers = std::mem::take(&mut self.speakers).finish(&SpeakerRule::WINDOWS);
        let voices = by_speaker(&mut self.scores, &speakers);
        // What is said of the stream holds for all its speakers.
        let mut too_short = None;
        if short > 0 && (self.scores.is_empty() || short * 4 > speech) {
            too_short = Some(Reason::new(
                ReasonCode::TooShort,
                format!(
                    "{:.1} of {:.1} s of speech lie in stretches under 1 s and were not judged",
                    seconds(short),
                    seconds(speech)
                ),
            ));
        }
        let (mut tracks, mut segments) = (Vec::new(), Vec::new());
        for (i, windows) in voices.into_iter().enumerate() {
            let mut reasons: Vec<Reason> = too_short.iter().cloned().collect();
            reasons.extend(weaknesses(&windows));
            reasons.extend(music.iter().cloned());
            let id = voice_id(number + i);
            let (track, found) = self.track(id, &windows, reasons, calibration);
            tracks.push(track);
            segments.extend(found);
        }
        (tracks, segments, Vec::new())
    }

    /// Why there is no track.
    fn no_speech(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.heard < MIN_SPEECH {
            reasons.push(Reason::new(
                ReasonCode::TooShort,
                format!(
                    "audio stream {}: {:.2} s of sound, at least 1 s of speech is needed",
                    self.stream,
                    seconds(self.heard)
                ),
            ));
        }
        reasons.push(Reason::new(
            ReasonCode::NoSpeech,
            format!(
                "audio stream {}: no speech in {:.1} s of sound (loudest {:.0} dBFS, {:.1} s not silent)",
                self.stream,
                seconds(self.heard),
                self.loudest_db,
                self.background.loud_s()
            ),
        ));
        reasons
    }

    /// One speaker's windows, in order of time.
    fn track(
        &self,
        id: String,
        heard: &[(Heard, f32)],
        reasons: Vec<Reason>,
        calibration: &Calibration,
    ) -> (Track, Vec<Segment>) {
        let windows: Vec<Window> = heard
            .iter()
            .map(|(heard, score)| Window {
                start_ms: to_ms(heard.start),
                end_ms: to_ms(heard.end),
                logit: calibration.logit(*score),
                weight: if heard.narrow || heard.clipped { WEAK } else { 1.0 },
                distance: 0.0,
            })
            .collect();
        let mut stretches = segments(&windows, &Rule::SPEECH, calibration);
        sharpen(&mut stretches, &self.trace);
        for s in &mut stretches {
            let part = &heard[s.first..s.first + s.windows];
            s.start_ms = part.first().map_or(s.start_ms, |(h, _)| s.start_ms.max(to_ms(h.from)));
            s.end_ms = part.last().map_or(s.end_ms, |(h, _)| s.end_ms.min(to_ms(h.to)));
            s.peak_ms = s.peak_ms.clamp(s.start_ms, s.end_ms.max(s.start_ms));
        }
        let mut found: Vec<Segment> = stretches
            .into_iter()
            .map(|s| segment(&id, DetectorKind::VoiceClone, s, reasons.clone()))
            .collect();
        let start_ms = windows.first().map_or(0, |w| w.start_ms);
        let end_ms = windows.iter().map(|w| w.end_ms).max().unwrap_or_else(|| to_ms(self.heard));
        if found.is_empty() {
            let kind = DetectorKind::VoiceClone;
            found.push(unjudged(&id, kind, start_ms, end_ms, reasons.clone()));
        }
        let track = Track {
            id,
            kind: TrackKind::Speech,
            stream: Some(self.stream),
            start_ms,
            end_ms,
            boxes: Vec::new(),
            windows: scores(&windows, &Rule::SPEECH),
            reasons,
        };
        (track, found)
    }
}

/// The name of a speaker, counted from 1.
fn voice_id(number: usize) -> String {
    format!("speech-{number}")
}

/// Each speaker's windows, in order of time. There is one, without windows, for speech that was all too
/// short to judge.
fn by_speaker(windows: &mut [(Heard, f32)], speakers: &[usize]) -> Vec<Vec<(Heard, f32)>> {
    let mut voices: Vec<Vec<(Heard, f32)>> = vec![Vec::new()];
    part_turns(windows, speakers);
    for (window, speaker) in windows.iter().zip(speakers) {
        if *speaker >= voices.len() {
            voices.resize(speaker + 1, Vec::new());
        }
        voices[*speaker].push(*window);
    }
    for windows in &mut voices {
        windows.sort_by_key(|(heard, _)| (heard.start, heard.end));
    }
    voices
}

/// Where one speaker's window overlaps the next one of another, each keeps what is nearer to its own
/// middle, so that stretches of two who talk in turn don't overlap by most of a window.
fn part_turns(windows: &mut [(Heard, f32)], speakers: &[usize]) {
    for i in 1..windows.len().min(speakers.len()) {
        let [.., (before, _), (after, _)] = &mut windows[..=i] else { return };
        if speakers[i - 1] != speakers[i] && after.start < before.end {
            let turn = (before.start + before.end + after.start + after.end) / 4;
            before.to = before.to.min(turn);
            after.from = after.from.max(turn);
        }
    }
}

fn seconds(samples: i64) -> f32 {
    samples as f32 / RATE as f32
}

/// What weakens the judgement on some windows.
fn weaknesses(windows: &[(Heard, f32)]) -> Vec<Reason> {
    let judged = windows.len();
    let mut reasons = Vec::new();
    let narrow = windows.iter().filter(|(heard, _)| heard.narrow).count();
    if narrow * 2 > judged {
        reasons.push(Reason::new(
            ReasonCode::BandLimited,
            format!("{narrow} of {judged} windows end below {BAND_LIMIT_HZ:.0} Hz"),
        ));
    }
    let clipped = windows.iter().filter(|(heard, _)| heard.clipped).count();
    if clipped * 2 > judged {
        reasons.push(Reason::new(
            ReasonCode::Clipped,
            format!("{clipped} of {judged} windows are clipped"),
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_parts_the_windows_of_two_speakers() {
        let window = |start: i64, end: i64| {
            (Heard { start, end, from: start, to: end, narrow: false, clipped: false }, 0.0)
        };
        let mut all = [window(0, 64), window(16, 80), window(32, 96), window(200, 264)];
        part_turns(&mut all, &[0, 0, 1, 0]);
        let parts: Vec<(i64, i64)> = all.iter().map(|(h, _)| (h.from, h.to)).collect();
        // The last one lies apart: nothing to part.
        assert_eq!(parts, [(0, 64), (16, 56), (56, 96), (200, 264)]);
    }
}
