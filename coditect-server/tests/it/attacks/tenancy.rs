//! Attacks on tenancy: resources of another tenant are not found in any way.

use serde_json::{Value, json};

use super::{
    Row, row,
    test_server::{Somebody, TestServer},
};
use crate::{
    account::{Device, LOGIN, ME, PASSWORD},
    client::{Answer, Call},
};

const SESSIONS: &str = "/api/v5/sessions";
const DEVICES: &str = "/api/v5/auth/sessions";
const MEMBERS: &str = "/api/v5/tenant/members";
const TENANT_SESSIONS: &str = "/api/v5/tenant/sessions";
const TOKENS: &str = "/api/v5/auth/tokens";
const INVITATIONS: &str = "/api/v5/tenant/invitations";
const ACCEPT: &str = "/api/v5/auth/invitations/accept";

pub(super) async fn session_of(env: &TestServer, token: &str) -> String {
    let made = env.call(Call::post(SESSIONS).bearer(token).value(&json!({ "name": "mine" }))).await;
    assert_eq!(made.status, 201, "{}", made.json());
    made.data()["id"].as_str().unwrap().to_owned()
}

pub(super) async fn id_of(env: &TestServer, somebody: &Somebody, what: &str) -> String {
    let me = env.me(&somebody.device.token).await.data();
    me[what]["id"].as_str().unwrap().to_owned()
}

pub(super) async fn invite(env: &TestServer, by: &str, email: &str, role: &str) -> Answer {
    let body = json!({ "email": email, "role": role });
    env.call(Call::post(INVITATIONS).bearer(by).value(&body)).await
}

async fn accept(env: &TestServer, by: &str, token: &str) -> Answer {
    env.call(Call::post(ACCEPT).bearer(by).value(&json!({ "token": token }))).await
}

/// Makes `guest` a signed-in member of `owner`'s tenant.
pub(super) async fn join(
    env: &TestServer,
    owner: &Somebody,
    guest: &Somebody,
    role: &str,
) -> Device {
    let invited = invite(env, &owner.device.token, &guest.email, role).await.data();
    let joined = accept(env, &guest.device.token, invited["token"].as_str().unwrap()).await;
    assert_eq!(joined.status, 200, "{}", joined.json());
    let tenant = id_of(env, owner, "tenant").await;
    let body = json!({ "email": guest.email, "password": PASSWORD, "active_tenant": tenant });
    Device::of(&env.call(Call::post(LOGIN).value(&body)).await)
}

/// Returns the status of a removal of `guest` by `owner`.
pub(super) async fn remove(env: &TestServer, owner: &Somebody, guest: &Somebody) -> u16 {
    let path = format!("{MEMBERS}/{}", id_of(env, guest, "user").await);
    env.call(Call::delete(&path).bearer(&owner.device.token)).await.status
}

/// Asserts that these requests of `thief` find nothing.
async fn nothing_there(env: &TestServer, thief: &str, calls: Vec<Call>) {
    for call in calls {
        let shown = format!("{call:?}");
        let answer = env.call(call.bearer(thief)).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{shown}");
    }
}

