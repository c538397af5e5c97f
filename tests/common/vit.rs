//! Made-up weights for tier `accurate`, by the formula of `scripts/train/face_swap/golden_vit.py`:
//! the tests need neither the base, which does not ship, nor trained weights.
#![allow(dead_code)] // Each test file uses its own part.

use std::fmt::Write as _;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};
use veriscope::models::{Shapes, dinov2};

/// -1..1, by splitmix64 from a seed that is the name's FNV-1a hash.
pub fn values(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (1..=count as u64)
        .map(|i| {
            let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let z = z ^ (z >> 31);
            (z >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// A weights file in f16.
fn file(which: &str, shapes: Shapes) -> Vec<u8> {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let (scale, offset) = if name.ends_with("bias") {
                (0.1, 0.0)
            } else if name.contains("norm") {
                (0.2, 1.0)
            } else if name.contains("scale") {
                (0.3, 0.5)
            } else if name == "token" || name == "positions" {
                (1.0, 0.0)
            } else if name.ends_with(".up") {
                (0.1, 0.0)
            } else {
                (1.7 / (shape[1..].iter().product::<usize>() as f64).sqrt(), 0.0)
            };
            let bytes = values(&format!("{which}/{name}"), shape.iter().product())
                .into_iter()
                .flat_map(|u| half::f16::from_f32(u * scale as f32 + offset).to_le_bytes())
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F16, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a weights folder: what ships, and both files of tier `accurate` with their entries in the
/// manifest.
pub fn weights(folder: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    for name in ["yunet", "silero-vad", "face-swap-fast", "voice-clone-fast", "speaker-encoder"] {
        let name = format!("{name}.safetensors");
        std::fs::copy(shipped.join(&name), folder.join(&name)).unwrap();
    }
    let manifest = std::fs::read_to_string(shipped.join("manifest.toml")).unwrap();
    let mut table: toml::Table = toml::from_str(&manifest).unwrap();
    // Those that ship, or will, give way to the made-up ones.
    table.remove("face-swap-accurate");
    table.remove("dinov2-vit-s14");
    let mut manifest = toml::to_string(&table).unwrap();
    for (name, network, shapes, more) in [
        (
            "dinov2-vit-s14",
            dinov2::BASE,
            dinov2::base_shapes(),
            "installed_by = \"scripts/setup\"\n",
        ),
        (
            "face-swap-accurate",
            dinov2::NETWORK,
            dinov2::shapes(),
            "base = \"dinov2-vit-s14\"\nprecision = \"bf16\"\n\
             [face-swap-accurate.calibration]\nmethod = \"platt\"\na = 1.0\nb = 0.0\n\
             threshold = 0.5\nfitted_on = \"nothing\"\n\
             [face-swap-accurate.domain]\nthreshold = 1.0\nfitted_on = \"nothing\"\n",
        ),
    ] {
        let which = if name == "dinov2-vit-s14" { "base" } else { "ours" };
        let bytes = file(which, shapes);
        let sha256 = sha256(&bytes);
        write!(
            manifest,
            "\n[{name}]\nfile = \"{name}.safetensors\"\nsha256 = \"{sha256}\"\nbytes = {}\n\
             network = \"{network}\"\ninput = \"\"\nlicence = \"\"\norigin = \"\"\n{more}",
            bytes.len()
        )
        .unwrap();
        std::fs::write(folder.join(format!("{name}.safetensors")), bytes).unwrap();
    }
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
}
