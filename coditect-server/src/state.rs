//! The state shared by all requests.
//!
//! A server creates one [`App`] before its first connection and shares it by reference counting. It
//! holds components and settings, never data of a single request.

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use chrono::TimeDelta;
use coditect_auth::{
    AccessSettings, AuditRetention, Auth, Lifetimes, LogMailer, MasterKey, Peppers, Settings,
    entities, load_master_key,
};
use coditect_store::{
    Clock, Store,
    engine::{Database, Options},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, MailerKind, RegistrationMode},
    frontend::Frontend,
    http::budget::Budget,
    memories::Memories,
    place::MASTER_KEY_FILE,
    websocket::Sockets,
};

/// Variable with the master key, in hexadecimal or Base64; takes precedence over the file.
pub(crate) const MASTER_KEY_VARIABLE: &str = "CODITECT_MASTER_KEY";

/// Variable with the password-hashing keys.
const PEPPER_VARIABLE: &str = "CODITECT_PEPPER";

/// Variable by which tests set the clock of a debug build ahead: a duration such as `3650days`.
#[cfg(debug_assertions)]
const CLOCK_OFFSET_VARIABLE: &str = "CODITECT_TEST_CLOCK_OFFSET";

/// The state that every handler gets.
#[derive(Debug)]
pub struct App {
    /// Settings of the server.
    pub config: Config,
    /// Source of the time.
    pub clock: Clock,
    /// The store.
    pub store: Store,
    /// Identity and access.
    pub auth: Auth,
    /// Open WebSockets.
    pub(crate) sockets: Sockets,
    /// Files outside of the API.
    pub(crate) frontend: Arc<Frontend>,
    /// The budget of responses.
    pub(crate) output: Arc<Budget>,
    /// The budget of request bodies.
    pub(crate) requests: Arc<Budget>,
    /// Session memories that are being sent.
    pub(crate) memories: Memories,
    /// Wakes the background tasks.
    pub(crate) upkeep: BackgroundTasks,
    started_at: Instant,
    stopping: CancellationToken,
}

/// Wakes the background tasks after a deletion that left records to delete.
#[derive(Debug, Default)]
pub(crate) struct BackgroundTasks(Notify);

impl BackgroundTasks {
    /// Starts the completion of deletions without waiting for the next sweep.
    pub(crate) fn resume_deletions(&self) {
        self.0.notify_one();
    }

    /// Waits for the next call of [`resume_deletions`](Self::resume_deletions).
    pub(crate) async fn notified(&self) {
        self.0.notified().await;
    }
}

impl App {
    /// Opens the store, the keys and the identity service that `config` names.
    ///
    /// # Errors
    ///
    /// The store or its keys cannot be opened.
    pub(crate) async fn open(
        config: Config,
        frontend: Arc<Frontend>,
        (output, requests): (Arc<Budget>, Arc<Budget>),
        stopping: CancellationToken,
    ) -> Result<Self, coditect_auth::Error> {
        let clock = system_clock();
        let database = match (config.ephemeral, &config.place.cluster_file) {
            (true, None) => Database::memory()?,
            (true, Some(file)) => Database::temporary_in(file)?,
            (false, _) => {
                config.place.refuse_missing_store()?;
                config.place.database(&Options::default())?
            }
        };
        let store = entities(Store::options()).clock(clock.clone()).open(database).await?;
        let master_key = match env::var_os(MASTER_KEY_VARIABLE) {
            None if config.ephemeral => MasterKey::generate()?,
            _ => master_key(&config.place.data, &store).await?,
        };
        let settings = Settings::default()
            .access(AccessSettings::default().ttl(time_delta(config.access_token_ttl)))
            .lifetimes(Lifetimes::default().grace(time_delta(config.refresh_grace)))
            .mailer(match config.mailer {
                MailerKind::None => None,
                MailerKind::Log => Some(Arc::new(LogMailer)),
            })
            .registration(match config.registration {
                RegistrationMode::Open => coditect_auth::RegistrationMode::Open,
                RegistrationMode::Invited => coditect_auth::RegistrationMode::Invited,
                RegistrationMode::Closed => coditect_auth::RegistrationMode::Closed,
            })
            .peppers(peppers()?)
            .key_rotation(time_delta(config.key_rotation))
            .max_logins(config.max_logins)
            .audit_retention(AuditRetention::new(
                time_delta(config.audit_retention),
                config.max_audit_entries,
            ));
        let auth = Auth::open(store.clone(), master_key, clock.clone(), settings).await?;
        let sockets = Sockets::new(config.max_connections);
        Ok(Self {
            config,
            clock,
            store,
            auth,
            sockets,
            frontend,
            output,
            requests,
            memories: Memories::default(),
            upkeep: BackgroundTasks::default(),
            started_at: Instant::now(),
            stopping,
        })
    }

    /// Returns the version of the program.
    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Returns the name of the storage engine.
    pub fn engine(&self) -> &'static str {
        self.store.database().engine()
    }

    /// Returns the time since the start of the server.
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Returns whether the server accepts new work, which is until shutdown begins.
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled()
    }

    /// Returns the token that is cancelled when shutdown begins. Work that outlives a request stops
    /// on it.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}

/// Returns the system's clock. In a debug build, a test of the program sets it ahead by
/// [`CLOCK_OFFSET_VARIABLE`].
fn system_clock() -> Clock {
    #[cfg(debug_assertions)]
    if let Some(offset) = env::var_os(CLOCK_OFFSET_VARIABLE)
        && let Ok(offset) = humantime::parse_duration(&offset.to_string_lossy())
    {
        tracing::warn!(?offset, "the clock is set ahead for a test");
        return Clock::system_ahead_by(time_delta(offset));
    }
    Clock::system()
}

/// Returns the master key from the environment, otherwise from the data directory, where it is
/// created if the store is new.
pub(crate) async fn master_key(
    folder: &Path,
    store: &Store,
) -> Result<MasterKey, coditect_auth::Error> {
    if let Some(text) = env::var_os(MASTER_KEY_VARIABLE) {
        // Text that is not UTF-8 must fail as a key instead of being ignored.
        return Ok(MasterKey::parse(&text.to_string_lossy())?);
    }
    // With a cluster, no engine has created the directory.
    fs::create_dir_all(folder).map_err(|error| coditect_auth::Error::Internal(error.into()))?;
    load_master_key(&folder.join(MASTER_KEY_FILE), store).await
}

/// Returns the peppers of the environment.
fn peppers() -> Result<Peppers, coditect_auth::Error> {
    env::var_os(PEPPER_VARIABLE)
        .map_or(Ok(Peppers::default()), |text| Peppers::parse(&text.to_string_lossy()))
}

/// Converts the duration of a setting, which is at most ten years.
fn time_delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
