//! What all requests share.
//!
//! There is one [`App`] a server, made before the first connection and shared by reference
//! counting. It holds components and settings, never anything that belongs to one request.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The state that every handler is given.
#[derive(Debug)]
pub struct App {
    /// The settings the server was started with.
    pub config: Config,
    started_at: Instant,
    stopping: CancellationToken,
}

impl App {
    /// Over `config`, ready from the start.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            started_at: Instant::now(),
            stopping: CancellationToken::new(),
        }
    }

    /// The version of this program.
    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// The name of the storage engine.
    pub fn engine(&self) -> &'static str {
        "embedded"
    }

    /// How long the server has been up.
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Whether new work is welcome; it is until the server begins to stop.
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled()
    }

    /// Cancelled when the server begins to stop, by the server and nobody else: what lives longer
    /// than a request ends by it.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}
