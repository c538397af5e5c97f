//! RIFF: WAV (also RF64 and BW64), AVI, WebP.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, MAX_PIECE, Stop, le32};
use super::traces::Field;
use super::{Reader, encoder, exif, id3, xmp};

const MAX_DEPTH: u32 = 6;
/// Chunks looked at in one file.
const MAX_CHUNKS: u32 = 100_000;
const MAX_JUNK: usize = 4 << 20;
const MAX_JUNK_TOTAL: usize = 32 << 20;

pub(super) struct Riff;

impl Reader for Riff {
    fn name(&self) -> &'static str {
        "riff"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        let form = matches!(head.get(8..12), Some(b"WAVE" | b"AVI " | b"WEBP"));
        form && matches!(head.get(..4), Some(b"RIFF" | b"RF64" | b"BW64"))
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let end = input.len();
        let mut walk =
            Walk { input, out, left: MAX_CHUNKS, junk_left: MAX_JUNK_TOTAL, data64: None };
        walk.children(0, end, "", 0)
    }
}

struct Walk<'w, 'i> {
    input: &'w mut Input<'i>,
    out: &'w mut Collector,
    left: u32,
    junk_left: usize,
    /// Length of `data` where 32 bits are too few for it (EBU Tech 3306).
    data64: Option<u64>,
}

impl Walk<'_, '_> {
    fn children(&mut self, start: u64, end: u64, path: &str, depth: u32) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            self.out.note(format!("{path}: lists nested deeper than {MAX_DEPTH}"));
            return Ok(());
        }
        let mut at = start;
        while end.saturating_sub(at) >= 8 {
            if self.left == 0 {
                self.out.note(format!("more than {MAX_CHUNKS} chunks, the rest was not read"));
                return Ok(());
            }
            self.left -= 1;
            let head = self.input.read(at, 12)?;
            let (Some(id), Some(stated)) = (head.get(..4), le32(&head, 4)) else { return Ok(()) };
            if !id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
                if depth == 0 {
                    let bytes = self.input.span(at, end, MAX_JUNK)?;
                    self.out.trailer(&Spot::new("trailer", at), &bytes);
                } else {
                    self.out.note(format!("{path}: no chunk can be read at byte {at}"));
                }
                return Ok(());
            }
            let body = at + 8;
            // A stream of unknown length states all ones or nothing: what follows is its data.
            let streamed = matches!(id, b"RIFF" | b"RF64" | b"BW64" | b"data")
                && matches!(stated, 0 | u32::MAX);
            let size = match self.data64 {
                Some(size) if id == b"data" && streamed => size,
                _ if streamed => end - body,
                _ => u64::from(stated),
            };
            let mut stop = body.saturating_add(size);
            let file_cut = stop > end && end == self.input.len();
            if stop > end {
                self.out.note(format!("{path}: a chunk at byte {at} runs past the end"));
                stop = end;
            }
            self.chunk(id, &head, (at, body, stop), path, depth, file_cut)?;
            at = stop.saturating_add(stop.saturating_sub(body) & 1);
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        id: &[u8],
        head: &[u8],
        (at, body, end): (u64, u64, u64),
        parent: &str,
        depth: u32,
        file_cut: bool,
    ) -> Result<(), Stop> {
        let id_name = String::from_utf8_lossy(id).trim_end().to_owned();
        let path = if parent.is_empty() { id_name.clone() } else { format!("{parent}.{id_name}") };
        let spot = Spot::new(path.as_str(), at).cut_by_file_end(file_cut);
        match id {
            b"RIFF" | b"RF64" | b"BW64" | b"LIST" => {
                let form = head.get(8..12).unwrap_or_default();
                // Pictures and sound of AVI.
                if form == b"movi" {
                    let bytes = self.input.span(body, end, encoder::HEAD)?;
                    self.out.stream_head(&spot, &bytes);
                } else {
                    let form = String::from_utf8_lossy(form).trim_end().to_owned();
                    self.children(body + 4, end, &format!("{path}({form})"), depth + 1)?;
                }
            }
            b"ds64" => {
                let bytes = self.input.span(body, end, 16)?;
                self.data64 =
                    bytes.get(8..16).and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?)));
            }
            b"JUNK" | b"junk" | b"PAD " | b"FLLR" => {
                let bytes = self.input.span(body, end, MAX_JUNK.min(self.junk_left))?;
                self.junk_left -= bytes.len();
                self.out.padding(&spot, &bytes);
            }
            b"XMP " | b"_PMX" => {
                let bytes = self.input.span(body, end, xmp::MAX_XMP + 1)?;
                self.out.xmp(&spot, &bytes);
            }
            b"EXIF" => {
                let bytes = self.input.span(body, end, exif::MAX_EXIF)?;
                // Some writers keep JPEG's prefix.
                let tiff = bytes.strip_prefix(b"Exif\0\0").unwrap_or(&bytes);
                self.out.exif(&spot, tiff);
            }
            b"C2PA" => {
                let bytes = self.input.span(body, end, MAX_PIECE)?;
                self.out.jumbf(&spot, &bytes, file_cut);
            }
            b"id3 " | b"ID3 " => {
                id3::tag(self.input, body, &path, self.out)?;
            }
            b"AIGC" | b"aigc" => {
                let bytes = self.input.span(body, end, MAX_VALUE)?;
                self.out.aigc(&spot, &String::from_utf8_lossy(&bytes), &[]);
            }
            // Children of LIST INFO: four letters and a text.
            _ if parent.ends_with("(INFO)") => {
                let bytes = self.input.span(body, end, MAX_VALUE)?;
                let key = match id {
                    b"ICMT" => "comment",
                    b"ISFT" => "Software",
                    _ => id_name.as_str(),
                };
                self.out.text(Field::Tag, key, &String::from_utf8_lossy(&bytes), &spot);
            }
            _ => {}
        }
        Ok(())
    }
}
