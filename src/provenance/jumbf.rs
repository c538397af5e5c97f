//! Whether a JUMBF box (ISO 19566-5) holds a C2PA manifest store and is whole. What it says is
//! verified elsewhere ([`super::c2pa`]); here its bytes are searched, for containers that the
//! verifier does not read.

use super::input::{be32, be64};

const MAX_DEPTH: u32 = 16;
const MAX_BOXES: u32 = 20_000;
/// IPTC values that say AI made or changed the content (newscodes, digitalsourcetype).
pub(crate) const AI_SOURCE_TYPES: [&str; 5] = [
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicMedia",
    "compositeSynthetic",
    "dataDrivenMedia",
];
pub(crate) const SOURCE_TYPE_PREFIX: &str = "digitalsourcetype/";
/// Values of the vocabulary that say how it was made without AI.
const MADE_BY_HAND: [&str; 7] = [
    "digitalCapture",
    "computationalCapture",
    "negativeFilm",
    "positiveFilm",
    "print",
    "humanEdits",
    "minorHumanEdits",
];

/// What a source type says of AI, given by its address or by its name alone.
pub(crate) fn source_type_says(value: &str) -> Option<bool> {
    let name = value.rsplit('/').next().unwrap_or(value);
    // C2PA's own addition to the vocabulary, for what is no picture, sound or film.
    if AI_SOURCE_TYPES.contains(&name) || name == "trainedAlgorithmicData" {
        Some(true)
    } else {
        MADE_BY_HAND.contains(&name).then_some(false)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Store {
    /// What is wrong with the boxes' structure.
    pub(crate) broken: Option<String>,
    /// The AI source type that an assertion names.
    pub(crate) source_type: Option<&'static str>,
}

/// Reads the bytes of one JUMBF superbox, of which `missing` further bytes are known to be absent.
/// None where it is not about C2PA.
pub(crate) fn read(bytes: &[u8], missing: bool) -> Option<Store> {
    let mut broken = None;
    let head = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    let store = memchr::memmem::find(head, b"jumdc2pa").is_some();
    let piece = [&b"jumdc2ma"[..], b"jumdc2as", b"jumdc2cl", b"jumdc2cs"]
        .iter()
        .any(|id| memchr::memmem::find(bytes, id).is_some());
    if !store && !piece {
        return None;
    }
    if !store {
        broken = Some("parts of a manifest without the manifest store around them".to_owned());
    } else if missing {
        broken = Some("the box ends before the length that it states".to_owned());
    } else {
        let mut left = MAX_BOXES;
        if let Err(what) = walk(bytes, 0, bytes.len(), 0, &mut left) {
            broken = Some(what);
        } else if !piece {
            broken = Some("a manifest store without a manifest".to_owned());
        }
    }
    Some(Store { broken, source_type: source_type(bytes) })
}

/// The AI source type that bytes name by its IPTC address.
pub(crate) fn source_type(bytes: &[u8]) -> Option<&'static str> {
    memchr::memmem::find_iter(bytes, SOURCE_TYPE_PREFIX).find_map(|at| {
        let value = bytes.get(at + SOURCE_TYPE_PREFIX.len()..)?;
        AI_SOURCE_TYPES.into_iter().find(|name| value.starts_with(name.as_bytes()))
    })
}

fn walk(bytes: &[u8], start: usize, end: usize, depth: u32, left: &mut u32) -> Result<(), String> {
    let mut at = start;
    while at < end {
        if *left == 0 || depth > MAX_DEPTH {
            return Err("more boxes or deeper nesting than any manifest has".to_owned());
        }
        *left -= 1;
        let cut = || format!("a box at byte {at} of the store does not fit into its parent");
        let small = be32(bytes, at).ok_or_else(cut)?;
        let (header, size) = match small {
            0 => (8, (end - at) as u64),
            1 => (16, be64(bytes, at + 8).ok_or_else(cut)?),
            n => (8, u64::from(n)),
        };
        let next = usize::try_from(size).ok().and_then(|n| at.checked_add(n)).ok_or_else(cut)?;
        if next > end || next < at + header {
            return Err(cut());
        }
        let kind = bytes.get(at + 4..at + 8).ok_or_else(cut)?;
        // Zeros written over the rest read as one box up to the end of its parent.
        if !kind.iter().all(|b| matches!(b, b' '..=b'~')) {
            return Err(format!("what stands at byte {at} of the store is no box"));
        }
        if kind == b"jumb" {
            walk(bytes, at + header, next, depth + 1, left)?;
        }
        at = next;
    }
    Ok(())
}
