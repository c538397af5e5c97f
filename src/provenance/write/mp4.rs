//! MP4, MOV, M4A: `moov.udta.meta` with `keys` and `ilst`. What names bytes of the file (`stco`,
//! `co64`, `saio`, `tfhd`, `tfra`) is corrected where the media moves.

use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::aigc;
use crate::provenance::input::{Input, be32, be64};
use crate::provenance::mp4::XMP_UUID;
use crate::provenance::xmp::MAX_XMP;

/// The index of a film of a day is some tens of megabytes.
const MAX_MOOV: usize = 1 << 30;
const MAX_MOOF: usize = 64 << 20;
const MAX_BOXES: usize = 400_000;
const DAMAGED: &str = "a box in its moov does not fit into what holds it";

/// A box of a file or in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Atom {
    pub(super) kind: [u8; 4],
    pub(super) at: u64,
    pub(super) body: u64,
    pub(super) end: u64,
}

impl Atom {
    fn of(head: &[u8], at: u64, limit: u64) -> Option<Self> {
        let kind = head.get(4..8)?.try_into().ok()?;
        let (header, size) = match be32(head, 0)? {
            0 => (8, limit.checked_sub(at)?),
            1 => (16, be64(head, 8)?),
            n => (8, u64::from(n)),
        };
        let end = at.checked_add(size).filter(|end| size >= header && *end <= limit)?;
        Some(Self { kind, at, body: at + header, end })
    }
}

/// A box in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    pub(super) kind: [u8; 4],
    pub(super) at: usize,
    pub(super) body: usize,
    pub(super) end: usize,
}

/// The boxes from `start` to `end` of a buffer. QuickTime ends lists with four zero bytes.
pub(super) fn inside(bytes: &[u8], start: usize, end: usize) -> Result<Vec<Inner>, Refusal> {
    let mut found = Vec::new();
    let mut at = start;
    while end.saturating_sub(at) >= 8 {
        let head = bytes.get(at..end.min(at + 16)).ok_or(DAMAGED)?;
        let this = Atom::of(head, at as u64, end as u64).ok_or(DAMAGED)?;
        if found.len() >= MAX_BOXES {
            return Err("its moov has more boxes than any".into());
        }
        at = this.end as usize;
        found.push(Inner {
            kind: this.kind,
            at: this.at as usize,
            body: this.body as usize,
            end: at,
        });
    }
    Ok(found)
}

fn child(bytes: &[u8], parent: Inner, kind: &[u8; 4]) -> Result<Option<Inner>, Refusal> {
    Ok(inside(bytes, parent.body, parent.end)?.into_iter().find(|c| &c.kind == kind))
}

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let top = top(input)?;
    let mut moovs = top.iter().filter(|a| &a.kind == b"moov");
    let (Some(moov), None) = (moovs.next(), moovs.next()) else {
        return Err("it has no moov box, or several".into());
    };
    let moov = *moov;
    let bytes = input.whole(moov.at, moov.end, MAX_MOOV)?.ok_or("its moov is over 1 GiB")?;
    let mut buffer = Buffer { bytes, size: moov.end - moov.at };
    let mut plan = Plan::default();
    let edited = match change {
        Change::Add(json) => {
            buffer.add(json)?;
            true
        }
        Change::Propagate(_) => buffer.propagate(change)?,
    };
    if !edited {
        return packet(input, &top, moov, buffer, change);
    }
    let grown = buffer.bytes.len() as i64 - buffer.size as i64;
    let moved = shift(input, &top, moov.end, grown, &mut plan)?;
    if moved != 0 {
        buffer.relocate(moov.end, moved)?;
    }
    plan.replace(moov.at, moov.end - moov.at, buffer.bytes);
    Ok(plan)
}

/// Changes a label in an XMP box beside `moov`.
fn packet(
    input: &mut Input<'_>,
    top: &[Atom],
    moov: Atom,
    mut buffer: Buffer,
    change: &Change<'_>,
) -> Result<Plan, Refusal> {
    for atom in top.iter().filter(|a| &a.kind == b"uuid") {
        if input.array::<16>(atom.body)? != Some(XMP_UUID) {
            continue;
        }
        let start = atom.body + 16;
        let Some(old) = input.whole(start, atom.end, MAX_XMP)? else { continue };
        if memchr::memmem::find(&old, b"AIGC").is_none() {
            continue;
        }
        let new = xmp::edit(&old, change)?;
        let grown = new.len() as i64 - old.len() as i64;
        let mut plan = Plan::default();
        let moved = shift(input, top, atom.end, grown, &mut plan)?;
        if moved != 0 {
            buffer.relocate(atom.end, moved)?;
            plan.overwrite(moov.at, buffer.bytes);
        }
        if grown != 0 {
            let size = (atom.end - atom.at).checked_add_signed(grown);
            let size =
                size.and_then(|n| u32::try_from(n).ok()).filter(|_| atom.body - atom.at == 8);
            let size = size.ok_or("its XMP box cannot state a larger size")?;
            plan.overwrite(atom.at, size.to_be_bytes().to_vec());
        }
        plan.replace(start, old.len() as u64, new);
        return Ok(plan);
    }
    Err(elsewhere())
}

