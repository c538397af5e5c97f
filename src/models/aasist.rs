//! AASIST and AASIST-L: graph attention over a spectral and a temporal view of a raw waveform,
//! imported from the authors' checkpoints. Inference only, on the CPU.
//!
//! Jung et al.: "AASIST: Audio Anti-Spoofing Using Integrated Spectro-Temporal Graph Attention
//! Networks", ICASSP 2022; the sinc filters after Ravanelli and Bengio: "Speaker Recognition from
//! Raw Waveform with SincNet", SLT 2018. Weights: <https://github.com/clovaai/aasist> (MIT),
//! trained on ASVspoof 2019 LA; they do not ship, `veriscope weights import --as aasist` reads them.
//!
//! Two things are as in the authors' program and not as in their paper: the first batch norm of an
//! encoder block and the activation behind it are without effect (hence `bn1` is not loaded), and
//! the sinc filters are computed, not loaded.

use std::f64::consts::PI;

use candle_core::{Device, Result, Tensor, bail};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{
    Activation, Conv2d, ConvConfig, Linear, Padding, fold_bn, in_groups, max_pool_columns, sigmoid,
};

/// Names of the two in the manifest.
pub const NETWORK: &str = "aasist";
pub const NETWORK_L: &str = "aasist-l";

/// Samples that are judged, at 16 kHz: 4.0375 s.
pub const SAMPLES: usize = 64_600;

/// Inputs that go through all layers together.
const GROUP: usize = 1;
const BN_EPS: f64 = 1e-5;
const FILTERS: usize = 70;
const TAPS: usize = 129;
const RATE: f64 = 16_000.0;
/// Of the largest magnitudes, over filters and over time; and over time behind every block.
const POOL: usize = 3;
/// Rows of what the encoder sees: the pooled filters.
const ROWS: usize = FILTERS / POOL;
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
        let mut shapes = Shapes::new();
        let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
        let channels = self.blocks[5].1;
        let [one, both] = self.widths;
        add("pos_S".to_owned(), &[1, ROWS, channels]);
        add("master1".to_owned(), &[1, 1, one]);
        add("master2".to_owned(), &[1, 1, one]);
        let bn = |add: &mut dyn FnMut(String, &[usize]), name: &str, n: usize| {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(format!("{name}.{part}"), &[n]);
            }
        };
        let dense = |add: &mut dyn FnMut(String, &[usize]), name: &str, n: usize, k: usize| {
            add(format!("{name}.weight"), &[n, k]);
            add(format!("{name}.bias"), &[n]);
        };
        bn(&mut add, "first_bn", 1);
        for (i, (inputs, outputs)) in self.blocks.into_iter().enumerate() {
            let name = format!("encoder.{i}.0");
            bn(&mut add, &format!("{name}.bn2"), outputs);
            add(format!("{name}.conv1.weight"), &[outputs, inputs, 2, 3]);
            add(format!("{name}.conv1.bias"), &[outputs]);
            add(format!("{name}.conv2.weight"), &[outputs, outputs, 2, 3]);
            add(format!("{name}.conv2.bias"), &[outputs]);
            if inputs != outputs {
                add(format!("{name}.conv_downsample.weight"), &[outputs, inputs, 1, 3]);
                add(format!("{name}.conv_downsample.bias"), &[outputs]);
            }
        }
        for name in ["GAT_layer_S", "GAT_layer_T"] {
            add(format!("{name}.att_weight"), &[one, 1]);
            for part in ["att_proj", "proj_with_att", "proj_without_att"] {
                dense(&mut add, &format!("{name}.{part}"), one, channels);
            }
            bn(&mut add, &format!("{name}.bn"), one);
        }
        for (name, k) in [("ST11", one), ("ST12", both), ("ST21", one), ("ST22", both)] {
            let name = format!("HtrgGAT_layer_{name}");
            for part in ["11", "22", "12", "M"] {
                add(format!("{name}.att_weight{part}"), &[both, 1]);
            }
            for part in ["proj_type1", "proj_type2"] {
                dense(&mut add, &format!("{name}.{part}"), k, k);
            }
            for part in ["att_proj", "proj_with_att", "proj_without_att"] {
                dense(&mut add, &format!("{name}.{part}"), both, k);
                dense(&mut add, &format!("{name}.{part}M"), both, k);
            }
            bn(&mut add, &format!("{name}.bn"), both);
        }
        for (name, k) in [("S", one), ("T", one)] {
            dense(&mut add, &format!("pool_{name}.proj"), 1, k);
        }
        for name in ["hS1", "hT1", "hS2", "hT2"] {
            dense(&mut add, &format!("pool_{name}.proj"), 1, both);
        }
        dense(&mut add, "out_layer", 2, 5 * both);
        shapes
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

