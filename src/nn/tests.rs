//! Every operation against a naive f64 reference, over random shapes.

use candle_core::{Device, Tensor};

use super::*;

#[path = "../../tests/common/random.rs"]
pub(super) mod random;
use random::{ACTIVATIONS, Random, apply};

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    values(t).into_iter().map(f32::to_bits).collect()
}

fn assert_close(what: &str, got: &Tensor, want: &[f64]) {
    let got = values(got);
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*g) - w).abs();
        assert!(off <= 2e-5 * (1.0 + w.abs()), "{what}: value {i} is {g}, expected {w}");
    }
}

/// Convolution by its definition.
fn reference(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    config: ConvConfig,
) -> (Vec<usize>, Vec<f64>) {
    let (n, h, w, c) = x.dims4().unwrap();
    let (out, per_group, kh, kw) = weight.dims4().unwrap();
    let p = config.padding;
    let out_h = (h + p.top + p.bottom - kh) / config.stride.0 + 1;
    let out_w = (w + p.left + p.right - kw) / config.stride.1 + 1;
    let (xs, ws) = (values(x), values(weight));
    let bias = bias.map(values);
    let residual = residual.map(values);
    let mut y = Vec::new();
    for i in 0..n {
        for oy in 0..out_h {
            for ox in 0..out_w {
                for o in 0..out {
                    let group = o / (out / config.groups);
                    let mut sum = bias.as_ref().map_or(0.0, |b| f64::from(b[o]));
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy = (oy * config.stride.0 + ky).wrapping_sub(p.top);
                            let ix = (ox * config.stride.1 + kx).wrapping_sub(p.left);
                            if iy >= h || ix >= w {
                                continue;
                            }
                            for j in 0..per_group {
                                let a = xs[((i * h + iy) * w + ix) * c + group * per_group + j];
                                let b = ws[((o * per_group + j) * kh + ky) * kw + kx];
                                sum += f64::from(a) * f64::from(b);
                            }
                        }
                    }
                    if let Some(r) = &residual {
                        sum += f64::from(r[y.len()]);
                    }
                    y.push(apply(config.activation, sum));
                }
            }
        }
    }
    (vec![n, out_h, out_w, out], y)
}

fn check_conv(random: &mut Random, kernel: [usize; 2], channels: usize, depthwise: bool) {
    let [kh, kw] = kernel;
    let out = if depthwise { channels } else { 1 + random.below(70) };
    let config = ConvConfig {
        stride: (random.pick(&[1, 2]), random.pick(&[1, 2, 3])),
        padding: Padding {
            top: random.below(3),
            bottom: random.below(3),
            left: random.below(4),
            right: random.below(3),
        },
        groups: if depthwise { channels } else { 1 },
        activation: random.pick(&ACTIVATIONS),
        precision: Precision::F32,
    };
    let n = random.pick(&[1, 1, 2, 3, 5]);
    let (h, w) = (kh + random.below(12), kw + random.below(30));
    let x = random.tensor(&[n, h, w, channels]);
    let weight = random.tensor(&[out, if depthwise { 1 } else { channels }, kh, kw]);
    let bias = (random.below(3) > 0).then(|| random.tensor(&[out]));
    let (shape, _) = reference(&x, &weight, None, None, config);
    let residual = (random.below(2) > 0).then(|| random.tensor(&shape));
    let (_, want) = reference(&x, &weight, bias.as_ref(), residual.as_ref(), config);
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
        if !isa.is_available() {
            println!("{isa:?} is not available here");
            continue;
        }
        let conv = Conv2d::with_isa(&weight, bias.as_ref(), config, isa).unwrap();
        let got = match &residual {
            Some(r) => conv.forward_add(&x, r).unwrap(),
            None => conv.forward(&x).unwrap(),
        };
        assert_eq!(got.dims(), shape);
        let what = format!("{isa:?} {config:?} {:?} by {:?}", x.dims(), weight.dims());
        assert_close(&what, &got, &want);
    }
}

#[test]
fn standard_convolutions_match_the_reference() {
    let mut random = Random(1);
    for _ in 0..40 {
        let kernel = [random.pick(&[1, 2, 3, 5]), random.pick(&[1, 3, 4, 7])];
        let channels = random.pick(&[1, 2, 3, 5, 16, 19]);
        check_conv(&mut random, kernel, channels, false);
    }
}

