//! Prometheus metrics at `GET /metrics`: metrics of the store, listed in
//! [`coditect_store::telemetry`], and of HTTP.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `coditect_http_requests_total` | `route`, `method`, `status` | answered requests, by route template and status class (`2xx`) |
//! | `coditect_http_request_duration_seconds` | the same | time from the end of the header block to the head of the response |
//! | `coditect_http_requests_in_flight` | | requests without a response yet |
//! | `coditect_http_connections_total` | | accepted connections |
//! | `coditect_http_connections` | | open connections |
//! | `coditect_http_received_bytes_total`, `…_sent_bytes_total` | | bytes of HTTP and WebSockets, inside TLS |
//! | `coditect_build_info` | `version` | 1 |
//! | `process_start_time_seconds` | | start of the recorder, in seconds since 1970 |
//!
//! Label values are constants of the program; no label holds data from a client. A process has one
//! recorder. Metrics are served to clients with a known address in a network of `--metrics-allow`;
//! a client behind a proxy that does not name it has no known address. With
//! `--metrics-listen` they are served by a listener of their own only.

use std::{sync::OnceLock, time::Duration};

use coditect_store::Clock;
use hyper::{Method, StatusCode};
use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

const REQUESTS: &str = "coditect_http_requests_total";
const REQUEST_DURATION: &str = "coditect_http_request_duration_seconds";
const IN_FLIGHT: &str = "coditect_http_requests_in_flight";
const CONNECTIONS: &str = "coditect_http_connections_total";
const OPEN_CONNECTIONS: &str = "coditect_http_connections";
const RECEIVED_BYTES: &str = "coditect_http_received_bytes_total";
const SENT_BYTES: &str = "coditect_http_sent_bytes_total";
const BUILD: &str = "coditect_build_info";
const STARTED_AT: &str = "process_start_time_seconds";

/// Bucket bounds of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bucket bounds of counts.
const COUNTS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 1000.0];

/// Interval at which recorded values are moved into their buckets without a scrape; until then they
/// take memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder of the process.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// A failure to install the recorder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The recorder is misconfigured.
    #[error("cannot set up the metrics recorder")]
    Build(#[from] BuildError),
    /// The process has another recorder, which gets all metrics.
    #[error("another metrics recorder is already installed")]
    Taken,
}

/// Starts recording the metrics of the process for `GET /metrics`. Further calls have no effect.
///
/// # Errors
///
/// [`enum@Error`].
pub fn start() -> Result<(), Error> {
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets(&COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| Error::Taken)?;
    let _first = RECORDER.set(handle);
    coditect_store::telemetry::describe();
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds fit in it for ages")]
    gauge!(STARTED_AT).set(Clock::system().now().timestamp_millis() as f64 / 1000.0);
    Ok(())
}

fn describe() {
    describe_counter!(REQUESTS, Unit::Count, "Requests, by route, method and class of the status");
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "Time from the request to the response");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests in flight");
    describe_counter!(CONNECTIONS, Unit::Count, "Accepted connections");
    describe_gauge!(OPEN_CONNECTIONS, Unit::Count, "Open connections");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "Bytes from clients, within TLS");
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes to clients, within TLS");
    describe_gauge!(BUILD, Unit::Count, "Version of the program");
    describe_gauge!(STARTED_AT, Unit::Seconds, "Start time, in seconds since 1970");
}

/// Moves recorded values into their buckets periodically. Never returns.
pub(crate) async fn keep() {
    let mut due = interval(UPKEEP_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Some(recorder) = RECORDER.get() {
            recorder.run_upkeep();
        }
    }
}

/// Returns the metrics in Prometheus's text format; `None` without a recorder.
pub(crate) fn render() -> Option<String> {
    RECORDER.get().map(PrometheusHandle::render)
}

/// Records an answered request.
pub(crate) fn answered(route: &'static str, method: &Method, status: StatusCode, took: Duration) {
    let (method, status) = (known(method), class(status));
    counter!(REQUESTS, "route" => route, "method" => method, "status" => status).increment(1);
    histogram!(REQUEST_DURATION, "route" => route, "method" => method, "status" => status)
        .record(took);
}

/// Counts a request as in flight until the result is dropped.
pub(crate) fn in_flight() -> impl Drop {
    Present::count(IN_FLIGHT)
}

/// Counts a connection as open until the result is dropped.
pub(crate) fn connected() -> impl Drop {
    counter!(CONNECTIONS).increment(1);
    Present::count(OPEN_CONNECTIONS)
}

/// Byte counters of one connection.
#[derive(Clone)]
pub(crate) struct Traffic {
    received_bytes: Counter,
    sent_bytes: Counter,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self { received_bytes: counter!(RECEIVED_BYTES), sent_bytes: counter!(SENT_BYTES) }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.increment(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.increment(bytes as u64);
    }
}

/// Increments a gauge while it lives.
struct Present(&'static str);

impl Present {
    fn count(name: &'static str) -> Self {
        gauge!(name).increment(1);
        Self(name)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1);
    }
}

/// Returns the label of a method.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_constants_whatever_the_client_sends() {
        let made_up = Method::from_bytes(b"SECRET-TOKEN").unwrap();
        assert_eq!(known(&made_up), "other");
        assert_eq!(known(&Method::PATCH), "PATCH");
        assert_eq!(class(StatusCode::SWITCHING_PROTOCOLS), "1xx");
        assert_eq!(class(StatusCode::TOO_MANY_REQUESTS), "4xx");
        assert_eq!(class(StatusCode::from_u16(999).unwrap()), "5xx");
    }
}
