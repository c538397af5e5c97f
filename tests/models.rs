//! Every network against what its original answers, on the fixed inputs in tests/golden. The
//! scripts that made those files are scripts/weights/golden_*.py and the `golden.py` beside each
//! training.

#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use veriscope::models::dinov2::{self, Dinov2};
use veriscope::models::domain::Domain;
use veriscope::models::efficientnet_lite::EfficientNetLite;
use veriscope::models::mark_net::{Input, MarkNet};
use veriscope::models::perth::{Perth, SHORTEST};
use veriscope::models::silero_vad::{SileroVad, VadState};
use veriscope::models::speaker_encoder::SpeakerEncoder;
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::{PrecisionChoice, Tensors, WeightStore, WeightsError};
use veriscope::models::whisper_encoder::{TOKENS, WhisperEncoder};
use veriscope::models::yunet::{RawFace, YuNet};
use veriscope::nn::{Precision, sigmoid};
use veriscope::speech::features::{Features, WINDOW};
use veriscope::speech::log_mel::{self, LogMel};
use veriscope::speech::mel::MelSpectrogram;

#[path = "common/vit.rs"]
mod vit;

const TOLERANCE: f32 = 1e-4;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn golden(name: &str) -> HashMap<String, Tensor> {
    let file = Path::new("tests/golden").join(format!("{name}.safetensors"));
    candle_core::safetensors::load(root().join(file), &Device::Cpu).unwrap()
}

fn load(name: &str) -> Tensors {
    load_in(PrecisionChoice::F32, name)
}

fn load_in(precision: PrecisionChoice, name: &str) -> Tensors {
    let store = WeightStore::open(Some(&root().join("weights"))).unwrap();
    store.with_precision(precision).load(name, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Equal to 1e-4, relative where values are greater than 1.
fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_within(TOLERANCE, what, got, want);
}

fn assert_within(tolerance: f32, what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{what}: {i}: {g}, expected {w}");
    }
}

#[test]
fn yunet_answers_as_onnxruntime_does() {
    let golden = golden("yunet");
    let net = YuNet::new(&load("yunet")).unwrap();
    let x = golden["pictures"].to_dtype(DType::F32).unwrap();
    for (level, stride) in net.heads(&x).unwrap().iter().zip([8, 16, 32]) {
        let part = |from: usize, width: usize| flat(&level.narrow(3, from, width).unwrap());
        let probability = |from| part(from, 1).into_iter().map(sigmoid).collect::<Vec<_>>();
        let want = |name: &str| flat(&golden[&format!("{name}_{stride}")]);
        assert_close("class", &probability(0), &want("cls"));
        assert_close("objectness", &probability(1), &want("obj"));
        assert_close("box", &part(2, 4), &want("bbox"));
        assert_close("landmarks", &part(6, 10), &want("kps"));
    }
}

