//! The EXIF tags in which labels and generators' traces are seen.

use exif::{In, Tag, Value};

use super::collect::{Collector, Spot};
use super::input::cut;
use super::traces::Field;

/// Only this much of an EXIF block is read. In JPEG it cannot be longer than 64 KiB.
pub(crate) const MAX_EXIF: usize = 256 << 10;
const MAX_TEXT: usize = 64 << 10;
/// An ASCII value may hold several strings.
const MAX_PARTS: usize = 64;

const TAGS: [(&str, Tag); 6] = [
    ("ImageDescription", Tag::ImageDescription),
    ("Make", Tag::Make),
    ("Model", Tag::Model),
    ("Software", Tag::Software),
    ("Artist", Tag::Artist),
    ("UserComment", Tag::UserComment),
];

/// Reads a TIFF structure (without the `Exif\0\0` before it) that begins at byte `spot.offset`.
pub(crate) fn read(bytes: &[u8], spot: &Spot, out: &mut Collector) {
    let bytes = bytes.get(..bytes.len().min(MAX_EXIF)).unwrap_or_default();
    let parsed = exif::Reader::new()
        .continue_on_error(true)
        .read_raw(bytes.to_vec())
        .or_else(|error| error.distill_partial_result(|_| {}));
    let Ok(parsed) = parsed else { return };
    let big_endian = !parsed.little_endian();
    for (name, tag) in TAGS {
        let Some(field) = parsed.get_field(tag, In::PRIMARY) else { continue };
        let Some(value) = text(&field.value, tag, big_endian) else { continue };
        out.text(Field::Exif, name, cut(&value, MAX_TEXT), &spot.child(&format!("[{name}]")));
    }
}

fn text(value: &Value, tag: Tag, big_endian: bool) -> Option<String> {
    match value {
        Value::Ascii(parts) => Some(join(parts.iter().map(Vec::as_slice))),
        Value::Undefined(bytes, _) if tag == Tag::UserComment => Some(comment(bytes, big_endian)),
        Value::Undefined(bytes, _) | Value::Byte(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

fn join<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let parts: Vec<_> = parts.take(MAX_PARTS).map(|p| String::from_utf8_lossy(p)).collect();
    parts.join(" ")
}

/// The strings of an ASCII value, each of which ends in NUL, with spaces between them.
pub(crate) fn joined(bytes: &[u8]) -> String {
    join(bytes.split(|b| *b == 0).filter(|part| !part.is_empty()))
}

/// UserComment begins with 8 bytes that name its character set.
pub(crate) fn comment(bytes: &[u8], big_endian: bool) -> String {
    match bytes.split_at_checked(8) {
        Some((b"UNICODE\0", rest)) => utf16(rest, big_endian),
        Some((b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0", rest)) => {
            String::from_utf8_lossy(rest).into_owned()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

pub(crate) fn utf16(bytes: &[u8], big_endian: bool) -> String {
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [a, b] if big_endian => u16::from_be_bytes([*a, *b]),
        [a, b] => u16::from_le_bytes([*a, *b]),
        _ => 0,
    });
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
