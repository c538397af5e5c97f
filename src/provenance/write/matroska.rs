//! Matroska and WebM: `Tags`, in space that is kept free before the first cluster, or behind
//! everything else. Nothing that an index points to moves.

use super::{Change, Plan, Refusal, elsewhere};
use crate::provenance::aigc;
use crate::provenance::input::Input;
use crate::provenance::matroska::{
    CLUSTER, SEGMENT, SIMPLE_TAG, TAG, TAG_NAME, TAG_STRING, TAGS, VOID, id, size,
};

const SEEK_HEAD: u32 = 0x114D_9B74;
const SEEK: u32 = 0x4DBB;
const SEEK_ID: u32 = 0x53AB;
const SEEK_POSITION: u32 = 0x53AC;
const TARGETS: u32 = 0x63C0;
const CRC: u32 = 0xBF;
const CUES: u32 = 0x1C53_BB6B;

const MAX_ELEMENTS: usize = 1 << 20;
/// Tags, indices and free space that are changed are no longer than this.
const MAX_MASTER: usize = 4 << 20;
const MAX_DEPTH: u32 = 8;

#[derive(Clone, Copy)]
struct Element {
    id: u32,
    at: u64,
    body: u64,
    end: u64,
    /// Its size is not stated.
    open: bool,
}

fn element(input: &mut Input<'_>, at: u64, limit: u64) -> Result<Option<Element>, Refusal> {
    let head = input.read(at, 12)?;
    let parsed = id(&head).and_then(|(id, n)| {
        let (size, m) = size(head.get(n..)?)?;
        Some((id, size, at + (n + m) as u64))
    });
    let Some((id, size, body)) = parsed else { return Ok(None) };
    let end = size.map_or(Some(limit), |size| body.checked_add(size));
    let end = end.filter(|end| *end <= limit);
    Ok(end.map(|end| Element { id, at, body, end, open: size.is_none() }))
}

struct Segment {
    this: Element,
    /// Its children; of clusters of unknown size their children, too.
    children: Vec<Element>,
}

impl Segment {
    fn read(input: &mut Input<'_>) -> Result<Self, Refusal> {
        let end = input.len();
        let mut at = 0;
        let this = loop {
            let this = element(input, at, end)?.ok_or("it has no segment")?;
            if this.id == SEGMENT {
                break this;
            }
            if this.open {
                return Err("it has no segment".into());
            }
            at = this.end;
        };
        let mut children = Vec::new();
        let mut at = this.body;
        while at < this.end {
            let broken = || format!("an element at byte {at} breaks off");
            let child = element(input, at, this.end)?.ok_or_else(broken)?;
            if children.len() >= MAX_ELEMENTS {
                return Err("it has more elements than any such file".into());
            }
            if child.open && child.id != CLUSTER {
                return Err(format!("an element of unknown size at byte {at}").into());
            }
            // What an open cluster holds is stepped over piece by piece.
            at = if child.open { child.body } else { child.end };
            children.push(child);
        }
        Ok(Self { this, children })
    }

    fn first_cluster(&self) -> u64 {
        let cluster = self.children.iter().find(|c| c.id == CLUSTER);
        cluster.map_or(self.this.end, |c| c.at)
    }

    /// Plans `bytes` behind all children and gives where they stand, counted from the segment's
    /// first child.
    fn append(
        &self,
        input: &mut Input<'_>,
        bytes: Vec<u8>,
        plan: &mut Plan,
    ) -> Result<u64, Refusal> {
        self.grow(input, bytes.len() as i64, plan)?;
        plan.insert(self.this.end, bytes);
        Ok(self.this.end - self.this.body)
    }

    /// Plans the segment's size.
    fn grow(&self, input: &mut Input<'_>, by: i64, plan: &mut Plan) -> Result<(), Refusal> {
        const NARROW: &str = "its segment cannot state a larger size";
        if self.this.open {
            return Ok(());
        }
        let (_, id_len) = id(&input.read(self.this.at, 4)?).ok_or("it has no segment")?;
        let size_at = self.this.at + id_len as u64;
        let width = (self.this.body - size_at) as usize;
        let grown = (self.this.end - self.this.body).checked_add_signed(by).ok_or(NARROW)?;
        plan.overwrite(size_at, vint(grown, width).ok_or(NARROW)?);
        Ok(())
    }

