//! Cascading deletes: the removed and the remaining records, and that nothing is half deleted.

use chrono::TimeDelta;
use coditect_store::{
    BlobUpload, Clock, Counter, Entity, ErrorKind, Result, Store, Transaction,
    check::Event,
    engine::{Database, KeyValue, RangeQuery},
    keyspace::Global,
    model::{
        AuditEntry, AuthSession, AuthSessionId, ClientSequence, ClientState, Conversation,
        ConversationId, Deletion, Draft, EditorState, File, FilePolicy, FileRoot, IdempotencyEntry,
        Message, MessageId, Session, SessionId, SessionMemory, SessionState, StateQuota, Tenant,
        TenantId, Ticket, TicketId, TokenFamilyId, User, UserId,
    },
};

use uuid::Uuid;

use crate::{
    planner::{Task, task},
    samples,
};

async fn planner() -> Store {
    let database = Database::temporary().unwrap();
    Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Task>()
        .open(database)
        .await
        .unwrap()
}

/// Returns all rows except metadata.
pub(crate) async fn rows(store: &Store) -> Vec<KeyValue> {
    let meta = store.root().key(&"meta".to_owned());
    let all = RangeQuery::new(b"", b"\xff");
    let mut rows = store.begin().engine().get_range(&all).await.unwrap().rows;
    rows.retain(|row| !row.key.starts_with(&meta));
    rows
}

async fn create<E: Entity>(store: &Store, record: &E) {
    store.run(|tx| async move { tx.insert(record).await }).await.unwrap();
}

/// A session with a dependent record of every kind.
async fn furnished(store: &Store, tenant: TenantId, user: UserId, much: u64) -> SessionId {
    let id = SessionId::new();
    let (tenant_id, user_id, conversation_id) = (tenant, user, None);
    let session = &Session { id, tenant_id, user_id, conversation_id, ..samples::session() };
    store.run(|tx| async move { session.insert(&tx, 100).await }).await.unwrap();
    let now = Clock::system().now();
    let fill = |tx: Transaction| async move {
        SessionState::save(&tx, tenant, id, EditorState::default(), now).await?;
        for n in 0..much {
            let (key, quota) = (format!("key {n}"), StateQuota::default());
            ClientState::save(&tx, (tenant, id), (&key, vec![7; 99]), &quota, now).await?;
            let memory = SessionMemory {
                tenant_id: tenant,
                session_id: id,
                key: format!("key {n}"),
                ..samples::session_memory()
            };
            memory.save(&tx, &quota).await?;
            let client = format!("tab {n}");
            ClientSequence::claim(&tx, (tenant, id), &client, Uuid::now_v7(), now).await?;
        }
        Ok::<_, coditect_store::Error>(())
    };
    store.run(fill).await.unwrap();
    for n in 0..much {
        put(store, tenant, &FileRoot::Session(id), &format!("file {n}")).await;
        let mut upload = BlobUpload::begin(store, tenant, &Clock::system()).await.unwrap();
        upload.write(&vec![2; 15_000]).await.unwrap();
        let (blob, path) = (upload.finish().await.unwrap(), format!("file {n}"));
        let draft = &Draft { tenant_id: tenant, session_id: id, path, blob, ..samples::draft() };
        store.run(|tx| async move { draft.save(&tx, &FilePolicy::default()).await }).await.unwrap();
    }
    for n in 0..2 {
        let conversation = &Conversation {
            id: ConversationId::new(),
            tenant_id: tenant,
            user_id: user,
            session_id: Some(id),
            ..samples::conversation()
        };
        store.run(|tx| async move { conversation.insert(&tx).await }).await.unwrap();
        for _ in 0..n * 3 * much {
            say(store, conversation).await;
        }
    }
    id
}

async fn say(store: &Store, conversation: &Conversation) {
    let message = &Message {
        id: MessageId::new(),
        tenant_id: conversation.tenant_id,
        conversation_id: conversation.id,
        ..samples::message()
    };
    store.run(|tx| async move { message.insert(&tx, 1 << 40).await.map(|_| ()) }).await.unwrap();
}

