//! Every error that the API answers, as application/problem+json (RFC 9457).

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::StatusCode;
use hyper::http;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, by stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    BadParameter,
    BadJson,
    MalformedMultipart,
    TruncatedBody,
    MissingFile,
    Unauthorized,
    Forbidden,
    CrossSite,
    PathNotAllowed,
    NotFound,
    MethodNotAllowed,
    TooSlow,
    NotFinished,
    IdempotencyConflict,
    TooLarge,
    UriTooLong,
    UnsupportedMedia,
    UnsupportedContentType,
    RangeNotSatisfiable,
    NoSuchFile,
    BadPolicy,
    RateLimited,
    QueueFullForTenant,
    HeadersTooLarge,
    Internal,
    QueueFull,
    Busy,
    Stopping,
}

impl Code {
    /// Status, code and title.
    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad_request", "The request is not well-formed"),
            Self::BadParameter => (400, "bad_parameter", "A parameter is not valid"),
            Self::BadJson => (400, "bad_json", "The body is not the JSON that is expected"),
            Self::MalformedMultipart => {
                (400, "malformed_multipart", "The multipart body is not well-formed")
            }
            Self::TruncatedBody => (400, "truncated_body", "The body ends before it is complete"),
            Self::MissingFile => (400, "missing_file", "The upload has no file"),
            Self::Unauthorized => (401, "unauthorized", "A valid API key is needed"),
            Self::Forbidden => (403, "forbidden", "The API key does not allow this"),
            Self::CrossSite => (403, "cross_site", "Requests from other sites are refused"),
            Self::PathNotAllowed => {
                (403, "path_not_allowed", "The path is in no folder that the server allows")
            }
            Self::NotFound => (404, "not_found", "There is no such thing"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "The method is not allowed here"),
            Self::TooSlow => (408, "too_slow", "The body came too slowly"),
            Self::NotFinished => (409, "not_finished", "The job is not finished"),
            Self::IdempotencyConflict => {
                (409, "idempotency_conflict", "The idempotency key was used for another request")
            }
            Self::TooLarge => (413, "too_large", "The body is too large"),
            Self::UriTooLong => (414, "uri_too_long", "The address is too long"),
            Self::UnsupportedMedia => (415, "unsupported_media", "The file is no known media"),
            Self::UnsupportedContentType => {
                (415, "unsupported_content_type", "The content type is not supported")
            }
            Self::RangeNotSatisfiable => {
                (416, "range_not_satisfiable", "The range lies outside the file")
            }
            Self::NoSuchFile => (422, "no_such_file", "There is no such file"),
            Self::BadPolicy => (422, "bad_policy", "The policy is not valid"),
            Self::RateLimited => (429, "rate_limited", "Too many requests with this key"),
            Self::QueueFullForTenant => (429, "tenant_queue_full", "The tenant's queue is full"),
            Self::HeadersTooLarge => {
                (431, "headers_too_large", "The request has too many or too long headers")
            }
            Self::Internal => (500, "internal", "The server could not do it"),
            Self::QueueFull => (503, "queue_full", "The queue is full"),
            Self::Busy => (503, "busy", "The server has too much to do"),
            Self::Stopping => (503, "stopping", "The server is stopping"),
        }
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// One answer that says why a request was not done.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    /// One sentence for people about this very request.
    detail: String,
    /// Seconds after which it may be tried again.
    retry_after: Option<u64>,
}

/// A problem as it is sent (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:veriscope:problem:<code>`.
    r#type: String,
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    detail: &'a str,
    /// Stable code.
    code: &'a str,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None }
    }

    /// To be tried again after this many seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Nothing that the asking tenant may know of.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"))
    }

    /// Says `cause` in the log and nothing of it to the client.
    pub fn internal(doing: &str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!("{doing}: {cause}");
        Self::new(Code::Internal, format!("{doing} failed; the server's log says why"))
    }

    #[cfg(test)]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The answer's body.
    pub fn json(&self) -> String {
        let (status, code, title) = self.code.parts();
        let body = ProblemBody {
            r#type: format!("urn:veriscope:problem:{code}"),
            title,
            status,
            detail: &self.detail,
            code,
        };
        // A struct of strings and a number cannot fail to be written.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::BadParameter, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    /// An id that is none is the id of nothing.
    fn from(rejection: PathRejection) -> Self {
        Self::new(Code::NotFound, rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedContentType,
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            _ => Code::BadJson,
        };
        Self::new(code, rejection.body_text())
    }
}
