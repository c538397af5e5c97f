//! Reading a file of any size with a bounded number of bytes and calls.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that one inspection may read in all. Metadata is far smaller; what reaches this is a
/// picture scanned for its end marker, or a file made to keep a reader busy.
pub(crate) const READ_BUDGET: u64 = 256 << 20;
/// Calls to the file that one inspection may make: about a second of work on a local disk.
pub(crate) const CALL_BUDGET: u32 = 400_000;
/// Largest single piece that is held in memory.
pub(crate) const MAX_PIECE: usize = 16 << 20;
/// What a small read fetches at once, so that neighbouring headers cost one call.
const WINDOW: usize = 512;

/// Why reading ended before the structure did.
#[derive(Debug)]
pub(crate) enum Stop {
    Io(io::Error),
    Budget,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// Random access to a file under a budget.
pub(crate) struct Input<'a> {
    source: &'a mut dyn Source,
    len: u64,
    bytes_left: u64,
    calls_left: u32,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Input<'a> {
    pub(crate) fn new(source: &'a mut dyn Source) -> io::Result<Self> {
        let len = source.seek(SeekFrom::End(0))?;
        Ok(Self {
            source,
            len,
            bytes_left: READ_BUDGET,
            calls_left: CALL_BUDGET,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// For writing, which reads as much as it copies.
    pub(crate) fn unbounded(source: &'a mut dyn Source) -> io::Result<Self> {
        let input = Self::new(source)?;
        Ok(Self { bytes_left: u64::MAX, calls_left: u32::MAX, ..input })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Up to `want` bytes from `at`; fewer only at the end of the file or above [`MAX_PIECE`].
    pub(crate) fn read(&mut self, at: u64, want: usize) -> Result<Vec<u8>, Stop> {
        let there = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = want.min(MAX_PIECE).min(there);
        if let Some(bytes) = self.windowed(at, want) {
            return Ok(bytes);
        }
        let fetched = self.fetch(at, want.max(WINDOW).min(there))?;
        let bytes = fetched.get(..want.min(fetched.len())).unwrap_or_default().to_vec();
        if fetched.len() <= WINDOW {
            self.window = fetched;
            self.window_at = at;
        }
        Ok(bytes)
    }

    /// Exactly `N` bytes from `at`; none where the file ends first.
    pub(crate) fn array<const N: usize>(&mut self, at: u64) -> Result<Option<[u8; N]>, Stop> {
        Ok(self.read(at, N)?.try_into().ok())
    }

    /// The stretch from `start` to `end`, of which no more than `cap` bytes are read.
    pub(crate) fn span(&mut self, start: u64, end: u64, cap: usize) -> Result<Vec<u8>, Stop> {
        let want = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        self.read(start, want.min(cap))
    }

    /// The whole stretch from `start` to `end`; none where it is longer than `cap` or runs past the
    /// end of the file.
    pub(crate) fn whole(
        &mut self,
        start: u64,
        end: u64,
        cap: usize,
    ) -> Result<Option<Vec<u8>>, Stop> {
        let Some(want) = end.checked_sub(start).and_then(|n| usize::try_from(n).ok()) else {
            return Ok(None);
        };
        if want > cap || end > self.len {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(want);
        while bytes.len() < want {
            let piece = self.span(start + bytes.len() as u64, end, MAX_PIECE)?;
            if piece.is_empty() {
                return Ok(None);
            }
            bytes.extend(piece);
        }
        Ok(Some(bytes))
    }

    fn windowed(&self, at: u64, want: usize) -> Option<Vec<u8>> {
        let from = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..from.checked_add(want)?).map(<[u8]>::to_vec)
    }

    fn fetch(&mut self, at: u64, want: usize) -> Result<Vec<u8>, Stop> {
        if self.calls_left == 0 || self.bytes_left < want as u64 {
            return Err(Stop::Budget);
        }
        self.calls_left -= 1;
        self.bytes_left -= want as u64;
        self.source.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::with_capacity(want);
        (&mut *self.source).take(want as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The part of `text` that fits into `cap` bytes, cut at a character.
pub(crate) fn cut(text: &str, cap: usize) -> &str {
    let mut end = text.len().min(cap);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
