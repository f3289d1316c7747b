//! Accounts, tokens and their revocation over HTTP.

use std::{collections::HashSet, fs, net::SocketAddr, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use coditect_auth::entities;
use coditect_store::{
    Store,
    model::{AuthSession, AuthSessionId, Tenant, TenantId, User, UserId},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    account::{Device, LOGIN, LOGOUT, ME, PASSWORD, REFRESH, REGISTER},
    account::{credentials, logout, me, refresh},
    client::{Answer, Call, call},
    folder::{self, Folder},
    server::Running,
};

const EMAIL: &str = "ada@example.org";

/// Returns the claims of an access token, unverified.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn id<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Returns a response without headers that differ between requests.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let mut body = answer.json();
    body["error"]["request_id"].take();
    let differs = |name: &str| matches!(name, "x-request-id" | "date");
    let headers = answer.headers.iter().filter(|(name, _)| !differs(name)).cloned().collect();
    (answer.status, headers, body)
}

async fn register(server: SocketAddr, body: &Value) -> Answer {
    call(server, Call::post(REGISTER).value(body)).await
}

#[tokio::test]
async fn registration_signs_in_and_returns_all_fields() {
    let server = Running::start(&[]).await;
    for (email, first, last) in
        [("camel@example.org", "firstName", "lastName"), ("snake@x.org", "first_name", "last_name")]
    {
        let body = json!({"email": email, "password": PASSWORD, first: " Ada ", last: "Lovelace"});
        let answer = register(server.address, &body).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("location"), Some(ME));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let data = answer.data();
        let all = ["expires_in", "refresh_token", "tenant_id", "token", "token_type", "user"];
        assert_eq!(keys(&data), all);
        assert_eq!(data["token_type"], "Bearer");
        assert!(matches!(data["expires_in"].as_i64(), Some(899..=900)), "{data}");
        assert!(data["refresh_token"].as_str().unwrap().starts_with("crt_"));
        let user = &data["user"];
        let all =
            ["created_at", "email", "first_name", "id", "last_name", "tenant_id", "updated_at"];
        assert_eq!(keys(user), all);
        assert_eq!(user["email"], email);
        assert_eq!((&user["first_name"], &user["last_name"]), (&json!("Ada"), &json!("Lovelace")));
        let time = user["created_at"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        let shown = me(server.address, data["token"].as_str().unwrap()).await.data();
        assert_eq!(shown["user"], *user);
        assert_eq!(shown["tenant"]["id"], user["tenant_id"]);
        assert_eq!(shown["tenant"]["name"], email);
    }
}

