//! The server: a listening socket, its connections, and their orderly shutdown.
//!
//! The number of connections is limited; further ones wait in the listen queue. A failure of a
//! connection does not affect others, and exhausted file descriptors are waited for. Shutdown
//! steps: not ready, stop accepting, let running requests complete within a time limit, close the
//! rest.
//!
//! The public futures are boxed, so that the code of the server is generated in this crate once,
//! and not again in each program and test that polls them.

mod background;
mod descriptors;
mod service;

use std::{future, io, net::SocketAddr, sync::Arc, time::Duration};

use coditect_store::{ErrorKind, RunError as _};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::service::Service;
use crate::{
    admin::socket::AdminSocket,
    api::router::Routes,
    config::Config,
    frontend::{self, Frontend},
    http::{
        BodyLimits,
        budget::{Budget, Purpose},
        connection,
        tls::{self, Tls},
        wire::Deadlines,
    },
    place::StoreLocation,
    state::App,
    telemetry,
};

/// Maximum number of connections to the listener for metrics.
const MAX_METRICS_CONNECTIONS: usize = 16;

/// Pauses after failures to accept, from the first to the longest.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Time to wait for a cluster before serving without it.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(2);

/// A failure to start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// Requested address.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
    /// The limit on open files is too low.
    #[error("limit on open files is too low")]
    Descriptors(#[source] io::Error),
    /// The store or its keys cannot be opened.
    #[error("cannot open the store in {place}")]
    Open {
        /// Location of the store.
        place: Box<StoreLocation>,
        /// Cause.
        source: Box<coditect_auth::Error>,
    },
    /// The directory of `--frontend` cannot be used.
    #[error(transparent)]
    Frontend(#[from] frontend::Error),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Two routes conflict.
    #[error("conflicting routes")]
    Routes(#[from] matchit::InsertError),
}

/// A server that listens but does not respond yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    frontend: Arc<Frontend>,
    service: Arc<Service>,
    deadlines: Deadlines,
    tls: Option<Tls>,
    metrics: Option<Metrics>,
    stopping: CancellationToken,
    /// The admin socket, if there is one.
    control: Option<AdminSocket>,
}

/// The listener for metrics.
struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
}

impl Metrics {
    /// Listens at `address`. Clients are known by the address of their connection: no proxy is
    /// trusted.
    async fn bind(address: SocketAddr, config: &Config, limits: BodyLimits) -> Result<Self, Error> {
        let (listener, address) = listen(address).await?;
        let config = Config { trusted_proxy: Vec::new(), ..config.clone() };
        let routes = Routes::scraped()?;
        let service = Arc::new(Service::new(config.clone(), routes, limits, budgets(&config)));
        Ok(Self { listener, address, service })
    }
}

