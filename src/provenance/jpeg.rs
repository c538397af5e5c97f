//! JPEG (ITU-T T.81, JFIF, EXIF, XMP part 3): APP segments, comments, what follows the picture.

use super::collect::{Collector, Spot};
use super::input::{Input, MAX_PIECE, Stop, be16, be32};
use super::png::MAX_TRAILER;
use super::traces::Field;
use super::{Reader, aigc, xmp};

pub(super) const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const EXTENDED: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
pub(super) const EXIF: &[u8] = b"Exif\0\0";
/// Piece in which compressed pixels are searched for the next marker.
const BLOCK: usize = 256 << 10;
/// At the very end of a file phones keep a directory of what they appended.
const TAIL: u64 = 256 << 10;

pub(super) struct Jpeg;

impl Reader for Jpeg {
    fn name(&self) -> &'static str {
        "jpeg"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(&[0xFF, 0xD8, 0xFF])
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let mut parts = Parts::default();
        let end = segments(input, out, &mut parts)?;
        parts.boxes.finish(out);
        parts.extended.finish(out);
        match end {
            Some(end) => trailer(input, end, out),
            None => {
                out.note("the picture ends before its end marker".to_owned());
                Ok(())
            }
        }
    }
}

/// Reads every segment and gives the byte after EOI, or none where there is no EOI.
fn segments(
    input: &mut Input<'_>,
    out: &mut Collector,
    parts: &mut Parts,
) -> Result<Option<u64>, Stop> {
    let mut at = 2;
    loop {
        let head = input.read(at, 4)?;
        let (Some(0xFF), Some(marker)) = (head.first(), head.get(1)) else { return Ok(None) };
        match marker {
            // Fill bytes and markers without a segment.
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            0xD9 => return Ok(Some(at + 2)),
            _ => {
                let Some(size) = be16(&head, 2).filter(|size| *size >= 2) else { return Ok(None) };
                let end = at + 2 + u64::from(size);
                let cut = end > input.len();
                if matches!(marker, 0xE0..=0xEF | 0xFE) {
                    let bytes = input.span(at + 4, end, usize::from(size))?;
                    segment(*marker, &bytes, at, cut, parts, out);
                }
                if cut {
                    return Ok(None);
                }
                at = end;
                if *marker == 0xDA {
                    match next_marker(input, at)? {
                        Some(next) => at = next,
                        None => return Ok(None),
                    }
                }
            }
        }
    }
}

fn segment(marker: u8, bytes: &[u8], at: u64, cut: bool, parts: &mut Parts, out: &mut Collector) {
    let name = if marker == 0xFE { "COM".to_owned() } else { format!("APP{}", marker - 0xE0) };
    let spot = Spot::new(name, at).cut_by_file_end(cut);
    if let Some(packet) = bytes.strip_prefix(XMP) {
        out.xmp(&spot.child("(XMP)"), packet);
    } else if let Some(tiff) = bytes.strip_prefix(EXIF) {
        out.exif(&spot.child("(EXIF)"), tiff);
    } else if marker == 0xEB && bytes.starts_with(b"JP") {
        parts.boxes.add(bytes, &spot, out);
    } else if let Some(piece) = bytes.strip_prefix(EXTENDED) {
        parts.extended.add(piece, &spot, out);
    } else if marker == 0xFE {
        out.text(Field::Exif, "COM", &String::from_utf8_lossy(bytes), &spot);
    } else if let Some(start) = aigc::find_start(bytes) {
        // Written bare into an APP segment.
        let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        if let Some((_, piece)) = aigc::embedded(&text) {
            out.aigc(&spot, piece, &[]);
        }
    }
}

/// The next marker in compressed pixels that is no restart and no stuffed zero.
fn next_marker(input: &mut Input<'_>, start: u64) -> Result<Option<u64>, Stop> {
    let mut at = start;
    loop {
        let block = input.read(at, BLOCK)?;
        for found in memchr::memchr_iter(0xFF, &block) {
            match block.get(found + 1) {
                Some(0x00 | 0xFF | 0xD0..=0xD7) | None => {}
                Some(_) => return Ok(Some(at + found as u64)),
            }
        }
        if block.len() < BLOCK {
            return Ok(None);
        }
        // One byte again, for a marker across two blocks.
        at += block.len() as u64 - 1;
    }
}

