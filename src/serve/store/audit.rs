//! Who did what. Entries outlive what they speak of.

use rusqlite::{Connection, params};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{JobId, Time};
use super::{Store, StoreError};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Rises with time.
    pub id: i64,
    pub at: Time,
    pub tenant: String,
    /// The API key's name; empty: the service itself.
    pub key: String,
    /// `job.accepted`; then exactly one of `job.done`, `job.failed` and `job.cancelled`; later
    /// `job.decided`, `job.deleted`, `job.expired`. Also `delivery.replayed`, `tenant.set`,
    /// `tenant.removed`, `key.added`, `key.revoked`.
    pub what: String,
    #[schema(value_type = Option<uuid::Uuid>)]
    pub job: Option<JobId>,
    /// JSON; what it has depends on `what`.
    pub detail: String,
}

/// Adds an entry.
pub(super) fn add(
    db: &Connection,
    at: Time,
    tenant: &str,
    key: &str,
    what: &str,
    job: Option<JobId>,
    detail: &str,
) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "INSERT INTO audit (at, tenant, key, what, job, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![at.0, tenant, key, what, job.map(Uuid::into_bytes), detail])
}

impl Store {
    /// The audit log's entries about a tenant, or about all where none is given, newest first, before
    /// the entry `before` where it is given.
    ///
    /// # Errors
    /// SQLite's.
    pub fn audit(
        &self,
        tenant: Option<&str>,
        job: Option<JobId>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<AuditEntry>> {
            let which = if job.is_some() { "job = ?2" } else { "?2 IS NULL" };
            let mut query = db.prepare_cached(&format!(
                "SELECT id, at, tenant, key, what, job, detail FROM audit
                 WHERE {which} AND (?1 IS NULL OR tenant = ?1) AND id < ?3
                 ORDER BY id DESC LIMIT ?4"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let before = before.unwrap_or(i64::MAX);
            let rows = query.query_map(
                params![tenant, job.map(Uuid::into_bytes), before, limit],
                |row| {
                    Ok(AuditEntry {
                        id: row.get(0)?,
                        at: Time(row.get(1)?),
                        tenant: row.get(2)?,
                        key: row.get(3)?,
                        what: row.get(4)?,
                        job: row.get::<_, Option<[u8; 16]>>(5)?.map(Uuid::from_bytes),
                        detail: row.get(6)?,
                    })
                },
            )?;
            rows.collect()
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }
}
