//! Metrics against the numbers of reference implementations (scripts/bench/golden_metrics.py), and
//! `veriscope bench metrics` over files.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

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
            assert!(
                (found.clone().unwrap() - wanted).abs() < 1e-9,
                "case {seed}: {found:?} {wanted}"
            );
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
            assert!(
                (found - wanted.as_f64().unwrap()).abs() < 1e-9,
                "case {seed}: {rates:?} {row}"
            );
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

/// Runs `veriscope bench metrics` with words, in a folder.
fn run(folder: &Path, words: &str) -> (Option<i32>, serde_json::Value, String) {
    run_with(folder, words, &[])
}

fn run_with(
    folder: &Path,
    words: &str,
    environment: &[(&str, &str)],
) -> (Option<i32>, serde_json::Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(["bench", "metrics"])
        .args(words.split_whitespace())
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap();
    let json = if output.stdout.is_empty() {
        serde_json::Value::Null
    } else {
        serde_json::from_slice(&output.stdout).unwrap()
    };
    (output.status.code(), json, String::from_utf8(output.stderr).unwrap())
}

fn value(json: &serde_json::Value, level: usize, name: &str) -> f64 {
    let metric = &json["levels"][level]["metrics"][name];
    metric["value"].as_f64().unwrap_or_else(|| panic!("{name}: {metric}"))
}

fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("VERISCOPE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let there = root.join("data").is_dir();
    if !there {
        println!("skipped: no shared data at {}", root.display());
    }
    there.then_some(root)
}

#[test]
fn rawgat_st_has_the_figures_of_its_paper() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/detectors/rawgat-st");
    let words = "--protocol asvspoof2019-la --scores mul-scores.txt.gz \
                 --asv-scores asv-eval-scores.txt.gz --rounds 20";
    let (code, json, errors) = run(&folder, words);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(errors, "");
    let near = |name: &str, wanted: f64| {
        let found = value(&json, 0, name);
        assert!((found - wanted).abs() < 1e-12, "{name}: {found}");
    };
    // Paper: EER 1.06 %, min t-DCF 0.0335; all digits: ASVspoof's own code on the same files.
    near("eer_asvspoof", 0.010601347517626343);
    near("min_tdcf_legacy", 0.033538946714580166);
    near("min_tdcf", 0.09416783124441938);
    near("min_dcf", 0.02989311338838085);
    let threshold = json["levels"][0]["thresholds"]["eer_asvspoof"].as_f64().unwrap();
    assert!((threshold - 1.4512664079666138).abs() < 1e-12, "{threshold}");

    let (code, json, errors) = run(&folder, &format!("{words} --direction higher-is-fake"));
    assert_eq!(code, Some(0));
    assert!(errors.contains("THE SIGN MAY BE WRONG"), "{errors}");
    assert!(value(&json, 0, "auc") < 0.01);
}

/// Forty files of five speakers, fakes mostly with the lower score (ASVspoof's direction).
fn asvspoof2019() -> (String, String) {
    let (mut key, mut scores) = (String::new(), String::new());
    for i in 0..40_i32 {
        let (label, attack) = if i % 2 == 0 { ("spoof", "A07") } else { ("bonafide", "-") };
        let score = f64::from((i * i * 37) % 41) / 10.0 + if i % 2 == 0 { 0.0 } else { 2.0 };
        key += &format!("LA_{:04} LA_E_{i} - {attack} {label}\n", i % 5);
        scores += &format!("LA_E_{i} {score}\n");
    }
    (key, scores)
}