    /// Whether what stands at or behind byte `at` may move: nothing may name a place there.
    fn movable(&self, input: &mut Input<'_>, at: u64) -> Result<bool, Refusal> {
        let at = at - self.this.body;
        for head in self.children.iter().filter(|c| c.id == SEEK_HEAD) {
            let bytes = input.whole(head.body, head.end, MAX_MASTER)?;
            let entries = bytes.as_deref().and_then(pieces).ok_or("its index is damaged")?;
            let names = |body| seek_entry(body).is_none_or(|(_, position)| position >= at);
            if entries.iter().any(|(id, body)| *id == SEEK && names(body)) {
                return Ok(false);
            }
        }
        Ok(!self.children.iter().any(|c| c.id == CUES))
    }
}

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let segment = Segment::read(input)?;
    // A checksum over the whole file would have to be made anew over all of it.
    if segment.children.first().is_some_and(|c| c.id == CRC) {
        return Err("a checksum over its whole segment forbids to change it".into());
    }
    match change {
        Change::Add(json) => add(input, &segment, json),
        Change::Propagate(_) => propagate(input, &segment, change),
    }
}

fn add(input: &mut Input<'_>, segment: &Segment, json: &str) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    let name = master(TAG_NAME, b"AIGC");
    let simple = master(SIMPLE_TAG, &[name, master(TAG_STRING, json.as_bytes())].concat());
    // No targets: the label is about the whole file.
    let tag = master(TAG, &[master(TARGETS, b""), simple].concat());
    let tags = master(TAGS, &tag);
    let cluster = segment.first_cluster();
    for void in segment.children.iter().filter(|c| c.id == VOID && c.end <= cluster) {
        if let Some(rest) = room(input, void, tags.len() as u64)? {
            plan.replace(void.at, void.end - void.at, [tags, rest].concat());
            return Ok(plan);
        }
    }
    if segment.this.open {
        // A live stream, of which what follows a cluster of unknown size would be a part.
        if !segment.movable(input, cluster)? {
            return Err("it states no size, and its index does not let anything move".into());
        }
        plan.insert(cluster, tags);
        return Ok(plan);
    }
    let position = segment.append(input, tags, &mut plan)?;
    // Without room for it in the index the label is there for whoever reads the file through.
    index(input, segment, None, position, &mut plan)?;
    Ok(plan)
}

fn propagate(
    input: &mut Input<'_>,
    segment: &Segment,
    change: &Change<'_>,
) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    for (index_of, old) in segment.children.iter().enumerate().filter(|(_, c)| c.id == TAGS) {
        let bytes = input.whole(old.at, old.end, MAX_MASTER)?.ok_or("its tags are over 4 MiB")?;
        let Some(new) = changed(&bytes, change, 0)? else { continue };
        let there = old.end - old.at;
        let next = segment.children.get(index_of + 1);
        // In place, with what is free behind it.
        if new.len() as u64 == there {
            plan.overwrite(old.at, new);
            return Ok(plan);
        }
        if let Some(void) = next.filter(|c| c.id == VOID && c.at == old.end)
            && let Some(more) = (new.len() as u64).checked_sub(there)
            && let Some(rest) = room(input, void, more)?
        {
            plan.replace(old.at, void.end - old.at, [new, rest].concat());
            return Ok(plan);
        }
        if let Some(rest) = there.checked_sub(new.len() as u64).and_then(void_of) {
            plan.overwrite(old.at, [new, rest].concat());
            return Ok(plan);
        }
        let last = !segment.this.open && old.end == segment.this.end;
        if last || segment.movable(input, old.end)? {
            segment.grow(input, new.len() as i64 - there as i64, &mut plan)?;
            plan.replace(old.at, there, new);
            return Ok(plan);
        }
        if segment.this.open {
            return Err("it states no size, and its index does not let its tags grow".into());
        }
        // Otherwise behind everything, and where it was is free.
        let filler = void_of(there).ok_or("its tags are damaged")?;
        plan.overwrite(old.at, filler);
        let position = segment.append(input, new, &mut plan)?;
        if !index(input, segment, Some(old.at - segment.this.body), position, &mut plan)? {
            return Err("its index of elements has no room for where its tags would go".into());
        }
        return Ok(plan);
    }
    Err(elsewhere())
}

