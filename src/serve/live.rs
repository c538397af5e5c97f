//! What happens to jobs just now, for those who watch: bounded, and nothing of it is kept.
//!
//! The store knows what a job came to; the hub only carries what would be stale a second later. Who
//! watches a job subscribes first and reads the job from the store afterwards: a job that is final
//! there may have been told before, and nothing more comes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use super::model::{JobId, JobState, Progress};
use crate::report::Segment;

/// Events that may wait for a slow reader. One who falls behind further is told so by its receiver
/// and subscribes again.
const WAITING: usize = 32;
/// Jobs in the hub from which on those that nobody watches or works on are looked for.
const SWEEP: usize = 1_024;

/// What a watcher of a job is told. [`LiveEvent::name`] is the event's name, the JSON its data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum LiveEvent {
    /// The job's state changed.
    State { state: JobState },
    /// How far it has come.
    Progress(Progress),
    /// All segments found so far, in the place of those told before; without heat maps. While
    /// `provisional` is true, tracks may be numbered otherwise and probabilities may change until
    /// the report is there; false: they are the report's.
    Segments {
        #[serde(serialize_with = "plain")]
        segments: Arc<[Segment]>,
        provisional: bool,
    },
    /// The job is final: nothing more comes.
    Done {},
}

impl LiveEvent {
    /// `state`, `progress`, `segments` or `done`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Progress(_) => "progress",
            Self::Segments { .. } => "segments",
            Self::Done {} => "done",
        }
    }
}

fn plain<S: Serializer>(segments: &Arc<[Segment]>, serializer: S) -> Result<S::Ok, S::Error> {
    segments.as_ref().serialize(serializer)
}

/// One job that is watched or worked on.
struct Channel {
    events: broadcast::Sender<(u64, LiveEvent)>,
    /// The next event's number, from 1.
    next: u64,
    state: Option<JobState>,
    progress: Option<Progress>,
    /// The last event of segments.
    segments: Option<LiveEvent>,
}

impl Channel {
    fn new() -> Self {
        let (events, _) = broadcast::channel(WAITING);
        Self { events, next: 1, state: None, progress: None, segments: None }
    }

    /// What the events so far come to.
    fn snapshot(&self) -> Vec<LiveEvent> {
        let state = self.state.map(|state| LiveEvent::State { state });
        let progress = self.progress.map(LiveEvent::Progress);
        [state, progress, self.segments.clone()].into_iter().flatten().collect()
    }
}

#[derive(Default)]
struct Inner {
    channels: HashMap<JobId, Channel>,
    /// At this many channels those that nobody needs are dropped.
    sweep_at: usize,
}

/// Carries events from those who work on jobs to those who watch them. Clones are the same hub.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