#[test]
fn the_numbers_are_the_same_on_every_run_and_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (key, scores) = asvspoof2019();
    std::fs::write(folder.path().join("key"), key).unwrap();
    std::fs::write(folder.path().join("scores"), scores).unwrap();
    let words = "--protocol asvspoof2019-la --scores scores --key key --threshold 3 --seed 7";
    let runs = ["1", "2", "3"].map(|n| {
        let (code, json, errors) = run_with(folder.path(), words, &[("RAYON_NUM_THREADS", n)]);
        assert_eq!(code, Some(0), "{errors}");
        json
    });
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
    assert_eq!(runs[0]["levels"][0]["units"]["kind"], "speaker");
    assert_eq!(runs[0]["levels"][0]["units"]["count"], 5);
    let auc = &runs[0]["levels"][0]["metrics"]["auc"];
    assert!(
        auc["low"].as_f64() < auc["value"].as_f64() && auc["value"].as_f64() < auc["high"].as_f64()
    );
    let (_, other, _) = run(folder.path(), &words.replace("--seed 7", "--seed 8"));
    assert_ne!(runs[0]["levels"][0]["metrics"], other["levels"][0]["metrics"]);
    let (_, files, _) = run(folder.path(), &format!("{words} --groups file"));
    assert_eq!(files["levels"][0]["units"]["kind"], "file");
}

