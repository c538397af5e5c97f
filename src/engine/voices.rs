//! One stream of sound: voice activity → windows → scores, with bounded sound in work.

use std::collections::VecDeque;

use super::{
    faces::{scores, segment, unjudged},
    owner::{Client, InferenceError, Ticket},
};
use crate::{
    media::Audio,
    models::silero_vad::VadState,
    report::{DetectorKind, Reason, ReasonCode, Segment, Track, TrackKind},
    speech::{
        RATE,
        activity::FRAME,
        quality::{BAND_LIMIT_HZ, Background, CLIPPED, Spectrum, clipped, level_db},
        to_ms,
        windows::{MIN_SPEECH, SpeechWindow, Windower},
    },
    verdict::{
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

struct Scoring {
    windows: Vec<(i64, i64, f32)>,
    ticket: Ticket<Vec<f32>>,
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
    /// Start, end (samples), raw score, weight.
    scores: Vec<(i64, i64, f32, f32)>,
    narrow: usize,
    clipped: usize,
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
            narrow: 0,
            clipped: 0,
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
        let mut meta = Vec::with_capacity(windows.len());
        let mut waves = Vec::with_capacity(windows.len());
        for w in windows {
            let narrow = self.spectrum.upper_edge_hz(&w.wave) < BAND_LIMIT_HZ;
            let rail = clipped(&w.wave) > CLIPPED;
            self.narrow += usize::from(narrow);
            self.clipped += usize::from(rail);
            meta.push((w.start, w.end, if narrow || rail { WEAK } else { 1.0 }));
            waves.push(w.wave);
        }
        self.scoring.push_back(Scoring { windows: meta, ticket: self.client.clone_scores(waves) });
        while self.scoring.len() > SCORES_IN_WORK {
            self.scored()?;
        }
        Ok(())
    }

    fn scored(&mut self) -> Result<(), InferenceError> {
        let Some(Scoring { windows, ticket }) = self.scoring.pop_front() else { return Ok(()) };
        let answers = ticket.wait()?;
        self.scores
            .extend(windows.into_iter().zip(answers).map(|((s, e, w), score)| (s, e, score, w)));
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

    /// `number`: the track's, counted from 1. Without speech there is no track, only reasons.
    pub fn finish(
        mut self,
        number: usize,
        calibration: &Calibration,
    ) -> (Option<Track>, Vec<Segment>, Vec<Reason>) {
        let (speech, short) = (self.windower.speech(), self.windower.short());
        let seconds = |samples: i64| samples as f32 / RATE as f32;
        let music = self.background.music_s().map(|s| {
            Reason::new(
                ReasonCode::Music,
                format!("{s:.1} s of tonal sound beside the speech, music most likely"),
            )
        });
        if speech == 0 {
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
            reasons.extend(music);
            return (None, Vec::new(), reasons);
        }
        self.scores.sort_by_key(|s| (s.0, s.1));
        let windows: Vec<Window> = self
            .scores
            .iter()
            .map(|&(start, end, score, weight)| Window {
                start_ms: to_ms(start),
                end_ms: to_ms(end),
                logit: calibration.logit(score),
                weight,
                distance: 0.0,
            })
            .collect();
        let judged = windows.len();
        let mut reasons = Vec::new();
        if short > 0 && (windows.is_empty() || short * 4 > speech) {
            reasons.push(Reason::new(
                ReasonCode::TooShort,
                format!(
                    "{:.1} of {:.1} s of speech lie in stretches under 1 s and were not judged",
                    seconds(short),
                    seconds(speech)
                ),
            ));
        }
        if self.narrow * 2 > judged {
            reasons.push(Reason::new(
                ReasonCode::BandLimited,
                format!("{} of {judged} windows end below {BAND_LIMIT_HZ:.0} Hz", self.narrow),
            ));
        }
        if self.clipped * 2 > judged {
            reasons.push(Reason::new(
                ReasonCode::Clipped,
                format!("{} of {judged} windows are clipped", self.clipped),
            ));
        }
        reasons.extend(music);
        let id = format!("speech-{number}");
        let mut segments: Vec<Segment> = segments(&windows, &Rule::SPEECH, calibration)
            .into_iter()
            .map(|s| segment(&id, DetectorKind::VoiceClone, s, reasons.clone()))
            .collect();
        let start_ms = windows.first().map_or(0, |w| w.start_ms);
        let end_ms = windows.iter().map(|w| w.end_ms).max().unwrap_or_else(|| to_ms(self.heard));
        if segments.is_empty() {
            segments.push(unjudged(
                &id,
                DetectorKind::VoiceClone,
                start_ms,
                end_ms,
                reasons.clone(),
            ));
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
        (Some(track), segments, Vec::new())
    }
}
