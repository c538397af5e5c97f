//! What the networks over raw waves share, AASIST and RawGAT-ST: sinc filters, encoder blocks, and
//! attention over the nodes of graphs. Their papers and origins are in their own files.
//!
//! Two things are as in their authors' programs and not as in their papers: the first batch norm of
//! an encoder block and the activation behind it are without effect (hence `bn1` is not loaded), and
//! the sinc filters are computed, not loaded.

use std::f64::consts::PI;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Shapes;
use super::weights::{Tensors, WeightsError};
use crate::nn::{
    Activation, Conv2d, ConvConfig, Linear, Padding, fold_bn, max_pool_columns, sigmoid,
};

/// Samples that are judged, at 16 kHz: 4.0375 s.
pub const SAMPLES: usize = 64_600;

/// Rows of what the encoder sees: the pooled filters.
pub(super) const ROWS: usize = FILTERS / POOL;
const BN_EPS: f64 = 1e-5;
const FILTERS: usize = 70;
const TAPS: usize = 129;
const RATE: f64 = 16_000.0;
/// Of the largest magnitudes, over filters and over time; and over time behind every block.
const POOL: usize = 3;

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

/// [windows, 1, 64600, 1].
pub(super) fn stacked(network: &str, windows: &[&[f32]]) -> Result<Tensor> {
    if let Some(other) = windows.iter().find(|w| w.len() != SAMPLES) {
        bail!("{network}: expected windows of {SAMPLES} samples, got {}", other.len());
    }
    Tensor::from_vec(windows.concat(), (windows.len(), 1, SAMPLES, 1), &Device::Cpu)
}

/// Names and shapes of a weights file.
#[derive(Default)]
pub(super) struct Listed(pub(super) Shapes);

impl Listed {
    pub(super) fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push((name.to_owned(), shape.to_vec()));
    }

    pub(super) fn norm(&mut self, name: &str, n: usize) {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.add(&format!("{name}.{part}"), &[n]);
        }
    }

    pub(super) fn dense(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.add(&format!("{name}.weight"), &[outputs, inputs]);
        self.add(&format!("{name}.bias"), &[outputs]);
    }

    /// See [`Block::load`].
    pub(super) fn block(
        &mut self,
        name: &str,
        first: &str,
        (inputs, outputs): (usize, usize),
        sides: Sides,
    ) {
        let mut conv = |part: &str, shape: [usize; 4]| {
            self.add(&format!("{name}.{part}.weight"), &shape);
            self.add(&format!("{name}.{part}.bias"), &shape[..1]);
        };
        conv(first, [outputs, inputs, 2, 3]);
        conv("conv2", [outputs, outputs, 2, 3]);
        if sides == Sides::Convolved {
            conv("conv_downsample", [outputs, inputs, 1, 3]);
        }
        self.norm(&format!("{name}.bn2"), outputs);
    }

    /// See [`OneView::load`].
    pub(super) fn one_view(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.add(&format!("{name}.att_weight"), &[outputs, 1]);
        for part in ["att_proj", "proj_with_att", "proj_without_att"] {
            self.dense(&format!("{name}.{part}"), outputs, inputs);
        }
        self.norm(&format!("{name}.bn"), outputs);
    }
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
pub(super) struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Norm {
    pub(super) fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
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

    pub(super) fn apply(&self, channel: usize, x: f32) -> f32 {
        x * self.scale[channel] + self.shift[channel]
    }
}

/// The sinc filters and what follows them.
pub(super) struct Filters {
    conv: Conv2d,
    norm: Norm,
}

impl Filters {
    pub(super) fn load(tensors: &Tensors) -> std::result::Result<Self, WeightsError> {
        let conv = Tensor::from_vec(sinc_filters(), (FILTERS, 1, 1, TAPS), &Device::Cpu)
            .and_then(|filters| Conv2d::new(&filters, None, ConvConfig::default()))
            .map_err(|e| tensors.unfit("conv_time", &e))?;
        Ok(Self { conv, norm: Norm::load(tensors, "first_bn")? })
    }

    /// [1, 1, samples, 1] → the largest magnitudes of three filters over three samples, through
    /// batch norm and SELU, [1, 23, (samples - 128) / 3, 1].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let filtered = self.conv.forward(x)?;
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
                picture[row * columns + column] = selu(self.norm.apply(0, most));
            }
        }
        Tensor::from_vec(picture, (1, ROWS, columns, 1), &Device::Cpu)
    }
}

