//! RIFF: a chunk `AIGC` in WAV, a child of `LIST INFO` in AVI, XMP in WebP.

use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::aigc;
use crate::provenance::input::{Input, le32};
use crate::provenance::xmp::MAX_XMP;

const MAX_CHUNKS: u32 = 100_000;
/// A label's text, or the space before the pictures of an AVI.
const MAX_SMALL: usize = 1 << 20;
const OVERSIZE: &str = "with the label it would grow over the 4 GiB of a RIFF file";

/// A chunk of the form, or of a list in it.
struct Chunk {
    id: [u8; 4],
    /// The form of a list.
    form: [u8; 4],
    at: u64,
    body: u64,
    /// Without the byte that fills odd sizes.
    end: u64,
}

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let head = input.read(0, 12)?;
    match head.get(8..12) {
        Some(b"WAVE") => wave(input, change),
        Some(b"AVI ") => avi(input, change),
        Some(b"WEBP") => webp(input, change),
        _ => Err("its form is not known".into()),
    }
}

fn chunk(id: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32).to_le_bytes();
    [&id[..], &size, body, &[0][..body.len() % 2]].concat()
}

/// Chunks between two bytes. `data64`: the size of a `data` chunk that 32 bits are too few for.
/// Ends before a chunk of unknown size.
fn chunks(
    input: &mut Input<'_>,
    start: u64,
    end: u64,
    data64: Option<u64>,
) -> Result<(Vec<Chunk>, bool), Refusal> {
    let mut found = Vec::new();
    let mut at = start;
    while end.saturating_sub(at) >= 8 {
        if found.len() >= MAX_CHUNKS as usize {
            return Err("it has more chunks than any such file".into());
        }
        let head = input.read(at, 12)?;
        let array =
            |from: usize| head.get(from..from + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        let (Some(id), Some(size)) = (array(0), le32(&head, 4)) else { break };
        if !id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            break;
        }
        let size = match data64 {
            Some(size) if &id == b"data" && size > 0 => size,
            _ if &id == b"data" && matches!(size, 0 | u32::MAX) => return Ok((found, true)),
            _ => u64::from(size),
        };
        let body = at + 8;
        let stop = body.checked_add(size).filter(|stop| *stop <= end);
        let stop = stop.ok_or_else(|| format!("a chunk at byte {at} runs past the end"))?;
        found.push(Chunk { id, form: array(8).unwrap_or_default(), at, body, end: stop });
        at = stop + (stop - body) % 2;
    }
    Ok((found, false))
}

/// Where the outermost chunk ends, and how its size is written.
struct Outer {
    /// The end of what the outermost chunk holds, at most the end of the file.
    end: u64,
    /// Its size is not stated, or not there.
    streamed: bool,
    /// Where 64 bits of size stand, and the size.
    wide: Option<(u64, u64)>,
    size: u64,
}

