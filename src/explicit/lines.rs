//! Where in a picture a line of text may stand, and how it is made readable.
//!
//! Marks are thin strokes that are brighter (or darker) than what lies around them, close to each
//! other in a row. So: strokes by a top-hat, joined sideways, and of what comes out that which has a
//! line's shape. Cheap, and generous: what is no text is not read as a label either.

use super::grey::{Grey, Rect};

/// A place that may hold a line of text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// The strokes' bounding box, in pixels of the grey picture.
    pub rect: Rect,
    /// Brighter than the ground.
    pub light: bool,
    /// How much the strokes stand out; higher is more like text.
    strength: f32,
}

/// Where lines are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The middle lies in the outer fifth of the picture's height or width.
    Edge,
    Everywhere,
}

/// How much strokes must differ from their ground; faint and strong ones are joined to lines apart.
const CONTRASTS: [u8; 3] = [14, 30, 60];
/// Of the shorter side: the widest stroke, what lies between letters of a line, and between the rows
/// of a letter's strokes.
const STROKE: f32 = 0.028;
const GAP: f32 = 0.03;
const ROW: f32 = 0.006;
/// Of the shorter side: heights of a line.
const HEIGHTS: std::ops::Range<f32> = 0.016..0.13;
const EDGE: f32 = 0.2;
/// Of a line's box covered by strokes.
const FILL: std::ops::Range<f32> = 0.08..0.65;
/// Changes between stroke and ground along a row, for each height of the line.
const CHANGES: f32 = 1.5;

/// At most `most` places, the most text-like first.
pub fn find(picture: &Grey, zone: Zone, most: usize) -> Vec<Line> {
    let short = picture.width.min(picture.height) as f32;
    let part = |share: f32| ((share * short).round() as usize).max(1);
    let mut found: Vec<Line> = Vec::new();
    let dark = picture.inverted();
    for (light, picture) in [(true, picture), (false, &dark)] {
        let hat = picture.top_hat(part(STROKE).max(7));
        for contrast in CONTRASTS {
            let mask = hat.pixels.iter().map(|v| u8::from(*v > contrast)).collect();
            let mask = Grey { pixels: mask, ..hat };
            let (gap, row) = (part(GAP), part(ROW));
            let joined = mask.slide_both(gap, row, u8::max);
            for outer in boxes(&joined) {
                if let Some(rect) = shrunk(outer, gap / 2, row / 2)
                    && let Some(strength) = judged(&hat, &mask, rect, zone, short)
                {
                    found.push(Line { rect, light, strength });
                }
            }
        }
    }
    found.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    let mut kept: Vec<Line> = Vec::new();
    for line in found {
        let known = |k: &Line| k.light == line.light && k.rect.iou(&line.rect) > 0.6;
        if kept.len() < most && !kept.iter().any(known) {
            kept.push(line);
        }
    }
    kept
}

fn shrunk(rect: Rect, across: usize, down: usize) -> Option<Rect> {
    let (w, h) = (rect.w.checked_sub(2 * across)?, rect.h.checked_sub(2 * down)?);
    Some(Rect { x: rect.x + across, y: rect.y + down, w, h })
}

/// How much what stands at `rect` is like a line of text; none where it is not.
fn judged(hat: &Grey, mask: &Grey, rect: Rect, zone: Zone, short: f32) -> Option<f32> {
    let Rect { x, y, w, h } = rect;
    let (width, height) = (w as f32, h as f32);
    if !HEIGHTS.contains(&(height / short)) || width < 1.4 * height || w > mask.width * 9 / 10 {
        return None;
    }
    let outer = |at: usize, length: usize, all: usize| {
        let middle = (at as f32 + length as f32 / 2.0) / all as f32;
        !(EDGE..=1.0 - EDGE).contains(&middle)
    };
    if zone == Zone::Edge && !outer(x, w, mask.width) && !outer(y, h, mask.height) {
        return None;
    }
    let (mut strokes, mut changes, mut sum) = (0u64, 0u64, 0u64);
    for row in y..y + h {
        let on = mask.row(row).get(x..x + w)?;
        let heights = hat.row(row).get(x..x + w)?;
        strokes += on.iter().map(|v| u64::from(*v)).sum::<u64>();
        changes += on.windows(2).filter(|p| p[0] != p[1]).count() as u64;
        sum += on.iter().zip(heights).map(|(on, v)| u64::from(on * v)).sum::<u64>();
    }
    let changes = changes as f32 / width;
    if !FILL.contains(&(strokes as f32 / (width * height))) || changes < CHANGES {
        return None;
    }
    Some(sum as f32 / strokes as f32 * changes.min(6.0))
}

