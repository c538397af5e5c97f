//! FLV: a string of `onMetaData`.

use super::{Change, Plan, Refusal, elsewhere};
use crate::provenance::aigc;
use crate::provenance::input::{Input, be16, be32};

const MAX_TAGS: u32 = 64;
const MAX_SCRIPT: usize = 4 << 20;
const MAX_VALUES: u32 = 200_000;
const MAX_DEPTH: u32 = 8;
/// Numbers that count bytes from the start of the file, or all of them.
const POSITIONS: [&str; 3] = ["filesize", "lastkeyframelocation", "filepositions"];

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let head = input.read(0, 9)?;
    let first = u64::from(be32(&head, 5).unwrap_or(9)) + 4;
    let mut at = first;
    let mut plan = Plan::default();
    for _ in 0..MAX_TAGS {
        let Some(head) = be32(&input.read(at, 4)?, 0) else { break };
        let (kind, size) = (head >> 24 & 0x1F, u64::from(head & 0xFF_FFFF));
        let body = at + 11;
        if kind == 18
            && let Some(bytes) = input.whole(body, body + size, MAX_SCRIPT)?
            && bytes.starts_with(b"\x02\0\x0AonMetaData")
        {
            script(&bytes, at, change, &mut plan)?;
            return Ok(plan);
        }
        at = body + size + 4;
    }
    let Change::Add(json) = change else { return Err(elsewhere()) };
    let mut body = b"\x02\0\x0AonMetaData\x08\0\0\0\x01".to_vec();
    body.extend(member(json)?);
    body.extend(b"\0\0\x09");
    let mut tag = (18 << 24 | body.len() as u32).to_be_bytes().to_vec();
    // Time 0, stream 0.
    tag.extend([0; 7]);
    tag.extend(&body);
    tag.extend((tag.len() as u32).to_be_bytes());
    plan.insert(first, tag);
    Ok(plan)
}

fn member(json: &str) -> Result<Vec<u8>, Refusal> {
    Ok([b"\0\x04AIGC", &string(json)?[..]].concat())
}

fn string(text: &str) -> Result<Vec<u8>, Refusal> {
    let len = u16::try_from(text.len()).map_err(|_| "the label is over 64 KiB")?;
    Ok([b"\x02", &len.to_be_bytes()[..], text.as_bytes()].concat())
}

fn script(bytes: &[u8], tag_at: u64, change: &Change<'_>, plan: &mut Plan) -> Result<(), Refusal> {
    const BROKEN: &str = "its onMetaData is damaged";
    let mut amf =
        Amf { bytes, at: 13, left: MAX_VALUES, positions: Vec::new(), label: None, end: None };
    let argument = amf.at;
    amf.value("", 0).ok_or(BROKEN)?;
    let body = tag_at + 11;
    let (start, end, new) = match (change, amf.label) {
        (Change::Add(json), _) => {
            let end = amf.end.ok_or("its onMetaData is no object")?;
            if bytes.get(argument) == Some(&8) {
                let count = be32(bytes, argument + 1).ok_or(BROKEN)?.saturating_add(1);
                plan.overwrite(body + argument as u64 + 1, count.to_be_bytes().to_vec());
            }
            (end, end, member(json)?)
        }
        (Change::Propagate(_), Some((start, end))) => {
            let text = bytes.get(start + 3..end).ok_or(BROKEN)?;
            let text = std::str::from_utf8(text).map_err(|_| "its label is not UTF-8")?;
            (start, end, string(&change.rewritten(text)?.ok_or_else(elsewhere)?)?)
        }
        (Change::Propagate(_), None) => return Err(elsewhere()),
    };
    let grown = new.len() as i64 - (end - start) as i64;
    let size = (bytes.len() as u64).checked_add_signed(grown).filter(|size| *size <= 0xFF_FFFF);
    let size = size.ok_or("with the label its onMetaData would grow over 16 MiB")? as u32;
    plan.replace(body + start as u64, (end - start) as u64, new);
    plan.overwrite(tag_at + 1, size.to_be_bytes().into_iter().skip(1).collect());
    // Behind each tag stands its size.
    plan.overwrite(body + bytes.len() as u64, (size + 11).to_be_bytes().to_vec());
    for at in amf.positions {
        let raw: Option<[u8; 8]> = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        let old = f64::from_be_bytes(raw.ok_or(BROKEN)?);
        // What lies before the script does not move, and 0 is no position.
        if old > body as f64 {
            plan.overwrite(body + at as u64, (old + grown as f64).to_be_bytes().to_vec());
        }
    }
    Ok(())
}

/// Steps over the script's argument and notes what must be changed.
struct Amf<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    /// Numbers that count bytes of the file.
    positions: Vec<usize>,
    /// The label's string with its type and length.
    label: Option<(usize, usize)>,
    /// Where the members of the argument end.
    end: Option<usize>,
}

impl<'a> Amf<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let piece = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(piece)
    }

    fn value(&mut self, key: &str, depth: u32) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        if depth > MAX_DEPTH {
            return None;
        }
        let start = self.at;
        match self.take(1)?.first()? {
            0 => {
                if POSITIONS.contains(&key) {
                    self.positions.push(self.at);
                }
                self.take(8).map(|_| ())
            }
            1 => self.take(1).map(|_| ()),
            2 => {
                let len = usize::from(be16(self.take(2)?, 0)?);
                self.take(len)?;
                if depth == 1 && aigc::is_key(key) {
                    self.label = Some((start, self.at));
                }
                Some(())
            }
            12 => {
                let len = be32(self.take(4)?, 0)? as usize;
                self.take(len).map(|_| ())
            }
            3 => self.members(depth),
            8 => {
                self.take(4)?;
                self.members(depth)
            }
            5 | 6 => Some(()),
            10 => {
                let count = be32(self.take(4)?, 0)?;
                for _ in 0..count {
                    self.value(key, depth + 1)?;
                }
                Some(())
            }
            11 => self.take(10).map(|_| ()),
            _ => None,
        }
    }

    fn members(&mut self, depth: u32) -> Option<()> {
        loop {
            let start = self.at;
            let len = usize::from(be16(self.take(2)?, 0)?);
            let key = String::from_utf8_lossy(self.take(len)?);
            if key.is_empty() && self.bytes.get(self.at) == Some(&9) {
                self.at += 1;
                if depth == 0 {
                    self.end = Some(start);
                }
                return Some(());
            }
            self.value(&key, depth + 1)?;
        }
    }
}
