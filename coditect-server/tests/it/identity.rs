//! Devices, passwords, second factors, personal access tokens and tenants over HTTP.

use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::{
    account::{Device, LOGIN, ME, PASSWORD, REFRESH, credentials},
    client::{Answer, Call, call},
    server::Running,
};

const EMAIL: &str = "ada@example.org";
const AUTH: &str = "/api/v5/auth";
const TENANT: &str = "/api/v5/tenant";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

struct TestServer {
    server: Running,
    ada: Device,
}

impl TestServer {
    async fn new() -> Self {
        let server = Running::start(&[]).await;
        let ada = Device::register(server.address, EMAIL).await;
        Self { server, ada }
    }

    async fn ask(&self, request: Call) -> Answer {
        call(self.server.address, request.bearer(&self.ada.token)).await
    }
}

#[tokio::test]
async fn devices_are_listed_renamed_and_revoked() {
    let env = TestServer::new().await;
    let phone = credentials(LOGIN, EMAIL, PASSWORD).header("User-Agent", "Phone/1.0");
    let phone = Device::of(&call(env.server.address, phone).await);
    let listed = env.ask(Call::get(&format!("{AUTH}/sessions"))).await;
    assert_eq!(listed.json()["next_cursor"], Value::Null);
    let listed = listed.data();
    let all = [
        "created_at",
        "current",
        "etag",
        "expires_at",
        "id",
        "ip",
        "last_used_at",
        "name",
        "tenant_id",
        "user_agent",
    ];
    assert_eq!(keys(&listed[0]), all);
    assert_eq!((&listed[0]["current"], &listed[1]["current"]), (&json!(false), &json!(true)));
    assert_eq!(listed[0]["user_agent"], "Phone/1.0");
    assert_eq!(listed[0]["ip"], "127.0.0.1");

    let path = format!("{AUTH}/sessions/{}", listed[0]["id"].as_str().unwrap());
    let named = env.ask(Call::patch(&path).value(&json!({"name": " My phone "}))).await;
    assert_eq!(named.data()["name"], "My phone");
    let long = env.ask(Call::patch(&path).value(&json!({"name": "x".repeat(101)}))).await;
    assert_eq!(long.code(), "VALIDATION_FAILED");
    let unnamed = env.ask(Call::patch(&path).value(&json!({"name": null}))).await;
    assert_eq!(unnamed.data()["name"], Value::Null);
    assert_eq!(env.ask(Call::delete(&path)).await.status, 204);
    assert_eq!(env.ask(Call::delete(&path)).await.status, 404);
    phone.expect_dead(env.server.address, "SESSION_REVOKED").await;

    let laptop = Device::login(env.server.address, EMAIL).await;
    let ended = env.ask(Call::delete(&format!("{AUTH}/sessions"))).await;
    assert_eq!(ended.data(), json!({"ended": 1}));
    laptop.expect_dead(env.server.address, "SESSION_REVOKED").await;
    env.ada.expect_alive(env.server.address).await;
}

#[tokio::test]
async fn password_change_requires_the_present_password() {
    let env = TestServer::new().await;
    let body = json!({"currentPassword": PASSWORD, "newPassword": "another password"});
    let change = env.ask(Call::put(&format!("{AUTH}/password")).value(&body)).await;
    assert_eq!(change.data(), json!({"changed": true}));
    env.ada.expect_alive(env.server.address).await;
    let again = env.ask(Call::put(&format!("{AUTH}/password")).value(&body)).await;
    assert_eq!((again.status, again.code().as_str()), (401, "INVALID_CREDENTIALS"));
    let weak = json!({"current_password": "another password", "new_password": "password"});
    let weak = env.ask(Call::put(&format!("{AUTH}/password")).value(&weak)).await;
    assert_eq!((weak.status, weak.code().as_str()), (422, "WEAK_PASSWORD"));
    let asked = json!({"email": EMAIL});
    let asked =
        call(env.server.address, Call::post(&format!("{AUTH}/password-reset")).value(&asked));
    let asked = asked.await;
    assert_eq!((asked.status, asked.data()), (202, json!({"requested": true})));
}

