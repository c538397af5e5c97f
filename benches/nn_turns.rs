//! Runs one network once for each line `NETWORK PRECISION BATCH [HEIGHT WIDTH]` on stdin and answers with
//! the milliseconds that it took, so that another runtime can be measured in turns with it
//! (`scripts/bench/nn.py`). Input is noise from a fixed seed; an input is made once.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{Device, Tensor};
use veriscope::models::dinov2::{self, Dinov2};
use veriscope::models::efficientnet_lite::{self, EfficientNetLite};
use veriscope::models::silero_vad::{CHUNK, SileroVad, VadState};
use veriscope::models::speaker_encoder::SpeakerEncoder;
use veriscope::models::voice_cnn::VoiceCnn;
use veriscope::models::weights::{PrecisionChoice, WeightStore, WeightsError};
use veriscope::models::whisper_encoder::WhisperEncoder;
use veriscope::models::yunet::YuNet;
use veriscope::nn::Precision;
use veriscope::speech::{features, log_mel, mel};

type Failure = Box<dyn std::error::Error>;

fn noise(shape: &[usize], scale: f32) -> Result<Tensor, Failure> {
    let mut seed = 1u32;
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 * scale
        })
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

struct Networks {
    yunet: YuNet,
    face: EfficientNetLite,
    voice: VoiceCnn,
    vad: SileroVad,
    speaker: SpeakerEncoder,
    /// Those of tier accurate, where the manifest has them and their base is installed.
    accurate: Option<Dinov2>,
    accurate_voice: Option<WhisperEncoder>,
}

impl Networks {
    fn load(precision: PrecisionChoice) -> Result<Self, Failure> {
        let store = WeightStore::open(None)?.with_precision(precision);
        let load = |name: &str| store.load(name, &Device::Cpu);
        let with_base = |name: &str| match store.load_base(name, &Device::Cpu) {
            Ok(base) => Ok(Some((base, load(name)?))),
            Err(WeightsError::NoEntry { .. } | WeightsError::NotInstalled { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let face = with_base("face-swap-accurate")?;
        let voice = with_base("voice-clone-accurate")?;
        Ok(Self {
            accurate: face.map(|(base, ours)| Dinov2::new(&base, &ours)).transpose()?,
            accurate_voice: voice
                .map(|(base, ours)| WhisperEncoder::new(&base, &ours))
                .transpose()?,
            yunet: YuNet::new(&load("yunet")?)?,
            face: EfficientNetLite::new(&load("face-swap-fast")?)?,
            voice: VoiceCnn::new(&load("voice-clone-fast")?)?,
            vad: SileroVad::new(&load("silero-vad")?)?,
            speaker: SpeakerEncoder::new(&load("speaker-encoder")?)?,
        })
    }
}

fn main() -> Result<(), Failure> {
    let f32 = Networks::load(PrecisionChoice::F32)?;
    let bf16 = Networks::load(PrecisionChoice::Bf16)?;
    let mut inputs: HashMap<String, Tensor> = HashMap::new();
    let stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [network, precision, numbers @ ..] = words.as_slice() else { continue };
        let networks = match *precision {
            "f32" => &f32,
            "bf16" if Precision::Bf16.here() == Precision::Bf16 => &bf16,
            _ => return Err(format!("cannot run `{line}` on this machine").into()),
        };
        let numbers = numbers.iter().map(|w| w.parse()).collect::<Result<Vec<usize>, _>>()?;
        let (shape, scale) = match (*network, numbers.as_slice()) {
            ("yunet", [n, h, w]) => (vec![*n, *h, *w, 3], 255.0),
            ("face-swap-fast", [n]) => {
                (vec![*n, efficientnet_lite::SIZE, efficientnet_lite::SIZE, 3], 1.0)
            }
            ("face-swap-accurate", [n]) if networks.accurate.is_some() => {
                (vec![*n, dinov2::SIZE, dinov2::SIZE, 3], 1.0)
            }
            ("voice-clone-fast", [n]) => (vec![*n, features::BANDS, features::FRAMES, 1], 1.0),
            ("voice-clone-accurate", [n]) if networks.accurate_voice.is_some() => {
                (vec![*n, 1, log_mel::FRAMES, log_mel::BANDS], 1.0)
            }
            ("silero-vad", [n]) => (vec![*n * CHUNK], 0.1),
            // 2 s, a frame every 10 ms.
            ("speaker-encoder", [n]) => (vec![*n, 201, mel::BANDS], 0.1),
            _ => return Err(format!("cannot run `{line}`").into()),
        };
        if !inputs.contains_key(&line) {
            inputs.insert(line.clone(), noise(&shape, scale)?);
        }
        let Some(x) = inputs.get(&line) else { continue };
        let wave = if *network == "silero-vad" { x.to_vec1::<f32>()? } else { Vec::new() };
        let start = Instant::now();
        match *network {
            "face-swap-accurate" => {
                drop(black_box(networks.accurate.as_ref().map(|net| net.forward(x)).transpose()?));
            }
            "voice-clone-accurate" => {
                let voice = networks.accurate_voice.as_ref();
                drop(black_box(voice.map(|net| net.forward_features(x)).transpose()?));
            }
            "yunet" => drop(black_box(networks.yunet.forward(x, 0.6)?)),
            "face-swap-fast" => drop(black_box(networks.face.forward(x)?)),
            "silero-vad" => drop(black_box(networks.vad.forward(&wave, &mut VadState::default())?)),
            "speaker-encoder" => drop(black_box(networks.speaker.forward_mel(x)?)),
            _ => drop(black_box(networks.voice.forward_features(x)?)),
        }
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        writeln!(stdout.lock(), "{elapsed:.4}")?;
        stdout.lock().flush()?;
    }
    Ok(())
}
