//! Webhook calls that are to be made, were made or were given up.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{Job, JobId, Time};
use super::{Cursor, Pending, Shared, Store, StoreError, audit, from_word, json, tenants, word};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// Given up; it can be replayed.
    Dead,
}

/// One call of a tenant's webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Delivery {
    /// Receivers drop doubles by it.
    pub id: Uuid,
    pub tenant: String,
    #[schema(value_type = uuid::Uuid)]
    pub job: JobId,
    /// `job.done`, `job.failed`, `job.decided`.
    pub event: String,
    /// The JSON, byte by byte as it is signed and sent.
    pub body: String,
    pub state: DeliveryState,
    /// Calls that were made and failed.
    pub attempts: u32,
    pub created: Time,
    /// When it is called next.
    pub next_at: Time,
    pub last_error: Option<String>,
}

/// How a store's deliveries stand, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    pub pending: u64,
    /// When the oldest of those was made.
    pub oldest: Option<Time>,
    /// Taken by their receivers and given up since the store was opened.
    pub delivered: u64,
    pub dead: u64,
}

/// How long pending deliveries need not be counted again: all of them are gone through.
const COUNTED: Duration = Duration::from_secs(1);

/// What is counted of deliveries.
#[derive(Debug, Default)]
pub(super) struct Tally {
    delivered: AtomicU64,
    dead: AtomicU64,
    /// Pending ones, when they were counted last.
    pending: std::sync::Mutex<Option<(Instant, u64, Option<Time>)>>,
}

/// What a webhook is told.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookBody<'a> {
    pub id: Uuid,
    pub event: &'a str,
    pub at: Time,
    pub job: &'a Job,
}

/// Writes a delivery down where the job's tenant has a webhook.
pub(super) fn add(
    shared: &Shared,
    db: &Connection,
    event: &str,
    job: &Job,
    at: Time,
) -> Result<(), StoreError> {
    let fail = shared.sqlite();
    let tenant = tenants::get(db, &job.tenant).map_err(&fail)?;
    if tenant.is_none_or(|tenant| tenant.webhook_url.is_none()) {
        return Ok(());
    }
    let id = Uuid::now_v7();
    let body = json(&WebhookBody { id, event, at, job })?;
    db.prepare_cached(
        "INSERT INTO deliveries (id, tenant, job, event, body, state, attempts, created, next_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 'pending', 0, ?6, ?6)",
    )
    .and_then(|mut q| {
        q.execute(params![id.into_bytes(), job.tenant, job.id.into_bytes(), event, body, at.0])
    })
    .map_err(&fail)?;
    Ok(())
}

/// When a delivery was made, by its id: indexes have the id and not the time, and the rows themselves
/// are too large to look at each.
fn made(id: [u8; 16]) -> Time {
    let [a, b, c, d, e, f, ..] = id;
    Time(i64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

const COLUMNS: &str = "id, tenant, job, event, body, state, attempts, created, next_at, last_error";

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: Uuid::from_bytes(row.get(0)?),
        tenant: row.get(1)?,
        job: Uuid::from_bytes(row.get(2)?),
        event: row.get(3)?,
        body: row.get(4)?,
        state: from_word(row.get(5)?)?,
        attempts: row.get(6)?,
        created: Time(row.get(7)?),
        next_at: Time(row.get(8)?),
        last_error: row.get(9)?,
    })
}

