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
    keyspace::{KeyRange, Root, TenantId, unpack_all},
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

/// A faulty blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFinding {
    /// The fault.
    pub fault: BlobFault,
    /// The tenant.
    pub tenant: TenantId,
    /// The blob.
    pub blob: BlobId,
}

/// Calls `found` for each faulty blob of `tenant` in `view`, and returns the expected bytes of the
/// tenant's counter, or `None` if a record cannot be decoded. Such records are skipped, since the
/// check of records reports them.
pub(crate) async fn check(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
    mut found: impl FnMut(BlobFinding),
) -> Result<Option<u64>> {
    let mut found = |fault, blob| found(BlobFinding { fault, tenant, blob });
    let (mut held, bytes) = held(view, root, schema, tenant, &mut found).await?;
    check_chunks(view, root, tenant, &mut held, &mut found).await?;
    for Holding { blob, seen } in held.values() {
        if !seen && blob.size > 0 {
            found(BlobFault::Damaged, blob.id);
        }
    }
    Ok(bytes)
}

/// Returns the bytes that the counter of `tenant` should have in `view`, which is of one version, or
/// `None` if records cannot be read.
pub(crate) async fn counted_bytes(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
) -> Result<Option<u64>> {
    held(view, root, schema, tenant, &mut |_, _| ()).await.map(|(_, bytes)| bytes)
}

/// Returns the blobs that the records of `tenant` hold, and the bytes of all blobs that are counted, or
/// `None` if records cannot be read.
async fn held(
    view: &View,
    root: &Root,
    schema: &Schema,
    tenant: TenantId,
    found: &mut impl FnMut(BlobFault, BlobId),
) -> Result<(BTreeMap<BlobId, Holding>, Option<u64>)> {
    let (mut held, mut bytes, mut unreadable) = (BTreeMap::new(), 0_u64, false);
    for declaration in schema.entities() {
        let Some(blobs) = declaration.blobs else { continue };
        let mut pages = view.stream(declaration.range(root, tenant), PAGE_BYTES);
        while let Some(rows) = pages.next_page().await? {
            let blobs = rows.into_iter().flat_map(|CheckedRow { key, value }| {
                let blobs = value.and_then(|value| blobs(root, &KeyValue { key, value }).ok());
                unreadable |= blobs.is_none();
                blobs.unwrap_or_default()
            });
            for blob in blobs {
                bytes = bytes.saturating_add(blob.size);
                if held.insert(blob.id, Holding { blob, seen: false }).is_some() {
                    found(BlobFault::HeldTwice, blob.id);
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
                && held.contains_key(&id)
            {
                found(BlobFault::HeldAndDetached, id);
            }
        }
    }
    Ok((held, (!unreadable).then_some(bytes)))
}

/// A blob of a record.
struct Holding {
    blob: Blob,
    /// Whether it has chunks.
    seen: bool,
}

async fn check_chunks(
    view: &View,
    root: &Root,
    tenant: TenantId,
    held: &mut BTreeMap<BlobId, Holding>,
    found: &mut impl FnMut(BlobFault, BlobId),
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
                    found(BlobFault::Damaged, id);
                }
            } else if view.get(&marker).await?.is_none() {
                found(BlobFault::Lost, id);
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
