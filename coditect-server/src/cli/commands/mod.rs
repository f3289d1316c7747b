//! The operator's verbs: check, inspect, export, import, backup, user, keys, health.
//!
//! What a verb was asked for goes to stdout; how far it is, and what went wrong, to stderr. A verb that
//! is dropped, as a signal does it, leaves nothing behind that looks whole.

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

use super::args::Verb;
use crate::Place;
#[cfg(unix)]
use crate::admin::client;

/// The memory that caches the store's file, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Why a verb did not come to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no store.
    #[error("there is no store in {0}")]
    NoStore(Box<Place>),
    /// The store, or an archive.
    #[error(transparent)]
    Store(#[from] coditect_store::Error),
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Stdout cannot be written.
    #[error("stdout cannot be written")]
    Stdout(#[source] io::Error),
    /// Identity.
    #[error(transparent)]
    Auth(#[from] coditect_auth::Error),
    /// Stdin cannot be read.
    #[error("stdin cannot be read")]
    Stdin(#[source] io::Error),
    /// A variable is missing that goes with another.
    #[error("{0} must be set, too")]
    Variable(&'static str),
    /// The server that runs on the store.
    #[cfg(unix)]
    #[error(transparent)]
    Admin(#[from] client::Error),
    /// A server is not ready, or is none.
    #[error("{url} is not ready: {why}")]
    NotReady {
        /// What was asked.
        url: Uri,
        /// Why.
        why: String,
    },
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it was asked for.
    Done,
    /// It checked the store, and found faults.
    Faulty,
}

/// Does what `verb` says.
///
/// # Errors
///
/// [`enum@Error`]. To serve and to show settings are no operator's verbs, and do nothing here.
pub async fn run(verb: &Verb) -> Result<Outcome, Error> {
    match verb {
        Verb::Serve(_) | Verb::Config(_) => Ok(Outcome::Done),
        Verb::Check(arguments) => check::run(arguments).await,
        Verb::Inspect(arguments) => inspect::run(arguments).await,
        Verb::Export(arguments) => archives::export(arguments).await,
        Verb::Import(arguments) => archives::import(arguments).await,
        Verb::Backup(arguments) => archives::backup(arguments).await,
        Verb::User(arguments) => identity::user(&arguments.verb).await,
        Verb::Keys(arguments) => identity::keys(&arguments.verb).await,
        Verb::Openapi => describe(),
        Verb::Health(arguments) => health::run(arguments).await,
    }
}

/// Prints the description of the API, for people and diffs.
fn describe() -> Result<Outcome, Error> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{:#}", crate::api::openapi::document()).map_err(Error::Stdout)?;
    Ok(Outcome::Done)
}

/// What to say to who stops `verb`.
pub fn stopped(verb: &Verb) -> &'static str {
    match verb {
        Verb::Import(_) => "stopped: run it again with the same archive to go on",
        Verb::Serve(_)
        | Verb::Config(_)
        | Verb::Inspect(_)
        | Verb::User(_)
        | Verb::Keys(_)
        | Verb::Openapi
        | Verb::Health(_) => "stopped",
        Verb::Check(_) => "stopped: the rest was not checked",
        Verb::Export(_) | Verb::Backup(_) => "stopped: nothing was kept",
    }
}

/// All that the server keeps in a store.
fn options() -> StoreOptions {
    entities(Store::options())
}

/// Opens a store that is there, and makes none.
async fn open(place: &Place) -> Result<Store, Error> {
    let missing = || Error::NoStore(Box::new(place.clone()));
    if !place.may_have_store()? {
        return Err(missing());
    }
    let database = database(place)?;
    // An import that was stopped before its first commit leaves a file without a key.
    let first = &RangeQuery::new(b"", b"\xff").limit(1);
    let found = database.run(|tx| async move { tx.snapshot().get_range(first).await });
    if found.await?.rows.is_empty() {
        return Err(missing());
    }
    Ok(options().open(database).await?)
}

/// The database, made if it is not there. A verb goes through it once, so that a small cache does.
fn database(place: &Place) -> Result<Database, Error> {
    Ok(place.database(&Options::default().cache_bytes(CACHE_BYTES))?)
}
