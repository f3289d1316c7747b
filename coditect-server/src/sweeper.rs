//! The sweeper: one task a server that removes what is over and completes what was begun.
//!
//! Any number of servers may sweep one store at the same time, and one that stops in the middle
//! leaves nothing but work for the next sweep.

use std::sync::Arc;

use tokio::{sync::Notify, time};

use crate::app::App;

/// Where handlers say that something was deleted of which more is to go.
#[derive(Debug, Default)]
pub(crate) struct Sweeper(Notify);

impl Sweeper {
    /// Has deletions completed soon, rather than at the next sweep.
    pub(crate) fn complete_deletions(&self) {
        self.0.notify_one();
    }
}

/// Sweeps at once, then in the configured interval, until the server begins to stop.
pub(crate) async fn run(app: Arc<App>) {
    let mut due = time::interval(app.config.sweep_interval);
    due.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let sweeping = async {
        loop {
            tokio::select! {
                _ = due.tick() => sweep(&app).await,
                () = app.sweeper.0.notified() => complete_deletions(&app).await,
            }
        }
    };
    tokio::select! {
        () = app.stopping().cancelled() => {}
        () = sweeping => {}
    }
}

async fn sweep(app: &App) {
    match app.store.sweep(app.clock.now()).await {
        Ok(swept) if swept == coditect_store::Swept::default() => {}
        Ok(swept) => tracing::info!(
            auth_sessions = swept.auth_sessions,
            tickets = swept.tickets,
            idempotency_entries = swept.idempotency_entries,
            blobs = swept.blobs,
            deletions = swept.deletions,
            "swept"
        ),
        Err(error) => failed(&error),
    }
}

async fn complete_deletions(app: &App) {
    if let Err(error) = app.store.complete_deletions().await {
        failed(&error);
    }
}

/// What is left is there at the next sweep.
fn failed(error: &coditect_store::Error) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "a sweep failed");
}
