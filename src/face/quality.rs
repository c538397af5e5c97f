//! How well one face can be judged: size, blur, pose and compression, with the reasons that the
//! report carries.

use super::{Face, Rect, resample::Picture};
use crate::report::ReasonCode;

/// Side of the crops that are measured: the limits of sharpness hold at this scale.
pub const SIDE: usize = 144;

/// Shorter side of the face in pixels: below the first nothing is judged, below the second the
/// window counts less. The training crops were 36 pixels at the smallest.
pub const MIN_SIDE: f32 = 32.0;
const WEAK_SIDE: f32 = 60.0;
/// Sharpness (below) under which a crop is not judged, and under which it counts less.
pub const MIN_SHARPNESS: f32 = 0.012;
const WEAK_SHARPNESS: f32 = 0.03;
/// Nose offset from the middle of the eyes, in eye distances: 0 frontal, about 1 in full profile.
const WEAK_POSE: f32 = 0.55;
pub const MAX_POSE: f32 = 1.1;
/// Ratio of steps on the 8-pixel grid to steps beside it: 1 in clean pictures.
const WEAK_BLOCKINESS: f32 = 1.8;
pub const MAX_BLOCKINESS: f32 = 3.5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Shorter side of the box in pixels of the picture.
    pub side: f32,
    /// Energy of the second differences of the crop's luma over its variance; 0 is a flat blur.
    pub sharpness: f32,
    /// 0 frontal, about 1 in profile.
    pub pose: f32,
    pub blockiness: f32,
}

impl Quality {
    /// `crop`: the face as [`super::crop::cut`] took it from `picture`, `SIDE` pixels wide and high.
    pub fn measure(picture: Picture<'_>, face: &Face, crop: &[u8]) -> Self {
        Self {
            side: face.rect.width().min(face.rect.height()),
            sharpness: sharpness(crop),
            pose: pose(face),
            blockiness: blockiness(picture, &face.rect),
        }
    }

    /// What forbids judging this face at all.
    pub fn refusal(&self) -> Option<ReasonCode> {
        if self.side < MIN_SIDE {
            Some(ReasonCode::FaceTooSmall)
        } else if self.sharpness < MIN_SHARPNESS {
            Some(ReasonCode::TooBlurred)
        } else if self.blockiness > MAX_BLOCKINESS {
            Some(ReasonCode::TooCompressed)
        } else if self.pose > MAX_POSE {
            Some(ReasonCode::ExtremePose)
        } else {
            None
        }
    }

    /// What makes a judged face count less.
    pub fn weaknesses(&self) -> Vec<ReasonCode> {
        let mut codes = Vec::new();
        if self.side < WEAK_SIDE {
            codes.push(ReasonCode::FaceTooSmall);
        }
        if self.sharpness < WEAK_SHARPNESS {
            codes.push(ReasonCode::TooBlurred);
        }
        if self.blockiness > WEAK_BLOCKINESS {
            codes.push(ReasonCode::TooCompressed);
        }
        if self.pose > WEAK_POSE {
            codes.push(ReasonCode::ExtremePose);
        }
        codes
    }

    /// How much the window counts in its track, 0.1 to 1.
    pub fn weight(&self) -> f32 {
        let ramp = |v: f32, none: f32, full: f32| ((v - none) / (full - none)).clamp(0.0, 1.0);
        let w = ramp(self.side, MIN_SIDE, WEAK_SIDE)
            * ramp(self.sharpness, MIN_SHARPNESS, WEAK_SHARPNESS)
            * ramp(self.pose, MAX_POSE, WEAK_POSE)
            * ramp(self.blockiness, MAX_BLOCKINESS, WEAK_BLOCKINESS);
        w.max(0.1)
    }
}

fn luma(p: &[u8]) -> f32 {
    0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])
}

fn sharpness(crop: &[u8]) -> f32 {
    let y: Vec<f32> = crop.chunks_exact(3).map(luma).collect();
    let n = y.len() as f32;
    let mean = y.iter().sum::<f32>() / n;
    let variance = y.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
    let mut energy = 0.0;
    for r in 1..SIDE - 1 {
        for c in 1..SIDE - 1 {
            let i = r * SIDE + c;
            let laplacian = 4.0 * y[i] - y[i - 1] - y[i + 1] - y[i - SIDE] - y[i + SIDE];
            energy += laplacian * laplacian;
        }
    }
    // The root keeps the scale linear in contrast; a crop without any variance is flat.
    (energy / n / variance.max(1.0)).sqrt() / 4.0
}