async fn put(store: &Store, tenant: TenantId, home: &FileRoot, path: &str) {
    for _ in 0..2 {
        let mut upload = BlobUpload::begin(store, tenant, &Clock::system()).await.unwrap();
        upload.write(&vec![1; 25_000]).await.unwrap();
        let blob = upload.finish().await.unwrap();
        let (policy, now) = (&FilePolicy::default(), Clock::system().now());
        let put = |tx| async move { File::put(&tx, tenant, (home, path), blob, policy, now).await };
        store.run(put).await.unwrap();
    }
}

/// A tenant with a user and dependents, including an entity of another crate.
async fn inhabited(store: &Store, name: &str) -> (TenantId, UserId) {
    let (tenant, user) = (TenantId::new(), UserId::new());
    create(store, &Tenant { id: tenant, ..samples::tenant() }).await;
    let email_normalized = format!("{name}@example.org");
    create(store, &User { id: user, tenant_id: tenant, email_normalized, ..samples::user() }).await;
    create(
        store,
        &AuthSession {
            id: AuthSessionId::new(),
            tenant_id: tenant,
            user_id: user,
            token_family: TokenFamilyId::new(),
            ..samples::auth_session()
        },
    )
    .await;
    let mut hash = [0; 32];
    hash[..name.len()].copy_from_slice(name.as_bytes());
    let ticket =
        Ticket { id: TicketId::new(), tenant_id: tenant, user_id: user, hash, ..samples::ticket() };
    create(store, &ticket).await;
    let entry =
        &IdempotencyEntry { tenant_id: tenant, user_id: user, ..samples::idempotency_entry() };
    store.run(|tx| async move { entry.keep(&tx, 1 << 40).await }).await.unwrap();
    create(store, &Task { tenant, ticket: Some(name.to_owned()), ..task(1) }).await;
    let entry = &AuditEntry { tenant_id: tenant, ..samples::audit_entry() };
    store.run(|tx| async move { tx.append(entry).await.map(|_| ()) }).await.unwrap();
    (tenant, user)
}

/// Asserts that a check finds nothing.
pub(crate) async fn is_sound(store: &Store) {
    let told = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            panic!("{finding}")
        }
    };
    assert!(store.check().run(told).await.unwrap().is_sound());
}

async fn delete_session(
    store: &Store,
    tenant: TenantId,
    id: SessionId,
) -> Result<Option<Deletion>> {
    let now = Clock::system().now();
    store.run(|tx| async move { tx.delete_session(tenant, id, now).await }).await
}

async fn delete_tenant(store: &Store, tenant: TenantId) -> Result<Option<Deletion>> {
    let now = Clock::system().now();
    store.run(|tx| async move { tx.delete_tenant(tenant, now).await }).await
}

#[tokio::test]
async fn deleted_session_takes_its_dependents_and_nothing_else() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    furnished(&store, tenant, user, 2).await;
    put(&store, tenant, &FileRoot::Workspace("/workspace/p".into()), "stays").await;
    let alone = Conversation { tenant_id: tenant, session_id: None, ..samples::conversation() };
    create(&store, &alone).await;
    say(&store, &alone).await;
    let before = rows(&store).await;

    let id = furnished(&store, tenant, user, 30).await;
    assert!(rows(&store).await.len() > before.len() + 200);
    let deletion = delete_session(&store, tenant, id).await.unwrap().unwrap();
    let tx = store.begin();
    assert_eq!(tx.get::<Session>(tenant, id).await.unwrap(), None, "it is out of sight at once");
    assert_eq!(delete_session(&store, tenant, id).await.unwrap(), None);
    store.resume_deletion(&deletion).await.unwrap();
    assert_eq!(rows(&store).await, before);
    store.resume_deletion(&deletion).await.unwrap();
    assert_eq!(rows(&store).await, before);
}

