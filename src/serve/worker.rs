//! The queue's jobs through the engine.
//!
//! The engine's workers take jobs from the store as soon as they have a hand free, and hand what they
//! judged to one more thread, which writes previews and reports: the networks never wait for the
//! disk. All of them run at a lower priority than whoever answers requests.

use std::{
    collections::HashMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    live::{Hub, LiveEvent},
    model::{Action, Job, JobId, JobState, Outcome, Peak, Progress, Source, Summary},
    preview::{self, Previews},
    queue::Slot,
    store::{Finished, MakeOutcome, Store, StoreError, Task, Tenant},
};
use crate::{
    engine::{self, CloseUp, Engine, EngineError, Observer, ScanOptions, TaskLimits, Wants},
    media::{Audio, Frame, Limits, MediaKind},
    models::weights::WeightStore,
    report::{LabelVerdict, Report, Segment, Status},
    verdict::disposition::declare,
};

/// How much less than those who answer requests the engine gets of a processor that both want.
const NICE: i32 = 10;
/// Between two tellings of how far a job has come.
const TELL: Duration = Duration::from_millis(250);
/// Segments in one telling; of more, those that look most like fakes.
const SEGMENTS: usize = 256;
/// Reports that are written down together.
const TOGETHER: usize = 64;
/// Before a report is tried to be written down again.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes the engine with all its threads at the lower priority.
///
/// # Errors
/// As [`Engine::new`].
pub fn load(options: ScanOptions, weights: WeightStore) -> Result<Engine, EngineError> {
    // Threads that are started on the way keep the priority of the one that starts them.
    let made = std::thread::scope(|scope| {
        let load = || {
            give_way();
            Engine::new(options, &weights)
        };
        scope.spawn(load).join()
    });
    // A panic goes on where it would have come without the thread.
    made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Lowers this thread's priority, and that of threads it starts from here on.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: takes numbers only. On Linux 0 is the calling thread.
        let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0;
        if refused {
            let error = std::io::Error::last_os_error();
            tracing::warn!("the engine runs at the priority of the rest: {error}");
        }
    }
}

/// What of a report a queue shows.
pub fn summary(report: &Report) -> Summary {
    let mut peaks: Vec<Peak> = Vec::new();
    for s in &report.segments {
        let Some(probability) = s.probability else { continue };
        let (detector, start_ms, end_ms) = (s.detector, s.start_ms, s.end_ms);
        let peak = Peak { detector, start_ms, end_ms, probability };
        match peaks.iter_mut().find(|p| p.detector == detector) {
            Some(most) if most.probability < probability => *most = peak,
            Some(_) => {}
            None => peaks.push(peak),
        }
    }
    peaks.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let found = report.labels.iter().filter(|l| l.verdict != LabelVerdict::NotFound);
    Summary {
        duration_ms: report.media.duration_ms,
        kind: report.media.kind.map(|kind| match kind {
            MediaKind::Video => "video".to_owned(),
            MediaKind::Audio => "audio".to_owned(),
            MediaKind::Image => "image".to_owned(),
        }),
        peaks,
        labels: once(found.map(|l| &l.system)),
        strip_evidence: once(report.strip_evidence.iter().map(|e| &e.kind)),
    }
}

/// Each of some words once, in the order in which they come.
fn once<'a>(words: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for word in words {
        if !once.contains(word) {
            once.push(word.clone());
        }
    }
    once
}

/// What people call a job's media; its report names it so.
fn name(source: &Source) -> &str {
    match source {
        Source::Upload { name } => name,
        Source::Url { url } => url,
        Source::Path { path } => path,
    }
}

/// The threads that judge.
pub struct Workers {
    shared: Arc<Shared>,
    engine: JoinHandle<()>,
    writer: JoinHandle<()>,
}

