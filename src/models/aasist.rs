//! AASIST and AASIST-L: graph attention over a spectral and a temporal view of a raw waveform,
//! imported from the authors' checkpoints. Inference only, on the CPU.
//!
//! Jung et al.: "AASIST: Audio Anti-Spoofing Using Integrated Spectro-Temporal Graph Attention
//! Networks", ICASSP 2022; the sinc filters after Ravanelli and Bengio: "Speaker Recognition from
//! Raw Waveform with SincNet", SLT 2018. Weights: <https://github.com/clovaai/aasist> (MIT),
//! trained on ASVspoof 2019 LA; they do not ship, `veriscope weights import --as aasist` reads them.
//!
//! The layers, and where the authors' program differs from their paper, are in [`super::raw_wave`].

use candle_core::{Result, Tensor, bail};

use super::Shapes;
use super::raw_wave::{
    Attention, Block, Dense, Filters, Listed, Nodes, OneView, Pool, ROWS, Sides, dot, gather,
    largest_of_columns, largest_of_rows, softmax, stacked, vector,
};
use super::weights::{Tensors, WeightsError};
use crate::nn::in_groups;

pub use super::raw_wave::{SAMPLES, fitted};

/// Names of the two in the manifest.
pub const NETWORK: &str = "aasist";
pub const NETWORK_L: &str = "aasist-l";

/// Inputs that go through all layers together.
const GROUP: usize = 1;
/// Of the attention within one view, and of that between the views.
const TEMPERATURE: f32 = 2.0;
const TEMPERATURE_BETWEEN: f32 = 100.0;

/// In what the two differ.
struct Variant {
    network: &'static str,
    /// Channels in and out of each encoder block.
    blocks: [(usize, usize); 6],
    /// Widths of the graphs: of one view, and of both.
    widths: [usize; 2],
    /// Shares of the nodes that the pools keep: spectral, temporal, those of both views.
    keep: [f64; 3],
}

const AASIST: Variant = Variant {
    network: NETWORK,
    blocks: [(1, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64)],
    widths: [64, 32],
    keep: [0.5, 0.7, 0.5],
};
const AASIST_L: Variant = Variant {
    network: NETWORK_L,
    blocks: [(1, 32), (32, 32), (32, 24), (24, 24), (24, 24), (24, 24)],
    widths: [24, 32],
    keep: [0.4, 0.5, 0.7],
};
const VARIANTS: [&Variant; 2] = [&AASIST, &AASIST_L];

impl Variant {
    fn named(network: &str) -> Option<&'static Self> {
        VARIANTS.into_iter().find(|v| v.network == network)
    }

    fn shapes(&self) -> Shapes {
        let mut list = Listed::default();
        let channels = self.blocks[5].1;
        let [one, both] = self.widths;
        list.add("pos_S", &[1, ROWS, channels]);
        list.add("master1", &[1, 1, one]);
        list.add("master2", &[1, 1, one]);
        list.norm("first_bn", 1);
        for (i, channels) in self.blocks.into_iter().enumerate() {
            list.block(&format!("encoder.{i}.0"), "conv1", channels, Sides::of(channels));
        }
        for name in ["GAT_layer_S", "GAT_layer_T"] {
            list.one_view(name, channels, one);
        }
        for (name, k) in [("ST11", one), ("ST12", both), ("ST21", one), ("ST22", both)] {
            let name = format!("HtrgGAT_layer_{name}");
            for part in ["11", "22", "12", "M"] {
                list.add(&format!("{name}.att_weight{part}"), &[both, 1]);
            }
            for part in ["proj_type1", "proj_type2"] {
                list.dense(&format!("{name}.{part}"), k, k);
            }
            for part in ["att_proj", "proj_with_att", "proj_without_att"] {
                list.dense(&format!("{name}.{part}"), both, k);
                list.dense(&format!("{name}.{part}M"), both, k);
            }
            list.norm(&format!("{name}.bn"), both);
        }
        for (name, k) in [("S", one), ("T", one)] {
            list.dense(&format!("pool_{name}.proj"), 1, k);
        }
        for name in ["hS1", "hT1", "hS2", "hT2"] {
            list.dense(&format!("pool_{name}.proj"), 1, both);
        }
        list.dense("out_layer", 2, 5 * both);
        list.0
    }
}

