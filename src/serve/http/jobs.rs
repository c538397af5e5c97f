//! Jobs: submitted, listed, read, deleted, decided.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::App;
use super::auth::Caller;
use super::extract::{self, Id, JsonBody, MOST_TEXT, Params};
use super::multipart::{self, Multipart};
use super::problem::{Code, Problem};
use super::upload::{self, Bounded, Received, Upload};
use crate::digest;
use crate::report::{DetectorKind, DispositionState};
use crate::serve::live::LiveEvent;
use crate::serve::model::{
    Action, Decision, Job, JobId, JobState, Priority, Source, Time, Verdict,
};
use crate::serve::store::{
    Cursor, Delivery, Idempotency, JobFilter, NewJob, Scope, Store, Submission,
};

/// What a form has beside its file.
const FORM_BYTES: u64 = 64 << 10;
const MOST_REFERENCE: usize = 256;
const MOST_NOTE: usize = 4000;
const MOST_NAME: usize = 255;
const MOST_URL: usize = 4096;
const MOST_KEY: usize = 255;
/// Jobs in one answer.
const DEFAULT_LIMIT: usize = 50;
const MOST_LIMIT: usize = 200;
/// Deliveries of one job in an answer: each decision makes one.
const MOST_DELIVERIES: usize = 100;
/// Seconds after which a client may ask again where there is no room.
const RETRY: u64 = 2;

/// The form of an upload.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form, which is read as a stream")]
pub struct SubmitForm {
    /// A video, a sound or a picture.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    file: Vec<u8>,
    priority: Option<Priority>,
    /// Whoever uploaded it declared it to be made by AI.
    declared_ai: Option<bool>,
    /// The caller's own name for it.
    #[schema(max_length = 256)]
    reference: Option<String>,
}

/// Media that the server gets by itself: exactly one of `url` and `path`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitLink {
    url: Option<String>,
    path: Option<String>,
    priority: Option<Priority>,
    declared_ai: Option<bool>,
    reference: Option<String>,
}

