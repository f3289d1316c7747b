//! Import: restores a store, or a tenant of one, from an archive.
//!
//! An import can be interrupted anywhere: the [marker](crate::store::import_marker) has the
//! archive's id and the number of imported rows, and moves in the transactions that write the rows.
//! A resumed import skips that many rows, but verifies them. Concurrent imports conflict at the
//! marker, and one of them fails. Each step recognizes its own earlier attempt by the marker, so it
//! is retried after an unknown outcome.

use tokio::io::{AsyncRead, AsyncSeek, AsyncSeekExt};

use super::{Manifest, Progress, Summary, reader::Reader};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, StoreOptions,
    batch::MAX_CONCURRENT,
    check::meta,
    engine::{self, Database, KEY_SIZE_LIMIT, KeyValue, RangeQuery, VALUE_SIZE_LIMIT},
    entity::{META, Schema},
    keyspace::{KeyRange, Located, Readable, Root},
    model::Deletion,
    records,
    retry::{self, RetryPolicy},
    store::{self, import_marker::Marker},
};

/// Maximum number of rows per transaction, by default.
const ROWS: usize = 4_000;
/// Size of the rows at which a transaction ends, in bytes.
const BYTES: usize = 900_000;
/// Transaction size at which a transaction of a tenant's rows ends, in bytes, with index entries
/// and conflict ranges.
const SIZE: usize = 900_000;
/// Size at which a group of rows that are written together ends, in bytes.
const GROUP_BYTES: usize = 100_000;

/// An import. Created by [`StoreOptions::import`].
#[derive(Clone, Debug)]
pub struct Import {
    database: Database,
    options: StoreOptions,
    rows: usize,
}

impl StoreOptions {
    /// Returns an import of an archive into `database`: of a store, or of a tenant into a store.
    /// Set the root and the entities as for [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// `Invalid` if a name is declared twice.
    pub fn import(self, database: Database) -> Result<Import> {
        Import::new(database, self)
    }
}

impl Import {
    fn new(database: Database, options: StoreOptions) -> Result<Self> {
        options.declared().check()?;
        Ok(Self { database, options, rows: ROWS })
    }

    /// Sets the maximum number of rows per transaction, at least 1; 4,000 by default.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Reads a whole archive, and checks that this program can import it, without writing. Calls
    /// `observe` after each frame.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the archive is damaged, with the offset, or not a store's; `NewerFormat` if a
    /// newer program wrote it, or it has an undeclared index; `SchemaMismatch` with the name of a
    /// different declaration; `UniqueViolation`, for a tenant, with the index's name if another
    /// tenant has one of its values; `Unavailable` if it cannot be read.
    pub async fn verify<R: AsyncRead + Unpin>(
        &self,
        source: R,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let mut reader = Reader::open(source).await?;
        let manifest = reader.manifest().await?;
        admit(&manifest)?;
        let mut newest = 0;
        while let Some(rows) = reader.rows().await? {
            newest = newest.max(self.admit_rows(&manifest, &rows)?);
            if manifest.tenant.is_some() {
                self.reject_rivals(&rows).await?;
            }
            observe(reader.progress());
        }
        let summary = reader.summary()?;
        admit_versions(&summary, newest)?;
        Ok(summary)
    }

    /// As [`run`](Self::run), after a [verification](Self::verify) of the whole archive. Reads
    /// `source` twice, from its current position.
    ///
    /// # Errors
    ///
    /// Errors of both.
    pub async fn run_verified<R: AsyncRead + AsyncSeek + Unpin>(
        &self,
        mut source: R,
        mut observe: impl FnMut(Step),
    ) -> Result<Summary> {
        let unreadable = |cause| {
            Error::new(ErrorKind::Unavailable, "cannot read the archive again").with_source(cause)
        };
        let begin = source.stream_position().await.map_err(unreadable)?;
        let verified =
            self.verify(&mut source, |progress| observe(Step::Verified(progress))).await?;
        source.seek(std::io::SeekFrom::Start(begin)).await.map_err(unreadable)?;
        let imported = self.run(&mut source, |progress| observe(Step::Imported(progress))).await?;
        if imported != verified {
            return Err(Error::new(
                ErrorKind::RevisionMismatch,
                "the archive has changed since its verification",
            ));
        }
        Ok(imported)
    }

