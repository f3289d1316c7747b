//! Published snapshots that are pinned for the lifetime of a view.

use std::sync::Arc;

use super::{Shared, snapshot::Snapshot};
use crate::{
    Result,
    engine::range::{CheckedRow, Order, ViewPage},
};

/// A published snapshot. The B-tree file keeps its pages until it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct PinnedSnapshot {
    shared: Arc<Shared>,
    version: u64,
    snapshot: Arc<Snapshot>,
}

impl PinnedSnapshot {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        shared.registry.owner.check()?;
        let published = shared.registry.latest()?;
        let snapshot = published.snapshot()?;
        Ok(Self { shared, version: published.version, snapshot })
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.shared.disk.is_slow() {
            return self.get_now(key);
        }
        let (pinned, key) = (self.clone(), key.to_vec());
        self.shared.spawn_blocking_read(move || pinned.get_now(&key)).await
    }

    pub(crate) async fn page(&self, begin: &[u8], end: &[u8], bytes: usize) -> Result<ViewPage> {
        if !self.shared.disk.is_slow() {
            return self.page_now(begin, end, bytes);
        }
        let (pinned, begin, end) = (self.clone(), begin.to_vec(), end.to_vec());
        self.shared.spawn_blocking_read(move || pinned.page_now(&begin, &end, bytes)).await
    }

    fn get_now(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(|snapshot| snapshot.value(key))
    }

    fn page_now(&self, begin: &[u8], end: &[u8], bytes: usize) -> Result<ViewPage> {
        self.read(|snapshot| {
            let mut stored = snapshot.rows(begin, end, Order::Ascending)?;
            let mut page = ViewPage { rows: Vec::new(), more: true };
            let mut read = 0;
            while read < bytes {
                let Some((key, value)) = stored.next_checked()? else {
                    page.more = false;
                    break;
                };
                read += key.len() + value.as_ref().map_or(0, Vec::len);
                page.rows.push(CheckedRow { key, value });
            }
            Ok(page)
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        let registry = &self.shared.registry;
        registry.owner.check()?;
        registry.check_open()?;
        read(&self.snapshot).map_err(|error| registry.close_cause(error))
    }
}