/// The tensors of a weights file, named as in the authors' checkpoints; `None` for a network that
/// is neither of the two.
pub fn shapes(network: &str) -> Option<Shapes> {
    Variant::named(network).map(Variant::shapes)
}

/// Which of the two a checkpoint is for, by the shape of its `pos_S`.
pub fn recognise(pos_s: &[usize]) -> Option<&'static str> {
    let has = |v: &&Variant| pos_s == [1, ROWS, v.blocks[5].1];
    VARIANTS.into_iter().find(has).map(|v| v.network)
}

/// Whether a checkpoint's tensor has no part in the answer: `bn1` (see above).
pub fn is_without_effect(tensor: &str) -> bool {
    tensor.split('.').any(|part| part == "bn1")
}

/// Attention over the nodes of both views, and of a master node to all of them.
struct BothViews {
    types: [Dense; 2],
    attention: Attention,
    /// Between two temporal nodes, two spectral ones, and one of each.
    weights: [Vec<f32>; 3],
    master_att_proj: Dense,
    master_with_att: Dense,
    master_without_att: Dense,
    master_weight: Vec<f32>,
}

/// Temporal nodes, spectral nodes, master node.
type Views = (Nodes, Nodes, Nodes);

impl BothViews {
    fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
        let dense = |part: &str| Dense::load(tensors, &format!("{name}.{part}"));
        let weight = |part: &str| vector(tensors, &format!("{name}.att_weight{part}"));
        Ok(Self {
            types: [dense("proj_type1")?, dense("proj_type2")?],
            attention: Attention::load(tensors, name, TEMPERATURE_BETWEEN)?,
            weights: [weight("11")?, weight("22")?, weight("12")?],
            master_att_proj: dense("att_projM")?,
            master_with_att: dense("proj_with_attM")?,
            master_without_att: dense("proj_without_attM")?,
            master_weight: weight("M")?,
        })
    }

    fn forward(&self, (temporal, spectral, master): &Views) -> Result<Views> {
        let n = temporal.len();
        let mut x = self.types[0].forward(temporal.clone())?;
        x.values.extend(self.types[1].forward(spectral.clone())?.values);

        let pairs = x.rows().flat_map(|row| row.iter().zip(&master.values).map(|(a, b)| a * b));
        let pairs = Nodes { values: pairs.collect(), width: x.width };
        let shared = self.master_att_proj.forward(pairs)?;
        let mut map = Vec::with_capacity(x.len());
        for row in shared.rows() {
            let row: Vec<f32> = row.iter().map(|v| v.tanh()).collect();
            map.push(dot(&row, &self.master_weight) / TEMPERATURE_BETWEEN);
        }
        softmax(&mut map);
        let near = self.master_with_att.forward(gather(&map, &x))?;
        let master = near.plus(&self.master_without_att.forward(master.clone())?);

        let [temporal, spectral, mixed] = &self.weights;
        let made = self.attention.forward(&x, |a, b| match (a < n, b < n) {
            (true, true) => temporal,
            (false, false) => spectral,
            _ => mixed,
        })?;
        let (temporal, spectral) = made.split(n);
        Ok((temporal, spectral, master))
    }
}

/// One of the two paths through the graphs of both views.
struct Branch {
    master: Nodes,
    first: BothViews,
    pool_spectral: Pool,
    pool_temporal: Pool,
    second: BothViews,
}

impl Branch {
    fn load(
        tensors: &Tensors,
        number: usize,
        keep: f64,
    ) -> std::result::Result<Self, WeightsError> {
        let master = vector(tensors, &format!("master{number}"))?;
        let layer = |i| BothViews::load(tensors, &format!("HtrgGAT_layer_ST{number}{i}"));
        let pool = |view| Pool::load(tensors, &format!("pool_h{view}{number}"), keep);
        Ok(Self {
            master: Nodes { width: master.len(), values: master },
            first: layer(1)?,
            pool_spectral: pool("S")?,
            pool_temporal: pool("T")?,
            second: layer(2)?,
        })
    }