#[tokio::test]
async fn deleted_conversation_is_unlinked_from_all_sessions() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    let conversation = &Conversation {
        tenant_id: tenant,
        user_id: user,
        session_id: None,
        ..samples::conversation()
    };
    create(&store, conversation).await;
    let session = |n| Session {
        id: SessionId::new(),
        tenant_id: tenant,
        user_id: user,
        conversation_id: (n > 0).then_some(conversation.id),
        ..samples::session()
    };
    for n in 0..35 {
        let session = &session(n);
        store.run(|tx| async move { session.insert(&tx, 100).await }).await.unwrap();
    }
    is_sound(&store).await;
    let linked = async || {
        let tx = store.begin();
        let linked = tx.scan(&Session::BY_CONVERSATION, tenant, conversation.id);
        linked.all(99).await.unwrap().len()
    };
    assert_eq!(linked().await, 34);
    let now = Clock::system().now();
    let delete =
        |tx: Transaction| async move { tx.delete_conversation(tenant, conversation.id, now).await };
    let deletion = store.run(delete).await.unwrap().unwrap();
    assert!(linked().await < 34, "as many as one transaction changes");
    is_sound(&store).await;
    store.resume_deletion(&deletion).await.unwrap();
    assert_eq!(linked().await, 0);
    let sessions = store.begin().list::<Session>(tenant).all(99).await.unwrap();
    assert!(sessions.len() == 35 && sessions.iter().all(|it| it.conversation_id.is_none()));
    is_sound(&store).await;
}

#[tokio::test]
async fn a_deleted_tenant_leaves_no_key_and_the_others_keep_all() {
    let store = planner().await;
    let (other, somebody) = inhabited(&store, "grace").await;
    furnished(&store, other, somebody, 3).await;
    let before = rows(&store).await;

    let (tenant, user) = inhabited(&store, "ada").await;
    let id = furnished(&store, tenant, user, 20).await;
    // One deletion in another, and an upload without a record.
    delete_session(&store, tenant, id).await.unwrap().unwrap();
    BlobUpload::begin(&store, tenant, &Clock::system()).await.unwrap();
    let deletion = delete_tenant(&store, tenant).await.unwrap().unwrap();
    assert_eq!(delete_tenant(&store, tenant).await.unwrap(), None);
    assert_eq!(store.begin().get::<Tenant>(tenant, ()).await.unwrap(), None);
    store.resume_deletion(&deletion).await.unwrap();
    assert_eq!(rows(&store).await, before);
    assert_eq!(store.resume_deletions().await.unwrap(), 0);
    // The quota is released.
    inhabited(&store, "ada").await;
}

/// Another process completes a deletion, and the tenant is imported with the same keys, between two
/// batches of this one.
#[tokio::test]
async fn completed_deletion_leaves_rows_that_are_written_anew() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    let session = furnished(&store, tenant, user, 3).await;
    let conversations = store.begin().list::<Conversation>(tenant).all(9).await.unwrap();
    let id = conversations[1].id;
    let before = &rows(&store).await;
    let now = Clock::system().now();
    let conversation =
        |tx: Transaction| async move { tx.delete_conversation(tenant, id, now).await };
    let conversation = store.run(conversation).await.unwrap().unwrap();
    let session = delete_session(&store, tenant, session).await.unwrap().unwrap();
    let tenant = delete_tenant(&store, tenant).await.unwrap().unwrap();
    store.resume_deletion(&tenant).await.unwrap();
    assert!(rows(&store).await.is_empty());

    let again = |tx: Transaction| async move {
        for row in before {
            tx.engine().set(&row.key, &row.value);
        }
        Ok::<_, coditect_store::Error>(())
    };
    store.run(again).await.unwrap();
    for deletion in [conversation, session, tenant] {
        store.resume_deletion(&deletion).await.unwrap();
        assert_eq!(&rows(&store).await, before, "{deletion:?}");
    }
    is_sound(&store).await;
}

#[tokio::test]
async fn deletion_interrupted_anywhere_is_resumed_by_the_next() {
    use std::{future::Future as _, pin::pin, task::Poll};

    let store = planner().await;
    let (other, somebody) = inhabited(&store, "grace").await;
    furnished(&store, other, somebody, 2).await;
    let before = rows(&store).await;
    let mut broken_off = 0;
    for polls in (1..16).chain(1..8) {
        let (tenant, user) = inhabited(&store, "ada").await;
        let id = furnished(&store, tenant, user, 4).await;
        let deletion = delete_session(&store, tenant, id).await.unwrap().unwrap();
        let whole = delete_tenant(&store, tenant).await.unwrap().unwrap();
        for deletion in [&deletion, &whole] {
            let mut work = pin!(store.resume_deletion(deletion));
            let mut left = polls;
            let done = std::future::poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(false);
                }
                left -= 1;
                work.as_mut().poll(context).map(|outcome| outcome.is_ok())
            })
            .await;
            broken_off += u32::from(!done);
            is_sound(&store).await;
        }
        store.resume_deletions().await.unwrap();
        assert_eq!(rows(&store).await, before, "after {polls} polls");
    }
    assert!(broken_off > 10, "it waits at its commits");
}