#[tokio::test]
async fn second_factor_is_set_up_confirmed_and_removed() {
    let env = TestServer::new().await;
    let setup = Call::post(&format!("{AUTH}/totp"));
    let begun = env.ask(setup.value(&json!({"password": PASSWORD}))).await.data();
    let secret = begun["secret"].as_str().unwrap();
    let url = begun["url"].as_str().unwrap();
    assert!(url.starts_with("otpauth://totp/Coditect:ada%40example%2Eorg?secret="), "{url}");
    let totp =
        Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let code = |steps: i64| {
        let now = coditect_store::Clock::system().now().timestamp() + 30 * steps;
        totp.generate(now.try_into().unwrap()).to_string()
    };
    let confirm = format!("{AUTH}/totp/confirm");
    let wrong = env.ask(Call::post(&confirm).value(&json!({"code": "000000"}))).await;
    assert_eq!(wrong.code(), "SECOND_FACTOR_INVALID");
    let confirmed = env.ask(Call::post(&confirm).value(&json!({"code": code(-1)}))).await.data();
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    let again = env.ask(Call::post(&confirm).value(&json!({"code": code(0)}))).await;
    assert_eq!((again.status, again.code().as_str()), (409, "SECOND_FACTOR_STATE"));

    let address = env.server.address;
    let without = call(address, credentials(LOGIN, EMAIL, PASSWORD)).await;
    assert_eq!((without.status, without.code().as_str()), (401, "SECOND_FACTOR_REQUIRED"));
    let with = json!({"email": EMAIL, "password": PASSWORD, "code": code(0)});
    Device::of(&call(address, Call::post(LOGIN).value(&with)).await);
    let body = json!({"password": PASSWORD, "code": confirmed["recovery_codes"][0]});
    let removed = env.ask(Call::post(&format!("{AUTH}/totp/remove")).value(&body)).await;
    assert_eq!(removed.status, 204);
    Device::login(address, EMAIL).await;
}

#[tokio::test]
async fn personal_token_is_returned_once_listed_and_revoked() {
    let env = TestServer::new().await;
    let path = format!("{AUTH}/tokens");
    let new = json!({"name": " CI ", "scopes": ["read", "ci:deploy"], "expiresInDays": 30});
    let made = env.ask(Call::post(&path).value(&new)).await;
    assert_eq!(made.status, 201);
    let location = made.header("location").unwrap().to_owned();
    let made = made.data();
    assert_eq!(made["scopes"], json!(["ci:deploy", "read"]));
    let text = made["token"].as_str().unwrap().to_owned();
    assert!(text.starts_with("cpt_"));
    let listed = env.ask(Call::get(&path)).await.data();
    assert_eq!((&listed[0]["name"], listed[0].get("token")), (&json!("CI"), None));

    let address = env.server.address;
    let me = call(address, Call::get(ME).bearer(&text)).await.data();
    assert_eq!(me["user"]["email"], EMAIL);
    let verified = call(address, Call::get(&format!("{AUTH}/verify")).bearer(&text)).await;
    assert_eq!((verified.status, verified.header("x-auth-scopes")), (204, Some("ci:deploy read")));
    assert_eq!(verified.header("x-auth-session"), None);
    for wrong in [
        json!({"name": "", "scopes": ["read"]}),
        json!({"name": "x".repeat(101), "scopes": ["read"]}),
        json!({"name": "x", "scopes": ["read"], "expires_in_days": 0}),
        json!({"name": "x", "scopes": ["read"], "expires_in_days": 367}),
        json!({"name": "x"}),
    ] {
        assert_eq!(env.ask(Call::post(&path).value(&wrong)).await.code(), "VALIDATION_FAILED");
    }
    assert_eq!(env.ask(Call::delete(&location)).await.status, 204);
    assert_eq!(call(address, Call::get(ME).bearer(&text)).await.status, 401);
}

#[tokio::test]
async fn proxy_gets_the_caller_and_services_the_keys() {
    let env = TestServer::new().await;
    let me = env.ask(Call::get(ME)).await.data();
    let verified = env.ask(Call::get(&format!("{AUTH}/verify"))).await;
    assert_eq!((verified.status, verified.body.len()), (204, 0));
    assert_eq!(verified.header("x-auth-user"), me["user"]["id"].as_str());
    assert_eq!(verified.header("x-auth-tenant"), me["tenant"]["id"].as_str());
    assert!(verified.header("x-auth-session").is_some());
    let expires = verified.header("x-auth-expires").unwrap();
    let left = chrono::DateTime::parse_from_rfc3339(expires).unwrap().to_utc()
        - coditect_store::Clock::system().now();
    assert!((0..=900).contains(&left.num_seconds()), "{expires}");
    let address = env.server.address;
    for refused in
        [Call::get(&format!("{AUTH}/verify")), Call::get(&format!("{AUTH}/verify")).bearer("x")]
    {
        let answer = call(address, refused).await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("x-auth-user").is_none());
    }

    for path in ["/.well-known/jwks.json", "/api/v5/.well-known/jwks.json"] {
        let answer = call(address, Call::get(path)).await;
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        let settings = coditect_auth::AccessSettings::default();
        let service = coditect_auth::JwksVerifier::new(&answer.json(), settings).unwrap();
        let now = coditect_store::Clock::system().now();
        let claims = service.verify(&env.ada.token, now).unwrap();
        assert_eq!(claims.sub.to_string(), me["user"]["id"].as_str().unwrap());
    }
    let ticket = env.ask(Call::post(&format!("{AUTH}/tickets"))).await.data();
    assert_eq!(ticket["expires_in"], 30);
    assert!(ticket["ticket"].as_str().unwrap().starts_with("ctk_"));
}

