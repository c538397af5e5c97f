use std::collections::{BTreeSet, HashMap};
use std::io::BufRead as _;
use std::sync::Barrier;
use std::sync::mpsc;
use std::time::Instant;

use rusqlite::params;
use uuid::Uuid;

use super::super::model::{
    Action, Decision, Job, JobState, Peak, Priority, Source, Summary, Time, Verdict,
};
use super::super::queue::Slot;
use super::*;
use crate::report::{DetectorKind, DispositionState, samples};

const DAY_MS: i64 = 24 * 3_600_000;

/// Blocks what is declared to be made by AI, allows the rest.
fn options(max_queued: usize) -> StoreOptions {
    let outcome: MakeOutcome = Arc::new(|tenant, report, declared_ai| Outcome {
        action: if declared_ai { Action::Block } else { Action::Allow },
        disposition: report.disposition.state,
        because: vec![format!("made again for {tenant}")],
        policy_version: "p2".into(),
    });
    StoreOptions { max_queued, aging: Aging::default(), fingerprint: "e1".into(), outcome }
}

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl std::ops::Deref for Place {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

/// A store with the tenants a (with a webhook) and b.
fn place() -> Place {
    place_of(100)
}

fn place_of(max_queued: usize) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options(max_queued)).unwrap();
    store.put_tenant(hooked("a")).wait().unwrap();
    store.put_tenant(Tenant::named("b")).wait().unwrap();
    Place { dir, store }
}

fn hooked(name: &str) -> Tenant {
    Tenant {
        webhook_url: Some("https://hooks.example/".into()),
        webhook_secret: Some("s".into()),
        ..Tenant::named(name)
    }
}

impl Place {
    /// The same folder opened anew, as after a stop.
    fn again(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Store::open(dir.path(), options(100)).unwrap();
        Self { dir, store }
    }

    fn sql(&self, sql: &str) -> usize {
        connect(&self.dir.path().join("serve.sqlite")).unwrap().execute(sql, []).unwrap()
    }

    fn put_upload(&self, id: JobId) -> PathBuf {
        let path = self.upload_path(id);
        std::fs::write(&path, "media").unwrap();
        path
    }

