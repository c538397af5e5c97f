//! Which jobs wait and which are at work: what is in memory, in step with what is on the disk.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::model::{Job, JobId, JobState, Priority, Source};
use super::super::queue::{Aging, Queue, Waiting};
use super::jobs::Ended;
use super::rows::EndedJob;
use super::{Shared, Submission};

/// Jobs that are not finished, and what was finished since the store was opened.
pub(super) struct Work {
    pub(super) queue: Queue,
    pub(super) fetches: Queue,
    pub(super) running: HashMap<JobId, Running>,
    /// Jobs that are being written and will wait, by tenant.
    admitted: HashMap<String, usize>,
    /// Jobs that were at work when a server died, each of which may be why. One of them at a time is
    /// in the queue or at work, so that the one that kills servers is found and takes no other with
    /// it again and again.
    suspects: VecDeque<Waiting>,
    suspect: Option<JobId>,
    pub(super) closed: bool,
    pub(super) ended: Ended,
}

pub(super) struct Running {
    pub(super) job: Waiting,
    cancel: Arc<AtomicBool>,
    pub(super) fetching: bool,
}

impl Work {
    pub(super) fn new(aging: Aging) -> Self {
        Self {
            queue: Queue::new(aging),
            fetches: Queue::new(aging),
            running: HashMap::new(),
            admitted: HashMap::new(),
            suspects: VecDeque::new(),
            suspect: None,
            closed: false,
            ended: Ended::default(),
        }
    }

    /// Takes up what an earlier server left waiting.
    pub(super) fn take_up(&mut self, left: &[Job]) {
        let mut suspects = Vec::new();
        for job in left {
            if job.state == JobState::Fetching {
                self.fetches.push(waiting(job));
            } else if job.attempts > 0 {
                suspects.push(waiting(job));
            } else {
                self.queue.push(waiting(job));
            }
        }
        suspects.sort_by_key(|job| (job.priority, job.submitted_at, job.id));
        self.suspects = suspects.into();
        self.release();
    }

    /// Queues the next suspect where the last one has ended.
    fn release(&mut self) {
        let out = |id| self.queue.contains(id) || self.running.contains_key(&id);
        if self.suspect.is_some_and(out) {
            return;
        }
        let next = self.suspects.pop_front();
        self.suspect = next.as_ref().map(|job| job.id);
        if let Some(job) = next {
            self.queue.push(job);
        }
    }

    /// Notes that a job was taken.
    pub(super) fn begin(&mut self, job: Waiting, fetching: bool) -> (JobId, Arc<AtomicBool>) {
        let (id, cancel) = (job.id, Arc::new(AtomicBool::new(false)));
        self.running.insert(id, Running { job, cancel: cancel.clone(), fetching });
        (id, cancel)
    }

    /// A job is in work no longer.
    pub(super) fn end(&mut self, id: JobId) {
        if let Some(running) = self.running.remove(&id) {
            let queue = if running.fetching { &mut self.fetches } else { &mut self.queue };
            queue.ended(&running.job.tenant);
        }
        self.release();
    }

    /// A job is gone: it is not begun any more, and whoever works on it is told.
    pub(super) fn cancel(&mut self, id: JobId) {
        self.queue.remove(id);
        self.fetches.remove(id);
        self.suspects.retain(|job| job.id != id);
        if let Some(running) = self.running.get(&id) {
            running.cancel.store(true, Ordering::SeqCst);
        }
        self.end(id);
    }

    /// Jobs that wait or will in a moment, of all tenants and of one.
    pub(super) fn waiting(&self, tenant: &str) -> (usize, usize) {
        let fetching = || self.running.values().filter(|r| r.fetching);
        let admitted: usize = self.admitted.values().sum();
        let all = self.queue.len()
            + self.fetches.len()
            + self.suspects.len()
            + fetching().count()
            + admitted;
        let one = self.queue.waiting_of(tenant)
            + self.fetches.waiting_of(tenant)
            + self.suspects.iter().filter(|job| job.tenant == tenant).count()
            + fetching().filter(|r| r.job.tenant == tenant).count()
            + self.admitted.get(tenant).copied().unwrap_or(0);
        (all, one)
    }

    /// How many jobs of a priority wait for a worker.
    pub(super) fn waiting_at(&self, priority: Priority) -> usize {
        let suspects = self.suspects.iter().filter(|job| job.priority == priority);
        self.queue.waiting_at(priority) + suspects.count()
    }

    /// A job is being written that will wait.
    pub(super) fn admit(&mut self, tenant: &str) {
        *self.admitted.entry(tenant.to_owned()).or_default() += 1;
    }

    /// A job that was being written is written, or cannot be.
    pub(super) fn admitted(&mut self, tenant: &str) {
        if let Some(n) = self.admitted.get_mut(tenant) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.admitted.remove(tenant);
            }
        }
    }
}

impl Shared {
    /// A submission is on the disk, or is not.
    pub(super) fn submitted(
        &self,
        submission: &Submission,
        media: Option<PathBuf>,
        committed: bool,
    ) {
        match submission {
            Submission::Accepted(job) => {
                let mut work = self.work();
                work.admitted(&job.tenant);
                if !committed {
                    return;
                }
                if job.state == JobState::Fetching {
                    work.fetches.push(waiting(job));
                    drop(work);
                    self.fetch_came.notify_waiters();
                } else {
                    work.queue.push(waiting(job));
                    drop(work);
                    self.work_came.notify_all();
                }
            }
            Submission::Reused(_) if committed => {
                let mut work = self.work();
                work.ended.done += 1;
                work.ended.reused += 1;
                drop(work);
                if let Some(media) = media {
                    self.doom(media);
                }
            }
            _ => {}
        }
    }

    /// A job has ended, on the disk too.
    pub(super) fn ended(&self, id: JobId, ended: Option<EndedJob>) {
        let mut work = self.work();
        work.end(id);
        let Some(EndedJob { job, media }) = ended else { return };
        // Where it was requeued or never begun.
        work.queue.remove(id);
        work.fetches.remove(id);
        if job.state == JobState::Failed {
            work.ended.failed += 1;
        } else {
            work.ended.done += 1;
        }
        work.ended.reused += u64::from(job.reused);
        drop(work);
        // Another suspect may have come into the queue.
        self.work_came.notify_all();
        if let Some(media) = media {
            self.doom(media);
        }
    }

    /// A job that was begun waits again.
    pub(super) fn put_back(&self, id: JobId) {
        let mut work = self.work();
        let Some(Running { job, fetching, .. }) = work.running.remove(&id) else { return };
        let queue = if fetching { &mut work.fetches } else { &mut work.queue };
        queue.ended(&job.tenant);
        queue.push(job);
        drop(work);
        self.work_came.notify_all();
        self.fetch_came.notify_waiters();
    }

    pub(super) fn media(&self, job: &Job) -> PathBuf {
        match &job.source {
            Source::Path { path } => PathBuf::from(path),
            Source::Upload { .. } | Source::Url { .. } => self.upload(job.id),
        }
    }

    pub(super) fn contents(&self, tenant: &str, sha256: &str, fingerprint: &str) -> PathBuf {
        self.data.join("contents").join(tenant).join(format!("{sha256}-{fingerprint}"))
    }
}

pub(super) fn waiting(job: &Job) -> Waiting {
    Waiting {
        id: job.id,
        tenant: job.tenant.clone(),
        priority: job.priority,
        submitted_at: job.submitted_at,
    }
}