/// `tiled` of scripts/train/marks/golden.py: the picture over and over, each pixel four times.
fn tiled(small: &[u8], (w, h): (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
    let at = |i: usize, all: usize, small: usize| (i / 2).min(all / 2 - 1) % small;
    let cells = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    cells
        .flat_map(|(x, y)| {
            let pixel = (at(y, height, h) * w + at(x, width, w)) * 3;
            small[pixel..pixel + 3].to_vec()
        })
        .collect()
}

#[test]
fn mark_net_answers_as_pytorch_does() {
    let golden = golden("label_strip_marks");
    let net = MarkNet::new(&load("label-strip-marks")).unwrap();
    let [h, w, 3] = *golden["picture"].dims() else { panic!() };
    let small = golden["picture"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let (width, height) = (1461, 1443);
    let large = tiled(&small, (w, h), (width, height));
    for (name, picture, w, h, step) in
        [("logits", &small, w, h, 1), ("large_logits", &large, width, height, 5)]
    {
        let want = &golden[name];
        let marks = net.forward(&[Input::new(picture, w, h).unwrap()]).unwrap().remove(0);
        for (channel, got) in [&marks.erased, &marks.present].into_iter().enumerate() {
            let cells = (0..marks.rows).step_by(step);
            let cells = cells
                .flat_map(|y| (0..marks.columns).step_by(step).map(move |x| (x, y)))
                .map(|(x, y)| got[y * marks.columns + x]);
            let want = flat(&want.get(channel).unwrap());
            assert_within(1e-3, name, &cells.collect::<Vec<_>>(), &want);
        }
    }
}

#[test]
fn yunet_decodes_as_opencv_does() {
    let golden = golden("yunet");
    let net = YuNet::new(&load("yunet")).unwrap();
    let x = golden["pictures"].to_dtype(DType::F32).unwrap();
    for (i, mut faces) in net.forward(&x, 0.3).unwrap().into_iter().enumerate() {
        faces.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut want = golden[&format!("faces_{i}")].to_vec2::<f32>().unwrap();
        want.sort_by(|a, b| b[14].total_cmp(&a[14]));
        assert_eq!(faces.len(), want.len());
        assert!(!faces.is_empty());
        for (face, want) in faces.iter().zip(want) {
            let mut got = vec![face.x, face.y, face.width, face.height];
            got.extend(face.landmarks.iter().flatten());
            got.push(face.score);
            assert_close("face", &got, &want);
        }
    }
}

#[test]
fn yunet_gives_a_picture_the_same_faces_in_any_batch() {
    let net = YuNet::new(&load("yunet")).unwrap();
    let x = golden("yunet")["pictures"].to_dtype(DType::F32).unwrap();
    let together = net.forward(&x, 0.0).unwrap();
    for (i, faces) in together.iter().enumerate() {
        let alone: Vec<Vec<RawFace>> = net.forward(&x.narrow(0, i, 1).unwrap(), 0.0).unwrap();
        assert_eq!(alone.as_slice(), std::slice::from_ref(faces));
    }
}

#[test]
fn yunet_refuses_pictures_of_other_shapes() {
    let net = YuNet::new(&load("yunet")).unwrap();
    for shape in [vec![1, 33, 64, 3], vec![1, 64, 64, 1], vec![64, 64, 3], vec![1, 0, 64, 3]] {
        let x = Tensor::zeros(shape.clone(), DType::F32, &Device::Cpu).unwrap();
        let text = net.forward(&x, 0.5).unwrap_err().to_string();
        assert!(text.contains("yunet") && text.contains(&format!("{shape:?}")), "{text}");
    }
}

#[test]
fn silero_vad_answers_as_onnxruntime_does() {
    let golden = golden("silero_vad");
    let net = SileroVad::new(&load("silero-vad")).unwrap();
    let mut state = VadState::default();
    let mut got = net.forward(&flat(&golden["wave"]), &mut state).unwrap();
    got.extend(net.finish(&mut state).unwrap());
    let want = flat(&golden["probabilities"]);
    assert!(want.iter().any(|p| *p > 0.5) && want.iter().any(|p| *p < 0.1));
    assert_close("speech", &got, &want);
}

#[test]
fn silero_vad_gives_the_same_bits_however_the_stream_is_cut() {
    let net = SileroVad::new(&load("silero-vad")).unwrap();
    let wave = flat(&golden("silero_vad")["wave"]);
    // Long enough for several batches of chunks.
    let wave: Vec<f32> = wave.iter().copied().cycle().take(300 * 512 + 100).collect();
    let run = |pieces: &[usize]| {
        let (mut state, mut rest, mut all) = (VadState::default(), wave.as_slice(), Vec::new());
        for n in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at((*n).min(rest.len()));
            all.extend(net.forward(piece, &mut state).unwrap());
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        all.extend(net.finish(&mut state).unwrap());
        all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let whole = run(&[usize::MAX]);
    assert_eq!(whole.len(), 301);
    assert_eq!(run(&[512]), whole);
    assert_eq!(run(&[1, 700, 63, 5000, 511]), whole);
}

#[test]
fn silero_vad_ends_a_stream_only_where_samples_are_left() {
    let net = SileroVad::new(&load("silero-vad")).unwrap();
    let mut state = VadState::default();
    assert_eq!(net.finish(&mut state).unwrap(), None);
    assert_eq!(net.forward(&[0.0; 1024], &mut state).unwrap().len(), 2);
    assert_eq!(net.finish(&mut state).unwrap(), None);
    assert_eq!(net.forward(&[0.0; 511], &mut state).unwrap().len(), 0);
    assert!(net.finish(&mut state).unwrap().is_some());
}

/// NCHW, as PyTorch has it, to NHWC.
fn channels_last(t: &Tensor) -> Tensor {
    t.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

#[test]
fn the_face_swap_network_answers_as_pytorch_does() {
    let golden = golden("face_swap_fast");
    let net = EfficientNetLite::new(&load("face-swap-fast")).unwrap();
    let x = channels_last(&golden["input"]);
    let output = net.forward(&x).unwrap();
    assert_close("logits", &output.logits, &flat(&golden["output"]));
    assert_eq!(output.side, 9);
    assert_close("cells", &output.cells.concat(), &flat(&golden["cells"]));
    assert_close("features", &output.features.concat(), &flat(&golden["features"]));
    let alone = net.forward(&x.narrow(0, 1, 1).unwrap()).unwrap();
    assert_eq!(alone.logits[0].to_bits(), output.logits[1].to_bits());
    assert_eq!((&alone.cells[0], &alone.features[0]), (&output.cells[1], &output.features[1]));
    let domain = Domain::new(&load("face-swap-fast"), 1.0).unwrap();
    let distances: Vec<f32> = output.features.iter().map(|f| domain.distance(f)).collect();
    assert_close("distance", &distances, &flat(&golden["distance"]));
    assert!(
        (Domain::new(&load("face-swap-fast"), 2.0).unwrap().distance(&output.features[0])
            - distances[0] / 2.0)
            .abs()
            < 1e-4 * distances[0]
    );
    assert!(Domain::new(&load("face-swap-fast"), 0.0).is_err());
    let text = net.forward(&golden["input"]).unwrap_err().to_string();
    assert!(text.contains("[2, 3, 144, 144]"), "{text}");
}

#[test]
fn the_voice_clone_network_answers_as_pytorch_does() {
    let golden = golden("voice_clone_fast");
    let net = VoiceCnn::new(&load("voice-clone-fast")).unwrap();
    let waves = flat(&golden["wave"]);
    let windows: Vec<&[f32]> = waves.chunks(WINDOW).collect();
    let features = Features::new().batch(&windows).unwrap();
    // Next to the floor of the logarithm PyTorch's f32 Fourier transform is off by up to 4e-4 (ours
    // by less; both against f64). What the network makes of it still agrees to 1e-4.
    assert_within(1e-3, "features", &features, &flat(&golden["features"]));
    let want = flat(&golden["output"]);
    let alone = net.forward_features(&channels_last(&golden["features"])).unwrap();
    assert_close("network", &alone, &want);
    let logits = net.forward(&windows).unwrap();
    assert_close("logits", &logits, &want);
    let second = net.forward(&windows[1..]).unwrap();
    assert_eq!(second[0].to_bits(), logits[1].to_bits());
    assert!(net.forward(&[&waves[..100]]).is_err());
}

/// Weights in f16 against the package's own in f32: hence not to 1e-4.
#[test]
fn the_speaker_network_answers_as_its_package_does() {
    let golden = golden("speaker_encoder");
    let net = SpeakerEncoder::new(&load("speaker-encoder")).unwrap();
    let waves = golden["wave"].to_vec2::<f32>().unwrap();
    let windows: Vec<&[f32]> = waves.iter().map(Vec::as_slice).collect();
    let mel = MelSpectrogram::new().batch(&windows).unwrap();
    assert_close("mel", &mel, &flat(&golden["mel"]));
    let embeddings = net.forward(&windows).unwrap();
    assert_within(1e-3, "embeddings", &embeddings.concat(), &flat(&golden["embedding"]));
    let likeness = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (ours, theirs) in embeddings.iter().zip(golden["embedding"].to_vec2::<f32>().unwrap()) {
        assert!(likeness(ours, &theirs) > 0.99999);
        assert!((likeness(ours, ours) - 1.0).abs() < 1e-5);
    }
    // Every bit is the same whatever a window travels with.
    let many: Vec<&[f32]> = windows.iter().copied().cycle().take(19).collect();
    for (i, embedding) in net.forward(&many).unwrap().iter().enumerate() {
        assert_eq!(embedding, &embeddings[i % 2]);
    }
    assert_eq!(net.forward(&windows[1..]).unwrap()[0], embeddings[1]);
    assert!(net.forward(&[]).unwrap().is_empty());
    assert!(net.forward(&[&[0.0; 32_000]]).unwrap()[0].iter().all(|v| v.is_finite()));
    let text = net.forward(&[windows[0], &windows[1][1..]]).unwrap_err().to_string();
    assert!(text.contains("32000") && text.contains("31999"), "{text}");

    let rounded = SpeakerEncoder::new(&load_in(PrecisionChoice::Bf16, "speaker-encoder")).unwrap();
    for (exact, rounded) in embeddings.iter().zip(rounded.forward(&windows).unwrap()) {
        println!("bf16: {}", likeness(exact, &rounded));
        assert!(likeness(exact, &rounded) > 0.995);
    }
}

/// The package clips its answers to 0..1, too.
#[test]
fn the_detector_of_perth_answers_as_its_package_does() {
    let store = WeightStore::open(Some(&root().join("weights"))).unwrap();
    if let Some(missing @ WeightsError::NotInstalled { .. }) = store.missing("perth") {
        println!("not run: {missing}");
        return;
    }
    let golden = golden("perth");
    let net = Perth::new(&load("perth")).unwrap();
    let waves = golden["wave"].to_vec2::<f32>().unwrap();
    let stretches: Vec<&[f32]> = waves.iter().map(Vec::as_slice).collect();
    let scores = net.forward(&stretches).unwrap();
    let found: Vec<f32> = scores.iter().map(|s| s.unwrap().clamp(0.0, 1.0)).collect();
    println!("{found:?} {:?}", flat(&golden["score"]));
    assert_within(1e-3, "scores", &found, &flat(&golden["score"]));
    let odd = net.forward(&[&waves[1][3..waves[1].len() - 4_444]]).unwrap();
    assert_within(
        1e-3,
        "another length",
        &[odd[0].unwrap().clamp(0.0, 1.0)],
        &flat(&golden["odd"]),
    );
    // Every bit is the same whatever a stretch travels with.
    assert_eq!(net.forward(&stretches[2..]).unwrap(), scores[2..]);

    assert_eq!(net.forward(&[&[0.0; 9_000]]).unwrap(), [None]);
    for strange in [f32::NAN, f32::INFINITY, 1e30] {
        let mut wave = waves[0].clone();
        wave[10_000] = strange;
        net.forward(&[&wave]).unwrap();
    }
    let text = net.forward(&[&[0.1; SHORTEST - 1]]).unwrap_err().to_string();
    assert!(text.contains("1599 samples"), "{text}");
}

/// How far, says the model card; here only that bf16 is on where the machine has it, and that it
/// rounds and does nothing else.
#[test]
fn the_networks_answer_in_bf16_nearly_as_in_f32() {
    let face = golden("face_swap_fast");
    let x = channels_last(&face["input"]);
    let voice = golden("voice_clone_fast");
    let wave = flat(&voice["wave"]);
    let windows: Vec<&[f32]> = wave.chunks(WINDOW).collect();
    let answers = |precision| {
        let face = EfficientNetLite::new(&load_in(precision, "face-swap-fast")).unwrap();
        let voice = VoiceCnn::new(&load_in(precision, "voice-clone-fast")).unwrap();
        [face.forward(&x).unwrap().logits, voice.forward(&windows).unwrap()]
    };
    let exact = answers(PrecisionChoice::F32);
    let rounded = answers(PrecisionChoice::Auto);
    let has_bf16 = Precision::Bf16.here() == Precision::Bf16;
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let off = exact.iter().zip(rounded).map(|(e, r)| (e - r).abs()).fold(0.0, f32::max);
        assert!(off < 0.2, "logits are off by {off}");
        assert_eq!(off > 0.0, has_bf16, "logits are off by {off}");
    }
}

fn accurate(folder: &Path, precision: PrecisionChoice) -> Dinov2 {
    let store = WeightStore::open(Some(folder)).unwrap().with_precision(precision);
    let load = |name: &str| store.load(name, &Device::Cpu).unwrap();
    Dinov2::new(&load("dinov2-vit-s14"), &load("face-swap-accurate")).unwrap()
}

/// With weights that Python and this test make up alike: base and difference.
#[test]
fn the_accurate_face_swap_network_answers_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    let golden = golden("face_swap_accurate");
    let (n, size) = (2, dinov2::SIZE);
    let x = vit::values("input", n * size * size * 3).into_iter().map(|v| v * 1.5).collect();
    let x = Tensor::from_vec(x, (n, size, size, 3), &Device::Cpu).unwrap();

    let net = accurate(folder.path(), PrecisionChoice::F32);
    let exact = net.forward(&x).unwrap();
    assert_eq!(exact.side, 12);
    assert_close("logits", &exact.logits, &flat(&golden["logits"]));
    assert_close("cells", &exact.cells.concat(), &flat(&golden["cells"]));
    assert_close("features", &exact.features.concat(), &flat(&golden["features"]));
    // Every bit is the same whatever an input travels with: also three, of which two go to a
    // thread each and one is shared.
    let three = Tensor::cat(&[&x.narrow(0, 1, 1).unwrap(), &x], 0).unwrap();
    let three = net.forward(&three).unwrap();
    let alone = net.forward(&x.narrow(0, 1, 1).unwrap()).unwrap();
    for (i, of) in [(0, 1), (1, 0), (2, 1)] {
        assert_eq!(three.logits[i].to_bits(), exact.logits[of].to_bits());
        assert_eq!(three.cells[i], exact.cells[of]);
        assert_eq!(three.features[i], exact.features[of]);
    }
    assert_eq!((alone.logits[0], &alone.cells[0]), (exact.logits[1], &exact.cells[1]));
    let text = net.forward(&x.narrow(1, 0, 144).unwrap()).unwrap_err().to_string();
    assert!(text.contains("[2, 144, 168, 3]"), "{text}");

    let rounded = accurate(folder.path(), PrecisionChoice::Auto).forward(&x).unwrap();
    let has_bf16 = Precision::Bf16.here() == Precision::Bf16;
    for (exact, rounded) in [
        (exact.logits, rounded.logits),
        (exact.cells.concat(), rounded.cells.concat()),
        (exact.features.concat(), rounded.features.concat()),
    ] {
        assert_within(0.2, "bf16", &rounded, &exact);
        assert_eq!(rounded != exact, has_bf16);
    }
}

fn accurate_voice(folder: &Path, precision: PrecisionChoice) -> WhisperEncoder {
    let store = WeightStore::open(Some(folder)).unwrap().with_precision(precision);
    let load = |name: &str| store.load(name, &Device::Cpu).unwrap();
    WhisperEncoder::new(&load("whisper-tiny-encoder"), &load("voice-clone-accurate")).unwrap()
}

/// With weights that Python and this test make up alike: base and difference.
#[test]
fn the_accurate_voice_clone_network_answers_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    vit::weights(folder.path());
    vit::add_whisper(folder.path());
    let golden_voice = golden("voice_clone_accurate");
    let waves = flat(&golden("voice_clone_fast")["wave"]);
    let windows: Vec<&[f32]> = waves.chunks(WINDOW).collect();
    let mel = golden_voice["mel"].transpose(1, 2).unwrap().contiguous().unwrap();
    // Where a band holds 80 dB less than the loudest, rounding of both f32 Fourier transforms shows.
    let found = LogMel::new().batch(&windows).unwrap();
    assert_within(5e-4, "mel", &found, &flat(&mel));

    let net = accurate_voice(folder.path(), PrecisionChoice::F32);
    let shape = (2, 1, log_mel::FRAMES, log_mel::BANDS);
    let alone = net.forward_features(&mel.reshape(shape).unwrap()).unwrap();
    assert_close("logits", &alone.logits, &flat(&golden_voice["logits"]));
    assert_close("tokens", &alone.tokens.concat(), &flat(&golden_voice["tokens"]));
    assert_close("features", &alone.features.concat(), &flat(&golden_voice["features"]));
    assert_eq!(alone.tokens[0].len(), TOKENS);

    let exact = net.forward(&windows).unwrap();
    assert_within(1e-3, "logits", &exact.logits, &flat(&golden_voice["logits"]));
    assert_within(1e-3, "tokens", &exact.tokens.concat(), &flat(&golden_voice["tokens"]));
    // Every bit is the same whatever a window travels with: also three, of which two go to a thread
    // each and one is shared.
    let three = net.forward(&[windows[1], windows[0], windows[1]]).unwrap();
    for (i, of) in [(0, 1), (1, 0), (2, 1)] {
        assert_eq!(three.logits[i].to_bits(), exact.logits[of].to_bits());
        assert_eq!(three.tokens[i], exact.tokens[of]);
        assert_eq!(three.features[i], exact.features[of]);
    }
    assert!(net.forward(&[&waves[..100]]).is_err());
    let text = net.forward_features(&mel).unwrap_err().to_string();
    assert!(text.contains("[2, 400, 80]"), "{text}");

    let rounded = accurate_voice(folder.path(), PrecisionChoice::Auto).forward(&windows).unwrap();
    let has_bf16 = Precision::Bf16.here() == Precision::Bf16;
    for (exact, rounded) in [
        (exact.logits, rounded.logits),
        (exact.tokens.concat(), rounded.tokens.concat()),
        (exact.features.concat(), rounded.features.concat()),
    ] {
        assert_within(0.2, "bf16", &rounded, &exact);
        assert_eq!(rounded != exact, has_bf16);
    }
}

/// The bases do not ship; where `scripts/setup` has installed them, they are whole.
#[test]
fn the_installed_bases_load() {
    let store = WeightStore::open(Some(&root().join("weights"))).unwrap();
    for (name, tensor) in [("dinov2-vit-s14", "token"), ("whisper-tiny-encoder", "norm.weight")] {
        match store.load(name, &Device::Cpu) {
            Ok(base) => {
                let values = flat(base.get(tensor).unwrap());
                assert!(values.len() == 384 && values.iter().all(|v| v.is_finite()));
            }
            Err(WeightsError::NotInstalled { file, command }) => {
                assert_eq!(command, "scripts/setup");
                println!("skipped: {} is not installed ({command})", file.display());
            }
            Err(other) => panic!("{other}"),
        }
    }
}