    /// Submits and expects to be accepted.
    fn accept(&self, job: NewJob) -> Job {
        match self.submit(job).wait().unwrap() {
            Submission::Accepted(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Takes the next job, which must be this one, and ends it with this report.
    fn judge(&self, id: JobId, done: Finished) -> Job {
        let task = self.next(Slot::Ordinary).unwrap();
        assert_eq!(task.job.id, id);
        assert!(self.finish(id, done).wait().unwrap());
        self.job(&task.job.tenant, id).unwrap().unwrap()
    }

    fn whats(&self, id: JobId) -> Vec<String> {
        let mut all = self.audit(None, Some(id), None, 100).unwrap();
        all.reverse();
        all.into_iter().map(|entry| entry.what).collect()
    }
}

fn new(tenant: &str) -> NewJob {
    NewJob {
        content: None,
        id: Uuid::now_v7(),
        tenant: tenant.into(),
        by: "bot".into(),
        priority: Priority::Normal,
        source: Source::Upload { name: "Clip One.mp4".into() },
        reference: None,
        declared_ai: false,
        sha256: Some(samples::video().media.sha256.unwrap()),
        bytes: Some(12_345_678),
        idempotency: None,
        tenant_max_queued: 100,
    }
}

fn url(tenant: &str) -> NewJob {
    let source = Source::Url { url: "https://media.example/a.mp4".into() };
    NewJob { source, sha256: None, bytes: None, ..new(tenant) }
}

fn summary() -> Summary {
    Summary {
        duration_ms: Some(60_000),
        kind: Some("video".into()),
        peaks: vec![Peak {
            detector: DetectorKind::FaceSwap,
            start_ms: 12_000,
            end_ms: 18_000,
            probability: 0.95,
        }],
        labels: vec![],
        strip_evidence: vec!["erased_mark".into()],
    }
}

fn done(report: Report) -> Finished {
    let outcome = Outcome {
        action: Action::Review,
        disposition: report.disposition.state,
        because: vec!["a face was swapped".into()],
        policy_version: "p1".into(),
    };
    Finished { report, outcome, summary: summary() }
}

/// A report whose path is the server's own, as the engine gives it.
fn video(store: &Store, id: JobId) -> Finished {
    done(samples::video().with_path(&store.upload_path(id).to_string_lossy()))
}

fn gone(path: &Path) -> bool {
    let start = Instant::now();
    while path.exists() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    !path.exists()
}

#[test]
fn a_job_goes_from_submission_to_report() {
    let s = place();
    let media = s.put_upload(Uuid::from_u128(7));
    let job = s.accept(NewJob {
        id: Uuid::from_u128(7),
        reference: Some("post 9".into()),
        priority: Priority::Live,
        ..new("a")
    });
    assert_eq!((job.state, job.attempts, job.has_media), (JobState::Queued, 0, true));
    assert_eq!((job.priority, job.reference.as_deref()), (Priority::Live, Some("post 9")));
    assert_eq!(s.job("a", job.id).unwrap(), Some(job.clone()));
    assert_eq!(s.job("b", job.id).unwrap(), None);
    assert_eq!((s.counts().live, s.counts().running), (1, 0));

    let task = s.next(Slot::Ordinary).unwrap();
    assert_eq!((task.path, task.job.state), (media.clone(), JobState::Running));
    assert_eq!((s.counts().live, s.counts().running), (0, 1));
    assert!(s.finish(job.id, video(&s, job.id)).wait().unwrap());
    assert_eq!((s.counts().running, s.counts().ended.done), (0, 1));

    let ended = s.job("a", job.id).unwrap().unwrap();
    assert_eq!((ended.state, ended.attempts, ended.reused), (JobState::Done, 1, false));
    assert_eq!(ended.outcome.as_ref().unwrap().policy_version, "p1");
    assert_eq!(ended.summary, Some(summary()));
    assert!(ended.started_at.is_some() && ended.finished_at >= ended.started_at);
    // Originals are not kept unless the tenant says so.
    assert!(!ended.has_media && gone(&media));
    // The report names the media as its source does, not where it lay.
    let report = s.report("a", job.id).unwrap().unwrap();
    assert_eq!(report, samples::video().with_path("Clip One.mp4"));
    assert_eq!(s.report("b", job.id).unwrap(), None);
    assert_eq!(s.whats(job.id), ["job.accepted", "job.done"]);

    let due = s.deliveries_due(Time::now(), 10).unwrap();
    let [delivery] = due.as_slice() else { panic!("{due:?}") };
    let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
    assert_eq!(body["id"], delivery.id.to_string());
    assert_eq!(body["event"], "job.done");
    assert_eq!(serde_json::from_value::<Job>(body["job"].clone()).unwrap(), ended);

    // It ends once.
    assert!(!s.finish(job.id, done(samples::failed())).wait().unwrap());
    assert_eq!(s.job("a", job.id).unwrap().unwrap(), ended);
    assert_eq!(s.whats(job.id).len(), 2);
    assert_eq!(s.deliveries_due(Time::now(), 10).unwrap().len(), 1);
}

#[test]
fn a_failed_report_fails_the_job_and_is_given_to_no_other() {
    let s = place();
    let job = s.accept(new("b"));
    let mut report = samples::failed();
    report.media.sha256 = job.sha256.clone();
    let ended = s.judge(job.id, done(report));
    assert_eq!(ended.state, JobState::Failed);
    assert_eq!(ended.error.unwrap().code, "unrecognised");
    assert_eq!(s.whats(job.id), ["job.accepted", "job.failed"]);
    s.accept(new("b"));
    // No webhook, no delivery.
    assert_eq!(s.deliveries_due(Time::now(), 10).unwrap(), []);
}

#[test]
fn the_same_content_is_answered_at_once() {
    let s = place();
    let first = s.accept(new("a"));
    s.judge(first.id, video(&s, first.id));
    let again = NewJob {
        declared_ai: true,
        source: Source::Upload { name: "other name.mov".into() },
        ..new("a")
    };
    let media = s.put_upload(again.id);
    let id = again.id;
    let Submission::Reused(job) = s.submit(again).wait().unwrap() else { panic!() };
    assert_eq!((job.state, job.reused, job.attempts), (JobState::Done, true, 0));
    assert_eq!(job.summary, Some(summary()));
    // Judged by the policy anew, with this uploader's declaration.
    let outcome = job.outcome.unwrap();
    assert_eq!((outcome.action, outcome.policy_version.as_str()), (Action::Block, "p2"));
    assert_eq!(outcome.disposition, DispositionState::Possible);
    let report = s.report("a", id).unwrap().unwrap();
    assert_eq!(report.media.path, "other name.mov");
    assert_eq!(report.disposition.state, DispositionState::Possible);
    assert_ne!(
        s.report("a", first.id).unwrap().unwrap().disposition.state,
        DispositionState::Possible
    );
    assert!(!job.has_media && gone(&media));
    assert_eq!(s.whats(id), ["job.accepted", "job.done"]);
    assert_eq!(s.deliveries_due(Time::now(), 10).unwrap().len(), 2);
    assert_eq!((s.counts().ended.done, s.counts().ended.reused), (2, 1));
    // Not another tenant's, and not another engine's.
    s.accept(new("b"));
    let Place { dir, store } = s;
    drop(store);
    let newer = StoreOptions { fingerprint: "e2".into(), ..options(100) };
    let store = Store::open(dir.path(), newer).unwrap();
    assert!(matches!(store.submit(new("a")).wait().unwrap(), Submission::Accepted(_)));
}

#[test]
fn a_job_at_work_can_end_with_the_report_of_another() {
    let s = place();
    let sha256 = samples::video().media.sha256.unwrap();
    let (first, second) = (s.accept(new("a")), s.accept(NewJob { sha256: None, ..new("a") }));
    let media = s.put_upload(second.id);
    assert_eq!(s.reuse(&second, &sha256).wait().unwrap(), None);
    s.judge(first.id, video(&s, first.id));
    assert_eq!(s.next(Slot::Ordinary).unwrap().job.id, second.id);
    assert_eq!(s.reuse(&second, "00").wait().unwrap(), None);
    assert_eq!(s.counts().running, 1);
    let ended = s.reuse(&second, &sha256).wait().unwrap().unwrap();
    assert_eq!((ended.state, ended.reused, ended.attempts), (JobState::Done, true, 1));
    assert_eq!((ended.sha256.as_ref(), s.counts().running), (Some(&sha256), 0));
    assert!(gone(&media));
    assert_eq!(s.reuse(&second, &sha256).wait().unwrap(), None);
    assert!(!s.finish(second.id, video(&s, second.id)).wait().unwrap());
    assert_eq!(s.whats(second.id), ["job.accepted", "job.done"]);
}

#[test]
fn a_repeated_request_gets_the_first_answer() {
    let s = place();
    let marked = |key: &str, digest: &str| NewJob {
        idempotency: Some(Idempotency { key: key.into(), digest: digest.into() }),
        ..new("a")
    };
    let job = s.accept(marked("k", "d"));
    assert_eq!(s.submit(marked("k", "d")).wait().unwrap(), Submission::Replayed(job.clone()));
    assert_eq!(s.submit(marked("k", "other")).wait().unwrap(), Submission::IdempotencyConflict);
    // Another tenant's keys are its own.
    s.accept(NewJob { tenant: "b".into(), ..marked("k", "d") });
    assert_eq!(s.whats(job.id), ["job.accepted"]);
    // Where the job was deleted it can be submitted again; and after a day.
    assert!(s.delete("a", job.id, "bot").wait().unwrap());
    let second = s.accept(marked("k", "d"));
    s.sql("UPDATE idempotency SET created = created - 86400001");
    assert_ne!(s.accept(marked("k", "other")).id, second.id);
}

#[test]
fn a_hundred_threads_with_one_key_make_one_job() {
    let s = place();
    let jobs: BTreeSet<JobId> = std::thread::scope(|scope| {
        let one = || {
            let mark = Idempotency { key: "k".into(), digest: "d".into() };
            match s.submit(NewJob { idempotency: Some(mark), ..new("a") }).wait().unwrap() {
                Submission::Accepted(job) | Submission::Replayed(job) => job.id,
                other => panic!("{other:?}"),
            }
        };
        let all: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(jobs.len(), 1);
    assert_eq!(s.counts().normal, 1);
}

#[test]
fn no_more_jobs_wait_than_may_however_many_come_at_once() {
    let s = place_of(30);
    let submit = |tenant: &str, priority| {
        let job = NewJob { tenant_max_queued: 20, priority, sha256: None, ..new(tenant) };
        s.submit(job).wait().unwrap()
    };
    let barrier = Barrier::new(60);
    let one = |n: usize| {
        barrier.wait();
        submit(["a", "b"][n % 2], Priority::Batch)
    };
    let one = &one;
    let answers: Vec<Submission> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..60).map(|n| scope.spawn(move || one(n))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |f: fn(&Submission) -> bool| answers.iter().filter(|a| f(a)).count();
    // A tenth is for live jobs.
    assert_eq!(count(|a| matches!(a, Submission::Accepted(_))), 27);
    assert_eq!(s.counts().batch, 27);
    assert_eq!(submit("c", Priority::Normal), Submission::Full);
    for _ in 0..3 {
        assert!(matches!(submit("c", Priority::Live), Submission::Accepted(_)));
    }
    assert_eq!(submit("c", Priority::Live), Submission::Full);
    // What is taken makes room; what was refused left nothing.
    s.next(Slot::Ordinary).unwrap();
    assert!(matches!(submit("c", Priority::Live), Submission::Accepted(_)));
    let rows = s.audit(None, None, None, 1_000).unwrap();
    assert_eq!(rows.iter().filter(|e| e.what == "job.accepted").count(), 31);

    let s = place();
    let job = || s.submit(NewJob { tenant_max_queued: 2, ..url("a") }).wait().unwrap();
    assert!(matches!((job(), job()), (Submission::Accepted(_), Submission::Accepted(_))));
    assert_eq!(job(), Submission::TenantFull);
    s.accept(new("b"));
}

#[test]
fn writes_that_wait_share_a_transaction_and_one_that_fails_costs_the_others_nothing() {
    let s = place();
    let (release, held) = mpsc::channel::<()>();
    let before = s.counts();
    let first = s.write(
        move |_| {
            held.recv().unwrap();
            Ok(((), ()))
        },
        |_, ()| {},
    );
    let many: Vec<_> = (0..50).map(|_| s.submit(new("a"))).collect();
    let bad = s.write(
        |db| {
            db.execute("DELETE FROM jobs", []).unwrap();
            let fail = |e| sqlite_error(Path::new("p"), e);
            db.execute("INSERT INTO nothing VALUES (1)", []).map_err(fail)?;
            Ok(((), ()))
        },
        |_, ()| panic!("it is not on the disk"),
    );
    let after = s.submit(new("b"));
    release.send(()).unwrap();
    first.wait().unwrap();
    assert!(matches!(bad.wait(), Err(StoreError::Sqlite { .. })));
    for one in many.into_iter().chain([after]) {
        let Submission::Accepted(job) = one.wait().unwrap() else { panic!() };
        assert!(s.job(&job.tenant, job.id).unwrap().is_some());
    }
    let counts = s.counts();
    assert_eq!(counts.writes - before.writes, 53);
    // The first alone or with some, the rest together.
    assert!(counts.commits - before.commits <= 2, "{counts:?}");
}

#[test]
fn what_ran_waits_again_after_a_stop_and_fails_when_it_ran_too_often() {
    let mut s = place();
    let waits = s.accept(new("b"));
    let job = s.accept(NewJob { priority: Priority::Live, ..new("a") });
    s.put_upload(job.id);
    for attempt in 1..=MAX_ATTEMPTS + 1 {
        let task = s.next(Slot::LiveOnly).unwrap();
        assert_eq!((task.job.id, task.job.attempts), (job.id, attempt));
        s = s.again();
    }
    let failed = s.job("a", job.id).unwrap().unwrap();
    assert_eq!((failed.state, failed.attempts), (JobState::Failed, 4));
    assert_eq!(failed.error.unwrap().code, "crashed");
    assert!(!s.upload_path(job.id).exists());
    let report = s.report("a", job.id).unwrap().unwrap();
    let schema: serde_json::Value = serde_json::from_str(crate::report::SCHEMA).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    assert!(schema.is_valid(&serde_json::to_value(&report).unwrap()));
    assert_eq!(s.whats(job.id), ["job.accepted", "job.failed"]);
    assert_eq!(s.deliveries_due(Time::now(), 10).unwrap().len(), 1);
    // The other was never begun.
    assert_eq!(s.next(Slot::Ordinary).unwrap().job.id, waits.id);
}

#[test]
fn what_ran_when_a_server_died_is_begun_one_at_a_time() {
    let s = place();
    let many = || NewJob { sha256: None, ..new("a") };
    let jobs: Vec<Job> = (0..6).map(|_| s.accept(many())).collect();
    let take = |s: &Place| s.next(Slot::Ordinary).unwrap().job.id;
    for job in &jobs[..3] {
        assert_eq!(take(&s), job.id);
    }
    let s = s.again();
    assert_eq!(s.counts().normal, 6);
    // One of the three beside what never ran.
    assert_eq!([take(&s), take(&s)], [jobs[0].id, jobs[3].id]);
    // One put back is still the one.
    s.requeue(jobs[0].id).wait().unwrap();
    assert_eq!([take(&s), take(&s)], [jobs[0].id, jobs[4].id]);
    assert!(s.finish(jobs[0].id, done(samples::failed())).wait().unwrap());
    assert_eq!([take(&s), take(&s)], [jobs[1].id, jobs[5].id]);
    assert_eq!(s.counts().normal, 1);
    // One that waits for its turn can be deleted, and one that has it makes way.
    assert!(s.delete("a", jobs[2].id, "bot").wait().unwrap());
    assert_eq!(s.counts().normal, 0);
    let s = s.again();
    // All but the first two ran; two of them twice.
    assert_eq!(s.job("a", jobs[1].id).unwrap().unwrap().attempts, 2);
    assert_eq!(take(&s), jobs[1].id);
    assert!(s.delete("a", jobs[1].id, "bot").wait().unwrap());
    assert_eq!(take(&s), jobs[3].id);
    assert_eq!(s.counts().normal, 2);
}

#[test]
fn a_job_put_back_counts_no_attempt() {
    let s = place();
    let job = s.accept(new("a"));
    for _ in 0..5 {
        assert_eq!(s.next(Slot::Ordinary).unwrap().job.attempts, 1);
        s.requeue(job.id).wait().unwrap();
        let row = s.job("a", job.id).unwrap().unwrap();
        assert_eq!((row.state, row.attempts, row.started_at), (JobState::Queued, 0, None));
    }
    let s = s.again();
    assert_eq!(s.judge(job.id, video(&s, job.id)).attempts, 1);
}

#[test]
fn files_of_no_job_go_when_the_store_is_opened() {
    let s = place();
    let judged = s.accept(new("a"));
    s.judge(judged.id, video(&s, judged.id));
    let waits = s.accept(new("b"));
    let kept = s.put_upload(waits.id);
    let previews = s.previews_path("a", judged.id).unwrap().unwrap();
    assert_eq!(previews, s.contents_path("a", judged.sha256.as_ref().unwrap()));
    let others = [
        s.put_upload(Uuid::now_v7()),
        s.put_upload(judged.id),
        s.data().join("uploads").join(format!("{}.part", Uuid::now_v7())),
        s.contents_path("a", "00ff").join("index.json"),
        s.contents_path("gone", "00ff").join("index.json"),
    ];
    for file in others.iter().chain([&previews.join("index.json")]) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    let s = s.again();
    for file in &others {
        assert!(!file.exists(), "{}", file.display());
    }
    assert!(kept.exists() && previews.join("index.json").exists());
    assert_eq!(s.next(Slot::Ordinary).unwrap().path, kept);
}

#[test]
fn one_server_a_folder_and_admins_beside_it() {
    let s = place();
    assert!(matches!(Store::open(s.data(), options(1)), Err(StoreError::Locked { .. })));
    let admin = Store::open_admin(s.data()).unwrap();
    admin.put_tenant(Tenant::named("c")).wait().unwrap();
    assert_eq!(s.tenant("c").unwrap().unwrap().name, "c");
    assert!(admin.next(Slot::Ordinary).is_none());
    // Both write at the same time.
    std::thread::scope(|scope| {
        let put = |store: &Store, prefix: &str| {
            for n in 0..20 {
                store.put_tenant(Tenant::named(&format!("{prefix}{n}"))).wait().unwrap();
            }
        };
        scope.spawn(move || put(&admin, "x"));
        put(&s, "y");
    });
    assert_eq!(s.tenants().unwrap().len(), 43);
    let s = s.again();
    assert_eq!(s.tenants().unwrap().len(), 43);
}

#[test]
fn files_that_are_no_store_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serve.sqlite");
    std::fs::write(&file, "no database, however long this text may be. ".repeat(40)).unwrap();
    assert!(matches!(Store::open(dir.path(), options(1)), Err(StoreError::Foreign { .. })));
    std::fs::remove_file(&file).unwrap();
    drop(crate::report::store::Store::open(&file).unwrap());
    assert!(matches!(Store::open(dir.path(), options(1)), Err(StoreError::Foreign { .. })));
    std::fs::remove_file(&file).unwrap();
    drop(Store::open(dir.path(), options(1)).unwrap());
    connect(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(dir.path(), options(1)).err().unwrap();
    assert!(matches!(error, StoreError::Version { found: 99, .. }));
    assert!(error.to_string().contains("serve.sqlite"));
}

#[test]
fn a_job_can_be_deleted_at_any_time() {
    let s = place();
    // Waiting.
    let job = s.accept(new("a"));
    let media = s.put_upload(job.id);
    assert!(!s.delete("b", job.id, "bot").wait().unwrap());
    assert!(s.delete("a", job.id, "bot").wait().unwrap());
    assert!(!s.delete("a", job.id, "bot").wait().unwrap());
    assert_eq!(s.job("a", job.id).unwrap(), None);
    assert!(gone(&media));
    assert_eq!((s.counts().normal, s.counts().ended.cancelled), (0, 1));
    assert_eq!(s.whats(job.id), ["job.accepted", "job.cancelled"]);
    // Running: whoever works on it is told, and its end is not taken.
    let job = s.accept(new("a"));
    let task = s.next(Slot::Ordinary).unwrap();
    assert!(!task.cancel.load(Ordering::SeqCst));
    assert!(s.delete("a", job.id, "bot").wait().unwrap());
    assert!(task.cancel.load(Ordering::SeqCst));
    assert!(!s.finish(job.id, video(&s, job.id)).wait().unwrap());
    s.requeue(job.id).wait().unwrap();
    assert_eq!((s.counts().running, s.counts().normal), (0, 0));
    assert_eq!(s.whats(job.id), ["job.accepted", "job.cancelled"]);
    // Done: report and previews stay as long as another job has the same content.
    let first = s.accept(new("a"));
    s.judge(first.id, video(&s, first.id));
    let Submission::Reused(second) = s.submit(new("a")).wait().unwrap() else { panic!() };
    let previews = s.previews_path("a", first.id).unwrap().unwrap();
    std::fs::create_dir_all(&previews).unwrap();
    let decision = Decision {
        verdict: Verdict::Block,
        fake: Some(true),
        note: String::new(),
        by: "eve".into(),
        at: Time::now(),
    };
    s.decide("a", first.id, decision).wait().unwrap().unwrap();
    assert!(s.delete("a", first.id, "bot").wait().unwrap());
    assert!(previews.exists() && s.report("a", second.id).unwrap().is_some());
    assert_eq!(s.whats(first.id), ["job.accepted", "job.done", "job.decided", "job.deleted"]);
    assert!(s.delete("a", second.id, "bot").wait().unwrap());
    assert!(gone(&previews));
    assert_eq!(s.sql("DELETE FROM reports"), 0);
    s.accept(new("a"));
}

#[test]
fn a_file_of_the_server_is_never_deleted() {
    let s = place();
    let file = s.data().join("film.mp4");
    std::fs::write(&file, "film").unwrap();
    let source = Source::Path { path: file.to_string_lossy().into_owned() };
    let by_path = || NewJob { source: source.clone(), sha256: None, ..new("a") };
    let job = s.accept(by_path());
    assert_eq!(s.next(Slot::Ordinary).unwrap().path, file);
    let report = samples::video().with_path(&file.to_string_lossy());
    assert!(s.finish(job.id, done(report)).wait().unwrap());
    let ended = s.job("a", job.id).unwrap().unwrap();
    assert!(ended.has_media);
    // The content is known from the report.
    assert_eq!(ended.sha256, samples::video().media.sha256);
    s.accept(by_path());
    assert!(s.delete("a", job.id, "bot").wait().unwrap());
    s.sweep(Time(Time::now().0 + 400 * DAY_MS)).unwrap();
    let s = s.again();
    assert!(s.data().join("film.mp4").exists());
}

#[tokio::test]
async fn a_url_is_fetched_then_judged() {
    let s = place();
    let first = s.accept(url("a"));
    assert_eq!((first.state, first.has_media), (JobState::Fetching, false));
    assert_eq!((s.counts().fetching, s.counts().normal), (1, 0));
    let task = s.next_fetch().await.unwrap();
    assert_eq!((task.job.id, task.url.as_str()), (first.id, "https://media.example/a.mp4"));
    assert_eq!(s.counts().fetching, 1);
    std::fs::write(&task.path, "media").unwrap();
    let sha256 = samples::video().media.sha256.unwrap();
    let job = s.fetched(&task.job, sha256.clone(), 5).await.unwrap().unwrap();
    assert_eq!((job.state, job.has_media, job.bytes), (JobState::Queued, true, Some(5)));
    assert_eq!((s.counts().fetching, s.counts().normal), (0, 1));
    s.judge(job.id, video(&s, job.id));
    assert!(gone(&task.path));
    // The same content again is done when it is here; a store that stops fetches anew.
    s.accept(url("a"));
    s.next_fetch().await.unwrap();
    let s = s.again();
    let task = s.next_fetch().await.unwrap();
    std::fs::write(&task.path, "media").unwrap();
    let job = s.fetched(&task.job, sha256.clone(), 5).await.unwrap().unwrap();
    assert_eq!((job.state, job.reused, job.has_media), (JobState::Done, true, false));
    assert!(gone(&task.path));
    assert_eq!((s.counts().fetching, s.counts().normal), (0, 0));
    // What cannot be fetched fails; what was cancelled is gone.
    let job = s.accept(url("a"));
    s.next_fetch().await.unwrap();
    assert!(s.finish(job.id, done(samples::failed())).await.unwrap());
    assert_eq!(s.job("a", job.id).unwrap().unwrap().state, JobState::Failed);
    let job = s.accept(url("a"));
    let task = s.next_fetch().await.unwrap();
    assert!(s.delete("a", job.id, "bot").await.unwrap());
    assert!(task.cancel.load(Ordering::SeqCst));
    std::fs::write(&task.path, "media").unwrap();
    assert_eq!(s.fetched(&task.job, sha256, 5).await.unwrap(), None);
    assert!(gone(&task.path));
    assert_eq!(s.counts().fetching, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_work_are_woken() {
    let s = place();
    let store = s.store.clone();
    let fetcher = tokio::spawn(async move {
        let task = store.next_fetch().await.unwrap();
        (task.job.id, store.next_fetch().await.is_none())
    });
    let store = s.store.clone();
    let worker = std::thread::spawn(move || {
        let task = store.next(Slot::Ordinary).unwrap();
        (task.job.id, store.next(Slot::LiveOnly).is_none())
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (by_url, upload) = (s.accept(url("a")), s.accept(new("a")));
    // Nothing for a slot for live jobs.
    tokio::time::sleep(Duration::from_millis(20)).await;
    s.close();
    assert_eq!(fetcher.await.unwrap(), (by_url.id, true));
    assert_eq!(worker.join().unwrap(), (upload.id, true));
    // What runs can still end.
    assert!(s.finish(upload.id, video(&s, upload.id)).await.unwrap());
}

#[test]
fn a_listing_has_what_the_filter_asks_for_page_by_page() {
    let s = place();
    let mut ids = Vec::new();
    for n in 0..12 {
        let priority = if n % 3 == 0 { Priority::Live } else { Priority::Batch };
        let job = s.accept(NewJob {
            priority,
            sha256: Some(format!("{n:064x}")),
            reference: (n % 2 == 0).then(|| format!("Post-{n}")),
            ..new("a")
        });
        ids.push(job.id);
    }
    s.accept(new("b"));
    // Live first: 0, 3, 6, 9.
    for n in [0, 3, 6, 9] {
        let mut report = if n == 9 { samples::failed() } else { samples::video() };
        report.media.sha256 = Some(format!("{n:064x}"));
        if n == 6 {
            report.segments.clear();
        }
        let mut finished = done(report);
        if n == 3 {
            finished.outcome.action = Action::Block;
        }
        s.judge(ids[n], finished);
    }
    let decision = Decision {
        verdict: Verdict::Allow,
        fake: None,
        note: "fine".into(),
        by: "eve".into(),
        at: Time::now(),
    };
    s.decide("a", ids[3], decision).wait().unwrap().unwrap();
    let places = |filter: JobFilter, limit: usize| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (jobs, next) = s.jobs("a", &filter, after, limit).unwrap();
            assert!(jobs.len() <= limit);
            all.extend(jobs.iter().map(|j| ids.iter().position(|id| *id == j.id).unwrap()));
            match next {
                Some(_) => after = next,
                None => return all,
            }
        }
    };
    let any = JobFilter::default;
    for limit in [1, 5, 12, 100] {
        assert_eq!(places(any(), limit), (0..12).rev().collect::<Vec<_>>());
    }
    let disposition = Some(samples::video().disposition.state);
    for (filter, wanted) in [
        (JobFilter { state: Some(JobState::Done), ..any() }, vec![6, 3, 0]),
        (JobFilter { state: Some(JobState::Failed), ..any() }, vec![9]),
        (JobFilter { state: Some(JobState::Queued), ..any() }, vec![11, 10, 8, 7, 5, 4, 2, 1]),
        (JobFilter { action: Some(Action::Block), ..any() }, vec![3]),
        (JobFilter { action: Some(Action::Review), ..any() }, vec![9, 6, 0]),
        (JobFilter { priority: Some(Priority::Live), ..any() }, vec![9, 6, 3, 0]),
        (JobFilter { disposition, ..any() }, vec![6, 3, 0]),
        (JobFilter { decided: Some(true), ..any() }, vec![3]),
        (JobFilter { decided: Some(false), state: Some(JobState::Done), ..any() }, vec![6, 0]),
        (JobFilter { detector: Some(DetectorKind::FaceSwap), ..any() }, vec![3, 0]),
        (JobFilter { text: Some("pOsT-1".into()), ..any() }, vec![10]),
        (JobFilter { text: Some(format!("{:063x}", 0)), ..any() }, (0..12).rev().collect()),
        (JobFilter { text: Some("clip one".into()), ..any() }, (0..12).rev().collect()),
        (JobFilter { text: Some("100%".into()), ..any() }, vec![]),
    ] {
        assert_eq!(places(filter.clone(), 2), wanted, "{filter:?}");
    }
}

#[test]
fn decisions_are_kept_in_order_and_the_last_shows() {
    let s = place();
    let job = s.accept(new("a"));
    let make = |verdict, by: &str| Decision {
        verdict,
        fake: Some(false),
        note: "looked at twice".into(),
        by: by.into(),
        at: Time(5),
    };
    let (one, two) = (make(Verdict::Escalate, "eve"), make(Verdict::Allow, "adam"));
    s.decide("a", job.id, one.clone()).wait().unwrap().unwrap();
    let job = s.decide("a", job.id, two.clone()).wait().unwrap().unwrap();
    assert_eq!(job.decision, Some(two.clone()));
    assert_eq!(s.job("a", job.id).unwrap(), Some(job.clone()));
    assert_eq!(s.decisions("a", job.id).unwrap(), [one, two.clone()]);
    assert_eq!(s.decisions("b", job.id).unwrap(), []);
    assert_eq!(s.decide("b", job.id, two).wait().unwrap(), None);
    let events: Vec<String> =
        s.deliveries_due(Time::now(), 9).unwrap().into_iter().map(|d| d.event).collect();
    assert_eq!(events, ["job.decided", "job.decided"]);
    let entry = s.audit(Some("a"), Some(job.id), None, 1).unwrap().remove(0);
    assert_eq!((entry.what.as_str(), entry.key.as_str()), ("job.decided", "adam"));
    assert!(entry.detail.contains("looked at twice"));
}

#[test]
fn a_delivery_is_tried_until_it_is_taken_or_given_up_and_can_be_replayed() {
    let s = place();
    for _ in 0..3 {
        let job = s.accept(NewJob { sha256: None, ..new("a") });
        s.judge(job.id, done(samples::failed()));
    }
    let now = Time::now();
    let due = |at: i64| s.deliveries_due(Time(now.0 + at), 10).unwrap();
    let [one, two, three] = <[Delivery; 3]>::try_from(due(0)).unwrap();
    s.delivered(one.id).wait().unwrap();
    s.delivery_failed(two.id, "status 500", Some(Time(now.0 + 5_000))).wait().unwrap();
    s.delivery_failed(three.id, "no such host", None).wait().unwrap();
    assert_eq!(due(0), []);
    let [retry] = <[Delivery; 1]>::try_from(due(5_000)).unwrap();
    assert_eq!((retry.id, retry.attempts, &retry.body), (two.id, 1, &two.body));
    assert_eq!(retry.last_error.as_deref(), Some("status 500"));
    let states = |state| -> Vec<Uuid> {
        s.deliveries("a", state, None, 10).unwrap().0.into_iter().map(|d| d.id).collect()
    };
    assert_eq!(states(None), [three.id, two.id, one.id]);
    assert_eq!(states(Some(DeliveryState::Dead)), [three.id]);
    assert_eq!(s.deliveries("b", None, None, 10).unwrap().0, []);
    let (page, next) = s.deliveries("a", None, None, 2).unwrap();
    assert_eq!((page.len(), next), (2, Some(Cursor(two.id))));
    assert_eq!(s.deliveries("a", None, next, 2).unwrap().0[0].id, one.id);
    // It outlives a stop, and its job.
    assert!(s.delete("a", three.job, "bot").wait().unwrap());
    let s = s.again();
    assert!(!s.replay("b", three.id, "eve").wait().unwrap());
    assert!(s.replay("a", three.id, "eve").wait().unwrap());
    let again = s.deliveries_due(Time::now(), 10).unwrap();
    assert_eq!((again[0].id, again[0].attempts, &again[0].body), (three.id, 0, &three.body));
    // A late failure of the earlier call takes nothing back once it was taken.
    s.delivered(three.id).wait().unwrap();
    s.delivery_failed(three.id, "late", None).wait().unwrap();
    let (taken, _) = s.deliveries("a", Some(DeliveryState::Delivered), None, 10).unwrap();
    assert_eq!(taken.len(), 2);
}

#[test]
fn keys_are_kept_hashed_and_end_when_they_are_revoked() {
    let s = place();
    let scopes = BTreeSet::from([Scope::Submit, Scope::Read]);
    let (key, secret) = s.add_key("a", "uploader", &scopes).wait().unwrap();
    assert!(secret.starts_with("vs_") && secret.len() == 46, "{secret}");
    let (_, other) = s.add_key("b", "uploader", &scopes).wait().unwrap();
    assert_ne!(secret, other);
    let info = s.key(&secret).unwrap().unwrap();
    assert_eq!((info.tenant.name.as_str(), info.key_name.as_str()), ("a", "uploader"));
    assert_eq!((info.key_id, info.scopes), (key.id, scopes.clone()));
    for bad in ["", "vs_", &secret[..45], &secret.to_lowercase(), &format!("{secret} ")] {
        assert_eq!(s.key(bad).unwrap(), None, "{bad}");
    }
    let wait = |result: Pending<(ApiKey, String)>| result.wait().unwrap_err().to_string();
    assert!(wait(s.add_key("a", "uploader", &scopes)).contains("already"));
    assert!(wait(s.add_key("nobody", "k", &scopes)).contains("no tenant"));
    assert_eq!(s.keys("a").unwrap(), std::slice::from_ref(&key));
    assert!(!s.revoke_key("b", key.id).wait().unwrap());
    assert!(s.revoke_key("a", key.id).wait().unwrap());
    assert_eq!(s.key(&secret).unwrap(), None);
    assert!(s.keys("a").unwrap()[0].revoked.is_some());
    // Another process's change is seen within two seconds.
    let (key, secret) = s.add_key("a", "second", &scopes).wait().unwrap();
    assert!(s.key(&secret).unwrap().is_some());
    let admin = Store::open_admin(s.data()).unwrap();
    assert!(admin.revoke_key("a", key.id).wait().unwrap());
    std::thread::sleep(Duration::from_millis(2_050));
    assert_eq!(s.key(&secret).unwrap(), None);
    // What lies on the disk does not help to get in.
    drop(admin);
    let Place { dir, store } = s;
    drop(store);
    let bytes = std::fs::read(dir.path().join("serve.sqlite")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("uploader") && !text.contains(&secret[3..]));
}

#[test]
fn a_tenant_has_a_name_that_can_be_a_folder_and_a_secret_for_its_webhook() {
    let s = place();
    for bad in ["", "..", "a/b", "A", "-a", "ä", &"a".repeat(65)] {
        let error = s.put_tenant(Tenant::named(bad)).wait().unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{bad}");
    }
    let open = Tenant { webhook_secret: None, ..hooked("c") };
    assert!(s.put_tenant(open).wait().is_err());
    assert_eq!(s.tenants().unwrap().len(), 2);
    let changed = Tenant { rate_per_minute: 7, ..hooked("a") };
    s.put_tenant(changed.clone()).wait().unwrap();
    assert_eq!(s.tenant("a").unwrap(), Some(changed));
    // The log knows of it and not the secret.
    let log = s.audit(Some("a"), None, None, 10).unwrap();
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|e| e.what == "tenant.set" && !e.detail.contains("\"s\"")));
}

#[test]
fn a_sweep_deletes_what_is_kept_no_longer_and_no_more() {
    let s = place();
    let keeps = Tenant { keep_media_s: 3_600, keep_reports_days: 10, ..hooked("a") };
    s.put_tenant(keeps).wait().unwrap();
    let mark = Some(Idempotency { key: "k".into(), digest: "d".into() });
    let job = s.accept(NewJob { idempotency: mark, ..new("a") });
    let media = s.put_upload(job.id);
    let ended = s.judge(job.id, video(&s, job.id));
    assert!(ended.has_media && media.exists());
    let Submission::Reused(second) = s.submit(new("a")).wait().unwrap() else { panic!() };
    assert!(second.has_media);
    s.sql(&format!(
        "UPDATE jobs SET media = 0, finished_at = finished_at + {DAY_MS}
         WHERE reused = 1"
    ));
    let waits = s.accept(NewJob { sha256: None, ..new("a") });
    let due = s.deliveries_due(Time::now(), 10).unwrap();
    s.delivered(due[0].id).wait().unwrap();
    let previews = s.previews_path("a", job.id).unwrap().unwrap();
    std::fs::create_dir_all(&previews).unwrap();
    let start = Time::now().0;
    let sweep = |after: i64| s.sweep(Time(start + after)).unwrap();

    assert_eq!(sweep(3_500_000), Swept::default());
    assert_eq!(sweep(3_700_000), Swept { media: 1, ..Swept::default() });
    assert!(gone(&media));
    assert!(!s.job("a", job.id).unwrap().unwrap().has_media);
    assert_eq!(sweep(DAY_MS + 60_000), Swept { idempotency: 1, ..Swept::default() });
    assert_eq!(sweep(10 * DAY_MS + 60_000), Swept { jobs: 1, ..Swept::default() });
    assert_eq!(s.job("a", job.id).unwrap(), None);
    assert!(previews.exists() && s.report("a", second.id).unwrap().is_some());
    assert_eq!(sweep(11 * DAY_MS + 60_000), Swept { jobs: 1, ..Swept::default() });
    assert!(gone(&previews));
    assert_eq!(s.whats(job.id), ["job.accepted", "job.done", "job.expired"]);
    // The other delivery is still under way.
    assert_eq!(sweep(31 * DAY_MS), Swept { deliveries: 1, ..Swept::default() });
    assert_eq!(sweep(182 * DAY_MS), Swept::default());
    let log = s.audit(None, None, None, 100).unwrap().len();
    assert_eq!(sweep(184 * DAY_MS).audit, log);
    // What has not ended is not swept.
    assert_eq!(s.judge(waits.id, done(samples::failed())).state, JobState::Failed);
    assert_eq!(s.deliveries_due(Time::now(), 10).unwrap().len(), 2);
}

#[test]
fn media_goes_with_the_next_sweep_once_a_tenant_keeps_none() {
    let s = place();
    let keeps = |seconds| Tenant { keep_media_s: seconds, ..hooked("a") };
    s.put_tenant(keeps(86_400)).wait().unwrap();
    let job = s.accept(new("a"));
    let media = s.put_upload(job.id);
    assert!(s.judge(job.id, video(&s, job.id)).has_media);
    // Answered from that report, with media of its own.
    let again = NewJob { source: Source::Upload { name: "again.mp4".into() }, ..new("a") };
    let (second, other) = (again.id, s.put_upload(again.id));
    let Submission::Reused(_) = s.submit(again).wait().unwrap() else { panic!() };
    // By path: never the store's to delete.
    let file = s.data().join("film.mp4");
    std::fs::write(&file, "film").unwrap();
    let source = Source::Path { path: file.to_string_lossy().into_owned() };
    let Submission::Reused(_) = s.submit(NewJob { source, ..new("a") }).wait().unwrap() else {
        panic!()
    };
    // Not yet judged: needed, whatever is kept.
    let waits = s.accept(NewJob { sha256: None, ..new("a") });
    let needed = s.put_upload(waits.id);
    let soon = || s.sweep(Time(Time::now().0 + 1)).unwrap();
    assert_eq!(soon(), Swept::default());

    let admin = Store::open_admin(s.data()).unwrap();
    admin.put_tenant(keeps(0)).wait().unwrap();
    assert_eq!(soon(), Swept { media: 2, ..Swept::default() });
    assert!(gone(&media) && gone(&other));
    assert!(file.exists() && needed.exists());
    for id in [job.id, second] {
        assert!(!s.job("a", id).unwrap().unwrap().has_media);
        assert!(s.report("a", id).unwrap().is_some());
    }
    assert!(s.judge(waits.id, done(samples::failed())).state == JobState::Failed && gone(&needed));
}

#[test]
fn deliveries_are_counted() {
    let s = place();
    let counts = || {
        // Past the time for which a count holds.
        std::thread::sleep(Duration::from_millis(1_050));
        s.delivery_counts().unwrap()
    };
    assert_eq!(counts(), DeliveryCounts::default());
    let begun = Time::now();
    for _ in 0..3 {
        let job = s.accept(NewJob { sha256: None, ..new("a") });
        s.judge(job.id, done(samples::failed()));
    }
    let made = Time::now();
    let found = counts();
    assert_eq!((found.pending, found.delivered, found.dead), (3, 0, 0));
    assert!((begun..=made).contains(&found.oldest.unwrap()), "{found:?}");
    let [one, two, three] =
        <[Delivery; 3]>::try_from(s.deliveries_due(Time::now(), 10).unwrap()).unwrap();
    s.delivered(one.id).wait().unwrap();
    s.delivery_failed(two.id, "status 500", Some(Time(made.0 + 60_000))).wait().unwrap();
    s.delivery_failed(three.id, "no such host", None).wait().unwrap();
    // A late failure of what is not pending, and what is gone, count for nothing.
    s.delivery_failed(three.id, "late", None).wait().unwrap();
    s.delivered(Uuid::now_v7()).wait().unwrap();
    let found = counts();
    assert_eq!((found.pending, found.delivered, found.dead), (1, 1, 1));
    assert!((found.oldest.unwrap().0 - two.created.0).abs() <= 1_000, "{found:?}");
    assert!(s.replay("a", three.id, "eve").wait().unwrap());
    s.delivered(two.id).wait().unwrap();
    let found = counts();
    assert_eq!((found.pending, found.delivered, found.dead), (1, 2, 1));

    // Each is its job's, and its job's tenant's.
    let of = |tenant: &str, job| s.deliveries_of(tenant, job, 10).unwrap();
    assert_eq!(of("a", two.job).iter().map(|d| d.id).collect::<Vec<_>>(), [two.id]);
    assert_eq!(of("b", two.job), []);
    let decision = Decision {
        verdict: Verdict::Allow,
        fake: None,
        note: String::new(),
        by: "eve".into(),
        at: Time::now(),
    };
    s.decide("a", two.job, decision).wait().unwrap().unwrap();
    let both: Vec<String> = of("a", two.job).into_iter().map(|d| d.event).collect();
    assert_eq!(both, ["job.decided", "job.failed"]);
    assert_eq!(s.deliveries_of("a", two.job, 1).unwrap()[0].event, "job.decided");
    // In a folder of an earlier version the index is made when it is opened.
    s.sql("DROP INDEX deliveries_of_job");
    let s = s.again();
    assert_eq!(s.deliveries_of("a", two.job, 10).unwrap().len(), 2);
    s.sql("DROP INDEX deliveries_of_job");
}

/// Everything of a tenant in every table but the log, and folders of its own.
fn rows_of(s: &Place, tenant: &str) -> usize {
    let db = connect(&s.data().join("serve.sqlite")).unwrap();
    let count = |table: &str, column: &str| -> usize {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} = ?1");
        db.query_row(&sql, [tenant], |row| row.get::<_, i64>(0)).unwrap() as usize
    };
    let tables = ["keys", "reports", "jobs", "idempotency", "deliveries"];
    tables.iter().map(|table| count(table, "tenant")).sum::<usize>()
        + count("tenants", "name")
        + usize::from(s.data().join("contents").join(tenant).exists())
}

#[test]
fn a_tenant_that_is_removed_takes_all_that_it_had_with_it() {
    let s = place();
    s.put_tenant(Tenant { keep_media_s: 3_600, ..hooked("a") }).wait().unwrap();
    let (_, key) = s.add_key("a", "k", &BTreeSet::from([Scope::Submit])).wait().unwrap();
    assert!(s.key(&key).unwrap().is_some());
    // Done, decided and with media; of another tenant with the same content; waiting; at work; being
    // fetched; and a file of the server's own.
    let mark = Some(Idempotency { key: "k".into(), digest: "d".into() });
    let ended = s.accept(NewJob { idempotency: mark, ..new("a") });
    let media = s.put_upload(ended.id);
    s.judge(ended.id, video(&s, ended.id));
    let decision = Decision {
        verdict: Verdict::Block,
        fake: None,
        note: String::new(),
        by: "eve".into(),
        at: Time::now(),
    };
    s.decide("a", ended.id, decision).wait().unwrap().unwrap();
    let others = s.accept(new("b"));
    s.judge(others.id, video(&s, others.id));
    let file = s.data().join("film.mp4");
    std::fs::write(&file, "film").unwrap();
    let source = Source::Path { path: file.to_string_lossy().into_owned() };
    let by_path = s.accept(NewJob { source, sha256: None, ..new("a") });
    let at_work = s.next(Slot::Ordinary).unwrap();
    assert_eq!(at_work.job.id, by_path.id);
    let waits = s.accept(NewJob { sha256: None, ..new("a") });
    let waiting_media = s.put_upload(waits.id);
    let fetched = s.accept(url("a"));
    let theirs = s.accept(NewJob { sha256: None, ..new("b") });
    for tenant in ["a", "b"] {
        let id = if tenant == "a" { ended.id } else { others.id };
        let previews = s.previews_path(tenant, id).unwrap().unwrap();
        std::fs::create_dir_all(&previews).unwrap();
        std::fs::write(previews.join("index.json"), "{}").unwrap();
    }
    // More than one write deletes.
    s.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)
         INSERT INTO deliveries SELECT randomblob(16), 'a', randomblob(16), 'job.done', '{}',
         'dead', 1, 0, 0, NULL FROM n",
    );
    s.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)
         INSERT INTO jobs (id, tenant, state, priority, source, name, declared_ai, submitted_at,
         finished_at, media) SELECT randomblob(16), 'a', 'failed', 'batch', '{\"kind\":\"upload\",
         \"name\":\"x\"}', 'x', 0, 0, 0, 0 FROM n",
    );
    let of_b = rows_of(&s, "b");
    assert_eq!(of_b, 1 + 2 + 1 + 1);
    let of_a = s.audit(Some("a"), None, None, 1_000).unwrap().len();