#[test]
fn pointwise_convolutions_match_the_reference() {
    let mut random = Random(2);
    for _ in 0..60 {
        let (n, h, w) = (1 + random.below(3), 1 + random.below(9), 1 + random.below(20));
        let (k, out) = (1 + random.below(130), 1 + random.below(130));
        let config = ConvConfig { activation: random.pick(&ACTIVATIONS), ..ConvConfig::default() };
        let x = random.tensor(&[n, h, w, k]);
        let weight = random.tensor(&[out, k, 1, 1]);
        let bias = random.tensor(&[out]);
        let residual = random.tensor(&[n, h, w, out]);
        let (_, want) = reference(&x, &weight, Some(&bias), Some(&residual), config);
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if isa.is_available() {
                let conv = Conv2d::with_isa(&weight, Some(&bias), config, isa).unwrap();
                let got = conv.forward_add(&x, &residual).unwrap();
                assert_close(&format!("{isa:?} [{n}, {h}, {w}, {k}] to {out}"), &got, &want);
            }
        }
    }
}

#[test]
fn depthwise_convolutions_match_the_reference() {
    let mut random = Random(3);
    for _ in 0..60 {
        let k = random.pick(&[[3, 3], [3, 3], [5, 5], [1, 4], [7, 2]]);
        let channels = random.pick(&[2, 3, 4, 8, 15, 16, 17, 24, 33, 96]);
        check_conv(&mut random, k, channels, true);
    }
}

#[test]
fn kernels_wider_than_the_picture_meet_only_zeros_outside() {
    let mut random = Random(4);
    for depthwise in [false, true] {
        let config = ConvConfig {
            padding: Padding::all(3),
            groups: if depthwise { 5 } else { 1 },
            ..ConvConfig::default()
        };
        let x = random.tensor(&[2, 1, 2, 5]);
        let weight = random.tensor(&[5, if depthwise { 1 } else { 5 }, 7, 5]);
        let (_, want) = reference(&x, &weight, None, None, config);
        let conv = Conv2d::new(&weight, None, config).unwrap();
        assert_close("wide kernel", &conv.forward(&x).unwrap(), &want);
    }
}

/// A block with random layers, one that fits behind the other.
struct Block {
    expand: Option<(Tensor, Tensor, ConvConfig)>,
    depthwise: (Tensor, Tensor, ConvConfig),
    project: Option<(Tensor, Tensor, ConvConfig)>,
    residual: bool,
    x: Tensor,
}

impl Block {
    fn new(random: &mut Random, size: [usize; 3], precision: Precision) -> Self {
        let [n, h, w] = size;
        // Also as many as a padded pixel has room for.
        let inputs =
            if random.below(3) == 0 { 16 + 32 * random.below(2) } else { 1 + random.below(40) };
        let expand = random.below(4) > 0;
        let inner = if expand { 1 + random.below(130) } else { inputs };
        let residual = random.below(2) == 0;
        let k = random.pick(&[3, 5]);
        let stride = if residual { 1 } else { random.pick(&[1, 2]) };
        let project = residual || random.below(4) > 0;
        let outputs = if residual { inputs } else { 1 + random.below(50) };
        let pointwise = |random: &mut Random, from, to| {
            let config = ConvConfig {
                activation: random.pick(&ACTIVATIONS),
                precision,
                ..ConvConfig::default()
            };
            (random.tensor(&[to, from, 1, 1]), random.tensor(&[to]), config)
        };
        let config = ConvConfig {
            stride: (stride, stride),
            padding: Padding::all(k / 2),
            groups: inner,
            activation: random.pick(&ACTIVATIONS),
            ..ConvConfig::default()
        };
        Self {
            expand: expand.then(|| pointwise(random, inputs, inner)),
            depthwise: (random.tensor(&[inner, 1, k, k]), random.tensor(&[inner]), config),
            project: project.then(|| pointwise(random, inner, outputs)),
            residual,
            x: random.tensor(&[n, h, w, inputs]),
        }
    }

    fn layers(&self, isa: Isa) -> (Option<Conv2d>, Conv2d, Option<Conv2d>) {
        let conv = |(weight, bias, config): &(Tensor, Tensor, ConvConfig)| {
            Conv2d::with_isa(weight, Some(bias), *config, isa).unwrap()
        };
        (self.expand.as_ref().map(conv), conv(&self.depthwise), self.project.as_ref().map(conv))
    }

