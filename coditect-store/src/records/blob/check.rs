//! Checks blobs: that each has one holder, and the bytes that were uploaded.
//!
//! Reads the chunks of a tenant once, with the blobs of its records in memory, about a hundred
//! bytes each. Detached blobs are not checked: they may be incomplete.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{Blob, BlobId, CHUNK_BYTES, OrphanBlob};
use crate::{
    Result,
    engine::{CheckedRow, KeyValue, View},
    entity::{CHUNKS, Entity as _, Schema, decode_at},
    keyspace::{KeyRange, Located, Root, TenantId, unpack_all},
};

/// Size of a page of rows, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// A fault of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobFault {
    /// A record has the blob, and its chunks are incomplete or differ from the upload.
    Damaged,
    /// Several records have the blob: the first one that is deleted removes it from the others.
    HeldTwice,
    /// A record has the blob, and it is marked for collection.
    HeldAndDetached,
    /// Chunks without a record or a mark, which would never be collected.
    Lost,
}

/// A blob that is faulty if the rows that were compared are of one version.
pub(crate) struct Suspect {
    pub(crate) fault: BlobFault,
    pub(crate) blob: BlobId,
    /// Keys of the records that have it.
    holders: Vec<Vec<u8>>,
}

impl Suspect {
    fn new(fault: BlobFault, blob: BlobId) -> Self {
        Self { fault, blob, holders: Vec::new() }
    }

    fn with_holders<'a>(self, holders: impl IntoIterator<Item = &'a Vec<u8>>) -> Self {
        Self { holders: holders.into_iter().cloned().collect(), ..self }
    }
}

/// Calls `found` for each suspect blob of `tenant` in `view`, and returns the expected bytes of the
/// tenant's counter, or `None` if a record cannot be decoded. Such records are skipped, since the
/// check of records reports them.
pub(crate) async fn check(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
    mut found: impl FnMut(Suspect),
) -> Result<Option<u64>> {
    let (mut held, bytes) = held(view, root, schema, tenant, &mut found).await?;
    check_chunks(view, root, tenant, &mut held, &mut found).await?;
    for Holding { blob, holder, seen } in held.values() {
        if !seen && blob.size > 0 {
            found(Suspect::new(BlobFault::Damaged, blob.id).with_holders([holder]));
        }
    }
    Ok(bytes)
}

/// Returns the faults of `suspects` that hold in `view`, which is of one, later version. Blobs that
/// were written or deleted since the check are not faulty: a blob never changes, and is not
/// attached again after its chunks were removed.
pub(crate) async fn confirm(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
    suspects: &[Suspect],
) -> Result<Vec<(BlobFault, BlobId)>> {
    let marker = |blob: &BlobId| OrphanBlob::SPACE.key(root, tenant, blob);
    let markers: Vec<Vec<u8>> = suspects.iter().map(|suspect| marker(&suspect.blob)).collect();
    let markers = view.get_all(&markers).await?;
    let is_lost = |suspect: &Suspect| suspect.fault == BlobFault::Lost;
    let all = if suspects.iter().any(is_lost) {
        held(view, root, schema, tenant, &mut |_| ()).await?.0
    } else {
        BTreeMap::new()
    };
    let mut confirmed = Vec::new();
    for (suspect, marker) in suspects.iter().zip(markers) {
        let Suspect { fault, blob, holders } = suspect;
        let holders = still_holding(view, root, schema, *blob, holders).await?;
        let is_faulty = match fault {
            BlobFault::Damaged => holders >= 1,
            BlobFault::HeldTwice => holders >= 2,
            BlobFault::HeldAndDetached => holders >= 1 && marker.is_some(),
            BlobFault::Lost => {
                let KeyRange { begin, end } = KeyRange::tuples(&CHUNKS.key(root, tenant, blob));
                marker.is_none()
                    && !all.contains_key(blob)
                    && !view.page(&begin, &end, 1).await?.rows.is_empty()
            }
        };
        if is_faulty {
            confirmed.push((*fault, *blob));
        }
    }
    Ok(confirmed)
}

/// Returns the number of the records `holders` that have `blob` in `view`.
async fn still_holding(
    view: &View,
    root: &Root,
    schema: &Schema,
    blob: BlobId,
    holders: &[Vec<u8>],
) -> Result<usize> {
    let values = view.get_all(holders).await?;
    let has_blob = |(key, value): (&Vec<u8>, Option<Vec<u8>>)| {
        let declaration = schema.entity(Located::of(root, key)?.name)?;
        let row = KeyValue { key: key.clone(), value: value? };
        let blobs = (declaration.blobs?)(root, &row).ok()?;
        blobs.iter().any(|has| has.id == blob).then_some(())
    };
    Ok(holders.iter().zip(values).filter_map(has_blob).count())
}

