//! The whole service: its parts started in order, and stopped in the reverse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

use super::fetch::Fetching;
use super::http::{self, App, NO_AUTH_TENANT};
use super::live::{Hub, LiveEvent};
use super::model::{JobId, JobState, Time};
use super::outbound::{Allowed, Outbound, OutboundError};
use super::policy::{Policies, PolicyError};
use super::queue::Aging;
use super::store::{MakeOutcome, Store, StoreError, StoreOptions, Tenant};
use super::webhooks;
use super::worker::Workers;
use crate::engine::Engine;

/// Threads that may wait for the disk.
const BLOCKING_THREADS: usize = 64;
/// How often it is looked whether the server is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// URLs that are fetched at the same time.
const FETCHES: usize = 8;
/// Between two looks for what is kept no longer.
const SWEEP: Duration = Duration::from_secs(60);
/// Between two looks for tenants that were removed.
const CLEAR: Duration = Duration::from_secs(1);

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub data: PathBuf,
    /// None: `policy.toml` in the data folder where it is there.
    pub policy: Option<PathBuf>,
    /// Everybody is the tenant `default`.
    pub no_auth: bool,
    pub max_queued: usize,
    pub max_connections: usize,
    pub max_uploads: usize,
    /// How long work under way may take to end.
    pub grace: Duration,
    /// Addresses that URLs may lead to although they are not public.
    pub fetch_allow: Vec<Allowed>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("requests to other servers cannot be made: {0}")]
    Outbound(#[from] OutboundError),
    #[error("the service's threads cannot be started: {0}")]
    Threads(std::io::Error),
    #[error("the threads that judge ended by a defect; the log says which")]
    Defect,
    #[error("the OpenAPI document cannot be written: {0}")]
    Document(serde_json::Error),
}

/// A service that listens and is not yet run.
pub struct Server {
    app: Arc<App>,
    router: axum::Router,
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    engine: Engine,
    outcome: MakeOutcome,
    outbound: Outbound,
    options: Options,
}

/// Connections that the system accepts for the server while it is busy: one that finds no place comes
/// again after a second.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that starts again need not wait for the old one's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Opens the store, takes up what an earlier server left, and listens.
    ///
    /// # Errors
    /// The data folder, the policy or the address cannot be used.
    pub fn start(engine: Engine, options: Options) -> Result<Self, ServeError> {
        raise_descriptor_limit();
        let policies = match &options.policy {
            Some(path) => Policies::open(Some(path.clone()))?,
            None => Policies::open_if_there(options.data.join("policy.toml"))?,
        };
        let policies = Arc::new(policies);
        let judge = policies.clone();
        let outcome: MakeOutcome =
            Arc::new(move |tenant, report, _| judge.evaluate(tenant, report));
        let outbound = Outbound::new(options.fetch_allow.clone())?;
        let store = Store::open(
            &options.data,
            StoreOptions {
                max_queued: options.max_queued,
                aging: Aging::default(),
                fingerprint: engine.fingerprint(),
                outcome: outcome.clone(),
            },
        )?;
        clear(&store, options.no_auth, |_| {})?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("http")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?;
        let address = options.listen;
        let failed = |source| ServeError::Listen { address, source };
        let listener = runtime.block_on(async { listen(address) }).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let hub = Hub::default();
        let app = App::new(store, hub, policies, options.no_auth, options.max_uploads);
        let app = Arc::new(app);
        let router = http::router(app.clone()).map_err(ServeError::Document)?;
        Ok(Self { app, router, runtime, listener, address, engine, outcome, outbound, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether there is any key to make requests with. True where that cannot be told.
    pub fn has_keys(&self) -> bool {
        let store = &self.app.store;
        let Ok(tenants) = store.tenants() else { return true };
        tenants.iter().any(|t| {
            store.keys(&t.name).is_ok_and(|keys| keys.iter().any(|key| key.revoked.is_none()))
        })
    }

    /// Serves until `stop` is set; then what is being answered and judged may end for the grace
    /// period, and what has not ended is queued again.
    ///
    /// # Errors
    /// The threads that judge cannot be started, or ended by a defect.
    pub fn run(self, stop: &AtomicBool) -> Result<(), ServeError> {
        let Self { app, router, runtime, listener, engine, outcome, outbound, options, .. } = self;
        let webhooks = runtime.spawn(webhooks::run(app.store.clone(), outbound.clone()));
        let fetching = Fetching {
            store: app.store.clone(),
            hub: app.hub.clone(),
            outbound,
            outcome: outcome.clone(),
            engine: engine.info().clone(),
        };
        let workers = Workers::start(engine, app.store.clone(), app.hub.clone(), outcome)
            .map_err(ServeError::Threads)?;
        let fetching = runtime.spawn(fetching.run(FETCHES));
        let sweeper = runtime.spawn(sweep(app.store.clone()));
        let clearer =
            runtime.spawn(clear_always(app.store.clone(), app.hub.clone(), options.no_auth));
        let (mut defect, mut until) = (false, None);
        let stopped = async {
            while !stop.load(Ordering::SeqCst) {
                if !workers.is_running() {
                    defect = true;
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            // Before connections are let go: streams of events end, submissions are refused, and no
            // more jobs are begun.
            app.stopping.send_replace(true);
            app.store.close();
            until = Some(Instant::now() + options.grace);
        };
        let connections = app.connections.clone();
        runtime.block_on(http::listen::serve(
            listener,
            router,
            options.max_connections,
            connections,
            stopped,
            options.grace,
        ));
        // Both had the same time.
        workers.stop(
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())),
        );
        for task in [webhooks, fetching, sweeper, clearer] {
            task.abort();
        }
        // What waits for the disk has a moment left; nothing else is under way.
        runtime.shutdown_timeout(Duration::from_secs(5));
        if defect { Err(ServeError::Defect) } else { Ok(()) }
    }
}

/// Deletes what is kept no longer, every minute.
async fn sweep(store: Store) {
    let mut every = tokio::time::interval(SWEEP);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.sweep(Time::now())).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::error!("deleting what is kept no longer: {e}"),
            Err(e) => tracing::error!("deleting what is kept no longer: {e}"),
        }
    }
}

/// Deletes what removed tenants left, and makes the tenant of requests without keys where it is not
/// there. `cancelled` is told of jobs that had not ended.
fn clear(store: &Store, no_auth: bool, mut cancelled: impl FnMut(JobId)) -> Result<(), StoreError> {
    for tenant in store.removed_tenants()? {
        store.purge(&tenant, &mut cancelled)?;
        tracing::info!("all that the tenant {tenant} had is deleted");
    }
    if no_auth && store.tenant(NO_AUTH_TENANT)?.is_none() {
        store.put_tenant(Tenant::named(NO_AUTH_TENANT)).wait()?;
    }
    Ok(())
}

/// Looks every second whether a tenant was removed by another process.
async fn clear_always(store: Store, hub: Hub, no_auth: bool) {
    let mut every = tokio::time::interval(CLEAR);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (store, hub) = (store.clone(), hub.clone());
        let cancelled = move |job: JobId| {
            hub.publish(job, LiveEvent::State { state: JobState::Cancelled });
            hub.publish(job, LiveEvent::Done {});
        };
        match tokio::task::spawn_blocking(move || clear(&store, no_auth, cancelled)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("deleting what removed tenants left: {e}"),
            Err(e) => tracing::error!("deleting what removed tenants left: {e}"),
        }
    }
}

/// Connections and files take descriptors, and the usual limit is lower than the most connections.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer and for what is set.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max
        {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