impl Store {
    /// Pending deliveries whose time has come, the longest due first, at most `per_tenant` of each
    /// tenant: one whose receiver hangs holds up nobody else.
    ///
    /// # Errors
    /// SQLite's.
    pub fn deliveries_due(
        &self,
        now: Time,
        per_tenant: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<Delivery>> {
            // From tenant to tenant along the index, however many deliveries each has.
            let mut query = db.prepare_cached(
                "WITH RECURSIVE own(tenant) AS (
                     SELECT min(tenant) FROM deliveries WHERE state = 'pending'
                     UNION ALL
                     SELECT (SELECT min(tenant) FROM deliveries
                             WHERE state = 'pending' AND tenant > own.tenant)
                     FROM own WHERE own.tenant IS NOT NULL)
                 SELECT tenant FROM own WHERE tenant IS NOT NULL",
            )?;
            let tenants: Vec<String> =
                query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM deliveries
                 WHERE state = 'pending' AND tenant = ?1 AND next_at <= ?2
                 ORDER BY next_at, id LIMIT ?3"
            ))?;
            let limit = i64::try_from(per_tenant).unwrap_or(i64::MAX);
            let mut due = Vec::new();
            for tenant in tenants {
                for delivery in query.query_map(params![tenant, now.0, limit], read)? {
                    due.push(delivery?);
                }
            }
            due.sort_by_key(|delivery| (delivery.next_at, delivery.id));
            Ok(due)
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }

    /// The receiver took it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delivered(&self, id: Uuid) -> Pending<()> {
        self.change(
            "UPDATE deliveries SET state = 'delivered', last_error = NULL WHERE id = ?1",
            move |q| q.execute(params![id.into_bytes()]),
            |tally| Some(&tally.delivered),
        )
    }

    /// A call failed: it is made again at `retry_at`, or given up where that is none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delivery_failed(&self, id: Uuid, why: &str, retry_at: Option<Time>) -> Pending<()> {
        let why = why.to_owned();
        let state = if retry_at.is_some() { DeliveryState::Pending } else { DeliveryState::Dead };
        self.change(
            "UPDATE deliveries SET attempts = attempts + 1, state = ?2, last_error = ?3,
             next_at = coalesce(?4, next_at) WHERE id = ?1 AND state = 'pending'",
            move |q| q.execute(params![id.into_bytes(), word(&state), why, retry_at.map(|t| t.0)]),
            move |tally| (state == DeliveryState::Dead).then_some(&tally.dead),
        )
    }

    fn change(
        &self,
        sql: &'static str,
        execute: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<usize>
        + Send
        + 'static,
        counted: impl FnOnce(&Tally) -> Option<&AtomicU64> + Send + 'static,
    ) -> Pending<()> {
        let fail = self.sqlite();
        self.write(
            move |db| {
                let changed =
                    db.prepare_cached(sql).and_then(|mut q| execute(&mut q)).map_err(fail)?;
                Ok(((), changed))
            },
            move |shared, changed| {
                if let Some(count) = counted(&shared.tally) {
                    // None where the delivery is gone, or is not pending any more.
                    count.fetch_add(changed as u64, Ordering::Relaxed);
                }
            },
        )
    }

    /// How many deliveries wait, and what became of others.
    ///
    /// # Errors
    /// SQLite's.
    pub fn delivery_counts(&self) -> Result<DeliveryCounts, StoreError> {
        let tally = &self.0.shared.tally;
        // Held meanwhile: whoever asks at the same time waits for one count instead of making more.
        let mut known = tally.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (pending, oldest) = match *known {
            Some((at, pending, oldest)) if at.elapsed() < COUNTED => (pending, oldest),
            _ => {
                let count = |db: &Connection| {
                    db.prepare_cached(
                        "SELECT count(*), min(id) FROM deliveries WHERE state = 'pending'",
                    )?
                    .query_row([], |row| {
                        let n: i64 = row.get(0)?;
                        Ok((n.unsigned_abs(), row.get::<_, Option<[u8; 16]>>(1)?.map(made)))
                    })
                };
                let (pending, oldest) = self.read(|db| count(db).map_err(self.sqlite()))?;
                *known = Some((Instant::now(), pending, oldest));
                (pending, oldest)
            }
        };
        Ok(DeliveryCounts {
            pending,
            oldest,
            delivered: tally.delivered.load(Ordering::Relaxed),
            dead: tally.dead.load(Ordering::Relaxed),
        })
    }

    /// A job's deliveries, newest first, `limit` at most.
    ///
    /// # Errors
    /// SQLite's.
    pub fn deliveries_of(
        &self,
        tenant: &str,
        job: JobId,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<Delivery>> {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM deliveries WHERE job = ?1 AND tenant = ?2
                 ORDER BY id DESC LIMIT ?3"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            query.query_map(params![job.into_bytes(), tenant, limit], read)?.collect()
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }

    /// A tenant's deliveries, newest first, and where the listing goes on if it does.
    ///
    /// # Errors
    /// SQLite's.
    pub fn deliveries(
        &self,
        tenant: &str,
        state: Option<DeliveryState>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Delivery>, Option<Cursor>), StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<Delivery>> {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM deliveries WHERE tenant = ?1 AND id < ?2
                 AND (?3 IS NULL OR state = ?3) ORDER BY id DESC LIMIT ?4"
            ))?;
            let after = after.map_or([0xff; 16], |cursor| cursor.0.into_bytes());
            let limit = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
            query.query_map(params![tenant, after, state.map(|s| word(&s)), limit], read)?.collect()
        };
        let mut found = self.read(|db| all(db).map_err(self.sqlite()))?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|delivery| Cursor(delivery.id));
        Ok((found, next))
    }

    /// Makes a delivery once more, whatever became of it; the count of its attempts begins anew.
    /// False where the tenant has no such delivery.
    ///
    /// # Errors
    /// SQLite's.
    pub fn replay(&self, tenant: &str, id: Uuid, by: &str) -> Pending<bool> {
        let (tenant, by, fail) = (tenant.to_owned(), by.to_owned(), self.sqlite());
        self.write(
            move |db| {
                let now = Time::now();
                let job: Option<[u8; 16]> = db
                    .prepare_cached(
                        "UPDATE deliveries SET state = 'pending', attempts = 0, next_at = ?3
                         WHERE id = ?1 AND tenant = ?2 RETURNING job",
                    )
                    .and_then(|mut q| {
                        q.query_row(params![id.into_bytes(), tenant, now.0], |row| row.get(0))
                            .optional()
                    })
                    .map_err(&fail)?;
                let Some(job) = job.map(Uuid::from_bytes) else { return Ok((false, ())) };
                let detail = json(&serde_json::json!({ "delivery": id }))?;
                audit::add(db, now, &tenant, &by, "delivery.replayed", Some(job), &detail)
                    .map_err(&fail)?;
                Ok((true, ()))
            },
            |_, ()| {},
        )
    }
}
