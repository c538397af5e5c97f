//! TIFF and BigTIFF: tag 0x2BC in the first directory. The directory is written anew at the end of
//! the file, where the header then points; all offsets stay true, since nothing moves.

use super::{Change, Plan, Refusal, xmp};
use crate::provenance::input::Input;
use crate::provenance::tiff::{Ifd, Layout, XMP};
use crate::provenance::xmp::MAX_XMP;

pub(super) fn plan(input: &mut Input<'_>, change: &Change<'_>) -> Result<Plan, Refusal> {
    const BROKEN: &str = "its first directory breaks off";
    let head = input.read(0, 16)?;
    let layout = Layout::of(&head).ok_or(BROKEN)?;
    let pointer = if layout.big { 8 } else { 4 };
    let first = layout.offset(&head, pointer).ok_or(BROKEN)?;
    let ifd = layout.ifd(input, first)?.filter(|ifd| !ifd.cut).ok_or(BROKEN)?;
    let old = ifd.entries.iter().find(|entry| entry.tag == XMP);
    let packet = match (old, change) {
        (Some(entry), _) => {
            let end = entry.value.checked_add(entry.len).ok_or(BROKEN)?;
            let packet = input.whole(entry.value, end, MAX_XMP)?;
            xmp::edit(&packet.ok_or("its XMP is over 1 MiB or runs past the end")?, change)?
        }
        (None, Change::Add(json)) => xmp::packet(json),
        (None, Change::Propagate(_)) => return Err(super::elsewhere()),
    };
    // Values begin at even bytes, directories where 64 bits like to be.
    let mut tail = Vec::new();
    let align = |tail: &mut Vec<u8>, to: u64| {
        let end = input.len() + tail.len() as u64;
        tail.resize(tail.len() + (end.next_multiple_of(to) - end) as usize, 0);
    };
    align(&mut tail, 2);
    let packet_at = input.len() + tail.len() as u64;
    tail.extend_from_slice(&packet);
    align(&mut tail, 8);
    let ifd_at = input.len() + tail.len() as u64;
    tail.extend(directory(layout, &ifd, packet_at, packet.len() as u64));
    let end = input.len() + tail.len() as u64;
    if !layout.big && end > u64::from(u32::MAX) {
        return Err("with the label it would grow over the 4 GiB of a TIFF".into());
    }
    let mut plan = Plan::default();
    plan.insert(input.len(), tail);
    plan.overwrite(pointer as u64, layout.bytes(ifd_at, layout.offset_len()));
    Ok(plan)
}

/// The directory with its XMP entry, in the order of the tags.
fn directory(layout: Layout, ifd: &Ifd, packet_at: u64, len: u64) -> Vec<u8> {
    let (count_len, entry_len) = layout.sizes();
    let offset_len = layout.offset_len();
    // Type 1: bytes.
    let new = [
        layout.bytes(u64::from(XMP), 2),
        layout.bytes(1, 2),
        layout.bytes(len, offset_len),
        layout.bytes(packet_at, offset_len),
    ]
    .concat();
    let mut entries: Vec<(u16, Vec<u8>)> = ifd
        .entries
        .iter()
        .zip(ifd.raw.chunks_exact(entry_len))
        .filter(|(entry, _)| entry.tag != XMP)
        .map(|(entry, raw)| (entry.tag, raw.to_vec()))
        .collect();
    let place = entries.iter().position(|(tag, _)| *tag > XMP).unwrap_or(entries.len());
    entries.insert(place, (XMP, new));
    let mut bytes = layout.bytes(entries.len() as u64, count_len);
    bytes.extend(entries.into_iter().flat_map(|(_, raw)| raw));
    bytes.extend(layout.bytes(ifd.next, offset_len));
    bytes
}