/// Returns the bytes that the counter of `tenant` should have in `view`, which is of one version,
/// or `None` if records cannot be read.
pub(crate) async fn counted_bytes(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
) -> Result<Option<u64>> {
    held(view, root, schema, tenant, &mut |_| ()).await.map(|(_, bytes)| bytes)
}

/// Returns the blobs that the records of `tenant` hold, and the bytes of all blobs that are
/// counted, or `None` if records cannot be read.
async fn held(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
    found: &mut impl FnMut(Suspect),
) -> Result<(BTreeMap<BlobId, Holding>, Option<u64>)> {
    let (mut held, mut bytes, mut unreadable) = (BTreeMap::new(), 0_u64, false);
    for declaration in schema.entities() {
        let Some(blobs) = declaration.blobs else { continue };
        let mut pages = view.stream(declaration.range(root, tenant), PAGE_BYTES);
        while let Some(rows) = pages.next_page().await? {
            for CheckedRow { key, value } in rows {
                let row = value.map(|value| KeyValue { key, value });
                let Some((row, blobs)) =
                    row.and_then(|row| blobs(root, &row).ok().map(|blobs| (row, blobs)))
                else {
                    unreadable = true;
                    continue;
                };
                for blob in blobs {
                    bytes = bytes.saturating_add(blob.size);
                    let (id, holder) = (blob.id, row.key.clone());
                    let before = held.insert(id, Holding { blob, holder, seen: false });
                    if let Some(before) = before {
                        let twice = Suspect::new(BlobFault::HeldTwice, id);
                        found(twice.with_holders([&before.holder, &row.key]));
                    }
                }
            }
        }
    }
    let detached = OrphanBlob::SPACE.prefix(root, tenant);
    let mut pages = view.stream(KeyRange::tuples(&detached), PAGE_BYTES);
    while let Some(rows) = pages.next_page().await? {
        for CheckedRow { key, value } in rows {
            let record = value.and_then(|value| decode_at::<OrphanBlob>(root, &key, &value).ok());
            unreadable |= record.is_none();
            bytes = bytes.saturating_add(record.map_or(0, |record| record.counted_bytes));
            if let Ok(id) = unpack_all(&key[detached.len()..])
                && let Some(Holding { holder, .. }) = held.get(&id)
            {
                found(Suspect::new(BlobFault::HeldAndDetached, id).with_holders([holder]));
            }
        }
    }
    Ok((held, (!unreadable).then_some(bytes)))
}

/// A blob of a record.
struct Holding {
    blob: Blob,
    /// Key of the record.
    holder: Vec<u8>,
    /// Whether it has chunks.
    seen: bool,
}

async fn check_chunks(
    view: &View,
    root: &Root,
    tenant: TenantId,
    held: &mut BTreeMap<BlobId, Holding>,
    found: &mut impl FnMut(Suspect),
) -> Result<()> {
    let prefix = CHUNKS.prefix(root, tenant);
    let mut pages = view.stream(KeyRange::tuples(&prefix), PAGE_BYTES);
    let mut reading: Option<Reading> = None;
    let mut read = Vec::new();
    loop {
        let page = pages.next_page().await?;
        let is_last = page.is_none();
        for row in page.into_iter().flatten() {
            let next: Option<(BlobId, u64)> = unpack_all(&row.key[prefix.len()..]).ok();
            read.extend(reading.take_if(|read| next.is_none_or(|(id, _)| id != read.id)));
            if let Some((id, n)) = next {
                reading.get_or_insert_with(|| Reading::new(id)).add(n, row.value.as_deref());
            }
        }
        read.extend(reading.take_if(|_| is_last));
        for whole in read.drain(..) {
            let id = whole.id;
            let marker = OrphanBlob::SPACE.key(root, tenant, &id);
            if let Some(holding) = held.get_mut(&id) {
                holding.seen = true;
                if !whole.is(&holding.blob) {
                    let damaged = Suspect::new(BlobFault::Damaged, id);
                    found(damaged.with_holders([&holding.holder]));
                }
            } else if view.get(&marker).await?.is_none() {
                found(Suspect::new(BlobFault::Lost, id));
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The chunks of one blob read so far.
struct Reading {
    id: BlobId,
    chunks: u64,
    size: u64,
    hash: Sha256,
    /// Whether chunks are consecutive, undamaged, and complete except for the last one.
    whole: bool,
}

impl Reading {
    fn new(id: BlobId) -> Self {
        Self { id, chunks: 0, size: 0, hash: Sha256::new(), whole: true }
    }

    fn add(&mut self, n: u64, bytes: Option<&[u8]>) {
        self.whole &= n == self.chunks && self.size == n * CHUNK_BYTES as u64;
        self.chunks += 1;
        match bytes {
            Some(bytes) => {
                self.size += bytes.len() as u64;
                self.hash.update(bytes);
            }
            None => self.whole = false,
        }
    }

    fn is(self, blob: &Blob) -> bool {
        self.whole && self.size == blob.size && self.hash.finalize()[..] == blob.sha256
    }
}
