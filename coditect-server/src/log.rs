//! The log on stderr. Once started, it is the only writer to stderr.

use std::{any::Any, io};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::{Config, LogFormat};

/// Starts logging to stderr as configured. Further calls in the same process have no effect.
///
/// # Errors
///
/// The log filter is invalid.
pub fn start(config: &Config) -> Result<(), ParseError> {
    // Below this level these crates log frames, which contain headers.
    let filter = EnvFilter::try_new(&config.log_level)?
        .add_directive("h2=info".parse()?)
        .add_directive("hyper=info".parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only if a log was started before, as by another test of the process.
    let _already = match config.log_format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic_message(panic.payload());
        tracing::error!(location, message, "panic");
    }));
    Ok(())
}

/// Starts logging warnings to stderr for an operator's subcommand, without times and targets.
///
/// # Errors
///
/// None in practice; the filter is a constant.
pub fn start_for_operators() -> Result<(), ParseError> {
    let filter = EnvFilter::try_new("warn")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _already = log.with_ansi(false).without_time().with_target(false).try_init();
    Ok(())
}

/// Returns the message of a panic.
pub(crate) fn panic_message(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
