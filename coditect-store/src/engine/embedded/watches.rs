//! Who waits for which key.

use std::{collections::BTreeMap, mem, ops::Bound, sync::PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{
    super::limits::{self, WATCH_LIMIT},
    snapshot::Snapshot,
    sync::Mutex,
    wake,
    wal::{Mutation, MutationBatch},
};
use crate::{Error, Result, telemetry};

/// One who waits: fired when the key's value is no longer the expected one.
#[derive(Debug)]
pub(super) struct Watcher {
    key: Vec<u8>,
    expected: Fingerprint,
    pub(super) fire: Fire,
}

type Fire = oneshot::Sender<Result<()>>;

/// A value, if there is one, by its hash: many may wait for large ones.
type Fingerprint = Option<[u8; 32]>;

impl Watcher {
    pub(super) fn new(
        key: &[u8],
        expected: Option<&[u8]>,
        fire: oneshot::Sender<Result<()>>,
    ) -> Self {
        Self { key: key.to_vec(), expected: fingerprint(expected), fire }
    }
}

fn fingerprint(value: Option<&[u8]>) -> Fingerprint {
    value.map(|value| Sha256::digest(value).into())
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_key: BTreeMap<Vec<u8>, Vec<Watcher>>,
    count: usize,
    /// When there are this many, the abandoned ones are swept out.
    sweep_at: usize,
}

/// With fewer watches than this it is not worth looking for abandoned ones.
const SMALLEST_SWEEP: usize = 64;

impl Watches {
    /// Begins to wait, or fires at once if its key has another value `now`, in the newest state. A
    /// later state reaches [`changed`](Self::changed) after this.
    pub(super) fn add(&self, watcher: Watcher, now: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fired = if table.has_room() {
            match now(&watcher.key) {
                Err(error) => Err(error),
                Ok(value) if fingerprint(value.as_deref()) != watcher.expected => Ok(()),
                Ok(_) => {
                    table.count += 1;
                    telemetry::watching(table.count);
                    table.by_key.entry(watcher.key.clone()).or_default().push(watcher);
                    return;
                }
            }
        } else {
            Err(limits::too_many_watches())
        };
        // A waker may come back with another watch.
        drop(table);
        wake::answer(watcher.fire, fired);
    }

    /// Fires those with whose keys something was done, and that have another value in `now`.
    pub(super) fn changed(&self, done: &[MutationBatch], now: &Snapshot) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count == 0 {
            return;
        }
        let mut fired = Vec::new();
        for change in done.iter().flat_map(MutationBatch::iter) {
            match change {
                Mutation::Set { key, .. } | Mutation::Clear { key } => {
                    table.check(key, now, &mut fired);
                }
                Mutation::ClearRange { begin, end } => {
                    let within = (Bound::Included(begin), Bound::Excluded(end.max(begin)));
                    let waited_for = table.by_key.range::<[u8], _>(within);
                    let keys: Vec<_> = waited_for.map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        table.check(&key, now, &mut fired);
                    }
                }
            }
        }
        telemetry::watching(table.count);
        drop(table);
        for fire in fired {
            wake::answer(fire, Ok(()));
        }
    }

    /// Whether another one may be added.
    pub(super) fn have_room(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_room()
    }

    /// Ends all with `cause`: nothing will change any more.
    pub(super) fn close(&self, cause: impl Fn() -> Error) {
        let table = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for watcher in table.by_key.into_values().flatten() {
            wake::answer(watcher.fire, Err(cause()));
        }
    }
}

impl Table {
    /// Whether another one fits, once the abandoned ones are gone.
    fn has_room(&mut self) -> bool {
        if self.count >= self.sweep_at.clamp(SMALLEST_SWEEP, WATCH_LIMIT) {
            self.drop_abandoned();
            self.sweep_at = self.count * 2;
        }
        self.count < WATCH_LIMIT
    }

    /// Moves the watches of `key` that have another value `now` to `fired`.
    fn check(&mut self, key: &[u8], now: &Snapshot, fired: &mut Vec<Fire>) {
        let Some(waiting) = self.by_key.remove(key) else { return };
        let value = now.value(key).map(|value| fingerprint(value.as_deref()));
        self.count -= waiting.len();
        let mut left = Vec::new();
        for watcher in waiting {
            match &value {
                Ok(value) if *value == watcher.expected => left.push(watcher),
                // The reader of a value that cannot be compared finds out why.
                _ => fired.push(watcher.fire),
            }
        }
        if !left.is_empty() {
            self.count += left.len();
            self.by_key.insert(key.to_vec(), left);
        }
    }

    fn drop_abandoned(&mut self) {
        self.by_key.retain(|_, waiting| {
            waiting.retain(|watcher| !watcher.fire.is_closed());
            !waiting.is_empty()
        });
        self.count = self.by_key.values().map(Vec::len).sum();
    }
}