pub(super) fn top(input: &mut Input<'_>) -> Result<Vec<Atom>, Refusal> {
    let mut found: Vec<Atom> = Vec::new();
    let (mut at, end) = (0, input.len());
    while end - at >= 8 {
        let head = input.read(at, 16)?;
        let this = Atom::of(&head, at, end);
        let this = this.ok_or_else(|| format!("a box at byte {at} breaks off"))?;
        if found.len() >= MAX_BOXES {
            return Err("it has more boxes than any such file".into());
        }
        at = this.end;
        found.push(this);
    }
    Ok(found)
}

/// Sees to it that what stands behind byte `behind` may move by `grown`: takes it from free space
/// that follows at once, or corrects what names bytes there, outside `moov`. Gives by how much
/// bytes behind move.
fn shift(
    input: &mut Input<'_>,
    top: &[Atom],
    behind: u64,
    grown: i64,
    plan: &mut Plan,
) -> Result<i64, Refusal> {
    if grown == 0 {
        return Ok(0);
    }
    let next = top.iter().find(|a| a.at == behind);
    if let Some(free) = next.filter(|a| matches!(&a.kind, b"free" | b"skip"))
        && let Some(left) = (free.end - free.at).checked_add_signed(-grown)
        && (left == 0 || left >= 8)
        && let Ok(size) = u32::try_from(left)
        && free.end - free.at <= 16 << 20
    {
        let body = input.whole(free.body, free.end, 16 << 20)?;
        // What is not zero may be the trace of something.
        if body.is_some_and(|bytes| bytes.iter().all(|b| *b == 0)) {
            let mut filler = Vec::new();
            if size > 0 {
                filler = [&size.to_be_bytes()[..], &free.kind].concat();
                filler.resize(size as usize, 0);
            }
            plan.replace(free.at, free.end - free.at, filler);
            return Ok(0);
        }
    }
    for atom in top {
        match &atom.kind {
            b"moof" if atom.at >= behind => fragment(input, *atom, behind, grown, plan)?,
            b"mfra" => random_access(input, *atom, behind, grown, plan)?,
            // It counts from its own end, over what would grow.
            b"sidx" if atom.at < behind => {
                return Err("its index of segments (sidx) stands before what would grow".into());
            }
            b"meta" => {
                let bytes = input.whole(atom.body, atom.end, MAX_MOOF)?;
                if bytes.is_none_or(|bytes| memchr::memmem::find(&bytes, b"iloc").is_some()) {
                    return Err("items of its meta box name bytes that would move".into());
                }
            }
            _ => {}
        }
    }
    Ok(grown)
}

/// A fragment's base, where it is counted from the start of the file.
fn fragment(
    input: &mut Input<'_>,
    moof: Atom,
    behind: u64,
    grown: i64,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let bytes = input.whole(moof.at, moof.end, MAX_MOOF)?.ok_or("a moof is over 64 MiB")?;
    let whole =
        Inner { kind: moof.kind, at: 0, body: (moof.body - moof.at) as usize, end: bytes.len() };
    for traf in inside(&bytes, whole.body, whole.end)?.iter().filter(|c| &c.kind == b"traf") {
        let Some(tfhd) = child(&bytes, *traf, b"tfhd")? else { continue };
        if be32(&bytes, tfhd.body).is_some_and(|flags| flags & 1 == 1) {
            let at = tfhd.body + 8;
            let old = be64(&bytes, at).ok_or(DAMAGED)?;
            if old >= behind {
                let new = old.checked_add_signed(grown).ok_or(DAMAGED)?;
                plan.overwrite(moof.at + at as u64, new.to_be_bytes().to_vec());
            }
        }
    }
    Ok(())
}

