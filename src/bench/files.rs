//! Small files read whole, and text from files in messages.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// A file of at most `most` bytes; what is wrong with it, without its name.
pub(in crate::bench) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("more than {most} bytes"));
    }
    Ok(bytes)
}

/// Text from a file for a message: at most `most` characters, none of which controls a terminal.
pub(in crate::bench) fn shown(text: &str, most: usize) -> String {
    let mut left = text.chars();
    let mut shown: String =
        left.by_ref().take(most).map(|c| if c.is_control() { '?' } else { c }).collect();
    if left.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_it_is_longer() {
        assert_eq!(shown("ab", 2), "ab");
        assert_eq!(shown("abc", 2), "ab…");
        // Of two bytes, replaced by one: nothing was cut.
        assert_eq!(shown("a\u{85}\n", 3), "a??");
        assert_eq!(shown("äöü", 3), "äöü");
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_small(&path, 5).unwrap(), b"12345");
        assert_eq!(read_small(&path, 4).unwrap_err(), "more than 4 bytes");
        assert!(read_small(dir.path(), 4).unwrap_err().starts_with("cannot be read: "));
    }
}
