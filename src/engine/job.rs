//! One file from path to report.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    CPU, Engine, Observer, TaskLimits,
    faces::{Faces, Judging},
    owner::Client,
    owner::InferenceError,
    pictures::Pictures,
    provisional::Pace,
    voices::Voice,
    watermarks::Watermarks,
};
use crate::{
    detect::{Detector, face_swap::Framing, imported_face::FaceJudge, label_strip},
    digest::sha256_of_file_unless,
    explicit::tesseract::Tesseract,
    media::{DecodeOptions, Event, MediaError, MediaInfo, MediaKind, Source, StreamKind},
    provenance::{self, Findings, rhythm::Rhythm, watermark},
    report::{DetectorKind, Failure, Label, Reason, ReasonCode, Report, Status, path_text},
    speech::to_ms,
    verdict::disposition::of_report,
};

/// Pictures a second of a video that only labels are looked for in.
const LABELS_FPS: f64 = 2.0;

/// Scans one file. `None`: `stop` was set before it was done, or the observer knows it already.
pub fn scan(
    engine: &Engine,
    client: &Client,
    path: &Path,
    limits: &TaskLimits,
    observer: &dyn Observer,
    stop: &Arc<AtomicBool>,
) -> Option<Report> {
    let started = Instant::now();
    let on_gpu = engine.active_gpu().is_some();
    let mut report = Report {
        status: Status::Ok,
        error: None,
        ..Report::failed(&path_text(path), "", String::new(), engine.info.clone())
    };
    match work(engine, client, path, limits, observer, stop, &mut report) {
        Ok(Outcome::Scanned) => {}
        Ok(Outcome::LeftAlone) => return None,
        // Whatever was wrong may come from being stopped.
        Err(_) if stop.load(Ordering::Relaxed) => return None,
        Err(failure) => {
            report.status = Status::Failed;
            report.error = Some(failure);
        }
    }
    if let Some(why) = engine.runner.lost() {
        // Begun with the GPU or without it.
        let device =
            if on_gpu { format!("{} + {CPU}", engine.info.device) } else { CPU.to_owned() };
        report.engine.device = device;
        let detail = format!("{} was lost: {why}", engine.info.device);
        report.reasons.push(Reason::new(ReasonCode::DeviceLost, detail));
    }
    report.timings.total_ms = started.elapsed().as_millis() as u64;
    Some(report)
}

enum Outcome {
    Scanned,
    /// Stopped, or known already.
    LeftAlone,
}

fn failure(e: &MediaError) -> Failure {
    Failure { code: e.code().to_owned(), message: e.to_string(), time_ms: None }
}

fn work(
    engine: &Engine,
    client: &Client,
    path: &Path,
    limits: &TaskLimits,
    observer: &dyn Observer,
    stop: &Arc<AtomicBool>,
    report: &mut Report,
) -> Result<Outcome, Failure> {
    observer.progress(path, 0, None);
    // Before the content is hashed: reading a FIFO would never end.
    let source = Source::open_until(path, &limits.media, Arc::clone(stop));
    if let Err(e @ (MediaError::NotAFile { .. } | MediaError::Io { .. })) = &source {
        return Err(failure(e));
    }

    let clock = Instant::now();
    let hashed = sha256_of_file_unless(stop, path)
        .map_err(|source| failure(&MediaError::Io { path: path.to_owned(), source }))?;
    let Some((sha256, bytes)) = hashed else { return Ok(Outcome::LeftAlone) };
    report.timings.hash_ms = clock.elapsed().as_millis() as u64;
    report.media.bytes = Some(bytes);
    if observer.known(path, &sha256) {
        return Ok(Outcome::LeftAlone);
    }
    report.media.sha256 = Some(sha256);

    let source = source.map_err(|e| failure(&e))?;
    let info = source.info().clone();
    report.media.container = Some(info.container.clone());
    report.media.kind = Some(info.kind);
    report.media.duration_ms = info.duration_ms;
    report.media.streams = info.streams.clone();
    if let (Some(ms), Some(most)) = (info.duration_ms, limits.max_duration_ms)
        && ms > most
    {
        return Err(too_long(path, ms, most));
    }

    let wanted = |kind| engine.options.detectors.contains(&kind);
    let clock = Instant::now();
    let mut findings = match wanted(DetectorKind::LabelStrip) {
        true => {
            Some(provenance::inspect_until(path, &engine.options.inspect, stop).map_err(|e| {
                Failure { code: "unreadable".to_owned(), message: e.to_string(), time_ms: None }
            })?)
        }
        false => None,
    };
    report.timings.labels_ms = clock.elapsed().as_millis() as u64;
    let seen = findings.as_mut();
    let judged = decode(engine, client, source, &info, path, limits, observer, stop, seen, report);
    // Labels speak also where the pictures and the sound are broken.
    if let Some(findings) = findings {
        let (track, segments) = label_strip::judge(&findings, info.duration_ms);
        report.tracks.insert(0, track);
        report.segments.extend(segments);
        report.labels = findings.labels;
        report.strip_evidence = findings.strip_evidence;
    }
    conclude(report, engine.options.declared_ai);
    if !judged? {
        return Ok(Outcome::LeftAlone);
    }
    Ok(Outcome::Scanned)
}

