//! What Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::serve::model::Time;
use crate::serve::store::{Counts, DeliveryCounts};

/// Upper bounds of the histogram of answering times, in seconds.
const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counted since the start.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    /// Answering times of submissions: one count a bound, and one beyond.
    submit: [AtomicU64; BOUNDS.len() + 1],
    submit_micros: AtomicU64,
    /// Bytes of accepted uploads.
    pub uploaded: AtomicU64,
}

/// What is measured when it is asked for.
pub struct Gauges {
    pub counts: Counts,
    pub deliveries: DeliveryCounts,
    pub connections: usize,
    pub refused: usize,
    pub uploads: usize,
    pub watchers: usize,
    pub policy_error: bool,
}

impl Metrics {
    /// One answered request. `route` is the path's pattern, so that there are few.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let key = (method.to_string(), route.to_string(), status);
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        if (method, route) == ("POST", "/v1/jobs") {
            let at = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
            if let Some(count) = self.submit.get(at) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.submit_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// The text that Prometheus reads (version 0.0.4).
    pub fn text(&self, now: &Gauges) -> String {
        let mut out = String::new();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(&mut out, "veriscope_http_requests_total", "counter", "Requests answered.");
        for ((method, route, status), count) in requests {
            line(
                &mut out,
                &format!(
                    "veriscope_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"
                ),
                count as f64,
            );
        }
        let name = "veriscope_submit_seconds";
        head(&mut out, name, "histogram", "Time to answer a submission, its body included.");
        let mut sum = 0;
        for (at, count) in self.submit.iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or("+Inf".to_string(), f64::to_string);
            line(&mut out, &format!("{name}_bucket{{le=\"{bound}\"}}"), sum as f64);
        }
        let micros = self.submit_micros.load(Ordering::Relaxed);
        line(&mut out, &format!("{name}_sum"), micros as f64 / 1e6);
        line(&mut out, &format!("{name}_count"), sum as f64);

        let c = &now.counts;
        head(&mut out, "veriscope_jobs_waiting", "gauge", "Jobs that wait, by priority.");
        for (priority, n) in [("live", c.live), ("normal", c.normal), ("batch", c.batch)] {
            line(&mut out, &format!("veriscope_jobs_waiting{{priority=\"{priority}\"}}"), n as f64);
        }
        let ended = &c.ended;
        head(&mut out, "veriscope_jobs_ended_total", "counter", "Jobs that ended, by how.");
        for (how, n) in
            [("done", ended.done), ("failed", ended.failed), ("cancelled", ended.cancelled)]
        {
            line(&mut out, &format!("veriscope_jobs_ended_total{{state=\"{how}\"}}"), n as f64);
        }
        let webhooks = &now.deliveries;
        let name = "veriscope_deliveries_ended_total";
        head(&mut out, name, "counter", "Webhook deliveries that were taken or given up.");
        for (how, n) in [("delivered", webhooks.delivered), ("dead", webhooks.dead)] {
            line(&mut out, &format!("{name}{{state=\"{how}\"}}"), n as f64);
        }
        let age =
            |since: Option<Time>| since.map_or(0, |t| Time::now().0 - t.0).max(0) as f64 / 1e3;
        let uploaded = self.uploaded.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("veriscope_jobs_running", "gauge", "Jobs in work.", c.running as f64),
            ("veriscope_jobs_fetching", "gauge", "URLs to be fetched.", c.fetching as f64),
            ("veriscope_jobs_waiting_limit", "gauge", "Jobs that may wait.", c.max_queued as f64),
            (
                "veriscope_oldest_waiting_seconds",
                "gauge",
                "Age of the job that waits longest.",
                age(c.oldest),
            ),
            (
                "veriscope_jobs_reused_total",
                "counter",
                "Jobs answered with an earlier report.",
                ended.reused as f64,
            ),
            (
                "veriscope_deliveries_pending",
                "gauge",
                "Webhook deliveries that are to be made.",
                webhooks.pending as f64,
            ),
            (
                "veriscope_oldest_delivery_seconds",
                "gauge",
                "Age of the oldest of them.",
                age(webhooks.oldest),
            ),
            ("veriscope_connections", "gauge", "Open connections.", now.connections as f64),
            (
                "veriscope_connections_refused_total",
                "counter",
                "Connections beyond the limit.",
                now.refused as f64,
            ),
            ("veriscope_uploads", "gauge", "Uploads being received.", now.uploads as f64),
            (
                "veriscope_uploaded_bytes_total",
                "counter",
                "Bytes of uploads that were accepted.",
                uploaded as f64,
            ),
            ("veriscope_watchers", "gauge", "Streams of events.", now.watchers as f64),
            (
                "veriscope_policy_error",
                "gauge",
                "1 where the policy's file cannot be used and an earlier one holds.",
                f64::from(u8::from(now.policy_error)),
            ),
        ] {
            head(&mut out, name, kind, help);
            line(&mut out, name, value);
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: f64) {
    let _ = writeln!(out, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_adds_up() {
        let metrics = Metrics::default();
        for ms in [1, 3, 40, 60_000] {
            metrics.answered("POST", "/v1/jobs", 202, Duration::from_millis(ms));
        }
        metrics.answered("GET", "/v1/jobs", 200, Duration::from_millis(1));
        let gauges = Gauges {
            counts: Counts::default(),
            deliveries: DeliveryCounts { delivered: 5, dead: 2, ..DeliveryCounts::default() },
            connections: 3,
            refused: 0,
            uploads: 1,
            watchers: 0,
            policy_error: true,
        };
        let text = metrics.text(&gauges);
        for said in [
            "veriscope_submit_seconds_bucket{le=\"0.001\"} 1\n",
            "veriscope_submit_seconds_bucket{le=\"0.005\"} 2\n",
            "veriscope_submit_seconds_bucket{le=\"30\"} 3\n",
            "veriscope_submit_seconds_bucket{le=\"+Inf\"} 4\n",
            "veriscope_submit_seconds_count 4\n",
            "veriscope_submit_seconds_sum 60.044\n",
            "requests_total{method=\"GET\",route=\"/v1/jobs\",status=\"200\"} 1\n",
            "veriscope_connections 3\n",
            "veriscope_policy_error 1\n",
            "veriscope_deliveries_ended_total{state=\"delivered\"} 5\n",
            "veriscope_deliveries_ended_total{state=\"dead\"} 2\n",
            "veriscope_oldest_delivery_seconds 0\n",
        ] {
            assert!(text.contains(said), "{said} in\n{text}");
        }
    }
}
