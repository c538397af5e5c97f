//! Multipart form data (RFC 7578) as a stream, in bounded memory: a part's bytes are handed out as
//! they come, and nothing is read before it is asked for.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;

use super::problem::{Code, Problem};

/// Most bytes before the first delimiter, and of a part's headers.
const MOST_HEADER_BYTES: usize = 8 << 10;
/// Most header lines of a part.
const MOST_HEADERS: usize = 16;
/// RFC 2046: a boundary has 1 to 70 characters.
const MOST_BOUNDARY: usize = 70;

/// Where a body's bytes come from.
pub trait Chunks {
    /// The next bytes; none at the end of the body.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Problem>> + Send;
}

/// What a part says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub file_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Inside a part's bytes.
    Data,
    /// Behind a delimiter.
    Between,
    End,
}

pub struct Multipart<C> {
    source: C,
    buffer: BytesMut,
    /// `\r\n--boundary`.
    delimiter: Vec<u8>,
    state: State,
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::MalformedMultipart, detail)
}

/// The boundary that a content type `multipart/form-data` names.
pub fn boundary(content_type: &str) -> Result<String, Problem> {
    let boundary = parameters(content_type)
        .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value)
        .ok_or_else(|| malformed("the content type multipart/form-data names no boundary"))?;
    if boundary.is_empty() || boundary.len() > MOST_BOUNDARY || !boundary.is_ascii() {
        return Err(malformed("the boundary must have 1 to 70 ASCII characters"));
    }
    Ok(boundary)
}

impl<C: Chunks> Multipart<C> {
    pub fn new(boundary: &str, source: C) -> Self {
        Self {
            source,
            // So that a delimiter that begins the body looks like any other.
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            state: State::Preamble,
        }
    }

    /// Skips what is left of the current part and gives the next; none behind the last.
    pub async fn next(&mut self) -> Result<Option<Part>, Problem> {
        let mut before = 0;
        while matches!(self.state, State::Preamble | State::Data) {
            let preamble = self.state == State::Preamble;
            if let Some(skipped) = self.until_delimiter().await?
                && preamble
            {
                before += skipped.len();
                if before > MOST_HEADER_BYTES {
                    return Err(malformed("the body does not begin with its boundary"));
                }
            }
        }
        if self.state == State::End {
            return Ok(None);
        }
        loop {
            match self.buffer.first() {
                Some(b' ' | b'\t') => self.buffer.advance(1),
                _ if self.buffer.len() >= 2 => break,
                _ => self.fill("behind a boundary").await?,
            }
        }
        if self.buffer.starts_with(b"--") {
            self.state = State::End;
            return Ok(None);
        }
        if !self.buffer.starts_with(b"\r\n") {
            return Err(malformed("a boundary is followed by something else than a line's end"));
        }
        // The line's end stays: with no headers it is the first half of what ends them.
        let end = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MOST_HEADER_BYTES {
                return Err(malformed("the headers of a part are too long"));
            }
            self.fill("in the headers of a part").await?;
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        self.state = State::Data;
        part(&head).map(Some)
    }

    /// The next bytes of the current part; none at its end.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Problem> {
        match self.state {
            State::Data => self.until_delimiter().await,
            _ => Ok(None),
        }
    }

    /// The whole current part as text of at most `most` bytes.
    pub async fn text(&mut self, name: &str, most: usize) -> Result<String, Problem> {
        let mut all = Vec::new();
        while let Some(bytes) = self.data().await? {
            if all.len() + bytes.len() > most {
                let detail = format!("field {name} is longer than {most} bytes");
                return Err(Problem::new(Code::BadParameter, detail));
            }
            all.extend_from_slice(&bytes);
        }
        String::from_utf8(all).map_err(|_| {
            Problem::new(Code::BadParameter, format!("field {name} is not valid UTF-8"))
        })
    }

    async fn until_delimiter(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match memmem::find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    self.buffer.advance(self.delimiter.len());
                    self.state = State::Between;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                None => {}
            }
            // The last bytes may be the beginning of a delimiter.
            let sure = (self.buffer.len() + 1).saturating_sub(self.delimiter.len());
            if sure > 0 {
                return Ok(Some(self.buffer.split_to(sure).freeze()));
            }
            self.fill("before the last boundary").await?;
        }
    }

    async fn fill(&mut self, place: &str) -> Result<(), Problem> {
        match self.source.chunk().await? {
            Some(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(())
            }
            None => Err(malformed(format!("the body ends {place}"))),
        }
    }
}

/// What a part's header lines say.
fn part(head: &[u8]) -> Result<Part, Problem> {
    let head = std::str::from_utf8(head)
        .map_err(|_| malformed("the headers of a part are not valid UTF-8"))?;
    for (n, line) in head.split("\r\n").filter(|line| !line.is_empty()).enumerate() {
        if n == MOST_HEADERS {
            return Err(malformed(format!("a part has more than {MOST_HEADERS} headers")));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(malformed("a header of a part has no colon"));
        };
        if !name.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if !value.split(';').next().is_some_and(|v| v.trim().eq_ignore_ascii_case("form-data")) {
            return Err(malformed("a part is not form-data"));
        }
        let find = |key: &str| {
            parameters(value).find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v)
        };
        let name = find("name").ok_or_else(|| malformed("a part has no name"))?;
        let encoded = find("filename*").and_then(|v| {
            let text = v.strip_prefix("UTF-8''").or_else(|| v.strip_prefix("utf-8''"))?;
            let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
            Some(text.into_owned())
        });
        return Ok(Part { name, file_name: encoded.or_else(|| find("filename")) });
    }
    Err(malformed("a part has no Content-Disposition"))
}

