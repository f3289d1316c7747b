//! Background tasks: purges, deletions, index builds.

use std::{path::Path, time::Duration};

use chrono::{DateTime, TimeDelta};
use coditect_auth::entities;
use coditect_store::{
    BlobUpload, ManualClock, Store, Transaction,
    engine::RangeQuery,
    keyspace::KeyPart as _,
    model::{EditorState, Session, SessionId, SessionState, TenantId, Ticket, TicketId},
};
use serde_json::json;

use crate::{
    account::{Device, ME},
    client::{Call, call},
    folder::{self, Folder},
    server::Running,
};

const SESSIONS: &str = "/api/v5/sessions";

async fn open(folder: &Path) -> Store {
    entities(Store::options()).open(folder::database(folder)).await.unwrap()
}

/// Returns the number of keys that contain `part`, except for the store's own.
async fn holding(store: &Store, part: &[u8]) -> usize {
    let all = RangeQuery::new(b"", b"\xff");
    let rows = store.begin().engine().get_range(&all).await.unwrap().rows;
    let own = store.root().key(&"meta".to_owned());
    let rows = rows.iter().filter(|row| !row.key.starts_with(&own));
    rows.filter(|row| holds(&row.key, part)).count()
}

fn holds(key: &[u8], part: &[u8]) -> bool {
    key.windows(part.len()).any(|window| window == part)
}

/// Runs servers on `folder`, each for a moment, until no key contains `part`.
async fn swept(folder: &Path, part: &[u8]) -> Store {
    for round in 1..=20_u32 {
        let server = Running::start_in(folder, &[]).await;
        tokio::time::sleep(Duration::from_millis(20) * round).await;
        server.stopped().await;
        let store = open(folder).await;
        if holding(&store, part).await == 0 {
            return store;
        }
        store.database().close().await;
    }
    panic!("no server swept {}", part.escape_ascii())
}

#[tokio::test]
async fn deleted_session_is_purged_with_its_state() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let device = Device::register(server.address, "ada@example.org").await;
    let create = Call::post(SESSIONS).value(&json!({"name": "doomed"})).bearer(&device.token);
    let made = call(server.address, create).await.data();
    let tenant: TenantId = made["tenant_id"].as_str().unwrap().parse().unwrap();
    let id: SessionId = made["id"].as_str().unwrap().parse().unwrap();
    server.stopped().await;

    let store = open(folder.path()).await;
    let save = |tx: Transaction| async move {
        let now = DateTime::UNIX_EPOCH;
        SessionState::save(&tx, tenant, id, EditorState::default(), now).await
    };
    store.run(save).await.unwrap();
    assert!(holding(&store, id.0.as_bytes()).await > 1);
    store.database().close().await;
    drop(store);

    let server = Running::start_in(folder.path(), &[]).await;
    let path = format!("{SESSIONS}/{id}");
    let delete = Call::delete(&path).bearer(&device.token);
    assert_eq!(call(server.address, delete).await.status, 204);
    server.stopped().await;
    // If the server stopped too early, the next one completes the deletion.
    swept(folder.path(), id.0.as_bytes()).await;
}

#[tokio::test]
async fn server_purges_only_expired_records() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let device = Device::register(server.address, "ada@example.org").await;
    let me = call(server.address, Call::get(ME).bearer(&device.token)).await.data();
    let tenant: TenantId = me["tenant"]["id"].as_str().unwrap().parse().unwrap();
    server.stopped().await;

    let store = open(folder.path()).await;
    let session = &Session {
        id: SessionId::new(),
        tenant_id: tenant,
        user_id: me["user"]["id"].as_str().unwrap().parse().unwrap(),
        name: "kept".into(),
        session_type: coditect_store::model::SessionType::Workspace,
        workspace_path: None,
        settings: coditect_store::model::Json(json!({})),
        conversation_id: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        last_accessed_at: DateTime::UNIX_EPOCH,
    };
    let ticket = &Ticket {
        id: TicketId::new(),
        tenant_id: tenant,
        user_id: session.user_id,
        auth_session_id: coditect_store::model::AuthSessionId::new(),
        active_membership: None,
        hash: [7; 32],
        origin: None,
        created_at: DateTime::UNIX_EPOCH,
        expires_at: DateTime::UNIX_EPOCH,
    };
    let create = |tx: Transaction| async move {
        tx.insert(session).await?;
        tx.insert(ticket).await
    };
    store.run(create).await.unwrap();
    let past = ManualClock::new(coditect_store::Clock::system().now() - TimeDelta::days(1));
    let mut left = BlobUpload::begin(&store, tenant, &(&past).into()).await.unwrap();
    left.write(&vec![1; 1 << 20]).await.unwrap();
    assert!(holding(&store, b"blob_chunks").await > 80);
    store.database().close().await;
    drop((store, left));

    drop(swept(folder.path(), b"ticket").await);
    let store = swept(folder.path(), b"blob").await;
    assert_eq!(holding(&store, session.id.0.as_bytes()).await, 2);
    store.database().close().await;
    drop(store);
    let server = Running::start_in(folder.path(), &[]).await;
    device.expect_alive(server.address).await;
}

#[tokio::test]
async fn sessions_of_a_tenant_are_limited() {
    let server = Running::start(&["--max-sessions", "2"]).await;
    let device = Device::register(server.address, "ada@example.org").await;
    let create = || Call::post(SESSIONS).value(&json!({"name": "one"})).bearer(&device.token);
    let first = call(server.address, create()).await;
    assert_eq!(call(server.address, create()).await.status, 201);
    let refused = call(server.address, create()).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "QUOTA_EXCEEDED"));
    let path = format!("{SESSIONS}/{}", first.data()["id"].as_str().unwrap());
    call(server.address, Call::delete(&path).bearer(&device.token)).await;
    assert_eq!(call(server.address, create()).await.status, 201);
}

#[tokio::test]
async fn server_builds_a_pending_index() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let device = Device::register(server.address, "ada@example.org").await;
    let create = || Call::post(SESSIONS).value(&json!({"name": "one"})).bearer(&device.token);
    for _ in 0..3 {
        assert_eq!(call(server.address, create()).await.status, 201);
    }
    server.stopped().await;

    // As if a newer version declared the index.
    let store = open(folder.path()).await;
    let index = Session::BY_USER.name();
    let all = RangeQuery::new(b"", b"\xff");
    let tx = store.begin();
    for row in tx.engine().get_range(&all).await.unwrap().rows {
        let own = store.root().key(&"meta".to_owned());
        if holds(&row.key, index.as_bytes()) && !row.key.starts_with(&own) {
            tx.engine().clear(&row.key);
        }
    }
    let mut state = Vec::new();
    ("write-only".to_owned(), Vec::<u8>::new(), 0_u64).pack(&mut state);
    let key = store.root().key(&("meta".to_owned(), "index".to_owned(), index.to_owned()));
    tx.engine().set(&key, &state);
    tx.commit().await.unwrap();
    assert_eq!(store.pending_indexes().await.unwrap(), [index]);
    store.database().close().await;
    drop((tx, store));

    let server = Running::start_in(folder.path(), &[]).await;
    let list = || call(server.address, Call::get(SESSIONS).bearer(&device.token));
    let mut answer = list().await;
    while answer.status == 503 {
        assert_eq!(answer.code(), "INDEX_BUILDING");
        answer = list().await;
    }
    assert_eq!(answer.data().as_array().unwrap().len(), 3);
}
