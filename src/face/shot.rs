//! Shot cuts between sampled pictures, so that a face track never runs over a cut.
//!
//! Two pictures belong to different shots when both their colour histogram and their layout
//! changed: the histogram alone is fooled by flashes, the layout alone by motion.

use super::{
    Rect,
    resample::{Picture, resample},
};

const W: usize = 32;
const H: usize = 18;
/// Histogram distance (half L1, 0 to 1) and mean absolute difference (0 to 255) over which a pair
/// of pictures counts as a cut. Chosen on concatenated clips against their own insides.
const HISTOGRAM: f32 = 0.30;
const LAYOUT: f32 = 22.0;

/// What is kept of a picture to compare the next one with.
#[derive(Debug, Clone)]
pub struct Signature {
    thumb: Vec<u8>,
    histogram: [f32; 64],
}

impl Signature {
    pub fn new(picture: Picture<'_>) -> Self {
        let whole = Rect { x0: 0.0, y0: 0.0, x1: picture.width as f32, y1: picture.height as f32 };
        let thumb = resample(picture, whole, W, H);
        let mut histogram = [0.0; 64];
        for p in thumb.chunks_exact(3) {
            let bin = (p[0] >> 6) as usize * 16 + (p[1] >> 6) as usize * 4 + (p[2] >> 6) as usize;
            histogram[bin] += 1.0 / (W * H) as f32;
        }
        Self { thumb, histogram }
    }

    /// Whether a cut lies between this picture and `next`.
    pub fn cut_before(&self, next: &Self) -> bool {
        let histogram: f32 =
            self.histogram.iter().zip(&next.histogram).map(|(a, b)| (a - b).abs()).sum::<f32>()
                / 2.0;
        let layout =
            self.thumb.iter().zip(&next.thumb).map(|(a, b)| f32::from(a.abs_diff(*b))).sum::<f32>()
                / self.thumb.len() as f32;
        histogram > HISTOGRAM && layout > LAYOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(rgb: [u8; 3]) -> Signature {
        let data: Vec<u8> = std::iter::repeat_n(rgb, 64 * 36).flatten().collect();
        Signature::new(Picture::new(64, 36, &data).unwrap())
    }

    #[test]
    fn another_scene_is_a_cut_and_the_same_is_not() {
        assert!(flat([20, 20, 20]).cut_before(&flat([200, 180, 160])));
        assert!(!flat([20, 20, 20]).cut_before(&flat([24, 22, 21])));
    }

    #[test]
    fn motion_inside_a_shot_is_no_cut() {
        let make = |shift: usize| {
            let data: Vec<u8> = (0..36)
                .flat_map(|_| {
                    (0..64).flat_map(move |x| {
                        let v = if ((x + shift) / 8).is_multiple_of(2) { 40 } else { 200 };
                        [v, v, v]
                    })
                })
                .collect();
            Signature::new(Picture::new(64, 36, &data).unwrap())
        };
        assert!(!make(0).cut_before(&make(8)));
    }
}