#[tokio::test]
async fn no_dependent_is_added_to_a_session_being_deleted() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    furnished(&store, tenant, user, 1).await;
    let before = rows(&store).await;
    for _ in 0..8 {
        let id = furnished(&store, tenant, user, 1).await;
        let home = FileRoot::Session(id);
        let uploads: Vec<_> = (0..8)
            .map(|n| {
                let (store, home) = (store.clone(), home.clone());
                tokio::spawn(async move {
                    let clock = Clock::system();
                    let mut upload = BlobUpload::begin(&store, tenant, &clock).await.unwrap();
                    upload.write(&vec![n; 25_000]).await.unwrap();
                    let blob = upload.finish().await.unwrap();
                    let (home, path) = (&home, &n.to_string());
                    let (policy, now) = (&FilePolicy::default(), clock.now());
                    let put = |tx| async move {
                        File::put(&tx, tenant, (home, path), blob, policy, now).await
                    };
                    store.run(put).await.map(|_| ()).map_err(|error| error.kind())
                })
            })
            .collect();
        let deletion = delete_session(&store, tenant, id).await.unwrap().unwrap();
        for upload in uploads {
            let outcome = upload.await.unwrap();
            assert!(matches!(outcome, Ok(()) | Err(ErrorKind::NotFound)), "{outcome:?}");
        }
        store.resume_deletion(&deletion).await.unwrap();
        store.collect_blobs(Clock::system().now() + TimeDelta::hours(2)).await.unwrap();
        assert_eq!(rows(&store).await, before);
    }
}

#[tokio::test]
async fn dependent_of_a_missing_record_is_rejected() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    let before = rows(&store).await;
    let (id, now) = (SessionId::new(), Clock::system().now());
    let memory = SessionMemory { tenant_id: tenant, session_id: id, ..samples::session_memory() };
    let conversation = Conversation {
        tenant_id: tenant,
        user_id: user,
        session_id: Some(id),
        ..samples::conversation()
    };
    let message = Message { tenant_id: tenant, ..samples::message() };
    let quota = StateQuota::default();
    let tx = store.begin();
    let refused = [
        SessionState::save(&tx, tenant, id, EditorState::default(), now).await.map(|_| ()),
        ClientState::save(&tx, (tenant, id), ("k", vec![1]), &quota, now).await.map(|_| ()),
        memory.save(&tx, &quota).await.map(|_| ()),
        conversation.insert(&tx).await,
        message.insert(&tx, 1 << 40).await.map(|_| ()),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    tx.commit().await.unwrap();
    assert_eq!(rows(&store).await, before);
}

#[tokio::test]
async fn save_conflicts_with_the_sessions_deletion() {
    let store = planner().await;
    let (tenant, user) = inhabited(&store, "ada").await;
    let id = furnished(&store, tenant, user, 1).await;
    let tx = store.begin();
    let now = Clock::system().now();
    SessionState::save(&tx, tenant, id, EditorState::default(), now).await.unwrap();
    delete_session(&store, tenant, id).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn deletion_skips_records_of_undeclared_entities_and_completes_others() {
    let store = planner().await;
    let (other, somebody) = inhabited(&store, "grace").await;
    furnished(&store, other, somebody, 1).await;
    let before = rows(&store).await;
    let (tenant, _) = inhabited(&store, "ada").await;
    let id = furnished(&store, other, somebody, 2).await;
    delete_session(&store, other, id).await.unwrap();
    let deletion = delete_tenant(&store, tenant).await.unwrap().unwrap();

    // It does not declare tasks, which have global indexes.
    let ignorant = Store::open(store.database().clone()).await.unwrap();
    let refused = ignorant.resume_deletion(&deletion).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NewerFormat, "{refused}");
    let refused = ignorant.resume_deletions().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NewerFormat);
    let left = store.begin().list::<Deletion>(Global).all(9).await.unwrap();
    assert_eq!(left, [deletion], "that of the session is complete");
    assert_eq!(store.resume_deletions().await.unwrap(), 1);
    assert!(rows(&store).await == before);
}

