//! The program: runs the server until a signal arrives, or an operator's subcommand. It is a part
//! of the library so that the code of the server is generated once.
//!
//! The server writes one line to stdout, its URL; everything else is logged to stderr. Exit codes:
//! 0 on success, also after a stop by a signal; 1 on an error; 2 for invalid arguments or settings;
//! 3 when a check found faults.

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use super::{
    args::{Command, Subcommand},
    commands::{self, Outcome},
    settings::{self, ParsedArgs},
};
use crate::{Config, Server, start_log, start_operators_log, telemetry};

/// Exit code of a check that found faults.
const FAULTY: u8 = 3;

/// Exit code for invalid arguments or settings.
const INVALID_ARGUMENTS: u8 = 2;

/// Runs the program with the arguments of the process, until it ends.
pub fn main() -> ExitCode {
    let ParsedArgs { command, effective } = match settings::parse(env::args_os()) {
        Ok(parsed) => parsed,
        Err(settings::Error::Arguments(error)) => error.exit(),
        Err(error) => {
            failed(&error);
            return ExitCode::from(INVALID_ARGUMENTS);
        }
    };
    if let Some(effective) = effective {
        return match io::stdout().write_all(effective.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(run(command));
    // A blocked read of a terminal would delay an orderly shutdown for ever.
    runtime.shutdown_background();
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => ExitCode::from(FAULTY),
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    // There is no way to report a failure to write to stderr.
    let _unreported = writeln!(io::stderr(), "coditect-server: {}", with_causes(error));
    ExitCode::FAILURE
}

async fn run(command: Command) -> Result<Outcome, Box<dyn Error>> {
    let subcommand = match command.subcommand {
        None => return serve(command.serve).await,
        Some(Subcommand::Serve(config)) => return serve(*config).await,
        Some(subcommand) => subcommand,
    };
    start_operators_log()?;
    let stop = stop_signal()?;
    tokio::select! {
        ended = commands::run(&subcommand) => Ok(ended?),
        () = stop => Err(commands::stopped(&subcommand).into()),
    }
}

async fn serve(config: Config) -> Result<Outcome, Box<dyn Error>> {
    start_log(&config).map_err(|error| format!("--log-level: {error}"))?;
    telemetry::start()?;
    let stop = stop_signal()?;
    let server = Server::bind(config).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}", server.url())?;
    stdout.flush()?;
    if let Some(address) = server.metrics_addr() {
        tracing::info!(%address, "metrics listener started");
    }
    server.run(stop).await;
    Ok(Outcome::Done)
}

/// Returns the messages of an error and its causes.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        // Some errors of other crates include the message of their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    text
}

/// Resolves at the first SIGTERM or SIGINT after this call.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
