//! Who waits for which key.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    super::limits::{self, WATCH_LIMIT},
    conflicts::KeyRange,
    storage::Snapshot,
};
use crate::Result;

/// One who waits: fired when the key's value is no longer `expected`.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) key: Vec<u8>,
    pub(super) expected: Option<Vec<u8>>,
    pub(super) fire: oneshot::Sender<Result<()>>,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_key: BTreeMap<Vec<u8>, Vec<Watcher>>,
    count: usize,
}

impl Watches {
    /// Begins to wait, or fires at once if `now`, the newest state, has another value already. A
    /// later state reaches [`changed`](Self::changed) after this.
    pub(super) fn add(&self, watcher: Watcher, now: impl FnOnce() -> Option<Snapshot>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count >= WATCH_LIMIT {
            table.drop_abandoned();
        }
        if table.count >= WATCH_LIMIT {
            let _ = watcher.fire.send(Err(limits::too_many_watches()));
            return;
        }
        let Some(now) = now() else {
            let _ = watcher.fire.send(Err(limits::closed()));
            return;
        };
        match now.value(&watcher.key) {
            Err(error) => drop(watcher.fire.send(Err(error))),
            Ok(value) if value != watcher.expected => drop(watcher.fire.send(Ok(()))),
            Ok(_) => {
                table.count += 1;
                table.by_key.entry(watcher.key.clone()).or_default().push(watcher);
            }
        }
    }

    /// Fires those whose keys lie in `written` and have another value in `now`.
    pub(super) fn changed(&self, written: &[KeyRange], now: &Snapshot) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count == 0 {
            return;
        }
        for (begin, end) in written {
            let keys: Vec<_> = table
                .by_key
                .range(begin.clone()..end.clone())
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                table.check(&key, now);
            }
        }
    }

    /// Whether another one may be added.
    pub(super) fn have_room(&self) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count >= WATCH_LIMIT {
            table.drop_abandoned();
        }
        table.count < WATCH_LIMIT
    }

    /// Tells all that nothing will change any more.
    pub(super) fn close(&self) {
        let table = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for watcher in table.by_key.into_values().flatten() {
            let _ = watcher.fire.send(Err(limits::closed()));
        }
    }
}

impl Table {
    fn check(&mut self, key: &[u8], now: &Snapshot) {
        let value = now.value(key);
        let Some(waiting) = self.by_key.remove(key) else { return };
        self.count -= waiting.len();
        let mut left = Vec::new();
        for watcher in waiting {
            match &value {
                Ok(value) if *value == watcher.expected => left.push(watcher),
                // One that can't be compared is told to look for itself.
                _ => drop(watcher.fire.send(Ok(()))),
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
