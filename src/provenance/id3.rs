//! MP3: ID3v2.2 to 2.4 at the start of the file and behind the sound (id3.org), frames `TXXX` and
//! `COMM`, XMP in `PRIV` and C2PA in `GEOB`; ID3v1; APEv2.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::exif::utf16;
use super::input::{Input, Stop, be32};
use super::traces::Field;
use super::{Reader, apev2, xiph};

/// Of one tag this much is read; covers make tags of several megabytes.
const MAX_TAG: usize = 16 << 20;
const MAX_FRAMES: u32 = 4096;
/// Tags behind the sound.
const MAX_TAILS: u32 = 8;

pub(super) struct Mp3;

impl Reader for Mp3 {
    fn name(&self) -> &'static str {
        "mp3"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(b"ID3") || is_frame(head)
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let end = tag(input, 0, "", out)?;
        if input.read(end, 4)? == b"fLaC" {
            return xiph::flac(input, end, out);
        }
        tail(input, end, out)
    }
}

/// Tags behind the sound, from the end of the file back: ID3v1, then APEv2 and ID3v2 in any order.
fn tail(input: &mut Input<'_>, start: u64, out: &mut Collector) -> Result<(), Stop> {
    let mut end = input.len();
    if let Some(at) = end.checked_sub(128).filter(|at| *at >= start) {
        let old = input.read(at, 128)?;
        if old.starts_with(b"TAG") {
            for (key, range) in
                [("title", 3..33), ("artist", 33..63), ("album", 63..93), ("comment", 97..127)]
            {
                let bytes = old.get(range).unwrap_or_default();
                let text: String = bytes.iter().map(|b| char::from(*b)).collect();
                let text = text.trim_end_matches(['\0', ' ']);
                out.text(Field::Tag, key, text, &Spot::new(format!("ID3v1[{key}]"), at));
            }
            end = at;
        }
    }
    for _ in 0..MAX_TAILS {
        let before = apev2::tag(input, end, out)?;
        let before = if before == end { footed(input, end, start, out)? } else { before };
        if before == end || before <= start {
            break;
        }
        end = before;
    }
    Ok(())
}

/// Reads an ID3v2.4 tag whose footer ends at `end`, and gives where it begins.
fn footed(input: &mut Input<'_>, end: u64, start: u64, out: &mut Collector) -> Result<u64, Stop> {
    let Some(at) = end.checked_sub(10) else { return Ok(end) };
    let footer = input.read(at, 10)?;
    let size = footer.strip_prefix(b"3DI").and_then(|rest| syncsafe(rest.get(3..7)?));
    let begin = size.and_then(|size| at.checked_sub(u64::from(size) + 10));
    let Some(begin) = begin.filter(|begin| *begin >= start) else { return Ok(end) };
    tag(input, begin, "", out)?;
    Ok(begin)
}

/// Reads a tag that stands in memory, in a stream of them.
pub(super) fn in_memory(bytes: &[u8], spot: &Spot, out: &mut Collector) {
    let (Some(b"ID3"), Some(version), Some(flags), Some(size)) =
        (bytes.get(..3), bytes.get(3), bytes.get(5), bytes.get(6..10).and_then(syncsafe))
    else {
        return;
    };
    let body = bytes.get(10..bytes.len().min(10 + size as usize)).unwrap_or_default();
    if flags & 0x80 != 0 && *version < 4 {
        frames(&unsynchronise(body), *version, *flags, spot, out);
    } else {
        frames(body, *version, *flags, spot, out);
    }
}

/// The header of a frame of MPEG audio, layers I to III.
fn is_frame(head: &[u8]) -> bool {
    let [0xFF, b, c, ..] = head else { return false };
    let version = b >> 3 & 3;
    let layer = b >> 1 & 3;
    b & 0xE0 == 0xE0 && version != 1 && layer != 0 && c >> 4 != 15 && c >> 2 & 3 != 3
}

/// Reads a tag at `at`, if one is there, and gives the byte after it.
pub(super) fn tag(
    input: &mut Input<'_>,
    at: u64,
    parent: &str,
    out: &mut Collector,
) -> Result<u64, Stop> {
    let head = input.read(at, 10)?;
    let (Some(b"ID3"), Some(version), Some(flags)) = (head.get(..3), head.get(3), head.get(5))
    else {
        return Ok(at);
    };
    let Some(size) = head.get(6..10).and_then(syncsafe) else { return Ok(at) };
    let body = at + 10;
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    let end = body + u64::from(size) + footer;
    let mut bytes = input.span(body, body + u64::from(size), MAX_TAG)?;
    let cut = end > input.len();
    if cut || bytes.len() < size as usize {
        out.note(format!("the ID3 tag at byte {at} was not read to its end"));
    }
    // In 2.4 frames say it themselves, and nothing in their headers needs undoing.
    if flags & 0x80 != 0 && *version < 4 {
        bytes = unsynchronise(&bytes);
    }
    let path = if parent.is_empty() { "ID3".to_owned() } else { format!("{parent}.ID3") };
    frames(&bytes, *version, *flags, &Spot::new(path, at).cut_by_file_end(cut), out);
    Ok(end)
}

