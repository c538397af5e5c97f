//! `veriscope serve` killed again and again while clients submit: nothing that was accepted is lost
//! or judged twice, and nothing that a webhook is to be told stays untold.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::service::{FORM, form, request, tenants};
use sha2::{Digest as _, Sha256};
use veriscope::report::Status;
use veriscope::serve::model::{JobId, JobState};
use veriscope::serve::store::{DeliveryState, Store};

const KILLS: usize = 20;
const CLIENTS: usize = 4;
/// For all that is left once the last server runs, on a machine that does much else.
const DRAIN: Duration = Duration::from_secs(300);

/// A small picture that no other number has; every third file is so large that it is no row of the
/// database.
fn picture(n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pixels = Vec::new();
    for i in 0..64 * 48u32 {
        let value = (i.wrapping_mul(2_654_435_761) ^ n.wrapping_mul(40_503)) >> 8;
        pixels.extend([value as u8, (n * 7) as u8, (i / 64 * 5) as u8]);
    }
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
    encoder.encode(&pixels, 64, 48, jpeg_encoder::ColorType::Rgb).unwrap();
    if n.is_multiple_of(3) {
        bytes.resize(70 << 10, 0);
    }
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A server that can be killed, and where it listens.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(data: &Path, receiver: SocketAddr) -> Self {
        let mut child = Command::new(common::PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--detectors", "label-strip"])
            .args(["--device", "cpu", "--max-queued", "40", "--grace", "60"])
            .args(["--fetch-allow", &receiver.to_string(), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("the server said {line:?}"));
        Self { address: address.parse().unwrap(), child }
    }

    fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The status and the body of an answer; none where the server died before all of it was there.
fn call(address: SocketAddr, bytes: &[u8]) -> Option<(u16, serde_json::Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// Takes webhook calls: the bodies by delivery, and how many calls there were. Every seventh call is
/// refused and has to come again.
#[derive(Default)]
struct Received {
    bodies: Mutex<BTreeMap<String, serde_json::Value>>,
    calls: AtomicUsize,
}

fn receive(listener: TcpListener, received: &Arc<Received>) {
    for stream in listener.incoming() {
        let (Ok(stream), received) = (stream, received.clone()) else { continue };
        std::thread::spawn(move || {
            let _ = answer(stream, &received);
        });
    }
}

fn answer(stream: TcpStream, received: &Received) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    // Connections are used again.
    loop {
        let (mut length, mut id) = (0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().unwrap(),
                    "veriscope-delivery" => id = value.to_owned(),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let refused = received.calls.fetch_add(1, Ordering::SeqCst) % 7 == 6;
        if !refused {
            let body = serde_json::from_slice(&body).unwrap();
            received.bodies.lock().unwrap().insert(id, body);
        }
        let status = if refused { "500 Internal Server Error" } else { "204 No Content" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}

/// What a client was promised: the job of each thing it submitted, and that content.
#[derive(Default)]
struct Promised {
    jobs: BTreeMap<JobId, String>,
    /// Jobs whose deletion was answered.
    deleted: BTreeSet<JobId>,
}

/// Submits pictures until it is told to stop, each under its own idempotency key until it is accepted,
/// whatever happens to the server. Every fifth picture is one that was there before, every ninth job is
/// deleted.
fn submit(
    client: usize,
    key: &str,
    address: &Mutex<Option<SocketAddr>>,
    stop: &AtomicBool,
) -> Promised {
    let mut promised = Promised::default();
    let authorization = format!("Bearer {key}");
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let content = if n % 5 == 4 { n - 3 } else { n };
        let bytes = picture((client * 100_000 + content) as u32);
        let mark = format!("client-{client}-{n}");
        let fields = [("priority", ["normal", "batch", "live"][n % 3])];
        let headers = [
            ("Content-Type", FORM),
            ("Authorization", authorization.as_str()),
            ("Idempotency-Key", mark.as_str()),
        ];
        let post = request("POST", "/v1/jobs", &headers, &form(&fields, "p.jpg", &bytes));
        // To the end, also after it was told to stop: half-sent requests are what is tested.
        let id: JobId = loop {
            let now = *address.lock().unwrap();
            match now.and_then(|address| call(address, &post)) {
                Some((200 | 202, job)) => {
                    break serde_json::from_value(job["id"].clone()).unwrap();
                }
                Some((status, body)) => assert!(matches!(status, 429 | 503), "{status} {body}"),
                None => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let before = promised.jobs.insert(id, sha256(&bytes));
        assert_eq!(before, None, "two requests got one job");
        if n % 9 == 8 {
            let path = format!("/v1/jobs/{id}");
            let headers = [("Authorization", authorization.as_str())];
            let delete = request("DELETE", &path, &headers, b"");
            let now = *address.lock().unwrap();
            // Where no answer comes it may have happened or not.
            let sent = now.and_then(|address| TcpStream::connect(address).ok());
            if let Some(mut stream) = sent {
                let mut answer = String::new();
                let _ = stream.write_all(&delete);
                let _ = stream.read_to_string(&mut answer);
                if answer.starts_with("HTTP/1.1 204") {
                    promised.deleted.insert(id);
                } else {
                    promised.jobs.remove(&id);
                }
            } else {
                promised.jobs.remove(&id);
            }
        }
    }
    promised
}

#[test]
fn a_killed_server_loses_nothing_judges_once_and_tells_at_least_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = listener.local_addr().unwrap();
    let received = Arc::new(Received::default());
    std::thread::spawn({
        let received = received.clone();
        move || receive(listener, &received)
    });
    let hook = format!("http://{receiver}/hook");
    tenants(&data, &["set", "a", "--webhook-url", &hook, "--rate-per-minute", "1000000"]);
    let key = tenants(&data, &["add-key", "a", "test"]);

    // Changes from run to run; the figures that it leads to are printed where the test fails.
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut random = seed.as_nanos() as u64 | 1;
    println!("seed {random}");
    let mut up_to = |most_ms: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        Duration::from_millis(random % most_ms)
    };
    let address = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let mut promised = Promised::default();
    let last = std::thread::scope(|scope| {
        let (address, stop, key) = (&address, &stop, key.as_str());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || submit(client, key, address, stop)))
            .collect();
        for round in 0..KILLS {
            let server = Server::start(&data, receiver);
            *address.lock().unwrap() = Some(server.address);
            // Some die while they take up what the one before left.
            let after = up_to(if round % 4 == 3 { 100 } else { 2_000 });
            std::thread::sleep(after);
            println!("killed after {after:?}");
            *address.lock().unwrap() = None;
            server.kill();
        }
        let server = Server::start(&data, receiver);
        *address.lock().unwrap() = Some(server.address);
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            let Promised { jobs, deleted } = client.join().unwrap();
            promised.jobs.extend(jobs);
            promised.deleted.extend(deleted);
        }
        server
    });
    assert!(promised.jobs.len() > 40, "only {} jobs were accepted", promised.jobs.len());

    // Everything ends, and everything is told.
    let store = Store::open_admin(&data).unwrap();
    let until = Instant::now() + DRAIN;
    for id in promised.jobs.keys().filter(|id| !promised.deleted.contains(id)) {
        loop {
            let job = store.job("a", *id).unwrap().unwrap_or_else(|| panic!("{id} is lost"));
            if job.state.is_final() {
                break;
            }
            assert!(Instant::now() < until, "{id} is still {:?}", job.state);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let pending = || store.deliveries("a", Some(DeliveryState::Pending), None, 1_000).unwrap().0;
    while !pending().is_empty() {
        assert!(Instant::now() < until, "not delivered: {:?}", pending());
        std::thread::sleep(Duration::from_millis(50));
    }
    // SAFETY: takes numbers only; the child is ours and was not waited for.
    assert_eq!(unsafe { libc::kill(last.child.id() as i32, libc::SIGTERM) }, 0);
    let mut child = last.child;
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let audit = |id: JobId| -> Vec<String> {
        let entries = store.audit(Some("a"), Some(id), None, 100).unwrap();
        entries.into_iter().map(|entry| entry.what).collect()
    };
    let bodies = received.bodies.lock().unwrap();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for body in bodies.values() {
        *told.entry(body["job"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let (mut crashed, mut reused) = (0, 0);
    for (id, content) in &promised.jobs {
        let whats = audit(*id);
        let count = |what: &[&str]| whats.iter().filter(|w| what.contains(&w.as_str())).count();
        assert_eq!(count(&["job.accepted"]), 1, "{id}: {whats:?}");
        assert_eq!(count(&["job.done", "job.failed", "job.cancelled"]), 1, "{id}: {whats:?}");
        // Told once as an event, however often it was called.
        let ended = count(&["job.done", "job.failed"]);
        assert_eq!(told.get(&id.to_string()).copied().unwrap_or(0), ended, "{id}: {whats:?}");
        if promised.deleted.contains(id) {
            assert_eq!(store.job("a", *id).unwrap(), None, "{id} is back");
            continue;
        }
        let job = store.job("a", *id).unwrap().unwrap();
        let report = store.report("a", *id).unwrap().unwrap();
        reused += usize::from(job.reused);
        if report.status == Status::Failed {
            // One that four servers were killed over.
            assert_eq!(report.error.unwrap().code, "crashed", "{id}");
            assert_eq!(job.state, JobState::Failed);
            crashed += 1;
        } else {
            assert_eq!(job.state, JobState::Done);
            assert_eq!(report.media.sha256.as_ref(), Some(content), "{id}");
            assert_eq!(report.media.path, "p.jpg");
            assert!(job.outcome.is_some() && job.summary.is_some());
        }
    }
    // No job is there that nobody was promised, save those of deletions without an answer.
    let (mut after, mut unknown) = (None, Vec::new());
    loop {
        let (jobs, next) = store.jobs("a", &Default::default(), after, 200).unwrap();
        unknown.extend(jobs.iter().map(|job| job.id).filter(|id| !promised.jobs.contains_key(id)));
        assert!(jobs.iter().all(|job| job.state.is_final()));
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    let accepted = promised.jobs.len();
    assert!(unknown.len() <= accepted / 9 + KILLS, "{unknown:?}");
    // Of jobs that were at work at a kill one at a time is begun again, and it is given up after three
    // more: the rest gets through, however short the servers lived.
    assert!(crashed * 3 <= KILLS, "{crashed} of {accepted} were given up");
    assert!(std::fs::read_dir(data.join("uploads")).unwrap().next().is_none());
    println!(
        "{accepted} jobs, {reused} of them reused, {} deleted, {crashed} given up; {} events in {} \
         calls",
        promised.deleted.len(),
        bodies.len(),
        received.calls.load(Ordering::SeqCst)
    );
}