impl Server {
    /// Listens as configured, with all routes. Connections wait until [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The address is in use or not local, or the store, the certificate or the frontend cannot be
    /// opened.
    pub fn bind(config: Config) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async { Self::bind_with(config, Routes::all()?).await })
    }

    /// Like [`bind`](Self::bind) with other routes, for tests and for programs with their own.
    ///
    /// # Errors
    ///
    /// Same as [`bind`](Self::bind).
    pub fn bind_with(config: Config, routes: Routes) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(Self::listening(config, routes))
    }

    async fn listening(mut config: Config, routes: Routes) -> Result<Self, Error> {
        let reserved = descriptors::reserve(config.max_connections);
        config.max_connections = reserved.map_err(Error::Descriptors)?;
        let tls = Tls::open(config.tls_cert.as_deref(), config.tls_key.as_deref())?;
        let (listener, address) = listen(config.listen).await?;
        let deadlines = Deadlines {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            stall_timeout: config.body_timeout,
        };
        let limits =
            BodyLimits { json_limit_bytes: config.body_limit, stall_timeout: config.body_timeout };
        let frontend = Arc::new(Frontend::open(config.frontend.as_deref())?);
        let metrics = match config.metrics_listen {
            Some(address) => Some(Metrics::bind(address, &config, limits).await?),
            None => None,
        };
        let service = Arc::new(Service::new(config.clone(), routes, limits, budgets(&config)));
        let mut server = Self {
            listener,
            address,
            config,
            frontend,
            service,
            deadlines,
            tls,
            metrics,
            stopping: CancellationToken::new(),
            control: None,
        };
        server.open_at_once().await?;
        Ok(server)
    }

    /// Opens the store. A cluster that does not respond now is retried later.
    async fn open_at_once(&mut self) -> Result<(), Error> {
        let opening = self.open();
        let opened = if self.config.place.cluster_file.is_some() {
            let Ok(opened) = timeout(CLUSTER_TIMEOUT, opening).await else { return Ok(()) };
            opened
        } else {
            opening.await
        };
        match opened {
            Ok(app) => self.begin(app),
            Err(error) if is_passing(&error) && self.config.place.cluster_file.is_some() => {
                return Ok(());
            }
            Err(source) => {
                let place = Box::new(self.config.place.clone());
                return Err(Error::Open { place, source: Box::new(source) });
            }
        };
        if !self.config.ephemeral {
            self.control = self.config.place.folder().and_then(control);
        }
        Ok(())
    }

    async fn open(&self) -> Result<Arc<App>, coditect_auth::Error> {
        let (config, frontend) = (self.config.clone(), Arc::clone(&self.frontend));
        let (output, requests) = self.service.budgets();
        let budgets = (Arc::clone(output), Arc::clone(requests));
        App::open(config, frontend, budgets, self.stopping.clone()).await.map(Arc::new)
    }

    /// Has requests answered by `app`.
    fn begin(&self, app: Arc<App>) -> &Arc<App> {
        if let Some(metrics) = &self.metrics {
            metrics.service.begin(Arc::clone(&app));
        }
        self.service.begin(app)
    }

    /// Returns the [`App`] once the store is open.
    async fn opened(&self) -> Arc<App> {
        if let Some(app) = self.service.app() {
            return Arc::clone(app);
        }
        tracing::warn!(place = %self.config.place, "store unavailable: the server is not ready");
        let mut logged = String::new();
        loop {
            match self.open().await {
                Ok(app) => {
                    tracing::info!("store opened: the server is ready");
                    return Arc::clone(self.begin(app));
                }
                Err(error) => {
                    if error.to_string() != logged {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot open the store"
                        );
                    }
                    logged = error.to_string();
                }
            }
            sleep(MAX_PAUSE).await;
        }
    }

    /// Returns the listening address, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the listener for metrics, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|metrics| metrics.address)
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` resolves, and then until running requests complete, at most for the
    /// configured time. On return all connections and the store are closed.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
        self.run_boxed(Box::pin(stop))
    }

    fn run_boxed(self, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        Box::pin(self.run_until(stop))
    }

    async fn run_until(mut self, stop: BoxFuture<'static, ()>) {
        let connections = TaskTracker::new();
        let severing = CancellationToken::new();
        if let Some(tls) = self.tls.clone() {
            let stopping = self.stopping.clone();
            let keeping = tls.keep();
            connections.spawn(async move { stopping.run_until_cancelled(keeping).await });
        }
        let door = self.control.take();
        let mut working = None;
        let work = async {
            let app = self.opened().await;
            if let Some(door) = door {
                connections.spawn(door.serve(Arc::clone(&app)));
            }
            working = Some(tokio::spawn(background::run(app)));
            future::pending::<()>().await;
        };
        tokio::select! {
            () = stop => {}
            () = work => {}
            () = self.accept_all(&connections, &severing) => {}
            () = self.accept_scrapers(&connections, &severing) => {}
        }
        self.stopping.cancel();
        drop(self.listener);
        drop(self.metrics);
        connections.close();
        self.service.tasks().close();
        let app = self.service.app();
        let finished = async {
            connections.wait().await;
            self.service.tasks().wait().await;
            if let Some(app) = app {
                app.sockets.tasks().close();
                app.sockets.tasks().wait().await;
            }
        };
        if timeout(self.config.shutdown_timeout, finished).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                requests = self.service.tasks().len(),
                "shutdown timeout: closing the remaining connections"
            );
        }
        severing.cancel();
        connections.wait().await;
        if let Some(working) = working {
            // It ended normally, or by a panic that was logged.
            let _ended = working.await;
        }
        if let Some(app) = app {
            app.store.database().close().await;
        }
    }

    async fn accept_all(&self, connections: &TaskTracker, severing: &CancellationToken) {
        let service = (&self.service, self.tls.as_ref(), self.config.max_connections);
        self.accept_from(&self.listener, service, connections, severing).await;
    }

    /// Accepts connections to the listener for metrics; never returns if there is none.
    async fn accept_scrapers(&self, connections: &TaskTracker, severing: &CancellationToken) {
        let Some(Metrics { listener, service, .. }) = &self.metrics else {
            return future::pending().await;
        };
        let service = (service, None, MAX_METRICS_CONNECTIONS);
        self.accept_from(listener, service, connections, severing).await;
    }

    async fn accept_from(
        &self,
        listener: &TcpListener,
        (service, tls, max_connections): (&Arc<Service>, Option<&Tls>, usize),
        connections: &TaskTracker,
        severing: &CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(max_connections));
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (stream, peer) = accept(listener).await;
            let serving = connection::serve(
                stream,
                peer,
                tls.cloned(),
                Arc::clone(service),
                self.deadlines,
                self.stopping.clone(),
            );
            let severed = severing.clone();
            connections.spawn(hold(permit, async move {
                tokio::select! {
                    () = serving => {}
                    () = severed.cancelled() => {}
                }
            }));
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening.await.map_err(|source| Error::Listen { address, source })
}

/// Returns the budgets of responses and of request bodies.
fn budgets(config: &Config) -> (Arc<Budget>, Arc<Budget>) {
    let (unread, least) = (config.max_unread_responses, config.least_unread_responses());
    let output = Budget::new(Purpose::Responses, unread, least);
    let (bodies, least) = (config.max_request_bodies, config.least_request_bodies());
    let requests = Budget::new(Purpose::Requests, bodies, least);
    (Arc::new(output), Arc::new(requests))
}

/// Returns whether the store may become available later.
fn is_passing(error: &coditect_auth::Error) -> bool {
    let kind = error.store_error().map(coditect_store::Error::kind);
    matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::MaybeCommitted))
}

/// Binds the admin socket in the data directory. The server also runs without it.
fn control(data: &std::path::Path) -> Option<AdminSocket> {
    let bound = AdminSocket::bind(data);
    if let Err(error) = &bound {
        tracing::warn!(%error, "cannot open the admin socket: \
            subcommands cannot reach the running server");
    }
    bound.ok()
}

/// Runs `connection` while holding its permit and counting it.
async fn hold(permit: OwnedSemaphorePermit, connection: impl Future<Output = ()>) {
    let connected = telemetry::connected();
    connection.await;
    drop(connected);
    drop(permit);
}

/// Returns the next connection. Retries failures: at once if the client caused them, after a
/// growing pause if the system lacks resources.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = MIN_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small responses should not be delayed by Nagle's algorithm. On an error they are
                // only slower.
                let _slower = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
