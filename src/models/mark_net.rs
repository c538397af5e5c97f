//! The network that sees where in a picture a visible mark is, and where one was erased: inverted
//! residual blocks and a feature pyramid, two logits for each 8 x 8 cell.
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
pub const STRIDE: usize = 8;
/// Sides of what goes in are multiples of this.
const MULTIPLE: usize = 64;
/// Pictures are reduced so that their shorter side is at least this and under twice this.
const SHORT_SIDE: usize = 720;
/// Reduced pictures of more pixels than this are refused: 4:1 at the largest shorter side.
const MOST_PIXELS: usize = 8 << 20;

const GROUP: usize = 1;
const BN_EPS: f64 = 1e-5;
const STEM: usize = 16;
/// Inner channels (0: no expansion), output channels, kernel, stride.
const BLOCKS: [(usize, usize, usize, usize); 11] = [
    (0, 20, 3, 2),
    (0, 20, 3, 1),
    (0, 48, 5, 2),
    (0, 48, 5, 1),
    (0, 48, 5, 1),
    (0, 64, 5, 2),
    (96, 64, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
    (0, 96, 5, 2),
    (144, 96, 5, 1),
];
/// Channels of the pyramid.
const WIDTH: usize = 48;
/// The blocks whose outputs at strides 8, 16, 32 and 64 the pyramid is made of.
const TAPS: [usize; 4] = [4, 6, 8, 10];

/// How many pixels of a picture, each way, make one of what goes into the network.
pub fn factor(width: usize, height: usize) -> usize {
    (width.min(height) / SHORT_SIDE).max(1)
}

/// A picture as the network takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// R, G, B in -0.5..=0.5, rows packed.
    values: Vec<f32>,
    pub width: usize,
    pub height: usize,
    /// Cells that are not padding.
    rows: usize,
    columns: usize,
}

impl Input {
    /// Reduces an RGB picture by the box mean of [`factor`] and pads it on the right and at the bottom
    /// with its last column and row. None for a picture whose sizes do not fit, that is empty, or
    /// that is far too long.
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
        let mut values = Vec::with_capacity(padded_w * padded_h * 3);
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
            values.extend(sums.iter().map(|sum| *sum as f32 * scale / 255.0 - 0.5));
            let last: [f32; 3] = std::array::from_fn(|i| values[values.len() - 3 + i]);
            (w..padded_w).for_each(|_| values.extend_from_slice(&last));
        }
        let row = values.len() - padded_w * 3;
        (h..padded_h).for_each(|_| values.extend_from_within(row..row + padded_w * 3));
        let (rows, columns) = (h.div_ceil(STRIDE), w.div_ceil(STRIDE));
        Some(Self { values, width: padded_w, height: padded_h, rows, columns })
    }
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
    head: Separable,
    out: Conv2d,
    device: Device,
}

const fn stem() -> ConvBn {
    ConvBn {
        inputs: 3,
        outputs: STEM,
        kernel: 3,
        stride: 2,
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

fn head() -> (ConvBn, ConvBn) {
    let depthwise = ConvBn {
        inputs: WIDTH,
        outputs: WIDTH,
        kernel: 3,
        stride: 1,
        depthwise: true,
        activation: Activation::Relu,
    };
    (depthwise, ConvBn::pointwise(WIDTH, WIDTH, Activation::Relu))
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
    let (depthwise, pointwise) = head();
    depthwise.shapes("head.dw", &mut shapes);
    pointwise.shapes("head.pw", &mut shapes);
    shapes.push(("out.weight".to_owned(), vec![2, WIDTH, 1, 1]));
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
        let x = Tensor::from_vec(values, (inputs.len(), h, w, 3), &self.device)?;
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

    /// [n, h, w, 3] → [n, h / 8, w / 8, 2].
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = self.stem.forward(x)?;
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
        assert_eq!((input.rows, input.columns), (90, 91));
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        for pixel in input.values.chunks_exact(3) {
            near(pixel[0], 50.0 / 255.0 - 0.5);
            near(pixel[1], 7.0 / 255.0 - 0.5);
            near(pixel[2], 0.5);
        }
        assert_eq!(input.values.len(), 768 * 768 * 3);
    }

    #[test]
    fn what_is_no_picture_or_far_too_long_is_refused() {
        assert!(Input::new(&[], 0, 0).is_none());
        assert!(Input::new(&[1, 2, 3], 2, 1).is_none());
        assert!(Input::new(&vec![0; 3 << 20], 1 << 20, 1).is_none());
    }
}
