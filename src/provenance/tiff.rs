//! TIFF 6.0, BigTIFF, and what is built on them (DNG and other raw pictures): XMP, EXIF texts, C2PA.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::exif::{comment, joined};
use super::input::{Input, MAX_PIECE, Stop};
use super::traces::Field;
use super::{Reader, xmp};

/// Directories of one file; a scan of a book has one a page.
const MAX_IFDS: usize = 2048;
/// Entries of one directory that are looked at.
const MAX_ENTRIES: u64 = 4096;
/// Directories that one SubIFDs entry may name.
const MAX_SUB: u64 = 64;

pub(super) const XMP: u16 = 0x02BC;
const SUB_IFDS: u16 = 0x014A;
const EXIF_IFD: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
const C2PA: u16 = 0xCD41;
const TEXTS: [(u16, &str); 5] = [
    (0x010E, "ImageDescription"),
    (0x010F, "Make"),
    (0x0110, "Model"),
    (0x0131, "Software"),
    (0x013B, "Artist"),
];

pub(super) struct Tiff;

impl Reader for Tiff {
    fn name(&self) -> &'static str {
        "tiff"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        Layout::of(head).is_some()
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let head = input.read(0, 16)?;
        let Some(layout) = Layout::of(&head) else { return Ok(()) };
        let Some(first) = layout.offset(&head, if layout.big { 8 } else { 4 }) else {
            out.note("the picture ends in its header".to_owned());
            return Ok(());
        };
        // Directories still to read, the first one last; and those that were, so that loops end.
        let mut open = vec![(first, "IFD0".to_owned())];
        let mut seen: Vec<u64> = Vec::new();
        while let Some((at, name)) = open.pop() {
            if at == 0 || seen.contains(&at) {
                continue;
            }
            if seen.len() >= MAX_IFDS {
                out.note(format!("more than {MAX_IFDS} directories, the rest was not read"));
                break;
            }
            seen.push(at);
            let Some(ifd) = layout.ifd(input, at)? else {
                out.note(format!("{name}: the directory at byte {at} runs past the end"));
                continue;
            };
            // The next one of the chain comes after what this one contains.
            if ifd.next != 0 {
                let next = match name.strip_prefix("IFD").and_then(|n| n.parse::<u32>().ok()) {
                    Some(n) => format!("IFD{}", n.saturating_add(1)),
                    None => name.clone(),
                };
                open.push((ifd.next, next));
            }
            for entry in &ifd.entries {
                visit(&layout, input, entry, &name, &mut open, out)?;
            }
        }
        Ok(())
    }
}

/// How numbers are written.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    big_endian: bool,
    /// BigTIFF: 64-bit offsets.
    pub(super) big: bool,
}

pub(super) struct Entry {
    pub(super) tag: u16,
    count: u64,
    /// Where its value stands, and how many bytes it has.
    pub(super) value: u64,
    pub(super) len: u64,
}

pub(super) struct Ifd {
    pub(super) entries: Vec<Entry>,
    pub(super) next: u64,
    /// Its entries as they are in the file.
    pub(super) raw: Vec<u8>,
    /// It states more entries than are read.
    pub(super) cut: bool,
}

impl Layout {
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let (big_endian, big) = match head.get(..4)? {
            b"II*\0" => (false, false),
            b"MM\0*" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        Some(Self { big_endian, big })
    }

    pub(super) fn number(self, bytes: &[u8], at: usize, len: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if self.big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }

