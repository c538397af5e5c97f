//! One file's pictures: search → track → crop → score, with a bounded number of pictures in work.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use super::{
    closeups::{CloseUp, CloseUps},
    heat::Maps,
    owner::{Client, InferenceError, Ticket},
};
use crate::{
    detect::face_swap::{FaceScore, Framing, Look},
    face::{
        Face, crop,
        detect::{self, Pass},
        quality::{self, Quality},
        resample::Picture,
        shot::Signature,
        track::{MAX_FACES, Tracker},
    },
    media::Frame,
    report::{
        DetectorKind, Reason, ReasonCode, Segment, SegmentVerdict, TimedBox, Track, TrackKind,
        WindowScore,
    },
    verdict::{
        calibration::{Calibration, sigmoid},
        segments::{Rule, Stretch, Window, outside, segments, smoothed},
    },
};

/// Pictures that may wait for the network, by number and by bytes.
const PICTURES_IN_WORK: usize = 6;
const BYTES_IN_WORK: usize = 192 << 20;
/// Requests for scores that may be under way.
const SCORES_IN_WORK: usize = 24;
/// What the heat maps of a file may take: 52,000 windows of 9 x 9 cells, 3.6 hours of one face at
/// four pictures a second. Beyond, neighbours' maps are joined, again and again. What is not
/// joined yet takes a few hundred bytes a track more.
const MAP_BYTES: usize = 4 << 20;
/// What the pictures of faces that are kept may take, and of how many faces of one picture.
const CLOSE_UP_BYTES: usize = 4 << 20;
const CLOSE_UPS_A_PICTURE: usize = 4;
/// The dear passes of the search are made once in this time and at each cut.
const THOROUGH_MS: i64 = 1_000;
/// Sightings under which a face in a video is taken for a false find.
const MIN_SIGHTINGS: usize = 3;

struct Searching {
    frame: Frame,
    cut: bool,
    tickets: Vec<(Pass, Ticket<Vec<Face>>)>,
}

/// A window whose score is asked for.
struct Asked {
    track: usize,
    time_ms: i64,
    weight: f32,
    /// The face as [`CloseUp`] has it, where it is wanted.
    picture: Option<Vec<u8>>,
}

struct Scoring {
    windows: Vec<Asked>,
    ticket: Ticket<Vec<FaceScore>>,
}

/// What is kept of a judged window.
struct Scored {
    time_ms: i64,
    /// The network's raw output.
    score: f32,
    weight: f32,
    /// From the network's domain, in units of the limit.
    distance: f32,
}

#[derive(Default)]
struct FaceTrack {
    stream: usize,
    start_ms: i64,
    end_ms: i64,
    sightings: usize,
    /// Sightings that were to be judged.
    looked_at: usize,
    last_judged_ms: Option<i64>,
    boxes: Vec<TimedBox>,
    scores: Vec<Scored>,
    /// Heat maps of `scores`, in their order.
    maps: Maps,
    close_ups: CloseUps,
    refused: BTreeMap<ReasonCode, usize>,
    weak: BTreeMap<ReasonCode, usize>,
}

/// How the faces of a file are judged.
#[derive(Debug, Clone)]
pub struct Judging {
    /// Time that one sampled picture stands for.
    pub step_ms: i64,
    /// Least time between two judged pictures of one face.
    pub pace_ms: i64,
    pub still: bool,
    /// Of the crops that the networks take.
    pub framing: Framing,
}

impl Judging {
    /// Time that one judged picture stands for: the first number of steps that is no less than the
    /// pace.
    fn window_ms(&self) -> i64 {
        if self.still || self.step_ms <= 0 {
            return 0;
        }
        self.step_ms * (self.pace_ms.max(1) as u64).div_ceil(self.step_ms as u64) as i64
    }
}

