//! ISO base media files and QuickTime: MP4, MOV, M4A, 3GP (ISO/IEC 14496-12, QuickTime File Format).

use super::collect::{Collector, MAX_VALUE, Spot};
use super::encoder;
use super::exif::utf16;
use super::heif::{Item, Items, MAX_ILOC, MAX_ITEMS};
use super::input::{Input, MAX_PIECE, Stop, be16, be32, be64};
use super::traces::Field;
use super::{Reader, aigc, xmp};

const MAX_DEPTH: usize = 8;
/// Boxes looked at in one file. A day of two-second fragments has 86,400.
const MAX_BOXES: u32 = 200_000;
const MAX_KEYS: u32 = 4096;
/// Bytes of a key's name that are kept.
const MAX_KEY: usize = 128;
/// Streams whose heads are searched.
const MAX_HEADS: u32 = 4;
/// Of one unused box this much is searched, and of all of them [`MAX_FREE_TOTAL`].
const MAX_FREE: usize = 4 << 20;
const MAX_FREE_TOTAL: usize = 32 << 20;

pub(super) const XMP_UUID: [u8; 16] = [
    0xBE, 0x7A, 0xCF, 0xCB, 0x97, 0xA9, 0x42, 0xE8, 0x9C, 0x71, 0x99, 0x94, 0x91, 0xE3, 0xAF, 0xAC,
];
const C2PA_UUID: [u8; 16] = [
    0xD8, 0xFE, 0xC3, 0xD6, 0x1B, 0x0E, 0x48, 0x3C, 0x92, 0x97, 0x58, 0x28, 0x87, 0x7E, 0xC4, 0x81,
];

pub(super) struct Mp4;

impl Reader for Mp4 {
    fn name(&self) -> &'static str {
        "mp4"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        const FIRST: [&[u8; 4]; 9] =
            [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"];
        head.get(4..8).is_some_and(|kind| FIRST.iter().any(|first| *first == kind))
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        walk(input, out)
    }
}

/// HEIF and AVIF (ISO/IEC 23008-12): the same boxes; labels stand in the items of `meta`.
pub(super) struct Heif;

impl Reader for Heif {
    fn name(&self) -> &'static str {
        "heif"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        const BRANDS: [&[u8; 4]; 10] = [
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif",
            b"avis",
        ];
        head.get(4..8) == Some(b"ftyp")
            && head.get(8..12).is_some_and(|brand| BRANDS.iter().any(|b| *b == brand))
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        walk(input, out)
    }
}

fn walk(input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
    let end = input.len();
    let mut walk = Walk {
        input,
        out,
        boxes_left: MAX_BOXES,
        free_left: MAX_FREE_TOTAL,
        after_mdat: false,
        heads_left: MAX_HEADS,
        fragment: false,
    };
    walk.children(0, end, "", 0)
}

struct Walk<'w, 'i> {
    input: &'w mut Input<'i>,
    out: &'w mut Collector,
    boxes_left: u32,
    free_left: usize,
    after_mdat: bool,
    /// Streams whose heads may still be searched for their encoder's options.
    heads_left: u32,
    /// A fragment was seen, so that the next `mdat` begins with its samples.
    fragment: bool,
}

/// A box; QuickTime calls it an atom.
#[derive(Clone, Copy)]
struct Atom {
    kind: [u8; 4],
    at: u64,
    body: u64,
    end: u64,
    /// It states more bytes than the file has.
    file_cut: bool,
}

impl Atom {
    fn name(&self) -> String {
        self.kind.iter().map(|b| char::from(*b)).flat_map(char::escape_default).collect()
    }

    /// The path of this box under `parent`.
    fn path(&self, parent: &str) -> String {
        if parent.is_empty() { self.name() } else { format!("{parent}.{}", self.name()) }
    }
}

