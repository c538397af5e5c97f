//! The network that sees where in a picture a visible mark is, and where one was erased: inverted
//! residual blocks and a feature pyramid, two logits for each 4 x 4 cell.
//!
//! Blocks after Sandler et al.: "MobileNetV2", CVPR 2018; pyramid after Lin et al.: "Feature Pyramid
//! Networks for Object Detection", CVPR 2017. Weights: ours, trained by `scripts/train/marks`, whose
//! `net.py` says what is computed; this file does the same.

use candle_core::{Device, Result, Tensor, bail};

use super::inverted_residual::{BlockSpec, ConvBn};
use super::weights::{Tensors, WeightsError};
use super::{Shapes, conv};
use crate::nn::{Activation, Conv2d, ConvConfig, Separable, in_groups, upsample_2x_add};

/// Its name in the manifest.
pub const NETWORK: &str = "mark-net";
/// Pixels of the reduced picture that one cell covers, each way.
pub const STRIDE: usize = 4;
/// Sides of what goes in are multiples of this.
const MULTIPLE: usize = 64;
/// Pictures are reduced so that their shorter side is at least this and under twice this.
const SHORT_SIDE: usize = 720;
/// Reduced pictures of more pixels than this are refused: 4:1 at the largest shorter side.
const MOST_PIXELS: usize = 8 << 20;

/// Pixels of the reduced picture, each way, that one cell of what goes in is made of.
const POOL: usize = 4;
/// Numbers that each of these cells has.
const FEATURES: usize = 14;
/// Differences whose energies are measured: of brightness across, down and both; of two colours both.
const DIFFERENCES: usize = 5;

const GROUP: usize = 1;
const BN_EPS: f64 = 1e-5;
const STEM: usize = 32;
/// Inner channels (0: no expansion), output channels, kernel, stride.
const BLOCKS: [(usize, usize, usize, usize); 11] = [
    (0, 48, 5, 2),
    (96, 48, 5, 1),
    (96, 48, 5, 1),
    (96, 48, 5, 1),
    (0, 64, 5, 2),
    (128, 64, 5, 1),
    (128, 64, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
];
/// Channels of the pyramid.
const WIDTH: usize = 48;
/// The blocks whose outputs at strides 8, 16, 32 and 64 the pyramid is made of; below them lies the
/// stem's.
const TAPS: [usize; 4] = [3, 6, 8, 10];

/// How many pixels of a picture, each way, make one of what goes into the network.
pub fn factor(width: usize, height: usize) -> usize {
    (width.min(height) / SHORT_SIDE).max(1)
}

/// A picture as the network takes it: local energies, which tell a place that was smoothed, copied or
/// painted over from its surroundings however bright or busy the picture is.
///
/// Of the reduced picture (0 to 255; last column and row repeated until both sides are multiples of
/// 64) y = 0.299 r + 0.587 g + 0.114 b. Differences d, the border's pixels repeated outside: of y by
/// `[1, -2, 1]` across and down and by their product, of r - g and b - g by the product. Each 4 x 4
/// pixels have, in this order:
/// - means of r, g, b, / 128 - 1 (3)
/// - mean of log2(|d| + ½), ½ subtracted, halved: the noise, whatever edges run through (5)
/// - ½ log2(mean of d² + ¼), 1 subtracted, × 0.4: the edges (5)
/// - ½ log2(variance of y + ¼), 1 subtracted, × 0.4 (1)
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Cells row by row, their numbers together.
    values: Vec<f32>,
    /// Of the padded picture, in pixels.
    pub width: usize,
    pub height: usize,
    /// Cells of the output that are not padding.
    rows: usize,
    columns: usize,
}