struct Shared {
    store: Store,
    hub: Hub,
    outcome: MakeOutcome,
    /// Ordinary workers; the one after them takes live jobs alone.
    ordinary: usize,
    state: Mutex<State>,
    /// The engine's workers have ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Jobs in work, each with what tells it to stop.
    running: HashMap<JobId, Arc<AtomicBool>>,
    /// Jobs that are stopped from here on go back to the queue.
    stopping: bool,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves anything half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// Begins to judge what is in the store, and what comes: as many files at a time as
    /// [`Engine::scan`] has in work, and one more that is always a live one.
    ///
    /// # Errors
    /// Threads that the system does not give, or what an earlier server left half-written that cannot be
    /// removed.
    pub fn start(
        engine: Engine,
        store: Store,
        hub: Hub,
        outcome: MakeOutcome,
    ) -> std::io::Result<Self> {
        preview::clear(&store.data().join("contents"))?;
        let shared = Arc::new(Shared {
            store,
            hub,
            outcome,
            ordinary: engine.jobs(),
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        // Whoever is ahead of the disk by more than this waits for it.
        let (judged, inbox) = bounded(2 * shared.ordinary);
        let writer = {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name("reports".to_owned());
            builder.spawn(move || {
                give_way();
                write(&shared, &inbox);
            })?
        };
        let engine = {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name("engine".to_owned());
            builder.spawn(move || {
                /// Tells even where the engine panics.
                struct Ended(Arc<Shared>);
                impl Drop for Ended {
                    fn drop(&mut self) {
                        self.0.state().ended = true;
                        self.0.ended.notify_all();
                    }
                }
                let _ended = Ended(Arc::clone(&shared));
                give_way();
                let workers = shared.ordinary + 1;
                engine.work(&Queue { shared, judged }, workers);
            })?
        };
        Ok(Self { shared, engine, writer })
    }

    /// Whether files are judged; false once they were stopped, or by a defect.
    pub fn is_running(&self) -> bool {
        !self.shared.state().ended
    }

    /// Begins no more jobs, waits for those in work for as long as `grace`, puts those that are not done
    /// by then back into the queue, and writes down what was judged. Closes the store's queue.
    pub fn stop(self, grace: Duration) {
        self.shared.store.close();
        let until = Instant::now() + grace;
        {
            let mut state = self.shared.state();
            while !state.ended {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let waited = self.shared.ended.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.stopping = true;
            for stop in state.running.values() {
                stop.store(true, Ordering::SeqCst);
            }
        }
        for thread in [self.engine, self.writer] {
            if thread.join().is_err() {
                tracing::error!("a thread that judges had a defect");
            }
        }
    }
}

/// The store's queue as the engine sees it.
struct Queue {
    shared: Arc<Shared>,
    judged: Sender<Judged>,
}

impl engine::Tasks for Queue {
    fn next(&self, worker: usize) -> Option<engine::Task> {
        let slot = if worker < self.shared.ordinary { Slot::Ordinary } else { Slot::LiveOnly };
        let Task { job, path, held, cancel } = self.shared.store.next(slot)?;
        let limits = self.limits(&job.tenant);
        {
            let mut state = self.shared.state();
            if state.stopping {
                cancel.store(true, Ordering::SeqCst);
            }
            state.running.insert(job.id, Arc::clone(&cancel));
        }
        self.shared.hub.publish(job.id, LiveEvent::State { state: JobState::Running });
        let observer = Watch {
            shared: Arc::clone(&self.shared),
            judged: self.judged.clone(),
            job,
            _held: held,
            seen: Mutex::default(),
        };
        Some(engine::Task { path, limits, observer: Arc::new(observer), stop: cancel })
    }
}

impl Queue {
    fn limits(&self, tenant: &str) -> TaskLimits {
        let tenant = match self.shared.store.tenant(tenant) {
            Ok(Some(tenant)) => tenant,
            // Deleted since.
            Ok(None) => Tenant::default(),
            Err(error) => {
                tracing::warn!("tenant {tenant}: the usual limits hold: {error}");
                Tenant::default()
            }
        };
        let media = Limits::default();
        let max_pixels = media.max_pixels.min(tenant.max_pixels);
        let max_ms = tenant.max_duration_s.saturating_mul(1_000);
        TaskLimits {
            media: Limits { max_pixels, ..media },
            max_duration_ms: Some(i64::try_from(max_ms).unwrap_or(i64::MAX)),
        }
    }
}

/// Watches one job's file.
struct Watch {
    shared: Arc<Shared>,
    judged: Sender<Judged>,
    job: Job,
    /// Keeps media in memory as long as it is judged.
    _held: Option<File>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// None: the content has them.
    previews: Option<Previews>,
    told: Option<Instant>,
    /// Whether the file's length was taken note of.
    expected: bool,
    /// The job has ended with the report of an earlier one.
    reused: bool,
}

/// A job that the engine is done with.
struct Judged {
    job: Job,
    /// As the engine gave it.
    report: Report,
    previews: Option<Previews>,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A preview that a panic left incomplete is as good as one that is missing.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        self.shared.state().running.remove(&self.job.id);
    }
}

impl Observer for Watch {
    fn wants(&self) -> Wants {
        Wants { segments: true, close_ups: true }
    }

    fn known(&self, _: &Path, sha256: &str) -> bool {
        // Judged since it was submitted, or its content was not known then.
        match self.shared.store.reuse(&self.job, sha256).wait() {
            Ok(Some(_)) => {
                self.seen().reused = true;
                return true;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("job {}: judged anew: {error}", self.job.id),
        }
        let folder = self.shared.store.contents_path(&self.job.tenant, sha256);
        self.seen().previews = (!folder.exists()).then(Previews::default);
        false
    }

    fn progress(&self, _: &Path, media_ms: i64, duration_ms: Option<i64>) {
        let mut seen = self.seen();
        if let Some(ms) = duration_ms.filter(|_| !seen.expected) {
            seen.expected = true;
            if let Some(previews) = &mut seen.previews {
                previews.expect(ms);
            }
        }
        if seen.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        seen.told = Some(Instant::now());
        drop(seen);
        let progress = Progress { media_ms, duration_ms };
        self.shared.hub.publish(self.job.id, LiveEvent::Progress(progress));
    }

    fn frame(&self, _: &Path, frame: &Frame) {
        if let Some(previews) = &mut self.seen().previews {
            previews.frame(frame);
        }
    }

    fn sound(&self, _: &Path, audio: &Audio) {
        if let Some(previews) = &mut self.seen().previews {
            previews.sound(audio);
        }
    }

    fn segments(&self, _: &Path, segments: Vec<Segment>) {
        let event = LiveEvent::Segments { segments: told(segments), provisional: true };
        self.shared.hub.publish(self.job.id, event);
    }

    fn close_up(&self, _: &Path, segment: &Segment, picture: CloseUp) {
        if let Some(previews) = &mut self.seen().previews {
            previews.close_up(segment, picture);
        }
    }

    fn done(&self, report: Report) {
        let previews = self.seen().previews.take();
        let previews = previews.filter(|_| report.status != Status::Failed);
        let judged = Judged { job: self.job.clone(), report, previews };
        if self.judged.send(judged).is_err() {
            // It runs until the engine has ended, but for a defect; the next server takes the job up.
            tracing::error!("job {}: nobody is there to write its report", self.job.id);
            self.leave();
        }
    }

    fn left(&self, _: &Path) {
        let stopping = self.shared.state().stopping;
        self.leave();
        let id = self.job.id;
        let state = match self.seen().reused {
            true => JobState::Done,
            // Whoever deleted the job has taken it out of the store.
            false => JobState::Cancelled,
        };
        if state == JobState::Done || !stopping {
            self.shared.hub.publish(id, LiveEvent::State { state });
            self.shared.hub.publish(id, LiveEvent::Done {});
            return;
        }
        // Of a job that was deleted there is nothing to put back.
        match self.shared.store.requeue(id).wait() {
            Ok(()) => {
                self.shared.hub.publish(id, LiveEvent::State { state: JobState::Queued });
            }
            Err(error) => tracing::warn!("job {id} waits for the next start: {error}"),
        }
    }
}

/// As many segments as one telling has, without heat maps, in their order.
fn told(mut segments: Vec<Segment>) -> Arc<[Segment]> {
    if segments.len() > SEGMENTS {
        let mut ranked: Vec<f32> =
            segments.iter().map(|s| s.probability.unwrap_or_default()).collect();
        ranked.sort_by(|a, b| b.total_cmp(a));
        let least = ranked[SEGMENTS - 1];
        segments.retain(|s| s.probability.unwrap_or_default() >= least);
        segments.truncate(SEGMENTS);
    }
    segments.iter_mut().for_each(|s| s.heat_map = None);
    segments.into()
}

/// Writes down what comes, those that wait for it together.
fn write(shared: &Shared, inbox: &Receiver<Judged>) {
    while let Ok(first) = inbox.recv() {
        let more = inbox.try_iter().take(TOGETHER - 1);
        let begun: Vec<_> = std::iter::once(first)
            .chain(more)
            .map(|judged| {
                let ready = Ready::new(shared, judged);
                let writing = shared.store.finish(ready.job.id, ready.finished.clone());
                (ready, writing)
            })
            .collect();
        let mut ended = Vec::with_capacity(begun.len());
        for (ready, writing) in begun {
            let mut written = writing.wait();
            while let Err(error) = &written {
                // No space, most likely. Nothing is lost meanwhile: the queue stands still.
                tracing::error!("job {}: its report is not written: {error}", ready.job.id);
                if shared.state().stopping {
                    break;
                }
                std::thread::sleep(AGAIN);
                written = shared.store.finish(ready.job.id, ready.finished.clone()).wait();
            }
            ended.push((ready, written));
        }
        // Not before all are written: previews that were made for one may be another's, too.
        ended.into_iter().for_each(|(ready, written)| ready.tell(shared, written));
    }
}

/// What a report comes to.
fn conclude(shared: &Shared, job: &Job, report: Report) -> Finished {
    // The store keeps what holds for the content, whoever declares what of it.
    let mut told = report.clone();
    if job.declared_ai {
        declare(&mut told);
    }
    let outcome = (shared.outcome)(&job.tenant, &told, job.declared_ai);
    Finished { summary: summary(&report), report, outcome }
}

/// A job whose previews are written and whose report is about to be.
struct Ready {
    job: Job,
    finished: Finished,
    /// Where previews were made for it.
    content: Option<Content>,
}

/// A content whose previews were made.
struct Content {
    sha256: String,
    folder: PathBuf,
}

impl Content {
    /// Removes previews for which the job has no use, unless another has.
    fn drop_previews(self, shared: &Shared, job: &Job) {
        match shared.store.is_judged(&job.tenant, &self.sha256) {
            Ok(true) => {}
            Ok(false) => match std::fs::remove_dir_all(&self.folder) {
                // With all that its tenant had.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!("job {}: its previews cannot be removed: {error}", job.id);
                }
                Ok(()) => {}
            },
            // The next server removes them.
            Err(error) => tracing::warn!("job {}: its previews stay for now: {error}", job.id),
        }
    }
}

impl Ready {
    fn new(shared: &Shared, judged: Judged) -> Self {
        let Judged { job, report, previews } = judged;
        let info = report.engine.clone();
        let content = match (&report.media.sha256, previews) {
            (Some(sha256), Some(previews)) => {
                let folder = shared.store.contents_path(&job.tenant, sha256);
                let unfinished = preview::unfinished(&folder, job.id);
                match previews.write(&folder, &unfinished, &report) {
                    Ok(made) => made.then(|| Content { sha256: sha256.clone(), folder }),
                    Err(error) => {
                        tracing::warn!("job {}: previews are not written: {error}", job.id);
                        None
                    }
                }
            }
            _ => None,
        };
        let report = report.with_path(name(&job.source));
        let work = || conclude(shared, &job, report);
        // A defect that one report brings out must not cost the others.
        let finished = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            let message = format!("{}: a defect in this program", name(&job.source));
            let report = Report::failed(name(&job.source), "internal_error", message, info);
            let outcome = Outcome {
                action: Action::Review,
                disposition: report.disposition.state,
                because: vec!["a defect in this program: the policy gave no answer".to_owned()],
                policy_version: "none".to_owned(),
            };
            Finished { summary: summary(&report), report, outcome }
        });
        Self { job, finished, content }
    }

