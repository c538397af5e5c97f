//! Matroska and WebM (RFC 9559, EBML RFC 8794): Tags and Void elements.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop};
use super::traces::Field;
use super::{Reader, aigc, encoder};

const EBML: u32 = 0x1A45_DFA3;
pub(super) const SEGMENT: u32 = 0x1853_8067;
pub(super) const CLUSTER: u32 = 0x1F43_B675;
const INFO: u32 = 0x1549_A966;
const MUXING_APP: u32 = 0x4D80;
const WRITING_APP: u32 = 0x5741;
const TRACKS: u32 = 0x1654_AE6B;
pub(super) const TAGS: u32 = 0x1254_C367;
pub(super) const TAG: u32 = 0x7373;
pub(super) const SIMPLE_TAG: u32 = 0x67C8;
pub(super) const TAG_NAME: u32 = 0x45A3;
pub(super) const TAG_STRING: u32 = 0x4487;
const TAG_BINARY: u32 = 0x4485;
pub(super) const VOID: u32 = 0xEC;

const MAX_DEPTH: u32 = 10;
const MAX_ELEMENTS: u32 = 300_000;
const MAX_VOID: usize = 4 << 20;
const MAX_VOID_TOTAL: usize = 32 << 20;

pub(super) struct Matroska;

impl Reader for Matroska {
    fn name(&self) -> &'static str {
        "matroska"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(&EBML.to_be_bytes())
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let end = input.len();
        let mut walk =
            Walk { input, out, left: MAX_ELEMENTS, void_left: MAX_VOID_TOTAL, clusters: false };
        walk.children(0, end, "", 0)
    }
}

struct Walk<'w, 'i> {
    input: &'w mut Input<'i>,
    out: &'w mut Collector,
    left: u32,
    void_left: usize,
    /// The first cluster was seen.
    clusters: bool,
}

struct Element {
    id: u32,
    at: u64,
    body: u64,
    end: u64,
    /// The size is not stated (live streams): children follow until something else begins.
    open: bool,
    file_cut: bool,
}

impl Walk<'_, '_> {
    fn next(&mut self, at: u64, limit: u64) -> Result<Option<Element>, Stop> {
        if at >= limit {
            return Ok(None);
        }
        if self.left == 0 {
            self.out.note(format!("more than {MAX_ELEMENTS} elements, the rest was not read"));
            return Ok(None);
        }
        self.left -= 1;
        let head = self.input.read(at, 12)?;
        let parsed = id(&head).and_then(|(id, n)| {
            let (size, m) = size(head.get(n..)?)?;
            Some((id, size, (n + m) as u64))
        });
        let Some((id, size, header)) = parsed else {
            self.out.note(format!("no element can be read at byte {at}"));
            return Ok(None);
        };
        let body = (at + header).min(limit);
        let (end, open) = match size {
            None => (limit, true),
            Some(size) => (body.saturating_add(size), false),
        };
        let file_cut = end > limit && limit == self.input.len();
        if end > limit {
            self.out.note(format!("an element at byte {at} runs past the end of what holds it"));
        }
        Ok(Some(Element { id, at, body, end: end.min(limit), open, file_cut }))
    }

    fn children(&mut self, start: u64, end: u64, path: &str, depth: u32) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            self.out.note(format!("{path}: elements nested deeper than {MAX_DEPTH}"));
            return Ok(());
        }
        let mut at = start;
        while let Some(this) = self.next(at, end)? {
            at = this.end;
            let first_cluster = this.id == CLUSTER && !std::mem::replace(&mut self.clusters, true);
            if first_cluster || this.id == TRACKS {
                let name = if first_cluster { "Cluster" } else { "Tracks" };
                let bytes = self.input.span(this.body, this.end, encoder::HEAD)?;
                self.out.stream_head(&Spot::new(format!("{path}.{name}"), this.at), &bytes);
            }
            match this.id {
                SEGMENT => return self.children(this.body, this.end, "Segment", depth + 1),
                // Its children are stepped over one by one, up to the next element of its level.
                CLUSTER if this.open => at = this.body,
                INFO => self.children(this.body, this.end, &format!("{path}.Info"), depth + 1)?,
                MUXING_APP | WRITING_APP => {
                    let bytes = self.input.span(this.body, this.end, MAX_VALUE)?;
                    let key = if this.id == MUXING_APP { "MuxingApp" } else { "WritingApp" };
                    let spot = Spot::new(format!("{path}.{key}"), this.at);
                    self.out.text(Field::Tag, key, &String::from_utf8_lossy(&bytes), &spot);
                }
                TAGS => self.children(this.body, this.end, &format!("{path}.Tags"), depth + 1)?,
                TAG => self.children(this.body, this.end, &format!("{path}.Tag"), depth + 1)?,
                SIMPLE_TAG => self.simple_tag(&this, path, depth + 1)?,
                VOID => {
                    let cap = MAX_VOID.min(self.void_left);
                    let bytes = self.input.span(this.body, this.end, cap)?;
                    self.void_left -= bytes.len();
                    let spot = Spot::new(format!("{path}.Void"), this.at);
                    self.out.padding(&spot, &bytes);
                }
                _ if this.open => {
                    self.out.note(format!("an element of unknown size at byte {}", this.at));
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn simple_tag(&mut self, tag: &Element, path: &str, depth: u32) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let (mut name, mut value) = (String::new(), None);
        let mut at = tag.body;
        let path = format!("{path}.SimpleTag");
        while let Some(child) = self.next(at, tag.end)? {
            at = child.end;
            match child.id {
                TAG_NAME | TAG_STRING | TAG_BINARY => {
                    let bytes = self.input.span(child.body, child.end, MAX_VALUE)?;
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if child.id == TAG_NAME {
                        name = text.trim_end_matches('\0').to_owned();
                    } else {
                        value = Some(text);
                    }
                }
                SIMPLE_TAG => self.simple_tag(&child, &path, depth + 1)?,
                VOID => {
                    let bytes = self.input.span(child.body, child.end, MAX_VALUE)?;
                    self.out.padding(&Spot::new(format!("{path}.Void"), child.at), &bytes);
                }
                _ => {}
            }
        }
        let spot = Spot::new(format!("{path}[{name}]"), tag.at).cut_by_file_end(tag.file_cut);
        match value {
            Some(value) => self.out.tag(Field::Tag, &name, &value, &spot),
            None if aigc::is_key(&name) => self.out.aigc(&spot, "", &[]),
            None => {}
        }
        Ok(())
    }
}

/// An element's ID with its marker bit, and its length.
pub(super) fn id(bytes: &[u8]) -> Option<(u32, usize)> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    if len > 4 {
        return None;
    }
    Some((bytes.get(..len)?.iter().fold(0, |id, b| id << 8 | u32::from(*b)), len))
}

/// A size and its length; none for the reserved value "unknown".
pub(super) fn size(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    if len > 8 {
        return None;
    }
    let raw = bytes.get(..len)?.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let mask = (1_u64 << (7 * len)) - 1;
    Some(((raw & mask != mask).then_some(raw & mask), len))
}
