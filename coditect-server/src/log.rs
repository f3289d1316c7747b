//! Where the log goes and what a request leaves in it.
//!
//! Every request leaves one line: method, route template, status, duration, request id, and the
//! cause when the server is at fault. Never in it: the path as it was sent, the query, headers,
//! bodies, tokens. Nothing but the log writes to stderr once it has started.

use std::{any::Any, io};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::{Config, LogFormat};

/// Starts logging to stderr as `config` asks. A second call in one process changes nothing.
///
/// # Errors
///
/// The log filter cannot be understood.
pub fn start(config: &Config) -> Result<(), ParseError> {
    // The frames that these would show below that level hold headers.
    let filter = EnvFilter::try_new(&config.log_level)?
        .add_directive("h2=info".parse()?)
        .add_directive("hyper=info".parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error here says that a log has been started already, by a test in the same process.
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

/// Starts logging to stderr for an operator's verb: warnings alone, for people.
///
/// # Errors
///
/// None; the filter is written here.
pub fn start_for_operators() -> Result<(), ParseError> {
    let filter = EnvFilter::try_new("warn")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _already = log.with_ansi(false).without_time().with_target(false).try_init();
    Ok(())
}

/// What a panic said.
pub(crate) fn panic_message(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}
