//! Invisible watermarks of fixed bits that open-source generators put into every picture: the
//! DWT-DCT method of the package invisible-watermark (its `maxDct.py`), as the pipelines of
//! Stable Diffusion XL and FLUX call it. No weights are needed to read them.
//!
//! The method: the U plane of OpenCV's 8-bit YUV, one level of the Haar wavelet, of its
//! approximation every block of 4 by 4 carries one bit of the message in turn: whether the block's
//! largest value but the first lies in the upper half of a step of 36. A bit of the message is what
//! most of its blocks say.
//!
//! Positive-only evidence: scaling, cropping and strong compression destroy the watermark.

use crate::report::{Label, LabelVerdict, Seen};

/// Bits of a message.
const BITS: usize = 48;
/// So many of a message's bits must be right. Of pictures without one 38 are at most usual.
const RIGHT: u32 = 44;
/// How much more often blocks of ones must say one than blocks of zeros. A picture's own colours can
/// imitate a message by chance where they stay within few steps; then all blocks say about the
/// same, and this tells. 1 is a picture that was never compressed.
const CONTRAST: f32 = 0.2;
/// Blocks of each bit without which a majority says nothing.
const BLOCKS: usize = 8;
const STEP: f32 = 36.0;

/// Who uses which message.
const MESSAGES: [(&str, u64); 2] = [
    ("FLUX", 0b0010_1010_1111_1110_1000_0111_1001_1100_1111_0101_0010_1110),
    ("Stable Diffusion XL", 0b1011_0011_1110_1100_1001_0000_0111_1011_1011_0001_1001_1110),
];

/// What most blocks of a bit say.
struct Message {
    bits: u64,
    /// Share of each bit's blocks that say one, the first bit first.
    ones: [f32; BITS],
}

/// Looks for known watermarks in a picture: RGB, rows packed, as it was stored (not scaled). None
/// in pictures of under 384 blocks of 8 by 8 pixels, and in such as a message does not stand out from.
pub fn dwt_dct(rgb: &[u8], width: usize, height: usize) -> Option<Label> {
    if rgb.len() != width.checked_mul(height)?.checked_mul(3)? {
        return None;
    }
    let found = message(rgb, width, height)?;
    let (generator, right, _) = MESSAGES
        .iter()
        .map(|(generator, bits)| (*generator, BITS as u32 - (found.bits ^ bits).count_ones(), bits))
        .filter(|(_, right, bits)| *right >= RIGHT && found.contrast(**bits) >= CONTRAST)
        .max_by_key(|(_, right, _)| *right)?;
    Some(Label {
        system: "watermark".to_owned(),
        place: "pixels (DWT-DCT)".to_owned(),
        content: format!("{generator}: {right} of {BITS} bits"),
        verdict: LabelVerdict::Inconclusive,
        deviations: Vec::new(),
        ai: Some(true),
        seen: Seen::default(),
    })
}

impl Message {
    /// How much more of the blocks say one where `bits` has ones than where it has zeros.
    fn contrast(&self, bits: u64) -> f32 {
        let mean = |bit: u64| {
            let chosen = || (0..BITS).filter(|i| bits >> (BITS - 1 - i) & 1 == bit);
            chosen().map(|i| self.ones[i]).sum::<f32>() / chosen().count().max(1) as f32
        };
        mean(1) - mean(0)
    }
}

fn message(rgb: &[u8], width: usize, height: usize) -> Option<Message> {
    let (across, down) = (width / 4 * 4 / 8, height / 4 * 4 / 8);
    if across.checked_mul(down)? < BITS * BLOCKS {
        return None;
    }
    let mut ones = [0u32; BITS];
    let mut blocks = [0u32; BITS];
    for row in 0..down {
        for column in 0..across {
            let bit = (row * across + column) % BITS;
            ones[bit] += u32::from(says_one(rgb, width, row * 8, column * 8));
            blocks[bit] += 1;
        }
    }
    let shares: [f32; BITS] = std::array::from_fn(|i| ones[i] as f32 / blocks[i] as f32);
    let bits = shares.iter().fold(0, |bits, share| bits << 1 | u64::from(share * 255.0 > 127.0));
    Some(Message { bits, ones: shares })
}

/// The bit of the block of 8 by 8 pixels at `y`, `x`.
fn says_one(rgb: &[u8], width: usize, y: usize, x: usize) -> bool {
    let mut largest = -1.0;
    for k in 1..16 {
        let (y, x) = (y + k / 4 * 2, x + k % 4 * 2);
        let at = |y: usize, x: usize| {
            let p = (y * width + x) * 3;
            rgb.get(p..p + 3).map_or(0.0, |p| f32::from(u_of(p[0], p[1], p[2])))
        };
        // The Haar wavelet's approximation: twice the mean.
        let value = (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) / 2.0;
        // Never negative, so it is the largest in size, too.
        if value > largest {
            largest = value;
        }
    }
    largest % STEP > 0.5 * STEP
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

    /// As the package writes it, but straight on B, which moves U by 0.44 of it and Y by 0.11.
    fn marked(mut rgb: Vec<u8>, width: usize, height: usize, bits: u64) -> Vec<u8> {
        let (across, down) = (width / 4 * 4 / 8, height / 4 * 4 / 8);
        for row in 0..down {
            for column in 0..across {
                let bit = bits >> (BITS - 1 - (row * across + column) % BITS) & 1 == 1;
                for _ in 0..400 {
                    if says_one(&rgb, width, row * 8, column * 8) == bit {
                        break;
                    }
                    for y in row * 8..row * 8 + 8 {
                        for x in column * 8..column * 8 + 8 {
                            let b = &mut rgb[(y * width + x) * 3 + 2];
                            *b = b.wrapping_add(2).max(1);
                        }
                    }
                }
            }
        }
        rgb
    }

    #[test]
    fn both_messages_are_read() {
        for (generator, bits) in MESSAGES {
            let rgb = marked(picture(513, 386, 3), 513, 386, bits);
            let label = dwt_dct(&rgb, 513, 386).unwrap();
            assert_eq!(label.content, format!("{generator}: 48 of 48 bits"));
            assert_eq!(label.ai, Some(true));
        }
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
        let rgb = marked(picture(512, 384, 5), 512, 384, 0x1234_5678_9ABC);
        assert!(dwt_dct(&rgb, 512, 384).is_none());
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
