//! What becomes of commits while the disk is full.

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

/// Bytes that a commit may write beyond those that it clears, and still be admitted without space:
/// a deletion leaves notes of itself.
const MAX_EXCESS: usize = 1 << 10;

impl CommitPipeline {
    /// Makes what a failed checkpoint was to move part of the newest memtable again. So the next
    /// one has what was cleared since, too, and may need less.
    pub(super) fn take_back(&mut self, applied: LogPosition) -> bool {
        let (immutable, base) = self.head.base.thaw();
        if let Some(mut memtable) = immutable {
            memtable.merge(&self.head.mutable);
            self.head.mutable = memtable;
        }
        self.head.base = Arc::new(base);
        self.checkpoint_requested = applied;
        self.progress.give_up();
        let replacement = Some((self.published_version, self.head.clone()));
        self.hand_over(PreparedBatch { replacement, ..PreparedBatch::default() })
    }

    /// Tries to get a segment, if the log lacks one.
    pub(super) fn look_for_space(&mut self) {
        if self.registry.space.log_is_full() {
            self.log.release(self.progress.first_segment());
            self.registry.space.set_log_full(!self.log.has_next());
        }
    }

    /// Returns the cause of a failed append for its callers, and notes if it is want of space.
    pub(super) fn close_cause(&self, error: Error) -> Error {
        if !self.log.is_full() {
            return error;
        }
        self.registry.space.set_log_full(true);
        self.registry.space.error().with_source(error)
    }

    /// Returns whether `commit` frees more than it takes, and so may use what is kept in reserve.
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
            if freed > 0 && written <= freed + MAX_EXCESS {
                return true;
            }
        }
        false
    }

    /// Returns the bytes that `change` clears, or the first of them beyond `enough`.
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
