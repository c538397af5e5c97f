//! Pictures of a track's face in bounded memory, for those who look at a report.

use crate::report::Segment;

/// The quality of the JPEG, about 6 KB a face.
const QUALITY: u8 = 85;
/// Of two pictures in the same second the one that looks more like a fake is kept. Where they become
/// too many, seconds are joined two by two.
const STEP_MS: i64 = 1_000;

/// A face as the networks see it: from the forehead to the chin and a little beyond the cheeks,
/// stretched to a square. A segment's heat map lies over all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseUp {
    pub time_ms: i64,
    /// Pixels.
    pub side: usize,
    pub jpeg: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    logit: f32,
    picture: CloseUp,
}

/// Pictures of one track in order of time.
#[derive(Debug)]
pub struct CloseUps {
    step_ms: i64,
    kept: Vec<Kept>,
    bytes: usize,
}

impl Default for CloseUps {
    fn default() -> Self {
        Self { step_ms: STEP_MS, kept: Vec::new(), bytes: 0 }
    }
}

impl CloseUps {
    /// What the pictures take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next judged picture of the face, `side` x `side` RGB, if it is the step's best.
    pub fn offer(&mut self, time_ms: i64, logit: f32, rgb: &[u8], side: usize) {
        let same = |kept: &&mut Kept| kept.picture.time_ms / self.step_ms == time_ms / self.step_ms;
        let before = self.kept.last_mut().filter(same);
        if before.as_ref().is_some_and(|kept| kept.logit >= logit) {
            return;
        }
        let Some(jpeg) = jpeg(rgb, side) else { return };
        self.bytes += jpeg.len();
        let new = Kept { logit, picture: CloseUp { time_ms, side, jpeg } };
        match before {
            Some(kept) => self.bytes -= std::mem::replace(kept, new).picture.jpeg.len(),
            None => self.kept.push(new),
        }
    }

    /// Makes all tracks' pictures take no more than `most` bytes: steps twice as long, and where that
    /// is not enough because there are so many faces, those that look most like fakes.
    pub fn thin<'a>(tracks: impl Iterator<Item = &'a mut Self>, most: usize) {
        let mut tracks: Vec<&mut Self> = tracks.collect();
        tracks.iter_mut().for_each(|track| track.halve());
        let mut ranked: Vec<(f32, usize, usize)> = Vec::new();
        for (t, track) in tracks.iter().enumerate() {
            ranked.extend(track.kept.iter().enumerate().map(|(k, kept)| (kept.logit, t, k)));
        }
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut left = most;
        let mut stays: Vec<Vec<bool>> = tracks.iter().map(|t| vec![false; t.kept.len()]).collect();
        for (_, t, k) in ranked {
            let bytes = tracks[t].kept[k].picture.jpeg.len();
            if bytes > left {
                break;
            }
            left -= bytes;
            stays[t][k] = true;
        }
        for (track, stays) in tracks.into_iter().zip(stays) {
            let mut stays = stays.into_iter();
            track.kept.retain(|_| stays.next().unwrap_or(false));
            track.bytes = track.kept.iter().map(|kept| kept.picture.jpeg.len()).sum();
        }
    }

    fn halve(&mut self) {
        self.step_ms *= 2;
        let step_ms = self.step_ms;
        self.kept.dedup_by(|next, kept| {
            let same = next.picture.time_ms / step_ms == kept.picture.time_ms / step_ms;
            if same && next.logit > kept.logit {
                std::mem::swap(next, kept);
            }
            same
        });
    }

    /// For each judged segment the picture out of it that is nearest to its peak.
    pub fn of(self, segments: &[Segment]) -> impl Iterator<Item = (&Segment, CloseUp)> {
        segments.iter().filter_map(move |segment| {
            let peak = segment.peak_ms?;
            let time = |kept: &&Kept| kept.picture.time_ms;
            let inside = self
                .kept
                .iter()
                .filter(|kept| (segment.start_ms..=segment.end_ms).contains(&kept.picture.time_ms));
            let nearest = inside.min_by_key(|kept| (time(kept) - peak).abs())?;
            Some((segment, nearest.picture.clone()))
        })
    }
}

