//! The library's network: a thread that all of the process's databases share.
//!
//! It can be started once, and once it was stopped it cannot be started again (manual: "Network").
//! It must be stopped before the process ends, since what it uses is torn down then. So it is
//! started with the first database, and stopped by the C library's `exit`, which runs when `main`
//! returns and when something exits in between, by a thread of its own. Until then it waits for
//! work and costs nothing.

use std::{
    mem,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use foundationdb::{
    FdbError,
    api::{FdbApiBuilder, NetworkAutoStop},
    options::NetworkOption,
};

use super::super::process::Owner;
use crate::{Error, ErrorKind, Result};

/// The process that started it, and why it could not, if so.
static STARTED: OnceLock<(Owner, Result<()>)> = OnceLock::new();

/// What stops it when it is dropped.
static RUNNING: Mutex<Option<NetworkAutoStop>> = Mutex::new(None);

/// Starts it, if that was not done before. Fails in a fork of the process that did so.
pub(super) fn start(trace_folder: Option<&Path>) -> Result<()> {
    let start = || (Owner::current(), start_once(trace_folder));
    let (owner, started) = STARTED.get_or_init(start);
    owner.check_library()?;
    started.as_ref().copied().map_err(Error::clone_without_source)
}

fn start_once(trace_folder: Option<&Path>) -> Result<()> {
    let mut builder = FdbApiBuilder::default().build().map_err(refused)?;
    if let Some(folder) = trace_folder {
        let folder = folder.to_string_lossy().into_owned();
        builder = builder
            .set_option(NetworkOption::TraceEnable(folder))
            .and_then(|builder| builder.set_option(NetworkOption::TraceFormat("json".to_owned())))
            .map_err(refused)?;
    }
    #[expect(unsafe_code, reason = "whoever starts the network promises to stop it: `stop` does")]
    // SAFETY: the guard is dropped, which stops and joins the network's thread, before the process
    // ends: `stop` is registered to do so right here, and runs before anything that the library
    // registered.
    let (running, registered) = unsafe { (builder.boot(), libc::atexit(stop)) };
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.map_err(refused)?);
    if registered != 0 {
        stop();
        return Err(Error::new(
            ErrorKind::Unavailable,
            "FoundationDB could not be stopped later on",
        ));
    }
    Ok(())
}

/// Stops the network, and joins its thread.
///
/// The C library runs this on the main thread after the thread-locals of that thread are destroyed.
/// FoundationDB's library keeps some of its own there, and a thread that has not used it yet would
/// make them anew, and crash. So a fresh thread stops the network, and is waited for.
extern "C" fn stop() {
    let Some(running) = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    // The network's thread is in the process that this one was forked from.
    if STARTED.get().is_some_and(|(owner, _)| !owner.is_current()) {
        mem::forget(running);
        return;
    }
    let stopping = thread::Builder::new().name("coditect-fdb-stop".to_owned());
    // If no thread can be started, the network is stopped where the closure is dropped: here.
    if let Ok(stopping) = stopping.spawn(move || drop(running)) {
        drop(stopping.join());
    }
}

fn refused(error: FdbError) -> Error {
    let message = if error.code() == 2203 {
        "FoundationDB's library (libfdb_c) is older than 7.3: install foundationdb-clients 7.3 or later"
    } else {
        "FoundationDB's library cannot be started"
    };
    Error::coded(ErrorKind::Unavailable, error.code(), message).with_source(error)
}
