//! SHA-256 of bytes and files, and bytes as hexadecimal text.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

/// Read at a time.
const PIECE: usize = 1 << 18;

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file of any size.
///
/// # Errors
/// The file cannot be opened or read.
pub fn sha256_of_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    pieces(path, |piece| {
        digest.update(piece);
        true
    })?;
    Ok(digest.finalize().into())
}

/// SHA-256 of a file in hexadecimal, and its bytes. `None`: `stop` was set before it was read.
///
/// # Errors
/// The file cannot be opened or read.
pub fn sha256_of_file_unless(stop: &AtomicBool, path: &Path) -> io::Result<Option<(String, u64)>> {
    let mut digest = Sha256::new();
    let mut bytes = 0;
    let whole = pieces(path, |piece| {
        digest.update(piece);
        bytes += piece.len() as u64;
        !stop.load(Ordering::Relaxed)
    })?;
    Ok(whole.then(|| (hex(&digest.finalize()), bytes)))
}

/// Gives a file's content to `each`, which says whether it wants more; whether it had all.
fn pieces(path: &Path, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            n if !each(&buffer[..n]) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_pieces_have_the_sum_of_their_bytes() {
        // FIPS 180-4's example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256("abc"), abc);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..2 * PIECE + 7).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(hex(&sha256_of_file(&path).unwrap()), sha256(&bytes));
        let whole = sha256_of_file_unless(&AtomicBool::new(false), &path).unwrap();
        assert_eq!(whole, Some((sha256(&bytes), bytes.len() as u64)));
        let stopped = sha256_of_file_unless(&AtomicBool::new(true), &path).unwrap();
        assert_eq!(stopped, None);
        assert!(sha256_of_file(&dir.path().join("none")).is_err());
    }
}