/// Whether `want` bytes can be taken out of free space, and what is left of it. Space that holds
/// anything but zeros is left alone: it may be the trace of something.
fn room(input: &mut Input<'_>, void: &Element, want: u64) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(rest) = (void.end - void.at).checked_sub(want).and_then(void_of) else {
        return Ok(None);
    };
    let zeros = input.whole(void.body, void.end, MAX_MASTER)?;
    Ok(zeros.filter(|bytes| bytes.iter().all(|b| *b == 0)).map(|_| rest))
}

/// Free space of `len` bytes in all; none where there is no such element.
fn void_of(len: u64) -> Option<Vec<u8>> {
    if len == 0 {
        return Some(Vec::new());
    }
    // One byte of size, or eight.
    let (width, body) = if len < 128 { (1, len.checked_sub(2)?) } else { (8, len - 9) };
    let mut bytes = vec![VOID as u8];
    bytes.extend(vint(body, width)?);
    bytes.resize(usize::try_from(len).ok()?, 0);
    Some(bytes)
}

/// Enters `new` into the first index of elements, in place of `old` where that is given and there.
/// False where there is no room for it, and nothing was planned.
fn index(
    input: &mut Input<'_>,
    segment: &Segment,
    old: Option<u64>,
    new: u64,
    plan: &mut Plan,
) -> Result<bool, Refusal> {
    // Positions that name what has moved, in any index.
    let mut done = old.is_none();
    let mut seen = false;
    for (at, head) in segment.children.iter().enumerate().filter(|(_, c)| c.id == SEEK_HEAD) {
        let Some(bytes) = input.whole(head.body, head.end, MAX_MASTER)? else { return Ok(false) };
        let mut entries = Vec::new();
        let mut named = false;
        for (id, body) in pieces(&bytes).ok_or("its index of elements is damaged")? {
            let tags = seek_entry(body).filter(|(id, _)| *id == TAGS.to_be_bytes());
            if id == SEEK && old.is_some() && tags.map(|(_, at)| at) == old {
                named = true;
                entries.push((SEEK, seek(new)));
            } else if id != CRC {
                entries.push((id, body.to_vec()));
            }
        }
        let first = !seen;
        seen = true;
        if old.is_some() && !named {
            continue;
        }
        if old.is_none() {
            if !first {
                break;
            }
            entries.push((SEEK, seek(new)));
        }
        let mut content: Vec<u8> =
            entries.iter().flat_map(|(id, body)| master(*id, body)).collect();
        if pieces(&bytes).is_some_and(|p| p.first().is_some_and(|(id, _)| *id == CRC)) {
            content = with_checksum(content);
        }
        let made = master(SEEK_HEAD, &content);
        let there = head.end - head.at;
        let void = segment.children.get(at + 1).filter(|c| c.id == VOID && c.at == head.end);
        let rest = match ((made.len() as u64).checked_sub(there), void) {
            (Some(0), _) => Some((Vec::new(), head.end)),
            (Some(more), Some(void)) => room(input, void, more)?.map(|rest| (rest, void.end)),
            (Some(_), None) => None,
            (None, _) => void_of(there - made.len() as u64).map(|rest| (rest, head.end)),
        };
        let Some((rest, end)) = rest else { return Ok(false) };
        plan.replace(head.at, end - head.at, [made, rest].concat());
        done = true;
    }
    // Nothing named what moved: nothing to keep right.
    Ok(done || old.is_some())
}