/// `mfra`: where the fragments with key pictures begin.
fn random_access(
    input: &mut Input<'_>,
    mfra: Atom,
    behind: u64,
    grown: i64,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let bytes = input.whole(mfra.at, mfra.end, MAX_MOOF)?.ok_or("its mfra is over 64 MiB")?;
    let body = (mfra.body - mfra.at) as usize;
    for tfra in inside(&bytes, body, bytes.len())?.iter().filter(|c| &c.kind == b"tfra") {
        let wide = bytes.get(tfra.body) == Some(&1);
        let lengths = be32(&bytes, tfra.body + 8).ok_or(DAMAGED)?;
        let count = be32(&bytes, tfra.body + 12).ok_or(DAMAGED)?;
        let numbers: u32 = [4, 2, 0].iter().map(|shift| (lengths >> shift & 3) + 1).sum();
        let entry = if wide { 16 } else { 8 } + numbers as usize;
        for index in 0..count as usize {
            let at = index.checked_mul(entry).and_then(|n| n.checked_add(tfra.body + 16));
            let at = at.filter(|at| at + entry <= tfra.end).ok_or(DAMAGED)?;
            let at = at + if wide { 8 } else { 4 };
            let old = if wide { be64(&bytes, at) } else { be32(&bytes, at).map(u64::from) };
            let old = old.ok_or(DAMAGED)?;
            if old >= behind {
                let new = old.checked_add_signed(grown).ok_or(DAMAGED)?;
                plan.overwrite(mfra.at + at as u64, place(new, wide)?);
            }
        }
    }
    Ok(())
}

fn place(new: u64, wide: bool) -> Result<Vec<u8>, Refusal> {
    if wide {
        return Ok(new.to_be_bytes().to_vec());
    }
    let what = "its media would move beyond the 4 GiB that its index can name";
    Ok(u32::try_from(new).map_err(|_| what)?.to_be_bytes().to_vec())
}

/// `moov` in memory.
struct Buffer {
    bytes: Vec<u8>,
    /// What it took in the file.
    size: u64,
}

impl Buffer {
    fn moov(&self) -> Result<Inner, Refusal> {
        let head = self.bytes.get(..self.bytes.len().min(16)).unwrap_or_default();
        let this = Atom::of(head, 0, self.bytes.len() as u64).ok_or(DAMAGED)?;
        Ok(Inner { kind: this.kind, at: 0, body: this.body as usize, end: this.end as usize })
    }

    /// Bytes from `start` to `end` give way to `new`, and the boxes around them state it.
    fn splice(
        &mut self,
        around: &[Inner],
        start: usize,
        end: usize,
        new: Vec<u8>,
    ) -> Result<(), Refusal> {
        let grown = new.len() as i64 - (end - start) as i64;
        self.bytes.splice(start..end, new);
        for outer in around {
            let stated = be32(&self.bytes, outer.at).ok_or(DAMAGED)?;
            let (at, raw) = match stated {
                // To the end of the file, as before.
                0 => continue,
                1 => {
                    let size = be64(&self.bytes, outer.at + 8).ok_or(DAMAGED)?;
                    let size = size.checked_add_signed(grown).ok_or(DAMAGED)?;
                    (outer.at + 8, size.to_be_bytes().to_vec())
                }
                size => {
                    let size = u64::from(size).checked_add_signed(grown);
                    let size = size.and_then(|n| u32::try_from(n).ok());
                    (outer.at, size.ok_or("its moov would grow over 4 GiB")?.to_be_bytes().to_vec())
                }
            };
            self.bytes.splice(at..at + raw.len(), raw);
        }
        Ok(())
    }