pub struct Faces {
    client: Client,
    judging: Judging,
    tracker: Tracker,
    signature: Option<Signature>,
    last_thorough_ms: Option<i64>,
    searching: VecDeque<Searching>,
    scoring: VecDeque<Scoring>,
    tracks: BTreeMap<usize, FaceTrack>,
    /// What the tracks' maps take.
    map_bytes: usize,
    wants_close_ups: bool,
    /// What the tracks' pictures take.
    close_up_bytes: usize,
    pub pictures: u64,
    pub windows: u64,
}

impl Faces {
    /// `wants_close_ups`: pictures of the judged faces are kept for [`finish`](Self::finish).
    pub fn new(client: Client, judging: Judging, wants_close_ups: bool) -> Self {
        Self {
            client,
            judging,
            tracker: Tracker::default(),
            signature: None,
            last_thorough_ms: None,
            searching: VecDeque::new(),
            scoring: VecDeque::new(),
            tracks: BTreeMap::new(),
            map_bytes: 0,
            wants_close_ups,
            close_up_bytes: 0,
            pictures: 0,
            windows: 0,
        }
    }

    /// Takes the next picture in order of time. Waits where too much is in work already.
    pub fn push(&mut self, frame: Frame) -> Result<(), InferenceError> {
        let Some(picture) = Picture::new(frame.width, frame.height, &frame.rgb) else {
            return Ok(());
        };
        self.pictures += 1;
        // The base pass's small picture serves the shot cuts and the coarse pass too: reading the
        // full picture is what costs.
        let base = detect::base(frame.width, frame.height);
        let small = base.scale(picture);
        let Some(small_picture) = Picture::new(base.width, base.height, &small) else {
            return Ok(());
        };
        let signature = Signature::new(small_picture);
        let cut = self.signature.as_ref().is_some_and(|last| last.cut_before(&signature));
        self.signature = Some(signature);
        let thorough = cut
            || self.judging.still
            || self.last_thorough_ms.is_none_or(|last| frame.time_ms - last >= THOROUGH_MS);
        let ask = |pass: Pass, scaled: &[u8]| {
            let (w, h) = pass.padded();
            (pass, self.client.detect(pass.input(scaled), w, h))
        };
        let mut tickets = vec![ask(base, &small)];
        if thorough {
            self.last_thorough_ms = Some(frame.time_ms);
            if let Some(fine) = detect::fine(frame.width, frame.height) {
                tickets.push(ask(fine, &fine.scale(picture)));
            }
            let coarse = detect::coarse(frame.width, frame.height);
            tickets.push(ask(coarse, &coarse.scale(small_picture)));
        }
        let room = (BYTES_IN_WORK / frame.rgb.len().max(1)).clamp(1, PICTURES_IN_WORK);
        self.searching.push_back(Searching { frame, cut, tickets });
        while self.searching.len() > room || self.first_is_ready() {
            self.found()?;
        }
        Ok(())
    }

    fn first_is_ready(&self) -> bool {
        self.searching.front().is_some_and(|s| s.tickets.iter().all(|(_, t)| t.is_ready()))
    }

