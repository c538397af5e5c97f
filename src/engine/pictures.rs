//! One file's pictures as bearers of labels: which of them are looked at, and for how long a label
//! is seen.

use crate::{
    explicit::{
        grey::{Grey, Rect},
        lines::{self, Line, Page, Zone},
        rule::{self, Said, Shown},
        tesseract::{MAX_PAGES, Tesseract, Word},
    },
    media::Frame,
    report::{Label, LabelVerdict, Region, Seen},
};

/// The first pictures, where a label has to be by the rule: how far they go, and the time between two,
/// which is how exactly a label's duration is measured there.
const START_MS: i64 = 4_000;
const START_STEP_MS: i64 = 500;
/// The pictures of the whole video: at first one a second, and where they become too many, half of
/// them go and the rest lie twice as far apart.
const STEP_MS: i64 = 1_000;
const MOST: usize = 32;
const BYTES: usize = 64 << 20;
/// Pixels of the shorter side that are enough for text; larger pictures are reduced.
const SHORT_SIDE: usize = 720;
const MOST_PIXELS: usize = 4 << 20;
/// Lines of text that are read a picture.
const LINES: usize = 8;
/// Single pictures of a video that are looked at besides its start and the mean of all.
const SINGLES: usize = 3;
/// Strokes of these widths, of a line's height, are kept: the first try and the second.
const STROKES: [f32; 2] = [0.35, 0.7];
/// A label is there where its strokes stand out at least by this share of what they do where it was
/// read, and by this many grey levels.
const PRESENT: f32 = 0.5;
const PRESENT_LEVELS: f32 = 4.0;
/// Mean confidence of a line's words, 0 to 100, below which nothing counts as read.
const CONFIDENCE: f32 = 20.0;
/// Stretches of time of one label that are told apart.
const STRETCHES: usize = 8;

struct Sample {
    time_ms: i64,
    grey: Grey,
}

/// Collects the pictures of one file.
pub struct Pictures {
    still: bool,
    /// The stream that is looked at: the first that shows a picture.
    stream: Option<usize>,
    /// Of the pictures as decoded.
    size: (usize, usize),
    factor: usize,
    start: Vec<Sample>,
    spread: Vec<Sample>,
    step_ms: i64,
}

/// A line that says something of AI.
struct Find {
    line: Line,
    text: String,
    said: Said,
    confidence: f32,
    /// Of the strokes, in pixels of the grey picture.
    rect: Rect,
    height: f32,
    /// The picture that it was read in.
    look: usize,
}

/// How much pictures are reduced: k as for the network of marks, and more where they are huge.
fn factor(width: usize, height: usize) -> usize {
    let by_side = width.min(height) / SHORT_SIDE;
    let by_pixels = (width as f64 * height as f64 / MOST_PIXELS as f64).sqrt().ceil() as usize;
    by_side.max(by_pixels).max(1)
}

impl Pictures {
    pub fn new(still: bool) -> Self {
        Self {
            still,
            stream: None,
            size: (0, 0),
            factor: 1,
            start: Vec::new(),
            spread: Vec::new(),
            step_ms: STEP_MS,
        }
    }

    /// The next picture in order of time. Most are passed over.
    pub fn push(&mut self, frame: &Frame) {
        if self.still && self.stream.is_some() || self.stream.is_some_and(|s| s != frame.stream) {
            return;
        }
        if self.stream.is_none() {
            self.stream = Some(frame.stream);
            self.size = (frame.width, frame.height);
            self.factor = factor(frame.width, frame.height);
        } else if self.size != (frame.width, frame.height) {
            // A video whose size changes on its way: what has another size is not compared.
            return;
        }
        let due = |samples: &[Sample], step: i64| {
            samples.last().is_none_or(|last| frame.time_ms - last.time_ms >= step)
        };
        let start = frame.time_ms <= START_MS && due(&self.start, START_STEP_MS);
        let spread = frame.time_ms > START_MS && {
            let last = self.spread.last().or(self.start.last());
            last.is_none_or(|last| frame.time_ms - last.time_ms >= self.step_ms)
        };
        if !start && !spread {
            return;
        }
        let Some(grey) = Grey::of(&frame.rgb, frame.width, frame.height, self.factor) else {
            return;
        };
        let most = (BYTES / grey.pixels.len().max(1)).clamp(4, MOST);
        let sample = Sample { time_ms: frame.time_ms, grey };
        if start {
            self.start.push(sample);
            return;
        }
        self.spread.push(sample);
        if self.spread.len() > most {
            let mut number = 0;
            self.spread.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.step_ms *= 2;
        }
    }