/// Media that the server gets by itself.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes SubmitLink")]
pub enum SubmitSource {
    Url(SubmitUrl),
    Path(SubmitPath),
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes SubmitLink")]
pub struct SubmitUrl {
    /// `http` or `https`, at a public address.
    #[schema(min_length = 1, max_length = 4096, pattern = "^https?://[a-z0-9]")]
    url: String,
    priority: Option<Priority>,
    /// Whoever uploaded it declared it to be made by AI.
    declared_ai: Option<bool>,
    /// The caller's own name for it.
    #[schema(max_length = 256)]
    reference: Option<String>,
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes SubmitLink")]
pub struct SubmitPath {
    /// A file on the server, in a folder that it allows the tenant.
    #[schema(min_length = 1, max_length = 4096, pattern = "^/")]
    path: String,
    priority: Option<Priority>,
    /// Whoever uploaded it declared it to be made by AI.
    declared_ai: Option<bool>,
    /// The caller's own name for it.
    #[schema(max_length = 256)]
    reference: Option<String>,
}

/// What is asked for beside the media.
#[derive(Debug, Default, Serialize)]
struct Wanted {
    priority: Priority,
    declared_ai: bool,
    reference: Option<String>,
}

/// Submit media
///
/// As a form (multipart/form-data), whose file is streamed to disk, or as JSON that names a URL or a
/// server-side path. Answers 202 with a new job, or 200 where the same content was judged before
/// (`reused`), or where the same `Idempotency-Key` was sent before with the same content.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        pattern = "^[!-~]+$",
        description = "A repeated request with the same key within 24 h makes no second job")),
    request_body(content((SubmitForm = "multipart/form-data"), (SubmitSource = "application/json"))),
    responses(
        (status = 202, description = "Accepted", body = Job,
            headers(("Location" = String, description = "The job"))),
        (status = 200, description = "Answered with an earlier report, or repeated", body = Job,
            headers(("Location" = String, description = "The job"))),
    )
)]
pub async fn submit(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Scope::Submit)?;
    if *app.stopping.borrow() {
        return Err(Problem::new(Code::Stopping, "the server is stopping").retry_after(10));
    }
    let key = idempotency_key(request.headers())?;
    // Known to be in vain before the body is read.
    let counts = app.store.counts();
    if counts.live + counts.normal + counts.batch + counts.fetching >= counts.max_queued {
        return Err(full());
    }
    let id = Uuid::now_v7();
    let most = caller.tenant.max_bytes;
    let (wanted, source, received) = match extract::content_type(&request).as_deref() {
        Some("application/json") => {
            let body = Bounded::new(request.into_body(), MOST_TEXT).all().await?;
            let link: SubmitLink = extract::parse_json(&body)?;
            let (wanted, source) = read_link(link, &caller.tenant.allowed_paths).await?;
            (wanted, source, None)
        }
        Some("multipart/form-data") => {
            if length(request.headers()).is_some_and(|n| n > most.saturating_add(FORM_BYTES)) {
                return Err(upload::too_large(most));
            }
            let place = app.uploads.take(&caller.tenant.name)?;
            let (wanted, source, received) =
                read_form(request, &app.data.join("uploads"), id, most).await?;
            (wanted, source, Some((received, place)))
        }
        _ => {
            let detail = "the body must be multipart/form-data or application/json";
            return Err(Problem::new(Code::UnsupportedContentType, detail));
        }
    };
    let (mut received, place) = received.unzip();
    let digest = digest(&wanted, &source, received.as_ref());
    let bytes = received.as_ref().map(|r| r.bytes);
    let job = NewJob {
        id,
        tenant: caller.tenant.name.clone(),
        by: caller.key.clone(),
        priority: wanted.priority,
        source,
        reference: wanted.reference,
        declared_ai: wanted.declared_ai,
        sha256: received.as_ref().map(|r| r.sha256.clone()),
        content: received.as_mut().and_then(|r| r.content.take()),
        bytes,
        idempotency: key.map(|key| Idempotency { key, digest }),
        tenant_max_queued: caller.tenant.max_queued,
    };
    // In a task of its own: a client that goes away now must not take the file of an accepted job.
    let store = app.store.clone();
    let submission = tokio::spawn(async move {
        let pending = tokio::task::spawn_blocking(move || store.submit(job));
        let submission = pending.await.map_err(|e| e.to_string())?.await;
        let stored = matches!(submission, Ok(Submission::Accepted(_) | Submission::Reused(_)));
        if let (true, Some(received)) = (stored, received) {
            received.keep();
        }
        // Until now, since contents are in memory until they are on the disk.
        drop(place);
        submission.map_err(|e| e.to_string())
    });
    let submission = submission.await.map_err(|e| Problem::internal("submitting", &e))?;
    let (status, job) = match submission.map_err(|e| Problem::internal("submitting", &e))? {
        Submission::Accepted(job) => {
            app.metrics.uploaded.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            (StatusCode::ACCEPTED, job)
        }
        Submission::Reused(job) | Submission::Replayed(job) => (StatusCode::OK, job),
        Submission::IdempotencyConflict => {
            let detail = "this Idempotency-Key came with another content or other fields before";
            return Err(Problem::new(Code::IdempotencyConflict, detail));
        }
        Submission::TenantFull => {
            let detail = format!("{} jobs of this tenant wait already", caller.tenant.max_queued);
            return Err(Problem::new(Code::QueueFullForTenant, detail).retry_after(RETRY));
        }
        Submission::Full => return Err(full()),
    };
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id));
    let location = location.map_err(|e| Problem::internal("naming the job", &e))?;
    Ok((status, [(LOCATION, location)], Json(job)).into_response())
}

