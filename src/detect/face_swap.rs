//! `face-swap`: one aligned crop of one followed face, scored by the networks of the chosen tier.

use candle_core::{Device, Tensor};

use super::{Detector, Tier, calibration};
use crate::{
    face::{Face, Rect, crop, resample::Picture},
    models::{
        FaceOutput,
        dinov2::{self, Dinov2},
        domain::Domain,
        efficientnet_lite::{self, EfficientNetLite},
        weights::{WeightStore, WeightsError},
    },
    verdict::calibration::{Calibration, sigmoid},
};

const FAST: &str = "face-swap-fast";
const ACCURATE: &str = "face-swap-accurate";

/// Name of the weights in the manifest that a tier is named after and calibrated by.
pub fn weights(tier: Tier) -> &'static str {
    match tier {
        Tier::Fast => FAST,
        Tier::Accurate => ACCURATE,
    }
}

/// Names of all weights of a tier, bases aside, and how much each one's answer counts. The accurate
/// tier hears both networks: they err on different faces (`docs/models/face-swap.md`), and the fast
/// one costs little beside the other.
fn networks(tier: Tier) -> &'static [(&'static str, f32)] {
    match tier {
        Tier::Fast => &[(FAST, 1.0)],
        Tier::Accurate => &[(ACCURATE, 3.0), (FAST, 1.0)],
    }
}

enum Network {
    Fast(Box<EfficientNetLite>),
    Accurate(Box<Dinov2>),
}

/// A network and what it knows.
struct Expert {
    network: Network,
    domain: Domain,
    /// How much its answer counts.
    share: f32,
}

impl Expert {
    fn load(
        store: &WeightStore,
        device: &Device,
        name: &str,
        share: f32,
    ) -> Result<Self, WeightsError> {
        let tensors = store.load(name, device)?;
        let network = if name == ACCURATE {
            let base = store.load_base(name, device)?;
            Network::Accurate(Box::new(Dinov2::new(&base, &tensors)?))
        } else {
            Network::Fast(Box::new(EfficientNetLite::new(&tensors)?))
        };
        let domain = Domain::new(&tensors, store.domain(name)?.threshold as f32)?;
        Ok(Self { network, domain, share })
    }

    /// Side of its input, and what is subtracted from R, G and B in 0..1 before they are divided.
    fn input(&self) -> (usize, [f32; 3], [f32; 3]) {
        match self.network {
            Network::Fast(_) => {
                (efficientnet_lite::SIZE, efficientnet_lite::MEAN, efficientnet_lite::STD)
            }
            Network::Accurate(_) => (dinov2::SIZE, dinov2::MEAN, dinov2::STD),
        }
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<FaceOutput> {
        match &self.network {
            Network::Fast(network) => network.forward(x),
            Network::Accurate(network) => network.forward(x),
        }
    }

    /// Scores of looks: cuts, and whether they are shown mirrored.
    fn looks(
        &self,
        looks: &[(&[u8], bool)],
        device: &Device,
    ) -> candle_core::Result<Vec<FaceScore>> {
        let (side, mean, std) = self.input();
        let scale: [f32; 3] = std::array::from_fn(|c| 1.0 / (255.0 * std[c]));
        let shift: [f32; 3] = std::array::from_fn(|c| -mean[c] / std[c]);
        let mut values = Vec::with_capacity(looks.len() * side * side * 3);
        for (cut, mirrored) in looks {
            let mut show = |p: &[u8]| {
                values.extend((0..3).map(|c| f32::from(p[c]) * scale[c] + shift[c]));
            };
            for row in cut.chunks_exact(3 * side) {
                if *mirrored {
                    row.rchunks_exact(3).for_each(&mut show);
                } else {
                    row.chunks_exact(3).for_each(&mut show);
                }
            }
        }
        let input = Tensor::from_vec(values, (looks.len(), side, side, 3), device)?;
        let output = self.forward(&input)?;
        let crops = output.logits.into_iter().zip(output.cells).zip(&output.features).zip(looks);
        Ok(crops
            .map(|(((logit, mut cells), features), (_, mirrored))| {
                if *mirrored {
                    cells.chunks_exact_mut(output.side.max(1)).for_each(<[f32]>::reverse);
                }
                FaceScore {
                    logit,
                    cells: cells.into_iter().map(|c| (sigmoid(c) * 255.0).round() as u8).collect(),
                    distance: self.domain.distance(features),
                }
            })
            .collect())
    }
}

/// What the networks say of one crop.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceScore {
    /// Their raw output; higher = fake.
    pub logit: f32,
    /// How likely each cell of the crop was altered: probability times 255, `side * side` of them,
    /// row by row.
    pub cells: Vec<u8>,
    /// How far the crop lies from what the network was trained on, in units of the distance that 1
    /// of 100 real faces exceed: above 1 it is out of the network's domain.
    pub distance: f32,
}

