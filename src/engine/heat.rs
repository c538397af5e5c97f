//! Heat maps of a track's windows in bounded memory, and their mean over a segment.

use crate::report::HeatMap;

/// Maps of one track in order of time: a byte a cell, each the mean of `group` windows.
#[derive(Debug)]
pub struct Maps {
    /// Windows in a map.
    group: usize,
    /// Columns and rows.
    side: usize,
    /// The whole maps, one after the other.
    whole: Vec<u8>,
    /// The sums of the windows since, and how many they are.
    open: Vec<u32>,
    in_open: usize,
}

impl Default for Maps {
    fn default() -> Self {
        Self { group: 1, side: 0, whole: Vec::new(), open: Vec::new(), in_open: 0 }
    }
}

impl Maps {
    /// Takes the next window's cells, as many as the windows' before it.
    pub fn push(&mut self, cells: &[u8]) {
        if self.side == 0 {
            self.side = cells.len().isqrt();
            self.open = vec![0; cells.len()];
        }
        for (sum, cell) in self.open.iter_mut().zip(cells) {
            *sum += u32::from(*cell);
        }
        self.in_open += 1;
        if self.in_open == self.group {
            self.close();
        }
    }

    fn close(&mut self) {
        let n = self.in_open as u32;
        self.whole.extend(self.open.iter().map(|sum| ((sum + n / 2) / n) as u8));
        self.open.fill(0);
        self.in_open = 0;
    }

    pub fn bytes(&self) -> usize {
        self.whole.len()
    }

    /// Joins maps two by two.
    pub fn halve(&mut self) {
        let cells = self.open.len();
        if cells == 0 {
            return;
        }
        let mut joined = Vec::with_capacity(self.whole.len() / 2 + cells);
        let mut pairs = self.whole.chunks_exact(2 * cells);
        for pair in &mut pairs {
            let (a, b) = pair.split_at(cells);
            joined.extend(a.iter().zip(b).map(|(a, b)| a.midpoint(*b)));
        }
        for (sum, cell) in self.open.iter_mut().zip(pairs.remainder()) {
            *sum += u32::from(*cell) * self.group as u32;
        }
        if !pairs.remainder().is_empty() {
            self.in_open += self.group;
        }
        self.whole = joined;
        self.group *= 2;
    }

    /// The weighted mean over some windows, named by their places in the track.
    pub fn mean(&self, windows: impl Iterator<Item = (usize, f32)>) -> Option<HeatMap> {
        let cells = self.open.len();
        let mut sums = vec![0.0; cells];
        let mut total = 0.0;
        for (window, weight) in windows {
            let from = window / self.group * cells;
            match self.whole.get(from..from + cells) {
                Some(map) => {
                    for (sum, cell) in sums.iter_mut().zip(map) {
                        *sum += weight * f32::from(*cell);
                    }
                }
                None => {
                    for (sum, open) in sums.iter_mut().zip(&self.open) {
                        *sum += weight * *open as f32 / self.in_open.max(1) as f32;
                    }
                }
            }
            total += weight;
        }
        let round = |sum: f32| (sum / total / 255.0 * 1_000.0).round() / 1_000.0;
        (cells > 0 && total > 0.0).then(|| HeatMap {
            columns: self.side,
            rows: self.side,
            values: sums.into_iter().map(round).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize) -> Maps {
        let mut maps = Maps::default();
        for i in 0..n {
            maps.push(&[i as u8, 255 - i as u8, 7, 0]);
        }
        maps
    }

    #[test]
    fn the_mean_is_weighted() {
        let maps = filled(10);
        let mean = maps.mean([(2, 1.0), (4, 3.0)].into_iter()).unwrap();
        assert_eq!((mean.columns, mean.rows), (2, 2));
        assert_eq!(mean.values, [0.014, 0.986, 0.027, 0.0]);
        assert!(maps.mean(std::iter::empty()).is_none());
        assert!(Maps::default().mean([(0, 1.0)].into_iter()).is_none());
    }

    #[test]
    fn joined_maps_take_half_the_memory_and_keep_the_mean() {
        for n in [1, 2, 3, 10, 11, 64, 101, 200] {
            let mut maps = filled(n);
            let all = |maps: &Maps| maps.mean((0..n).map(|i| (i, 1.0))).unwrap().values;
            let want = all(&maps);
            for _ in 0..4 {
                let before = maps.bytes();
                maps.halve();
                assert!(maps.bytes() <= before / 2, "{n}");
                for (got, want) in all(&maps).iter().zip(&want) {
                    assert!((got - want).abs() < 0.01, "{n}: {got} {want}");
                }
            }
        }
        // Windows that come after the joining lie where they belong.
        let mut maps = filled(7);
        maps.halve();
        for i in 7..20 {
            maps.push(&[i, 0, 0, 0]);
        }
        let at = |i: usize| (maps.mean([(i, 1.0)].into_iter()).unwrap().values[0] * 255.0).round();
        assert_eq!([at(0), at(6), at(12), at(18)], [0.0, 7.0, 13.0, 19.0]);
    }
}
