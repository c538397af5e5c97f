//! Faces: detect → track → align → crop. Knows pictures, not files and not verdicts.

pub mod crop;
pub mod detect;
pub mod quality;
pub mod resample;
pub mod shot;
pub mod track;

/// A rectangle in pixels of the upright picture; `x1`, `y1` are exclusive and may lie outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl Rect {
    pub fn width(&self) -> f32 {
        self.x1 - self.x0
    }

    pub fn height(&self) -> f32 {
        self.y1 - self.y0
    }

    pub fn area(&self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    pub fn centre(&self) -> (f32, f32) {
        ((self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0)
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let w = self.x1.min(other.x1) - self.x0.max(other.x0);
        let h = self.y1.min(other.y1) - self.y0.max(other.y0);
        if w <= 0.0 || h <= 0.0 {
            return 0.0;
        }
        let inter = w * h;
        inter / (self.area() + other.area() - inter).max(f32::MIN_POSITIVE)
    }

    pub fn scaled(&self, sx: f32, sy: f32) -> Self {
        Self { x0: self.x0 * sx, y0: self.y0 * sy, x1: self.x1 * sx, y1: self.y1 * sy }
    }
}

/// One face as the detector found it, in pixels of the upright picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    pub rect: Rect,
    /// The detector's confidence, 0 to 1.
    pub confidence: f32,
    /// Right eye, left eye, nose tip, right and left corner of the mouth (the person's own right).
    pub landmarks: [[f32; 2]; 5],
}
