//! Removing the entries of a retired index, in transactions of bounded size.
//!
//! An index is retired when the store is opened: see the [catalog](super::catalog). From then on it is
//! written by no program, and read by none that looks at the epoch. One that has cached the catalog
//! reads by it for [`CACHE_LIFETIME`] more, so a removal begins later than that.

use std::time::{Duration, Instant};

use super::{
    catalog::{self, CACHE_LIFETIME, Progress},
    maintain,
    walk::Walk,
};
use crate::{
    BatchLimit, BatchSize, Result, Store,
    engine::{self, timer},
    keyspace::KeyRange,
};

/// The most entries of a step, if not said.
const ROWS: usize = 500;
/// A step ends with the entry at which the values read come to this many bytes.
const BYTES: usize = 1 << 20;
/// How long a removal waits before its first step, if not said: until no process trusts what it has
/// cached from before.
const DELAY: Duration = CACHE_LIFETIME.saturating_mul(2);

/// The removal of the entries of one retired index: made by [`Store::remove_retired`].
#[derive(Clone, Debug)]
pub struct IndexRemoval {
    store: Store,
    index: String,
    size: BatchSize,
    delay: Duration,
    made: Instant,
}

/// How far a removal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovalProgress {
    /// Entries that were removed since it began, by all processes; 0 once it is done.
    pub removed: u64,
    /// Whether no entries are left.
    pub done: bool,
}

impl IndexRemoval {
    pub(crate) fn new(store: Store, index: String) -> Self {
        let size = BatchSize::new(ROWS);
        Self { store, index, size, delay: DELAY, made: Instant::now() }
    }

    /// At most `rows` entries a step, and at least one; 500 if not said.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { size: BatchSize::new(rows), ..self }
    }

    /// Waits for `delay` from when the removal was made before its first step; a minute if not said.
    /// Shorter is right only if no other process has the store open.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Removes the next entries, in one transaction. An index that has none, or was never retired, is
    /// found to be done.
    ///
    /// # Errors
    ///
    /// Those of [`Store::run`]. What was removed before stays so, and the removal can go on.
    pub async fn step(&self) -> Result<RemovalProgress> {
        let left = self.delay.saturating_sub(self.made.elapsed());
        if !left.is_zero() {
            timer::sleep(left).await?;
        }
        // Once more is the same: the position moves with what is removed.
        let step = |tx: crate::Transaction, limit: BatchLimit| async move {
            self.piece(tx.engine(), limit).await
        };
        self.store.run_batch(&self.size, step).await
    }

    /// Removes all entries that are left, step by step; `observe` is told after each.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn run(&self, mut observe: impl FnMut(RemovalProgress)) -> Result<RemovalProgress> {
        loop {
            let progress = self.step().await?;
            observe(progress);
            if progress.done {
                return Ok(progress);
            }
        }
    }

    async fn piece(&self, tx: &engine::Transaction, limit: BatchLimit) -> Result<RemovalProgress> {
        let (root, name) = (self.store.root(), self.index.as_str());
        let Some((place, progress)) = catalog::read_removal(tx, root, name).await? else {
            return Ok(RemovalProgress { removed: 0, done: true });
        };
        let walk = Walk { root, place, name };
        let piece = walk.piece(tx, &progress.position, limit, limit.scale(BYTES)).await?;
        for row in &piece.rows {
            maintain::remove(tx, &row.key);
        }
        let removed = progress.examined + piece.rows.len() as u64;
        let Some(position) = piece.next else {
            // What was counted anew when it was retired.
            let shadows = KeyRange::tuples(&maintain::shadows(root, name));
            tx.clear_range(&shadows.begin, &shadows.end);
            catalog::end_removal(tx, root, name);
            return Ok(RemovalProgress { removed, done: true });
        };
        catalog::write_removal(tx, root, name, &Progress { position, examined: removed });
        Ok(RemovalProgress { removed, done: false })
    }
}
