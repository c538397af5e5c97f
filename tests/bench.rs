//! Metrics against the numbers of reference implementations (scripts/bench/golden_metrics.py), and
//! `veriscope bench metrics` over files.

use veriscope::bench::metrics::bootstrap::Units;
use veriscope::bench::metrics::calibration::Probabilities;
use veriscope::bench::metrics::detection_cost::{self, ASVSPOOF5, bits};
use veriscope::bench::metrics::localization::{Localization, Located, Proposal};
use veriscope::bench::metrics::selective::Selective;
use veriscope::bench::metrics::tandem::{self, ASVSPOOF5_ADCF, SasvClass, SasvTrials};
use veriscope::bench::metrics::{Ranked, Sweep, operating, paired, ranking};

/// SplitMix64, as in the script.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// The script's `case`.
fn case(seed: u64, most: u64) -> (Vec<f64>, Vec<bool>) {
    let mut random = Random(seed);
    let n = 4 + random.below(most - 3);
    let levels = [2, 5, 20, 100, 1 << 16][random.below(5) as usize];
    let lead = random.below(levels);
    (0..n)
        .map(|i| {
            let fake = if i > 1 { random.below(2) == 1 } else { i == 0 };
            let mut level = random.below(levels);
            if fake {
                level += random.below(lead + 1);
            }
            (((level << 16) / (2 * levels)) as f64 / 65536.0, fake)
        })
        .unzip()
}

fn golden(what: &str) -> Vec<serde_json::Value> {
    let text = include_str!("golden/bench_metrics.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    all[what].as_array().unwrap().clone()
}

#[test]
fn auc_and_ap_equal_scikit_learns_on_ten_thousand_cases_with_ties() {
    let golden = include_bytes!("golden/bench_auc_ap.bin");
    assert_eq!(golden.len(), 10_000 * 8);
    let mut tied = 0;
    for (seed, wanted) in golden.chunks_exact(8).enumerate() {
        let (scores, fake) = case(seed as u64, 64);
        let ranked = Ranked::new(&scores, &fake).unwrap();
        tied += usize::from(ranked.distinct() < ranked.len());
        let sweep = Sweep::new(&ranked, &[]);
        let found = [ranking::auc(&sweep), ranking::average_precision(&sweep)];
        for (found, wanted) in found.into_iter().zip(wanted.chunks_exact(4)) {
            let wanted = f64::from(u32::from_le_bytes(wanted.try_into().unwrap())) / 4e9;
            assert!((found.clone().unwrap() - wanted).abs() < 1e-9, "case {seed}: {found:?} {wanted}");
        }
    }
    assert!(tied > 7_500, "only {tied} cases have ties");
}

#[test]
fn metrics_equal_the_reference_implementations() {
    for (seed, row) in golden("detection").iter().enumerate() {
        let check = |name: &str, found: f64| {
            let wanted = row[name].as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-6, "case {seed}, {name}: {found}, not {wanted}");
        };
        let seed = seed as u64;
        let (raw, fake) = case(1_000_000 + seed, 120);
        let llrs: Vec<f64> = raw.iter().map(|p| (p - 0.5) * 8.0).collect();
        let ranked = Ranked::new(&llrs, &fake).unwrap();
        let bayes = ASVSPOOF5.bayes_threshold();
        let above = ranked.scores().partition_point(|&s| s > bayes);
        let sweep = Sweep::new(&ranked, &[above]);
        check("eer_asvspoof", operating::eer_asvspoof(&sweep).unwrap());
        check("eer_hull", operating::eer_hull(&sweep).unwrap());
        check("min_dcf", detection_cost::min_dcf(&sweep, ASVSPOOF5).unwrap());
        check("act_dcf", detection_cost::act_dcf(&sweep, sweep.calls[0], ASVSPOOF5).unwrap());
        let cost = |class: bool| -> f64 {
            let of_class = llrs.iter().zip(&fake).filter(|(_, f)| **f == class);
            of_class.map(|(llr, _)| if class { bits(-llr) } else { bits(*llr) }).sum()
        };
        check("cllr", detection_cost::cllr(&sweep, cost(true), cost(false)).unwrap());
        check("min_cllr", detection_cost::min_cllr(&sweep).unwrap());

        let ranked = Ranked::new(&raw, &fake).unwrap();
        let calibration = Probabilities::new(&ranked).unwrap().measure(&ranked, None).unwrap();
        check("brier", calibration.brier);
        check("ece", calibration.ece);
        check("aurc", Selective::new(&ranked, 0.5).unwrap().aurc(None).unwrap());

        let (mut asv, _) = case(2_000_000 + seed, 120);
        asv.iter_mut().step_by(3).for_each(|s| *s += 0.25);
        asv.extend([1.0, 0.0, 0.5]);
        let trials: Vec<Vec<f64>> =
            (0..3).map(|k| asv.iter().skip(k).step_by(3).copied().collect()).collect();
        let rates = tandem::asv_rates(&trials[0], &trials[1], &trials[2]).unwrap();
        let found = [rates.miss, rates.false_alarm, rates.spoof_false_alarm];
        for (found, wanted) in found.iter().zip(row["asv"].as_array().unwrap()) {
            assert!((found - wanted.as_f64().unwrap()).abs() < 1e-9, "case {seed}: {rates:?} {row}");
        }
        if row.get("min_tdcf").is_some() {
            check("min_tdcf", tandem::min_tdcf(&sweep, rates).unwrap());
            check("min_tdcf_legacy", tandem::min_tdcf_legacy(&sweep, rates).unwrap());
        }
        let classes: Vec<SasvClass> = (0..asv.len())
            .map(|i| [SasvClass::Target, SasvClass::Nontarget, SasvClass::Spoof][i % 3])
            .collect();
        let sasv = SasvTrials::new(&asv, &classes).unwrap();
        check("min_adcf", sasv.min_adcf(ASVSPOOF5_ADCF, None).unwrap());

        let mut other = Random(3_000_000 + seed);
        let second: Vec<f64> = raw.iter().map(|s| s + other.below(5) as f64 / 16.0).collect();
        let second = Ranked::new(&second, &fake).unwrap();
        let wanted = row["delong"].as_array().unwrap();
        match paired::delong(&ranked, &second) {
            Ok(test) => {
                assert!((test.difference - wanted[0].as_f64().unwrap()).abs() < 1e-9);
                assert!((test.standard_error - wanted[1].as_f64().unwrap()).abs() < 1e-9);
            }
            Err(absent) => assert!(wanted[1].as_f64().is_none_or(|se| se < 1e-9), "{absent}"),
        }
    }
}

