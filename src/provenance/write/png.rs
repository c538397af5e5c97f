//! PNG: a `tEXt` chunk `AIGC` behind the header.

use std::io::Write as _;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::aigc;
use crate::provenance::input::{Input, be32};

/// The signature, and the header with its length, name and checksum.
const HEADER_END: u64 = 8 + 12 + 13;
/// A text that is to be changed is no longer than this, packed or not.
const MAX_TEXT: usize = 1 << 20;
const MAX_CHUNKS: u32 = 200_000;

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    if let Change::Add(json) = change {
        let head = input.read(8, 8)?;
        if head != b"\0\0\0\x0DIHDR" {
            return Err("the picture does not begin with its header".into());
        }
        plan.insert(HEADER_END, chunk(b"tEXt", &[b"AIGC\0", json.as_bytes()].concat()));
        return Ok(plan);
    }
    let mut at = 8;
    for _ in 0..MAX_CHUNKS {
        let head = input.read(at, 8)?;
        let (Some(size), Some(kind)) = (be32(&head, 0), head.get(4..8)) else { break };
        let (body, end) = (at + 8, at + 8 + u64::from(size));
        if matches!(kind, b"IDAT" | b"IEND") {
            break;
        }
        if matches!(kind, b"tEXt" | b"zTXt" | b"iTXt")
            && let Some(bytes) = input.whole(body, end, MAX_TEXT)?
            && let Some(new) = text(kind, &bytes, change)?
        {
            plan.replace(at, 12 + u64::from(size), chunk(kind, &new));
            return Ok(plan);
        }
        at = end + 4;
    }
    Err(elsewhere())
}

fn chunk(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(body);
    let size = (body.len() as u32).to_be_bytes();
    [&size[..], kind, body, &crc.sum().to_be_bytes()].concat()
}

/// The chunk's body with the label in it changed; none where it holds none.
fn text(kind: &[u8], bytes: &[u8], change: &Change<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(end) = memchr::memchr(0, bytes) else { return Ok(None) };
    let (keyword, rest) = bytes.split_at(end + 1);
    let keyword = String::from_utf8_lossy(keyword.get(..end).unwrap_or_default()).into_owned();
    let is_xmp = keyword == "XML:com.adobe.xmp";
    if !is_xmp && !aigc::is_key(&keyword) {
        return Ok(None);
    }
    // What stands between the keyword and the text, and whether the text is packed.
    let (middle, packed) = match kind {
        b"tEXt" => (0, false),
        b"zTXt" => (1, true),
        _ => {
            let mut ends = memchr::memchr_iter(0, rest.get(2..).unwrap_or_default()).skip(1);
            let Some(second) = ends.next() else { return Ok(None) };
            (2 + second + 1, rest.first() == Some(&1))
        }
    };
    let Some((middle, value)) = rest.split_at_checked(middle) else { return Ok(None) };
    let plain = if packed { unpacked(value)? } else { value.to_vec() };
    let new = if is_xmp {
        if memchr::memmem::find(&plain, b"AIGC").is_none() {
            return Ok(None);
        }
        xmp::edit(&plain, change)?
    } else {
        let text = std::str::from_utf8(&plain).map_err(|_| "its label is not UTF-8")?;
        change.rewritten(text)?.ok_or_else(elsewhere)?.into_bytes()
    };
    let new = if packed { deflated(&new).map_err(Refusal::Io)? } else { new };
    let (keyword, _) = bytes.split_at(end + 1);
    Ok(Some([keyword, middle, &new].concat()))
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = ZlibDecoder::new(bytes).take(MAX_TEXT as u64 + 1).read_to_end(&mut text);
    match read {
        Ok(n) if n <= MAX_TEXT => Ok(text),
        Ok(_) => Err("its label stands in a text over 1 MiB".into()),
        Err(_) => Err("the compressed text of its label is damaged".into()),
    }
}

fn deflated(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}
