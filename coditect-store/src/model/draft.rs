//! A draft: text that was typed into a file and not saved.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{Session, SessionId, TenantId};
use crate::{
    Blob, Counter, Entity, Error, ErrorKind, Result, Transaction, indexes, keyspace::Space,
};

/// What a session has unsaved of one file: there until it is saved or discarded, whatever becomes of
/// the page that it was typed into.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The session's tenant.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// The path of the file, which need not be there.
    pub path: String,
    /// The hash of the content that it started from; none for a new file.
    pub base: Option<[u8; 32]>,
    /// The text.
    pub blob: Blob,
    /// When it was last written.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for Draft {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Space<TenantId> = Space::tenant("drafts").keyed(&["session", "path"]);
    const VERSION: u8 = 1;
    const BLOBS: Option<fn(&Self) -> Vec<Blob>> = Some(|draft| vec![draft.blob]);

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String) {
        (self.session_id, self.path.clone())
    }
}

indexes! { Draft => }

impl Draft {
    /// The most drafts of a session.
    pub const MOST: usize = 200;

    /// Writes it, over what there was at its path. Its blob was uploaded; that of the one before goes.
    /// Five rounds of reads at the most.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session, or the [blob](Transaction::attach) is not there; `Limit` if
    /// there are as many as there may be; `Quota` if the tenant has no room for it, which has `limit_bytes`.
    pub async fn save(&self, tx: &Transaction, limit_bytes: i64) -> Result<()> {
        tx.require::<Session>(self.tenant_id, self.session_id).await?;
        let before = tx.get::<Self>(self.tenant_id, self.key()).await?;
        if before.is_none() {
            let others = tx.list_keys::<Self>(self.tenant_id, (self.session_id,));
            if others.page(Self::MOST, None).await?.items.len() == Self::MOST {
                return Err(Error::new(ErrorKind::Limit, "a session has too many drafts"));
            }
        }
        tx.attach(self.tenant_id, &self.blob).await?;
        let freed = match &before {
            None => 0,
            Some(before) => before.let_go(tx).await?,
        };
        tx.upsert(self).await?;
        match bytes(&self.blob) - freed {
            more @ 1.. => tx.charge(self.tenant_id, Counter::BYTES, more, limit_bytes).await,
            less => tx.release(self.tenant_id, Counter::BYTES, -less),
        }
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there any more; those of [`Transaction::delete`].
    pub async fn discard(&self, tx: &Transaction) -> Result<()> {
        let Some(removed) = tx.delete::<Self>(self.tenant_id, self.key()).await? else {
            return Err(Error::new(ErrorKind::NotFound, "the draft is not there any more"));
        };
        let freed = removed.let_go(tx).await?;
        tx.release(self.tenant_id, Counter::BYTES, freed)
    }

    /// Lets go of its blob, which the next sweep takes: it is its owner's alone, and is read at once or
    /// not at all. Says how many bytes that had.
    async fn let_go(&self, tx: &Transaction) -> Result<i64> {
        tx.detach(self.tenant_id, &self.blob, DateTime::UNIX_EPOCH).await?;
        Ok(bytes(&self.blob))
    }
}

/// What a text counts of a tenant's bytes.
fn bytes(blob: &Blob) -> i64 {
    i64::try_from(blob.size).unwrap_or(i64::MAX)
}
