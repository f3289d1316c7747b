//! All rows of one name, over all tenants, a bounded piece at a time.
//!
//! A tenant's rows lie in the tenant, so the rows of one name are a range in each; a walk goes from
//! tenant to tenant by seeking the first key past the one before. In the order of keys it never goes
//! back, so that one position says what is behind it and what is still ahead.

use crate::{
    Result,
    engine::{self, KeyValue, RangeQuery},
    keyspace::{KeyPart, KeyRange, Place, Root, packed},
    model::TenantId,
};

/// The most tenants that are looked into for one piece.
const TENANTS: usize = 200;

/// Where the rows are that a walk goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    pub(super) root: &'a Root,
    pub(super) place: Place,
    pub(super) name: &'a str,
}

/// A piece of a walk.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) rows: Vec<KeyValue>,
    /// Where to go on, without the root; `None` at the end. All rows before it are behind.
    pub(super) next: Option<Vec<u8>>,
}

impl Walk<'_> {
    /// At most `limit` rows, fewer if they come to `bytes`, from the position `from` on, which is
    /// empty at first.
    pub(super) async fn piece(
        self,
        tx: &engine::Transaction,
        from: &[u8],
        limit: usize,
        bytes: usize,
    ) -> Result<Piece> {
        let mut from = [self.root.as_bytes(), from].concat();
        let mut rows = Vec::new();
        for _ in 0..TENANTS {
            let Some(scope) = self.scope(tx, &from).await? else {
                return Ok(Piece { rows, next: None });
            };
            let range =
                KeyRange::tuples(&[scope.as_slice(), &packed(&self.name.to_owned())].concat());
            let begin = range.begin.max(from);
            let mut more = false;
            if begin < range.end {
                let query =
                    RangeQuery::new(begin, range.end).limit(limit - rows.len()).target_bytes(bytes);
                let page = tx.get_range(&query).await?;
                more = page.stopped != engine::Stopped::End;
                rows.extend(page.rows);
            }
            from = match (rows.last(), more, self.place) {
                (Some(last), true, _) => [last.key.as_slice(), &[0]].concat(),
                (_, _, Place::Tenant) => KeyRange::prefix(&scope).end,
                (_, _, Place::Global) => return Ok(Piece { rows, next: None }),
            };
            let read: usize = rows.iter().map(|row| row.value.len()).sum();
            if more || rows.len() >= limit || read >= bytes {
                break;
            }
        }
        let next = from.strip_prefix(self.root.as_bytes()).unwrap_or(&from).to_vec();
        Ok(Piece { rows, next: Some(next) })
    }

    /// What the keys of the first scope begin with that has keys from `from` on.
    async fn scope(self, tx: &engine::Transaction, from: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.place == Place::Global {
            return Ok(Some(self.root.as_bytes().to_vec()));
        }
        let nil = TenantId(uuid::Uuid::nil());
        let last = TenantId(uuid::Uuid::max());
        let begin = self.root.key(&nil).max(from.to_vec());
        let end = KeyRange::prefix(&self.root.key(&last)).end;
        if begin >= end {
            return Ok(None);
        }
        let first = tx.get_range(&RangeQuery::new(begin, end).limit(1)).await?.rows;
        let Some(first) = first.first() else {
            return Ok(None);
        };
        let mut rest = &first.key[self.root.as_bytes().len()..];
        Ok(Some(self.root.key(&TenantId::unpack(&mut rest)?)))
    }
}
