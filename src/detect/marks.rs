//! From the cells' logits of the network of marks to regions, and what they are worth.
//!
//! Cells of at least `low` are joined with their 8 neighbours; what has at least 4 cells and somewhere
//! at least `high` counts. `scripts/train/marks/regions.py` does the same; thresholds and the
//! line that turns a score into log-odds were fitted on validation pictures and stand in the
//! manifest.

use candle_core::Device;

use crate::{
    explicit::grey::Rect,
    models::{
        mark_net::{Input, MarkNet, Marks, STRIDE, factor},
        weights::{Metric, WeightStore, WeightsError},
    },
};

/// Name of the weights in the manifest.
pub const WEIGHTS: &str = "label-strip-marks";
const CELLS: usize = 4;

/// The network with its thresholds.
pub struct MarkFinder {
    network: MarkNet,
    pub judging: Judging,
}

/// What turns cells into regions, and regions into log-odds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judging {
    /// Of the logits that a mark was erased: those of a region's cells, and of its highest.
    pub erased: (f32, f32),
    /// Log-odds ratio that something was erased: `a * score + b`.
    pub a: f32,
    pub b: f32,
}

impl MarkFinder {
    pub fn load(store: &WeightStore, device: &Device) -> Result<Self, WeightsError> {
        let network = MarkNet::new(&store.load(WEIGHTS, device)?)?;
        let line = store.calibration(WEIGHTS)?;
        let entry = store.entry(WEIGHTS)?;
        let threshold = |name: &str| match entry.metrics.get(name)? {
            Metric::Value(value) | Metric::Interval([value, ..]) => Some(*value as f32),
        };
        let both = threshold("region_low").zip(threshold("region_high"));
        let judging = Judging {
            // Without thresholds no region counts.
            erased: both.unwrap_or((f32::INFINITY, f32::INFINITY)),
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
    let rows = cells.len() / columns;
    let side = STRIDE * factor(width, height);
    let mut seen: Vec<bool> = cells.iter().map(|v| *v < low || v.is_nan()).collect();
    let mut open = Vec::new();
    for start in 0..cells.len() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let (mut n, mut sum, mut peak) = (0usize, 0.0f64, f32::MIN);
        let (mut left, mut top, mut right, mut bottom) = (columns, rows, 0, 0);
        open.push(start);
        while let Some(cell) = open.pop() {
            let (y, x) = (cell / columns, cell % columns);
            n += 1;
            sum += f64::from(cells[cell]);
            peak = peak.max(cells[cell]);
            (left, right) = (left.min(x), right.max(x + 1));
            (top, bottom) = (top.min(y), bottom.max(y + 1));
            for y in y.saturating_sub(1)..(y + 2).min(rows) {
                for x in x.saturating_sub(1)..(x + 2).min(columns) {
                    let next = y * columns + x;
                    if !std::mem::replace(&mut seen[next], true) {
                        open.push(next);
                    }
                }
            }
        }
        if n < CELLS || peak < high {
            continue;
        }
        let (x, y) = (left * side, top * side);
        let w = (right * side).min(width).saturating_sub(x);
        let h = (bottom * side).min(height).saturating_sub(y);
        found.push(Found { rect: Rect { x, y, w, h }, score: (sum / n as f64) as f32 });
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

    #[test]
    fn cells_become_regions() {
        #[rustfmt::skip]
        let cells = [
            0.0, 2.0, 0.0, 0.0, 0.0, 9.0,
            2.0, 0.0, 2.0, 0.0, 0.0, 9.0,
            0.0, 2.0, 0.0, 0.0, 0.0, 9.0,
            0.0, 0.0, 0.0, 1.0, 0.0, 0.0,
            0.0, 0.0, 1.0, 1.0, 1.0, 4.0,
        ];
        // The ring hangs together by its corners and its peak is too low; three cells are too few.
        let found = regions(&cells, 6, (1.0, 3.0), (45, 38));
        assert_eq!(found.len(), 1);
        // The numbers of scripts/train/marks/regions.py.
        assert_eq!(found[0], Found { rect: Rect { x: 16, y: 24, w: 29, h: 14 }, score: 1.6 });
        let found = regions(&cells, 6, (1.5, 1.9), (45, 38));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], Found { rect: Rect { x: 0, y: 0, w: 24, h: 24 }, score: 2.0 });
        assert!(regions(&cells, 6, (1.0, 9.5), (45, 38)).is_empty());
        assert!(regions(&[], 0, (1.0, 1.0), (0, 0)).is_empty());
    }
}
