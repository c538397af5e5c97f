//! Cuts a rectangle out of an RGB picture and brings it to another size.
//!
//! Per axis: area averaging when shrinking (every source pixel counts by the share of it that the
//! target pixel covers, as OpenCV's `INTER_AREA` does), linear interpolation between pixel centres
//! when enlarging (`INTER_LINEAR`). Nothing outside the rectangle is looked at; places outside the
//! picture repeat its edge. The training code crops in the very same way.

use super::Rect;

/// An 8-bit RGB picture, rows packed.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    pub width: usize,
    pub height: usize,
    pub rgb: &'a [u8],
}

impl<'a> Picture<'a> {
    /// `None` where `rgb` is not `width * height * 3` bytes, or the picture has no pixels.
    pub fn new(width: usize, height: usize, rgb: &'a [u8]) -> Option<Self> {
        let whole = width.checked_mul(height)?.checked_mul(3)?;
        (whole > 0 && rgb.len() == whole).then_some(Self { width, height, rgb })
    }
}

/// For each target pixel: the first source pixel and the weights from there on.
struct Axis {
    first: Vec<isize>,
    weights: Vec<Vec<f32>>,
}

impl Axis {
    fn new(from: f32, to: f32, target: usize) -> Self {
        let scale = (to - from) / target as f32;
        let mut first = Vec::with_capacity(target);
        let mut weights = Vec::with_capacity(target);
        for i in 0..target {
            if scale > 1.0 {
                let a = from + i as f32 * scale;
                let b = a + scale;
                let start = a.floor();
                // A sliver of the last pixel that only rounding produced would read one pixel too far.
                let end = (b - 1e-4).floor().max(start);
                let n = (end - start) as usize + 1;
                let mut w = Vec::with_capacity(n);
                for k in 0..n {
                    let p = start + k as f32;
                    w.push(((b.min(p + 1.0) - a.max(p)) / scale).max(0.0));
                }
                let sum: f32 = w.iter().sum();
                w.iter_mut().for_each(|v| *v /= sum);
                first.push(start as isize);
                weights.push(w);
            } else {
                let centre = from + (i as f32 + 0.5) * scale - 0.5;
                let start = centre.floor();
                let t = centre - start;
                first.push(start as isize);
                weights.push(vec![1.0 - t, t]);
            }
        }
        Self { first, weights }
    }
}

/// The source pixel for `at`: inside the rectangle from `from` to `to`, then inside the picture.
fn clamp(at: isize, from: f32, to: f32, len: usize) -> usize {
    let (first, last) = (from.floor() as isize, to.ceil() as isize - 1);
    at.clamp(first, last.max(first)).clamp(0, len as isize - 1) as usize
}

/// The rectangle `rect` of `picture` as `width` x `height` RGB, values 0..255, rounded to nearest.
/// A rectangle without area yields the colour at its corner.
pub fn resample(picture: Picture<'_>, rect: Rect, width: usize, height: usize) -> Vec<u8> {
    let columns = Axis::new(rect.x0, rect.x1.max(rect.x0 + 1e-3), width);
    let rows = Axis::new(rect.y0, rect.y1.max(rect.y0 + 1e-3), height);
    // Source columns clamped once rather than for every row; most pixels read a plain run.
    let taps: Vec<Taps> = columns
        .first
        .iter()
        .zip(&columns.weights)
        .map(|(&first, weights)| {
            let at: Vec<usize> = (0..weights.len())
                .map(|k| clamp(first + k as isize, rect.x0, rect.x1, picture.width) * 3)
                .collect();
            let plain = at.windows(2).all(|pair| pair[1] == pair[0] + 3);
            Taps { at, plain, weights }
        })
        .collect();
    let row_len = width * 3;
    // The last two reduced rows: neighbours share one when enlarging or at fractional borders.
    let mut cache: [(usize, Vec<f32>); 2] =
        [(usize::MAX, vec![0.0; row_len]), (usize::MAX, vec![0.0; row_len])];
    let mut older = 0;
    let mut sum = vec![0.0f32; row_len];
    let mut out = Vec::with_capacity(row_len * height);
    for (&first, w) in rows.first.iter().zip(&rows.weights) {
        sum.fill(0.0);
        for (k, &wy) in w.iter().enumerate() {
            let y = clamp(first + k as isize, rect.y0, rect.y1, picture.height);
            let slot = match cache.iter().position(|(row, _)| *row == y) {
                Some(slot) => slot,
                None => {
                    let slot = older;
                    older = 1 - older;
                    let source = &picture.rgb[y * picture.width * 3..(y + 1) * picture.width * 3];
                    reduce_row(source, &taps, &mut cache[slot].1);
                    cache[slot].0 = y;
                    slot
                }
            };
            for (s, v) in sum.iter_mut().zip(&cache[slot].1) {
                *s += wy * v;
            }
        }
        out.extend(sum.iter().map(|v| (v + 0.5) as u8));
    }
    out
}

