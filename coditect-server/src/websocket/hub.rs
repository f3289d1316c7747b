//! A room: all sockets of a session at this server, and one watch of the store for all of them.
//!
//! It says which version each part has. It may pass some over, and never the last.

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

use super::{Part, Sockets};

/// How long to wait before it is looked again, where no watch tells of a change.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch is set anew so often, in case that it was lost.
const RENEWED_EVERY: Duration = Duration::from_secs(60);

/// What there is of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The version of each part, in the order of [`Part::ALL`].
    pub(crate) versions: [u64; Part::ALL.len()],
    /// Whether the session is gone.
    pub(crate) is_gone: bool,
}

/// The rooms of a server, as long as somebody is in them.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<SessionId, Weak<Room>>>);

/// The sockets of a session. Its watch ends with it.
#[derive(Debug)]
pub(crate) struct Room {
    seen: watch::Receiver<Seen>,
    _watching: DropGuard,
}

impl Room {
    /// The room of session `id`. Whoever reads the session after this hears of every change that it has
    /// not read.
    pub(crate) fn enter(
        sockets: &Sockets,
        store: &Store,
        tenant: TenantId,
        id: SessionId,
    ) -> Arc<Self> {
        let mut rooms = sockets.rooms.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&id).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let (tell, seen) = watch::channel(Seen::default());
        let ended = CancellationToken::new();
        let room = Arc::new(Self { seen, _watching: ended.clone().drop_guard() });
        rooms.insert(id, Arc::downgrade(&room));
        let watching = keep_watching(store.clone(), tenant, id, tell);
        sockets.tasks().spawn(ended.run_until_cancelled_owned(watching));
        room
    }

    /// How many are in it.
    pub(crate) fn crowd(self: &Arc<Self>) -> usize {
        Arc::strong_count(self)
    }

    /// What is seen from here.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }
}

/// Looks what there is, and again whenever that may have changed.
async fn keep_watching(store: Store, tenant: TenantId, id: SessionId, tell: watch::Sender<Seen>) {
    let look = |tx: Transaction| async move {
        let is_gone = tx.get::<Session>(tenant, id).await?.is_none();
        let parts = Part::ALL.map(|part| tx.get::<SessionState>(tenant, (id, part.key())));
        let mut versions = [0; Part::ALL.len()];
        for (version, saved) in versions.iter_mut().zip(try_join_all(parts).await?) {
            *version = saved.map_or(0, |saved| saved.version);
        }
        let watches = match set_watches(&tx, tenant, id).await {
            // Without room for them it is looked for what changed, again and again.
            Err(error) if error.kind() == ErrorKind::Limit => Vec::new(),
            watches => watches?,
        };
        Ok::<_, Error>((Seen { versions, is_gone }, watches))
    };
    loop {
        match store.run(look).await {
            Ok((seen, watches)) => {
                tell.send_if_modified(|told| std::mem::replace(told, seen) != seen);
                if seen.is_gone {
                    return;
                }
                if watches.is_empty() {
                    sleep(PAUSE).await;
                    continue;
                }
                // What ends a watch, whether a change or a failure, is a reason to look again.
                if let Ok((Err(_), ..)) = timeout(RENEWED_EVERY, select_all(watches)).await {
                    sleep(PAUSE).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a session cannot be watched");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Watches for all that is looked at.
async fn set_watches(
    tx: &Transaction,
    tenant: TenantId,
    id: SessionId,
) -> Result<Vec<Watch>, Error> {
    let mut watches = vec![tx.watch::<Session>(tenant, id).await?];
    for part in Part::ALL {
        watches.push(tx.watch::<SessionState>(tenant, (id, part.key())).await?);
    }
    Ok(watches)
}
