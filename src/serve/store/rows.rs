//! Jobs and reports as rows: read, and changed by the writer's thread.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use uuid::Uuid;

use super::super::model::{Fault, Job, JobId, JobState, Outcome, Priority, Source, Summary, Time};
use super::{
    Cursor, Finished, Idempotency, JobFilter, MAX_ATTEMPTS, NewJob, Shared, StoreError, Submission,
    audit, deliveries, from_json, from_word, inline, json, tenants, word,
};
use crate::report::{DetectorKind, EngineInfo, Report, SegmentVerdict, Status};

/// How long an idempotency key is remembered.
pub(super) const IDEMPOTENCY_MS: i64 = 24 * 3_600_000;

/// Rows that a listing looks at for one page; one that finds less than a page among them says where
/// to go on.
const SCANNED_ROWS: usize = 20_000;

/// Whether there is a report of a content by an engine.
pub(super) fn judged(
    db: &Connection,
    tenant: &str,
    sha256: &str,
    print: &str,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM reports WHERE tenant = ?1 AND sha256 = ?2 AND fingerprint = ?3",
    )?
    .exists([tenant, sha256, print])
}

/// A content's report as a new job gets it.
pub(super) struct Known {
    pub(super) report: i64,
    pub(super) outcome: Outcome,
    pub(super) error: Option<Fault>,
}

impl Known {
    /// `sha256`: the content's, where the job may not know it.
    pub(super) fn into_end(self, sha256: Option<String>) -> End {
        let Self { report, outcome, error } = self;
        End { report, sha256, state: JobState::Done, outcome, error, reused: true }
    }
}

/// How a job ends.
pub(super) struct End {
    /// The report's row.
    report: i64,
    /// The content's, where the job did not know it.
    sha256: Option<String>,
    state: JobState,
    outcome: Outcome,
    error: Option<Fault>,
    reused: bool,
}

/// A job that ended, and media that is not kept.
pub(super) struct EndedJob {
    pub(super) job: Job,
    pub(super) media: Option<PathBuf>,
}

pub(super) fn accept(
    shared: &Shared,
    db: &Connection,
    new: &NewJob,
    known: Option<Known>,
) -> Result<(Submission, Option<PathBuf>), StoreError> {
    let fail = shared.sqlite();
    let now = Time::now();
    if let Some(mark) = &new.idempotency
        && let Some(answer) = replayed(db, &new.tenant, mark, now).map_err(&fail)?
    {
        return Ok((answer, None));
    }
    // Its report may have been deleted since it was read.
    let known = match known {
        Some(known) if exists(db, known.report).map_err(&fail)? => Some(known),
        _ => None,
    };
    if known.is_none() {
        let mut work = shared.work();
        let (all, one) = work.waiting(&new.tenant);
        if all >= room(shared.options.max_queued, new.priority) {
            return Ok((Submission::Full, None));
        }
        if one >= new.tenant_max_queued {
            return Ok((Submission::TenantFull, None));
        }
        work.admit(&new.tenant);
    }
    let admitted = known.is_none();
    let written = (|| {
        insert(db, new, now).map_err(&fail)?;
        if let Some(content) = &new.content {
            inline::put(db, new.id, content).map_err(&fail)?;
        }
        if let Some(mark) = &new.idempotency {
            db.prepare_cached(
                "INSERT INTO idempotency (tenant, key, digest, job, created)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE
                 SET digest = excluded.digest, job = excluded.job, created = excluded.created",
            )
            .and_then(|mut q| {
                q.execute(params![new.tenant, mark.key, mark.digest, new.id.into_bytes(), now.0])
            })
            .map_err(&fail)?;
        }
        let detail = json(&serde_json::json!({
            "source": new.source, "priority": new.priority, "reference": new.reference,
            "declared_ai": new.declared_ai, "sha256": new.sha256, "bytes": new.bytes,
        }))?;
        audit::add(db, now, &new.tenant, &new.by, "job.accepted", Some(new.id), &detail)
            .map_err(&fail)?;
        let missing = || StoreError::Invalid(format!("job {} is not where it was put", new.id));
        match known {
            Some(known) => {
                let ended = end(shared, db, new.id, &known.into_end(None))?.ok_or_else(missing)?;
                Ok((Submission::Reused(ended.job), ended.media))
            }
            None => {
                let job = get(db, new.id).map_err(&fail)?.ok_or_else(missing)?;
                Ok((Submission::Accepted(job), None))
            }
        }
    })();
    if admitted && written.is_err() {
        shared.work().admitted(&new.tenant);
    }
    written
}

