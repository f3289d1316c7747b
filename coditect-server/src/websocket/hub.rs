//! A room: all sockets of a session at this server, with one watch of the store for all of them.
//!
//! It publishes the versions of the sections. It may skip versions, but never the newest one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use coditect_store::{
    Error, ErrorKind, Store, Transaction,
    engine::Watch,
    model::{Session, SessionId, SessionState, TenantId},
};
use futures_util::future::{select_all, try_join_all};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Sockets, StateSection};

/// Pause before the next read, if watches are not available.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which watches are renewed, in case one was lost.
const WATCH_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// Versions of a session's sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionVersions {
    /// Version of each section, in the order of [`StateSection::ALL`].
    pub(crate) versions: [u64; StateSection::ALL.len()],
    /// Whether the session was deleted.
    pub(crate) is_gone: bool,
}

/// The rooms of a server that have sockets.
#[derive(Debug, Default)]
pub(crate) struct SessionHubs(Mutex<HashMap<SessionId, Weak<SessionHub>>>);

/// The sockets of a session. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct SessionHub {
    seen: watch::Receiver<SessionVersions>,
    _watching: DropGuard,
}

impl SessionHub {
    /// Enters the room of session `id`. A caller that reads the session afterwards is notified of
    /// every change that it has not read.
    pub(crate) fn enter(
        sockets: &Sockets,
        store: &Store,
        tenant: TenantId,
        id: SessionId,
    ) -> Arc<Self> {
        let mut hubs = sockets.hubs.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(&id).and_then(Weak::upgrade) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let (tell, seen) = watch::channel(SessionVersions::default());
        let ended = CancellationToken::new();
        let hub = Arc::new(Self { seen, _watching: ended.clone().drop_guard() });
        hubs.insert(id, Arc::downgrade(&hub));
        let watching = keep_watching(store.clone(), tenant, id, tell);
        sockets.tasks().spawn(ended.run_until_cancelled_owned(watching));
        hub
    }

    /// Returns the number of sockets.
    pub(crate) fn len(self: &Arc<Self>) -> usize {
        Arc::strong_count(self)
    }

    /// Returns a receiver of the versions.
    pub(crate) fn seen(&self) -> watch::Receiver<SessionVersions> {
        self.seen.clone()
    }
}

/// Publishes the versions, and again after every change.
async fn keep_watching(
    store: Store,
    tenant: TenantId,
    id: SessionId,
    tell: watch::Sender<SessionVersions>,
) {
    let look = |tx: Transaction| async move {
        let is_gone = tx.get::<Session>(tenant, id).await?.is_none();
        let parts = StateSection::ALL.map(|part| tx.get::<SessionState>(tenant, (id, part.key())));
        let mut versions = [0; StateSection::ALL.len()];
        for (version, saved) in versions.iter_mut().zip(try_join_all(parts).await?) {
            *version = saved.map_or(0, |saved| saved.version);
        }
        let watches = match set_watches(&tx, tenant, id).await {
            // Without room for watches, the versions are polled.
            Err(error) if error.kind() == ErrorKind::Limit => Vec::new(),
            watches => watches?,
        };
        Ok::<_, Error>((SessionVersions { versions, is_gone }, watches))
    };
    loop {
        match store.run(look).await {
            Ok((seen, watches)) => {
                tell.send_if_modified(|told| std::mem::replace(told, seen) != seen);
                if seen.is_gone {
                    return;
                }
                if watches.is_empty() {
                    sleep(POLL_INTERVAL).await;
                    continue;
                }
                // A change or a failure of a watch is a reason to read again.
                if let Ok((Err(_), ..)) = timeout(WATCH_RENEWAL_INTERVAL, select_all(watches)).await
                {
                    sleep(POLL_INTERVAL).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot watch a session");
                sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// Sets watches on the session and its sections.
async fn set_watches(
    tx: &Transaction,
    tenant: TenantId,
    id: SessionId,
) -> Result<Vec<Watch>, Error> {
    let mut watches = vec![tx.watch::<Session>(tenant, id).await?];
    for part in StateSection::ALL {
        watches.push(tx.watch::<SessionState>(tenant, (id, part.key())).await?);
    }
    Ok(watches)
}