/// What one target column reads of a row: byte offsets, whether they follow one another, weights.
struct Taps<'a> {
    at: Vec<usize>,
    plain: bool,
    weights: &'a [f32],
}

fn reduce_row(source: &[u8], taps: &[Taps<'_>], target: &mut [f32]) {
    for (taps, out) in taps.iter().zip(target.chunks_exact_mut(3)) {
        let mut sum = [0.0f32; 3];
        let mut add = |pixel: &[u8], w: f32| {
            for (s, &v) in sum.iter_mut().zip(pixel) {
                *s += w * f32::from(v);
            }
        };
        if taps.plain {
            let run = &source[taps.at[0]..taps.at[0] + taps.at.len() * 3];
            run.chunks_exact(3).zip(taps.weights).for_each(|(pixel, &w)| add(pixel, w));
        } else {
            taps.at.iter().zip(taps.weights).for_each(|(&x, &w)| add(&source[x..x + 3], w));
        }
        out.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(w: usize, h: usize) -> Rect {
        Rect { x0: 0.0, y0: 0.0, x1: w as f32, y1: h as f32 }
    }

    fn gradient(w: usize, h: usize) -> Vec<u8> {
        (0..h)
            .flat_map(|y| (0..w).flat_map(move |x| [(x * 7) as u8, (y * 5) as u8, (x + y) as u8]))
            .collect()
    }

    #[test]
    fn same_size_is_identity() {
        let rgb = gradient(17, 9);
        let picture = Picture::new(17, 9, &rgb).unwrap();
        assert_eq!(resample(picture, whole(17, 9), 17, 9), rgb);
    }

    #[test]
    fn halving_averages_four_pixels() {
        let rgb = [0, 0, 0, 100, 100, 100, 200, 200, 200, 100, 0, 255];
        let picture = Picture::new(2, 2, &rgb).unwrap();
        assert_eq!(resample(picture, whole(2, 2), 1, 1), [100, 75, 139]);
    }

    #[test]
    fn fractional_shrink_matches_a_naive_average() {
        let rgb = gradient(13, 11);
        let picture = Picture::new(13, 11, &rgb).unwrap();
        let rect = Rect { x0: 1.3, y0: 0.7, x1: 11.9, y1: 10.2 };
        let (tw, th) = (5, 4);
        let out = resample(picture, rect, tw, th);
        // Each target pixel as the mean of 400 points per source pixel axis.
        for ty in 0..th {
            for tx in 0..tw {
                let n = 400;
                let (mut sum, mut count) = (0.0, 0.0);
                for i in 0..n {
                    for j in 0..n {
                        let x = rect.x0
                            + (tx as f32 + (i as f32 + 0.5) / n as f32) * rect.width() / tw as f32;
                        let y = rect.y0
                            + (ty as f32 + (j as f32 + 0.5) / n as f32) * rect.height() / th as f32;
                        sum += f64::from(rgb[(y as usize * 13 + x as usize) * 3]);
                        count += 1.0;
                    }
                }
                let want = sum / count;
                let got = f64::from(out[(ty * tw + tx) * 3]);
                assert!((want - got).abs() < 0.8, "{tx},{ty}: {want} against {got}");
            }
        }
    }

    #[test]
    fn outside_repeats_the_edge() {
        let rgb = [10, 20, 30];
        let picture = Picture::new(1, 1, &rgb).unwrap();
        let out = resample(picture, Rect { x0: -5.0, y0: -5.0, x1: 6.0, y1: 6.0 }, 4, 4);
        assert!(out.chunks(3).all(|p| p == [10, 20, 30]));
    }

    #[test]
    fn a_picture_of_the_wrong_size_is_refused() {
        assert!(Picture::new(2, 2, &[0; 11]).is_none());
        assert!(Picture::new(0, 2, &[]).is_none());
    }
}
