//! Lines of a text file, plain or gzip, with a limit on their length.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{ReadCode, ReadError};

/// A longer line is no score file's.
const MAX_LINE: u64 = 1 << 16;

pub(in crate::bench) struct Lines {
    path: PathBuf,
    source: Box<dyn BufRead>,
    buffer: Vec<u8>,
    number: u64,
}

/// Opens a file; gzip is known by its first bytes.
pub(in crate::bench) fn open(path: &Path) -> Result<Box<dyn BufRead>, ReadError> {
    let unreadable = |e: std::io::Error| {
        ReadError::new(path, None, ReadCode::Unreadable, format!("cannot be read: {e}"))
    };
    let mut plain = BufReader::with_capacity(1 << 16, File::open(path).map_err(unreadable)?);
    let gzip = plain.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(BufReader::new(MultiGzDecoder::new(plain))) } else { Box::new(plain) })
}

impl Lines {
    pub(in crate::bench) fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self { path: path.to_owned(), source: open(path)?, buffer: Vec::new(), number: 0 })
    }

    /// The next line that is not blank, with its number.
    pub(in crate::bench) fn next(&mut self) -> Result<Option<(u64, &str)>, ReadError> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let error = |code, message| ReadError::new(&self.path, self.number, code, message);
            let read = (&mut self.source)
                .take(MAX_LINE)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|e| error(ReadCode::Unreadable, format!("cannot be read: {e}")))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_LINE && self.buffer.last() != Some(&b'\n') {
                let message = format!("a line of more than {MAX_LINE} bytes");
                return Err(error(ReadCode::TooLarge, message));
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| {
            let message = "no UTF-8 text".to_owned();
            ReadError::new(&self.path, self.number, ReadCode::Unreadable, message)
        })?;
        Ok(Some((self.number, text.trim_end_matches(['\n', '\r']))))
    }
}