    // By the command beside the server: the keys are worthless at once, and nobody else gets the name.
    let admin = Store::open_admin(s.data()).unwrap();
    assert!(!admin.remove_tenant("nobody").wait().unwrap());
    assert!(admin.remove_tenant("a").wait().unwrap());
    assert!(!admin.remove_tenant("a").wait().unwrap());
    assert_eq!(admin.key(&key).unwrap(), None);
    assert!(admin.leaves_anything("a").unwrap() && !admin.leaves_anything("b").unwrap());
    assert!(admin.lock_out().unwrap().is_none());
    let refused = admin.put_tenant(Tenant::named("a")).wait().unwrap_err().to_string();
    assert!(refused.contains("not all that it had is deleted"), "{refused}");
    assert_eq!(s.removed_tenants().unwrap(), ["a"]);
    // Nothing is kept for the time that holds where nothing else is said.
    assert_eq!(s.sweep(Time(Time::now().0 + 40 * DAY_MS)).unwrap().jobs, 0);

    // The server notices.
    let mut cancelled = Vec::new();
    s.purge("a", |id| cancelled.push(id)).unwrap();
    cancelled.sort();
    assert_eq!(cancelled, [by_path.id, waits.id, fetched.id]);
    assert!(at_work.cancel.load(Ordering::SeqCst));
    assert_eq!((rows_of(&s, "a"), rows_of(&s, "b")), (0, of_b));
    assert!(!media.exists() && !waiting_media.exists() && file.exists());
    assert!(s.removed_tenants().unwrap().is_empty() && !s.leaves_anything("a").unwrap());
    let counts = s.counts();
    assert_eq!((counts.running, counts.fetching, counts.normal), (0, 0, 1));
    assert_eq!(counts.ended.cancelled, 3);
    // What was at work comes to nothing, also where it is put back.
    assert!(!s.finish(by_path.id, done(samples::failed())).wait().unwrap());
    s.requeue(waits.id).wait().unwrap();
    assert_eq!(s.next(Slot::Ordinary).unwrap().job.id, theirs.id);
    // The log stays.
    assert_eq!(s.whats(ended.id), ["job.accepted", "job.done", "job.decided", "job.deleted"]);
    assert_eq!(s.whats(waits.id), ["job.accepted", "job.cancelled"]);
    let log = s.audit(Some("a"), None, None, 1_000).unwrap();
    assert!(log.len() > of_a && log.iter().any(|e| e.what == "tenant.removed"));
    assert!(log.iter().any(|e| e.what == "key.revoked"));