fn full() -> Problem {
    Problem::new(Code::QueueFull, "as many jobs wait as may").retry_after(RETRY)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.as_bytes();
    if key.is_empty() || key.len() > MOST_KEY || !key.iter().all(u8::is_ascii_graphic) {
        let detail = "Idempotency-Key must have 1 to 255 visible ASCII characters";
        return Err(Problem::new(Code::BadParameter, detail));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// What two requests with one idempotency key must have in common.
fn digest(wanted: &Wanted, source: &Source, received: Option<&Received>) -> String {
    let content = match (source, received) {
        (Source::Upload { .. }, Some(received)) => format!("sha256 {}", received.sha256),
        (Source::Upload { name }, None) => format!("upload {name}"),
        (Source::Url { url }, _) => format!("url {url}"),
        (Source::Path { path }, _) => format!("path {path}"),
    };
    // Plain values, whose JSON cannot fail.
    let text = serde_json::to_string(&(wanted, content)).unwrap_or_default();
    digest::sha256(text)
}

async fn read_form(
    request: Request,
    folder: &Path,
    id: JobId,
    most: u64,
) -> Result<(Wanted, Source, Received), Problem> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let boundary = multipart::boundary(content_type.unwrap_or_default())?;
    let body = Bounded::new(request.into_body(), most.saturating_add(FORM_BYTES));
    let mut form = Multipart::new(&boundary, body);
    let (mut priority, mut declared_ai, mut reference) = (None, None, None);
    let mut file = None;
    while let Some(part) = form.next().await? {
        let name = part.name.as_str();
        let twice = match name {
            "priority" => {
                let text = form.text(name, 16).await?;
                let parsed = serde_json::from_value::<Priority>(text.clone().into());
                let parsed = parsed.map_err(|_| {
                    bad_field("priority", &format!("must be live, normal or batch, not {text:?}"))
                })?;
                priority.replace(parsed).is_some()
            }
            "declared_ai" => {
                let text = form.text(name, 16).await?;
                let parsed = text.parse::<bool>();
                let parsed = parsed.map_err(|_| {
                    bad_field("declared_ai", &format!("must be true or false, not {text:?}"))
                })?;
                declared_ai.replace(parsed).is_some()
            }
            // As long in bytes as the longest in characters.
            "reference" => reference.replace(form.text(name, MOST_REFERENCE * 4).await?).is_some(),
            "file" if file.is_none() => {
                let called = clean_name(part.file_name.as_deref().unwrap_or_default());
                let mut upload = Upload::new(folder, id, most);
                while let Some(bytes) = form.data().await? {
                    upload.take(&bytes).await?;
                }
                file = Some((called, upload));
                false
            }
            "file" => true,
            other => return Err(bad_field(other, "is not known")),
        };
        if twice {
            return Err(bad_field(name, "comes twice"));
        }
    }
    let (name, upload) = file.ok_or_else(|| {
        Problem::new(Code::MissingFile, "the form has no part with the name file")
    })?;
    let wanted = wanted(priority, declared_ai, reference)?;
    // Synchronised once everything else is known to be right.
    let received = upload.finish().await?;
    Ok((wanted, Source::Upload { name }, received))
}

fn bad_field(name: &str, what: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::new(Code::BadParameter, format!("field {name:?} {what}"))
}

fn wanted(
    priority: Option<Priority>,
    declared_ai: Option<bool>,
    reference: Option<String>,
) -> Result<Wanted, Problem> {
    if let Some(text) = &reference
        && (text.chars().count() > MOST_REFERENCE || text.chars().any(char::is_control))
    {
        let what = format!("must have at most {MOST_REFERENCE} characters, none of them control");
        return Err(bad_field("reference", &what));
    }
    Ok(Wanted {
        priority: priority.unwrap_or_default(),
        declared_ai: declared_ai.unwrap_or_default(),
        reference: reference.filter(|r| !r.is_empty()),
    })
}

/// What a sender calls a file, for people: the last part of a path, of bounded length and without
/// control characters. It never names a file of ours.
fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    // Characters that turn the direction of text would disguise an extension.
    let hidden =
        |c: &char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let clean: String = last.chars().filter(|c| !hidden(c)).take(MOST_NAME).collect();
    if clean.is_empty() || clean == "." || clean == ".." { "unnamed".into() } else { clean }
}

