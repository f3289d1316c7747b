//! Deleting something with all that hangs on it.
//!
//! One transaction removes the record itself, so that it is out of sight at once, and writes down that
//! the rest is to go: a [`Deletion`]. [`Store::complete`] removes that in transactions of bounded
//! size. It can be broken off anywhere, by a kill too: the deletion is still
//! [there](Store::complete_deletions), and is begun again from what is left.
//!
//! What hangs on what. Whoever hangs something there [requires](Transaction::require) the record in the
//! same transaction, so that it conflicts with the deletion and finds out: the models' own methods do.
//!
//! ```text
//! tenant        all under its prefix, and what is said of that in indexes over all tenants
//! session       session_state, session_memory, client_state, client_sequences; files of its own, drafts;
//!               conversations begun in it
//! conversation  messages; and its id in the sessions that it goes with
//! logins        a user's auth_sessions of earlier login epochs
//! ```
//!
//! Files of a workspace stay: the workspace outlives the session. The deletion of a tenant begins with
//! its users, so that nobody can add to it any more; what somebody did until then is gone through
//! again, until there is nothing.

use chrono::{DateTime, Utc};

use super::{TenantTransaction, Transaction, blob, clear};
use crate::{
    BatchLimit, BatchSize, Counter, Entity, Error, Result, Store,
    batch::map_concurrent,
    engine::{KeySelector, RangeQuery},
    entity::Declaration,
    keyspace::{Global, KeyPart, KeyRange},
    model::{
        AuthSession, ClientSequence, ClientState, Conversation, ConversationId, Deleted, Deletion,
        Draft, File, Message, PartState, Session, SessionId, SessionMemory, SessionState,
        StatePart, Tenant, TenantId, User, UserId,
    },
};

/// Maximum number of records that one transaction removes.
const BATCH: usize = 100;
/// Maximum number of sessions that one transaction takes a deleted conversation out of.
const MAX_UNLINKED: usize = 10;
/// Maximum number of files that one transaction removes: each may have a hundred contents.
const FILES: usize = 4;

impl Transaction {
    /// Deletes a workspace session, and gives what is left to [complete](Store::complete); `None` if
    /// there is no such session. Two reads.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Self::delete).
    pub async fn delete_session(
        &self,
        tenant: TenantId,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<Option<Deletion>> {
        if self.delete::<Session>(tenant, session).await?.is_none() {
            return Ok(None);
        }
        self.release(tenant, Counter::SESSIONS, 1)?;
        self.request(tenant, Deleted::Session(session), now).await.map(Some)
    }

    /// Deletes a conversation, and gives what is left to [complete](Store::complete); `None` if there
    /// is no such conversation. Two reads.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Self::delete).
    pub async fn delete_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: DateTime<Utc>,
    ) -> Result<Option<Deletion>> {
        if self.delete::<Conversation>(tenant, conversation).await?.is_none() {
            return Ok(None);
        }
        unlink_conversation(self, tenant, conversation).await?;
        self.request(tenant, Deleted::Conversation(conversation), now).await.map(Some)
    }

    /// Deletes a tenant, and gives what is left to [complete](Store::complete): every key that is the
    /// tenant's, of entities of other crates too; `None` if there is no such tenant. Two reads.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Self::delete).
    pub async fn delete_tenant(
        &self,
        tenant: TenantId,
        now: DateTime<Utc>,
    ) -> Result<Option<Deletion>> {
        if self.delete::<Tenant>(tenant, ()).await?.is_none() {
            return Ok(None);
        }
        self.request(tenant, Deleted::Tenant, now).await.map(Some)
    }

    /// Revokes all logins of `user` by incrementing their login epoch, whatever their number, and
    /// returns the user as written. The sessions of earlier epochs are left to
    /// [complete](Store::complete). Two reads.
    ///
    /// # Errors
    ///
    /// Those of [`update`](Self::update).
    pub async fn revoke_logins(&self, user: User, now: DateTime<Utc>) -> Result<User> {
        let user = user.with_logins_revoked();
        self.update(&user).await?;
        let (tenant_id, of) = (user.tenant_id, Deleted::Logins(user.id));
        self.upsert(&Deletion { tenant_id, of, requested_at: now }).await?;
        Ok(user)
    }