    fn fused(&self, isa: Isa) -> Tensor {
        let (expand, depthwise, project) = self.layers(isa);
        Separable::new(expand, depthwise, project, self.residual).unwrap().forward(&self.x).unwrap()
    }

    fn layer_by_layer(&self, isa: Isa) -> Tensor {
        let (expand, depthwise, project) = self.layers(isa);
        let x = expand.map_or_else(|| self.x.clone(), |conv| conv.forward(&self.x).unwrap());
        let x = depthwise.forward(&x).unwrap();
        match project {
            Some(project) if self.residual => project.forward_add(&x, &self.x).unwrap(),
            Some(project) => project.forward(&x).unwrap(),
            None => x,
        }
    }

    fn reference(&self) -> Vec<f64> {
        let run = |x: &Tensor, (weight, bias, config): &(Tensor, Tensor, ConvConfig), r| {
            reference(x, weight, Some(bias), r, *config)
        };
        let tensor = |(shape, values): (Vec<usize>, Vec<f64>)| {
            let values = values.into_iter().map(|v| v as f32).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let x =
            self.expand.as_ref().map_or_else(|| self.x.clone(), |l| tensor(run(&self.x, l, None)));
        let x = run(&x, &self.depthwise, None);
        let Some(project) = &self.project else { return x.1 };
        run(&tensor(x), project, self.residual.then_some(&self.x)).1
    }
}

/// Small pictures are taken whole, some channels at a time, large ones in stripes of rows.
#[test]
fn fused_blocks_match_the_reference_and_their_layers_to_the_bit() {
    let mut random = Random(13);
    let mut teams = Vec::new();
    for threads in [1, 2, 5] {
        teams.push(team::Team::new(threads));
    }
    for i in 0..60 {
        let size = if i % 3 == 0 {
            [1 + random.below(2), 25 + random.below(40), 25 + random.below(60)]
        } else {
            [1 + random.below(4), 5 + random.below(14), 5 + random.below(14)]
        };
        let block = Block::new(&mut random, size, Precision::F32);
        let want = block.reference();
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if !isa.is_available() {
                continue;
            }
            for team in &teams {
                let (fused, layers) = team.lead(|_| (block.fused(isa), block.layer_by_layer(isa)));
                let got = values(&fused);
                assert_eq!(got.len(), want.len());
                let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                for (g, w) in got.iter().zip(&want) {
                    assert!((f64::from(*g) - w).abs() < 1e-4 * scale, "{i} {isa:?}: {g} {w}");
                }
                assert_eq!(bits(&fused), bits(&layers), "{i} {isa:?}");
                assert_eq!(bits(&fused), bits(&team::alone(|| block.fused(isa))), "{i} {isa:?}");
            }
        }
    }
}

#[test]
fn bf16_is_near_f32_and_fused_blocks_are_their_layers_to_the_bit() {
    let mut random = Random(14);
    for i in 0..30 {
        let size = [1 + random.below(3), 5 + random.below(40), 5 + random.below(40)];
        let block = Block::new(&mut random, size, Precision::Bf16);
        let want = block.reference();
        let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if !isa.is_available() {
                continue;
            }
            let fused = block.fused(isa);
            assert_eq!(bits(&fused), bits(&block.layer_by_layer(isa)), "{i} {isa:?}");
            let mut off = 0.0;
            let got = values(&fused);
            for (g, w) in got.iter().zip(&want) {
                off += (f64::from(*g) - w).powi(2);
            }
            let off = (off / got.len() as f64).sqrt() / scale;
            // 8 bits of significand: a rounding is off by 2^-9 at most, sums of them by less than
            // their number.
            assert!(off < 2e-2, "{i} {isa:?}: off by {off} of {scale}");
            let products = block.expand.is_some() || block.project.is_some();
            assert_eq!(off > 1e-5, products, "{i} {isa:?}: off by {off}, not rounded?");
        }
    }
}

/// Which instruction does it must not matter: both round to nearest even and add in the same order
/// but for the last bits.
#[test]
fn the_bf16_instructions_give_what_their_definition_says() {
    if !Isa::Avx512Bf16.is_available() {
        eprintln!("skipped: this machine has no AVX512-BF16");
        return;
    }
    let mut random = Random(15);
    for _ in 0..20 {
        let (rows, k, out) = (1 + random.below(30), 1 + random.below(90), 1 + random.below(70));
        let config = ConvConfig { precision: Precision::Bf16, ..ConvConfig::default() };
        let weight = random.tensor(&[out, k, 1, 1]);
        let x = random.tensor(&[1, 1, rows, k]);
        let run = |isa| Conv2d::with_isa(&weight, None, config, isa).unwrap().forward(&x).unwrap();
        let (fast, plain) = (values(&run(Isa::Avx512)), values(&run(Isa::Portable)));
        for (f, p) in fast.iter().zip(&plain) {
            assert!((f - p).abs() < 1e-5 * k as f32, "{f} {p}");
        }
    }
}