/// How many jobs may wait for one more of a priority to be accepted: a tenth is for live jobs alone,
/// so that a flood of others does not shut them out.
fn room(max_queued: usize, priority: Priority) -> usize {
    if priority == Priority::Live { max_queued } else { max_queued - max_queued / 10 }
}

fn replayed(
    db: &Connection,
    tenant: &str,
    mark: &Idempotency,
    now: Time,
) -> rusqlite::Result<Option<Submission>> {
    let found: Option<(String, [u8; 16])> = db
        .prepare_cached(
            "SELECT digest, job FROM idempotency WHERE tenant = ?1 AND key = ?2 AND created > ?3",
        )?
        .query_row(params![tenant, mark.key, now.0 - IDEMPOTENCY_MS], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((digest, id)) = found else { return Ok(None) };
    Ok(match get(db, Uuid::from_bytes(id))? {
        // A job that was deleted since may be submitted again.
        None => None,
        Some(_) if digest != mark.digest => Some(Submission::IdempotencyConflict),
        Some(job) => Some(Submission::Replayed(job)),
    })
}

pub(super) fn exists(db: &Connection, report: i64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM reports WHERE id = ?1")?.exists([report])
}

fn insert(db: &Connection, new: &NewJob, now: Time) -> rusqlite::Result<usize> {
    let (state, name, media) = match &new.source {
        Source::Upload { name } => (JobState::Queued, name, 1),
        Source::Url { url } => (JobState::Fetching, url, 0),
        Source::Path { path } => (JobState::Queued, path, 2),
    };
    db.prepare_cached(
        "INSERT INTO jobs (id, tenant, state, priority, source, name, reference, declared_ai,
         sha256, bytes, submitted_at, media)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        new.id.into_bytes(),
        new.tenant,
        word(&state),
        word(&new.priority),
        serde_json::to_string(&new.source).map_err(|e| to_sql(e.into()))?,
        name,
        new.reference,
        new.declared_ai,
        new.sha256,
        new.bytes.map(size),
        now.0,
        media,
    ])
}

/// A size as SQLite has it.
pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn to_sql(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error)
}

pub(super) fn finish(
    shared: &Shared,
    db: &Connection,
    id: JobId,
    done: &Finished,
) -> Result<Option<EndedJob>, StoreError> {
    let fail = shared.sqlite();
    let tenant: Option<String> = db
        .prepare_cached("SELECT tenant FROM jobs WHERE id = ?1 AND finished_at IS NULL")
        .and_then(|mut q| q.query_row([id.into_bytes()], |row| row.get(0)).optional())
        .map_err(&fail)?;
    let Some(tenant) = tenant else { return Ok(None) };
    let report = put_report(shared, db, &tenant, done)?;
    let failed = done.report.status == Status::Failed;
    let end_as = End {
        report,
        sha256: done.report.media.sha256.clone(),
        state: if failed { JobState::Failed } else { JobState::Done },
        outcome: done.outcome.clone(),
        error: fault(&done.report),
        reused: false,
    };
    end(shared, db, id, &end_as)
}

