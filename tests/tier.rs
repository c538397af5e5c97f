//! Tiers of face-swap: which network runs, what it is given, and what is said where it cannot run.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use veriscope::detect::Tier;
use veriscope::digest::sha256;
use veriscope::engine::{DeviceChoice, Engine, ScanOptions};
use veriscope::face::{Rect, crop, resample::Picture};
use veriscope::models::dinov2::{self, Dinov2};
use veriscope::models::efficientnet_lite::{self, EfficientNetLite};
use veriscope::models::weights::{PrecisionChoice, WeightStore};
use veriscope::report::DetectorKind;

#[path = "common/vit.rs"]
mod vit;

const PICTURE: &str = "demo/label-intact.png";

fn score(weights: &Path, tier: Option<&str>) -> Output {
    let list = weights.join("list.txt");
    std::fs::write(&list, format!("{PICTURE}\n")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(["score", "--detector", "face-swap", "--precropped", "--precision", "f32"])
        .args(tier.map_or_else(Vec::new, |tier| vec!["--tier", tier]))
        .args(["--device", "cpu", "--list"])
        .arg(list)
        .arg("--weights")
        .arg(weights)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The score of the one row.
fn number(output: &Output) -> f32 {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let row = text(&output.stdout).lines().nth(1).unwrap();
    row.split('\t').nth(1).unwrap().parse().unwrap()
}

fn engine(weights: &Path, tier: Tier) -> Engine {
    let options = ScanOptions {
        detectors: vec![DetectorKind::FaceSwap],
        device: DeviceChoice::Cpu,
        tier: Some(tier),
        ..ScanOptions::default()
    };
    Engine::new(options, &WeightStore::open(Some(weights)).unwrap()).unwrap()
}

/// The mean over both networks, of which the large one counts three times, of the mean over four looks: as it is and cut tighter, straight and
/// mirrored, at each network's side and straight from the picture's pixels.
fn expected(weights: &Path) -> f32 {
    let store = WeightStore::open(Some(weights)).unwrap().with_precision(PrecisionChoice::F32);
    let load = |name: &str| store.load(name, &Device::Cpu).unwrap();
    let large = Dinov2::new(&load("dinov2-vit-s14"), &load("face-swap-accurate")).unwrap();
    let light = EfficientNetLite::new(&load("face-swap-fast")).unwrap();
    let logits = |x: &Tensor, side: usize| {
        let output = if side == dinov2::SIZE { large.forward(x) } else { light.forward(x) };
        output.unwrap().logits[0]
    };
    let frame = first_frame();
    let picture = Picture::new(frame.width, frame.height, &frame.rgb).unwrap();
    let (w, h) = (frame.width as f32, frame.height as f32);
    let (x, y) = ((w / 28.0).round(), (h / 28.0).round());
    let mut sum = 0.0;
    for side in [dinov2::SIZE, efficientnet_lite::SIZE] {
        for rect in
            [Rect { x0: 0.0, y0: 0.0, x1: w, y1: h }, Rect { x0: x, y0: y, x1: w - x, y1: h - y }]
        {
            let values: Vec<f32> = crop::cut(picture, rect, side)
                .chunks_exact(3)
                .flat_map(|p| {
                    let at =
                        |c: usize| (f32::from(p[c]) / 255.0 - dinov2::MEAN[c]) / dinov2::STD[c];
                    [at(0), at(1), at(2)]
                })
                .collect();
            let straight = Tensor::from_vec(values, (1, side, side, 3), &Device::Cpu).unwrap();
            let order: Vec<u32> = (0..side as u32).rev().collect();
            let order = Tensor::from_vec(order, side, &Device::Cpu).unwrap();
            let mirrored = straight.index_select(&order, 2).unwrap();
            let share = if side == dinov2::SIZE { 0.75 } else { 0.25 };
            sum += share * (logits(&straight, side) + logits(&mirrored, side)) / 4.0;
        }
    }
    sum
}

fn first_frame() -> veriscope::media::Frame {
    use veriscope::media::{DecodeOptions, Event, Limits, Source};
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE);
    let source = Source::open(&path, &Limits::default()).unwrap();
    let options = DecodeOptions { fps: 1.0, video: true, audio: false, threads: 1, hardware: None };
    let mut first = None;
    source
        .decode(&options, &mut |event| {
            if let Event::Frame(frame) = event {
                first = Some(frame);
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    first.unwrap()
}

#[test]
fn a_tier_chooses_the_networks_and_their_crops() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path();
    vit::weights(weights);
    let accurate = number(&score(weights, Some("accurate")));
    assert!((accurate - expected(weights)).abs() < 1e-4, "{accurate}");
    let fast = number(&score(weights, Some("fast")));
    assert!((fast - accurate).abs() > 1e-3, "{fast} {accurate}");
    // The better one where nothing is said.
    assert_eq!(number(&score(weights, None)), accurate);

    // What is stored of one tier is not taken for the other's, nor with another base.
    let of = |tier| engine(weights, tier).fingerprint();
    let (fast, accurate) = (of(Tier::Fast), of(Tier::Accurate));
    assert_ne!(fast, accurate);
    assert_eq!(accurate, of(Tier::Accurate));
    let file = weights.join("dinov2-vit-s14.safetensors");
    let mut base = std::fs::read(&file).unwrap();
    *base.last_mut().unwrap() ^= 1;
    let manifest = std::fs::read_to_string(weights.join("manifest.toml")).unwrap();
    let store = WeightStore::open(Some(weights)).unwrap();
    let old = store.entry("dinov2-vit-s14").unwrap().sha256.clone();
    let new = sha256(&base);
    std::fs::write(&file, &base).unwrap();
    std::fs::write(weights.join("manifest.toml"), manifest.replace(&old, &new)).unwrap();
    assert_ne!(of(Tier::Accurate), accurate);
    assert_eq!(of(Tier::Fast), fast);
}

#[test]
fn a_report_names_the_tier_and_all_weights() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    let output = Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(["scan", "--format", "jsonl", "--detectors", "face-swap", "--tier", "accurate"])
        .args(["--device", "cpu", PICTURE, "--weights"])
        .arg(folder.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value =
        serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    let engine = &report["engine"];
    assert_eq!(engine["options"]["tier"], "accurate");
    let names: Vec<&String> = engine["weights"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["dinov2-vit-s14", "face-swap-accurate", "face-swap-fast", "yunet"]);
}

/// Start and end of each judged picture of the demo's face, in milliseconds.
fn windows(weights: &Path, tier: &str) -> Vec<(i64, i64)> {
    let output = Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(["scan", "--format", "jsonl", "--detectors", "face-swap", "--tier", tier])
        .args(["--device", "cpu", "demo/talking-head.mp4", "--weights"])
        .arg(weights)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let windows = report["tracks"][0]["windows"].as_array().unwrap();
    let time = |w: &serde_json::Value, at: &str| w[at].as_i64().unwrap();
    windows.iter().map(|w| (time(w, "start_ms"), time(w, "end_ms"))).collect()
}

#[test]
fn the_large_network_looks_at_every_other_picture() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    let (fast, accurate) = (windows(folder.path(), "fast"), windows(folder.path(), "accurate"));
    let every_other: Vec<i64> = fast.iter().step_by(2).map(|w| w.0).collect();
    assert_eq!(accurate.iter().map(|w| w.0).collect::<Vec<_>>(), every_other);
    // Each stands for the time up to the next.
    assert!(accurate.windows(2).all(|pair| (pair[1].0 - pair[0].1).abs() <= 50), "{accurate:?}");
}

#[test]
fn a_base_that_is_not_installed_is_one_line_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path();
    vit::weights(weights);
    std::fs::remove_file(weights.join("dinov2-vit-s14.safetensors")).unwrap();
    let output = score(weights, Some("accurate"));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.lines().count() == 1 && said.contains("`scripts/setup`"), "{said}");
    assert!(said.contains("dinov2-vit-s14.safetensors") && output.stdout.is_empty(), "{said}");
    // Nothing else needs it; where no tier was asked for, the fast one runs and says why.
    let fast = number(&score(weights, Some("fast")));
    let chosen = score(weights, None);
    assert_eq!(number(&chosen), fast);
    let said = text(&chosen.stderr);
    assert!(said.lines().count() == 1 && said.contains("`scripts/setup`"), "{said}");
    assert!(said.contains("light network"), "{said}");
    // A file that is there and broken is no reason to take another network.
    std::fs::write(weights.join("dinov2-vit-s14.safetensors"), b"broken").unwrap();
    let output = score(weights, None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("dinov2-vit-s14.safetensors"));
    std::fs::remove_file(weights.join("dinov2-vit-s14.safetensors")).unwrap();
    let verified = Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(["weights", "verify", "--weights"])
        .arg(weights)
        .output()
        .unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("not installed, scripts/setup installs it"));
}
