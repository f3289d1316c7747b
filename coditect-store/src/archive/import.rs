//! Making a store, or a tenant of one, of an archive.
//!
//! Why it can be stopped anywhere: the [marker](super::marker) says which archive is being imported
//! and how many of its rows are there, and moves in the very transactions that write them. Whoever
//! runs the import again passes over so many rows, which are compared with their sums all the same.
//! Two who run it together conflict at the marker, and one is refused. Each step recognises its own
//! work by the marker too, so that an unknown outcome is run again.

use tokio::io::{AsyncRead, AsyncSeek, AsyncSeekExt};

use super::{Manifest, Progress, Summary, marker::Marker, reader::Reader};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, StoreOptions,
    batch::MAX_CONCURRENT,
    engine::{self, Database, KEY_SIZE_LIMIT, KeyValue, RangeQuery, VALUE_SIZE_LIMIT},
    entity::Registry,
    keyspace::{KeyRange, Located, Readable, Root},
    model::Deletion,
    repository,
    retry::{self, RetryPolicy},
    store,
};

/// Maximum number of rows of a transaction, if not set.
const ROWS: usize = 4_000;
/// A transaction ends with the row at which those written come to this many bytes.
const BYTES: usize = 900_000;
/// A transaction of a tenant's rows ends with the row at which it has come to this size, index entries
/// and conflict ranges included.
const SIZE: usize = 900_000;
/// Rows are written in groups that end with the row at which they come to this many bytes.
const GROUP_BYTES: usize = 100_000;

/// An import: made by [`StoreOptions::import`].
#[derive(Clone, Debug)]
pub struct Import {
    database: Database,
    options: StoreOptions,
    rows: usize,
}

impl Import {
    pub(crate) fn new(database: Database, options: StoreOptions) -> Result<Self> {
        options.registry().check()?;
        Ok(Self { database, options, rows: ROWS })
    }

    /// At most `rows` rows a transaction, and at least one; 4,000 if not said.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Reads a whole archive, and looks whether this program could work with what is in it. Nothing is
    /// written; `observe` is told how far it is.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the archive is not whole, with the offset, or is of no store; `NewerFormat` if a
    /// newer program wrote it, or one that has an index that is not declared here; `SchemaMismatch` with
    /// the name of what was declared otherwise there; `UniqueViolation`, of a tenant, with the index's name, if
    /// another tenant has a value that it has; `Unavailable` if it cannot be read.
    pub async fn verify<R: AsyncRead + Unpin>(
        &self,
        source: R,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let mut reader = Reader::open(source).await?;
        let manifest = reader.manifest().await?;
        admit(&manifest)?;
        while let Some(rows) = reader.rows().await? {
            for row in &rows {
                self.admit_row(&manifest, row)?;
            }
            if manifest.tenant.is_some() {
                self.refuse_rivals(&rows).await?;
            }
            observe(reader.progress());
        }
        reader.summary()
    }

    /// As [`run`](Self::run), with the whole archive [verified](Self::verify) before anything is
    /// written. `source` is read from where it stands, twice.
    ///
    /// # Errors
    ///
    /// As both.
    pub async fn run_verified<R: AsyncRead + AsyncSeek + Unpin>(
        &self,
        mut source: R,
        mut observe: impl FnMut(Step),
    ) -> Result<Summary> {
        let unreadable = |cause| {
            Error::new(ErrorKind::Unavailable, "the archive cannot be read again")
                .with_source(cause)
        };
        let begin = source.stream_position().await.map_err(unreadable)?;
        let verified =
            self.verify(&mut source, |progress| observe(Step::Verified(progress))).await?;
        source.seek(std::io::SeekFrom::Start(begin)).await.map_err(unreadable)?;
        let imported = self.run(&mut source, |progress| observe(Step::Imported(progress))).await?;
        if imported != verified {
            return Err(Error::new(
                ErrorKind::RevisionMismatch,
                "the archive was changed meanwhile",
            ));
        }
        Ok(imported)
    }

