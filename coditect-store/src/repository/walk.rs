//! All rows of one name, over all tenants, a bounded piece at a time.
//!
//! A tenant's rows lie in the tenant, so the rows of one name are a range in each; a walk goes from
//! tenant to tenant by seeking the first key past the one before. In the order of keys it never goes
//! back, so that one position says what is behind it and what is still ahead.

use futures_util::future::try_join;

use crate::{
    BatchLimit, Result,
    engine::{self, KeyValue, RangeQuery},
    keyspace::{KeyPart, KeyRange, Place, Root, packed},
    model::TenantId,
};

/// Maximum number of tenants that are visited for one piece.
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
    /// Reads the rows from the position `from` on, which is empty at first: as many as `limit`
    /// allows, fewer if they come to `bytes`. A round of reads for each tenant, and one more.
    pub(super) async fn piece(
        self,
        tx: &engine::Transaction,
        from: &[u8],
        limit: BatchLimit,
        bytes: usize,
    ) -> Result<Piece> {
        let mut from = [self.root.as_bytes(), from].concat();
        let mut rows = Vec::new();
        let mut following = self.scope(tx, &from).await?;
        for _ in 0..TENANTS {
            let Some(scope) = following else {
                return Ok(Piece { rows, next: None });
            };
            let range =
                KeyRange::tuples(&[scope.as_slice(), &packed(&self.name.to_owned())].concat());
            let begin = range.begin.max(from);
            let own = async {
                if begin >= range.end {
                    return Ok((Vec::new(), false));
                }
                let left = limit.rows() - rows.len();
                let query = RangeQuery::new(begin, range.end).limit(left).target_bytes(bytes);
                let page = tx.get_range(&query).await?;
                Ok((page.rows, page.stopped != engine::Stopped::End))
            };
            let past = KeyRange::prefix(&scope).end;
            let ((own, more), next) = try_join(own, self.scope_past(tx, &past)).await?;
            rows.extend(own);
            following = next;
            from = match (rows.last(), more, self.place) {
                (Some(last), true, _) => [last.key.as_slice(), &[0]].concat(),
                (_, _, Place::Tenant) => past,
                (_, _, Place::Global) => return Ok(Piece { rows, next: None }),
            };
            let read: usize = rows.iter().map(|row| row.value.len()).sum();
            if more || rows.len() >= limit.rows() || read >= bytes || limit.is_spent() {
                break;
            }
        }
        let next = from.strip_prefix(self.root.as_bytes()).unwrap_or(&from).to_vec();
        Ok(Piece { rows, next: Some(next) })
    }

    /// Returns the prefix of the first scope after this one that has keys from `past` on.
    async fn scope_past(self, tx: &engine::Transaction, past: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.place {
            Place::Global => Ok(None),
            Place::Tenant => self.scope(tx, past).await,
        }
    }

    /// Returns the prefix of the first scope that has keys from `from` on.
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
