//! PNG (W3C PNG 3rd edition): text chunks before and after the pixels, EXIF, C2PA, a trailer.

use flate2::read::ZlibDecoder;
use std::io::Read;

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, MAX_PIECE, Stop, be32};
use super::traces::Field;
use super::{Reader, exif, jpeg, xmp};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Chunks of one picture. At the customary 8 KiB of pixels a chunk this is 1.6 GB.
const MAX_CHUNKS: u32 = 200_000;
/// What all compressed texts of a picture may grow to, so that a file of bombs costs no time.
const MAX_INFLATED: u64 = 32 << 20;
/// Bytes after IEND that are searched.
pub(super) const MAX_TRAILER: usize = 1 << 20;

pub(super) struct Png;

impl Reader for Png {
    fn name(&self) -> &'static str {
        "png"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(SIGNATURE)
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let mut at = SIGNATURE.len() as u64;
        let mut late = None;
        for _ in 0..MAX_CHUNKS {
            let head = input.read(at, 8)?;
            let (Some(size), Some(kind)) = (be32(&head, 0), head.get(4..8)) else {
                out.note("the picture ends before its end chunk".to_owned());
                return Ok(());
            };
            let body = at + 8;
            let end = body + u64::from(size);
            let cut = end > input.len();
            if cut {
                out.note(format!("a chunk at byte {at} runs past the end of the file"));
            }
            let name = String::from_utf8_lossy(kind).into_owned();
            let spot = Spot::new(name, at).cut_by_file_end(cut).misplaced(late);
            match kind {
                b"tEXt" | b"zTXt" | b"iTXt" => {
                    let bytes = input.span(body, end, xmp::MAX_XMP + 1)?;
                    text(kind, &bytes, &spot, out);
                }
                b"eXIf" => out.exif(&spot, &input.span(body, end, exif::MAX_EXIF)?),
                b"caBX" => out.jumbf(&spot, &input.span(body, end, MAX_PIECE)?, cut),
                b"IDAT" => late = Some("misplaced_after_idat"),
                b"IEND" => {
                    let start = end + 4;
                    let bytes = input.span(start, input.len(), MAX_TRAILER)?;
                    let rest = start + trailing_chunks(&bytes, start, out) as u64;
                    let late = Some("misplaced_after_iend");
                    let spot = Spot::new("trailer", rest).misplaced(late);
                    let skipped = usize::try_from(rest - start).unwrap_or(usize::MAX);
                    out.trailer(&spot, bytes.get(skipped..).unwrap_or_default());
                    return Ok(());
                }
                _ => {}
            }
            if cut {
                return Ok(());
            }
            at = end + 4;
        }
        out.note(format!("more than {MAX_CHUNKS} chunks, the rest was not read"));
        Ok(())
    }
}

/// Reads text chunks that follow IEND and gives the number of bytes that chunks take there.
fn trailing_chunks(bytes: &[u8], start: u64, out: &mut Collector) -> usize {
    let mut at = 0_usize;
    while let (Some(size), Some(kind)) = (be32(bytes, at), bytes.get(at + 4..at + 8)) {
        let body = at + 8;
        let data = body.checked_add(size as usize).and_then(|end| bytes.get(body..end));
        let Some(data) = data.filter(|_| kind.iter().all(u8::is_ascii_alphabetic)) else { break };
        if matches!(kind, b"tEXt" | b"zTXt" | b"iTXt") {
            let spot = Spot::new(String::from_utf8_lossy(kind), start + at as u64)
                .misplaced(Some("misplaced_after_iend"));
            text(kind, data, &spot, out);
        }
        at = body + data.len() + 4;
    }
    at.min(bytes.len())
}

fn text(kind: &[u8], bytes: &[u8], spot: &Spot, out: &mut Collector) {
    let Some((keyword, rest)) = split(bytes) else { return };
    let keyword = String::from_utf8_lossy(keyword).into_owned();
    let spot = spot.child(&format!("[{keyword}]"));
    let value = match kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => inflate(rest.get(1..).unwrap_or_default(), &spot, out),
        _ => {
            let packed = rest.first() == Some(&1);
            let tail = rest.get(2..).and_then(split).and_then(|(_, rest)| split(rest));
            let Some((_, value)) = tail else { return };
            if packed { inflate(value, &spot, out) } else { value.to_vec() }
        }
    };
    if keyword == "XML:com.adobe.xmp" {
        out.xmp(&spot, &value);
    } else if let Some(kind) = keyword.strip_prefix("Raw profile type ") {
        profile(kind, &value, &spot, out);
    } else {
        let value = value.get(..value.len().min(MAX_VALUE)).unwrap_or_default();
        out.tag(Field::PngText, &keyword, &String::from_utf8_lossy(value), &spot);
    }
}

/// ImageMagick's way to keep another format's metadata: a name, a length, and the bytes in
/// hexadecimal digits, each on lines of their own.
fn profile(kind: &str, text: &[u8], spot: &Spot, out: &mut Collector) {
    let mut lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let (Some(_), Some(stated)) = (lines.next(), lines.next()) else { return };
    let stated = std::str::from_utf8(stated).ok().and_then(|n| n.trim().parse::<usize>().ok());
    let digits: Vec<u8> = lines
        .flatten()
        .filter(|b| !b.is_ascii_whitespace())
        .map_while(|b| char::from(*b).to_digit(16).map(|digit| digit as u8))
        .collect();
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    if stated.is_none_or(|stated| bytes.len() < stated) {
        out.note(format!("{spot}: the profile is damaged"));
    }
    if let Some(packet) = bytes.strip_prefix(jpeg::XMP) {
        out.xmp(spot, packet);
    } else if kind.eq_ignore_ascii_case("xmp") {
        out.xmp(spot, &bytes);
    } else if let Some(tiff) = bytes.strip_prefix(jpeg::EXIF) {
        out.exif(spot, tiff);
    } else if kind.eq_ignore_ascii_case("exif") {
        out.exif(spot, &bytes);
    } else {
        // Of a JPEG's APP11 and a GIF's extension, for instance.
        out.stray_manifest(spot, &bytes, "a profile that was carried over from another format");
        let bytes = bytes.get(..bytes.len().min(MAX_VALUE)).unwrap_or_default();
        out.text(Field::PngText, kind, &String::from_utf8_lossy(bytes), spot);
    }
}

/// What stands before the first NUL, and after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, bytes)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn inflate(bytes: &[u8], spot: &Spot, out: &mut Collector) -> Vec<u8> {
    let mut text = Vec::new();
    // What was unpacked before an error is kept: labels are read from damaged files as well.
    let room = MAX_INFLATED.saturating_sub(out.inflated).min(xmp::MAX_XMP as u64 + 1);
    if ZlibDecoder::new(bytes).take(room).read_to_end(&mut text).is_err() {
        out.note(format!("{spot}: compressed text is damaged"));
    }
    out.inflated += text.len() as u64;
    if out.inflated >= MAX_INFLATED {
        out.note("compressed texts over 32 MiB in all were not unpacked".to_owned());
    }
    text
}
