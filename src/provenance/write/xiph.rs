//! FLAC and Ogg: one more Vorbis comment.

use super::{Change, Plan, Refusal, elsewhere};
use crate::provenance::aigc;
use crate::provenance::input::{Input, be32, le32};

/// Comments with a cover in base64 reach some megabytes.
const MAX_COMMENTS: usize = 16 << 20;
const MAX_BLOCKS: u32 = 4096;
/// Pages that headers of all streams take.
const MAX_HEADER_PAGES: u32 = 4096;
const PAGE: usize = 27;

/// The comments with the change made; what stands behind them (a framing bit, padding) is kept.
fn edited(bytes: &[u8], change: &Change<'_>) -> Result<Vec<u8>, Refusal> {
    const BROKEN: &str = "its comments break off";
    let vendor = le32(bytes, 0).ok_or(BROKEN)? as usize;
    let count_at = vendor.checked_add(4).ok_or(BROKEN)?;
    let count = le32(bytes, count_at).ok_or(BROKEN)?;
    let mut at = count_at + 4;
    let mut new = None;
    for _ in 0..count {
        let size = le32(bytes, at).ok_or(BROKEN)? as usize;
        let end = at.checked_add(4).and_then(|at| at.checked_add(size)).ok_or(BROKEN)?;
        let comment = bytes.get(at + 4..end).ok_or(BROKEN)?;
        let split = memchr::memchr(b'=', comment).map(|equals| comment.split_at(equals + 1));
        if let (None, Change::Propagate(_), Some((key, value))) = (&new, change, split)
            && aigc::is_key(String::from_utf8_lossy(key).trim_end_matches('='))
        {
            let text = std::str::from_utf8(value).map_err(|_| "its label is not UTF-8")?;
            let text = change.rewritten(text)?.ok_or_else(elsewhere)?;
            new = Some((at, end, [key, text.as_bytes()].concat()));
        }
        at = end;
    }
    let mut out = bytes.to_vec();
    let (start, end, comment) = match (new, change) {
        (Some(new), _) => new,
        (None, Change::Add(json)) => {
            let count = count.checked_add(1).ok_or(BROKEN)?.to_le_bytes();
            out.splice(count_at..count_at + 4, count);
            (at, at, format!("AIGC={json}").into_bytes())
        }
        (None, Change::Propagate(_)) => return Err(elsewhere()),
    };
    let size = (comment.len() as u32).to_le_bytes();
    out.splice(start..end, [&size[..], &comment].concat());
    Ok(out)
}

/// A FLAC stream that begins at `start`.
pub(super) fn flac(
    input: &mut Input<'_>,
    start: u64,
    change: &Change<'_>,
) -> Result<Plan, Refusal> {
    const MAX_BLOCK: usize = 0xFF_FFFF;
    let mut plan = Plan::default();
    let mut at = start + 4;
    let mut first = None;
    for _ in 0..MAX_BLOCKS {
        let head = be32(&input.read(at, 4)?, 0).ok_or("its metadata blocks break off")?;
        let (last, kind, size) = (head & 1 << 31, head >> 24 & 0x7F, u64::from(head & 0xFF_FFFF));
        let end = at + 4 + size;
        first.get_or_insert((last, head, end));
        if kind == 4 {
            let bytes = input.whole(at + 4, end, MAX_BLOCK)?.ok_or("its comments break off")?;
            let new = edited(&bytes, change)?;
            if new.len() > MAX_BLOCK {
                return Err("with the label its comments would grow over 16 MiB".into());
            }
            let head = last | 4 << 24 | new.len() as u32;
            plan.replace(at, 4 + size, [&head.to_be_bytes()[..], &new].concat());
            return Ok(plan);
        }
        if last != 0 {
            break;
        }
        at = end;
    }
    // No comments yet: a block of them behind the first one, which describes the stream.
    let (Change::Add(_), Some((last, head, end))) = (change, first) else {
        return Err(elsewhere());
    };
    let new = edited(&[0; 8], change)?;
    plan.overwrite(start + 4, (head & !(1 << 31)).to_be_bytes().to_vec());
    let head = last | 4 << 24 | new.len() as u32;
    plan.insert(end, [&head.to_be_bytes()[..], &new].concat());
    Ok(plan)
}

