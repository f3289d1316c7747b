//! Shared by the benches: opening a store, sample records, progress.

pub mod lines;
mod sample;

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _, stderr},
    path::Path,
};

use coditect_store::engine::{Database, Options, cluster_file};

pub use sample::{Known, Places, Sample, changed, load, session};

/// The result of a bench.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Opens the store of a bench: in `folder`, or, if `CODITECT_CLUSTER_FILE` names a cluster,
/// below a prefix that is cleared at the end.
///
/// # Errors
///
/// Fails as [`Database::open_with`] and [`Database::cluster`] do.
pub fn database(folder: &Path, options: &Options) -> Outcome<Database> {
    Ok(match cluster_file() {
        Some(_) => Database::temporary()?,
        None => Database::open_with(folder, options)?,
    })
}

/// Reports progress on stderr, overwriting the last report on a terminal.
///
/// # Errors
///
/// Fails if stderr cannot be written.
pub fn progress(what: &str) -> Outcome<()> {
    let mut stderr = stderr();
    if stderr.is_terminal() {
        write!(stderr, "\r\x1b[2K{what}")?;
        stderr.flush()?;
    } else if !what.is_empty() {
        writeln!(stderr, "{what}")?;
    }
    Ok(())
}