/// How closely a face is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Once: one of many pictures of a face.
    Straight,
    /// Once, mirrored. Pictures of a video are looked at straight and mirrored in turn, so that what
    /// the networks make of left and right averages out over the track, at no cost.
    Mirrored,
    /// Straight and mirrored, as it is and cut tighter: the only picture of a face. The mean of the
    /// four is nearer to the truth than any (`docs/models/face-swap.md`).
    Close,
}

/// One face, cut for each network of a tier.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceCrop {
    /// By network, one or more cuts: `side * side * 3` bytes of RGB each.
    cuts: Vec<Vec<Vec<u8>>>,
    look: Look,
}

impl FaceCrop {
    /// `frame`: the rectangle that holds the face as in training ([`crop::frame`]); `sides`: see
    /// [`FaceSwap::sides`].
    pub fn new(picture: Picture<'_>, frame: Rect, sides: &[usize], look: Look) -> Self {
        let frames = match look {
            Look::Straight | Look::Mirrored => vec![frame],
            Look::Close => vec![frame, crop::tighter(frame)],
        };
        let cut = |side: &usize| frames.iter().map(|f| crop::cut(picture, *f, *side)).collect();
        Self { cuts: sides.iter().map(cut).collect(), look }
    }

    /// One cut, looked at once.
    fn single(cut: Vec<u8>) -> Self {
        Self { cuts: vec![vec![cut]], look: Look::Straight }
    }

    /// The straight cut of that side, where a network takes one.
    pub fn plain(&self, side: usize) -> Option<&[u8]> {
        let cuts = self.cuts.iter().filter_map(|cuts| cuts.first());
        cuts.map(Vec::as_slice).find(|cut| cut.len() == side * side * 3)
    }

    fn looks(&self, expert: usize) -> impl Iterator<Item = (&[u8], bool)> {
        let mirrors: &[bool] = match self.look {
            Look::Straight => &[false],
            Look::Mirrored => &[true],
            Look::Close => &[false, true],
        };
        let cuts = self.cuts.get(expert).map_or(&[][..], Vec::as_slice);
        cuts.iter().flat_map(|cut| mirrors.iter().map(|m| (cut.as_slice(), *m)))
    }
}

/// How faces are cut for the networks that judge them.
#[derive(Debug, Clone, PartialEq)]
pub enum Framing {
    /// Ours: as in training, once for each of these sides.
    Ours { sides: Vec<usize> },
    /// Upright and with a margin, as MesoNet's authors cut faces out of videos.
    MesoNet { side: usize },
}

impl Framing {
    /// A face that was found. `look` is for ours; published networks look once and straight.
    pub fn cut(&self, picture: Picture<'_>, face: &Face, look: Look) -> FaceCrop {
        match self {
            Self::Ours { sides } => FaceCrop::new(picture, crop::frame(&face.rect), sides, look),
            Self::MesoNet { side } => {
                FaceCrop::single(crop::Upright::mesonet(face).cut(picture, *side))
            }
        }
    }