#[tokio::test]
async fn names_may_be_missing_null_or_blank() {
    let server = Running::start(&[]).await;
    for (email, names) in [
        ("none@example.org", json!({})),
        ("null@example.org", json!({"firstName": null, "lastName": null})),
        ("blank@example.org", json!({"firstName": "", "lastName": "  "})),
    ] {
        let mut body = json!({"email": email, "password": PASSWORD});
        body.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        let user = register(server.address, &body).await.data()["user"].take();
        assert_eq!((&user["first_name"], &user["last_name"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test]
async fn token_claims_match_the_store_and_no_secret_is_stored() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let answer = call(
        server.address,
        credentials(REGISTER, EMAIL, PASSWORD).header("User-Agent", "test/1.0"),
    )
    .await;
    let device = Device::of(&answer);
    let said = claims(&device.token);
    server.stopped().await;

    let store = open(folder.path()).await;
    let tenant: TenantId = id(&said["tenant_id"]);
    let session_id: AuthSessionId = id(&said["session_id"]);
    let user_id: UserId = id(&said["sub"]);
    let (session, user, owner) = store
        .run(|tx| async move {
            let session = tx.get::<AuthSession>(tenant, session_id).await?;
            let user = tx.get::<User>(tenant, user_id).await?;
            let owner = tx.get::<Tenant>(tenant, ()).await?;
            Ok::<_, coditect_store::Error>((session.unwrap(), user.unwrap(), owner.unwrap()))
        })
        .await
        .unwrap();
    assert_eq!(session.token_family, id(&said["token_family"]));
    assert_eq!((session.user_id, session.tenant_id), (user.id, owner.id));
    assert_eq!((session.generation, session.revocation), (0, None));
    assert_eq!(session.user_agent.as_deref(), Some("test/1.0"));
    assert_eq!(session.ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(said["email"], EMAIL);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 900);
    assert!(user.password_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));

    store.database().close().await;
    let files = fs::read_dir(folder.path()).unwrap().map(|file| fs::read(file.unwrap().path()));
    let files: Vec<_> = files.map(Result::unwrap).collect();
    assert!(files.iter().any(|file| file.windows(EMAIL.len()).any(|at| at == EMAIL.as_bytes())));
    let sent = device.refresh_token.strip_prefix("crt_").unwrap();
    let secret = &BASE64_URL_SAFE_NO_PAD.decode(sent).unwrap()[21..53];
    for secret in [PASSWORD.as_bytes(), device.refresh_token.as_bytes(), secret] {
        let has_it = |file: &Vec<u8>| file.windows(secret.len()).any(|window| window == secret);
        assert!(!files.iter().any(has_it));
    }
}

async fn open(folder: &Path) -> Store {
    entities(Store::options()).open(folder::database(folder)).await.unwrap()
}

#[tokio::test]
async fn name_in_both_spellings_is_refused_without_an_account() {
    let server = Running::start(&[]).await;
    let body = json!({"email": EMAIL, "password": PASSWORD, "firstName": "A", "first_name": "B"});
    let answer = register(server.address, &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DUPLICATE_FIELD"));
    Device::register(server.address, EMAIL).await;
}

#[tokio::test]
async fn identity_is_never_taken_from_a_body() {
    let server = Running::start(&[]).await;
    let victim = Device::register(server.address, "victim@example.org").await;
    let theirs = claims(&victim.token);
    let claimed = json!({
        "id": theirs["sub"], "user_id": theirs["sub"], "userId": theirs["sub"],
        "tenant_id": theirs["tenant_id"], "tenantId": theirs["tenant_id"],
        "session_id": theirs["session_id"], "token_family": theirs["token_family"],
        "role": "owner", "email_verified": true, "status": "disabled",
    });
    for (field, value) in claimed.as_object().unwrap() {
        let body = json!({"email": EMAIL, "password": PASSWORD, field: value});
        let refused = register(server.address, &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "UNKNOWN_FIELD"), "{field}");
    }
    let made = register(server.address, &json!({"email": EMAIL, "password": PASSWORD})).await;
    let made = made.data();
    let own = claims(made["token"].as_str().unwrap());
    for claim in ["sub", "tenant_id", "session_id", "token_family"] {
        assert_ne!(own[claim], theirs[claim], "{claim}");
    }
    assert_eq!(made["user"]["tenant_id"], own["tenant_id"]);
    assert!(made["user"].get("role").is_none() && made["user"].get("email_verified").is_none());
    victim.expect_alive(server.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_registrations_of_one_address_create_one_account() {
    let server = Running::start(&[]).await;
    let spellings = [EMAIL, "Ada@Example.org", "  ada@example.org ", "\tADA@EXAMPLE.ORG"];
    let answers = join_all((0..50).map(|index| {
        call(server.address, credentials(REGISTER, spellings[index % spellings.len()], PASSWORD))
    }))
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 49));
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (409, "EMAIL_TAKEN"));
    }
    Device::of(made[0]).expect_alive(server.address).await;
    let one = made[0].data()["user"]["id"].take();
    for spelling in spellings {
        let answer = call(server.address, credentials(LOGIN, spelling, PASSWORD)).await;
        assert_eq!(answer.data()["user"]["id"], one, "{spelling:?}");
    }
}

