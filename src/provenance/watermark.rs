//! Invisible watermarks of fixed bits that open-source generators put into every picture: the
//! DWT-DCT method of the package invisible-watermark (its `maxDct.py`), as the pipelines of Stable
//! Diffusion, FLUX and others call it. No weights are needed to read them.
//!
//! The method: the U plane of OpenCV's YUV, one level of the Haar wavelet, of its approximation
//! every block of 4 by 4 carries one bit of the message in turn: its value that is largest in size,
//! the first one left out, is moved to a quarter (zero) or three quarters (one) of a step of 36.
//!
//! The package reads the bit from where in its step a block's largest value lies, and takes what
//! most blocks of a bit say. That fails wherever the value was moved down and is the largest no
//! more. Here a block also says how far its largest value stands out: whatever the picture, a one
//! lies half a step higher than a zero would. What the blocks say is averaged over those of each bit
//! and compared with the message by correlation.
//!
//! Two things differ between pipelines. Those that hand over floating-point numbers (diffusers,
//! Stability AI's and Black Forest Labs' own) get a U about 0, hence signs, where bytes have it about
//! 128. And some hand over RGB where the package expects BGR, so that red takes the place of blue.
//! All four ways are tried.
//!
//! Positive-only evidence: scaling, cropping and strong compression destroy the watermark.

use std::f32::consts::TAU;

use crate::report::{Label, LabelVerdict, Seen};

/// Fewer pixels the package does not mark.
const PIXELS: usize = 256 * 256;
/// Blocks of each bit without which their mean says nothing.
const BLOCKS: usize = 8;
const STEP: f32 = 36.0;
/// How far along a row a block is compared with its neighbours, on either side: what a picture is
/// like there says nothing of the bits.
const NEAR: usize = 4;
/// Bytes' U of grey in the wavelet's approximation, less what floating-point numbers have there.
const GREY: f32 = 255.0;
/// Ways of writing: blue or red chroma, with and without a sign.
const WAYS: usize = 4;

/// A message and who writes it.
struct Message {
    generator: &'static str,
    bits: Bits,
    /// Least correlation of the message with what the bits' blocks say: the one that, by Student's
    /// distribution, a picture without a mark reaches with a probability of 1e-10 where bits are
    /// independent. The shorter the message, the more is asked. `docs/labels.md` has what pictures
    /// without one were measured to reach.
    least: f32,
}

enum Bits {
    /// The number's binary digits, so many of them.
    Number(u64, usize),
    /// Eight bits of each byte, the highest first.
    Bytes(&'static str),
}

/// Where each is written: `docs/labels.md`.
const MESSAGES: [Message; 7] = [
    Message {
        generator: "Stable Diffusion XL, Stable Video Diffusion",
        bits: Bits::Number(0xB3EC_907B_B19E, 48),
        least: 0.767,
    },
    // "A fixed 48-bit message", says the code; but Python's `bin`, which makes bits of it, leaves out
    // the two zeros that it begins with.
    Message { generator: "FLUX", bits: Bits::Number(0x2AFE_879C_F52E, 46), least: 0.778 },
    // As it was meant.
    Message { generator: "FLUX", bits: Bits::Number(0x2AFE_879C_F52E, 48), least: 0.767 },
    Message {
        generator: "Stable Diffusion 1",
        bits: Bits::Bytes("StableDiffusionV1"),
        least: 0.511,
    },
    Message { generator: "Stable Diffusion 2", bits: Bits::Bytes("SDV2"), least: 0.863 },
    Message { generator: "InvokeAI", bits: Bits::Bytes("InvokeAI"), least: 0.694 },
    Message { generator: "MindONE", bits: Bits::Number(0x00B2_9691_9BB0_B1BA, 56), least: 0.728 },
];

impl Bits {
    fn list(&self) -> Vec<bool> {
        match self {
            Self::Number(number, n) => (0..*n).rev().map(|i| number >> i & 1 == 1).collect(),
            Self::Bytes(text) => {
                text.bytes().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1 == 1)).collect()
            }
        }
    }
}

/// Looks for known watermarks in a picture: RGB, rows packed, as it was stored (not scaled). None
/// in pictures of under 256 by 256 pixels or under eight blocks of 8 by 8 for each bit.
pub fn dwt_dct(rgb: &[u8], width: usize, height: usize) -> Option<Label> {
    let mut pictures = DwtDct::default();
    pictures.push(rgb, width, height);
    pictures.finish()
}