#[test]
fn a_pool_behind_a_block_is_the_pool_to_the_bit() {
    let mut random = Random(17);
    let teams = [team::Team::new(1), team::Team::new(3)];
    for i in 0..20 {
        let size = [1 + random.below(2), 7 + random.below(90), 7 + random.below(60)];
        let mut block = Block::new(&mut random, size, Precision::F32);
        (block.project, block.residual) = (None, false);
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if !isa.is_available() {
                continue;
            }
            let (expand, depthwise, _) = block.layers(isa);
            let pooled = Separable::new(expand, depthwise, None, false).unwrap();
            let pooled = pooled.with_max_pool().unwrap();
            for team in &teams {
                let got = team.lead(|_| pooled.forward(&block.x).unwrap());
                let want = max_pool_2x2(&block.layer_by_layer(isa)).unwrap();
                assert_eq!((got.dims(), bits(&got)), (want.dims(), bits(&want)), "{i} {isa:?}");
            }
        }
    }
}

#[test]
fn layers_that_do_not_make_a_block_are_errors() {
    let mut random = Random(16);
    let mut conv = |shape: [usize; 4], groups| {
        let config =
            ConvConfig { groups, padding: Padding::all(shape[2] / 2), ..Default::default() };
        Conv2d::new(&random.tensor(&shape), None, config).unwrap()
    };
    let says = |block: Result<Separable>, words: &str| {
        let text = block.err().unwrap().to_string();
        assert!(text.contains("separable") && text.contains(words), "{text}");
    };
    says(Separable::new(None, conv([4, 4, 1, 1], 1), None, false), "not depthwise");
    let (three, depthwise) = (conv([8, 4, 3, 3], 1), conv([8, 1, 3, 3], 8));
    says(Separable::new(Some(three), depthwise, None, false), "not pointwise");
    let (expand, depthwise) = (conv([6, 4, 1, 1], 1), conv([8, 1, 3, 3], 8));
    says(Separable::new(Some(expand), depthwise, None, false), "6 channels");
    let (depthwise, project) = (conv([8, 1, 3, 3], 8), conv([4, 6, 1, 1], 1));
    says(Separable::new(None, depthwise, Some(project), false), "8 channels");
    let (depthwise, project) = (conv([8, 1, 3, 3], 8), conv([4, 8, 1, 1], 1));
    says(Separable::new(None, depthwise, Some(project), true), "residual");
    let (depthwise, project) = (conv([8, 1, 3, 3], 8), conv([4, 8, 1, 1], 1));
    let block = Separable::new(None, depthwise, Some(project), false).unwrap();
    says(block.with_max_pool(), "no pooling");
    let isas = [Isa::Portable, Isa::best()];
    if isas[0].lanes() != isas[1].lanes() {
        let make = |isa, shape: [usize; 4], groups| {
            let config = ConvConfig { groups, ..Default::default() };
            Conv2d::with_isa(&Random(18).tensor(&shape), None, config, isa).unwrap()
        };
        let (expand, depthwise) = (make(isas[1], [8, 4, 1, 1], 1), make(isas[0], [8, 1, 3, 3], 8));
        says(Separable::new(Some(expand), depthwise, None, false), "vectors");
    }
    let block = Separable::new(None, conv([8, 1, 3, 3], 8), None, false).unwrap();
    let text = block.forward(&random.tensor(&[1, 5, 5, 4])).unwrap_err().to_string();
    assert!(text.contains("[1, 5, 5, 4]"), "{text}");
}

