//! From the cells' logits of the network of marks to regions, and what they are worth.
//!
//! What was erased is mostly a box, and a network's answers inside it have holes; so boxes are looked
//! for, not cells that hang together. A cell is worth its logit less `low`, at most 4 either way. The
//! box with the largest sum of worth is found among those of 2 x 2 cells, then each of its sides
//! moves by a cell as long as that adds to the sum. `scripts/train/marks/regions.py` does the same;
//! thresholds and the line that turns a score into log-odds were fitted on validation pictures
//! and stand in the manifest.

use candle_core::Device;

use crate::{
    explicit::grey::Rect,
    models::{
        mark_net::{Input, MarkNet, Marks, STRIDE, factor},
        weights::{WeightStore, WeightsError},
    },
};

/// Name of the weights in the manifest.
pub const WEIGHTS: &str = "label-strip-marks";
/// Cells that a region has at least.
const CELLS: usize = 12;
/// Boxes that are looked for in one picture.
const BOXES: usize = 8;
/// Most that one cell is worth, either way.
const MOST: f64 = 4.0;
/// Cells around a box that was found that no other box takes.
const GAP: usize = 2;

/// The network with its thresholds.
pub struct MarkFinder {
    network: MarkNet,
    pub judging: Judging,
}

/// What turns cells into regions, and regions into log-odds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judging {
    /// Of the logits that a mark was erased: from which on a cell speaks for it, and the mean over
    /// a region's cells from which on the region counts.
    pub erased: (f32, f32),
    /// Log-odds ratio that something was erased: `a * score + b`.
    pub a: f32,
    pub b: f32,
}

impl MarkFinder {
    pub fn load(store: &WeightStore, device: &Device) -> Result<Self, WeightsError> {
        let network = MarkNet::new(&store.load(WEIGHTS, device)?)?;
        let line = store.calibration(WEIGHTS)?;
        let threshold = |what| store.threshold(WEIGHTS, what);
        let judging = Judging {
            erased: (threshold("region_low")?, threshold("region_high")?),
            a: line.a as f32,
            b: line.b as f32,
        };
        Ok(Self { network, judging })
    }

    /// The cells of pictures of one size.
    pub fn look(&self, pictures: &[Input]) -> candle_core::Result<Vec<Marks>> {
        self.network.forward(pictures)
    }
}

/// A part of a picture where the network sees something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// In pixels of the picture as decoded.
    pub rect: Rect,
    /// Mean of its cells' logits.
    pub score: f32,
}

/// Cells row by row; what they are worth.
struct Worth {
    cells: Vec<f64>,
    rows: usize,
    columns: usize,
}

