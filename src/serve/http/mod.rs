//! The API: routes, what they share, and what is done to every answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH,
};
use hyper::{StatusCode, Uri};
use tokio::sync::{Semaphore, watch};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::listen::Connections;
use self::metrics::{Gauges, Metrics};
use self::places::Places;
use self::problem::{Code, Problem};
use super::live::Hub;
use super::model::{Job, JobId, JobState};
use super::page;
use super::policy::Policies;
use super::store::{Store, StoreError};

mod admin;
mod auth;
mod events;
mod extract;
mod files;
mod heat;
mod jobs;
pub mod listen;
mod metrics;
mod multipart;
mod openapi;
mod places;
pub mod problem;
mod reports;
mod upload;

pub use auth::NO_AUTH_TENANT;

/// What handlers share.
pub struct App {
    pub store: Store,
    pub hub: Hub,
    pub policies: Arc<Policies>,
    pub data: PathBuf,
    /// Requests need no keys and are the tenant's [`NO_AUTH_TENANT`].
    pub no_auth: bool,
    /// Uploads that may be received at the same time.
    uploads: Arc<Places>,
    dry_runs: Arc<Semaphore>,
    limiter: auth::Limiter,
    metrics: Metrics,
    pub connections: Arc<Connections>,
    watchers: AtomicUsize,
    /// True once the server is to stop.
    pub stopping: watch::Sender<bool>,
}

impl App {
    pub fn new(
        store: Store,
        hub: Hub,
        policies: Arc<Policies>,
        no_auth: bool,
        most_uploads: usize,
    ) -> Self {
        let data = store.data().to_path_buf();
        Self {
            store,
            hub,
            policies,
            data,
            no_auth,
            // Without keys there is one tenant.
            uploads: Places::new(most_uploads, !no_auth),
            dry_runs: Arc::new(Semaphore::new(1)),
            limiter: auth::Limiter::default(),
            metrics: Metrics::default(),
            connections: Arc::default(),
            watchers: AtomicUsize::new(0),
            stopping: watch::Sender::new(false),
        }
    }

    /// Asks the store, on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        doing: &str,
        ask: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || ask(&store)).await {
            Ok(answer) => answer.map_err(|e| Problem::internal(doing, &e)),
            Err(e) => Err(Problem::internal(doing, &e)),
        }
    }

    /// A tenant's job, with how far it has come.
    ///
    /// # Errors
    /// `not_found`, for another tenant's as well.
    async fn job(&self, tenant: &str, id: JobId) -> Result<Job, Problem> {
        let tenant = tenant.to_string();
        let job = self.read("reading the job", move |s| s.job(&tenant, id)).await?;
        let mut job = job.ok_or_else(|| Problem::not_found("job"))?;
        self.add_progress(&mut job);
        Ok(job)
    }

    fn add_progress(&self, job: &mut Job) {
        if job.state == JobState::Running {
            job.progress = self.hub.progress(job.id);
        }
    }
}

/// All routes.
///
/// # Errors
/// The OpenAPI document cannot be written.
pub fn router(app: Arc<App>) -> Result<Router, serde_json::Error> {
    let (router, api) = OpenApiRouter::with_openapi(openapi::Api::openapi())
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::read, jobs::delete))
        .routes(routes!(events::events))
        .routes(routes!(jobs::decide))
        .routes(routes!(jobs::decisions))
        .routes(routes!(jobs::deliveries))
        .routes(routes!(reports::report))
        .routes(routes!(reports::media))
        .routes(routes!(reports::previews))
        .routes(routes!(reports::preview))
        .routes(routes!(heat::heat_map))
        .routes(routes!(admin::sign_in, admin::session, admin::sign_out))
        .routes(routes!(admin::policies))
        .routes(routes!(admin::dry_run))
        .routes(routes!(admin::deliveries))
        .routes(routes!(admin::replay))
        .routes(routes!(admin::audit))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(prometheus))
        .split_for_parts();
    let document = bytes::Bytes::from(openapi::document(&api)?);
    let json = HeaderValue::from_static("application/json");
    let document = move || async move { ([(CONTENT_TYPE, json)], document) };
    let router = router
        .route("/v1/openapi.json", get(document))
        .route("/", get(page))
        .route("/assets/{file}", get(page))
        .fallback(|| async { Problem::not_found("address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the header Allow names the methods")
        })
        .layer(middleware::from_fn_with_state(app.clone(), every))
        .with_state(app);
    Ok(router)
}

/// What is done to every request and answer.
async fn every(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let since = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let has_body = !HttpBody::is_end_stream(request.body());
    let mut response = next.run(request).await;
    let refused = has_body && !response.status().is_success();
    let headers = response.headers_mut();
    if refused {
        // A body that was not read ends the connection: the client is told, so that it does not send
        // the next request into it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "SAMEORIGIN"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // Methods can be anything; routes and statuses are few.
    let method = match method.as_str() {
        m @ ("GET" | "HEAD" | "POST" | "DELETE") => m,
        _ => "other",
    };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.answered(method, route, response.status().as_u16(), since.elapsed());
    response
}

/// A file of the review page.
async fn page(uri: Uri, headers: HeaderMap) -> Response {
    let Some(asset) = page::asset(uri.path()) else {
        return Problem::not_found("file").into_response();
    };
    let fits = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = match fits.is_some_and(|tags| tags.contains(&asset.etag)) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => asset.bytes.into_response(),
    };
    files::set(&mut response, CONTENT_TYPE, asset.content_type);
    files::set(&mut response, CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY);
    files::set(&mut response, ETAG, &asset.etag);
    files::set(&mut response, CACHE_CONTROL, "no-cache");
    response
}

/// Whether the server lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain")),
    security(())
)]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server takes jobs
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "It is stopping, or its queue is full")),
    security(())
)]
async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if *app.stopping.borrow() {
        return Err(Problem::new(Code::Stopping, "the server is stopping").retry_after(10));
    }
    let counts = app.store.counts();
    if counts.live + counts.normal + counts.batch + counts.fetching >= counts.max_queued {
        return Err(Problem::new(Code::QueueFull, "as many jobs wait as may").retry_after(2));
    }
    Ok("ready\n")
}

/// What Prometheus reads
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = 200, description = "Text format 0.0.4", body = String,
        content_type = "text/plain")),
    security(())
)]
async fn prometheus(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let gauges = Gauges {
        counts: app.store.counts(),
        deliveries: app.read("counting webhook deliveries", Store::delivery_counts).await?,
        connections: app.connections.open.load(Ordering::Relaxed),
        refused: app.connections.refused.load(Ordering::Relaxed),
        uploads: app.uploads.in_use(),
        watchers: app.watchers.load(Ordering::Relaxed),
        policy_error: app.policies.status().error.is_some(),
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok((StatusCode::OK, [(CONTENT_TYPE, kind)], app.metrics.text(&gauges)).into_response())
}