    // The name is free, and what came too late for the old tenant was not taken for the new one's.
    let late = s.accept(NewJob { sha256: None, ..new("a") });
    assert!(admin.put_tenant(Tenant::named("a")).wait().is_err());
    s.purge("a", |_| {}).unwrap();
    assert_eq!(s.job("a", late.id).unwrap(), None);
    admin.put_tenant(Tenant::named("a")).wait().unwrap();
    let fresh = s.accept(new("a"));
    s.purge("a", |_| panic!("it is known")).unwrap();
    assert_eq!(s.job("a", fresh.id).unwrap().unwrap().state, JobState::Queued);
    assert_eq!(s.keys("a").unwrap(), []);
}

#[test]
fn without_a_server_whoever_removes_a_tenant_deletes_what_it_had() {
    let s = place();
    let job = s.accept(NewJob { sha256: None, ..new("a") });
    let media = s.put_upload(job.id);
    std::fs::create_dir_all(s.contents_path("a", "00ff")).unwrap();
    let Place { dir, store } = s;
    drop(store);
    let admin = Store::open_admin(dir.path()).unwrap();
    assert!(admin.remove_tenant("a").wait().unwrap());
    let lock = admin.lock_out().unwrap().unwrap();
    assert!(matches!(Store::open(dir.path(), options(1)), Err(StoreError::Locked { .. })));
    admin.purge("a", |_| {}).unwrap();
    drop((lock, admin));
    let store = Store::open(dir.path(), options(100)).unwrap();
    let s = Place { dir, store };
    assert!(!media.exists());
    assert_eq!((rows_of(&s, "a"), s.counts().normal), (0, 0));
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_and_stops_nothing_else() {
    let s = place();
    let bad = s.accept(NewJob { sha256: None, ..new("a") });
    let good = s.accept(NewJob { sha256: None, ..new("a") });
    s.sql(&format!(
        "UPDATE jobs SET source = '{{' WHERE hex(id) = '{}'",
        bad.id.simple().to_string().to_uppercase()
    ));
    assert!(s.job("a", bad.id).is_err());
    assert!(s.job("a", good.id).unwrap().is_some());
}

/// The other side of [`a_killed_store_has_lost_nothing_and_doubled_nothing`]: works in the folder
/// that the environment names until it is killed, and says what it was told.
#[test]
#[ignore = "started by another test"]
fn child_that_is_killed() {
    let Some(data) = std::env::var_os("VERISCOPE_STORE_TEST") else { return };
    let store = Store::open(Path::new(&data), options(50)).unwrap();
    println!("\nopen");
    let say = |what: &str, id: JobId| println!("\n{what} {id}");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                loop {
                    let tenant = ["a", "b"][n % 2];
                    let job = NewJob { sha256: None, idempotency: None, ..new(tenant) };
                    let id = job.id;
                    std::fs::write(store.upload_path(id), "media").unwrap();
                    match store.submit(job).wait().unwrap() {
                        Submission::Accepted(_) => say("accepted", id),
                        _ => std::thread::sleep(Duration::from_millis(1)),
                    }
                    if n == 3 && store.delete(tenant, id, "bot").wait().unwrap() {
                        say("deleted", id);
                    }
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(task) = store.next(Slot::Ordinary) {
                    // Its media is there as long as it is not deleted or ended.
                    let there = task.path.exists() || task.cancel.load(Ordering::SeqCst);
                    let mut report = samples::video();
                    report.media.sha256 = Some(task.job.id.simple().to_string().repeat(2));
                    let ended = store.finish(task.job.id, done(report)).wait().unwrap();
                    assert!(there || !ended, "{} has no media", task.job.id);
                    if ended {
                        say("ended", task.job.id);
                    }
                }
            });
        }
    });
}