    fn add(&mut self, json: &str) -> Result<(), Refusal> {
        let moov = self.moov()?;
        let children = inside(&self.bytes, moov.body, moov.end)?;
        if children.iter().any(|c| &c.kind == b"cmov") {
            return Err("its moov is compressed".into());
        }
        let Some(udta) = children.iter().find(|c| &c.kind == b"udta").copied() else {
            let at = children.last().map_or(moov.body, |c| c.end);
            return self.splice(&[moov], at, at, boxed(b"udta", &meta(json)?)?);
        };
        let held = inside(&self.bytes, udta.body, udta.end)?;
        let Some(meta_box) = held.iter().find(|c| &c.kind == b"meta").copied() else {
            let at = held.last().map_or(udta.body, |c| c.end);
            return self.splice(&[moov, udta], at, at, meta(json)?);
        };
        let around = [moov, udta, meta_box];
        let parts = self.parts(meta_box)?;
        let part = |kind: &[u8; 4]| parts.iter().find(|c| &c.kind == kind).copied();
        let handler = part(b"hdlr").and_then(|h| self.bytes.get(h.body + 8..h.body + 12));
        let end = parts.last().map_or(meta_box.end, |c| c.end);
        match (handler, part(b"keys"), part(b"ilst")) {
            (Some(b"mdta"), Some(keys), Some(list)) => {
                let count = be32(&self.bytes, keys.body + 4).ok_or(DAMAGED)?;
                let index = count.checked_add(1).ok_or(DAMAGED)?;
                let entry = boxed(b"mdta", b"AIGC")?;
                // Whatever comes later is changed first, so that places before it stay true.
                let mut tasks = [
                    (list, list.end, boxed(&index.to_be_bytes(), &data(json)?)?),
                    (keys, keys.end, entry),
                ];
                tasks.sort_by_key(|(outer, ..)| std::cmp::Reverse(outer.at));
                for (outer, at, new) in tasks {
                    self.splice(&[&around[..], &[outer]].concat(), at, at, new)?;
                }
                let keys_at = if list.at < keys.at {
                    // The list before it has grown.
                    keys.body + 8 + data(json)?.len()
                } else {
                    keys.body
                };
                let count_at = keys_at + 4;
                self.bytes.splice(count_at..count_at + 4, index.to_be_bytes());
                Ok(())
            }
            // iTunes' list has no table of keys; its items of one's own carry their name.
            (Some(b"mdir"), None, Some(list)) => {
                let around = [&around[..], &[list]].concat();
                self.splice(&around, list.end, list.end, named(json)?)
            }
            (Some(b"mdir"), None, None) => {
                self.splice(&around, end, end, boxed(b"ilst", &named(json)?)?)
            }
            _ => Err("its moov.udta.meta is of a kind that this version does not write".into()),
        }
    }

    /// The boxes in a `meta`, which in QuickTime is no full box.
    fn parts(&self, meta: Inner) -> Result<Vec<Inner>, Refusal> {
        let plain = self.bytes.get(meta.body + 4..meta.body + 8) == Some(b"hdlr");
        let start = if plain { meta.body } else { (meta.body + 4).min(meta.end) };
        inside(&self.bytes, start, meta.end)
    }

