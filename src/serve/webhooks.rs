//! Calls of tenants' webhooks: signed, repeated until they are taken or given up.
//!
//! What is to be told is in the store before anybody is told, in the transaction that changed the job, and
//! it stays there until the receiver has answered: it is told at least once, and perhaps more often.
//! `docs/webhooks.md` says how receivers check and drop doubles.

use std::collections::HashSet;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::CONTENT_TYPE;
use sha2::Sha256;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::model::Time;
use super::outbound::{Outbound, OutboundError, failure};
use super::store::{Delivery, Store, StoreError};

/// For one call, from the look-up of the name to the answer's head.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at the same time, all tenants together.
const AT_ONCE: usize = 64;
/// Calls at the same time of one tenant.
const AT_ONCE_PER_TENANT: usize = 4;
/// How often the store is asked what is due.
const POLL: Duration = Duration::from_millis(250);
/// Before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Before the second call; each time twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// With these waits the last one is 11 to 22 hours after the first.
const MAX_CALLS: u32 = 32;
/// Characters of an error that are kept.
const MAX_ERROR: usize = 300;

/// Calls what is due until it is dropped; what is on the way then is called again by the next server.
pub async fn run(store: Store, outbound: Outbound) {
    let mut calls: JoinSet<Uuid> = JoinSet::new();
    let mut on_the_way: HashSet<Uuid> = HashSet::new();
    loop {
        let asked = store.clone();
        let due = tokio::task::spawn_blocking(move || {
            asked.deliveries_due(Time::now(), AT_ONCE_PER_TENANT)
        });
        let wait = match due.await {
            Ok(Ok(due)) => {
                for delivery in due {
                    if calls.len() < AT_ONCE && on_the_way.insert(delivery.id) {
                        calls.spawn(one(store.clone(), outbound.clone(), delivery));
                    }
                }
                POLL
            }
            Ok(Err(e)) => {
                tracing::error!("webhooks wait: {e}");
                AGAIN
            }
            Err(e) => {
                tracing::error!("webhooks wait: a thread that reads had a defect: {e}");
                AGAIN
            }
        };
        // A call that ended makes room at once, and its place may be another's.
        let ended = tokio::time::timeout(wait, calls.join_next()).await;
        match ended {
            Ok(Some(Ok(id))) => {
                on_the_way.remove(&id);
            }
            // A call with a defect: which one is not said. It is due for long, and nothing is lost
            // where others are called twice.
            Ok(Some(Err(e))) => {
                tracing::error!("a webhook's call had a defect: {e}");
                tokio::time::sleep(AGAIN).await;
                on_the_way.clear();
            }
            Ok(None) => tokio::time::sleep(wait).await,
            Err(_) => {}
        }
    }
}

/// Makes one call and writes down what came of it.
async fn one(store: Store, outbound: Outbound, delivery: Delivery) -> Uuid {
    let id = delivery.id;
    let written = match call(&store, &outbound, &delivery).await {
        Ok(()) => store.delivered(id).await,
        Err(failed) => {
            let why: String = failed.why.chars().take(MAX_ERROR).collect();
            let made = delivery.attempts.saturating_add(1);
            let retry_at = (failed.again && made < MAX_CALLS).then(|| after(wait(made)));
            match retry_at {
                Some(at) => tracing::debug!("webhook {id}: {why}; again at {at}"),
                None => tracing::warn!("webhook {id} of {} is given up: {why}", delivery.tenant),
            }
            store.delivery_failed(id, &why, retry_at).await
        }
    };
    if let Err(e) = written {
        tracing::error!("webhook {id}: what came of it is not written: {e}");
        // It stays due: not to be called again at once.
        tokio::time::sleep(AGAIN).await;
    }
    id
}

/// Why a call did not succeed.
struct Failed {
    why: String,
    /// Whether it may succeed later.
    again: bool,
}

impl From<OutboundError> for Failed {
    fn from(e: OutboundError) -> Self {
        Self { why: format!("{}: {e}", e.code()), again: true }
    }
}

impl From<StoreError> for Failed {
    fn from(e: StoreError) -> Self {
        Self { why: e.to_string(), again: true }
    }
}