    /// Writes what is in an archive, in transactions of bounded size; `observe` is told how far it is.
    /// A store's goes into an empty database; a tenant's into a store that does not have the tenant.
    ///
    /// It can be stopped at any point, by a kill too, and goes on where it was when it is run again
    /// with the same archive. Until it has come to its end the store is not opened by any program; one
    /// that has it open meanwhile, on a cluster, is not kept from it.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), but found on the way: what was written by then stays, and so does
    /// the refusal to open the store. `AlreadyExists` if there is something already where it should go;
    /// `ImportInProgress` if another archive's import has not ended; `UniqueViolation`, of a tenant, with the index's
    /// name, if another tenant has a value that it has; `IndexBuilding`, of a tenant, if the store has
    /// an index that is not built; `RevisionMismatch` if somebody else runs the same import; those of the engine.
    pub async fn run<R: AsyncRead + Unpin>(
        &self,
        source: R,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let mut reader = Reader::open(source).await?;
        let manifest = reader.manifest().await?;
        admit(&manifest)?;
        let mut marker = self.begin(&manifest).await?;
        let (mut behind, size) = (marker.rows, BatchSize::new(self.rows));
        while let Some(rows) = reader.rows().await? {
            for row in &rows {
                self.admit_row(&manifest, row)?;
            }
            let passed = usize::try_from(behind).unwrap_or(usize::MAX).min(rows.len());
            behind -= passed as u64;
            let mut rest = &rows[passed..];
            while !rest.is_empty() {
                let written = self.step(&manifest, &marker, &size, rest).await?;
                marker.rows += written as u64;
                rest = &rest[written..];
            }
            observe(reader.progress());
        }
        let summary = reader.summary()?;
        if behind > 0 {
            return Err(reader.damaged("more of it was imported than there is"));
        }
        self.database.advance_version(summary.version).await?;
        self.end(&manifest, &marker, summary.version).await?;
        Ok(summary)
    }

