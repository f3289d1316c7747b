//! Attacks on HTTP: requests that two parsers may interpret differently.

use serde_json::{Value, json};

use super::{Row, row, test_server::TestServer};
use crate::{
    account::{Device, LOGIN, LOGOUT, ME, PASSWORD, REFRESH, REGISTER, credentials},
    client::{Answer, Call, Client},
};

const SESSIONS: &str = "/api/v5/sessions";

/// A user with tokens in cookies: the cookie header and the CSRF token.
pub(super) struct Browser {
    pub(super) cookies: String,
    csrf: String,
}

impl Browser {
    pub(super) async fn new(env: &TestServer) -> Self {
        let email = format!("browser{}@example.org", env.number());
        let body = json!({ "email": email, "password": PASSWORD, "cookies": true });
        let answer = env.call(Call::post(REGISTER).value(&body)).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        Self::of(&answer)
    }

    fn of(answer: &Answer) -> Self {
        let data = answer.data();
        assert!(data.get("token").is_none() && data.get("refresh_token").is_none(), "{data}");
        let set: Vec<&str> = set_cookies(answer);
        assert_eq!(set.len(), 2);
        for cookie in &set {
            assert!(cookie.starts_with("__Host-"), "{cookie}");
            for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
        }
        let pairs: Vec<&str> = set.iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
        let csrf = data["csrf_token"].as_str().unwrap().to_owned();
        Self { cookies: pairs.join("; "), csrf }
    }

    fn call(&self, call: Call) -> Call {
        call.header("Cookie", &self.cookies)
    }
}

fn set_cookies(answer: &Answer) -> Vec<&str> {
    let headers = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    headers.map(|(_, value)| value.as_str()).collect()
}