#[test]
fn bad_input_is_named_with_file_and_line() {
    let (key, scores) = asvspoof2019();
    let csv = "file,score,label\na,0.1,real\nb,0.9,fake\nc,0.4,real\n";
    let line = |text: &str, number: usize, new: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines[number - 1] = new;
        lines.join("\n") + "\n"
    };
    let drop =
        |text: &str, n: usize| text.lines().skip(n).map(|l| format!("{l}\n")).collect::<String>();
    let la = "--protocol asvspoof2019-la --scores scores --key key";
    let alone = "--protocol asvspoof2019-la --scores scores";
    let table = "--protocol csv --scores scores --direction higher-is-fake";
    let four = "LA_E_1 A07 spoof 0.1\nLA_E_2 - bonafide 0.7\nLA_E_3 - bonafide 0.2\n";
    // Words, key, scores, what stderr must say.
    let cases: Vec<(&str, String, String, &str)> = vec![
        (
            la,
            line(&key, 3, "LA_0001 LA_E_2 - A07 fake"),
            scores.clone(),
            "key:3: unknown label 'fake'",
        ),
        (
            la,
            line(&key, 4, "LA_0001 LA_E_0 - A07 spoof"),
            scores.clone(),
            "key:4: 'LA_E_0' was in line 1",
        ),
        (
            la,
            line(&key, 5, "LA_0001 LA_E_4 A07 spoof"),
            scores.clone(),
            "key:5: 4 columns, 5 expected",
        ),
        (la, key.clone(), line(&scores, 6, "LA_E_5 nan"), "scores:6: the score is NaN"),
        (la, key.clone(), line(&scores, 6, "LA_E_5 inf"), "scores:6: the score is inf"),
        (
            la,
            key.clone(),
            line(&scores, 6, "LA_E_5 high"),
            "scores:6: column 2 holds 'high', no number",
        ),
        (la, key.clone(), line(&scores, 6, "LA_E_4 1"), "scores:6: 'LA_E_4' was in line 5"),
        (la, key.clone(), line(&scores, 6, "LA_E_99 1"), "scores:6: 'LA_E_99' is not in the key"),
        (la, key.clone(), line(&scores, 6, "LA_E_5"), "scores:6: 1 columns, 2 expected"),
        (la, key.clone(), drop(&scores, 5), "key:1: 5 of 40 files of the key have no score"),
        (la, key.clone(), String::new(), "scores: no scores [empty]"),
        (la, String::new(), scores.clone(), "key: no files [empty]"),
        (la, key.replace("bonafide", "spoof"), scores.clone(), "scores: all 40 files are fake"),
        (alone, key.clone(), scores.clone(), "scores: holds no labels: the key is needed"),
        (
            alone,
            key.clone(),
            line(four, 2, "LA_E_2 - 0.7 bonafide"),
            "scores:2: unknown label '0.7'",
        ),
        (alone, key.clone(), line(four, 2, "LA_E_2 - 0.7 bonafide"), "[mixed_up_columns]"),
        (
            la,
            key.clone(),
            line(four, 1, "LA_E_1 A07 spoof 0.1"),
            "scores:1: 'LA_E_1' is fake here and real in the key",
        ),
        (table, String::new(), csv.replace("real", "0"), "scores:2: unknown label '0'"),
        (table, String::new(), csv.replace("0.9", "fake"), "scores:3: column 2 holds 'fake'"),
        (
            table,
            String::new(),
            csv.replace("score", "s"),
            "scores:1: no column 'score'; there are file, s, label",
        ),
        (table, String::new(), csv.replace("b,0.9", "\"b,0.9"), "scores:3: a quote is not closed"),
        (
            table,
            String::new(),
            csv.replace("0.9", "0.4").replace("0.1", "0.4"),
            "all 3 files have the same score",
        ),
        (table, String::new(), csv.replace("0.9", ""), "scores:3: 1 of 3 files have no score"),
        (
            "--protocol csv --scores scores --direction higher-is-fake --scale probability",
            String::new(),
            csv.replace("0.9", "1.9"),
            "scores:3: the score 1.9 is no probability",
        ),
        (
            "--protocol csv --scores scores --direction higher-is-fake --fake-label fake",
            String::new(),
            csv.replace("c,0.4,real", "c,0.4,rael"),
            "scores:4: unknown label 'rael', beside 'fake' (fake) and 'real' (real, line 2)",
        ),
        (
            "--protocol csv --scores missing --direction higher-is-fake",
            String::new(),
            String::new(),
            "missing: cannot be read",
        ),
        (
            "--protocol asvspoof2019-la --scores scores --key key --asv-scores asv",
            key.clone(),
            scores.clone(),
            "asv:1: unknown label 'tar'",
        ),
        (
            "--protocol sasv --scores scores",
            String::new(),
            "s f 0.5 target\ns g 0.1 nontarget\ns g 0.2 spoof\n".into(),
            "scores:3: 's g' was in line 2",
        ),
        (
            "--protocol sasv --scores scores",
            String::new(),
            "s f 0.5 target\ns g 0.1 nontarget\n".into(),
            "scores: no spoof trials",
        ),
        (
            "--protocol deepfakebench --scores scores",
            String::new(),
            "{\n\"a/0.png\": 0.5,\n\"a/1.png\": oops}".into(),
            "scores:3: expected value at line 3",
        ),
        (
            "--protocol deepfakebench --scores scores",
            String::new(),
            "{\"pred\": [0.5], \"label\": [1, 0], \"image\": [\"a/0\"]}".into(),
            "pred has 1 values, label 2, image 1",
        ),
        (
            "--protocol deepfakebench --scores scores",
            String::new(),
            "{\"pred\": [0.5], \"label\": [2], \"image\": [\"a/0\"]}".into(),
            "unknown label 2 of 'a/0'",
        ),
        (
            "--protocol av-deepfake1m --scores scores --key key",
            "[\n{\"file\": \"a\", \"fake_segments\": [[2, 1]]}]".into(),
            "{}".into(),
            "key:2: 'a': no stretch from 2 to 1 s",
        ),
        (
            "--protocol av-deepfake1m --scores scores --key key",
            "[{\"file\": \"a\", \"fake_segments\": [[1, 2]]}]".into(),
            "{\"a\": [[0.5, 3.0, 1.0]]}".into(),
            "no proposal [confidence, start, end]",
        ),
        (
            "--protocol av-deepfake1m --scores scores --key key",
            "[{\"file\": \"a\", \"fake_segments\": [[1, 2]]}]".into(),
            "{}".into(),
            "scores: 1 of 1 files of the key are not there, the first is 'a'",
        ),
    ];
    for (words, key, scores, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), &key).unwrap();
        std::fs::write(folder.path().join("scores"), &scores).unwrap();
        std::fs::write(folder.path().join("asv"), "bonafide tar 0.4\n").unwrap();
        let (code, json, errors) = run(folder.path(), words);
        assert!(errors.contains(wanted), "{words}\n{scores}\nwanted {wanted}\nfound {errors}");
        assert_eq!(code, Some(1), "{errors}");
        assert_eq!(json, serde_json::Value::Null);
    }
    // What cannot be meant is wrong usage.
    let folder = tempfile::tempdir().unwrap();
    for words in [
        "--protocol csv --scores scores",
        "--protocol av-deepfake1m --scores scores",
        "--protocol sasv --scores scores --threshold 1",
        "--protocol asvspoof5 --scores scores --groups attack",
        "--protocol csv --direction higher-is-fake --scores scores --threshold nan",
    ] {
        assert_eq!(run(folder.path(), words).0, Some(2), "{words}");
    }
}