async fn call(store: &Store, outbound: &Outbound, delivery: &Delivery) -> Result<(), Failed> {
    let (asked, name) = (store.clone(), delivery.tenant.clone());
    let tenant = tokio::task::spawn_blocking(move || asked.tenant(&name)).await;
    let tenant = tenant.map_err(|e| Failed { why: format!("a defect: {e}"), again: true })??;
    let target = tenant.and_then(|tenant| tenant.webhook_url.zip(tenant.webhook_secret));
    let Some((url, secret)) = target else {
        return Err(Failed { why: "the tenant has no webhook any more".to_owned(), again: false });
    };
    let sent = send(outbound, &url, &secret, delivery);
    let sent = tokio::time::timeout(TIMEOUT, sent).await;
    sent.unwrap_or_else(|_| Err(OutboundError::TimedOut(TIMEOUT).into()))
}

async fn send(
    outbound: &Outbound,
    url: &str,
    secret: &str,
    delivery: &Delivery,
) -> Result<(), Failed> {
    let url = outbound.check(url)?;
    let client = outbound.client(&url).await?;
    let seconds = Time::now().0 / 1_000;
    let signature = signature(secret, seconds, &delivery.body);
    let answer = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("Veriscope-Event", &delivery.event)
        .header("Veriscope-Delivery", delivery.id.to_string())
        .header("Veriscope-Signature", format!("t={seconds},v1={signature}"))
        .body(delivery.body.clone())
        .send()
        .await
        .map_err(|e| failure(e, TIMEOUT))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    // Redirects among them: who moves tells us the new address.
    Err(Failed { why: format!("status: the receiver answered {}", status.as_u16()), again: true })
}

/// HMAC-SHA256 of `SECONDS.BODY` in hexadecimal.
pub fn signature(secret: &str, seconds: i64, body: &str) -> String {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long to wait after that many calls: half of it fixed, half by chance, so that what failed
/// together does not come back together.
fn wait(made: u32) -> Duration {
    let doubled = 2u32.checked_pow(made.saturating_sub(1)).unwrap_or(u32::MAX);
    let most = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
    let chance = getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX));
    most / 2 + (most / 2).mul_f64(chance)
}

