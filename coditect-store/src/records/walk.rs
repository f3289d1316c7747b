//! Walks through all rows of one name, across all tenants, in bounded pieces.
//!
//! Each tenant has a range of such rows; the walk seeks from tenant to tenant. It follows key
//! order, so one position separates processed rows from the remaining ones.

use futures_util::future::try_join;

use crate::{
    BatchLimit, Result,
    engine::{self, KeyValue, RangeQuery},
    keyspace::{KeyPart, KeyRange, Root, ScopeKind, TenantId, packed},
};

/// Maximum number of tenants visited for one piece.
const TENANTS: usize = 200;

/// The rows of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    pub(super) root: &'a Root,
    pub(super) scope_kind: ScopeKind,
    pub(super) name: &'a str,
}

/// A piece of a walk.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) rows: Vec<KeyValue>,
    /// Position to continue at, without the root; `None` at the end. All rows before it are
    /// processed.
    pub(super) next: Option<Vec<u8>>,
}

impl Walk<'_> {
    /// Reads the rows from the position `from`, which is empty at first: as many as `limit` allows,
    /// fewer if they reach `bytes`. One round of reads per tenant, and one more.
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
            from = match (rows.last(), more, self.scope_kind) {
                (Some(last), true, _) => [last.key.as_slice(), &[0]].concat(),
                (_, _, ScopeKind::Tenant) => past,
                (_, _, ScopeKind::Global) => return Ok(Piece { rows, next: None }),
            };
            let read: usize = rows.iter().map(|row| row.value.len()).sum();
            if more || rows.len() >= limit.rows() || read >= bytes || limit.is_spent() {
                break;
            }
        }
        let next = from.strip_prefix(self.root.as_bytes()).unwrap_or(&from).to_vec();
        Ok(Piece { rows, next: Some(next) })
    }

    /// Returns the prefix of the next scope with keys from `past` on.
    async fn scope_past(self, tx: &engine::Transaction, past: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.scope_kind {
            ScopeKind::Global => Ok(None),
            ScopeKind::Tenant => self.scope(tx, past).await,
        }
    }

    /// Returns the prefix of the first scope with keys from `from` on.
    async fn scope(self, tx: &engine::Transaction, from: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.scope_kind == ScopeKind::Global {
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
