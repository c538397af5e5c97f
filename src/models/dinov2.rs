//! The first nine blocks of DINOv2 ViT-S/14, tuned lightly: from a face crop the logit that it is
//! forged, and for each of its 12×12 patches the logit that this one was altered.
//!
//! Oquab et al.: "DINOv2: Learning Robust Visual Features without Supervision", 2023 (arXiv
//! 2304.07193). Weights: the base is DINOv2's own and does not ship (`scripts/setup`
//! installs it); ours, trained by `scripts/train/face_swap`, are what was changed: norms, biases,
//! scales, positions and heads whole, and a low-rank difference (Hu et al.: "LoRA", ICLR 2022) for
//! the four matrices of each tuned block. The header of `scripts/train/face_swap/vit.py` says the
//! same in other words.

use candle_core::{Result, Tensor, bail};

use super::weights::{Tensors, WeightsError};
use super::{FaceOutput, Shapes, domain};
use crate::nn::{
    Activation, Conv2d, ConvConfig, EncoderBlock, EncoderLayers, LayerNorm, Linear,
    global_avg_pool, in_groups,
};

/// Its name in the manifest: what was changed.
pub const NETWORK: &str = "dinov2-vit-s14-lora";
/// The base's name in the manifest.
pub const BASE: &str = "dinov2-vit-s14";
/// Height and width of the input.
pub const SIZE: usize = 168;
/// Patches in a row, and rows of them.
pub const CELLS: usize = SIZE / PATCH;
/// What is subtracted from R, G and B in 0..1.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// What they are then divided by.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Inputs that go through all layers together on one thread: all weights are read once for them.
const GROUP: usize = 4;
const PATCH: usize = 14;
const WIDTH: usize = 384;
const INNER: usize = 4 * WIDTH;
const HEADS: usize = 6;
const DEPTH: usize = 9;
/// Blocks behind which the tokens go to the heads.
const TAPS: [usize; 2] = [5, 8];
const FEATURES: usize = 2 * TAPS.len() * WIDTH;
/// Blocks before this one are the base's.
const TUNED_FROM: usize = 2;
const RANK: usize = 16;
const EPS: f32 = 1e-6;
/// Of the base's own position table, one for the class token and 37×37 for patches.
const BASE_POSITIONS: usize = 1 + 37 * 37;

/// The matrices of a block: name, outputs, inputs.
const MATRICES: [(&str, usize, usize); 4] = [
    ("qkv", 3 * WIDTH, WIDTH),
    ("project", WIDTH, WIDTH),
    ("fc1", INNER, WIDTH),
    ("fc2", WIDTH, INNER),
];

/// The network.
pub struct Dinov2 {
    patches: Conv2d,
    /// [1, 1, 384]: the class token with its position.
    token: Tensor,
    /// [144, 384].
    positions: Tensor,
    blocks: Vec<EncoderBlock>,
    norms: Vec<LayerNorm>,
    classifier: Linear,
    mask: Linear,
}

/// Logit, cells and features of one input.
type Answer = (f32, Vec<f32>, Vec<f32>);

/// The norms, biases and scales of block `i`.
fn block_vectors(i: usize, shapes: &mut Shapes) {
    for n in [1, 2] {
        for part in [format!("norm{n}.weight"), format!("norm{n}.bias"), format!("scale{n}")] {
            shapes.push((format!("blocks.{i}.{part}"), vec![WIDTH]));
        }
    }
    for (name, out, _) in MATRICES {
        shapes.push((format!("blocks.{i}.{name}.bias"), vec![out]));
    }
}

/// The tensors of the base's file.
pub fn base_shapes() -> Shapes {
    let mut shapes = vec![
        ("patches.weight".to_owned(), vec![WIDTH, 3, PATCH, PATCH]),
        ("patches.bias".to_owned(), vec![WIDTH]),
        ("token".to_owned(), vec![1, 1, WIDTH]),
        ("positions".to_owned(), vec![BASE_POSITIONS, WIDTH]),
        ("norm.weight".to_owned(), vec![WIDTH]),
        ("norm.bias".to_owned(), vec![WIDTH]),
    ];
    for i in 0..DEPTH {
        block_vectors(i, &mut shapes);
        for (name, out, inputs) in MATRICES {
            shapes.push((format!("blocks.{i}.{name}.weight"), vec![out, inputs]));
        }
    }
    shapes
}

