//! Cuts speech into the windows that the voice network scores, in bounded memory: nothing older
//! than the window in work is kept.

use super::{
    RATE, WINDOW,
    activity::{Activity, FRAME, Region},
};

/// From one window to the next inside a stretch of speech.
pub const HOP: i64 = RATE as i64;
/// Less speech than this in a stretch is not judged.
pub const MIN_SPEECH: i64 = RATE as i64;
/// A last window that would add less than this is left out.
const MIN_NEW: i64 = RATE as i64 / 4;

/// 4 s of one stretch of speech. A shorter stretch is repeated until the window is full, as in
/// training; `end - start` tells how much is original.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechWindow {
    /// On the presentation's timeline, in 16 kHz samples.
    pub start: i64,
    pub end: i64,
    /// [`WINDOW`] samples.
    pub wave: Vec<f32>,
}

/// The windows of one stream, and how much speech there was.
#[derive(Debug, Default)]
pub struct Windower {
    activity: Activity,
    /// Sound from `base` on.
    buffer: Vec<f32>,
    base: i64,
    /// Start of the region in work, and where its next window begins.
    region: Option<(i64, i64)>,
    /// Samples of speech in finished regions, judged or not.
    speech: i64,
    /// Samples in regions that were too short to judge.
    short: i64,
}

impl Windower {
    /// One frame of sound and the probability that it is speech. Frames come in order and without
    /// gaps; [`Self::gap`] says where one is.
    pub fn push(&mut self, frame: &[f32; FRAME], probability: f32, out: &mut Vec<SpeechWindow>) {
        let at = self.base + self.buffer.len() as i64;
        self.buffer.extend_from_slice(frame);
        if let Some(region) = self.activity.push(at, probability) {
            self.cut(region, out);
        }
        // Outside speech only the padding before the next region can still be wanted.
        let keep_from = match self.region {
            Some((_, next)) => next - (WINDOW as i64),
            None => self.base + self.buffer.len() as i64 - 8 * FRAME as i64,
        };
        // In steps of a second, so that the memory is not moved at every frame.
        if keep_from - self.base >= RATE as i64 {
            self.buffer.drain(..(keep_from - self.base) as usize);
            self.base = keep_from;
        }
    }

    /// The sound ends or jumps: what is in work is finished; the next frame begins at `next`.
    pub fn gap(&mut self, next: i64, out: &mut Vec<SpeechWindow>) {
        if let Some(region) = self.activity.finish() {
            self.cut(region, out);
        }
        self.buffer.clear();
        self.base = next;
    }

    /// Speech seen so far, in samples.
    pub fn speech(&self) -> i64 {
        self.speech
    }

    /// The part of it that lay in stretches too short to judge.
    pub fn short(&self) -> i64 {
        self.short
    }

    fn cut(&mut self, region: Region, out: &mut Vec<SpeechWindow>) {
        // Padding before the first frame must not reach back over a gap.
        let first = region.start.max(self.base);
        let (start, mut next) = self.region.unwrap_or((first, first));
        // Padding after the last frame of speech may reach past the sound that is there.
        let end = region.end.min(self.base + self.buffer.len() as i64);
        while end - next >= WINDOW as i64 {
            out.push(self.window(next, next + WINDOW as i64));
            next += HOP;
        }
        if region.open {
            self.region = Some((start, next));
            return;
        }
        self.region = None;
        self.speech += end - start;
        let covered = if next > start { next - HOP + WINDOW as i64 } else { start };
        if end - start < MIN_SPEECH {
            self.short += end - start;
        } else if end - covered >= MIN_NEW {
            out.push(self.window((end - WINDOW as i64).max(start), end));
        }
    }

    fn window(&self, start: i64, end: i64) -> SpeechWindow {
        let from = (start - self.base).clamp(0, self.buffer.len() as i64) as usize;
        let to = (end - self.base).clamp(from as i64, self.buffer.len() as i64) as usize;
        let wave = self.buffer[from..to].iter().copied().cycle().take(WINDOW).collect();
        SpeechWindow { start, end, wave }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sound whose samples tell their own position, speech where `speech` says.
    fn cut(seconds: f32, speech: impl Fn(f32) -> bool) -> (Vec<SpeechWindow>, Windower) {
        let mut windower = Windower::default();
        let mut out = Vec::new();
        let frames = (seconds * RATE as f32) as usize / FRAME;
        for i in 0..frames {
            let mut frame = [0.0; FRAME];
            for (k, v) in frame.iter_mut().enumerate() {
                *v = (i * FRAME + k) as f32;
            }
            let p = if speech((i * FRAME) as f32 / RATE as f32) { 0.9 } else { 0.0 };
            windower.push(&frame, p, &mut out);
            assert!(windower.buffer.len() <= 3 * WINDOW);
        }
        windower.gap(0, &mut out);
        (out, windower)
    }

    #[test]
    fn long_speech_gives_a_window_a_second() {
        let (windows, windower) = cut(60.0, |_| true);
        assert_eq!(windows[0].start, 0);
        assert!(windows.windows(2).all(|w| w[1].start - w[0].start <= HOP));
        assert_eq!(windows.len(), 57);
        for w in &windows {
            assert_eq!(w.wave.len(), WINDOW);
            assert_eq!(w.wave[0], w.start as f32);
            assert_eq!(w.wave[WINDOW - 1], (w.end - 1) as f32);
        }
        assert_eq!(windower.short(), 0);
    }

    #[test]
    fn a_short_sentence_is_repeated_to_fill_its_window() {
        let (windows, _) = cut(10.0, |t| (3.0..5.0).contains(&t));
        assert_eq!(windows.len(), 1);
        let w = &windows[0];
        let n = (w.end - w.start) as usize;
        assert!((n as f32 / RATE as f32 - 2.2).abs() < 0.1);
        assert_eq!(w.wave[0], w.wave[n]);
        assert!((w.start as f32 / RATE as f32 - 2.9).abs() < 0.1);
    }

    #[test]
    fn too_little_speech_is_counted_and_not_judged() {
        let (windows, windower) = cut(10.0, |t| (3.0..3.5).contains(&t));
        assert!(windows.is_empty());
        assert!(windower.short() > 0 && windower.short() == windower.speech());
    }

    #[test]
    fn the_end_of_a_sentence_is_covered() {
        let (windows, _) = cut(20.0, |t| (2.0..8.6).contains(&t));
        let last = windows.last().unwrap();
        assert!((last.end as f32 / RATE as f32 - 8.7).abs() < 0.1, "{}", last.end);
    }

    #[test]
    fn a_gap_ends_a_region() {
        let mut windower = Windower::default();
        let mut out = Vec::new();
        for _ in 0..60 {
            windower.push(&[0.5; FRAME], 0.9, &mut out);
        }
        windower.gap(1_000_000, &mut out);
        for _ in 0..60 {
            windower.push(&[0.5; FRAME], 0.9, &mut out);
        }
        windower.gap(0, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].start, 1_000_000);
    }
}