impl Input {
    /// Reduces an RGB picture by the box mean of [`factor`], pads and measures it. None for a
    /// picture whose sizes do not fit, that is empty, or that is far too long.
    pub fn new(rgb: &[u8], width: usize, height: usize) -> Option<Self> {
        if rgb.is_empty() || rgb.len() != width.checked_mul(height)?.checked_mul(3)? {
            return None;
        }
        let k = factor(width, height);
        let (w, h) = (width / k, height / k);
        let (padded_w, padded_h) = (w.next_multiple_of(MULTIPLE), h.next_multiple_of(MULTIPLE));
        if padded_w.checked_mul(padded_h)? > MOST_PIXELS {
            return None;
        }
        let mut energies = Energies::new(padded_w, padded_h);
        let mut sums = vec![0u32; w * 3];
        let scale = 1.0 / (k * k) as f32;
        for rows in rgb.chunks_exact(width * 3 * k).take(h) {
            sums.fill(0);
            for row in rows.chunks_exact(width * 3) {
                for (sums, pixels) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * k)) {
                    for pixel in pixels.chunks_exact(3) {
                        sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += u32::from(*v));
                    }
                }
            }
            energies
                .row(sums.chunks_exact(3).map(|s| std::array::from_fn(|i| s[i] as f32 * scale)));
        }
        let (rows, columns) = (h.div_ceil(STRIDE), w.div_ceil(STRIDE));
        let values = energies.finish();
        Some(Self { values, width: padded_w, height: padded_h, rows, columns })
    }
}

/// One row of a picture: r, g, b; and what is differenced (y, r - g, b - g), with a pixel more at
/// either end.
#[derive(Clone)]
struct Row {
    rgb: [Vec<f32>; 3],
    planes: [Vec<f32>; 3],
}

/// Turns rows of pixels, as they come, into cells of features. Holds three rows.
struct Energies {
    width: usize,
    height: usize,
    /// The row above the one that is measured next, that one, and the row below.
    rows: [Row; 3],
    came: usize,
    measured: usize,
    /// One row of a difference.
    difference: Vec<f32>,
    /// Per cell: sums of r, g, b, of the differences' logarithms and squares, of y and its square.
    sums: Vec<[f32; SUMS]>,
    values: Vec<f32>,
}

const SUMS: usize = 3 + 2 * DIFFERENCES + 2;

impl Energies {
    fn new(width: usize, height: usize) -> Self {
        let row = Row {
            rgb: std::array::from_fn(|_| vec![0.0; width]),
            planes: std::array::from_fn(|_| vec![0.0; width + 2]),
        };
        Self {
            width,
            height,
            rows: [row.clone(), row.clone(), row],
            came: 0,
            measured: 0,
            difference: vec![0.0; width],
            sums: vec![[0.0; SUMS]; width / POOL],
            values: Vec::with_capacity(width / POOL * (height / POOL) * FEATURES),
        }
    }

    /// The next row; its last pixel is repeated up to the width.
    fn row(&mut self, pixels: impl Iterator<Item = [f32; 3]>) {
        self.rows.rotate_left(1);
        let below = &mut self.rows[2];
        let mut last = [0.0; 3];
        let mut pixels = pixels.fuse();
        for x in 0..self.width {
            last = pixels.next().unwrap_or(last);
            let [r, g, b] = last;
            for (plane, v) in below.rgb.iter_mut().zip(last) {
                plane[x] = v;
            }
            for (plane, v) in
                below.planes.iter_mut().zip([0.299 * r + 0.587 * g + 0.114 * b, r - g, b - g])
            {
                plane[x + 1] = v;
            }
        }
        for plane in &mut below.planes {
            plane[0] = plane[1];
            plane[self.width + 1] = plane[self.width];
        }
        self.came += 1;
        if self.came == 1 {
            // Above the first row stands the first row.
            self.rows[1] = self.rows[2].clone();
        } else {
            self.measure();
        }
    }

    /// Repeats the last row up to the height.
    fn finish(mut self) -> Vec<f32> {
        while self.came > 0 && self.measured < self.height {
            self.rows.rotate_left(1);
            self.rows[2] = self.rows[1].clone();
            self.measure();
        }
        self.values
    }

