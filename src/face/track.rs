//! Faces followed through time by overlap and nearness. A track survives a short occlusion and
//! ends at a shot cut.

use super::{Face, Rect};

/// A face that is out of sight for longer than this starts a new track, in milliseconds; at low
/// sampling rates, longer than two pictures.
pub const MAX_GAP_MS: i64 = 1_500;
/// Faces that are followed at the same time; of more in one picture the surest are kept.
pub const MAX_FACES: usize = 32;
/// A pairing needs this much overlap, or a centre that moved by less than [`MAX_SHIFT`] of the
/// face's size at a like size.
const MIN_IOU: f32 = 0.2;
const MAX_SHIFT: f32 = 0.6;
const MAX_SIZE_RATIO: f32 = 1.7;

#[derive(Debug, Clone)]
struct Live {
    id: usize,
    rect: Rect,
    last_ms: i64,
}

/// Gives each face of each picture the number of its track, counted from 1 in order of
/// appearance.
#[derive(Debug, Default)]
pub struct Tracker {
    live: Vec<Live>,
    issued: usize,
    last_ms: Option<i64>,
    /// Finds that were left out because one picture held more than [`MAX_FACES`].
    left_out: usize,
}

impl Tracker {
    /// Finds that were left out so far.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// One picture's faces, in order of time. `cut`: a shot cut lies before this picture.
    pub fn push(&mut self, time_ms: i64, cut: bool, mut faces: Vec<Face>) -> Vec<(usize, Face)> {
        if cut {
            self.live.clear();
        }
        let interval = self.last_ms.map_or(0, |last| time_ms - last);
        self.last_ms = Some(time_ms);
        let gap = MAX_GAP_MS.max(interval * 2 + 1);
        self.live.retain(|t| time_ms - t.last_ms <= gap);
        self.left_out += faces.len().saturating_sub(MAX_FACES);
        faces.truncate(MAX_FACES);

        // Greedy by affinity: the best pair first. With a few faces a picture this is what an
        // optimal assignment gives.
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for (t, track) in self.live.iter().enumerate() {
            for (f, face) in faces.iter().enumerate() {
                if let Some(affinity) = affinity(&track.rect, &face.rect) {
                    pairs.push((affinity, t, f));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut track_of: Vec<Option<usize>> = vec![None; faces.len()];
        let mut taken = vec![false; self.live.len()];
        for (_, t, f) in pairs {
            if !taken[t] && track_of[f].is_none() {
                taken[t] = true;
                track_of[f] = Some(t);
            }
        }

        faces
            .into_iter()
            .zip(track_of)
            .map(|(face, track)| {
                let id = match track {
                    Some(t) => {
                        self.live[t].rect = face.rect;
                        self.live[t].last_ms = time_ms;
                        self.live[t].id
                    }
                    None => {
                        self.issued += 1;
                        self.live.push(Live { id: self.issued, rect: face.rect, last_ms: time_ms });
                        self.issued
                    }
                };
                (id, face)
            })
            .collect()
    }
}

/// How well two boxes fit as one face; `None` where they do not.
fn affinity(a: &Rect, b: &Rect) -> Option<f32> {
    let iou = a.iou(b);
    let size = (a.area().sqrt() + b.area().sqrt()) / 2.0;
    let ratio = (a.area() / b.area().max(f32::MIN_POSITIVE)).sqrt();
    let ((ax, ay), (bx, by)) = (a.centre(), b.centre());
    let shift = (ax - bx).hypot(ay - by) / size.max(f32::MIN_POSITIVE);
    let alike = (1.0 / MAX_SIZE_RATIO..=MAX_SIZE_RATIO).contains(&ratio);
    (iou >= MIN_IOU || (alike && shift <= MAX_SHIFT)).then_some(iou - 0.1 * shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32) -> Face {
        Face {
            rect: Rect { x0: x, y0: 0.0, x1: x + 100.0, y1: 100.0 },
            confidence: 0.9,
            landmarks: [[0.0; 2]; 5],
        }
    }

    fn ids(found: Vec<(usize, Face)>) -> Vec<usize> {
        found.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn two_faces_keep_their_numbers_in_any_order() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(tracker.push(0, false, vec![at(0.0), at(300.0)])), [1, 2]);
        assert_eq!(ids(tracker.push(250, false, vec![at(310.0), at(10.0)])), [2, 1]);
    }

    #[test]
    fn a_short_occlusion_is_survived_and_a_long_one_not() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(tracker.push(0, false, vec![at(0.0)])), [1]);
        assert!(tracker.push(1_000, false, vec![]).is_empty());
        assert_eq!(ids(tracker.push(1_500, false, vec![at(20.0)])), [1]);
        for time in [1_750, 2_000, 2_250, 2_500, 2_750, 3_000] {
            assert!(tracker.push(time, false, vec![]).is_empty());
        }
        assert_eq!(ids(tracker.push(3_250, false, vec![at(20.0)])), [2]);
    }

    #[test]
    fn a_face_is_followed_at_any_sampling_rate() {
        let mut tracker = Tracker::default();
        for i in 0..5 {
            assert_eq!(ids(tracker.push(i * 10_000, false, vec![at(0.0)])), [1]);
        }
    }

    #[test]
    fn a_cut_ends_every_track() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(tracker.push(0, false, vec![at(0.0)])), [1]);
        assert_eq!(ids(tracker.push(250, true, vec![at(0.0)])), [2]);
    }

    #[test]
    fn a_far_face_is_another() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(tracker.push(0, false, vec![at(0.0)])), [1]);
        assert_eq!(ids(tracker.push(250, false, vec![at(500.0)])), [2]);
    }
}