    /// The labels that can be read, in order of time.
    ///
    /// # Errors
    /// One sentence, where the program that reads failed.
    pub fn finish(
        self,
        reader: &Tesseract,
        duration_ms: Option<i64>,
    ) -> Result<Vec<Label>, String> {
        let samples: Vec<&Sample> = self.start.iter().chain(&self.spread).collect();
        let Some(first) = samples.first() else { return Ok(Vec::new()) };
        let mut labels = Vec::new();
        if self.still {
            let looks = [(&first.grey, Zone::Edge)];
            for find in read(reader, &looks)? {
                labels.push(self.label(&find, None, duration_ms));
            }
            return Ok(labels);
        }
        let all: Vec<&Grey> = samples.iter().map(|s| &s.grey).collect();
        let start: Vec<&Grey> = self.start.iter().map(|s| &s.grey).collect();
        let (all_mean, start_mean) = (mean(&all), mean(&start));
        // What stands still while the picture moves stands out of the mean.
        let mut looks = vec![(&first.grey, Zone::Everywhere)];
        looks.extend(start_mean.as_ref().filter(|_| start.len() > 1).map(|m| (m, Zone::Edge)));
        looks
            .extend(all_mean.as_ref().filter(|_| all.len() > start.len()).map(|m| (m, Zone::Edge)));
        let mut finds = read(reader, &looks)?;
        if finds.is_empty() && all.len() > 1 {
            // A label that moves, or comes later.
            let at = |i: usize| (i + 1) * (all.len() - 1) / SINGLES;
            let mut singles: Vec<usize> = (0..SINGLES).map(at).filter(|i| *i > 0).collect();
            singles.dedup();
            looks = singles.iter().map(|i| (all[*i], Zone::Edge)).collect();
            finds = read(reader, &looks)?;
        }
        for find in finds {
            let shown = presence(&find, looks[find.look].0, &all);
            let times: Vec<i64> = samples.iter().map(|s| s.time_ms).collect();
            for stretch in stretches(&times, &shown, duration_ms) {
                labels.push(self.label(&find, Some(stretch), duration_ms));
            }
        }
        labels.sort_by_key(|l| (l.seen.start_ms, l.seen.region.map(|r| (r.y, r.x))));
        Ok(labels)
    }

    fn label(&self, find: &Find, time: Option<(i64, i64)>, duration_ms: Option<i64>) -> Label {
        let k = self.factor;
        let pixels = |v: usize| (v * k) as u32;
        let Rect { x, y, w, h } = find.rect;
        let region = Region { x: pixels(x), y: pixels(y), w: pixels(w), h: pixels(h) };
        let shown = Shown { region, height: find.height * k as f32, time_ms: time };
        let (width, height) = self.size;
        let deviations = rule::deviations(&find.said, &shown, width, height, duration_ms);
        let content = match &find.said.by {
            Some(by) => format!("{} (mark: {by})", find.text),
            None => find.text.clone(),
        };
        Label {
            system: "explicit-text".to_owned(),
            place: if self.still { "picture" } else { "pictures" }.to_owned(),
            content,
            verdict: match deviations.is_empty() {
                true => LabelVerdict::Compliant,
                false => LabelVerdict::Noncompliant,
            },
            deviations,
            ai: Some(true),
            seen: Seen {
                region: Some(region),
                start_ms: time.map(|t| t.0),
                end_ms: time.map(|t| t.1),
            },
        }
    }
}