    fn forward(&self, temporal: &Nodes, spectral: &Nodes) -> Result<Views> {
        let views = (temporal.clone(), spectral.clone(), self.master.clone());
        let (temporal, spectral, master) = self.first.forward(&views)?;
        let pooled = (
            self.pool_temporal.forward(&temporal)?,
            self.pool_spectral.forward(&spectral)?,
            master,
        );
        let more = self.second.forward(&pooled)?;
        Ok((pooled.0.plus(&more.0), pooled.1.plus(&more.1), pooled.2.plus(&more.2)))
    }
}

/// The network with its filters.
pub struct Aasist {
    filters: Filters,
    blocks: Vec<Block>,
    position: Vec<f32>,
    spectral: OneView,
    temporal: OneView,
    pool_spectral: Pool,
    pool_temporal: Pool,
    branches: [Branch; 2],
    out: Dense,
}

impl Aasist {
    /// Folds the batch norms and packs the weights.
    ///
    /// # Errors
    /// A network that is neither of the two; a tensor that is missing, does not fit or is not in
    /// the CPU's memory.
    pub fn new(network: &str, tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let variant = Variant::named(network)
            .ok_or_else(|| tensors.unfit("pos_S", &format!("`{network}` is no AASIST")))?;
        let blocks = variant.blocks.iter().enumerate();
        let [keep_spectral, keep_temporal, keep_both] = variant.keep;
        Ok(Self {
            filters: Filters::load(tensors)?,
            blocks: blocks
                .map(|(i, channels)| {
                    let sides = Sides::of(*channels);
                    Block::load(tensors, &format!("encoder.{i}.0"), "conv1", sides)
                })
                .collect::<std::result::Result<_, _>>()?,
            position: vector(tensors, "pos_S")?,
            spectral: OneView::load(tensors, "GAT_layer_S", TEMPERATURE)?,
            temporal: OneView::load(tensors, "GAT_layer_T", TEMPERATURE)?,
            pool_spectral: Pool::load(tensors, "pool_S", keep_spectral)?,
            pool_temporal: Pool::load(tensors, "pool_T", keep_temporal)?,
            branches: [Branch::load(tensors, 1, keep_both)?, Branch::load(tensors, 2, keep_both)?],
            out: Dense::load(tensors, "out_layer")?,
        })
    }

    /// The two logits of each window as the original gives them: spoofed, bona fide. A window is
    /// 64,600 samples at 16 kHz, mono, -1 to 1 (see [`fitted`]).
    ///
    /// # Errors
    /// A window of another length.
    pub fn forward(&self, windows: &[&[f32]]) -> Result<Vec<[f32; 2]>> {
        let x = stacked("aasist", windows)?;
        in_groups(&x, GROUP, |x| (0..x.dim(0)?).map(|i| self.window(&x.narrow(0, i, 1)?)).collect())
    }

    /// [1, 1, 64600, 1] → two logits.
    fn window(&self, x: &Tensor) -> Result<[f32; 2]> {
        let mut e = self.filters.forward(x)?;
        for block in &self.blocks {
            e = block.forward(&e)?;
        }
        let (mut spectral, temporal) = (largest_of_rows(&e)?, largest_of_columns(&e)?);
        spectral.values.iter_mut().zip(&self.position).for_each(|(v, p)| *v += p);
        let spectral = self.pool_spectral.forward(&self.spectral.forward(&spectral)?)?;
        let temporal = self.pool_temporal.forward(&self.temporal.forward(&temporal)?)?;

        let [first, second] = &self.branches;
        let (temporal_1, spectral_1, master_1) = first.forward(&temporal, &spectral)?;
        let (temporal_2, spectral_2, master_2) = second.forward(&temporal, &spectral)?;
        let mut hidden = Vec::new();
        for nodes in [temporal_1.max(&temporal_2), spectral_1.max(&spectral_2)] {
            hidden.extend(nodes.columns(0.0, |most, v| most.max(v.abs())));
            let n = nodes.len() as f32;
            hidden.extend(nodes.columns(0.0, |sum, v| sum + v).into_iter().map(|sum| sum / n));
        }
        hidden.extend(master_1.max(&master_2).values);
        let hidden = Nodes { width: hidden.len(), values: hidden };
        match self.out.forward(hidden)?.values[..] {
            [spoofed, bona_fide] => Ok([spoofed, bona_fide]),
            ref other => bail!("aasist: {} logits", other.len()),
        }
    }
}
