//! Logins, sockets and records that outlive a right, leave no trace, or take what is others'.

use std::{fs::File, sync::Arc, time::Duration};

use coditect_auth::MAX_LOGINS;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Row, row,
    tenancy::{id_of, invite, join, remove, session_of},
    test_server::TestServer,
};
use crate::{
    account::{Device, PASSWORD, REGISTER, credentials},
    client::{Call, PATIENCE},
    folder::Folder,
    process::{Process, on, program, refused},
    signed_in_session::SignedInSession,
    socket::{Asking, Socket},
};

const SESSIONS: &str = "/api/v5/sessions";

/// A user with a session, at its socket or its files.
async fn signed_in(env: &TestServer, token: String) -> SignedInSession {
    let path = format!("{SESSIONS}/{}", session_of(env, &token).await);
    SignedInSession { server: env.address(), token, path }
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "logins without number, which no reset could end",
            "OWASP ASVS 5, 7.4.3; CWE-770; issue 20, 3",
            |env| async move {
                let victim = env.register().await;
                let mut last = None;
                for _ in 0..110 {
                    last = Some(Device::of(&env.login(&victim.email, PASSWORD).await));
                }
                let last = last.unwrap();
                let ended = env
                    .call(Call::delete("/api/v5/auth/sessions").bearer(&last.token))
                    .await
                    .data();
                assert!(ended["ended"].as_u64().unwrap() < MAX_LOGINS as u64, "{ended}");
                assert_eq!(ended["ended"], 99, "of the default of 100");
                assert_eq!(env.refresh(&victim.device.refresh_token).await.status, 401);
                assert_eq!(env.me(&last.token).await.status, 200);
            },
        ),
        row(
            "a former member's sessions that fill the tenant out of reach",
            "OWASP ASVS 5, 8.2.1; CWE-772; issue 20, 7",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let there = join(&env, &owner, &guest, "member").await;
                let kept = session_of(&env, &there.token).await;
                let own = session_of(&env, &owner.device.token).await;
                assert_eq!(remove(&env, &owner, &guest).await, 204);
                let list =
                    Call::get("/api/v5/tenant/sessions?orphaned=true").bearer(&owner.device.token);
                let orphans = env.call(list).await.data();
                assert_eq!(
                    (orphans.as_array().unwrap().len(), &orphans[0]["id"]),
                    (1, &json!(kept))
                );
                let delete = |id: &str| Call::delete(&format!("/api/v5/tenant/sessions/{id}"));
                assert_eq!(
                    env.call(delete(&own).bearer(&owner.device.token)).await.code(),
                    "NOT_ORPHANED"
                );
                assert_eq!(env.call(delete(&kept).bearer(&owner.device.token)).await.status, 204);
            },
        ),
        row(
            "an admin of another tenant who leaves no trace",
            "OWASP ASVS 5, 16.2.1; CWE-778; issue 20, 12",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let there = join(&env, &owner, &guest, "admin").await;
                let token = json!({ "name": "backdoor", "scopes": ["write"] });
                for call in [
                    Call::patch("/api/v5/tenant").value(&json!({ "name": "mine now" })),
                    Call::put("/api/v5/settings/policy?scope=tenant").value(&json!({ "value": 1 })),
                    Call::post("/api/v5/agents").value(&json!({ "name": "spy" })),
                    Call::post("/api/v5/auth/tokens").value(&token),
                ] {
                    let done = env.call(call.bearer(&there.token)).await;
                    assert!(done.status < 300, "{}", done.json());
                }
                let guest = id_of(&env, &guest, "user").await;
                let audit =
                    Call::get(&format!("/api/v5/audit?actor={guest}")).bearer(&owner.device.token);
                let seen = env.call(audit).await.data();
                let seen: Vec<&str> = seen
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| it["action"].as_str().unwrap())
                    .collect();
                for action in [
                    "tenant.entered",
                    "tenant.changed",
                    "setting.changed",
                    "agent.created",
                    "user.token_created",
                ] {
                    assert!(seen.contains(&action), "{action}: {seen:?}");
                }
            },
        ),
        row(
            "a ticket's socket that follows another tab into another tenant",
            "OWASP ASVS 5, 8.4.1; CWE-639; issue 20, 13",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let signed_in = signed_in(&env, guest.device.token.clone()).await;
                let ticket = env
                    .call(Call::post("/api/v5/auth/tickets").bearer(&signed_in.token))
                    .await
                    .data();
                let ticket = format!("coditect.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
                let mut socket =
                    Asking::of(&signed_in).header("sec-websocket-protocol", &ticket).open().await;
                socket.expect("restore").await;
                let invited =
                    invite(&env, &owner.device.token, &guest.email, "member").await.data();
                let accept = Call::post("/api/v5/auth/invitations/accept")
                    .value(&json!({ "token": invited["token"] }));
                assert_eq!(env.call(accept.bearer(&signed_in.token)).await.status, 200);
                let tenant = id_of(&env, &owner, "tenant").await;
                let body =
                    json!({ "refresh_token": guest.device.refresh_token, "active_tenant": tenant });
                assert_eq!(
                    env.call(Call::post("/api/v5/auth/refresh").value(&body)).await.status,
                    200
                );
                socket.update("memory", 1, json!({ "k": 1 })).await;
                assert_eq!(socket.expect("ack").await["seq"], 1);
            },
        ),
        row(
            "a socket that outlives the membership",
            "OWASP ASVS 5, 7.4.1; CWE-613; issue 20, 30",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let there = join(&env, &owner, &guest, "member").await;
                let signed_in = signed_in(&env, there.token).await;
                let (mut socket, _) = Socket::open(&signed_in, "guest").await;
                assert_eq!(remove(&env, &owner, &guest).await, 204);
                assert_eq!(timeout(Duration::from_secs(10), socket.closed()).await.unwrap(), 4401);
            },
        ),
        row(
            "a close that is not answered, so that its sender cannot tell it from a cut",
            "RFC 6455, 5.5.1; issue 20, 18",
            |env| async move {
                let signed_in = signed_in(&env, env.register().await.device.token).await;
                let (mut socket, _) = Socket::open(&signed_in, "polite").await;
                socket.0.close(None).await.unwrap();
                let closed = timeout(PATIENCE, async {
                    while let Some(Ok(message)) = futures_util::StreamExt::next(&mut socket.0).await
                    {
                        if message.is_close() {
                            return true;
                        }
                    }
                    false
                });
                assert!(closed.await.unwrap());
            },
        ),
        row(
            "secrets in the variables and the history of a terminal",
            "CWE-312; gitleaks 8.30.1, rules; issue 20",
            |env| async move {
                let signed_in = signed_in(&env, env.register().await.device.token).await;
                let state = json!({ "active": "main", "terminals": { "main": {
                "cwd": "/work",
                "environment_vars": {
                    "AWS_ACCESS_KEY_ID": "kept1",
                    "DATABASE_URL": "kept2",
                    "GH_PAT": "kept3",
                    "EDITOR": "vi",
                },
                "command_history": ["export APIKEY=kept4", "curl -u ada:kept5 https://a.example", "ls"],
            } } });
                let put = signed_in.put("terminal", &state).await;
                let shown = signed_in.get("terminal").await;
                let shown = if put.status == 200 {
                    shown.json().to_string()
                } else {
                    put.json().to_string()
                };
                assert!(!shown.contains("kept"), "{shown}");
            },
        ),
        row(
            "a session that shows a conversation that is gone",
            "CWE-672; issue 20, 26",
            |env| async move {
                let signed_in = signed_in(&env, env.register().await.device.token).await;
                let made = signed_in
                    .call(Call::post("/api/v5/conversations").value(&json!({})))
                    .await
                    .data();
                let id = made["id"].as_str().unwrap();
                let link = signed_in.patch("", &json!({ "conversation_id": id })).await;
                assert_eq!(link.status, 200, "{}", link.json());
                assert_eq!(
                    signed_in
                        .call(Call::delete(&format!("/api/v5/conversations/{id}")))
                        .await
                        .status,
                    204
                );
                assert_eq!(signed_in.get("").await.data()["conversation_id"], Value::Null);
            },
        ),
        row(
            "content in a coding that another reader undoes",
            "RFC 9110, 8.4 and 15.5.16; CWE-436; issue 20",
            |env| async move {
                let signed_in = signed_in(&env, env.register().await.device.token).await;
                let put = Call::put(&signed_in.part("files/f"))
                    .header("Content-Encoding", "gzip")
                    .body(b"x".to_vec());
                assert_eq!(signed_in.call(put).await.code(), "UNSUPPORTED_CONTENT_ENCODING");
            },
        ),
        row("a part of the headers of a file", "RFC 9110, 14.2; issue 20", |env| async move {
            let signed_in = signed_in(&env, env.register().await.device.token).await;
            signed_in
                .call(Call::put(&signed_in.part("files/f")).body(b"0123456789".to_vec()))
                .await;
            let head = signed_in
                .call(Call::new("HEAD", &signed_in.part("files/f")).header("Range", "bytes=0-1"))
                .await;
            assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
        }),
        row(
            "a file that is served for good under a name that only looks like a hash",
            "RFC 8246, 2; issue 20",
            |_: Arc<TestServer>| async move {
                let (folder, pages) = (Folder::new(), Folder::new());
                for name in ["index.html", "guide-Section1.html", "app-1f2e3d4c.js"] {
                    std::fs::write(pages.path().join(name), "x").unwrap();
                }
                let process = Process::start(on(
                    folder.path(),
                    &["--frontend", pages.path().to_str().unwrap()],
                ))
                .await;
                for (name, is_kept) in [("guide-Section1.html", false), ("app-1f2e3d4c.js", true)] {
                    let shown =
                        crate::client::call(process.address, Call::get(&format!("/{name}"))).await;
                    let control = shown.header("cache-control").unwrap_or_default();
                    assert_eq!(control.contains("immutable"), is_kept, "{name}: {control}");
                }
                process.terminate().await;
            },
        ),
        row(
            "an account of a stranger where registration takes an invitation",
            "OWASP ASVS 5, 6.1.1; CWE-284; issue 20, 6",
            |_: Arc<TestServer>| async move {
                let folder = Folder::new();
                for (mode, code) in
                    [("invited", "INVITATION_REQUIRED"), ("closed", "REGISTRATION_CLOSED")]
                {
                    let process =
                        Process::start(on(folder.path(), &["--registration", mode])).await;
                    let stranger = credentials(REGISTER, "stranger@example.org", PASSWORD);
                    let refused = crate::client::call(process.address, stranger).await;
                    assert_eq!((refused.status, refused.code().as_str()), (403, code));
                    process.terminate().await;
                }
            },
        ),
        row(
            "a frontend that takes all memory",
            "CWE-770; issue 20, 18",
            |_: Arc<TestServer>| async move {
                let (folder, pages) = (Folder::new(), Folder::new());
                File::create(pages.path().join("video.mp4")).unwrap().set_len(6 << 30).unwrap();
                let told =
                    refused(on(folder.path(), &["--frontend", pages.path().to_str().unwrap()]))
                        .await
                        .stderr;
                assert!(told.contains("video.mp4"), "{told}");
            },
        ),
        row(
            "a guest's repeated request that makes the store look damaged",
            "draft-ietf-httpapi-idempotency-key-header; issue 20, 11",
            |_: Arc<TestServer>| async move {
                let folder = Folder::new();
                let process = Process::start(on(folder.path(), &[])).await;
                let (owner, guest) = (
                    Device::register(process.address, "owner@example.org").await,
                    Device::register(process.address, "guest@example.org").await,
                );
                let ask = async |call: Call, token: &str| {
                    crate::client::call(process.address, call.bearer(token)).await.data()
                };
                let invited = ask(
                    Call::post("/api/v5/tenant/invitations")
                        .value(&json!({ "email": "guest@example.org", "role": "member" })),
                    &owner.token,
                )
                .await;
                let joined = ask(
                    Call::post("/api/v5/auth/invitations/accept")
                        .value(&json!({ "token": invited["token"] })),
                    &guest.token,
                )
                .await;
                let enter = json!({
                    "refresh_token": guest.refresh_token,
                    "active_tenant": joined["tenant_id"],
                });
                let there = Device::of(
                    &crate::client::call(
                        process.address,
                        Call::post("/api/v5/auth/refresh").value(&enter),
                    )
                    .await,
                );
                for _ in 0..2 {
                    ask(
                        Call::post(SESSIONS)
                            .header("Idempotency-Key", "k")
                            .value(&json!({ "name": "x" })),
                        &there.token,
                    )
                    .await;
                }
                process.terminate().await;
                let checked = program(&["check"], folder.path()).output().await.unwrap();
                assert!(checked.status.success(), "{checked:?}");
            },
        ),
    ]
}
