//! Launches of `kernels/picture.cu`: decoded pictures in device memory → network inputs.

use candle_core::{Result, bail};

use super::{Launch, Module, axis, grid};

/// Matrix coefficients of a picture's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    Bt601,
    Bt709,
}

/// How luma and chroma become red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YuvColour {
    pub matrix: Matrix,
    /// 0..=255 instead of 16..=235 and 16..=240.
    pub full_range: bool,
}

/// How stored pixels become displayed ones: columns and rows exchanged first, then mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    pub transpose: bool,
    pub flip_x: bool,
    pub flip_y: bool,
}

/// A plane in device memory: its address and the bytes from row to row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    pub address: u64,
    pub pitch: usize,
}

/// The planes of a picture of 8 bits a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planes {
    /// Three bytes a pixel.
    Rgb(Plane),
    /// Luma; pairs of U and V for 2×2 pixels.
    Nv12([Plane; 2], YuvColour),
    /// Luma, U, V.
    Yuv420([Plane; 3], YuvColour),
}

/// `Surface` of `kernels/picture.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct Surface {
    plane: [u64; 3],
    pitch: [i32; 3],
    width: i32,
    height: i32,
    layout: i32,
    orientation: i32,
    luma_offset: f32,
    luma_scale: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
    reserved: i32,
}

/// `Crop` of `kernels/picture.cu`: a rectangle of the upright picture, edges in pixels, which may
/// lie outside; and the number of its surface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Zeroable, bytemuck::Pod)]
pub struct Crop {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
    pub surface: i32,
}

/// `Affine` of `kernels/picture.cu`. Made by [`Affine::new`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Zeroable, bytemuck::Pod)]
pub struct Affine {
    m: [f32; 6],
    surface: i32,
    samples_x: i32,
    samples_y: i32,
}

/// `Target` of `kernels/picture.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub struct TargetParams {
    width: i32,
    height: i32,
    canvas_width: i32,
    canvas_height: i32,
    left: i32,
    top: i32,
    scale: [f32; 3],
    shift: [f32; 3],
    bgr: i32,
    planar: i32,
    first: i32,
}

/// What the network wants to see: f32, [n, canvas height, canvas width, 3].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Width and height that the crop is scaled to.
    pub size: (usize, usize),
    /// Width and height of the input; around the scaled crop it is black.
    pub canvas: (usize, usize),
    /// Where the scaled crop lies in it: left, top.
    pub place: (usize, usize),
    /// A value is `byte * scale + shift`, of red, green and blue.
    pub scale: [f32; 3],
    pub shift: [f32; 3],
    /// Blue first.
    pub bgr: bool,
    /// [n, 3, h, w] instead.
    pub planar: bool,
}

/// The greatest side of a picture and the farthest edge of a crop: f32 still counts every pixel.
const SIDE_MAX: usize = 1 << 20;
/// Along each axis of a target pixel; a map that shrinks more is refused.
const SAMPLES_MAX: f32 = 256.0;

impl Surface {
    /// A stored picture of `width` × `height` pixels.
    ///
    /// # Errors
    /// No pixels or too many; a pitch less than a row.
    pub fn new(
        planes: Planes,
        (width, height): (usize, usize),
        orientation: Orientation,
    ) -> Result<Self> {
        if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
            bail!("picture: a surface of {width}x{height} pixels");
        }
        let half = width.div_ceil(2);
        let (layout, rows, colour) = match planes {
            Planes::Rgb(p) => (0, vec![(p, width * 3)], None),
            Planes::Nv12([y, uv], colour) => (1, vec![(y, width), (uv, half * 2)], Some(colour)),
            Planes::Yuv420([y, u, v], colour) => {
                (2, vec![(y, width), (u, half), (v, half)], Some(colour))
            }
        };
        let (mut plane, mut pitch) = ([0; 3], [0; 3]);
        for (i, (p, row)) in rows.into_iter().enumerate() {
            if p.pitch < row {
                bail!("picture: plane {i} of {width}x{height} has a pitch of {} bytes", p.pitch);
            }
            plane[i] = p.address;
            pitch[i] = axis("picture", "pitch", p.pitch)?;
        }
        let YuvCoefficients { luma_offset, luma_scale, red_v, green_u, green_v, blue_u } =
            colour.map(coefficients).unwrap_or_default();
        Ok(Self {
            plane,
            pitch,
            width: axis("picture", "width", width)?,
            height: axis("picture", "height", height)?,
            layout,
            orientation: i32::from(orientation.transpose)
                | i32::from(orientation.flip_x) << 1
                | i32::from(orientation.flip_y) << 2,
            luma_offset,
            luma_scale,
            red_v,
            green_u,
            green_v,
            blue_u,
            reserved: 0,
        })
    }
}

#[derive(Default)]
struct YuvCoefficients {
    luma_offset: f32,
    luma_scale: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
}

