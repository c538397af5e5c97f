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

/// How far each edge moves outwards, as a fraction of the box's width or height.
const LEFT: f32 = 0.05;
const TOP: f32 = -0.11;
const RIGHT: f32 = 0.05;
const BOTTOM: f32 = 0.0;

/// The rectangle to cut for a detector's box: edges on whole pixels, at least one pixel apart. It
/// may reach outside the picture.
pub fn frame(face: &Rect) -> Rect {
    let (w, h) = (face.width(), face.height());
    let whole = |v: f32| (v + 0.5).floor();
    let (x0, y0) = (whole(face.x0 - LEFT * w), whole(face.y0 - TOP * h));
    let (x1, y1) = (whole(face.x1 + RIGHT * w), whole(face.y1 + BOTTOM * h));
    Rect { x0, y0, x1: x1.max(x0 + 1.0), y1: y1.max(y0 + 1.0) }
}

/// `side * side * 3` bytes of RGB, straight from the pixels of a rectangle, stretched to a square.
pub fn cut(picture: Picture<'_>, frame: Rect, side: usize) -> Vec<u8> {
    resample(picture, frame, side, side)
}

/// The frame of a picture that already is one face in this framing.
pub fn precropped(picture: Picture<'_>) -> Rect {
    Rect { x0: 0.0, y0: 0.0, x1: picture.width as f32, y1: picture.height as f32 }
}

/// A frame less a 28th of its width and height at each edge.
pub fn tighter(frame: Rect) -> Rect {
    let (x, y) = ((frame.width() / 28.0).round(), (frame.height() / 28.0).round());
    let (x0, y0) = (frame.x0 + x, frame.y0 + y);
    Rect { x0, y0, x1: (frame.x1 - x).max(x0 + 1.0), y1: (frame.y1 - y).max(y0 + 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the golden crops.
    const SIDE: usize = 144;

    #[test]
    fn the_frame_follows_the_documented_fractions() {
        let cut = frame(&Rect { x0: 100.0, y0: 200.0, x1: 200.0, y1: 400.0 });
        assert_eq!(cut, Rect { x0: 95.0, y0: 222.0, x1: 205.0, y1: 400.0 });
    }

    /// Made by scripts/train/face_swap/golden_crop.py with the code that training crops with.
    #[test]
    fn crops_are_those_of_training() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/face_crop.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let picture = golden.tensor("picture").unwrap();
        let (h, w) = (picture.shape()[0], picture.shape()[1]);
        let picture = Picture::new(w, h, picture.data()).unwrap();
        let boxes: Vec<f32> = golden
            .tensor("boxes")
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let want = golden.tensor("crops").unwrap();
        assert_eq!(want.shape(), [boxes.len() / 4, SIDE, SIDE, 3]);
        for (b, want) in boxes.chunks_exact(4).zip(want.data().chunks_exact(SIDE * SIDE * 3)) {
            let face = Rect { x0: b[0], y0: b[1], x1: b[0] + b[2], y1: b[1] + b[3] };
            let got = cut(picture, frame(&face), SIDE);
            let worst = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            // One grey level: the two add up in another order before they round.
            assert!(worst <= 1, "{b:?}: {worst}");
        }
    }
}
