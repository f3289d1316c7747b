//! Attacks on files: disk space that is not counted, paths out of reach, lost changes.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Row, row, test_server::TestServer};
use crate::client::{Answer, Call};

/// A user with a session.
struct Site {
    env: Arc<TestServer>,
    token: String,
    session: String,
}

impl Site {
    async fn new(env: Arc<TestServer>) -> Self {
        let token = env.register().await.device.token;
        let create = Call::post("/api/v5/sessions").bearer(&token).value(&json!({"name": "x"}));
        let made = env.call(create).await.data();
        let session = format!("/api/v5/sessions/{}", made["id"].as_str().unwrap());
        Self { env, token, session }
    }

    async fn call(&self, call: Call) -> Answer {
        self.env.call(call.bearer(&self.token)).await
    }

    fn put(&self, path: &str, body: &[u8]) -> Call {
        Call::put(&format!("{}/files/{path}", self.session)).body(body)
    }

    async fn post(&self, what: &str, body: Value) -> Answer {
        self.call(Call::post(&format!("{}/files:{what}", self.session)).value(&body)).await
    }

    async fn listed(&self) -> usize {
        let path = format!("{}/files?recursive=true&limit=200", self.session);
        self.call(Call::get(&path)).await.data().as_array().unwrap().len()
    }
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "uploads and copies that come to nothing",
            "OWASP API4:2023; CWE-770; issue 20, 4",
            |env| async move {
                let site = Site::new(env).await;
                assert_eq!(site.call(site.put("f", &[7; 50_000])).await.status, 201);
                let wrong = format!("sha-256=:{}:", BASE64_STANDARD.encode([0; 32]));
                for n in 0..8_u8 {
                    let put = site.put("g", &[n; 50_000]);
                    assert_eq!(
                        site.call(put.header("Content-Digest", &wrong)).await.code(),
                        "DIGEST_MISMATCH"
                    );
                    let put = site.put("f", &[n; 50_000]);
                    assert_eq!(site.call(put.header("If-None-Match", "*")).await.status, 412);
                    let body = json!({"from": "f", "to": "f/below"});
                    assert_eq!(site.post("copy", body).await.status, 422);
                }
                assert_eq!(site.listed().await, 1);
                // `reclaim` compares the stored bytes, with its own store.
            },
        ),
        row(
            "a directory that is moved to where no route reaches",
            "CWE-400; POSIX PATH_MAX; issue 20, 15",
            |env| async move {
                let site = Site::new(env).await;
                let deep = |name: &str| vec![name; 60].join("/");
                assert_eq!(
                    site.call(site.put(&format!("{}/f", deep("a")), b"precious")).await.status,
                    201
                );
                for what in ["move", "copy"] {
                    let to = format!("{}/c", deep("b"));
                    let refused = site.post(what, json!({"from": "a", "to": to})).await;
                    assert_eq!(
                        (refused.status, refused.code().as_str()),
                        (422, "VALIDATION_FAILED"),
                        "{what}"
                    );
                }
                assert_eq!(site.listed().await, 61);
            },
        ),
        row("a history that is wiped by a move", "CWE-404; issue 20, 15", |env| async move {
            let site = Site::new(env).await;
            for (path, body) in [("work", "1"), ("work", "22"), ("empty", "")] {
                site.call(site.put(path, body.as_bytes())).await;
            }
            let moved =
                site.post("move", json!({"from": "empty", "to": "work", "overwrite": true})).await;
            assert_eq!((moved.status, moved.data()["version"].as_u64()), (200, Some(3)));
            let older =
                site.call(Call::get(&format!("{}/files/work?version=2", site.session))).await;
            assert_eq!(older.body, b"22");
        }),
        row(
            "a request that is repeated for a second secret",
            "draft-ietf-httpapi-idempotency-key-header; issue 20",
            |env| async move {
                let site = Site::new(env).await;
                let make = || {
                    let body = json!({"name": "ci", "scopes": ["read"]});
                    site.call(
                        Call::post("/api/v5/auth/tokens")
                            .header("Idempotency-Key", "k")
                            .value(&body),
                    )
                };
                assert_eq!(make().await.status, 201);
                let again = make().await;
                assert_eq!(again.code(), "SECRET_SHOWN_ONCE");
                assert!(!String::from_utf8_lossy(&again.body).contains("cpt_"));
                let listed = site.call(Call::get("/api/v5/auth/tokens")).await.data();
                assert_eq!(listed.as_array().unwrap().len(), 1);
            },
        ),
    ]
}
