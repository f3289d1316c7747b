//! What a server does by itself, in one task: it builds indexes that came later than their records,
//! removes what is over, completes deletions, and keeps the signing keys, which wait for nothing of the
//! rest: a build may take longer than other servers keep what this one would sign with.
//!
//! Any number of servers may be at it on one store, and one that stops in the middle leaves nothing
//! but work for the next.

use std::sync::Arc;

use chrono::TimeDelta;
use coditect_auth::Purge;
use coditect_store::Swept;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::{state::App, telemetry};

/// The interval between collections of deleted contents.
const RECLAIM_INTERVAL: time::Duration = time::Duration::from_secs(5);

/// The interval between renewals of the leases of contents that are read: a third of a lease.
const READ_LEASE_INTERVAL: time::Duration = time::Duration::from_secs(5);

/// How often the signing keys are looked at.
const KEYS_KEPT_EVERY: time::Duration = time::Duration::from_secs(60);

/// How often a build that takes long says how far it is.
const TOLD_EVERY: time::Duration = time::Duration::from_secs(5);

/// Maximum number of sweeps that a server may miss, and time beyond, while it counts as running.
const MAX_MISSED_SWEEPS: i32 = 3;
const CLOCK_SLACK: TimeDelta = TimeDelta::hours(1);

/// Builds what is to be built, sweeps at once and then in the configured interval, and keeps the keys
/// all the while, until the server begins to stop.
pub(crate) async fn run(app: Arc<App>) {
    let mut due = time::interval(app.config.sweep_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let working = async {
        loop {
            tokio::select! {
                _ = due.tick() => {
                    // Requests wait for indexes, and nobody for the sweep.
                    told("an index could not be built", build(&app).await);
                    told("a sweep failed", sweep(&app).await);
                }
                () = app.upkeep.notified() => {
                    let completed = app.store.complete_deletions().await.map(|_| ());
                    told("a deletion could not be completed", completed);
                }
            }
        }
    };
    tokio::select! {
        () = app.stopping().cancelled() => {}
        () = working => {}
        () = remove_retired(&app) => {}
        () = reclaim(&app) => {}
        () = renew_read_leases(&app) => {}
        () = rotate_due_keys(&app) => {}
        () = telemetry::keep() => {}
    }
}

/// Removes the contents that no record holds and nobody reads.
async fn reclaim(app: &App) {
    let mut due = time::interval(RECLAIM_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let store = app.store.with_batch_priority("reclaim");
    loop {
        due.tick().await;
        let collected = store.collect_blobs(app.clock.now()).await.map(|_| ());
        told("deleted contents could not be removed", collected);
    }
}

/// Keeps the contents that are being read. In a task apart from [`reclaim`], which may take long.
async fn renew_read_leases(app: &App) {
    let mut due = time::interval(READ_LEASE_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let renewed = app.store.renew_read_leases(app.clock.now()).await.map(|_| ());
        told("leases of contents that are read could not be renewed", renewed);
    }
}

async fn rotate_due_keys(app: &App) {
    let mut due = time::interval(KEYS_KEPT_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = keys_rotated(app) => {}
        }
        told("the signing keys could not be kept", app.auth.rotate_due_keys().await);
    }
}

/// Waits until another process rotates the signing keys. If that cannot be watched, it waits for ever:
/// the keys are read again at the next interval.
async fn keys_rotated(app: &App) {
    let rotated = app.auth.wait_for_key_rotation().await;
    let is_watched = rotated.is_ok();
    told("the signing keys could not be watched", rotated);
    if !is_watched {
        std::future::pending::<()>().await;
    }
}

/// What failed is tried again the next time.
fn told<E: std::error::Error + 'static>(what: &'static str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, what);
    }
}

/// Removes what has expired, if the clock is trusted: see [`Auth::purge`](coditect_auth::Auth::purge).
async fn sweep(app: &App) -> Result<(), coditect_auth::Error> {
    let interval = TimeDelta::from_std(app.config.sweep_interval).unwrap_or(TimeDelta::MAX);
    let swept = match app.auth.purge(interval * MAX_MISSED_SWEEPS + CLOCK_SLACK).await? {
        Purge::Done(swept, _) => swept,
        Purge::Suspended { ahead, is_new } => {
            if is_new {
                tracing::warn!(
                    ahead_s = ahead.num_seconds(),
                    "the clock is more than 30 days ahead of the last sweep: nothing expired is \
                     removed until the server has run for 24 h in all, or the clock is corrected"
                );
            }
            app.store.complete_deletions().await?;
            return Ok(());
        }
    };
    if swept != Swept::default() {
        let Swept {
            auth_sessions,
            tickets,
            idempotency_entries,
            client_sequences,
            blobs,
            deletions,
        } = swept;
        tracing::info!(
            auth_sessions,
            tickets,
            idempotency_entries,
            client_sequences,
            blobs,
            deletions,
            "swept"
        );
    }
    Ok(())
}

/// Removes the entries of retired indexes, now and whenever others have been retired. In a task apart:
/// each removal first waits until no process reads by the index.
async fn remove_retired(app: &App) {
    let mut due = time::interval(app.config.sweep_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let removing = async {
            for index in app.store.retired().await? {
                let removed = app.store.remove_retired(index.as_str()).run(|_| ()).await?.removed;
                tracing::info!(index, removed, "removed the entries of a retired index");
            }
            Ok::<_, coditect_store::Error>(())
        };
        told("the entries of a retired index could not be removed", removing.await);
    }
}

/// Builds all indexes that are not built: requests that need one are refused until then.
async fn build(app: &App) -> coditect_store::Result<()> {
    for index in app.store.unbuilt().await? {
        let build = app.store.build(index)?;
        // How much is left is not counted: that takes as long as the build, and requests wait.
        tracing::info!(index, "building");
        let mut said = Instant::now();
        let work = build.run(|progress| {
            if said.elapsed() >= TOLD_EVERY {
                said = Instant::now();
                tracing::info!(index, examined = progress.examined, "building");
            }
        });
        let examined = work.await?.examined;
        tracing::info!(index, examined, "built");
    }
    Ok(())
}