/// ITU-R BT.601 and BT.709: what chroma and luma, less their offsets, add to red, green and blue.
fn coefficients(colour: YuvColour) -> YuvCoefficients {
    let (red, blue) = match colour.matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
    };
    let green = 1.0 - red - blue;
    let (luma_offset, luma_scale, chroma) =
        if colour.full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
    let (red_v, blue_u) = (2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma);
    YuvCoefficients {
        luma_offset,
        luma_scale: luma_scale as f32,
        red_v: red_v as f32,
        green_u: (-blue_u * blue / green) as f32,
        green_v: (-red_v * red / green) as f32,
        blue_u: blue_u as f32,
    }
}

impl Affine {
    /// `x = m[0] u + m[1] v + m[2]`, `y = m[3] u + m[4] v + m[5]`: where the upright picture of
    /// surface number `surface` shows the target's place (u, v); pixel centres are at 0.5.
    ///
    /// # Errors
    /// Numbers that are none; a map that shrinks more than 256 times.
    pub fn new(m: [f32; 6], surface: i32) -> Result<Self> {
        // A target pixel's extent in the picture along the target's axes.
        let samples = |a: f32, b: f32| (a.hypot(b) - 1e-4).ceil().max(1.0);
        let (x, y) = (samples(m[0], m[3]), samples(m[1], m[4]));
        let near = m.iter().all(|v| v.is_finite() && v.abs() <= SIDE_MAX as f32);
        if !near || x > SAMPLES_MAX || y > SAMPLES_MAX {
            bail!("picture: the map {m:?} shrinks too much, or is none");
        }
        Ok(Self { m, surface, samples_x: x as i32, samples_y: y as i32 })
    }
}

impl Target {
    /// Values of one input.
    pub fn len(&self) -> usize {
        self.canvas.0 * self.canvas.1 * 3
    }

    /// Whether an input has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What cuts `crops`, in order: arguments surfaces, crops, out (f32), parameters. Several
    /// launches where there are more crops than one grid holds.
    ///
    /// # Errors
    /// A crop that is no rectangle, lies too far away or names none of `surfaces`; sizes that the
    /// kernel cannot take.
    pub fn crops(&self, crops: &[Crop], surfaces: usize) -> Result<Vec<(Launch, TargetParams)>> {
        for (i, crop) in crops.iter().enumerate() {
            let edges = [crop.x0, crop.y0, crop.x1, crop.y1];
            if !edges.iter().all(|v| v.is_finite() && v.abs() <= SIDE_MAX as f32)
                || !usize::try_from(crop.surface).is_ok_and(|s| s < surfaces)
            {
                bail!("picture: crop {i} of {surfaces} surfaces: {crop:?}");
            }
        }
        self.launches("picture_crop", crops.len())
    }

    /// As [`crops`](Self::crops), for `picture_affine`.
    ///
    /// # Errors
    /// A map that names none of `surfaces`; sizes that the kernel cannot take.
    pub fn maps(&self, maps: &[Affine], surfaces: usize) -> Result<Vec<(Launch, TargetParams)>> {
        for (i, map) in maps.iter().enumerate() {
            if !usize::try_from(map.surface).is_ok_and(|s| s < surfaces) {
                bail!("picture: map {i} of {surfaces} surfaces: {map:?}");
            }
        }
        self.launches("picture_affine", maps.len())
    }

    fn launches(&self, kernel: &'static str, n: usize) -> Result<Vec<(Launch, TargetParams)>> {
        const LAYERS: usize = 65_535;
        let (size, canvas, place) = (self.size, self.canvas, self.place);
        let fits = size.0 > 0
            && size.1 > 0
            && size.0.checked_add(place.0).is_some_and(|right| right <= canvas.0)
            && size.1.checked_add(place.1).is_some_and(|bottom| bottom <= canvas.1);
        if !fits || canvas.0 > SIDE_MAX || canvas.1 > SIDE_MAX {
            bail!("picture: {size:?} at {place:?} does not fit into {canvas:?}");
        }
        axis("picture", "number of crops", n)?;
        let small = |v: usize| axis("picture", "size", v);
        let mut launches = Vec::with_capacity(n.div_ceil(LAYERS));
        for first in (0..n).step_by(LAYERS) {
            let layers = LAYERS.min(n - first) as u64;
            let blocks = [canvas.0.div_ceil(16) as u64, canvas.1.div_ceil(16) as u64, layers];
            let params = TargetParams {
                width: small(size.0)?,
                height: small(size.1)?,
                canvas_width: small(canvas.0)?,
                canvas_height: small(canvas.1)?,
                left: small(place.0)?,
                top: small(place.1)?,
                scale: self.scale,
                shift: self.shift,
                bgr: i32::from(self.bgr),
                planar: i32::from(self.planar),
                first: small(first)?,
            };
            let grid = grid("picture", &[n, canvas.1, canvas.0, 3], blocks)?;
            launches.push((
                Launch { module: Module::Picture, kernel, grid, block: [16, 16, 1] },
                params,
            ));
        }
        Ok(launches)
    }
}