impl Walk<'_, '_> {
    /// The box at `at`, or none at the end of `limit` or where no box can be.
    fn next(&mut self, at: u64, limit: u64, path: &str) -> Result<Option<Atom>, Stop> {
        // Less than a header: QuickTime ends `udta` with four zero bytes.
        if limit.saturating_sub(at) < 8 {
            return Ok(None);
        }
        if self.boxes_left == 0 {
            self.out.note(format!("more than {MAX_BOXES} boxes, the rest was not read"));
            return Ok(None);
        }
        self.boxes_left -= 1;
        let head = self.input.read(at, 16)?;
        let (Some(small), Some(kind)) = (be32(&head, 0), head.get(4..8)) else { return Ok(None) };
        let kind = [kind[0], kind[1], kind[2], kind[3]];
        let (header, size) = match small {
            0 => (8, limit - at),
            1 => (16, be64(&head, 8).unwrap_or(0)),
            n => (8, u64::from(n)),
        };
        if size < header {
            self.out.note(format!("{path}: a box at byte {at} states an impossible size"));
            return Ok(None);
        }
        let end = at.saturating_add(size);
        let mut file_cut = false;
        if end > limit {
            file_cut = limit == self.input.len();
            let what = if file_cut { "the file" } else { "its parent" };
            self.out.note(format!("{path}: a box at byte {at} runs past the end of {what}"));
        }
        let body = (at + header).min(limit);
        Ok(Some(Atom { kind, at, body, end: end.min(limit), file_cut }))
    }

