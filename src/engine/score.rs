//! One score a file, for evaluations on anybody's own set.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{Engine, EngineError, Observer, ScanOptions, TaskLimits, job, owner};
use crate::{
    detect::{Detector, Tier, imported_face::FaceJudge, imported_voice::ImportedVoice},
    face::resample::Picture,
    media::{DecodeOptions, Event, Frame, Limits, MediaError, Source, StreamKind},
    models::weights::WeightStore,
    report::{
        DetectorKind, Failure, Reason, ReasonCode, Report, SegmentVerdict, Track, WindowScore,
    },
    verdict::{
        calibration::{Calibration, logit},
        segments::{Rule, Stretch, Window, pooled},
    },
};

/// Pictures in work at the same time, so that single crops travel in batches.
const PRECROPPED_JOBS: usize = 32;

/// One file's row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// On the scale of the network's raw output; higher means fake. None where nothing was judged.
    pub score: Option<f32>,
    /// Calibrated, 0 to 1.
    pub probability: Option<f32>,
    /// Why not or only weakly judged.
    pub reasons: Vec<Reason>,
    /// Why the file could not be read, wholly or in part.
    pub error: Option<Failure>,
    /// Whether the interval around the probability holds the detector's threshold, so that it gives no
    /// verdict. None where it has no such state.
    pub undecided: Option<bool>,
    /// What the score was pooled from, calibrated; empty where the detector looks at a file as a whole or
    /// is not calibrated.
    pub tracks: Vec<ScoredTrack>,
    /// Stretches of time with their probability, start and end in milliseconds; empty where `tracks` is.
    pub segments: Vec<(i64, i64, f32)>,
    /// Wall time from opening the file to its score, other files in work beside it. None where files
    /// are judged in batches.
    pub elapsed: Option<Duration>,
}

/// One face or one speaker.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredTrack {
    /// Its windows pooled as those of one stretch.
    pub probability: f32,
    pub windows: Vec<WindowScore>,
}

impl Scored {
    fn failed(code: &str, message: String) -> Self {
        let error = Some(Failure { code: code.to_owned(), message, time_ms: None });
        Self { error, ..Self::default() }
    }
}

struct Quiet;

impl Observer for Quiet {
    fn progress(&self, _: &Path, _: i64, _: Option<i64>) {}
    fn done(&self, _: Report) {}
}

impl Engine {
    /// The probability from which on `detector`, which must be among the engine's, calls a window fake;
    /// None for one without a network.
    pub fn threshold(&self, detector: DetectorKind) -> Option<f32> {
        let networks = self.networks();
        let calibration = match detector {
            DetectorKind::FaceSwap => networks.face_swap().map(FaceJudge::calibration),
            DetectorKind::VoiceClone => networks.voice_clone().map(Detector::calibration),
            DetectorKind::LabelStrip => None,
        };
        calibration.map(|c| c.threshold)
    }

