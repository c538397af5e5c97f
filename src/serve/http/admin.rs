//! Sessions of the review page, the policy, webhooks' deliveries, the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{HeaderMap, SET_COOKIE};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::App;
use super::auth::{self, COOKIE_NAME, Caller, SessionInfo};
use super::extract::{self, Id, JsonBody, MOST_TEXT, Params};
use super::files;
use super::jobs::page_limit;
use super::problem::{Code, Problem};
use super::upload::Bounded;
use crate::serve::model::{Job, JobId};
use crate::serve::policy::{self, DryRun, PolicyView};
use crate::serve::store::{
    AuditEntry, Cursor, Delivery, DeliveryState, JobFilter, Scope, Store, Tenant,
};

/// Reports that a dry run judges, the newest first.
const MOST_DRY: usize = 10_000;
/// Days that a browser keeps the key.
const COOKIE_S: u32 = 30 * 24 * 3600;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[schema(max_length = 128)]
    key: String,
}

/// Sign in
///
/// Puts the key into a cookie that scripts cannot read, for the review page.
#[utoipa::path(
    post,
    path = "/v1/session",
    tag = "session",
    request_body = SignIn,
    responses((status = 200, description = "What the key may do", body = SessionInfo),
        (status = 401, description = "The key is not valid")),
    security(())
)]
pub async fn sign_in(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    JsonBody(SignIn { key }): JsonBody<SignIn>,
) -> Result<Response, Problem> {
    let caller = auth::by_key(&app, &key)?;
    let mut response = Json(caller.info(&app)).into_response();
    files::set(&mut response, SET_COOKIE, &cookie(&key, COOKIE_S, &headers));
    Ok(response)
}

fn cookie(key: &str, seconds: u32, headers: &HeaderMap) -> String {
    // Behind a proxy that speaks TLS for this server.
    let tls = headers.get("x-forwarded-proto").is_some_and(|v| v == "https");
    let secure = if tls { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={key}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// Read what the key may do
#[utoipa::path(
    get,
    path = "/v1/session",
    tag = "session",
    responses((status = 200, description = "What the key may do", body = SessionInfo))
)]
pub async fn session(State(app): State<Arc<App>>, caller: Caller) -> Json<SessionInfo> {
    Json(caller.info(&app))
}

/// Sign out
#[utoipa::path(
    delete,
    path = "/v1/session",
    tag = "session",
    responses((status = 204, description = "The cookie is gone")),
    security(())
)]
pub async fn sign_out(headers: HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    files::set(&mut response, SET_COOKIE, &cookie("", 0, &headers));
    response
}

/// Read the policy
///
/// As it holds for the tenant, and why the file as it is now is not in force, where that is so.
#[utoipa::path(
    get,
    path = "/v1/policies",
    tag = "policy",
    responses((status = 200, description = "The policy", body = PolicyView))
)]
pub async fn policies(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<PolicyView>, Problem> {
    caller.may(Scope::Read)?;
    Ok(Json(app.policies.view(&caller.tenant.name)))
}

/// Try a policy
///
/// Judges the tenant's newest stored reports (10,000 at most) by the policy in the body (TOML) and by
/// the one in force. Nothing is changed.
#[utoipa::path(
    post,
    path = "/v1/policies/dry-run",
    tag = "policy",
    request_body(content = String, content_type = "application/toml"),
    responses((status = 200, description = "What would change", body = DryRun),
        (status = 422, description = "The text is no policy (`bad_policy`)"))
)]
pub async fn dry_run(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Json<DryRun>, Problem> {
    caller.may(Scope::Admin)?;
    if extract::content_type(&request).as_deref() != Some("application/toml") {
        let detail = "the body must be application/toml";
        return Err(Problem::new(Code::UnsupportedContentType, detail));
    }
    let body = Bounded::new(request.into_body(), MOST_TEXT).all().await?;
    let text = String::from_utf8(body)
        .map_err(|e| Problem::new(Code::BadPolicy, format!("the text is not UTF-8: {e}")))?;
    let place = app.dry_runs.clone().try_acquire_owned();
    let _place =
        place.map_err(|_| Problem::new(Code::Busy, "a dry run is under way").retry_after(5))?;
    let (policies, store) = (app.policies.clone(), app.store.clone());
    let run = tokio::task::spawn_blocking(move || {
        let reports = Reports::new(&store, caller.tenant.name);
        policy::dry_run(&policies, &text, reports.take(MOST_DRY))
    });
    let run = run.await.map_err(|e| Problem::internal("the dry run", &e))?;
    run.map(Json).map_err(|e| Problem::new(Code::BadPolicy, e.to_string()))
}

/// A tenant's reports, newest first, read one at a time.
struct Reports<'a> {
    store: &'a Store,
    tenant: String,
    page: std::vec::IntoIter<Job>,
    next: Option<Cursor>,
    last: bool,
}