fn after(wait: Duration) -> Time {
    Time(Time::now().0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::super::outbound::testing::*;
    use super::*;
    use crate::report::samples;
    use crate::serve::model::{JobId, Priority, Source};
    use crate::serve::policy::Policies;
    use crate::serve::queue::{Aging, Slot};
    use crate::serve::store::{DeliveryState, Finished, NewJob, StoreOptions, Submission, Tenant};

    const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const DOWN: &str = "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n";
    const MOVED: &str =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";

    fn open(data: &Path) -> Store {
        let policies = Policies::open(None).unwrap();
        let options = StoreOptions {
            max_queued: 1_000,
            aging: Aging::default(),
            fingerprint: "f".to_owned(),
            outcome: Arc::new(move |tenant, report, _| policies.evaluate(tenant, report)),
        };
        Store::open(data, options).unwrap()
    }

    async fn tenant(store: &Store, name: &str, url: Option<String>) {
        let webhook_secret = url.as_ref().map(|_| "whsec".to_owned());
        let tenant = Tenant { webhook_url: url, webhook_secret, ..Tenant::named(name) };
        store.put_tenant(tenant).await.unwrap();
    }

    /// A job of the tenant that is done, and so a delivery.
    async fn done(store: &Store, tenant: &str) -> JobId {
        let job = NewJob {
            content: None,
            id: Uuid::now_v7(),
            tenant: tenant.to_owned(),
            priority: Priority::Normal,
            source: Source::Path { path: "/media/a.mp4".to_owned() },
            reference: Some("你好 \"x\"".to_owned()),
            declared_ai: false,
            sha256: None,
            bytes: None,
            idempotency: None,
            by: "key".to_owned(),
            tenant_max_queued: 1_000,
        };
        let id = job.id;
        assert!(matches!(store.submit(job).await.unwrap(), Submission::Accepted(_)));
        let queue = store.clone();
        let task = tokio::task::spawn_blocking(move || queue.next(Slot::Ordinary)).await.unwrap();
        assert_eq!(task.unwrap().job.id, id);
        let report = samples::video();
        let outcome = Policies::open(None).unwrap().evaluate(tenant, &report);
        let summary = crate::serve::worker::summary(&report);
        assert!(store.finish(id, Finished { report, outcome, summary }).await.unwrap());
        id
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..200 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not come about");
    }

    fn state(store: &Store, tenant: &str) -> Vec<(DeliveryState, u32, Option<String>)> {
        let (all, _) = store.deliveries(tenant, None, None, 100).unwrap();
        all.into_iter().map(|d| (d.state, d.attempts, d.last_error)).collect()
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        // openssl dgst -sha256 -hmac whsec <<< '1700000000.{"a":"你"}' without the line's end.
        assert_eq!(signature("whsec", 1_700_000_000, "{\"a\":\"你\"}"), SIGNED);
        assert_ne!(signature("other", 1_700_000_000, "{\"a\":\"你\"}"), SIGNED);
        assert_ne!(signature("whsec", 1_700_000_001, "{\"a\":\"你\"}"), SIGNED);
        assert_eq!(signature("", 1, "").len(), 64);
    }

    const SIGNED: &str = "3b29b75f8e998d4f661e9504caacf92c095a666f14cd25675ffce4dcb13238e8";

    #[test]
    fn waits_grow_to_an_hour_and_differ() {
        for (made, most) in [(1, 5), (2, 10), (3, 20), (10, 2_560), (11, 3_600), (40, 3_600)] {
            let (mut least_seen, mut most_seen) = (Duration::MAX, Duration::ZERO);
            for _ in 0..200 {
                let wait = wait(made);
                (least_seen, most_seen) = (least_seen.min(wait), most_seen.max(wait));
            }
            let most = Duration::from_secs(most);
            assert!(least_seen >= most / 2 && most_seen <= most, "{made}");
            assert!(most_seen - least_seen > most / 10, "{made}");
        }
        let all: Duration = (1..MAX_CALLS)
            .map(|made| FIRST_WAIT.saturating_mul(2u32.saturating_pow(made - 1)).min(LONGEST_WAIT))
            .sum();
        let hours = all.as_secs_f64() / 3_600.0;
        assert!((22.0..23.0).contains(&hours), "{hours}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_finished_job_is_told_with_a_signature() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let port = server("127.0.0.1", 0, move |head, body, stream| {
            keep.lock().unwrap().push((head, body));
            say(stream, OK)
        })
        .await;
        let names = Arc::new(Names::default());
        names.set("hooks.example", &[&["127.0.0.1"]]);
        tenant(&store, "t", Some(format!("http://hooks.example:{port}/hook?x=1"))).await;
        let job = done(&store, "t").await;
        let outbound = outbound(&[format!("127.0.0.1:{port}")], &names);
        let running = tokio::spawn(run(store.clone(), outbound));
        until(|| state(&store, "t").iter().all(|(s, ..)| *s == DeliveryState::Delivered)).await;
        running.abort();
        let seen = seen.lock().unwrap();
        let [(head, body)] = seen.as_slice() else { panic!("{seen:?}") };
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
        let header = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.unwrap_or_else(|| panic!("{name}: {head}")).split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("veriscope-event"), "job.done");
        let body = std::str::from_utf8(body).unwrap();
        let signed = header("veriscope-signature");
        let (seconds, hex) = signed.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let seconds: i64 = seconds.parse().unwrap();
        assert!((Time::now().0 / 1_000 - seconds).abs() < 60);
        assert_eq!(hex, signature("whsec", seconds, body));
        let told: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(told["id"], header("veriscope-delivery"));
        assert_eq!(told["job"]["id"], job.to_string());
        assert_eq!(told["job"]["outcome"]["action"], "review");
        assert_eq!(told["job"]["reference"], "你好 \"x\"");
    }

    /// Fails twice, then takes it: the same id each time, a signature of its own each time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_fails_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&calls);
        let port = server("127.0.0.1", 0, move |head, _, stream| {
            let mut calls = keep.lock().unwrap();
            let id = head.lines().find_map(|l| l.strip_prefix("veriscope-delivery: "));
            calls.push(id.unwrap().to_owned());
            let answer = [DOWN, MOVED, OK][(calls.len() - 1).min(2)];
            say(stream, answer)
        })
        .await;
        tenant(&store, "t", Some(format!("http://127.0.0.1:{port}/"))).await;
        done(&store, "t").await;
        let outbound = outbound(&[format!("127.0.0.1:{port}")], &Arc::default());
        let running = tokio::spawn(run(store.clone(), outbound));
        until(|| state(&store, "t")[0].1 == 1).await;
        let first = &state(&store, "t")[0];
        assert_eq!(first.0, DeliveryState::Pending);
        assert_eq!(first.2.as_deref(), Some("status: the receiver answered 503"));
        // After 2.5 to 5 s, then after 5 to 10 s; the second wait is cut short here by a replay.
        until(|| state(&store, "t")[0].1 == 2).await;
        let second = &state(&store, "t")[0];
        assert_eq!(second.2.as_deref(), Some("status: the receiver answered 302"));
        let (all, _) = store.deliveries("t", None, None, 10).unwrap();
        assert!(store.replay("t", all[0].id, "me").await.unwrap());
        until(|| state(&store, "t")[0].0 == DeliveryState::Delivered).await;
        running.abort();
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), 3);
        assert!(calls.iter().all(|id| *id == all[0].id.to_string()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_fails_too_often_or_has_no_receiver_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        // An inner address, as a tenant may set it to look around.
        tenant(&store, "inner", Some("http://169.254.169.254/".to_owned())).await;
        tenant(&store, "gone", Some("http://169.254.169.254/".to_owned())).await;
        done(&store, "inner").await;
        done(&store, "gone").await;
        tenant(&store, "gone", None).await;
        let (all, _) = store.deliveries("inner", None, None, 10).unwrap();
        for _ in 1..MAX_CALLS {
            store.delivery_failed(all[0].id, "before", Some(Time(0))).await.unwrap();
        }
        let running = tokio::spawn(run(store.clone(), outbound(&[], &Arc::default())));
        until(|| state(&store, "inner")[0].0 == DeliveryState::Dead).await;
        until(|| state(&store, "gone")[0].0 == DeliveryState::Dead).await;
        running.abort();
        let (_, attempts, why) = &state(&store, "inner")[0];
        assert_eq!(*attempts, MAX_CALLS);
        assert!(why.as_ref().unwrap().starts_with("address_not_allowed: "), "{why:?}");
        let (_, attempts, why) = &state(&store, "gone")[0];
        assert_eq!((*attempts, why.as_deref()), (1, Some("the tenant has no webhook any more")));
    }

    /// One tenant's receiver hangs with twenty deliveries due: four calls are on the way, and another
    /// tenant, whose deliveries came later, is told at once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_receiver_that_hangs_holds_up_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let hanging = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hanging);
        let hangs = server("127.0.0.1", 0, move |_, _, stream| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            }
        })
        .await;
        let told = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
        let keep = Arc::clone(&told);
        let works = server("127.0.0.1", 0, move |_, body, stream| {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            *keep.lock().unwrap().entry(body["id"].to_string()).or_default() += 1;
            say(stream, OK)
        })
        .await;
        tenant(&store, "a", Some(format!("http://127.0.0.1:{hangs}/"))).await;
        tenant(&store, "b", Some(format!("http://127.0.0.1:{works}/"))).await;
        for _ in 0..20 {
            done(&store, "a").await;
        }
        for _ in 0..20 {
            done(&store, "b").await;
        }
        let allowed = [format!("127.0.0.1:{hangs}"), format!("127.0.0.1:{works}")];
        let begun = std::time::Instant::now();
        let running = tokio::spawn(run(store.clone(), outbound(&allowed, &Arc::default())));
        until(|| state(&store, "b").iter().all(|(s, ..)| *s == DeliveryState::Delivered)).await;
        // On a slow machine the first four are given up meanwhile, and others take their places.
        let rounds = 1 + (begun.elapsed().as_secs() / TIMEOUT.as_secs()) as usize;
        let hung = hanging.load(Ordering::SeqCst);
        assert!((1..=rounds * AT_ONCE_PER_TENANT).contains(&hung), "{hung} in {rounds}");
        running.abort();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 20);
        assert!(told.values().all(|times| *times == 1));
    }
}
