//! The operator's subcommands: check, inspect, export, import, backup, user, keys, health.
//!
//! Results go to stdout, progress and errors to stderr. A subcommand that is dropped, as on a
//! signal, leaves no incomplete file under its final name.

mod archives;
mod check;
mod health;
mod identity;
mod inspect;
mod origin;
mod progress;
mod target;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use coditect_auth::entities;
use coditect_store::{
    Store, StoreOptions,
    engine::{Database, Options, RangeQuery},
};
use hyper::Uri;
use thiserror::Error;

use super::args::Subcommand;
use crate::{
    StoreLocation,
    admin::{client, protocol::AdminError},
};

/// Cache for the store's file, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// A failure of a subcommand.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The store does not exist.
    #[error("no store in {0}")]
    NoStore(Box<StoreLocation>),
    /// An error of the store or an archive.
    #[error(transparent)]
    Store(#[from] coditect_store::Error),
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Stdout cannot be written.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    /// An error of identity.
    #[error(transparent)]
    Auth(#[from] coditect_auth::Error),
    /// A task of an operator failed.
    #[error(transparent)]
    Task(#[from] AdminError),
    /// Stdin cannot be read.
    #[error("cannot read stdin")]
    Stdin(#[source] io::Error),
    /// One of two variables that belong together is missing.
    #[error("{0} must also be set")]
    Variable(&'static str),

    /// The server that runs on the store.
    #[error(transparent)]
    Admin(#[from] client::Error),
    /// The server is not ready, or not a coditect-server.
    #[error("{url} is not ready: {why}")]
    NotReady {
        /// URL of the request.
        url: Uri,
        /// Cause.
        why: String,
    },
}

/// Result of a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Success.
    Done,
    /// The check found faults.
    Faulty,
}

/// Runs a subcommand. `serve` and `config` are handled by the caller and do nothing here.
///
/// # Errors
///
/// [`enum@Error`].
pub async fn run(subcommand: &Subcommand) -> Result<Outcome, Error> {
    match subcommand {
        Subcommand::Serve(_) | Subcommand::Config(_) => Ok(Outcome::Done),
        Subcommand::Check(arguments) => check::run(arguments).await,
        Subcommand::Inspect(arguments) => inspect::run(arguments).await,
        Subcommand::Export(arguments) => archives::export(arguments).await,
        Subcommand::Import(arguments) => archives::import(arguments).await,
        Subcommand::Backup(arguments) => archives::backup(arguments).await,
        Subcommand::User(arguments) => identity::user(&arguments.subcommand).await,
        Subcommand::Keys(arguments) => identity::keys(&arguments.subcommand).await,
        Subcommand::Openapi => describe(),
        Subcommand::Health(arguments) => health::run(arguments).await,
    }
}

/// Prints the OpenAPI document, indented.
fn describe() -> Result<Outcome, Error> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{:#}", crate::api::openapi::document()).map_err(Error::Stdout)?;
    Ok(Outcome::Done)
}

/// Returns the message after a signal stopped `subcommand`.
pub fn stopped(subcommand: &Subcommand) -> &'static str {
    match subcommand {
        Subcommand::Import(_) => "stopped; run the import again with the same archive to resume it",
        Subcommand::Serve(_)
        | Subcommand::Config(_)
        | Subcommand::Inspect(_)
        | Subcommand::User(_)
        | Subcommand::Keys(_)
        | Subcommand::Openapi
        | Subcommand::Health(_) => "stopped",
        Subcommand::Check(_) => "stopped; the rest of the store was not checked",
        Subcommand::Export(_) | Subcommand::Backup(_) => "stopped; no archive was written",
    }
}

/// Returns the options of a store with all entities of the server.
fn options() -> StoreOptions {
    entities(Store::options())
}

/// Opens an existing store, and never creates one.
async fn open(place: &StoreLocation) -> Result<Store, Error> {
    open_with(place, options()).await
}

/// As [`open`], with `options`.
async fn open_with(place: &StoreLocation, options: StoreOptions) -> Result<Store, Error> {
    let missing = || Error::NoStore(Box::new(place.clone()));
    if !place.may_have_store()? {
        place.refuse_missing_store()?;
        return Err(missing());
    }
    let database = database(place)?;
    // An import that stopped before its first commit leaves a database without keys.
    let first = &RangeQuery::new(b"", b"\xff").limit(1);
    let found = database.run(|tx| async move { tx.snapshot().get_range(first).await });
    if found.await?.rows.is_empty() {
        return Err(missing());
    }
    Ok(options.open(database).await?)
}

/// Opens or creates the database. A subcommand scans it once, so a small cache is enough.
fn database(place: &StoreLocation) -> Result<Database, Error> {
    Ok(place.database(&Options::default().cache_bytes(CACHE_BYTES))?)
}