    /// Measures the middle one of the three rows.
    fn measure(&mut self) {
        let [above, here, below] = &self.rows;
        for which in 0..DIFFERENCES {
            let plane = which.saturating_sub(2);
            let (a, h, b) = (&above.planes[plane], &here.planes[plane], &below.planes[plane]);
            let rows = a.windows(3).zip(h.windows(3)).zip(b.windows(3));
            let across = |row: &[f32]| row[0] - 2.0 * row[1] + row[2];
            for (d, ((a, h), b)) in self.difference.iter_mut().zip(rows) {
                *d = match which {
                    0 => across(h),
                    1 => a[1] - 2.0 * h[1] + b[1],
                    _ => across(a) - 2.0 * across(h) + across(b),
                };
            }
            for (sums, cell) in self.sums.iter_mut().zip(self.difference.chunks_exact(POOL)) {
                sums[3 + DIFFERENCES + which] += cell.iter().map(|d| d * d).sum::<f32>();
            }
            self.difference.iter_mut().for_each(|d| *d = log2(d.abs() + 0.5));
            for (sums, cell) in self.sums.iter_mut().zip(self.difference.chunks_exact(POOL)) {
                sums[3 + which] += cell.iter().sum::<f32>();
            }
        }
        for (at, plane) in here.rgb.iter().enumerate() {
            for (sums, cell) in self.sums.iter_mut().zip(plane.chunks_exact(POOL)) {
                sums[at] += cell.iter().sum::<f32>();
            }
        }
        let y = here.planes[0].get(1..).unwrap_or_default();
        for (sums, cell) in self.sums.iter_mut().zip(y.chunks_exact(POOL)) {
            // Around 128, or the difference of large squares would lose what is small.
            sums[SUMS - 2] += cell.iter().map(|y| y - 128.0).sum::<f32>();
            sums[SUMS - 1] += cell.iter().map(|y| (y - 128.0) * (y - 128.0)).sum::<f32>();
        }
        self.measured += 1;
        if self.measured.is_multiple_of(POOL) {
            for sums in &mut self.sums {
                self.values.extend(features(sums));
                sums.fill(0.0);
            }
        }
    }
}

/// A cell's numbers, of its sums over 4 x 4 pixels.
fn features(sums: &[f32; SUMS]) -> [f32; FEATURES] {
    let mean = |at: usize| sums[at] / (POOL * POOL) as f32;
    let y = mean(SUMS - 2);
    let variance = (mean(SUMS - 1) - y * y).max(0.0);
    std::array::from_fn(|at| match at {
        0..3 => mean(at) / 128.0 - 1.0,
        3..8 => (mean(at) - 0.5) * 0.5,
        8..13 => (0.5 * log2(mean(at) + 0.25) - 1.0) * 0.4,
        _ => (0.5 * log2(variance + 0.25) - 1.0) * 0.4,
    })
}

/// log2 of a positive normal number, within 1e-6. The standard library's would take longer than the
/// network; this one compiles to vectors.
fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let fraction = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let exponent = ((bits >> 23) as i32 - 127) as f32;
    // Between √½ and √2 the series of the inverse hyperbolic tangent needs few terms.
    let large = fraction > std::f32::consts::SQRT_2;
    let (fraction, exponent) =
        if large { (fraction * 0.5, exponent + 1.0) } else { (fraction, exponent) };
    let t = (fraction - 1.0) / (fraction + 1.0);
    let t2 = t * t;
    let series = 1.0 + t2 * (1.0 / 3.0 + t2 * (0.2 + t2 * (1.0 / 7.0)));
    exponent + t * series * (2.0 * std::f32::consts::LOG2_E)
}

/// Logits of a picture's cells, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Marks {
    pub rows: usize,
    pub columns: usize,
    /// That a mark was removed here.
    pub erased: Vec<f32>,
    /// That a mark, a caption or a logo lies over the picture here.
    pub present: Vec<f32>,
}

pub struct MarkNet {
    stem: Conv2d,
    blocks: Vec<Separable>,
    /// From strides 16, 32 and 64.
    lateral: Vec<Conv2d>,
    /// From the pyramid to the stem's stride.
    fine: Conv2d,
    head: Separable,
    out: Conv2d,
    device: Device,
}

const fn stem() -> ConvBn {
    ConvBn {
        inputs: FEATURES,
        outputs: STEM,
        kernel: 3,
        stride: 1,
        depthwise: false,
        activation: Activation::Relu,
    }
}