#[test]
fn localisation_equals_av_deepfake1ms_package() {
    for (seed, row) in golden("localization").iter().enumerate() {
        let mut random = Random(4_000_000 + seed as u64);
        let files: Vec<Located> = (0..5 + random.below(40))
            .map(|_| {
                let mut truth: Vec<(u64, u64)> = Vec::new();
                for k in 0..random.below(4) {
                    let start = 160 * k + random.below(60);
                    truth.push((start, start + 8 + random.below(80)));
                }
                let mut proposals = Vec::new();
                for _ in 0..1 + random.below(60) {
                    let (start, end) = if !truth.is_empty() && random.below(4) != 0 {
                        let (start, end) = truth[random.below(truth.len() as u64) as usize];
                        let start = start + random.below(9);
                        (start, end + random.below(9))
                    } else {
                        let start = random.below(500);
                        (start, start + 4 + random.below(90))
                    };
                    let confidence = random.below(1000) as f32 / 1024.0;
                    let [start, end] = [start, end].map(|t| t as f32 / 32.0);
                    proposals.push(Proposal { confidence, start, end });
                }
                proposals.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
                let truth = truth.iter().map(|&(a, b)| (a as f32 / 32.0, b as f32 / 32.0));
                Located { truth: truth.collect(), proposals }
            })
            .collect();
        let found = Localization::new(&files).unwrap().measure(None).unwrap();
        for (name, found) in [("ap", &found.ap[..]), ("ar", &found.ar[..])] {
            let wanted = row[name].as_array().unwrap();
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                let wanted = wanted.as_f64().unwrap();
                assert!((found - wanted).abs() < 1e-6, "set {seed}, {name}: {found}, not {wanted}");
            }
        }
    }
}

#[test]
fn a_weight_is_as_many_trials() {
    // Through the bootstrap's own pass: drawing by groups of one trial each is drawing trials.
    let (scores, fake) = case(7, 64);
    let ranked = Ranked::new(&scores, &fake).unwrap();
    let trials = Units::Trials(ranked.len());
    let groups = Units::Groups { of: (0..ranked.len() as u32).collect(), count: ranked.len() };
    let both = [trials, groups].map(|u| paired::paired_bootstrap(&ranked, &ranked, &u, 50, 3));
    assert_eq!(both[0], both[1]);
}
