//! The product's records: their indexes and operations.

use chrono::TimeDelta;
use coditect_store::{
    Counter, Entity, ErrorKind, Store, Transaction,
    engine::VALUE_SIZE_LIMIT,
    model::{
        ActiveFiles, Agent, AgentId, CLIENT_STATE_VERSIONS, ClientSequence, ClientState,
        Conversation, ConversationId, Draft, EditorState, File, FileId, FileRoot, IdempotencyEntry,
        Json, JsonText, Message, MessageId, PartState, Session, SessionId, SessionMemory,
        SessionState, SessionStates, Setting, SettingScope, StateQuota, TenantId, UserId,
    },
};
use serde_json::json;

use crate::{planner::store, samples};

async fn created<E: Entity>(records: &[E]) -> Store {
    let store = store().await;
    let tx = store.begin();
    for record in records {
        tx.insert(record).await.unwrap();
    }
    tx.commit().await.unwrap();
    store
}

/// Asserts that `record` can be read, changed to `changed` and removed.
async fn lives<E: Entity + PartialEq + std::fmt::Debug>(record: E, changed: E) {
    let (scope, key) = (record.scope(), record.key());
    let store = created(std::slice::from_ref(&record)).await;
    let tx = store.begin();
    assert_eq!(tx.get::<E>(scope, &key).await.unwrap(), Some(record));
    tx.update(&changed).await.unwrap();
    assert_eq!(tx.list::<E>(scope).all(1).await.unwrap(), std::slice::from_ref(&changed));
    assert_eq!(tx.delete::<E>(scope, &key).await.unwrap(), Some(changed));
    assert_eq!(tx.get::<E>(scope, &key).await.unwrap(), None);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn every_record_is_inserted_read_changed_and_removed() {
    let [editor, terminal, active_files, memory] = samples::session_states();
    let emptied = EditorState::default();
    lives(editor.clone(), SessionState { state: emptied.into(), ..editor }).await;
    lives(terminal.clone(), SessionState { version: 8, ..terminal }).await;
    let none = ActiveFiles::default();
    lives(active_files.clone(), SessionState { state: none.into(), ..active_files }).await;
    lives(memory.clone(), SessionState { version: 9, ..memory }).await;
    let memory = samples::session_memory();
    lives(memory.clone(), SessionMemory { value: JsonText::from(&json!(null)), ..memory }).await;
    let state = samples::client_state();
    lives(state.clone(), ClientState { content: vec![], ..state }).await;
    let sequence = samples::client_sequence();
    lives(sequence.clone(), ClientSequence { seq: 4712, ..sequence }).await;
    let draft = samples::draft();
    lives(draft.clone(), Draft { base: None, ..draft }).await;
    let [file, directory] = samples::files();
    lives(file.clone(), File { path: "b".into(), ..file }).await;
    lives(directory.clone(), File { path: "c".into(), ..directory }).await;
    let conversation = samples::conversation();
    lives(conversation.clone(), Conversation { title: "Solved".into(), ..conversation }).await;
    let agent = samples::agent();
    lives(agent.clone(), Agent { name: "writer".into(), ..agent }).await;
    for setting in samples::settings() {
        lives(setting.clone(), Setting { value: Json(json!(8)), ..setting }).await;
    }
}

#[tokio::test]
async fn conversations_are_found_by_user_and_by_session() {
    let one = samples::conversation();
    let another = Conversation { id: ConversationId::new(), session_id: None, ..one.clone() };
    let foreign = Conversation { id: ConversationId::new(), user_id: UserId::new(), ..one.clone() };
    let store = created(&[one.clone(), another.clone(), foreign.clone()]).await;
    let tx = store.begin();
    let (tenant, session) = (one.tenant_id, samples::session().id);
    let own = tx.scan(&Conversation::BY_USER, tenant, one.user_id).all(9).await.unwrap();
    assert_eq!(own, [one.clone(), another]);
    let there = tx.scan(&Conversation::BY_SESSION, tenant, session).all(9).await.unwrap();
    assert_eq!(there, [one, foreign]);
}

#[tokio::test]
async fn two_agents_of_a_tenant_have_different_names() {
    let agent = samples::agent();
    let store = created(std::slice::from_ref(&agent)).await;
    let tx = store.begin();
    let again = Agent { id: AgentId::new(), ..agent.clone() };
    let error = tx.insert(&again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("agents_by_name"));
    tx.insert(&Agent { tenant_id: TenantId::new(), ..again }).await.unwrap();
    let found = tx.find(&Agent::BY_NAME, agent.tenant_id, "reviewer".to_owned()).await.unwrap();
    assert_eq!(found, Some(agent));
}

#[tokio::test]
async fn a_path_is_of_one_file_in_its_home() {
    let [file, directory] = samples::files();
    let store = created(&[file.clone(), directory.clone()]).await;
    let tx = store.begin();
    let again = File { id: FileId::new(), ..file.clone() };
    let error = tx.insert(&again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("files_by_path"));
    tx.insert(&File { home: directory.home.clone(), ..again }).await.unwrap();
    let at = (file.home.clone(), file.path.clone());
    assert_eq!(tx.find(&File::BY_PATH, file.tenant_id, at).await.unwrap(), Some(file.clone()));
    let session = samples::session().id;
    let of_session = tx.scan(&File::BY_SESSION, file.tenant_id, session).all(9).await.unwrap();
    assert_eq!(of_session, [file], "a workspace's files are no session's");
}

#[tokio::test]
async fn entries_below_a_directory_are_one_range() {
    let homes = [FileRoot::Workspace("/w".into()), FileRoot::Session(SessionId::new())];
    let paths = ["src", "src!", "src-old", "src.rs", "src/a", "src/a/b", "src0", "srcs", "t"];
    let [sample, _] = samples::files();
    let files: Vec<File> = homes
        .iter()
        .flat_map(|home| paths.map(|path| (home.clone(), path)))
        .map(|(home, path)| File { id: FileId::new(), home, path: path.into(), ..sample.clone() })
        .collect();
    let store = created(&files).await;
    let tx = store.begin();
    let tenant = sample.tenant_id;
    for home in homes {
        let below = tx.scan(&File::BY_PATH, tenant, File::below(home.clone(), "src"));
        let below = below.all(9).await.unwrap();
        assert_eq!(below.iter().map(|file| &file.path).collect::<Vec<_>>(), ["src/a", "src/a/b"]);
        let all = tx.scan(&File::BY_PATH, tenant, (home,)).all(99).await.unwrap();
        assert_eq!(all.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths);
    }
}

#[tokio::test]
async fn users_setting_overrides_the_tenants() {
    let [shared, own] = samples::settings();
    let other = Setting { key: "a".into(), ..shared.clone() };
    let store = created(&[shared.clone(), own.clone(), other.clone()]).await;
    let tx = &store.begin();
    let (tenant, user, key) = (shared.tenant_id, samples::user().id, &shared.key);
    let effective =
        async |user, key: &str| Setting::effective(tx, tenant, user, key).await.unwrap();
    assert_eq!(effective(user, key).await.as_ref(), Some(&own));
    assert_eq!(effective(UserId::new(), key).await.as_ref(), Some(&shared));
    assert_eq!(effective(user, "a").await.as_ref(), Some(&other));
    assert_eq!(effective(user, "b").await, None);

    let all = async |user, at_most| Setting::all_effective(tx, tenant, user, at_most).await;
    assert_eq!(all(user, 2).await.unwrap(), [other.clone(), own]);
    assert_eq!(all(UserId::new(), 2).await.unwrap(), [other, shared]);
    assert_eq!(all(user, 1).await.unwrap_err().kind(), ErrorKind::Limit);
    let foreign = Setting::all_effective(tx, TenantId::new(), user, 9).await.unwrap();
    assert_eq!(foreign, []);
    let users = (SettingScope::User(user),);
    assert_eq!(tx.list_keys::<Setting>(tenant, users).all(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_sessions_memory_is_listed_by_key() {
    let memory = samples::session_memory();
    let with = |key: &str| SessionMemory { key: key.into(), ..memory.clone() };
    let elsewhere = SessionMemory { session_id: SessionId::new(), ..memory.clone() };
    let store = created(&[with("b"), with("a"), elsewhere, with("a\0")]).await;
    let tx = store.begin();
    let own = tx.list_keys::<SessionMemory>(memory.tenant_id, (memory.session_id,));
    assert_eq!(own.all(9).await.unwrap(), [with("a"), with("a\0"), with("b")]);
}

/// A store with the session of the others.
async fn with_session() -> Store {
    let store = store().await;
    store.run(|tx| async move { tx.insert(&samples::session()).await }).await.unwrap();
    store
}

#[tokio::test]
async fn the_parts_of_a_sessions_state_are_saved_apart_and_read_together() {
    let store = with_session().await;
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    let at = samples::session().created_at;
    let save = async |state: PartState, at| {
        let state = &state;
        let save =
            |tx| async move { SessionState::save(&tx, tenant, session, state.clone(), at).await };
        store.run(save).await.unwrap()
    };
    assert_eq!(save(samples::editor().into(), at).await, 1);
    assert_eq!(save(EditorState::default().into(), at).await, 2);
    let later = at + TimeDelta::seconds(1);
    assert_eq!(save(samples::editor().into(), later).await, 3);
    assert_eq!(save(samples::terminal().into(), at).await, 1);

    let states = SessionState::all(&store.begin(), tenant, session).await.unwrap();
    let editor = states.editor.unwrap();
    assert_eq!((editor.version, editor.saved_at, editor.state), (3, later, samples::editor()));
    let terminal = states.terminal.unwrap();
    assert_eq!((terminal.version, terminal.saved_at), (1, at));
    assert_eq!(terminal.state, samples::terminal());
    assert_eq!(states.active_files, None);
    let elsewhere = SessionState::all(&store.begin(), tenant, SessionId::new()).await.unwrap();
    assert_eq!(elsewhere, SessionStates::default());
}

#[tokio::test]
async fn saving_one_part_conflicts_with_nothing_else() {
    let store = with_session().await;
    let session = &samples::session();
    let (tenant, id, at) = (session.tenant_id, session.id, session.created_at);
    let (editor, terminal, renamed) = (store.begin(), store.begin(), store.begin());
    let again = store.begin();
    SessionState::save(&editor, tenant, id, samples::editor(), at).await.unwrap();
    SessionState::save(&terminal, tenant, id, samples::terminal(), at).await.unwrap();
    SessionState::save(&again, tenant, id, samples::terminal(), at).await.unwrap();
    renamed.update(&Session { name: "renamed".into(), ..session.clone() }).await.unwrap();
    for tx in [editor, terminal, renamed] {
        tx.commit().await.unwrap();
    }
    assert_eq!(again.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

async fn saved(store: &Store, key: &str, content: &[u8]) -> u64 {
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    let at = samples::session().created_at;
    let save = |tx| async move {
        let quota = StateQuota::default();
        ClientState::save(&tx, (tenant, session), (key, content.to_vec()), &quota, at).await
    };
    store.run(save).await.unwrap()
}

#[tokio::test]
async fn the_last_versions_of_a_clients_state_are_kept() {
    let store = with_session().await;
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    for version in 1..=CLIENT_STATE_VERSIONS + 2 {
        let content = version.to_be_bytes();
        assert_eq!(saved(&store, "layout", &content).await, version);
    }
    let tx = store.begin();
    let kept = ClientState::versions(&tx, tenant, session, "layout").all(9).await.unwrap();
    let versions: Vec<u64> = kept.iter().map(|state| state.version).collect();
    assert_eq!(versions, [3, 4, 5, 6, 7]);
    let newest = ClientState::newest(&tx, tenant, session, "layout").await.unwrap().unwrap();
    assert_eq!(newest.content, 7_u64.to_be_bytes());
    let older = tx.get::<ClientState>(tenant, (session, "layout".to_owned(), 4)).await.unwrap();
    assert_eq!(older.unwrap().content, 4_u64.to_be_bytes());

    assert!(ClientState::discard(&tx, tenant, session, "layout").await.unwrap());
    assert!(!ClientState::discard(&tx, tenant, session, "layout").await.unwrap());
    assert_eq!(ClientState::newest(&tx, tenant, session, "layout").await.unwrap(), None);
}

#[tokio::test]
async fn the_keys_of_client_states_are_listed_with_their_newest_versions() {
    let store = with_session().await;
    for key in ["b", "a", "a\0", "b", ""] {
        saved(&store, key, b"x").await;
    }
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    let tx = &store.begin();
    let keys = async |after, at_most| {
        ClientState::keys(tx, tenant, session, after, at_most).await.unwrap()
    };
    let all = ["", "a", "a\0", "b"].map(|key| (key.to_owned(), if key == "b" { 2 } else { 1 }));
    assert_eq!(keys(None, 9).await, all);
    assert_eq!(keys(None, 2).await, all[..2]);
    assert_eq!(keys(Some("a"), 9).await, all[2..]);
    assert_eq!(keys(Some("b"), 9).await, []);
    assert_eq!(ClientState::keys(tx, tenant, SessionId::new(), None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn oversized_client_state_is_rejected_and_the_transaction_continues() {
    let store = with_session().await;
    let (tenant, session) = (samples::tenant().id, samples::session().id);
    let at = samples::session().created_at;
    let tx = store.begin();
    let save = async |length| {
        let (of, quota) = ((tenant, session), StateQuota::default());
        ClientState::save(&tx, of, ("k", vec![7; length]), &quota, at).await
    };
    let error = save(VALUE_SIZE_LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(save(VALUE_SIZE_LIMIT - 100).await.unwrap(), 1);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn tenant_has_no_more_agents_than_the_limit() {
    let store = store().await;
    let agent = samples::agent();
    let tenant = agent.tenant_id;
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
    let set_up = async |name: &str| {
        let agent = &Agent { id: AgentId::new(), name: name.into(), ..agent.clone() };
        let made = store.run(|tx| async move { agent.set_up(&tx, 2).await }).await;
        made.map(|()| agent.id).map_err(|error| error.kind())
    };
    let first = set_up("first").await.unwrap();
    set_up("second").await.unwrap();
    assert_eq!(set_up("third").await, Err(ErrorKind::QuotaExceeded("agents")));
    let remove = |tx: Transaction| async move { Agent::remove(&tx, tenant, first).await };
    assert!(store.run(remove).await.unwrap().is_some());
    assert!(store.run(remove).await.unwrap().is_none());
    set_up("third").await.unwrap();
    assert_eq!(store.check().run(|_| ()).await.unwrap().faults, 0);
}

#[tokio::test]
async fn messages_and_answers_count_towards_the_bytes_of_their_tenant() {
    let store = store().await;
    let conversation = samples::conversation();
    let (tenant, now) = (conversation.tenant_id, conversation.created_at);
    let create = |tx: Transaction| async move {
        tx.insert(&samples::tenant()).await?;
        tx.insert(&samples::user()).await?;
        tx.insert(&samples::session()).await?;
        tx.charge(tenant, Counter::SESSIONS, 1, 9).await?;
        tx.insert(&samples::conversation()).await
    };
    store.run(create).await.unwrap();
    let bytes = async || store.begin().counter(tenant, Counter::BYTES).await.unwrap();
    let message = &Message { content: "x".repeat(10_000), ..samples::message() };
    let say = |tx: Transaction| async move { message.insert(&tx, 15_000).await.map(|_| ()) };
    store.run(say).await.unwrap();
    assert_eq!(bytes().await, message.counted_bytes());
    let another = &Message { id: MessageId::new(), ..message.clone() };
    let say = |tx: Transaction| async move { another.insert(&tx, 15_000).await.map(|_| ()) };
    let full = store.run(say).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::QuotaExceeded("bytes"));

    let entry = &IdempotencyEntry { body: vec![7; 3_000], ..samples::idempotency_entry() };
    let keep = |tx: Transaction| async move { entry.keep(&tx, 15_000).await };
    // In place of the first.
    for _ in 0..3 {
        store.run(keep).await.unwrap();
        assert_eq!(bytes().await, message.counted_bytes() + entry.counted_bytes());
    }
    assert_eq!(store.check().run(|_| ()).await.unwrap().faults, 0);
    assert_eq!(store.purge(now + TimeDelta::days(9_999)).await.unwrap().idempotency_entries, 1);
    assert_eq!(bytes().await, message.counted_bytes());
    let delete = |tx: Transaction| async move {
        tx.delete_conversation(tenant, samples::conversation().id, now).await
    };
    store.run(delete).await.unwrap();
    store.resume_deletions().await.unwrap();
    assert_eq!(bytes().await, 0);
    assert_eq!(store.check().run(|_| ()).await.unwrap().faults, 0);
}