    /// `ended`: whether the job has ended by what was written, or nothing could be.
    fn tell(self, shared: &Shared, ended: Result<bool, StoreError>) {
        let Self { job, finished, content } = self;
        shared.state().running.remove(&job.id);
        let state = match (ended, finished.report.status) {
            // The server stops; the next one takes the job up.
            (Err(_), _) => {
                let state = JobState::Queued;
                return shared.hub.publish(job.id, LiveEvent::State { state });
            }
            (Ok(false), _) => JobState::Cancelled,
            (Ok(true), Status::Failed) => JobState::Failed,
            (Ok(true), Status::Ok | Status::Partial) => JobState::Done,
        };
        // Whoever deleted the job meanwhile did not know of its previews, and a job that a defect of the
        // policy failed has none.
        if let Some(content) = content.filter(|_| state != JobState::Done) {
            content.drop_previews(shared, &job);
        }
        if state != JobState::Cancelled {
            let segments = told(finished.report.segments);
            let event = LiveEvent::Segments { segments, provisional: false };
            shared.hub.publish(job.id, event);
        }
        shared.hub.publish(job.id, LiveEvent::State { state });
        shared.hub.publish(job.id, LiveEvent::Done {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DetectorKind, samples};

    #[test]
    fn a_queue_shows_the_highest_segment_of_each_detector() {
        let report = samples::video();
        let found = summary(&report);
        assert_eq!(found.kind.as_deref(), Some("video"));
        assert_eq!(found.duration_ms, report.media.duration_ms);
        let highest = |detector: DetectorKind| {
            let of = report.segments.iter().filter(|s| s.detector == detector);
            of.filter_map(|s| s.probability).max_by(f32::total_cmp)
        };
        for detector in DetectorKind::ALL {
            let told: Vec<f32> = found
                .peaks
                .iter()
                .filter(|p| p.detector == detector)
                .map(|p| p.probability)
                .collect();
            assert_eq!(told, highest(detector).into_iter().collect::<Vec<_>>(), "{detector:?}");
        }
        assert!(found.peaks.len() > 1);
        assert!(found.peaks.is_sorted_by(|a, b| a.probability >= b.probability));
        let mut systems: Vec<&String> = found.labels.iter().collect();
        systems.dedup();
        assert_eq!(systems.len(), found.labels.len());
        let failed = summary(&samples::failed());
        assert_eq!((failed.peaks.len(), failed.kind), (0, None));
    }

    #[test]
    fn what_watchers_are_told_is_bounded() {
        let segment = |i: usize| Segment {
            probability: (!i.is_multiple_of(3)).then_some((i % 1_000) as f32 / 1_000.0),
            start_ms: i as i64,
            ..samples::video().segments[0].clone()
        };
        let few = told((0..10).map(segment).collect());
        assert_eq!(few.len(), 10);
        assert!(few.iter().all(|s| s.heat_map.is_none()));
        let many = told((0..5_000).map(segment).collect());
        assert_eq!(many.len(), SEGMENTS);
        assert!(many.iter().all(|s| s.probability.is_some_and(|p| p > 0.9)));
        assert!(many.is_sorted_by(|a, b| a.start_ms < b.start_ms));
    }
}
