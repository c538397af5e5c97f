//! Grey pictures and what makes thin strokes stand out in them.

/// Brightness of a picture, a byte a pixel, rows packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grey {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub x: usize,
    pub y: usize,
    pub w: usize,
    pub h: usize,
}

impl Rect {
    pub fn area(&self) -> usize {
        self.w * self.h
    }

    /// Pixels that both have.
    pub fn shared(&self, other: &Self) -> usize {
        let along = |a: usize, al: usize, b: usize, bl: usize| {
            (a + al).min(b + bl).saturating_sub(a.max(b))
        };
        along(self.x, self.w, other.x, other.w) * along(self.y, self.h, other.y, other.h)
    }

    /// Intersection over union.
    pub fn iou(&self, other: &Self) -> f32 {
        let both = self.shared(other);
        let all = self.area() + other.area() - both;
        if all == 0 { 0.0 } else { both as f32 / all as f32 }
    }

    /// With `by` more pixels on every side, inside a picture of `width` by `height`.
    pub fn grown(&self, by: usize, width: usize, height: usize) -> Self {
        let (x, y) = (self.x.saturating_sub(by), self.y.saturating_sub(by));
        let w = (self.x + self.w + by).min(width).saturating_sub(x);
        let h = (self.y + self.h + by).min(height).saturating_sub(y);
        Self { x, y, w, h }
    }
}

