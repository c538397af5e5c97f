//! Tenants and their API keys.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::Time;
use super::{Pending, Store, StoreError, audit, from_json, json, removal};

/// How long a key or a tenant that was changed by another process may still be taken as it was.
const CACHED: Duration = Duration::from_secs(2);
/// Keys that are remembered at most.
const MOST_CACHED: usize = 10_000;

/// Who uses the service: settings and bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// 1 to 64 of a-z, 0-9, `-` and `_`, beginning with a letter or digit: it names a folder.
    pub name: String,
    pub created: Time,
    pub webhook_url: Option<String>,
    /// Signs webhook calls.
    pub webhook_secret: Option<String>,
    /// Requests a minute and key.
    pub rate_per_minute: u32,
    /// Jobs that may wait.
    pub max_queued: usize,
    /// Bytes of one media.
    pub max_bytes: u64,
    /// Seconds of one media.
    pub max_duration_s: u64,
    /// Pixels of one picture.
    pub max_pixels: u64,
    /// How long media is kept after its job ended; 0: not at all.
    pub keep_media_s: u64,
    /// How long jobs and reports are kept.
    pub keep_reports_days: u32,
    /// Folders whose files may be submitted by path.
    pub allowed_paths: Vec<String>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            name: String::new(),
            created: Time(0),
            webhook_url: None,
            webhook_secret: None,
            rate_per_minute: 6_000,
            max_queued: 1_000,
            max_bytes: 4 << 30,
            max_duration_s: 6 * 3_600,
            max_pixels: 7_680 * 4_320,
            keep_media_s: 0,
            keep_reports_days: 90,
            allowed_paths: Vec::new(),
        }
    }
}

impl Tenant {
    /// A tenant of this name with the settings that hold where nothing else is said.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), created: Time::now(), ..Self::default() }
    }

    fn check(&self) -> Result<(), StoreError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let name = &self.name;
        let named = name.len() <= 64
            && name.starts_with(good)
            && name.chars().all(|c| good(c) || c == '-' || c == '_');
        if !named {
            return Err(StoreError::Invalid(format!(
                "tenant {name:?}: a name has 1 to 64 of a-z, 0-9, - and _ and begins with a \
                 letter or digit"
            )));
        }
        if self.webhook_url.is_some() && self.webhook_secret.as_ref().is_none_or(String::is_empty) {
            return Err(StoreError::Invalid(format!(
                "tenant {name:?}: a webhook needs a secret to be signed with"
            )));
        }
        Ok(())
    }
}

/// What a key may be used for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Submit,
    Read,
    Review,
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Review, Self::Admin];
}

/// A key as it is listed: the key itself is known only when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    pub id: Uuid,
    pub tenant: String,
    pub name: String,
    pub scopes: BTreeSet<Scope>,
    pub created: Time,
    pub revoked: Option<Time>,
}

/// Who presents a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub key_id: Uuid,
    pub key_name: String,
    pub scopes: BTreeSet<Scope>,
    pub tenant: Tenant,
}

/// Keys that were good a moment ago, by their SHA-256.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<[u8; 32], (Instant, KeyInfo)>>);

impl Cache {
    fn get(&self, hash: &[u8; 32]) -> Option<KeyInfo> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|(since, _)| since.elapsed() < CACHED).map(|(_, key)| key.clone())
    }

    fn put(&self, hash: [u8; 32], key: KeyInfo) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_CACHED {
            known.clear();
        }
        known.insert(hash, (Instant::now(), key));
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A tenant's settings.
pub(super) fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<Tenant>> {
    db.prepare_cached("SELECT settings FROM tenants WHERE name = ?1")?
        .query_row([name], |row| from_json(&row.get::<_, String>(0)?))
        .optional()
}

impl Store {
    /// A tenant by name.
    ///
    /// # Errors
    /// SQLite's, or a row that cannot be read.
    pub fn tenant(&self, name: &str) -> Result<Option<Tenant>, StoreError> {
        self.read(|db| get(db, name).map_err(self.sqlite()))
    }

    /// All tenants, by name.
    ///
    /// # Errors
    /// As [`Store::tenant`].
    pub fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<Tenant>> {
            let mut query = db.prepare_cached("SELECT settings FROM tenants ORDER BY name")?;
            query.query_map([], |row| from_json(&row.get::<_, String>(0)?))?.collect()
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }

    /// Makes a tenant, or replaces its settings.
    ///
    /// # Errors
    /// A bad name, or that of a tenant that was removed while not all it had is deleted; a webhook
    /// without a secret; SQLite's.
    pub fn put_tenant(&self, tenant: Tenant) -> Pending<()> {
        let fail = self.sqlite();
        self.write(
            move |db| {
                tenant.check()?;
                let name = &tenant.name;
                let made = get(db, name).map_err(&fail)?.is_none();
                if made && removal::has_any(db, name).map_err(&fail)? {
                    return Err(StoreError::Invalid(format!(
                        "tenant {name:?} was removed, and not all that it had is deleted yet"
                    )));
                }
                db.prepare_cached(
                    "INSERT INTO tenants (name, settings) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET settings = excluded.settings",
                )
                .and_then(|mut q| {
                    let text = serde_json::to_string(&tenant)
                        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
                    q.execute([&tenant.name, &text])
                })
                .map_err(&fail)?;
                // Without the secret, which the log is not to spread.
                let open = Tenant { webhook_secret: None, ..tenant };
                audit::add(db, Time::now(), &open.name, "", "tenant.set", None, &json(&open)?)
                    .map_err(&fail)?;
                Ok(((), ()))
            },
            |shared, ()| shared.keys.clear(),
        )
    }