    async fn request(
        &self,
        tenant_id: TenantId,
        of: Deleted,
        requested_at: DateTime<Utc>,
    ) -> Result<Deletion> {
        let deletion = Deletion { tenant_id, of, requested_at };
        self.create(&deletion).await?;
        Ok(deletion)
    }
}

impl TenantTransaction {
    /// As [`Transaction::delete_session`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn delete_session(
        &self,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<Option<Deletion>> {
        self.tx.delete_session(self.tenant, session, now).await
    }

    /// As [`Transaction::delete_conversation`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn delete_conversation(
        &self,
        conversation: ConversationId,
        now: DateTime<Utc>,
    ) -> Result<Option<Deletion>> {
        self.tx.delete_conversation(self.tenant, conversation, now).await
    }
}

impl Store {
    /// Removes what hangs on what was deleted, in as many transactions as it takes. Several may be at
    /// it, and one that is through finds nothing left.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if there is a record whose index entries cannot be known, or may be, by
    /// an entity that another program declares: then it is for that to complete it; those of
    /// [`Store::run`]. The deletion is still there then.
    pub async fn complete(&self, deletion: &Deletion) -> Result<()> {
        let tenant = deletion.tenant_id;
        match deletion.of {
            Deleted::Tenant => return self.delete_rest_of_tenant(tenant).await,
            Deleted::Logins(user) => return self.delete_revoked_logins(tenant, user).await,
            Deleted::Session(session) => {
                self.delete_rest_of_session(tenant, session, deletion.requested_at).await?;
            }
            Deleted::Conversation(conversation) => {
                let unlink =
                    |tx| async move { unlink_conversation(&tx, tenant, conversation).await };
                while !self.run_idempotent(unlink).await? {}
                self.delete_messages(tenant, conversation).await?;
            }
        }
        self.run_idempotent(|tx| async move {
            tx.delete::<Deletion>(Global, deletion.key()).await.map(|_| ())
        })
        .await
    }

    /// [Completes](Self::complete) all deletions that are under way, those that others are at too, and
    /// says how many they were.
    ///
    /// # Errors
    ///
    /// Those of [`complete`](Self::complete).
    pub async fn complete_deletions(&self) -> Result<u64> {
        let (mut completed, mut failure, mut next) = (0, Ok(()), None);
        loop {
            let after = &next;
            let pending = |tx: Transaction| async move {
                tx.list::<Deletion>(Global).page(BATCH, after.as_ref()).await
            };
            let pending = self.run(pending).await?;
            for deletion in &pending.items {
                // One that fails does not keep the others from being completed.
                match self.complete(deletion).await {
                    Ok(()) => completed += 1,
                    Err(error) => failure = failure.and(Err(error)),
                }
            }
            next = pending.next;
            if next.is_none() {
                return failure.map(|()| completed);
            }
        }
    }

    async fn delete_rest_of_session(
        &self,
        tenant: TenantId,
        session: SessionId,
        requested_at: DateTime<Utc>,
    ) -> Result<()> {
        self.delete_keys::<SessionMemory>(tenant, &session).await?;
        self.delete_keys::<ClientState>(tenant, &session).await?;
        self.run_idempotent(|tx| async move { release_state(&tx, tenant, session).await }).await?;
        self.delete_keys::<SessionState>(tenant, &session).await?;
        self.delete_sequences(tenant, session).await?;
        self.delete_drafts(tenant, session).await?;
        self.delete_files(tenant, session).await?;
        self.delete_conversations(tenant, session, requested_at).await
    }

    /// Removes the records whose keys begin with `front`.
    async fn delete_keys<E>(&self, tenant: TenantId, front: &impl KeyPart) -> Result<()>
    where
        E: Entity<Scope = TenantId>,
    {
        const { assert!(E::INDEXES.is_empty(), "a range is cleared that no index knows of") };
        let range = KeyRange::tuples(&E::SPACE.key(self.root(), tenant, front));
        clear::range(self, range).await
    }

    async fn delete_sequences(&self, tenant: TenantId, session: SessionId) -> Result<()> {
        let size = BatchSize::new(BATCH);
        let sequences = |tx: Transaction, limit: BatchLimit| async move {
            let some = tx.list_keys::<ClientSequence>(tenant, (session,));
            let some = some.page(limit.rows(), None).await?;
            let keys: Vec<_> = some.items.iter().map(Entity::key).collect();
            map_concurrent(&keys, |key| tx.delete::<ClientSequence>(tenant, key)).await?;
            Ok::<_, Error>(keys.is_empty())
        };
        while !self.run_batch(&size, sequences).await? {}
        Ok(())
    }

