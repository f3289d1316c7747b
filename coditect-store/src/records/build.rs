//! Building an index while its records are read and written.
//!
//! A build walks through the records in key order, in small transactions that each read some
//! records, write their entries, and store the position. It can be interrupted at any point and
//! resumes there. Concurrent builders of one index conflict at the position, so no record is
//! processed twice.
//!
//! # Invariants
//!
//! - From the transaction that declares the index, every writer maintains it or is rejected: see
//!   the [catalog](super::catalog). A record written since then has its entries; the walk reaches
//!   every other record, since keys never change.
//! - Records are read serializably: a record that changes before the step commits makes it
//!   conflict, so no entry is made from an outdated record.
//! - Writers maintain the entries of a counting index only behind the position; the walk makes the
//!   ones ahead of it. Writers read the position and the walk moves it, so of two that meet at a
//!   record one conflicts.
//! - A unique value of two records is found by the walk or by the writer of the second: the build
//!   fails with the name of the index until one of them changes.

use std::collections::BTreeMap;

use super::{
    catalog::{self, Progress, State},
    index_maintainer,
    walk::Walk,
};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, Store,
    batch::{MAX_CONCURRENT, map_concurrent},
    engine::{self, KeyValue},
    entity::{EntitySchema, Entry, IndexKind, SchemaEntry},
};

/// Maximum number of records per step, by default.
const ROWS: usize = 500;
/// Size of the records at which a step ends, in bytes, by default.
const BYTES: usize = 1 << 20;
/// Transaction size at which a step ends, in bytes.
const WRITTEN: usize = 900_000;

/// The build of one index. Created by [`Store::build`].
#[derive(Clone, Debug)]
pub struct IndexBuild {
    store: Store,
    declaration: EntitySchema,
    index: SchemaEntry,
    size: BatchSize,
    bytes: usize,
}

/// The progress of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// Number of records examined, by all builders, without those written behind the position.
    pub examined: u64,
    /// Whether the index is readable.
    pub done: bool,
}

impl IndexBuild {
    pub(crate) fn new(store: Store, index: &SchemaEntry) -> Result<Self> {
        let declaration = store.schema().entity(index.space).cloned();
        let declaration = declaration
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an index of no space was declared"))?;
        let size = BatchSize::new(ROWS);
        Ok(Self { store, declaration, index: index.clone(), size, bytes: BYTES })
    }