#[test]
fn keys_of_asvspoof_2021_and_5_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let rows = |line: &dyn Fn(usize, &str) -> String| -> String {
        (0..30).map(|i| line(i, if i % 3 == 0 { "bonafide" } else { "spoof" })).collect()
    };
    let scores = rows(&|i, label| {
        format!("E_{i} {}\n", if label == "spoof" { i as f64 / 10.0 - 3.0 } else { 0.1 * i as f64 })
    });
    let subset = |i| if i < 24 { "eval" } else { "progress" };
    write(
        "la",
        rows(&|i, label| {
            format!("S_{} E_{i} alaw ita_tx A07 {label} notrim {}\n", i % 5, subset(i))
        }),
    );
    write(
        "pa",
        rows(&|i, label| format!("S_1 E_{i} R3 M3 d4 r1 m1 s4 c4 {label} notrim {}\n", subset(i))),
    );
    write(
        "df",
        rows(&|i, label| {
            format!(
                "S_{} E_{i} nocodec asvspoof A14 {label} notrim {} traditional_vocoder - - - -\n",
                i % 5,
                subset(i)
            )
        }),
    );
    write("five", rows(&|i, label| format!("S_{} E_{i} F - - - AC1 A11 {label} -\n", i % 5)));
    write(
        "five-headed",
        "filename\tcm-label\n".to_owned() + &rows(&|i, label| format!("E_{i}\t{label}\n")),
    );
    write("scores-headed", "filename\tcm-score\n".to_owned() + &scores.replace(' ', "\t"));
    write("scores", scores);
    for (words, files, outside) in [
        ("--protocol asvspoof2021-la --scores scores --key la", 24, 6),
        ("--protocol asvspoof2021-pa --scores scores --key pa", 24, 6),
        ("--protocol asvspoof2021-df --scores scores --key df", 24, 6),
        ("--protocol asvspoof2021-df --scores scores --key df --subset progress", 6, 24),
        ("--protocol asvspoof5 --scores scores --key five", 30, 0),
        ("--protocol asvspoof5 --scores scores-headed --key five-headed", 30, 0),
    ] {
        let (code, json, errors) = run(folder.path(), &format!("{words} --rounds 10"));
        assert_eq!(code, Some(0), "{words}: {errors}");
        let counts = &json["levels"][0]["counts"];
        let found = counts["fake"].as_u64().unwrap() + counts["real"].as_u64().unwrap();
        assert_eq!((found, json["outside_subset"].as_u64().unwrap()), (files, outside), "{words}");
        assert!(value(&json, 0, "auc") > 0.5);
    }
    // ASVspoof 5 scores are log-likelihood ratios; what needs them is there.
    let (_, json, _) =
        run(folder.path(), "--protocol asvspoof5 --scores scores --key five --rounds 0");
    assert!(value(&json, 0, "cllr") > 0.0 && value(&json, 0, "act_dcf") > 0.0);
    assert_eq!(json["levels"][0]["metrics"]["ece"]["absent"]["code"], "not_probabilities");
}