    /// Takes back what an import has written that has not ended and is not to be ended, in transactions
    /// of bounded size: a store is what it was before it. Stopped at any point it is run again. False if
    /// there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt` if what was imported cannot be read any more; those of the engine.
    pub async fn abandon(&self) -> Result<bool> {
        let root = self.root();
        let (mut there, size) = (false, &BatchSize::new(self.rows));
        loop {
            let step = |tx: engine::Transaction| async move {
                let limit = size.attempt();
                let Some(marker) = Marker::read(&tx, root).await? else { return Ok(None) };
                let Some(tenant) = marker.tenant else {
                    // Nothing else was there. The marker goes with the rows.
                    let KeyRange { begin, end } = root.range();
                    tx.clear_range(&begin, &end);
                    return Ok(Some(true));
                };
                let KeyRange { begin, end } = Deletion::range(root, tenant);
                tx.clear_range(&begin, &end);
                self.take_back(&tx, limit, &root.tenant(tenant)).await.map(Some)
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

    /// Takes back the next rows of a tenant; returns whether they were the last.
    async fn take_back(
        &self,
        tx: &engine::Transaction,
        limit: BatchLimit,
        range: &KeyRange,
    ) -> Result<bool> {
        let (root, registry) = (self.root(), self.registry());
        let query = RangeQuery::new(range.begin.clone(), range.end.clone()).limit(limit.rows());
        let page = tx.get_range(&query.target_bytes(limit.scale(BYTES))).await?;
        let is_original = |row: &&KeyValue| {
            Located::of(root, &row.key).is_some_and(|located| registry.is_original(located))
        };
        let originals: Vec<&KeyValue> = page.rows.iter().filter(is_original).collect();
        for row in &originals {
            repository::take_back(tx, root, registry, row)?;
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
                // Entries whose records went before them.
                tx.clear_range(begin, &[last.key.as_slice(), &[0]].concat());
            }
            return Ok(false);
        }
        tx.clear_range(begin, end);
        Marker::clear(tx, root);
        Ok(true)
    }

    /// Refuses a tenant's rows that cannot be read, or have a unique value that is another's.
    async fn refuse_rivals(&self, rows: &[KeyValue]) -> Result<()> {
        let size = &BatchSize::new(self.rows);
        let mut rest = rows;
        while !rest.is_empty() {
            let refuse = |tx: engine::Transaction| async move {
                let (limit, mut checked) = (size.attempt(), 0);
                while checked < rest.len().min(limit.rows()) && !(checked > 0 && limit.is_spent()) {
                    let group = self.group(&rest[checked..], limit.rows() - checked);
                    repository::refuse_rivals(&tx, self.root(), self.registry(), &group).await?;
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

    /// Returns the first of `rows`, at most `limit` and at least one, with their keys under the root:
    /// those that are written or checked together.
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

    fn registry(&self) -> &Registry {
        self.options.registry()
    }

    /// Refuses a row that has no place in an archive of this kind, and declarations that are not this
    /// program's.
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
            None => repository::admit(self.registry(), located, &row.value),
            Some(tenant) => {
                let declared = located.filter(|located| located.tenant == Some(tenant));
                if declared.is_some_and(|located| self.registry().is_original(located))
                    || Deletion::range(&nowhere, tenant).contains(&row.key)
                {
                    return Ok(());
                }
                let shown = Readable::new(&row.key);
                let message = format!("the archive has {shown}, which this program does not know");
                Err(Error::new(ErrorKind::NewerFormat, message))
            }
        }
    }

    /// Writes the marker, or finds the one of an import that was stopped.
    async fn begin(&self, manifest: &Manifest) -> Result<Marker> {
        let root = self.root();
        let before = |tx: engine::Transaction| async move { Marker::read(&tx, root).await };
        let before = self.database.run(before).await?;
        if before.is_none() && manifest.tenant.is_some() {
            // It is a store, and knows what is declared here.
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
            let whole = || vec![(root.range(), "a store is there already")];
            let of_tenant = |tenant| {
                let deletions = Deletion::range(root, tenant);
                let being_deleted = "the tenant is still being deleted here";
                vec![
                    (deletions, being_deleted),
                    (root.tenant(tenant), "the tenant is there already"),
                ]
            };
            for (range, what) in manifest.tenant.map_or_else(whole, of_tenant) {
                let there = tx.get_range(&RangeQuery::new(range.begin, range.end).limit(1)).await?;
                if !there.rows.is_empty() {
                    let message = format!("{what}: nothing was imported");
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
            }
            if manifest.tenant.is_some() {
                repository::require_all_built(&tx, root, self.registry()).await?;
            }
            let marker = Marker { id: manifest.id, rows: 0, tenant: manifest.tenant };
            marker.write(&tx, root);
            Ok(marker)
        };
        retry::run(&self.database, &RetryPolicy::idempotent(), begin).await
    }

    /// Writes the first of `rows` in one transaction; returns their number.
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
                // An attempt whose outcome was unknown did come through.
                return Ok(usize::try_from(there.rows - at.rows).unwrap_or(usize::MAX));
            }
            let (mut written, mut bytes) = (0, 0);
            while written < rows.len() {
                let group = self.group(&rows[written..], limit.rows() - written);
                if manifest.tenant.is_some() {
                    repository::restore(&tx, root, self.registry(), &group).await?;
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

    /// The marker as it is stored, if it is of this import and not behind.
    async fn require_own(&self, tx: &engine::Transaction, at: &Marker) -> Result<Marker> {
        let there = Marker::read(tx, self.root()).await?;
        there.filter(|there| there.id == at.id && there.rows >= at.rows).ok_or_else(interfered)
    }

    /// Removes the marker: from then on it is a store, with rows up to `version`.
    async fn end(&self, manifest: &Manifest, at: &Marker, version: u64) -> Result<()> {
        let root = self.root();
        let end = |tx: engine::Transaction| async move {
            match Marker::read(&tx, root).await? {
                Some(there) if there == *at => {}
                // An attempt whose outcome was unknown did come through.
                None => return Ok(()),
                Some(_) => return Err(interfered()),
            }
            if manifest.tenant.is_none() {
                store::require_format(&tx, root).await?;
            }
            repository::raise_to(&tx, root, version);
            Marker::clear(&tx, root);
            Ok(())
        };
        retry::run(&self.database, &RetryPolicy::idempotent(), end).await
    }
}

/// How far an import is that verifies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// So much was read and found to be whole.
    Verified(Progress),
    /// So much is there.
    Imported(Progress),
}

/// Refuses an archive that this program does not understand.
fn admit(manifest: &Manifest) -> Result<()> {
    let Manifest { store_format: format, program, .. } = manifest;
    if *format > store::FORMAT {
        let message = format!(
            "the archive is of a store of format {format}, written by version {program}; this \
             program knows {}",
            store::FORMAT
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    Ok(())
}

/// Makes one range of what `rows` conflict with, whose keys are in order but for a seam or two. The
/// engine keeps for some seconds what was written, to compare reads with; of an empty store nobody has
/// read anything, so one range does for many thousand keys.
fn note_as_one(tx: &engine::Transaction, root: &Root, rows: &[KeyValue]) -> Result<()> {
    let keys = || rows.iter().map(|row| row.key.as_slice());
    let (Some(first), Some(last)) = (keys().min(), keys().max()) else { return Ok(()) };
    let key = |key: &[u8], end: &[u8]| [root.as_bytes(), key, end].concat();
    tx.add_write_conflict_range(&key(first, b""), &key(last, b"\0"))
}

fn interfered() -> Error {
    Error::new(ErrorKind::RevisionMismatch, "another process runs this import, or has ended it")
}
