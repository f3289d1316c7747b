//! Comparing blobs with who holds them, and with what they should be.
//!
//! It goes through the chunks of one tenant once, with the blobs that records hold in memory: a
//! hundred bytes or so for each. What is detached is not looked into: it may be half written.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{Blob, CHUNK_BYTES, CHUNKS};
use crate::{
    Result,
    engine::{CheckedRow, KeyValue, View},
    entity::{Entity as _, Registry, decode_at},
    keyspace::{KeyRange, Root, unpack_all},
    model::{BlobId, DetachedBlob, TenantId},
};

/// What is read at once, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// What is wrong with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobFault {
    /// A record holds it, and its chunks are not all there, or are not what was uploaded.
    Damaged,
    /// Several records hold it: the first that lets go of it takes it from the others.
    HeldTwice,
    /// A record holds it, and it is marked to be collected.
    HeldAndDetached,
    /// There are chunks of it, and nobody knows of it: they would stay for ever.
    Lost,
}

/// A blob with which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFinding {
    /// What is wrong.
    pub fault: BlobFault,
    /// Whose it is.
    pub tenant: TenantId,
    /// The blob.
    pub blob: BlobId,
}

/// Reports each faulty blob of `tenant` in `view`, which is of one version, to `found`, and returns the
/// bytes that the tenant's counter should have. Records that cannot be read are skipped, since the
/// check of records finds them; the bytes are unknown then.
pub(crate) async fn check(
    view: &View,
    root: &Root,
    registry: &Registry,
    tenant: TenantId,
    mut found: impl FnMut(BlobFinding),
) -> Result<Option<u64>> {
    let mut found = |fault, blob| found(BlobFinding { fault, tenant, blob });
    let (mut held, bytes) = held(view, root, registry, tenant, &mut found).await?;
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
    registry: &Registry,
    tenant: TenantId,
) -> Result<Option<u64>> {
    held(view, root, registry, tenant, &mut |_, _| ()).await.map(|(_, bytes)| bytes)
}

/// Returns the blobs that the records of `tenant` hold, and the bytes of all blobs that are counted, or
/// `None` if records cannot be read.
async fn held(
    view: &View,
    root: &Root,
    registry: &Registry,
    tenant: TenantId,
    found: &mut impl FnMut(BlobFault, BlobId),
) -> Result<(BTreeMap<BlobId, Holding>, Option<u64>)> {
    let (mut held, mut bytes, mut unreadable) = (BTreeMap::new(), 0_u64, false);
    for declaration in registry.declarations() {
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
    let detached = DetachedBlob::SPACE.prefix(root, tenant);
    let mut pages = view.stream(KeyRange::tuples(&detached), PAGE_BYTES);
    while let Some(rows) = pages.next_page().await? {
        for CheckedRow { key, value } in rows {
            let record = value.and_then(|value| decode_at::<DetachedBlob>(root, &key, &value).ok());
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

/// A blob that a record holds.
struct Holding {
    blob: Blob,
    /// Whether there are chunks of it.
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
            let marker = DetachedBlob::SPACE.key(root, tenant, &id);
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

/// The chunks of one blob, as far as they were read.
struct Reading {
    id: BlobId,
    chunks: u64,
    size: u64,
    hash: Sha256,
    /// Whether each was the next one, and none was damaged or too short to be followed by another.
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