async fn read_link(link: SubmitLink, allowed: &[String]) -> Result<(Wanted, Source), Problem> {
    let wanted = wanted(link.priority, link.declared_ai, link.reference)?;
    let source = match (link.url, link.path) {
        (Some(url), None) => Source::Url { url: check_url(&url)? },
        (None, Some(path)) => {
            let allowed = allowed.to_vec();
            let found = tokio::task::spawn_blocking(move || allowed_file(&path, &allowed));
            let found = found.await.map_err(|e| Problem::internal("looking for the file", &e))?;
            Source::Path { path: found? }
        }
        _ => {
            let detail = "exactly one of url and path must be given";
            return Err(Problem::new(Code::BadJson, detail));
        }
    };
    Ok((wanted, source))
}

/// What can be said of a URL before its host is resolved.
fn check_url(text: &str) -> Result<String, Problem> {
    let bad = |what: &str| Err(Problem::new(Code::BadParameter, format!("url {what}")));
    if text.len() > MOST_URL {
        return bad(&format!("is longer than {MOST_URL} bytes"));
    }
    let Ok(url) = url::Url::parse(text) else { return bad("is not valid") };
    if !matches!(url.scheme(), "http" | "https") {
        return bad("must begin with http:// or https://");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return bad("names no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("must not hold a user name or a password");
    }
    Ok(url.into())
}

/// A file in one of the allowed folders, by its real path. Outside of them nothing is told, not even
/// whether there is a file.
fn allowed_file(path: &str, allowed: &[String]) -> Result<String, Problem> {
    let refuse = || Problem::new(Code::PathNotAllowed, "the path is in no folder that is allowed");
    let path = Path::new(path);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(refuse());
    }
    let folders: Vec<PathBuf> =
        allowed.iter().filter_map(|a| Path::new(a).canonicalize().ok()).collect();
    let named = allowed.iter().map(Path::new).chain(folders.iter().map(PathBuf::as_path));
    if !named.into_iter().any(|folder| path.starts_with(folder)) {
        return Err(refuse());
    }
    let missing = || Problem::new(Code::NoSuchFile, "there is no regular file at the path");
    let real = path.canonicalize().map_err(|_| missing())?;
    // A link out of the folder.
    if !folders.iter().any(|folder| real.starts_with(folder)) {
        return Err(refuse());
    }
    if !real.metadata().is_ok_and(|m| m.is_file()) {
        return Err(missing());
    }
    real.into_os_string().into_string().map_err(|_| missing())
}

/// Which jobs are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    state: Option<JobState>,
    action: Option<Action>,
    priority: Option<Priority>,
    #[param(value_type = Option<DispositionName>)]
    disposition: Option<DispositionState>,
    /// Whether a reviewer has decided.
    decided: Option<bool>,
    /// Jobs in which this detector judged something to be fake.
    #[param(value_type = Option<DetectorName>)]
    detector: Option<DetectorKind>,
    /// Part of the name or the reference, or the start of the SHA-256.
    #[param(max_length = 256)]
    q: Option<String>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// From the page before.
    cursor: Option<Uuid>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the report's type")]
pub enum DispositionName {
    Confirmed,
    Possible,
    Suspected,
    None,
    Undetermined,
}

#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[allow(dead_code, reason = "describes the report's type")]
pub enum DetectorName {
    FaceSwap,
    VoiceClone,
    LabelStrip,
}

/// One page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobPage {
    jobs: Vec<Job>,
    /// For the next page; none on the last.
    next: Option<Uuid>,
}

