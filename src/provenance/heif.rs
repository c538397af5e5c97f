//! Items of HEIF and AVIF (ISO/IEC 14496-12, 8.11: `iinf`, `iloc`, `idat`) that carry XMP, EXIF or
//! text. `mp4.rs` walks the boxes.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop, be16, be32};
use super::traces::Field;
use super::{exif, xmp};

/// Of the table of places this much is read; a grid of 1,000 tiles takes 16 KiB.
pub(super) const MAX_ILOC: usize = 1 << 20;
/// Items of metadata in one `meta`.
pub(super) const MAX_ITEMS: usize = 64;
const MAX_EXTENTS: u64 = 256;

/// An item that may carry a label.
pub(super) struct Item {
    id: u32,
    kind: [u8; 4],
    content: String,
    encoded: bool,
}

impl Item {
    /// Reads the body of an `infe` box; none where the item holds no metadata.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = match bytes.first()? {
            2 => (u32::from(be16(bytes, 4)?), bytes.get(8..)?),
            3 => (be32(bytes, 4)?, bytes.get(10..)?),
            // Older versions name no type; their content type comes behind the name.
            _ => return None,
        };
        let kind: [u8; 4] = rest.get(..4)?.try_into().ok()?;
        if !matches!(&kind, b"mime" | b"Exif") {
            return None;
        }
        // Name, content type, encoding, each of which ends in NUL.
        let mut texts = rest.get(4..).unwrap_or_default().split(|b| *b == 0).skip(1);
        let content = texts.next().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let encoded = texts.next().is_some_and(|text| !text.is_empty());
        Some(Self { id, kind, content, encoded })
    }
}

/// What a `meta` box says about its items.
#[derive(Default)]
pub(super) struct Items {
    pub(super) names: Vec<Item>,
    /// The body of `iloc`.
    pub(super) places: Vec<u8>,
    /// Where the body of `idat` begins and ends.
    pub(super) data: Option<(u64, u64)>,
}

struct Place {
    /// 0: in the file, 1: in `idat`, 2: in another item.
    method: u16,
    /// Offset and length; a length of 0 is "to the end".
    extents: Vec<(u64, u64)>,
}

impl Items {
    pub(super) fn read(
        &self,
        input: &mut Input<'_>,
        path: &str,
        out: &mut Collector,
    ) -> Result<(), Stop> {
        for item in &self.names {
            let name = String::from_utf8_lossy(&item.kind).into_owned();
            let label = format!(
                "{path}.item{}({})",
                item.id,
                if name == "Exif" { &name } else { &item.content }
            );
            let Some(place) = self.place(item.id) else {
                out.note(format!("{label}: no place is given for it"));
                continue;
            };
            let (base, limit) = match (place.method, self.data) {
                (0, _) => (0, input.len()),
                (1, Some(data)) => data,
                _ => {
                    out.note(format!("{label}: it stands where this version does not read"));
                    continue;
                }
            };
            let cap = match &item.kind {
                b"Exif" => exif::MAX_EXIF,
                _ if is_xmp(&item.content) => xmp::MAX_XMP + 1,
                _ => MAX_VALUE,
            };
            let mut bytes = Vec::new();
            let (mut first, mut cut) = (None, false);
            for (offset, len) in &place.extents {
                let start = base.saturating_add(*offset).min(limit);
                let end = match len {
                    0 => limit,
                    len => start.saturating_add(*len),
                };
                cut |= end > limit || base.saturating_add(*offset) > limit;
                first.get_or_insert(start);
                bytes.extend(input.span(start, end.min(limit), cap - bytes.len())?);
            }
            if cut {
                out.note(format!("{label}: it runs past the end"));
            }
            let spot =
                Spot::new(label, first.unwrap_or(0)).cut_by_file_end(cut && place.method == 0);
            if item.encoded {
                out.note(format!("{spot}: compressed metadata is not read"));
            } else if &item.kind == b"Exif" {
                // Four bytes say how far behind them the TIFF header stands.
                let skip = be32(&bytes, 0).and_then(|n| (n as usize).checked_add(4));
                let tiff = skip.and_then(|skip| bytes.get(skip..)).unwrap_or_default();
                out.exif(&spot, tiff);
            } else if is_xmp(&item.content) {
                out.xmp(&spot, &bytes);
            } else {
                out.text(Field::Tag, &item.content, &String::from_utf8_lossy(&bytes), &spot);
            }
        }
        Ok(())
    }

    fn place(&self, id: u32) -> Option<Place> {
        let bytes = &self.places;
        let version = *bytes.first()?;
        let sizes = be16(bytes, 4)?;
        let nibble = |shift: u32| usize::from(sizes >> shift & 15);
        let (offset_len, length_len, base_len) = (nibble(12), nibble(8), nibble(4));
        let index_len = if version == 0 { 0 } else { nibble(0) };
        let mut at = 6;
        let mut take = |len: usize| -> Option<u64> {
            if len > 8 {
                return None;
            }
            let piece = bytes.get(at..at + len)?;
            at += len;
            Some(piece.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
        };
        let id_len = if version < 2 { 2 } else { 4 };
        let count = take(id_len)?;
        for _ in 0..count {
            let this = take(id_len)?;
            let method = if version == 0 { 0 } else { (take(2)? & 15) as u16 };
            take(2)?;
            let base = take(base_len)?;
            let extents = take(2)?;
            let mut found = Vec::new();
            for number in 0..extents {
                take(index_len)?;
                let offset = take(offset_len)?;
                let length = take(length_len)?;
                if number < MAX_EXTENTS {
                    found.push((base.saturating_add(offset), length));
                }
            }
            if this == u64::from(id) {
                return Some(Place { method, extents: found });
            }
        }
        None
    }
}

fn is_xmp(content: &str) -> bool {
    content.eq_ignore_ascii_case("application/rdf+xml")
}
