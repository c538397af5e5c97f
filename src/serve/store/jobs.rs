//! Jobs from submission to report.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crossbeam_channel::TrySendError;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::super::model::{
    Action, Decision, Job, JobId, JobState, Outcome, Priority, Source, Summary, Time,
};
use super::super::queue::Slot;
use super::rows::{self, EndedJob, Known};
use super::{Pending, Store, StoreError, audit, delete, deliveries, from_json, inline, json, work};
use crate::report::{DetectorKind, DispositionState, Report};

/// How often a server may die while a job is at work; after one more the job fails.
pub const MAX_ATTEMPTS: u32 = 3;

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: JobId,
    pub tenant: String,
    /// The API key's name, for the audit log.
    pub by: String,
    pub priority: Priority,
    /// An upload's media lies in `uploads/<id>`, synced, before the job is submitted, or is
    /// `content`.
    pub source: Source,
    /// An upload of at most [`MOST_INLINE`](super::MOST_INLINE) bytes.
    pub content: Option<Vec<u8>>,
    pub reference: Option<String>,
    pub declared_ai: bool,
    /// Lower-case hex, where the content is known.
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
    pub idempotency: Option<Idempotency>,
    /// The tenant's bound of waiting jobs.
    pub tenant_max_queued: usize,
}

/// The caller's mark by which a repeated request is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Of the request's content: the same key with another is a conflict.
    pub digest: String,
}

/// What became of a submission. Where it was accepted or reused the upload is the store's, which
/// deletes it when it is not needed any more; otherwise, and on an error, whoever wrote it deletes
/// it.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    Accepted(Job),
    /// The tenant had this content judged by this engine before: a job that is done already.
    Reused(Job),
    /// A request with this idempotency key and content was answered with this job.
    Replayed(Job),
    /// A request with this idempotency key had another content.
    IdempotencyConflict,
    /// As many of the tenant's jobs wait as may.
    TenantFull,
    /// As many jobs wait as may, or more requests than the disk keeps up with.
    Full,
}

/// A job that a worker has begun.
#[derive(Debug)]
pub struct Task {
    pub job: Job,
    /// The media.
    pub path: PathBuf,
    /// What keeps the path as long as it is not dropped, where the media is in memory.
    pub held: Option<File>,
    /// Set when the job is cancelled.
    pub cancel: Arc<AtomicBool>,
}

/// A job whose URL is to be fetched.
#[derive(Debug, Clone)]
pub struct FetchTask {
    pub job: Job,
    pub url: String,
    /// Where the media goes.
    pub path: PathBuf,
    /// Set when the job is cancelled.
    pub cancel: Arc<AtomicBool>,
}

/// What a job came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub report: Report,
    pub outcome: Outcome,
    pub summary: Summary,
}

/// Which jobs a listing has; each field given narrows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    pub state: Option<JobState>,
    pub action: Option<Action>,
    pub priority: Option<Priority>,
    pub disposition: Option<DispositionState>,
    /// Whether a reviewer has decided.
    pub decided: Option<bool>,
    /// Jobs in which this detector judged something to be fake.
    pub detector: Option<DetectorKind>,
    /// Part of the name or the reference (ASCII letters in either case), or the start of the SHA-256.
    pub text: Option<String>,
}

/// Where a listing goes on: after this id, which is the last one looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

/// How many jobs there are, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for a worker, by priority.
    pub live: usize,
    pub normal: usize,
    pub batch: usize,
    /// URLs that wait to be fetched or are being fetched.
    pub fetching: usize,
    pub running: usize,
    /// Jobs that may wait.
    pub max_queued: usize,
    /// When the job that waits longest was submitted.
    pub oldest: Option<Time>,
    /// Since the store was opened.
    pub ended: Ended,
    /// Transactions since the store was opened, and the writes in them.
    pub commits: u64,
    pub writes: u64,
}

/// Jobs that ended since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Among those done: answered with an earlier job's report.
    pub reused: u64,
}