#[test]
fn deepfakebench_keeps_frames_and_videos_apart() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // Video level: 0.55, 0.3 fake; 0.4, 0.2 real. Frame level differs.
    let frames = [
        ("f/1", [0.9, 0.2], 1),
        ("f/2", [0.3, 0.3], 1),
        ("r/1", [0.1, 0.7], 0),
        ("r/2", [0.2, 0.2], 0),
    ];
    let (mut map, mut pred, mut label, mut image) = (vec![], vec![], vec![], vec![]);
    for (video, scores, fake) in frames {
        for (i, score) in scores.iter().enumerate() {
            map.push(format!("\"{video}/{i}.png\": {score}"));
            pred.push(score.to_string());
            label.push(fake.to_string());
            image.push(format!("\"{video}/{i}.png\""));
        }
    }
    let arrays = format!(
        "{{\"acc\": 0.5, \"pred\": [{}], \"label\": [{}], \"image\": [{}]}}",
        pred.join(","),
        label.join(","),
        image.join(",")
    );
    write("arrays.json", &arrays);
    write("map.json", &format!("{{{}}}", map.join(",")));
    let video = |name: &str, label: &str| {
        format!(
            "\"{name}\": {{\"label\": \"{label}\", \"frames\": [\"{name}/0.png\", \"{name}/1.png\", \"{name}/2.png\"]}}"
        )
    };
    let tree = |r2: &str| {
        format!(
            "{{\"FaceForensics++\": {{\"FF-DF\": {{\"test\": {{\"c23\": {{{}, {}}}}}, \"train\": {{\"c23\": {{{}}}}}}}, \
         \"FF-real\": {{\"test\": {{\"c23\": {{{}, {}}}}}}}}}}}",
            video("f/1", "FF-DF"),
            video("f/2", "FF-DF"),
            video("f/3", "FF-DF"),
            video("r/1", "FF-real"),
            video("r/2", r2),
        )
    };
    write("key.json", &tree("FF-real"));
    let (code, json, errors) =
        run(folder.path(), "--protocol deepfakebench --scores arrays.json --rounds 5");
    assert_eq!(code, Some(0), "{errors}");
    let (code, same, errors) =
        run(folder.path(), "--protocol deepfakebench --scores map.json --key key.json --rounds 5");
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(json["levels"], same["levels"]);
    assert_eq!(json["levels"][0]["level"], "frame");
    assert_eq!(json["levels"][0]["units"]["kind"], "video");
    assert_eq!(json["levels"][1]["level"], "video");
    // Frames: fakes 0.9 beats 4, 0.2 beats 1 and ties 2, 0.3 twice beats 3; of 16.
    assert!((value(&json, 0, "auc") - (4.0 + 2.0 + 3.0 + 3.0) / 16.0).abs() < 1e-12);
    assert!((value(&json, 1, "auc") - 3.0 / 4.0).abs() < 1e-12);
    write("key.json", &tree("FF-unreal-thing"));
    let (code, _, errors) =
        run(folder.path(), "--protocol deepfakebench --scores map.json --key key.json");
    assert_eq!(code, Some(1));
    assert!(errors.contains("key.json:1: unknown label 'FF-unreal-thing'"), "{errors}");
}

#[test]
fn localisation_says_where_the_package_is_lenient() {
    let folder = tempfile::tempdir().unwrap();
    let key = r#"[{"file": "id1/a.mp4", "fake_segments": [[1.0, 2.0]], "split": "val"},
                  {"file": "id2/b.mp4", "fake_segments": [[1.0, 2.0]]},
                  {"file": "id3/c.mp4", "fake_segments": []}]"#;
    std::fs::write(folder.path().join("key"), key).unwrap();
    let proposals = r#"{"id1/a.mp4": [[0.2, 100, 150], [0.9, 25, 50]], "id2/b.mp4": [], "id3/c.mp4": [[0.1, 0, 9]]}"#;
    std::fs::write(folder.path().join("scores"), proposals).unwrap();
    let words = "--protocol av-deepfake1m --scores scores --key key --proposal-fps 25 --rounds 10";
    let (code, json, errors) = run(folder.path(), words);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("1 files did not come by falling confidence"), "{errors}");
    assert!(errors.contains("1 files with forged stretches have no proposals"), "{errors}");
    assert_eq!(json["levels"][0]["units"]["kind"], "identity");
    // One of two stretches was found, exactly, by the most confident proposal.
    assert_eq!(value(&json, 0, "ar@5"), 1.0);
    assert_eq!(value(&json, 0, "ar@5_complete"), 0.5);
    assert_eq!(value(&json, 0, "ap@0.95"), 0.0);
    assert_eq!(value(&json, 0, "ap@0.95_complete"), 0.5);
}

