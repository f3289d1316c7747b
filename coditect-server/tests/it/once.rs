//! Requests with an `Idempotency-Key`, and deletion of tenants.

use serde_json::{Value, json};

use crate::{
    account::{Device, LOGIN, PASSWORD, credentials},
    client::{Answer, Call, call},
    server::Running,
    signed_in_session::SignedInSession,
};

const SESSIONS: &str = "/api/v5/sessions";

async fn make(signed_in: &SignedInSession, path: &str, key: &str, body: &Value) -> Answer {
    signed_in.call(Call::post(path).header("Idempotency-Key", key).value(body)).await
}

#[tokio::test]
async fn repeated_request_gets_the_first_response_without_effect() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let begun = signed_in.call(Call::post("/api/v5/conversations").value(&json!({}))).await.data();
    let messages = format!("/api/v5/conversations/{}/messages", begun["id"].as_str().unwrap());
    for (path, body, other) in [
        (SESSIONS, json!({"name": "one"}), json!({"name": "two"})),
        ("/api/v5/conversations", json!({"title": "one"}), json!({"title": "two"})),
        (messages.as_str(), json!({"content": "one"}), json!({"content": "two"})),
        ("/api/v5/agents", json!({"name": "one"}), json!({"name": "two"})),
    ] {
        let count = async || signed_in.call(Call::get(path)).await.data().as_array().unwrap().len();
        let before = count().await;
        let key = format!("key-{}", path.len());
        let first = make(&signed_in, path, &key, &body).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{path}");
        let again = make(&signed_in, path, &key, &body).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
        assert_eq!(again.body, first.body);
        for header in ["location", "etag", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{path} {header}");
        }
        let reused = make(&signed_in, path, &key, &other).await;
        assert_eq!((reused.status, reused.code().as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
        assert_eq!(count().await, before + 1, "{path}");
    }
    // A key belongs to a user.
    let eve = SignedInSession::new(&server, "eve@example.org").await;
    assert_eq!(make(&eve, SESSIONS, "key-16", &json!({"name": "x"})).await.status, 201);
    for wrong in ["", "a b", "é", &"k".repeat(201)] {
        let refused = make(&signed_in, SESSIONS, wrong, &json!({"name": "x"})).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_IDEMPOTENCY_KEY"));
    }
}

#[tokio::test]
async fn repeated_file_operation_is_applied_once() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for path in ["a", "tree/one", "tree/deep/two"] {
        let put = Call::put(&signed_in.part(&format!("files/{path}"))).body(path);
        assert_eq!(signed_in.call(put).await.status, 201);
    }
    for (number, (route, body, status)) in [
        ("files:mkdir", json!({"path": "d"}), 201),
        ("files:mkdir", json!({"path": "d/"}), 200),
        ("files:copy", json!({"from": "a", "to": "b"}), 201),
        ("files:copy", json!({"from": "tree", "to": "copy"}), 201),
        ("files:copy", json!({"from": "a", "to": "b", "overwrite": true}), 201),
        ("files:move", json!({"from": "b", "to": "c"}), 200),
        ("files:move", json!({"from": "copy", "to": "moved"}), 200),
    ]
    .into_iter()
    .enumerate()
    {
        let (path, key) = (signed_in.part(route), format!("key-{number}"));
        let first = make(&signed_in, &path, &key, &body).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (status, None), "{body}");
        let listed = signed_in.get("files?recursive=true&limit=100").await.body;
        let again = make(&signed_in, &path, &key, &body).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (status, Some("true")));
        assert_eq!(again.body, first.body);
        for header in ["location", "etag"] {
            assert_eq!(again.header(header), first.header(header), "{body} {header}");
        }
        assert_eq!(signed_in.get("files?recursive=true&limit=100").await.body, listed, "{body}");
        let other = match route {
            "files:mkdir" => json!({"path": "z"}),
            _ => json!({"from": "x", "to": "y"}),
        };
        let reused = make(&signed_in, &path, &key, &other).await;
        assert_eq!((reused.status, reused.code().as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
    }
    // The same copy several times concurrently.
    let body = json!({"from": "a", "to": "many", "overwrite": true});
    let path = signed_in.part("files:copy");
    let asked = (0..8).map(|_| make(&signed_in, &path, "the-key", &body));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!((answer.status, answer.data()["version"].as_u64()), (201, Some(1)));
    }
}

