//! The network thread of FoundationDB's client library, shared by all databases of the process.
//!
//! The network can be started once per process, and must be stopped before the process exits
//! (manual: "Network"). It starts with the first database. An `atexit` handler stops it, on a
//! thread of its own. An idle network costs nothing.

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

/// The process that started the network, and the result.
static STARTED: OnceLock<(Owner, Result<()>)> = OnceLock::new();

/// Stops the network when it is dropped.
static RUNNING: Mutex<Option<NetworkAutoStop>> = Mutex::new(None);

/// Starts the network unless it is running. Fails in a fork of the process that started it.
pub(super) fn start(trace_folder: Option<&Path>) -> Result<()> {
    let start = || (Owner::current(), start_once(trace_folder));
    let (owner, started) = STARTED.get_or_init(start);
    owner.check_library()?;
    started.as_ref().copied().map_err(Error::clone_without_source)
}

fn start_once(trace_folder: Option<&Path>) -> Result<()> {
    let mut builder = FdbApiBuilder::default().build().map_err(start_error)?;
    if let Some(folder) = trace_folder {
        let folder = folder.to_string_lossy().into_owned();
        builder = builder
            .set_option(NetworkOption::TraceEnable(folder))
            .and_then(|builder| builder.set_option(NetworkOption::TraceFormat("json".to_owned())))
            .map_err(start_error)?;
    }
    #[expect(unsafe_code, reason = "booting requires a promise to stop the network; `stop` does")]
    // SAFETY: the guard must be dropped before the process exits, which stops and joins the
    // network's thread. `stop` does so; it is registered here, and runs before the exit handlers of
    // the library.
    let (running, registered) = unsafe { (builder.boot(), libc::atexit(stop)) };
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.map_err(start_error)?);
    if registered != 0 {
        stop();
        return Err(Error::new(
            ErrorKind::Unavailable,
            "cannot register the exit handler of FoundationDB's client library",
        ));
    }
    Ok(())
}

/// Stops the network, and joins its thread.
///
/// Exit handlers run on the main thread after its thread-locals were destroyed. FoundationDB's
/// library has thread-locals, and would crash when it creates them again. So a new thread stops the
/// network.
extern "C" fn stop() {
    let Some(running) = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    // A fork does not have the network's thread.
    if STARTED.get().is_some_and(|(owner, _)| !owner.is_current()) {
        mem::forget(running);
        return;
    }
    let stopping = thread::Builder::new().name("coditect-fdb-stop".to_owned());
    // If no thread can be started, dropping the closure stops the network here.
    if let Ok(stopping) = stopping.spawn(move || drop(running)) {
        drop(stopping.join());
    }
}

fn start_error(error: FdbError) -> Error {
    let message = if error.code() == 2203 {
        "FoundationDB's client library (libfdb_c) is too old: install foundationdb-clients 7.3 \
         or later"
    } else {
        "cannot start FoundationDB's client library (libfdb_c)"
    };
    Error::coded(ErrorKind::Unavailable, error.code(), message).with_source(error)
}