/// Returns the response to raw bytes.
pub(super) async fn said(env: &TestServer, bytes: &[u8]) -> Answer {
    let mut client = Client::connect(env.address()).await;
    client.send(bytes).await;
    client.answer().await
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "a forwarding header of the client's own",
            "RFC 7239, 8.1; CWE-348",
            |env| async move {
                let mut statuses = Vec::new();
                for n in 0..7 {
                    // The proxy appends the address it sees to the client's text.
                    let guess =
                        credentials(LOGIN, &format!("spoof{n}@example.org"), "wrong password");
                    let from = format!("203.0.113.{n}, 198.51.100.99");
                    let guess = guess.header("Forwarded", &format!("for=203.0.113.{n}"));
                    let guess = guess.header("X-Real-IP", &format!("203.0.113.{n}"));
                    statuses.push(env.call_from(&from, guess).await.status);
                }
                assert_eq!(statuses[5..], [429, 429]);
            },
        ),
        row("identity headers of the client's own", "CWE-290", |env| async move {
            let (victim, thief) = (env.register().await, env.register().await);
            let theirs = env.me(&victim.device.token).await.data();
            let spoof = |call: Call| {
                let (user, tenant) = (
                    theirs["user"]["id"].as_str().unwrap(),
                    theirs["tenant"]["id"].as_str().unwrap(),
                );
                call.header("X-Auth-User", user)
                    .header("X-Auth-Tenant", tenant)
                    .header("X-Tenant-Id", tenant)
            };
            assert_eq!(env.call(spoof(Call::get(ME))).await.status, 401);
            let mine = env.call(spoof(Call::get(ME)).bearer(&thief.device.token)).await.data();
            assert_eq!(mine["user"]["email"], thief.email.as_str());
            let verified =
                env.call(spoof(Call::get("/api/v5/auth/verify")).bearer(&thief.device.token)).await;
            assert_eq!(verified.status, 204);
            assert_eq!(verified.header("x-auth-user"), mine["user"]["id"].as_str());
        }),
        row("two Authorization headers", "RFC 6750, 2; RFC 9110, 5.3", |env| async move {
            let (one, other) = (env.register().await, env.register().await);
            let both = Call::get(ME).bearer(&one.device.token).bearer(&other.device.token);
            assert_eq!(env.call(both).await.status, 400);
        }),
        row("a token in the query", "RFC 9700, 4.3.2", |env| async move {
            let victim = env.register().await;
            for name in ["token", "access_token"] {
                let path = format!("{ME}?{name}={}", victim.device.token);
                assert_eq!(env.call(Call::get(&path)).await.status, 401);
            }
        }),
        row("a token in the body", "RFC 6750, 2.2", |env| async move {
            let victim = env.register().await;
            let body = json!({ "name": "x", "access_token": victim.device.token });
            assert_eq!(env.call(Call::post(SESSIONS).value(&body)).await.status, 401);
        }),
        row("a cookie and a bearer token", "CWE-436", |env| async move {
            let (browser, other) = (Browser::new(&env).await, env.register().await);
            let both = browser.call(Call::get(ME)).bearer(&other.device.token);
            assert_eq!(env.call(both).await.status, 400);
        }),
        row("a cookie that is there twice", "CWE-436", |env| async move {
            let (one, other) = (Browser::new(&env).await, Browser::new(&env).await);
            let both =
                Call::get(ME).header("Cookie", &one.cookies).header("Cookie", &other.cookies);
            assert_eq!(env.call(both).await.status, 400);
        }),
        row(
            "another page's request with the cookies",
            "OWASP ASVS 5, 3.5.1; CSRF",
            |env| async move {
                let (victim, thief) = (Browser::new(&env).await, Browser::new(&env).await);
                assert_eq!(env.call(victim.call(Call::get(ME))).await.status, 200);
                let create = || victim.call(Call::post(SESSIONS).value(&json!({ "name": "x" })));
                for forged in [
                    create(),
                    create().header("X-CSRF-Token", ""),
                    create().header("X-CSRF-Token", &thief.csrf),
                    create()
                        .header("X-CSRF-Token", &victim.csrf)
                        .header("Sec-Fetch-Site", "cross-site"),
                    create()
                        .header("X-CSRF-Token", &victim.csrf)
                        .header("Sec-Fetch-Site", "same-site"),
                ] {
                    assert_eq!(env.call(forged).await.code(), "CSRF_REFUSED");
                }
                let own = create()
                    .header("X-CSRF-Token", &victim.csrf)
                    .header("Sec-Fetch-Site", "same-origin");
                assert_eq!(env.call(own).await.status, 201);
            },
        ),
        row(
            "a refresh or a sign-out by another page",
            "OWASP ASVS 5, 3.5.1; CSRF",
            |env| async move {
                let victim = Browser::new(&env).await;
                for path in [REFRESH, LOGOUT] {
                    let forged = env.call(victim.call(Call::post(path))).await;
                    assert_eq!(forged.code(), "CSRF_REFUSED");
                    assert!(set_cookies(&forged).is_empty(), "a failure clears no cookie");
                }
                let refreshed = env
                    .call(victim.call(Call::post(REFRESH)).header("X-CSRF-Token", &victim.csrf))
                    .await;
                let victim = Browser::of(&refreshed);
                let out = env
                    .call(victim.call(Call::post(LOGOUT)).header("X-CSRF-Token", &victim.csrf))
                    .await;
                assert_eq!(out.status, 200);
                assert!(set_cookies(&out).iter().all(|cookie| cookie.contains("Max-Age=0")));
                assert_eq!(env.call(victim.call(Call::get(ME))).await.code(), "SESSION_REVOKED");
            },
        ),
        row(
            "a program's token, or a refresh token, as cookie",
            "OWASP ASVS 5, 9.2",
            |env| async move {
                let victim = Browser::new(&env).await;
                let refresh = victim
                    .cookies
                    .split("; ")
                    .find_map(|pair| pair.strip_prefix("__Host-coditect-refresh="))
                    .unwrap();
                for token in [refresh, "cpt_x", "x"] {
                    let cookie = format!("__Host-coditect-access={token}");
                    assert_eq!(env.call(Call::get(ME).header("Cookie", &cookie)).await.status, 401);
                }
            },
        ),
        row("cross-origin reads", "Fetch, CORS; CWE-942", |env| async move {
            let victim = Browser::new(&env).await;
            let read =
                env.call(victim.call(Call::get(ME)).header("Origin", "https://evil.example")).await;
            assert!(read.headers.iter().all(|(name, _)| !name.starts_with("access-control-")));
        }),
        row("a sign-out by GET", "RFC 9110, 9.2.1", |env| async move {
            let victim = env.register().await;
            assert_eq!(env.call(Call::get(LOGOUT).bearer(&victim.device.token)).await.status, 405);
            env.spares(&victim).await;
        }),
        row("another method than the one that is sent", "CWE-650", |env| async move {
            let victim = env.register().await;
            for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"] {
                let call = Call::get("/api/v5/auth/sessions")
                    .header(name, "DELETE")
                    .bearer(&victim.device.token);
                assert_eq!(env.call(call).await.status, 200);
            }
            env.spares(&victim).await;
        }),
        row("a length and chunks", "RFC 9112, 6.3; CWE-444", |env| async move {
            let request = format!(
                "POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: \
                 application/json\r\nContent-Length: 4\r\nTransfer-Encoding: \
                 chunked\r\n\r\n0\r\n\r\nGET {ME} HTTP/1.1\r\nHost: x\r\n\r\n"
            );
            let answer = said(&env, request.as_bytes()).await;
            assert!(answer.status >= 400, "{}", answer.status);
        }),
        row("two lengths", "RFC 9112, 6.3; CWE-444", |env| async move {
            let request = format!(
                "POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: \
                 application/json\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{{}}"
            );
            assert_eq!(said(&env, request.as_bytes()).await.status, 400);
        }),
        row("two hosts, and none", "RFC 9112, 3.2", |env| async move {
            for head in ["Host: a\r\nHost: b\r\n", ""] {
                let request = format!("GET {ME} HTTP/1.1\r\n{head}\r\n");
                assert_eq!(said(&env, request.as_bytes()).await.status, 400);
            }
        }),
        row("a field that is there twice", "RFC 8259, 4; CWE-436", |env| async move {
            let victim = env.register().await;
            let body = format!(
                r#"{{"email":"nobody@example.org","password":"{PASSWORD}","email":"{}"}}"#,
                victim.email
            );
            assert_eq!(env.call(Call::post(LOGIN).json(body)).await.code(), "DUPLICATE_FIELD");
        }),
        row("a body that is nested without end", "CWE-674; CVE-2020-36518", |env| async move {
            let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let body = format!(r#"{{"email":"a@example.org","password":{}}}"#, nested(8_000));
            assert_eq!(env.call(Call::post(LOGIN).json(body)).await.code(), "INVALID_JSON");
            let token = env.register().await.device.token;
            let body = format!(r#"{{"name":"x","settings":{}}}"#, nested(200_000));
            let create = Call::post("/api/v5/sessions").bearer(&token).json(body);
            assert_eq!(env.call(create).await.code(), "INVALID_JSON");
        }),
        row("bytes that are no text", "RFC 8259, 8.1", |env| async move {
            let answer = env
                .call(
                    Call::post(LOGIN)
                        .json(b"{\"email\":\"a\xff@example.org\",\"password\":\"x\"}".to_vec()),
                )
                .await;
            assert_eq!(answer.code(), "INVALID_JSON");
        }),
        row("a body that is too large", "CWE-770; RFC 9110, 15.5.14", |env| async move {
            let body =
                format!(r#"{{"email":"a@example.org","password":"{}"}}"#, "x".repeat(2 << 20));
            let mut client = Client::connect(env.address()).await;
            let answer = client.try_call(Call::post(LOGIN).json(body)).await;
            assert!(answer.is_none_or(|answer| answer.status == 413));
        }),
        row(
            "a form, as a page of another origin can send it",
            "OWASP ASVS 5, 3.5.2; CSRF",
            |env| async move {
                let body = format!(r#"{{"email":"a@example.org","password":"{PASSWORD}"}}"#);
                for kind in [
                    "text/plain",
                    "application/x-www-form-urlencoded",
                    "multipart/form-data; boundary=x",
                ] {
                    let call = Call::post(LOGIN).header("Content-Type", kind).body(body.clone());
                    assert_eq!(env.call(call).await.status, 415, "{kind}");
                }
            },
        ),
        row("types that are confused", "OWASP ASVS 5, 2.2; CWE-843", |env| async move {
            let victim = env.register().await;
            for body in [
                json!({ "email": { "$ne": "" }, "password": { "$ne": "" } }),
                json!({ "email": [victim.email], "password": PASSWORD }),
                json!({ "email": victim.email, "password": true }),
                json!({ "email": victim.email, "password": null }),
                json!({ "email": victim.email, "password": PASSWORD, "code": 7 }),
                json!([victim.email, PASSWORD]),
                Value::Null,
            ] {
                let answer = env.call(Call::post(LOGIN).value(&body)).await;
                assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.status);
            }
        }),
        row("what went wrong inside, told outside", "OWASP ASVS 5, 16.5.1", |env| async move {
            for call in [
                Call::get("/api/v5/auth/sessions/%00"),
                Call::get("/api/v5/sessions/..%2f..%2fetc%2fpasswd"),
                Call::delete("/api/v5/auth/tokens/'%20OR%201=1"),
                Call::post(LOGIN).json("{\"email\":"),
            ] {
                let answer = env.call(call).await;
                assert!((400..500).contains(&answer.status), "{}", answer.status);
                let body = String::from_utf8_lossy(&answer.body).to_lowercase();
                for leak in ["panicked", "rust", "src/", "/tmp", "redb", "sql"] {
                    assert!(!body.contains(leak), "{body}");
                }
            }
        }),
        row(
            "an answer that is kept by somebody else",
            "OWASP ASVS 5, 14.3.2; RFC 9111",
            |env| async move {
                let victim = env.register().await;
                for call in [
                    Call::get(ME),
                    Call::get("/api/v5/auth/sessions"),
                    Call::get("/api/v5/auth/verify"),
                ] {
                    let answer = env.call(call.bearer(&victim.device.token)).await;
                    assert_eq!(answer.header("cache-control"), Some("no-store"));
                }
                let device = Device::of(&env.refresh(&victim.device.refresh_token).await);
                assert_ne!(device.token, victim.device.token);
            },
        ),
    ]
}