    /// Imports an archive, in transactions of bounded size, and calls `observe` after each frame. A
    /// store is imported into an empty database, a tenant into a store without that tenant.
    ///
    /// An interrupted import resumes when it is run again with the same archive. Until it
    /// completes, the store cannot be opened; a program that has it open, on a cluster, is not
    /// prevented from using it.
    ///
    /// # Errors
    ///
    /// Errors of [`verify`](Self::verify), found on the way: after the first frame of rows,
    /// imported rows remain, and the store cannot be opened. `AlreadyExists` if the destination is
    /// not empty; `ImportInProgress` if the import of another archive is unfinished;
    /// `UniqueViolation`, for a tenant, with the index's name if another tenant has one of its
    /// values; `IndexBuilding`, for a tenant, if the store has an index that is not built;
    /// `RevisionMismatch` if another process runs the same import; errors of the engine.
    pub async fn run<R: AsyncRead + Unpin>(
        &self,
        source: R,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let mut reader = Reader::open(source).await?;
        let manifest = reader.manifest().await?;
        admit(&manifest)?;
        // The declarations and the other metadata are in the first frame.
        let mut next = reader.rows().await?;
        let mut newest = next.as_ref().map_or(Ok(0), |rows| self.admit_rows(&manifest, rows))?;
        let mut marker = self.begin(&manifest).await?;
        let (mut behind, size) = (marker.rows, BatchSize::new(self.rows));
        while let Some(rows) = next {
            let passed = usize::try_from(behind).unwrap_or(usize::MAX).min(rows.len());
            behind -= passed as u64;
            let mut rest = &rows[passed..];
            while !rest.is_empty() {
                let written = self.step(&manifest, &marker, &size, rest).await?;
                marker.rows += written as u64;
                rest = &rest[written..];
            }
            observe(reader.progress());
            next = reader.rows().await?;
            if let Some(rows) = &next {
                newest = newest.max(self.admit_rows(&manifest, rows)?);
            }
        }
        let summary = reader.summary()?;
        admit_versions(&summary, newest)?;
        if behind > 0 {
            return Err(reader.damaged("it has fewer rows than were imported"));
        }
        self.database.advance_version(summary.version).await?;
        self.end(&manifest, &marker, summary.version).await?;
        Ok(summary)
    }

    /// Rolls back an unfinished import, in transactions of bounded size, and returns whether there
    /// was one. An interrupted rollback is run again.
    ///
    /// # Errors
    ///
    /// `Corrupt` if an imported row cannot be decoded; errors of the engine.
    pub async fn rollback(&self) -> Result<bool> {
        let root = self.root();
        let (mut there, size) = (false, &BatchSize::new(self.rows));
        loop {
            let step = |tx: engine::Transaction| async move {
                let limit = size.attempt();
                let Some(marker) = Marker::read(&tx, root).await? else { return Ok(None) };
                let Some(tenant) = marker.tenant else {
                    // The database was empty. The marker is cleared with the rows.
                    let KeyRange { begin, end } = root.range();
                    tx.clear_range(&begin, &end);
                    return Ok(Some(true));
                };
                let KeyRange { begin, end } = Deletion::range(root, tenant);
                tx.clear_range(&begin, &end);
                self.rollback_rows(&tx, limit, &root.tenant(tenant)).await.map(Some)
            };
            let step = retry::run(&self.database, &RetryPolicy::idempotent(), step).await?;
            size.committed();
            match step {
                None => return Ok(there),
                Some(true) => return Ok(true),
                Some(false) => there = true,
            }
        }
    }

    /// Rolls back the next rows of a tenant, and returns whether they were the last.
    async fn rollback_rows(
        &self,
        tx: &engine::Transaction,
        limit: BatchLimit,
        range: &KeyRange,
    ) -> Result<bool> {
        let (root, schema) = (self.root(), self.schema());
        let query = RangeQuery::new(range.begin.clone(), range.end.clone()).limit(limit.rows());
        let page = tx.get_range(&query.target_bytes(limit.scale(BYTES))).await?;
        let is_original = |row: &&KeyValue| {
            Located::of(root, &row.key).is_some_and(|located| schema.is_original(located))
        };
        let originals: Vec<&KeyValue> = page.rows.iter().filter(is_original).collect();
        for row in &originals {
            records::rollback(tx, root, schema, row)?;
            if tx.approximate_size().await? >= SIZE {
                break;
            }
        }
        if !originals.is_empty() {
            return Ok(false);
        }
        let KeyRange { begin, end } = range;
        if page.stopped != engine::Stopped::End {
            if let Some(last) = page.rows.last() {
                // Entries whose records were removed before.
                tx.clear_range(begin, &[last.key.as_slice(), &[0]].concat());
            }
            return Ok(false);
        }
        tx.clear_range(begin, end);
        Marker::clear(tx, root);
        Ok(true)
    }