    async fn delete_drafts(&self, tenant: TenantId, session: SessionId) -> Result<()> {
        let size = BatchSize::new(BATCH);
        let drafts = |tx: Transaction, limit: BatchLimit| async move {
            let some = tx.list_keys::<Draft>(tenant, (session,)).page(limit.rows(), None).await?;
            let discard = |draft: Draft| {
                let tx = tx.clone();
                async move { draft.discard(&tx, DateTime::UNIX_EPOCH).await }
            };
            map_concurrent(some.items.clone(), discard).await?;
            Ok::<_, Error>(some.items.iter().map(|draft| draft.blob.id).collect::<Vec<_>>())
        };
        loop {
            let blobs = self.run_batch(&size, drafts).await?;
            if blobs.is_empty() {
                return Ok(());
            }
            blob::remove_all(self, blobs.into_iter().map(|id| (tenant, id)), None).await?;
        }
    }

    async fn delete_files(&self, tenant: TenantId, session: SessionId) -> Result<()> {
        let size = BatchSize::new(FILES);
        let files = |tx: Transaction, limit: BatchLimit| async move {
            let files = tx.scan(&File::BY_SESSION, tenant, session);
            let files = files.page(limit.rows(), None).await?.items;
            // The blobs may be removed at once: no reader of a deleted file is waited for.
            let removed = File::remove_all(&tx, tenant, &files, DateTime::UNIX_EPOCH).await?;
            Ok::<_, Error>((files.is_empty(), removed))
        };
        loop {
            let (done, blobs) = self.run_batch(&size, files).await?;
            blob::remove_all(self, blobs.into_iter().map(|blob| (tenant, blob.id)), None).await?;
            if done {
                return Ok(());
            }
        }
    }

    async fn delete_conversations(
        &self,
        tenant: TenantId,
        session: SessionId,
        requested_at: DateTime<Utc>,
    ) -> Result<()> {
        let size = BatchSize::new(BATCH);
        let conversations = |tx: Transaction, limit: BatchLimit| async move {
            let begun = tx.scan(&Conversation::BY_SESSION, tenant, session);
            let begun = begun.page(limit.rows(), None).await?.items;
            let delete =
                |begun: Conversation| tx.delete_conversation(tenant, begun.id, requested_at);
            let deletions = map_concurrent(begun, delete).await?;
            Ok::<_, Error>(deletions.into_iter().flatten().collect::<Vec<_>>())
        };
        loop {
            let deletions = self.run_batch(&size, conversations).await?;
            for deletion in &deletions {
                Box::pin(self.complete(deletion)).await?;
            }
            if deletions.is_empty() {
                return Ok(());
            }
        }
    }

    async fn delete_messages(&self, tenant: TenantId, conversation: ConversationId) -> Result<()> {
        let size = BatchSize::new(BATCH);
        let messages = |tx: Transaction, limit: BatchLimit| async move {
            let page = tx.log::<Message>(tenant, conversation, ..);
            let page = page.page(limit.rows(), None).await?;
            let positions: Vec<_> = page.items.iter().map(|message| message.position).collect();
            let remove = |at| tx.take_out::<Message>(tenant, conversation, at);
            let removed = map_concurrent(positions.iter().copied(), remove).await?;
            let bytes = removed.iter().flatten().map(Message::counted_bytes).sum();
            tx.release(tenant, Counter::BYTES, bytes)?;
            Ok::<_, Error>(positions.is_empty())
        };
        while !self.run_batch(&size, messages).await? {}
        Ok(())
    }

    /// Deletes the sessions of earlier login epochs. The deletion ends in a transaction that has read
    /// the user and found none, so that it conflicts with a later revocation.
    async fn delete_revoked_logins(&self, tenant: TenantId, id: UserId) -> Result<()> {
        let logins = |tx: Transaction| async move {
            let user = tx.get::<User>(tenant, id).await?;
            let epoch = user.map_or(u64::MAX, |user| user.login_epoch);
            let earlier = (id, 0, i64::MIN)..(id, epoch, i64::MIN);
            let some = tx.covered(&AuthSession::BY_USER, tenant, earlier).page(BATCH, None).await?;
            for login in &some.items {
                tx.delete::<AuthSession>(tenant, login.key).await?;
            }
            let done = some.items.is_empty();
            if done {
                tx.delete::<Deletion>(Global, (tenant, Deleted::Logins(id))).await?;
            }
            Ok::<_, Error>(done)
        };
        while !self.run_idempotent(logins).await? {}
        Ok(())
    }

