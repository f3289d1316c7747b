//! Attacks on refresh tokens and their families.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use super::{
    Row, row,
    test_server::{GRACE_S, Somebody, TestServer},
};
use crate::{
    account::{Device, LOGOUT, PASSWORD, REFRESH},
    client::Call,
};

async fn past_the_grace() {
    sleep(Duration::from_secs(GRACE_S) + Duration::from_millis(200)).await;
}

async fn rotated(env: &TestServer, device: &Device) -> Device {
    Device::of(&env.refresh(&device.refresh_token).await)
}

/// Sends a request with the access token of a device, which confirms its rotation.
async fn used(env: &TestServer, device: &Device) {
    assert_eq!(env.me(&device.token).await.status, 200);
}

/// Asserts that a refresh token is refused with `code`.
async fn refused(env: &TestServer, token: &str, code: &str) {
    let answer = env.refresh(token).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, code));
    assert!(answer.headers.iter().all(|(name, _)| name != "set-cookie"));
}

/// Returns the bytes of a refresh token.
fn bytes(token: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(&token[4..]).unwrap()
}

fn text(bytes: &[u8]) -> String {
    format!("crt_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

async fn signed_in_twice(env: &TestServer) -> (Somebody, Device) {
    let somebody = env.register().await;
    let other = Device::of(&env.login(&somebody.email, PASSWORD).await);
    (somebody, other)
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "a replay past the grace ends the family, and no other",
            "RFC 9700, 4.14.2",
            |env| async move {
                let (victim, other) = signed_in_twice(&env).await;
                let next = rotated(&env, &victim.device).await;
                used(&env, &next).await;
                past_the_grace().await;
                refused(&env, &victim.device.refresh_token, "REFRESH_REUSED").await;
                refused(&env, &next.refresh_token, "SESSION_REVOKED").await;
                env.refuses(&next.token).await;
                assert_eq!(env.me(&other.token).await.status, 200, "another login goes on");
            },
        ),
        row(
            "a lost refresh response and a retry after the grace sign nobody out",
            "RFC 9700, 4.14.2",
            |env| async move {
                let victim = env.register().await;
                let lost = rotated(&env, &victim.device).await;
                past_the_grace().await;
                let again = rotated(&env, &victim.device).await;
                assert_eq!(again.refresh_token, lost.refresh_token);
                used(&env, &again).await;
                past_the_grace().await;
                refused(&env, &victim.device.refresh_token, "REFRESH_REUSED").await;
            },
        ),
        row(
            "a thief of a replaced token and its owner cannot both go on",
            "RFC 9700, 4.14.2",
            |env| async move {
                let victim = env.register().await;
                let owner = rotated(&env, &victim.device).await;
                past_the_grace().await;
                // The owner has not sent a request with it yet.
                let thief = rotated(&env, &victim.device).await;
                assert_eq!(owner.refresh_token, thief.refresh_token);
                used(&env, &rotated(&env, &thief).await).await;
                past_the_grace().await;
                refused(&env, &owner.refresh_token, "REFRESH_REUSED").await;
            },
        ),
        row(
            "a token of two generations ago, within the grace",
            "RFC 9700, 4.14.2",
            |env| async move {
                let victim = env.register().await;
                let second = rotated(&env, &victim.device).await;
                let third = rotated(&env, &second).await;
                refused(&env, &victim.device.refresh_token, "REFRESH_REUSED").await;
                refused(&env, &third.refresh_token, "SESSION_REVOKED").await;
            },
        ),
        row(
            "a replay within the grace gets what the owner has, and nothing more",
            "RFC 9700, 4.14.2",
            |env| async move {
                let victim = env.register().await;
                let owner = rotated(&env, &victim.device).await;
                let thief = rotated(&env, &victim.device).await;
                assert_eq!(owner.refresh_token, thief.refresh_token, "there is one successor");
                // Both continue; after the grace, the second one reveals both.
                used(&env, &rotated(&env, &owner).await).await;
                past_the_grace().await;
                refused(&env, &thief.refresh_token, "REFRESH_REUSED").await;
            },
        ),
        row("the grace does not slide", "RFC 9700, 4.14.2", |env| async move {
            let victim = env.register().await;
            used(&env, &rotated(&env, &victim.device).await).await;
            sleep(Duration::from_millis(GRACE_S * 700)).await;
            rotated(&env, &victim.device).await;
            sleep(Duration::from_millis(GRACE_S * 700)).await;
            refused(&env, &victim.device.refresh_token, "REFRESH_REUSED").await;
        }),
        row("fifty refreshes at once", "RFC 9700, 4.14.2", |env| async move {
            let victim = env.register().await;
            let all = join_all((0..50).map(|_| env.refresh(&victim.device.refresh_token))).await;
            let successors: Vec<_> =
                all.iter().map(|answer| Device::of(answer).refresh_token).collect();
            assert!(successors.iter().all(|successor| *successor == successors[0]));
        }),
        row("a refresh token as access token", "OWASP ASVS 5, 9.2", |env| async move {
            let victim = env.register().await;
            env.refuses(&victim.device.refresh_token).await;
            env.spares(&victim).await;
        }),
        row("an access token as refresh token", "OWASP ASVS 5, 9.2", |env| async move {
            let victim = env.register().await;
            refused(&env, &victim.device.token, "REFRESH_INVALID").await;
            env.spares(&victim).await;
        }),
        row("a made-up older generation logs nobody out", "RFC 9700, 4.14.2", |env| async move {
            let victim = env.register().await;
            let next = rotated(&env, &victim.device).await;
            let mut forged = bytes(&next.refresh_token);
            forged[17..21].copy_from_slice(&0_u32.to_be_bytes());
            refused(&env, &text(&forged), "REFRESH_INVALID").await;
            let mut forged = bytes(&victim.device.refresh_token);
            forged[21] ^= 1;
            refused(&env, &text(&forged), "REFRESH_INVALID").await;
            rotated(&env, &next).await;
        }),
        row("a made-up later generation", "RFC 9700, 4.14.2", |env| async move {
            let victim = env.register().await;
            let mut forged = bytes(&victim.device.refresh_token);
            forged[17..21].copy_from_slice(&9_u32.to_be_bytes());
            refused(&env, &text(&forged), "REFRESH_INVALID").await;
            rotated(&env, &victim.device).await;
        }),
        row(
            "every bit of a refresh token changed, one after the other",
            "RFC 6749, 10.10",
            |env| async move {
                let victim = env.register().await;
                let whole = bytes(&victim.device.refresh_token);
                for at in 0..whole.len() {
                    let mut forged = whole.clone();
                    forged[at] ^= 1 << (at % 8);
                    refused(&env, &text(&forged), "REFRESH_INVALID").await;
                }
                rotated(&env, &victim.device).await;
            },
        ),
        row("another family's id on one's own secret", "RFC 9700, 4.14", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let mut forged = bytes(&thief.device.refresh_token);
            forged[1..17].copy_from_slice(&bytes(&victim.device.refresh_token)[1..17]);
            refused(&env, &text(&forged), "REFRESH_INVALID").await;
            env.spares(&victim).await;
        }),
        row("a refresh token in another spelling", "RFC 6749, 10.10", |env| async move {
            let victim = env.register().await;
            let token = &victim.device.refresh_token;
            for spelt in [
                format!(" {token}"),
                format!("{token}\n"),
                format!("{token}="),
                token.to_uppercase(),
                token[4..].to_owned(),
                format!("Bearer {token}"),
            ] {
                refused(&env, &spelt, "REFRESH_INVALID").await;
            }
            rotated(&env, &victim.device).await;
        }),
        row("a refresh token in the query", "RFC 9700, 4.3.2", |env| async move {
            let victim = env.register().await;
            let path = format!("{REFRESH}?refresh_token={}", victim.device.refresh_token);
            let answer = env.call(Call::post(&path).json("{}")).await;
            assert_eq!(answer.code(), "INVALID_QUERY");
            env.spares(&victim).await;
        }),
        row("a refresh after signing out", "OWASP ASVS 5, 7.4", |env| async move {
            let victim = env.register().await;
            let answer = env.call(Call::post(LOGOUT).bearer(&victim.device.token)).await;
            assert_eq!(answer.status, 200);
            refused(&env, &victim.device.refresh_token, "SESSION_REVOKED").await;
            env.refuses(&victim.device.token).await;
        }),
        row("a refresh that races signing out", "OWASP ASVS 5, 7.4", |env| async move {
            for _ in 0..10 {
                let victim = env.register().await;
                let logout = Call::post(LOGOUT).bearer(&victim.device.token);
                let (refreshed, _) =
                    tokio::join!(env.refresh(&victim.device.refresh_token), env.call(logout));
                if refreshed.status == 200 {
                    let device = Device::of(&refreshed);
                    env.refuses(&device.token).await;
                    refused(&env, &device.refresh_token, "SESSION_REVOKED").await;
                }
            }
        }),
        row("signing somebody out with a forged token", "RFC 7009, 2.1", |env| async move {
            let victim = env.register().await;
            let mut forged = bytes(&victim.device.refresh_token);
            forged[60] ^= 1;
            let body = json!({ "refresh_token": text(&forged), "everywhere": true });
            let answer = env.call(Call::post(LOGOUT).value(&body)).await;
            assert_eq!(answer.status, 401);
            env.spares(&victim).await;
        }),
        row(
            "ending all sessions with a token that was lost long ago",
            "RFC 9700, 4.14",
            |env| async move {
                let (victim, other) = signed_in_twice(&env).await;
                let next = rotated(&env, &victim.device).await;
                rotated(&env, &next).await;
                let body =
                    json!({ "refresh_token": victim.device.refresh_token, "everywhere": true });
                let answer = env.call(Call::post(LOGOUT).value(&body)).await;
                assert_eq!(answer.code(), "REFRESH_REUSED");
                assert_eq!(env.me(&other.token).await.status, 200);
            },
        ),
        row("a server killed in the middle of rotations", "OWASP ASVS 5, 16.5", |env| async move {
            let victim = env.register().await;
            let mut device = victim.device.clone();
            for _ in 0..3 {
                let next = rotated(&env, &device).await;
                env.restart().await;
                // The client did not get the response, and retries.
                let again = rotated(&env, &device).await;
                assert_eq!(again.refresh_token, next.refresh_token);
                device = again;
            }
            assert_eq!(env.me(&device.token).await.status, 200);
        }),
        row("a restart after a reuse", "RFC 9700, 4.14.2", |env| async move {
            let victim = env.register().await;
            let next = rotated(&env, &victim.device).await;
            let last = rotated(&env, &next).await;
            refused(&env, &victim.device.refresh_token, "REFRESH_REUSED").await;
            env.restart().await;
            refused(&env, &last.refresh_token, "SESSION_REVOKED").await;
            env.refuses(&last.token).await;
        }),
    ]
}