/// Keeps a report and says in which row. Where the tenant has one of the content already, that one.
fn put_report(
    shared: &Shared,
    db: &Connection,
    tenant: &str,
    done: &Finished,
) -> Result<i64, StoreError> {
    let fail = shared.sqlite();
    let print = &shared.options.fingerprint;
    // A failure may have passed by the next time.
    let content =
        done.report.media.sha256.as_ref().filter(|_| done.report.status != Status::Failed);
    let report = json(&done.report.clone().with_path(""))?;
    let put = db
        .prepare_cached(
            "INSERT INTO reports (tenant, sha256, fingerprint, found, summary, report)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )
        .and_then(|mut q| {
            let summary = serde_json::to_string(&done.summary).map_err(|e| to_sql(e.into()))?;
            q.execute(params![tenant, content, print, found(&done.report), summary, report])
        })
        .map_err(&fail)?;
    if put == 1 {
        return Ok(db.last_insert_rowid());
    }
    db.prepare_cached(
        "SELECT id FROM reports WHERE tenant = ?1 AND sha256 = ?2 AND fingerprint = ?3",
    )
    .and_then(|mut q| q.query_row(params![tenant, content, print], |row| row.get(0)))
    .map_err(&fail)
}

/// Writes down that a job has ended. None where it had already.
pub(super) fn end(
    shared: &Shared,
    db: &Connection,
    id: JobId,
    how: &End,
) -> Result<Option<EndedJob>, StoreError> {
    let fail = shared.sqlite();
    let Some(before) = get(db, id).map_err(&fail)?.filter(|job| !job.state.is_final()) else {
        return Ok(None);
    };
    let tenant = tenants::get(db, &before.tenant).map_err(&fail)?;
    let ours = !matches!(before.source, Source::Path { .. });
    let kept = before.has_media && (!ours || tenant.as_ref().is_some_and(|t| t.keep_media_s > 0));
    let now = Time::now();
    db.prepare_cached(
        "UPDATE jobs SET state = :state, finished_at = :now, reused = :reused, action = :action,
         disposition = :disposition, outcome = :outcome, error = :error, media = :media,
         report = :report, fingerprint = :fingerprint, sha256 = coalesce(sha256, :sha256)
         WHERE id = :id",
    )
    .and_then(|mut q| {
        q.execute(named_params! {
            ":id": id.into_bytes(),
            ":state": word(&how.state),
            ":now": now.0,
            ":reused": how.reused,
            ":action": word(&how.outcome.action),
            ":disposition": word(&how.outcome.disposition),
            ":outcome": serde_json::to_string(&how.outcome).map_err(|e| to_sql(e.into()))?,
            ":error": how.error.as_ref().map(serde_json::to_string).transpose()
                .map_err(|e| to_sql(e.into()))?,
            ":media": match (kept, ours) { (false, _) => 0, (true, true) => 1, (true, false) => 2 },
            ":report": how.report,
            ":fingerprint": shared.options.fingerprint,
            ":sha256": how.sha256,
        })
    })
    .map_err(&fail)?;
    let Some(job) = get(db, id).map_err(&fail)? else { return Ok(None) };
    let what = if how.state == JobState::Failed { "job.failed" } else { "job.done" };
    let detail = json(&serde_json::json!({
        "action": how.outcome.action, "disposition": how.outcome.disposition,
        "policy_version": how.outcome.policy_version, "reused": how.reused,
        "sha256": job.sha256, "error": how.error,
    }))?;
    audit::add(db, now, &job.tenant, "", what, Some(id), &detail).map_err(&fail)?;
    deliveries::add(shared, db, what, &job, now)?;
    let inline = !kept && inline::delete(db, id).map_err(&fail)?;
    let media = (ours && before.has_media && !kept && !inline).then(|| shared.upload(id));
    Ok(Some(EndedJob { job, media }))
}

/// What [`remove`] left to be done.
pub(super) struct Gone {
    pub(super) unfinished: bool,
    pub(super) doomed: Vec<PathBuf>,
}

/// Deletes a job and what no other job needs.
pub(super) fn remove(
    shared: &Shared,
    db: &Connection,
    job: &Job,
    by: &str,
    expired: bool,
) -> Result<Gone, StoreError> {
    let fail = shared.sqlite();
    let unfinished = !job.state.is_final();
    let (report, print): (Option<i64>, Option<String>) = db
        .prepare_cached("SELECT report, fingerprint FROM jobs WHERE id = ?1")
        .and_then(|mut q| q.query_row([job.id.into_bytes()], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(&fail)?;
    let execute = |sql: &str, id: &dyn rusqlite::ToSql| {
        db.prepare_cached(sql).and_then(|mut q| q.execute([id])).map_err(&fail)
    };
    execute("DELETE FROM decisions WHERE job = ?1", &job.id.into_bytes())?;
    let inline = inline::delete(db, job.id).map_err(&fail)?;
    execute("DELETE FROM jobs WHERE id = ?1", &job.id.into_bytes())?;
    let mut doomed = Vec::new();
    if !inline && !matches!(job.source, Source::Path { .. }) {
        doomed.push(shared.upload(job.id));
    }
    if let Some(report) = report {
        let needed = db
            .prepare_cached("SELECT 1 FROM jobs WHERE report = ?1")
            .and_then(|mut q| q.exists([report]))
            .map_err(&fail)?;
        if !needed {
            execute("DELETE FROM reports WHERE id = ?1", &report)?;
            // A failed job's report is its own, and its content may have been judged elsewhere.
            if let (Some(sha256), Some(print)) = (&job.sha256, &print)
                && !judged(db, &job.tenant, sha256, print).map_err(&fail)?
            {
                doomed.push(shared.contents(&job.tenant, sha256, print));
            }
        }
    }
    let what = match expired {
        true => "job.expired",
        false if unfinished => "job.cancelled",
        false => "job.deleted",
    };
    audit::add(db, Time::now(), &job.tenant, by, what, Some(job.id), "{}").map_err(&fail)?;
    Ok(Gone { unfinished, doomed })
}

/// Ends what was begun too often, lets the rest of what ran wait again, and gives all that waits.
pub(super) fn take_up(shared: &Shared, db: &Connection) -> Result<Vec<Job>, StoreError> {
    let fail = shared.sqlite();
    let unfinished = || -> rusqlite::Result<Vec<Job>> {
        let mut query =
            db.prepare(&format!("SELECT {COLUMNS} {FROM} WHERE jobs.finished_at IS NULL"))?;
        query.query_map([], read)?.collect()
    };
    for job in unfinished().map_err(&fail)? {
        if job.state == JobState::Running && job.attempts > MAX_ATTEMPTS {
            let name = name(&job.source);
            let message =
                format!("{name}: the server died {} times while it was being judged", job.attempts);
            let engine = EngineInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                weights: Default::default(),
                device: "none".into(),
                device_note: None,
                decoder: None,
                options: Default::default(),
            };
            let report =
                declared(Report::failed(name, "crashed", message, engine), job.declared_ai);
            let outcome = (shared.options.outcome)(&job.tenant, &report, job.declared_ai);
            let summary = Summary {
                duration_ms: None,
                kind: None,
                peaks: Vec::new(),
                labels: Vec::new(),
                strip_evidence: Vec::new(),
            };
            let ended = finish(shared, db, job.id, &Finished { report, outcome, summary })?;
            // Should the transaction fail the store is not opened, and nothing is lost: the media of
            // unfinished jobs alone is needed again.
            drop(ended);
        }
    }
    db.execute("UPDATE jobs SET state = 'queued', started_at = NULL WHERE state = 'running'", [])
        .map_err(&fail)?;
    unfinished().map_err(&fail)
}

fn name(source: &Source) -> &str {
    match source {
        Source::Upload { name } => name,
        Source::Url { url } => url,
        Source::Path { path } => path,
    }
}

/// A report with the disposition that the uploader's declaration leads to.
pub(super) fn declared(mut report: Report, declared_ai: bool) -> Report {
    if declared_ai {
        crate::verdict::disposition::declare(&mut report);
    }
    report
}

pub(super) fn parse(text: &str) -> rusqlite::Result<Report> {
    from_json(text)
}

pub(super) fn fault(report: &Report) -> Option<Fault> {
    let failure = report.error.as_ref()?;
    Some(Fault { code: failure.code.clone(), message: failure.message.clone() })
}

/// The bit of a detector in `reports.found`.
fn bit(detector: DetectorKind) -> i64 {
    match detector {
        DetectorKind::FaceSwap => 1,
        DetectorKind::VoiceClone => 2,
        DetectorKind::LabelStrip => 4,
    }
}

fn found(report: &Report) -> i64 {
    let fakes = report.segments.iter().filter(|s| s.verdict == SegmentVerdict::Fake);
    fakes.fold(0, |bits, segment| bits | bit(segment.detector))
}

const COLUMNS: &str = "jobs.id, jobs.tenant, jobs.state, jobs.priority, jobs.source,
    jobs.reference, jobs.declared_ai, jobs.sha256, jobs.bytes, jobs.submitted_at, jobs.started_at,
    jobs.finished_at, jobs.attempts, jobs.reused, jobs.outcome, jobs.error, reports.summary,
    jobs.decision, jobs.media <> 0";
const FROM: &str = "FROM jobs LEFT JOIN reports ON reports.id = jobs.report";
/// What a listing asks of a row stands after the columns.
const HIT: usize = 19;

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let optional = |i: usize| row.get::<_, Option<String>>(i);
    let time = |i: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(i)?.map(Time));
    Ok(Job {
        id: Uuid::from_bytes(row.get(0)?),
        tenant: row.get(1)?,
        state: from_word(row.get(2)?)?,
        priority: from_word(row.get(3)?)?,
        source: from_json(&row.get::<_, String>(4)?)?,
        reference: row.get(5)?,
        declared_ai: row.get(6)?,
        sha256: row.get(7)?,
        bytes: row.get::<_, Option<i64>>(8)?.map(i64::unsigned_abs),
        submitted_at: Time(row.get(9)?),
        started_at: time(10)?,
        finished_at: time(11)?,
        attempts: row.get(12)?,
        reused: row.get(13)?,
        progress: None,
        outcome: optional(14)?.as_deref().map(from_json).transpose()?,
        error: optional(15)?.as_deref().map(from_json).transpose()?,
        summary: optional(16)?.as_deref().map(from_json).transpose()?,
        decision: optional(17)?.as_deref().map(from_json).transpose()?,
        has_media: row.get(18)?,
    })
}

