//! MP3: a frame `TXXX` of the ID3v2 tag at the start of the file.

use super::{Change, Plan, Refusal, elsewhere, xiph};
use crate::provenance::aigc;
use crate::provenance::id3::{describe, syncsafe};
use crate::provenance::input::{Input, be32};

/// What four bytes of seven bits hold.
const MAX_TAG: u64 = 0x0FFF_FFFF;
const MAX_FRAMES: u32 = 4096;

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let head = input.read(0, 10)?;
    let (Some(b"ID3"), Some(version), Some(flags), Some(size)) =
        (head.get(..3), head.get(3), head.get(5), head.get(6..10).and_then(syncsafe))
    else {
        let Change::Add(json) = change else { return Err(elsewhere()) };
        let frame = frame(3, "AIGC", json);
        let tag = [b"ID3\x03\0\0", &sync(frame.len() as u32)[..], &frame].concat();
        let mut plan = Plan::default();
        plan.insert(0, tag);
        return Ok(plan);
    };
    let (version, flags) = (*version, *flags);
    let footer = if version == 4 && flags & 0x10 != 0 { 10 } else { 0 };
    let end = 10 + u64::from(size);
    if input.read(end + footer, 4)? == b"fLaC" {
        return xiph::flac(input, end + footer, change);
    }
    if version != 3 && version != 4 {
        return Err(format!("it has a tag of ID3v2.{version}, where labels do not belong").into());
    }
    let mut frames_at = 10;
    if flags & 0x40 != 0 {
        // An extended header. Its size counts itself in 2.4 and not in 2.3.
        let bytes = input.read(10, 6)?;
        let (len, crc) = match version {
            3 => (be32(&bytes, 0).map(|n| n.saturating_add(4)), 0x80),
            _ => (bytes.get(..4).and_then(syncsafe), 0x20),
        };
        let set = bytes.get(if version == 3 { 4 } else { 5 }).copied().unwrap_or(0);
        if set & crc != 0 {
            return Err("a checksum over its ID3 tag forbids to change it".into());
        }
        frames_at += u64::from(len.ok_or("its ID3 tag breaks off")?);
        if frames_at > end {
            return Err("its ID3 tag breaks off".into());
        }
    }
    let mut plan = Plan::default();
    let grown = match change {
        // The first frame: nothing has to be known of the others.
        Change::Add(json) => {
            let frame = frame(version, "AIGC", json);
            let grown = frame.len() as i64;
            plan.insert(frames_at, frame);
            grown
        }
        Change::Propagate(_) => {
            if flags & 0x80 != 0 {
                return Err(
                    "its ID3 tag is unsynchronised, in which a frame cannot be changed".into()
                );
            }
            rewrite(input, version, (frames_at, end), change, &mut plan)?
        }
    };
    let size = u64::from(size).checked_add_signed(grown).filter(|size| *size <= MAX_TAG);
    let size = sync(size.ok_or("with the label its ID3 tag would grow over 256 MiB")? as u32);
    plan.overwrite(6, size.to_vec());
    if footer > 0 {
        plan.overwrite(end + 6, size.to_vec());
    }
    Ok(plan)
}

/// Changes the label's frame; gives by how much the tag grows.
fn rewrite(
    input: &mut Input<'_>,
    version: u8,
    (mut at, end): (u64, u64),
    change: &Change<'_>,
    plan: &mut Plan,
) -> Result<i64, Refusal> {
    for _ in 0..MAX_FRAMES {
        let head = input.read(at, 10)?;
        let (Some(id), Some(raw)) = (head.get(..4), head.get(4..8)) else { break };
        if id.first() == Some(&0) || at + 10 > end {
            break;
        }
        let plain = be32(raw, 0);
        let size = if version == 4 { syncsafe(raw).or(plain) } else { plain };
        let stop = at + 10 + u64::from(size.unwrap_or(0));
        // Plain: neither packed nor encrypted nor with a length before it.
        if id == b"TXXX" && head.get(9) == Some(&0) && stop <= end {
            let bytes = input.whole(at + 10, stop, 1 << 20)?.ok_or_else(elsewhere)?;
            if let Some((encoding, text)) = bytes.split_first() {
                let (key, value) = describe(*encoding, text);
                if aigc::is_key(&key) {
                    let new = change.rewritten(value.trim_end_matches('\0'))?;
                    let new = frame(version, &key, &new.ok_or_else(elsewhere)?);
                    let grown = new.len() as i64 - (stop - at) as i64;
                    plan.replace(at, stop - at, new);
                    return Ok(grown);
                }
            }
        }
        at = stop;
    }
    Err(elsewhere())
}

/// A text of one's own. Labels are ASCII, which every encoding of ID3 is or contains.
fn frame(version: u8, key: &str, text: &str) -> Vec<u8> {
    let body = [b"\0", key.as_bytes(), b"\0", text.as_bytes()].concat();
    let size = body.len() as u32;
    let size = if version == 4 { sync(size) } else { size.to_be_bytes() };
    [b"TXXX", &size[..], &[0, 0], &body].concat()
}

/// 28 bits, seven in each byte.
fn sync(n: u32) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (n >> shift & 0x7F) as u8)
}
