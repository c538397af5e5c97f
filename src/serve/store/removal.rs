//! Tenants that are removed, and what they had.
//!
//! A tenant is unknown, and its keys are worthless, with one write. What it had is deleted behind that,
//! in small writes, by whoever has the folder to itself: the server that works in it, or the command
//! that removed the tenant. Whatever breaks that off, the next server goes on: what belongs to no
//! tenant is to be deleted. Until it is, no other tenant can have the name.

use std::fs::File;
use std::path::PathBuf;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::super::model::{JobId, Time};
use super::retention::{AT_ONCE, owners};
use super::{Pending, Store, StoreError, audit, delete, json, lock, rows, tenants};

/// Whether jobs or webhook deliveries have this tenant.
pub(super) fn has_any(db: &Connection, tenant: &str) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE tenant = ?1)
         OR EXISTS (SELECT 1 FROM deliveries WHERE tenant = ?1)",
    )?
    .query_row([tenant], |row| row.get(0))
}

impl Store {
    /// Removes a tenant and its keys. What else it has is left to [`Store::purge`]; the audit log
    /// stays. False where there is no such tenant.
    ///
    /// # Errors
    /// SQLite's.
    pub fn remove_tenant(&self, name: &str) -> Pending<bool> {
        let (name, fail) = (name.to_owned(), self.sqlite());
        let all = |db: &Connection, name: &str, sql: &str| -> rusqlite::Result<Vec<[u8; 16]>> {
            db.prepare_cached(sql)?.query_map([name], |row| row.get(0))?.collect()
        };
        self.write(
            move |db| {
                if tenants::get(db, &name).map_err(&fail)?.is_none() {
                    return Ok((false, ()));
                }
                let now = Time::now();
                let good = "SELECT id FROM keys WHERE tenant = ?1 AND revoked IS NULL ORDER BY id";
                for id in all(db, &name, good).map_err(&fail)? {
                    let detail = json(&serde_json::json!({ "key": Uuid::from_bytes(id) }))?;
                    audit::add(db, now, &name, "", "key.revoked", None, &detail).map_err(&fail)?;
                }
                for sql in
                    ["DELETE FROM keys WHERE tenant = ?1", "DELETE FROM tenants WHERE name = ?1"]
                {
                    db.prepare_cached(sql).and_then(|mut q| q.execute([&name])).map_err(&fail)?;
                }
                audit::add(db, now, &name, "", "tenant.removed", None, "{}").map_err(&fail)?;
                Ok((true, ()))
            },
            |shared, ()| shared.keys.clear(),
        )
    }

    /// Who has jobs or webhook deliveries and is not known: tenants that were removed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn removed_tenants(&self) -> Result<Vec<String>, StoreError> {
        let unknown = |db: &Connection| -> rusqlite::Result<Vec<String>> {
            let mut all = owners(db, "jobs")?;
            all.extend(owners(db, "deliveries")?);
            all.sort();
            all.dedup();
            let mut known = db.prepare_cached("SELECT 1 FROM tenants WHERE name = ?1")?;
            let mut unknown = Vec::new();
            for tenant in all {
                if !known.exists([&tenant])? {
                    unknown.push(tenant);
                }
            }
            Ok(unknown)
        };
        self.read(|db| unknown(db).map_err(self.sqlite()))
    }

    /// Deletes what a tenant had that is not known: jobs, those at work among them, with media,
    /// previews and reports, and webhook deliveries. Nothing where it is known again. `cancelled` is
    /// told of jobs that had not ended. Blocks until all is done.
    ///
    /// # Errors
    /// SQLite's; what was deleted before stays deleted.
    pub fn purge(&self, tenant: &str, mut cancelled: impl FnMut(JobId)) -> Result<(), StoreError> {
        if self.tenant(tenant)?.is_some() {
            return Ok(());
        }
        for sql in [
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE tenant = ?1
             AND NOT EXISTS (SELECT 1 FROM tenants WHERE name = ?1) LIMIT ?2)",
            "DELETE FROM idempotency WHERE tenant = ?1 AND key IN
             (SELECT key FROM idempotency WHERE tenant = ?1
             AND NOT EXISTS (SELECT 1 FROM tenants WHERE name = ?1) LIMIT ?2)",
        ] {
            self.all(|store| {
                let (tenant, fail) = (tenant.to_owned(), store.sqlite());
                let dropped = store.write(
                    move |db| {
                        let drop = db.prepare_cached(sql);
                        let n = drop.and_then(|mut q| q.execute(params![tenant, AT_ONCE]));
                        Ok((n.map_err(fail)?, ()))
                    },
                    |_, ()| {},
                );
                dropped.wait()
            })?;
        }
        // While there are jobs nobody else can have the name, and so nothing in the folder. What a job
        // that is at work still puts there its worker removes.
        let contents = self.data().join("contents").join(tenant);
        if self.read(|db| has_any(db, tenant).map_err(self.sqlite()))? {
            delete(&contents);
        }
        self.all(|store| {
            let (n, ended, doomed) = store.purge_jobs(tenant)?;
            ended.into_iter().for_each(&mut cancelled);
            // Here and not behind: a command ends when this is done.
            doomed.iter().for_each(|path| delete(path));
            Ok(n)
        })?;
        // Where nothing is in it.
        let _ = std::fs::remove_dir(contents);
        Ok(())
    }

    /// Deletes a few jobs of a tenant that is not known. Gives how many, those of them that had not
    /// ended, and files that are to be deleted.
    fn purge_jobs(&self, tenant: &str) -> Result<(usize, Vec<JobId>, Vec<PathBuf>), StoreError> {
        let (tenant, shared) = (tenant.to_owned(), self.0.shared.clone());
        let some = move |db: &Connection| -> rusqlite::Result<Vec<Uuid>> {
            let mut query = db.prepare_cached(
                "SELECT id FROM jobs WHERE tenant = ?1
                 AND NOT EXISTS (SELECT 1 FROM tenants WHERE name = ?1) LIMIT ?2",
            )?;
            let rows = query.query_map(params![tenant, AT_ONCE], |row| row.get(0))?;
            rows.map(|id| id.map(Uuid::from_bytes)).collect()
        };
        let purged = self.write(
            move |db| {
                let (mut n, mut unfinished, mut doomed) = (0, Vec::new(), Vec::new());
                for id in some(db).map_err(shared.sqlite())? {
                    if let Some(job) = rows::get(db, id).map_err(shared.sqlite())? {
                        let gone = rows::remove(&shared, db, &job, "", false)?;
                        n += 1;
                        doomed.extend(gone.doomed);
                        unfinished.extend(gone.unfinished.then_some(id));
                    }
                }
                Ok(((n, unfinished.clone(), doomed), unfinished))
            },
            |shared, unfinished| {
                let mut work = shared.work();
                for id in unfinished {
                    work.ended.cancelled += 1;
                    work.cancel(id);
                }
                drop(work);
                shared.work_came.notify_all();
            },
        );
        purged.wait()
    }

    /// Whether something is left of a tenant that was removed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn leaves_anything(&self, tenant: &str) -> Result<bool, StoreError> {
        let left =
            |db: &Connection| Ok(tenants::get(db, tenant)?.is_none() && has_any(db, tenant)?);
        self.read(|db| left(db).map_err(self.sqlite()))
    }

    /// Keeps servers out of the folder until the file is dropped; none where one works in it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn lock_out(&self) -> Result<Option<File>, StoreError> {
        match lock(self.data()) {
            Ok(lock) => Ok(Some(lock)),
            Err(StoreError::Locked { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