/// The tensors of our file.
pub fn shapes() -> Shapes {
    let mut shapes = vec![("positions".to_owned(), vec![1 + CELLS * CELLS, WIDTH])];
    for i in TUNED_FROM..DEPTH {
        block_vectors(i, &mut shapes);
        for (name, out, inputs) in MATRICES {
            shapes.push((format!("blocks.{i}.{name}.down"), vec![RANK, inputs]));
            shapes.push((format!("blocks.{i}.{name}.up"), vec![out, RANK]));
        }
    }
    for tap in 0..TAPS.len() {
        for part in ["weight", "bias"] {
            shapes.push((format!("norms.{tap}.{part}"), vec![WIDTH]));
        }
    }
    for (head, inputs) in [("classifier", FEATURES), ("mask", TAPS.len() * WIDTH)] {
        shapes.push((format!("{head}.weight"), vec![1, inputs]));
        shapes.push((format!("{head}.bias"), vec![1]));
    }
    shapes.extend(domain::shapes(FEATURES));
    shapes
}

impl Dinov2 {
    /// Puts the two files together, in f32, and packs the weights. `base` are the tensors of
    /// [`base_shapes`], `ours` those of [`shapes`], whose precision counts.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn new(base: &Tensors, ours: &Tensors) -> std::result::Result<Self, WeightsError> {
        let patches = Conv2d::new(
            base.get("patches.weight")?,
            Some(base.get("patches.bias")?),
            ConvConfig { stride: (PATCH, PATCH), ..ConvConfig::default() },
        )
        .map_err(|e| base.unfit("patches.weight", &e))?;
        let positions = ours.get("positions")?;
        let token = base.get("token")?;
        let token = token
            .reshape((1, 1, WIDTH))
            .and_then(|token| token.broadcast_add(&positions.narrow(0, 0, 1)?))
            .map_err(|e| base.unfit("token", &e))?;
        let positions = positions
            .narrow(0, 1, CELLS * CELLS)
            .and_then(|positions| positions.contiguous())
            .map_err(|e| ours.unfit("positions", &e))?;
        let head = |name: &str| {
            let weight = ours.get(&format!("{name}.weight"))?;
            let bias = ours.get(&format!("{name}.bias"))?;
            Linear::new(weight, Some(bias), Activation::None).map_err(|e| ours.unfit(name, &e))
        };
        Ok(Self {
            patches,
            token,
            positions,
            blocks: (0..DEPTH)
                .map(|i| block(base, ours, i))
                .collect::<std::result::Result<_, _>>()?,
            norms: (0..TAPS.len())
                .map(|tap| norm(ours, &format!("norms.{tap}")))
                .collect::<std::result::Result<_, _>>()?,
            classifier: head("classifier")?,
            mask: head("mask")?,
        })
    }

    /// Logits, higher = fake; those of the 12×12 cells, row by row, higher = altered; and the 1536
    /// values that the first logit is made of. `x`: [n, 168, 168, 3], f32, RGB,
    /// `(x / 255 - MEAN) / STD`.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn forward(&self, x: &Tensor) -> Result<FaceOutput> {
        match *x.dims() {
            [_, SIZE, SIZE, 3] => {}
            ref other => bail!("{NETWORK}: expected [n, {SIZE}, {SIZE}, 3], got {other:?}"),
        }
        let mut output = FaceOutput { side: CELLS, ..FaceOutput::default() };
        for (logit, cells, features) in in_groups(x, GROUP, |x| self.group(x))? {
            output.logits.push(logit);
            output.cells.push(cells);
            output.features.push(features);
        }
        Ok(output)
    }

    fn group(&self, x: &Tensor) -> Result<Vec<Answer>> {
        let n = x.dim(0)?;
        let patches = self.patches.forward(x)?.reshape((n, CELLS * CELLS, WIDTH))?;
        let patches = patches.broadcast_add(&self.positions)?;
        let mut x = Tensor::cat(&[&self.token.expand((n, 1, WIDTH))?, &patches], 1)?;
        let (mut features, mut seen) = (Vec::new(), Vec::new());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if let Some(tap) = TAPS.iter().position(|tap| *tap == i) {
                let y = self.norms[tap].forward(&x)?;
                let patches = y.narrow(1, 1, CELLS * CELLS)?.contiguous()?;
                features.push(y.narrow(1, 0, 1)?.squeeze(1)?);
                features.push(global_avg_pool(&patches.reshape((n, CELLS, CELLS, WIDTH))?)?);
                seen.push(patches);
            }
        }
        let features = Tensor::cat(&features, 1)?;
        let logits = self.classifier.forward(&features)?.flatten_all()?.to_vec1()?;
        let seen = Tensor::cat(&seen, 2)?.reshape((n * CELLS * CELLS, ()))?;
        let cells = self.mask.forward(&seen)?.reshape((n, CELLS * CELLS))?.to_vec2()?;
        let features = features.to_vec2()?;
        Ok(logits
            .into_iter()
            .zip(cells)
            .zip(features)
            .map(|((logit, cells), features)| (logit, cells, features))
            .collect())
    }
}

