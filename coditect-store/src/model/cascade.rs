//! Cascading deletes.
//!
//! One transaction deletes the record itself, which hides it at once, and writes a [`Deletion`].
//! [`Store::resume_deletion`] removes the dependent records in transactions of bounded size. If it
//! is interrupted, the deletion [remains](Store::resume_deletions) and is resumed.
//!
//! Every transaction that adds a dependent record [reads](Transaction::get_required) its parent,
//! and so conflicts with the parent's deletion; the methods of the models do.
//!
//! ```text
//! tenant        all keys under its prefix, and their entries in global indexes
//! session       session_state, session_memory, client_state, client_sequences; its files, drafts;
//!               conversations begun in it
//! conversation  messages; and its id in the sessions linked to it
//! logins        a user's auth_sessions of earlier login epochs
//! ```
//!
//! Files of a workspace remain: the workspace outlives the session. The deletion of a tenant starts
//! with its users, so that nothing can be added to it, and repeats until no key is left.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use futures_util::future::try_join;

use super::{
    AuthSession, ClientSequence, ClientState, Conversation, ConversationId, Deleted, Deletion,
    Draft, File, Message, PartState, Session, SessionId, SessionMemory, SessionState, StatePart,
    Tenant, TenantId, User, UserId,
};
use crate::{
    BatchLimit, BatchSize, Counter, Entity, Error, ErrorKind, Result, Store,
    batch::map_concurrent,
    engine::{KeySelector, RangeQuery},
    entity::EntitySchema,
    keyspace::{Global, KeyPart, KeyRange},
    records::{Transaction, blob, clear},
};

/// Maximum number of records that one transaction deletes.
const BATCH: usize = 100;
/// Maximum number of sessions that one transaction unlinks from a deleted conversation.
const MAX_UNLINKED: usize = 10;
/// Maximum number of files that one transaction deletes: each may have a hundred versions.
const FILES: usize = 4;

impl Transaction {
    /// Deletes a workspace session, and returns the deletion to [resume](Store::resume_deletion);
    /// `None` if the session does not exist. Two reads.
    ///
    /// # Errors
    ///
    /// Errors of [`delete`](Self::delete).
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

    /// Deletes a conversation, and returns the deletion to [resume](Store::resume_deletion); `None`
    /// if the conversation does not exist. Two reads.
    ///
    /// # Errors
    ///
    /// Errors of [`delete`](Self::delete).
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

    /// Deletes a tenant, and returns the deletion to [resume](Store::resume_deletion), which
    /// removes every key of the tenant, including entities of other crates; `None` if the tenant
    /// does not exist. Two reads.
    ///
    /// # Errors
    ///
    /// Errors of [`delete`](Self::delete).
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

    /// Revokes all logins of `user` by incrementing their login epoch, and returns the updated
    /// user. The sessions of earlier epochs are deleted by
    /// [`resume_deletion`](Store::resume_deletion). Two reads.
    ///
    /// # Errors
    ///
    /// Errors of [`update`](Self::update).
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
        self.insert(&deletion).await?;
        Ok(deletion)
    }
}

impl Store {
    /// Deletes the dependent records of a deletion, in as many transactions as needed. Idempotent,
    /// and safe to run concurrently.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if the index entries of a record are unknown, which includes
    /// records of entities that only another program declares; errors of [`Store::run`]. The
    /// deletion remains.
    pub async fn resume_deletion(&self, deletion: &Deletion) -> Result<()> {
        let tenant = deletion.tenant_id;
        match deletion.of {
            Deleted::Tenant => return self.delete_rest_of_tenant(deletion).await,
            Deleted::Logins(user) => return self.delete_revoked_logins(tenant, user).await,
            Deleted::Session(session) => {
                self.delete_rest_of_session(deletion, session).await?;
            }
            Deleted::Conversation(conversation) => {
                let unlink =
                    |tx, _| async move { unlink_conversation(&tx, tenant, conversation).await };
                self.repeat(deletion, BATCH, unlink).await?;
                self.delete_messages(deletion, conversation).await?;
            }
        }
        self.run_idempotent(|tx| async move {
            tx.delete::<Deletion>(Global, deletion.key()).await.map(|_| ())
        })
        .await
    }

