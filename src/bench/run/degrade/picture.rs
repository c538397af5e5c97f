//! Pictures: decoded by this program, upright; `ffmpeg` sees their pixels only.

use std::path::Path;

use super::ffmpeg::Call;
use super::{Degradation, Family, Fault, Gaussian, Maker, Original, video};
use crate::engine::score::first_frame;
use crate::media::Frame;

/// Bytes of a PNG at most: more than 8192 x 8192 pixels take.
const MAX_PNG: usize = 256 << 20;

/// False: it was stopped.
pub(super) fn make(
    degradation: Degradation,
    original: Original,
    out: &Path,
    maker: &Maker,
) -> Result<bool, Fault> {
    let mut frame = first_frame(original.path)
        .map_err(|(code, message)| Fault { code: code.to_owned(), message })?;
    let value = degradation.value();
    let bytes = match degradation.family {
        Family::Jpeg => Some(jpeg(&frame, value as u8)?),
        Family::Noise => {
            noise(&mut frame.rgb, value, Gaussian::new(degradation.random(original, maker)));
            png(frame, None, maker)?
        }
        Family::Resize => png(frame, Some(video::resize(value)), maker)?,
        _ => png(frame, Some(video::blur(value)), maker)?,
    };
    let Some(bytes) = bytes else { return Ok(false) };
    std::fs::write(out, bytes)
        .map_err(|e| Fault::failed(format!("the copy cannot be written: {e}")))?;
    Ok(true)
}

/// Baseline, colour at half the resolution in both directions, libjpeg's tables for the quality.
fn jpeg(frame: &Frame, quality: u8) -> Result<Vec<u8>, Fault> {
    let (Ok(width), Ok(height)) = (u16::try_from(frame.width), u16::try_from(frame.height)) else {
        return Err(Fault::failed("larger than a JPEG can be"));
    };
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder
        .encode(&frame.rgb, width, height, jpeg_encoder::ColorType::Rgb)
        .map_err(|e| Fault::failed(format!("the JPEG cannot be written: {e}")))?;
    Ok(bytes)
}

/// The same number is added to a pixel's red, green and blue: noise of brightness.
fn noise(rgb: &mut [u8], deviation: f64, mut gaussian: Gaussian) {
    for pixel in rgb.chunks_exact_mut(3) {
        let step = gaussian.next() * deviation;
        for value in pixel {
            *value = (f64::from(*value) + step).round().clamp(0.0, 255.0) as u8;
        }
    }
}

fn png(frame: Frame, filter: Option<String>, maker: &Maker) -> Result<Option<Vec<u8>>, Fault> {
    let size = format!("{}x{}", frame.width, frame.height);
    let raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", &size];
    let mut call = Call::new().bytes(&raw, frame.rgb);
    if let Some(filter) = &filter {
        // Planar, so that every filter takes it and nothing becomes YUV on the way.
        call = call.args(["-vf", &format!("format=gbrp,{filter},format=rgb24")]);
    }
    let call = call.args(["-frames:v", "1", "-c:v", "png"]).into_stdout("image2pipe");
    let made = maker.ffmpeg.make(call, MAX_PNG, maker.stop);
    made.map_err(|e| Fault::failed(format!("ffmpeg: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metrics::bootstrap::Random;

    #[test]
    fn noise_has_its_deviation_and_no_colour() {
        let mut rgb = vec![128; 3 * 40_000];
        noise(&mut rgb, 10.0, Gaussian::new(Random::new(1, 0)));
        assert!(rgb.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        let n = 40_000.0;
        let mean = rgb.chunks(3).map(|p| f64::from(p[0])).sum::<f64>() / n;
        let variance = rgb.chunks(3).map(|p| (f64::from(p[0]) - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - 128.0).abs() < 0.2, "{mean}");
        assert!((variance.sqrt() - 10.0).abs() < 0.15, "{}", variance.sqrt());
    }

    /// libjpeg's luminance table at quality 50 is the standard's own; at 25 it is twice that.
    #[test]
    fn quality_is_libjpegs() {
        let frame = Frame { stream: 0, time_ms: 0, width: 16, height: 16, rgb: vec![90; 768] };
        let first_row = |quality: u8| {
            let bytes = jpeg(&frame, quality).unwrap();
            let at = bytes.windows(2).position(|w| w == [0xFF, 0xDB]).unwrap();
            // Marker, length, table number; then zigzag: 16, 11, 12, 14, 12, 10 at quality 50.
            bytes[at + 5..at + 11].to_vec()
        };
        assert_eq!(first_row(50), [16, 11, 12, 14, 12, 10]);
        assert_eq!(first_row(25), [32, 22, 24, 28, 24, 20]);
        assert_eq!(first_row(90), [3, 2, 2, 3, 2, 2]);
    }
}
