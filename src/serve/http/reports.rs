//! What a job came to: its report, its media, its previews.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use hyper::header::{ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::App;
use super::auth::Caller;
use super::extract::{Id, Params};
use super::files;
use super::jobs::not_finished;
use super::openapi::Binary;
use super::problem::{Code, Problem};
use crate::serve::plain;
use crate::serve::report_html::report_html;
use crate::serve::store::Scope;

/// The HTML report brings its own styles and pictures and runs nothing.
const REPORT_CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// How a report is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// Left out: by the header `Accept`.
    format: Option<Format>,
    /// The HTML report's language.
    #[serde(default)]
    lang: Option<Lang>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    En,
    Zh,
}

/// Read a job's report
///
/// As JSON, by the schema of `veriscope schema`, or as an HTML page of its own.
#[utoipa::path(
    get,
    path = "/v1/report/{id}",
    tag = "reports",
    params(Id, ReportQuery),
    responses(
        (status = 200, description = "The report", content(
            (super::openapi::ReportSchema = "application/json"), (String = "text/html"))),
        (status = 404, description = "No such job, or its report was deleted"),
        (status = 409, description = "The job has no report yet (`not_finished`)"))
)]
pub async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Params(query): Params<ReportQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let job = app.job(&caller.tenant.name, id).await?;
    let tenant = caller.tenant.name;
    let report = app.read("reading the report", move |s| s.report(&tenant, id)).await?;
    let Some(report) = report else {
        return Err(if job.state.is_final() {
            Problem::not_found("report: it was deleted")
        } else {
            not_finished(&job)
        });
    };
    let html = match query.format {
        Some(format) => format == Format::Html,
        None => prefers_html(&headers),
    };
    if !html {
        return Ok(Json(report).into_response());
    }
    let lang = match query.lang {
        Some(Lang::En) => plain::Lang::En,
        Some(Lang::Zh) => plain::Lang::Zh,
        None => {
            let header = headers.get(ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok());
            plain::Lang::accepted(header.unwrap_or_default())
        }
    };
    // A long report is a long page.
    let page = tokio::task::spawn_blocking(move || report_html(&report, &job, lang)).await;
    let page = page.map_err(|e| Problem::internal("writing the page", &e))?;
    let mut response = Html(page).into_response();
    files::set(&mut response, CONTENT_SECURITY_POLICY, REPORT_CSP);
    Ok(response)
}

/// Browsers name HTML before everything; programs that take anything get JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let at = |name: &str| accept.find(name).unwrap_or(usize::MAX);
    at("text/html") < at("application/json")
}

/// Read a job's media
///
/// Where the tenant keeps media; a range of bytes where the header `Range` asks for one. The type is
/// what the first bytes say (`application/octet-stream` for what no browser plays or shows).
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/media",
    tag = "reports",
    params(Id),
    responses(
        (status = 200, description = "The media", body = inline(Binary), content_type = "*/*"),
        (status = 206, description = "A part of it", body = inline(Binary), content_type = "*/*"),
        (status = 404, description = "No such job, or its media was deleted"),
        (status = 416, description = "No such range (`range_not_satisfiable`)"))
)]
pub async fn media(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let job = app.job(&caller.tenant.name, id).await?;
    let gone = || Problem::not_found("media: it was deleted");
    if !job.has_media {
        return Err(gone());
    }
    let path = app.store.media_path(&job);
    match app.read("reading the media", move |store| store.held(&job)).await? {
        Some(file) => files::send_open(file.into(), &headers).await,
        None => files::send(&path, &headers).await?.ok_or_else(gone),
    }
}

/// List a job's previews
///
/// Thumbnails, spectrograms and crops of faces, by their files' names.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/previews",
    tag = "reports",
    params(Id),
    responses((status = 200, description = "`thumbnails`, `spectrograms` and `crops`", body = Object),
        (status = 404, description = "No such job, or it has no previews"))
)]
pub async fn previews(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    preview_file(&app, &caller, id, "index.json", &headers).await
}

/// Read a preview
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/previews/{file}",
    tag = "reports",
    params(Id, ("file" = String, Path, description = "A name out of the list")),
    responses(
        (status = 200, description = "A JPEG picture", body = inline(Binary), content_type = "image/jpeg"),
        (status = 404, description = "No such job or preview"))
)]
pub async fn preview(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id.parse::<Uuid>().map_err(|_| Problem::not_found("job"))?;
    // Names that the server gives; nothing that could lead elsewhere.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !file.strip_suffix(".jpg").is_some_and(|name| name.len() <= 64 && name.chars().all(plain)) {
        return Err(Problem::not_found("preview"));
    }
    preview_file(&app, &caller, id, &file, &headers).await
}

async fn preview_file(
    app: &Arc<App>,
    caller: &Caller,
    id: Uuid,
    file: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let tenant = caller.tenant.name.clone();
    app.job(&tenant, id).await?;
    let folder = app.read("finding previews", move |s| s.previews_path(&tenant, id)).await?;
    let missing = || Problem::new(Code::NotFound, "the job has no such preview");
    let path = folder.ok_or_else(missing)?.join(file);
    let mut response = files::send(&path, headers).await?.ok_or_else(missing)?;
    // Their content decides their folder: they do not change.
    files::set(&mut response, CACHE_CONTROL, "private, max-age=3600");
    Ok(response)
}
