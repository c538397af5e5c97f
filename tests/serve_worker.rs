//! The service's workers: jobs in the store become the reports that a scan gives, whatever happens
//! meanwhile.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, atomic::AtomicBool, mpsc},
    time::{Duration, Instant},
};

use common::{ffmpeg, root};
use tempfile::TempDir;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use veriscope::{
    detect::Tier,
    engine::{DeviceChoice, Engine, Observer, ScanOptions},
    models::weights::WeightStore,
    report::{DetectorKind, Report},
    serve::{
        live::{Hub, LiveEvent},
        model::{Action, Job, JobId, JobState, Outcome, Priority, Source},
        preview::{INDEX, Index},
        queue::Aging,
        store::{MakeOutcome, NewJob, Store, StoreOptions, Submission, Tenant},
        worker::{Workers, load},
    },
};

/// What no test takes.
const LONG: Duration = Duration::from_secs(300);

fn engine(detectors: &[DetectorKind], jobs: usize) -> Engine {
    let options = ScanOptions {
        detectors: detectors.to_vec(),
        fps: 1.0,
        jobs,
        device: DeviceChoice::Cpu,
        tier: Some(Tier::Fast),
        ..ScanOptions::default()
    };
    load(options, WeightStore::open(None).unwrap()).unwrap()
}

/// Blocks what is declared, so that it shows what the policy was given.
fn outcome() -> MakeOutcome {
    Arc::new(|tenant, report: &Report, declared_ai| {
        assert_ne!(tenant, "defect", "this test's own defect");
        Outcome {
            action: if declared_ai { Action::Block } else { Action::Allow },
            disposition: report.disposition.state,
            because: report.disposition.evidence.clone(),
            policy_version: "test".into(),
        }
    })
}

fn open(data: &Path, engine: &Engine) -> Store {
    let options = StoreOptions {
        max_queued: 100,
        aging: Aging::default(),
        fingerprint: engine.fingerprint(),
        outcome: outcome(),
    };
    Store::open(data, options).unwrap()
}

/// What the policy of a test does with a tenant's report, before it gives its outcome.
type Meanwhile = Box<dyn Fn(&str, &Report) + Send + Sync>;

fn outcome_after(meanwhile: Meanwhile) -> MakeOutcome {
    let outcome = outcome();
    Arc::new(move |tenant, report, declared_ai| {
        meanwhile(tenant, report);
        outcome(tenant, report, declared_ai)
    })
}

/// A service without its requests.
struct Service {
    data: TempDir,
    store: Store,
    hub: Hub,
    workers: Option<Workers>,
}

impl Service {
    fn new() -> Self {
        Self::with(&[DetectorKind::LabelStrip], 1)
    }

    fn with(detectors: &[DetectorKind], jobs: usize) -> Self {
        Self::judging(detectors, jobs, outcome())
    }

    fn judging(detectors: &[DetectorKind], jobs: usize, outcome: MakeOutcome) -> Self {
        let data = tempfile::tempdir().unwrap();
        let engine = engine(detectors, jobs);
        let (store, hub) = (open(data.path(), &engine), Hub::default());
        for name in ["a", "short", "small", "defect"] {
            let mut tenant = Tenant::named(name);
            match name {
                "short" => tenant.max_duration_s = 2,
                "small" => tenant.max_pixels = 64 * 64,
                _ => {}
            }
            store.put_tenant(tenant).wait().unwrap();
        }
        let workers = Workers::start(engine, store.clone(), hub.clone(), outcome).unwrap();
        Self { data, store, hub, workers: Some(workers) }
    }

    fn submit(&self, tenant: &str, media: &Path, priority: Priority, declared_ai: bool) -> JobId {
        let id = JobId::now_v7();
        fs::copy(media, self.store.upload_path(id)).unwrap();
        let name = media.file_name().unwrap().to_str().unwrap().to_owned();
        let new = NewJob {
            content: None,
            id,
            tenant: tenant.into(),
            by: "test".into(),
            priority,
            source: Source::Upload { name },
            reference: None,
            declared_ai,
            sha256: None,
            bytes: None,
            idempotency: None,
            tenant_max_queued: 100,
        };
        let submitted = self.store.submit(new).wait().unwrap();
        assert!(matches!(submitted, Submission::Accepted(_)), "{submitted:?}");
        id
    }

    fn job(&self, tenant: &str, id: JobId) -> Job {
        self.store.job(tenant, id).unwrap().unwrap()
    }