/// What is added to what an encoder block made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    /// The input.
    Same,
    /// The input through a 1×3 convolution, because the channels differ.
    Convolved,
    /// The only channel of the input, to this many channels alike.
    Spread(usize),
}

impl Sides {
    /// For channels in and out.
    pub(super) fn of((inputs, outputs): (usize, usize)) -> Self {
        if inputs == outputs { Self::Same } else { Self::Convolved }
    }
}

/// An encoder block: 2×3 convolution, batch norm, SELU, 2×3 convolution; the input added; the
/// maximum of every three columns.
pub(super) struct Block {
    conv1: Conv2d,
    conv2: Conv2d,
    aside: Option<Conv2d>,
}

impl Block {
    /// `first` is what the authors call the block's first convolution.
    pub(super) fn load(
        tensors: &Tensors,
        name: &str,
        first: &str,
        sides: Sides,
    ) -> std::result::Result<Self, WeightsError> {
        let config = |rows: usize, activation| ConvConfig {
            padding: Padding { top: rows, bottom: rows, left: 1, right: 1 },
            activation,
            ..ConvConfig::default()
        };
        let get = |part: &str| tensors.get(&format!("{name}.{part}"));
        let conv1 = fold_bn(
            get(&format!("{first}.weight"))?,
            Some(get(&format!("{first}.bias"))?),
            get("bn2.weight")?,
            get("bn2.bias")?,
            get("bn2.running_mean")?,
            get("bn2.running_var")?,
            BN_EPS,
        )
        .and_then(|(weight, bias)| Conv2d::new(&weight, Some(&bias), config(1, Activation::Selu)))
        .map_err(|e| tensors.unfit(&format!("{name}.{first}"), &e))?;
        let plain = |part: &str| {
            super::conv(tensors, &format!("{name}.{part}"), config(0, Activation::None))
        };
        let aside = match sides {
            Sides::Same => None,
            Sides::Convolved => Some(plain("conv_downsample")?),
            Sides::Spread(channels) => {
                let ones = Tensor::ones((channels, 1, 1, 1), DType::F32, &Device::Cpu)
                    .and_then(|ones| Conv2d::new(&ones, None, ConvConfig::default()));
                Some(ones.map_err(|e| tensors.unfit(name, &e))?)
            }
        };
        Ok(Self { conv1, conv2: plain("conv2")?, aside })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.conv1.forward(x)?;
        let sum = match &self.aside {
            Some(conv) => self.conv2.forward_add(&inner, &conv.forward(x)?)?,
            None => self.conv2.forward_add(&inner, x)?,
        };
        max_pool_columns(&sum, POOL)
    }
}

/// [1, rows, columns, channels] → the largest magnitude of each row, a node a row.
pub(super) fn largest_of_rows(e: &Tensor) -> Result<Nodes> {
    let (_, rows, columns, _) = e.dims4()?;
    largest(e, rows, |pixel| pixel / columns)
}

/// [1, rows, columns, channels] → the largest magnitude of each column, a node a column.
pub(super) fn largest_of_columns(e: &Tensor) -> Result<Nodes> {
    let (_, _, columns, _) = e.dims4()?;
    largest(e, columns, |pixel| pixel % columns)
}

fn largest(e: &Tensor, nodes: usize, node: impl Fn(usize) -> usize) -> Result<Nodes> {
    let width = e.dim(3)?;
    let e: Vec<f32> = e.flatten_all()?.to_vec1()?;
    let mut values = vec![0.0f32; nodes * width];
    for (i, pixel) in e.chunks_exact(width).enumerate() {
        let most = &mut values[node(i) * width..][..width];
        most.iter_mut().zip(pixel).for_each(|(most, v)| *most = most.max(v.abs()));
    }
    Ok(Nodes { values, width })
}

/// The nodes of a graph, one a row.
#[derive(Clone)]
pub(super) struct Nodes {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Nodes {
    pub(super) fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Element by element.
    pub(super) fn with(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| f(*a, *b)).collect();
        Self { values, width: self.width }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    pub(super) fn max(&self, other: &Self) -> Self {
        self.with(other, f32::max)
    }