/// Returns a distinct key for each path.
fn path_key(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn secret_is_returned_once_and_its_resource_created_once() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for (path, body) in [
        ("/api/v5/auth/tokens", json!({"name": "ci", "scopes": ["read"]})),
        ("/api/v5/tenant/invitations", json!({"email": "b@example.org", "role": "member"})),
    ] {
        let first = make(&signed_in, path, path_key(path), &body).await;
        assert_eq!(first.status, 201, "{path}");
        assert!(first.data()["token"].is_string());
        let again = make(&signed_in, path, path_key(path), &body).await;
        assert_eq!((again.status, again.code().as_str()), (409, "SECRET_SHOWN_ONCE"), "{path}");
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        let listed = signed_in.call(Call::get(path)).await.data();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{path}");
        // The created resource can be deleted at the `Location` of the refusal.
        let location = again.header("location").unwrap();
        assert_eq!(signed_in.call(Call::delete(location)).await.status, 204);
        // A key is for one request, of any route.
        let other = make(&signed_in, SESSIONS, path_key(path), &json!({"name": "x"})).await;
        assert_eq!(other.code(), "IDEMPOTENCY_KEY_REUSED");
    }
}

#[tokio::test]
async fn invitation_is_accepted_once() {
    let server = Running::start(&[]).await;
    let (signed_in, eve) = (
        SignedInSession::new(&server, "ada@example.org").await,
        SignedInSession::new(&server, "eve@example.org").await,
    );
    let invitation = json!({"email": "eve@example.org", "role": "member"});
    let invited = make(&signed_in, "/api/v5/tenant/invitations", "invite", &invitation).await;
    let body = json!({"token": invited.data()["token"]});
    let accept = async || make(&eve, "/api/v5/auth/invitations/accept", "accept", &body).await;
    let (first, again) = (accept().await, accept().await);
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn concurrent_repetitions_are_applied_once_with_equal_responses() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let body = json!({"name": "once"});
    let asked = (0..16).map(|_| make(&signed_in, SESSIONS, "the-key", &body));
    let answers = futures_util::future::join_all(asked).await;
    let replayed = answers.iter().filter(|it| it.header("idempotency-replayed").is_some());
    assert_eq!(replayed.count(), 15);
    assert!(answers.iter().all(|it| it.status == 201 && it.body == answers[0].body));
}

#[tokio::test]
async fn failed_request_may_be_retried() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let named = |name: &str| json!({"name": name});
    signed_in.call(Call::post("/api/v5/agents").value(&named("taken"))).await;
    assert_eq!(make(&signed_in, "/api/v5/agents", "k", &named("taken")).await.status, 409);
    assert_eq!(make(&signed_in, "/api/v5/agents", "k", &named("free")).await.status, 201);
}

#[tokio::test]
async fn owner_deletes_a_tenant_with_their_password() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let eve = SignedInSession::new(&server, "eve@example.org").await;
    let delete = |password: &str| {
        signed_in.call(Call::delete("/api/v5/tenant").value(&json!({"password": password})))
    };
    let wrong = delete("another password").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "INVALID_CREDENTIALS"));
    assert_eq!(signed_in.get("").await.status, 200);

    // Not with a personal access token, nor for a member who is not an owner.
    let token = Call::post("/api/v5/auth/tokens")
        .value(&json!({"name": "ci", "scopes": ["read", "write"]}));
    let token = signed_in.call(token).await.data()["token"].as_str().unwrap().to_owned();
    let by_program =
        Call::delete("/api/v5/tenant").bearer(&token).value(&json!({"password": PASSWORD}));
    assert_eq!(call(server.address, by_program).await.status, 403);

    assert_eq!(delete(PASSWORD).await.status, 204);
    assert_eq!(signed_in.get("").await.status, 401);
    let login = || call(server.address, credentials(LOGIN, "ada@example.org", PASSWORD));
    // The rest is deleted in the background.
    let mut status = login().await.status;
    for _ in 0..100 {
        if status == 401 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        status = login().await.status;
    }
    assert_eq!(status, 401);
    assert_eq!(eve.get("").await.status, 200, "nobody else's is touched");
    Device::register(server.address, "ada@example.org").await;
}