/// Looks for known watermarks in pictures of one video, each of which carries the same: what their
/// blocks say is averaged. Memory: a quarter of a byte for each pixel of one picture.
#[derive(Default)]
pub struct DwtDct {
    /// Of the first picture.
    width: usize,
    height: usize,
    pictures: usize,
    /// What each block says, summed over the pictures, row by row: positive is one.
    says: [Vec<f32>; WAYS],
}

/// How well a message fits.
struct Fit {
    correlation: f32,
    right: usize,
}

impl DwtDct {
    /// Takes a picture: RGB, rows packed, as it was stored (not scaled). Those of another size than
    /// the first one, and what is no picture, do not count.
    pub fn push(&mut self, rgb: &[u8], width: usize, height: usize) {
        let pixels = width.checked_mul(height);
        if pixels.is_none_or(|n| n < PIXELS || n.checked_mul(3) != Some(rgb.len())) {
            return;
        }
        if self.pictures == 0 {
            (self.width, self.height) = (width, height);
            let blocks = self.across() * self.down();
            self.says = std::array::from_fn(|_| vec![0.0; blocks]);
        } else if (width, height) != (self.width, self.height) {
            return;
        }
        self.pictures += 1;
        let across = self.across();
        for row in 0..self.down() {
            for column in 0..across {
                let at = row * across + column;
                for (way, says) in block(rgb, width, row * 8, column * 8).into_iter().enumerate() {
                    self.says[way][at] += says;
                }
            }
        }
    }

    fn across(&self) -> usize {
        self.width / 4 * 4 / 8
    }

    fn down(&self) -> usize {
        self.height / 4 * 4 / 8
    }

    /// The watermark that fits best, where one fits.
    pub fn finish(mut self) -> Option<Label> {
        let across = self.across();
        if across == 0 {
            return None;
        }
        for says in &mut self.says {
            says.chunks_exact_mut(across).for_each(less_the_near);
        }
        let fits = MESSAGES.iter().filter_map(|message| {
            let fit = self.fit(&message.bits.list())?;
            (fit.correlation >= message.least).then_some((message, fit))
        });
        let (message, fit) = fits.max_by(|a, b| a.1.correlation.total_cmp(&b.1.correlation))?;
        let pictures = match self.pictures {
            1 => String::new(),
            n => format!(" in {n} pictures"),
        };
        Some(Label {
            system: "watermark".to_owned(),
            place: "pixels (DWT-DCT)".to_owned(),
            content: format!(
                "{}: {} of {} bits{pictures}, correlation {:.2}",
                message.generator,
                fit.right,
                message.bits.list().len(),
                fit.correlation
            ),
            verdict: LabelVerdict::Inconclusive,
            deviations: Vec::new(),
            ai: Some(true),
            seen: Seen::default(),
        })
    }

    /// How well the message fits, written in the way in which it fits best. None where there are too
    /// few blocks for it.
    fn fit(&self, bits: &[bool]) -> Option<Fit> {
        let across = self.across();
        let blocks = across * self.down();
        if blocks < BLOCKS * bits.len() {
            return None;
        }
        // What blocks say is compared with their neighbours; so are the bits.
        let mut expected: Vec<f32> =
            (0..blocks).map(|i| if bits[i % bits.len()] { 1.0 } else { 0.0 }).collect();
        expected.chunks_exact_mut(across).for_each(less_the_near);
        let expected = centred(&expected, bits.len());
        let fit = |says: &Vec<f32>| {
            let found = centred(says, bits.len());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let size = (dot(&found, &found) * dot(&expected, &expected)).sqrt();
            let right = found.iter().zip(bits).filter(|(f, bit)| (**f > 0.0) == **bit).count();
            Fit { correlation: dot(&found, &expected) / size.max(f32::MIN_POSITIVE), right }
        };
        let ways = self.says.iter().map(fit);
        ways.max_by(|a, b| a.correlation.total_cmp(&b.correlation))
    }
}

/// The mean over the blocks of each bit, less that over all bits.
fn centred(says: &[f32], bits: usize) -> Vec<f32> {
    let mut means: Vec<f32> = (0..bits)
        .map(|bit| {
            let own = || says.iter().skip(bit).step_by(bits);
            own().sum::<f32>() / own().count().max(1) as f32
        })
        .collect();
    let mean = means.iter().sum::<f32>() / bits as f32;
    means.iter_mut().for_each(|m| *m -= mean);
    means
}

