//! GIF: XMP in an application extension before the first picture.

use super::{Change, Plan, Refusal, elsewhere, xmp};
use crate::provenance::gif::{Kind, Walk, XMP_ID, XMP_TRAILER};
use crate::provenance::input::Input;
use crate::provenance::xmp::MAX_XMP;

const MAX_BLOCKS: u32 = 400_000;

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    const BROKEN: &str = "its blocks break off";
    let head = input.read(0, 6)?;
    let mut walk = Walk::new(input);
    let mut at = walk.after_screen()?.ok_or(BROKEN)?;
    let mut place = None;
    let mut plan = Plan::default();
    for _ in 0..MAX_BLOCKS {
        let block = walk.block(at)?.ok_or(BROKEN)?;
        match block.kind {
            Kind::Extension(0xFF) => {
                let whole = walk.input.whole(block.at, block.end, MAX_XMP)?;
                let packet = whole.as_deref().and_then(|bytes| {
                    let start = bytes.strip_prefix(b"\x21\xFF\x0B")?.strip_prefix(XMP_ID)?;
                    start.get(..start.len().checked_sub(XMP_TRAILER)?)
                });
                // A packet in pieces, which is against the rule, is not changed.
                let packet = packet.filter(|packet| matches!(packet.first(), Some(b'<' | 0xEF)));
                if let Some(packet) = packet {
                    plan.replace(
                        block.at,
                        block.end - block.at,
                        extension(&xmp::edit(packet, change)?),
                    );
                    return Ok(plan);
                }
            }
            Kind::Extension(0xFE) => {}
            // Other extensions (looping, comments) want to stand where they are: before the first
            // picture and what controls it.
            _ => {
                place.get_or_insert(block.at);
                if matches!(block.kind, Kind::Trailer) {
                    break;
                }
            }
        }
        at = block.end;
    }
    let (Change::Add(json), Some(place)) = (change, place) else { return Err(elsewhere()) };
    if head == b"GIF87a" {
        // Extensions came with 89a.
        plan.overwrite(4, b"9".to_vec());
    }
    plan.insert(place, extension(&xmp::packet(json)));
    Ok(plan)
}

fn extension(packet: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"\x21\xFF\x0B"[..], XMP_ID, packet, &[1]].concat();
    bytes.extend((0..=255).rev());
    bytes.push(0);
    bytes
}