fn blocks() -> Vec<BlockSpec> {
    let mut inputs = STEM;
    let spec = |(inner, outputs, kernel, stride)| {
        let spec = BlockSpec {
            inputs,
            inner: if inner == 0 { inputs } else { inner },
            outputs,
            kernel,
            stride,
            activation: Activation::Relu,
            depthwise_name: "dw",
        };
        inputs = outputs;
        spec
    };
    BLOCKS.into_iter().map(spec).collect()
}

fn laterals() -> impl Iterator<Item = ConvBn> {
    let channels = TAPS[1..].iter().map(|at| BLOCKS[*at].1);
    channels.map(|inputs| ConvBn::pointwise(inputs, WIDTH, Activation::None))
}

fn fine() -> ConvBn {
    ConvBn::pointwise(WIDTH, STEM, Activation::None)
}

fn head() -> (ConvBn, ConvBn) {
    let depthwise = ConvBn {
        inputs: STEM,
        outputs: STEM,
        kernel: 5,
        stride: 1,
        depthwise: true,
        activation: Activation::Relu,
    };
    (depthwise, ConvBn::pointwise(STEM, STEM, Activation::Relu))
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    stem().shapes("stem", &mut shapes);
    for (i, spec) in blocks().iter().enumerate() {
        spec.shapes(&format!("blocks.{i}"), &mut shapes);
    }
    for (i, lateral) in laterals().enumerate() {
        lateral.shapes(&format!("lateral.{i}"), &mut shapes);
    }
    fine().shapes("fine", &mut shapes);
    let (depthwise, pointwise) = head();
    depthwise.shapes("head.dw", &mut shapes);
    pointwise.shapes("head.pw", &mut shapes);
    shapes.push(("out.weight".to_owned(), vec![2, STEM, 1, 1]));
    shapes.push(("out.bias".to_owned(), vec![2]));
    shapes
}

