//! Commits while the disk is full.

use std::sync::Arc;

use super::{
    super::{
        super::range::Order,
        messages::{Commit, PreparedBatch},
        wal::{LogPosition, Mutation},
        write_map::PendingMutation,
    },
    CommitPipeline,
};
use crate::Error;

/// Maximum size of writes beyond the cleared bytes with which a commit is admitted on a full disk,
/// in bytes: deletions write bookkeeping records.
const MAX_EXCESS_BYTES: usize = 1 << 10;

impl CommitPipeline {
    /// Merges the immutable memtable of a failed checkpoint into the mutable one. The next
    /// checkpoint then includes later clears, and may need less space.
    pub(super) fn thaw_failed_checkpoint(&mut self, applied: LogPosition) -> bool {
        let (immutable, base) = self.head.base.thaw();
        if let Some(mut memtable) = immutable {
            memtable.merge(&self.head.mutable);
            self.head.mutable = memtable;
        }
        self.head.base = Arc::new(base);
        self.checkpoint_requested = applied;
        self.progress.abort();
        let replacement = Some((self.published_version, self.head.clone()));
        self.submit(PreparedBatch { replacement, ..PreparedBatch::default() })
    }

    /// Retries to allocate a WAL segment if none is free.
    pub(super) fn retry_space(&mut self) {
        if self.registry.space.log_is_full() {
            self.log.release(self.progress.first_segment());
            self.registry.space.set_log_full(!self.log.has_next());
        }
    }

    /// Returns the error of a failed append for its callers, and records a lack of space.
    pub(super) fn close_cause(&self, error: Error) -> Error {
        if !self.log.is_full() {
            return error;
        }
        self.registry.space.set_log_full(true);
        self.registry.space.error().with_source(error)
    }

    /// Returns whether `commit` frees more space than it needs, and so may use the reserve.
    pub(super) fn is_admitted_without_space(&self, commit: &Commit) -> bool {
        if self.unflushed_bytes() > self.memtable_bytes {
            return false;
        }
        let (mut written, mut clears) = (0, Vec::new());
        for mutation in &commit.mutations {
            match mutation {
                PendingMutation::Atomic { key, operand, .. } => {
                    written += key.len() + operand.len();
                }
                PendingMutation::Plain(changes) => {
                    for change in changes.iter() {
                        match change {
                            Mutation::Set { key, value } => written += key.len() + value.len(),
                            change => clears.push(change),
                        }
                    }
                }
            }
        }
        let mut freed = 0;
        for clear in clears {
            freed += self.stored_bytes(clear, written);
            if freed > 0 && written <= freed + MAX_EXCESS_BYTES {
                return true;
            }
        }
        false
    }

    /// Returns the size of the rows that `change` clears, in bytes; a lower bound above `enough`.
    fn stored_bytes(&self, change: Mutation<'_>, enough: usize) -> usize {
        let (begin, end) = match change {
            Mutation::Set { .. } => return 0,
            Mutation::Clear { key } => {
                let value = self.head.value(key).ok().flatten();
                return value.map_or(0, |value| key.len() + value.len());
            }
            Mutation::ClearRange { begin, end } => (begin, end),
        };
        let Ok(rows) = self.head.rows(begin, end, Order::Ascending) else { return 0 };
        let mut bytes = 0;
        for row in rows.map_while(Result::ok) {
            bytes += row.key.len() + row.value.len();
            if bytes > enough {
                break;
            }
        }
        bytes
    }
}
