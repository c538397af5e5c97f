//! HEIF and AVIF (ISO/IEC 14496-12, 8.11; 23008-12): an item of `meta` that is XMP, whose bytes stand
//! in an `mdat` at the end of the file. A new item makes `meta` larger, and `iloc` is corrected for
//! what moves behind it; an XMP item that is there is pointed at its new bytes, and the old ones
//! become blanks.

use super::mp4::{Atom, Inner, boxed, inside, top};
use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::input::{Input, be16, be32};
use crate::provenance::xmp::MAX_XMP;

const MAX_META: usize = 64 << 20;
const RDF: &str = "application/rdf+xml";
const DAMAGED: &str = "its meta box does not read";
/// `mdat` with its header.
const HEADER: u64 = 8;

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let top = top(input)?;
    if top.iter().any(|a| &a.kind == b"moov") {
        return Err("it is a sequence of pictures (moov), which this version does not write".into());
    }
    let mut metas = top.iter().filter(|a| &a.kind == b"meta");
    let (Some(meta), None) = (metas.next(), metas.next()) else {
        return Err("it has no meta box, or several".into());
    };
    if let Some(last) = top.last()
        && input.array::<4>(last.at)? == Some([0; 4])
    {
        return Err("its last box says no size, so nothing can stand behind it".into());
    }
    let bytes = input.whole(meta.at, meta.end, MAX_META)?.ok_or("its meta box is over 64 MiB")?;
    let meta = Meta::read(bytes, *meta)?;
    let xmp: Vec<u32> = meta.names.iter().filter(|n| n.is_xmp).map(|n| n.id).collect();
    match (&xmp[..], change) {
        ([], Change::Add(json)) => meta.with_item(&xmp::packet(json), input.len()),
        ([], Change::Propagate(_)) => Err(elsewhere()),
        ([id], _) => meta.with_packet(input, *id, change),
        _ => Err("it has several XMP items".into()),
    }
}

/// An item's entry in `iinf`.
struct Named {
    id: u32,
    is_xmp: bool,
}

/// An item's entry in `iloc`: where its parts stand in the buffer.
struct Located {
    id: u32,
    /// 0: in the file, 1: in `idat`, 2: in another item.
    method: u16,
    base_at: usize,
    base: u64,
    /// Of each extent: where its offset and its length stand, and what they say.
    extents: Vec<(usize, u64, usize, u64)>,
}

/// Lengths of the fields of `iloc`.
#[derive(Clone, Copy)]
struct Lengths {
    version: u8,
    offset: usize,
    length: usize,
    base: usize,
    index: usize,
}

/// The box with everything in it that names items.
struct Meta {
    bytes: Vec<u8>,
    at: u64,
    end: u64,
    iinf: Inner,
    iloc: Inner,
    iref: Option<Inner>,
    primary: Option<u32>,
    names: Vec<Named>,
    places: Vec<Located>,
    lengths: Lengths,
}

