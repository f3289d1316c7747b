//! Clearing a range of any length, in transactions of bounded size.

use crate::{Result, Store, Transaction, engine::KeySelector, keyspace::KeyRange};

/// The most rows that one transaction clears. A row is 100,000 bytes at the most, and a chunk of a
/// blob ten thousand.
const ROWS: i32 = 500;

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
    // Only the key of the first row that stays is asked for; no value is read.
    let past = KeySelector { key: range.begin.clone(), or_equal: false, offset: 1 + ROWS };
    let past = tx.engine().snapshot().get_key(&past).await?.min(range.end.clone());
    tx.engine().clear_range(&range.begin, &past);
    Ok((past < range.end).then_some(past))
}