#[test]
fn pools_match_the_reference() {
    let mut random = Random(5);
    for _ in 0..20 {
        let (n, h, w, c) =
            (1 + random.below(3), 2 + random.below(9), 2 + random.below(9), 1 + random.below(40));
        let x = random.tensor(&[n, h, w, c]);
        let xs = values(&x);
        let at =
            |i: usize, y: usize, z: usize, k: usize| f64::from(xs[((i * h + y) * w + z) * c + k]);
        let mut max = Vec::new();
        for i in 0..n {
            for y in 0..h / 2 {
                for z in 0..w / 2 {
                    for k in 0..c {
                        let four = [(0, 0), (0, 1), (1, 0), (1, 1)];
                        let values = four.map(|(a, b)| at(i, 2 * y + a, 2 * z + b, k));
                        max.push(values.into_iter().fold(f64::MIN, f64::max));
                    }
                }
            }
        }
        assert_close("max", &max_pool_2x2(&x).unwrap(), &max);

        let width = 1 + random.below(w);
        let mut max = Vec::new();
        for row in 0..n * h {
            for z in 0..w / width {
                for k in 0..c {
                    let values = (0..width).map(|b| at(0, row, width * z + b, k));
                    max.push(values.fold(f64::MIN, f64::max));
                }
            }
        }
        let got = max_pool_columns(&x, width).unwrap();
        assert_eq!(got.dims(), [n, h, w / width, c]);
        assert_close("max of columns", &got, &max);
        for width in [0, w + 1] {
            let text = max_pool_columns(&x, width).unwrap_err().to_string();
            assert!(text.contains("max_pool_columns"), "{text}");
        }

        let (mut means, mut both) = (Vec::new(), Vec::new());
        for i in 0..n {
            let mut deviations = Vec::new();
            for k in 0..c {
                let all: Vec<f64> = (0..h * w).map(|p| at(i, p / w, p % w, k)).collect();
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                let var = all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64;
                means.push(mean);
                both.push(mean);
                deviations.push((var + 1e-5).sqrt());
            }
            both.extend(deviations);
        }
        assert_close("mean", &global_avg_pool(&x).unwrap(), &means);
        assert_close("mean and deviation", &mean_std_pool(&x, 1e-5).unwrap(), &both);

        let large = random.tensor(&[n, 2 * h, 2 * w, c]);
        let ls = values(&large);
        let want: Vec<f64> = (0..ls.len())
            .map(|p| {
                let (k, z, y, i) =
                    (p % c, p / c % (2 * w), p / c / (2 * w) % (2 * h), p / c / (4 * w * h));
                f64::from(ls[p]) + at(i, y / 2, z / 2, k)
            })
            .collect();
        assert_close("upsample", &upsample_2x_add(&large, &x).unwrap(), &want);
    }
}

#[test]
fn linear_matches_the_reference() {
    let mut random = Random(6);
    for (n, k, out) in [(1, 1, 1), (1, 512, 1), (7, 33, 17), (64, 1280, 40)] {
        let (x, weight, bias) =
            (random.tensor(&[n, k]), random.tensor(&[out, k]), random.tensor(&[out]));
        let (xs, ws, bs) = (values(&x), values(&weight), values(&bias));
        let want: Vec<f64> = (0..n * out)
            .map(|p| {
                let (i, o) = (p / out, p % out);
                let dot: f64 =
                    (0..k).map(|j| f64::from(xs[i * k + j]) * f64::from(ws[o * k + j])).sum();
                apply(Activation::Relu, dot + f64::from(bs[o]))
            })
            .collect();
        let linear = Linear::new(&weight, Some(&bias), Activation::Relu).unwrap();
        assert_close("linear", &linear.forward(&x).unwrap(), &want);
    }
}

#[test]
fn folding_a_batch_norm_changes_nothing() {
    let mut random = Random(7);
    let x = random.tensor(&[2, 6, 7, 5]);
    let weight = random.tensor(&[9, 5, 3, 3]);
    let bias = random.tensor(&[9]);
    let [gamma, beta, mean, var] = std::array::from_fn(|_| random.tensor(&[9]));
    let var = (var.abs().unwrap() + 0.1).unwrap();
    let (_, plain) = reference(&x, &weight, Some(&bias), None, ConvConfig::default());
    let (g, b, m, v) = (values(&gamma), values(&beta), values(&mean), values(&var));
    let want: Vec<f64> = plain
        .iter()
        .enumerate()
        .map(|(i, y)| {
            let c = i % 9;
            let [g, b, m, v] = [g[c], b[c], m[c], v[c]].map(f64::from);
            (y - m) / (v + 1e-3).sqrt() * g + b
        })
        .collect();
    let (weight, bias) = fold_bn(&weight, Some(&bias), &gamma, &beta, &mean, &var, 1e-3).unwrap();
    let conv = Conv2d::new(&weight, Some(&bias), ConvConfig::default()).unwrap();
    assert_close("folded", &conv.forward(&x).unwrap(), &want);
}

