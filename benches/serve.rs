//! Load on `veriscope serve`: many clients post small jobs at the same time, honouring `Retry-After`.
//!
//! Prints how long submissions take, what is answered, whether the engine idled while jobs waited, and
//! the throughput beside that of `veriscope scan` over the same files. `scripts/bench-serve` runs it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_veriscope");

#[derive(Debug, Parser)]
struct Args {
    /// Clients at the same time
    #[arg(long, default_value_t = 500)]
    clients: usize,
    /// Files to make: grey noise of 256 x 256 pixels as PNG
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// Take these files instead
    #[arg(long)]
    from: Option<PathBuf>,
    /// Detectors of the server and of the scan
    #[arg(long, default_value = "face-swap,voice-clone,label-strip")]
    detectors: String,
    /// Jobs that may wait in the server
    #[arg(long, default_value_t = 10_000)]
    max_queued: usize,
    /// More arguments of the server, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    serve: String,
    /// Skip the scan
    #[arg(long)]
    no_scan: bool,
    /// What cargo passes to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one submission came to.
struct Sample {
    status: u16,
    took: Duration,
}

fn main() {
    let args = Args::parse();
    let dir = tempfile::tempdir().unwrap();
    let files = match &args.from {
        Some(folder) => std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect(),
        None => make_files(&dir.path().join("files"), args.files),
    };
    let folder = files[0].parent().unwrap().to_path_buf();
    println!("{} files, {} clients, detectors {}", files.len(), args.clients, args.detectors);

    let scanned = (!args.no_scan).then(|| scan(&folder, &args.detectors));
    if let Some(took) = scanned {
        report("scan", files.len(), took);
    }

    let mut server = Server::start(&dir.path().join("data"), &args);
    let files: Vec<Arc<Vec<u8>>> = files.iter().map(|f| Arc::new(request(f))).collect();
    let n = files.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (samples, took, watched) = runtime.block_on(load(server.address, files, args.clients));
    server.stop();

    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for sample in &samples {
        *statuses.entry(sample.status).or_default() += 1;
    }
    for (status, count) in &statuses {
        let name = if *status == 0 { "no answer".into() } else { status.to_string() };
        println!("{name}: {count}");
    }
    for (what, wanted) in [("accepted", true), ("refused (429, 503)", false)] {
        let refused = |s: &&Sample| matches!(s.status, 429 | 503);
        let accepted = |s: &&Sample| matches!(s.status, 200 | 202);
        let of = samples.iter().filter(|s| if wanted { accepted(s) } else { refused(s) });
        let mut times: Vec<Duration> = of.map(|s| s.took).collect();
        times.sort();
        if times.is_empty() {
            continue;
        }
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let ms = |share| at(share).as_secs_f64() * 1e3;
        println!(
            "{what}: p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            ms(0.5),
            ms(0.95),
            ms(0.99),
            ms(1.0)
        );
    }
    report("serve", n, took);
    if let Some(scanned) = scanned {
        println!("serve/scan: {:.1} %", 100.0 * scanned.as_secs_f64() / took.as_secs_f64());
    }
    println!("engine idle while jobs waited: {} of {} looks", watched.idle, watched.looks);
    let bad: usize = statuses
        .iter()
        .filter(|(status, _)| !matches!(status, 200 | 202 | 429 | 503))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(bad, 0, "answers that are neither accepted nor 429 or 503");
    assert_eq!(watched.ended, n, "jobs that did not end");
}

fn report(what: &str, files: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    println!("{what}: {seconds:.1} s, {:.1} files/s", files as f64 / seconds);
}

/// Pictures of noise, each of another content.
fn make_files(folder: &Path, n: usize) -> Vec<PathBuf> {
    const SIDE: u32 = 256;
    std::fs::create_dir_all(folder).unwrap();
    let mut state = 7u64;
    (0..n)
        .map(|i| {
            // A little noise over a slope, so that files are small and pictures no flat colour.
            let mut rows = Vec::new();
            for y in 0..SIDE {
                rows.push(0);
                for x in 0..SIDE {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    rows.push(((x + y) / 4) as u8 + (state >> 62) as u8);
                }
            }
            let mut packed =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(&rows).unwrap();
            let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
            let mut head = Vec::new();
            head.extend(SIDE.to_be_bytes());
            head.extend(SIDE.to_be_bytes());
            // 8 bits of grey.
            head.extend([8, 0, 0, 0, 0]);
            for (kind, data) in
                [(b"IHDR", head), (b"IDAT", packed.finish().unwrap()), (b"IEND", Vec::new())]
            {
                png.extend((data.len() as u32).to_be_bytes());
                let mut crc = flate2::Crc::new();
                crc.update(kind);
                crc.update(&data);
                png.extend(kind);
                png.extend(data);
                png.extend(crc.sum().to_be_bytes());
            }
            let path = folder.join(format!("{i:06}.png"));
            std::fs::write(&path, png).unwrap();
            path
        })
        .collect()
}

fn scan(folder: &Path, detectors: &str) -> Duration {
    let since = Instant::now();
    let status = Command::new(PROGRAM)
        .args(["scan", "--format", "jsonl", "--device", "cpu", "--detectors", detectors])
        .arg(folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "scan: {status}");
    since.elapsed()
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(data: &Path, args: &Args) -> Self {
        let waiting = args.max_queued.to_string();
        let set = ["--rate-per-minute", "100000000", "--max-queued", &waiting];
        let status = Command::new(PROGRAM)
            .args(["tenants", "--data"])
            .arg(data)
            .args(["set", "default"])
            .args(set)
            .status()
            .unwrap();
        assert!(status.success());
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--no-auth", "--device", "cpu"])
            .args(["--detectors", &args.detectors, "--max-queued", &waiting, "--data"])
            .arg(data)
            .args(args.serve.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("where it listens");
        Self { address: address.parse().unwrap(), child }
    }

    fn stop(&mut self) {
        // SAFETY: takes numbers only; the child is ours and was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait().unwrap();
        assert!(status.success(), "serve: {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// The request that submits a file, ready to be sent.
fn request(file: &Path) -> Vec<u8> {
    let name = file.file_name().unwrap().to_string_lossy();
    let mut body = format!(
        "--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .into_bytes();
    body.extend(std::fs::read(file).unwrap());
    body.extend(b"\r\n--bound--\r\n");
    let mut all = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; \
         boundary=bound\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    all.extend(body);
    all
}

/// What was seen of the server's own figures.
#[derive(Debug, Default)]
struct Watched {
    looks: usize,
    /// Looks at which jobs waited and none ran.
    idle: usize,
    ended: usize,
}

/// Submits everything and waits until all of it has ended; the time is from the first submission on.
async fn load(
    address: SocketAddr,
    files: Vec<Arc<Vec<u8>>>,
    clients: usize,
) -> (Vec<Sample>, Duration, Watched) {
    let n = files.len();
    let files = Arc::new(files);
    let next = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    let tasks: Vec<_> =
        (0..clients).map(|_| tokio::spawn(client(address, files.clone(), next.clone()))).collect();
    let watch = tokio::spawn(async move {
        let mut watched = Watched::default();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (_, text) = get(address, "/metrics").await;
            let value = |name: &str| -> usize {
                let lines = text.lines().filter(|l| l.starts_with(name));
                lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
                    as usize
            };
            watched.looks += 1;
            let waiting = value("veriscope_jobs_waiting{");
            watched.idle += usize::from(waiting > 0 && value("veriscope_jobs_running ") == 0);
            watched.ended = value("veriscope_jobs_ended_total");
            if watched.ended >= n {
                return watched;
            }
        }
    });
    let mut samples = Vec::new();
    for task in tasks {
        samples.extend(task.await.unwrap());
    }
    let watched = watch.await.unwrap();
    (samples, since.elapsed(), watched)
}

/// Submits file after file on one connection; comes again when it is told to.
async fn client(
    address: SocketAddr,
    files: Arc<Vec<Arc<Vec<u8>>>>,
    next: Arc<AtomicUsize>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut stream = None;
    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
        loop {
            let since = Instant::now();
            let answer = send(&mut stream, address, file).await.unwrap_or(Answer {
                status: 0,
                retry_after: Some(1),
                close: true,
                body: Vec::new(),
            });
            samples.push(Sample { status: answer.status, took: since.elapsed() });
            if answer.close {
                stream = None;
            }
            match answer.status {
                200 | 202 => break,
                429 | 503 | 0 => {
                    tokio::time::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await;
                }
                _ => break,
            }
        }
    }
    samples
}

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    close: bool,
    body: Vec<u8>,
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match send(&mut None, address, request.as_bytes()).await {
        Ok(answer) => (answer.status, String::from_utf8_lossy(&answer.body).into_owned()),
        Err(e) => (0, e.to_string()),
    }
}

async fn send(
    kept: &mut Option<TcpStream>,
    address: SocketAddr,
    request: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    // A server that refuses may close before it has everything; its answer is there all the same.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::with_capacity(2048);
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let end = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(cut());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(cut)?;
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|h| h.1)
    };
    let length: usize = header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let retry_after = header("retry-after").and_then(|v| v.parse().ok());
    let close = header("connection") == Some("close");
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(cut());
        }
    }
    if !close {
        *kept = Some(stream);
    }
    Ok(Answer { status, retry_after, close, body: bytes[end..].to_vec() })
}
