//! Media by URL, streamed to a file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::live::{Hub, LiveEvent};
use super::model::JobState;
use super::outbound::{Outbound, OutboundError, failure};
use super::store::{FetchTask, Finished, MakeOutcome, Store, StoreError, Tenant};
use crate::report::{EngineInfo, Report};
use crate::verdict::disposition::declare;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Characters of a file's name that are kept.
const MAX_NAME: usize = 200;
/// How soon a cancelled fetch is given up.
const CANCEL_POLL: Duration = Duration::from_millis(100);
/// Before something is tried to be written down again.
const AGAIN: Duration = Duration::from_secs(1);

/// What one fetch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    pub max_bytes: u64,
    /// Without a byte, once a connection is there.
    pub idle: Duration,
    /// Altogether, redirects included.
    pub total: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            idle: Duration::from_secs(15),
            total: Duration::from_secs(15 * 60),
        }
    }
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// In hexadecimal.
    pub sha256: String,
    pub bytes: u64,
    /// The last part of the URL's path; for people only.
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    #[error("a redirect without a valid place to go to")]
    BadRedirect,
    #[error("the server answered with status {0}")]
    Status(u16),
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    #[error("no bytes came")]
    Empty,
    #[error("the content is encoded as `{0}`, which nobody asked for")]
    Encoded(String),
    #[error("it cannot be stored: {0}")]
    Disk(#[from] std::io::Error),
}

impl FetchError {
    /// Stable; `docs/policy.md` lists them.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Outbound(e) => e.code(),
            Self::TooManyRedirects => "too_many_redirects",
            Self::BadRedirect => "bad_redirect",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Empty => "empty",
            Self::Encoded(_) => "content_encoded",
            Self::Disk(_) => "disk",
        }
    }
}

/// Fetches `url` into `to`, which must not be there yet. The bytes are on the disk when it is done; when
/// it fails or is dropped, nothing stays behind.
///
/// # Errors
/// What may not be fetched, does not answer in time, or is larger than `limits` allow.
pub async fn fetch(
    url: &str,
    limits: &FetchLimits,
    to: &Path,
    outbound: &Outbound,
) -> Result<Fetched, FetchError> {
    let work = follow(url, limits, to, outbound);
    tokio::time::timeout(limits.total, work)
        .await
        .unwrap_or_else(|_| Err(OutboundError::TimedOut(limits.total).into()))
}

async fn follow(
    url: &str,
    limits: &FetchLimits,
    to: &Path,
    outbound: &Outbound,
) -> Result<Fetched, FetchError> {
    let mut url = outbound.check(url)?;
    // The name that was asked for, whatever it is called where it lies.
    let name = name_of(&url);
    for _ in 0..=MAX_REDIRECTS {
        let client = outbound.client(&url).await?;
        let asking = client.get(url.clone()).header(ACCEPT_ENCODING, "identity").send();
        let answer = tokio::time::timeout(limits.idle, asking)
            .await
            .map_err(|_| OutboundError::TimedOut(limits.idle))?
            .map_err(|e| failure(e, limits.idle))?;
        let status = answer.status();
        if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            let next = place.and_then(|place| url.join(place).ok());
            url = outbound.check(next.ok_or(FetchError::BadRedirect)?.as_str())?;
            continue;
        }
        if status.as_u16() != 200 {
            return Err(FetchError::Status(status.as_u16()));
        }
        return store(answer, name, limits, to).await;
    }
    Err(FetchError::TooManyRedirects)
}

/// Removes a file unless it was kept.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(e) = std::fs::remove_file(&path)
        {
            tracing::warn!("{} stays behind: {e}", path.display());
        }
    }
}