/// Decodes and judges pictures and sound; labels in them are added to `findings`. `false`: stopped.
#[allow(clippy::too_many_arguments)]
fn decode(
    engine: &Engine,
    client: &Client,
    source: Source,
    info: &MediaInfo,
    path: &Path,
    limits: &TaskLimits,
    observer: &dyn Observer,
    stop: &AtomicBool,
    findings: Option<&mut Findings>,
    report: &mut Report,
) -> Result<bool, Failure> {
    let clock = Instant::now();
    let has = |kind| info.streams.iter().any(|s| s.kind == kind);
    let still = info.kind == MediaKind::Image;
    let face_swap = engine.networks().face_swap();
    let calibration_of_faces = face_swap.map(FaceJudge::calibration);
    let calibration_of_voices = engine.networks().voice_clone().map(Detector::calibration);
    let has_pictures =
        has(StreamKind::Video) && (calibration_of_faces.is_some() || findings.is_some());
    let step_ms = if engine.options.fps > 0.0 { (1_000.0 / engine.options.fps) as i64 } else { 40 };
    // Without the network no picture is decoded.
    let judging = Judging {
        step_ms,
        pace_ms: face_swap.map_or(0, FaceJudge::pace_ms),
        still,
        framing: face_swap.map_or(Framing::Ours { sides: Vec::new() }, FaceJudge::framing),
    };
    let wants = observer.wants();
    let mut faces = Faces::new(client.clone(), judging, wants.close_ups);
    let mut voices: BTreeMap<usize, Voice> = BTreeMap::new();
    let mut rhythms: BTreeMap<usize, Rhythm> = BTreeMap::new();
    let mut perth: BTreeMap<usize, Watermarks> = BTreeMap::new();
    let mut pictures = findings.is_some().then(|| Pictures::new(client.clone(), still));
    let mut watermarks = Vec::new();
    let mut looked_at = false;
    let mut faults = Vec::new();
    let mut broken: Option<Broken> = None;
    let mut stopped = false;
    let mut pace = Pace::new();

    let options = DecodeOptions {
        fps: match calibration_of_faces {
            None if engine.options.fps > 0.0 => engine.options.fps.min(LABELS_FPS),
            None => LABELS_FPS,
            Some(_) => engine.options.fps,
        },
        video: calibration_of_faces.is_some() || findings.is_some(),
        audio: calibration_of_voices.is_some() || findings.is_some(),
        threads: engine.decoder_threads(),
        hardware: engine.active_gpu(),
    };
    let mut take = |event| -> Result<(), Broken> {
        let time_ms = match &event {
            Event::Frame(frame) => Some(frame.time_ms),
            // Where there are pictures to look at they tell the time.
            Event::Audio(audio) if !has_pictures => Some(to_ms(audio.start)),
            Event::Audio(_) | Event::Fault(_) => None,
        };
        if let Some(time_ms) = time_ms {
            // What the container says of its length need not be so.
            if let Some(most) = limits.max_duration_ms.filter(|most| time_ms > *most) {
                return Err(Broken::TooLong(too_long(path, time_ms, most)));
            }
            observer.progress(path, time_ms, info.duration_ms);
            if wants.segments {
                pace.tell(time_ms, || {
                    let labels = findings.as_deref();
                    let labels = labels.map(|f| label_strip::judge(f, info.duration_ms).1);
                    let mut segments = labels.unwrap_or_default();
                    if let Some(calibration) = &calibration_of_faces {
                        faces.take_ready()?;
                        segments.extend(faces.so_far(calibration, info.duration_ms));
                    }
                    let mut number = 1;
                    for voice in voices.values_mut() {
                        voice.take_ready()?;
                        if let Some(calibration) = &calibration_of_voices {
                            let (found, tracks) = voice.so_far(number, calibration);
                            number += tracks;
                            segments.extend(found);
                        }
                    }
                    observer.segments(path, segments);
                    Ok::<(), InferenceError>(())
                })?;
            }
        }
        match event {
            Event::Frame(frame) => {
                observer.frame(path, &frame);
                if let Some(pictures) = &mut pictures {
                    pictures.push(&frame)?;
                    if still && !looked_at {
                        let mark = watermark::dwt_dct(&frame.rgb, frame.width, frame.height);
                        watermarks.extend(mark);
                    }
                    looked_at = true;
                }
                if face_swap.is_none() {
                    return Ok(());
                }
                Ok(faces.push(frame)?)
            }
            Event::Audio(audio) => {
                observer.sound(path, &audio);
                if findings.is_some() {
                    let rhythm: &mut Rhythm = rhythms.entry(audio.stream).or_default();
                    rhythm.push(audio.start, &audio.samples);
                    if engine.networks().has_perth() {
                        let new = || Watermarks::new(client.clone());
                        perth.entry(audio.stream).or_insert_with(new).push(&audio)?;
                    }
                }
                if calibration_of_voices.is_none() {
                    return Ok(());
                }
                let new = || Voice::new(client.clone(), audio.stream);
                Ok(voices.entry(audio.stream).or_insert_with(new).push(audio)?)
            }
            Event::Fault(fault) => {
                faults.push(fault);
                Ok(())
            }
        }
    };
    let left_out = source.left_out().to_vec();
    let decoded = source.decode(&options, &mut |event| {
        if stop.load(Ordering::Relaxed) {
            stopped = true;
            return ControlFlow::Break(());
        }
        match take(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                broken = Some(e);
                ControlFlow::Break(())
            }
        }
    });
    if stopped || stop.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let failed = |e: InferenceError| Failure {
        code: "inference_error".to_owned(),
        message: format!("{}: {e}", path.display()),
        time_ms: None,
    };
    match broken {
        None => {}
        Some(Broken::Inference(e)) => return Err(failed(e)),
        Some(Broken::TooLong(failure)) => return Err(failure),
    }
    // What was decoded before a fault is judged all the same.
    let drained = faces
        .drain()
        .and_then(|()| voices.values_mut().try_for_each(Voice::drain))
        .and_then(|()| perth.values_mut().try_for_each(Watermarks::drain))
        .and_then(|()| pictures.as_mut().map_or(Ok(()), Pictures::drain));
    if let Err(e) = drained {
        return Err(failed(e));
    }
    match decoded {
        Ok(decoder) => report.engine.decoder = decoder,
        Err(e) => return Err(failure(&e)),
    }

    let heard = !voices.is_empty() || !rhythms.is_empty();
    if let Some(findings) = findings {
        if heard && let Some(why) = engine.networks().no_perth() {
            let detail = format!("the watermark PerTh was not looked for in the sound: {why}");
            report.reasons.push(Reason::new(ReasonCode::WatermarkNotRead, detail));
        }
        let mut labels: Vec<Label> = rhythms.into_values().flat_map(Rhythm::finish).collect();
        if let (Some(pictures), Some(reader)) = (pictures, &engine.reader) {
            let clock = Instant::now();
            let judging = engine.networks().mark_finder().map(|finder| finder.judging);
            let found = pictures.finish(reader.as_ref().ok(), judging, info.duration_ms, stop);
            if looked_at {
                report.reasons.extend(not_read(reader, found.failed));
            }
            labels.extend(found.labels);
            findings.strip_evidence.extend(found.erased);
            report.timings.text_ms = clock.elapsed().as_millis() as u64;
        }
        // Last: whether a watermark stands alone depends on what else is there.
        labels.extend(watermarks);
        labels.extend(perth.into_values().filter_map(Watermarks::finish));
        labels.into_iter().for_each(|label| findings.add_seen(label));
    }
    report.timings.frames = faces.pictures;
    report.timings.face_windows = faces.windows;
    report.timings.voice_windows = voices.values().map(|v| v.windows).sum();
    if let Some(calibration) = calibration_of_faces {
        if has(StreamKind::Video) {
            let (tracks, segments, reasons) =
                faces.finish(&calibration, info.duration_ms, &mut |segment, picture| {
                    observer.close_up(path, segment, picture);
                });
            report.tracks.extend(tracks);
            report.segments.extend(segments);
            report.reasons.extend(reasons);
        } else {
            report.reasons.push(Reason::new(
                ReasonCode::NoVideo,
                "no pictures in this file: face-swap has nothing to judge".to_owned(),
            ));
        }
    }
    if let Some(calibration) = calibration_of_voices {
        if has(StreamKind::Audio) {
            if voices.is_empty() && left_out.is_empty() {
                report.reasons.push(Reason::new(
                    ReasonCode::NoSpeech,
                    "the streams of sound hold no sound".to_owned(),
                ));
            }
            let mut number = 1;
            for voice in voices.into_values() {
                let (tracks, segments, reasons) = voice.finish(number, &calibration);
                number += tracks.len();
                report.tracks.extend(tracks);
                report.segments.extend(segments);
                report.reasons.extend(reasons);
            }
        } else if !still {
            report.reasons.push(Reason::new(
                ReasonCode::NoAudio,
                "no sound in this file: voice-clone has nothing to judge".to_owned(),
            ));
        }
    }
    for sentence in left_out {
        report.reasons.push(Reason::new(ReasonCode::DecodeError, sentence));
    }
    for fault in &faults {
        report.reasons.push(Reason::new(
            ReasonCode::DecodeError,
            match fault.time_ms {
                Some(ms) => format!("after {:.3} s: {}", ms as f64 / 1e3, fault.message),
                None => fault.message.clone(),
            },
        ));
    }
    if let Some(first) = faults.first() {
        let nothing = report.timings.frames == 0 && !heard && !looked_at;
        report.status = if nothing { Status::Failed } else { Status::Partial };
        report.error = Some(Failure {
            code: "decode_error".to_owned(),
            message: format!("{}: {}", path.display(), first.message),
            time_ms: first.time_ms,
        });
    }
    report.timings.decode_ms = clock.elapsed().as_millis() as u64;
    // Reading text may have been broken off.
    Ok(!stop.load(Ordering::Relaxed))
}

