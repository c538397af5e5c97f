//! Who asks: an API key in the header `Authorization`, or in the cookie of the review page.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use governor::clock::{Clock as _, MonotonicClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::Method;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use utoipa::ToSchema;

use super::App;
use super::problem::{Code, Problem};
use crate::serve::store::{Scope, Tenant};

/// The cookie that holds the key for the review page.
pub const COOKIE_NAME: &str = "veriscope_session";
/// The tenant of requests without a key (`--no-auth`).
pub const NO_AUTH_TENANT: &str = "default";
/// Reads are allowed this many times as often as submissions.
const READS: u32 = 10;
/// Keys that are kept in mind for their rate; more, and all begin anew.
const MOST_KEYS: usize = 10_000;

/// Whoever made a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: Tenant,
    /// The key's name, as audit entries have it.
    pub key: String,
    scopes: BTreeSet<Scope>,
}

/// What the key of a request may do.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct SessionInfo {
    tenant: String,
    key: String,
    /// `submit`, `read`, `review`, `admin`.
    scopes: BTreeSet<Scope>,
    /// False where the server asks for no keys.
    authenticated: bool,
}

impl Caller {
    /// # Errors
    /// `forbidden` where the key lacks the scope.
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let detail = format!("the key {} lacks the scope {scope:?}", self.key);
        Err(Problem::new(Code::Forbidden, detail))
    }

    pub fn info(&self, app: &App) -> SessionInfo {
        SessionInfo {
            tenant: self.tenant.name.clone(),
            key: self.key.clone(),
            scopes: self.scopes.clone(),
            authenticated: !app.no_auth,
        }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let changes = !matches!(parts.method, Method::GET | Method::HEAD);
        let caller = if app.no_auth {
            same_site(&parts.headers, changes)?;
            nobody(app)?
        } else if let Some(value) = parts.headers.get(AUTHORIZATION) {
            let key = value.to_str().ok().and_then(|v| v.split_once(' '));
            match key {
                Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => {
                    by_key(app, key.trim())?
                }
                _ => return Err(unauthorized("Authorization must be: Bearer, a space, the key")),
            }
        } else if let Some(key) = cookie(&parts.headers) {
            if changes && parts.headers.get("x-requested-with").is_none_or(|v| v != "veriscope") {
                let detail = "with the cookie, X-Requested-With: veriscope is needed";
                return Err(Problem::new(Code::CrossSite, detail));
            }
            by_key(app, key)?
        } else {
            return Err(unauthorized("no key was given"));
        };
        if !app.no_auth {
            app.limiter.check(&caller, changes)?;
        }
        Ok(caller)
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
}

/// Whoever a key belongs to.
pub fn by_key(app: &App, key: &str) -> Result<Caller, Problem> {
    // Nothing else is a key of ours; it need not be looked for.
    if !key.starts_with("vs_") || key.len() > 128 {
        return Err(unauthorized("the key is not valid"));
    }
    let found = app.store.key(key).map_err(|e| Problem::internal("checking the key", &e))?;
    let info = found.ok_or_else(|| unauthorized("the key is not valid"))?;
    Ok(Caller { tenant: info.tenant, key: info.key_name, scopes: info.scopes })
}

/// Everybody, where the server asks for no keys.
fn nobody(app: &App) -> Result<Caller, Problem> {
    let tenant = app.store.tenant(NO_AUTH_TENANT);
    let tenant = tenant.map_err(|e| Problem::internal("reading the tenant", &e))?;
    let Some(tenant) = tenant else {
        let detail = "the tenant default was removed and is being made anew";
        return Err(Problem::new(Code::Busy, detail).retry_after(2));
    };
    Ok(Caller { tenant, key: "no-auth".into(), scopes: Scope::ALL.into() })
}

/// Without keys the server listens on loopback only, and any page in a browser on this machine can
/// reach it: what did not come from its own page, or from a program, is refused.
fn same_site(headers: &HeaderMap, changes: bool) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let host = text(HOST).unwrap_or("localhost");
    let refuse = |detail: &str| Err(Problem::new(Code::CrossSite, detail));
    // A name that an attacker points here (DNS rebinding) is not ours.
    if !is_loopback(host) {
        return refuse("without keys, the server is only addressed as localhost");
    }
    if changes
        && let Some(origin) = headers.get(ORIGIN)
        && origin.to_str().ok().and_then(|o| o.split_once("://")).is_none_or(|(_, o)| o != host)
    {
        return refuse("the request comes from another site's page");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

/// How often keys may ask.
#[derive(Default)]
pub struct Limiter(Mutex<HashMap<(String, String, bool), Rate>>);

struct Rate {
    per_minute: u32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl Limiter {
    /// # Errors
    /// `rate_limited`, with the seconds after which it is allowed.
    fn check(&self, caller: &Caller, changes: bool) -> Result<(), Problem> {
        let per_minute = if changes {
            caller.tenant.rate_per_minute
        } else {
            caller.tenant.rate_per_minute.saturating_mul(READS)
        };
        let Some(quota) = NonZeroU32::new(per_minute).map(Quota::per_minute) else {
            let detail = "the tenant's rate is 0";
            return Err(Problem::new(Code::RateLimited, detail).retry_after(60));
        };
        let limiter = {
            let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if rates.len() >= MOST_KEYS {
                rates.clear();
            }
            let key = (caller.tenant.name.clone(), caller.key.clone(), changes);
            let make = || Rate { per_minute, limiter: Arc::new(RateLimiter::direct(quota)) };
            let rate = rates.entry(key).or_insert_with(make);
            if rate.per_minute != per_minute {
                *rate = make();
            }
            rate.limiter.clone()
        };
        limiter.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(MonotonicClock.now()).as_secs() + 1;
            let detail = format!("at most {per_minute} of such requests a minute");
            Problem::new(Code::RateLimited, detail).retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn pages_of_other_sites_are_refused_where_no_keys_are_asked_for() {
        for (pairs, changes, fine) in [
            (&[("host", "127.0.0.1:8080")][..], true, true),
            (&[("host", "localhost")], true, true),
            (&[("host", "[::1]:80"), ("origin", "http://[::1]:80")], true, true),
            (&[("host", "localhost:1"), ("origin", "http://localhost:1")], true, true),
            (&[("host", "localhost:1"), ("origin", "http://localhost:2")], true, false),
            (&[("host", "localhost:1"), ("origin", "https://evil.example")], true, false),
            (&[("host", "localhost:1"), ("origin", "null")], true, false),
            (&[("host", "localhost:1"), ("origin", "https://evil.example")], false, true),
            (&[("host", "evil.example")], false, false),
            (&[("host", "127.0.0.1.evil.example:80")], false, false),
        ] {
            let result = same_site(&headers(pairs), changes);
            assert_eq!(result.is_ok(), fine, "{pairs:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = headers(&[("cookie", "a=b; veriscope_session=vs_x; c=d")]);
        assert_eq!(cookie(&found), Some("vs_x"));
        assert_eq!(cookie(&headers(&[("cookie", "xveriscope_session=vs_x")])), None);
    }
}