/// Reads the lines of some pictures; each place once.
fn read(reader: &Tesseract, looks: &[(&Grey, Zone)]) -> Result<Vec<Find>, String> {
    let mut open: Vec<(usize, Line)> = Vec::new();
    for (look, (grey, zone)) in looks.iter().enumerate() {
        open.extend(lines::find(grey, *zone, LINES).into_iter().map(|line| (look, line)));
    }
    open.truncate(MAX_PAGES);
    let mut finds: Vec<Find> = Vec::new();
    for stroke in STROKES {
        let pages: Vec<Page> =
            open.iter().map(|(look, line)| Page::new(looks[*look].0, line, stroke)).collect();
        let greys: Vec<&Grey> = pages.iter().map(|page| &page.grey).collect();
        let answers = reader.read(&greys)?;
        let mut again = Vec::new();
        for (((look, line), page), words) in open.into_iter().zip(&pages).zip(answers) {
            let text = joined(&words);
            let n = words.len().max(1) as f32;
            let confidence = words.iter().map(|w| w.confidence).sum::<f32>() / n;
            tracing::debug!("{:?}: {text:?} {confidence:.0}", line.rect);
            match rule::said(&text) {
                Some(said) if confidence >= CONFIDENCE => {
                    let (rect, height) = extent(page, &words, &line, looks[look].0);
                    finds.push(Find { line, text, said, confidence, rect, height, look });
                }
                _ if rule::hints(&text) => again.push((look, line)),
                _ => {}
            }
        }
        open = again;
    }
    // The best reading of each place.
    finds.sort_by(|a, b| {
        let rank = |f: &Find| (f.said.wording, f.said.by.is_some());
        rank(b).cmp(&rank(a)).then(b.confidence.total_cmp(&a.confidence))
    });
    let mut kept: Vec<Find> = Vec::new();
    for find in finds {
        if !kept.iter().any(|k| overlap(&k.rect, &find.rect) > 0.3) {
            kept.push(find);
        }
    }
    Ok(kept)
}

/// The part of the smaller one that both have.
fn overlap(a: &Rect, b: &Rect) -> f32 {
    let along =
        |a: usize, al: usize, b: usize, bl: usize| (a + al).min(b + bl).saturating_sub(a.max(b));
    let both = along(a.x, a.w, b.x, b.w) * along(a.y, a.h, b.y, b.h);
    both as f32 / (a.w * a.h).min(b.w * b.h).max(1) as f32
}

/// The words of a line: a space only where Latin words meet.
fn joined(words: &[Word]) -> String {
    let mut text = String::new();
    for word in words {
        let latin = |c: Option<char>| c.is_some_and(|c| c.is_ascii());
        if latin(text.chars().last()) && latin(word.text.chars().next()) {
            text.push(' ');
        }
        text.push_str(&word.text);
    }
    text
}

/// Where the words stand in the grey picture, and how high they are.
fn extent(page: &Page, words: &[Word], line: &Line, picture: &Grey) -> (Rect, f32) {
    let around = line.rect.grown(line.rect.h / 2, picture.width, picture.height);
    let mut edges = [f32::MAX, f32::MAX, 0.0, 0.0];
    for word in words {
        let [x0, y0, x1, y1] = page.back(word.rect);
        edges = [edges[0].min(x0), edges[1].min(y0), edges[2].max(x1), edges[3].max(y1)];
    }
    let [x0, y0, x1, y1] = edges;
    let within =
        |v: f32, low: usize, length: usize| (v.round().max(0.0) as usize).clamp(low, low + length);
    let (x, y) = (within(x0, around.x, around.w), within(y0, around.y, around.h));
    let (right, bottom) = (within(x1, around.x, around.w), within(y1, around.y, around.h));
    let (w, h) = (right.saturating_sub(x), bottom.saturating_sub(y));
    if w == 0 || h == 0 {
        return (line.rect, line.rect.h as f32);
    }
    (Rect { x, y, w, h }, h as f32)
}

/// The mean of pictures of one size; none of none.
fn mean(pictures: &[&Grey]) -> Option<Grey> {
    let first = pictures.first()?;
    let mut sums = vec![0u32; first.pixels.len()];
    for picture in pictures {
        sums.iter_mut().zip(&picture.pixels).for_each(|(sum, v)| *sum += u32::from(*v));
    }
    let n = pictures.len() as u32;
    let pixels = sums.into_iter().map(|sum| (sum / n) as u8).collect();
    Some(Grey { width: first.width, height: first.height, pixels })
}

