//! JPEG: an XMP packet in APP1, or the property in the packet that is there.

use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::aigc;
use crate::provenance::input::{Input, be16};
use crate::provenance::tiff::Layout;

const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const EXIF: &[u8] = b"Exif\0\0";
const MPF: &[u8] = b"MPF\0";
/// What a segment holds beside its marker and its length.
const MAX_SEGMENT: usize = 65_533;
const MAX_SEGMENTS: u32 = 20_000;

struct Segment {
    marker: u8,
    at: u64,
    body: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.at + 4 + self.body.len() as u64
    }

    fn is_xmp(&self) -> bool {
        self.marker == 0xE1 && self.body.starts_with(XMP)
    }
}

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let segments = segments(input)?;
    let (at, remove, body, marker) = match change {
        Change::Add(json) => match segments.iter().find(|s| s.is_xmp()) {
            Some(old) => (old.at, old.end() - old.at, edited(old, change)?, 0xE1),
            None => {
                // JFIF and EXIF each want to be the first; XMP comes behind both.
                let last = segments
                    .iter()
                    .take_while(|s| {
                        s.marker == 0xE0 || s.marker == 0xE1 && s.body.starts_with(EXIF)
                    })
                    .last();
                let at = last.map_or(2, Segment::end);
                (at, 0, [XMP, &xmp::packet(json)].concat(), 0xE1)
            }
        },
        Change::Propagate(_) => {
            let found = segments.iter().find(|s| {
                let plain = s.marker == 0xFE || (0xE0..=0xEF).contains(&s.marker);
                plain && !s.body.starts_with(EXIF) && aigc_in(s)
            });
            let old = found.ok_or_else(elsewhere)?;
            let new = if old.is_xmp() { edited(old, change)? } else { bare(old, change)? };
            (old.at, old.end() - old.at, new, old.marker)
        }
    };
    if body.len() > MAX_SEGMENT {
        return Err("with the label its segment would grow over 64 KiB".into());
    }
    let mut plan = Plan::default();
    let grown = body.len() as i64 + 4 - remove as i64;
    if grown != 0
        && let Some(mpf) = segments.iter().find(|s| s.marker == 0xE2 && s.body.starts_with(MPF))
    {
        let base = mpf.at + 4 + MPF.len() as u64;
        pictures(mpf.body.get(MPF.len()..).unwrap_or_default(), base, at, grown, &mut plan)?;
    }
    let size = (body.len() as u16 + 2).to_be_bytes();
    plan.replace(at, remove, [&[0xFF, marker], &size[..], &body].concat());
    Ok(plan)
}

/// The segments before the pixels.
fn segments(input: &mut Input<'_>) -> Result<Vec<Segment>, Refusal> {
    let mut segments = Vec::new();
    let mut at = 2;
    for _ in 0..MAX_SEGMENTS {
        let head = input.read(at, 4)?;
        match (head.first(), head.get(1)) {
            (Some(0xFF), Some(0xFF)) => at += 1,
            (Some(0xFF), Some(0xDA)) => return Ok(segments),
            (Some(0xFF), Some(marker)) => {
                let size = be16(&head, 2).filter(|size| *size >= 2);
                let end = at + 2 + u64::from(size.unwrap_or(0));
                let body = input.whole(at + 4, end.max(at + 4), MAX_SEGMENT)?;
                let (Some(_), Some(body)) = (size, body) else { break };
                segments.push(Segment { marker: *marker, at, body });
                at = end;
            }
            _ => break,
        }
    }
    Err("its segments break off before the pixels".into())
}

fn aigc_in(segment: &Segment) -> bool {
    memchr::memmem::find(&segment.body, b"AIGC").is_some()
        || memchr::memmem::find(&segment.body, b"\"ContentProducer\"").is_some()
}

fn edited(segment: &Segment, change: &Change<'_>) -> Result<Vec<u8>, Refusal> {
    let packet = segment.body.get(XMP.len()..).unwrap_or_default();
    Ok([XMP, &xmp::edit(packet, change)?].concat())
}

/// A label written into a segment without any structure around it.
fn bare(segment: &Segment, change: &Change<'_>) -> Result<Vec<u8>, Refusal> {
    let start = if segment.marker == 0xFE {
        0
    } else {
        aigc::find_start(&segment.body).ok_or_else(elsewhere)?
    };
    let tail = segment.body.get(start..).unwrap_or_default();
    let text = std::str::from_utf8(tail).map_err(|_| elsewhere())?;
    let (at, piece) = aigc::embedded(text).ok_or_else(elsewhere)?;
    let new = change.rewritten(piece)?.ok_or_else(elsewhere)?;
    let mut body = segment.body.clone();
    body.splice(start + at..start + at + piece.len(), new.into_bytes());
    Ok(body)
}

/// Multi-picture files (CIPA DC-007): the size of the first picture, and where the others stand,
/// counted from the byte behind `MPF\0`.
fn pictures(
    tiff: &[u8],
    base: u64,
    changed_at: u64,
    grown: i64,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    const DAMAGED: &str = "its index of further pictures (MPF) cannot be kept right";
    let layout = Layout::of(tiff).filter(|l| !l.big).ok_or(DAMAGED)?;
    let number = |at: usize, len: usize| layout.number(tiff, at, len).ok_or(DAMAGED);
    let ifd = number(4, 4)? as usize;
    let entries = number(ifd, 2)? as usize;
    for entry in (0..entries).map(|i| ifd + 2 + 12 * i) {
        if number(entry, 2)? != 0xB002 {
            continue;
        }
        let (len, table) = (number(entry + 4, 4)? as usize, number(entry + 8, 4)? as usize);
        for (index, picture) in (0..len / 16).map(|i| (i, table + 16 * i)) {
            let mut put = |at: usize| -> Result<(), Refusal> {
                let new = number(at, 4)?.checked_add_signed(grown);
                let new = new.filter(|n| *n <= u64::from(u32::MAX)).ok_or(DAMAGED)?;
                plan.overwrite(base + at as u64, layout.bytes(new, 4));
                Ok(())
            };
            if index == 0 {
                put(picture + 4)?;
            } else if changed_at >= base && number(picture + 8, 4)? != 0 {
                put(picture + 8)?;
            }
        }
        return Ok(());
    }
    Err(DAMAGED.into())
}
