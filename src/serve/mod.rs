//! The HTTP service for moderation queues: jobs in, reports and outcomes out.
//!
//! [`model`] holds the values that the other files exchange and the API shows. Requests come in
//! through `http/`, wait in the queue of `store/`, are judged by the engine (`worker.rs`), get their
//! outcome from the policy (`policy.rs`) and are told to the tenant (`webhooks.rs`).

pub mod fetch;
pub mod live;
pub mod model;
pub mod outbound;
pub mod page;
pub mod plain;
pub mod policy;
pub mod preview;
pub mod queue;
pub mod report_html;
pub mod store;
pub mod webhooks;
pub mod worker;

mod http;
mod server;

pub use server::{Options, ServeError, Server};