    /// A row of `f` over the column's values, for each column.
    pub(super) fn columns(&self, start: f32, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let mut made = vec![start; self.width];
        for row in self.rows() {
            made.iter_mut().zip(row).for_each(|(m, v)| *m = f(*m, *v));
        }
        made
    }

    /// Features as rows, nodes as columns.
    pub(super) fn transposed(&self) -> Self {
        let column = |c: usize| self.values.iter().skip(c).step_by(self.width).copied();
        Self { values: (0..self.width).flat_map(column).collect(), width: self.len() }
    }

    /// Rows before `n` and the others.
    pub(super) fn split(&self, n: usize) -> (Self, Self) {
        let (first, second) = self.values.split_at(n * self.width);
        let made = |values: &[f32]| Self { values: values.to_vec(), width: self.width };
        (made(first), made(second))
    }
}

/// A linear layer over nodes.
pub(super) struct Dense {
    linear: Linear,
    outputs: usize,
}

impl Dense {
    pub(super) fn load(tensors: &Tensors, name: &str) -> std::result::Result<Self, WeightsError> {
        let weight = tensors.get(&format!("{name}.weight"))?;
        let bias = tensors.get(&format!("{name}.bias"))?;
        Linear::new(weight, Some(bias), Activation::None)
            .and_then(|linear| Ok(Self { linear, outputs: weight.dim(0)? }))
            .map_err(|e| tensors.unfit(name, &e))
    }

    pub(super) fn forward(&self, x: Nodes) -> Result<Nodes> {
        let shape = (x.len(), x.width);
        let x = Tensor::from_vec(x.values, shape, &Device::Cpu)?;
        let values = self.linear.forward(&x)?.flatten_all()?.to_vec1()?;
        Ok(Nodes { values, width: self.outputs })
    }
}

pub(super) fn vector(tensors: &Tensors, name: &str) -> std::result::Result<Vec<f32>, WeightsError> {
    let values = tensors.get(name)?.flatten_all().and_then(|t| t.to_vec1());
    values.map_err(|e| tensors.unfit(name, &e))
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// In place, over the whole slice.
pub(super) fn softmax(values: &mut [f32]) {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|v| *v = (*v - most).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
}

/// Every row of `map` weighs the nodes; their weighted sums, one a row of `map`.
pub(super) fn gather(map: &[f32], x: &Nodes) -> Nodes {
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
pub(super) struct Attention {
    att_proj: Dense,
    with_att: Dense,
    without_att: Dense,
    norm: Norm,
    temperature: f32,
}

impl Attention {
    pub(super) fn load(
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
    pub(super) fn forward<'a>(
        &self,
        x: &Nodes,
        weight: impl Fn(usize, usize) -> &'a [f32],
    ) -> Result<Nodes> {
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
pub(super) struct OneView {
    attention: Attention,
    weight: Vec<f32>,
}

impl OneView {
    pub(super) fn load(
        tensors: &Tensors,
        name: &str,
        temperature: f32,
    ) -> std::result::Result<Self, WeightsError> {
        Ok(Self {
            attention: Attention::load(tensors, name, temperature)?,
            weight: vector(tensors, &format!("{name}.att_weight"))?,
        })
    }

    pub(super) fn forward(&self, x: &Nodes) -> Result<Nodes> {
        self.attention.forward(x, |_, _| &self.weight)
    }
}

/// Keeps the share `keep` of the nodes that score highest, the best first, each times its score.
/// The order matters: nodes of two graphs are compared place by place later on.
pub(super) struct Pool {
    proj: Dense,
    keep: f64,
}

impl Pool {
    pub(super) fn load(
        tensors: &Tensors,
        name: &str,
        keep: f64,
    ) -> std::result::Result<Self, WeightsError> {
        Ok(Self { proj: Dense::load(tensors, &format!("{name}.proj"))?, keep })
    }

    pub(super) fn forward(&self, x: &Nodes) -> Result<Nodes> {
        let scores = self.proj.forward(x.clone())?.values;
        let scores: Vec<f32> = scores.into_iter().map(sigmoid).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(((x.len() as f64 * self.keep) as usize).max(1));
        let rows = order.iter().flat_map(|i| x.row(*i).iter().map(|v| v * scores[*i]));
        Ok(Nodes { values: rows.collect(), width: x.width })
    }
}