/// Rows and columns of cells, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Worth {
    /// Sums of 2 x 2 cells.
    fn halved(&self) -> Self {
        let (rows, columns) = (self.rows.div_ceil(2), self.columns.div_ceil(2));
        let mut cells = vec![0.0; rows * columns];
        for (y, row) in self.cells.chunks_exact(self.columns).enumerate() {
            for (x, value) in row.iter().enumerate() {
                cells[y / 2 * columns + x / 2] += value;
            }
        }
        Self { cells, rows, columns }
    }

    /// The box with the largest sum, and that sum; the first of equals in the order of top, bottom,
    /// right. After Bentley: "Programming Pearls", column 8, over every pair of rows.
    fn best(&self) -> Option<(f64, Span)> {
        let mut best: Option<(f64, Span)> = None;
        let mut sums = vec![0.0; self.columns];
        for top in 0..self.rows {
            sums.fill(0.0);
            for (below, row) in self.cells.chunks_exact(self.columns).skip(top).enumerate() {
                let (mut sum, mut lowest, mut left) = (0.0, 0.0, 0);
                for (x, (column, value)) in sums.iter_mut().zip(row).enumerate() {
                    *column += value;
                    if sum < lowest {
                        (lowest, left) = (sum, x);
                    }
                    sum += *column;
                    if best.is_none_or(|(most, _)| sum - lowest > most) {
                        let span = Span { top, bottom: top + below + 1, left, right: x + 1 };
                        best = Some((sum - lowest, span));
                    }
                }
            }
        }
        best
    }

    fn sum(&self, span: Span) -> f64 {
        let rows = self.cells.chunks_exact(self.columns).take(span.bottom).skip(span.top);
        rows.map(|row| row[span.left..span.right].iter().sum::<f64>()).sum()
    }

    /// Moves sides by one cell while that adds to the sum.
    fn refined(&self, mut span: Span) -> Span {
        let mut sum = self.sum(span);
        let mut moved = true;
        while moved {
            moved = false;
            for side in 0..4 {
                for step in [-1, 1] {
                    let mut other = span;
                    let (edge, limit) = match side {
                        0 => (&mut other.top, self.rows),
                        1 => (&mut other.bottom, self.rows),
                        2 => (&mut other.left, self.columns),
                        _ => (&mut other.right, self.columns),
                    };
                    let Some(to) = edge.checked_add_signed(step).filter(|to| *to <= limit) else {
                        continue;
                    };
                    *edge = to;
                    if other.top >= other.bottom || other.left >= other.right {
                        continue;
                    }
                    let total = self.sum(other);
                    // Rounding must not move a side to and fro.
                    if total > sum + 1e-4 {
                        (span, sum, moved) = (other, total, true);
                    }
                }
            }
        }
        span
    }

    /// Nothing in `span` or beside it is looked at again.
    fn clear(&mut self, span: Span) {
        let rows = self.cells.chunks_exact_mut(self.columns);
        for row in rows.take(span.bottom + GAP).skip(span.top.saturating_sub(GAP)) {
            let right = (span.right + GAP).min(row.len());
            row[span.left.saturating_sub(GAP)..right].fill(-MOST);
        }
    }
}

