//! A draft: text that was typed into a file and not saved.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{FilePolicy, Session, SessionId, TenantId};
use crate::{
    Blob, Entity, Error, ErrorKind, Result, Transaction, indexes, keyspace::Space,
    repository::blob::counted,
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

    /// Writes it in place of the draft at its path, whose blob is detached. Its own blob was uploaded.
    /// Five rounds of reads at the most.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session, or the [blob](Transaction::attach) is not there; `Limit` if
    /// the session has [`MOST`](Self::MOST) drafts; `QuotaExceeded` if the tenant has no room within `policy`.
    pub async fn save(&self, tx: &Transaction, policy: &FilePolicy) -> Result<()> {
        tx.require::<Session>(self.tenant_id, self.session_id).await?;
        let before = tx.get::<Self>(self.tenant_id, self.key()).await?;
        if before.is_none() {
            let others = tx.list_keys::<Self>(self.tenant_id, (self.session_id,));
            if others.page(Self::MOST, None).await?.items.len() == Self::MOST {
                return Err(Error::new(ErrorKind::Limit, "a session has too many drafts"));
            }
        }
        tx.attach(self.tenant_id, &self.blob).await?;
        let mut freed = 0;
        if let Some(before) = &before {
            tx.detach(self.tenant_id, &before.blob, self.saved_at).await?;
            freed = counted(before.blob.size);
        }
        tx.upsert(self).await?;
        policy.require_room(tx, self.tenant_id, counted(self.blob.size), freed).await
    }

    /// Deletes it and detaches its blob.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there any more; those of [`Transaction::delete`].
    pub async fn discard(&self, tx: &Transaction, now: DateTime<Utc>) -> Result<()> {
        let Some(removed) = tx.delete_without_blobs::<Self>(self.tenant_id, self.key()).await?
        else {
            return Err(Error::new(ErrorKind::NotFound, "the draft is not there any more"));
        };
        tx.detach(self.tenant_id, &removed.blob, now).await
    }
}