    /// Makes a key. The second value is the key itself, which is kept nowhere.
    ///
    /// # Errors
    /// No such tenant, a name that another of its keys has, SQLite's, no random numbers.
    pub fn add_key(
        &self,
        tenant: &str,
        name: &str,
        scopes: &BTreeSet<Scope>,
    ) -> Pending<(ApiKey, String)> {
        let mut random = [0; 32];
        if let Err(error) = getrandom::fill(&mut random) {
            return Pending::ready(Err(StoreError::Invalid(format!("no random numbers: {error}"))));
        }
        let secret = format!("vs_{}", base64url(&random));
        let key = ApiKey {
            id: Uuid::now_v7(),
            tenant: tenant.into(),
            name: name.into(),
            scopes: scopes.clone(),
            created: Time::now(),
            revoked: None,
        };
        let fail = self.sqlite();
        self.write(
            move |db| {
                if get(db, &key.tenant).map_err(&fail)?.is_none() {
                    return Err(StoreError::Invalid(format!("no tenant {:?}", key.tenant)));
                }
                if key.name.is_empty() || key.name.len() > 128 {
                    return Err(StoreError::Invalid("a key's name has 1 to 128 bytes".into()));
                }
                let scopes = json(&key.scopes)?;
                let added = db
                    .prepare_cached(
                        "INSERT INTO keys (id, tenant, name, hash, scopes, created)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                    )
                    .and_then(|mut q| {
                        let hash = hash(&secret);
                        q.execute(params![
                            key.id.into_bytes(),
                            key.tenant,
                            key.name,
                            hash,
                            scopes,
                            key.created.0
                        ])
                    })
                    .map_err(&fail)?;
                if added == 0 {
                    let (tenant, name) = (&key.tenant, &key.name);
                    return Err(StoreError::Invalid(format!(
                        "tenant {tenant:?} has a key named {name:?} already"
                    )));
                }
                audit::add(db, key.created, &key.tenant, "", "key.added", None, &json(&key)?)
                    .map_err(&fail)?;
                Ok(((key, secret), ()))
            },
            |_, ()| {},
        )
    }

    /// A tenant's keys, oldest first.
    ///
    /// # Errors
    /// As [`Store::tenant`].
    pub fn keys(&self, tenant: &str) -> Result<Vec<ApiKey>, StoreError> {
        let all = |db: &Connection| -> rusqlite::Result<Vec<ApiKey>> {
            let mut query = db.prepare_cached(
                "SELECT id, tenant, name, scopes, created, revoked FROM keys WHERE tenant = ?1
                 ORDER BY id",
            )?;
            query.query_map([tenant], read_key)?.collect()
        };
        self.read(|db| all(db).map_err(self.sqlite()))
    }

    /// Revokes a key; false where the tenant has no such key that is good.
    ///
    /// # Errors
    /// SQLite's.
    pub fn revoke_key(&self, tenant: &str, id: Uuid) -> Pending<bool> {
        let (tenant, fail) = (tenant.to_owned(), self.sqlite());
        self.write(
            move |db| {
                let now = Time::now();
                let revoked = db
                    .prepare_cached(
                        "UPDATE keys SET revoked = ?3
                         WHERE id = ?1 AND tenant = ?2 AND revoked IS NULL",
                    )
                    .and_then(|mut q| q.execute(params![id.into_bytes(), tenant, now.0]))
                    .map_err(&fail)?;
                if revoked > 0 {
                    let detail = json(&serde_json::json!({ "key": id }))?;
                    audit::add(db, now, &tenant, "", "key.revoked", None, &detail)
                        .map_err(&fail)?;
                }
                Ok((revoked > 0, ()))
            },
            |shared, ()| shared.keys.clear(),
        )
    }

    /// Whose key this is; none where it is unknown or revoked. Good keys are remembered for two
    /// seconds, so that a key revoked by another process is refused that much later.
    ///
    /// # Errors
    /// As [`Store::tenant`].
    pub fn key(&self, presented: &str) -> Result<Option<KeyInfo>, StoreError> {
        // Looked up by its hash: how long that takes says nothing of the key.
        let hash = hash(presented);
        let cache = &self.0.shared.keys;
        if let Some(key) = cache.get(&hash) {
            return Ok(Some(key));
        }
        let find = |db: &Connection| -> rusqlite::Result<Option<KeyInfo>> {
            let found = db
                .prepare_cached(
                    "SELECT id, tenant, name, scopes, created, revoked FROM keys
                     WHERE hash = ?1 AND revoked IS NULL",
                )?
                .query_row([hash], read_key)
                .optional()?;
            let Some(ApiKey { id, tenant, name, scopes, .. }) = found else { return Ok(None) };
            let tenant = get(db, &tenant)?;
            Ok(tenant.map(|tenant| KeyInfo { key_id: id, key_name: name, scopes, tenant }))
        };
        let found = self.read(|db| find(db).map_err(self.sqlite()))?;
        if let Some(key) = &found {
            cache.put(hash, key.clone());
        }
        Ok(found)
    }
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: Uuid::from_bytes(row.get(0)?),
        tenant: row.get(1)?,
        name: row.get(2)?,
        scopes: from_json(&row.get::<_, String>(3)?)?,
        created: Time(row.get(4)?),
        revoked: row.get::<_, Option<i64>>(5)?.map(Time),
    })
}

/// Base64 with `-` and `_` and no padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for i in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}