/// Fits a recording to the network as the authors' evaluation does: its first 64,600 samples, or
/// the whole repeated up to that. `None`: there is no sample.
pub fn fitted(mut wave: Vec<f32>) -> Option<Vec<f32>> {
    let n = wave.len();
    (n > 0).then_some(())?;
    wave.truncate(SAMPLES);
    wave.reserve_exact(SAMPLES - wave.len());
    while wave.len() < SAMPLES {
        let more = (SAMPLES - wave.len()).min(n);
        wave.extend_from_within(..more);
    }
    Some(wave)
}

/// The sinc filters: band-passes between neighbours of 71 frequencies that are evenly spaced in
/// mel from 0 to 8 kHz, under a Hamming window. [70, 129], row by row.
fn sinc_filters() -> Vec<f32> {
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let edge = |i: usize| hz(mel(RATE / 2.0) * i as f64 / FILTERS as f64);
    // The original's sinc is in f32, arguments included; everything else is in f64.
    let sinc = |x: f32| if x == 0.0 { 1.0 } else { (PI as f32 * x).sin() / (PI as f32 * x) };
    let mut filters = Vec::with_capacity(FILTERS * TAPS);
    for i in 0..FILTERS {
        for tap in 0..TAPS {
            let at = tap as f32 - (TAPS / 2) as f32;
            let low_pass =
                |hz: f64| 2.0 * hz / RATE * f64::from(sinc((2.0 * hz) as f32 * at / RATE as f32));
            let ideal = low_pass(edge(i + 1)) - low_pass(edge(i));
            let window = 0.54 - 0.46 * (2.0 * PI * tap as f64 / (TAPS - 1) as f64).cos();
            filters.push(window as f32 * ideal as f32);
        }
    }
    filters
}

fn selu(x: f32) -> f32 {
    const ALPHA: f32 = 1.673_263_2;
    const LAMBDA: f32 = 1.050_701;
    if x > 0.0 { LAMBDA * x } else { LAMBDA * ALPHA * x.exp_m1() }
}

/// A batch norm at work: `x * scale + shift` per channel.
struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Norm {
    fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
        let part = |part: &str| vector(tensors, &format!("{name}.{part}"));
        let (gamma, beta) = (part("weight")?, part("bias")?);
        let (mean, var) = (part("running_mean")?, part("running_var")?);
        let (mut scale, mut shift) = (Vec::new(), Vec::new());
        for (((gamma, beta), mean), var) in gamma.iter().zip(beta).zip(mean).zip(var) {
            let factor = f64::from(*gamma) / (f64::from(var) + BN_EPS).sqrt();
            scale.push(factor as f32);
            shift.push((f64::from(beta) - f64::from(mean) * factor) as f32);
        }
        Ok(Self { scale, shift })
    }

    fn apply(&self, channel: usize, x: f32) -> f32 {
        x * self.scale[channel] + self.shift[channel]
    }
}

/// An encoder block: 2×3 convolution, batch norm, SELU, 2×3 convolution; the input added, through
/// a 1×3 convolution where the channels differ; the maximum of every three columns.
struct Block {
    conv1: Conv2d,
    conv2: Conv2d,
    downsample: Option<Conv2d>,
}

