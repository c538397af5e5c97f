//! A job's events as they happen, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::App;
use super::auth::Caller;
use super::extract::Id;
use super::problem::{Code, Problem};
use crate::serve::live::LiveEvent;
use crate::serve::model::JobId;
use crate::serve::store::Scope;

/// Streams at the same time.
const MOST_WATCHERS: usize = 1000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follow a job
///
/// Server-sent events: `state` {"state"}, `progress` {"media_ms", "duration_ms"}, `segments`
/// {"segments", "provisional"} (all segments found so far, in place of those before), `done` {}, with
/// which the stream ends. A watcher who comes late first gets where the job stands.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    tag = "jobs",
    params(Id),
    responses((status = 200, description = "The events", body = String,
        content_type = "text/event-stream"))
)]
pub async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let watcher = Watcher::new(&app)?;
    // Subscribed before the job is read, so that its end is not missed.
    let (snapshot, events) = app.hub.subscribe(id);
    let job = app.job(&caller.tenant.name, id).await?;
    let mut ready: VecDeque<LiveEvent> = snapshot.into();
    let state = LiveEvent::State { state: job.state };
    if job.state.is_final() {
        ready = [state, LiveEvent::Done {}].into();
    } else if !ready.iter().any(|e| matches!(e, LiveEvent::State { .. })) {
        ready.push_front(state);
    }
    let watch = Watch {
        app,
        tenant: caller.tenant.name,
        id,
        ready,
        events,
        ended: false,
        _watcher: watcher,
    };
    let events = stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(sse(&event)), watch))
    });
    // Cancelled by whoever goes away: the connection drops the stream.
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies must not gather events.
    response.headers_mut().insert(
        hyper::header::HeaderName::from_static("x-accel-buffering"),
        hyper::header::HeaderValue::from_static("no"),
    );
    Ok(response)
}

fn sse(event: &LiveEvent) -> Event {
    // Events are plain values, whose JSON has no line breaks and cannot fail.
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(event.name()).data(data)
}

/// Counts as a watcher as long as it lives.
struct Watcher(Arc<App>);

impl Watcher {
    fn new(app: &Arc<App>) -> Result<Self, Problem> {
        let watcher = Self(app.clone());
        if app.watchers.fetch_add(1, Ordering::Relaxed) >= MOST_WATCHERS {
            // Dropped, it is not counted any more.
            return Err(Problem::new(Code::Busy, "too many streams of events").retry_after(5));
        }
        Ok(watcher)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Watch {
    app: Arc<App>,
    tenant: String,
    id: JobId,
    ready: VecDeque<LiveEvent>,
    events: Receiver<(u64, LiveEvent)>,
    ended: bool,
    /// Counts while the stream lives.
    _watcher: Watcher,
}

impl Watch {
    /// The next event; none at the end.
    async fn next(&mut self) -> Option<LiveEvent> {
        if self.ended {
            return None;
        }
        let mut stop = self.app.stopping.subscribe();
        let event = loop {
            if let Some(event) = self.ready.pop_front() {
                break event;
            }
            let received = tokio::select! {
                received = self.events.recv() => received,
                // The connection is let go, so that the server can stop; clients connect again.
                _ = stop.wait_for(|stop| *stop) => return None,
            };
            match received {
                Ok((_, event)) => break event,
                Err(RecvError::Lagged(_)) => {
                    let (snapshot, events) = self.app.hub.subscribe(self.id);
                    (self.ready, self.events) = (snapshot.into(), events);
                }
                // The hub let go of the job: it has ended, or waits again.
                Err(RecvError::Closed) => {
                    let (snapshot, events) = self.app.hub.subscribe(self.id);
                    (self.ready, self.events) = (snapshot.into(), events);
                    match self.app.job(&self.tenant, self.id).await {
                        Ok(job) if !job.state.is_final() => {}
                        Ok(job) => {
                            let state = LiveEvent::State { state: job.state };
                            self.ready = [state, LiveEvent::Done {}].into();
                        }
                        // Deleted.
                        Err(_) => self.ready = [LiveEvent::Done {}].into(),
                    }
                }
            }
        };
        self.ended = event == LiveEvent::Done {};
        Some(event)
    }
}