    /// The tier that its detectors run: what was asked for, else the best that the weights allow.
    pub fn tier(&self) -> &str {
        self.info.options.get("tier").and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// Scores each file with `detector`, which must be among the engine's, and gives the rows to
    /// `sink` in the order of `paths`: the pooled score of the strongest track. `precropped`:
    /// every picture already is one face framed as in training, and is scored as it is. Once `stop` is
    /// set, by `sink` or by anybody, files in work are given up, and `sink` hears of no more.
    pub fn score(
        &self,
        paths: &[PathBuf],
        detector: DetectorKind,
        precropped: bool,
        stop: &AtomicBool,
        sink: &mut dyn FnMut(&Path, Scored) -> ControlFlow<()>,
    ) {
        super::followed(stop, |given_up| {
            self.score_until(paths, detector, precropped, stop, given_up, sink);
        });
    }

    fn score_until(
        &self,
        paths: &[PathBuf],
        detector: DetectorKind,
        precropped: bool,
        stop: &AtomicBool,
        given_up: &Arc<AtomicBool>,
        sink: &mut dyn FnMut(&Path, Scored) -> ControlFlow<()>,
    ) {
        let (endless, inbox) = owner::queue();
        let client = endless.until(given_up);
        // The owner ends with the last one.
        drop(endless);
        let jobs = if precropped { PRECROPPED_JOBS } else { self.jobs() };
        let next = AtomicUsize::new(0);
        let ended = AtomicBool::new(false);
        // Rows that are done early wait for their turn in `waiting`; they are small.
        let (send, receive) = mpsc::sync_channel::<(usize, Scored)>(jobs);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(paths.len()) {
                let (client, send, next, ended) = (client.clone(), send.clone(), &next, &ended);
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = paths.get(i) else { return };
                        let started = Instant::now();
                        let mut row = if precropped {
                            self.score_crop(&client, path)
                        } else {
                            self.score_file(&client, path, detector, given_up)
                        };
                        row.elapsed = Some(started.elapsed());
                        if send.send((i, row)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop((client, send));
            let runner = &self.runner;
            scope.spawn(move || inbox.serve(runner));
            let mut waiting = std::collections::BTreeMap::new();
            let mut turn = 0;
            for (i, row) in receive {
                waiting.insert(i, row);
                while let Some(row) = waiting.remove(&turn) {
                    if stop.load(Ordering::Relaxed) || sink(&paths[turn], row).is_break() {
                        ended.store(true, Ordering::Relaxed);
                        return;
                    }
                    turn += 1;
                }
            }
        });
    }

    fn score_crop(&self, client: &owner::Client, path: &Path) -> Scored {
        let Some(detector) = self.networks().face_swap() else {
            return Scored::failed(
                "inference_error",
                "face-swap is not among the engine's detectors".to_owned(),
            );
        };
        let frame = match first_frame(path) {
            Ok(frame) => frame,
            Err((code, message)) => return Scored::failed(code, message),
        };
        let Some(picture) = Picture::new(frame.width, frame.height, &frame.rgb) else {
            let message = format!("{}: a picture without pixels", path.display());
            return Scored::failed("decode_error", message);
        };
        match client.swap(vec![detector.framing().precropped(picture)]).wait() {
            Ok(scores) => {
                let score = scores.first();
                let strange = score.filter(|s| s.distance > 1.0).map(|s| {
                    Reason::new(
                        ReasonCode::OutOfDomain,
                        format!(
                            "{:.2} times the limit away from what the network knows",
                            s.distance
                        ),
                    )
                });
                Scored {
                    score: score.map(|s| s.logit),
                    probability: score
                        .filter(|_| detector.is_calibrated())
                        .map(|s| detector.calibration().probability(s.logit)),
                    reasons: strange.into_iter().collect(),
                    ..Scored::default()
                }
            }
            Err(e) => Scored::failed("inference_error", format!("{}: {e}", path.display())),
        }
    }

    fn score_file(
        &self,
        client: &owner::Client,
        path: &Path,
        detector: DetectorKind,
        stop: &Arc<AtomicBool>,
    ) -> Scored {
        let limits = TaskLimits::default();
        let Some(report) = job::scan(self, client, path, &limits, &Quiet, stop) else {
            return Scored::failed("stopped", format!("{}: stopped", path.display()));
        };
        let mut row = Scored {
            reasons: report.reasons.clone(),
            error: report.error.clone(),
            ..Scored::default()
        };
        let (calibration, rule) = match detector {
            DetectorKind::FaceSwap => {
                (self.networks().face_swap().map(FaceJudge::calibration), Rule::FACE)
            }
            DetectorKind::VoiceClone => {
                (self.networks().voice_clone().map(Detector::calibration), Rule::SPEECH)
            }
            DetectorKind::LabelStrip => (None, Rule::FACE),
        };
        let Some(calibration) = calibration else {
            // Rules, not a network: the probability is all there is.
            row.probability = report
                .segments
                .iter()
                .filter(|s| s.detector == detector)
                .filter_map(|s| s.probability)
                .max_by(f32::total_cmp);
            row.score = row.probability.map(logit);
            return row;
        };
        let pooled: Vec<(&Track, Stretch)> = report
            .tracks
            .iter()
            .filter_map(|track| Some((track, pool(track, &rule, &calibration)?)))
            .collect();
        // A published network's probabilities are none, and its score has no interval.
        let calibrated = match detector {
            DetectorKind::FaceSwap => {
                self.networks().face_swap().is_none_or(FaceJudge::is_calibrated)
            }
            _ => true,
        };
        let strongest = pooled.iter().max_by(|a, b| a.1.probability.total_cmp(&b.1.probability));
        if let Some((track, stretch)) = strongest {
            row.probability = calibrated.then_some(stretch.probability);
            row.score = Some((logit(stretch.probability) - calibration.b) / calibration.a);
            row.undecided = calibrated.then_some(stretch.verdict == SegmentVerdict::Undetermined);
            row.reasons.extend(track.reasons.iter().cloned());
        } else {
            row.reasons.extend(report.tracks.iter().flat_map(|t| t.reasons.iter().cloned()));
        }
        let scored = |(track, stretch): &(&Track, Stretch)| ScoredTrack {
            probability: stretch.probability,
            windows: track.windows.clone(),
        };
        if calibrated {
            row.tracks = pooled.iter().map(scored).collect();
            let own = report.segments.iter().filter(|s| s.detector == detector);
            row.segments =
                own.filter_map(|s| Some((s.start_ms, s.end_ms, s.probability?))).collect();
        }
        row.reasons.sort();
        row.reasons.dedup();
        row
    }
}

/// An engine whose faces a published network judges instead of ours, on the CPU. It gives scores and
/// nothing else, since that network is not calibrated.
pub struct ImportedFaces(Engine);

impl ImportedFaces {
    /// `name`: of its weights; `fps`: pictures a second that are looked at in videos.
    ///
    /// # Errors
    /// Weights that cannot be loaded, those of the face detector among them.
    pub fn new(weights: &WeightStore, name: &str, fps: f64) -> Result<Self, EngineError> {
        let options = ScanOptions {
            detectors: vec![DetectorKind::FaceSwap],
            fps,
            // Of networks that do not run here.
            tier: Some(Tier::Fast),
            ..ScanOptions::default()
        };
        Engine::with_faces_judged_by(Some(name), options, weights).map(Self)
    }