impl Block {
    fn load(tensors: &Tensors, name: &str, same: bool) -> std::result::Result<Self, WeightsError> {
        let config = |rows: usize, activation| ConvConfig {
            padding: Padding { top: rows, bottom: rows, left: 1, right: 1 },
            activation,
            ..ConvConfig::default()
        };
        let get = |part: &str| tensors.get(&format!("{name}.{part}"));
        let conv1 = fold_bn(
            get("conv1.weight")?,
            Some(get("conv1.bias")?),
            get("bn2.weight")?,
            get("bn2.bias")?,
            get("bn2.running_mean")?,
            get("bn2.running_var")?,
            BN_EPS,
        )
        .and_then(|(weight, bias)| Conv2d::new(&weight, Some(&bias), config(1, Activation::Selu)))
        .map_err(|e| tensors.unfit(&format!("{name}.conv1"), &e))?;
        let plain = |part: &str| super::conv(tensors, part, config(0, Activation::None));
        Ok(Self {
            conv1,
            conv2: plain(&format!("{name}.conv2"))?,
            downsample: (!same).then(|| plain(&format!("{name}.conv_downsample"))).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.conv1.forward(x)?;
        let sum = match &self.downsample {
            Some(conv) => self.conv2.forward_add(&inner, &conv.forward(x)?)?,
            None => self.conv2.forward_add(&inner, x)?,
        };
        max_pool_columns(&sum, POOL)
    }
}

/// The nodes of a graph, one a row.
#[derive(Clone)]
struct Nodes {
    values: Vec<f32>,
    width: usize,
}

impl Nodes {
    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Element by element.
    fn with(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| f(*a, *b)).collect();
        Self { values, width: self.width }
    }

    fn plus(&self, other: &Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    fn max(&self, other: &Self) -> Self {
        self.with(other, f32::max)
    }

    /// A row of `f` over the column's values, for each column.
    fn columns(&self, start: f32, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let mut made = vec![start; self.width];
        for row in self.rows() {
            made.iter_mut().zip(row).for_each(|(m, v)| *m = f(*m, *v));
        }
        made
    }

    /// Rows before `n` and the others.
    fn split(&self, n: usize) -> (Self, Self) {
        let (first, second) = self.values.split_at(n * self.width);
        let made = |values: &[f32]| Self { values: values.to_vec(), width: self.width };
        (made(first), made(second))
    }
}

/// A linear layer over nodes.
struct Dense {
    linear: Linear,
    outputs: usize,
}

impl Dense {
    fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
        let weight = tensors.get(&format!("{name}.weight"))?;
        let bias = tensors.get(&format!("{name}.bias"))?;
        Linear::new(weight, Some(bias), Activation::None)
            .and_then(|linear| Ok(Self { linear, outputs: weight.dim(0)? }))
            .map_err(|e| tensors.unfit(name, &e))
    }

    fn forward(&self, x: Nodes) -> Result<Nodes> {
        let shape = (x.len(), x.width);
        let x = Tensor::from_vec(x.values, shape, &Device::Cpu)?;
        let values = self.linear.forward(&x)?.flatten_all()?.to_vec1()?;
        Ok(Nodes { values, width: self.outputs })
    }
}

fn vector(tensors: &Tensors, name: &str) -> std::result::Result<Vec<f32>, WeightsError> {
    let values = tensors.get(name)?.flatten_all().and_then(|t| t.to_vec1());
    values.map_err(|e| tensors.unfit(name, &e))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// In place, over the whole slice.
fn softmax(values: &mut [f32]) {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|v| *v = (*v - most).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
}

/// Every row of `map` weighs the nodes; their weighted sums, one a row of `map`.
fn gather(map: &[f32], x: &Nodes) -> Nodes {
    let mut values = Vec::with_capacity(map.len() / x.len() * x.width);
    for weights in map.chunks_exact(x.len()) {
        let mut sum = vec![0.0f32; x.width];
        for (weight, row) in weights.iter().zip(x.rows()) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
        }
        values.extend(sum);
    }
    Nodes { values, width: x.width }
}

/// Attention of every node to every node of a graph, then batch norm and SELU.
struct Attention {
    att_proj: Dense,
    with_att: Dense,
    without_att: Dense,
    norm: Norm,
    temperature: f32,
}

impl Attention {
    fn load(
        tensors: &Tensors,
        name: &str,
        temperature: f32,
    ) -> std::result::Result<Self, WeightsError> {
        let dense = |part: &str| Dense::load(tensors, &format!("{name}.{part}"));
        Ok(Self {
            att_proj: dense("att_proj")?,
            with_att: dense("proj_with_att")?,
            without_att: dense("proj_without_att")?,
            norm: Norm::load(tensors, &format!("{name}.bn"))?,
            temperature,
        })
    }

    /// `weight` gives the vector that turns what two nodes share into one number.
    fn forward<'a>(&self, x: &Nodes, weight: impl Fn(usize, usize) -> &'a [f32]) -> Result<Nodes> {
        let n = x.len();
        let mut pairs = Vec::with_capacity(n * n * x.width);
        for a in x.rows() {
            for b in x.rows() {
                pairs.extend(a.iter().zip(b).map(|(a, b)| a * b));
            }
        }
        let mut shared = self.att_proj.forward(Nodes { values: pairs, width: x.width })?;
        shared.values.iter_mut().for_each(|v| *v = v.tanh());
        let mut map = Vec::with_capacity(n * n);
        for (pair, row) in shared.rows().enumerate() {
            map.push(dot(row, weight(pair / n, pair % n)) / self.temperature);
        }
        map.chunks_exact_mut(n).for_each(softmax);
        let near = self.with_att.forward(gather(&map, x))?;
        let mut made = near.plus(&self.without_att.forward(x.clone())?);
        for row in made.values.chunks_exact_mut(made.width) {
            row.iter_mut().enumerate().for_each(|(c, v)| *v = selu(self.norm.apply(c, *v)));
        }
        Ok(made)
    }
}

/// Attention within one view.
struct OneView {
    attention: Attention,
    weight: Vec<f32>,
}