    /// Changes the label in `moov`; false where there is none.
    fn propagate(&mut self, change: &Change<'_>) -> Result<bool, Refusal> {
        let moov = self.moov()?;
        for outer in inside(&self.bytes, moov.body, moov.end)? {
            match &outer.kind {
                b"meta" if self.items(&[moov], outer, change)? => return Ok(true),
                b"udta" => {
                    for held in inside(&self.bytes, outer.body, outer.end)? {
                        let around = [moov, outer, held];
                        let done = match &held.kind {
                            b"meta" => self.items(&around[..2], held, change)?,
                            b"aigc" | b"AIGC" => {
                                let zeros = self.bytes.get(held.body..held.end.min(held.body + 4));
                                let zeros = zeros.unwrap_or_default();
                                let zeros = zeros.iter().take_while(|b| **b == 0).count();
                                self.text(&around, held.body + zeros, held.end, change)?
                            }
                            b"XMP_" => {
                                let old = self.bytes.get(held.body..held.end).ok_or(DAMAGED)?;
                                if memchr::memmem::find(old, b"AIGC").is_none() {
                                    continue;
                                }
                                let new = xmp::edit(old, change)?;
                                self.splice(&around, held.body, held.end, new)?;
                                true
                            }
                            _ => false,
                        };
                        if done {
                            return Ok(true);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Changes the label among the items of a `meta`.
    fn items(
        &mut self,
        around: &[Inner],
        meta: Inner,
        change: &Change<'_>,
    ) -> Result<bool, Refusal> {
        let parts = self.parts(meta)?;
        let mut keys = Vec::new();
        if let Some(table) = parts.iter().find(|c| &c.kind == b"keys") {
            keys = inside(&self.bytes, (table.body + 8).min(table.end), table.end)?;
        }
        let is_aigc = |bytes: Option<&[u8]>| {
            bytes.is_some_and(|name| aigc::is_key(&String::from_utf8_lossy(name)))
        };
        for list in parts.iter().filter(|c| &c.kind == b"ilst") {
            for item in inside(&self.bytes, list.body, list.end)? {
                let held = inside(&self.bytes, item.body, item.end)?;
                let index = (u32::from_be_bytes(item.kind) as usize).checked_sub(1);
                let key = index.and_then(|index| keys.get(index));
                let found = match (key, held.iter().find(|c| &c.kind == b"name")) {
                    (_, Some(name)) => is_aigc(self.bytes.get(name.body + 4..name.end)),
                    (Some(key), None) => is_aigc(self.bytes.get(key.body..key.end)),
                    (None, None) => is_aigc(Some(&item.kind)),
                };
                let Some(data) = held.iter().find(|c| &c.kind == b"data").filter(|_| found) else {
                    continue;
                };
                let around = [around, &[meta, *list, item, *data]].concat();
                return self.text(&around, data.body + 8, data.end, change);
            }
        }
        Ok(false)
    }

    fn text(
        &mut self,
        around: &[Inner],
        start: usize,
        end: usize,
        change: &Change<'_>,
    ) -> Result<bool, Refusal> {
        let old = self.bytes.get(start..end).ok_or(DAMAGED)?;
        let old = std::str::from_utf8(old).map_err(|_| "its label is not UTF-8")?;
        let new = change.rewritten(old)?.ok_or_else(elsewhere)?;
        self.splice(around, start, end, new.into_bytes())?;
        Ok(true)
    }

    /// Corrects what names bytes at or behind `behind`, which move by `grown`.
    fn relocate(&mut self, behind: u64, grown: i64) -> Result<(), Refusal> {
        let moov = self.moov()?;
        for outer in inside(&self.bytes, moov.body, moov.end)? {
            if &outer.kind == b"meta" {
                let meta = self.bytes.get(outer.body..outer.end).unwrap_or_default();
                if memchr::memmem::find(meta, b"iloc").is_some() {
                    return Err("items of its meta box name bytes that would move".into());
                }
            }
            if &outer.kind != b"trak" {
                continue;
            }
            let mut table = Some(outer);
            for kind in [b"mdia", b"minf", b"stbl"] {
                table = match table {
                    Some(outer) => child(&self.bytes, outer, kind)?,
                    None => None,
                };
            }
            let Some(table) = table else { continue };
            for held in inside(&self.bytes, table.body, table.end)? {
                let (wide, count_at) = match &held.kind {
                    b"stco" => (false, held.body + 4),
                    b"co64" => (true, held.body + 4),
                    b"saio" => {
                        // A type and its parameter come first where a flag says so.
                        let flags = be32(&self.bytes, held.body).ok_or(DAMAGED)?;
                        let skip = if flags & 1 == 1 { 8 } else { 0 };
                        (flags >> 24 == 1, held.body + 4 + skip)
                    }
                    _ => continue,
                };
                self.offsets(wide, count_at, held.end, behind, grown)?;
            }
        }
        Ok(())
    }

    fn offsets(
        &mut self,
        wide: bool,
        count_at: usize,
        end: usize,
        behind: u64,
        grown: i64,
    ) -> Result<(), Refusal> {
        let count = be32(&self.bytes, count_at).ok_or(DAMAGED)? as usize;
        let len = if wide { 8 } else { 4 };
        let mut at = count_at + 4;
        if count.checked_mul(len).is_none_or(|size| size > end.saturating_sub(at)) {
            return Err(DAMAGED.into());
        }
        for _ in 0..count {
            let old =
                if wide { be64(&self.bytes, at) } else { be32(&self.bytes, at).map(u64::from) };
            let old = old.ok_or(DAMAGED)?;
            if old >= behind {
                let new = place(old.checked_add_signed(grown).ok_or(DAMAGED)?, wide)?;
                if let Some(slot) = self.bytes.get_mut(at..at + len) {
                    slot.copy_from_slice(&new);
                }
            }
            at += len;
        }
        Ok(())
    }
}

/// A box with its header.
pub(super) fn boxed(kind: &[u8; 4], body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let size = u32::try_from(body.len() + 8).map_err(|_| "a box of it would grow over 4 GiB")?;
    Ok([&size.to_be_bytes()[..], kind, body].concat())
}

/// A `meta` with one key and its value.
fn meta(json: &str) -> Result<Vec<u8>, Refusal> {
    let handler = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0mdta\0\0\0\0\0\0\0\0\0\0\0\0\0")?;
    let keys = [&[0, 0, 0, 0, 0, 0, 0, 1][..], &boxed(b"mdta", b"AIGC")?].concat();
    let item = boxed(&[0, 0, 0, 1], &data(json)?)?;
    let parts = [&[0; 4][..], &handler, &boxed(b"keys", &keys)?, &boxed(b"ilst", &item)?].concat();
    boxed(b"meta", &parts)
}

/// Type 1 is UTF-8; no locale.
fn data(json: &str) -> Result<Vec<u8>, Refusal> {
    boxed(b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0][..], json.as_bytes()].concat())
}

/// An item that carries its own name.
fn named(json: &str) -> Result<Vec<u8>, Refusal> {
    let full = |kind: &[u8; 4], text: &[u8]| boxed(kind, &[&[0; 4][..], text].concat());
    let parts = [full(b"mean", b"com.apple.iTunes")?, full(b"name", b"AIGC")?, data(json)?];
    boxed(b"----", &parts.concat())
}
