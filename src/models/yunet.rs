//! YuNet, a face detector with five landmarks.
//!
//! Wu, Peng, Yu: "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research
//! 20, 2023. Weights: OpenCV Zoo's `face_detection_yunet_2023mar`, MIT, converted by
//! `scripts/weights/convert_third_party.py`. Decoding follows OpenCV's `FaceDetectorYN`.

use candle_core::{IndexOp, Result, Tensor, bail};

use super::weights::{Tensors, WeightsError};
use super::{Shapes, conv};
use crate::nn::{
    Activation, Conv2d, ConvConfig, Padding, Separable, in_groups, max_pool_2x2, sigmoid,
    upsample_2x_add,
};

/// Its name in the manifest.
pub const NETWORK: &str = "yunet";
/// Input pixels between the cells of the three output levels.
pub const STRIDES: [usize; 3] = [8, 16, 32];

/// The parts of a head with their widths, in the order of [`YuNet::heads`].
const PARTS: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];
const HEAD: usize = 16;
/// Input and output channels of the units of the backbone, after the first convolution.
const BACKBONE: [(&str, usize, usize); 11] = [
    ("backbone.model0.conv2", 16, 16),
    ("backbone.model1.conv1", 16, 16),
    ("backbone.model1.conv2", 16, 32),
    ("backbone.model2.conv1", 32, 32),
    ("backbone.model2.conv2", 32, 64),
    ("backbone.model3.conv1", 64, 64),
    ("backbone.model3.conv2", 64, 64),
    ("backbone.model4.conv1", 64, 64),
    ("backbone.model4.conv2", 64, 64),
    ("backbone.model5.conv1", 64, 64),
    ("backbone.model5.conv2", 64, 64),
];
/// Those with a pool behind them of which nothing else sees what comes before it.
const POOLED: [&str; 2] = ["backbone.model0.conv2", "backbone.model2.conv2"];
const STEM: &str = "backbone.model0.conv1";
const NECK: usize = 64;

/// A face as one cell of the network sees it, in pixels of the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawFace {
    /// Upper left corner; may lie outside the picture.
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
    /// The eye on the picture's left (the person's right), the other eye, tip of the nose, left
    /// and right corner of the mouth, as seen in the picture: x, y.
    pub landmarks: [[f32; 2]; 5],
    /// 0..=1.
    pub score: f32,
}

/// The network.
pub struct YuNet {
    stem: Conv2d,
    backbone: Vec<Separable>,
    neck: [Separable; 3],
    heads: [Separable; 3],
}

fn depthwise_config(channels: usize, activation: Activation) -> ConvConfig {
    ConvConfig {
        stride: (1, 1),
        padding: Padding::all(1),
        groups: channels,
        activation,
        ..ConvConfig::default()
    }
}

/// The tensors of a weights file.
pub fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    let mut add = |name: String, weight: [usize; 4]| {
        shapes.push((format!("{name}.weight"), weight.to_vec()));
        shapes.push((format!("{name}.bias"), vec![weight[0]]));
    };
    add(STEM.to_owned(), [16, 3, 3, 3]);
    let mut unit = |name: &str, from: usize, to: usize| {
        add(format!("{name}.conv1"), [to, from, 1, 1]);
        add(format!("{name}.conv2"), [to, 1, 3, 3]);
    };
    for (name, from, to) in BACKBONE {
        unit(name, from, to);
    }
    for level in 0..3 {
        unit(&format!("neck.lateral_convs.{level}"), NECK, NECK);
        for (part, width) in PARTS {
            unit(&format!("bbox_head.multi_level_{part}.{level}"), NECK, width);
        }
    }
    shapes
}

