//! A large file out of a few bytes: a stretch somewhere in it is repeated, as in a sparse file.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that the end of an input gives to say where and how long the stretch is.
const PARAMETERS: usize = 6;

/// `bytes` with a stretch of `len` bytes put in at `at`, which repeats the `unit` bytes before it.
pub struct Holes<'a> {
    bytes: &'a [u8],
    at: u64,
    len: u64,
    /// What is repeated; never empty.
    unit: &'a [u8],
    position: u64,
}

impl<'a> Holes<'a> {
    /// The last six bytes of `data` say where, how long and what; none where there are no more.
    /// Most stretches are below 64 KiB, so that most runs are fast; few are up to 16 GiB.
    pub fn new(data: &'a [u8]) -> Option<Self> {
        let (bytes, parameters) = data.split_at_checked(data.len().checked_sub(PARAMETERS)?)?;
        let &[at_low, at_high, scale, mantissa_low, mantissa_high, unit] = parameters else {
            return None;
        };
        let at = usize::from(u16::from_le_bytes([at_low, at_high])).min(bytes.len());
        let mantissa = u64::from(u16::from_le_bytes([mantissa_low, mantissa_high]));
        let len = match scale {
            0..=223 => mantissa,
            224..=247 => mantissa << (scale % 8),
            248..=255 => mantissa << (scale % 19),
        };
        let from = at.saturating_sub(usize::from(unit));
        let unit = bytes.get(from..at).filter(|unit| !unit.is_empty()).unwrap_or(&[0]);
        Some(Self { bytes, at: at as u64, len, unit, position: 0 })
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64 + self.len
    }
}

impl Read for Holes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() && self.position < self.size() {
            let rest = &mut buffer[done..];
            let source = if self.position < self.at {
                &self.bytes[self.position as usize..self.at as usize]
            } else if self.position < self.at + self.len {
                let inside = self.position - self.at;
                let unit = &self.unit[(inside % self.unit.len() as u64) as usize..];
                &unit[..unit.len().min((self.len - inside).min(1 << 20) as usize)]
            } else {
                &self.bytes[(self.position - self.len) as usize..]
            };
            let count = source.len().min(rest.len());
            rest[..count].copy_from_slice(&source[..count]);
            done += count;
            self.position += count as u64;
        }
        Ok(done)
    }
}

impl Seek for Holes<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
