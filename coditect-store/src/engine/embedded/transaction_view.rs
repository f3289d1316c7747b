//! A transaction's view of the store: its own writes over the snapshot that it reads.

use std::sync::Arc;

use super::{
    super::limits::{self, LIFETIME},
    snapshot_cache::SnapshotCache,
    sync::Instant,
    version_registry::{CommittedVersion, VersionRegistry},
    write_map::WriteMap,
};
use crate::Result;

/// A transaction's read version, fixed by its first read.
#[derive(Debug, Default)]
pub(super) struct ReadPoint {
    /// The version that `set_read_version` set.
    pub(super) requested: Option<u64>,
    /// The version that is read, and the time from which the transaction's lifetime counts.
    pub(super) pinned: Option<(Arc<CommittedVersion>, Instant)>,
}

impl ReadPoint {
    /// Returns whether the transaction has no read version.
    pub(super) fn is_unset(&self) -> bool {
        self.requested.is_none() && self.pinned.is_none()
    }

    /// Returns the version to read, and fixes it in the first call.
    ///
    /// # Errors
    ///
    /// `TransactionTooOld` after [`LIFETIME`]; `Closed`.
    pub(super) fn get(&mut self, registry: &VersionRegistry) -> Result<&Arc<CommittedVersion>> {
        let now = Instant::now();
        registry.check_owner(now)?;
        if let Some((_, since)) = &self.pinned {
            registry.check_open()?;
            if now - *since > LIFETIME {
                return Err(limits::too_old());
            }
        } else {
            self.pinned = Some(match self.requested {
                Some(version) => registry.snapshot_at(version)?,
                None => (registry.latest()?, now),
            });
        }
        let pinned = self.pinned.as_ref();
        pinned.map(|(published, _)| published).ok_or_else(|| registry.closed())
    }
}

/// The writes of a transaction and the snapshot below them.
pub(super) struct TransactionView<'a> {
    pub(super) writes: &'a WriteMap,
    /// The stored state, requested only when needed, since the first request fixes the read
    /// version.
    pub(super) point: &'a mut ReadPoint,
    pub(super) registry: &'a VersionRegistry,
    /// The part of the snapshot that was read so far.
    pub(super) cache: &'a mut SnapshotCache,
}

impl TransactionView<'_> {
    /// Returns the stored state that the transaction reads. The first call fixes its read version.
    pub(super) fn stored(&mut self) -> Result<&CommittedVersion> {
        self.point.get(self.registry).map(|published| &**published)
    }
}
