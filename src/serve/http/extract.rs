//! What handlers take from a request; what is wrong with it becomes a problem.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::{Code, Problem};
use super::upload::Bounded;

/// Longest body of JSON or TOML.
pub const MOST_TEXT: u64 = 256 << 10;

/// The id in a path.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Path, names("id"))]
pub struct Id(pub uuid::Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<uuid::Uuid>::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

/// The query's parameters. Types refuse what they do not know, so that a mistyped filter is not
/// taken for none.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Bytes that are no text would be replaced in silence.
        let query = parts.uri.query().unwrap_or_default();
        if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
            return Err(Problem::new(Code::BadParameter, "the query is not valid UTF-8"));
        }
        let Query(params) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(params))
    }
}

/// A small body of JSON.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            let detail = "the body must be application/json";
            return Err(Problem::new(Code::UnsupportedContentType, detail));
        }
        let body = Bounded::new(request.into_body(), MOST_TEXT).all().await?;
        parse_json(&body).map(Self)
    }
}

pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| Problem::new(Code::BadJson, e.to_string()))
}

/// The content type without its parameters, in lower case.
pub fn content_type(request: &Request) -> Option<String> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

pub fn is_json(request: &Request) -> bool {
    content_type(request).is_some_and(|t| t == "application/json")
}
