//! `veriscope serve`: what was typed → what is meant → the service.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::scan::EngineArgs;
use super::signals::Signals;
use super::{EXIT_OK, complain, fail};
use crate::provenance::InspectOptions;
use crate::provenance::c2pa::{TrustAnchors, Worker};
use crate::serve::outbound::Allowed;
use crate::serve::worker::load;
use crate::serve::{Options, Server};

/// Take media over HTTP, queue them, judge them and tell the outcome: the backend of a moderation queue
///
/// Everything is kept in one folder. The API is described at /v1/openapi.json, the review page is at /.
/// Requests need the API key of a tenant (`veriscope tenants`).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Once it takes requests, one line on stdout says where: listening on http://ADDRESS:PORT.
SIGTERM or Ctrl-C lets what is being answered and judged end for --grace seconds; jobs that do not
end in time are queued again, and the next start goes on with them. A second signal quits at once.

Exit codes:
  0    stopped by a signal
  1    the service could not start; the cause is on stderr
  2    wrong usage")]
pub struct ServeArgs {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Folder for the queue, reports and uploads; made where it is not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The policy that makes allow, review or block of reports; read again whenever it changes
    /// [default: policy.toml in the data folder where it is there, else the built-in policy]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Ask for no API keys: everybody who can reach the address is the tenant `default`. On loopback
    /// addresses only
    #[arg(long)]
    no_auth: bool,
    /// Jobs that may wait, all tenants together; more are answered with 503
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_queued: u32,
    /// Connections at the same time; more are answered with 503
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    max_connections: u32,
    /// Uploads received at the same time, at first 16 for each processor; more are answered with 503
    #[arg(long, default_value_t = most_uploads(), hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    max_uploads: u32,
    /// Seconds that work under way may take to end when the server stops
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "SECONDS")]
    grace: u32,
    /// Addresses that URLs may lead to although they are not public, such as an internal store:
    /// 10.1.2.3, 10.1.0.0/16, 127.0.0.1:9000; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    fetch_allow: Vec<Allowed>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Certificates (PEM) whose C2PA signatures are trusted; none are built in, and without them no
    /// signer is checked
    #[arg(long, value_name = "FILE")]
    trust_anchors: Option<PathBuf>,
}

/// As many as are answered within some tens of milliseconds where all of them come at once.
fn most_uploads() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(16 * processors).unwrap_or(u32::MAX).clamp(1, 10_000)
}

/// Serves until a signal comes, and gives the exit code.
pub fn run(args: &ServeArgs) -> u8 {
    match serve(args) {
        Ok(()) => EXIT_OK,
        Err(message) => fail(&message),
    }
}

fn serve(args: &ServeArgs) -> Result<(), String> {
    if args.no_auth && !args.listen.ip().is_loopback() {
        let address = args.listen.ip();
        return Err(format!("--no-auth is for loopback addresses only, {address} is none"));
    }
    let signals = Signals::catch()?;
    let anchors = args.trust_anchors.as_deref().map(TrustAnchors::open).transpose();
    let anchors = anchors.map_err(|e| format!("--trust-anchors {e}"))?;
    let program = std::env::current_exe()
        .map_err(|e| format!("where this program is cannot be told: {e}"))?;
    let mut options = args.engine.options();
    options.inspect = InspectOptions { c2pa: Some(Worker::new(program, anchors)) };
    let weights = args.engine.open_weights()?;
    let engine = load(options, weights).map_err(|e| e.to_string())?;
    let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let server = Server::start(
        engine,
        Options {
            listen: args.listen,
            data: args.data.clone(),
            policy: args.policy.clone(),
            no_auth: args.no_auth,
            max_queued: number(args.max_queued),
            max_connections: number(args.max_connections),
            max_uploads: number(args.max_uploads),
            grace: Duration::from_secs(args.grace.into()),
            fetch_allow: args.fetch_allow.clone(),
        },
    )
    .map_err(|e| e.to_string())?;
    if !args.no_auth && !server.has_keys() {
        complain(
            "there are no API keys yet: make one with `veriscope tenants --data DIR set NAME` and \
             `veriscope tenants --data DIR add-key NAME KEYNAME`",
        );
    }
    let mut out = std::io::stdout().lock();
    // Nobody may read it.
    let _ = writeln!(out, "listening on http://{}", server.address()).and_then(|()| out.flush());
    drop(out);
    server.run(&signals.stop).map_err(|e| e.to_string())
}
