//! What the benches share: the records that they work on, and how they say how far they are.

pub mod lines;
mod sample;

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _, stderr},
};

pub use sample::{Known, Places, Sample, changed, load, session};

/// What a bench comes to.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Says on stderr what is being done, over what was said before; where nobody looks on, as a line.
///
/// # Errors
///
/// Stderr cannot be written.
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