fn frames(bytes: &[u8], version: u8, flags: u8, spot: &Spot, out: &mut Collector) {
    let (id_len, header) = if version == 2 { (3, 6) } else { (4, 10) };
    let mut at = 0_usize;
    if flags & 0x40 != 0 && version > 2 {
        // Extended header: its size counts itself in 2.4 and not in 2.3.
        at = match version {
            3 => be32(bytes, 0).map_or(0, |n| n as usize).saturating_add(4),
            _ => bytes.get(..4).and_then(syncsafe).map_or(0, |n| n as usize),
        };
    }
    for _ in 0..MAX_FRAMES {
        let Some(id) = at.checked_add(id_len).and_then(|end| bytes.get(at..end)) else { return };
        if id.first() == Some(&0) {
            let padding = bytes.get(at..).unwrap_or_default();
            return out.padding(&spot.child(".padding"), padding);
        }
        let Some(raw) = bytes.get(at + id_len..at + 2 * id_len) else { return };
        let size = match version {
            2 => raw.iter().fold(0, |n, b| n << 8 | u32::from(*b)),
            3 => be32(raw, 0).unwrap_or(0),
            // Some writers put plain sizes into 2.4.
            _ => syncsafe(raw).or_else(|| be32(raw, 0)).unwrap_or(0),
        };
        let body = at + header;
        let Some(data) = body.checked_add(size as usize).and_then(|end| bytes.get(body..end))
        else {
            return out.note(format!("{spot}: a frame runs past the end of the tag"));
        };
        let status = if version == 4 { bytes.get(at + 9).copied().unwrap_or(0) } else { 0 };
        let undone;
        let mut data = data;
        if status & 0x01 != 0 {
            // The data length stands before the data.
            data = data.get(4..).unwrap_or_default();
        }
        if status & 0x02 != 0 {
            undone = unsynchronise(data);
            data = &undone;
        }
        // Compressed or encrypted frames are not opened.
        if status & 0x0C == 0 {
            frame(id, data, spot, out);
        }
        at = body + size as usize;
    }
    out.note(format!("{spot}: more than {MAX_FRAMES} frames, the rest was not read"));
}

fn frame(id: &[u8], data: &[u8], spot: &Spot, out: &mut Collector) {
    let Some((encoding, rest)) = data.split_first() else { return };
    let rest = rest.get(..rest.len().min(MAX_VALUE)).unwrap_or_default();
    let (name, rest) = match id {
        b"TXXX" | b"TXX" => ("TXXX", rest),
        // A language stands before the description.
        b"COMM" | b"COM" => ("COMM", rest.get(3..).unwrap_or_default()),
        b"PRIV" => {
            // An owner in Latin letters, then what is the owner's own.
            if let Some(packet) = data.strip_prefix(b"XMP\0") {
                out.xmp(&spot.child(".PRIV(XMP)"), packet);
            }
            return;
        }
        b"GEOB" | b"GEO" => {
            // Type, name and description stand before the object; the box says itself what it is.
            let head = data.get(..data.len().min(1024)).unwrap_or_default();
            let start = memchr::memmem::find(head, b"jumb").and_then(|at| at.checked_sub(4));
            if let Some(store) = start.and_then(|at| data.get(at..)) {
                out.jumbf(&spot.child(".GEOB"), store, false);
            }
            return;
        }
        _ => return,
    };
    let (key, value) = describe(*encoding, rest);
    let spot = spot.child(&format!(".{name}[{key}]"));
    if name == "TXXX" {
        out.tag(Field::Tag, &key, &value, &spot);
    } else {
        out.text(Field::Tag, "comment", &value, &spot);
    }
}

/// A description that ends in NUL and the value after it, in the frame's encoding.
pub(super) fn describe(encoding: u8, bytes: &[u8]) -> (String, String) {
    let wide = matches!(encoding, 1 | 2);
    let end = if wide {
        bytes.chunks_exact(2).position(|pair| pair == [0, 0]).map(|i| 2 * i)
    } else {
        memchr::memchr(0, bytes)
    };
    let step = if wide { 2 } else { 1 };
    let end = end.unwrap_or(bytes.len());
    let value = end.checked_add(step).and_then(|at| bytes.get(at..)).unwrap_or_default();
    let text = |bytes: &[u8]| match encoding {
        0 => bytes.iter().map(|b| char::from(*b)).collect(),
        1 | 2 => match bytes {
            [0xFF, 0xFE, rest @ ..] => utf16(rest, false),
            [0xFE, 0xFF, rest @ ..] => utf16(rest, true),
            _ => utf16(bytes, encoding == 2),
        },
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    (text(bytes.get(..end).unwrap_or_default()), text(value))
}

/// Four bytes of seven bits each; none where a high bit is set.
pub(super) fn syncsafe(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |n, b| (b & 0x80 == 0).then_some(n << 7 | u32::from(*b)))
}

/// Undoes ID3's unsynchronisation: a zero after each 0xFF.
fn unsynchronise(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut after_ff = false;
    for byte in bytes {
        if !(after_ff && *byte == 0) {
            plain.push(*byte);
        }
        after_ff = *byte == 0xFF;
    }
    plain
}
