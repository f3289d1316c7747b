//! Attacks on resources: cost of unauthenticated requests, and resources of one user.

use serde_json::json;

use super::{Row, row};
use crate::client::Call;

const SESSIONS: &str = "/api/v5/sessions";

/// Returns every route with a JSON body that requires a login.
fn with_bodies() -> Vec<(&'static str, String)> {
    let id = uuid::Uuid::now_v7();
    let session = format!("{SESSIONS}/{id}");
    let of_session = |part: &str| format!("{session}/{part}");
    let mut routes = vec![
        ("PUT", "/api/v5/auth/password".to_owned()),
        ("PATCH", format!("/api/v5/auth/sessions/{id}")),
        ("POST", "/api/v5/auth/totp".to_owned()),
        ("POST", "/api/v5/auth/totp/confirm".to_owned()),
        ("POST", "/api/v5/auth/totp/remove".to_owned()),
        ("POST", "/api/v5/auth/tokens".to_owned()),
        ("POST", "/api/v5/auth/invitations/accept".to_owned()),
        ("PATCH", "/api/v5/tenant".to_owned()),
        ("DELETE", "/api/v5/tenant".to_owned()),
        ("PATCH", format!("/api/v5/tenant/members/{id}")),
        ("POST", "/api/v5/tenant/invitations".to_owned()),
        ("POST", SESSIONS.to_owned()),
        ("PATCH", session.clone()),
        ("PUT", of_session("state/key")),
        ("POST", of_session("state:batch")),
        ("PUT", of_session("files/a")),
        ("POST", of_session("files:move")),
        ("POST", of_session("files:copy")),
        ("POST", of_session("files:mkdir")),
        ("PUT", of_session("drafts/a")),
        ("POST", "/api/v5/conversations".to_owned()),
        ("PATCH", format!("/api/v5/conversations/{id}")),
        ("POST", format!("/api/v5/conversations/{id}/messages")),
        ("POST", "/api/v5/agents".to_owned()),
        ("PATCH", format!("/api/v5/agents/{id}")),
        ("PUT", "/api/v5/settings/key".to_owned()),
    ];
    for part in ["editor", "terminal", "memory"] {
        routes.extend([("PUT", of_session(part)), ("PATCH", of_session(part))]);
    }
    routes
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "a made-up personal token before a body",
            "OWASP API4:2023; CWE-696; issue 20, 14",
            |env| async move {
                let token = format!("cpt_{}", "A".repeat(43));
                for (method, path) in with_bodies() {
                    for body in [&b"{"[..], &[b' '; 100_000]] {
                        let call = Call::new(method, &path)
                            .bearer(&token)
                            .header("Content-Type", "application/json");
                        let refused = env.call(call.body(body)).await;
                        assert_eq!(
                            (refused.status, refused.code().as_str()),
                            (401, "SESSION_REVOKED"),
                            "{method} {path}"
                        );
                    }
                }
            },
        ),
        row(
            "an ended login's token before a large body",
            "OWASP API4:2023; CWE-613",
            |env| async move {
                let ada = env.register().await;
                let ended =
                    env.call(Call::post("/api/v5/auth/logout").bearer(&ada.device.token)).await;
                assert_eq!(ended.status, 200);
                for (method, path) in with_bodies() {
                    let call = Call::new(method, &path)
                        .bearer(&ada.device.token)
                        .header("Content-Type", "application/json");
                    let refused = env.call(call.body([b' '; 100_000])).await;
                    assert_eq!(
                        (refused.status, refused.code().as_str()),
                        (401, "SESSION_REVOKED"),
                        "{method} {path}"
                    );
                }
            },
        ),
        row(
            "large bodies of strangers",
            "OWASP API4:2023; CWE-770; issue 20, 5",
            |env| async move {
                let body = json!({
                    "email": "x".repeat(20_000),
                    "password": "x",
                    "token": "x",
                    "refresh_token": "x",
                });
                for path in
                    ["register", "login", "refresh", "password-reset", "password-reset/confirm"]
                {
                    let refused =
                        env.call(Call::post(&format!("/api/v5/auth/{path}")).value(&body)).await;
                    assert_eq!(
                        (refused.status, refused.code().as_str()),
                        (413, "PAYLOAD_TOO_LARGE"),
                        "{path}"
                    );
                }
            },
        ),
        row(
            "a session's memory filled without end",
            "OWASP API4:2023; CWE-770; issue 20, 05",
            |env| async move {
                let ada = env.register().await;
                let session =
                    Call::post(SESSIONS).bearer(&ada.device.token).value(&json!({"name": "s"}));
                let id = env.call(session).await.data()["id"].as_str().unwrap().to_owned();
                let mut statuses = Vec::new();
                for front in 0..12 {
                    let keys =
                        (0..10).map(|key| (format!("k{front}{key}"), json!("x".repeat(90_000))));
                    let body = serde_json::Value::Object(keys.collect());
                    let patch = Call::patch(&format!("{SESSIONS}/{id}/memory"))
                        .bearer(&ada.device.token)
                        .value(&body);
                    statuses.push(env.call(patch).await.status);
                }
                assert_eq!(statuses[..9], [200; 9]);
                assert_eq!(statuses[9..], [422; 3]);
            },
        ),
    ]
}