#[tokio::test]
async fn purge_of_one_entity_continues_when_another_fails() {
    let store = planner().await;
    inhabited(&store, "ada").await;
    let tx = store.begin();
    let login = tx.scan(&AuthSession::BY_EXPIRY, Global, ..).page(1, None).await.unwrap();
    let AuthSession { tenant_id, id, .. } = login.items[0];
    let key = store.root().key(&(tenant_id, AuthSession::SPACE.name().to_owned(), id));
    let whole = tx.engine().get(&key).await.unwrap().unwrap();
    tx.engine().set(&key, &whole[..9]);
    tx.commit().await.unwrap();
    let refused = store.purge(Clock::system().now()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    let tickets = store.begin().scan(&Ticket::BY_EXPIRY, Global, ..).all(9).await.unwrap();
    assert_eq!(tickets, []);
}

#[tokio::test]
async fn session_counts_while_it_exists() {
    let store = planner().await;
    let tenant = samples::tenant().id;
    let sessions: Vec<_> =
        (0..4).map(|_| Session { id: SessionId::new(), ..samples::session() }).collect();
    for (n, session) in sessions.iter().enumerate() {
        let opened = store.run(|tx| async move { session.insert(&tx, 3).await }).await;
        let outcome = opened.map_err(|error| error.kind());
        assert_eq!(outcome, if n < 3 { Ok(()) } else { Err(ErrorKind::QuotaExceeded("sessions")) });
    }
    delete_session(&store, tenant, sessions[0].id).await.unwrap().unwrap();
    let count = store.begin().counter(tenant, Counter::SESSIONS).await.unwrap();
    assert_eq!(count, 2);
    let last = &sessions[3];
    store.run(|tx| async move { last.insert(&tx, 3).await }).await.unwrap();
}

#[tokio::test]
async fn purge_removes_expired_records_only() {
    let store = planner().await;
    let (_, _) = inhabited(&store, "ada").await;
    let now = Clock::system().now();
    let (day, tenant) = (TimeDelta::days(1), samples::tenant().id);
    let mut kept = 0;
    for n in 0..250_u32 {
        let ends = if n % 2 == 0 { now - day } else { now + day };
        kept += n % 2;
        let login = AuthSession {
            id: AuthSessionId::new(),
            token_family: TokenFamilyId::new(),
            idle_expires_at: ends,
            absolute_expires_at: now + day * 9,
            ..samples::auth_session()
        };
        let mut hash = [9; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        let ticket = Ticket { id: TicketId::new(), hash, expires_at: ends, ..samples::ticket() };
        let key = n.to_string();
        let entry = IdempotencyEntry { key, expires_at: ends, ..samples::idempotency_entry() };
        let client = n.to_string();
        let sequence = ClientSequence { client, expires_at: ends, ..samples::client_sequence() };
        let (login, ticket, entry, sequence) = (&login, &ticket, &entry, &sequence);
        let create = |tx: Transaction| async move {
            tx.insert(login).await?;
            tx.insert(ticket).await?;
            entry.keep(&tx, 1 << 40).await?;
            tx.insert(sequence).await
        };
        store.run(create).await.unwrap();
    }
    // All samples with an expiry have expired.
    let swept = store.purge(now).await.unwrap();
    assert_eq!(
        (swept.auth_sessions, swept.tickets, swept.idempotency_entries),
        (126, 126, 126),
        "{swept:?}"
    );
    assert_eq!(swept.client_sequences, 125);
    let tx = store.begin();
    let logins = tx.list::<AuthSession>(tenant).all(999).await.unwrap();
    assert_eq!(logins.len(), kept as usize);
    assert!(logins.iter().all(|login| login.expires_at() > now));
    let over = tx.scan(&Ticket::BY_EXPIRY, Global, ..).all(999).await.unwrap();
    assert_eq!(over.len(), kept as usize);
    assert_eq!(store.purge(now).await.unwrap(), coditect_store::PurgeReport::default());
}

#[tokio::test]
async fn record_expiring_in_the_current_hour_is_purged_after_it() {
    let store = planner().await;
    let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    create(&store, &Ticket { expires_at: at(7_201), ..samples::ticket() }).await;
    assert_eq!(store.purge_expired::<Ticket>(at(10_799)).await.unwrap(), 0);
    assert_eq!(store.purge_expired::<Ticket>(at(10_800)).await.unwrap(), 1);
}