/// List jobs
///
/// Newest first. A page may hold fewer jobs than asked for, even none, and still name a next one.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    params(ListQuery),
    responses((status = 200, description = "A page", body = JobPage))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Result<Json<JobPage>, Problem> {
    caller.may(Scope::Read)?;
    let limit = page_limit(query.limit)?;
    if let Some(text) = &query.q
        && text.chars().count() > MOST_REFERENCE
    {
        let detail = format!("q must have at most {MOST_REFERENCE} characters");
        return Err(Problem::new(Code::BadParameter, detail));
    }
    let filter = JobFilter {
        state: query.state,
        action: query.action,
        priority: query.priority,
        disposition: query.disposition,
        decided: query.decided,
        detector: query.detector,
        text: query.q.filter(|q| !q.is_empty()),
    };
    let after = query.cursor.map(Cursor);
    let tenant = caller.tenant.name;
    let (mut jobs, next) =
        app.read("listing jobs", move |s| s.jobs(&tenant, &filter, after, limit)).await?;
    for job in &mut jobs {
        app.add_progress(job);
    }
    Ok(Json(JobPage { jobs, next: next.map(|c| c.0) }))
}

/// How many rows a page may have.
pub fn page_limit(limit: Option<u64>) -> Result<usize, Problem> {
    match limit.map(usize::try_from) {
        None => Ok(DEFAULT_LIMIT),
        Some(Ok(limit @ 1..=MOST_LIMIT)) => Ok(limit),
        Some(_) => {
            let detail = format!("limit must be from 1 to {MOST_LIMIT}");
            Err(Problem::new(Code::BadParameter, detail))
        }
    }
}

/// Read a job
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(Id),
    responses((status = 200, description = "The job", body = Job),
        (status = 404, description = "No such job"))
)]
pub async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Job>, Problem> {
    caller.may(Scope::Read)?;
    app.job(&caller.tenant.name, id).await.map(Json)
}

/// Delete a job
///
/// One that is not finished is cancelled. Its media, its previews and its report are deleted; that it
/// was there stays in the audit log.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(Id),
    responses((status = 204, description = "Deleted"), (status = 404, description = "No such job"))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Submit)?;
    let deleted = app.store.delete(&caller.tenant.name, id, &caller.key).await;
    if !deleted.map_err(|e| Problem::internal("deleting the job", &e))? {
        return Err(Problem::not_found("job"));
    }
    app.hub.publish(id, LiveEvent::State { state: JobState::Cancelled });
    app.hub.publish(id, LiveEvent::Done {});
    Ok(StatusCode::NO_CONTENT)
}

/// A reviewer's decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDecision {
    verdict: Verdict,
    /// Whether the reviewer holds the media to be fake; left out: not said.
    #[serde(default)]
    fake: Option<bool>,
    #[serde(default)]
    #[schema(max_length = 4000)]
    note: String,
}

/// Decide on a job
///
/// May be done again: the last decision holds, and all are kept.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/decision",
    tag = "review",
    params(Id),
    request_body = NewDecision,
    responses((status = 200, description = "The job with its decision", body = Job),
        (status = 404, description = "No such job"),
        (status = 409, description = "The job has no report yet (`not_finished`)"))
)]
pub async fn decide(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    JsonBody(decision): JsonBody<NewDecision>,
) -> Result<Json<Job>, Problem> {
    caller.may(Scope::Review)?;
    if decision.note.chars().count() > MOST_NOTE {
        let what = format!("must have at most {MOST_NOTE} characters");
        return Err(bad_field("note", &what));
    }
    let job = app.job(&caller.tenant.name, id).await?;
    if !job.state.is_final() {
        return Err(not_finished(&job));
    }
    let decision = Decision {
        verdict: decision.verdict,
        fake: decision.fake,
        note: decision.note,
        by: caller.key,
        at: Time::now(),
    };
    let decided = app.store.decide(&caller.tenant.name, id, decision).await;
    let decided = decided.map_err(|e| Problem::internal("deciding", &e))?;
    decided.map(Json).ok_or_else(|| Problem::not_found("job"))
}

