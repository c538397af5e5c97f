//! One file's pictures as bearers of labels: which of them are looked at, and for how long a label
//! is seen.

use std::sync::atomic::AtomicBool;

use super::owner::{Client, InferenceError, Ticket};
use crate::{
    detect::{
        label_strip,
        marks::{self, Judging},
    },
    explicit::{
        grey::{Grey, Rect},
        lines::{self, Line, Page, Zone},
        rule::{self, Said, Shown},
        tesseract::{MAX_PAGES, Tesseract, Word},
    },
    media::Frame,
    models::mark_net::{Input, Marks},
    report::{Evidence, Label, LabelVerdict, Region, Seen},
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
/// Rows of a line with less than this part of the fullest row's strokes do not count as its height, and
/// so many of them may lie between rows that do, in pixels of the page.
const FAIR: usize = 30;
const MISSING_ROWS: usize = 4;
/// Stretches of time of one label that are told apart.
const STRETCHES: usize = 8;

/// Pictures whose logits are averaged at most: the same mark over another ground each time.
const TOGETHER: usize = 8;
/// From this overlap (intersection over union) on, regions of neighbouring stretches are one.
const SAME: f32 = 0.3;
/// Regions that are reported, the strongest.
const MOST_ERASED: usize = 8;
/// The network's logit that a mark lies over the picture which some cell under a line must reach for the
/// line to be read. On 54 marks and 30 pictures without any this kept 96 % of the marks and about a
/// quarter of what else looked like a line (`docs/labels.md`).
const MARK_LOGIT: f32 = -1.5;

struct Sample {
    time_ms: i64,
    grey: Grey,
    marks: Option<Marks>,
}

/// What the pictures of a file say of labels.
#[derive(Default)]
pub struct Found {
    pub labels: Vec<Label>,
    /// Where a mark was erased.
    pub erased: Vec<Evidence>,
    /// Why text was not read: the program failed.
    pub failed: Option<String>,
}

/// A region in which the network sees that something was erased.
struct Erased {
    rect: Rect,
    score: f32,
    start_ms: i64,
    end_ms: i64,
}

/// Collects the pictures of one file, and asks the network about each as it comes.
pub struct Pictures {
    client: Client,
    /// The network's answer for the last sample of the start, or of the rest, that was asked for.
    waiting: Option<(i64, Ticket<Vec<Marks>>)>,
    last_asked_ms: Option<i64>,
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
    pub fn new(client: Client, still: bool) -> Self {
        Self {
            client,
            waiting: None,
            last_asked_ms: None,
            still,
            stream: None,
            size: (0, 0),
            factor: 1,
            start: Vec::new(),
            spread: Vec::new(),
            step_ms: STEP_MS,
        }
    }

    /// The next picture in order of time. Most are passed over. Waits where the network is still at
    /// work on an earlier one.
    pub fn push(&mut self, frame: &Frame) -> Result<(), InferenceError> {
        if self.still && self.stream.is_some() || self.stream.is_some_and(|s| s != frame.stream) {
            return Ok(());
        }
        if self.stream.is_none() {
            self.stream = Some(frame.stream);
            self.size = (frame.width, frame.height);
            self.factor = factor(frame.width, frame.height);
        } else if self.size != (frame.width, frame.height) {
            // A video whose size changes on its way: what has another size is not compared.
            return Ok(());
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
            return Ok(());
        }
        let Some(grey) = Grey::of(&frame.rgb, frame.width, frame.height, self.factor) else {
            return Ok(());
        };
        self.drain()?;
        if self.last_asked_ms.is_none_or(|last| frame.time_ms - last >= self.step_ms)
            && let Some(input) = Input::new(&frame.rgb, frame.width, frame.height)
        {
            self.last_asked_ms = Some(frame.time_ms);
            self.waiting = Some((frame.time_ms, self.client.marks(input)));
        }
        let most = (BYTES / grey.pixels.len().max(1)).clamp(4, MOST);
        let sample = Sample { time_ms: frame.time_ms, grey, marks: None };
        if start {
            self.start.push(sample);
            return Ok(());
        }
        self.spread.push(sample);
        if self.spread.len() > most {
            self.drain()?;
            let mut number = 0;
            self.spread.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.step_ms *= 2;
        }
        Ok(())
    }

    /// Waits for the network's answer that is still out.
    pub fn drain(&mut self) -> Result<(), InferenceError> {
        let Some((time_ms, ticket)) = self.waiting.take() else { return Ok(()) };
        let marks = ticket.wait()?.pop();
        let mut samples = self.spread.iter_mut().rev().chain(self.start.iter_mut().rev());
        if let Some(sample) = samples.find(|s| s.time_ms == time_ms) {
            sample.marks = marks;
        }
        Ok(())
    }

    /// Labels that can be read, where there is something to read with, and regions in which a mark was
    /// erased; both in order of time. [`Self::drain`] comes first.
    pub fn finish(
        self,
        reader: Option<&Tesseract>,
        judging: Option<Judging>,
        duration_ms: Option<i64>,
        stop: &AtomicBool,
    ) -> Found {
        let mut found = Found::default();
        if let Some(judging) = judging {
            found.erased = self.erased(judging, duration_ms);
        }
        match reader.map_or(Ok(Vec::new()), |reader| self.labels(reader, duration_ms, stop)) {
            Ok(labels) => found.labels = labels,
            Err(why) => found.failed = Some(why),
        }
        found
    }

    /// The labels that can be read, in order of time.
    fn labels(
        &self,
        reader: &Tesseract,
        duration_ms: Option<i64>,
        stop: &AtomicBool,
    ) -> Result<Vec<Label>, String> {
        let samples: Vec<&Sample> = self.start.iter().chain(&self.spread).collect();
        let Some(first) = samples.first() else { return Ok(Vec::new()) };
        let mut labels = Vec::new();
        let gate = |samples: &[&Sample]| self.gate(samples);
        if self.still {
            let looks = [(&first.grey, Zone::Edge, gate(&samples))];
            for find in read(reader, &looks, self.factor, self.size, stop)? {
                labels.push(self.label(&find, None, duration_ms));
            }
            return Ok(labels);
        }
        let all: Vec<&Grey> = samples.iter().map(|s| &s.grey).collect();
        let start: Vec<&Grey> = self.start.iter().map(|s| &s.grey).collect();
        let (all_mean, start_mean) = (mean(&all), mean(&start));
        // What stands still while the picture moves stands out of the mean.
        let starting: Vec<&Sample> = self.start.iter().collect();
        let mut looks = vec![(&first.grey, Zone::Everywhere, gate(&samples[..1]))];
        looks.extend(
            start_mean
                .as_ref()
                .filter(|_| start.len() > 1)
                .map(|m| (m, Zone::Edge, gate(&starting))),
        );
        looks.extend(
            all_mean
                .as_ref()
                .filter(|_| all.len() > start.len())
                .map(|m| (m, Zone::Edge, gate(&samples))),
        );
        let mut finds = read(reader, &looks, self.factor, self.size, stop)?;
        if finds.is_empty() && all.len() > 1 {
            // A label that moves, or comes later.
            let at = |i: usize| (i + 1) * (all.len() - 1) / SINGLES;
            let mut singles: Vec<usize> = (0..SINGLES).map(at).filter(|i| *i > 0).collect();
            singles.dedup();
            let single = |i: &usize| (all[*i], Zone::Edge, gate(&samples[*i..=*i]));
            looks = singles.iter().map(single).collect();
            finds = read(reader, &looks, self.factor, self.size, stop)?;
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

    /// What the network sees in these pictures together; none where it saw none of them.
    fn gate(&self, samples: &[&Sample]) -> Option<Marks> {
        let all: Vec<&Marks> = samples.iter().filter_map(|s| s.marks.as_ref()).collect();
        marks::mean(&all)
    }

    /// Where a mark was erased, and from when to when.
    fn erased(&self, judging: Judging, duration_ms: Option<i64>) -> Vec<Evidence> {
        let seen = self.start.iter().chain(&self.spread);
        let seen: Vec<(i64, &Marks)> =
            seen.filter_map(|s| Some((s.time_ms, s.marks.as_ref()?))).collect();
        let mut found: Vec<Erased> = Vec::new();
        let stretches = seen.len().div_ceil(TOGETHER).max(1);
        let bound = |i: usize| i * seen.len() / stretches;
        for stretch in 0..stretches {
            let range = bound(stretch)..bound(stretch + 1);
            let part = &seen[range.clone()];
            let together: Vec<&Marks> = part.iter().map(|(_, marks)| *marks).collect();
            let Some(mean) = marks::mean(&together) else { continue };

            let mut new = Vec::new();
            for region in marks::regions(&mean.erased, mean.columns, judging.erased, self.size) {
                // It may have been there only for a part.
                let there = |marks: &Marks| {
                    marks::inside(&marks.erased, marks.columns, region.rect, self.size)
                        >= judging.erased.0
                };
                let first = together.iter().position(|m| there(m)).unwrap_or(0);
                let last = together.iter().rposition(|m| there(m)).unwrap_or(part.len() - 1);
                let (from, to) = (range.start + first, range.start + last);
                let end = seen.get(to + 1).map(|(time, _)| *time).or(duration_ms);
                let start_ms = if from == 0 { 0 } else { seen[from].0 };
                let end_ms = end.unwrap_or(seen[to].0).max(start_ms);
                new.push(Erased { rect: region.rect, score: region.score, start_ms, end_ms });
            }
            for region in new {
                let goes_on = |e: &&mut Erased| {
                    e.end_ms == region.start_ms && e.rect.iou(&region.rect) >= SAME
                };
                match found.iter_mut().find(goes_on) {
                    Some(before) => {
                        before.end_ms = region.end_ms;
                        before.score = before.score.max(region.score);
                    }
                    None => found.push(region),
                }
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(MOST_ERASED);
        found.sort_by_key(|e| (e.start_ms, e.rect.y, e.rect.x));
        let evidence = |erased: Erased| {
            let Rect { x, y, w, h } = erased.rect;
            let region = Region { x: x as u32, y: y as u32, w: w as u32, h: h as u32 };
            let time = |at: i64| (!self.still).then_some(at);
            let seen = Seen {
                region: Some(region),
                start_ms: time(erased.start_ms),
                end_ms: time(erased.end_ms),
            };
            let place = if self.still { "picture" } else { "pictures" };
            label_strip::erased_mark(place, judging.a * erased.score + judging.b, seen)
        };
        found.into_iter().filter_map(evidence).collect()
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

/// A picture that is read: where lines are looked for, and what the network of marks sees, if it was
/// asked.
type Look<'a> = (&'a Grey, Zone, Option<Marks>);

/// Reads the lines of some pictures, each place once. They are `factor` times smaller than decoded, which
/// was `size`.
fn read(
    reader: &Tesseract,
    looks: &[Look<'_>],
    factor: usize,
    size: (usize, usize),
    stop: &AtomicBool,
) -> Result<Vec<Find>, String> {
    let mut open: Vec<(usize, Line)> = Vec::new();
    for (look, (grey, zone, marks)) in looks.iter().enumerate() {
        let marked = |line: &Line| {
            let Rect { x, y, w, h } = line.rect;
            let decoded = Rect { x: x * factor, y: y * factor, w: w * factor, h: h * factor };
            marks
                .as_ref()
                .is_none_or(|m| marks::highest(&m.present, m.columns, decoded, size) >= MARK_LOGIT)
        };
        let lines = lines::find(grey, *zone, LINES).into_iter().filter(marked);
        open.extend(lines.map(|line| (look, line)));
    }
    open.truncate(MAX_PAGES);
    let mut finds: Vec<Find> = Vec::new();
    for stroke in STROKES {
        let pages: Vec<Page> =
            open.iter().map(|(look, line)| Page::new(looks[*look].0, line, stroke)).collect();
        let greys: Vec<&Grey> = pages.iter().map(|page| &page.grey).collect();
        let answers = reader.read(&greys, stop)?;
        let mut again = Vec::new();
        for (((look, line), page), words) in open.into_iter().zip(&pages).zip(answers) {
            let text = joined(&words);
            let n = words.len().max(1) as f32;
            let confidence = words.iter().map(|w| w.confidence).sum::<f32>() / n;
            tracing::debug!("{:?}: {text:?} {confidence:.0}", line.rect);
            match rule::said(&text) {
                Some(said) if confidence >= CONFIDENCE => {
                    let (rect, height) = extent(page, &words, &line);
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
    a.shared(b) as f32 / a.area().min(b.area()).max(1) as f32
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

/// Where the words stand in the grey picture, and how high they are: from the first to the last row that
/// has a fair share of their strokes, so that a speck of the ground above or below adds nothing.
fn extent(page: &Page, words: &[Word], line: &Line) -> (Rect, f32) {
    let right = words.iter().map(|w| w.rect.x + w.rect.w).max().unwrap_or(0);
    let bottom = words.iter().map(|w| w.rect.y + w.rect.h).max().unwrap_or(0);
    let x = words.iter().map(|w| w.rect.x).min().unwrap_or(0);
    let y = words.iter().map(|w| w.rect.y).min().unwrap_or(0);
    let dark = |row: usize| {
        let pixels = page.grey.row(row).get(x..right.min(page.grey.width)).unwrap_or_default();
        pixels.iter().filter(|v| **v < 128).count()
    };
    let strokes: Vec<usize> = (y..bottom.min(page.grey.height)).map(dark).collect();
    let least = strokes.iter().max().map_or(1, |most| (most / FAIR).max(1));
    // The longest run of such rows; between the strokes of a letter few may be missing.
    let (mut best, mut from, mut last) = (0..0, None, 0);
    for (row, _) in strokes.iter().enumerate().filter(|(_, n)| **n >= least) {
        let start = *from.filter(|_| row - last <= MISSING_ROWS).get_or_insert(row);
        (from, last) = (Some(start), row);
        if row + 1 - start > best.len() {
            best = start..row + 1;
        }
    }
    if best.is_empty() || right <= x {
        return (line.rect, line.rect.h as f32);
    }
    let part = Rect { x, y: y + best.start, w: right - x, h: best.len() };
    let [x0, y0, x1, y1] = page.back(part);
    let pixel = |v: f32| v.round().max(0.0) as usize;
    let (w, h) = (pixel(x1).saturating_sub(pixel(x0)), pixel(y1).saturating_sub(pixel(y0)));
    (Rect { x: pixel(x0), y: pixel(y0), w, h }, y1 - y0)
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
    use crate::engine::owner::queue;

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
        // Pictures that are too long for the network, which is not what is tried here.
        let (client, _inbox) = queue();
        let mut pictures = Pictures::new(client, false);
        let (width, height) = (140_000, 1);
        let rgb = vec![9; width * height * 3];
        let mut frame = Frame { stream: 0, time_ms: 0, width, height, rgb };
        for time_ms in (0..3_600_000).step_by(250) {
            frame.time_ms = time_ms;
            pictures.push(&frame).unwrap();
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