/// None where the picture cannot be one.
fn jpeg(rgb: &[u8], side: usize) -> Option<Vec<u8>> {
    let mut jpeg = Vec::new();
    let pixels = u16::try_from(side).ok()?;
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
        .encode(rgb, pixels, pixels, jpeg_encoder::ColorType::Rgb)
        .ok()?;
    Some(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::faces::unjudged,
        report::{DetectorKind, Segment},
    };

    const SIDE: usize = 16;

    fn offer(to: &mut CloseUps, time_ms: i64, logit: f32) {
        to.offer(time_ms, logit, &[99; SIDE * SIDE * 3], SIDE);
    }

    fn times(of: &CloseUps) -> Vec<i64> {
        of.kept.iter().map(|kept| kept.picture.time_ms).collect()
    }

    fn segment(start_ms: i64, end_ms: i64, peak_ms: Option<i64>) -> Segment {
        let segment = unjudged("face-1", DetectorKind::FaceSwap, start_ms, end_ms, Vec::new());
        Segment { peak_ms, ..segment }
    }

    #[test]
    fn the_picture_most_like_a_fake_of_each_second_is_kept() {
        let mut close_ups = CloseUps::default();
        for (time_ms, logit) in [(0, 1.0), (250, 3.0), (500, 2.0), (1_000, -1.0), (1_250, -2.0)] {
            offer(&mut close_ups, time_ms, logit);
        }
        assert_eq!(times(&close_ups), [250, 1_000]);
        let sum: usize = close_ups.kept.iter().map(|k| k.picture.jpeg.len()).sum();
        assert_eq!(close_ups.bytes(), sum);
        assert!(close_ups.kept[0].picture.jpeg.starts_with(&[0xFF, 0xD8]));
        // Something that is no square of these pixels.
        close_ups.offer(5_000, 1.0, &[0; 3], SIDE);
        assert_eq!(times(&close_ups), [250, 1_000]);
    }

    #[test]
    fn a_segment_gets_the_picture_nearest_to_its_peak_out_of_itself() {
        let mut close_ups = CloseUps::default();
        (0..10).for_each(|s| offer(&mut close_ups, s * 1_000, 0.0));
        let segments = [
            segment(0, 2_500, Some(2_400)),
            segment(2_500, 4_000, Some(2_600)),
            segment(4_100, 4_900, Some(4_200)),
            segment(5_000, 9_000, None),
        ];
        let found: Vec<(i64, i64)> =
            close_ups.of(&segments).map(|(s, picture)| (s.start_ms, picture.time_ms)).collect();
        // The third lies between two pictures; the fourth was not judged.
        assert_eq!(found, [(0, 2_000), (2_500, 3_000)]);
    }

    #[test]
    fn long_tracks_and_many_tracks_are_thinned() {
        let mut long = CloseUps::default();
        for s in 0..100 {
            offer(&mut long, s * 1_000, if s == 51 { 9.0 } else { (s % 7) as f32 / 10.0 });
        }
        let one = long.bytes() / 100;
        let mut many: Vec<CloseUps> = (0..100)
            .map(|i| {
                let mut short = CloseUps::default();
                offer(&mut short, i, -(i as f32));
                short
            })
            .collect();
        let most = 80 * one;
        CloseUps::thin(many.iter_mut().chain([&mut long]), most);
        let kept: usize = many.iter().chain([&long]).map(CloseUps::bytes).sum();
        assert!(kept <= most && kept >= most - one, "{kept} of {most}");
        // Every second one, by its logit, and of the others the first.
        assert_eq!(long.kept.len(), 50);
        assert!(times(&long).contains(&51_000) && !times(&long).contains(&50_000));
        assert_eq!(many.iter().filter(|t| t.bytes() > 0).count(), 30);
        assert!(many[29].bytes() > 0 && many[30].bytes() == 0);
        // And goes on in the longer steps.
        offer(&mut long, 100_000, 0.0);
        offer(&mut long, 101_500, 1.0);
        assert_eq!(times(&long).last(), Some(&101_500));
        assert_eq!(long.kept.len(), 51);
    }
}
