//! The server: a socket, the connections it has accepted, and their orderly end.
//!
//! Connections are bounded; above the bound new ones wait in the system's queue. A connection's
//! failure never reaches the others, and running out of file descriptors is waited out. Stopping
//! is: no longer ready, no longer accepting, let run what runs for a bounded time, close the rest.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    BodyLimits, connection,
    service::Service,
    tls::{self, Tls},
    wire::Deadlines,
};
#[cfg(unix)]
use crate::control::Control;
use crate::{
    app::App,
    config::Config,
    frontend::{self, Frontend},
    routes::Routes,
    telemetry, upkeep,
};

/// The pauses after failures to accept, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a server doesn't start.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store or its keys cannot be used.
    #[error("cannot start on the data in {}", .data.display())]
    Open {
        /// The data folder.
        data: PathBuf,
        /// What is wrong with it.
        source: Box<coditect_auth::Error>,
    },
    /// The folder that `--frontend` names is none.
    #[error(transparent)]
    Frontend(#[from] frontend::Error),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Two routes contradict each other.
    #[error("the route table contradicts itself: {0}")]
    Routes(#[from] matchit::InsertError),
}

/// A server that has its socket and isn't answering yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    service: Arc<Service>,
    deadlines: Deadlines,
    tls: Option<Tls>,
    /// The operator's door, where there is one.
    #[cfg(unix)]
    control: Option<Control>,
}

impl Server {
    /// Listens as `config` says, with all the routes there are. Connections wait until
    /// [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The address is taken, or isn't this machine's.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        Self::bind_with(config, Routes::all()?).await
    }

    /// The same with other routes: for tests, and for programs that have their own.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn bind_with(config: Config, routes: Routes) -> Result<Self, Error> {
        let tls = Tls::open(config.tls_cert.as_deref(), config.tls_key.as_deref())?;
        let address = config.listen;
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) =
            listening.await.map_err(|source| Error::Listen { address, source })?;
        let deadlines = Deadlines {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            stall_timeout: config.body_timeout,
        };
        let limits =
            BodyLimits { json_limit_bytes: config.body_limit, stall_timeout: config.body_timeout };
        let frontend = Frontend::open(config.frontend.as_deref())?;
        let data = config.data.clone();
        let opened = App::open(config, frontend).await;
        let app = opened.map_err(|source| Error::Open { data, source: Box::new(source) })?;
        #[cfg(unix)]
        let control = if app.config.ephemeral { None } else { control(&app.config.data) };
        let app = Arc::new(app);
        let service = Arc::new(Service::new(Arc::clone(&app), routes, limits));
        Ok(Self {
            listener,
            address,
            app,
            service,
            deadlines,
            tls,
            #[cfg(unix)]
            control,
        })
    }

    /// Where it listens; the port is the real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL says it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` resolves, and then for as long as running requests need, at most the
    /// configured time. When this returns, no connection is left and the store is closed.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let connections = TaskTracker::new();
        let severing = CancellationToken::new();
        let working = tokio::spawn(upkeep::run(Arc::clone(&self.app)));
        if let Some(tls) = self.tls.clone() {
            let stopping = self.app.stopping().clone();
            let keeping = tls.keep();
            connections.spawn(async move { stopping.run_until_cancelled(keeping).await });
        }
        #[cfg(unix)]
        if let Some(control) = self.control.take() {
            connections.spawn(control.serve(Arc::clone(&self.app)));
        }
        tokio::select! {
            () = stop => {}
            () = self.accept_all(&connections, &severing) => {}
        }
        self.app.stopping().cancel();
        drop(self.listener);
        connections.close();
        self.service.tasks().close();
        self.app.sockets.tasks().close();
        let finished = async {
            connections.wait().await;
            self.service.tasks().wait().await;
            self.app.sockets.tasks().wait().await;
        };
        if timeout(self.app.config.shutdown_timeout, finished).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                requests = self.service.tasks().len(),
                "stopping although not all is done"
            );
        }
        severing.cancel();
        connections.wait().await;
        // It has ended by itself, or by a panic that the log has told of.
        let _ended = working.await;
        self.app.store.database().close().await;
    }

    async fn accept_all(&self, connections: &TaskTracker, severing: &CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.app.config.max_connections));
        // The semaphore is never closed; were it, there would be nothing more to accept.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (stream, peer) = accept(&self.listener).await;
            let serving = connection::serve(
                stream,
                peer,
                self.tls.clone(),
                Arc::clone(&self.service),
                self.deadlines,
                self.app.stopping().clone(),
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

/// The operator's door in the data folder; a server without it serves all the same.
#[cfg(unix)]
fn control(data: &std::path::Path) -> Option<Control> {
    let bound = Control::bind(data);
    if let Err(error) = &bound {
        tracing::warn!(%error, "no exports and backups while the server runs");
    }
    bound.ok()
}

/// Runs `connection`, and holds its permit and counts it meanwhile.
async fn hold(permit: OwnedSemaphorePermit, connection: impl Future<Output = ()>) {
    let connected = telemetry::connected();
    connection.await;
    drop(connected);
    drop(permit);
}

/// The next connection. What fails is tried again: at once where it was the client's failure,
/// after a growing pause where the system has nothing left to give.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers shouldn't wait for company. Without that they are only slower.
                let _slower = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
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
