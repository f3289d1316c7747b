//! The program `coditect-server`: settings, log, socket, then [`Server::run`] until a signal.
//!
//! Stdout gets one line, the address; everything else is the log's, on stderr. It exits with 0
//! after a stop by signal and with 1 when it could not start.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use coditect_server::{Config, Server, start_log};

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even stderr is gone there is nobody left to tell.
            let _unheard = writeln!(io::stderr(), "coditect-server: {}", told(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    start_log(&config).map_err(|error| format!("--log-level: {error}"))?;
    let stop = stop_signal()?;
    let server = Server::bind(config).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", server.local_addr())?;
    stdout.flush()?;
    server.run(stop).await;
    Ok(())
}

/// An error with all that it came from.
fn told(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(": ");
        told.push_str(&error.to_string());
        cause = error.source();
    }
    told
}

/// Resolves at the first SIGTERM or SIGINT after this call.
#[cfg(unix)]
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

/// Resolves at the first Ctrl-C after the future is first polled.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
