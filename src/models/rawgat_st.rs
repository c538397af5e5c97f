//! RawGAT-ST, the variant whose two views are multiplied: graph attention over a spectral and a
//! temporal view of a raw waveform, imported from the authors' checkpoint. Inference only, on the CPU.
//!
//! Tak et al.: "End-to-End Spectro-Temporal Graph Attention Networks for Speaker Verification
//! Anti-Spoofing and Speech Deepfake Detection", ASVspoof 2021 Workshop. Weights:
//! <https://github.com/eurecom-asp/RawGAT-ST-antispoofing> (MIT), trained on ASVspoof 2019 LA; they
//! do not ship, `veriscope weights import --as rawgat-st` reads them.
//!
//! The layers, and where the authors' program differs from their paper, are in [`super::raw_wave`].
//! A checkpoint of the variant whose views are added has the very same tensors and cannot be told
//! from this one.

use candle_core::{Result, Tensor, bail};

use super::Shapes;
use super::raw_wave::{
    Block, Dense, Filters, Listed, Nodes, OneView, Pool, Sides, largest_of_columns,
    largest_of_rows, stacked,
};
use super::weights::{Tensors, WeightsError};
use crate::nn::in_groups;

pub use super::raw_wave::{SAMPLES, fitted};

/// Name in the manifest.
pub const NETWORK: &str = "rawgat-st";

/// Inputs that go through all layers together.
const GROUP: usize = 1;
/// Channels of the encoders: the first blocks see the one channel of the filters' picture.
const BLOCKS: [(usize, usize); 6] = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64)];
const CHANNELS: usize = BLOCKS[5].1;
/// Widths of a view's graph, and of the graph of both.
const WIDTH: usize = 32;
const WIDTH_OF_BOTH: usize = 16;
/// Shares of the nodes that the pools keep: spectral, temporal, both.
const KEEP: [f64; 3] = [0.64, 0.81, 0.64];
/// Nodes that they keep, and to how many the views are brought.
const KEPT: [usize; 3] = [14, 23, 7];
const NODES: usize = 12;
/// The attention's logits are taken as they are.
const TEMPERATURE: f32 = 1.0;

/// Name, first convolution and skip of block `i` of an encoder.
fn block(encoder: &str, i: usize) -> (String, &'static str, Sides) {
    let (first, sides) = match i {
        0 => ("conv_1", Sides::Spread(BLOCKS[0].1)),
        _ => ("conv1", Sides::of(BLOCKS[i])),
    };
    (format!("{encoder}.{i}.0"), first, sides)
}

/// The tensors of a weights file, named as in the authors' checkpoint.
pub fn shapes() -> Shapes {
    let mut list = Listed::default();
    list.norm("first_bn", 1);
    for encoder in ["encoder1", "encoder2"] {
        for (i, channels) in BLOCKS.into_iter().enumerate() {
            let (name, first, sides) = block(encoder, i);
            list.block(&name, first, channels, sides);
        }
    }
    list.one_view("GAT_layer1", CHANNELS, WIDTH);
    list.one_view("GAT_layer2", CHANNELS, WIDTH);
    list.one_view("GAT_layer3", WIDTH, WIDTH_OF_BOTH);
    list.dense("pool1.proj", 1, WIDTH);
    list.dense("pool2.proj", 1, WIDTH);
    list.dense("pool3.proj", 1, WIDTH_OF_BOTH);
    list.dense("proj1", NODES, KEPT[0]);
    list.dense("proj2", NODES, KEPT[1]);
    list.dense("proj", 1, WIDTH_OF_BOTH);
    list.dense("proj_node", 2, KEPT[2]);
    list.0
}

/// Whether a checkpoint's tensor has no part in the answer: `bn1`, and the convolution of the
/// filters' picture that every block has and only the first one uses.
pub fn is_without_effect(tensor: &str) -> bool {
    let mut parts = tensor.split('.');
    let (encoder, number) = (parts.next(), parts.next());
    let later = encoder.is_some_and(|e| e.starts_with("encoder")) && number != Some("0");
    parts.any(|part| part == "bn1" || (later && part == "conv_1"))
}