impl Store {
    /// Writes a job down and queues it. Never waits for room: where there is none it says so.
    ///
    /// # Errors
    /// SQLite's, such as no space.
    pub fn submit(&self, job: NewJob) -> Pending<Submission> {
        let shared = self.0.shared.clone();
        let file = matches!(job.source, Source::Upload { .. }) && job.content.is_none();
        // Here and not where it is written: one thread need not read everybody's reports.
        let known = match &job.sha256 {
            Some(sha256) => self.known(&job.tenant, sha256, job.declared_ai),
            None => Ok(None),
        };
        let known = match known {
            Ok(known) => known,
            Err(error) => return Pending::ready(Err(error)),
        };
        let (write, pending) = self.make(
            file,
            move |db| {
                let (submission, media) = rows::accept(&shared, db, &job, known)?;
                Ok((submission.clone(), (submission, media)))
            },
            |shared, (submission, media), committed| {
                shared.submitted(&submission, media, committed);
            },
        );
        match self.0.writes.as_ref().map(|writes| writes.try_send(write)) {
            Some(Err(TrySendError::Full(_))) => Pending::ready(Ok(Submission::Full)),
            _ => pending,
        }
    }

    /// A job of a tenant; another tenant's is none.
    ///
    /// # Errors
    /// SQLite's, or a row that cannot be read.
    pub fn job(&self, tenant: &str, id: JobId) -> Result<Option<Job>, StoreError> {
        let job = self.read(|db| rows::get(db, id).map_err(self.sqlite()))?;
        Ok(job.filter(|job| job.tenant == tenant))
    }

    /// A tenant's jobs, newest first, and where the listing goes on if it does. A page may be shorter
    /// than `limit`, even empty, and yet not the last.
    ///
    /// # Errors
    /// As [`Store::job`].
    pub fn jobs(
        &self,
        tenant: &str,
        filter: &JobFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Job>, Option<Cursor>), StoreError> {
        self.read(|db| rows::list(db, tenant, filter, after, limit).map_err(self.sqlite()))
    }