    /// Takes the oldest picture's finds, follows them and asks for their scores.
    fn found(&mut self) -> Result<(), InferenceError> {
        let Some(Searching { frame, cut, tickets }) = self.searching.pop_front() else {
            return Ok(());
        };
        let Some(picture) = Picture::new(frame.width, frame.height, &frame.rgb) else {
            return Ok(());
        };
        let mut faces = Vec::new();
        for (pass, ticket) in tickets {
            let finds = ticket.wait()?;
            faces.extend(finds.into_iter().map(|f| pass.restore(f, frame.width, frame.height)));
        }
        let mut crops = Vec::new();
        let mut windows = Vec::new();
        for (id, face) in self.tracker.push(frame.time_ms, cut, detect::merge(faces)) {
            let track = self.tracks.entry(id).or_insert_with(|| FaceTrack {
                stream: frame.stream,
                start_ms: frame.time_ms,
                ..FaceTrack::default()
            });
            track.end_ms = frame.time_ms + self.judging.step_ms;
            track.sightings += 1;
            if track.boxes.last().is_none_or(|b| frame.time_ms - b.time_ms >= 1_000) {
                let r = face.rect;
                track.boxes.push(TimedBox {
                    time_ms: frame.time_ms,
                    x: r.x0,
                    y: r.y0,
                    w: r.width(),
                    h: r.height(),
                });
            }
            let pace = self.judging.pace_ms;
            if track.last_judged_ms.is_some_and(|last| frame.time_ms - last < pace) {
                continue;
            }
            track.looked_at += 1;
            // The only picture of a face is looked at more closely than one of many.
            let look = match (self.judging.still, track.looked_at % 2) {
                (true, _) => Look::Close,
                (false, 0) => Look::Mirrored,
                (false, _) => Look::Straight,
            };
            let held = crop::frame(&face.rect);
            let crop = self.judging.framing.cut(picture, &face, look);
            let plain = crop
                .plain(quality::SIDE)
                .map_or_else(|| Cow::Owned(crop::cut(picture, held, quality::SIDE)), Cow::Borrowed);
            let quality = Quality::measure(picture, &face, &plain);
            match quality.refusal() {
                Some(code) => *track.refused.entry(code).or_default() += 1,
                None => {
                    for code in quality.weaknesses() {
                        *track.weak.entry(code).or_default() += 1;
                    }
                    track.last_judged_ms = Some(frame.time_ms);
                    let wanted = self.wants_close_ups && windows.len() < CLOSE_UPS_A_PICTURE;
                    windows.push(Asked {
                        track: id,
                        time_ms: frame.time_ms,
                        weight: quality.weight(),
                        picture: wanted.then(|| plain.to_vec()),
                    });
                    crops.push(crop);
                }
            }
        }
        if !crops.is_empty() {
            self.windows += crops.len() as u64;
            self.scoring.push_back(Scoring { windows, ticket: self.client.swap(crops) });
        }
        while self.scoring.len() > SCORES_IN_WORK {
            self.scored()?;
        }
        Ok(())
    }

    fn scored(&mut self) -> Result<(), InferenceError> {
        let Some(Scoring { windows, ticket }) = self.scoring.pop_front() else { return Ok(()) };
        for (asked, score) in windows.into_iter().zip(ticket.wait()?) {
            let Asked { track, time_ms, weight, picture } = asked;
            if let Some(track) = self.tracks.get_mut(&track) {
                if let Some(rgb) = picture {
                    let before = track.close_ups.bytes();
                    track.close_ups.offer(time_ms, score.logit, &rgb, quality::SIDE);
                    self.close_up_bytes = self.close_up_bytes + track.close_ups.bytes() - before;
                }
                let before = track.maps.bytes();
                track.maps.push(&score.cells);
                self.map_bytes += track.maps.bytes() - before;
                let FaceScore { logit, distance, .. } = score;
                track.scores.push(Scored { time_ms, score: logit, weight, distance });
            }
        }
        if self.map_bytes > MAP_BYTES {
            self.tracks.values_mut().for_each(|track| track.maps.halve());
            self.map_bytes = self.tracks.values().map(|track| track.maps.bytes()).sum();
        }
        if self.close_up_bytes > CLOSE_UP_BYTES {
            CloseUps::thin(self.tracks.values_mut().map(|t| &mut t.close_ups), CLOSE_UP_BYTES / 2);
            self.close_up_bytes = self.tracks.values().map(|t| t.close_ups.bytes()).sum();
        }
        Ok(())
    }

