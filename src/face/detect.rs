//! At which scales a picture is searched for faces, and how the finds are merged.
//!
//! YuNet finds faces of about 10 to 300 pixels. The base pass brings the longer side to
//! [`BASE`] pixels; the fine pass, dearer by the square, finds faces that are small in large
//! pictures; the coarse pass finds faces that fill a picture.

use super::{
    Face, Rect,
    resample::{Picture, resample},
};

/// Longer side of the base pass.
pub const BASE: usize = 640;
/// Longer side of the fine pass, at most; a 4K picture gets [`FINE_4K`].
const FINE: usize = 1280;
const FINE_4K: usize = 1920;
/// Longer side of the coarse pass.
const COARSE: usize = 192;
/// A face must be this sure to be followed.
pub const MIN_CONFIDENCE: f32 = 0.7;
/// Two boxes that overlap by more than this are one face.
const NMS_IOU: f32 = 0.3;
/// The network halves its input five times.
const STRIDE: usize = 32;

/// One search of a picture at one scale. The scaled picture lies at `(border, border)` of a black
/// input whose sides are multiples of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub width: usize,
    pub height: usize,
    pub border: usize,
}

impl Pass {
    fn to_long_side(width: usize, height: usize, side: usize, border: usize) -> Self {
        let longer = width.max(height);
        let scale = |v: usize| (v * side).div_ceil(longer).max(1);
        Self { width: scale(width), height: scale(height), border }
    }

    /// Size of the network's input.
    pub fn padded(&self) -> (usize, usize) {
        let up = |v: usize| (v + 2 * self.border).next_multiple_of(STRIDE);
        (up(self.width), up(self.height))
    }

    /// `picture` at this pass's size.
    pub fn scale(&self, picture: Picture<'_>) -> Vec<u8> {
        let whole = Rect { x0: 0.0, y0: 0.0, x1: picture.width as f32, y1: picture.height as f32 };
        resample(picture, whole, self.width, self.height)
    }

    /// The network's input from what [`Self::scale`] gave: RGB, `padded` in size.
    pub fn input(&self, scaled: &[u8]) -> Vec<u8> {
        let (pw, ph) = self.padded();
        let mut out = vec![0u8; pw * ph * 3];
        for (y, row) in scaled.chunks_exact(self.width * 3).enumerate() {
            let at = ((y + self.border) * pw + self.border) * 3;
            out[at..at + row.len()].copy_from_slice(row);
        }
        out
    }

    /// A find in the input's pixels, brought back to the picture's.
    pub fn restore(&self, face: Face, picture_width: usize, picture_height: usize) -> Face {
        let sx = picture_width as f32 / self.width as f32;
        let sy = picture_height as f32 / self.height as f32;
        let b = self.border as f32;
        let r = face.rect;
        let rect = Rect { x0: r.x0 - b, y0: r.y0 - b, x1: r.x1 - b, y1: r.y1 - b }.scaled(sx, sy);
        Face {
            rect,
            confidence: face.confidence,
            landmarks: face.landmarks.map(|[x, y]| [(x - b) * sx, (y - b) * sy]),
        }
    }
}

/// The pass that every picture gets.
pub fn base(width: usize, height: usize) -> Pass {
    Pass::to_long_side(width, height, BASE.min(width.max(height)), 0)
}

/// The dear pass for small faces; video asks for it about once a second, stills always. None for
/// pictures that the base pass sees in full already.
pub fn fine(width: usize, height: usize) -> Option<Pass> {
    let longer = width.max(height);
    let side = if longer > 2 * FINE { FINE_4K } else { FINE };
    (longer > BASE).then(|| Pass::to_long_side(width, height, side.min(longer), 0))
}

/// The pass for faces that fill the picture, asked for together with the fine one. It has a
/// border: a face that the picture's edge cuts is found better away from the edge.
pub fn coarse(width: usize, height: usize) -> Pass {
    Pass::to_long_side(width, height, COARSE, 48)
}

/// Non-maximum suppression over the finds of all passes, surest first.
pub fn merge(mut faces: Vec<Face>) -> Vec<Face> {
    faces.retain(|f| f.confidence >= MIN_CONFIDENCE && f.rect.area() > 0.0);
    faces.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut kept: Vec<Face> = Vec::new();
    for face in faces {
        if kept.iter().all(|k| k.rect.iou(&face.rect) <= NMS_IOU) {
            kept.push(face);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, size: f32, confidence: f32) -> Face {
        Face {
            rect: Rect { x0: x, y0: 0.0, x1: x + size, y1: size },
            confidence,
            landmarks: [[x, 0.0]; 5],
        }
    }

    #[test]
    fn overlapping_finds_become_the_surest_one() {
        let merged =
            merge(vec![face(0.0, 10.0, 0.8), face(1.0, 10.0, 0.95), face(50.0, 10.0, 0.9)]);
        assert_eq!(merged.iter().map(|f| f.confidence).collect::<Vec<_>>(), [0.95, 0.9]);
    }

    #[test]
    fn unsure_finds_are_dropped() {
        assert!(merge(vec![face(0.0, 10.0, 0.5)]).is_empty());
    }

    #[test]
    fn inputs_are_multiples_of_the_stride_and_finds_come_back() {
        for (w, h) in [(1920, 1080), (3840, 2160), (1, 1), (200, 200), (37, 4000)] {
            let rgb = vec![9u8; w * h * 3];
            let picture = Picture::new(w, h, &rgb).unwrap();
            for pass in [Some(base(w, h)), fine(w, h), Some(coarse(w, h))].into_iter().flatten() {
                let (pw, ph) = pass.padded();
                assert_eq!((pw % 32, ph % 32), (0, 0));
                assert_eq!(pass.input(&pass.scale(picture)).len(), pw * ph * 3);
                let b = pass.border as f32;
                let whole = Face {
                    rect: Rect {
                        x0: b,
                        y0: b,
                        x1: b + pass.width as f32,
                        y1: b + pass.height as f32,
                    },
                    ..face(0.0, 1.0, 1.0)
                };
                let back = pass.restore(whole, w, h).rect;
                assert!((back.x1 - w as f32).abs() < 0.01 * w as f32 && back.x0.abs() < 0.01);
            }
        }
    }

    #[test]
    fn the_fine_pass_is_for_large_pictures() {
        assert_eq!(base(1920, 1080).width, 640);
        assert_eq!(fine(1920, 1080).map(|p| p.width), Some(1280));
        assert_eq!(fine(3840, 2160).map(|p| p.width), Some(1920));
        assert_eq!(fine(320, 240), None);
    }
}
