//! What all requests share.
//!
//! There is one [`App`] a server, made before the first connection and shared by reference
//! counting. It holds components and settings, never anything that belongs to one request.

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use chrono::TimeDelta;
use coditect_auth::{
    AccessSettings, Auth, Lifetimes, LogMailer, MasterKey, Peppers, Settings, entities,
    load_master_key,
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
    http::output::Output,
    memories::Memories,
    websocket::Sockets,
};

/// The variable that holds the master key, in hexadecimal or Base64, where it is not in a file.
pub(crate) const MASTER_KEY_VARIABLE: &str = "CODITECT_MASTER_KEY";

/// The variable that holds the keys that go into the hashes of passwords.
const PEPPER_VARIABLE: &str = "CODITECT_PEPPER";

/// The file in the data folder that holds it otherwise; made at the first start.
pub(crate) const MASTER_KEY_FILE: &str = "master.key";

/// The state that every handler is given.
#[derive(Debug)]
pub struct App {
    /// The settings the server was started with.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The records.
    pub store: Store,
    /// Who somebody is.
    pub auth: Auth,
    /// The sockets that are open.
    pub(crate) sockets: Sockets,
    /// The files outside of the API.
    pub(crate) frontend: Arc<Frontend>,
    /// The limits on what responses hold.
    pub(crate) output: Arc<Output>,
    /// The memories of sessions that are being sent.
    pub(crate) memories: Memories,
    /// Where it is told of work for it.
    pub(crate) upkeep: Upkeep,
    started_at: Instant,
    stopping: CancellationToken,
}

/// Where handlers say that something was deleted of which more is to go.
#[derive(Debug, Default)]
pub(crate) struct Upkeep(Notify);

impl Upkeep {
    /// Has deletions completed soon, rather than at the next sweep.
    pub(crate) fn complete_deletions(&self) {
        self.0.notify_one();
    }

    /// Waits for the next call of [`complete_deletions`](Self::complete_deletions).
    pub(crate) async fn notified(&self) {
        self.0.notified().await;
    }
}

impl App {
    /// Opens what `config` names; ready from the start.
    ///
    /// # Errors
    ///
    /// The store or its keys cannot be used.
    pub(crate) async fn open(
        config: Config,
        frontend: Arc<Frontend>,
        output: Arc<Output>,
        stopping: CancellationToken,
    ) -> Result<Self, coditect_auth::Error> {
        let clock = Clock::system();
        let database = match (config.ephemeral, &config.place.cluster_file) {
            (true, None) => Database::memory()?,
            (true, Some(file)) => Database::temporary_in(file)?,
            (false, _) => config.place.database(&Options::default())?,
        };
        let store = entities(Store::options()).clock(clock.clone()).open(database).await?;
        let master_key = match env::var_os(MASTER_KEY_VARIABLE) {
            None if config.ephemeral => MasterKey::generate()?,
            _ => master_key(&config.place.data, &store).await?,
        };
        let settings = Settings::default()
            .access(AccessSettings::default().ttl(time_delta(config.access_ttl)))
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
            .max_logins(config.max_logins);
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
            memories: Memories::default(),
            upkeep: Upkeep::default(),
            started_at: Instant::now(),
            stopping,
        })
    }

    /// The version of this program.
    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// The name of the storage engine.
    pub fn engine(&self) -> &'static str {
        self.store.database().engine()
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

/// The master key: of the environment, or of the data folder, which gets one if its store is new.
pub(crate) async fn master_key(
    folder: &Path,
    store: &Store,
) -> Result<MasterKey, coditect_auth::Error> {
    if let Some(text) = env::var_os(MASTER_KEY_VARIABLE) {
        // What isn't UTF-8 is no key either, and is not passed over.
        return Ok(MasterKey::parse(&text.to_string_lossy())?);
    }
    // Where the store is in a cluster, nobody else has made the folder.
    fs::create_dir_all(folder).map_err(|error| coditect_auth::Error::Internal(error.into()))?;
    load_master_key(&folder.join(MASTER_KEY_FILE), store).await
}

/// The peppers of the environment.
fn peppers() -> Result<Peppers, coditect_auth::Error> {
    env::var_os(PEPPER_VARIABLE)
        .map_or(Ok(Peppers::default()), |text| Peppers::parse(&text.to_string_lossy()))
}

/// A setting's duration, which is ten years at the most.
fn time_delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