    /// As [`Engine::score`]: the pooled score of the strongest track, without a probability.
    /// `precropped`: every picture already is one face, and is stretched to the network's input.
    pub fn score(
        &self,
        paths: &[PathBuf],
        precropped: bool,
        stop: &AtomicBool,
        sink: &mut dyn FnMut(&Path, Scored) -> ControlFlow<()>,
    ) {
        self.0.score(paths, DetectorKind::FaceSwap, precropped, stop, sink);
    }
}

/// Scores the first stream of sound of each file with a published network, on the CPU, and gives the
/// rows to `sink` in the order of `paths`. None has a probability. Sound that is not 16 kHz mono is
/// made so, as everywhere in this program.
pub fn score_imported(
    network: &ImportedVoice,
    paths: &[PathBuf],
    sink: &mut dyn FnMut(&Path, Scored) -> ControlFlow<()>,
) {
    for paths in paths.chunks(super::cores()) {
        let sounds: Vec<Result<Sound, Box<Scored>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = paths
                .iter()
                .map(|path| scope.spawn(|| first_sound(path, network.samples())))
                .collect();
            let joined = threads.into_iter().zip(paths).map(|(thread, path)| {
                thread.join().unwrap_or_else(|_| {
                    let message = format!("{}: a defect in this program", path.display());
                    Err(Box::new(Scored::failed("internal_error", message)))
                })
            });
            joined.collect()
        });
        let (waves, rows): (Vec<_>, Vec<_>) = sounds
            .into_iter()
            .map(|sound| match sound {
                Ok(Sound { wave, row }) => (wave, row),
                Err(row) => (Vec::new(), *row),
            })
            .unzip();
        let scores = network.score(waves);
        for (i, (path, mut row)) in paths.iter().zip(rows).enumerate() {
            match &scores {
                Ok(scores) => match scores.get(i).copied().flatten() {
                    Some(score) if score.is_finite() => row.score = Some(score),
                    Some(score) => {
                        let message = format!("{}: a score of {score}", path.display());
                        row = Scored::failed("inference_error", message);
                    }
                    None => {}
                },
                Err(e) => {
                    let said = e.to_string();
                    let message = said.lines().next().unwrap_or_default();
                    let message = format!("{}: {message}", path.display());
                    row = Scored::failed("inference_error", message);
                }
            }
            if sink(path, row).is_break() {
                return;
            }
        }
    }
}