    /// The report of a job that has one, under the name that its source gives the media, with the
    /// disposition that the uploader's declaration leads to.
    ///
    /// # Errors
    /// As [`Store::job`].
    pub fn report(&self, tenant: &str, id: JobId) -> Result<Option<Report>, StoreError> {
        let found = self.read(|db| {
            db.prepare_cached(
                "SELECT reports.report, jobs.name, jobs.declared_ai FROM jobs
                 JOIN reports ON reports.id = jobs.report WHERE jobs.id = ?1 AND jobs.tenant = ?2",
            )
            .and_then(|mut q| {
                q.query_row(params![id.into_bytes(), tenant], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
                })
                .optional()
            })
            .map_err(self.sqlite())
        })?;
        // Read outside, so that a long report does not hold up other readers.
        let Some((text, name, declared_ai)) = found else { return Ok(None) };
        let report = rows::parse(&text).map_err(self.sqlite())?;
        Ok(Some(rows::declared(report, declared_ai).with_path(&name)))
    }

    /// Where an upload's media lies or is to be put; `.part` is added while it is being received.
    pub fn upload_path(&self, id: JobId) -> PathBuf {
        self.0.shared.upload(id)
    }

    /// A job's media where it is not [held](Self::held): the upload, or the server's own file.
    pub fn media_path(&self, job: &Job) -> PathBuf {
        self.0.shared.media(job)
    }

    /// The folder of the previews of a content that the present engine judges.
    pub fn contents_path(&self, tenant: &str, sha256: &str) -> PathBuf {
        self.0.shared.contents(tenant, sha256, &self.0.shared.options.fingerprint)
    }

    /// Whether a content has a report by the present engine, and with it previews that are needed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_judged(&self, tenant: &str, sha256: &str) -> Result<bool, StoreError> {
        let print = &self.0.shared.options.fingerprint;
        self.read(|db| rows::judged(db, tenant, sha256, print).map_err(self.sqlite()))
    }

    /// The folder of a job's previews, where it was judged; whether there are any is not said.
    ///
    /// # Errors
    /// SQLite's.
    pub fn previews_path(&self, tenant: &str, id: JobId) -> Result<Option<PathBuf>, StoreError> {
        let found: Option<(String, String)> = self.read(|db| {
            db.prepare_cached(
                "SELECT sha256, fingerprint FROM jobs WHERE id = ?1 AND tenant = ?2
                 AND sha256 IS NOT NULL AND fingerprint IS NOT NULL",
            )
            .and_then(|mut q| {
                q.query_row(params![id.into_bytes(), tenant], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .map_err(self.sqlite())
        })?;
        Ok(found.map(|(sha256, print)| self.0.shared.contents(tenant, &sha256, &print)))
    }

    /// Waits for the next job that a slot may take and begins it. None once the store is closed.
    ///
    /// That the job runs is written behind it: a worker does not wait for the disk.
    pub fn next(&self, slot: Slot) -> Option<Task> {
        let shared = &self.0.shared;
        loop {
            let (id, cancel) = {
                let mut work = shared.work();
                loop {
                    if work.closed {
                        return None;
                    }
                    if let Some(waiting) = work.queue.take(slot) {
                        break work.begin(waiting, false);
                    }
                    work = shared.work_came.wait(work).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let Some(job) = self.begun(id) else { continue };
            let held = match self.held(&job) {
                Ok(held) => held,
                Err(error) => {
                    // The disk, or memory, may come back; the job keeps its place.
                    tracing::error!("job {id} cannot be begun: {error}");
                    std::thread::sleep(std::time::Duration::from_secs(1));
                    drop(self.requeue(id));
                    continue;
                }
            };
            let path = held.as_ref().map_or_else(|| shared.media(&job), inline::path_of);
            return Some(Task { job, path, held, cancel });
        }
    }

    /// A job's media as a file in memory, where it is in the database.
    ///
    /// # Errors
    /// SQLite's, or that there is no memory.
    pub fn held(&self, job: &Job) -> Result<Option<File>, StoreError> {
        if !matches!(job.source, Source::Upload { .. }) {
            return Ok(None);
        }
        let bytes = self.read(|db| inline::get(db, job.id).map_err(self.sqlite()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let io = |source| StoreError::Io { path: "a file in memory".into(), source };
        inline::in_memory(&bytes).map(Some).map_err(io)
    }

    /// The row of a job that was taken, as it is once it runs, which is written behind it.
    fn begun(&self, id: JobId) -> Option<Job> {
        match self.read(|db| rows::get(db, id).map_err(self.sqlite())) {
            Ok(Some(mut job)) if !job.state.is_final() => {
                let now = Time::now();
                let fail = self.sqlite();
                // Should it fail the job runs all the same: all that is lost is that an attempt was
                // counted.
                drop(self.write(
                    move |db| {
                        db.prepare_cached(
                            "UPDATE jobs SET state = 'running', started_at = ?2,
                             attempts = attempts + 1 WHERE id = ?1 AND state = 'queued'",
                        )
                        .and_then(|mut q| q.execute(params![id.into_bytes(), now.0]))
                        .map_err(fail)
                        .map(|_| ((), ()))
                    },
                    |_, ()| {},
                ));
                job.state = JobState::Running;
                job.started_at = Some(now);
                job.attempts += 1;
                Some(job)
            }
            Ok(_) => {
                self.0.shared.work().end(id);
                self.0.shared.work_came.notify_all();
                None
            }
            Err(error) => {
                // The disk may come back; the job keeps its place.
                tracing::error!("job {id} cannot be begun: {error}");
                std::thread::sleep(std::time::Duration::from_secs(1));
                self.0.shared.put_back(id);
                None
            }
        }
    }

    /// Puts a job that was begun back where it stood, as if it had not been begun: for a server that
    /// stops before it could end it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn requeue(&self, id: JobId) -> Pending<()> {
        let fail = self.sqlite();
        self.write(
            move |db| {
                db.prepare_cached(
                    "UPDATE jobs SET state = 'queued', started_at = NULL,
                     attempts = max(attempts - 1, 0) WHERE id = ?1 AND state = 'running'",
                )
                .and_then(|mut q| q.execute([id.into_bytes()]))
                .map_err(fail)
                .map(|_| ((), ()))
            },
            move |shared, ()| shared.put_back(id),
        )
    }

    /// Ends a job: its report, its outcome, the audit entry and the webhook's delivery in one
    /// transaction. False where it has ended already, such as by a cancellation; then nothing is
    /// written. Media that the tenant does not keep is deleted.
    ///
    /// # Errors
    /// SQLite's, such as no space: the job has not ended then.
    pub fn finish(&self, id: JobId, done: Finished) -> Pending<bool> {
        let shared = self.0.shared.clone();
        self.write(
            move |db| {
                let ended = rows::finish(&shared, db, id, &done)?;
                Ok((ended.is_some(), ended))
            },
            move |shared, ended| shared.ended(id, ended),
        )
    }

    /// Ends a job that is at work with the report that its tenant has of the same content: for jobs
    /// whose content was not known before, or not yet judged when they were submitted. None where
    /// there is no such report, or the job has ended already.
    ///
    /// # Errors
    /// SQLite's.
    pub fn reuse(&self, job: &Job, sha256: &str) -> Pending<Option<Job>> {
        let (id, sha256, shared) = (job.id, sha256.to_owned(), self.0.shared.clone());
        let known = match self.known(&job.tenant, &sha256, job.declared_ai) {
            Ok(Some(known)) => known,
            Ok(None) => return Pending::ready(Ok(None)),
            Err(error) => return Pending::ready(Err(error)),
        };
        self.write(
            move |db| {
                if !rows::exists(db, known.report).map_err(shared.sqlite())? {
                    return Ok((None, None));
                }
                let ended = rows::end(&shared, db, id, &known.into_end(Some(sha256)))?;
                Ok((ended.as_ref().map(|ended| ended.job.clone()), ended))
            },
            move |shared, ended| {
                if ended.is_some() {
                    shared.ended(id, ended);
                }
            },
        )
    }

    /// Waits for the next URL to fetch. None once the store is closed.
    pub async fn next_fetch(&self) -> Option<FetchTask> {
        let shared = &self.0.shared;
        loop {
            let mut came = std::pin::pin!(shared.fetch_came.notified());
            // From here on nothing that comes is missed.
            came.as_mut().enable();
            let taken = {
                let mut work = shared.work();
                if work.closed {
                    return None;
                }
                work.fetches.take(Slot::Ordinary).map(|waiting| work.begin(waiting, true))
            };
            let Some((id, cancel)) = taken else {
                came.await;
                continue;
            };
            match self.read(|db| rows::get(db, id).map_err(self.sqlite())) {
                Ok(Some(job)) if job.state == JobState::Fetching => {
                    let Source::Url { url } = &job.source else { continue };
                    let url = url.clone();
                    return Some(FetchTask { path: shared.upload(id), job, url, cancel });
                }
                Ok(_) => shared.work().end(id),
                Err(error) => {
                    tracing::error!("job {id} cannot be fetched: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    shared.put_back(id);
                }
            }
        }
    }

    /// A job's media was fetched and lies, synced, at its place: the job waits for a worker, or is
    /// done where the content is known. None where it was cancelled; the file is deleted then.
    ///
    /// # Errors
    /// SQLite's.
    pub fn fetched(&self, job: &Job, sha256: String, bytes: u64) -> Pending<Option<Job>> {
        let (id, shared) = (job.id, self.0.shared.clone());
        let known = match self.known(&job.tenant, &sha256, job.declared_ai) {
            Ok(known) => known,
            Err(error) => return Pending::ready(Err(error)),
        };
        let (write, pending) = self.make(
            true,
            move |db| {
                let fail = shared.sqlite();
                let changed = db
                    .prepare_cached(
                        "UPDATE jobs SET state = 'queued', sha256 = ?2, bytes = ?3, media = 1
                         WHERE id = ?1 AND state = 'fetching'",
                    )
                    .and_then(|mut q| {
                        q.execute(params![id.into_bytes(), sha256, rows::size(bytes)])
                    })
                    .map_err(&fail)?;
                if changed == 0 {
                    return Ok((None, After::Gone));
                }
                if let Some(known) = known.filter(|k| rows::exists(db, k.report).unwrap_or(false)) {
                    let ended = rows::end(&shared, db, id, &known.into_end(None))?;
                    return Ok((ended.as_ref().map(|e| e.job.clone()), After::Ended(ended)));
                }
                let job = rows::get(db, id).map_err(&fail)?;
                Ok((job.clone(), After::Queued(job)))
            },
            move |shared, after, committed| match after {
                After::Ended(ended) if committed => shared.ended(id, ended),
                After::Queued(Some(job)) if committed => {
                    let mut work = shared.work();
                    work.end(id);
                    work.queue.push(work::waiting(&job));
                    drop(work);
                    shared.work_came.notify_all();
                }
                After::Gone | After::Queued(None) if committed => {
                    shared.work().end(id);
                    shared.doom(shared.upload(id));
                }
                // Not written: it is fetched again.
                _ => shared.put_back(id),
            },
        );
        if let Some(writes) = &self.0.writes {
            let _ = writes.send(write);
        }
        pending
    }

    /// Deletes a job: one that has not ended is cancelled, and with one that has go its report, its
    /// previews and its media, save what other jobs with the same content need. The audit log keeps
    /// who did it, and deliveries that are under way go on. False where the tenant has no such job.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delete(&self, tenant: &str, id: JobId, by: &str) -> Pending<bool> {
        let (tenant, by, shared) = (tenant.to_owned(), by.to_owned(), self.0.shared.clone());
        self.write(
            move |db| {
                let gone = match rows::get(db, id).map_err(shared.sqlite())? {
                    Some(job) if job.tenant == tenant => {
                        Some(rows::remove(&shared, db, &job, &by, false)?)
                    }
                    _ => None,
                };
                Ok((gone.is_some(), gone))
            },
            move |shared, gone| {
                let Some(gone) = gone else { return };
                {
                    let mut work = shared.work();
                    if gone.unfinished {
                        work.ended.cancelled += 1;
                        work.cancel(id);
                        shared.work_came.notify_all();
                    }
                }
                for path in gone.doomed {
                    shared.doom(path);
                }
            },
        )
    }

    /// Keeps a reviewer's decision. None where the tenant has no such job.
    ///
    /// # Errors
    /// SQLite's.
    pub fn decide(&self, tenant: &str, id: JobId, decision: Decision) -> Pending<Option<Job>> {
        let (tenant, shared) = (tenant.to_owned(), self.0.shared.clone());
        self.write(
            move |db| {
                let fail = shared.sqlite();
                let job = rows::get(db, id).map_err(&fail)?;
                let Some(mut job) = job.filter(|job| job.tenant == tenant) else {
                    return Ok((None, ()));
                };
                let text = json(&decision)?;
                db.prepare_cached("INSERT INTO decisions (job, decision) VALUES (?1, ?2)")
                    .and_then(|mut q| q.execute(params![id.into_bytes(), text]))
                    .map_err(&fail)?;
                db.prepare_cached("UPDATE jobs SET decision = ?2 WHERE id = ?1")
                    .and_then(|mut q| q.execute(params![id.into_bytes(), text]))
                    .map_err(&fail)?;
                let (by, at) = (decision.by.clone(), decision.at);
                audit::add(db, at, &tenant, &by, "job.decided", Some(id), &text).map_err(&fail)?;
                job.decision = Some(decision);
                deliveries::add(&shared, db, "job.decided", &job, at)?;
                Ok((Some(job), ()))
            },
            |_, ()| {},
        )
    }

    /// A job's decisions, oldest first.
    ///
    /// # Errors
    /// SQLite's, or a row that cannot be read.
    pub fn decisions(&self, tenant: &str, id: JobId) -> Result<Vec<Decision>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<Decision>> {
            let mut query = db.prepare_cached(
                "SELECT decisions.decision FROM decisions JOIN jobs ON jobs.id = decisions.job
                 WHERE jobs.id = ?1 AND jobs.tenant = ?2 ORDER BY decisions.id",
            )?;
            let rows = query.query_map(params![id.into_bytes(), tenant], |row| {
                from_json(&row.get::<_, String>(0)?)
            })?;
            rows.collect()
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }

    /// How many jobs wait, run and ended.
    pub fn counts(&self) -> Counts {
        let work = self.0.shared.work();
        let fetching = work.running.values().filter(|r| r.fetching).count();
        Counts {
            live: work.waiting_at(Priority::Live),
            normal: work.waiting_at(Priority::Normal),
            batch: work.waiting_at(Priority::Batch),
            fetching: fetching + work.fetches.len(),
            running: work.running.len() - fetching,
            max_queued: self.0.shared.options.max_queued,
            oldest: work.queue.oldest(),
            ended: work.ended,
            commits: self.0.shared.commits[0].load(Ordering::Relaxed),
            writes: self.0.shared.commits[1].load(Ordering::Relaxed),
        }
    }

    /// What the tenant's jobs get that have this content, where it was judged by this engine.
    fn known(
        &self,
        tenant: &str,
        sha256: &str,
        declared_ai: bool,
    ) -> Result<Option<Known>, StoreError> {
        let shared = &self.0.shared;
        let found = self.read(|db| {
            db.prepare_cached(
                "SELECT id, report FROM reports
                 WHERE tenant = ?1 AND sha256 = ?2 AND fingerprint = ?3",
            )
            .and_then(|mut q| {
                q.query_row([tenant, sha256, &shared.options.fingerprint], |row| {
                    Ok((row.get(0)?, row.get::<_, String>(1)?))
                })
                .optional()
            })
            .map_err(self.sqlite())
        })?;
        let Some((report, text)) = found else { return Ok(None) };
        let parsed = rows::declared(rows::parse(&text).map_err(self.sqlite())?, declared_ai);
        let outcome = (shared.options.outcome)(tenant, &parsed, declared_ai);
        Ok(Some(Known { report, outcome, error: rows::fault(&parsed) }))
    }

    /// Takes up what an earlier server left.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let shared = self.0.shared.clone();
        let left = self.write(
            {
                let shared = shared.clone();
                move |db| Ok((rows::take_up(&shared, db)?, ()))
            },
            |_, ()| {},
        );
        let left = left.wait()?;
        shared.work().take_up(&left);
        self.delete_orphans()
    }

    /// Deletes files under `uploads` and folders under `contents` that belong to no job. Only where
    /// nothing is being received or judged. Here and not behind, since what is fetched anew goes
    /// where the old one lies.
    fn delete_orphans(&self) -> Result<(), StoreError> {
        let shared = &self.0.shared;
        for path in entries(&shared.data.join("uploads"))? {
            let id = path.file_name().and_then(|name| name.to_str());
            let wanted = match id.and_then(|name| Uuid::try_parse(name).ok()) {
                Some(id) => {
                    let job = self.read(|db| rows::get(db, id).map_err(self.sqlite()))?;
                    job.is_some_and(|job| job.has_media && shared.media(&job) == path)
                }
                None => false,
            };
            if !wanted {
                delete(&path);
            }
        }
        for folder in entries(&shared.data.join("contents"))? {
            for content in entries(&folder)? {
                let name = |path: &Path| {
                    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
                };
                let (tenant, content) = (name(&folder), name(&content));
                let judged = content.split_once('-').map(|(sha256, print)| {
                    let judged = |db: &Connection| rows::judged(db, &tenant, sha256, print);
                    self.read(|db| judged(db).map_err(self.sqlite()))
                });
                if !judged.transpose()?.unwrap_or(false) {
                    delete(&folder.join(&content));
                }
            }
            // Where nothing is in it.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }
}

/// What lies in a folder; nothing where it is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let all = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    all().map_err(|source| StoreError::Io { path: folder.into(), source })
}

/// What [`Store::fetched`] led to.
enum After {
    Gone,
    Queued(Option<Job>),
    Ended(Option<EndedJob>),
}