pub fn not_finished(job: &Job) -> Problem {
    let state = serde_json::to_value(job.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default();
    Problem::new(Code::NotFinished, format!("the job is {state}")).retry_after(2)
}

/// All decisions on a job, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionList {
    decisions: Vec<Decision>,
}

/// List a job's decisions
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/decisions",
    tag = "review",
    params(Id),
    responses((status = 200, description = "The decisions", body = DecisionList),
        (status = 404, description = "No such job"))
)]
pub async fn decisions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<DecisionList>, Problem> {
    caller.may(Scope::Read)?;
    app.job(&caller.tenant.name, id).await?;
    let tenant = caller.tenant.name;
    let decisions = app.read("reading decisions", move |s| s.decisions(&tenant, id)).await?;
    Ok(Json(DecisionList { decisions }))
}

/// A job's webhook deliveries, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobDeliveries {
    deliveries: Vec<Delivery>,
}

/// List a job's webhook deliveries
///
/// The newest 100.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/deliveries",
    operation_id = "job_deliveries",
    tag = "webhooks",
    params(Id),
    responses((status = 200, description = "The deliveries", body = JobDeliveries),
        (status = 404, description = "No such job"))
)]
pub async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<JobDeliveries>, Problem> {
    caller.may(Scope::Read)?;
    let tenant = caller.tenant.name;
    app.job(&tenant, id).await?;
    let list = move |store: &Store| store.deliveries_of(&tenant, id, MOST_DELIVERIES);
    let deliveries = app.read("listing deliveries", list).await?;
    Ok(Json(JobDeliveries { deliveries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_people_only() {
        for (name, clean) in [
            ("a.mp4", "a.mp4"),
            ("../../etc/passwd", "passwd"),
            ("C:\\media\\a.mp4", "a.mp4"),
            ("..", "unnamed"),
            ("a/..", "unnamed"),
            ("", "unnamed"),
            ("a\0b\n\u{202e}4pm.exe", "ab4pm.exe"),
        ] {
            assert_eq!(clean_name(name), clean, "{name:?}");
        }
        assert_eq!(clean_name(&"\u{89c6}".repeat(999)).chars().count(), MOST_NAME);
    }

    #[test]
    fn paths_stay_in_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().join("allowed");
        std::fs::create_dir(&allowed).unwrap();
        std::fs::write(allowed.join("a.mp4"), "a").unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), allowed.join("link")).unwrap();
        let ask = |path: &str| {
            let path = path.replace("DIR", dir.path().to_str().unwrap());
            allowed_file(&path, &[allowed.to_str().unwrap().to_string()]).map_err(|p| p.code())
        };
        assert!(ask("DIR/allowed/a.mp4").unwrap().ends_with("/allowed/a.mp4"));
        for (path, code) in [
            ("DIR/allowed/none.mp4", Code::NoSuchFile),
            ("DIR/allowed", Code::NoSuchFile),
            ("DIR/allowed/../secret", Code::PathNotAllowed),
            ("DIR/allowed/link", Code::PathNotAllowed),
            ("DIR/secret", Code::PathNotAllowed),
            ("DIR/none", Code::PathNotAllowed),
            ("DIR/allowed2/x", Code::PathNotAllowed),
            ("allowed/a.mp4", Code::PathNotAllowed),
            ("/etc/passwd", Code::PathNotAllowed),
            ("", Code::PathNotAllowed),
            ("DIR/allowed/a.mp4\0", Code::PathNotAllowed),
        ] {
            assert_eq!(ask(path), Err(code), "{path:?}");
        }
        assert!(allowed_file("/etc/passwd", &[]).is_err());
    }

    #[test]
    fn urls_are_http_and_carry_no_password() {
        assert!(check_url("https://example.org/a.mp4").is_ok());
        for bad in [
            "file:///etc/passwd",
            "ftp://example.org/a",
            "gopher://x",
            "data:,x",
            "http://",
            "http://user@example.org/",
            "http://user:password@example.org/",
            "example.org/a.mp4",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