impl MarkNet {
    /// Folds the batch norms and packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let (depthwise, pointwise) = head();
        let head = Separable::new(
            None,
            depthwise.load(tensors, "head.dw", BN_EPS)?,
            Some(pointwise.load(tensors, "head.pw", BN_EPS)?),
            false,
        );
        Ok(Self {
            stem: stem().load(tensors, "stem", BN_EPS)?,
            blocks: blocks()
                .iter()
                .enumerate()
                .map(|(i, spec)| spec.load(tensors, &format!("blocks.{i}"), BN_EPS))
                .collect::<std::result::Result<_, _>>()?,
            lateral: laterals()
                .enumerate()
                .map(|(i, lateral)| lateral.load(tensors, &format!("lateral.{i}"), BN_EPS))
                .collect::<std::result::Result<_, _>>()?,
            fine: fine().load(tensors, "fine", BN_EPS)?,
            head: head.map_err(|e| tensors.unfit("head", &e))?,
            out: conv(tensors, "out", ConvConfig::default())?,
            device: tensors.get("out.bias")?.device().clone(),
        })
    }

    /// The logits of pictures of one size.
    ///
    /// # Errors
    /// Pictures of different sizes; a device that fails.
    pub fn forward(&self, inputs: &[Input]) -> Result<Vec<Marks>> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let (w, h) = (first.width, first.height);
        if inputs.iter().any(|input| (input.width, input.height) != (w, h)) {
            bail!("mark-net: pictures of different sizes in one batch");
        }
        let values: Vec<f32> = inputs.iter().flat_map(|i| i.values.iter().copied()).collect();
        let shape = (inputs.len(), h / POOL, w / POOL, FEATURES);
        let x = Tensor::from_vec(values, shape, &self.device)?;
        let all = in_groups(&x, GROUP, |x| {
            let logits = self.logits(x)?;
            (0..x.dim(0)?).map(|i| logits.get(i)?.flatten_all()?.to_vec1::<f32>()).collect()
        })?;
        let across = w / STRIDE;
        let marks = all.into_iter().zip(inputs).map(|(logits, input)| {
            let (rows, columns) = (input.rows, input.columns);
            let channel = |c: usize| {
                let cells = (0..rows).flat_map(|y| (0..columns).map(move |x| y * across + x));
                cells.map(|cell| logits.get(2 * cell + c).copied().unwrap_or(f32::NAN)).collect()
            };
            Marks { rows, columns, erased: channel(0), present: channel(1) }
        });
        Ok(marks.collect())
    }

    /// [n, h / 4, w / 4, 14] → [n, h / 4, w / 4, 2].
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let c4 = self.stem.forward(x)?;
        let mut y = c4.clone();
        let mut taps = Vec::with_capacity(TAPS.len());
        for (at, block) in self.blocks.iter().enumerate() {
            y = block.forward(&y)?;
            if TAPS.contains(&at) {
                taps.push(y.clone());
            }
        }
        let ([c8, c16, c32, c64], [l16, l32, l64]) = (&taps[..], &self.lateral[..]) else {
            bail!("mark-net: {} levels and {} laterals", taps.len(), self.lateral.len());
        };
        let p = l64.forward(c64)?;
        let p = upsample_2x_add(&l32.forward(c32)?, &p)?;
        let p = upsample_2x_add(&l16.forward(c16)?, &p)?;
        let p = upsample_2x_add(c8, &p)?;
        let p = upsample_2x_add(&c4, &self.fine.forward(&p)?)?;
        self.out.forward(&self.head.forward(&p)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_reduced_and_padded() {
        // 1,443 by 1,441: boxes of 2 by 2, the odd row and column dropped.
        let (w, h) = (1443, 1441);
        let rgb: Vec<u8> = (0..w * h).flat_map(|i| [(i % w % 2 * 100) as u8, 7, 255]).collect();
        let input = Input::new(&rgb, w, h).unwrap();
        assert_eq!((input.width, input.height), (768, 768));
        assert_eq!((input.rows, input.columns), (180, 181));
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        assert_eq!(input.values.len(), 768 * 768 / 16 * FEATURES);
        for (at, cell) in input.values.chunks_exact(FEATURES).enumerate() {
            near(cell[0], 50.0 / 128.0 - 1.0);
            near(cell[1], 7.0 / 128.0 - 1.0);
            near(cell[2], 255.0 / 128.0 - 1.0);
            // An even picture: no difference anywhere, no variance.
            assert!(cell[3..8].iter().all(|v| *v == -0.75), "{at} {cell:?}");
            assert!(cell[8..].iter().all(|v| (*v + 0.8).abs() < 1e-3), "{at} {cell:?}");
        }
    }

    #[test]
    fn logarithms_are_near_enough() {
        for i in 1..200_000 {
            let x = i as f32 * 0.02;
            assert!((log2(x) - x.log2()).abs() < 2e-6, "{x}: {} {}", log2(x), x.log2());
        }
    }

    /// One bright column in a dark picture of one 64 x 64 block.
    #[test]
    fn differences_are_those_of_the_pixels() {
        let rgb: Vec<u8> =
            (0..64 * 64).flat_map(|i| [if i % 64 == 5 { 200 } else { 100 }; 3]).collect();
        let input = Input::new(&rgb, 64, 64).unwrap();
        let cell = |x: usize| &input.values[(16 * 8 + x) * FEATURES..][..FEATURES];
        // Columns 4 to 7: 100, -200, 100, 0 across, nothing down nor both, 25 grey levels of mean.
        let logs = |values: [f32; 4]| values.iter().map(|v| (v + 0.5).log2()).sum::<f32>() / 4.0;
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
        near(cell(1)[0], 125.0 / 128.0 - 1.0);
        near(cell(1)[3], (logs([100.0, 200.0, 100.0, 0.0]) - 0.5) * 0.5);
        near(cell(1)[4], -0.75);
        near(cell(1)[5], -0.75);
        near(cell(1)[8], (0.5 * 15000.25f32.log2() - 1.0) * 0.4);
        near(cell(1)[13], (0.5 * 1875.25f32.log2() - 1.0) * 0.4);
        near(cell(0)[3], -0.75);
        near(cell(0)[8], -0.8);
    }

    #[test]
    fn what_is_no_picture_or_far_too_long_is_refused() {
        assert!(Input::new(&[], 0, 0).is_none());
        assert!(Input::new(&[1, 2, 3], 2, 1).is_none());
        assert!(Input::new(&vec![0; 3 << 20], 1 << 20, 1).is_none());
    }
}