async fn store(
    answer: reqwest::Response,
    name: String,
    limits: &FetchLimits,
    to: &Path,
) -> Result<Fetched, FetchError> {
    let encoding = answer.headers().get(CONTENT_ENCODING);
    if let Some(encoding) = encoding.filter(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let text: String = encoding.to_str().unwrap_or("?").chars().take(40).collect();
        return Err(FetchError::Encoded(text));
    }
    let stated = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if stated.and_then(|length| length.parse().ok()).is_some_and(|n: u64| n > limits.max_bytes) {
        return Err(FetchError::TooLarge(limits.max_bytes));
    }
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(to).await?;
    let mut unfinished = Unfinished(Some(to.to_owned()));
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    let mut body = answer.bytes_stream();
    loop {
        let next = tokio::time::timeout(limits.idle, body.next());
        let next = next.await.map_err(|_| OutboundError::TimedOut(limits.idle))?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|e| failure(e, limits.idle))?;
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > limits.max_bytes {
            return Err(FetchError::TooLarge(limits.max_bytes));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await?;
    }
    if bytes == 0 {
        return Err(FetchError::Empty);
    }
    file.flush().await?;
    file.sync_data().await?;
    unfinished.0 = None;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Fetched { sha256, bytes, name })
}

/// The last part of a URL's path, or the host.
fn name_of(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let decoded = percent_decode_str(last).decode_utf8_lossy();
    let host = url.host_str().unwrap_or_default();
    let name = if decoded.is_empty() { host } else { &decoded };
    name.chars()
        .map(|c| if c.is_control() || c == '/' { '\u{fffd}' } else { c })
        .take(MAX_NAME)
        .collect()
}

/// Fetches the jobs that were submitted by URL.
#[derive(Clone)]
pub struct Fetching {
    pub store: Store,
    pub hub: Hub,
    pub outbound: Outbound,
    /// Of jobs whose media cannot be fetched.
    pub outcome: MakeOutcome,
    /// What their reports say of the engine.
    pub engine: EngineInfo,
}

