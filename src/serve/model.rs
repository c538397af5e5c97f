//! What the parts of the service exchange, as the API shows it.
//!
//! Times are UTC, in JSON RFC 3339 with milliseconds, inside milliseconds since 1970.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::report::{DetectorKind, DispositionState};

/// Milliseconds since 1970-01-01T00:00:00Z; RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// The clock's time. Before 1970 it is 0.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let Ok(t) = time::OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
            return write!(f, "{} ms", self.0);
        };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let format = &time::format_description::well_known::Rfc3339;
        let t = time::OffsetDateTime::parse(&text, format).map_err(serde::de::Error::custom)?;
        let ms = t.unix_timestamp_nanos() / 1_000_000;
        Ok(Self(i64::try_from(ms).unwrap_or(i64::MAX)))
    }
}

impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
}

/// A job's id: a UUID of version 7, so that ids sort by time.
pub type JobId = Uuid;

/// How soon a job is wanted.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody waits: never behind a batch.
    Live,
    #[default]
    Normal,
    /// Archives. Ages into normal, so that it is never starved.
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// A URL is being fetched.
    Fetching,
    Queued,
    Running,
    /// Judged: it has a report and an outcome.
    Done,
    /// It has a report that says why nothing could be judged, and an outcome.
    Failed,
    Cancelled,
}

impl JobState {
    /// Nothing more happens to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Where a job's media comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// Sent with the request; `name` is what the sender calls the file, for people only.
    Upload {
        name: String,
    },
    Url {
        url: String,
    },
    /// A file on the server, in one of the folders that it allows.
    Path {
        path: String,
    },
}

/// What a platform does with an upload.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    /// A person decides.
    Review,
    Block,
}

/// What the policy makes of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    pub action: Action,
    /// `confirmed`, `possible`, `suspected`, `none`, `undetermined`.
    #[schema(value_type = String)]
    pub disposition: DispositionState,
    /// The rules that decided and the evidence that they rest on, one line each.
    pub because: Vec<String>,
    pub policy_version: String,
}

/// A reviewer's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Block,
    /// Somebody else is to decide.
    Escalate,
}

/// A reviewer's decision, kept for audit and for later calibration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    pub verdict: Verdict,
    /// Whether the reviewer holds the media to be fake; none: not said.
    pub fake: Option<bool>,
    pub note: String,
    /// The key's name under which it was made.
    pub by: String,
    pub at: Time,
}

/// A coded cause, as reports have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    pub code: String,
    pub message: String,
}

/// What of a report a queue shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    pub duration_ms: Option<i64>,
    /// `video`, `audio` or `image`.
    pub kind: Option<String>,
    /// The most suspicious segments, at most one a detector.
    pub peaks: Vec<Peak>,
    /// Systems of the labels read, such as `aigc` and `c2pa`.
    pub labels: Vec<String>,
    /// Kinds of strip evidence.
    pub strip_evidence: Vec<String>,
}

/// A detector's most suspicious segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peak {
    #[schema(value_type = String)]
    pub detector: DetectorKind,
    pub start_ms: i64,
    pub end_ms: i64,
    /// 0 to 1, higher is fake.
    pub probability: f32,
}

/// How far a running job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub media_ms: i64,
    pub duration_ms: Option<i64>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    #[schema(value_type = uuid::Uuid)]
    pub id: JobId,
    pub tenant: String,
    pub state: JobState,
    pub priority: Priority,
    pub source: Source,
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// Whoever uploaded it declared it to be made by AI.
    pub declared_ai: bool,
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
    pub submitted_at: Time,
    pub started_at: Option<Time>,
    pub finished_at: Option<Time>,
    /// How often it was begun.
    pub attempts: u32,
    /// Answered with the report of an earlier job with the same bytes, weights and options.
    pub reused: bool,
    pub progress: Option<Progress>,
    pub outcome: Option<Outcome>,
    pub error: Option<Fault>,
    pub summary: Option<Summary>,
    /// The last decision.
    pub decision: Option<Decision>,
    /// Whether the media is still here, to be played.
    pub has_media: bool,
}
