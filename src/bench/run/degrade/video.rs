//! Videos, by `ffmpeg`. The first stream of pictures, and all sound as decoded (copied packets would bring
//! their encoder's delay along), go into Matroska.

use std::path::Path;

use super::ffmpeg::Call;
use super::{Degradation, Family, Fault, Maker, Original};

/// Encoders take even sides only.
const EVEN: &str = "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0";
/// Nothing else is lost: what is measured is the filter.
const LOSSLESS: [&str; 6] = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0"];

/// False: it was stopped.
pub(super) fn make(
    degradation: Degradation,
    original: Original,
    out: &Path,
    maker: &Maker,
) -> Result<bool, Fault> {
    let value = degradation.value();
    let text = value.to_string();
    let call = Call::new().media(original.path).args([
        "-map",
        "0:v:0",
        "-map",
        "0:a?",
        "-c:a",
        "pcm_s16le",
    ]);
    let call = match degradation.family {
        Family::H264 => call
            .args(["-vf", EVEN, "-pix_fmt", "yuv420p", "-c:v", "libx264"])
            .args(["-preset", "medium", "-crf", &text]),
        Family::Hevc => call.args(["-vf", EVEN, "-pix_fmt", "yuv420p", "-c:v", "libx265"]).args([
            "-preset",
            "fast",
            "-crf",
            &text,
            "-x265-params",
            "log-level=error:pools=none:frame-threads=1",
        ]),
        Family::FrameRate => {
            let call = call.args(["-vf", EVEN, "-fpsmax", &text, "-pix_fmt", "yuv420p"]);
            call.args(LOSSLESS)
        }
        _ => {
            let filter = match degradation.family {
                Family::Resize => resize(value),
                Family::Noise => {
                    let strength = (value * 3.0_f64.sqrt()).round();
                    let seed = degradation.random(original, maker).below(1 << 30);
                    format!("{EVEN},format=yuv420p,noise=c0s={strength}:c0f=t:c0_seed={seed}")
                }
                _ => format!("{EVEN},{}", blur(value)),
            };
            call.args(["-vf", &filter, "-pix_fmt", "yuv420p"]).args(LOSSLESS)
        }
    };
    run(call.into_file("matroska", out), maker)
}

pub(super) fn resize(factor: f64) -> String {
    format!("scale=max(2\\,trunc(iw*{factor}/2)*2):max(2\\,trunc(ih*{factor}/2)*2):flags=bicubic")
}

pub(super) fn blur(sigma: f64) -> String {
    format!("gblur=sigma={sigma}")
}

/// The pictures as they are beside other sound.
pub(super) fn with_sound(
    original: Original,
    wav: &Path,
    out: &Path,
    maker: &Maker,
) -> Result<bool, Fault> {
    let call = Call::new().media(original.path).media(wav);
    let call = call.args(["-map", "0:v:0", "-map", "1:a:0", "-c", "copy"]);
    run(call.into_file("matroska", out), maker)
}

fn run(call: Call, maker: &Maker) -> Result<bool, Fault> {
    let done = maker.ffmpeg.make(call, 0, maker.stop);
    done.map(|done| done.is_some()).map_err(|e| Fault::failed(format!("ffmpeg: {e}")))
}
