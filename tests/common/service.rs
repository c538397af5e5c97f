//! A running `veriscope serve` and a client that can also send what no client library would.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PROGRAM;

/// Nothing here takes longer, even on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);

/// A server of its own on a free port of loopback; ended when it is dropped.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
    data: PathBuf,
}

/// `veriscope tenants --data DATA ARGS…`; gives what it prints.
pub fn tenants(data: &Path, args: &[&str]) -> String {
    let output =
        Command::new(PROGRAM).args(["tenants", "--data"]).arg(data).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

impl Service {
    /// Starts `veriscope serve` with the label detector alone, whose networks load fast.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--detectors", "label-strip"])
            .args(["--device", "cpu", "--data"])
            .arg(data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("the server said {line:?}"));
        Self { address: address.parse().unwrap(), child, data: data.into() }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends these bytes on a connection of their own and reads the answer.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has seen enough may close before it has everything.
        let _ = stream.write_all(bytes);
        Answer::read(stream)
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.raw(&request(method, path, headers, body))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    pub fn json(&self, path: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.call("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Submits a file.
    pub fn upload(&self, headers: &[(&str, &str)], fields: &[(&str, &str)], file: &[u8]) -> Answer {
        let form = form(fields, "a.bin", file);
        let mut all = vec![("Content-Type", FORM)];
        all.extend(headers);
        self.call("POST", "/v1/jobs", &all, &form)
    }

    /// Waits until a job has ended.
    pub fn ended(&self, headers: &[(&str, &str)], id: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let job = self.call("GET", &format!("/v1/jobs/{id}"), headers, b"").ok();
            match job["state"].as_str().unwrap() {
                "done" | "failed" | "cancelled" => return job,
                state => assert!(Instant::now() < until, "still {state}: {job}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What lies in the folder of uploads.
    pub fn uploads(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data.join("uploads")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits until no upload lies there.
    pub fn expect_no_uploads(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.uploads().is_empty() {
            assert!(Instant::now() < until, "left behind: {:?}", self.uploads());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: takes numbers only; the child is ours and was not waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until the server has ended and gives its exit code.
    pub fn wait(mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const FORM: &str = "multipart/form-data; boundary=----bound";

/// A form of these fields and a file.
pub fn form(fields: &[(&str, &str)], name: &str, file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in fields {
        body.extend(
            format!(
                "------bound\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
            )
            .bytes(),
        );
    }
    body.extend(
        format!(
            "------bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .bytes(),
    );
    body.extend(file);
    body.extend(b"\r\n------bound--\r\n");
    body
}

/// A request that asks for its connection to be closed.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// 0: nothing came.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes.
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        if let Err(e) = stream.read_to_end(&mut bytes) {
            let hung =
                matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!hung, "the server hangs: {:?}", String::from_utf8_lossy(&bytes));
        }
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
            return Self { status: 0, headers: Vec::new(), body: Vec::new() };
        };
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        if status == 100 {
            return Self::parse(&bytes[end + 4..]);
        }
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked") {
            body = dechunk(&body);
        }
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {:?}", self.status, self.text()))
    }

    /// The JSON of an answer that must be good.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self.value()
    }

    /// Checks that it is the problem with this status and code, and a whole one.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{} {}", code, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{code}");
        let problem = self.value();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:veriscope:problem:{code}"), "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        if matches!(status, 429 | 503) {
            let seconds = self.header("retry-after").expect("retry-after").parse::<u64>();
            assert!((1..=60).contains(&seconds.unwrap()), "{problem}");
        }
        problem
    }
}

/// A chunked body's bytes, as far as they came.
fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let from = end + 2;
        let to = (from + size).min(bytes.len());
        body.extend(&bytes[from..to]);
        bytes = bytes.get(to + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    body
}