/// Each value less the mean over itself and its neighbours; a row's ends are repeated beyond it.
fn less_the_near(row: &mut [f32]) {
    let own = row.to_vec();
    let last = own.len().saturating_sub(1);
    for (i, value) in row.iter_mut().enumerate() {
        let near = (i..=i + 2 * NEAR).map(|k| own[k.saturating_sub(NEAR).min(last)]);
        *value -= near.sum::<f32>() / (2 * NEAR + 1) as f32;
    }
}

/// What the block of 8 by 8 pixels at `y`, `x` says in each way of writing.
fn block(rgb: &[u8], width: usize, y: usize, x: usize) -> [f32; WAYS] {
    let (mut blue, mut red) = ([0.0; 15], [0.0; 15]);
    for k in 1..16 {
        let (y, x) = (y + k / 4 * 2, x + k % 4 * 2);
        let (mut b_sum, mut r_sum) = (0, 0);
        for (y, x) in [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)] {
            let p = (y * width + x) * 3;
            if let Some(&[r, g, b]) = rgb.get(p..p + 3) {
                b_sum += u32::from(u_of(r, g, b));
                r_sum += u32::from(u_of(b, g, r));
            }
        }
        // The Haar wavelet's approximation: twice the mean.
        (blue[k - 1], red[k - 1]) = (b_sum as f32 / 2.0, r_sum as f32 / 2.0);
    }
    let signed = |values: [f32; 15]| values.map(|v| (v - GREY).abs());
    [says(signed(blue)), says(blue), says(signed(red)), says(red)]
}

/// The sum of two opinions from -1 (zero) to 1 (one): where in its step the largest value lies, and
/// whether the largest stands out more than the smallest does.
fn says(mut values: [f32; 15]) -> f32 {
    let (low, middle, high) = values.select_nth_unstable_by(7, f32::total_cmp);
    let most = high.iter().copied().fold(*middle, f32::max);
    let least = low.iter().copied().fold(*middle, f32::min);
    let half = STEP / 2.0;
    let beyond = (most - *middle + least - *middle).clamp(-half, half) / half;
    beyond - (TAU * most / STEP).sin()
}

