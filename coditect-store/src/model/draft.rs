//! Drafts: unsaved text of files.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{FilePolicy, Session, SessionId, TenantId};
use crate::{
    Blob, Entity, Error, ErrorKind, Result, Transaction, indexes, keyspace::Subspace,
    records::blob::counted,
};

/// The unsaved text of one file in a session. Kept until it is saved or discarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Tenant of the session.
    pub tenant_id: TenantId,
    /// Session.
    pub session_id: SessionId,
    /// Path of the file, which need not exist.
    pub path: String,
    /// Hash of the content that it is based on; `None` for a new file.
    pub base: Option<[u8; 32]>,
    /// Text.
    pub blob: Blob,
    /// Time of the last write.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for Draft {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Subspace<TenantId> = Subspace::tenant("drafts").keyed(&["session", "path"]);
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
    /// Maximum number of drafts of a session.
    pub const MAX_PER_SESSION: usize = 200;

    /// Writes the draft, replacing the one at its path. Reads the session and that draft, and
    /// [saves](Self::save_over).
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist; errors of [`save_over`](Self::save_over).
    pub async fn save(&self, tx: &Transaction, policy: &FilePolicy) -> Result<()> {
        let session = tx.get_required::<Session>(self.tenant_id, self.session_id);
        let (_, before) = try_join(session, tx.get::<Self>(self.tenant_id, self.key())).await?;
        self.save_over(tx, before.as_ref(), policy).await
    }

    /// Writes the draft over `before`, the one at its path as `tx` has read it, whose blob is
    /// detached. Its own blob must be uploaded. `tx` has read the session. At most four rounds of
    /// reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if the [blob](Transaction::attach) does not exist; `Limit` if the
    /// session has [`MAX_PER_SESSION`](Self::MAX_PER_SESSION) drafts; `QuotaExceeded` if the tenant
    /// would exceed `policy`.
    pub async fn save_over(
        &self,
        tx: &Transaction,
        before: Option<&Self>,
        policy: &FilePolicy,
    ) -> Result<()> {
        if before.is_none() {
            let others = tx.list_keys::<Self>(self.tenant_id, (self.session_id,));
            if others.page(Self::MAX_PER_SESSION, None).await?.items.len() == Self::MAX_PER_SESSION
            {
                return Err(Error::new(
                    ErrorKind::Limit,
                    "the session has the maximum number of drafts",
                ));
            }
        }
        tx.attach(self.tenant_id, &self.blob).await?;
        let mut freed = 0;
        if let Some(before) = before {
            tx.detach(self.tenant_id, &before.blob, self.saved_at).await?;
            freed = counted(before.blob.size);
        }
        tx.upsert_over(before, self).await?;
        policy.require_room(tx, self.tenant_id, counted(self.blob.size), freed).await
    }

    /// Deletes the draft, and detaches its blob.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; errors of [`Transaction::delete`].
    pub async fn discard(&self, tx: &Transaction, now: DateTime<Utc>) -> Result<()> {
        let Some(removed) = tx.delete_without_blobs::<Self>(self.tenant_id, self.key()).await?
        else {
            return Err(Error::new(ErrorKind::NotFound, "the draft does not exist"));
        };
        tx.detach(self.tenant_id, &removed.blob, now).await
    }
}
