//! Frame probabilities of the voice activity network become stretches of speech.

use super::RATE;

/// Samples that one probability speaks for.
pub const FRAME: usize = 512;
/// Speech begins at the first and ends below the second.
const ENTER: f32 = 0.5;
const LEAVE: f32 = 0.35;
/// A pause shorter than this belongs to the speech around it.
pub const MAX_PAUSE: i64 = (RATE as i64) * 7 / 10;
/// What is kept before the first and after the last frame of speech.
const PAD: i64 = RATE as i64 / 10;

/// A stretch of speech, in samples. While it is `open`, `end` still grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub start: i64,
    pub end: i64,
    pub open: bool,
}

/// State between frames.
#[derive(Debug, Default)]
pub struct Activity {
    current: Option<Region>,
    /// End of the last finished region: the next one's padding must not reach into it.
    floor: i64,
}

impl Activity {
    /// One frame beginning at sample `at`. Returns the region that this frame belongs to or ends.
    pub fn push(&mut self, at: i64, probability: f32) -> Option<Region> {
        let frame_end = at + FRAME as i64;
        match &mut self.current {
            None if probability >= ENTER => {
                let start = (at - PAD).max(self.floor);
                self.current = Some(Region { start, end: frame_end, open: true });
                self.current
            }
            None => None,
            Some(region) => {
                if probability >= LEAVE {
                    region.end = frame_end;
                    Some(*region)
                } else if frame_end - region.end >= MAX_PAUSE {
                    self.finish()
                } else {
                    Some(*region)
                }
            }
        }
    }

    /// Ends the region in work, at a gap in the sound or at its end.
    pub fn finish(&mut self) -> Option<Region> {
        let region = self.current.take()?;
        let end = region.end + PAD;
        self.floor = end;
        Some(Region { end, open: false, ..region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(probabilities: &[f32]) -> Vec<(i64, i64)> {
        let mut activity = Activity::default();
        let mut done = Vec::new();
        for (i, &p) in probabilities.iter().enumerate() {
            done.extend(activity.push((i * FRAME) as i64, p).filter(|r| !r.open));
        }
        done.extend(activity.finish());
        done.iter().map(|r| (r.start, r.end)).collect()
    }

    #[test]
    fn a_short_pause_joins_and_a_long_one_parts() {
        let speech = vec![0.9; 40];
        let mut p = speech.clone();
        p.extend([0.1; 15]);
        p.extend(&speech);
        assert_eq!(regions(&p).len(), 1);
        let mut p = speech.clone();
        p.extend([0.1; 40]);
        p.extend(&speech);
        let found = regions(&p);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (0, 40 * 512 + 1_600));
        assert_eq!(found[1].0, 80 * 512 - 1_600);
    }

    #[test]
    fn hesitation_inside_speech_does_not_end_it() {
        let mut p = vec![0.9; 10];
        p.extend([0.4; 100]);
        assert_eq!(regions(&p), [(0, 110 * 512 + 1_600)]);
    }

    #[test]
    fn silence_is_no_region() {
        assert!(regions(&[0.1; 50]).is_empty());
    }
}
