//! What is deleted when its time has come.

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::model::Time;
use super::rows::{self, IDEMPOTENCY_MS};
use super::{Store, StoreError, inline};

const DAY_MS: i64 = 24 * 3_600_000;
/// Labels law asks for logs of six months.
const KEEP_AUDIT_MS: i64 = 183 * DAY_MS;
/// How long deliveries can be looked up and replayed once they were made or given up.
const KEEP_DELIVERIES_MS: i64 = 30 * DAY_MS;
/// Rows deleted in one write, so that others need not wait long.
pub(super) const AT_ONCE: i64 = 200;

/// How much a sweep deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub media: usize,
    pub jobs: usize,
    pub audit: usize,
    pub deliveries: usize,
    pub idempotency: usize,
}

/// Tenants that have rows in a table, whether or not they are still known.
pub(super) fn owners(db: &Connection, table: &'static str) -> rusqlite::Result<Vec<String>> {
    // A step in the index for each tenant, not for each row.
    let mut query = db.prepare_cached(&format!(
        "WITH RECURSIVE owners (tenant) AS (
             SELECT min(tenant) FROM {table}
             UNION ALL
             SELECT (SELECT min(tenant) FROM {table} WHERE tenant > owners.tenant)
             FROM owners WHERE owners.tenant IS NOT NULL)
         SELECT tenant FROM owners WHERE tenant IS NOT NULL"
    ))?;
    query.query_map([], |row| row.get(0))?.collect()
}

impl Store {
    /// Deletes what is kept no longer at `now`: media and jobs with their reports and previews as
    /// their tenants say, webhook deliveries that were made or given up 30 days ago, idempotency keys
    /// after a day, the audit log after 183 days. Blocks until all is done, in small writes.
    ///
    /// # Errors
    /// SQLite's; what was deleted before stays deleted.
    pub fn sweep(&self, now: Time) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for tenant in self.read(|db| owners(db, "jobs").map_err(self.sqlite()))? {
            // Of one that was removed everything goes, which is not done here.
            let Some(settings) = self.tenant(&tenant)? else { continue };
            let before = |ms: u64| now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
            let media = before(settings.keep_media_s.saturating_mul(1_000));
            swept.media += self.all(|store| store.drop_media(&tenant, media))?;
            let days = u64::from(settings.keep_reports_days);
            let jobs = before(days.saturating_mul(DAY_MS.unsigned_abs()));
            swept.jobs += self.all(|store| store.drop_jobs(&tenant, jobs))?;
        }
        let old = |ms: i64| now.0.saturating_sub(ms);
        swept.audit = self.all(|store| {
            store.drop_rows(
                "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 LIMIT ?2)",
                old(KEEP_AUDIT_MS),
            )
        })?;
        swept.deliveries = self.all(|store| {
            store.drop_rows(
                "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries
                 WHERE state <> 'pending' AND created < ?1 LIMIT ?2)",
                old(KEEP_DELIVERIES_MS),
            )
        })?;
        swept.idempotency = self.all(|store| {
            store.drop_rows(
                "DELETE FROM idempotency WHERE (tenant, key) IN
                 (SELECT tenant, key FROM idempotency WHERE created < ?1 LIMIT ?2)",
                old(IDEMPOTENCY_MS),
            )
        })?;
        // The log of writes holds deleted uploads until it is emptied.
        self.empty_log()?;
        Ok(swept)
    }

    /// Repeats until nothing is left to delete.
    pub(super) fn all(
        &self,
        mut some: impl FnMut(&Self) -> Result<usize, StoreError>,
    ) -> Result<usize, StoreError> {
        let mut sum = 0;
        loop {
            let n = some(self)?;
            sum += n;
            if n == 0 {
                return Ok(sum);
            }
        }
    }

    fn drop_rows(&self, sql: &'static str, before: i64) -> Result<usize, StoreError> {
        let fail = self.sqlite();
        let dropped = self.write(
            move |db| {
                let n = db
                    .prepare_cached(sql)
                    .and_then(|mut q| q.execute([before, AT_ONCE]))
                    .map_err(fail)?;
                Ok((n, ()))
            },
            |_, ()| {},
        );
        dropped.wait()
    }

    fn drop_media(&self, tenant: &str, before: i64) -> Result<usize, StoreError> {
        let (tenant, fail) = (tenant.to_owned(), self.sqlite());
        let some = move |db: &Connection| -> rusqlite::Result<Vec<Uuid>> {
            let mut query = db.prepare_cached(
                "UPDATE jobs SET media = 0 WHERE id IN (SELECT id FROM jobs
                 WHERE tenant = ?1 AND finished_at < ?2 AND media = 1
                 AND finished_at IS NOT NULL LIMIT ?3)
                 RETURNING id",
            )?;
            let rows = query.query_map(params![tenant, before, AT_ONCE], |row| row.get(0))?;
            rows.map(|id| id.map(Uuid::from_bytes)).collect()
        };
        let dropped = self.write(
            move |db| {
                let ids = some(db).map_err(&fail)?;
                for id in &ids {
                    inline::delete(db, *id).map_err(&fail)?;
                }
                Ok((ids.len(), ids))
            },
            |shared, ids| ids.into_iter().for_each(|id| shared.doom(shared.upload(id))),
        );
        dropped.wait()
    }

    fn drop_jobs(&self, tenant: &str, before: i64) -> Result<usize, StoreError> {
        let (tenant, shared) = (tenant.to_owned(), self.0.shared.clone());
        let some = move |db: &Connection| -> rusqlite::Result<Vec<Uuid>> {
            let mut query = db.prepare_cached(
                "SELECT id FROM jobs WHERE tenant = ?1 AND finished_at < ?2
                 AND finished_at IS NOT NULL LIMIT ?3",
            )?;
            let rows = query.query_map(params![tenant, before, AT_ONCE], |row| row.get(0))?;
            rows.map(|id| id.map(Uuid::from_bytes)).collect()
        };
        let dropped = self.write(
            move |db| {
                let (mut n, mut doomed) = (0, Vec::new());
                for id in some(db).map_err(shared.sqlite())? {
                    if let Some(job) = rows::get(db, id).map_err(shared.sqlite())? {
                        doomed.extend(rows::remove(&shared, db, &job, "", true)?.doomed);
                        n += 1;
                    }
                }
                Ok((n, doomed))
            },
            |shared, doomed| doomed.into_iter().for_each(|path| shared.doom(path)),
        );
        dropped.wait()
    }
}
