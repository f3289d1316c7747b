//! The program `coditect-server`: it serves until a signal, or does one of an operator's verbs.
//!
//! While it serves stdout gets one line, the address; everything else is the log's, on stderr. It
//! exits with 0 when all went well (a stop by signal too, while it serves), 1 on an error, 2 on
//! arguments that it does not understand, and 3 when a check has found faults.

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use coditect_server::{
    Config, Server,
    cli::{
        args::{Command, Verb},
        commands::{self, Outcome},
        settings::{self, Asked},
    },
    start_log, start_operators_log, telemetry,
};

/// What a check exits with that has found faults.
const FAULTY: u8 = 3;

/// What it exits with that does not understand what it is asked.
const NOT_UNDERSTOOD: u8 = 2;

fn main() -> ExitCode {
    let Asked { command, effective } = match settings::asked(env::args_os()) {
        Ok(asked) => asked,
        Err(settings::Error::Arguments(error)) => error.exit(),
        Err(error) => {
            failed(&error);
            return ExitCode::from(NOT_UNDERSTOOD);
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
    // A read of a terminal that nobody types at would be waited for.
    runtime.shutdown_background();
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => ExitCode::from(FAULTY),
        Ok(_) => ExitCode::FAILURE,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    // Where even stderr is gone there is nobody left to tell.
    let _unheard = writeln!(io::stderr(), "coditect-server: {}", told(error));
    ExitCode::FAILURE
}

async fn run(command: Command) -> Result<Outcome, Box<dyn Error>> {
    let verb = match command.verb {
        None => return serve(command.serve).await,
        Some(Verb::Serve(config)) => return serve(*config).await,
        Some(verb) => verb,
    };
    start_operators_log()?;
    let stop = stop_signal()?;
    tokio::select! {
        ended = commands::run(&verb) => Ok(ended?),
        () = stop => Err(commands::stopped(&verb).into()),
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
    server.run(stop).await;
    Ok(Outcome::Done)
}

/// An error with all that it came from.
fn told(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors of other crates name their cause themselves.
        if !told.ends_with(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        cause = error.source();
    }
    told
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
