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

use super::tuned::{Encoder, head};
use super::weights::{Tensors, WeightsError};
use super::{FaceOutput, Shapes, domain};
use crate::nn::{Conv2d, ConvConfig, EncoderBlock, LayerNorm, Linear, global_avg_pool, in_groups};

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
const DEPTH: usize = 9;
/// Blocks behind which the tokens go to the heads.
const TAPS: [usize; 2] = [5, 8];
const FEATURES: usize = 2 * TAPS.len() * WIDTH;
/// Blocks before this one are the base's.
const TUNED_FROM: usize = 2;
const ENCODER: Encoder = Encoder { width: WIDTH, heads: 6, eps: 1e-6, scaled: true };
/// Of the base's own position table, one for the class token and 37×37 for patches.
const BASE_POSITIONS: usize = 1 + 37 * 37;

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
        ENCODER.base_shapes(i, &mut shapes);
    }
    shapes
}

/// The tensors of our file.
pub fn shapes() -> Shapes {
    let mut shapes = vec![("positions".to_owned(), vec![1 + CELLS * CELLS, WIDTH])];
    for i in TUNED_FROM..DEPTH {
        ENCODER.tuned_shapes(i, &mut shapes);
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
        Ok(Self {
            patches,
            token,
            positions,
            blocks: (0..DEPTH)
                .map(|i| ENCODER.block(base, ours, i, i >= TUNED_FROM))
                .collect::<std::result::Result<_, _>>()?,
            norms: (0..TAPS.len())
                .map(|tap| ENCODER.norm(ours, &format!("norms.{tap}")))
                .collect::<std::result::Result<_, _>>()?,
            classifier: head(ours, "classifier")?,
            mask: head(ours, "mask")?,
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
