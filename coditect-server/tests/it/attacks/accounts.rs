//! Attacks on accounts: passwords, resets, guesses, enumeration.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Row, row, test_server::TestServer};
use crate::{
    account::{Device, LOGIN, PASSWORD, REGISTER, credentials},
    client::{Answer, Call},
};

pub(super) const CHANGE: &str = "/api/v5/auth/password";
const RESET: &str = "/api/v5/auth/password-reset";
const CONFIRM: &str = "/api/v5/auth/password-reset/confirm";
pub(super) const TOKENS: &str = "/api/v5/auth/tokens";
pub(super) const SESSIONS: &str = "/api/v5/sessions";

/// Returns the parts of a response that do not differ between requests.
fn comparable(answer: &Answer) -> (u16, Value, Vec<(String, String)>) {
    let mut body = answer.json();
    body["error"]["request_id"] = Value::Null;
    let headers =
        answer.headers.iter().filter(|(name, _)| name != "x-request-id" && name != "date");
    (answer.status, body, headers.cloned().collect())
}

pub(super) async fn register(env: &TestServer, email: &str, password: &str) -> Answer {
    env.call(credentials(REGISTER, email, password)).await
}

pub(super) fn reset_token(said: &str) -> String {
    said.split_whitespace().find(|word| word.starts_with("cpr_")).unwrap().to_owned()
}

pub(super) async fn reset(env: &TestServer, token: &str, password: &str) -> Answer {
    env.call(Call::post(CONFIRM).value(&json!({ "token": token, "new_password": password }))).await
}

