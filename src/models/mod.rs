//! One network = one file. Each has a header that names its paper and the origin of its weights.
//!
//! A network lists the tensors that its weights file must hold (`shapes`), so that a file can be
//! verified without building anything, and is built from verified [`Tensors`](weights::Tensors).

pub mod aasist;
pub mod dinov2;
pub mod domain;
pub mod efficientnet_lite;
mod hdf5;
pub mod import;
mod inverted_residual;
pub mod mark_net;
pub mod mesonet;
pub mod perth;
mod pth;
mod raw_wave;
pub mod rawgat_st;
pub mod silero_vad;
pub mod speaker_encoder;
mod tuned;
pub mod voice_cnn;
pub mod weights;
pub mod whisper_encoder;
pub mod yunet;

use crate::nn::{Conv2d, ConvConfig, Precision};

/// Name and shape of every tensor in a weights file.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// What a face network says of each crop.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaceOutput {
    /// That the face was forged, higher = fake.
    pub logits: Vec<f32>,
    /// That each cell of the crop was altered, as logits: `side * side` of them, row by row.
    pub cells: Vec<Vec<f32>>,
    pub side: usize,
    /// What [`domain::Domain`] measures.
    pub features: Vec<Vec<f32>>,
}

/// What the weights file of a network holds; `None` for a network that this program does not know.
pub fn expected_shapes(network: &str) -> Option<Shapes> {
    match network {
        yunet::NETWORK => Some(yunet::shapes()),
        efficientnet_lite::NETWORK => Some(efficientnet_lite::shapes()),
        voice_cnn::NETWORK => Some(voice_cnn::shapes()),
        mark_net::NETWORK => Some(mark_net::shapes()),
        silero_vad::NETWORK => Some(silero_vad::shapes()),
        speaker_encoder::NETWORK => Some(speaker_encoder::shapes()),
        perth::NETWORK => Some(perth::shapes()),
        dinov2::NETWORK => Some(dinov2::shapes()),
        dinov2::BASE => Some(dinov2::base_shapes()),
        whisper_encoder::NETWORK => Some(whisper_encoder::shapes()),
        whisper_encoder::BASE => Some(whisper_encoder::base_shapes()),
        rawgat_st::NETWORK => Some(rawgat_st::shapes()),
        other => aasist::shapes(other).or_else(|| mesonet::shapes(other)),
    }
}

/// The lowest precision that a network's layers can make use of.
fn lowest_precision(network: &str) -> Precision {
    match network {
        // No pointwise convolutions that would matter.
        silero_vad::NETWORK
        | perth::NETWORK
        | aasist::NETWORK
        | aasist::NETWORK_L
        | rawgat_st::NETWORK
        | mesonet::MESO4
        | mesonet::MESO_INCEPTION4 => Precision::F32,
        _ => Precision::Bf16,
    }
}

/// The convolution `name` in the network's precision, with `name.weight` and `name.bias`.
fn conv(
    tensors: &weights::Tensors,
    name: &str,
    config: ConvConfig,
) -> Result<Conv2d, weights::WeightsError> {
    let weight = tensors.get(&format!("{name}.weight"))?;
    let bias = tensors.get(&format!("{name}.bias"))?;
    let config = ConvConfig { precision: tensors.precision(), ..config };
    Conv2d::new(weight, Some(bias), config).map_err(|e| tensors.unfit(name, &e))
}
