//! Clears ranges of any length, in transactions of bounded size.

use futures_util::future::try_join;

use crate::{
    BatchLimit, BatchSize, Entity, Result, Store, Transaction,
    engine::{RangeQuery, Stopped},
    keyspace::{KeyPart, KeyRange, TenantId},
};

impl Transaction {
    /// Clears the records of a tenant whose keys start with `front`, without reading them: as many
    /// as one transaction can clear.
    ///
    /// # Errors
    ///
    /// As [`Store::resume_deletion`](Store::resume_deletion), if another program declares an index
    /// of the entity.
    pub(crate) async fn clear_keys<E>(&self, tenant: TenantId, front: &impl KeyPart) -> Result<()>
    where
        E: Entity<Scope = TenantId>,
    {
        const { assert!(E::INDEXES.is_empty(), "clearing a range bypasses indexes") };
        self.known().await?.require_all_known()?;
        let range = KeyRange::tuples(&E::SPACE.key(self.root(), tenant, front));
        self.engine().clear_range(&range.begin, &range.end);
        Ok(())
    }
}

/// Approximate number of bytes that one transaction clears.
const BYTES: usize = 1 << 20;
/// Maximum number of rows that one transaction clears.
const ROWS: usize = 1_000;

/// Clears all rows of `range`, which has no indexed records, as long as there is a row under
/// `pending`: another process that clears the same rows removes that at last, and then the keys may
/// be written anew. Rows written concurrently may remain.
pub(crate) async fn range(store: &Store, mut range: KeyRange, pending: &[u8]) -> Result<()> {
    let size = BatchSize::new(ROWS);
    loop {
        let rest = &range;
        let clear = |tx, limit| async move { piece(&tx, limit, rest, pending).await };
        match store.run_batch(&size, clear).await? {
            Some(next) => range.begin = next,
            None => return Ok(()),
        }
    }
}

/// Clears the first rows of `range`, and returns the key to continue at. Two rounds of reads.
async fn piece(
    tx: &Transaction,
    limit: BatchLimit,
    range: &KeyRange,
    pending: &[u8],
) -> Result<Option<Vec<u8>>> {
    // An index of these rows may have been declared since.
    tx.known().await?.require_all_known()?;
    let query = RangeQuery::new(range.begin.clone(), range.end.clone());
    let query = query.limit(limit.rows()).target_bytes(limit.scale(BYTES));
    let snapshot = tx.engine().snapshot();
    let reads = try_join(tx.engine().get(pending), snapshot.get_range(&query));
    let (pending, first) = reads.await?;
    if pending.is_none() {
        return Ok(None);
    }
    let Some(last) = first.rows.last() else { return Ok(None) };
    let past = [last.key.as_slice(), &[0]].concat();
    tx.engine().clear_range(&range.begin, &past);
    Ok((first.stopped != Stopped::End).then_some(past))
}
