//! Building an index while its records are read and written.
//!
//! A build walks through the records in the order of their keys, in small transactions, each of which
//! reads some records, writes their entries, and keeps how far it has come. So it can be stopped at
//! any point, by a kill too, and goes on where it was; several builders of one index conflict with
//! each other at the position, and none does a piece twice.
//!
//! Why nothing is missed or written twice, whatever is written meanwhile:
//!
//! - From the transaction on that declares the index, whoever writes a record maintains it, or is
//!   refused: the [catalog](super::catalog) sees to that. A record that was written since has its
//!   entries; one that was not, the walk comes to, since a key never changes.
//! - A piece reads its records serializably: one that is changed before the piece commits makes it
//!   conflict, and be read anew. So no entry is made from a record as it was.
//! - Entries that count are kept up by writers only behind the position, and made by the walk ahead of
//!   it. A writer reads the position, and the walk moves it: of two that meet at a record one
//!   conflicts.
//! - A unique value that two records have is found when the walk comes to the second, or by the
//!   writer: the build is refused by the index's name until one of them has changed.

use std::collections::BTreeMap;

use super::{
    catalog::{self, Progress, State},
    maintain,
    walk::Walk,
};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, Store,
    batch::{MAX_CONCURRENT, map_concurrent},
    engine::{self, KeyValue},
    entity::{Declaration, Declared, Entry, Form},
};

/// Maximum number of records of a piece, if not set.
const ROWS: usize = 500;
/// A piece ends with the record at which those read come to this many bytes, if not said.
const BYTES: usize = 1 << 20;
/// A piece ends with the record at which what it writes comes to this many bytes.
const WRITTEN: usize = 900_000;

/// The build of one index: made by [`Store::build`].
#[derive(Clone, Debug)]
pub struct IndexBuild {
    store: Store,
    declaration: Declaration,
    index: Declared,
    size: BatchSize,
    bytes: usize,
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// Records that were examined since it began, by all builders. A record that was written anew
    /// behind the position does not count.
    pub examined: u64,
    /// Whether the index is readable now.
    pub done: bool,
}

impl IndexBuild {
    pub(crate) fn new(store: Store, index: &Declared) -> Result<Self> {
        let declaration = store.registry().declaration(index.space).cloned();
        let declaration = declaration
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an index of no space was declared"))?;
        let size = BatchSize::new(ROWS);
        Ok(Self { store, declaration, index: index.clone(), size, bytes: BYTES })
    }

    /// At most `rows` records a step, and at least one; 500 if not said.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { size: BatchSize::new(rows), ..self }
    }

    /// A step ends with the record at which those read come to `bytes`; one mebibyte if not said.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes.max(1), ..self }
    }

    /// The next piece, in one transaction; in a smaller one each time that it conflicts.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the index's name if two records have one value; `Corrupt` or `NewerFormat` if a
    /// record cannot be read. What was built before stays, and the build can go on.
    pub async fn step(&self) -> Result<BuildProgress> {
        let step = |tx| async move { self.piece(&tx, self.size.attempt()).await };
        let progress = self.store.database().run(step).await?;
        self.size.committed();
        Ok(progress)
    }

    /// All that is left, step by step; `observe` is told after each.
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

    /// How many records there are, for who wants to tell how much is left: the whole of the space is
    /// read, piece by piece, so it is exact only if nothing is written meanwhile.
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
        let Declaration { space, place, .. } = self.declaration;
        Walk { root: self.store.root(), place, name: space }
    }

    /// Returns the entries of this index for the record in `row`, beside its own if `anew`.
    fn entries(&self, row: &KeyValue, anew: bool) -> Result<Vec<Entry>> {
        let root = self.store.root();
        let mut entries = (self.declaration.entries)(root, row)?;
        entries.retain(|entry| entry.index == self.index.name);
        if anew {
            entries = entries.iter().map(|entry| maintain::shadow(root, entry)).collect();
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

    /// Writes the entries of the next records, beside the index's own if `anew`; returns the new
    /// position and whether those were all. Reads the unique values of a hundred records at once.
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
                maintain::require_lengths(root, self.declaration.space, &entries)?;
                refuse_others(&mut taken, &entries)?;
                maintain::write(tx, &entries);
                progress.examined += 1;
                let key = row.key.strip_prefix(root.as_bytes()).unwrap_or(&row.key);
                progress.position = [key, &[0]].concat();
            }
        }
        let done = piece.next.is_none();
        progress.position = piece.next.unwrap_or(progress.position);
        Ok((progress, done))
    }
}

/// By the keys of unique entries, which record has the value.
pub(super) type UniqueValues = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads which of the unique `entries` are there. One round of reads for each hundred.
pub(super) async fn unique_values<'a>(
    tx: &engine::Transaction,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<UniqueValues> {
    let unique = entries.filter(|entry| entry.form == Form::Unique);
    let unique: Vec<Vec<u8>> = unique.map(|entry| entry.key.clone()).collect();
    let read = |key: Vec<u8>| async move {
        let value = tx.get(&key).await?;
        Ok(value.map(|value| (key, value)))
    };
    Ok(map_concurrent(unique, read).await?.into_iter().flatten().collect())
}

/// Refuses a unique value that another record has, and takes those of `entries`.
pub(super) fn refuse_others(taken: &mut UniqueValues, entries: &[Entry]) -> Result<()> {
    for entry in entries.iter().filter(|entry| entry.form == Form::Unique) {
        let there = taken.insert(entry.key.clone(), entry.value.clone());
        maintain::refuse(there.filter(|there| *there != entry.value).map(|_| entry.index))?;
    }
    Ok(())
}