    /// Waits for everything in work.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        while !self.searching.is_empty() {
            self.found()?;
        }
        while !self.scoring.is_empty() {
            self.scored()?;
        }
        Ok(())
    }

    /// Sightings that make a face.
    fn min_sightings(&self) -> usize {
        if self.judging.still { 1 } else { MIN_SIGHTINGS.min(self.pictures as usize) }
    }

    /// Takes the scores that are there, without waiting for others.
    pub fn take_ready(&mut self) -> Result<(), InferenceError> {
        while self.scoring.front().is_some_and(|s| s.ticket.is_ready()) {
            self.scored()?;
        }
        Ok(())
    }

    /// The judged segments of what has its scores so far, as [`finish`](Self::finish) would give them,
    /// without heat maps.
    pub fn so_far(&self, calibration: &Calibration, duration_ms: Option<i64>) -> Vec<Segment> {
        let min = self.min_sightings();
        let kept = self.tracks.values().filter(|t| t.sightings >= min);
        let judged = kept.enumerate().filter(|(_, track)| !track.scores.is_empty());
        let segments = judged.flat_map(|(i, track)| {
            let windows = track.windows(&self.judging, calibration, duration_ms);
            let reasons = track.weaknesses();
            segments(&windows, &Rule::FACE, calibration).into_iter().map(move |s| {
                let mut reasons = reasons.clone();
                reasons.extend(out_of_domain(&windows[s.first..s.first + s.windows]));
                segment(&face_id(i), DetectorKind::FaceSwap, s, reasons)
            })
        });
        segments.collect()
    }

    /// Tracks and segments, and what holds for the file as a whole. Nothing ends later than `duration_ms`,
    /// where that is known. `close_up` is told of each segment of which there is a picture.
    pub fn finish(
        self,
        calibration: &Calibration,
        duration_ms: Option<i64>,
        close_up: &mut dyn FnMut(&Segment, CloseUp),
    ) -> (Vec<Track>, Vec<Segment>, Vec<Reason>) {
        let mut reasons = Vec::new();
        let mut tracks = Vec::new();
        let mut all_segments = Vec::new();
        let min = self.min_sightings();
        if self.tracker.left_out() > 0 {
            reasons.push(Reason::new(
                ReasonCode::NoFace,
                format!(
                    "{} find(s) left out: at most {MAX_FACES} faces of a picture are followed",
                    self.tracker.left_out()
                ),
            ));
        }
        let fleeting = self.tracks.values().filter(|t| t.sightings < min).count();
        if fleeting > 0 {
            reasons.push(Reason::new(
                ReasonCode::TooShort,
                format!("{fleeting} face(s) were seen in fewer than {min} sampled pictures and not judged"),
            ));
        }
        let kept = self.tracks.into_values().filter(|t| t.sightings >= min);
        for (i, mut track) in kept.enumerate() {
            let close_ups = std::mem::take(&mut track.close_ups);
            let (report, segments) =
                track.finish(face_id(i), &self.judging, calibration, duration_ms);
            for (segment, picture) in close_ups.of(&segments) {
                close_up(segment, picture);
            }
            tracks.push(report);
            all_segments.extend(segments);
        }
        if tracks.is_empty() && fleeting == 0 && self.pictures > 0 {
            reasons.push(Reason::new(
                ReasonCode::NoFace,
                format!("no face in {} sampled picture(s)", self.pictures),
            ));
        }
        (tracks, all_segments, reasons)
    }
}

/// The name of the face that came as the `i`-th, from 0.
fn face_id(i: usize) -> String {
    format!("face-{}", i + 1)
}

/// The last picture's time is shorter than a step; a container may understate its length.
fn clamped(start_ms: i64, end_ms: i64, duration_ms: Option<i64>) -> i64 {
    end_ms.min(duration_ms.unwrap_or(end_ms)).max(start_ms)
}

impl FaceTrack {
    fn windows(
        &self,
        judging: &Judging,
        calibration: &Calibration,
        duration_ms: Option<i64>,
    ) -> Vec<Window> {
        let span = judging.window_ms();
        self.scores
            .iter()
            .map(|s| Window {
                start_ms: s.time_ms,
                end_ms: clamped(s.time_ms, (s.time_ms + span).min(self.end_ms), duration_ms),
                logit: calibration.logit(s.score),
                weight: s.weight,
                distance: s.distance,
            })
            .collect()
    }