    /// A picture that already is one face, looked at as the only picture of a face is.
    pub fn precropped(&self, picture: Picture<'_>) -> FaceCrop {
        let whole = crop::precropped(picture);
        match self {
            Self::Ours { sides } => FaceCrop::new(picture, whole, sides, Look::Close),
            Self::MesoNet { side } => FaceCrop::single(crop::cut(picture, whole, *side)),
        }
    }
}

pub struct FaceSwap {
    tier: Tier,
    experts: Vec<Expert>,
    calibration: Calibration,
    device: Device,
}

impl FaceSwap {
    pub fn load(store: &WeightStore, device: &Device, tier: Tier) -> Result<Self, WeightsError> {
        let experts = networks(tier).iter().map(|(name, n)| Expert::load(store, device, name, *n));
        Ok(Self {
            tier,
            experts: experts.collect::<Result<_, _>>()?,
            calibration: calibration(store, weights(tier))?,
            device: device.clone(),
        })
    }

    /// Names of its weights in the manifest, bases aside.
    pub fn all_weights(&self) -> impl Iterator<Item = &'static str> + use<> {
        networks(self.tier).iter().map(|(name, _)| *name)
    }

    /// Least time between two pictures of one face that are worth judging, in milliseconds. Pictures
    /// close in time say nearly the same, so the large network does not look at all that are sampled.
    pub fn pace_ms(&self) -> i64 {
        match self.tier {
            Tier::Fast => 0,
            Tier::Accurate => 400,
        }
    }

    /// Height and width of the crops that its networks take.
    pub fn sides(&self) -> Vec<usize> {
        self.experts.iter().map(|e| e.input().0).collect()
    }
}

impl Detector for FaceSwap {
    type Window = FaceCrop;
    type Score = FaceScore;

    fn weights(&self) -> &'static str {
        weights(self.tier)
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// The mean over looks, and the weighted one over networks, of the raw outputs; the first network's mean mask, since it
    /// is the one that the tier is named after; the farthest network's distance, at the first look.
    fn score(&self, windows: &[FaceCrop]) -> candle_core::Result<Vec<FaceScore>> {
        let mut all: Vec<FaceScore> = Vec::with_capacity(windows.len());
        let total: f32 = self.experts.iter().map(|e| e.share).sum();
        for (i, expert) in self.experts.iter().enumerate() {
            let looks: Vec<(&[u8], bool)> = windows.iter().flat_map(|w| w.looks(i)).collect();
            let mut scores = expert.looks(&looks, &self.device)?.into_iter();
            for (at, window) in windows.iter().enumerate() {
                let mine: Vec<FaceScore> = scores.by_ref().take(window.looks(i).count()).collect();
                let mut score = mean(mine).ok_or_else(|| {
                    candle_core::Error::Msg("a face without an answer".to_owned())
                })?;
                score.logit *= expert.share / total;
                match all.get_mut(at) {
                    None => all.push(score),
                    Some(first) => {
                        first.logit += score.logit;
                        first.distance = first.distance.max(score.distance);
                    }
                }
            }
        }
        Ok(all)
    }
}

/// The mean logit and mask, and the first one's distance.
fn mean(looks: Vec<FaceScore>) -> Option<FaceScore> {
    let n = looks.len();
    let mut cells = vec![0usize; looks.first()?.cells.len()];
    for look in &looks {
        cells.iter_mut().zip(&look.cells).for_each(|(sum, c)| *sum += usize::from(*c));
    }
    Some(FaceScore {
        logit: looks.iter().map(|l| l.logit).sum::<f32>() / n as f32,
        cells: cells.into_iter().map(|sum| ((sum + n / 2) / n).min(255) as u8).collect(),
        distance: looks.first()?.distance,
    })
}
