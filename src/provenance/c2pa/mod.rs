//! C2PA manifests, verified by the `c2pa` crate in a process of its own.
//!
//! The crate parses whatever a file holds, and files have been made that keep it busy for minutes.
//! So it runs in a worker ([`Worker`]): the same program started anew, with limits of CPU time and
//! memory, killed at a deadline. The worker gets the open file as its stdin and prints one
//! [`Answer`] as JSON. It is started only for files in which the readers of this room saw a C2PA
//! store, or a pointer to one. Nothing is fetched: the crate is built without any HTTP client, and
//! its settings forbid it once more.

mod judge;
// The fuzz targets run the readers alone, without the crate that verifies.
#[cfg(not(fuzzing))]
mod read;
mod worker;

use serde::{Deserialize, Serialize};

pub(super) use judge::{judge, unjudged};
#[cfg(not(fuzzing))]
pub use read::answer;
pub use worker::{TrustAnchors, Worker, confine};

/// Characters that are kept of a text from a manifest.
const MAX_TEXT: usize = 120;
/// Failures and source types that are kept, each.
const MAX_LISTED: usize = 12;

/// What the worker found in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    Store(Box<Store>),
    /// The manifest is kept elsewhere, and was not fetched.
    Remote {
        address: String,
    },
    /// The crate sees no manifest.
    Absent,
    /// The crate does not read this container.
    Unsupported,
    /// There is a store, and it is not what the specification asks for.
    Malformed {
        /// A status code of the C2PA specification.
        code: String,
        cause: String,
    },
    /// The file could not be read so far as to judge.
    Failed {
        cause: String,
    },
}

/// A manifest store that was read and validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub state: State,
    /// Failures of validation, at most 12, each once.
    pub failures: Vec<Failure>,
    pub manifests: usize,
    /// The software that made the active manifest, as it calls itself.
    pub generator: Option<String>,
    /// Organisation and common name of the certificate that signed it.
    pub issuer: Option<String>,
    pub common_name: Option<String>,
    /// When a time stamp says that it was signed (RFC 3339).
    pub signed_at: Option<String>,
    /// The IPTC source types that assertions name, at most 12: of the active manifest, and of those
    /// of ingredients that are a part of the content.
    pub source_types: Vec<SourceType>,
}

/// What validation came to, as the C2PA specification names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Invalid,
    /// Whole and correctly signed.
    Valid,
    /// And the signer is on the trust list.
    Trusted,
}

/// One failure of validation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Status code of the C2PA specification, such as `assertion.dataHash.mismatch`.
    pub code: String,
    /// It is an ingredient's manifest that failed, not that of the file itself.
    pub ingredient: bool,
}

/// A source type that an assertion names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceType {
    /// The action (`c2pa.created`), or the label of the assertion that is no list of actions.
    pub by: String,
    /// The value as it stands there.
    pub value: String,
    /// An ingredient's manifest names it.
    pub ingredient: bool,
}