/// Why decoding was broken off.
enum Broken {
    Inference(InferenceError),
    TooLong(Failure),
}

impl From<InferenceError> for Broken {
    fn from(e: InferenceError) -> Self {
        Self::Inference(e)
    }
}

fn too_long(path: &Path, ms: i64, most: i64) -> Failure {
    let seconds = |ms: i64| ms as f64 / 1e3;
    let (path, detail) = (path.to_owned(), format!("{} s long", seconds(ms)));
    let detail = format!("{detail}, {} s are allowed", seconds(most));
    failure(&MediaError::Limit { path, detail })
}

/// Why labels that stand in the pictures as text may be missing.
fn not_read(reader: &Result<Tesseract, String>, failed: Option<String>) -> Option<Reason> {
    use ReasonCode::{TextNotRead, TextReaderFailed};
    match reader {
        Err(why) => Some(Reason::new(TextNotRead, why.clone())),
        Ok(_) if failed.is_some() => {
            failed.map(|why| Reason::new(TextReaderFailed, format!("tesseract: {why}")))
        }
        Ok(reader) => {
            let lacks = reader.lacks.as_ref()?;
            Some(Reason::new(TextNotRead, format!("read without {lacks}")))
        }
    }
}

/// Orders what was found and says what a platform has to do with it.
fn conclude(report: &mut Report, declared_ai: bool) {
    let order: BTreeMap<String, usize> =
        report.tracks.iter().enumerate().map(|(i, t)| (t.id.clone(), i)).collect();
    report.segments.sort_by_key(|s| (order.get(&s.track).copied(), s.start_ms, s.end_ms));
    report.disposition = of_report(report, declared_ai);
}