fn trailer(input: &mut Input<'_>, start: u64, out: &mut Collector) -> Result<(), Stop> {
    let late = Some("misplaced_after_eoi");
    let bytes = input.span(start, input.len(), MAX_TRAILER)?;
    out.trailer(&Spot::new("trailer", start).misplaced(late), &bytes);
    let read = start + bytes.len() as u64;
    let tail = input.len().saturating_sub(TAIL).max(read);
    if tail < input.len() {
        let bytes = input.span(tail, input.len(), MAX_TRAILER)?;
        out.trailer(&Spot::new("trailer", tail).misplaced(late), &bytes);
    }
    Ok(())
}

/// What segments hold pieces of.
#[derive(Default)]
struct Parts {
    boxes: Boxes,
    extended: Extended,
}

/// XMP that one segment is too small for (XMP part 3, 1.1.3.1): pieces of a second packet, each with
/// the packet's digest, its length and where in it the piece belongs.
#[derive(Default)]
struct Extended(Vec<Packet>);

struct Packet {
    digest: Vec<u8>,
    spot: Spot,
    bytes: Vec<u8>,
    /// What of its beginning must be there.
    stated: usize,
    /// Bytes that pieces brought.
    there: usize,
}

impl Extended {
    fn add(&mut self, piece: &[u8], spot: &Spot, out: &mut Collector) {
        const MOST: usize = xmp::MAX_XMP + 1;
        let (Some(digest), Some(len), Some(offset)) =
            (piece.get(..32), be32(piece, 32), be32(piece, 36))
        else {
            return;
        };
        let index = match self.0.iter().position(|packet| packet.digest == digest) {
            Some(index) => index,
            None if self.0.len() < 8 => {
                let stated = (len as usize).min(MOST);
                self.0.push(Packet {
                    digest: digest.to_vec(),
                    spot: spot.clone(),
                    bytes: Vec::new(),
                    stated,
                    there: 0,
                });
                self.0.len() - 1
            }
            None => return out.note("more than 8 packets of extended XMP".to_owned()),
        };
        let (Some(packet), Some(data)) = (self.0.get_mut(index), piece.get(40..)) else { return };
        let start = (offset as usize).min(packet.stated);
        let data = data.get(..data.len().min(packet.stated - start)).unwrap_or_default();
        let end = start + data.len();
        if packet.bytes.len() < end {
            packet.bytes.resize(end, b' ');
        }
        if let Some(slot) = packet.bytes.get_mut(start..end) {
            slot.copy_from_slice(data);
            packet.there += data.len();
        }
    }

    fn finish(self, out: &mut Collector) {
        for packet in self.0 {
            if packet.there < packet.stated {
                out.note(format!("{}: a piece of the extended XMP is missing", packet.spot));
            }
            out.xmp(&packet.spot.child("(extended XMP)"), &packet.bytes);
        }
    }
}

/// JUMBF boxes spread over APP11 segments (ISO 19566-5, D.2): `JP`, box instance, packet sequence
/// number, and the box header again in every packet.
#[derive(Default)]
struct Boxes {
    open: Vec<JumbfBox>,
    held: usize,
}

struct JumbfBox {
    instance: u16,
    spot: Spot,
    next: u32,
    stated: u64,
    bytes: Vec<u8>,
    /// A packet is missing or out of order.
    torn: bool,
}

impl Boxes {
    fn add(&mut self, segment: &[u8], spot: &Spot, out: &mut Collector) {
        let (Some(instance), Some(sequence)) = (be16(segment, 2), be32(segment, 4)) else { return };
        let Some(payload) = segment.get(8..) else { return };
        let Some(stated) = be32(payload, 0) else { return };
        if self.held.saturating_add(payload.len()) > MAX_PIECE {
            out.note("more than 16 MiB of JUMBF boxes, the rest was not read".to_owned());
            return;
        }
        self.held += payload.len();
        if let Some(open) = self.open.iter_mut().find(|b| b.instance == instance) {
            open.torn |= sequence != open.next;
            open.next = sequence.saturating_add(1);
            open.bytes.extend_from_slice(payload.get(8..).unwrap_or_default());
        } else if self.open.len() < 64 {
            self.open.push(JumbfBox {
                instance,
                spot: spot.clone(),
                next: sequence.saturating_add(1),
                stated: u64::from(stated),
                bytes: payload.to_vec(),
                torn: sequence != 1,
            });
        } else {
            out.note("more than 64 JUMBF boxes, the rest was not read".to_owned());
        }
    }

    fn finish(self, out: &mut Collector) {
        for found in self.open {
            let there = found.bytes.len() as u64;
            // 1 announces a 64-bit length, 0 "to the end"; both are left to the walk over the box.
            let missing = found.torn || (found.stated > 1 && there < found.stated);
            out.jumbf(&found.spot.child("(JUMBF)"), &found.bytes, missing);
        }
    }
}
