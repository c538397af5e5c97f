//! The values that labels consist of (JSON, XMP, EXIF, JUMBF, generators' texts), in the smallest
//! file that holds one. The first byte says where it stands.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use veriscope_fuzz::{bounded, check, provenance::inspect_bytes};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((place, value)) = data.split_first() else { return Corpus::Reject };
    let file = match place % 12 {
        0 => png(b"tEXt", &[b"AIGC\0", value].concat()),
        1 => png(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", value].concat()),
        2 => png(b"eXIf", value),
        3 => png(b"caBX", value),
        4 => png(b"tEXt", &[b"parameters\0", value].concat()),
        5 => png(b"tEXt", &[b"prompt\0", value].concat()),
        6 => png(b"tEXt", &[b"Raw profile type xmp\0", value].concat()),
        7 => jpeg(&[b"Exif\0\0", value].concat(), b""),
        8 => jpeg(value, b""),
        9 => jpeg(b"", value),
        10 => mp4(b"free", value),
        11 => mp4(b"uuid", &[&XMP_UUID[..], value].concat()),
        _ => return Corpus::Reject,
    };
    check(&bounded(|| inspect_bytes(&file)).expect("bytes in memory do not fail"));
    Corpus::Keep
});

const XMP_UUID: [u8; 16] = [
    0xbe, 0x7a, 0xcf, 0xcb, 0x97, 0xa9, 0x42, 0xe8, 0x9c, 0x71, 0x99, 0x94, 0x91, 0xe3, 0xaf, 0xac,
];

fn png(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32).to_be_bytes();
    // Readers do not check CRCs.
    [b"\x89PNG\r\n\x1a\n", &size[..], kind, body, &[0; 4], b"\0\0\0\0IEND\xae\x42\x60\x82"].concat()
}

fn jpeg(segment: &[u8], trailer: &[u8]) -> Vec<u8> {
    let segment = &segment[..segment.len().min(0xFFFD)];
    let size = (segment.len() as u16 + 2).to_be_bytes();
    [b"\xFF\xD8\xFF\xE1", &size[..], segment, b"\xFF\xD9", trailer].concat()
}

fn mp4(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32 + 8).to_be_bytes();
    [b"\0\0\0\x10ftypisom\0\0\0\0", &size[..], kind, body].concat()
}