impl<'a> Reports<'a> {
    fn new(store: &'a Store, tenant: String) -> Self {
        Self { store, tenant, page: Vec::new().into_iter(), next: None, last: false }
    }
}

impl Iterator for Reports<'_> {
    type Item = (String, JobId, crate::report::Report);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for job in self.page.by_ref() {
                match self.store.report(&self.tenant, job.id) {
                    Ok(Some(report)) => return Some((self.tenant.clone(), job.id, report)),
                    Ok(None) => {}
                    Err(e) => tracing::error!("dry run: job {}: {e}", job.id),
                }
            }
            if self.last {
                return None;
            }
            let found = self.store.jobs(&self.tenant, &JobFilter::default(), self.next, 200);
            let (jobs, next) = found.map_err(|e| tracing::error!("dry run: {e}")).ok()?;
            (self.page, self.next, self.last) = (jobs.into_iter(), next, next.is_none());
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    state: Option<DeliveryState>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// From the page before.
    cursor: Option<Uuid>,
}

/// One page of calls of the tenant's webhook, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryPage {
    deliveries: Vec<Delivery>,
    /// For the next page; none on the last.
    next: Option<Uuid>,
}

/// List webhook deliveries
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries",
    tag = "webhooks",
    params(DeliveryQuery),
    responses((status = 200, description = "A page", body = DeliveryPage))
)]
pub async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(query): Params<DeliveryQuery>,
) -> Result<Json<DeliveryPage>, Problem> {
    caller.may(Scope::Admin)?;
    let limit = page_limit(query.limit)?;
    let (tenant, after) = (caller.tenant.name, query.cursor.map(Cursor));
    let (deliveries, next) = app
        .read("listing deliveries", move |s| s.deliveries(&tenant, query.state, after, limit))
        .await?;
    Ok(Json(DeliveryPage { deliveries, next: next.map(|c| c.0) }))
}

/// Deliver once more
#[utoipa::path(
    post,
    path = "/v1/webhooks/deliveries/{id}/replay",
    tag = "webhooks",
    params(Id),
    responses((status = 202, description = "It is delivered again"),
        (status = 404, description = "No such delivery"))
)]
pub async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Admin)?;
    let replayed = app.store.replay(&caller.tenant.name, id, &caller.key).await;
    match replayed.map_err(|e| Problem::internal("replaying the delivery", &e))? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(Problem::not_found("delivery")),
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Entries about this job only.
    job: Option<Uuid>,
    /// Entries before this one.
    #[param(minimum = 0)]
    before: Option<i64>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
}

/// The newest entries of the audit log that were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    entries: Vec<AuditEntry>,
}

/// Read the audit log
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "Entries, newest first", body = AuditPage))
)]
pub async fn audit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    caller.may(Scope::Admin)?;
    let limit = page_limit(query.limit)?;
    if query.before.is_some_and(|before| before < 0) {
        return Err(Problem::new(Code::BadParameter, "before must not be negative"));
    }
    let Tenant { name, created, .. } = caller.tenant;
    let mut entries = app
        .read("reading the audit log", move |s| {
            s.audit(Some(&name), query.job, query.before, limit)
        })
        .await?;
    // What is older is of a tenant that had this name before and was removed.
    entries.retain(|entry| entry.at >= created);
    Ok(Json(AuditPage { entries }))
}
