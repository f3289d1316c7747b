//! What the program tells of itself to Prometheus, at `GET /metrics`: the store's metrics, which
//! [`coditect_store::telemetry`] lists, and those of HTTP.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `coditect_http_requests_total` | `route`, `method`, `status` | requests that were answered, by the route's template and the class of the status (`2xx`) |
//! | `coditect_http_request_duration_seconds` | the same | from the header block's end to the answer's head |
//! | `coditect_http_requests_in_flight` | | requests that have no answer yet |
//! | `coditect_http_connections_total` | | connections that were accepted |
//! | `coditect_http_connections` | | connections that are open |
//! | `coditect_http_received_bytes_total`, `…_sent_bytes_total` | | bytes of HTTP and of sockets, within TLS where that is spoken |
//! | `coditect_build_info` | `version` | 1 |
//! | `process_start_time_seconds` | | when the program began to tell, since 1970 |
//!
//! A label is one of a few words that the program knows; nothing that a client sent is in any. There is
//! one recorder for a process, as there is one process to tell of. It is shown to clients whose address is
//! known and in one of the networks of `--metrics-from`; a client behind a proxy that does not name it
//! has no known address.

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

/// The bounds of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The bounds of what is counted.
const COUNTS: [f64; 10] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 1000.0];

/// How often what was recorded is put into its buckets if nobody asks: until then it takes memory.
const KEPT_EVERY: Duration = Duration::from_secs(5);

/// The process's one recorder.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Why nothing is recorded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The recorder is wrong in itself.
    #[error("the metrics cannot be set up")]
    Build(#[from] BuildError),
    /// The process has another recorder, which gets all metrics.
    #[error("the process has a recorder of metrics already")]
    Taken,
}

/// Has the process record its metrics from here on, for `GET /metrics`. A second call changes nothing.
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
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "Time from the request to the answer");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests that have no answer yet");
    describe_counter!(CONNECTIONS, Unit::Count, "Connections that were accepted");
    describe_gauge!(OPEN_CONNECTIONS, Unit::Count, "Connections that are open");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "Bytes from clients, within TLS");
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes to clients, within TLS");
    describe_gauge!(BUILD, Unit::Count, "What runs here");
    describe_gauge!(STARTED_AT, Unit::Seconds, "When it was started, since 1970");
}

/// Keeps what was recorded small, for ever.
pub(crate) async fn keep() {
    let mut due = interval(KEPT_EVERY);
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

/// A request was answered.
pub(crate) fn answered(route: &'static str, method: &Method, status: StatusCode, took: Duration) {
    let (method, status) = (known(method), class(status));
    counter!(REQUESTS, "route" => route, "method" => method, "status" => status).increment(1);
    histogram!(REQUEST_DURATION, "route" => route, "method" => method, "status" => status)
        .record(took);
}

/// Counts a request as one without an answer until dropped.
pub(crate) fn in_flight() -> impl Drop {
    Present::count(IN_FLIGHT)
}

/// Counts a connection as an open one until dropped.
pub(crate) fn connected() -> impl Drop {
    counter!(CONNECTIONS).increment(1);
    Present::count(OPEN_CONNECTIONS)
}

/// What one connection adds to the bytes of all.
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

/// One more in a gauge while it lives.
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

/// A method by a name of the program's own.
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
    fn a_label_is_one_of_a_few_words_whatever_a_client_sends() {
        let made_up = Method::from_bytes(b"SECRET-TOKEN").unwrap();
        assert_eq!(known(&made_up), "other");
        assert_eq!(known(&Method::PATCH), "PATCH");
        assert_eq!(class(StatusCode::SWITCHING_PROTOCOLS), "1xx");
        assert_eq!(class(StatusCode::TOO_MANY_REQUESTS), "4xx");
        assert_eq!(class(StatusCode::from_u16(999).unwrap()), "5xx");
    }
}