    /// What holds for the whole track.
    fn weaknesses(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for (code, n) in &self.refused {
            reasons.push(Reason::new(*code, format!("{n} of {} crops not judged", self.looked_at)));
        }
        for (code, n) in &self.weak {
            if n * 2 > self.scores.len() {
                reasons.push(Reason::new(
                    *code,
                    format!("{n} of {} judged crops are weak", self.scores.len()),
                ));
            }
        }
        reasons
    }

    fn finish(
        self,
        id: String,
        judging: &Judging,
        calibration: &Calibration,
        duration_ms: Option<i64>,
    ) -> (Track, Vec<Segment>) {
        let windows = self.windows(judging, calibration, duration_ms);
        let mut reasons = self.weaknesses();
        let end_ms = match judging.still {
            true => self.start_ms,
            false => clamped(self.start_ms, self.end_ms, duration_ms),
        };
        let mut segments: Vec<Segment> = segments(&windows, &Rule::FACE, calibration)
            .into_iter()
            .map(|s| {
                let mut reasons = reasons.clone();
                reasons.extend(out_of_domain(&windows[s.first..s.first + s.windows]));
                let heat_map = self.maps.mean(s.pooled(&windows));
                Segment { heat_map, ..segment(&id, DetectorKind::FaceSwap, s, reasons) }
            })
            .collect();
        reasons.extend(out_of_domain(&windows));
        if segments.is_empty() {
            segments.push(unjudged(
                &id,
                DetectorKind::FaceSwap,
                self.start_ms,
                end_ms,
                reasons.clone(),
            ));
        }
        let track = Track {
            id,
            kind: TrackKind::Face,
            stream: Some(self.stream),
            start_ms: self.start_ms,
            end_ms,
            boxes: self.boxes,
            windows: scores(&windows, &Rule::FACE),
            reasons,
        };
        (track, segments)
    }
}

/// Where at least half of the windows, by weight, lie out of the network's domain: how many, and
/// how far.
fn out_of_domain(windows: &[Window]) -> Option<Reason> {
    if outside(windows) < 0.5 {
        return None;
    }
    let mut distances: Vec<f32> = windows.iter().map(|w| w.distance).filter(|d| *d > 1.0).collect();
    distances.sort_by(f32::total_cmp);
    let median = distances.get(distances.len() / 2)?;
    Some(Reason::new(
        ReasonCode::OutOfDomain,
        format!(
            "{} of {} crops are unlike what the network knows, {median:.2} times the limit away",
            distances.len(),
            windows.len(),
        ),
    ))
}

/// What the report says of windows.
pub fn scores(windows: &[Window], rule: &Rule) -> Vec<WindowScore> {
    windows
        .iter()
        .zip(smoothed(windows, rule.reach_ms))
        .map(|(w, z)| WindowScore {
            start_ms: w.start_ms,
            end_ms: w.end_ms,
            probability: sigmoid(w.logit),
            smoothed: sigmoid(z),
        })
        .collect()
}

pub fn segment(track: &str, detector: DetectorKind, s: Stretch, reasons: Vec<Reason>) -> Segment {
    Segment {
        track: track.to_owned(),
        detector,
        start_ms: s.start_ms,
        end_ms: s.end_ms,
        probability: Some(s.probability),
        uncertainty: Some(s.uncertainty),
        peak_ms: Some(s.peak_ms),
        peak_probability: Some(s.peak_probability),
        verdict: s.verdict,
        reasons,
        heat_map: None,
    }
}