/// A number of `len` bytes, most significant first.
fn number(bytes: &[u8], at: usize, len: usize) -> Result<u64, Refusal> {
    let piece = bytes.get(at..at + len).filter(|_| len <= 8).ok_or(DAMAGED)?;
    Ok(piece.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// The same number as bytes.
fn field(value: u64, len: usize) -> Result<Vec<u8>, Refusal> {
    const WIDE: &str = "its iloc box has no room for where the label would stand";
    if len > 8 || len < 8 && value >> (8 * len) != 0 {
        return Err(WIDE.into());
    }
    Ok(value.to_be_bytes()[8 - len..].to_vec())
}

impl Meta {
    fn read(bytes: Vec<u8>, atom: Atom) -> Result<Self, Refusal> {
        if atom.body - atom.at != 8 || be32(&bytes, 0) == Some(0) {
            return Err("its meta box cannot state a larger size".into());
        }
        // A full box: version and flags come first.
        let children = inside(&bytes, 12, bytes.len()).map_err(|_| DAMAGED)?;
        let child =
            |kind: &[u8; 4]| -> Result<Option<Inner>, Refusal> {
                let mut found = children.iter().filter(|c| &c.kind == kind);
                match (found.next(), found.next()) {
                    (found, None) => Ok(found.copied()),
                    _ => Err(format!("its meta box has several {}", String::from_utf8_lossy(kind))
                        .into()),
                }
            };
        let iinf = child(b"iinf")?.ok_or("its meta box lists no items (iinf)")?;
        let iloc = child(b"iloc")?.ok_or("its meta box places no items (iloc)")?;
        let iref = child(b"iref")?;
        let plain = |c: &Inner| c.body - c.at == 8;
        if !plain(&iinf) || !plain(&iloc) || !iref.as_ref().is_none_or(plain) {
            return Err(DAMAGED.into());
        }
        let primary = match child(b"pitm")? {
            None => None,
            Some(pitm) if bytes.get(pitm.body) == Some(&0) => {
                be16(&bytes, pitm.body + 4).map(u32::from)
            }
            Some(pitm) => be32(&bytes, pitm.body + 4),
        };
        let (places, lengths) = places(&bytes, iloc)?;
        let names = names(&bytes, iinf)?;
        Ok(Self {
            at: atom.at,
            end: atom.end,
            iinf,
            iloc,
            iref,
            primary,
            names,
            places,
            lengths,
            bytes,
        })
    }

    /// The whole file with one more item, XMP that describes the primary one.
    fn with_item(mut self, packet: &[u8], len: u64) -> Result<Plan, Refusal> {
        let used = self.names.iter().map(|n| n.id).chain(self.places.iter().map(|p| p.id));
        let id = used.max().unwrap_or(0).checked_add(1).ok_or(DAMAGED)?;
        let short = |id: u32| u16::try_from(id).map_err(|_| "it has no number left for an item");
        // infe version 2: id, protection, type, name, content type.
        let entry = [
            &[2, 0, 0, 0][..],
            &short(id)?.to_be_bytes(),
            &[0, 0],
            b"mime",
            b"XMP\0",
            RDF.as_bytes(),
            &[0],
        ]
        .concat();
        let named = boxed(b"infe", &entry)?;
        let Lengths { version, offset, length, base, index } = self.lengths;
        let mut place = match version {
            0 | 1 => short(id)?.to_be_bytes().to_vec(),
            _ => id.to_be_bytes().to_vec(),
        };
        if version > 0 {
            place.extend([0, 0]);
        }
        place.extend([0, 0]);
        let place_len =
            place.len() + base + 2 + if version > 0 { index } else { 0 } + offset + length;
        let reference = self.reference(id)?;
        let grown = (named.len() + place_len + reference.len()) as u64;
        // Where the packet will stand: in one field or the other.
        let stands = len + grown + HEADER;
        let (in_base, in_offset) = if offset > 0 { (0, stands) } else { (stands, 0) };
        place.extend(field(in_base, base)?);
        place.extend(1u16.to_be_bytes());
        place.extend(vec![0; if version > 0 { index } else { 0 }]);
        place.extend(field(in_offset, offset)?);
        place.extend(field(packet.len() as u64, length)?);

        self.shift(grown)?;
        // From behind, so that positions in front of each change stay true.
        let mut inserts = vec![(self.iinf, named, 1), (self.iloc, place, 1)];
        match self.iref {
            Some(iref) => inserts.push((iref, reference, 0)),
            None => self.bytes.extend(reference),
        }
        inserts.sort_by_key(|(inner, ..)| std::cmp::Reverse(inner.at));
        for (inner, new, count) in inserts {
            let size = (inner.end - inner.at + new.len()) as u64;
            self.bytes.splice(inner.at..inner.at + 4, field(size, 4)?);
            if count > 0 {
                self.count(inner)?;
            }
            self.bytes.splice(inner.end..inner.end, new);
        }
        let size = field(self.bytes.len() as u64, 4)?;
        self.bytes.splice(..4, size);
        let mut plan = Plan::default();
        plan.replace(self.at, self.end - self.at, self.bytes);
        plan.insert(len, boxed(b"mdat", packet)?);
        Ok(plan)
    }

    /// The whole file with other bytes for the XMP item that is there.
    fn with_packet(
        mut self,
        input: &mut Input<'_>,
        id: u32,
        change: &Change<'_>,
    ) -> Result<Plan, Refusal> {
        let mut places = self.places.iter().filter(|p| p.id == id);
        let (Some(place), None) = (places.next(), places.next()) else {
            return Err("it has no place, or several, for its XMP item".into());
        };
        let [(offset_at, offset, length_at, length)] = place.extents[..] else {
            return Err("its XMP item stands in several pieces".into());
        };
        if place.method != 0 {
            return Err("its XMP item stands in a place that this version does not write".into());
        }
        let start = place.base.checked_add(offset).ok_or(DAMAGED)?;
        let end = start.checked_add(length).filter(|end| length > 0 && *end <= input.len());
        let end = end.ok_or("its XMP item runs past the end")?;
        let old = input.whole(start, end, MAX_XMP)?.ok_or("its XMP is over 1 MiB")?;
        let new = xmp::edit(&old, change)?;
        let stands = input.len() + HEADER;
        let at = stands.checked_sub(place.base).filter(|_| self.lengths.offset > 0);
        let (at, written) = match at {
            Some(at) => (offset_at, field(at, self.lengths.offset)?),
            None => (place.base_at, field(stands, self.lengths.base)?),
        };
        let shared = |p: &Located| p.id != id && p.method == 0 && p.touches(start, end);
        if self.places.iter().any(shared) || start < self.end && end > self.at {
            return Err("another item stands where its XMP does".into());
        }
        self.bytes.splice(at..at + written.len(), written);
        let size = field(new.len() as u64, self.lengths.length)?;
        self.bytes.splice(length_at..length_at + size.len(), size);
        let mut plan = Plan::default();
        plan.overwrite(self.at, self.bytes);
        plan.overwrite(start, vec![b' '; old.len()]);
        plan.insert(input.len(), boxed(b"mdat", &new)?);
        Ok(plan)
    }

    /// What says that item `id` describes the primary one: a whole `iref`, or one more reference in it.
    fn reference(&self, id: u32) -> Result<Vec<u8>, Refusal> {
        let Some(primary) = self.primary else { return Ok(Vec::new()) };
        let version = match self.iref {
            Some(iref) => *self.bytes.get(iref.body).ok_or(DAMAGED)?,
            None => u8::from(primary > 0xFFFF),
        };
        let len = if version == 0 { 2 } else { 4 };
        let ids = [field(id.into(), len)?, vec![0, 1], field(primary.into(), len)?].concat();
        let reference = boxed(b"cdsc", &ids)?;
        match self.iref {
            Some(_) => Ok(reference),
            None => boxed(b"iref", &[&[version, 0, 0, 0][..], &reference].concat()),
        }
    }

    /// Corrects what names bytes behind `meta`, which move by `grown`.
    fn shift(&mut self, grown: u64) -> Result<(), Refusal> {
        let lengths = self.lengths;
        for place in self.places.iter().filter(|p| p.method == 0) {
            let starts =
                place.extents.iter().map(|(_, offset, ..)| place.base.saturating_add(*offset));
            let behind: Vec<bool> = starts.map(|start| start >= self.end).collect();
            let all = behind.iter().all(|b| *b) && !behind.is_empty();
            if all && lengths.base > 0 && place.base > 0 {
                let base = field(place.base.saturating_add(grown), lengths.base)?;
                self.bytes.splice(place.base_at..place.base_at + base.len(), base);
                continue;
            }
            for ((at, offset, ..), behind) in place.extents.iter().zip(&behind) {
                if *behind {
                    let offset = field(offset.saturating_add(grown), lengths.offset)?;
                    self.bytes.splice(*at..at + offset.len(), offset);
                }
            }
        }
        Ok(())
    }

    /// One more in a box's count: 2 bytes in `iinf` version 0 and `iloc` below 2, else 4.
    fn count(&mut self, inner: Inner) -> Result<(), Refusal> {
        let version = *self.bytes.get(inner.body).ok_or(DAMAGED)?;
        let (at, len) = match (&inner.kind, version) {
            (b"iinf", 0) => (inner.body + 4, 2),
            (b"iinf", _) => (inner.body + 4, 4),
            (_, 0 | 1) => (inner.body + 6, 2),
            _ => (inner.body + 6, 4),
        };
        let more = field(number(&self.bytes, at, len)? + 1, len)?;
        self.bytes.splice(at..at + len, more);
        Ok(())
    }
}

impl Located {
    fn touches(&self, start: u64, end: u64) -> bool {
        self.extents.iter().any(|(_, offset, _, length)| {
            let from = self.base.saturating_add(*offset);
            // A length of 0 is "to the end".
            from < end && (*length == 0 || from.saturating_add(*length) > start)
        })
    }
}

/// The entries of `iinf`.
fn names(bytes: &[u8], iinf: Inner) -> Result<Vec<Named>, Refusal> {
    let count_len = if bytes.get(iinf.body) == Some(&0) { 2 } else { 4 };
    let entries = inside(bytes, iinf.body + 4 + count_len, iinf.end).map_err(|_| DAMAGED)?;
    let mut found = Vec::new();
    for entry in entries.iter().filter(|e| &e.kind == b"infe") {
        let body = bytes.get(entry.body..entry.end).ok_or(DAMAGED)?;
        let (id, rest) = match body.first() {
            Some(2) => (be16(body, 4).map(u32::from), body.get(8..)),
            Some(3) => (be32(body, 4), body.get(10..)),
            _ => return Err("its items are named as in no version that this one writes".into()),
        };
        let (id, rest) = id.zip(rest).ok_or(DAMAGED)?;
        // Type, name, content type.
        let content = rest.get(4..).unwrap_or_default().split(|b| *b == 0).nth(1);
        let is_xmp = rest.starts_with(b"mime")
            && content.is_some_and(|c| c.eq_ignore_ascii_case(RDF.as_bytes()));
        found.push(Named { id, is_xmp });
    }
    Ok(found)
}

/// The entries of `iloc`.
fn places(bytes: &[u8], iloc: Inner) -> Result<(Vec<Located>, Lengths), Refusal> {
    let bytes = bytes.get(..iloc.end).ok_or(DAMAGED)?;
    let version = *bytes.get(iloc.body).ok_or(DAMAGED)?;
    if version > 2 {
        return Err("its iloc box is of a version that this one does not know".into());
    }
    let sizes = number(bytes, iloc.body + 4, 2)?;
    let nibble = |shift: u32| (sizes >> shift & 15) as usize;
    let lengths = Lengths {
        version,
        offset: nibble(12),
        length: nibble(8),
        base: nibble(4),
        index: if version == 0 { 0 } else { nibble(0) },
    };
    let id_len = if version < 2 { 2 } else { 4 };
    let mut at = iloc.body + 6;
    let mut take = |len: usize| -> Result<(usize, u64), Refusal> {
        let value = number(bytes, at, len)?;
        at += len;
        Ok((at - len, value))
    };
    let mut found = Vec::new();
    for _ in 0..take(id_len)?.1 {
        let id = take(id_len)?.1 as u32;
        let method = if version == 0 { 0 } else { (take(2)?.1 & 15) as u16 };
        // Data in another file.
        if take(2)?.1 != 0 {
            return Err("its items stand in another file".into());
        }
        let (base_at, base) = take(lengths.base)?;
        let mut extents = Vec::new();
        for _ in 0..take(2)?.1 {
            take(lengths.index)?;
            let (offset_at, offset) = take(lengths.offset)?;
            let (length_at, length) = take(lengths.length)?;
            extents.push((offset_at, offset, length_at, length));
        }
        found.push(Located { id, method, base_at, base, extents });
    }
    Ok((found, lengths))
}