fn norm(tensors: &Tensors, name: &str) -> std::result::Result<LayerNorm, WeightsError> {
    let weight = tensors.get(&format!("{name}.weight"))?;
    let bias = tensors.get(&format!("{name}.bias"))?;
    LayerNorm::new(weight, bias, EPS).map_err(|e| tensors.unfit(name, &e))
}

fn block(
    base: &Tensors,
    ours: &Tensors,
    i: usize,
) -> std::result::Result<EncoderBlock, WeightsError> {
    let tuned = i >= TUNED_FROM;
    // Whose norms, biases and scales hold.
    let own = if tuned { ours } else { base };
    let layer = |name: &str, scale: Option<&str>| {
        let name = format!("blocks.{i}.{name}");
        let weight = base.get(&format!("{name}.weight"))?;
        let bias = own.get(&format!("{name}.bias"))?;
        let change = if tuned {
            Some((ours.get(&format!("{name}.up"))?, ours.get(&format!("{name}.down"))?))
        } else {
            None
        };
        let scale = scale.map(|scale| own.get(&format!("blocks.{i}.{scale}"))).transpose()?;
        merged(weight, bias, change, scale)
            .and_then(|(weight, bias)| {
                let precision = ours.precision();
                Linear::with_precision(&weight, Some(&bias), Activation::None, precision)
            })
            .map_err(|e| own.unfit(&name, &e))
    };
    let layers = EncoderLayers {
        norm1: norm(own, &format!("blocks.{i}.norm1"))?,
        qkv: layer("qkv", None)?,
        project: layer("project", Some("scale1"))?,
        norm2: norm(own, &format!("blocks.{i}.norm2"))?,
        fc1: layer("fc1", None)?,
        fc2: layer("fc2", Some("scale2"))?,
    };
    EncoderBlock::new(HEADS, layers).map_err(|e| own.unfit(&format!("blocks.{i}"), &e))
}

/// `weight + up * down` and `bias`, both times `scale` [out]. Sums go over the rank in order, so
/// that the same files give the same weights on every machine.
fn merged(
    weight: &Tensor,
    bias: &Tensor,
    change: Option<(&Tensor, &Tensor)>,
    scale: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (out, inputs) = weight.dims2()?;
    let mut values = weight.flatten_all()?.to_vec1::<f32>()?;
    if let Some((up, down)) = change {
        let (up, down) = (up.to_vec2::<f32>()?, down.to_vec2::<f32>()?);
        let mut difference = vec![0.0f32; inputs];
        for (row, up) in values.chunks_exact_mut(inputs).zip(&up) {
            difference.fill(0.0);
            for (up, down) in up.iter().zip(&down) {
                difference.iter_mut().zip(down).for_each(|(sum, down)| *sum += up * down);
            }
            row.iter_mut().zip(&difference).for_each(|(w, d)| *w += d);
        }
    }
    let mut biases = bias.to_vec1::<f32>()?;
    if let Some(scale) = scale {
        let scale = scale.to_vec1::<f32>()?;
        for ((row, bias), scale) in values.chunks_exact_mut(inputs).zip(&mut biases).zip(scale) {
            row.iter_mut().for_each(|w| *w *= scale);
            *bias *= scale;
        }
    }
    let device = weight.device();
    Ok((Tensor::from_vec(values, (out, inputs), device)?, Tensor::from_vec(biases, out, device)?))
}