fn seek(position: u64) -> Vec<u8> {
    let bytes = position.to_be_bytes();
    let zeros = bytes.iter().take_while(|b| **b == 0).count().min(7);
    let id = master(SEEK_ID, &TAGS.to_be_bytes());
    [id, master(SEEK_POSITION, bytes.get(zeros..).unwrap_or_default())].concat()
}

/// Which element an entry of the index names, and where it stands.
fn seek_entry(entry: &[u8]) -> Option<(&[u8], u64)> {
    let parts = pieces(entry)?;
    let part = |id: u32| parts.iter().find(|(this, _)| *this == id).map(|(_, body)| *body);
    let position = part(SEEK_POSITION).filter(|bytes| bytes.len() <= 8)?;
    Some((part(SEEK_ID)?, position.iter().fold(0, |n, b| n << 8 | u64::from(*b))))
}

/// The children of an element, each with its body; none where they do not fill it.
fn pieces(bytes: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (id, n) = id(bytes.get(at..)?)?;
        let (size, m) = size(bytes.get(at + n..)?)?;
        let body = at + n + m;
        let end = body.checked_add(usize::try_from(size?).ok()?)?;
        found.push((id, bytes.get(body..end)?));
        at = end;
    }
    Some(found)
}

/// An element with the label in it changed; none where it holds none.
fn changed(bytes: &[u8], change: &Change<'_>, depth: u32) -> Result<Option<Vec<u8>>, Refusal> {
    const DAMAGED: &str = "its tags are damaged";
    if depth > MAX_DEPTH {
        return Ok(None);
    }
    let whole = pieces(bytes).ok_or(DAMAGED)?;
    let [(this, body)] = whole.as_slice() else { return Err(DAMAGED.into()) };
    let children = pieces(body).ok_or(DAMAGED)?;
    let named = *this == SIMPLE_TAG
        && children.iter().any(|(id, body)| {
            let name = String::from_utf8_lossy(body);
            *id == TAG_NAME && aigc::is_key(name.trim_end_matches('\0'))
        });
    let checked = children.first().is_some_and(|(id, _)| *id == CRC);
    let (mut content, mut done) = (Vec::new(), false);
    for (id, body) in children {
        if id == CRC {
            continue;
        }
        let old = master(id, body);
        if done {
            content.extend(old);
        } else if named && id == TAG_STRING {
            let text = std::str::from_utf8(body).map_err(|_| "its label is not UTF-8")?;
            let text = change.rewritten(text)?.ok_or_else(elsewhere)?;
            content.extend(master(TAG_STRING, text.as_bytes()));
            done = true;
        } else if matches!(id, TAG | SIMPLE_TAG)
            && let Some(new) = changed(&old, change, depth + 1)?
        {
            content.extend(new);
            done = true;
        } else {
            content.extend(old);
        }
    }
    if checked {
        content = with_checksum(content);
    }
    Ok(done.then(|| master(*this, &content)))
}

/// The CRC-32 of an element's other children stands before them.
fn with_checksum(content: Vec<u8>) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&content);
    [master(CRC, &crc.sum().to_le_bytes()), content].concat()
}

fn master(id: u32, body: &[u8]) -> Vec<u8> {
    let bytes = id.to_be_bytes();
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let mut out = bytes.get(zeros..).unwrap_or_default().to_vec();
    let size = (1..=8).find_map(|width| vint(body.len() as u64, width));
    out.extend(size.unwrap_or_default());
    out.extend_from_slice(body);
    out
}

/// A size in `width` bytes; none where it does not fit, or would read as "unknown".
fn vint(value: u64, width: usize) -> Option<Vec<u8>> {
    let bits = 7 * width as u32;
    if !(1..=8).contains(&width) || value >= (1 << bits) - 1 {
        return None;
    }
    let marked = value | 1 << bits;
    marked.to_be_bytes().get(8 - width..).map(<[u8]>::to_vec)
}