#[test]
fn a_killed_store_has_lost_nothing_and_doubled_nothing() {
    let s = place();
    let Place { dir, store } = s;
    drop(store);
    let mut told: HashMap<String, Vec<JobId>> = HashMap::new();
    for round in 0..12u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve::store::tests::child_that_is_killed", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env("VERISCOPE_STORE_TEST", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let killed_after = Duration::from_millis(20 + round * round * 7);
        let (open, opened) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            // Up to the kill; what is cut off was not told.
            let lines = lines.lines().map_while(Result::ok);
            lines
                .filter_map(|line| {
                    if line == "open" {
                        open.send(()).unwrap();
                    }
                    let (what, id) = line.split_once(' ')?;
                    Some((what.to_owned(), Uuid::try_parse(id).ok()?))
                })
                .collect::<Vec<_>>()
        });
        // From when it has opened the store.
        opened.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::sleep(killed_after);
        assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for (what, id) in reader.join().unwrap() {
            told.entry(what).or_default().push(id);
        }
    }
    let store = Store::open(dir.path(), options(100)).unwrap();
    let s = Place { dir, store };
    while s.counts().normal > 0 {
        let task = s.next(Slot::Ordinary).unwrap();
        assert!(s.finish(task.job.id, done(samples::failed())).wait().unwrap());
    }
    let db = connect(&s.data().join("serve.sqlite")).unwrap();
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let count = |sql: &str, id: JobId| -> i64 {
        db.prepare_cached(sql)
            .unwrap()
            .query_row(params![id.into_bytes()], |row| row.get(0))
            .unwrap()
    };
    let accepted = told.remove("accepted").unwrap_or_default();
    let ended: BTreeSet<JobId> = told.remove("ended").unwrap_or_default().into_iter().collect();
    let deleted: BTreeSet<JobId> = told.remove("deleted").unwrap_or_default().into_iter().collect();
    assert!(accepted.len() > 100 && ended.len() > 50, "{} {}", accepted.len(), ended.len());
    for id in accepted.iter().copied().chain(ended.iter().copied()) {
        let terminal = count(
            "SELECT count(*) FROM audit
             WHERE job = ?1 AND what IN ('job.done', 'job.failed', 'job.cancelled')",
            id,
        );
        assert_eq!(terminal, 1, "{id}");
        let row = count("SELECT count(*) FROM jobs WHERE id = ?1 AND report IS NOT NULL", id);
        let removed = count(
            "SELECT count(*) FROM audit WHERE job = ?1
             AND what IN ('job.cancelled', 'job.deleted')",
            id,
        );
        assert_eq!(row + removed, 1, "{id}");
        assert!(removed == 1 || !deleted.contains(&id), "{id} is back");
        let delivered = count("SELECT count(*) FROM deliveries WHERE job = ?1", id);
        let cancelled =
            count("SELECT count(*) FROM audit WHERE job = ?1 AND what = 'job.cancelled'", id);
        let hooked = count(
            "SELECT count(*) FROM audit WHERE job = ?1 AND tenant = 'a'
            AND what = 'job.accepted'",
            id,
        );
        assert_eq!(delivered, hooked * (1 - cancelled), "{id}");
    }
    // Nothing of the dead is left lying about.
    let s = s.again();
    assert_eq!(std::fs::read_dir(s.data().join("uploads")).unwrap().count(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn small_uploads_are_rows_as_long_as_they_are_needed() {
    let s = place();
    let keeps = Tenant { keep_media_s: 3_600, ..Tenant::named("keeps") };
    s.put_tenant(keeps).wait().unwrap();
    // Nothing else in the database looks like it.
    let content: Vec<u8> = (0..20_000u32).flat_map(|i| (i * 2_654_435_761).to_be_bytes()).collect();
    let content = content[..MOST_INLINE].to_vec();
    let small =
        |tenant: &str| NewJob { content: Some(content.clone()), sha256: None, ..new(tenant) };
    let (job, kept) = (s.accept(small("a")), s.accept(small("keeps")));
    let cancelled = s.accept(small("a"));
    // A server that starts again has them.
    let s = s.again();
    let rows = |s: &Place| -> i64 {
        let db = connect(&s.dir.path().join("serve.sqlite")).unwrap();
        db.query_row("SELECT count(*) FROM uploads", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(rows(&s), 3);
    assert!(s.delete("a", cancelled.id, "bot").wait().unwrap());
    for id in [job.id, kept.id] {
        let task = s.next(Slot::Ordinary).unwrap();
        assert_eq!(task.job.id, id);
        // Opened anew each time, from its beginning.
        for _ in 0..2 {
            assert_eq!(std::fs::read(&task.path).unwrap(), content);
        }
        assert!(!s.upload_path(id).exists());
        let done = Finished { ..video(&s, id) };
        assert!(s.finish(id, done).wait().unwrap());
        let path = task.path.clone();
        drop(task);
        assert!(
            !std::fs::read(path).is_ok_and(|bytes| bytes == content),
            "it is gone with the task"
        );
    }
    assert_eq!(rows(&s), 1);
    let found = |s: &Place| {
        ["serve.sqlite", "serve.sqlite-wal"].iter().any(|name| {
            let bytes = std::fs::read(s.dir.path().join(name)).unwrap();
            memchr::memmem::find(&bytes, &content[1_000..1_100]).is_some()
        })
    };
    let kept = s.job("keeps", kept.id).unwrap().unwrap();
    assert!(kept.has_media);
    let mut held = s.held(&kept).unwrap().unwrap();
    let mut read = Vec::new();
    std::io::Seek::rewind(&mut held).unwrap();
    std::io::Read::read_to_end(&mut held, &mut read).unwrap();
    assert!(read == content && found(&s));
    assert_eq!(s.sweep(Time(Time::now().0 + 3_700_000)).unwrap().media, 1);
    assert!(s.held(&s.job("keeps", kept.id).unwrap().unwrap()).unwrap().is_none());
    assert_eq!(rows(&s), 0);
    assert!(!found(&s), "nothing of it is left on the disk");
}
