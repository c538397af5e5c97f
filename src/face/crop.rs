//! The one crop geometry: training, benchmarks and the program cut faces in this way.
//!
//! The detector's box, moved by the fractions below of its own width and height, is stretched to a
//! square. The fractions bring YuNet's box to the framing of the DFDC crops that the network was
//! trained on (forehead to chin, a little of the ears); how they were measured is in
//! `docs/models/face-swap.md`, and `scripts/train/face_swap/geometry.py` holds the same numbers.

use super::{
    Face, Rect,
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

/// A square of a picture, turned so that a face in it is upright.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Upright {
    /// x and y, in pixels from the picture's corner.
    centre: [f32; 2],
    /// In pixels.
    side: f32,
    /// The unit vector from eyes to mouth, which becomes vertical.
    down: [f32; 2],
}

/// From the eyes' middle to the tip of the nose: how far the middle between the mean of the bridge
/// of the nose and that of its base lies. This and the next from the mean of 68 landmarks that dlib's
/// faces are aligned by (OpenFace, `align_dlib.py`): MesoNet's authors have those landmarks, YuNet
/// has five.
const NOSE: f32 = 0.88;
/// From the eyes' middle to that of the corners of the mouth: where the middle of the lips lies.
const LIPS: f32 = 1.04;
/// Side of the square in distances between the eyes, or between eyes and lips, whichever is longer:
/// `K` and `l_factor` of MesoNet's `pipeline.py`.
const MARGIN: [f32; 2] = [2.2, 1.3];

impl Upright {
    /// As MesoNet's authors place it (`FaceFinder.find_coordinates` and `get_aligned_face` of
    /// `pipeline.py`): around the nose, eyes above the mouth. A face that stands on its head stays so.
    pub fn mesonet(face: &Face) -> Self {
        let [right, left, nose, mouth_right, mouth_left] = face.landmarks;
        let mean = |a: [f32; 2], b: [f32; 2]| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
        let eyes = mean(right, left);
        let from_eyes = |to: [f32; 2], k: f32| [k * (to[0] - eyes[0]), k * (to[1] - eyes[1])];
        let (nose, lips) = (from_eyes(nose, NOSE), from_eyes(mean(mouth_right, mouth_left), LIPS));
        let (between, height) =
            ((left[0] - right[0]).hypot(left[1] - right[1]), lips[0].hypot(lips[1]));
        // Whole pixels, where the original has them.
        let side = ((between.max(height) * MARGIN[0]).floor() * MARGIN[1] / 2.0).floor() * 2.0;
        let down = if height > 0.0 {
            let sign = if lips[1] < 0.0 { -1.0 } else { 1.0 };
            [sign * lips[0] / height, sign * lips[1] / height]
        } else {
            [0.0, 1.0]
        };
        let centre = [(eyes[0] + nose[0]).floor(), (eyes[1] + nose[1]).floor()];
        Self { centre, side: side.max(2.0), down }
    }

    /// `side * side * 3` bytes of RGB. As there, every value is interpolated at one point by cubics,
    /// without averaging where a face is larger than `side`, and the picture goes on as its mirror
    /// image beyond its edges. Cubics are Catmull and Rom's here and splines there.
    pub fn cut(&self, picture: Picture<'_>, side: usize) -> Vec<u8> {
        let [dx, dy] = self.down;
        // From the middle of the first pixel to that of the last.
        let step = (self.side - 1.0) / (side.max(2) - 1) as f32;
        let at = |i: usize| (i as f32 - (side - 1) as f32 / 2.0) * step;
        let mut out = Vec::with_capacity(side * side * 3);
        for row in 0..side {
            for column in 0..side {
                let (right, down) = (at(column), at(row));
                let x = self.centre[0] - 0.5 + right * dy + down * dx;
                let y = self.centre[1] - 0.5 - right * dx + down * dy;
                out.extend(cubic(picture, x, y));
            }
        }
        out
    }
}

/// The colour at a point, in pixels from the middle of the first pixel.
fn cubic(picture: Picture<'_>, x: f32, y: f32) -> [u8; 3] {
    let weights = |t: f32| {
        [
            ((2.0 - t) * t - 1.0) * t / 2.0,
            ((3.0 * t - 5.0) * t * t + 2.0) / 2.0,
            ((4.0 - 3.0 * t) * t + 1.0) * t / 2.0,
            (t - 1.0) * t * t / 2.0,
        ]
    };
    let (columns, rows) = (weights(x - x.floor()), weights(y - y.floor()));
    let mut sum = [0.0f32; 3];
    for (j, wy) in rows.into_iter().enumerate() {
        let line = mirrored(y, j, picture.height) * picture.width;
        for (i, wx) in columns.into_iter().enumerate() {
            let pixel = (line + mirrored(x, i, picture.width)) * 3;
            for (sum, v) in sum.iter_mut().zip(&picture.rgb[pixel..pixel + 3]) {
                *sum += wx * wy * f32::from(*v);
            }
        }
    }
    sum.map(|v| (v + 0.5).clamp(0.0, 255.0) as u8)
}