    /// [Resumes](Self::resume_deletion) all pending deletions, and returns their number.
    ///
    /// # Errors
    ///
    /// Errors of [`resume_deletion`](Self::resume_deletion). A deletion that fails does not stop
    /// the others.
    pub async fn resume_deletions(&self) -> Result<u64> {
        let (mut completed, mut failure, mut next) = (0, Ok(()), None);
        loop {
            let after = &next;
            let pending = |tx: Transaction| async move {
                tx.list::<Deletion>(Global).page(BATCH, after.as_ref()).await
            };
            let pending = self.run(pending).await?;
            for deletion in &pending.items {
                // The others are resumed all the same.
                match self.resume_deletion(deletion).await {
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

    /// Runs one batch of `deletion`, unless that is complete: then returns `None`. Another process
    /// may have completed it, and the same keys may exist again, by the import of a tenant.
    async fn step<T, F, Fut>(
        &self,
        deletion: &Deletion,
        size: &BatchSize,
        body: F,
    ) -> Result<Option<T>>
    where
        F: Fn(Transaction, BatchLimit) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let (key, body, is_complete) = (&deletion.key(), &body, &AtomicBool::new(false));
        let step = |tx: Transaction, limit| async move {
            is_complete.store(false, Ordering::Relaxed);
            let pending = async {
                if tx.get::<Deletion>(Global, key).await?.is_none() {
                    is_complete.store(true, Ordering::Relaxed);
                    return Err(Error::new(ErrorKind::NotFound, "the deletion is complete"));
                }
                Ok(())
            };
            try_join(pending, body(tx.clone(), limit)).await.map(|((), done)| done)
        };
        match self.run_batch(size, step).await {
            Err(_) if is_complete.load(Ordering::Relaxed) => Ok(None),
            done => done.map(Some),
        }
    }

    /// Runs batches of `deletion` of at most `most` records until one returns true.
    async fn repeat<F, Fut>(&self, deletion: &Deletion, most: usize, body: F) -> Result<()>
    where
        F: Fn(Transaction, BatchLimit) -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let size = BatchSize::new(most);
        while self.step(deletion, &size, &body).await? == Some(false) {}
        Ok(())
    }

    async fn delete_rest_of_session(&self, of: &Deletion, session: SessionId) -> Result<()> {
        let tenant = of.tenant_id;
        self.delete_keys::<SessionMemory>(of, &session).await?;
        self.delete_keys::<ClientState>(of, &session).await?;
        let release =
            |tx, _| async move { release_state(&tx, tenant, session).await.map(|()| true) };
        self.repeat(of, BATCH, release).await?;
        self.delete_keys::<SessionState>(of, &session).await?;
        self.delete_sequences(of, session).await?;
        self.delete_drafts(of, session).await?;
        self.delete_files(of, session).await?;
        self.delete_conversations(of, session).await
    }

    /// Deletes the records whose keys start with `front`.
    async fn delete_keys<E>(&self, of: &Deletion, front: &impl KeyPart) -> Result<()>
    where
        E: Entity<Scope = TenantId>,
    {
        const { assert!(E::INDEXES.is_empty(), "clearing a range bypasses indexes") };
        let range = KeyRange::tuples(&E::SPACE.key(self.root(), of.tenant_id, front));
        clear::range(self, range, &of.stored_key(self.root())).await
    }

    async fn delete_sequences(&self, of: &Deletion, session: SessionId) -> Result<()> {
        let tenant = of.tenant_id;
        let sequences = |tx: Transaction, limit: BatchLimit| async move {
            let some = tx.list_keys::<ClientSequence>(tenant, (session,));
            let some = some.page(limit.rows(), None).await?;
            let keys: Vec<_> = some.items.iter().map(Entity::key).collect();
            map_concurrent(&keys, |key| tx.delete::<ClientSequence>(tenant, key)).await?;
            Ok::<_, Error>(keys.is_empty())
        };
        self.repeat(of, BATCH, sequences).await
    }

    async fn delete_drafts(&self, of: &Deletion, session: SessionId) -> Result<()> {
        let (tenant, size) = (of.tenant_id, BatchSize::new(BATCH));
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
            let blobs = self.step(of, &size, drafts).await?.unwrap_or_default();
            if blobs.is_empty() {
                return Ok(());
            }
            blob::remove_all(self, blobs.into_iter().map(|id| (tenant, id)), None).await?;
        }
    }

    async fn delete_files(&self, of: &Deletion, session: SessionId) -> Result<()> {
        let (tenant, size) = (of.tenant_id, BatchSize::new(FILES));
        let files = |tx: Transaction, limit: BatchLimit| async move {
            let files = tx.scan(&File::BY_SESSION, tenant, session);
            let files = files.page(limit.rows(), None).await?.items;
            // The blobs are removed at once: readers of a deleted session's files are
            // not waited for.
            let removed = File::remove_all(&tx, tenant, &files, DateTime::UNIX_EPOCH).await?;
            Ok::<_, Error>((files.is_empty(), removed))
        };
        loop {
            let Some((done, blobs)) = self.step(of, &size, files).await? else { return Ok(()) };
            blob::remove_all(self, blobs.into_iter().map(|blob| (tenant, blob.id)), None).await?;
            if done {
                return Ok(());
            }
        }
    }

    async fn delete_conversations(&self, of: &Deletion, session: SessionId) -> Result<()> {
        let (tenant, requested_at, size) = (of.tenant_id, of.requested_at, BatchSize::new(BATCH));
        let conversations = |tx: Transaction, limit: BatchLimit| async move {
            let begun = tx.scan(&Conversation::BY_SESSION, tenant, session);
            let begun = begun.page(limit.rows(), None).await?.items;
            let delete =
                |begun: Conversation| tx.delete_conversation(tenant, begun.id, requested_at);
            let deletions = map_concurrent(begun, delete).await?;
            Ok::<_, Error>(deletions.into_iter().flatten().collect::<Vec<_>>())
        };
        loop {
            let deletions = self.step(of, &size, conversations).await?.unwrap_or_default();
            for deletion in &deletions {
                Box::pin(self.resume_deletion(deletion)).await?;
            }
            if deletions.is_empty() {
                return Ok(());
            }
        }
    }

    async fn delete_messages(&self, of: &Deletion, conversation: ConversationId) -> Result<()> {
        let tenant = of.tenant_id;
        let messages = |tx: Transaction, limit: BatchLimit| async move {
            let page = tx.events::<Message>(tenant, conversation, ..);
            let page = page.page(limit.rows(), None).await?;
            let positions: Vec<_> = page.items.iter().map(|message| message.position).collect();
            let remove = |at| tx.remove_event::<Message>(tenant, conversation, at);
            let removed = map_concurrent(positions.iter().copied(), remove).await?;
            let bytes = removed.iter().flatten().map(Message::counted_bytes).sum();
            tx.release(tenant, Counter::BYTES, bytes)?;
            Ok::<_, Error>(positions.is_empty())
        };
        self.repeat(of, BATCH, messages).await
    }

    /// Deletes the login sessions of earlier epochs. The last transaction reads the user and finds
    /// no such session, so it conflicts with a concurrent revocation.
    async fn delete_revoked_logins(&self, tenant: TenantId, id: UserId) -> Result<()> {
        let logins = |tx: Transaction| async move {
            let user = tx.get::<User>(tenant, id).await?;
            let epoch = user.map_or(u64::MAX, |user| user.login_epoch);
            let earlier = (id, 0, i64::MIN)..(id, epoch, i64::MIN);
            let some = tx
                .scan_index_only(&AuthSession::BY_USER, tenant, earlier)
                .page(BATCH, None)
                .await?;
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

    async fn delete_rest_of_tenant(&self, of: &Deletion) -> Result<()> {
        let (tenant, pending) = (of.tenant_id, of.stored_key(self.root()));
        let typed: Vec<&EntitySchema> =
            self.schema().entities().filter(|of| of.is_indexed_in_tenants()).collect();
        loop {
            // Undeclared records cannot be deleted without their entries.
            self.run(|tx| async move { tx.require_nothing_foreign().await }).await?;
            for declaration in &typed {
                let delete = |tx, limit| delete_records(tx, limit, declaration, tenant);
                self.repeat(of, BATCH, delete).await?;
            }
            // The remaining keys have no index entries.
            let KeyRange { mut begin, end } = self.root().tenant(tenant);
            let mut spared: Vec<KeyRange> =
                typed.iter().map(|typed| typed.range(self.root(), tenant)).collect();
            spared.sort_by(|a, b| a.begin.cmp(&b.begin));
            for space in spared {
                clear::range(self, KeyRange { begin, end: space.begin }, &pending).await?;
                begin = space.end;
            }
            clear::range(self, KeyRange { begin, end }, &pending).await?;
            if self.run_idempotent(|tx| async move { forget_tenant(&tx, tenant).await }).await? {
                return Ok(());
            }
        }
    }
}

/// Releases the bytes of a deleted session's memory and client state. Idempotent: the counts are
/// removed in the same transaction.
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

/// Unlinks a deleted conversation from some of its sessions, and returns whether none is left.
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

/// Deletes some of the tenant's records, with their entries, and returns whether none was left.
async fn delete_records(
    tx: Transaction,
    limit: BatchLimit,
    declaration: &EntitySchema,
    tenant: TenantId,
) -> Result<bool> {
    let range = declaration.range(tx.root(), tenant);
    let query = RangeQuery::new(range.begin, range.end).limit(limit.rows()).target_bytes(1 << 20);
    let rows = tx.engine().get_range(&query).await?.rows;
    map_concurrent(&rows, |row| tx.delete_row(declaration, &row.key)).await?;
    Ok(rows.is_empty())
}

/// Ends the deletion of a tenant, if the tenant has no keys left. Returns whether it has ended.
async fn forget_tenant(tx: &Transaction, tenant: TenantId) -> Result<bool> {
    let all = tx.root().tenant(tenant);
    let first = KeySelector::first_greater_or_equal(all.begin.clone());
    let pending = tx.get::<Deletion>(Global, (tenant, Deleted::Tenant));
    let (pending, first) = try_join(pending, tx.engine().get_key(&first)).await?;
    if pending.is_none() {
        return Ok(true);
    }
    if all.contains(&first) {
        return Ok(false);
    }
    let deletions = tx.list_keys::<Deletion>(Global, (tenant,)).page(BATCH, None).await?;
    let last = deletions.next.is_none();
    let ended = deletions.items.iter().filter(|deletion| last || deletion.of != Deleted::Tenant);
    let ended: Vec<_> = ended.map(Entity::key).collect();
    map_concurrent(ended, |key| tx.delete::<Deletion>(Global, key)).await?;
    Ok(deletions.next.is_none())
}
