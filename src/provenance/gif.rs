//! GIF (CompuServe GIF89a, XMP part 3): application extensions, comments, what follows the trailer.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, MAX_PIECE, Stop};
use super::png::MAX_TRAILER;
use super::traces::Field;
use super::{Reader, xmp};

/// Blocks of one animation; an hour at 50 pictures a second has 360,000 with their controls.
const MAX_BLOCKS: u32 = 400_000;
/// Pixels come in pieces of at most 255 bytes; they are stepped over in buffers of this size.
const BUFFER: usize = 64 << 10;
/// What follows an XMP packet: 0x01, then 0xFF down to 0x00, so that a reader that takes the packet
/// for pieces lands on the end, and the terminator.
pub(super) const XMP_TRAILER: usize = 258;
pub(super) const XMP_ID: &[u8] = b"XMP DataXMP";

pub(super) struct Gif;

impl Reader for Gif {
    fn name(&self) -> &'static str {
        "gif"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a")
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let mut walk = Walk { input, held: Vec::new(), held_at: 0 };
        let Some(mut at) = walk.after_screen()? else {
            out.note("the picture ends in its header".to_owned());
            return Ok(());
        };
        for _ in 0..MAX_BLOCKS {
            let Some(block) = walk.block(at)? else {
                out.note(format!("the picture ends or breaks in its block at byte {at}"));
                return Ok(());
            };
            match block.kind {
                Kind::Extension(label) => extension(&mut walk, label, &block, out)?,
                Kind::Image => {}
                Kind::Trailer => {
                    let bytes = walk.input.span(block.end, walk.input.len(), MAX_TRAILER)?;
                    let late = Some("misplaced_after_trailer");
                    out.trailer(&Spot::new("trailer", block.end).misplaced(late), &bytes);
                    return Ok(());
                }
            }
            at = block.end;
        }
        out.note(format!("more than {MAX_BLOCKS} blocks, the rest was not read"));
        Ok(())
    }
}

/// A block of the file.
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) at: u64,
    /// Where its pieces begin.
    body: u64,
    pub(super) end: u64,
}

pub(super) enum Kind {
    Extension(u8),
    Image,
    Trailer,
}

/// Steps through the blocks.
pub(super) struct Walk<'w, 'i> {
    pub(super) input: &'w mut Input<'i>,
    held: Vec<u8>,
    held_at: u64,
}

impl<'w, 'i> Walk<'w, 'i> {
    pub(super) fn new(input: &'w mut Input<'i>) -> Self {
        Self { input, held: Vec::new(), held_at: 0 }
    }

    /// Up to `want` (at most [`BUFFER`]) bytes from `at`; fewer where the file ends.
    fn bytes(&mut self, at: u64, want: usize) -> Result<&[u8], Stop> {
        let inside = at.checked_sub(self.held_at).and_then(|n| usize::try_from(n).ok());
        let held = |from: usize| self.held.get(from..).is_some_and(|b| b.len() >= want);
        let from = match inside.filter(|from| held(*from)) {
            Some(from) => from,
            None => {
                self.held = self.input.read(at, BUFFER)?;
                self.held_at = at;
                0
            }
        };
        let rest = self.held.get(from..).unwrap_or_default();
        Ok(rest.get(..want.min(rest.len())).unwrap_or_default())
    }

    fn byte(&mut self, at: u64) -> Result<Option<u8>, Stop> {
        Ok(self.bytes(at, 1)?.first().copied())
    }

    /// The byte after the logical screen and its colours.
    pub(super) fn after_screen(&mut self) -> Result<Option<u64>, Stop> {
        let flags = self.bytes(0, 13)?.get(10).copied();
        Ok(flags.map(|flags| 13 + colours(flags)))
    }

    /// The block at `at`; none where none can be there, or where the file ends in it.
    pub(super) fn block(&mut self, at: u64) -> Result<Option<Block>, Stop> {
        let head = self.bytes(at, 10)?;
        let (kind, body) = match (head.first(), head.get(1), head.get(9)) {
            (Some(0x21), Some(label), _) => (Kind::Extension(*label), at + 2),
            // The descriptor, its colours, the size of the first code.
            (Some(0x2C), _, Some(flags)) => (Kind::Image, at + 10 + colours(*flags) + 1),
            (Some(0x3B), ..) => {
                return Ok(Some(Block { kind: Kind::Trailer, at, body: at + 1, end: at + 1 }));
            }
            _ => return Ok(None),
        };
        let mut end = body;
        loop {
            match self.byte(end)? {
                None => return Ok(None),
                Some(0) => return Ok(Some(Block { kind, at, body, end: end + 1 })),
                Some(size) => end += 1 + u64::from(size),
            }
        }
    }
}

fn colours(flags: u8) -> u64 {
    if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 }
}

/// The bytes of all pieces from the first one's size byte on.
fn pieces(bytes: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(size) = bytes.get(at).filter(|size| **size > 0) {
        let next = at + 1 + usize::from(*size);
        joined.extend_from_slice(bytes.get(at + 1..next.min(bytes.len())).unwrap_or_default());
        at = next;
    }
    joined
}

fn extension(
    walk: &mut Walk<'_, '_>,
    label: u8,
    block: &Block,
    out: &mut Collector,
) -> Result<(), Stop> {
    if label == 0xFE {
        let bytes = pieces(&walk.input.span(block.body, block.end, MAX_VALUE)?);
        let spot = Spot::new("comment", block.at);
        out.text(Field::Tag, "comment", &String::from_utf8_lossy(&bytes), &spot);
    }
    if label != 0xFF {
        return Ok(());
    }
    let head = walk.input.read(block.body, 12)?;
    let (Some(11), Some(id)) = (head.first(), head.get(1..12)) else { return Ok(()) };
    let name: String = String::from_utf8_lossy(id).chars().filter(|c| !c.is_control()).collect();
    let spot = Spot::new(format!("application({name})"), block.at);
    let start = block.body + 12;
    // ImageMagick writes the name in small letters.
    if id.eq_ignore_ascii_case(XMP_ID) {
        let bytes = walk.input.span(start, block.end, xmp::MAX_XMP + 1 + XMP_TRAILER)?;
        // The packet stands there as it is; some writers cut it into pieces like everything else.
        if bytes.first().is_some_and(|b| matches!(b, b'<' | 0xEF)) {
            // Where zeros were written over the packet the block ends in it, without the trailer.
            let packet = bytes.len().saturating_sub(XMP_TRAILER);
            let whole = bytes.get(packet..).is_some_and(|end| end.starts_with(&[1, 0xFF, 0xFE]));
            out.xmp(&spot, if whole { bytes.get(..packet).unwrap_or_default() } else { &bytes });
        } else {
            out.xmp(&spot, &pieces(&bytes));
        }
    } else if id.starts_with(b"C2PA_GIF") {
        let bytes = pieces(&walk.input.span(start, block.end, MAX_PIECE)?);
        out.jumbf(&spot, &bytes, false);
    } else {
        let bytes = pieces(&walk.input.span(start, block.end, MAX_VALUE)?);
        // ImageMagick writes the name in small letters, and the manifest damaged.
        out.stray_manifest(&spot, &bytes, "an extension that is not C2PA's");
        out.text(Field::Tag, &name, &String::from_utf8_lossy(&bytes), &spot);
    }
    Ok(())
}