    /// The `len` low bytes of `number`, as this file writes them.
    pub(super) fn bytes(self, number: u64, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = number.to_le_bytes().into_iter().take(len).collect();
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    pub(super) fn offset_len(self) -> usize {
        if self.big { 8 } else { 4 }
    }

    pub(super) fn offset(self, bytes: &[u8], at: usize) -> Option<u64> {
        self.number(bytes, at, self.offset_len())
    }

    /// Bytes of the number of entries, and of an entry.
    pub(super) fn sizes(self) -> (usize, usize) {
        if self.big { (8, 20) } else { (2, 12) }
    }

    /// The directory at `at`; none where the file ends in it.
    pub(super) fn ifd(self, input: &mut Input<'_>, at: u64) -> Result<Option<Ifd>, Stop> {
        let (count_len, entry_len) = self.sizes();
        let head = input.read(at, count_len)?;
        let Some(count) = self.number(&head, 0, count_len) else { return Ok(None) };
        let start = at + count_len as u64;
        let kept = count.min(MAX_ENTRIES);
        let raw = input.span(start, start + kept * entry_len as u64, MAX_PIECE)?;
        let after = count.checked_mul(entry_len as u64).and_then(|n| n.checked_add(start));
        let next = match after {
            Some(after) => input.read(after, self.offset_len())?,
            None => Vec::new(),
        };
        let Some(next) = self.offset(&next, 0) else { return Ok(None) };
        let entries = (0..raw.len() / entry_len)
            .filter_map(|i| self.entry(&raw, i * entry_len, start + (i * entry_len) as u64))
            .collect();
        Ok(Some(Ifd { entries, next, raw, cut: kept < count }))
    }

    fn entry(self, raw: &[u8], from: usize, at: u64) -> Option<Entry> {
        let tag = u16::try_from(self.number(raw, from, 2)?).ok()?;
        let kind = u16::try_from(self.number(raw, from + 2, 2)?).ok()?;
        let count = self.offset(raw, from + 4)?;
        let unit: u64 = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 | 17 | 18 => 8,
            _ => 1,
        };
        let len = count.checked_mul(unit)?;
        let inline = 4 + self.offset_len();
        let value = if len <= self.offset_len() as u64 {
            at + inline as u64
        } else {
            self.offset(raw, from + inline)?
        };
        Some(Entry { tag, count, value, len })
    }
}

fn visit(
    layout: &Layout,
    input: &mut Input<'_>,
    entry: &Entry,
    ifd: &str,
    open: &mut Vec<(u64, String)>,
    out: &mut Collector,
) -> Result<(), Stop> {
    let end = entry.value.saturating_add(entry.len);
    let cut = end > input.len();
    let spot = |name: &str| Spot::new(format!("{ifd}[{name}]"), entry.value).cut_by_file_end(cut);
    let text = TEXTS.iter().find(|(tag, _)| *tag == entry.tag);
    let wanted =
        text.is_some() || matches!(entry.tag, XMP | SUB_IFDS | EXIF_IFD | USER_COMMENT | C2PA);
    if wanted && cut {
        out.note(format!("{ifd}: the value of tag {:#06x} runs past the end", entry.tag));
    }
    match entry.tag {
        XMP => {
            let bytes = input.span(entry.value, end, xmp::MAX_XMP + 1)?;
            out.xmp(&spot("XMP"), &bytes);
        }
        C2PA => {
            let bytes = input.span(entry.value, end, MAX_PIECE)?;
            out.jumbf(&spot("C2PA"), &bytes, cut);
        }
        SUB_IFDS | EXIF_IFD => {
            let count = entry.count.clamp(1, MAX_SUB);
            let unit = usize::try_from(entry.len / entry.count.max(1)).unwrap_or(0);
            let bytes = input.span(entry.value, end, 8 * MAX_SUB as usize)?;
            let kind = if entry.tag == EXIF_IFD { "EXIF" } else { "SubIFD" };
            for i in (0..count as usize).rev() {
                if let Some(at) = layout.number(&bytes, i * unit, unit.min(8)) {
                    open.push((at, format!("{ifd}.{kind}")));
                }
            }
        }
        USER_COMMENT => {
            let bytes = input.span(entry.value, end, MAX_VALUE)?;
            let value = comment(&bytes, layout.big_endian);
            out.text(Field::Exif, "UserComment", &value, &spot("UserComment"));
        }
        _ => {
            if let Some((_, name)) = text {
                let bytes = input.span(entry.value, end, MAX_VALUE)?;
                out.text(Field::Exif, name, &joined(&bytes), &spot(name));
            }
        }
    }
    Ok(())
}
