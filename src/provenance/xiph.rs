//! FLAC (RFC 9639) and Ogg (RFC 3533) with Vorbis, Opus, FLAC, Theora or Speex: Vorbis comments.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop, be32, le32};
use super::traces::Field;
use super::{Reader, aigc};

const MAX_BLOCKS: u32 = 4096;
const MAX_COMMENTS: u32 = 4096;
const MAX_PADDING: usize = 4 << 20;
/// Comments with a cover in base64 reach some megabytes.
const MAX_PACKET: usize = 8 << 20;
/// Comment headers stand in the second packet of a stream, at the start of each link of a chain.
const MAX_HEADER_PAGES: u32 = 1024;
/// Pages that are looked at for the start of another link, some 900 MB.
const MAX_PAGES: u32 = 200_000;
const BEGINS: u8 = 2;
const MAX_STREAMS: usize = 16;

pub(super) struct Flac;

impl Reader for Flac {
    fn name(&self) -> &'static str {
        "flac"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(b"fLaC")
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        flac(input, 0, out)
    }
}

/// Reads the metadata blocks of a FLAC stream that begins at `start`.
pub(super) fn flac(input: &mut Input<'_>, start: u64, out: &mut Collector) -> Result<(), Stop> {
    let mut at = start + 4;
    for _ in 0..MAX_BLOCKS {
        let Some(head) = input.read(at, 4).map(|b| be32(&b, 0))? else {
            out.note("the FLAC stream ends before its metadata does".to_owned());
            return Ok(());
        };
        let (last, kind, size) = (head >> 31 == 1, head >> 24 & 0x7F, u64::from(head & 0xFF_FFFF));
        let (body, end) = (at + 4, at + 4 + size);
        let cut = end > input.len();
        if cut {
            out.note(format!("a metadata block at byte {at} runs past the end of the file"));
        }
        match kind {
            1 => {
                let bytes = input.span(body, end, MAX_PADDING)?;
                out.padding(&Spot::new("PADDING", at), &bytes);
            }
            4 => {
                let bytes = input.span(body, end, MAX_PACKET)?;
                let spot = Spot::new("VORBIS_COMMENT", at).cut_by_file_end(cut);
                comments(&bytes, &spot, out);
            }
            _ => {}
        }
        if last || cut {
            return Ok(());
        }
        at = end;
    }
    out.note(format!("more than {MAX_BLOCKS} metadata blocks, the rest was not read"));
    Ok(())
}

pub(super) struct Ogg;

struct Stream {
    serial: u32,
    /// Packets that were completed.
    packets: u32,
    packet: Vec<u8>,
    at: u64,
}

impl Reader for Ogg {
    fn name(&self) -> &'static str {
        "ogg"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(b"OggS")
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let mut streams: Vec<Stream> = Vec::new();
        let (mut held, mut waiting) = (0, 0);
        let mut at = 0_u64;
        for page in 0.. {
            let head = input.read(at, 27 + 255)?;
            let (Some(b"OggS"), Some(flags), Some(serial), Some(count)) =
                (head.get(..4), head.get(5), le32(&head, 14), head.get(26))
            else {
                break;
            };
            if page == MAX_PAGES {
                out.note(format!("more than {MAX_PAGES} pages, the rest was not read"));
                return Ok(());
            }
            let laces = head.get(27..27 + usize::from(*count)).unwrap_or_default();
            let body = at + 27 + u64::from(*count);
            let size: usize = laces.iter().map(|n| usize::from(*n)).sum();
            // Headers of all streams come before the first data. What begins then is another link.
            let complete = streams.iter().all(|s| s.packets >= 2);
            if flags & BEGINS != 0 && complete {
                (streams, waiting) = (Vec::new(), 0);
            }
            let index = streams.iter().position(|s| s.serial == serial);
            let index = match index {
                Some(index) => index,
                None if streams.len() < MAX_STREAMS => {
                    streams.push(Stream { serial, packets: 0, packet: Vec::new(), at });
                    streams.len() - 1
                }
                None => break,
            };
            if let Some(stream) = streams.get_mut(index)
                && stream.packets < 2
            {
                let bytes = input.span(body, body + size as u64, size)?;
                held += bytes.len();
                if held > MAX_PACKET {
                    out.note("comment headers over 8 MiB were not read".to_owned());
                    return Ok(());
                }
                stream.page(laces, &bytes, at, out);
            }
            waiting += u32::from(!complete);
            if waiting > MAX_HEADER_PAGES {
                break;
            }
            at = body + size as u64;
        }
        if streams.iter().any(|s| s.packets < 2) {
            out.note("the comment header of a stream was not found".to_owned());
        }
        Ok(())
    }
}

impl Stream {
    fn page(&mut self, laces: &[u8], bytes: &[u8], at: u64, out: &mut Collector) {
        let mut from = 0;
        for lace in laces {
            let to = from + usize::from(*lace);
            if self.packet.is_empty() {
                self.at = at;
            }
            self.packet.extend_from_slice(bytes.get(from..to).unwrap_or_default());
            from = to;
            // A full lace continues in the next one.
            if *lace == 255 {
                continue;
            }
            self.packets += 1;
            if self.packets == 2 {
                let packet = std::mem::take(&mut self.packet);
                let skip = [&b"\x03vorbis"[..], b"OpusTags", b"\x81theora"]
                    .iter()
                    .find(|magic| packet.starts_with(magic))
                    .map(|magic| magic.len())
                    // Speex has no magic, FLAC the header of a metadata block.
                    .unwrap_or(if packet.first() == Some(&0x84) || packet.first() == Some(&4) {
                        4
                    } else {
                        0
                    });
                let spot = Spot::new("comment header", self.at);
                comments(packet.get(skip..).unwrap_or_default(), &spot, out);
                return;
            }
            self.packet.clear();
        }
    }
}

/// A vendor string and `KEY=value` pairs, each with a little-endian length before it.
fn comments(bytes: &[u8], spot: &Spot, out: &mut Collector) {
    let Some(vendor) = le32(bytes, 0) else { return };
    let mut at = (vendor as usize).saturating_add(4);
    let Some(count) = le32(bytes, at) else { return };
    at += 4;
    for _ in 0..count.min(MAX_COMMENTS) {
        let Some(size) = le32(bytes, at) else { return };
        at += 4;
        let whole = at.checked_add(size as usize).and_then(|end| bytes.get(at..end));
        let comment = whole.unwrap_or_else(|| bytes.get(at..).unwrap_or_default());
        let comment = comment.get(..comment.len().min(MAX_VALUE)).unwrap_or_default();
        let text = String::from_utf8_lossy(comment);
        match text.split_once('=') {
            Some((key, value)) => {
                out.tag(Field::Tag, key, value, &spot.child(&format!("[{key}]")));
            }
            None if aigc::is_key(&text) => out.aigc(&spot.child("[AIGC]"), "", &[]),
            None => {}
        }
        let Some(whole) = whole else {
            return out.note(format!("{spot}: a comment runs past the end of the block"));
        };
        at += whole.len();
    }
}