    /// Waits until a job is final.
    fn wait(&self, tenant: &str, id: JobId) -> Job {
        let until = Instant::now() + LONG;
        loop {
            let job = self.job(tenant, id);
            if job.state.is_final() {
                return job;
            }
            assert!(Instant::now() < until, "{job:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Files and folders that the service keeps of media.
    fn kept(&self) -> Vec<PathBuf> {
        let mut kept = Vec::new();
        for folder in ["uploads", "contents/a"] {
            let entries = fs::read_dir(self.data.path().join(folder));
            kept.extend(entries.into_iter().flatten().map(|entry| entry.unwrap().path()));
        }
        kept
    }

    fn stop(&mut self, grace: Duration) {
        self.workers.take().unwrap().stop(grace);
    }
}

/// Events up to the one that `last` knows.
fn events(
    mut events: Receiver<(u64, LiveEvent)>,
    last: impl Fn(&LiveEvent) -> bool,
) -> Vec<LiveEvent> {
    let mut seen = Vec::new();
    loop {
        match events.blocking_recv() {
            Ok((_, event)) => {
                let ends = last(&event);
                seen.push(event);
                if ends {
                    return seen;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => panic!("the last event did not come: {seen:?}"),
        }
    }
}

#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl Observer for Reports {
    fn progress(&self, _: &Path, _: i64, _: Option<i64>) {}
    fn done(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }
}

/// A report as it is written, but for its wall times.
fn text(report: &Report) -> String {
    let report = Report { timings: Default::default(), ..report.clone() };
    serde_json::to_string(&report).unwrap()
}

fn demo(name: &str) -> PathBuf {
    root().join("demo").join(name)
}

/// Sixty seconds of moving pictures and a tone.
fn long_video(folder: &Path) -> PathBuf {
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=1280x720:rate=25:duration=60",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:duration=60",
        "-c:v",
        "mpeg4",
        "-q:v",
        "5",
        "-g",
        "250",
        "-c:a",
        "aac",
    ];
    ffmpeg(&inputs, folder.join("long.mp4"))
}

#[test]
fn reports_are_those_of_a_scan() {
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> =
        ["talking-head.mp4", "label-stripped.mp4", "label-intact.png"].map(demo).into();
    // Sound alone, and what is no media at all.
    let head = files[0].to_str().unwrap().to_owned();
    files.push(ffmpeg(&["-i", &head, "-t", "6", "-vn"], folder.path().join("voice.wav")));
    files.push(root().join("Cargo.toml"));

    let mut service = Service::with(&DetectorKind::ALL, 2);
    let ids: Vec<JobId> =
        files.iter().map(|file| service.submit("a", file, Priority::Normal, false)).collect();
    let (snapshot, receiver) = service.hub.subscribe(ids[0]);
    let seen = std::thread::spawn(move || events(receiver, |e| *e == LiveEvent::Done {}));
    let jobs: Vec<Job> = ids.iter().map(|id| service.wait("a", *id)).collect();

    let scan = Reports::default();
    engine(&DetectorKind::ALL, 2).scan(&files, &scan, &AtomicBool::new(false));
    let wanted = scan.0.into_inner().unwrap();
    for (file, job) in files.iter().zip(&jobs) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let want = wanted.iter().find(|r| r.media.path.ends_with(name)).unwrap();
        let found = service.store.report("a", job.id).unwrap().unwrap();
        assert_eq!(text(&found), text(&want.clone().with_path(name)));
        // Nothing of where the server keeps its files.
        let whole = serde_json::to_string(&(&found, job)).unwrap();
        assert!(!whole.contains(service.data.path().to_str().unwrap()), "{whole}");
        let summary = job.summary.as_ref().unwrap();
        assert_eq!(summary.duration_ms, found.media.duration_ms);
        let failed = name == "Cargo.toml";
        assert_eq!(job.state, if failed { JobState::Failed } else { JobState::Done });
        assert_eq!((job.has_media, job.attempts), (false, 1));

        let previews = service.store.previews_path("a", job.id).unwrap();
        let index = previews.map(|folder| (fs::read(folder.join(INDEX)), folder));
        if failed {
            assert!(index.is_none_or(|(index, _)| index.is_err()));
            continue;
        }
        let (index, folder) = index.unwrap();
        let index: Index = serde_json::from_slice(&index.unwrap()).unwrap();
        let (pictures, sounds) = match name {
            "talking-head.mp4" => (24, 1),
            "label-stripped.mp4" => (5, 1),
            "label-intact.png" => (1, 0),
            _ => (0, 1),
        };
        assert_eq!(
            (index.thumbnails.len(), index.spectrograms.len()),
            (pictures, sounds),
            "{name}"
        );
        let judged = |s: &&veriscope::report::Segment| {
            s.detector == DetectorKind::FaceSwap && s.probability.is_some()
        };
        assert_eq!(index.crops.len(), found.segments.iter().filter(judged).count(), "{name}");
        assert!(name != "talking-head.mp4" || !index.crops.is_empty());
        let named = index.crops.iter().map(|c| &c.file);
        for file in named.chain(index.thumbnails.iter().map(|t| &t.file)) {
            assert!(fs::read(folder.join(file)).unwrap().starts_with(&[0xFF, 0xD8]), "{file}");
        }
        for crop in &index.crops {
            let segment = &found.segments[crop.segment];
            assert!((segment.start_ms..=segment.end_ms).contains(&crop.time_ms));
            assert!((crop.time_ms - segment.peak_ms.unwrap()).abs() <= 2_000, "{crop:?}");
        }
    }

    // The first was watched; it may have begun before.
    let seen: Vec<LiveEvent> = snapshot.into_iter().chain(seen.join().unwrap()).collect();
    let running = LiveEvent::State { state: JobState::Running };
    assert!(seen.contains(&running), "{seen:?}");
    assert!(seen.iter().any(|e| matches!(e, LiveEvent::Progress(p) if p.media_ms > 0)));
    let found = service.store.report("a", ids[0]).unwrap().unwrap();
    let mut early = seen.iter().filter_map(|event| match event {
        LiveEvent::Segments { segments, provisional: true } => Some(segments),
        _ => None,
    });
    assert!(early.any(|s| s.iter().any(|s| s.detector == DetectorKind::FaceSwap)), "{seen:?}");
    let [.., LiveEvent::Segments { segments, provisional: false }, state, LiveEvent::Done {}] =
        &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(*state, LiveEvent::State { state: JobState::Done });
    let want: Vec<_> = found
        .segments
        .into_iter()
        .map(|mut s| {
            s.heat_map = None;
            s
        })
        .collect();
    assert_eq!(segments[..], want[..]);
    service.stop(Duration::ZERO);
    assert_eq!(fs::read_dir(service.data.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_tenants_bounds_and_declarations_hold() {
    let service = Service::new();
    let stripped = demo("label-stripped.mp4");
    let long = service.submit("short", &stripped, Priority::Normal, false);
    let large = service.submit("small", &demo("label-intact.png"), Priority::Normal, false);
    let plain = service.submit("a", &stripped, Priority::Normal, false);
    let declared = service.submit("a", &stripped, Priority::Normal, true);
    // A defect of the policy, not of the engine.
    let defect = service.submit("defect", &stripped, Priority::Normal, false);
    for (tenant, id) in [("short", long), ("small", large)] {
        let job = service.wait(tenant, id);
        assert_eq!(job.state, JobState::Failed);
        let error = job.error.unwrap();
        assert_eq!(error.code, "over_limit", "{}", error.message);
        assert!(error.message.starts_with("label-"), "{}", error.message);
    }
    let job = service.wait("defect", defect);
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.unwrap().code, "internal_error");
    assert_eq!(job.outcome.unwrap().action, Action::Review);

    let (plain, declared) = (service.wait("a", plain), service.wait("a", declared));
    assert_eq!(plain.outcome.unwrap().action, Action::Allow);
    let outcome = declared.outcome.unwrap();
    assert_eq!(outcome.action, Action::Block);
    let found = service.store.report("a", declared.id).unwrap().unwrap();
    assert_eq!(outcome.disposition, found.disposition.state);
    assert_eq!(outcome.because, found.disposition.evidence);
    let plain = service.store.report("a", plain.id).unwrap().unwrap();
    assert_ne!(plain.disposition, found.disposition);
    assert_eq!(plain.segments, found.segments);

    // Judged before, which nobody knew when it was submitted.
    let again = service.submit("a", &stripped, Priority::Normal, true);
    let again = service.wait("a", again);
    assert!(again.reused && again.state == JobState::Done, "{again:?}");
    assert_eq!(again.outcome.unwrap(), outcome);
}

#[test]
fn a_cancelled_job_ends_at_once_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let video = long_video(folder.path());
    let mut service = Service::with(&DetectorKind::ALL, 1);
    let id = service.submit("a", &video, Priority::Normal, false);
    let (_, receiver) = service.hub.subscribe(id);
    let (_, until_done) = service.hub.subscribe(id);
    events(receiver, |e| matches!(e, LiveEvent::Progress(p) if p.media_ms > 0));
    let asked = Instant::now();
    assert!(service.store.delete("a", id, "test").wait().unwrap());
    let seen = events(until_done, |e| *e == LiveEvent::Done {});
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(seen.contains(&LiveEvent::State { state: JobState::Cancelled }), "{seen:?}");
    assert!(service.store.job("a", id).unwrap().is_none());
    // The next one runs, and nothing of the first is left.
    let next = service.submit("a", &demo("label-intact.png"), Priority::Normal, false);
    assert_eq!(service.wait("a", next).state, JobState::Done);
    service.stop(Duration::ZERO);
    let kept = service.kept();
    assert_eq!(kept, [service.store.previews_path("a", next).unwrap().unwrap()]);
}

/// A picture of one colour: a content of its own.
fn picture(folder: &Path, colour: &str) -> PathBuf {
    let source = format!("color=c={colour}:s=64x64:d=0.04");
    let to = folder.join(format!("{colour}.png"));
    ffmpeg(&["-f", "lavfi", "-i", &source, "-frames:v", "1"], to)
}

#[test]
fn previews_of_a_job_that_is_deleted_while_they_are_written_go_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    // The policy is asked between a job's previews and its report. What it does then is the test's.
    let (deleting, deleted) = mpsc::channel::<Arc<OnceLock<(Store, JobId)>>>();
    let deleted = Mutex::new(deleted);
    let (held, hold) = mpsc::channel::<mpsc::Receiver<()>>();
    let hold = Mutex::new(hold);
    let meanwhile: Meanwhile = Box::new(move |_, report| {
        let name = Path::new(&report.media.path).file_name().unwrap().to_str().unwrap();
        if name == "black.png" {
            let _ = hold.lock().unwrap().recv().unwrap().recv();
        } else if name == "doomed.png" {
            let job = deleted.lock().unwrap().recv().unwrap();
            let (store, id) = job.get().unwrap();
            let previews = store.contents_path("a", report.media.sha256.as_ref().unwrap());
            assert!(previews.join(INDEX).exists(), "they were written before");
            assert!(store.delete("a", *id, "test").wait().unwrap());
        }
    });
    let mut service = Service::judging(&[DetectorKind::LabelStrip], 2, outcome_after(meanwhile));
    let doom = |id: JobId| {
        let job = Arc::new(OnceLock::new());
        assert!(job.set((service.store.clone(), id)).is_ok());
        deleting.send(job).unwrap();
    };
    let kept = service.data.path().join("contents/a");
    let contents = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&kept);
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let doomed = folder.path().join("doomed.png");

    // Alone.
    fs::copy(picture(folder.path(), "red"), &doomed).unwrap();
    let id = service.submit("a", &doomed, Priority::Normal, false);
    let (_, receiver) = service.hub.subscribe(id);
    doom(id);
    let seen = events(receiver, |e| *e == LiveEvent::Done {});
    assert!(seen.contains(&LiveEvent::State { state: JobState::Cancelled }), "{seen:?}");
    assert_eq!(contents(), Vec::<PathBuf>::new());

    // Beside another with the same content, written down together: held up until both are judged.
    let blue = picture(folder.path(), "blue");
    fs::copy(&blue, &doomed).unwrap();
    let (let_go, gate) = mpsc::channel();
    let first = service.submit("a", &picture(folder.path(), "black"), Priority::Normal, false);
    held.send(gate).unwrap();
    let until = Instant::now() + LONG;
    // It was begun, and both workers are there for what comes.
    while service.store.counts().normal > 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = service.submit("a", &doomed, Priority::Normal, false);
    let other = service.submit("a", &blue, Priority::Normal, false);
    let rest = ["green", "white"]
        .map(|c| service.submit("a", &picture(folder.path(), c), Priority::Normal, false));
    // Each worker takes its next only when its last is handed on; a moment more for the slower one.
    while service.store.counts().normal > 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    doom(id);
    let_go.send(()).unwrap();
    for id in [first, other, rest[0], rest[1]] {
        let job = service.wait("a", id);
        assert_eq!(job.state, JobState::Done);
        assert!(!job.reused, "the two were judged at the same time");
    }
    assert!(service.store.job("a", id).unwrap().is_none());
    service.stop(LONG);
    let previews = service.store.previews_path("a", other).unwrap().unwrap();
    assert!(previews.join(INDEX).exists(), "they are the other's, too");
    assert_eq!(contents().len(), 4, "{:?}", contents());
}

#[test]
fn a_job_that_the_policy_fails_leaves_no_previews() {
    let mut service = Service::new();
    let id = service.submit("defect", &demo("label-intact.png"), Priority::Normal, false);
    assert_eq!(service.wait("defect", id).error.unwrap().code, "internal_error");
    service.stop(LONG);
    let left = fs::read_dir(service.data.path().join("contents/defect")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn a_removed_tenants_job_ends_at_once_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let video = long_video(folder.path());
    let mut service = Service::with(&DetectorKind::ALL, 1);
    let running = service.submit("a", &video, Priority::Normal, false);
    let (_, receiver) = service.hub.subscribe(running);
    let (_, until_done) = service.hub.subscribe(running);
    events(receiver, |e| matches!(e, LiveEvent::Progress(p) if p.media_ms > 0));
    let waiting = service.submit("a", &demo("label-intact.png"), Priority::Normal, false);
    // By another process.
    let admin = Store::open_admin(service.data.path()).unwrap();
    assert!(admin.remove_tenant("a").wait().unwrap());
    let asked = Instant::now();
    let mut cancelled = Vec::new();
    service.store.purge("a", |id| cancelled.push(id)).unwrap();
    assert_eq!(cancelled, [running, waiting]);
    events(until_done, |e| *e == LiveEvent::Done {});
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // Others go on.
    let next = service.submit("short", &demo("label-intact.png"), Priority::Normal, false);
    assert_eq!(service.wait("short", next).state, JobState::Done);
    service.stop(Duration::ZERO);
    assert_eq!(service.kept(), Vec::<PathBuf>::new());
}

#[test]
fn a_stop_puts_back_what_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let video = long_video(folder.path());
    let mut service = Service::with(&DetectorKind::ALL, 1);
    let long = service.submit("a", &video, Priority::Normal, false);
    let (_, receiver) = service.hub.subscribe(long);
    let (_, until_queued) = service.hub.subscribe(long);
    events(receiver, |e| matches!(e, LiveEvent::Progress(p) if p.media_ms > 0));
    let waits = service.submit("a", &demo("label-intact.png"), Priority::Normal, false);
    let asked = Instant::now();
    service.stop(Duration::from_millis(100));
    // A second, and the time that the engine takes for the batch that it has begun.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    events(until_queued, |e| *e == LiveEvent::State { state: JobState::Queued });
    for id in [long, waits] {
        let job = service.job("a", id);
        assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
    }
    let Service { data, store, hub, .. } = service;
    drop(store);
    // The next server takes both up; this one looks at labels only, so that it does not take long.
    let engine = engine(&[DetectorKind::LabelStrip], 2);
    let store = open(data.path(), &engine);
    let workers = Workers::start(engine, store.clone(), hub.clone(), outcome()).unwrap();
    assert!(workers.is_running());
    let mut service = Service { data, store, hub, workers: Some(workers) };
    for id in [long, waits] {
        let job = service.wait("a", id);
        assert_eq!((job.state, job.attempts), (JobState::Done, 1));
    }
    service.stop(LONG);
}

#[test]
fn a_live_job_does_not_wait_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let video = long_video(folder.path());
    let service = Service::with(&DetectorKind::ALL, 1);
    let long = service.submit("a", &video, Priority::Batch, false);
    let (_, receiver) = service.hub.subscribe(long);
    events(receiver, |e| matches!(e, LiveEvent::Progress(_)));
    let normal = service.submit("a", &demo("label-intact.png"), Priority::Normal, false);
    let live = service.submit("a", &demo("label-stripped.mp4"), Priority::Live, false);
    assert_eq!(service.wait("a", live).state, JobState::Done);
    assert_eq!(service.job("a", long).state, JobState::Running);
    assert_eq!(service.job("a", normal).state, JobState::Queued);
    service.store.delete("a", long, "test").wait().unwrap();
    assert_eq!(service.wait("a", normal).state, JobState::Done);
}

#[cfg(target_os = "linux")]
#[test]
fn the_engine_gives_way_to_requests() {
    let _service = Service::new();
    let mut seen = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        // Threads of other tests end meanwhile.
        let Ok(stat) = fs::read_to_string(task.join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        // After the name come state and fifteen numbers before the priority.
        let nice: i32 = rest.split_whitespace().nth(16).unwrap().parse().unwrap();
        if name == "engine" || name == "reports" {
            seen += 1;
            assert_eq!(nice, 10, "{stat}");
        }
    }
    assert!(seen >= 2, "{seen}");
}