#[tokio::test]
async fn invalid_address_or_password_is_a_422_naming_the_field() {
    let server = Running::start(&[]).await;
    let too_long = "x".repeat(257);
    let long_name = format!("{}@example.org", "x".repeat(65));
    #[rustfmt::skip]
    let table = [
        ("",                           PASSWORD,          "INVALID_EMAIL"),
        ("ada",                        PASSWORD,          "INVALID_EMAIL"),
        ("ada@",                       PASSWORD,          "INVALID_EMAIL"),
        ("@example.org",               PASSWORD,          "INVALID_EMAIL"),
        ("ada@localhost",              PASSWORD,          "INVALID_EMAIL"),
        ("ada@[10.0.0.1]",             PASSWORD,          "INVALID_EMAIL"),
        ("a b@example.org",            PASSWORD,          "INVALID_EMAIL"),
        ("ada@example.org\r\nBcc: b",  PASSWORD,          "INVALID_EMAIL"),
        ("ada@example.org\n",          PASSWORD,          "INVALID_EMAIL"),
        ("ada\0@example.org",          PASSWORD,          "INVALID_EMAIL"),
        ("ad\u{200b}a@example.org",    PASSWORD,          "INVALID_EMAIL"),
        (&long_name,                   PASSWORD,          "INVALID_EMAIL"),
        (EMAIL,                        "",                "WEAK_PASSWORD"),
        (EMAIL,                        "seven77",         "WEAK_PASSWORD"),
        (EMAIL,                        &too_long,         "WEAK_PASSWORD"),
        (EMAIL,                        "Ada@Example.ORG", "WEAK_PASSWORD"),
    ];
    for (email, password, code) in table {
        let answer = call(server.address, credentials(REGISTER, email, password)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, code), "{email:?} {password:?}");
        let field = if code == "INVALID_EMAIL" { "email" } else { "password" };
        assert_eq!(answer.json()["error"]["fields"][0]["field"], field);
        assert!(password.is_empty() || !String::from_utf8_lossy(&answer.body).contains(password));
    }
    Device::register(server.address, EMAIL).await;
}

#[tokio::test]
async fn every_character_of_a_password_counts_in_any_normalization() {
    let server = Running::start(&["--trusted-proxy", "127.0.0.1"]).await;
    let long = "x".repeat(255);
    #[rustfmt::skip]
    let table = [
        (format!("{long}a"),              format!("{long}b"),            401),
        (format!("{}a", &long[..72]),     format!("{}b", &long[..72]),   401),
        ("same\0one!".to_owned(),         "same\0two!".to_owned(),       401),
        ("trailing space".to_owned(),     "trailing space ".to_owned(),  401),
        ("Letter case".to_owned(),        "letter case".to_owned(),      401),
        ("caf\u{e9} cr\u{e8}me".to_owned(), "cafe\u{301} cre\u{300}me".to_owned(), 200),
    ];
    for (index, (chosen, presented, status)) in table.into_iter().enumerate() {
        let email = format!("{index}@example.org");
        let made = call(server.address, credentials(REGISTER, &email, &chosen)).await;
        assert_eq!(made.status, 201, "{chosen:?}");
        let login = credentials(LOGIN, &email, &presented).from(index);
        let answer = call(server.address, login).await;
        assert_eq!(answer.status, status, "{chosen:?} {presented:?}");
    }
}

#[tokio::test]
async fn login_creates_a_new_session() {
    let server = Running::start(&[]).await;
    let first = Device::register(server.address, EMAIL).await;
    let answer = call(server.address, credentials(LOGIN, EMAIL, PASSWORD)).await;
    assert_eq!(answer.status, 200);
    let second = Device::of(&answer);
    let (one, other) = (claims(&first.token), claims(&second.token));
    assert_eq!((&one["sub"], &one["tenant_id"]), (&other["sub"], &other["tenant_id"]));
    for claim in ["session_id", "token_family", "jti"] {
        assert_ne!(one[claim], other[claim], "{claim}");
    }
    first.expect_alive(server.address).await;
    second.expect_alive(server.address).await;
}