impl Grey {
    /// The brightness (BT.601) of an RGB picture, reduced by the mean of `factor` by `factor`
    /// pixels; the right and lower rest of less is dropped. `None` where the sizes do not fit or
    /// nothing is left.
    pub fn of(rgb: &[u8], width: usize, height: usize, factor: usize) -> Option<Self> {
        if factor == 0 || rgb.len() != width.checked_mul(height)?.checked_mul(3)? {
            return None;
        }
        let (w, h) = (width / factor, height / factor);
        if w == 0 || h == 0 {
            return None;
        }
        let luma = |p: &[u8]| 77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2]);
        let mut pixels = Vec::with_capacity(w * h);
        if factor == 1 {
            pixels.extend(rgb.chunks_exact(3).map(|p| (luma(p) >> 8) as u8));
        } else {
            // At most 2^8 * 255 * factor^2, and factors stay far below 2^8.
            let mut sums = vec![0u64; w];
            for rows in rgb.chunks_exact(width * 3 * factor).take(h) {
                sums.fill(0);
                for row in rows.chunks_exact(width * 3) {
                    for (sum, box_) in sums.iter_mut().zip(row.chunks_exact(3 * factor)) {
                        *sum += u64::from(box_.chunks_exact(3).map(luma).sum::<u32>());
                    }
                }
                let all = (factor * factor) as u64;
                pixels.extend(sums.iter().map(|sum| ((sum / all) >> 8) as u8));
            }
        }
        Some(Self { width: w, height: h, pixels })
    }

    pub fn row(&self, y: usize) -> &[u8] {
        self.pixels.get(y * self.width..(y + 1) * self.width).unwrap_or_default()
    }

    pub fn inverted(&self) -> Self {
        Self { pixels: self.pixels.iter().map(|v| 255 - v).collect(), ..*self }
    }

    /// The part under `rect`, which must lie inside.
    pub fn crop(&self, rect: Rect) -> Self {
        let rows = (rect.y..rect.y + rect.h).map(|y| self.row(y));
        let parts = rows.flat_map(|row| row.get(rect.x..rect.x + rect.w).unwrap_or_default());
        let pixels: Vec<u8> = parts.copied().collect();
        let height = pixels.len().checked_div(rect.w).unwrap_or(0);
        Self { width: rect.w, height, pixels }
    }

    /// What is brighter than its surroundings and narrower than `side` pixels: the picture less its
    /// opening by a square (white top-hat).
    pub fn top_hat(&self, side: usize) -> Self {
        let opened = self.slide(side, u8::min).slide(side, u8::max);
        let pixels = self.pixels.iter().zip(&opened.pixels).map(|(a, b)| a.saturating_sub(*b));
        Self { pixels: pixels.collect(), ..*self }
    }

    /// The extreme of `side` by `side` pixels around each one; even sides count one more.
    fn slide(&self, side: usize, op: impl Fn(u8, u8) -> u8) -> Self {
        self.slide_both(side, side, op)
    }

    /// The same with a rectangle of `across` by `down` pixels. `op` is known when this is compiled: many
    /// pixels are taken at once then.
    pub fn slide_both(&self, across: usize, down: usize, op: impl Fn(u8, u8) -> u8) -> Self {
        let (w, h) = (self.width, self.height);
        if w == 0 || h == 0 {
            return self.clone();
        }
        // Beyond the edges counts what changes nothing.
        let neutral = if op(0, 255) == 0 { 255 } else { 0 };
        let odd = |side: usize, all: usize| side.min(2 * all).max(1) | 1;
        let mut pixels = Vec::with_capacity(w * h);
        let n = odd(across, w);
        let (mut from, mut to) = (vec![neutral; w + n - 1], vec![neutral; w + n - 1]);
        for row in self.pixels.chunks_exact(w) {
            from.fill(neutral);
            from[n / 2..n / 2 + w].copy_from_slice(row);
            // Windows of 1, 2, 4, … pixels, and in the end two that overlap.
            let mut done = 1;
            while done < n {
                let step = done.min(n - done);
                let len = from.len() - step;
                let pairs = from[..len].iter().zip(&from[step..]);
                to.iter_mut().zip(pairs).for_each(|(to, (a, b))| *to = op(*a, *b));
                to[len..].fill(neutral);
                std::mem::swap(&mut from, &mut to);
                done += step;
            }
            pixels.extend_from_slice(&from[..w]);
        }
        let n = odd(down, h);
        let (above, below) = (n / 2, n - 1 - n / 2);
        let mut tall = vec![neutral; above * w];
        tall.extend_from_slice(&pixels);
        tall.resize(tall.len() + below * w, neutral);
        let mut done = 1;
        while done < n {
            let step = done.min(n - done);
            let rows = tall.len() / w;
            for y in 0..rows - step {
                let (upper, lower) = tall.split_at_mut((y + step) * w);
                let upper = &mut upper[y * w..(y + 1) * w];
                upper.iter_mut().zip(&lower[..w]).for_each(|(a, b)| *a = op(*a, *b));
            }
            done += step;
        }
        tall.truncate(w * h);
        Self { width: w, height: h, pixels: tall }
    }

    /// Scaled by `by`: the mean where that is smaller, between pixels straight where it is larger.
    /// Never empty nor more than `most` pixels wide.
    pub fn scaled(&self, by: f32, most: usize) -> Self {
        let by = by.min(most as f32 / self.width.max(1) as f32);
        let shrink = (1.0 / by).floor().max(1.0) as usize;
        if shrink > 1 {
            let (w, h) = ((self.width / shrink).max(1), (self.height / shrink).max(1));
            let mut pixels = Vec::with_capacity(w * h);
            for y in 0..h {
                for x in 0..w {
                    let rows =
                        (y * shrink..((y + 1) * shrink).min(self.height)).map(|y| self.row(y));
                    let cells =
                        rows.flat_map(|row| &row[x * shrink..((x + 1) * shrink).min(self.width)]);
                    let (n, sum) = cells.fold((0, 0), |(n, sum), v| (n + 1, sum + u32::from(*v)));
                    pixels.push((sum / n.max(1)) as u8);
                }
            }
            return Self { width: w, height: h, pixels }.scaled(by * shrink as f32, most);
        }
        let size = |n: usize| ((n as f32 * by).round() as usize).max(1);
        let (w, h) = (size(self.width), size(self.height));
        let place = |i: usize, n: usize| {
            let at = ((i as f32 + 0.5) / by - 0.5).clamp(0.0, n.saturating_sub(1) as f32);
            (at as usize, (at as usize + 1).min(n.saturating_sub(1)), at.fract())
        };
        let columns: Vec<_> = (0..w).map(|x| place(x, self.width)).collect();
        let mut pixels = Vec::with_capacity(w * h);
        for y in 0..h {
            let (top, bottom, down) = place(y, self.height);
            let (top, bottom) = (self.row(top), self.row(bottom));
            pixels.extend(columns.iter().map(|&(left, right, across)| {
                let mix = |row: &[u8]| {
                    let (a, b) = (f32::from(row[left]), f32::from(row[right]));
                    a + (b - a) * across
                };
                let (a, b) = (mix(top), mix(bottom));
                (a + (b - a) * down).round() as u8
            }));
        }
        Self { width: w, height: h, pixels }
    }

    /// The value that a share of the pixels does not exceed.
    pub fn percentile(&self, share: f32) -> u8 {
        let mut counts = [0usize; 256];
        self.pixels.iter().for_each(|v| counts[usize::from(*v)] += 1);
        let wanted = (share * self.pixels.len() as f32) as usize;
        let mut sum = 0;
        for (value, count) in counts.iter().enumerate() {
            sum += count;
            if sum > wanted {
                return value as u8;
            }
        }
        255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize) -> Grey {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        Grey { width, height, pixels: (0..width * height).map(|_| next()).collect() }
    }

    #[test]
    fn sliding_extremes_are_those_of_the_definition() {
        for (w, h, across, down) in [(17, 11, 5, 3), (9, 8, 1, 7), (6, 5, 31, 2), (1, 1, 3, 3)] {
            let picture = noise(w, h);
            for op in [u8::min as fn(u8, u8) -> u8, u8::max] {
                let found = picture.slide_both(across, down, op);
                let (rx, ry) = ((across | 1) / 2, (down | 1) / 2);
                for y in 0..h {
                    for x in 0..w {
                        let rows = y.saturating_sub(ry)..(y + ry + 1).min(h);
                        let cells = rows.flat_map(|y| {
                            (x.saturating_sub(rx)..(x + rx + 1).min(w)).map(move |x| y * w + x)
                        });
                        let wanted = cells.map(|i| picture.pixels[i]).reduce(op).unwrap();
                        assert_eq!(
                            found.pixels[y * w + x],
                            wanted,
                            "{w}x{h} {across}x{down} {x},{y}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn thin_strokes_stay_and_the_ground_goes() {
        let (w, h) = (60, 40);
        let ground = |x: usize| 40 + 2 * x as u8;
        let pixels = (0..w * h).map(|i| if i % w == 30 { 220 } else { ground(i % w) }).collect();
        let hat = Grey { width: w, height: h, pixels }.top_hat(7);
        assert!(hat.row(20)[30] >= 115);
        assert!((0..w).filter(|x| *x != 30).all(|x| hat.row(20)[x] <= 8), "{:?}", hat.row(20));
    }

    #[test]
    fn scaling_keeps_the_mean() {
        let flat = Grey { width: 31, height: 17, pixels: vec![93; 31 * 17] };
        for by in [0.11, 0.4, 1.0, 2.7] {
            let scaled = flat.scaled(by, 1000);
            assert!(scaled.pixels.iter().all(|v| *v == 93), "{by}");
            assert_eq!(scaled.pixels.len(), scaled.width * scaled.height);
        }
        assert_eq!(flat.scaled(50.0, 310).width, 310);
    }

    #[test]
    fn brightness_is_that_of_the_colours() {
        let rgb = [255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0];
        assert_eq!(Grey::of(&rgb, 4, 1, 1).unwrap().pixels, [255, 0, 76, 149]);
        assert_eq!(Grey::of(&rgb, 2, 2, 2).unwrap().pixels, [120]);
        assert!(Grey::of(&rgb, 4, 2, 1).is_none() && Grey::of(&rgb, 2, 2, 3).is_none());
    }
}