/// "I can't tell, because …"
pub fn unjudged(
    track: &str,
    detector: DetectorKind,
    start_ms: i64,
    end_ms: i64,
    reasons: Vec<Reason>,
) -> Segment {
    Segment {
        track: track.to_owned(),
        detector,
        start_ms,
        end_ms,
        probability: None,
        uncertainty: None,
        peak_ms: None,
        peak_probability: None,
        verdict: SegmentVerdict::Undetermined,
        reasons,
        heat_map: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::HeatMap, verdict::calibration::logit};

    const OURS: Framing = Framing::Ours { sides: Vec::new() };
    const CALIBRATION: Calibration = Calibration { a: 1.0, b: 0.0, threshold: 0.5 };

    /// A track of four windows a second, each with a raw score, a distance, and the heat of its
    /// four cells.
    fn finished(windows: &[(f32, f32, [u8; 4])]) -> (Track, Vec<Segment>) {
        let mut track = FaceTrack { sightings: windows.len(), ..FaceTrack::default() };
        for (i, (score, distance, cells)) in windows.iter().enumerate() {
            let time_ms = i as i64 * 250;
            track.end_ms = time_ms + 250;
            track.maps.push(cells);
            track.scores.push(Scored { time_ms, score: *score, weight: 1.0, distance: *distance });
        }
        let judging = Judging { step_ms: 250, pace_ms: 0, still: false, framing: OURS };
        track.finish("face-1".to_owned(), &judging, &CALIBRATION, None)
    }

    #[test]
    fn a_judged_picture_stands_for_the_steps_up_to_the_next() {
        let window = |step_ms, pace_ms, still| {
            Judging { step_ms, pace_ms, still, framing: OURS }.window_ms()
        };
        assert_eq!(window(250, 0, false), 250);
        assert_eq!(window(250, 400, false), 500);
        assert_eq!(window(333, 400, false), 666);
        assert_eq!(window(500, 400, false), 500);
        assert_eq!(window(100, 400, false), 400);
        assert_eq!(window(250, 400, true), 0);
    }

    #[test]
    fn each_segment_has_the_mean_map_of_its_own_windows() {
        let mut windows = vec![(-3.0, 0.5, [0, 0, 0, 51]); 40];
        windows.extend([(3.0, 0.5, [255, 0, 102, 51]); 40]);
        let (_, segments) = finished(&windows);
        let maps: Vec<&HeatMap> = segments.iter().map(|s| s.heat_map.as_ref().unwrap()).collect();
        assert_eq!(maps.len(), 2, "{segments:?}");
        assert_eq!((maps[0].columns, maps[0].rows), (2, 2));
        // A window or two next to the border may fall to the other side.
        for (map, want) in maps.iter().zip([[0.0, 0.0, 0.0, 0.2], [1.0, 0.0, 0.4, 0.2]]) {
            for (got, want) in map.values.iter().zip(want) {
                assert!((got - want).abs() < 0.06, "{maps:?}");
            }
        }
        let (_, nothing) = finished(&[]);
        assert_eq!(nothing[0].heat_map, None);
    }

    #[test]
    fn a_segment_out_of_the_domain_says_so_and_how_far() {
        let strange = |segment: &Segment| {
            segment.reasons.iter().find(|r| r.code == ReasonCode::OutOfDomain).cloned()
        };
        let score = logit(0.85);
        let near = vec![(score, 0.9, [9; 4]); 40];
        let (track, segments) = finished(&near);
        assert_eq!((segments.len(), strange(&segments[0]), track.reasons.len()), (1, None, 0));
        let certain = segments[0].uncertainty.unwrap();
        assert_eq!(segments[0].verdict, SegmentVerdict::Fake);
        let mut far = near;
        far.iter_mut().take(19).for_each(|w| w.1 = 1.5);
        assert_eq!(strange(&finished(&far).1[0]), None, "less than half");
        far.iter_mut().take(30).for_each(|w| w.1 = 1.5);
        let (track, segments) = finished(&far);
        let reason = strange(&segments[0]).unwrap();
        assert!(reason.detail.contains("30 of 40") && reason.detail.contains("1.50"), "{reason:?}");
        assert_eq!(track.reasons, [reason]);
        assert!(segments[0].uncertainty.unwrap() > 2.0 * certain);
        assert_eq!(segments[0].verdict, SegmentVerdict::Undetermined);
    }
}