    /// Fails if a tenant's row cannot be decoded, or has a unique value of another tenant.
    async fn reject_rivals(&self, rows: &[KeyValue]) -> Result<()> {
        let size = &BatchSize::new(self.rows);
        let mut rest = rows;
        while !rest.is_empty() {
            let refuse = |tx: engine::Transaction| async move {
                let (limit, mut checked) = (size.attempt(), 0);
                while checked < rest.len().min(limit.rows()) && !(checked > 0 && limit.is_spent()) {
                    let group = self.group(&rest[checked..], limit.rows() - checked);
                    records::reject_rivals(&tx, self.root(), self.schema(), &group).await?;
                    checked += group.len();
                }
                Ok::<_, Error>(checked)
            };
            let checked = self.database.run(refuse).await?;
            size.committed();
            rest = &rest[checked..];
        }
        Ok(())
    }

    /// Returns the first of `rows`, at most `limit` and at least one, with the root in their keys,
    /// to be written or checked together.
    fn group(&self, rows: &[KeyValue], limit: usize) -> Vec<KeyValue> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        for KeyValue { key, value } in rows.iter().take(limit.clamp(1, MAX_CONCURRENT)) {
            let key = [self.root().as_bytes(), key].concat();
            bytes += key.len() + value.len();
            group.push(KeyValue { key, value: value.clone() });
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        group
    }

    fn root(&self) -> &Root {
        self.options.key_root()
    }

    fn schema(&self) -> &Schema {
        self.options.declared()
    }

    /// Fails if a row does not belong in an archive of this kind, or is a different declaration.
    /// Returns the newest version of an event.
    fn admit_rows(&self, manifest: &Manifest, rows: &[KeyValue]) -> Result<u64> {
        let mut newest = 0;
        for row in rows {
            self.admit_row(manifest, row)?;
            let located = Located::of(&Root::default(), &row.key);
            let version = located.and_then(|found| records::event_version(self.schema(), found));
            newest = newest.max(version.unwrap_or(0));
        }
        Ok(newest)
    }

