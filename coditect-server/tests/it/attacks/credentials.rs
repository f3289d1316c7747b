//! Attacks on second factors and personal access tokens.

use serde_json::json;
use totp_rs::{Builder, Secret};

use super::{
    Row,
    accounts::{CHANGE, SESSIONS, TOKENS, reset, reset_token},
    row,
    test_server::{Somebody, TestServer},
};
use crate::{
    account::{LOGIN, ME, PASSWORD},
    client::{Answer, Call},
};

const TOTP: &str = "/api/v5/auth/totp";

async fn login_with(env: &TestServer, email: &str, password: &str, code: &str) -> Answer {
    env.call(
        Call::post(LOGIN).value(&json!({ "email": email, "password": password, "code": code })),
    )
    .await
}

/// Returns the code of the authenticator app with `secret`, `steps` from now.
fn code(secret: &str, steps: i64) -> String {
    let totp =
        Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let now = coditect_store::Clock::system().now().timestamp() + 30 * steps;
    totp.generate(now.try_into().unwrap()).to_string()
}

/// Creates a user with a second factor; returns its secret and the recovery codes.
async fn with_factor(env: &TestServer) -> (Somebody, String, Vec<String>) {
    let victim = env.register().await;
    let token = &victim.device.token;
    let setup = Call::post(TOTP).bearer(token).value(&json!({ "password": PASSWORD }));
    let begun = env.call(setup).await.data();
    let secret = begun["secret"].as_str().unwrap().to_owned();
    let confirm = Call::post(&format!("{TOTP}/confirm")).bearer(token);
    let confirmed = env.call(confirm.value(&json!({ "code": code(&secret, -1) }))).await.data();
    let codes = confirmed["recovery_codes"].as_array().unwrap().iter();
    (victim, secret, codes.map(|code| code.as_str().unwrap().to_owned()).collect())
}