#[tokio::test]
async fn invited_user_joins_and_leaves_the_tenant() {
    let env = TestServer::new().await;
    let address = env.server.address;
    let bob = Device::register(address, "bob@example.org").await;
    let body = json!({"email": "Bob@example.org", "role": "admin"});
    let invited = env.ask(Call::post(&format!("{TENANT}/invitations")).value(&body)).await;
    assert_eq!(invited.status, 201);
    let invited = invited.data();
    let open = env.ask(Call::get(&format!("{TENANT}/invitations"))).await.data();
    assert_eq!(open[0]["id"], invited["id"]);
    assert!(open[0].get("token").is_none());
    let accept = json!({"token": invited["token"]});
    let accept = Call::post(&format!("{AUTH}/invitations/accept")).value(&accept);
    let joined = call(address, accept.bearer(&bob.token)).await.data();
    assert_eq!(joined["role"], "admin");

    let tenants =
        call(address, Call::get(&format!("{AUTH}/tenants")).bearer(&bob.token)).await.data();
    assert_eq!((&tenants[0]["own"], &tenants[1]["own"]), (&json!(true), &json!(false)));
    let there = json!({"refresh_token": bob.refresh_token, "actIn": joined["tenant_id"]});
    let answer = call(address, Call::post(REFRESH).value(&there)).await;
    assert_eq!(answer.data()["tenant_id"], joined["tenant_id"]);
    let member = Device::of(&answer);
    let me = call(address, Call::get(ME).bearer(&member.token)).await.data();
    assert_eq!((&me["role"], &me["tenant"]["id"]), (&json!("admin"), &joined["tenant_id"]));
    let made = Call::post("/api/v5/sessions").value(&json!({"name": "theirs"}));
    let made = call(address, made.bearer(&member.token)).await.data();
    assert_eq!(made["tenant_id"], joined["tenant_id"]);

    let members = env.ask(Call::get(&format!("{TENANT}/members"))).await.data();
    let roles: Vec<_> = members.as_array().unwrap().iter().map(|it| &it["role"]).collect();
    assert_eq!(roles, ["owner", "admin"]);
    let path = format!("{TENANT}/members/{}", members[1]["user_id"].as_str().unwrap());
    let changed = env.ask(Call::patch(&path).value(&json!({"role": "member"}))).await.data();
    assert_eq!(changed["role"], "member");
    assert_eq!(env.ask(Call::delete(&path)).await.status, 204);
    let refused = call(address, Call::get(ME).bearer(&member.token)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "NOT_A_MEMBER"));
    let home = member.refreshed(address).await;
    home.expect_alive(address).await;

    let body = json!({"email": "carol@example.org", "role": "member"});
    let invited = env.ask(Call::post(&format!("{TENANT}/invitations")).value(&body)).await.data();
    let path = format!("{TENANT}/invitations/{}", invited["id"].as_str().unwrap());
    assert_eq!(env.ask(Call::delete(&path)).await.status, 204);
    assert_eq!(env.ask(Call::delete(&path)).await.status, 404);
}

#[tokio::test]
async fn cookies_are_used_on_request_if_enabled() {
    let env = TestServer::new().await;
    let body = json!({"email": EMAIL, "password": PASSWORD, "cookies": true});
    let refused = call(env.server.address, Call::post(LOGIN).value(&body)).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "VALIDATION_FAILED"));

    let server = Running::start(&["--cookies"]).await;
    Device::register(server.address, EMAIL).await;
    let answer = call(server.address, Call::post(LOGIN).value(&body)).await;
    let data = answer.data();
    assert_eq!(keys(&data), ["csrf_token", "expires_in", "tenant_id", "token_type", "user"]);
    // Bearer tokens are accepted in addition to cookies.
    Device::login(server.address, EMAIL).await.expect_alive(server.address).await;
}