/// Bounding boxes of the connected parts (4 neighbours) of what is not 0.
fn boxes(mask: &Grey) -> Vec<Rect> {
    // Runs of a row are joined to those of the row above that they touch.
    let mut parts: Vec<(usize, Rect)> = Vec::new();
    let mut above: Vec<(usize, usize, usize)> = Vec::new();
    for y in 0..mask.height {
        let row = mask.row(y);
        let mut runs = Vec::new();
        let (mut x, mut first) = (0, 0);
        while let Some(skip) = row[x..].iter().position(|v| *v != 0) {
            let start = x + skip;
            let length = row[start..].iter().position(|v| *v == 0).unwrap_or(row.len() - start);
            let end = start + length;
            let own = parts.len();
            parts.push((own, Rect { x: start, y, w: length, h: 1 }));
            while above.get(first).is_some_and(|run| run.1 <= start) {
                first += 1;
            }
            for run in above[first..].iter().take_while(|run| run.0 < end) {
                let (a, b) = (root(&mut parts, own), root(&mut parts, run.2));
                if a != b {
                    let (low, high) = (a.min(b), a.max(b));
                    let (p, q) = (parts[low].1, parts[high].1);
                    let (left, top) = (p.x.min(q.x), p.y.min(q.y));
                    parts[low].1 = Rect {
                        x: left,
                        y: top,
                        w: (p.x + p.w).max(q.x + q.w) - left,
                        h: (p.y + p.h).max(q.y + q.h) - top,
                    };
                    parts[high].0 = low;
                }
            }
            runs.push((start, end, own));
            x = end;
        }
        above = runs;
    }
    let whole = parts.iter().enumerate().filter(|(i, (up, _))| i == up);
    whole.map(|(_, (_, rect))| *rect).collect()
}

fn root(parts: &mut [(usize, Rect)], mut at: usize) -> usize {
    while parts[at].0 != at {
        parts[at].0 = parts[parts[at].0].0;
        at = parts[at].0;
    }
    at
}

/// Height of a line in the pictures that are read.
const READ_HEIGHT: f32 = 40.0;
const MAX_WIDTH: usize = 1600;
const BORDER: usize = 10;

/// A line as it is read: dark on white, its height about 40 pixels.
#[derive(Debug, Clone)]
pub struct Page {
    pub grey: Grey,
    /// Where the page's pixel 0, 0 lies in the picture, in pixels of it, and how many pixels of it
    /// one of the page is.
    x: f32,
    y: f32,
    scale: f32,
}

impl Page {
    /// Cuts `line` out of the picture that it was found in. `stroke` is the widest stroke that is
    /// kept, of the line's height: with 0.7 blurred and bold text stays whole, with 0.35 more of the
    /// ground goes.
    pub fn new(picture: &Grey, line: &Line, stroke: f32) -> Self {
        let height = line.rect.h.max(1) as f32;
        let around =
            line.rect.grown((0.45 * height).round() as usize, picture.width, picture.height);
        let crop = picture.crop(around);
        let crop = if line.light { crop } else { crop.inverted() };
        let mut hat = crop.top_hat(((stroke * height).round() as usize).max(3));
        let (low, high) = (hat.percentile(0.05), hat.percentile(0.99));
        let range = f32::from(high.saturating_sub(low).max(1));
        for v in &mut hat.pixels {
            let share = f32::from(v.saturating_sub(low)) / range;
            *v = 255 - (255.0 * share.min(1.0)) as u8;
        }
        let scaled = hat.scaled(READ_HEIGHT / height, MAX_WIDTH);
        let scale = around.w as f32 / scaled.width as f32;
        let (w, h) = (scaled.width + 2 * BORDER, scaled.height + 2 * BORDER);
        let mut pixels = vec![255; w * h];
        for y in 0..scaled.height {
            let at = (y + BORDER) * w + BORDER;
            pixels[at..at + scaled.width].copy_from_slice(scaled.row(y));
        }
        let border = BORDER as f32 * scale;
        Self {
            grey: Grey { width: w, height: h, pixels },
            x: around.x as f32 - border,
            y: around.y as f32 - border,
            scale,
        }
    }

    /// A part of the page in the picture, left, top, right, bottom.
    pub fn back(&self, part: Rect) -> [f32; 4] {
        let Rect { x, y, w, h } = part;
        let across = |v: usize| self.x + v as f32 * self.scale;
        let down = |v: usize| self.y + v as f32 * self.scale;
        [across(x), down(y), across(x + w), down(y + h)]
    }
}