/// Returns the median time of several logins.
async fn median_time(env: &TestServer, emails: &[String], password: &str) -> Duration {
    let mut times = Vec::new();
    for email in emails {
        let started = Instant::now();
        assert_eq!(env.login(email, password).await.status, 401);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "who has an account, by the answer to a sign-in",
            "OWASP ASVS 5, 6.3.8",
            |env| async move {
                let victim = env.register().await;
                let disabled = env.register().await;
                env.operator(&["user", "disable", &disabled.email]).await;
                let wrong = env.login(&victim.email, "wrong password").await;
                let unknown = env.login("nobody@example.org", PASSWORD).await;
                let disabled = env.login(&disabled.email, PASSWORD).await;
                assert_eq!(wrong.code(), "INVALID_CREDENTIALS");
                assert_eq!(comparable(&wrong), comparable(&unknown));
                assert_eq!(comparable(&wrong), comparable(&disabled));
            },
        ),
        row(
            "who has an account, by the time of a sign-in",
            "OWASP ASVS 5, 6.3.8",
            |env| async move {
                let mut known = Vec::new();
                for _ in 0..9 {
                    known.push(env.register().await.email);
                }
                let unknown: Vec<_> = known.iter().map(|email| format!("un{email}")).collect();
                let known = median_time(&env, &known, "wrong password").await;
                let unknown = median_time(&env, &unknown, "wrong password").await;
                let ratio = known.as_secs_f64() / unknown.as_secs_f64();
                assert!((0.4..2.5).contains(&ratio), "{known:?} and {unknown:?}");
            },
        ),
        row("who has an account, by a reset", "OWASP ASVS 5, 6.3.8", |env| async move {
            let victim = env.register().await;
            let mut answers = Vec::new();
            for email in [&victim.email, "nobody@example.org", "no address"] {
                answers.push(comparable(
                    &env.call(Call::post(RESET).value(&json!({ "email": email }))).await,
                ));
            }
            assert_eq!(answers[0].0, 202);
            assert!(answers.iter().all(|answer| *answer == answers[0]));
        }),
        row("a hundred registrations of one address", "CWE-362", |env| async move {
            let email = format!("crowd{}@example.org", env.number());
            let answers = join_all((0..100).map(|_| register(&env, &email, PASSWORD))).await;
            let of = |status| answers.iter().filter(|answer| answer.status == status).count();
            assert_eq!((of(201), of(201) + of(409) + of(503)), (1, 100));
        }),
        row("an address that is taken, in another spelling", "UTS 46; CWE-178", |env| async move {
            let name = format!("caf\u{e9}{}", env.number());
            assert_eq!(register(&env, &format!("{name}@example.org"), PASSWORD).await.status, 201);
            for spelt in [
                format!("{}@example.org", name.to_uppercase()),
                format!("{name}@EXAMPLE.org"),
                format!(" {name}@example.org "),
                format!("{}@example.org", name.replace('\u{e9}', "e\u{301}")),
                format!("{name}@ex\u{ff41}mple.org"),
            ] {
                assert_eq!(register(&env, &spelt, PASSWORD).await.code(), "EMAIL_TAKEN", "{spelt}");
            }
        }),
        row(
            "an address that looks like another is another",
            "UTS 39; CVE-2019-19844",
            |env| async move {
                let victim = env.register().await;
                // A Cyrillic letter, and the Kelvin sign, whose lower case is a plain k.
                let look_alike = victim.email.replacen('o', "\u{43e}", 1);
                let answer = env.login(&look_alike, PASSWORD).await;
                assert_eq!(answer.status, 401);
                let asked =
                    env.call(Call::post(RESET).value(&json!({ "email": look_alike }))).await;
                assert_eq!(asked.status, 202);
            },
        ),
        row("line breaks in an address", "CWE-93", |env| async move {
            for email in [
                "a@example.org\r\nBcc: b@example.org",
                "a\n@example.org",
                "a@example.org\0",
                "a@exam\tple.org",
            ] {
                assert_eq!(
                    register(&env, email, PASSWORD).await.code(),
                    "INVALID_EMAIL",
                    "{email:?}"
                );
            }
        }),
        row(
            "passwords that differ in their last character",
            "CVE-2025-22228; OWASP ASVS 5, 6.2",
            |env| async move {
                for length in [72, 255] {
                    let email = format!("long{}@example.org", env.number());
                    let password = |last: &str| format!("{}{last}", "x".repeat(length));
                    assert_eq!(register(&env, &email, &password("a")).await.status, 201);
                    assert_eq!(env.login(&email, &password("b")).await.status, 401);
                    assert_eq!(env.login(&email, &password("a")).await.status, 200);
                }
            },
        ),
        row("passwords that differ behind a zero byte", "CWE-158", |env| async move {
            let email = format!("zero{}@example.org", env.number());
            assert_eq!(register(&env, &email, "horse\0battery").await.status, 201);
            assert_eq!(env.login(&email, "horse\0staple!").await.status, 401);
            assert_eq!(env.login(&email, "horse").await.status, 401);
        }),
        row("a password of a megabyte", "CVE-2014-9034; CWE-400", |env| async move {
            let started = Instant::now();
            for (length, login, registration) in [
                (15_000, "INVALID_CREDENTIALS", "WEAK_PASSWORD"),
                (900_000, "PAYLOAD_TOO_LARGE", "PAYLOAD_TOO_LARGE"),
            ] {
                let password = "x".repeat(length);
                assert_eq!(env.login("nobody@example.org", &password).await.code(), login);
                assert_eq!(
                    register(&env, "huge@example.org", &password).await.code(),
                    registration
                );
            }
            assert!(started.elapsed() < Duration::from_secs(10), "it is not hashed");
        }),
        row(
            "the commonest passwords, and one's own address",
            "OWASP ASVS 5, 6.2.4",
            |env| async move {
                let email = format!("weak{}@example.org", env.number());
                for password in ["password", "12345678", "qwertyuiop", "P@ssw0rd", "short", &email]
                {
                    assert_eq!(
                        register(&env, &email, password).await.code(),
                        "WEAK_PASSWORD",
                        "{password}"
                    );
                }
            },
        ),
        row("who one is, said in a body", "OWASP API3:2023, mass assignment", |env| async move {
            let victim = env.register().await;
            let theirs = env.me(&victim.device.token).await.data();
            let email = format!("mass{}@example.org", env.number());
            for (name, value) in [
                ("role", json!("owner")),
                ("is_admin", json!(true)),
                ("status", json!("Enabled")),
                ("tenant_id", theirs["tenant"]["id"].clone()),
                ("tenantId", theirs["tenant"]["id"].clone()),
                ("user_id", theirs["user"]["id"].clone()),
                ("id", theirs["user"]["id"].clone()),
                ("email_verified", json!(true)),
                ("active_tenant", theirs["tenant"]["id"].clone()),
            ] {
                let body = json!({ "email": email, "password": PASSWORD, name: value });
                assert_eq!(
                    env.call(Call::post(REGISTER).value(&body)).await.code(),
                    "UNKNOWN_FIELD",
                    "{name}"
                );
            }
            assert_eq!(env.login(&email, PASSWORD).await.status, 401, "nothing was made");
        }),
        row(
            "another tenant, chosen at the sign-in or at a refresh",
            "OWASP ASVS 5, 8.4",
            |env| async move {
                let (victim, thief) = (env.register().await, env.register().await);
                let tenant = env.me(&victim.device.token).await.data()["tenant"]["id"].clone();
                let login =
                    json!({ "email": thief.email, "password": PASSWORD, "active_tenant": tenant });
                assert_eq!(env.call(Call::post(LOGIN).value(&login)).await.code(), "NOT_A_MEMBER");
                let refresh =
                    json!({ "refresh_token": thief.device.refresh_token, "active_tenant": tenant });
                let answer = env.call(Call::post(crate::account::REFRESH).value(&refresh)).await;
                assert_eq!(answer.code(), "NOT_A_MEMBER");
                let unknown = json!({
                    "email": thief.email,
                    "password": PASSWORD,
                    "active_tenant": uuid::Uuid::now_v7(),
                });
                assert_eq!(
                    env.call(Call::post(LOGIN).value(&unknown)).await.code(),
                    "NOT_A_MEMBER"
                );
            },
        ),
        row("another password without the present one", "OWASP ASVS 5, 6.2.3", |env| async move {
            let victim = env.register().await;
            for body in [
                json!({ "new_password": "another password" }),
                json!({ "current_password": "wrong", "new_password": "another password" }),
                json!({ "current_password": "", "new_password": "another password" }),
            ] {
                let answer =
                    env.call(Call::put(CHANGE).bearer(&victim.device.token).value(&body)).await;
                assert!(matches!(answer.status, 401 | 422), "{}", answer.status);
            }
            assert_eq!(env.login(&victim.email, PASSWORD).await.status, 200);
        }),
        row(
            "a session that was open when the password was changed",
            "OWASP ASVS 5, 7.4.3",
            |env| async move {
                let victim = env.register().await;
                let thief = Device::of(&env.login(&victim.email, PASSWORD).await);
                let body =
                    json!({ "current_password": PASSWORD, "new_password": "another password" });
                let change = Call::put(CHANGE).bearer(&victim.device.token).value(&body);
                assert_eq!(env.call(change).await.status, 200);
                env.refuses(&thief.token).await;
                assert_eq!(env.refresh(&thief.refresh_token).await.code(), "SESSION_REVOKED");
                env.spares(&victim).await;
            },
        ),
        row("a reset token a second time", "CWE-640; OWASP ASVS 5, 6.4", |env| async move {
            let victim = env.register().await;
            let token =
                reset_token(&env.operator(&["user", "reset-password", &victim.email]).await);
            assert_eq!(reset(&env, &token, "another password").await.status, 200);
            assert_eq!(reset(&env, &token, "a third password").await.code(), "RESET_INVALID");
            env.refuses(&victim.device.token).await;
            assert_eq!(env.login(&victim.email, "another password").await.status, 200);
        }),
        row("a reset token of two at once", "CWE-362", |env| async move {
            let victim = env.register().await;
            let token =
                reset_token(&env.operator(&["user", "reset-password", &victim.email]).await);
            let (one, other) = tokio::join!(
                reset(&env, &token, "the first password"),
                reset(&env, &token, "the second password")
            );
            let mut statuses = [one.status, other.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 400]);
        }),
        row("a reset token for another user, and made-up ones", "CWE-640", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let token = reset_token(&env.operator(&["user", "reset-password", &thief.email]).await);
            let body = json!({
                "token": token,
                "new_password": "another password",
                "email": victim.email,
                "user_id": "x",
            });
            assert_eq!(env.call(Call::post(CONFIRM).value(&body)).await.code(), "UNKNOWN_FIELD");
            assert_eq!(reset(&env, &token, "another password").await.status, 200);
            env.spares(&victim).await;
            assert_eq!(env.login(&victim.email, PASSWORD).await.status, 200);
            for made_up in
                ["", "cpr_", &format!("cpr_{}", "A".repeat(43)), &victim.device.refresh_token]
            {
                assert_eq!(reset(&env, made_up, "another password").await.code(), "RESET_INVALID");
            }
        }),
        row(
            "guesses at one account from many addresses",
            "OWASP ASVS 5, 6.3.1",
            |env| async move {
                let victim = env.register().await;
                let mut refused = 0;
                for _ in 0..10 {
                    let answer = env.login(&victim.email, "wrong password").await;
                    if answer.status == 429 {
                        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                        assert!((1..=60).contains(&seconds));
                        refused += 1;
                    }
                }
                assert_eq!(refused, 5);
            },
        ),
        row("guesses that keep the owner out", "OWASP ASVS 5, 6.3.1", |env| async move {
            let victim = env.register().await;
            let home = credentials(LOGIN, &victim.email, PASSWORD);
            assert_eq!(env.call_from("192.0.2.200", home.clone()).await.status, 200);
            for _ in 0..10 {
                env.login(&victim.email, "wrong password").await;
            }
            assert_eq!(env.login(&victim.email, PASSWORD).await.status, 429);
            assert_eq!(env.call_from("192.0.2.200", home).await.status, 200);
        }),
        row(
            "guesses at many accounts from one address",
            "OWASP ASVS 5, 6.3.1; credential stuffing",
            |env| async move {
                let mut statuses = Vec::new();
                for n in 0..8 {
                    let guess =
                        credentials(LOGIN, &format!("target{n}@example.org"), "wrong password");
                    statuses.push(env.call_from("192.0.2.201", guess).await.status);
                }
                assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
            },
        ),
        row("guesses from one network of version 6", "RFC 6177", |env| async move {
            let mut statuses = Vec::new();
            for n in 0..7 {
                let guess =
                    credentials(LOGIN, &format!("target6{n}@example.org"), "wrong password");
                statuses.push(env.call_from(&format!("2001:db8:7:7::{n}"), guess).await.status);
            }
            assert_eq!(statuses[5..], [429, 429]);
        }),
        row(
            "registrations without end, and who has an account by them",
            "OWASP ASVS 5, 6.3.8; CWE-307",
            |env| async move {
                let victim = env.register().await;
                let number = env.number();
                let ip = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
                let mut told = 0;
                for _ in 0..60 {
                    let answer =
                        env.call_from(&ip, credentials(REGISTER, &victim.email, PASSWORD)).await;
                    told += u32::from(answer.status == 409);
                }
                assert_eq!(told, 50);
                let refused =
                    env.call_from(&ip, credentials(REGISTER, "new@example.org", PASSWORD)).await;
                assert_eq!(refused.status, 429);
                assert!(refused.header("retry-after").is_some());
            },
        ),
        row(
            "a right to the IDE that an account does not have",
            "OWASP ASVS 5, 8.2.1",
            |env| async move {
                let stranger = env.register().await;
                let asked = |right: &str| {
                    Call::get(&format!("/api/v5/auth/verify{right}")).bearer(&stranger.device.token)
                };
                assert_eq!(env.call(asked("")).await.status, 204);
                assert_eq!(env.call(asked("?right=ide")).await.code(), "FORBIDDEN");
                assert_eq!(env.call(asked("?right=")).await.status, 400);
                assert_eq!(env.call(asked("?right=ide&right=x")).await.status, 400);
                let invite = json!({ "email": "a@example.org", "role": "owner", "ide": true });
                let invite = Call::post("/api/v5/tenant/invitations")
                    .bearer(&stranger.device.token)
                    .value(&invite);
                assert_eq!(env.call(invite).await.code(), "FORBIDDEN");
            },
        ),
        row(
            "names that reorder or hide text, or act on a terminal",
            "CWE-1007; CWE-150; Unicode TR 36, 2.11",
            |env| async move {
                let victim = env.register().await;
                let device = env
                    .call(Call::get("/api/v5/auth/sessions").bearer(&victim.device.token))
                    .await
                    .data();
                let device = format!("/api/v5/auth/sessions/{}", device[0]["id"].as_str().unwrap());
                let session = env
                    .call(
                        Call::post(SESSIONS)
                            .bearer(&victim.device.token)
                            .value(&json!({ "name": "n" })),
                    )
                    .await
                    .data();
                let session = format!("{SESSIONS}/{}", session["id"].as_str().unwrap());
                for hidden in [
                    "a\u{202e}b",
                    "a\u{2066}b",
                    "a\u{200f}b",
                    "a\u{1b}[2Jb",
                    "a\u{85}b",
                    "a\u{2028}b",
                    "a\u{200b}b",
                    "a\u{e0041}b",
                    "a\nb",
                ] {
                    let email = format!("somebody{}@example.org", env.number());
                    for call in [
                        Call::post(REGISTER).value(
                            &json!({ "email": email, "password": PASSWORD, "first_name": hidden }),
                        ),
                        Call::post(REGISTER).value(
                            &json!({ "email": email, "password": PASSWORD, "last_name": hidden }),
                        ),
                        Call::post(TOKENS).value(&json!({ "name": hidden, "scopes": ["read"] })),
                        Call::patch(&device).value(&json!({ "name": hidden })),
                        Call::post(SESSIONS).value(&json!({ "name": hidden })),
                        Call::patch(&session).value(&json!({ "name": hidden })),
                        Call::patch("/api/v5/tenant").value(&json!({ "name": hidden })),
                        Call::post("/api/v5/agents").value(&json!({ "name": hidden })),
                        Call::post("/api/v5/conversations").value(&json!({ "title": hidden })),
                    ] {
                        let shown = format!("{call:?}");
                        let answer = env.call(call.bearer(&victim.device.token)).await;
                        assert_eq!(answer.status, 422, "{shown}: {}", answer.json());
                    }
                }
                let named = env
                    .call(
                        Call::patch(&session)
                            .bearer(&victim.device.token)
                            .value(&json!({ "name": "می\u{200c}خواهم 👩\u{200d}💻" })),
                    )
                    .await;
                assert_eq!(named.status, 200);
            },
        ),
        row(
            "an operator's reset token ended by a stranger's request",
            "CWE-640",
            |env| async move {
                let victim = env.register().await;
                let token =
                    reset_token(&env.operator(&["user", "reset-password", &victim.email]).await);
                for _ in 0..6 {
                    let asked =
                        env.call(Call::post(RESET).value(&json!({ "email": victim.email }))).await;
                    assert_eq!(asked.status, 202);
                }
                let another =
                    reset_token(&env.operator(&["user", "reset-password", &victim.email]).await);
                assert_eq!(reset(&env, &token, "another password").await.status, 200);
                assert_eq!(reset(&env, &another, "a third password").await.code(), "RESET_INVALID");
            },
        ),
    ]
}
