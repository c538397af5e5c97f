//! What an encoder or a muxer says of itself: the option strings that x264 and x265 put into the
//! stream, `encoder=Lavf…`, handler names. They tell how a file was made, and nothing of AI.

use super::traces::{Field, Text};

/// Bytes at the head of a video stream that are searched.
pub(crate) const HEAD: usize = 64 << 10;
/// Bytes of an option string that are kept; x265 writes about 1,500.
const MAX_STRING: usize = 2 << 10;

/// The UUIDs of user_data_unregistered (H.264 and H.265, annex D) under which encoders write their
/// options. The messages lie in the first picture, so that nothing before them has to be parsed.
const OPTIONS: [(&str, [u8; 16]); 2] = [
    (
        "x264",
        [
            0xDC, 0x45, 0xE9, 0xBD, 0xE6, 0xD9, 0x48, 0xB7, 0x96, 0x2C, 0xD8, 0x20, 0xD9, 0x23,
            0xEE, 0xEF,
        ],
    ),
    (
        "x265",
        [
            0x2C, 0xA2, 0xDE, 0x09, 0xB5, 0x17, 0x47, 0xDB, 0xBB, 0x55, 0xA4, 0xFE, 0x7F, 0xC2,
            0xFC, 0x4E,
        ],
    ),
];

/// An encoder's option string in the bytes of a stream: where, whose, and the string.
pub(crate) fn options(bytes: &[u8]) -> Option<(usize, &'static str, String)> {
    OPTIONS.iter().find_map(|(name, uuid)| {
        let at = memchr::memmem::find(bytes, uuid)?;
        let text = bytes.get(at + uuid.len()..)?;
        let text = text.get(..text.len().min(MAX_STRING)).unwrap_or_default();
        let len = text.iter().take_while(|b| b.is_ascii_graphic() || **b == b' ').count();
        let text = String::from_utf8_lossy(text.get(..len)?).trim().to_owned();
        (!text.is_empty()).then_some((at, *name, text))
    })
}

/// Whether a container's tag names the software that wrote it.
pub(crate) fn is_tag(text: &Text) -> bool {
    // `\u{a9}too` is how a box's name is written in a path.
    const KEYS: [&str; 6] =
        ["encoder", "Software", "MuxingApp", "WritingApp", "vendor", "\\u{a9}too"];
    text.field == Field::Tag && KEYS.iter().any(|key| key.eq_ignore_ascii_case(&text.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_strings_are_found_by_their_uuid() {
        let [(_, x264), (_, x265)] = OPTIONS;
        let said =
            |uuid: &[u8], text: &[u8]| options(&[b"\0\0\x02\xAE\x06\x05\xFF", uuid, text].concat());
        let (at, name, text) = said(&x264, b"x264 - core 164 - options: cabac=1\0\x80").unwrap();
        assert_eq!((at, name, text.as_str()), (7, "x264", "x264 - core 164 - options: cabac=1"));
        assert_eq!(said(&x265, b"x265 (build 199)\x80").map(|f| f.1), Some("x265"));
        assert_eq!(said(&x264, b"\0\0\0"), None);
        assert_eq!(said(&x264[..15], b"x264 - core"), None);
        let long = said(&x264, &[b'x'; 10_000]).unwrap();
        assert_eq!(long.2.len(), MAX_STRING);
    }

    #[test]
    fn tags_of_software_are_told_from_others() {
        let tag = |field, key: &str| {
            let text = Text { field, key: key.into(), value: "v".into(), place: "p".into() };
            is_tag(&text)
        };
        assert!(tag(Field::Tag, "ENCODER") && tag(Field::Tag, "\\u{a9}too"));
        assert!(!tag(Field::Tag, "title") && !tag(Field::PngText, "Software"));
    }
}
