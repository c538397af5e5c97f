//! Tiers of voice-clone: which networks run, how they are heard together, and what is said where
//! there is none for the tier.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use veriscope::detect::voice_clone::VoiceClone;
use veriscope::detect::{Detector, Tier};
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::{PrecisionChoice, WeightStore};
use veriscope::models::whisper_encoder::WhisperEncoder;
use veriscope::speech::WINDOW;

#[path = "common/vit.rs"]
mod vit;

fn store(folder: &Path) -> WeightStore {
    WeightStore::open(Some(folder)).unwrap().with_precision(PrecisionChoice::F32)
}

fn windows() -> Vec<Vec<f32>> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/voice_clone_fast.safetensors");
    let wave: &Tensor = &candle_core::safetensors::load(file, &Device::Cpu).unwrap()["wave"];
    let wave = wave.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    wave.chunks(WINDOW).map(<[f32]>::to_vec).collect()
}

fn run(weights: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veriscope"))
        .args(arguments)
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

/// The weights that a scan's report names.
fn scanned(weights: &Path) -> Vec<String> {
    let arguments =
        ["scan", "--format", "jsonl", "--detectors", "voice-clone", "--tier", "accurate"];
    let output =
        run(weights, &[&arguments[..], &["--device", "cpu", "demo/talking-head.mp4"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value =
        serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(report["engine"]["options"]["tier"], "accurate");
    assert_eq!(report["tracks"][0]["kind"], "speech", "{report}");
    report["engine"]["weights"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_accurate_tier_hears_both_networks() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    vit::add_whisper(folder.path());
    let (store, windows) = (store(folder.path()), windows());
    let slices: Vec<&[f32]> = windows.iter().map(Vec::as_slice).collect();
    let load = |name: &str| store.load(name, &Device::Cpu).unwrap();
    let large = WhisperEncoder::new(&load("whisper-tiny-encoder"), &load("voice-clone-accurate"));
    let large = large.unwrap().forward(&slices).unwrap();
    let (large, moments) = (large.logits, large.tokens);
    let light = VoiceCnn::new(&load("voice-clone-fast")).unwrap().forward(&slices).unwrap();

    let both = VoiceClone::load(&store, &Device::Cpu, Tier::Accurate).unwrap();
    assert_eq!(both.weights(), "voice-clone-accurate");
    let names: Vec<&str> = both.all_weights().collect();
    assert_eq!(names, ["voice-clone-accurate", "voice-clone-fast"]);
    // The made-up entry's, not the light network's.
    assert_eq!(both.calibration().a, 1.0);
    for (i, score) in both.score(&windows).unwrap().into_iter().enumerate() {
        assert!((score.logit - (large[i] + light[i]) / 2.0).abs() < 1e-5, "{score:?}");
        assert_eq!(score.moments, moments[i]);
        assert!((large[i] - light[i]).abs() > 1e-3);
    }
    let fast = VoiceClone::load(&store, &Device::Cpu, Tier::Fast).unwrap();
    for (score, light) in fast.score(&windows).unwrap().iter().zip(light) {
        assert_eq!((score.logit, score.moments.len()), (light, 0));
    }

    let all = [
        "silero-vad",
        "speaker-encoder",
        "voice-clone-accurate",
        "voice-clone-fast",
        "whisper-tiny-encoder",
    ];
    assert_eq!(scanned(folder.path()), all);
    let doctor = run(folder.path(), &["doctor"]);
    assert!(!text(&doctor.stdout).contains("voice-clone has none"), "{}", text(&doctor.stdout));
}

#[test]
fn without_an_accurate_network_the_light_one_runs_and_doctor_says_so() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    let (store, windows) = (store(folder.path()), windows());
    let tier = |tier| VoiceClone::load(&store, &Device::Cpu, tier).unwrap();
    let (fast, accurate) = (tier(Tier::Fast), tier(Tier::Accurate));
    assert_eq!(accurate.weights(), "voice-clone-fast");
    assert_eq!(accurate.calibration(), fast.calibration());
    assert_eq!(accurate.score(&windows).unwrap(), fast.score(&windows).unwrap());
    // A report says by its weights what ran.
    assert_eq!(scanned(folder.path()), ["silero-vad", "speaker-encoder", "voice-clone-fast"]);
    let doctor = run(folder.path(), &["doctor"]);
    let said =
        "tier accurate  voice-clone has none: its light network runs with --tier accurate too";
    assert!(text(&doctor.stdout).contains(said), "{}", text(&doctor.stdout));
}

#[test]
fn a_base_that_is_not_installed_is_one_line_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    vit::add_whisper(folder.path());
    std::fs::remove_file(folder.path().join("whisper-tiny-encoder.safetensors")).unwrap();
    let store = store(folder.path());
    let load = |tier| VoiceClone::load(&store, &Device::Cpu, tier).map(drop);
    let said = load(Tier::Accurate).unwrap_err().to_string();
    assert!(said.lines().count() == 1 && said.contains("scripts/setup"), "{said}");
    assert!(said.contains("whisper-tiny-encoder.safetensors"), "{said}");
    // The other tier does not need it.
    load(Tier::Fast).unwrap();
}