#[tokio::test]
async fn wrong_password_and_unknown_address_get_the_same_response() {
    let server = Running::start(&["--trusted-proxy", "127.0.0.1"]).await;
    Device::register(server.address, EMAIL).await;
    let endless = "x".repeat(5_000);
    let mut answers = Vec::new();
    for (email, password) in [
        (EMAIL, "wrong password"),
        (EMAIL, ""),
        (EMAIL, &endless),
        ("nobody@example.org", PASSWORD),
        ("not an address", PASSWORD),
        ("", PASSWORD),
    ] {
        let login = credentials(LOGIN, email, password).from(answers.len());
        let answer = call(server.address, login).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "INVALID_CREDENTIALS"));
        answers.push(comparable(&answer));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn refresh_returns_a_new_pair_and_the_same_within_the_grace() {
    let server = Running::start(&[]).await;
    let first = Device::register(server.address, EMAIL).await;
    let answer = refresh(server.address, &first.refresh_token).await;
    let all = ["expires_in", "refresh_token", "tenant_id", "token", "token_type"];
    assert_eq!(keys(&answer.data()), all);
    let second = Device::of(&answer);
    assert_ne!(second.refresh_token, first.refresh_token);
    assert_ne!(second.token, first.token);
    let repeated = first.refreshed(server.address).await;
    assert_eq!(repeated.refresh_token, second.refresh_token);
    for device in [&first, &second, &repeated] {
        device.expect_alive(server.address).await;
        assert_eq!(claims(&device.token)["session_id"], claims(&first.token)["session_id"]);
    }
    let third = second.refreshed(server.address).await;
    assert!(![first.refresh_token, second.refresh_token].contains(&third.refresh_token));
    let camel = Call::post(REFRESH).value(&json!({"refreshToken": third.refresh_token}));
    assert_eq!(call(server.address, camel).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_refreshes_have_one_successor() {
    let server = Running::start(&["--refresh-grace", "5m"]).await;
    let device = Device::register(server.address, EMAIL).await;
    let devices = join_all((0..50).map(|_| device.refreshed(server.address))).await;
    let successors: HashSet<_> = devices.iter().map(|device| &device.refresh_token).collect();
    assert_eq!(successors.len(), 1);
    assert!(!successors.contains(&device.refresh_token));
    for device in &devices {
        device.expect_alive(server.address).await;
    }
    devices[0].refreshed(server.address).await;
}

#[tokio::test]
async fn reused_refresh_token_revokes_only_its_family() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &["--refresh-grace", "0s"]).await;
    let first = Device::register(server.address, EMAIL).await;
    let other = Device::login(server.address, EMAIL).await;
    let newest = first.refreshed(server.address).await;
    newest.expect_alive(server.address).await;
    let replay = refresh(server.address, &first.refresh_token).await;
    assert_eq!((replay.status, replay.code().as_str()), (401, "REFRESH_REUSED"));
    first.expect_dead(server.address, "SESSION_REVOKED").await;
    newest.expect_dead(server.address, "SESSION_REVOKED").await;
    other.expect_alive(server.address).await;
    server.stopped().await;

    let server = Running::start_in(folder.path(), &[]).await;
    newest.expect_dead(server.address, "SESSION_REVOKED").await;
    other.expect_alive(server.address).await;
    server.stopped().await;
}

#[tokio::test]
async fn client_whose_refresh_response_was_lost_stays_signed_in_after_the_grace_and_a_restart() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &["--refresh-grace", "0s"]).await;
    let first = Device::register(server.address, EMAIL).await;
    let lost = first.refreshed(server.address).await;
    server.stopped().await;

    let server = Running::start_in(folder.path(), &["--refresh-grace", "0s"]).await;
    let again = first.refreshed(server.address).await;
    assert_eq!(again.refresh_token, lost.refresh_token);
    // Refused requests also count as uses.
    let missing = "/api/v5/sessions/01900000-0000-7000-8000-000000000000";
    let answer = call(server.address, Call::get(missing).bearer(&again.token)).await;
    assert_eq!(answer.status, 404);
    let replay = refresh(server.address, &first.refresh_token).await;
    assert_eq!((replay.status, replay.code().as_str()), (401, "REFRESH_REUSED"));
    server.stopped().await;
}

