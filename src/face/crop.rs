//! The one crop geometry: training, benchmarks and the program cut faces in this way.
//!
//! The detector's box, moved by the fractions below of its own width and height, is stretched to a
//! square. The fractions bring YuNet's box to the framing of the DFDC crops that the network was
//! trained on (forehead to chin, a little of the ears); how they were measured is in
//! `docs/models/face-swap.md`, and `scripts/train/face_swap/geometry.py` holds the same numbers.

use super::{
    Rect,
    resample::{Picture, resample},
};

/// Side of the square that the network sees, in pixels.
pub const SIDE: usize = 144;

/// How far each edge moves outwards, as a fraction of the box's width or height.
const LEFT: f32 = 0.05;
const TOP: f32 = -0.11;
const RIGHT: f32 = 0.05;
const BOTTOM: f32 = 0.0;

/// The rectangle to cut for a detector's box. It may reach outside the picture.
pub fn frame(face: &Rect) -> Rect {
    let (w, h) = (face.width(), face.height());
    Rect {
        x0: face.x0 - LEFT * w,
        y0: face.y0 - TOP * h,
        x1: face.x1 + RIGHT * w,
        y1: face.y1 + BOTTOM * h,
    }
}

/// `SIDE * SIDE * 3` bytes of RGB.
pub fn crop(picture: Picture<'_>, face: &Rect) -> Vec<u8> {
    resample(picture, frame(face), SIDE, SIDE)
}

/// A picture that already is one face in this framing.
pub fn precropped(picture: Picture<'_>) -> Vec<u8> {
    let whole = Rect { x0: 0.0, y0: 0.0, x1: picture.width as f32, y1: picture.height as f32 };
    resample(picture, whole, SIDE, SIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_follows_the_documented_fractions() {
        let cut = frame(&Rect { x0: 100.0, y0: 200.0, x1: 200.0, y1: 400.0 });
        assert_eq!(cut, Rect { x0: 95.0, y0: 222.0, x1: 205.0, y1: 400.0 });
    }
}
