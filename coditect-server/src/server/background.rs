//! Background tasks of a server: online index builds, purges, pending deletions, blob collection
//! and signing-key rotation.
//!
//! Keys are rotated independently of the rest: a build may take longer than the time after which
//! other servers would stop accepting the keys of this one. Several servers may run these tasks on
//! one store at the same time; a server that stops in the middle leaves the remaining work to the
//! next run.

use std::sync::Arc;

use chrono::TimeDelta;
use coditect_auth::Purge;
use coditect_store::PurgeReport;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::{state::App, telemetry};

/// Interval between collections of deleted contents.
const RECLAIM_INTERVAL: time::Duration = time::Duration::from_secs(5);

/// Interval between renewals of the leases on contents being read: a third of a lease.
const READ_LEASE_INTERVAL: time::Duration = time::Duration::from_secs(5);

/// Interval between checks of the signing keys.
const KEY_CHECK_INTERVAL: time::Duration = time::Duration::from_secs(60);

/// Interval between log lines about the progress of a build.
const PROGRESS_LOG_INTERVAL: time::Duration = time::Duration::from_secs(5);

/// Maximum number of purges that a server may miss, and the extra time, while it counts as running.
const MAX_MISSED_SWEEPS: i32 = 3;
const CLOCK_SLACK: TimeDelta = TimeDelta::hours(1);

/// Runs all background tasks until shutdown begins: builds and purges at once and then at the
/// configured interval, key rotation all the time.
pub(crate) async fn run(app: Arc<App>) {
    let mut due = time::interval(app.config.sweep_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let working = async {
        loop {
            tokio::select! {
                _ = due.tick() => {
                    // Requests wait for indexes, but not for the purge, so the build goes first.
                    warn_on_error("cannot build an index", build(&app).await);
                    warn_on_error("cannot purge expired records", sweep(&app).await);
                }
                () = app.upkeep.notified() => {
                    let completed = app.store.resume_deletions().await.map(|_| ());
                    warn_on_error("cannot complete a deletion", completed);
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

/// Removes blobs without a record and without a reader.
async fn reclaim(app: &App) {
    let mut due = time::interval(RECLAIM_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let store = app.store.with_batch_priority("reclaim");
    loop {
        due.tick().await;
        let collected = store.collect_blobs(app.clock.now()).await.map(|_| ());
        warn_on_error("cannot collect deleted blobs", collected);
    }
}

/// Renews the leases on blobs that are being read. Separate from [`reclaim`], which may take long.
async fn renew_read_leases(app: &App) {
    let mut due = time::interval(READ_LEASE_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let renewed = app.store.renew_read_leases(app.clock.now()).await.map(|_| ());
        warn_on_error("cannot renew the leases of blobs being read", renewed);
    }
}

async fn rotate_due_keys(app: &App) {
    let mut due = time::interval(KEY_CHECK_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = keys_rotated(app) => {}
        }
        warn_on_error("cannot rotate the signing keys", app.auth.rotate_due_keys().await);
    }
}

/// Waits until another process rotates the signing keys. Waits for ever if the watch fails; the
/// keys are then read at the next interval.
async fn keys_rotated(app: &App) {
    let rotated = app.auth.wait_for_key_rotation().await;
    let is_watched = rotated.is_ok();
    warn_on_error("cannot watch the signing keys", rotated);
    if !is_watched {
        std::future::pending::<()>().await;
    }
}

/// Logs a failure; the task runs again later.
fn warn_on_error<E: std::error::Error + 'static>(message: &'static str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "{message}");
    }
}

/// Removes expired records, if the clock is trusted: see
/// [`Auth::purge`](coditect_auth::Auth::purge).
async fn sweep(app: &App) -> Result<(), coditect_auth::Error> {
    let interval = TimeDelta::from_std(app.config.sweep_interval).unwrap_or(TimeDelta::MAX);
    let swept = match app.auth.purge(interval * MAX_MISSED_SWEEPS + CLOCK_SLACK).await? {
        Purge::Done(swept, _) => swept,
        Purge::Suspended { ahead, is_new } => {
            if is_new {
                tracing::warn!(
                    ahead_s = ahead.num_seconds(),
                    "system clock is more than 30 days ahead of the last purge: purging is \
                     suspended until the server has run for 24 h, or the clock is corrected"
                );
            }
            app.store.resume_deletions().await?;
            return Ok(());
        }
    };
    if swept != PurgeReport::default() {
        let PurgeReport {
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
            "expired records purged"
        );
    }
    Ok(())
}

/// Removes the entries of retired indexes. Separate from the other tasks, since each removal first
/// waits until no process reads the index.
async fn remove_retired(app: &App) {
    let mut due = time::interval(app.config.sweep_interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let removing = async {
            for index in app.store.retired().await? {
                let removed = app.store.remove_retired(index.as_str()).run(|_| ()).await?.removed;
                tracing::info!(index, removed, "entries of a retired index removed");
            }
            Ok::<_, coditect_store::Error>(())
        };
        warn_on_error("cannot remove the entries of a retired index", removing.await);
    }
}

/// Builds all pending indexes. Requests that need one of them are refused until it is built.
async fn build(app: &App) -> coditect_store::Result<()> {
    for index in app.store.pending_indexes().await? {
        let build = app.store.build(index)?;
        // The remaining records are not counted, since counting takes as long as the build.
        tracing::info!(index, "index build started");
        let mut logged = Instant::now();
        let work = build.run(|progress| {
            if logged.elapsed() >= PROGRESS_LOG_INTERVAL {
                logged = Instant::now();
                tracing::info!(index, examined = progress.examined, "index build in progress");
            }
        });
        let examined = work.await?.examined;
        tracing::info!(index, examined, "index build completed");
    }
    Ok(())
}