fn all_ways(id: &str) -> Vec<Call> {
    let path = format!("{SESSIONS}/{id}");
    vec![
        Call::get(&path),
        Call::put(&path).value(&json!({ "name": "stolen" })),
        Call::patch(&path).value(&json!({ "name": "stolen" })),
        Call::delete(&path),
    ]
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "another tenant's session, on every route",
            "OWASP API1:2023; ASVS 5, 8.4.1",
            |env| async move {
                let (victim, thief) = (env.register().await, env.register().await);
                let id = session_of(&env, &victim.device.token).await;
                nothing_there(&env, &thief.device.token, all_ways(&id)).await;
                let listed = env.call(Call::get(SESSIONS).bearer(&thief.device.token)).await;
                assert_eq!(listed.data(), json!([]));
                let own = env
                    .call(Call::get(&format!("{SESSIONS}/{id}")).bearer(&victim.device.token))
                    .await;
                assert_eq!(own.data()["name"], "mine");
            },
        ),
        row("a session that there is not answers the same", "OWASP API1:2023", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let id = session_of(&env, &victim.device.token).await;
            let strip = |answer: Answer| {
                let mut body = answer.json();
                body["error"]["request_id"] = Value::Null;
                (answer.status, body)
            };
            let other =
                env.call(Call::get(&format!("{SESSIONS}/{id}")).bearer(&thief.device.token)).await;
            let absent = format!("{SESSIONS}/{}", uuid::Uuid::now_v7());
            let absent = env.call(Call::get(&absent).bearer(&thief.device.token)).await;
            assert_eq!(strip(other), strip(absent));
        }),
        row("a tenant said in a body, a query or a header", "OWASP API3:2023", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let tenant = id_of(&env, &victim, "tenant").await;
            let user = id_of(&env, &victim, "user").await;
            let body = json!({
                "name": "x",
                "tenant_id": tenant,
                "tenantId": tenant,
                "user_id": user,
                "userId": user,
            });
            let create = Call::post(&format!("{SESSIONS}?tenant_id={tenant}"))
                .header("X-Tenant-Id", &tenant);
            assert_eq!(
                env.call(create.bearer(&thief.device.token).value(&body)).await.code(),
                "INVALID_QUERY"
            );
            let create =
                || Call::post(SESSIONS).header("X-Tenant-Id", &tenant).bearer(&thief.device.token);
            assert_eq!(env.call(create().value(&body)).await.code(), "UNKNOWN_FIELD");
            let made = env.call(create().value(&json!({ "name": "x" }))).await.data();
            assert_eq!(made["tenant_id"].as_str().unwrap(), id_of(&env, &thief, "tenant").await);
            let listed = env.call(Call::get(SESSIONS).bearer(&victim.device.token)).await;
            assert_eq!(listed.data(), json!([]));
        }),
        row("a page's cursor of another's list", "OWASP API1:2023", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            for _ in 0..3 {
                session_of(&env, &victim.device.token).await;
            }
            let page = env
                .call(Call::get(&format!("{SESSIONS}?limit=1")).bearer(&victim.device.token))
                .await
                .json();
            let cursor = page["next_cursor"].as_str().unwrap();
            let stolen = Call::get(&format!("{SESSIONS}?limit=1&cursor={cursor}"))
                .bearer(&thief.device.token);
            let answer = env.call(stolen).await;
            assert!(answer.status == 400 || answer.data() == json!([]), "{}", answer.json());
        }),
        row("another's device: seen, named, ended", "OWASP API1:2023", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let devices = env.call(Call::get(DEVICES).bearer(&victim.device.token)).await.data();
            let path = format!("{DEVICES}/{}", devices[0]["id"].as_str().unwrap());
            nothing_there(
                &env,
                &thief.device.token,
                vec![Call::delete(&path), Call::patch(&path).value(&json!({ "name": "x" }))],
            )
            .await;
            let own = env.call(Call::get(DEVICES).bearer(&thief.device.token)).await.data();
            assert_eq!(own.as_array().unwrap().len(), 1);
            env.spares(&victim).await;
        }),
        row("an invitation for another address", "OWASP ASVS 5, 8.2", |env| async move {
            let (owner, guest, thief) =
                (env.register().await, env.register().await, env.register().await);
            let invited = invite(&env, &owner.device.token, &guest.email, "member").await.data();
            let token = invited["token"].as_str().unwrap();
            assert_eq!(accept(&env, &thief.device.token, token).await.code(), "INVITATION_INVALID");
            assert_eq!(accept(&env, &guest.device.token, token).await.status, 200);
            assert_eq!(accept(&env, &guest.device.token, token).await.code(), "INVITATION_INVALID");
        }),
        row("a member who makes themselves more", "OWASP API5:2023", |env| async move {
            let (owner, guest) = (env.register().await, env.register().await);
            let member = join(&env, &owner, &guest, "member").await;
            let me = id_of(&env, &guest, "user").await;
            let promote =
                Call::patch(&format!("{MEMBERS}/{me}")).value(&json!({ "role": "owner" }));
            assert_eq!(env.call(promote.bearer(&member.token)).await.code(), "FORBIDDEN");
            for role in ["member", "admin", "owner"] {
                assert_eq!(
                    invite(&env, &member.token, "x@example.org", role).await.code(),
                    "FORBIDDEN"
                );
            }
            assert_eq!(
                env.call(Call::get(INVITATIONS).bearer(&member.token)).await.code(),
                "FORBIDDEN"
            );
            let owners = id_of(&env, &owner, "user").await;
            nothing_there(&env, &member.token, vec![Call::delete(&format!("{MEMBERS}/{owners}"))])
                .await;
        }),
        row(
            "an admin who makes others more than themselves",
            "OWASP API5:2023",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let admin = join(&env, &owner, &guest, "admin").await;
                assert_eq!(
                    invite(&env, &admin.token, "x@example.org", "owner").await.code(),
                    "FORBIDDEN"
                );
                assert_eq!(invite(&env, &admin.token, "x@example.org", "admin").await.status, 201);
            },
        ),
        row("somebody who is no member any more", "OWASP ASVS 5, 7.4.1", |env| async move {
            let (owner, guest) = (env.register().await, env.register().await);
            let member = join(&env, &owner, &guest, "member").await;
            let id = session_of(&env, &member.token).await;
            let path = format!("{MEMBERS}/{}", id_of(&env, &guest, "user").await);
            assert_eq!(env.call(Call::delete(&path).bearer(&owner.device.token)).await.status, 204);
            for call in [Call::get(ME), Call::get(&format!("{SESSIONS}/{id}")), Call::get(MEMBERS)]
            {
                assert_eq!(env.call(call.bearer(&member.token)).await.code(), "NOT_A_MEMBER");
            }
            nothing_there(&env, &guest.device.token, all_ways(&id)).await;
        }),
        row("another member's sessions, in one tenant", "OWASP API1:2023", |env| async move {
            let (owner, guest) = (env.register().await, env.register().await);
            let member = join(&env, &owner, &guest, "member").await;
            let theirs = session_of(&env, &owner.device.token).await;
            let mine = session_of(&env, &member.token).await;
            nothing_there(&env, &member.token, all_ways(&theirs)).await;
            nothing_there(&env, &owner.device.token, all_ways(&mine)).await;
        }),
        row("what one has elsewhere, from here", "OWASP ASVS 5, 8.4.1", |env| async move {
            let (owner, guest) = (env.register().await, env.register().await);
            let own = session_of(&env, &guest.device.token).await;
            let member = join(&env, &owner, &guest, "member").await;
            nothing_there(&env, &member.token, all_ways(&own)).await;
            let here = session_of(&env, &member.token).await;
            nothing_there(&env, &guest.device.token, all_ways(&here)).await;
        }),
        row("an invitation by an admin who was removed", "OWASP ASVS 5, 8.3.2", |env| async move {
            let (owner, guest, alt) =
                (env.register().await, env.register().await, env.register().await);
            let admin = join(&env, &owner, &guest, "admin").await;
            let spare = invite(&env, &admin.token, &alt.email, "admin").await.data();
            let own = invite(&env, &admin.token, &guest.email, "admin").await.data();
            assert_eq!(remove(&env, &owner, &guest).await, 204);
            for (by, invited) in [(&alt, &spare), (&guest, &own)] {
                let token = invited["token"].as_str().unwrap();
                assert_eq!(
                    accept(&env, &by.device.token, token).await.code(),
                    "INVITATION_INVALID"
                );
            }
            let left = env.call(Call::get(INVITATIONS).bearer(&owner.device.token)).await.data();
            assert_eq!(left, json!([]));
        }),
        row(
            "an owner who undoes their demotion by an invitation",
            "OWASP ASVS 5, 8.3.2",
            |env| async move {
                let (owner, guest, alt) =
                    (env.register().await, env.register().await, env.register().await);
                let co_owner = join(&env, &owner, &guest, "owner").await;
                let own = invite(&env, &co_owner.token, &guest.email, "owner").await.data();
                let spare = invite(&env, &co_owner.token, &alt.email, "owner").await.data();
                assert_eq!(
                    accept(&env, &guest.device.token, own["token"].as_str().unwrap()).await.code(),
                    "INVITATION_INVALID"
                );
                let path = format!("{MEMBERS}/{}", id_of(&env, &guest, "user").await);
                for role in ["member", "owner"] {
                    let change = Call::patch(&path)
                        .value(&json!({ "role": role }))
                        .bearer(&owner.device.token);
                    assert_eq!(env.call(change).await.status, 200);
                }
                assert_eq!(
                    accept(&env, &alt.device.token, spare["token"].as_str().unwrap()).await.code(),
                    "INVITATION_INVALID"
                );
            },
        ),
        row(
            "the tokens of a membership that has ended, once invited again",
            "OWASP ASVS 5, 7.4.1",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let before = join(&env, &owner, &guest, "admin").await;
                let new = json!({ "name": "bot", "scopes": ["write"] });
                let program =
                    env.call(Call::post(TOKENS).bearer(&before.token).value(&new)).await.data();
                let program = program["token"].as_str().unwrap();
                assert_eq!(remove(&env, &owner, &guest).await, 204);
                join(&env, &owner, &guest, "member").await;
                assert_eq!(env.me(program).await.code(), "SESSION_REVOKED");
                assert_eq!(env.me(&before.token).await.code(), "NOT_A_MEMBER");
                let there = env.refresh(&before.refresh_token).await;
                let there = Device::of(&there);
                let home = id_of(&env, &guest, "tenant").await;
                assert_eq!(env.me(&there.token).await.data()["tenant"]["id"], json!(home));
            },
        ),
        row(
            "an admin who takes over or deletes what a member works on",
            "OWASP API5:2023",
            |env| async move {
                let (owner, guest) = (env.register().await, env.register().await);
                let admin = join(&env, &owner, &guest, "admin").await;
                let id = session_of(&env, &owner.device.token).await;
                let me = id_of(&env, &guest, "user").await;
                let path = format!("{TENANT_SESSIONS}/{id}");
                let take = Call::post(&format!("{path}/transfer")).value(&json!({ "user_id": me }));
                for call in [take, Call::delete(&path)] {
                    assert_eq!(env.call(call.bearer(&admin.token)).await.code(), "NOT_ORPHANED");
                }
                let other = env.register().await;
                nothing_there(&env, &other.device.token, vec![Call::delete(&path)]).await;
            },
        ),
        row("a tenant that is being deleted", "OWASP ASVS 5, 7.4.2", |env| async move {
            let (owner, guest) = (env.register().await, env.register().await);
            let member = join(&env, &owner, &guest, "owner").await;
            let delete = Call::delete("/api/v5/tenant").value(&json!({ "password": PASSWORD }));
            assert_eq!(env.call(delete.bearer(&member.token)).await.status, 204);
            for call in [
                Call::get(ME),
                Call::get(MEMBERS),
                Call::post(SESSIONS).value(&json!({ "name": "x" })),
            ] {
                assert_eq!(
                    env.call(call.clone().bearer(&member.token)).await.code(),
                    "NOT_A_MEMBER"
                );
                assert_eq!(
                    env.call(call.bearer(&owner.device.token)).await.code(),
                    "SESSION_REVOKED"
                );
            }
        }),
    ]
}