    fn children(&mut self, start: u64, end: u64, path: &str, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            self.out.note(format!("{path}: boxes nested deeper than {MAX_DEPTH}"));
            return Ok(());
        }
        let mut at = start;
        while let Some(this) = self.next(at, end, path)? {
            self.visit(&this, path, depth)?;
            at = this.end;
        }
        Ok(())
    }

    fn visit(&mut self, this: &Atom, parent: &str, depth: usize) -> Result<(), Stop> {
        let path = this.path(parent);
        // `moov` after `mdat` is what every plain recording has; a label on its own behind it is not.
        let late = (depth == 0 && self.after_mdat).then_some("misplaced_after_mdat");
        let spot = Spot::new(path.as_str(), this.at).cut_by_file_end(this.file_cut).misplaced(late);
        match &this.kind {
            b"moov" | b"trak" | b"moof" | b"traf" | b"udta" => {
                self.fragment |= &this.kind == b"moof";
                self.children(this.body, this.end, &path, depth + 1)?;
            }
            b"mdia" if parent.ends_with("trak") => self.media(this, &path)?,
            b"meta" => self.meta(this, &path, late, depth)?,
            b"mdat" => {
                self.after_mdat = true;
                if self.fragment {
                    self.fragment = false;
                    self.head(this.body, this.end, &spot)?;
                }
            }
            b"free" | b"skip" | b"wide" | [0, 0, 0, 0] => self.unused(this, &spot)?,
            b"uuid" => self.uuid(this, &spot)?,
            b"jumb" => {
                let bytes = self.input.span(this.at, this.end, MAX_PIECE)?;
                self.out.jumbf(&spot, &bytes, this.file_cut);
            }
            b"XMP_" => {
                let bytes = self.input.span(this.body, this.end, xmp::MAX_XMP + 1)?;
                self.out.xmp(&spot, &bytes);
            }
            b"aigc" | b"AIGC" => {
                let bytes = self.input.span(this.body, this.end, MAX_VALUE)?;
                // Some write the version and flags of a full box first.
                let zeros = bytes.iter().take(4).take_while(|b| **b == 0).count();
                let text = bytes.get(zeros..).unwrap_or_default();
                self.out.aigc(&spot, &String::from_utf8_lossy(text), &[]);
            }
            // QuickTime user data: a length, a language, text.
            [0xA9, ..] if parent.ends_with("udta") => {
                let bytes = self.input.span(this.body, this.end, MAX_VALUE)?;
                let len = usize::from(be16(&bytes, 0).unwrap_or(0));
                let text = bytes.get(4..bytes.len().min(4 + len)).unwrap_or_default();
                let key =
                    if &this.kind[1..] == b"cmt" { "comment".to_owned() } else { this.name() };
                self.out.tag(Field::Tag, &key, &String::from_utf8_lossy(text), &spot);
            }
            _ => {}
        }
        Ok(())
    }

    /// What wrote a track: its handler's name, and the encoder's options in the first sample of
    /// pictures or in the sample description.
    fn media(&mut self, this: &Atom, path: &str) -> Result<(), Stop> {
        let mut pictures = false;
        let mut at = this.body;
        while let Some(child) = self.next(at, this.end, path)? {
            at = child.end;
            match &child.kind {
                b"hdlr" => {
                    let bytes = self.input.span(child.body, child.end, 256)?;
                    pictures = bytes.get(8..12) == Some(b"vide");
                    let name = bytes.get(24..).unwrap_or_default();
                    // QuickTime's has its length before it, ISO's a zero behind it.
                    let name = match name.split_first() {
                        Some((len, text)) if usize::from(*len) == text.len() => text,
                        _ => name,
                    };
                    let name = name.split(|b| *b == 0).next().unwrap_or_default();
                    let spot = Spot::new(child.path(path), child.at);
                    self.out.handler(&spot, &String::from_utf8_lossy(name));
                }
                b"minf" if pictures => self.first_sample(&child, &child.path(path))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn first_sample(&mut self, minf: &Atom, path: &str) -> Result<(), Stop> {
        let Some(table) = self.child(minf, b"stbl", path)? else { return Ok(()) };
        let path = table.path(path);
        if let Some(description) = self.child(&table, b"stsd", &path)? {
            let spot = Spot::new(description.path(&path), description.at);
            self.head(description.body, description.end, &spot)?;
        }
        let mut offset = None;
        if let Some(chunks) = self.child(&table, b"stco", &path)? {
            let bytes = self.input.span(chunks.body, chunks.end, 12)?;
            offset = be32(&bytes, 8).map(u64::from);
        } else if let Some(chunks) = self.child(&table, b"co64", &path)? {
            let bytes = self.input.span(chunks.body, chunks.end, 16)?;
            offset = be64(&bytes, 8);
        }
        if let Some(offset) = offset.filter(|offset| *offset > 0) {
            self.head(offset, self.input.len(), &Spot::new("mdat", offset))?;
        }
        Ok(())
    }

    fn child(&mut self, parent: &Atom, kind: &[u8; 4], path: &str) -> Result<Option<Atom>, Stop> {
        let mut at = parent.body;
        while let Some(child) = self.next(at, parent.end, path)? {
            if &child.kind == kind {
                return Ok(Some(child));
            }
            at = child.end;
        }
        Ok(None)
    }

    fn head(&mut self, start: u64, end: u64, spot: &Spot) -> Result<(), Stop> {
        if let Some(left) = self.heads_left.checked_sub(1) {
            self.heads_left = left;
            let bytes = self.input.span(start, end, encoder::HEAD)?;
            self.out.stream_head(spot, &bytes);
        }
        Ok(())
    }

    fn unused(&mut self, this: &Atom, spot: &Spot) -> Result<(), Stop> {
        let bytes = self.input.span(this.body, this.end, MAX_FREE.min(self.free_left))?;
        self.free_left -= bytes.len();
        self.out.padding(spot, &bytes);
        Ok(())
    }

    fn uuid(&mut self, this: &Atom, spot: &Spot) -> Result<(), Stop> {
        let Some(id) = self.input.array::<16>(this.body)? else { return Ok(()) };
        let body = this.body + 16;
        if id == XMP_UUID {
            let bytes = self.input.span(body, this.end, xmp::MAX_XMP + 1)?;
            self.out.xmp(&spot.child("(XMP)"), &bytes);
        } else if id == C2PA_UUID {
            // Version and flags, a purpose that ends in NUL, then for a manifest 8 bytes of offset.
            let bytes = self.input.span(body, this.end, MAX_PIECE)?;
            let purpose = bytes.get(4..).unwrap_or_default();
            let Some(len) =
                memchr::memchr(0, purpose.get(..purpose.len().min(64)).unwrap_or_default())
            else {
                return Ok(());
            };
            // Merkle trees of fragments are another purpose and hold no manifest.
            if purpose.get(..len) != Some(b"merkle") {
                let store = purpose.get(len + 1 + 8..).unwrap_or_default();
                self.out.jumbf(&spot.child("(C2PA)"), store, this.file_cut);
            }
        }
        Ok(())
    }

    fn meta(
        &mut self,
        this: &Atom,
        path: &str,
        late: Option<&'static str>,
        depth: usize,
    ) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            self.out.note(format!("{path}: boxes nested deeper than {MAX_DEPTH}"));
            return Ok(());
        }
        let head = self.input.span(this.body, this.end, 12)?;
        // QuickTime's `meta` is a plain box, MP4's a full one.
        let plain = head.get(4..8) == Some(b"hdlr");
        let start = if plain { this.body } else { this.body + 4 };
        let mut keys: Vec<(String, u64)> = Vec::new();
        let mut used = Vec::new();
        let mut at = start;
        let mut lists = Vec::new();
        let mut items = Items::default();
        while let Some(child) = self.next(at, this.end, path)? {
            match &child.kind {
                b"keys" => keys = self.keys(&child)?,
                b"ilst" => lists.push(child),
                b"iinf" => items.names = self.item_names(&child, path)?,
                b"iloc" => items.places = self.input.span(child.body, child.end, MAX_ILOC)?,
                b"idat" => items.data = Some((child.body, child.end)),
                _ => self.visit(&child, path, depth + 1)?,
            }
            at = child.end;
        }
        for list in &lists {
            self.items(list, &list.path(path), &keys, late, &mut used)?;
        }
        items.read(self.input, path, self.out)?;
        for (index, (key, offset)) in keys.iter().enumerate() {
            if aigc::is_key(key) && !used.contains(&(index + 1)) {
                self.out.key_without_item(&Spot::new(format!("{path}.keys[{key}]"), *offset));
            }
        }
        Ok(())
    }

    /// The items of a HEIF file that can carry labels.
    fn item_names(&mut self, this: &Atom, path: &str) -> Result<Vec<Item>, Stop> {
        let head = self.input.span(this.body, this.end, 8)?;
        // Version, flags, the number of entries in 16 or 32 bits.
        let mut at = this.body + if head.first() == Some(&0) { 6 } else { 8 };
        let mut found = Vec::new();
        while let Some(child) = self.next(at, this.end, path)? {
            at = child.end;
            let bytes = self.input.span(child.body, child.end, 512)?;
            if let Some(item) = Item::of(&bytes) {
                if found.len() >= MAX_ITEMS {
                    self.out.note(format!("{path}: more than {MAX_ITEMS} items of metadata"));
                    break;
                }
                found.push(item);
            }
        }
        Ok(found)
    }

    fn keys(&mut self, this: &Atom) -> Result<Vec<(String, u64)>, Stop> {
        let bytes = self.input.span(this.body, this.end, 1 << 20)?;
        let count = be32(&bytes, 4).unwrap_or(0).min(MAX_KEYS);
        let mut keys = Vec::new();
        let mut at = 8;
        for _ in 0..count {
            let Some(size) = be32(&bytes, at) else { break };
            let size = size as usize;
            let Some(name) = bytes.get(at + 8..at.saturating_add(size.max(8))) else { break };
            let name = name.get(..name.len().min(MAX_KEY)).unwrap_or_default();
            keys.push((String::from_utf8_lossy(name).into_owned(), this.body + at as u64));
            at += size.max(8);
        }
        Ok(keys)
    }

    fn items(
        &mut self,
        list: &Atom,
        path: &str,
        keys: &[(String, u64)],
        late: Option<&'static str>,
        used: &mut Vec<usize>,
    ) -> Result<(), Stop> {
        let mut at = list.body;
        while let Some(item) = self.next(at, list.end, path)? {
            at = item.end;
            if matches!(&item.kind, b"free" | b"skip") {
                self.unused(&item, &Spot::new(item.path(path), item.at))?;
                continue;
            }
            let index = u32::from_be_bytes(item.kind) as usize;
            let known = index.checked_sub(1).and_then(|i| keys.get(i));
            if known.is_some() {
                used.push(index);
            }
            let mut key = match (known, &item.kind) {
                (Some((key, _)), _) => key.clone(),
                (None, [0xA9, b'c', b'm', b't']) => "comment".to_owned(),
                (None, _) => item.name(),
            };
            let mut value = None;
            let mut inner = item.body;
            while let Some(child) = self.next(inner, item.end, path)? {
                inner = child.end;
                let bytes = self.input.span(child.body, child.end, MAX_VALUE)?;
                match &child.kind {
                    // iTunes' free-form item: mean, name, data.
                    b"name" => {
                        let name = bytes.get(4..).unwrap_or_default();
                        key = String::from_utf8_lossy(name).into_owned();
                    }
                    b"data" => {
                        let text = bytes.get(8..).unwrap_or_default();
                        value = match be32(&bytes, 0) {
                            Some(0 | 1) => Some(String::from_utf8_lossy(text).into_owned()),
                            Some(2) => Some(utf16(text, true)),
                            _ => None,
                        };
                    }
                    _ => {}
                }
            }
            let spot = Spot::new(format!("{path}[{key}]"), item.at)
                .cut_by_file_end(item.file_cut || list.file_cut)
                .misplaced(late);
            match value {
                Some(value) => self.out.tag(Field::Tag, &key, &value, &spot),
                None if aigc::is_key(&key) => self.out.aigc(&spot, "", &[]),
                None => {}
            }
        }
        Ok(())
    }
}