/// Tap `i` of four around `at`, brought into `len` pixels by mirrors at the first and the last one.
fn mirrored(at: f32, i: usize, len: usize) -> usize {
    let period = (2 * (len as i64 - 1)).max(1);
    // A cast keeps within the numbers; nothing is nowhere near their ends.
    let at = ((at.floor() as i64).saturating_add(i as i64 - 1)).rem_euclid(period);
    at.min(period - at).min(len as i64 - 1) as usize
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

    /// A face whose eyes are `apart` and whose mouth lies 1.09 times that below them, turned by an
    /// angle; see what [`Upright::mesonet`] makes of the five.
    fn face(eyes: [f32; 2], apart: f32, degrees: f32) -> Face {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let at = |right: f32, down: f32| {
            let (right, down) = (right * apart, down * apart);
            [eyes[0] + right * cos + down * sin, eyes[1] - right * sin + down * cos]
        };
        let landmarks =
            [at(-0.5, 0.0), at(0.5, 0.0), at(0.0, 0.6), at(-0.35, 1.09), at(0.35, 1.09)];
        let rect = Rect { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };
        Face { rect, confidence: 1.0, landmarks }
    }

    /// The numbers are those that the authors' `find_coordinates` and `get_aligned_face` give for
    /// landmarks in the same places: centre, whole side of the last slice, rotation.
    #[test]
    fn upright_squares_lie_where_mesonets_authors_cut() {
        for (eyes, apart, degrees, centre, side) in [
            ([320.0, 240.0], 100.0, 0.0, [320.0, 292.0], 322.0),
            ([320.0, 240.0], 100.0, 25.0, [342.0, 287.0], 322.0),
            ([300.0, 200.0], 60.0, -40.0, [279.0, 224.0], 192.0),
            ([320.0, 240.0], 150.0, 15.0, [340.0, 316.0], 486.0),
            // On its head: it stays so, turned by 10 degrees the other way.
            ([300.0, 240.0], 80.0, 170.0, [307.0, 198.0], 258.0),
        ] {
            let got = Upright::mesonet(&face(eyes, apart, degrees));
            assert_eq!((got.centre, got.side), (centre, side), "{degrees}");
            let upright = if degrees > 90.0 { degrees - 180.0 } else { degrees };
            let (sin, cos) = upright.to_radians().sin_cos();
            let near = (got.down[0] - sin).abs() < 1e-5 && (got.down[1] - cos).abs() < 1e-5;
            assert!(near, "{degrees}: {got:?}");
        }
    }

    /// A picture of smooth waves, whose colours are known between the pixels, too.
    fn waves(x: f32, y: f32) -> [f32; 3] {
        [(x / 9.0).sin(), (y / 7.0).cos(), ((x + y) / 11.0).sin()].map(|v| 128.0 + 100.0 * v)
    }

    #[test]
    fn upright_crops_have_the_pictures_colours() {
        let (w, h) = (200usize, 160usize);
        let pixels = |f: &dyn Fn(f32, f32) -> [f32; 3]| -> Vec<u8> {
            let all = (0..h).flat_map(|y| (0..w).map(move |x| (x as f32, y as f32)));
            all.flat_map(|(x, y)| f(x, y).map(|v| v.round() as u8)).collect()
        };
        let rgb = pixels(&waves);
        let picture = Picture::new(w, h, &rgb).unwrap();
        // As large as the crop: the very pixels.
        let upright = Upright { centre: [100.0, 80.0], side: 64.0, down: [0.0, 1.0] };
        let got = upright.cut(picture, 64);
        for y in 0..64 {
            let from = ((y + 48) * w + 68) * 3;
            assert_eq!(got[y * 64 * 3..(y + 1) * 64 * 3], rgb[from..from + 64 * 3], "row {y}");
        }
        // Turned, smaller and larger.
        for (side, degrees) in [(64.0f32, 30.0f32), (100.0, -75.0), (40.0, 0.0)] {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let upright = Upright { centre: [100.0, 80.0], side, down: [sin, cos] };
            let got = upright.cut(picture, 64);
            for (i, pixel) in got.chunks_exact(3).enumerate() {
                let at = |i: usize| (i as f32 - 31.5) * (side - 1.0) / 63.0;
                let (right, down) = (at(i % 64), at(i / 64));
                let want = waves(99.5 + right * cos + down * sin, 79.5 - right * sin + down * cos);
                for (got, want) in pixel.iter().zip(want) {
                    assert!((f32::from(*got) - want).abs() < 2.0, "{side} {degrees} {i}");
                }
            }
        }
        // Beyond the edges the picture goes on as its mirror image.
        let upright = Upright { centre: [0.0, 80.0], side: 64.0, down: [0.0, 1.0] };
        let got = upright.cut(picture, 64);
        for x in 1..32 {
            let (inside, outside) = (&got[(32 + x) * 3..][..3], &got[(32 - x) * 3..][..3]);
            assert_eq!(inside, outside, "{x}");
        }
    }

    #[test]
    fn no_landmarks_are_too_strange() {
        let rgb = [10, 20, 30];
        let picture = Picture::new(1, 1, &rgb).unwrap();
        let mut strange = face([0.0, 0.0], 1.0, 0.0);
        for value in [0.0, -1e30, 1e30, f32::INFINITY, f32::NAN] {
            strange.landmarks = [[value; 2]; 5];
            assert_eq!(Upright::mesonet(&strange).cut(picture, 8).len(), 8 * 8 * 3, "{value}");
            strange.landmarks[0] = [5.0, 5.0];
            assert_eq!(Upright::mesonet(&strange).cut(picture, 8).len(), 8 * 8 * 3, "{value}");
        }
        strange.landmarks = [[0.5; 2]; 5];
        assert!(Upright::mesonet(&strange).cut(picture, 8).chunks(3).all(|p| p == rgb));
    }
}
