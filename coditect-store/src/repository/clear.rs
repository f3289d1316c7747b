//! Clearing a range of any length, in transactions of bounded size.

use crate::{
    Result, Store, Transaction,
    engine::{RangeQuery, Stopped},
    keyspace::KeyRange,
};

/// A transaction clears about as many bytes.
const BYTES: usize = 1 << 20;
/// The most rows that one transaction clears.
const ROWS: usize = 1_000;

/// Clears all rows of `range`, which are no records that an index knows. What is written there
/// meanwhile may stay.
pub(super) async fn range(store: &Store, mut range: KeyRange) -> Result<()> {
    loop {
        let rest = &range;
        match store.run_idempotent(|tx| async move { piece(&tx, rest).await }).await? {
            Some(next) => range.begin = next,
            None => return Ok(()),
        }
    }
}

/// Clears the first rows of `range`, and says where to go on.
async fn piece(tx: &Transaction, range: &KeyRange) -> Result<Option<Vec<u8>>> {
    // An index that is declared meanwhile may know of the rows.
    tx.known().await?.require_all_known()?;
    let query = RangeQuery::new(range.begin.clone(), range.end.clone());
    let first = tx.engine().snapshot().get_range(&query.limit(ROWS).target_bytes(BYTES)).await?;
    let Some(last) = first.rows.last() else { return Ok(None) };
    let past = [last.key.as_slice(), &[0]].concat();
    tx.engine().clear_range(&range.begin, &past);
    Ok((first.stopped != Stopped::End).then_some(past))
}
