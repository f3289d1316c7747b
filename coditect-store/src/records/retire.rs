//! Removes the entries of a retired index, in transactions of bounded size.
//!
//! An index is retired when the store is opened: see the [catalog](super::catalog). From then on no
//! program writes it, and no program that reads the epoch reads it. A program with a cached catalog
//! may read it for another [`CACHE_LIFETIME`], so a removal starts after that time.

use std::time::{Duration, Instant};

use super::{
    catalog::{self, CACHE_LIFETIME, Progress},
    index_maintainer,
    walk::Walk,
};
use crate::{
    BatchLimit, BatchSize, Result, Store,
    engine::{self, timer},
    keyspace::KeyRange,
};

/// Maximum number of entries per step, by default.
const ROWS: usize = 500;
/// Size of the values read at which a step ends, in bytes.
const BYTES: usize = 1 << 20;
/// Delay before the first step, by default, after which no process trusts an older cache.
const DELAY: Duration = CACHE_LIFETIME.saturating_mul(2);

/// The removal of a retired index's entries. Created by [`Store::remove_retired`].
#[derive(Clone, Debug)]
pub struct IndexRemoval {
    store: Store,
    index: String,
    size: BatchSize,
    delay: Duration,
    made: Instant,
}

/// The progress of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovalProgress {
    /// Number of removed entries, by all processes; 0 once it is done.
    pub removed: u64,
    /// Whether no entries are left.
    pub done: bool,
}

impl IndexRemoval {
    pub(crate) fn new(store: Store, index: String) -> Self {
        let size = BatchSize::new(ROWS);
        Self { store, index, size, delay: DELAY, made: Instant::now() }
    }

    /// Sets the maximum number of entries per step, at least 1; 500 by default.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { size: BatchSize::new(rows), ..self }
    }

    /// Sets the delay between the creation of this removal and its first step; one minute by
    /// default. A shorter delay is safe only if no other process has the store open.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Removes the next entries, in one transaction. Returns that it is done for an index that has
    /// no entries or is not retired.
    ///
    /// # Errors
    ///
    /// Errors of [`Store::run`]. Removed entries stay removed, and the removal can be resumed.
    pub async fn step(&self) -> Result<RemovalProgress> {
        let left = self.delay.saturating_sub(self.made.elapsed());
        if !left.is_zero() {
            timer::sleep(left).await?;
        }
        // Idempotent: the position moves with the removed entries.
        let step = |tx: crate::Transaction, limit: BatchLimit| async move {
            self.piece(tx.engine(), limit).await
        };
        self.store.run_batch(&self.size, step).await
    }

    /// Runs all remaining steps, and calls `observe` after each.
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
        let Some((scope_kind, progress)) = catalog::read_removal(tx, root, name).await? else {
            return Ok(RemovalProgress { removed: 0, done: true });
        };
        let walk = Walk { root, scope_kind, name };
        let piece = walk.piece(tx, &progress.position, limit, limit.scale(BYTES)).await?;
        for row in &piece.rows {
            index_maintainer::remove(tx, &row.key);
        }
        let removed = progress.examined.saturating_add(piece.rows.len() as u64);
        let Some(position) = piece.next else {
            // An interrupted recount.
            let shadows = KeyRange::tuples(&index_maintainer::shadows(root, name));
            tx.clear_range(&shadows.begin, &shadows.end);
            catalog::end_removal(tx, root, name);
            return Ok(RemovalProgress { removed, done: true });
        };
        catalog::write_removal(tx, root, name, &Progress { position, examined: removed });
        Ok(RemovalProgress { removed, done: false })
    }
}
