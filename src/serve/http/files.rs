//! Files that are sent: whole or a range of their bytes.

use std::io::SeekFrom;
use std::path::Path;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, RANGE,
};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::problem::{Code, Problem};

/// Media are what strangers sent: a browser plays them and takes them for nothing else.
const SANDBOX: &str = "default-src 'none'; media-src 'self'; img-src 'self'; sandbox";
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Sends a file, or the range that the request asks for; none where it is not there.
pub async fn send(path: &Path, headers: &HeaderMap) -> Result<Option<Response>, Problem> {
    match File::open(path).await {
        Ok(file) => send_open(file, headers).await.map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn failed(e: std::io::Error) -> Problem {
    Problem::internal("reading the file", &e)
}

/// Sends an open file, or the range that the request asks for.
pub async fn send_open(mut file: File, headers: &HeaderMap) -> Result<Response, Problem> {
    file.rewind().await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    let mut magic = [0; 16];
    let n = file.read(&mut magic).await.map_err(failed)?;
    let kind = content_type(&magic[..n]);
    let asked = headers.get(RANGE).and_then(|v| v.to_str().ok()).map(|v| range(v, size));
    let (status, first, length) = match asked.unwrap_or(Asked::All) {
        Asked::All => (StatusCode::OK, 0, size),
        Asked::Bytes(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Asked::Outside => {
            let detail = format!("the file has {size} bytes");
            let mut response = Problem::new(Code::RangeNotSatisfiable, detail).into_response();
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    file.seek(SeekFrom::Start(first)).await.map_err(failed)?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), PIECE));
    let mut response = (status, body).into_response();
    set(&mut response, CONTENT_TYPE, kind);
    set(&mut response, CONTENT_LENGTH, &length.to_string());
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CONTENT_SECURITY_POLICY, SANDBOX);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        set(&mut response, CONTENT_RANGE, &range);
    }
    Ok(response)
}

pub fn set(response: &mut Response, name: HeaderName, value: &str) {
    // Only ASCII that was made here.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// The first and the last byte.
    Bytes(u64, u64),
    Outside,
}

/// What a `Range` header asks of a file (RFC 9110, 14.2). One that is not understood, or asks for
/// several ranges, is answered with the whole.
fn range(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Asked::All;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Asked::All,
        (Ok(first), _) if first >= size => Asked::Outside,
        (Ok(first), Ok(last)) => Asked::Bytes(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Asked::Bytes(first, size - 1),
        (Err(_), Ok(tail)) if first.is_empty() => {
            if tail == 0 || size == 0 {
                Asked::Outside
            } else {
                Asked::Bytes(size.saturating_sub(tail), size - 1)
            }
        }
        _ => Asked::All,
    }
}

/// What a file is said to be: only what browsers play or show, by its first bytes.
fn content_type(head: &[u8]) -> &'static str {
    match head {
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "audio/wav",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => "image/avif",
        [_, _, _, _, b'f', b't', b'y', b'p', b'M', b'4', b'A', ..] => "audio/mp4",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "video/mp4",
        [0x1a, 0x45, 0xdf, 0xa3, ..] => "video/webm",
        [b'O', b'g', b'g', b'S', ..] => "audio/ogg",
        [b'f', b'L', b'a', b'C', ..] => "audio/flac",
        [b'I', b'D', b'3', ..] => "audio/mpeg",
        [0xff, b, ..] if b & 0xf6 == 0xf0 => "audio/aac",
        [0xff, b, ..] if b & 0xe0 == 0xe0 => "audio/mpeg",
        [b'{', ..] => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, asked) in [
            ("bytes=0-0", Asked::Bytes(0, 0)),
            ("bytes=5-", Asked::Bytes(5, 9)),
            ("bytes=5-99", Asked::Bytes(5, 9)),
            ("bytes=-3", Asked::Bytes(7, 9)),
            ("bytes=-30", Asked::Bytes(0, 9)),
            ("bytes=10-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-3", Asked::All),
            ("bytes=1-2,4-5", Asked::All),
            ("bytes=99999999999999999999-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=-", Asked::All),
            ("lines=1-2", Asked::All),
        ] {
            assert_eq!(range(text, 10), asked, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Asked::Outside);
        assert_eq!(range("bytes=-1", 0), Asked::Outside);
    }
}