impl YuNet {
    /// Packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let unit = |name: &str, channels: usize| {
            // 1×1 convolution, then 3×3 depthwise.
            let pointwise = conv(tensors, &format!("{name}.conv1"), ConvConfig::default())?;
            let depthwise = depthwise_config(channels, Activation::Relu);
            let depthwise = conv(tensors, &format!("{name}.conv2"), depthwise)?;
            Separable::new(Some(pointwise), depthwise, None, false)
                .map_err(|e| tensors.unfit(name, &e))
        };
        let stem = ConvConfig {
            stride: (2, 2),
            padding: Padding::all(1),
            groups: 1,
            activation: Activation::Relu,
            ..ConvConfig::default()
        };
        let neck = |level: usize| unit(&format!("neck.lateral_convs.{level}"), NECK);
        // The four parts of a head see the same input: one product instead of four.
        let head = |level: usize| {
            let joined = |kind: &str| -> std::result::Result<Tensor, WeightsError> {
                let name = |part: &str| format!("bbox_head.multi_level_{part}.{level}.{kind}");
                let parts = PARTS
                    .iter()
                    .map(|(part, _)| tensors.get(&name(part)))
                    .collect::<std::result::Result<Vec<_>, _>>()?;
                Tensor::cat(&parts, 0).map_err(|e| tensors.unfit(&name("*"), &e))
            };
            let made = |kind: &str, config: ConvConfig| {
                let (weight, bias) =
                    (joined(&format!("{kind}.weight"))?, joined(&format!("{kind}.bias"))?);
                Conv2d::new(&weight, Some(&bias), config)
                    .map_err(|e| tensors.unfit(&format!("bbox_head.*.{level}.{kind}"), &e))
            };
            // The last layers say where a face is to a fraction of a cell: always f32.
            let pointwise = made("conv1", ConvConfig::default())?;
            let depthwise = made("conv2", depthwise_config(HEAD, Activation::None))?;
            Separable::new(Some(pointwise), depthwise, None, false)
                .map_err(|e| tensors.unfit(&format!("bbox_head.*.{level}"), &e))
        };
        Ok(Self {
            stem: conv(tensors, STEM, stem)?,
            backbone: BACKBONE
                .iter()
                .map(|(name, _, to)| {
                    let unit = unit(name, *to)?;
                    if POOLED.contains(name) {
                        unit.with_max_pool().map_err(|e| tensors.unfit(name, &e))
                    } else {
                        Ok(unit)
                    }
                })
                .collect::<std::result::Result<_, _>>()?,
            neck: [neck(0)?, neck(1)?, neck(2)?],
            heads: [head(0)?, head(1)?, head(2)?],
        })
    }

    /// Finds faces. `x`: [n, h, w, 3], f32, BGR, 0..255; h and w are multiples of 32. For each
    /// picture, all cells that score at least `threshold`, fine level first, row by row;
    /// neighbouring cells see the same face ([`nms`] keeps one of them).
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward(&self, x: &Tensor, threshold: f32) -> Result<Vec<Vec<RawFace>>> {
        check(x)?;
        in_groups(x, 1, |x| {
            let mut faces = vec![Vec::new(); x.dim(0)?];
            for (level, stride) in self.heads(x)?.iter().zip(STRIDES) {
                for (i, faces) in faces.iter_mut().enumerate() {
                    decode(&level.i(i)?, stride, threshold, faces)?;
                }
            }
            Ok(faces)
        })
    }

    /// The raw output of the three levels, [n, h / stride, w / stride, 16] each: logits of class
    /// and objectness, the box (4) and the landmarks (10) relative to the cell.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn heads(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        check(x)?;
        let mut y = self.stem.forward(x)?;
        let mut levels = Vec::with_capacity(3);
        for ((name, _, _), unit) in BACKBONE.iter().zip(&self.backbone) {
            y = unit.forward(&y)?;
            match *name {
                // What comes before the pool is also what the neck takes.
                "backbone.model3.conv2" | "backbone.model4.conv2" => {
                    levels.push(y.clone());
                    y = max_pool_2x2(&y)?;
                }
                _ => {}
            }
        }
        let [fine, middle] = levels.as_slice() else {
            bail!("yunet: {} levels instead of 2", levels.len());
        };
        let coarse = self.neck[2].forward(&y)?;
        let middle = self.neck[1].forward(&upsample_2x_add(middle, &coarse)?)?;
        let fine = self.neck[0].forward(&upsample_2x_add(fine, &middle)?)?;
        Ok([
            self.heads[0].forward(&fine)?,
            self.heads[1].forward(&middle)?,
            self.heads[2].forward(&coarse)?,
        ])
    }
}

fn check(x: &Tensor) -> Result<()> {
    match *x.dims() {
        [_, h, w, 3] if h > 0 && w > 0 && h % 32 == 0 && w % 32 == 0 => Ok(()),
        ref other => {
            bail!("yunet: expected [n, h, w, 3] with multiples of 32, got {other:?}")
        }
    }
}

/// The faces in one level of one picture, [rows, columns, 16].
fn decode(level: &Tensor, stride: usize, threshold: f32, faces: &mut Vec<RawFace>) -> Result<()> {
    let (_, columns, _) = level.dims3()?;
    let values = level.flatten_all()?.to_vec1::<f32>()?;
    let scale = stride as f32;
    // The score is the root of two probabilities, so neither may be less than the threshold's
    // square. Nearly all cells end here, without an exponential. The bound lies a little lower, in
    // case of rounding; what passes is judged by the score itself.
    let least = threshold * threshold;
    let bound = if least < 1.0 { (least / (1.0 - least)).ln() - 0.01 } else { f32::NEG_INFINITY };
    for (cell, v) in values.as_chunks::<HEAD>().0.iter().enumerate() {
        if v[0] < bound || v[1] < bound {
            continue;
        }
        let score = (sigmoid(v[0]) * sigmoid(v[1])).sqrt();
        if score < threshold || score.is_nan() {
            continue;
        }
        let (row, column) = ((cell / columns) as f32, (cell % columns) as f32);
        let (width, height) = (v[4].exp() * scale, v[5].exp() * scale);
        let landmark = |k: usize| [(v[6 + 2 * k] + column) * scale, (v[7 + 2 * k] + row) * scale];
        faces.push(RawFace {
            x: (column + v[2]) * scale - width / 2.0,
            y: (row + v[3]) * scale - height / 2.0,
            width,
            height,
            landmarks: std::array::from_fn(landmark),
            score,
        });
    }
    Ok(())
}