    /// Sets the maximum number of records per step, at least 1; 500 by default.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { size: BatchSize::new(rows), ..self }
    }

    /// Sets the size of the records at which a step ends; 1 MiB by default.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes.max(1), ..self }
    }

    /// Runs the next step, in one transaction. Each attempt after a failed one is half as large.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the index's name if two records have one value; `Corrupt` or
    /// `NewerFormat` if a record cannot be read. Completed steps are kept, and the build can be
    /// resumed.
    pub async fn step(&self) -> Result<BuildProgress> {
        let step = |tx| async move { self.piece(&tx, self.size.attempt()).await };
        let progress = self.store.database().run(step).await?;
        self.size.committed();
        Ok(progress)
    }

    /// Runs all remaining steps, and calls `observe` after each.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn run(&self, mut observe: impl FnMut(BuildProgress)) -> Result<BuildProgress> {
        loop {
            let progress = self.step().await?;
            observe(progress);
            if progress.done {
                return Ok(progress);
            }
        }
    }

    /// Returns the number of records, for a progress display. Reads the whole subspace, in several
    /// transactions; concurrent writes may be missed.
    pub async fn total(&self) -> Result<u64> {
        let (mut total, mut from) = (0, Vec::new());
        loop {
            let behind = &from;
            let piece = |tx: engine::Transaction| async move {
                let limit = self.size.attempt();
                self.walk().piece(&tx, behind, limit, limit.scale(self.bytes)).await
            };
            let piece = self.store.database().run(piece).await?;
            self.size.committed();
            total += piece.rows.len() as u64;
            match piece.next {
                Some(next) => from = next,
                None => return Ok(total),
            }
        }
    }

    fn walk(&self) -> Walk<'_> {
        let EntitySchema { space, scope_kind, .. } = self.declaration;
        Walk { root: self.store.root(), scope_kind, name: space }
    }

    /// Returns the entries of this index for the record in `row`, or their recount entries if
    /// `anew`.
    fn entries(&self, row: &KeyValue, anew: bool) -> Result<Vec<Entry>> {
        let root = self.store.root();
        let mut entries = (self.declaration.entries)(root, row)?;
        entries.retain(|entry| entry.index == self.index.name);
        if anew {
            entries = entries.iter().map(|entry| index_maintainer::shadow(root, entry)).collect();
        }
        Ok(entries)
    }

    async fn piece(&self, tx: &engine::Transaction, limit: BatchLimit) -> Result<BuildProgress> {
        let (root, index) = (self.store.root(), self.index.name);
        let progress = match catalog::read_state(tx, root, index).await? {
            State::WriteOnly(progress) => progress,
            State::Readable | State::Recount(_) => {
                return Ok(BuildProgress { examined: 0, done: true });
            }
        };
        let (progress, done) = self.walk_on(tx, &progress, limit, false).await?;
        let state = if done { State::Readable } else { State::WriteOnly(progress.clone()) };
        catalog::write_state(tx, root, index, &state);
        if done {
            catalog::advance_epoch(tx, root).await?;
        }
        Ok(BuildProgress { examined: progress.examined, done })
    }

    /// Writes the entries of the next records, or their recount entries if `anew`. Returns the new
    /// position, and whether these were the last records.
    pub(super) async fn walk_on(
        &self,
        tx: &engine::Transaction,
        from: &Progress,
        limit: BatchLimit,
        anew: bool,
    ) -> Result<(Progress, bool)> {
        let root = self.store.root();
        let bytes = limit.scale(self.bytes);
        let piece = self.walk().piece(tx, &from.position, limit, bytes).await?;
        let mut progress = from.clone();
        for rows in piece.rows.chunks(MAX_CONCURRENT) {
            if limit.is_spent() && progress != *from {
                return Ok((progress, false));
            }
            let entries = rows.iter().map(|row| self.entries(row, anew));
            let entries = entries.collect::<Result<Vec<_>>>()?;
            let mut taken = unique_values(tx, entries.iter().flatten()).await?;
            for (row, entries) in rows.iter().zip(entries) {
                if tx.approximate_size().await? > WRITTEN && progress != *from {
                    return Ok((progress, false));
                }
                index_maintainer::require_lengths(root, self.declaration.space, &entries)?;
                refuse_others(&mut taken, &entries)?;
                index_maintainer::write(tx, &entries);
                progress.examined = progress.examined.saturating_add(1);
                let key = row.key.strip_prefix(root.as_bytes()).unwrap_or(&row.key);
                progress.position = [key, &[0]].concat();
            }
        }
        let done = piece.next.is_none();
        progress.position = piece.next.unwrap_or(progress.position);
        Ok((progress, done))
    }
}

/// The pointers of unique entries, by key.
pub(super) type UniqueValues = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads the unique `entries` that exist. One round of reads per hundred.
pub(super) async fn unique_values<'a>(
    tx: &engine::Transaction,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<UniqueValues> {
    let unique = entries.filter(|entry| entry.kind == IndexKind::Unique);
    let unique: Vec<Vec<u8>> = unique.map(|entry| entry.key.clone()).collect();
    let read = |key: Vec<u8>| async move {
        let value = tx.get(&key).await?;
        Ok(value.map(|value| (key, value)))
    };
    Ok(map_concurrent(unique, read).await?.into_iter().flatten().collect())
}

/// Fails with `UniqueViolation` if another record has a value of `entries`; adds the values
/// otherwise.
pub(super) fn refuse_others(taken: &mut UniqueValues, entries: &[Entry]) -> Result<()> {
    for entry in entries.iter().filter(|entry| entry.kind == IndexKind::Unique) {
        let there = taken.insert(entry.key.clone(), entry.value.clone());
        index_maintainer::reject(there.filter(|there| *there != entry.value).map(|_| entry.index))?;
    }
    Ok(())
}