impl Fetching {
    /// Works until the store is closed, on `at_once` URLs at the same time. When it is dropped, what is
    /// on the way is left to the next server.
    pub async fn run(self, at_once: usize) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let fetching = self.clone();
            workers.spawn(async move {
                while let Some(task) = fetching.store.next_fetch().await {
                    fetching.one(task).await;
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(e) = ended {
                tracing::error!("a thread that fetches had a defect: {e}");
            }
        }
    }

    async fn one(&self, task: FetchTask) {
        let id = task.job.id;
        self.hub.publish(id, LiveEvent::State { state: JobState::Fetching });
        let state = tokio::select! {
            state = self.fetch(&task) => state,
            () = set(&task.cancel) => Some(JobState::Cancelled),
        };
        let Some(state) = state else { return };
        self.hub.publish(id, LiveEvent::State { state });
        if state.is_final() {
            self.hub.publish(id, LiveEvent::Done {});
        }
    }

    /// What became of the job; none where that could not be written down.
    async fn fetch(&self, task: &FetchTask) -> Option<JobState> {
        let job = &task.job;
        // What a fetch left behind that could not be written down.
        match tokio::fs::remove_file(&task.path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return self.failed(task, FetchError::Disk(e)).await;
            }
            _ => {}
        }
        let (store, tenant) = (self.store.clone(), job.tenant.clone());
        let tenant = tokio::task::spawn_blocking(move || store.tenant(&tenant)).await;
        let tenant = match tenant {
            Ok(Ok(Some(tenant))) => tenant,
            Ok(Ok(None)) => Tenant::default(),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("job {}: the usual limits hold, the tenant was not read", job.id);
                Tenant::default()
            }
        };
        let limits = FetchLimits { max_bytes: tenant.max_bytes, ..FetchLimits::default() };
        let fetched = match fetch(&task.url, &limits, &task.path, &self.outbound).await {
            Ok(fetched) => fetched,
            Err(e) => return self.failed(task, e).await,
        };
        match self.store.fetched(job, fetched.sha256, fetched.bytes).await {
            Ok(job) => Some(job.map_or(JobState::Cancelled, |job| job.state)),
            Err(e) => {
                tracing::error!("job {} was fetched, and that is not written: {e}", job.id);
                // Space may come back.
                tokio::time::sleep(AGAIN).await;
                None
            }
        }
    }

    /// Ends a job whose media did not come.
    async fn failed(&self, task: &FetchTask, error: FetchError) -> Option<JobState> {
        let job = &task.job;
        tracing::info!("job {}: not fetched: {error}", job.id);
        let message = format!("{}: {error}", task.url);
        let mut report = Report::failed(&task.url, error.code(), message, self.engine.clone());
        let summary = super::worker::summary(&report);
        let kept = report.clone();
        if job.declared_ai {
            declare(&mut report);
        }
        let outcome = (self.outcome)(&job.tenant, &report, job.declared_ai);
        let finished = Finished { report: kept, outcome, summary };
        loop {
            match self.store.finish(job.id, finished.clone()).await {
                Ok(true) => return Some(JobState::Failed),
                Ok(false) => return Some(JobState::Cancelled),
                Err(StoreError::Stopped) => return None,
                Err(e) => {
                    tracing::error!("job {}: its report is not written: {e}", job.id);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Waits until a flag is set.
async fn set(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt as _;

    use super::super::outbound::testing::*;
    use super::*;

    fn limits() -> FetchLimits {
        FetchLimits {
            max_bytes: 1_000_000,
            idle: Duration::from_secs(5),
            total: Duration::from_secs(20),
        }
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Fetches from 127.0.0.1, which is allowed, and asserts that a failure leaves nothing behind.
    async fn get(
        url: &str,
        limits: &FetchLimits,
        allowed: &[String],
        names: &Arc<Names>,
    ) -> Result<(Fetched, Vec<u8>), &'static str> {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("media");
        let result = fetch(url, limits, &to, &outbound(allowed, names)).await;
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        match result {
            Ok(fetched) => Ok((fetched, std::fs::read(&to).unwrap())),
            Err(e) => {
                assert_eq!(left, 0, "{e}");
                Err(e.code())
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_fetched_whole() {
        let port = server("127.0.0.1", 0, |head, _, stream| async move {
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains("accept-encoding: identity\r\n"), "{head}");
            assert!(!lower.contains("cookie") && !lower.contains("referer"), "{head}");
            say(stream, &ok("hello")).await;
        })
        .await;
        let names = Arc::new(Names::default());
        names.set("media.example", &[&["127.0.0.1"]]);
        let url = format!("http://media.example:{port}/x/b%20%E4%BD%A0.mp4?sig=1");
        let allowed = [format!("127.0.0.1:{port}")];
        let (fetched, bytes) = get(&url, &limits(), &allowed, &names).await.unwrap();
        assert_eq!(bytes, b"hello");
        assert_eq!((fetched.bytes, fetched.name.as_str()), (5, "b 你.mp4"));
        assert_eq!(
            fetched.sha256,
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn answers_that_are_no_media_are_coded() {
        let port = server("127.0.0.1", 0, |head, _, mut stream| async move {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.as_str() {
                "/404" => {
                    say(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").await
                }
                "/206" => say(stream, "HTTP/1.1 206 Partial\r\nContent-Length: 2\r\n\r\nno").await,
                "/empty" => say(stream, &ok("")).await,
                "/gzip" => {
                    say(stream, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx").await;
                }
                "/stated" => {
                    say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\nx").await;
                }
                "/unstated" => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
                }
                "/cut" => say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx").await,
                "/garbage" => say(stream, "SSH-2.0-OpenSSH_9\r\n").await,
                "/slow" => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nx").await;
                    std::future::pending::<()>().await;
                }
                "/drip" => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    while stream.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                _ => std::future::pending::<()>().await,
            }
        })
        .await;
        let names = Arc::new(Names::default());
        let allowed = [format!("127.0.0.1:{port}")];
        let short = FetchLimits {
            idle: Duration::from_millis(400),
            total: Duration::from_millis(1_500),
            ..limits()
        };
        for (path, expected) in [
            ("404", "status"),
            ("206", "status"),
            ("empty", "empty"),
            ("gzip", "content_encoded"),
            ("stated", "too_large"),
            ("unstated", "too_large"),
            ("cut", "broken_off"),
            ("garbage", "broken_off"),
            ("slow", "timed_out"),
            ("drip", "timed_out"),
            ("silent", "timed_out"),
        ] {
            let url = format!("http://127.0.0.1:{port}/{path}");
            let limits = if expected == "timed_out" { short } else { limits() };
            let result = get(&url, &limits, &allowed, &names).await;
            assert_eq!(result.map(|_| ()), Err(expected), "{path}");
        }
        // Nobody listens at a port that was just given back.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{free}/");
        let allowed = [format!("127.0.0.1:{free}")];
        let result = get(&url, &limits(), &allowed, &names).await;
        assert_eq!(result.map(|_| ()), Err("connect_failed"));
    }

    #[tokio::test]
    async fn each_redirect_is_judged_anew() {
        let port = server("127.0.0.1", 0, |head, _, stream| async move {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let to = match path.as_str() {
                "/relative" => "/file",
                "/file" => return say(stream, &ok("there")).await,
                "/loop" => "/loop",
                "/nowhere" => "http://",
                "/none" => {
                    return say(stream, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
                }
                "/private" => "http://10.0.0.1/",
                "/metadata" => "http://169.254.169.254/latest/meta-data/",
                "/mapped" => "http://[::ffff:127.0.0.1]/",
                "/decimal" => "http://2130706433/",
                "/name" => "http://inner.example/",
                "/port" => "http://127.0.0.1:22/",
                "/scheme" => "file:///etc/passwd",
                "/user" => "http://a:b@public.example/",
                _ => "//127.0.0.1/",
            };
            let answer =
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            say(stream, &answer).await;
        })
        .await;
        let names = Arc::new(Names::default());
        names.set("inner.example", &[&["192.168.1.1"]]);
        let allowed = [format!("127.0.0.1:{port}")];
        for (path, expected) in [
            ("relative", Ok(())),
            ("loop", Err("too_many_redirects")),
            ("nowhere", Err("bad_redirect")),
            ("none", Err("bad_redirect")),
            ("private", Err("address_not_allowed")),
            ("metadata", Err("address_not_allowed")),
            ("mapped", Err("address_not_allowed")),
            ("decimal", Err("address_not_allowed")),
            ("name", Err("address_not_allowed")),
            ("port", Err("port_not_allowed")),
            ("scheme", Err("scheme_not_allowed")),
            ("user", Err("userinfo_not_allowed")),
            ("other", Err("address_not_allowed")),
        ] {
            let url = format!("http://127.0.0.1:{port}/{path}");
            let result = get(&url, &limits(), &allowed, &names).await;
            assert_eq!(
                result.map(|(fetched, _)| assert_eq!(fetched.name, path)),
                expected,
                "{path}"
            );
        }
    }

    /// A name that answers with an allowed address first and another one afterwards: what was judged is
    /// what is connected to, and a redirect to the same name is judged by the new answer.
    #[tokio::test]
    async fn a_name_cannot_change_between_judging_and_connecting() {
        let reached = Arc::new(AtomicUsize::new(0));
        let port = server("127.0.0.2", 0, |head, _, stream| async move {
            let again = "HTTP/1.1 307 Again\r\nLocation: /file\r\nContent-Length: 0\r\n\r\n";
            let answer = if head.starts_with("GET /again") { again.to_owned() } else { ok("good") };
            say(stream, &answer).await;
        })
        .await;
        let count = Arc::clone(&reached);
        // The same port of another address of this machine, which is not allowed.
        server("127.0.0.3", port, move |_, _, stream| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { say(stream, &ok("secret")).await }
        })
        .await;
        let names = Arc::new(Names::default());
        let allowed = [format!("127.0.0.2:{port}")];
        let turn: &[&[&str]] = &[&["127.0.0.2"], &["127.0.0.3"]];
        names.set("turn.example", turn);
        let url = format!("http://turn.example:{port}/file");
        let (_, bytes) = get(&url, &limits(), &allowed, &names).await.unwrap();
        assert_eq!((bytes.as_slice(), names.asked.load(Ordering::SeqCst)), (&b"good"[..], 1));
        names.set("turn.example", turn);
        let url = format!("http://turn.example:{port}/again");
        let result = get(&url, &limits(), &allowed, &names).await;
        assert_eq!(result.map(|_| ()), Err("address_not_allowed"));
        assert_eq!(reached.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_dropped_fetch_leaves_nothing() {
        let port = server("127.0.0.1", 0, |_, _, mut stream| async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await;
            std::future::pending::<()>().await;
        })
        .await;
        let names = Arc::new(Names::default());
        let outbound = outbound(&[format!("127.0.0.1:{port}")], &names);
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("media");
        let (url, limits) = (format!("http://127.0.0.1:{port}/"), limits());
        {
            let work = fetch(&url, &limits, &to, &outbound);
            assert!(tokio::time::timeout(Duration::from_millis(500), work).await.is_err());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // A file that is there is nobody's to overwrite.
        std::fs::write(&to, "mine").unwrap();
        let result = fetch(&url, &limits, &to, &outbound).await;
        assert_eq!(result.unwrap_err().code(), "disk");
        assert_eq!(std::fs::read(&to).unwrap(), b"mine");
    }

    /// Jobs by URL from submission to the queue or to a failed report.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn jobs_are_fetched_for_the_queue() {
        use crate::serve::model::{Priority, Source};
        use crate::serve::policy::Policies;
        use crate::serve::queue::{Aging, Slot};
        use crate::serve::store::{NewJob, StoreOptions, Submission};

        let port = server("127.0.0.1", 0, |head, _, mut stream| async move {
            match head.split(' ').nth(1).unwrap_or_default() {
                "/good" => say(stream, &ok("media")).await,
                "/big" => say(stream, &ok(&"x".repeat(50))).await,
                _ => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await;
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let policies = Policies::open(None).unwrap();
        let outcome: MakeOutcome =
            Arc::new(move |tenant, report, _| policies.evaluate(tenant, report));
        let store = Store::open(
            folder.path(),
            StoreOptions {
                max_queued: 10,
                aging: Aging::default(),
                fingerprint: "f".to_owned(),
                outcome: Arc::clone(&outcome),
            },
        )
        .unwrap();
        let tenant = Tenant { max_bytes: 20, ..Tenant::named("t") };
        store.put_tenant(tenant).await.unwrap();
        let names = Arc::new(Names::default());
        let hub = Hub::default();
        let fetching = Fetching {
            store: store.clone(),
            hub: hub.clone(),
            outbound: outbound(&[format!("127.0.0.1:{port}")], &names),
            outcome,
            engine: crate::report::samples::engine(),
        };
        let submit = |url: String| {
            let store = store.clone();
            async move {
                let job = NewJob {
                    content: None,
                    id: uuid::Uuid::now_v7(),
                    tenant: "t".to_owned(),
                    priority: Priority::Normal,
                    source: Source::Url { url },
                    reference: None,
                    declared_ai: false,
                    sha256: None,
                    bytes: None,
                    idempotency: None,
                    by: "key".to_owned(),
                    tenant_max_queued: 10,
                };
                let id = job.id;
                assert!(matches!(store.submit(job).await.unwrap(), Submission::Accepted(_)));
                id
            }
        };
        let good = submit(format!("http://127.0.0.1:{port}/good")).await;
        let big = submit(format!("http://127.0.0.1:{port}/big")).await;
        let inner = submit("http://169.254.169.254/latest".to_owned()).await;
        let hangs = submit(format!("http://127.0.0.1:{port}/hangs")).await;
        let running = tokio::spawn(fetching.run(4));
        let until = |id, state| {
            let store = store.clone();
            async move {
                for _ in 0..200 {
                    let job = store.job("t", id).unwrap();
                    if job.as_ref().is_some_and(|job| job.state == state) {
                        return job.unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                panic!("{:?}", store.job("t", id).unwrap());
            }
        };
        let job = until(good, JobState::Queued).await;
        assert_eq!(job.bytes, Some(5));
        assert_eq!(std::fs::read(store.media_path(&job)).unwrap(), b"media");
        for (id, code) in [(big, "too_large"), (inner, "address_not_allowed")] {
            let job = until(id, JobState::Failed).await;
            assert_eq!(job.error.unwrap().code, code);
            assert!(!store.upload_path(id).exists());
            assert_eq!(store.report("t", id).unwrap().unwrap().error.unwrap().code, code);
        }
        // Cancelled on the way: nothing stays.
        for _ in 0..100 {
            if store.upload_path(hangs).exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(store.upload_path(hangs).exists());
        assert!(store.delete("t", hangs, "me").await.unwrap());
        for _ in 0..100 {
            if !store.upload_path(hangs).exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!store.upload_path(hangs).exists());
        // The worker gets what was fetched.
        let queue = store.clone();
        let task = tokio::task::spawn_blocking(move || queue.next(Slot::Ordinary)).await.unwrap();
        assert_eq!(task.unwrap().job.id, good);
        store.close();
        tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
    }

    /// PKCS #8 of a key that signs nothing but this test's certificate.
    const KEY: &str = "\
        308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420770b1d8b2b16\
        9cf1f6cc74586b612c48fdb4b0deb53df269ce8d9fec3245411aa1440342000444b9fc0cf7643250cc70\
        1724ddf123e313623df04250447719d270941d5253ea82767648b4d428eab7efde3a606203daf75de29c\
        fc935f69854838ba4c79df03\
    ";

    /// `media.example`, signed by itself, 2020 to 2119.
    const CERTIFICATE: &str = "\
        3082014a3081f1a003020102020101300a06082a8648ce3d04030230183116301406035504030c0d6d65\
        6469612e6578616d706c653020170d3230303130313030303030305a180f323132303031303130303030\
        30305a30183116301406035504030c0d6d656469612e6578616d706c653059301306072a8648ce3d0201\
        06082a8648ce3d0301070342000444b9fc0cf7643250cc701724ddf123e313623df04250447719d27094\
        1d5253ea82767648b4d428eab7efde3a606203daf75de29cfc935f69854838ba4c79df03a32a30283018\
        0603551d110411300f820d6d656469612e6578616d706c65300c0603551d130101ff04023000300a0608\
        2a8648ce3d04030203480030450220382239ff3236c44e9639f80af1dd37fea806a99ba0a06284b5f87c\
        cc72b063830221009cba8d353cc6d9ecb6c4f5e2a737fd0a4e031d1a74349b3e21286501fa39c32c\
    ";

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    /// A server on 127.0.0.1 that answers each connection over TLS.
    fn tls_server() -> u16 {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let key = PrivateKeyDer::Pkcs8(bytes_of(KEY).into());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(bytes_of(CERTIFICATE))], key)
        .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
                // Who refuses the certificate goes away.
                if tls.read(&mut [0; 4_096]).is_ok() {
                    let _ = tls.write_all(ok("over TLS").as_bytes());
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn certificates_are_checked() {
        let port = tls_server();
        let names = Arc::new(Names::default());
        names.set("media.example", &[&["127.0.0.1"]]);
        names.set("other.example", &[&["127.0.0.1"]]);
        let allowed = [format!("127.0.0.1:{port}")];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(bytes_of(CERTIFICATE).into()).unwrap();
        let trusting = outbound(&allowed, &names).with_roots(roots).unwrap();
        let without =
            outbound(&allowed, &names).with_roots(rustls::RootCertStore::empty()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("media");
        for (outbound, host, expected) in [
            // Trusted, but another's.
            (&trusting, "other.example", Err("tls_failed")),
            (&outbound(&allowed, &names), "media.example", Err("tls_failed")),
            (&without, "media.example", Err("tls_failed")),
            (&trusting, "media.example", Ok(8)),
        ] {
            let url = format!("https://{host}:{port}/a");
            let result = fetch(&url, &limits(), &to, outbound).await;
            assert_eq!(result.map(|f| f.bytes).map_err(|e| e.code()), expected, "{host}");
        }
        assert_eq!(std::fs::read(&to).unwrap(), b"over TLS");
    }
}