struct Page {
    at: u64,
    /// With its header.
    len: u64,
    flags: u8,
    granule: [u8; 8],
    serial: u32,
    sequence: u32,
    laces: Vec<u8>,
}

impl Page {
    fn read(input: &mut Input<'_>, at: u64) -> Result<Option<Self>, Refusal> {
        let head = input.read(at, PAGE + 255)?;
        let fields = (|| {
            let laces = head.get(PAGE..PAGE + usize::from(*head.get(26)?))?;
            let body: u64 = laces.iter().map(|n| u64::from(*n)).sum();
            (head.get(..4)? == b"OggS").then_some(Self {
                at,
                len: (PAGE + laces.len()) as u64 + body,
                flags: *head.get(5)?,
                granule: head.get(6..14)?.try_into().ok()?,
                serial: le32(&head, 14)?,
                sequence: le32(&head, 18)?,
                laces: laces.to_vec(),
            })
        })();
        Ok(fields)
    }

    fn body(&self, input: &mut Input<'_>) -> Result<Vec<u8>, Refusal> {
        let start = self.at + (PAGE + self.laces.len()) as u64;
        let body = input.whole(start, self.at + self.len, 255 * 255)?;
        body.ok_or_else(|| format!("the page at byte {} runs past the end", self.at).into())
    }

    /// The page's bytes, with a checksum that is right.
    fn bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut page = [
            b"OggS\0",
            &[self.flags][..],
            &self.granule,
            &self.serial.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &[0; 4],
            &[self.laces.len() as u8],
            &self.laces,
            body,
        ]
        .concat();
        let crc = checksum(&page).to_le_bytes();
        page.splice(22..26, crc);
        page
    }
}

const CONTINUED: u8 = 1;
const BEGINS: u8 = 2;
const ENDS: u8 = 4;