#[tokio::test]
async fn older_generation_revokes_its_family_even_within_the_grace() {
    let server = Running::start(&["--refresh-grace", "5m"]).await;
    let first = Device::register(server.address, EMAIL).await;
    let second = first.refreshed(server.address).await;
    let third = second.refreshed(server.address).await;
    let replay = refresh(server.address, &first.refresh_token).await;
    assert_eq!(replay.code(), "REFRESH_REUSED");
    third.expect_dead(server.address, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn foreign_refresh_token_is_refused_and_revokes_nothing() {
    let server = Running::start(&[]).await;
    let device = Device::register(server.address, EMAIL).await;
    let newest = device.refreshed(server.address).await;
    let good = &newest.refresh_token;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&good[4..]).unwrap();
    let flipped = (0..bytes.len()).map(|at| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        format!("crt_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    });
    let shapes = ["", "crt_", "x", "crt_====", "\0", "crt_\u{e9}", &"A".repeat(10_000)]
        .map(str::to_owned)
        .into_iter();
    let near = [
        good[..good.len() - 1].to_owned(),
        good[4..].to_owned(),
        format!("{good}A"),
        format!("{good}="),
        format!(" {good}"),
        good.to_uppercase(),
        newest.token.clone(),
    ];
    for text in flipped.chain(shapes).chain(near) {
        let answer = refresh(server.address, &text).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "REFRESH_INVALID"), "{text}");
        let answer = logout(server.address, None, &json!({"refresh_token": text})).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "REFRESH_INVALID"), "{text}");
    }
    newest.expect_alive(server.address).await;
    newest.refreshed(server.address).await;
}

#[tokio::test]
async fn refresh_token_is_not_accepted_as_an_access_token() {
    let server = Running::start(&[]).await;
    let device = Device::register(server.address, EMAIL).await;
    let answer = me(server.address, &device.refresh_token).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
    let answer = logout(server.address, Some(&device.refresh_token), &json!({})).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
    device.expect_alive(server.address).await;
}

