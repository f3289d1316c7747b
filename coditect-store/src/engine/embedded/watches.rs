//! Watches: callers that wait for the value of a key to change.

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

/// A registered watch. Fires when the value of its key differs from the expected one.
#[derive(Debug)]
pub(super) struct Watcher {
    key: Vec<u8>,
    expected: Fingerprint,
    pub(super) fire: Fire,
}

type Fire = oneshot::Sender<Result<()>>;

/// The hash of a value, so that watches of large values need little memory; `None` for no value.
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

/// The registered watches of an engine.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_key: BTreeMap<Vec<u8>, Vec<Watcher>>,
    count: usize,
    /// Number of watches at which abandoned ones are removed.
    sweep_at: usize,
}

/// Minimum number of watches at which abandoned ones are removed.
const MIN_SWEEP: usize = 64;

impl Watches {
    /// Registers a watch, or fires it at once if its key has another value `now`, at the latest
    /// version. Later versions reach [`changed`](Self::changed) after this.
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
        // The waker may register another watch.
        drop(table);
        wake::answer(watcher.fire, fired);
    }

    /// Fires the watches of changed keys whose value differs in `now`.
    pub(super) fn changed(&self, mutations: &[MutationBatch], now: &Snapshot) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count == 0 {
            return;
        }
        let mut fired = Vec::new();
        for change in mutations.iter().flat_map(MutationBatch::iter) {
            match change {
                Mutation::Set { key, .. } | Mutation::Clear { key } => {
                    table.check(key, now, &mut fired);
                }
                Mutation::ClearRange { begin, end } => {
                    let within = (Bound::Included(begin), Bound::Excluded(end.max(begin)));
                    let watched = table.by_key.range::<[u8], _>(within);
                    let keys: Vec<_> = watched.map(|(key, _)| key.clone()).collect();
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

    /// Returns whether another watch may be registered.
    pub(super) fn have_room(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_room()
    }

    /// Fails all watches with `cause`, when the engine closes.
    pub(super) fn close(&self, cause: impl Fn() -> Error) {
        let table = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for watcher in table.by_key.into_values().flatten() {
            wake::answer(watcher.fire, Err(cause()));
        }
    }
}

impl Table {
    /// Returns whether another watch fits, after removing abandoned ones if necessary.
    fn has_room(&mut self) -> bool {
        if self.count >= self.sweep_at.clamp(MIN_SWEEP, WATCH_LIMIT) {
            self.drop_abandoned();
            self.sweep_at = self.count * 2;
        }
        self.count < WATCH_LIMIT
    }

    /// Moves the watches of `key` whose value differs in `now` to `fired`.
    fn check(&mut self, key: &[u8], now: &Snapshot, fired: &mut Vec<Fire>) {
        let Some(waiting) = self.by_key.remove(key) else { return };
        let value = now.value(key).map(|value| fingerprint(value.as_deref()));
        self.count -= waiting.len();
        let mut left = Vec::new();
        for watcher in waiting {
            match &value {
                Ok(value) if *value == watcher.expected => left.push(watcher),
                // Also fires if the value cannot be read: the caller's next read returns the error.
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
