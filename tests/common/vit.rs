//! Made-up weights for tier `accurate`, by the formula of `scripts/train/made_up.py`: the tests need
//! neither the bases, which do not ship, nor trained weights.
#![allow(dead_code)] // Each test file uses its own part.

use std::fmt::Write as _;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use veriscope::digest::sha256;
use veriscope::models::{Shapes, dinov2, whisper_encoder};

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

/// An entry of the manifest that is made up, with its file.
struct MadeUp {
    name: &'static str,
    network: &'static str,
    /// Which of the formula's files it is.
    which: &'static str,
    shapes: Shapes,
    /// The base it stands on, of which it is known how it is installed.
    base: Option<&'static str>,
    has_domain: bool,
}

impl MadeUp {
    fn write(self, folder: &Path, manifest: &mut String) {
        let Self { name, network, which, shapes, base, has_domain } = self;
        let bytes = file(which, shapes);
        let sha256 = sha256(&bytes);
        write!(
            manifest,
            "\n[{name}]\nfile = \"{name}.safetensors\"\nsha256 = \"{sha256}\"\nbytes = {}\n\
             network = \"{network}\"\ninput = \"\"\nlicence = \"\"\norigin = \"\"\n",
            bytes.len()
        )
        .unwrap();
        match base {
            None => manifest.push_str("installed_by = \"scripts/setup\"\n"),
            Some(base) => write!(
                manifest,
                "base = \"{base}\"\nprecision = \"bf16\"\n\
                 [{name}.calibration]\nmethod = \"platt\"\na = 1.0\nb = 0.0\n\
                 threshold = 0.5\nfitted_on = \"nothing\"\n"
            )
            .unwrap(),
        }
        if has_domain {
            write!(manifest, "[{name}.domain]\nthreshold = 1.0\nfitted_on = \"nothing\"\n")
                .unwrap();
        }
        std::fs::write(folder.join(format!("{name}.safetensors")), bytes).unwrap();
    }
}

/// Writes a weights folder: what ships, and both files of face-swap's tier `accurate` with their
/// entries in the manifest, which has none for voice-clone's.
pub fn weights(folder: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    for name in [
        "yunet",
        "silero-vad",
        "face-swap-fast",
        "voice-clone-fast",
        "speaker-encoder",
        "label-strip-marks",
    ] {
        let name = format!("{name}.safetensors");
        std::fs::copy(shipped.join(&name), folder.join(&name)).unwrap();
    }
    let manifest = std::fs::read_to_string(shipped.join("manifest.toml")).unwrap();
    let mut table: toml::Table = toml::from_str(&manifest).unwrap();
    // Those that ship, or will, give way to the made-up ones.
    for name in
        ["face-swap-accurate", "dinov2-vit-s14", "voice-clone-accurate", "whisper-tiny-encoder"]
    {
        table.remove(name);
    }
    let mut manifest = toml::to_string(&table).unwrap();
    let base = MadeUp {
        name: "dinov2-vit-s14",
        network: dinov2::BASE,
        which: "base",
        shapes: dinov2::base_shapes(),
        base: None,
        has_domain: false,
    };
    let ours = MadeUp {
        name: "face-swap-accurate",
        network: dinov2::NETWORK,
        which: "ours",
        shapes: dinov2::shapes(),
        base: Some("dinov2-vit-s14"),
        has_domain: true,
    };
    base.write(folder, &mut manifest);
    ours.write(folder, &mut manifest);
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
}

/// Adds both files of voice-clone's tier `accurate` to a folder of [`weights`].
pub fn add_whisper(folder: &Path) {
    let path = folder.join("manifest.toml");
    let mut manifest = std::fs::read_to_string(&path).unwrap();
    let base = MadeUp {
        name: "whisper-tiny-encoder",
        network: whisper_encoder::BASE,
        which: "base",
        shapes: whisper_encoder::base_shapes(),
        base: None,
        has_domain: false,
    };
    let ours = MadeUp {
        name: "voice-clone-accurate",
        network: whisper_encoder::NETWORK,
        which: "ours",
        shapes: whisper_encoder::shapes(),
        base: Some("whisper-tiny-encoder"),
        has_domain: false,
    };
    base.write(folder, &mut manifest);
    ours.write(folder, &mut manifest);
    std::fs::write(path, manifest).unwrap();
}