impl OneView {
    fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
        Ok(Self {
            attention: Attention::load(tensors, name, TEMPERATURE)?,
            weight: vector(tensors, &format!("{name}.att_weight"))?,
        })
    }

    fn forward(&self, x: &Nodes) -> Result<Nodes> {
        self.attention.forward(x, |_, _| &self.weight)
    }
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

/// Keeps the share `keep` of the nodes that score highest, the best first, each times its score.
/// The order matters: nodes of two graphs are compared place by place later on.
struct Pool {
    proj: Dense,
    keep: f64,
}

impl Pool {
    fn load(tensors: &Tensors, name: &str, keep: f64) -> std::result::Result<Self, WeightsError> {
        Ok(Self { proj: Dense::load(tensors, &format!("{name}.proj"))?, keep })
    }

    fn forward(&self, x: &Nodes) -> Result<Nodes> {
        let scores = self.proj.forward(x.clone())?.values;
        let scores: Vec<f32> = scores.into_iter().map(sigmoid).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(((x.len() as f64 * self.keep) as usize).max(1));
        let rows = order.iter().flat_map(|i| x.row(*i).iter().map(|v| v * scores[*i]));
        Ok(Nodes { values: rows.collect(), width: x.width })
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
    filters: Conv2d,
    first_norm: Norm,
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
        let filters = Tensor::from_vec(sinc_filters(), (FILTERS, 1, 1, TAPS), &Device::Cpu)
            .and_then(|filters| Conv2d::new(&filters, None, ConvConfig::default()))
            .map_err(|e| tensors.unfit("conv_time", &e))?;
        let blocks = variant.blocks.iter().enumerate();
        let [keep_spectral, keep_temporal, keep_both] = variant.keep;
        Ok(Self {
            filters,
            first_norm: Norm::load(tensors, "first_bn")?,
            blocks: blocks
                .map(|(i, (a, b))| Block::load(tensors, &format!("encoder.{i}.0"), a == b))
                .collect::<std::result::Result<_, _>>()?,
            position: vector(tensors, "pos_S")?,
            spectral: OneView::load(tensors, "GAT_layer_S")?,
            temporal: OneView::load(tensors, "GAT_layer_T")?,
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
        if let Some(other) = windows.iter().find(|w| w.len() != SAMPLES) {
            bail!("aasist: expected windows of {SAMPLES} samples, got {}", other.len());
        }
        let shape = (windows.len(), 1, SAMPLES, 1);
        let x = Tensor::from_vec(windows.concat(), shape, &Device::Cpu)?;
        in_groups(&x, GROUP, |x| (0..x.dim(0)?).map(|i| self.window(&x.narrow(0, i, 1)?)).collect())
    }

    /// [1, 1, 64600, 1] → two logits.
    fn window(&self, x: &Tensor) -> Result<[f32; 2]> {
        let mut e = self.magnitudes(&self.filters.forward(x)?)?;
        for block in &self.blocks {
            e = block.forward(&e)?;
        }
        let (_, rows, columns, channels) = e.dims4()?;
        let e: Vec<f32> = e.flatten_all()?.to_vec1()?;
        let mut spectral = Nodes { values: vec![0.0; rows * channels], width: channels };
        let mut temporal = Nodes { values: vec![0.0; columns * channels], width: channels };
        for (i, pixel) in e.chunks_exact(channels).enumerate() {
            let (row, column) = (i / columns, i % columns);
            let row = &mut spectral.values[row * channels..][..channels];
            row.iter_mut().zip(pixel).for_each(|(most, v)| *most = most.max(v.abs()));
            let column = &mut temporal.values[column * channels..][..channels];
            column.iter_mut().zip(pixel).for_each(|(most, v)| *most = most.max(v.abs()));
        }
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

    /// What the filters gave, [1, 1, frames, 70] → the largest magnitudes of three filters over
    /// three samples, through batch norm and SELU, [1, 23, frames / 3, 1].
    fn magnitudes(&self, filtered: &Tensor) -> Result<Tensor> {
        let columns = filtered.dim(2)? / POOL;
        let filtered: Vec<f32> = filtered.flatten_all()?.to_vec1()?;
        let mut picture = vec![0.0f32; ROWS * columns];
        for (column, frames) in filtered.chunks_exact(POOL * FILTERS).enumerate() {
            for row in 0..ROWS {
                let mut most = 0.0f32;
                for frame in frames.chunks_exact(FILTERS) {
                    for v in &frame[row * POOL..(row + 1) * POOL] {
                        most = most.max(v.abs());
                    }
                }
                picture[row * columns + column] = selu(self.first_norm.apply(0, most));
            }
        }
        Tensor::from_vec(picture, (1, ROWS, columns, 1), &Device::Cpu)
    }
}