#[tokio::test]
async fn modified_access_token_is_refused() {
    let server = Running::start(&[]).await;
    let device = Device::register(server.address, EMAIL).await;
    let victim = Device::register(server.address, "victim@example.org").await;
    let (token, theirs) = (&device.token, claims(&victim.token));
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let with = |claim: &str, value: &Value| {
        let mut claims = claims(token);
        claims[claim] = value.clone();
        format!("{header}.{}.{signature}", encoded(&claims))
    };
    let none = |alg: &str| format!("{}.{payload}.", encoded(&json!({"alg": alg, "typ": "at+jwt"})));
    for bad in [
        with("sub", &theirs["sub"]),
        with("tenant_id", &theirs["tenant_id"]),
        with("session_id", &theirs["session_id"]),
        with("exp", &json!(4_102_444_800_u32)),
        none("none"),
        none("None"),
        none("nOnE"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{token}.{signature}"),
        token[..token.len() - 2].to_owned(),
        format!("{}.{payload}.{signature}", victim.token.split('.').next().unwrap().to_lowercase()),
        "x".repeat(20_000),
    ] {
        let answer = me(server.address, &bad).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{bad}");
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#));
    }
}

#[tokio::test]
async fn logout_revokes_both_tokens_of_the_device_at_once() {
    let server = Running::start(&[]).await;
    let first = Device::register(server.address, EMAIL).await;
    let other = Device::login(server.address, EMAIL).await;
    let newer = first.refreshed(server.address).await;
    let answer = logout(server.address, Some(&newer.token), &json!({})).await;
    assert_eq!((answer.status, &answer.data()["signed_out"]), (200, &json!(true)));
    first.expect_dead(server.address, "SESSION_REVOKED").await;
    newer.expect_dead(server.address, "SESSION_REVOKED").await;
    other.expect_alive(server.address).await;
    other.refreshed(server.address).await;
    Device::login(server.address, EMAIL).await;
}

#[tokio::test]
async fn logout_accepts_either_token_and_is_repeatable() {
    let server = Running::start(&[]).await;
    for (index, by_refresh) in [true, false].into_iter().enumerate() {
        let device = Device::register(server.address, &format!("{index}@example.org")).await;
        let (token, body) = if by_refresh {
            (None, json!({"refresh_token": device.refresh_token}))
        } else {
            (Some(device.token.as_str()), json!({}))
        };
        for _ in 0..3 {
            assert_eq!(logout(server.address, token, &body).await.status, 200);
            device.expect_dead(server.address, "SESSION_REVOKED").await;
        }
    }
}

#[tokio::test]
async fn logout_needs_a_token_but_no_body() {
    let server = Running::start(&[]).await;
    let device = Device::register(server.address, EMAIL).await;
    let answer = call(server.address, Call::post(LOGOUT)).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    let answer = call(server.address, Call::get(LOGOUT).bearer(&device.token)).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));
    device.expect_alive(server.address).await;
    assert_eq!(call(server.address, Call::post(LOGOUT).bearer(&device.token)).await.status, 200);
    device.expect_dead(server.address, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn logout_everywhere_revokes_all_devices_of_the_user() {
    let server = Running::start(&[]).await;
    let stranger = Device::register(server.address, "stranger@example.org").await;
    Device::register(server.address, EMAIL).await;
    for by_refresh in [true, false] {
        let mut devices = Vec::new();
        for _ in 0..3 {
            devices.push(Device::login(server.address, EMAIL).await);
        }
        let mut body = json!({"everywhere": true});
        if by_refresh {
            body["refreshToken"] = json!(devices[0].refresh_token);
        }
        let token = (!by_refresh).then_some(devices[0].token.as_str());
        assert_eq!(logout(server.address, token, &body).await.status, 200);
        for device in devices {
            device.expect_dead(server.address, "SESSION_REVOKED").await;
        }
    }
    stranger.expect_alive(server.address).await;
    Device::login(server.address, EMAIL).await.expect_alive(server.address).await;
}

#[tokio::test]
async fn revoked_token_cannot_revoke_other_devices() {
    let server = Running::start(&[]).await;
    let stolen = Device::register(server.address, EMAIL).await;
    assert_eq!(logout(server.address, Some(&stolen.token), &json!({})).await.status, 200);
    let owner = Device::login(server.address, EMAIL).await;
    let everywhere = json!({"everywhere": true});
    logout(server.address, Some(&stolen.token), &everywhere).await;
    let everywhere = json!({"everywhere": true, "refresh_token": stolen.refresh_token});
    logout(server.address, None, &everywhere).await;
    owner.expect_alive(server.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refresh_racing_a_logout_leaves_no_valid_token() {
    let server = Running::start(&[]).await;
    Device::register(server.address, EMAIL).await;
    for _ in 0..5 {
        let device = Device::login(server.address, EMAIL).await;
        let refreshing = join_all((0..8).map(|_| refresh(server.address, &device.refresh_token)));
        let nothing = json!({});
        let ending = logout(server.address, Some(&device.token), &nothing);
        let (answers, ended) = tokio::join!(refreshing, ending);
        assert_eq!(ended.status, 200);
        device.expect_dead(server.address, "SESSION_REVOKED").await;
        for answer in answers {
            if answer.status == 200 {
                Device::of(&answer).expect_dead(server.address, "SESSION_REVOKED").await;
            } else {
                assert_eq!(answer.code(), "SESSION_REVOKED");
            }
        }
    }
}

#[tokio::test]
async fn tokens_and_revocations_survive_a_restart() {
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let kept = Device::register(server.address, EMAIL).await;
    let ended = Device::login(server.address, EMAIL).await;
    let rotated = kept.refreshed(server.address).await;
    logout(server.address, Some(&ended.token), &json!({})).await;
    server.stopped().await;

    let server = Running::start_in(folder.path(), &["--refresh-grace", "5m"]).await;
    kept.expect_alive(server.address).await;
    ended.expect_dead(server.address, "SESSION_REVOKED").await;
    assert_eq!(kept.refreshed(server.address).await.refresh_token, rotated.refresh_token);
    rotated.expect_alive(server.address).await;
    assert_eq!(kept.refreshed(server.address).await.refresh_token, rotated.refresh_token);
    rotated.refreshed(server.address).await.expect_alive(server.address).await;
    let taken = call(server.address, credentials(REGISTER, EMAIL, PASSWORD)).await;
    assert_eq!(taken.code(), "EMAIL_TAKEN");
    Device::login(server.address, EMAIL).await;
    server.stopped().await;
}