fn pose(face: &Face) -> f32 {
    let [right, left, nose, ..] = face.landmarks;
    let (dx, dy) = (left[0] - right[0], left[1] - right[1]);
    let distance = dx.hypot(dy);
    // Eyes that fall together are a profile; half the face's width keeps the ratio finite.
    let distance = distance.max(face.rect.width() * 0.12).max(1.0);
    let (mx, my) = ((left[0] + right[0]) / 2.0, (left[1] + right[1]) / 2.0);
    (((nose[0] - mx) * dx + (nose[1] - my) * dy) / (distance * distance)).abs()
}

/// Mean step across the 8-pixel grid over the mean step elsewhere, along rows, inside the face.
/// Codecs of the JPEG and MPEG line lay that grid from the picture's corner.
fn blockiness(picture: Picture<'_>, rect: &Rect) -> f32 {
    let x0 = rect.x0.max(1.0) as usize;
    let y0 = rect.y0.max(0.0) as usize;
    let x1 = (rect.x1.max(0.0) as usize).min(picture.width);
    let y1 = (rect.y1.max(0.0) as usize).min(picture.height);
    let (mut on, mut on_count, mut off, mut off_count) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for y in (y0..y1).step_by(2) {
        let row = &picture.rgb[y * picture.width * 3..(y + 1) * picture.width * 3];
        for x in x0..x1 {
            let step = f32::from(row[x * 3 + 1].abs_diff(row[x * 3 - 2]));
            if x % 8 == 0 {
                on += step;
                on_count += 1.0;
            } else {
                off += step;
                off_count += 1.0;
            }
        }
    }
    if on_count == 0.0 || off_count == 0.0 {
        return 1.0;
    }
    // A quarter of a grey level on both sides: nearly flat faces must not divide by nothing.
    (on / on_count + 0.25) / (off / off_count + 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(side: f32) -> Face {
        let s = side;
        Face {
            rect: Rect { x0: 0.0, y0: 0.0, x1: s, y1: s },
            confidence: 0.9,
            landmarks: [
                [0.3 * s, 0.4 * s],
                [0.7 * s, 0.4 * s],
                [0.5 * s, 0.6 * s],
                [0.35 * s, 0.8 * s],
                [0.65 * s, 0.8 * s],
            ],
        }
    }

    fn measure(side: f32, pixel: impl Fn(usize, usize) -> u8) -> Quality {
        let rgb: Vec<u8> = (0..SIDE * SIDE).flat_map(|i| [pixel(i % SIDE, i / SIDE); 3]).collect();
        let picture = Picture::new(SIDE, SIDE, &rgb).unwrap();
        Quality::measure(picture, &face(side), &rgb)
    }

    #[test]
    fn a_textured_frontal_face_counts_fully() {
        let q = measure(144.0, |x, y| ((x * 37 + y * 91) % 97) as u8);
        assert_eq!(q.refusal(), None);
        assert!(q.weight() > 0.99, "{q:?}");
    }

    #[test]
    fn small_blurred_blocky_and_turned_faces_are_named() {
        let texture = |x: usize, y: usize| ((x * 37 + y * 91) % 97) as u8;
        assert_eq!(measure(20.0, texture).refusal(), Some(ReasonCode::FaceTooSmall));
        let flat = measure(144.0, |x, _| x as u8);
        assert_eq!(flat.refusal(), Some(ReasonCode::TooBlurred), "{flat:?}");
        let blocks = measure(144.0, |x, y| (((x / 8) * 53 + (y / 8) * 29) % 200) as u8);
        assert_eq!(blocks.refusal(), Some(ReasonCode::TooCompressed), "{blocks:?}");
        let mut turned = face(144.0);
        turned.landmarks[1] = [0.4 * 144.0, 0.4 * 144.0];
        turned.landmarks[2] = [0.05 * 144.0, 0.6 * 144.0];
        assert!(pose(&turned) > MAX_POSE);
    }
}