pub(super) fn ogg(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    // The first page of each stream of the first link holds what the stream is.
    let mut streams = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_HEADER_PAGES {
        let page = Page::read(input, at)?.ok_or("its pages break off")?;
        if page.flags & BEGINS == 0 {
            break;
        }
        let body = page.body(input)?;
        let magics: [&[u8]; 5] =
            [b"\x01vorbis", b"OpusHead", b"\x7FFLAC", b"Speex   ", b"\x80theora"];
        if let Some(rank) = magics.iter().position(|magic| body.starts_with(magic)) {
            streams.push((rank, page.serial));
        }
        at += page.len;
    }
    // Sound first, since a file has one label and its sound is what every player opens.
    streams.sort_by_key(|(rank, _)| *rank);
    let mut result = Err("it has no stream whose comments are known".into());
    for (rank, serial) in streams {
        // Before the comments.
        let magic: &[u8] = match rank {
            0 => b"\x03vorbis",
            1 => b"OpusTags",
            4 => b"\x81theora",
            _ => b"",
        };
        // FLAC has the header of a metadata block instead.
        result = stream(input, serial, magic, rank == 2, change);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn stream(
    input: &mut Input<'_>,
    serial: u32,
    magic: &[u8],
    flac: bool,
    change: &Change<'_>,
) -> Result<Plan, Refusal> {
    // From the page on which the comments begin to the first one that ends with a packet.
    let (pages, mut packets) = headers(input, serial)?;
    let (Some(comments), Some(last)) = (packets.first_mut(), pages.last()) else {
        return Err("its comments break off".into());
    };
    if !matches!(u64::from_le_bytes(last.granule), 0 | u64::MAX) {
        return Err("its comments share a page with its sound".into());
    }
    let skip = if flac { 4 } else { magic.len() };
    let Some((head, rest)) = comments.split_at_checked(skip).filter(|(h, _)| flac || *h == magic)
    else {
        return Err("its comments are not where they should be".into());
    };
    let new = edited(rest, change)?;
    let mut head = head.to_vec();
    if let [_, size @ ..] = head.as_mut_slice()
        && flac
    {
        size.copy_from_slice((new.len() as u32).to_be_bytes().get(1..).unwrap_or(&[0; 3]));
    }
    *comments = [head, new].concat();
    if comments.len() > MAX_COMMENTS {
        return Err("with the label its comments would grow over 16 MiB".into());
    }
    let (from, to) = (last.at + last.len, pages.len());
    let made = paginate(&pages, &packets);
    let mut plan = Plan::default();
    let more = made.len() as u32 - to as u32;
    let (same, extra) = made.split_at(to.saturating_sub(1));
    for (page, bytes) in pages.iter().zip(same) {
        plan.replace(page.at, page.len, bytes.clone());
    }
    plan.replace(last.at, last.len, extra.concat());
    if more > 0 {
        renumber(input, serial, from, more, &mut plan)?;
    }
    Ok(plan)
}

/// The pages behind a stream's first one, up to the first that ends with a packet, and the packets
/// on them.
fn headers(input: &mut Input<'_>, serial: u32) -> Result<(Vec<Page>, Vec<Vec<u8>>), Refusal> {
    let (mut pages, mut packets, mut packet) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at, mut held) = (0, 0);
    for _ in 0..MAX_HEADER_PAGES {
        let Some(page) = Page::read(input, at)? else { break };
        at += page.len;
        if page.serial != serial || page.flags & BEGINS != 0 {
            continue;
        }
        let body = page.body(input)?;
        held += body.len();
        if held > MAX_COMMENTS {
            return Err("its headers are over 16 MiB".into());
        }
        let mut from = 0;
        for lace in &page.laces {
            let to = from + usize::from(*lace);
            packet.extend_from_slice(body.get(from..to).unwrap_or_default());
            from = to;
            if *lace < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        let complete = page.laces.last().is_some_and(|lace| *lace < 255);
        pages.push(page);
        if complete {
            return Ok((pages, packets));
        }
    }
    Err("its headers break off".into())
}

/// Lays packets on as many pages as there were, or on more where those would not hold them.
fn paginate(old: &[Page], packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut laces = Vec::new();
    let mut body = Vec::new();
    for packet in packets {
        laces.extend(std::iter::repeat_n(255, packet.len() / 255));
        laces.push((packet.len() % 255) as u8);
        body.extend_from_slice(packet);
    }
    let count = laces.len().div_ceil(255).max(old.len());
    let mut made = Vec::new();
    let (mut from, mut continued) = (0, false);
    for index in 0..count {
        let range = index * laces.len() / count..(index + 1) * laces.len() / count;
        let laces = laces.get(range).unwrap_or_default().to_vec();
        let to = from + laces.iter().map(|n| usize::from(*n)).sum::<usize>();
        let template = old.get(index).or(old.last());
        let is_last = index + 1 == count;
        let ends = template.filter(|_| is_last).map_or(0, |page| page.flags & ENDS);
        let finishes = laces.iter().any(|lace| *lace < 255);
        let page = Page {
            at: 0,
            len: 0,
            flags: if continued { CONTINUED } else { 0 } | ends,
            // No position where no packet ends.
            granule: if finishes { [0; 8] } else { [0xFF; 8] },
            serial: template.map_or(0, |page| page.serial),
            sequence: old.first().map_or(0, |page| page.sequence).wrapping_add(index as u32),
            laces,
        };
        continued = page.laces.last().map_or(continued, |lace| *lace == 255);
        made.push(page.bytes(body.get(from..to).unwrap_or_default()));
        from = to;
    }
    made
}

/// Gives the stream's pages from byte `at` on numbers that are `more` higher.
fn renumber(
    input: &mut Input<'_>,
    serial: u32,
    mut at: u64,
    more: u32,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    while at < input.len() {
        let Some(mut page) = Page::read(input, at)? else {
            return Err(format!("its pages break off at byte {at}").into());
        };
        if page.serial == serial {
            let body = page.body(input)?;
            page.sequence = page.sequence.wrapping_add(more);
            let bytes = page.bytes(&body);
            plan.overwrite(at + 18, bytes.get(18..26).unwrap_or_default().to_vec());
            if page.flags & ENDS != 0 {
                return Ok(());
            }
        }
        at += page.len;
    }
    Ok(())
}

/// The CRC of RFC 3533: polynomial 0x04C11DB7, from 0, not reflected.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = (index as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value = value << 1 ^ if value >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| {
        let index = usize::from((crc >> 24) as u8 ^ byte);
        crc << 8 ^ TABLE.get(index).copied().unwrap_or(0)
    })
}