/// The parameters behind a header's value: `; name=value` or `; name="value"`.
fn parameters(value: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = value.find(';').map_or("", |at| &value[at..]);
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches([';', ' ', '\t']);
            let (name, after) = rest.split_once('=')?;
            let (value, left) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => {
                    let end = after.find(';').unwrap_or(after.len());
                    (after[..end].trim().to_string(), &after[end..])
                }
            };
            rest = left;
            // A parameter without a value before this one.
            let name = name.rsplit(';').next().unwrap_or(name).trim();
            if !name.is_empty() {
                return Some((name, value));
            }
        }
    })
}

/// What stands before the closing quote, and what behind it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            // Only before what needs it: Windows paths come with single backslashes.
            '\\' if text[at + 1..].starts_with(['"', '\\']) => {
                value.extend(chars.next().map(|(_, c)| c));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(std::collections::VecDeque<Bytes>);

    impl Chunks for Pieces {
        async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
            Ok(self.0.pop_front())
        }
    }

    fn pieces(body: &[u8], size: usize) -> Multipart<Pieces> {
        let pieces = body.chunks(size).map(Bytes::copy_from_slice).collect();
        Multipart::new("XyZ", Pieces(pieces))
    }

    async fn read(body: &[u8], size: usize) -> Result<Vec<(Part, Vec<u8>)>, Problem> {
        let mut form = pieces(body, size);
        let mut parts = Vec::new();
        while let Some(part) = form.next().await? {
            let mut data = Vec::new();
            while let Some(bytes) = form.data().await? {
                assert!(!bytes.is_empty());
                data.extend_from_slice(&bytes);
            }
            parts.push((part, data));
        }
        Ok(parts)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    const FORM: &[u8] =
        b"--XyZ\r\nContent-Disposition: form-data; name=\"priority\"\r\n\r\nlive\r\n\
        --XyZ  \r\ncontent-type: video/mp4\r\nCONTENT-DISPOSITION: form-data; name=file; \
        filename=\"a\\\"b;c.mp4\"\r\n\r\n\r\n--Xy\r\n--XyY\r\r\n\r\n--XyZ--\r\nepilogue";

    #[test]
    fn parts_come_whole_however_the_body_is_cut() {
        for size in 1..FORM.len() + 1 {
            let parts = run(read(FORM, size)).unwrap();
            assert_eq!(parts.len(), 2, "{size}");
            assert_eq!(parts[0].0, Part { name: "priority".into(), file_name: None });
            assert_eq!(parts[0].1, b"live");
            assert_eq!(parts[1].0.file_name.as_deref(), Some("a\"b;c.mp4"));
            assert_eq!(parts[1].1, b"\r\n--Xy\r\n--XyY\r\r\n", "{size}");
        }
    }

    #[test]
    fn a_body_that_is_cut_off_anywhere_is_an_error() {
        let whole = FORM.len() - "\r\nepilogue".len();
        for end in 0..whole {
            let error = run(read(&FORM[..end], 7)).unwrap_err();
            assert_eq!(error.code(), Code::MalformedMultipart, "{end}");
        }
        assert!(run(read(&FORM[..whole], 7)).is_ok());
    }

    #[test]
    fn what_is_no_form_is_an_error() {
        let long = [&b"--XyZ\r\nA: "[..], &[b'a'; 9000]].concat();
        let many = [&b"--XyZ\r\n"[..], &b"a: b\r\n".repeat(17), b"\r\n--XyZ--"].concat();
        let before = [&[b'x'; 9000][..], FORM].concat();
        for body in [
            &b"nothing like it"[..],
            b"--XyZ",
            b"--XyZA\r\n\r\n",
            b"--XyZ\r\n\r\nno headers\r\n--XyZ--",
            b"--XyZ\r\nContent-Disposition: attachment; name=a\r\n\r\n\r\n--XyZ--",
            b"--XyZ\r\nContent-Disposition: form-data\r\n\r\n\r\n--XyZ--",
            b"--XyZ\r\nno colon\r\n\r\n\r\n--XyZ--",
            b"--XyZ\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n\r\n--XyZ--",
            &long,
            &many,
            &before,
        ] {
            let error = run(read(body, 1000)).unwrap_err();
            assert_eq!(error.code(), Code::MalformedMultipart, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn text_is_bounded_and_utf8() {
        let body = b"--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\xfe\r\n--XyZ--";
        for (most, said) in [(10, "UTF-8"), (1, "longer")] {
            let mut form = pieces(body, 999);
            run(form.next()).unwrap();
            let error = run(form.text("a", most)).unwrap_err();
            assert!(error.json().contains(said), "{}", error.json());
        }
    }

    #[test]
    fn boundaries_are_found() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").unwrap(), "abc");
        let quoted = "multipart/form-data; charset=utf-8; BOUNDARY=\"a b;c\"";
        assert_eq!(boundary(quoted).unwrap(), "a b;c");
        for bad in ["multipart/form-data", "multipart/form-data; boundary="] {
            assert!(boundary(bad).is_err(), "{bad}");
        }
        assert!(boundary(&format!("multipart/form-data; boundary={}", "a".repeat(71))).is_err());
    }

    #[test]
    fn names_in_utf8_go_before_their_ascii_stand_in() {
        let head = b"Content-Disposition: form-data; name=\"file\"; filename=\"x.mp4\"; \
            filename*=UTF-8''%E8%A7%86.mp4";
        assert_eq!(part(head).unwrap().file_name.as_deref(), Some("\u{89c6}.mp4"));
    }
}
