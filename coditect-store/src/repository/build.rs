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

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{
    catalog::{self, Progress, State},
    maintain,
    walk::Walk,
};
use crate::{
    Error, ErrorKind, Result, Store, engine,
    entity::{Declaration, Declared, Entry, Form},
};

/// The most records of a piece, if not said.
const ROWS: usize = 500;
/// A piece ends with the record at which those read come to this many bytes, if not said.
const BYTES: usize = 1 << 20;
/// A piece ends with the record at which what it writes comes to this many bytes.
const WRITTEN: usize = 900_000;
/// A piece ends with the record that is looked at after this long: well within a transaction's life.
const TIME: Duration = Duration::from_secs(1);

/// The build of one index: made by [`Store::build`].
#[derive(Clone, Debug)]
pub struct IndexBuild {
    store: Store,
    declaration: Declaration,
    index: Declared,
    rows: usize,
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
        Ok(Self { store, declaration, index: index.clone(), rows: ROWS, bytes: BYTES })
    }

    /// At most `rows` records a step, and at least one; 500 if not said.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
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
    /// `Unique` with the index's name if two records have one value; `Corrupt` or `NewerFormat` if a
    /// record cannot be read. What was built before stays, and the build can go on.
    pub async fn step(&self) -> Result<BuildProgress> {
        let attempts = &AtomicU32::new(0);
        let step = |tx| async move {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            self.piece(&tx, (self.rows >> attempt.min(16)).max(1)).await
        };
        self.store.database().run(step).await
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
                self.walk().piece(&tx, behind, self.rows, self.bytes).await
            };
            let piece = self.store.database().run(piece).await?;
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

    async fn piece(&self, tx: &engine::Transaction, rows: usize) -> Result<BuildProgress> {
        let (root, index) = (self.store.root(), self.index.name);
        let progress = match catalog::read_state(tx, root, index).await? {
            State::WriteOnly(progress) => progress,
            State::Readable | State::Recount(_) => {
                return Ok(BuildProgress { examined: 0, done: true });
            }
        };
        let (progress, done) = self.walk_on(tx, &progress, rows, false).await?;
        let state = if done { State::Readable } else { State::WriteOnly(progress.clone()) };
        catalog::write_state(tx, root, index, &state);
        if done {
            catalog::advance_epoch(tx, root).await?;
        }
        Ok(BuildProgress { examined: progress.examined, done })
    }

    /// Writes the entries of the next records, beside the index's own if `anew`, and says how far
    /// that is and whether it was all.
    pub(super) async fn walk_on(
        &self,
        tx: &engine::Transaction,
        from: &Progress,
        rows: usize,
        anew: bool,
    ) -> Result<(Progress, bool)> {
        let (root, began) = (self.store.root(), Instant::now());
        let piece = self.walk().piece(tx, &from.position, rows, self.bytes).await?;
        let mut progress = from.clone();
        for row in &piece.rows {
            let much = tx.approximate_size().await? > WRITTEN || began.elapsed() > TIME;
            if much && progress != *from {
                return Ok((progress, false));
            }
            let mut entries = (self.declaration.entries)(root, row)?;
            entries.retain(|entry| entry.index == self.index.name);
            if anew {
                entries = entries.iter().map(|entry| maintain::shadow(root, entry)).collect();
            }
            maintain::require_lengths(root, self.declaration.space, &entries)?;
            refuse_others(tx, &entries).await?;
            maintain::write(tx, &entries);
            progress.examined += 1;
            let key = row.key.strip_prefix(root.as_bytes()).unwrap_or(&row.key);
            progress.position = [key, &[0]].concat();
        }
        let done = piece.next.is_none();
        progress.position = piece.next.unwrap_or(progress.position);
        Ok((progress, done))
    }
}

/// Refuses a unique value that another record has.
async fn refuse_others(tx: &engine::Transaction, entries: &[Entry]) -> Result<()> {
    for entry in entries.iter().filter(|entry| entry.form == Form::Unique) {
        let there = tx.get(&entry.key).await?;
        maintain::refuse(there.filter(|there| *there != entry.value).map(|_| entry.index))?;
    }
    Ok(())
}
