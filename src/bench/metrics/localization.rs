//! Localisation in time: AP@IoU and AR@N as AV-Deepfake1M's evaluation defines them.

use super::bootstrap::Units;
use super::{Absent, AbsentCode, Metric};

/// IoU thresholds of AP (AV-Deepfake1M, table 4).
pub const AP_IOUS: [f32; 4] = [0.5, 0.75, 0.9, 0.95];
/// Numbers of proposals of AR.
pub const AR_PROPOSALS: [usize; 5] = [50, 30, 20, 10, 5];
/// IoU thresholds over which AR is a mean.
pub const AR_IOUS: [f32; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// A stretch of time that a detector proposes as forged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    pub confidence: f32,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
}

/// One file: where it is forged and what was proposed, by falling confidence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Located {
    /// Start and end in seconds.
    pub truth: Vec<(f32, f32)>,
    pub proposals: Vec<Proposal>,
}

/// What is counted once, to be weighed many times.
#[derive(Debug, Clone)]
pub struct Localization {
    files: usize,
    /// Per IoU threshold: for all proposals by falling confidence, their file and whether they hit.
    ranked: [Vec<(u32, bool)>; AP_IOUS.len()],
    /// Per file: stretches in truth.
    stretches: Vec<u32>,
    /// Per file and number of proposals: found stretches, added up over the thresholds.
    found: Vec<[u32; AR_PROPOSALS.len()]>,
    /// Per file: whether anything was proposed.
    proposed: Vec<bool>,
}

/// AP@IoU and AR@N of one weighing.
#[derive(Debug, Clone, PartialEq)]
pub struct Located1d {
    /// In the order of [`AP_IOUS`], as the package computes it.
    pub ap: [f64; AP_IOUS.len()],
    /// The whole area, with the step from recall 0 to the first hit, which the package leaves out.
    pub ap_complete: [f64; AP_IOUS.len()],
    /// In the order of [`AR_PROPOSALS`], as the package computes it: files without any proposal do
    /// not count as missed.
    pub ar: [f64; AR_PROPOSALS.len()],
    /// With them counted.
    pub ar_complete: [f64; AR_PROPOSALS.len()],
}

/// Intersection over union in single precision, like the package: it decides cases on the border.
/// The union is the hull of both, as there, which differs only where they do not meet.
fn iou(proposal: &Proposal, truth: (f32, f32)) -> f32 {
    let inner = proposal.end.min(truth.1) - proposal.start.max(truth.0);
    let outer = proposal.end.max(truth.1) - proposal.start.min(truth.0);
    inner.max(0.0) / outer
}

impl Localization {
    /// Matches proposals with the truth: every stretch takes the most confident proposal above the
    /// IoU that no earlier stretch took.
    pub fn new(files: &[Located]) -> Metric<Self> {
        if files.iter().all(|f| f.truth.is_empty()) {
            let why = "no file has a forged stretch";
            return Err(Absent::new(AbsentCode::NothingToFind, why));
        }
        if files.iter().all(|f| f.proposals.is_empty()) {
            return Err(Absent::new(AbsentCode::NothingToFind, "there is no proposal"));
        }
        // Confidence, file, and bit i: a hit at the i-th threshold.
        let mut all: Vec<(f32, u32, u8)> = Vec::new();
        let mut found = Vec::with_capacity(files.len());
        for (number, file) in files.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let mut hits = vec![0_u8; file.proposals.len()];
            for (bit, &least) in AP_IOUS.iter().enumerate() {
                for &truth in &file.truth {
                    let taken = file
                        .proposals
                        .iter()
                        .enumerate()
                        .position(|(i, p)| hits[i] & (1 << bit) == 0 && iou(p, truth) > least);
                    if let Some(taken) = taken {
                        hits[taken] |= 1 << bit;
                    }
                }
            }
            all.extend(file.proposals.iter().zip(&hits).map(|(p, &h)| (p.confidence, number, h)));
            found.push(AR_PROPOSALS.map(|n| {
                let first = &file.proposals[..n.min(file.proposals.len())];
                file.truth
                    .iter()
                    .map(|&truth| {
                        let best = first.iter().map(|p| iou(p, truth)).fold(0.0, f32::max);
                        AR_IOUS.iter().filter(|&&least| best > least).count() as u32
                    })
                    .sum()
            }));
        }
        // Stable: equal confidences stay in the order of the files.
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(Self {
            files: files.len(),
            ranked: std::array::from_fn(|bit| {
                all.iter().map(|&(_, file, hits)| (file, hits & (1 << bit) != 0)).collect()
            }),
            stretches: files.iter().map(|f| f.truth.len() as u32).collect(),
            found,
            proposed: files.iter().map(|f| !f.proposals.is_empty()).collect(),
        })
    }

    /// Files, each one unit of a bootstrap.
    pub fn units(&self) -> Units {
        Units::Trials(self.files)
    }

    /// Counts file i `weights[i]` times; None: each once. None where nothing is left to find.
    pub fn measure(&self, weights: Option<&[u16]>) -> Option<Located1d> {
        let weight = |file: usize| weights.map_or(1, |w| u64::from(w[file]));
        let (mut stretches, mut seen) = (0_u64, 0_u64);
        let mut found = [0_u64; AR_PROPOSALS.len()];
        for file in 0..self.files {
            let w = weight(file);
            let here = w * u64::from(self.stretches[file]);
            stretches += here;
            seen += here * u64::from(self.proposed[file]);
            for (sum, &here) in found.iter_mut().zip(&self.found[file]) {
                *sum += w * u64::from(here);
            }
        }
        if stretches == 0 {
            return None;
        }
        let recall = |of: u64| {
            let all = (of * AR_IOUS.len() as u64) as f64;
            found.map(|f| if of == 0 { 0.0 } else { f as f64 / all })
        };
        let area = |first: bool| {
            std::array::from_fn(|bit| self.average_precision(bit, stretches, weights, first))
        };
        Some(Located1d {
            ap: area(false),
            ap_complete: area(true),
            ar: recall(seen),
            ar_complete: recall(stretches),
        })
    }

    /// Area under the precision–recall curve whose precision is the best at that recall or a higher
    /// one. Without `first`, the step up to the most confident proposal is left out.
    fn average_precision(
        &self,
        bit: usize,
        stretches: u64,
        weights: Option<&[u16]>,
        first: bool,
    ) -> f64 {
        let weight = |file: u32| weights.map_or(1, |w| u64::from(w[file as usize]));
        let (mut seen, mut hits) = (0_u64, 0_u64);
        for &(file, hit) in &self.ranked[bit] {
            let w = weight(file);
            seen += w;
            hits += w * u64::from(hit);
        }
        // From the least confident one back: the best precision so far is that at higher recall.
        let (mut best, mut area) = (0.0_f64, 0.0);
        for &(file, hit) in self.ranked[bit].iter().rev() {
            let w = weight(file);
            if w == 0 {
                continue;
            }
            best = best.max(hits as f64 / seen as f64);
            seen -= w;
            if hit {
                hits -= w;
                let step = if seen == 0 && !first { w - 1 } else { w };
                area += best * step as f64 / stretches as f64;
            }
        }
        area
    }
}