/// Whether a label that was read in `look` is there in each of the pictures: whether its strokes
/// stand out of what lies between them.
fn presence(find: &Find, look: &Grey, pictures: &[&Grey]) -> Vec<bool> {
    let rect = find.line.rect;
    let around = rect.grown(rect.h / 2, look.width, look.height);
    let side = (rect.h * 2 / 5).max(3);
    let hat = |picture: &Grey| {
        let crop = picture.crop(around);
        if find.line.light { crop.top_hat(side) } else { crop.inverted().top_hat(side) }
    };
    let shape = hat(look);
    let stroke = (f32::from(shape.percentile(0.97)) / 2.0).max(1.0);
    let mask: Vec<bool> = shape.pixels.iter().map(|v| f32::from(*v) >= stroke).collect();
    let stands_out = |hat: &Grey| {
        let (mut on, mut off) = ((0.0f32, 0.0f32), (0.0f32, 0.0f32));
        for (v, is) in hat.pixels.iter().zip(&mask) {
            let sum = if *is { &mut on } else { &mut off };
            *sum = (sum.0 + f32::from(*v), sum.1 + 1.0);
        }
        on.0 / on.1.max(1.0) - off.0 / off.1.max(1.0)
    };
    let least = (PRESENT * stands_out(&shape)).max(PRESENT_LEVELS);
    pictures.iter().map(|picture| stands_out(&hat(picture)) >= least).collect()
}

/// Stretches of time from pictures' times and whether the label is there. One picture without it
/// between two with it does not count. A stretch reaches to the next picture without the label, the
/// last one to the end.
fn stretches(times: &[i64], there: &[bool], duration_ms: Option<i64>) -> Vec<(i64, i64)> {
    let mut there = there.to_vec();
    for i in 1..there.len().saturating_sub(1) {
        there[i] |= there[i - 1] && there[i + 1];
    }
    let mut found: Vec<(i64, i64)> = Vec::new();
    let mut open = false;
    for (i, (time, is)) in times.iter().zip(&there).enumerate() {
        if *is {
            let after = match times.get(i + 1) {
                Some(next) => *next,
                None => duration_ms.unwrap_or(*time).max(*time),
            };
            match found.last_mut().filter(|_| open) {
                Some(last) => last.1 = after,
                // The first picture may not be at 0.
                None => found.push((if i == 0 { 0 } else { *time }, after)),
            }
        }
        open = *is;
    }
    if found.len() > STRETCHES
        && let (Some(first), Some(last)) = (found.first(), found.last())
    {
        // Flickering: one stretch from the first to the last.
        return vec![(first.0, last.1)];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_reach_to_the_next_picture_without_the_label() {
        let times = [0, 500, 1_000, 2_000, 3_000];
        let found = |there: &[u8], duration| {
            let there: Vec<bool> = there.iter().map(|v| *v == 1).collect();
            stretches(&times, &there, duration)
        };
        assert_eq!(found(&[1, 1, 0, 0, 0], Some(3_400)), [(0, 1_000)]);
        assert_eq!(found(&[1, 1, 1, 1, 1], Some(3_400)), [(0, 3_400)]);
        assert_eq!(found(&[1, 0, 1, 1, 1], None), [(0, 3_000)]);
        assert_eq!(found(&[0, 1, 0, 0, 1], Some(3_400)), [(500, 1_000), (3_000, 3_400)]);
        assert!(found(&[0; 5], None).is_empty());
    }

    #[test]
    fn a_long_video_keeps_few_pictures_evenly_spread() {
        let mut pictures = Pictures::new(false);
        for time_ms in (0..3_600_000).step_by(250) {
            let frame =
                Frame { stream: 0, time_ms, width: 64, height: 48, rgb: vec![9; 64 * 48 * 3] };
            pictures.push(&frame);
        }
        assert_eq!(pictures.start.len(), 9);
        assert!((MOST / 2..=MOST).contains(&pictures.spread.len()), "{}", pictures.spread.len());
        let gaps: Vec<i64> =
            pictures.spread.windows(2).map(|w| w[1].time_ms - w[0].time_ms).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
        let last = pictures.spread.last().unwrap().time_ms;
        assert!(last > 3_600_000 - 2 * gaps[0]);
    }

    #[test]
    fn huge_pictures_are_reduced() {
        for (w, h) in [(320, 240), (1920, 1080), (8192, 8192), (60_000, 1_000), (1, 1)] {
            let k = factor(w, h);
            assert!((w / k) * (h / k) <= MOST_PIXELS, "{w}x{h} by {k}");
        }
        assert_eq!((factor(1920, 1080), factor(3840, 2160)), (1, 3));
    }
}