/// The regions of `cells` (row by row) of a picture of `width` by `height`, the best first.
pub fn regions(
    cells: &[f32],
    columns: usize,
    (low, high): (f32, f32),
    (width, height): (usize, usize),
) -> Vec<Found> {
    let mut found = Vec::new();
    if columns == 0 || !cells.len().is_multiple_of(columns) {
        return found;
    }
    let side = STRIDE * factor(width, height);
    // What is no number speaks for nothing.
    let worth = |v: &f32| if v.is_nan() { -MOST } else { f64::from(v - low).clamp(-MOST, MOST) };
    let cells_worth = cells.iter().map(worth).collect();
    let mut worth = Worth { cells: cells_worth, rows: cells.len() / columns, columns };
    for _ in 0..BOXES {
        if !worth.cells.iter().any(|v| *v > 0.0) {
            break;
        }
        let Some((_, coarse)) = worth.halved().best().filter(|(sum, _)| *sum > 0.0) else { break };
        let span = worth.refined(Span {
            top: 2 * coarse.top,
            bottom: (2 * coarse.bottom).min(worth.rows),
            left: 2 * coarse.left,
            right: (2 * coarse.right).min(columns),
        });
        let inside = cells.chunks_exact(columns).take(span.bottom).skip(span.top);
        let sum: f64 =
            inside.flat_map(|row| &row[span.left..span.right]).map(|v| f64::from(*v)).sum();
        let n = (span.bottom - span.top) * (span.right - span.left);
        let score = (sum / n as f64) as f32;
        if n >= CELLS && score >= high {
            let (x, y) = (span.left * side, span.top * side);
            let w = (span.right * side).min(width).saturating_sub(x);
            let h = (span.bottom * side).min(height).saturating_sub(y);
            found.push(Found { rect: Rect { x, y, w, h }, score });
        }
        worth.clear(span);
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found
}

/// Means of the logits of pictures of one size; none of none.
pub fn mean(pictures: &[&Marks]) -> Option<Marks> {
    let first = pictures.first()?;
    let average = |channel: fn(&Marks) -> &[f32]| {
        let mut sums = vec![0.0f32; channel(first).len()];
        for marks in pictures {
            sums.iter_mut().zip(channel(marks)).for_each(|(sum, v)| *sum += v);
        }
        sums.iter_mut().for_each(|sum| *sum /= pictures.len() as f32);
        sums
    };
    Some(Marks {
        rows: first.rows,
        columns: first.columns,
        erased: average(|m| &m.erased),
        present: average(|m| &m.present),
    })
}

/// Logits of the cells of `rect` in a picture of `width` by `height`.
fn under(
    cells: &[f32],
    columns: usize,
    rect: Rect,
    (width, height): (usize, usize),
) -> impl Iterator<Item = f32> {
    let side = STRIDE * factor(width, height);
    let across = rect.x / side..(rect.x + rect.w).div_ceil(side).min(columns);
    let down = rect.y / side..(rect.y + rect.h).div_ceil(side);
    let at = down.flat_map(move |y| across.clone().map(move |x| y * columns + x));
    at.filter_map(|cell| cells.get(cell).copied())
}

/// Mean logit of the cells of `rect` in a picture of `size` (width, height).
pub fn inside(cells: &[f32], columns: usize, rect: Rect, size: (usize, usize)) -> f32 {
    let sum = |(n, sum): (f32, f32), v: f32| (n + 1.0, sum + v);
    let (n, sum) = under(cells, columns, rect, size).fold((0.0, 0.0), sum);
    if n > 0.0 { sum / n } else { f32::MIN }
}

/// The highest logit of the cells of `rect` in a picture of `size` (width, height).
pub fn highest(cells: &[f32], columns: usize, rect: Rect, size: (usize, usize)) -> f32 {
    under(cells, columns, rect, size).fold(f32::MIN, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(rows: usize, columns: usize, boxes: &[(Span, f32)]) -> Vec<f32> {
        let mut cells = vec![-5.0; rows * columns];
        for (span, value) in boxes {
            for y in span.top..span.bottom {
                cells[y * columns + span.left..y * columns + span.right].fill(*value);
            }
        }
        cells
    }

    fn span(top: usize, bottom: usize, left: usize, right: usize) -> Span {
        Span { top, bottom, left, right }
    }

    /// The numbers of scripts/train/marks/test_erasers.py.
    #[test]
    fn small_and_weak_boxes_do_not_count() {
        let cells = cells(
            40,
            60,
            &[
                (span(4, 8, 4, 12), 2.0),
                // Its mean is too low.
                (span(20, 24, 20, 28), 0.5),
                // Too small.
                (span(30, 32, 40, 45), 9.0),
                // At the border: clipped.
                (span(35, 40, 53, 60), 3.0),
            ],
        );
        let found = regions(&cells, 60, (0.0, 1.0), (238, 158));
        let rects: Vec<Rect> = found.iter().map(|f| f.rect).collect();
        let rect = |x, y, w, h| Rect { x, y, w, h };
        assert_eq!(rects, [rect(212, 140, 26, 18), rect(16, 16, 32, 16)]);
        assert_eq!((found[0].score, found[1].score), (3.0, 2.0));
        assert!(regions(&[], 0, (1.0, 1.0), (0, 0)).is_empty());
        assert!(regions(&[f32::NAN; 64], 8, (0.0, 0.0), (32, 32)).is_empty());
    }

    #[test]
    fn a_box_with_a_hole_is_one() {
        let mut cells = cells(16, 16, &[(span(3, 9, 2, 12), 3.0)]);
        cells[5 * 16 + 5] = -1.0;
        cells[6 * 16 + 5] = -1.0;
        let found = regions(&cells, 16, (0.0, 1.0), (64, 64));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rect, Rect { x: 8, y: 12, w: 40, h: 24 });
        assert!((found[0].score - (58.0 * 3.0 - 2.0) / 60.0).abs() < 1e-5);
    }

    #[test]
    fn boxes_are_in_pixels_of_the_picture() {
        let cells = cells(180, 320, &[(span(20, 24, 40, 48), 1.0)]);
        let found = regions(&cells, 320, (0.0, 1.0), (2560, 1440));
        assert_eq!(found[0].rect, Rect { x: 320, y: 160, w: 64, h: 32 });
    }
}