impl Outer {
    fn of(input: &mut Input<'_>) -> Result<(Self, Option<u64>), Refusal> {
        let head = input.read(0, 48)?;
        let size = le32(&head, 4).unwrap_or(0);
        if matches!(head.get(..4), Some(b"RF64" | b"BW64")) {
            let le64 = |at: usize| {
                head.get(at..at + 8).and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?)))
            };
            let (Some(b"ds64"), Some(size), Some(data)) = (head.get(12..16), le64(20), le64(28))
            else {
                return Err("its 64-bit sizes (ds64) do not stand behind its header".into());
            };
            let end = size.saturating_add(8).min(input.len());
            return Ok((Self { end, streamed: false, wide: Some((20, size)), size }, Some(data)));
        }
        let streamed = matches!(size, 0 | u32::MAX);
        let end = if streamed { input.len() } else { (u64::from(size) + 8).min(input.len()) };
        Ok((Self { end, streamed, wide: None, size: u64::from(size) }, None))
    }

    /// Plans `grown` more bytes inside the outermost chunk.
    fn grow(&self, grown: i64, plan: &mut Plan) -> Result<(), Refusal> {
        if self.streamed || grown == 0 {
            return Ok(());
        }
        let size = self.size.checked_add_signed(grown).ok_or(OVERSIZE)?;
        match self.wide {
            Some((at, _)) => plan.overwrite(at, size.to_le_bytes().to_vec()),
            None => {
                let size = u32::try_from(size).ok().filter(|n| *n < u32::MAX).ok_or(OVERSIZE)?;
                plan.overwrite(4, size.to_le_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// Plans a chunk behind all others.
    fn append(&self, mut bytes: Vec<u8>, plan: &mut Plan) -> Result<(), Refusal> {
        if self.end % 2 == 1 {
            // The last chunk has an odd size and lacks the byte that fills it.
            bytes.insert(0, 0);
        }
        self.grow(bytes.len() as i64, plan)?;
        plan.insert(self.end, bytes);
        Ok(())
    }
}

/// Changes the label's text in the chunk.
fn rewrite(
    input: &mut Input<'_>,
    old: &Chunk,
    change: &Change<'_>,
    plan: &mut Plan,
) -> Result<i64, Refusal> {
    let bytes = input.whole(old.body, old.end, MAX_SMALL)?.ok_or_else(elsewhere)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "its label is not UTF-8")?;
    let new = change.rewritten(text)?.ok_or_else(elsewhere)?;
    // Blanks behind a label say nothing, and what stands behind it need not move back.
    let new = chunk(&old.id, format!("{new:<0$}", text.len()).as_bytes());
    let there = (old.end - old.at).next_multiple_of(2).min(input.len() - old.at);
    let grown = new.len() as i64 - there as i64;
    plan.replace(old.at, there, new);
    Ok(grown)
}

fn is_aigc(chunk: &Chunk) -> bool {
    aigc::is_key(&String::from_utf8_lossy(&chunk.id))
}

fn wave(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let (outer, data64) = Outer::of(input)?;
    let (all, open) = chunks(input, 12, outer.end, data64)?;
    let mut plan = Plan::default();
    match change {
        Change::Add(json) => {
            let label = chunk(b"AIGC", json.as_bytes());
            if open {
                // The sound runs to the end of the file: before it.
                let at = all.last().map_or(12, |last| last.end + (last.end - last.body) % 2);
                outer.grow(label.len() as i64, &mut plan)?;
                plan.insert(at, label);
            } else {
                outer.append(label, &mut plan)?;
            }
        }
        Change::Propagate(_) => {
            let grown = match all.iter().find(|c| is_aigc(c)) {
                Some(old) => rewrite(input, old, change, &mut plan)?,
                None => info(input, &all, change, &mut plan)?,
            };
            outer.grow(grown, &mut plan)?;
        }
    }
    Ok(plan)
}

/// Changes a label among the texts of `LIST INFO`.
fn info(
    input: &mut Input<'_>,
    all: &[Chunk],
    change: &Change<'_>,
    plan: &mut Plan,
) -> Result<i64, Refusal> {
    for list in all.iter().filter(|c| &c.id == b"LIST" && &c.form == b"INFO") {
        let (children, _) = chunks(input, list.body + 4, list.end, None)?;
        if let Some(old) = children.iter().find(|c| is_aigc(c)) {
            let grown = rewrite(input, old, change, plan)?;
            let size = (list.end - list.body).checked_add_signed(grown).ok_or(OVERSIZE)?;
            let size = u32::try_from(size).map_err(|_| OVERSIZE)?;
            plan.overwrite(list.at + 4, size.to_le_bytes().to_vec());
            return Ok(grown);
        }
    }
    Err(elsewhere())
}

/// Indices of an AVI name bytes of the file, so its pictures must not move: the label takes the
/// space that is kept free before them, or stands behind everything.
fn avi(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let (outer, _) = Outer::of(input)?;
    if outer.streamed {
        return Err("its size is not stated".into());
    }
    let (all, _) = chunks(input, 12, outer.end, None)?;
    let single = input.len() < outer.end + 12 || {
        let next = input.read(outer.end.next_multiple_of(2), 4)?;
        next != b"RIFF"
    };
    let movi = all.iter().position(|c| &c.id == b"LIST" && &c.form == b"movi");
    let (before, behind) = all.split_at(movi.ok_or("it has no pictures (movi)")?);
    let mut plan = Plan::default();
    let is_info = |c: &&Chunk| &c.id == b"LIST" && &c.form == b"INFO";
    let grown = match change {
        Change::Add(json) => {
            let child = chunk(b"AIGC", json.as_bytes());
            let list = chunk(b"LIST", &[b"INFO", &child[..]].concat());
            let old = before.iter().find(is_info);
            let room = if old.is_some() { child.len() } else { list.len() } as u64;
            let Some((junk, filler)) = space(input, before, room)? else {
                if !single {
                    let what = "it has several parts of 1 GiB and no room before its pictures, \
                                which its indices do not let move";
                    return Err(what.into());
                }
                outer.append(list, &mut plan)?;
                return Ok(plan);
            };
            match old {
                Some(old) => {
                    let size = old.end - old.body + room + (old.end - old.body) % 2;
                    let size = u32::try_from(size).map_err(|_| OVERSIZE)?;
                    plan.overwrite(old.at + 4, size.to_le_bytes().to_vec());
                    plan.insert(old.end.next_multiple_of(2), child);
                    plan.replace(junk.at, junk.end.next_multiple_of(2) - junk.at, filler);
                }
                None => {
                    let bytes = [list, filler].concat();
                    plan.replace(junk.at, junk.end.next_multiple_of(2) - junk.at, bytes);
                }
            }
            0
        }
        Change::Propagate(_) => match info(input, before, change, &mut plan) {
            Ok(0) => 0,
            Ok(grown) => {
                let what = "its label stands before its pictures, which its indices do not let \
                            move, and there is no room for a longer one";
                let (junk, filler) = space(input, before, grown as u64)?.ok_or(what)?;
                plan.replace(junk.at, junk.end.next_multiple_of(2) - junk.at, filler);
                0
            }
            Err(Refusal::What(_)) if single => info(input, behind, change, &mut plan)?,
            Err(error) => return Err(error),
        },
    };
    outer.grow(grown, &mut plan)?;
    Ok(plan)
}

/// A chunk of unused zeros out of which `room` bytes can be taken, and what is left of it.
fn space<'c>(
    input: &mut Input<'_>,
    before: &'c [Chunk],
    room: u64,
) -> Result<Option<(&'c Chunk, Vec<u8>)>, Refusal> {
    for junk in before.iter().filter(|c| &c.id == b"JUNK") {
        let there = junk.end.next_multiple_of(2) - junk.at;
        let Some(left) = there.checked_sub(room).filter(|left| *left == 0 || *left >= 8) else {
            continue;
        };
        let zeros = input.whole(junk.body, junk.end, MAX_SMALL)?;
        // What is not zero may be the trace of something.
        if zeros.is_some_and(|bytes| bytes.iter().all(|b| *b == 0)) {
            let filler = match left.checked_sub(8) {
                Some(body) => chunk(b"JUNK", &vec![0; body as usize]),
                None => Vec::new(),
            };
            return Ok(Some((junk, filler)));
        }
    }
    Ok(None)
}

fn webp(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let (outer, _) = Outer::of(input)?;
    let (all, _) = chunks(input, 12, outer.end, None)?;
    let mut plan = Plan::default();
    let first = all.first().ok_or("it holds no picture")?;
    let mut grown = 0;
    if let Some(old) = all.iter().find(|c| &c.id == b"XMP ") {
        let packet = input.whole(old.body, old.end, MAX_XMP)?.ok_or("its XMP is over 1 MiB")?;
        let new = chunk(b"XMP ", &xmp::edit(&packet, change)?);
        let there = (old.end - old.at).next_multiple_of(2).min(input.len() - old.at);
        grown = new.len() as i64 - there as i64;
        plan.replace(old.at, there, new);
    } else {
        let Change::Add(json) = change else { return Err(elsewhere()) };
        let new = chunk(b"XMP ", &xmp::packet(json));
        // The first bytes of the picture give its size where no VP8X does.
        let head = input.read(first.body, 10)?;
        if &first.id == b"VP8X" {
            let flags = head.first().copied().ok_or("its header breaks off")?;
            plan.overwrite(first.body, vec![flags | XMP_FLAG]);
        } else {
            let header = extended(&first.id, &head).ok_or("its picture is of an unknown kind")?;
            grown += header.len() as i64;
            plan.insert(12, header);
        }
        let fill = outer.end % 2;
        grown += new.len() as i64 + fill as i64;
        plan.insert(outer.end, [&[0][..fill as usize], &new].concat());
    }
    outer.grow(grown, &mut plan)?;
    Ok(plan)
}

const XMP_FLAG: u8 = 0x04;

/// The header that a simple picture lacks.
fn extended(id: &[u8; 4], head: &[u8]) -> Option<Vec<u8>> {
    let (width, height, alpha) = match id {
        // A frame's tag, its start code, 14 bits each.
        b"VP8 " if head.get(3..6) == Some(&[0x9D, 0x01, 0x2A]) => {
            let side = |at: usize| {
                Some(u32::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)) & 0x3FFF)
            };
            (side(6)?, side(8)?, false)
        }
        b"VP8L" if head.first() == Some(&0x2F) => {
            let bits = le32(head, 1)?;
            ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1 == 1)
        }
        _ => return None,
    };
    let flags = XMP_FLAG | if alpha { 0x10 } else { 0 };
    let mut body = vec![flags, 0, 0, 0];
    for side in [width, height] {
        body.extend(side.checked_sub(1)?.to_le_bytes().into_iter().take(3));
    }
    Some(chunk(b"VP8X", &body))
}