/// One view: encoder, attention, pool, and the layer that brings its nodes to twelve.
struct View {
    blocks: Vec<Block>,
    attention: OneView,
    pool: Pool,
    proj: Dense,
}

impl View {
    /// `number`: 1 is the spectral one, 2 the temporal one.
    fn load(tensors: &Tensors, number: usize) -> std::result::Result<Self, WeightsError> {
        let encoder = format!("encoder{number}");
        let blocks = (0..BLOCKS.len()).map(|i| {
            let (name, first, sides) = block(&encoder, i);
            Block::load(tensors, &name, first, sides)
        });
        Ok(Self {
            blocks: blocks.collect::<std::result::Result<_, _>>()?,
            attention: OneView::load(tensors, &format!("GAT_layer{number}"), TEMPERATURE)?,
            pool: Pool::load(tensors, &format!("pool{number}"), KEEP[number - 1])?,
            proj: Dense::load(tensors, &format!("proj{number}"))?,
        })
    }

    /// Twelve values for each of the 32 features, a feature a row.
    fn forward(&self, x: &Tensor, nodes: impl Fn(&Tensor) -> Result<Nodes>) -> Result<Nodes> {
        let mut e = x.clone();
        for block in &self.blocks {
            e = block.forward(&e)?;
        }
        let pooled = self.pool.forward(&self.attention.forward(&nodes(&e)?)?)?;
        self.proj.forward(pooled.transposed())
    }
}

/// The network with its filters.
pub struct RawGatSt {
    filters: Filters,
    spectral: View,
    temporal: View,
    attention: OneView,
    pool: Pool,
    proj: Dense,
    out: Dense,
}

impl RawGatSt {
    /// Folds the batch norms and packs the weights.
    ///
    /// # Errors
    /// A tensor that is missing, does not fit or is not in the CPU's memory.
    pub fn new(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        Ok(Self {
            filters: Filters::load(tensors)?,
            spectral: View::load(tensors, 1)?,
            temporal: View::load(tensors, 2)?,
            attention: OneView::load(tensors, "GAT_layer3", TEMPERATURE)?,
            pool: Pool::load(tensors, "pool3", KEEP[2])?,
            proj: Dense::load(tensors, "proj")?,
            out: Dense::load(tensors, "proj_node")?,
        })
    }

    /// The two logits of each window as the original gives them: spoofed, bona fide. A window is
    /// 64,600 samples at 16 kHz, mono, -1 to 1 (see [`fitted`]).
    ///
    /// # Errors
    /// A window of another length.
    pub fn forward(&self, windows: &[&[f32]]) -> Result<Vec<[f32; 2]>> {
        let x = stacked(NETWORK, windows)?;
        in_groups(&x, GROUP, |x| (0..x.dim(0)?).map(|i| self.window(&x.narrow(0, i, 1)?)).collect())
    }

    /// [1, 1, 64600, 1] → two logits.
    fn window(&self, x: &Tensor) -> Result<[f32; 2]> {
        let x = self.filters.forward(x)?;
        let spectral = self.spectral.forward(&x, largest_of_rows)?;
        let temporal = self.temporal.forward(&x, largest_of_columns)?;
        let both = spectral.with(&temporal, |a, b| a * b).transposed();
        let nodes = self.pool.forward(&self.attention.forward(&both)?)?;
        let mut hidden = self.proj.forward(nodes)?;
        // One value a node: the last layer is over the nodes.
        hidden.width = hidden.values.len();
        match self.out.forward(hidden)?.values[..] {
            [spoofed, bona_fide] => Ok([spoofed, bona_fide]),
            ref other => bail!("{NETWORK}: {} logits", other.len()),
        }
    }
}
