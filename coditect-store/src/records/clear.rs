//! Clears ranges of any length, in transactions of bounded size.

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

/// Clears all rows of `range`, which has no indexed records. Rows written concurrently may remain.
pub(crate) async fn range(store: &Store, mut range: KeyRange) -> Result<()> {
    let size = BatchSize::new(ROWS);
    loop {
        let rest = &range;
        let clear = |tx, limit| async move { piece(&tx, limit, rest).await };
        match store.run_batch(&size, clear).await? {
            Some(next) => range.begin = next,
            None => return Ok(()),
        }
    }
}

/// Clears the first rows of `range`, and returns the key to continue at.
async fn piece(tx: &Transaction, limit: BatchLimit, range: &KeyRange) -> Result<Option<Vec<u8>>> {
    // An index of these rows may have been declared since.
    tx.known().await?.require_all_known()?;
    let query = RangeQuery::new(range.begin.clone(), range.end.clone());
    let query = query.limit(limit.rows()).target_bytes(limit.scale(BYTES));
    let first = tx.engine().snapshot().get_range(&query).await?;
    let Some(last) = first.rows.last() else { return Ok(None) };
    let past = [last.key.as_slice(), &[0]].concat();
    tx.engine().clear_range(&range.begin, &past);
    Ok((first.stopped != Stopped::End).then_some(past))
}