/// One of each layer, over an input large enough for many tasks.
fn all_layers(x: &Tensor) -> Vec<Tensor> {
    let mut random = Random(8);
    let c = x.dim(3).unwrap();
    let padding = Padding::all(1);
    let relu = Activation::Relu6;
    let standard =
        ConvConfig { stride: (2, 2), padding, activation: relu, ..ConvConfig::default() };
    let depthwise = ConvConfig { padding, groups: c, activation: relu, ..ConvConfig::default() };
    let convs = [
        (random.tensor(&[24, c, 3, 3]), standard),
        (random.tensor(&[40, c, 1, 1]), ConvConfig::default()),
        (random.tensor(&[c, 1, 3, 3]), depthwise),
    ];
    let mut outputs: Vec<Tensor> = convs
        .iter()
        .map(|(w, config)| Conv2d::new(w, None, *config).unwrap().forward(x).unwrap())
        .collect();
    outputs.push(max_pool_2x2(x).unwrap());
    outputs.push(global_avg_pool(x).unwrap());
    let pooled = mean_std_pool(x, 1e-5).unwrap();
    let linear = random.tensor(&[3, 2 * c]);
    outputs.push(Linear::new(&linear, None, relu).unwrap().forward(&pooled).unwrap());
    outputs
}

#[test]
fn the_batch_and_the_threads_change_no_bit() {
    let batch = Random(9).tensor(&[5, 37, 41, 27]);
    let together = team::Team::new(4).lead(|_| all_layers(&batch));
    for i in 0..5 {
        let one = batch.narrow(0, i, 1).unwrap();
        let alone = team::alone(|| all_layers(&one));
        for (all, alone) in together.iter().zip(&alone) {
            assert_eq!(bits(&all.narrow(0, i, 1).unwrap()), bits(alone), "image {i}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_operation() {
    let mut random = Random(10);
    let config = ConvConfig::default();
    let conv = Conv2d::new(&random.tensor(&[4, 3, 3, 3]), None, config).unwrap();
    let says = |result: Result<Tensor>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    says(conv.forward(&random.tensor(&[1, 8, 8, 4])), &["conv2d", "[1, 8, 8, 4]"]);
    says(conv.forward(&random.tensor(&[1, 2, 8, 3])), &["conv2d", "[1, 2, 8, 3]"]);
    says(conv.forward(&random.tensor(&[8, 8, 3])), &["conv2d", "[8, 8, 3]"]);
    let (x, residual) = (random.tensor(&[1, 8, 8, 3]), random.tensor(&[1, 6, 6, 3]));
    says(conv.forward_add(&x, &residual), &["residual", "[1, 6, 6, 3]", "[1, 6, 6, 4]"]);
    says(max_pool_2x2(&random.tensor(&[1, 1, 4, 3])), &["max_pool_2x2", "[1, 1, 4, 3]"]);
    says(global_avg_pool(&random.tensor(&[4, 3])), &["global_avg_pool", "[4, 3]"]);
    says(upsample_2x_add(&x, &residual), &["upsample_2x_add", "[1, 6, 6, 3]"]);
    let half = x.to_dtype(candle_core::DType::F16).unwrap();
    assert!(conv.forward(&half).is_err());
    let grouped = ConvConfig { groups: 2, ..config };
    let error = Conv2d::new(&random.tensor(&[4, 3, 3, 3]), None, grouped).err().unwrap();
    assert!(error.to_string().contains("2 groups"), "{error}");
    let linear = Linear::new(&random.tensor(&[2, 5]), None, Activation::None).unwrap();
    says(linear.forward(&random.tensor(&[2, 6])), &["linear", "[2, 6]"]);
}

#[test]
fn an_empty_batch_gives_an_empty_batch() {
    let x = Tensor::zeros((0, 8, 8, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let weight = Random(11).tensor(&[4, 3, 3, 3]);
    let conv = Conv2d::new(&weight, None, ConvConfig::default()).unwrap();
    assert_eq!(conv.forward(&x).unwrap().dims(), [0, 6, 6, 4]);
    assert_eq!(max_pool_2x2(&x).unwrap().dims(), [0, 4, 4, 3]);
    assert_eq!(global_avg_pool(&x).unwrap().dims(), [0, 3]);
}