    fn admit_row(&self, manifest: &Manifest, row: &KeyValue) -> Result<()> {
        let root = self.root().as_bytes();
        if root.len() + row.key.len() > KEY_SIZE_LIMIT
            || row.value.len() > VALUE_SIZE_LIMIT
            || root.is_empty() && row.key.first() == Some(&0xff)
        {
            let shown = Readable::new(&row.key);
            let message = format!("the archive has a row that no store can have: {shown}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let nowhere = Root::default();
        let located = Located::of(&nowhere, &row.key);
        match manifest.tenant {
            None => match located {
                Some(Located { tenant: None, name, rest }) if name == META => {
                    meta::admit(self.schema(), rest, &row.value)
                }
                _ => Ok(()),
            },
            Some(tenant) => {
                let declared = located.filter(|located| located.tenant == Some(tenant));
                if declared.is_some_and(|located| self.schema().is_original(located))
                    || Deletion::range(&nowhere, tenant).contains(&row.key)
                {
                    return Ok(());
                }
                let shown = Readable::new(&row.key);
                let message =
                    format!("the archive has {shown}, which this program does not declare");
                Err(Error::new(ErrorKind::NewerFormat, message))
            }
        }
    }

    /// Writes the marker, or returns that of an interrupted import.
    async fn begin(&self, manifest: &Manifest) -> Result<Marker> {
        let root = self.root();
        let before = |tx: engine::Transaction| async move { Marker::read(&tx, root).await };
        let before = self.database.run(before).await?;
        if before.is_none() && manifest.tenant.is_some() {
            // Check that it is a store with these declarations.
            self.options.clone().open(self.database.clone()).await?;
        }
        let begin = |tx: engine::Transaction| async move {
            if let Some(marker) = Marker::read(&tx, root).await? {
                return if marker.id == manifest.id {
                    Ok(marker)
                } else {
                    Err(marker.unfinished())
                };
            }
            let whole = || vec![(root.range(), "the database is not empty")];
            let of_tenant = |tenant| {
                let deletions = Deletion::range(root, tenant);
                let being_deleted = "the tenant is being deleted";
                vec![(deletions, being_deleted), (root.tenant(tenant), "the tenant exists")]
            };
            for (range, what) in manifest.tenant.map_or_else(whole, of_tenant) {
                let there = tx.get_range(&RangeQuery::new(range.begin, range.end).limit(1)).await?;
                if !there.rows.is_empty() {
                    let message = format!("cannot import: {what}");
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
            }
            if manifest.tenant.is_some() {
                records::require_all_built(&tx, root, self.schema()).await?;
            }
            let marker = Marker { id: manifest.id, rows: 0, tenant: manifest.tenant };
            marker.write(&tx, root);
            Ok(marker)
        };
        retry::run(&self.database, &RetryPolicy::idempotent(), begin).await
    }

    /// Writes the first of `rows` in one transaction, and returns their number.
    async fn step(
        &self,
        manifest: &Manifest,
        at: &Marker,
        size: &BatchSize,
        rows: &[KeyValue],
    ) -> Result<usize> {
        let root = self.root();
        let step = |tx: engine::Transaction| async move {
            let limit = size.attempt();
            let there = self.require_own(&tx, at).await?;
            if there.rows > at.rows {
                // An earlier attempt with unknown outcome has committed.
                return Ok(usize::try_from(there.rows - at.rows).unwrap_or(usize::MAX));
            }
            let (mut written, mut bytes) = (0, 0);
            while written < rows.len() {
                let group = self.group(&rows[written..], limit.rows() - written);
                if manifest.tenant.is_some() {
                    records::restore(&tx, root, self.schema(), &group).await?;
                } else {
                    for row in &group {
                        tx.set(&row.key, &row.value);
                    }
                }
                written += group.len();
                bytes += group.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
                if written >= limit.rows()
                    || bytes >= BYTES
                    || limit.is_spent()
                    || tx.approximate_size().await? >= SIZE
                {
                    break;
                }
            }
            if manifest.tenant.is_none() {
                note_as_one(&tx, root, &rows[..written])?;
            }
            Marker { rows: at.rows + written as u64, ..at.clone() }.write(&tx, root);
            Ok(written)
        };
        let written = retry::run(&self.database, &RetryPolicy::idempotent(), step).await?;
        size.committed();
        if written > rows.len() { Err(interfered()) } else { Ok(written) }
    }

    /// Returns the stored marker. Fails unless it belongs to this import and is not behind.
    async fn require_own(&self, tx: &engine::Transaction, at: &Marker) -> Result<Marker> {
        let there = Marker::read(tx, self.root()).await?;
        there.filter(|there| there.id == at.id && there.rows >= at.rows).ok_or_else(interfered)
    }

    /// Removes the marker, which completes the import.
    async fn end(&self, manifest: &Manifest, at: &Marker, version: u64) -> Result<()> {
        let root = self.root();
        let end = |tx: engine::Transaction| async move {
            match Marker::read(&tx, root).await? {
                Some(there) if there == *at => {}
                // An earlier attempt with unknown outcome has committed.
                None => return Ok(()),
                Some(_) => return Err(interfered()),
            }
            if manifest.tenant.is_none() {
                store::require_format(&tx, root).await?;
            }
            records::raise_to(&tx, root, version);
            Marker::clear(&tx, root);
            Ok(())
        };
        retry::run(&self.database, &RetryPolicy::idempotent(), end).await
    }
}

/// The progress of an import with verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Progress of the verification.
    Verified(Progress),
    /// Progress of the import.
    Imported(Progress),
}

/// Fails if this program cannot read the format of the archived store.
fn admit(manifest: &Manifest) -> Result<()> {
    let Manifest { store_format: format, program, .. } = manifest;
    if *format > store::FORMAT {
        let message = format!(
            "the archive has a store of format {format}, written by version {program}; this \
             program reads formats up to {}",
            store::FORMAT
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    Ok(())
}

/// Fails if no database can have assigned the archive's version, or if the archive has an event
/// that is newer than itself: later events would sort before it.
fn admit_versions(summary: &Summary, newest_event: u64) -> Result<()> {
    let Summary { version, .. } = *summary;
    let why = if version > records::MAX_IMPORTED_VERSION {
        format!("the archive has version {version}, which no database assigns")
    } else if newest_event > version {
        format!("the archive of version {version} has an event of the later {newest_event}")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Corrupt, why))
}

/// Adds one write conflict range for all of `rows`, whose keys are nearly in order. The engine
/// keeps recent writes for conflict checks; nothing has read an empty store, so one range can
/// replace thousands of keys.
fn note_as_one(tx: &engine::Transaction, root: &Root, rows: &[KeyValue]) -> Result<()> {
    let keys = || rows.iter().map(|row| row.key.as_slice());
    let (Some(first), Some(last)) = (keys().min(), keys().max()) else { return Ok(()) };
    let key = |key: &[u8], end: &[u8]| [root.as_bytes(), key, end].concat();
    tx.add_write_conflict_range(&key(first, b""), &key(last, b"\0"))
}

fn interfered() -> Error {
    Error::new(ErrorKind::RevisionMismatch, "another process runs or has completed this import")
}