/// The beginning of a file's sound, and its row without the score.
struct Sound {
    wave: Vec<f32>,
    row: Scored,
}

/// At most `samples` of the first stream of sound, or a row that says why there are none.
fn first_sound(path: &Path, samples: usize) -> Result<Sound, Box<Scored>> {
    let failed = |e: MediaError| Box::new(Scored::failed(e.code(), e.to_string()));
    let source = Source::open(path, &Limits::default()).map_err(failed)?;
    let streams = &source.info().streams;
    let first = streams.iter().find(|s| s.kind == StreamKind::Audio).map(|s| s.index);
    let mut row = Scored::default();
    let mut wave = Vec::new();
    let Some(first) = first else {
        let detail = "no sound in this file".to_owned();
        row.reasons.push(Reason::new(ReasonCode::NoAudio, detail));
        return Ok(Sound { wave, row });
    };
    let options = DecodeOptions { fps: 1.0, video: false, audio: true, threads: 1, hardware: None };
    let mut fault = None;
    source
        .decode(&options, &mut |event| {
            match event {
                Event::Audio(audio) if audio.stream == first => {
                    let more = audio.samples.len().min(samples - wave.len());
                    wave.extend_from_slice(&audio.samples[..more]);
                }
                Event::Fault(f) if fault.is_none() => fault = Some(f),
                _ => {}
            }
            if wave.len() < samples { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(failed)?;
    if let Some(fault) = fault {
        let message = format!("{}: {}", path.display(), fault.message);
        row.error =
            Some(Failure { code: "decode_error".to_owned(), message, time_ms: fault.time_ms });
    } else if wave.is_empty() {
        let detail = "the stream of sound holds no sound".to_owned();
        row.reasons.push(Reason::new(ReasonCode::TooShort, detail));
    }
    Ok(Sound { wave, row })
}

/// A track's windows pooled as one stretch; all count alike here, those out of the domain too.
fn pool(track: &Track, rule: &Rule, calibration: &Calibration) -> Option<Stretch> {
    let windows: Vec<Window> = track
        .windows
        .iter()
        .map(|w| Window {
            start_ms: w.start_ms,
            end_ms: w.end_ms,
            logit: logit(w.probability),
            weight: 1.0,
            distance: 0.0,
        })
        .collect();
    pooled(&windows, rule, calibration)
}

/// The first picture, or the code and the message of why there is none.
pub(crate) fn first_frame(path: &Path) -> Result<Frame, (&'static str, String)> {
    let failed = |e: MediaError| (e.code(), e.to_string());
    let source = Source::open(path, &Limits::default()).map_err(failed)?;
    let options = DecodeOptions { fps: 1.0, video: true, audio: false, threads: 1, hardware: None };
    let mut first = None;
    let mut fault = None;
    source
        .decode(&options, &mut |event| match event {
            Event::Frame(frame) => {
                first = Some(frame);
                ControlFlow::Break(())
            }
            Event::Fault(f) => {
                fault = Some(f.message);
                ControlFlow::Continue(())
            }
            Event::Audio(_) => ControlFlow::Continue(()),
        })
        .map_err(failed)?;
    first.ok_or_else(|| {
        let why = fault.unwrap_or_else(|| "no picture in it".to_owned());
        ("decode_error", format!("{}: {why}", path.display()))
    })
}