pub(super) fn get(db: &Connection, id: JobId) -> rusqlite::Result<Option<Job>> {
    static BY_ID: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("SELECT {COLUMNS} {FROM} WHERE jobs.id = ?1"));
    db.prepare_cached(&BY_ID)?.query_row([id.into_bytes()], read).optional()
}

pub(super) fn list(
    db: &Connection,
    tenant: &str,
    filter: &JobFilter,
    after: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<(Vec<Job>, Option<Cursor>)> {
    // What has an index narrows the rows that are looked at; the rest is asked of each of them, and
    // of so many at most.
    let mut wheres = String::from("jobs.tenant = :tenant AND jobs.id < :after");
    let mut hits = String::from("1");
    let after = after.map_or([0xff; 16], |cursor| cursor.0.into_bytes());
    let mut values: Vec<(&str, Box<dyn rusqlite::ToSql>)> =
        vec![(":tenant", Box::new(tenant.to_owned())), (":after", Box::new(after))];
    if let Some(action) = filter.action {
        wheres += " AND jobs.action = :action";
        values.push((":action", Box::new(word(&action))));
    }
    if let Some(state) = filter.state {
        // Of the few that have not ended there is an index of their own.
        wheres += if state.is_final() { "" } else { " AND jobs.finished_at IS NULL" };
        hits += " AND jobs.state = :state";
        values.push((":state", Box::new(word(&state))));
    }
    if let Some(priority) = filter.priority {
        hits += " AND jobs.priority = :priority";
        values.push((":priority", Box::new(word(&priority))));
    }
    if let Some(disposition) = filter.disposition {
        hits += " AND jobs.disposition IS :disposition";
        values.push((":disposition", Box::new(word(&disposition))));
    }
    if let Some(decided) = filter.decided {
        hits += " AND (jobs.decision IS NOT NULL) = :decided";
        values.push((":decided", Box::new(decided)));
    }
    if let Some(detector) = filter.detector {
        hits += " AND coalesce(reports.found, 0) & :detector <> 0";
        values.push((":detector", Box::new(bit(detector))));
    }
    if let Some(text) = &filter.text {
        hits += " AND (instr(lower(jobs.name), :text) > 0
            OR instr(lower(coalesce(jobs.reference, '')), :text) > 0
            OR substr(coalesce(jobs.sha256, ''), 1, length(:text)) = :text)";
        values.push((":text", Box::new(text.to_ascii_lowercase())));
    }
    let sql = format!(
        "SELECT {COLUMNS}, {hits} {FROM} WHERE {wheres} ORDER BY jobs.id DESC LIMIT {SCANNED_ROWS}"
    );
    let named: Vec<(&str, &dyn rusqlite::ToSql)> =
        values.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query(named.as_slice())?;
    let (mut jobs, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if jobs.len() == limit {
            return Ok((jobs, last));
        }
        looked_at += 1;
        last = Some(Cursor(Uuid::from_bytes(row.get(0)?)));
        if row.get::<_, bool>(HIT)? {
            jobs.push(read(row)?);
        }
    }
    Ok((jobs, last.filter(|_| looked_at == SCANNED_ROWS)))
}
