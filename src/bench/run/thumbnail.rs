//! Small pictures of files for the report, by the engine's own decoding.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::results::Worst;
use crate::bench::report::{THUMBNAIL_SIDE, Thumbnail};
use crate::media::{DecodeOptions, Event, Frame, Limits, Source};

/// Pictures of a video that are looked at, one a second, for one that shows something.
const LOOKED_AT: usize = 10;

/// What looking at one file may take.
const TIME: Duration = Duration::from_secs(20);

/// Standard deviation of brightness from which a picture shows something: black and white leaders do
/// not.
const SHOWS: f64 = 12.0;

/// libjpeg's scale.
const QUALITY: u8 = 72;

/// A picture as it is, of a video the first that shows something, at most [`THUMBNAIL_SIDE`] pixels
/// wide and high.
///
/// # Errors
///
/// What cannot be decoded, with the cause.
pub fn thumbnail(worst: &Worst) -> Result<Thumbnail, String> {
    let frame = shown(Path::new(&worst.path))?;
    let (width, height, rgb) = shrink(&frame).ok_or("a picture without pixels")?;
    let mut jpeg = Vec::new();
    let sides = (u16::try_from(width), u16::try_from(height));
    let (Ok(w), Ok(h)) = sides else { return Err("a picture without pixels".to_owned()) };
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
        .encode(&rgb, w, h, jpeg_encoder::ColorType::Rgb)
        .map_err(|e| format!("the thumbnail cannot be written: {e}"))?;
    Ok(Thumbnail { jpeg, width, height })
}

fn shown(path: &Path) -> Result<Frame, String> {
    // The path stands beside the picture.
    let failed = |e: crate::media::MediaError| e.code().to_owned();
    let source = Source::open(path, &Limits::default()).map_err(failed)?;
    let options = DecodeOptions { fps: 1.0, video: true, audio: false, threads: 1, hardware: None };
    let until = Instant::now() + TIME;
    let mut best: Option<(f64, Frame)> = None;
    let mut seen = 0;
    source
        .decode(&options, &mut |event| {
            if let Event::Frame(frame) = event {
                seen += 1;
                let spread = spread(&frame);
                if best.as_ref().is_none_or(|(before, _)| spread > *before) {
                    best = Some((spread, frame));
                }
            }
            let found = best.as_ref().is_some_and(|(spread, _)| *spread >= SHOWS);
            match found || seen >= LOOKED_AT || Instant::now() >= until {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .map_err(failed)?;
    best.map(|(_, frame)| frame).ok_or_else(|| "no picture could be decoded".to_owned())
}

/// Standard deviation of brightness, in 8-bit steps.
fn spread(frame: &Frame) -> f64 {
    let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
    for pixel in frame.rgb.chunks_exact(3).step_by(7) {
        let bright = pixel.iter().map(|v| f64::from(*v)).sum::<f64>() / 3.0;
        sum += bright;
        squares += bright * bright;
        n += 1.0;
    }
    if n == 0.0 { 0.0 } else { (squares / n - (sum / n) * (sum / n)).max(0.0).sqrt() }
}

/// Each pixel the mean of those it stands for; pictures that are small enough stay as they are.
fn shrink(frame: &Frame) -> Option<(usize, usize, Vec<u8>)> {
    let (width, height) = (frame.width, frame.height);
    let longest = width.max(height);
    if width == 0 || height == 0 || frame.rgb.len() < width * height * 3 {
        return None;
    }
    if longest <= THUMBNAIL_SIDE {
        return Some((width, height, frame.rgb.clone()));
    }
    let side = |of: usize| (of * THUMBNAIL_SIDE / longest).max(1);
    let (w, h) = (side(width), side(height));
    let mut rgb = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        let rows = y * height / h..((y + 1) * height / h).max(y * height / h + 1);
        for x in 0..w {
            let columns = x * width / w..((x + 1) * width / w).max(x * width / w + 1);
            let mut sums = [0_u64; 3];
            for row in rows.clone() {
                let from = (row * width + columns.start) * 3;
                let to = (row * width + columns.end) * 3;
                for pixel in frame.rgb[from..to].chunks_exact(3) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += u64::from(*value);
                    }
                }
            }
            let n = (rows.len() * columns.len()) as u64;
            rgb.extend(sums.map(|sum| ((sum + n / 2) / n) as u8));
        }
    }
    Some((w, h, rgb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: usize, height: usize, of: impl Fn(usize, usize) -> [u8; 3]) -> Frame {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rgb = rgb.flat_map(|(x, y)| of(x, y)).collect();
        Frame { stream: 0, time_ms: 0, width, height, rgb }
    }

    #[test]
    fn pixels_become_means_and_sides_keep_their_proportion() {
        let halves = frame(640, 361, |x, _| if x % 2 == 0 { [0, 100, 200] } else { [100, 0, 200] });
        let (w, h, rgb) = shrink(&halves).unwrap();
        assert_eq!((w, h), (160, 90));
        assert!(rgb.chunks(3).all(|p| p == [50, 50, 200]));
        let thin = frame(4000, 1, |_, _| [9, 9, 9]);
        assert_eq!(shrink(&thin).map(|t| (t.0, t.1)), Some((160, 1)));
        let small = frame(20, 30, |x, y| [x as u8, y as u8, 7]);
        assert_eq!(shrink(&small), Some((20, 30, small.rgb.clone())));
        assert_eq!(shrink(&frame(0, 0, |_, _| [0; 3])), None);
    }

    #[test]
    fn what_shows_nothing_has_no_spread() {
        assert_eq!(spread(&frame(64, 64, |_, _| [16, 16, 16])), 0.0);
        assert!(spread(&frame(64, 64, |x, _| [x as u8 * 4; 3])) > SHOWS);
    }

    #[test]
    fn a_picture_of_the_demo() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/label-intact.png");
        let mut worst = Worst {
            id: String::new(),
            path: path.to_owned(),
            fake: true,
            score: 0.0,
            probability: None,
            generator: None,
        };
        let made = thumbnail(&worst).unwrap();
        assert!(made.jpeg.starts_with(&[0xFF, 0xD8, 0xFF]) && made.jpeg.len() < 30_000);
        assert_eq!(made.width.max(made.height), THUMBNAIL_SIDE);
        worst.path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned();
        assert!(thumbnail(&worst).is_err());
    }
}
