//! APEv2 tags at the end of MP3 files (Hydrogenaudio's description of APEv2).

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop, le32};
use super::traces::Field;

const MAX_ITEMS: u32 = 4096;
const MAX_TAG: usize = 16 << 20;
const FOOTER: u64 = 32;

/// Reads the tag that ends at byte `end`, if one does, and gives where it begins.
pub(super) fn tag(input: &mut Input<'_>, end: u64, out: &mut Collector) -> Result<u64, Stop> {
    let Some(at) = end.checked_sub(FOOTER) else { return Ok(end) };
    let footer = input.read(at, FOOTER as usize)?;
    let (Some(b"APETAGEX"), Some(size), Some(count), Some(flags)) =
        (footer.get(..8), le32(&footer, 12), le32(&footer, 16), le32(&footer, 20))
    else {
        return Ok(end);
    };
    // The size counts the footer and not the header.
    let Some(start) = end.checked_sub(u64::from(size)).filter(|start| *start <= at) else {
        out.note(format!("the APE tag at byte {at} states an impossible size"));
        return Ok(at);
    };
    let bytes = input.span(start, at, MAX_TAG)?;
    if (bytes.len() as u64) < at - start {
        out.note(format!("the APE tag at byte {start} was not read to its end"));
    }
    let mut from = 0_usize;
    for _ in 0..count.min(MAX_ITEMS) {
        let (Some(size), Some(kind)) = (le32(&bytes, from), le32(&bytes, from + 4)) else { break };
        let rest = bytes.get(from + 8..).unwrap_or_default();
        let Some(name) = memchr::memchr(0, rest.get(..rest.len().min(256)).unwrap_or_default())
        else {
            break;
        };
        let key = String::from_utf8_lossy(rest.get(..name).unwrap_or_default()).into_owned();
        let body = name + 1;
        let Some(value) = body.checked_add(size as usize).and_then(|end| rest.get(body..end))
        else {
            out.note(format!("the APE tag at byte {start}: an item runs past its end"));
            break;
        };
        // 0 is text, 1 bytes, 2 an address.
        if kind >> 1 & 3 == 0 {
            let spot = Spot::new(format!("APE[{key}]"), start + from as u64);
            let value = value.get(..value.len().min(MAX_VALUE)).unwrap_or_default();
            out.tag(Field::Tag, &key, &String::from_utf8_lossy(value), &spot);
        }
        from += 8 + body + size as usize;
    }
    let header = if flags >> 31 == 1 { FOOTER } else { 0 };
    Ok(start.saturating_sub(header))
}