    async fn delete_rest_of_tenant(&self, tenant: TenantId) -> Result<()> {
        let typed: Vec<&Declaration> =
            self.registry().declarations().filter(|of| of.is_indexed_in_tenants()).collect();
        loop {
            // Records of entities that are not declared here cannot go without their entries.
            self.run(|tx| async move { tx.known().await?.require_nothing_foreign() }).await?;
            for declaration in &typed {
                let size = BatchSize::new(BATCH);
                let delete = |tx, limit| delete_records(tx, limit, declaration, tenant);
                while !self.run_batch(&size, delete).await? {}
            }
            // No index knows of what is left.
            let KeyRange { mut begin, end } = self.root().tenant(tenant);
            let mut spared: Vec<KeyRange> =
                typed.iter().map(|of| of.range(self.root(), tenant)).collect();
            spared.sort_by(|a, b| a.begin.cmp(&b.begin));
            for space in spared {
                clear::range(self, KeyRange { begin, end: space.begin }).await?;
                begin = space.end;
            }
            clear::range(self, KeyRange { begin, end }).await?;
            if self.run_idempotent(|tx| async move { forget_tenant(&tx, tenant).await }).await? {
                return Ok(());
            }
        }
    }
}

/// Releases the bytes of the memory and the client state of a deleted session, once: what counts them
/// is removed in the same transaction.
async fn release_state(tx: &Transaction, tenant: TenantId, session: SessionId) -> Result<()> {
    let usage = tx.delete::<SessionState>(tenant, (session, StatePart::Memory)).await?;
    let memory_bytes = match usage.map(|saved| saved.state) {
        Some(PartState::Memory(usage)) => i64::try_from(usage.bytes).unwrap_or(i64::MAX),
        _ => 0,
    };
    let of = (tenant, session);
    let client_bytes = tx.remove_session_counter(of, Counter::CLIENT_STATE_BYTES).await?;
    match memory_bytes.saturating_add(client_bytes) {
        freed @ 1.. => tx.release(tenant, Counter::BYTES, freed),
        _ => Ok(()),
    }
}

/// Takes a deleted conversation out of some of the sessions that it goes with, and returns whether there
/// are no others.
async fn unlink_conversation(
    tx: &Transaction,
    tenant: TenantId,
    conversation: ConversationId,
) -> Result<bool> {
    let linked = tx.scan(&Session::BY_CONVERSATION, tenant, conversation);
    let linked = linked.page(MAX_UNLINKED, None).await?;
    for session in linked.items {
        tx.update(&Session { conversation_id: None, ..session }).await?;
    }
    Ok(linked.next.is_none())
}

/// Removes some of the tenant's records, with their entries, and returns whether there was none.
async fn delete_records(
    tx: Transaction,
    limit: BatchLimit,
    declaration: &Declaration,
    tenant: TenantId,
) -> Result<bool> {
    let range = declaration.range(tx.root(), tenant);
    let query = RangeQuery::new(range.begin, range.end).limit(limit.rows()).target_bytes(1 << 20);
    let rows = tx.engine().get_range(&query).await?.rows;
    map_concurrent(&rows, |row| (declaration.delete)(&tx, &row.key)).await?;
    Ok(rows.is_empty())
}

/// Ends the deletion of a tenant, if it has nothing any more.
async fn forget_tenant(tx: &Transaction, tenant: TenantId) -> Result<bool> {
    let all = tx.root().tenant(tenant);
    let first = KeySelector::first_greater_or_equal(all.begin.clone());
    if all.contains(&tx.engine().get_key(&first).await?) {
        return Ok(false);
    }
    let deletions = tx.list_keys::<Deletion>(Global, (tenant,)).page(BATCH, None).await?;
    let last = deletions.next.is_none();
    let ended = deletions.items.iter().filter(|deletion| last || deletion.of != Deleted::Tenant);
    let ended: Vec<_> = ended.map(Entity::key).collect();
    map_concurrent(ended, |key| tx.delete::<Deletion>(Global, key)).await?;
    Ok(deletions.next.is_none())
}