/// OpenCV's U of an 8-bit pixel (`COLOR_BGR2YUV`), in its fixed-point arithmetic.
fn u_of(r: u8, g: u8, b: u8) -> u8 {
    let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
    let y = (b * 1868 + g * 9617 + r * 4899 + (1 << 13)) >> 14;
    (((b - y) * 8061 + (128 << 14) + (1 << 13)) >> 14).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with soft colours and some grain.
    fn picture(width: usize, height: usize, seed: usize) -> Vec<u8> {
        let mut state = seed as u64 * 0x9E37_79B9 + 1;
        let mut grain = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 59) as f32 - 16.0
        };
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                let wave = |f: f32, c: f32| {
                    128.0 + 70.0 * ((x as f32 * f + y as f32 * c + seed as f32) / 60.0).sin()
                };
                for (f, c) in [(1.0, 0.3), (0.4, 1.1), (0.7, -0.6)] {
                    rgb.push((wave(f, c) + grain() / 4.0).clamp(0.0, 255.0) as u8);
                }
            }
        }
        rgb
    }

    /// As the package writes it, but straight on B, which moves U by 0.436 of it. `grey`: what U of
    /// grey is taken for, twice; 0 is how bytes are written, [`GREY`] how floating-point numbers are.
    fn marked(
        mut rgb: Vec<u8>,
        (width, height): (usize, usize),
        bits: &[bool],
        grey: f32,
    ) -> Vec<u8> {
        let (across, down) = (width / 4 * 4 / 8, height / 4 * 4 / 8);
        for i in 0..across * down {
            let (y, x) = (i / across * 8, i % across * 8);
            let pixels = |k: usize| {
                let (y, x) = (y + k / 4 * 2, x + k % 4 * 2);
                [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)].map(|(y, x)| (y * width + x) * 3)
            };
            let value = |k: usize| {
                let of = |p: usize| f32::from(u_of(rgb[p], rgb[p + 1], rgb[p + 2]));
                pixels(k).into_iter().map(of).sum::<f32>() / 2.0 - grey
            };
            let largest = |a: &usize, b: &usize| value(*a).abs().total_cmp(&value(*b).abs());
            let k = (1..16).max_by(largest).unwrap();
            let old = value(k);
            let quarter = if bits[i % bits.len()] { 0.75 } else { 0.25 };
            let new = ((old.abs() / STEP).floor() + quarter) * STEP * old.signum();
            let blue = ((new - old) / 2.0 / 0.436).round() as i32;
            for p in pixels(k) {
                rgb[p + 2] = (i32::from(rgb[p + 2]) + blue).clamp(0, 255) as u8;
            }
        }
        rgb
    }

    #[test]
    fn every_message_is_read_in_every_way() {
        let size = (513, 386);
        for message in &MESSAGES {
            let bits = message.bits.list();
            for grey in [0.0, GREY] {
                let rgb = marked(picture(513, 386, 3), size, &bits, grey);
                let label = dwt_dct(&rgb, 513, 386).unwrap();
                let n = bits.len();
                let right = format!("{}: {n} of {n} bits, correlation ", message.generator);
                assert!(label.content.starts_with(&right), "{}", label.content);
                assert_eq!(label.ai, Some(true));
                // Written by who takes RGB for BGR.
                let swapped: Vec<u8> =
                    rgb.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect();
                assert!(dwt_dct(&swapped, 513, 386).unwrap().content.starts_with(&right));
            }
        }
    }

    #[test]
    fn messages_have_their_lengths() {
        let lengths: Vec<usize> = MESSAGES.iter().map(|m| m.bits.list().len()).collect();
        assert_eq!(lengths, [48, 46, 48, 136, 32, 64, 56]);
        let text = |message: &Message| -> String {
            message.bits.list().iter().map(|bit| if *bit { '1' } else { '0' }).collect()
        };
        assert_eq!(text(&MESSAGES[1]), "1010101111111010000111100111001111010100101110");
        assert_eq!(text(&MESSAGES[2]), format!("00{}", text(&MESSAGES[1])));
        assert!(text(&MESSAGES[4]).starts_with("01010011"), "S");
    }

    /// Grain that hides the mark in one picture is averaged out over several of them.
    #[test]
    fn pictures_of_a_video_speak_together() {
        let bits = MESSAGES[0].bits.list();
        let grainy = |seed: usize| {
            let mut state = (seed as u64 + 9).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut rgb = marked(picture(512, 288, seed), (512, 288), &bits, 0.0);
            for v in &mut rgb {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *v = (f32::from(*v) + ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 62.0)
                    .clamp(0.0, 255.0) as u8;
            }
            rgb
        };
        let (mut together, mut alone) = (DwtDct::default(), 0);
        for seed in 0..12 {
            let rgb = grainy(seed);
            alone += usize::from(dwt_dct(&rgb, 512, 288).is_some());
            together.push(&rgb, 512, 288);
            // Not counted.
            together.push(&rgb[3..], 512, 288);
            together.push(&picture(512, 256, seed), 512, 256);
        }
        assert!(alone < 6, "{alone}");
        let content = together.finish().unwrap().content;
        assert!(content.starts_with("Stable Diffusion XL"), "{content}");
        assert!(content.contains("in 12 pictures"), "{content}");
    }

    #[test]
    fn pictures_without_one_have_none() {
        for seed in 0..40 {
            assert!(dwt_dct(&picture(320, 240, seed), 320, 240).is_none(), "{seed}");
        }
        for grey in [0, 128, 255] {
            assert!(dwt_dct(&vec![grey; 256 * 256 * 3], 256, 256).is_none());
        }
    }

    #[test]
    fn a_message_of_somebody_else_is_not_taken_for_theirs() {
        for (number, n) in [(0x1234_5678_9ABC, 48), (0x7465_7374, 32), (0x1234_5678_9ABC_DEF0, 64)]
        {
            let bits = Bits::Number(number, n).list();
            let rgb = marked(picture(512, 384, 5), (512, 384), &bits, 0.0);
            assert!(dwt_dct(&rgb, 512, 384).is_none(), "{number:x}");
        }
    }

    #[test]
    fn what_is_too_small_or_no_picture_says_nothing() {
        assert!(dwt_dct(&picture(96, 96, 1), 96, 96).is_none());
        assert!(dwt_dct(&[1, 2, 3], 512, 512).is_none());
        assert!(dwt_dct(&[], 0, 0).is_none());
        assert!(dwt_dct(&[], usize::MAX, 2).is_none());
    }

    #[test]
    fn u_is_that_of_opencv() {
        // cv2.cvtColor(…, cv2.COLOR_BGR2YUV)[…, 1].
        let known = [
            ((0, 0, 0), 128),
            ((255, 255, 255), 128),
            ((0, 0, 255), 239),
            ((255, 0, 0), 91),
            ((0, 255, 0), 54),
            ((12, 200, 77), 102),
            ((201, 13, 150), 160),
        ];
        for ((r, g, b), u) in known {
            assert_eq!(u_of(r, g, b), u);
        }
    }
}