impl Hub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock leaves anything half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who watch the job. Never waits.
    pub fn publish(&self, job: JobId, event: LiveEvent) {
        let mut inner = self.inner();
        // A job that waits or has ended is remembered only while somebody watches it.
        let works = match &event {
            LiveEvent::State { state } => *state == JobState::Running,
            LiveEvent::Progress(_) | LiveEvent::Segments { .. } => true,
            LiveEvent::Done {} => false,
        };
        let channel = match works {
            true => inner.channels.entry(job).or_insert_with(Channel::new),
            false => match inner.channels.get_mut(&job) {
                Some(channel) => channel,
                None => return,
            },
        };
        match &event {
            LiveEvent::State { state } => {
                channel.state = Some(*state);
                if *state != JobState::Running {
                    // Queued again: what was found will be found anew.
                    (channel.progress, channel.segments) = (None, None);
                }
            }
            LiveEvent::Progress(progress) => channel.progress = Some(*progress),
            LiveEvent::Segments { .. } => channel.segments = Some(event.clone()),
            LiveEvent::Done {} => {}
        }
        let ended = event == LiveEvent::Done {};
        // Without receivers it goes nowhere.
        let _ = channel.events.send((channel.next, event));
        channel.next += 1;
        let unwatched = channel.events.receiver_count() == 0;
        let running = channel.state == Some(JobState::Running);
        if ended || (!works && unwatched && !running) {
            // Receivers get what was sent, then that it is closed.
            inner.channels.remove(&job);
        }
    }

    /// What the job's events so far come to, and those that follow, numbered from 1.
    ///
    /// To be called before the job is read from the store, so that its end is not missed.
    pub fn subscribe(&self, job: JobId) -> (Vec<LiveEvent>, broadcast::Receiver<(u64, LiveEvent)>) {
        let mut inner = self.inner();
        let channel = inner.channels.entry(job).or_insert_with(Channel::new);
        let found = (channel.snapshot(), channel.events.subscribe());
        if inner.channels.len() >= inner.sweep_at.max(SWEEP) {
            inner.channels.retain(|_, channel| {
                channel.events.receiver_count() > 0 || channel.state == Some(JobState::Running)
            });
            inner.sweep_at = inner.channels.len() * 2;
        }
        found
    }

    /// How far the job has come, where it is being worked on.
    pub fn progress(&self, job: JobId) -> Option<Progress> {
        self.inner().channels.get(&job)?.progress
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    fn progress(media_ms: i64) -> LiveEvent {
        LiveEvent::Progress(Progress { media_ms, duration_ms: Some(9_000) })
    }

    fn state(state: JobState) -> LiveEvent {
        LiveEvent::State { state }
    }

    #[test]
    fn a_late_watcher_sees_where_the_job_stands_and_then_its_end() {
        let (hub, job) = (Hub::default(), JobId::now_v7());
        hub.publish(job, state(JobState::Running));
        hub.publish(job, progress(1_000));
        hub.publish(job, progress(2_000));
        let segments = LiveEvent::Segments { segments: Arc::new([]), provisional: true };
        hub.publish(job, segments.clone());
        let (seen, mut events) = hub.subscribe(job);
        assert_eq!(seen, [state(JobState::Running), progress(2_000), segments]);
        assert_eq!(hub.progress(job).map(|p| p.media_ms), Some(2_000));
        hub.publish(job, progress(3_000));
        hub.publish(job, state(JobState::Done));
        hub.publish(job, LiveEvent::Done {});
        assert_eq!(events.try_recv(), Ok((5, progress(3_000))));
        assert_eq!(events.try_recv(), Ok((6, state(JobState::Done))));
        assert_eq!(events.try_recv(), Ok((7, LiveEvent::Done {})));
        assert_eq!(events.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(hub.progress(job), None);
        assert!(hub.inner().channels.is_empty());
    }

    #[test]
    fn a_job_that_is_queued_again_starts_anew() {
        let (hub, job) = (Hub::default(), JobId::now_v7());
        let (seen, mut events) = hub.subscribe(job);
        assert_eq!(seen, []);
        hub.publish(job, state(JobState::Running));
        hub.publish(job, progress(1_000));
        hub.publish(job, state(JobState::Queued));
        assert_eq!(hub.subscribe(job).0, [state(JobState::Queued)]);
        assert_eq!(events.try_recv(), Ok((1, state(JobState::Running))));
    }

    #[test]
    fn nothing_is_kept_that_nobody_needs() {
        let hub = Hub::default();
        // Told of, but neither worked on nor watched.
        for _ in 0..100 {
            hub.publish(JobId::now_v7(), state(JobState::Queued));
            hub.publish(JobId::now_v7(), LiveEvent::Done {});
        }
        assert!(hub.inner().channels.is_empty());
        let running = JobId::now_v7();
        hub.publish(running, state(JobState::Running));
        let (_, watched) = hub.subscribe(JobId::now_v7());
        // Watchers of jobs that never run come and go.
        for _ in 0..10 * SWEEP {
            drop(hub.subscribe(JobId::now_v7()));
        }
        assert!(hub.inner().channels.len() <= SWEEP, "{}", hub.inner().channels.len());
        assert!(hub.inner().channels.contains_key(&running));
        // Cancelled while it was watched by one who went away.
        drop(watched);
        hub.publish(running, state(JobState::Cancelled));
        assert!(!hub.inner().channels.contains_key(&running));
    }

    #[test]
    fn a_slow_watcher_costs_no_memory() {
        let (hub, job) = (Hub::default(), JobId::now_v7());
        let (_, mut events) = hub.subscribe(job);
        for ms in 0..1_000 {
            hub.publish(job, progress(ms));
        }
        assert_eq!(events.try_recv(), Err(TryRecvError::Lagged(1_000 - WAITING as u64)));
    }

    #[test]
    fn data_is_the_plain_value() {
        let json = |event: &LiveEvent| serde_json::to_string(event).unwrap();
        assert_eq!(json(&state(JobState::Running)), r#"{"state":"running"}"#);
        assert_eq!(json(&progress(5)), r#"{"media_ms":5,"duration_ms":9000}"#);
        assert_eq!(json(&LiveEvent::Done {}), "{}");
        let segments = LiveEvent::Segments { segments: Arc::new([]), provisional: false };
        assert_eq!(json(&segments), r#"{"segments":[],"provisional":false}"#);
        assert_eq!(segments.name(), "segments");
    }
}