#[test]
fn detectors_are_compared_and_thresholds_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let table = |lead: f64, shift: f64| -> String {
        let mut text = "path\tscore\tlabel\tperson\n".to_owned();
        for i in 0..300_u32 {
            let fake = i % 2 == 0;
            let noise = f64::from((i * 7919) % 101) / 101.0;
            let score = noise + shift + if fake { lead } else { 0.0 };
            text += &format!("{i}.wav\t{score}\t{}\tp{}\n", u8::from(fake), i % 25);
        }
        text
    };
    std::fs::write(folder.path().join("good"), table(0.6, 0.0)).unwrap();
    std::fs::write(folder.path().join("weak"), table(0.1, 0.0)).unwrap();
    std::fs::write(folder.path().join("moved"), table(0.6, 0.5)).unwrap();
    let words = "--protocol csv --scores good --direction higher-is-fake --fake-label 1 \
                 --groups person --rounds 200 --versus weak --threshold-from moved --threshold 0.8";
    let (code, json, errors) = run(folder.path(), words);
    assert_eq!(code, Some(0), "{errors}");
    let versus = &json["versus"];
    let difference = versus["delong"]["difference"].as_f64().unwrap();
    assert!(difference > 0.2 && versus["delong"]["p"].as_f64().unwrap() < 1e-6, "{versus}");
    let drawn = &versus["bootstrap"]["auc"];
    assert!((drawn["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
    assert!(drawn["interval"]["low"].as_f64().unwrap() > 0.0);
    let taken = &json["transfer"]["eer_asvspoof"];
    let (there, here) = (&taken["there"], &taken["here"]);
    // Scores there lie 0.5 higher: most fakes here do not reach that threshold.
    assert!(there["true_positive_rate"].as_f64().unwrap() > 0.75, "{taken}");
    assert!(here["true_positive_rate"].as_f64().unwrap() < 0.4, "{taken}");
    assert!(taken["best_balanced_accuracy_here"].as_f64() > here["balanced_accuracy"].as_f64());
    let metrics = &json["levels"][0]["metrics"];
    assert!(metrics["accuracy"]["low"].as_f64() < metrics["accuracy"]["value"].as_f64());

    // A detector against itself.
    let (_, json, _) = run(folder.path(), &words.replace("--versus weak", "--versus good"));
    assert_eq!(json["versus"]["delong"]["absent"]["code"], "no_difference");

    // The same scores turned round are the same detector.
    let turned: String = table(0.6, 0.0)
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            if i > 0 {
                fields[1] = (-fields[1].parse::<f64>().unwrap()).to_string();
            }
            fields.join("\t") + "\n"
        })
        .collect();
    std::fs::write(folder.path().join("turned"), turned).unwrap();
    let plain =
        "--protocol csv --scores good --direction higher-is-fake --fake-label 1 --threshold 0.8";
    let turned =
        "--protocol csv --scores turned --direction higher-is-real --fake-label 1 --threshold -0.8";
    let (a, b) = (run(folder.path(), plain).1, run(folder.path(), turned).1);
    assert_eq!(a["levels"][0]["metrics"], b["levels"][0]["metrics"]);
    let eer = |json: &serde_json::Value| {
        json["levels"][0]["thresholds"]["eer_asvspoof"].as_f64().unwrap()
    };
    assert_eq!(eer(&a), -eer(&b));
}
