//! One connection, from accept to close.
//!
//! The deadlines of HTTP/1.1 are enforced by its [`Http1Stream`], deadlines of HTTP/2 here, with
//! pings for silent clients. Shutdown lets running requests complete. A failure ends only this
//! connection and is logged at debug level.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Body, HEADER_BLOCK_LIMIT_BYTES, HEADER_COUNT_LIMIT,
    activity::{Activity, TrackedBody},
    request::Accounts,
    sniff::{Protocol, Rewind, sniff},
    stream::Stream,
    tls::Tls,
    wire::{Deadlines, Http1Stream},
};

/// Maximum number of concurrent requests per HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Interval of HTTP/2 pings, and time for their acknowledgement.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for an HTTP/2 client to read a final GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum size of hyper's read buffer for HTTP/1.1.
const READ_BUFFER_LIMIT_BYTES: usize = 64 * 1024;

/// Serves a connection until either side closes it, or `stop` is cancelled and no request runs.
pub(crate) async fn serve<R: Respond>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Tls>,
    service: Arc<R>,
    deadlines: Deadlines,
    stop: CancellationToken,
) {
    let connected_at = Instant::now();
    let due_at = connected_at + deadlines.header_timeout;
    let peer = Peer { address, is_secure: tls.is_some() };
    let begun = async {
        let stream = match tls {
            Some(tls) => Stream::secure(tls.accept(stream, due_at).await?),
            None => Stream::plain(stream),
        };
        sniff(stream, due_at).await
    };
    let sniffed = tokio::select! {
        sniffed = begun => sniffed,
        () = stop.cancelled() => return,
    };
    let Ok(Some((protocol, io))) = sniffed else {
        return;
    };
    let activity = Activity::new(connected_at);
    let answer = {
        let (activity, accounts) = (activity.clone(), service.connection());
        service_fn(move |request| {
            let (service, accounts) = (Arc::clone(&service), accounts.clone());
            answer(service, activity.clone(), accounts, request, peer)
        })
    };
    let ended = match protocol {
        Protocol::Http1 => {
            let wire = Http1Stream::new(io, activity, deadlines, due_at);
            serve_http1(wire, answer, stop).await
        }
        Protocol::Http2 => serve_http2(io, answer, activity, deadlines, stop).await,
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended early");
    }
}

async fn answer<R: Respond>(
    service: Arc<R>,
    activity: Activity,
    accounts: Accounts,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<Response<TrackedBody>, Infallible> {
    let exchange = activity.begin();
    let response = service.answer(request, peer, accounts).await;
    let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    Ok(response.map(|body| exchange.answer(body, upgrades)))
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether the connection uses TLS.
    pub(crate) is_secure: bool,
}

/// Responds to the requests of all connections.
pub(crate) trait Respond: Send + Sync + 'static {
    /// Returns the accounts of a new connection.
    fn connection(&self) -> Accounts;

    /// Responds to a request of `peer`. Its body and its response are charged to `connection`.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        connection: Accounts,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A request handler as hyper expects it, for one connection.
trait Answering:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response<TrackedBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + 'static
{
}

impl<S> Answering for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<TrackedBody>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + 'static
{
}

async fn serve_http1(
    wire: Http1Stream,
    answer: impl Answering,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let connection = http1::Builder::new()
        .half_close(false)
        .header_read_timeout(None)
        .max_headers(HEADER_COUNT_LIMIT)
        .max_header_size(HEADER_BLOCK_LIMIT_BYTES)
        .max_buf_size(READ_BUFFER_LIMIT_BYTES)
        .serve_connection(TokioIo::new(wire), answer)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_http2(
    io: Rewind,
    answer: impl Answering,
    activity: Activity,
    deadlines: Deadlines,
    stop: CancellationToken,
) -> hyper::Result<()> {
    // Twice the limit, so that the service refuses a larger header block with a response body;
    // hyper refuses blocks above this with the status only.
    let header_list_limit_bytes =
        2 * u32::try_from(HEADER_BLOCK_LIMIT_BYTES).unwrap_or(u32::MAX / 2);
    let hopeless = io.hopeless().clone();
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(header_list_limit_bytes)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), answer);
    let mut connection = pin!(connection);
    let Deadlines { header_timeout, idle_timeout, stall_timeout } = deadlines;
    let expiry = || activity.expires_at(header_timeout, idle_timeout, stall_timeout);
    // A change of phase may bring the deadline forward during this sleep.
    let max_sleep = header_timeout.min(idle_timeout).min(stall_timeout);
    let mut stopping = false;
    loop {
        let wake_at = expiry().min(Instant::now() + max_sleep);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(wake_at) => {
                if Instant::now() >= expiry() {
                    connection.as_mut().graceful_shutdown();
                    let ended = timeout(GOAWAY_TIMEOUT, connection.as_mut()).await;
                    return ended.unwrap_or_else(|_elapsed| {
                        hopeless.give_up();
                        Ok(())
                    });
                }
            }
        }
    }
}