/// Creates a personal access token with these scopes.
async fn personal(env: &TestServer, of: &Somebody, scopes: &[&str]) -> (String, String) {
    let new = json!({ "name": "ci", "scopes": scopes });
    let made = env.call(Call::post(TOKENS).bearer(&of.device.token).value(&new)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let made = made.data();
    (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row("a sign-in without the second factor", "OWASP ASVS 5, 6.3.3", |env| async move {
            let (victim, _, _) = with_factor(&env).await;
            assert_eq!(env.login(&victim.email, PASSWORD).await.code(), "SECOND_FACTOR_REQUIRED");
            for wrong in ["", "000000", "null", "0", "000000000000"] {
                let answer = login_with(&env, &victim.email, PASSWORD, wrong).await;
                assert!(matches!(
                    answer.code().as_str(),
                    "SECOND_FACTOR_INVALID" | "TOO_MANY_REQUESTS"
                ));
            }
        }),
        row("a code a second time", "RFC 6238, 5.2", |env| async move {
            let (victim, secret, _) = with_factor(&env).await;
            let now = code(&secret, 0);
            assert_eq!(login_with(&env, &victim.email, PASSWORD, &now).await.status, 200);
            let again = login_with(&env, &victim.email, PASSWORD, &now).await;
            assert_eq!(again.code(), "SECOND_FACTOR_INVALID");
        }),
        row("all codes, one after the other", "OWASP ASVS 5, 6.5; CWE-307", |env| async move {
            let (victim, _, _) = with_factor(&env).await;
            let mut throttled = 0;
            for guess in 0..12 {
                let answer =
                    login_with(&env, &victim.email, PASSWORD, &format!("{guess:06}")).await;
                throttled += u32::from(answer.status == 429);
            }
            assert!(throttled >= 6, "{throttled}");
        }),
        row("a recovery code a second time", "OWASP ASVS 5, 6.5", |env| async move {
            let (victim, _, codes) = with_factor(&env).await;
            assert_eq!(login_with(&env, &victim.email, PASSWORD, &codes[0]).await.status, 200);
            let again = login_with(&env, &victim.email, PASSWORD, &codes[0]).await;
            assert_eq!(again.code(), "SECOND_FACTOR_INVALID");
        }),
        row(
            "a second factor taken away with a stolen token alone",
            "OWASP ASVS 5, 7.5.1",
            |env| async move {
                let (victim, _, _) = with_factor(&env).await;
                for body in
                    [json!({}), json!({ "password": "wrong" }), json!({ "password": PASSWORD })]
                {
                    let answer = env
                        .call(
                            Call::post(&format!("{TOTP}/remove"))
                                .bearer(&victim.device.token)
                                .value(&body),
                        )
                        .await;
                    assert!(matches!(answer.status, 401 | 422), "{}", answer.status);
                }
                let begin = Call::post(TOTP)
                    .bearer(&victim.device.token)
                    .value(&json!({ "password": PASSWORD }));
                assert_eq!(env.call(begin).await.status, 409);
                assert_eq!(
                    env.login(&victim.email, PASSWORD).await.code(),
                    "SECOND_FACTOR_REQUIRED"
                );
            },
        ),
        row(
            "a second factor set up with a stolen token alone",
            "OWASP ASVS 5, 7.5.1",
            |env| async move {
                let victim = env.register().await;
                for body in [json!({}), json!({ "password": "" }), json!({ "password": "wrong" })] {
                    let answer =
                        env.call(Call::post(TOTP).bearer(&victim.device.token).value(&body)).await;
                    assert!(matches!(answer.status, 401 | 422), "{}", answer.status);
                }
                let confirm = Call::post(&format!("{TOTP}/confirm")).bearer(&victim.device.token);
                let confirm = env.call(confirm.value(&json!({ "code": "000000" }))).await;
                assert_eq!(confirm.code(), "SECOND_FACTOR_STATE");
                assert_eq!(env.login(&victim.email, PASSWORD).await.status, 200);
            },
        ),
        row(
            "the first code of a second factor guessed",
            "NIST SP 800-63B-4, 3.2.2",
            |env| async move {
                let victim = env.register().await;
                let begin = Call::post(TOTP)
                    .bearer(&victim.device.token)
                    .value(&json!({ "password": PASSWORD }));
                assert_eq!(env.call(begin).await.status, 200);
                let mut throttled = 0;
                for guess in 0..12 {
                    let confirm =
                        Call::post(&format!("{TOTP}/confirm")).bearer(&victim.device.token);
                    let answer =
                        env.call(confirm.value(&json!({ "code": format!("{guess:06}") }))).await;
                    throttled += u32::from(answer.status == 429);
                }
                assert!(throttled >= 6, "{throttled}");
            },
        ),
        row(
            "a second factor passed by a password reset",
            "OWASP ASVS 5, 6.4.3",
            |env| async move {
                let (victim, _, _) = with_factor(&env).await;
                let token =
                    reset_token(&env.operator(&["user", "reset-password", &victim.email]).await);
                assert_eq!(reset(&env, &token, "another password").await.status, 200);
                let answer = env.login(&victim.email, "another password").await;
                assert_eq!(answer.code(), "SECOND_FACTOR_REQUIRED");
            },
        ),
        row("a program's token for more than its scopes", "RFC 6750, 3.1", |env| async move {
            let victim = env.register().await;
            let (read, _) = personal(&env, &victim, &["read"]).await;
            assert_eq!(env.call(Call::get(SESSIONS).bearer(&read)).await.status, 200);
            let write = Call::post(SESSIONS).bearer(&read).value(&json!({ "name": "x" }));
            assert_eq!(env.call(write).await.code(), "FORBIDDEN");
            let (other, _) = personal(&env, &victim, &["ci:deploy"]).await;
            assert_eq!(env.call(Call::get(ME).bearer(&other)).await.code(), "FORBIDDEN");
        }),
        row(
            "a program's token that makes itself others, or takes the account",
            "RFC 9700, 2.3; CWE-269",
            |env| async move {
                let victim = env.register().await;
                let (token, _) = personal(&env, &victim, &["write"]).await;
                for call in [
                    Call::post(TOKENS).value(&json!({ "name": "more", "scopes": ["write"] })),
                    Call::get(TOKENS),
                    Call::get("/api/v5/auth/sessions"),
                    Call::delete("/api/v5/auth/sessions"),
                    Call::put(CHANGE).value(&json!({
                        "current_password": PASSWORD,
                        "new_password": "another password",
                    })),
                    Call::post(TOTP),
                    Call::post("/api/v5/auth/tickets"),
                    Call::post("/api/v5/tenant/invitations").value(&json!({
                        "email": "a@example.org",
                        "role": "owner",
                    })),
                ] {
                    let answer = env.call(call.bearer(&token)).await;
                    assert_eq!(answer.code(), "FORBIDDEN");
                }
            },
        ),
        row(
            "a program's token that was revoked, or is another's",
            "RFC 7009, 2",
            |env| async move {
                let (victim, thief) = (env.register().await, env.register().await);
                let (token, id) = personal(&env, &victim, &["read"]).await;
                let revoke = |by: &Somebody| {
                    Call::delete(&format!("{TOKENS}/{id}")).bearer(&by.device.token)
                };
                assert_eq!(env.call(revoke(&thief)).await.status, 404);
                assert_eq!(env.me(&token).await.status, 200);
                assert_eq!(env.call(revoke(&victim)).await.status, 204);
                env.refuses(&token).await;
                env.refuses(&format!("cpt_{}", "A".repeat(43))).await;
            },
        ),
        row("scopes that nobody may have", "RFC 6749, 3.3", |env| async move {
            let victim = env.register().await;
            for scopes in
                [json!([]), json!(["admin"]), json!(["read write"]), json!("write"), json!([7])]
            {
                let new = Call::post(TOKENS)
                    .bearer(&victim.device.token)
                    .value(&json!({ "name": "x", "scopes": scopes }));
                assert_eq!(env.call(new).await.status, 422, "{scopes}");
            }
        }),
    ]
}
