//! What the tuned encoders share: blocks of a transformer whose four matrices are a base's, which
//! does not ship, plus a low-rank difference of ours (Hu et al.: "LoRA", ICLR 2022).

use candle_core::{Result, Tensor};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{Activation, EncoderBlock, EncoderLayers, LayerNorm, Linear};

/// How wide the low-rank differences are.
const RANK: usize = 16;

/// The measures of an encoder's blocks; what lies between a block's last layers is four times as
/// wide.
pub(super) struct Encoder {
    pub width: usize,
    pub heads: usize,
    /// Of the norms.
    pub eps: f32,
    /// Whether what is added has a factor for each channel.
    pub scaled: bool,
}

impl Encoder {
    /// The matrices of a block: name, outputs, inputs.
    const fn matrices(&self) -> [(&'static str, usize, usize); 4] {
        let (d, inner) = (self.width, 4 * self.width);
        [("qkv", 3 * d, d), ("project", d, d), ("fc1", inner, d), ("fc2", d, inner)]
    }

    /// The norms, biases and scales of block `i`.
    fn vectors(&self, i: usize, shapes: &mut Shapes) {
        for n in [1, 2] {
            for part in [format!("norm{n}.weight"), format!("norm{n}.bias"), format!("scale{n}")] {
                if self.scaled || !part.starts_with("scale") {
                    shapes.push((format!("blocks.{i}.{part}"), vec![self.width]));
                }
            }
        }
        for (name, out, _) in self.matrices() {
            shapes.push((format!("blocks.{i}.{name}.bias"), vec![out]));
        }
    }

    /// The tensors of block `i` in the base's file.
    pub fn base_shapes(&self, i: usize, shapes: &mut Shapes) {
        self.vectors(i, shapes);
        for (name, out, inputs) in self.matrices() {
            shapes.push((format!("blocks.{i}.{name}.weight"), vec![out, inputs]));
        }
    }

    /// The tensors of block `i` in our file, where it is tuned.
    pub fn tuned_shapes(&self, i: usize, shapes: &mut Shapes) {
        self.vectors(i, shapes);
        for (name, out, inputs) in self.matrices() {
            shapes.push((format!("blocks.{i}.{name}.down"), vec![RANK, inputs]));
            shapes.push((format!("blocks.{i}.{name}.up"), vec![out, RANK]));
        }
    }

    /// Of `name.weight` and `name.bias`.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn norm(
        &self,
        tensors: &Tensors,
        name: &str,
    ) -> std::result::Result<LayerNorm, WeightsError> {
        let weight = tensors.get(&format!("{name}.weight"))?;
        let bias = tensors.get(&format!("{name}.bias"))?;
        LayerNorm::new(weight, bias, self.eps).map_err(|e| tensors.unfit(name, &e))
    }

    /// Block `i`: the base's as it is, or with its matrices changed and everything else ours. The
    /// precision of `ours` counts.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn block(
        &self,
        base: &Tensors,
        ours: &Tensors,
        i: usize,
        tuned: bool,
    ) -> std::result::Result<EncoderBlock, WeightsError> {
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
            let scale = scale.filter(|_| self.scaled);
            let scale = scale.map(|scale| own.get(&format!("blocks.{i}.{scale}"))).transpose()?;
            merged(weight, bias, change, scale)
                .and_then(|(weight, bias)| {
                    let precision = ours.precision();
                    Linear::with_precision(&weight, Some(&bias), Activation::None, precision)
                })
                .map_err(|e| own.unfit(&name, &e))
        };
        let layers = EncoderLayers {
            norm1: self.norm(own, &format!("blocks.{i}.norm1"))?,
            qkv: layer("qkv", None)?,
            project: layer("project", Some("scale1"))?,
            norm2: self.norm(own, &format!("blocks.{i}.norm2"))?,
            fc1: layer("fc1", None)?,
            fc2: layer("fc2", Some("scale2"))?,
        };
        EncoderBlock::new(self.heads, layers).map_err(|e| own.unfit(&format!("blocks.{i}"), &e))
    }
}

/// The linear layer `name` of a head.
///
/// # Errors
/// A tensor that is missing or does not fit.
pub(super) fn head(tensors: &Tensors, name: &str) -> std::result::Result<Linear, WeightsError> {
    let weight = tensors.get(&format!("{name}.weight"))?;
    let bias = tensors.get(&format!("{name}.bias"))?;
    Linear::new(weight, Some(bias), Activation::None).map_err(|e| tensors.unfit(name, &e))
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
