//! FLV (Adobe Flash Video File Format 10.1, AMF0): the script tag `onMetaData`.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop, be16, be32};
use super::traces::Field;
use super::{Reader, encoder};

/// Tags looked at: `onMetaData` is among the first.
const MAX_TAGS: u32 = 64;
/// Tags of pictures that are searched for an encoder's options: the first is the decoder's set-up.
const MAX_HEADS: u32 = 2;
const MAX_SCRIPT: usize = 4 << 20;
const MAX_VALUES: u32 = 100_000;
const MAX_DEPTH: u32 = 8;

pub(super) struct Flv;

impl Reader for Flv {
    fn name(&self) -> &'static str {
        "flv"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(b"FLV\x01")
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let head = input.read(0, 9)?;
        let mut at = u64::from(be32(&head, 5).unwrap_or(9)) + 4;
        let mut heads = 0..MAX_HEADS;
        for _ in 0..MAX_TAGS {
            let Some(head) = input.read(at, 4).map(|b| be32(&b, 0))? else { return Ok(()) };
            let (kind, size) = (head >> 24 & 0x1F, u64::from(head & 0xFF_FFFF));
            let body = at + 11;
            if kind == 18 {
                let bytes = input.span(body, body + size, MAX_SCRIPT)?;
                let mut amf = Amf { bytes: &bytes, at: 0, left: MAX_VALUES };
                let spot = Spot::new("onMetaData", at).cut_by_file_end(body + size > input.len());
                // The name of the script's function, then its argument.
                if amf.value(None, &spot, 0, out).is_none()
                    || amf.value(None, &spot, 0, out).is_none()
                {
                    out.note(format!("{spot}: the script data is damaged"));
                }
            }
            if kind == 9 && heads.next().is_some() {
                let bytes = input.span(body, body + size, encoder::HEAD)?;
                out.stream_head(&Spot::new("video", at), &bytes);
            }
            at = body + size + 4;
        }
        Ok(())
    }
}

struct Amf<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Amf<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let piece = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(piece)
    }

    /// Reads one value and hands strings under a key to `out`; none where it is damaged.
    fn value(
        &mut self,
        key: Option<&str>,
        spot: &Spot,
        depth: u32,
        out: &mut Collector,
    ) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        if depth > MAX_DEPTH {
            return None;
        }
        match self.take(1)?.first()? {
            0 => self.take(8).map(|_| ()),
            1 => self.take(1).map(|_| ()),
            kind @ (2 | 12) => {
                let len = if *kind == 2 {
                    usize::from(be16(self.take(2)?, 0)?)
                } else {
                    be32(self.take(4)?, 0)? as usize
                };
                // What is left of a string that is cut is still read.
                let whole = self.bytes.len().saturating_sub(self.at) >= len;
                let text = self.bytes.get(self.at..).unwrap_or_default();
                let text = text.get(..text.len().min(len).min(MAX_VALUE)).unwrap_or_default();
                if let Some(key) = key {
                    let value = String::from_utf8_lossy(text);
                    out.tag(Field::Tag, key, &value, &spot.child(&format!("[{key}]")));
                }
                if !whole {
                    return None;
                }
                self.take(len).map(|_| ())
            }
            3 => self.members(spot, depth, out),
            8 => {
                self.take(4)?;
                self.members(spot, depth, out)
            }
            5 | 6 => Some(()),
            10 => {
                let count = be32(self.take(4)?, 0)?;
                for _ in 0..count {
                    self.value(None, spot, depth + 1, out)?;
                }
                Some(())
            }
            11 => self.take(10).map(|_| ()),
            _ => None,
        }
    }

    fn members(&mut self, spot: &Spot, depth: u32, out: &mut Collector) -> Option<()> {
        loop {
            let len = usize::from(be16(self.take(2)?, 0)?);
            let key = String::from_utf8_lossy(self.take(len)?);
            if self.bytes.get(self.at) == Some(&9) && key.is_empty() {
                self.at += 1;
                return Some(());
            }
            self.value(Some(&key), spot, depth + 1, out)?;
        }
    }
}
