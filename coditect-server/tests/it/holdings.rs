//! Resources of a tenant's users for its admins, and the audit of guests.

use serde_json::{Value, json};

use crate::{
    account::{LOGIN, ME, PASSWORD},
    client::{Call, call},
    records::Person,
    server::Running,
};

const SESSIONS: &str = "/api/v5/sessions";
const CONVERSATIONS: &str = "/api/v5/conversations";
const TENANT_SESSIONS: &str = "/api/v5/tenant/sessions";
const TENANT_CONVERSATIONS: &str = "/api/v5/tenant/conversations";
const MEMBERS: &str = "/api/v5/tenant/members";

fn id_of(made: &Value) -> String {
    made["id"].as_str().unwrap().to_owned()
}

/// Creates a session with a conversation, and another conversation.
async fn filled(person: &Person, name: &str) -> (String, String, String) {
    let session = id_of(&person.post(SESSIONS, &json!({ "name": name })).await.data());
    let inside = person.post(CONVERSATIONS, &json!({ "session_id": session })).await.data();
    let outside = person.post(CONVERSATIONS, &json!({})).await.data();
    (session, id_of(&inside), id_of(&outside))
}

#[tokio::test]
async fn sessions_of_a_former_member_are_listed_transferred_and_deleted() {
    let server = Running::start(&["--max-sessions", "4"]).await;
    let owner = Person::new(&server, "owner@example.org").await;
    let member = owner.member(&server, "member@example.org").await;
    let (first, inside, outside) = filled(&member, "first").await;
    let (second, ..) = filled(&member, "second").await;
    let (_, chat, _) = filled(&owner, "mine").await;
    let file = Call::put(&format!("{SESSIONS}/{first}/files/a.txt")).body(b"work".to_vec());
    assert_eq!(member.ask(file.header("Content-Type", "text/plain")).await.status, 201);

    // While the user is a member, their sessions are listed but cannot be transferred.
    let me = member.id().await;
    let of_member = format!("{TENANT_SESSIONS}?user={}", me.as_str().unwrap());
    let mine = owner.id().await;
    let take = json!({ "user_id": mine });
    assert_eq!(owner.all(&of_member, "name").await, ["second", "first"]);
    assert_eq!(owner.all(TENANT_SESSIONS, "orphaned").await, [false, false, false]);
    let orphans = format!("{TENANT_SESSIONS}?orphaned=true");
    assert_eq!(owner.all(&orphans, "id").await, Vec::<Value>::new());
    for (path, id) in [(TENANT_SESSIONS, &first), (TENANT_CONVERSATIONS, &inside)] {
        let refused = owner.post(&format!("{path}/{id}/transfer"), &take).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "NOT_ORPHANED"));
        assert_eq!(owner.delete(&format!("{path}/{id}")).await.code(), "NOT_ORPHANED");
        assert_eq!(member.get(path).await.code(), "FORBIDDEN");
        let refused = member.post(&format!("{path}/{id}/transfer"), &take).await;
        assert_eq!(refused.code(), "FORBIDDEN");
        assert_eq!(member.delete(&format!("{path}/{id}")).await.code(), "FORBIDDEN");
    }

    let path = format!("{MEMBERS}/{}", me.as_str().unwrap());
    assert_eq!(owner.delete(&path).await.status, 204);
    assert_eq!(owner.all(&orphans, "name").await, ["second", "first"]);
    let chats = format!("{TENANT_CONVERSATIONS}?orphaned=true");
    assert_eq!(owner.all(&chats, "id").await.len(), 4);

    // Only to a member, with the conversations created in it.
    let transfer = format!("{TENANT_SESSIONS}/{first}/transfer");
    let refused = owner.post(&transfer, &json!({ "user_id": me })).await;
    assert_eq!(refused.status, 422, "{}", refused.json());
    let stranger = Person::new(&server, "stranger@example.org").await;
    assert_eq!(stranger.post(&transfer, &take).await.status, 404);
    for _ in 0..2 {
        let taken = owner.post(&transfer, &take).await;
        assert_eq!((taken.status, &taken.data()["user_id"]), (200, &mine), "{}", taken.json());
    }
    let read = owner.get(&format!("{SESSIONS}/{first}/files/a.txt")).await;
    assert_eq!((read.status, read.body.as_slice()), (200, b"work".as_slice()));
    assert_eq!(owner.get(&format!("{CONVERSATIONS}/{inside}")).await.status, 200);
    assert_eq!(owner.get(&format!("{CONVERSATIONS}/{outside}")).await.status, 404);
    let transfer = format!("{TENANT_CONVERSATIONS}/{outside}/transfer");
    assert_eq!(owner.post(&transfer, &take).await.status, 200);
    assert_eq!(owner.get(&format!("{CONVERSATIONS}/{outside}")).await.status, 200);
    assert_eq!(owner.get(&format!("{CONVERSATIONS}/{chat}")).await.status, 200);

    // The quota is free again.
    assert_eq!(owner.post(SESSIONS, &json!({ "name": "4" })).await.status, 201);
    assert_eq!(owner.post(SESSIONS, &json!({ "name": "5" })).await.code(), "QUOTA_EXCEEDED");
    assert_eq!(owner.delete(&format!("{TENANT_SESSIONS}/{second}")).await.status, 204);
    assert_eq!(owner.post(SESSIONS, &json!({ "name": "5" })).await.status, 201);
    let rest = owner.all(&chats, "id").await;
    for left in rest {
        let path = format!("{TENANT_CONVERSATIONS}/{}", left.as_str().unwrap());
        assert!(matches!(owner.delete(&path).await.status, 204 | 404));
    }
    assert_eq!(owner.all(&chats, "id").await, Vec::<Value>::new());
    let audited = owner.all("/api/v5/audit", "action").await;
    for action in ["session.transferred", "session.deleted", "conversation.transferred"] {
        assert!(audited.contains(&json!(action)), "{action} in {audited:?}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn actions_of_a_guest_are_audited_in_the_active_tenant() {
    let server = Running::start(&[]).await;
    let owner = Person::new(&server, "owner@example.org").await;
    let guest = owner.member(&server, "guest@example.org").await;
    let id = guest.id().await;
    let promote = Call::patch(&format!("{MEMBERS}/{}", id.as_str().unwrap()));
    assert_eq!(owner.ask(promote.value(&json!({ "role": "admin" }))).await.status, 200);
    let there = guest.get(ME).await.data()["tenant"]["id"].clone();
    let body =
        json!({ "email": "guest@example.org", "password": PASSWORD, "active_tenant": there });
    assert_eq!(call(server.address, Call::post(LOGIN).value(&body)).await.status, 200);

    let scopes = json!({ "name": "bot", "scopes": ["write"] });
    let token = id_of(&guest.post("/api/v5/auth/tokens", &scopes).await.data());
    guest.delete(&format!("/api/v5/auth/tokens/{token}")).await;
    guest.ask(Call::patch("/api/v5/tenant").value(&json!({ "name": "renamed" }))).await;
    let setting = "/api/v5/settings/policy?scope=tenant";
    guest.put(setting, &json!({ "value": 1 })).await;
    guest.delete(setting).await;
    guest.put("/api/v5/settings/theme", &json!({ "value": "dark" })).await;
    let agent = id_of(&guest.post("/api/v5/agents", &json!({ "name": "Helper" })).await.data());
    let agent = format!("/api/v5/agents/{agent}");
    guest.put(&agent, &json!({ "description": "helps" })).await;
    guest.delete(&agent).await;
    let (session, inside, _) = filled(&guest, "work").await;
    guest.delete(&format!("{CONVERSATIONS}/{inside}")).await;
    guest.delete(&format!("{SESSIONS}/{session}")).await;

    let by_guest = format!("/api/v5/audit?actor={}", id.as_str().unwrap());
    let mut audited = owner.all(&by_guest, "action").await;
    audited.reverse();
    assert_eq!(
        audited,
        [
            "tenant.member_joined",
            "tenant.entered",
            "tenant.entered",
            "user.token_created",
            "user.token_revoked",
            "tenant.changed",
            "setting.changed",
            "setting.removed",
            "agent.created",
            "agent.changed",
            "agent.deleted",
            "session.created",
            "conversation.created",
            "conversation.created",
            "conversation.deleted",
            "session.deleted",
        ]
    );
    server.stopped().await;
}

#[tokio::test]
async fn no_route_fails_while_a_tenant_is_deleted() {
    let server = Running::start(&[]).await;
    let owner = Person::new(&server, "owner@example.org").await;
    let guest = owner.member(&server, "guest@example.org").await;
    let (session, chat, _) = filled(&owner, "mine").await;
    let (theirs, ..) = filled(&guest, "theirs").await;
    let delete = Call::delete("/api/v5/tenant").value(&json!({ "password": PASSWORD }));
    assert_eq!(owner.ask(delete).await.status, 204);
    let paths = [
        ME.to_owned(),
        "/api/v5/tenant".to_owned(),
        MEMBERS.to_owned(),
        "/api/v5/auth/sessions".to_owned(),
        "/api/v5/auth/tenants".to_owned(),
        "/api/v5/auth/verify".to_owned(),
        "/api/v5/settings".to_owned(),
        "/api/v5/agents".to_owned(),
        "/api/v5/audit".to_owned(),
        SESSIONS.to_owned(),
        format!("{SESSIONS}/{session}/restore"),
        format!("{SESSIONS}/{theirs}/files"),
        format!("{CONVERSATIONS}/{chat}/messages"),
        TENANT_SESSIONS.to_owned(),
    ];
    for path in &paths {
        let answer = owner.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "SESSION_REVOKED"), "{path}");
        let answer = guest.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "NOT_A_MEMBER"), "{path}");
    }
    server.stopped().await;
}
