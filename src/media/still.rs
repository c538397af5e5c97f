//! What a picture file's own header says, read before FFmpeg allocates anything for it.

use std::io::{self, Read, Seek, SeekFrom};

use super::convert::Orientation;

/// Size and orientation of a still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub width: u64,
    pub height: u64,
    pub orientation: Orientation,
}

/// How the content begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    Still(Header),
    /// An ISO base media file, with its major brand.
    IsoMedia([u8; 4]),
    /// A RIFF file (WAV, AVI), with the length in bytes that it states for itself.
    Riff(u64),
    Other,
}

/// Reads the header of JPEG, PNG, WebP, BMP and GIF pictures, and the brand of ISO media files.
pub(super) fn sniff(file: &mut (impl Read + Seek)) -> io::Result<Sniffed> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(32);
    file.by_ref().take(32).read_to_end(&mut head)?;
    let still = |size: Option<(u64, u64)>| match size {
        Some((width, height)) => {
            Sniffed::Still(Header { width, height, orientation: Orientation::default() })
        }
        None => Sniffed::Other,
    };
    if head.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return jpeg(file).map(|header| header.map_or(Sniffed::Other, Sniffed::Still));
    }
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(still(be32(&head, 16).zip(be32(&head, 20))));
    }
    if head.starts_with(b"GIF8") {
        return Ok(still(le16(&head, 6).zip(le16(&head, 8))));
    }
    if head.starts_with(b"BM") {
        let size = le32(&head, 18).zip(le32(&head, 22));
        // Both are signed; a negative height means rows from top to bottom.
        return Ok(still(size.map(|(w, h)| {
            (u64::from((w as i32).unsigned_abs()), u64::from((h as i32).unsigned_abs()))
        })));
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Ok(still(webp(&head)));
    }
    // Writers that do not know the length put the largest number, or nothing.
    if head.starts_with(b"RIFF")
        && let Some(size @ 1..0x7FFF_0000) = le32(&head, 4)
    {
        return Ok(Sniffed::Riff(u64::from(size) + 8));
    }
    if head.get(4..8) == Some(b"ftyp")
        && let Some(Ok(brand)) = head.get(8..12).map(<[u8; 4]>::try_from)
    {
        return Ok(Sniffed::IsoMedia(brand));
    }
    Ok(Sniffed::Other)
}

fn be16(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 2)?.try_into().ok().map(|b| u64::from(u16::from_be_bytes(b)))
}

fn le16(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 2)?.try_into().ok().map(|b| u64::from(u16::from_le_bytes(b)))
}

fn be32(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 4)?.try_into().ok().map(|b| u64::from(u32::from_be_bytes(b)))
}

fn le32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The three layouts of WebP's first chunk (RFC 9649, sections 2.5 to 2.7).
fn webp(head: &[u8]) -> Option<(u64, u64)> {
    match head.get(12..16)? {
        b"VP8 " => Some((le16(head, 26)? & 0x3FFF, le16(head, 28)? & 0x3FFF)),
        b"VP8L" => {
            let bits = u64::from(le32(head, 21)?);
            Some(((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1))
        }
        b"VP8X" => {
            let three = |at| Some(u64::from(le32(head, at)? & 0xFF_FFFF) + 1);
            Some((three(24)?, three(27)?))
        }
        _ => None,
    }
}

/// Walks the segments up to the frame header (ITU-T T.81, annex B), noting Exif on the way.
fn jpeg(file: &mut (impl Read + Seek)) -> io::Result<Option<Header>> {
    let mut orientation = Orientation::default();
    file.seek(SeekFrom::Start(2))?;
    // Each segment moves ahead by two bytes at least; a header of more than this many is no
    // picture that anybody made.
    for _ in 0..4096 {
        let mut marker = [0_u8; 2];
        if file.read_exact(&mut marker).is_err() || marker[0] != 0xFF {
            return Ok(None);
        }
        match marker[1] {
            0xFF => {
                file.seek(SeekFrom::Current(-1))?;
                continue;
            }
            // Markers that stand alone.
            0x01 | 0xD0..=0xD8 => continue,
            0xD9 | 0xDA => return Ok(None),
            _ => {}
        }
        let mut length = [0_u8; 2];
        if file.read_exact(&mut length).is_err() {
            return Ok(None);
        }
        let Some(length) = u16::from_be_bytes(length).checked_sub(2) else { return Ok(None) };
        match marker[1] {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let mut body = [0_u8; 5];
                if length < 5 || file.read_exact(&mut body).is_err() {
                    return Ok(None);
                }
                let size = be16(&body, 3).zip(be16(&body, 1));
                return Ok(size.map(|(width, height)| Header { width, height, orientation }));
            }
            0xE1 => {
                let mut body = vec![0_u8; usize::from(length)];
                if file.read_exact(&mut body).is_err() {
                    return Ok(None);
                }
                if let Some(found) = exif_orientation(&body) {
                    orientation = found;
                }
            }
            _ => {
                file.seek(SeekFrom::Current(i64::from(length)))?;
            }
        }
    }
    Ok(None)
}

/// The orientation tag (0x0112) in the first directory of an Exif segment.
fn exif_orientation(segment: &[u8]) -> Option<Orientation> {
    let tiff = segment.strip_prefix(b"Exif\0\0")?;
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let u16_at = |at| if big { be16(tiff, at) } else { le16(tiff, at) };
    let directory = usize::try_from(if big { be32(tiff, 4)? } else { u64::from(le32(tiff, 4)?) })
        .ok()
        .filter(|at| *at < tiff.len())?;
    let entries = usize::try_from(u16_at(directory)?).ok()?;
    (0..entries)
        .map(|i| directory + 2 + 12 * i)
        .take_while(|at| at + 12 <= tiff.len())
        .find(|at| u16_at(*at) == Some(0x0112))
        .and_then(|at| Orientation::from_exif(u16_at(at + 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn hostile_headers_end_quietly() {
        for bytes in [
            &b""[..],
            b"\xFF\xD8\xFF",
            b"\xFF\xD8\xFF\xE1\x00\x00",
            b"\xFF\xD8\xFF\xE1\xFF\xFFExif\0\0MM\0*\xFF\xFF\xFF\xFF",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBPVP8X",
            b"GIF89a",
        ] {
            assert_eq!(sniff(&mut Cursor::new(bytes)).unwrap(), Sniffed::Other, "{bytes:?}");
        }
    }

    #[test]
    fn exif_in_both_byte_orders() {
        let big = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let little = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        for segment in [&big[..], little] {
            assert_eq!(exif_orientation(segment), Orientation::from_exif(6));
        }
        assert_eq!(exif_orientation(b"Exif\0\0MM\0*\x7F\xFF\xFF\xFF"), None);
    }
}
