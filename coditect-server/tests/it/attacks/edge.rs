//! Attacks at the edge: forwarding headers, cookies and other headers that proxies and servers may
//! parse differently.

use super::{
    Row,
    http::{Browser, said},
    row,
    test_server::TestServer,
};
use crate::{
    account::{LOGIN, ME, PASSWORD, REGISTER, credentials},
    client::{Answer, Call},
    signed_in_session::SignedInSession,
};

const DEVICES: &str = "/api/v5/auth/sessions";

/// Sends `GET path` with a raw header line, as forwarded by a proxy.
async fn get(env: &TestServer, path: &str, header: &[u8]) -> Answer {
    let request =
        [b"GET ", path.as_bytes(), b" HTTP/1.1\r\nHost: x\r\n", header, b"\r\n\r\n"].concat();
    said(env, &request).await
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "a quote before what the proxy appends",
            "RFC 7239, 8.1; CWE-348; issue 20, 27",
            |env| async move {
                for left in [&b"\""[..], b"\\", b"\xe9", b"127.0.0.1\"", b"10.0.0.1;"] {
                    let header = [b"X-Forwarded-For: ", left, b", 203.0.113.9"].concat();
                    assert_eq!(get(&env, "/metrics", &header).await.status, 403);
                }
                let mut statuses = Vec::new();
                for n in 0..7 {
                    let guess =
                        credentials(LOGIN, &format!("quote{n}@example.org"), "wrong password");
                    let from = format!("127.0.0.{n}\", 198.51.100.98");
                    statuses.push(env.call_from(&from, guess).await.status);
                }
                assert_eq!(statuses[5..], [429, 429]);
            },
        ),
        row(
            "a proxy that does not name its client",
            "RFC 7239, 6.2 and 6.3; CWE-290",
            |env| async move {
                for header in [
                    &b"X-Forwarded-For: unknown"[..],
                    b"X-Forwarded-For: _hidden",
                    b"X-Forwarded-For:",
                    b"X-Forwarded-For: 127.0.0.1,",
                    b"Forwarded: for=127.0.0.1",
                    b"X-Real-IP: 127.0.0.1",
                ] {
                    assert_eq!(
                        get(&env, "/metrics", header).await.status,
                        403,
                        "{}",
                        String::from_utf8_lossy(header)
                    );
                }
                assert_eq!(get(&env, "/metrics", b"X-Forwarded-For: 127.0.0.1").await.status, 200);
            },
        ),
        row(
            "a login whose address would be the proxy's",
            "OWASP ASVS 5, 16.2.1; CWE-348",
            |env| async move {
                let email = format!("hidden{}@example.org", env.number());
                let registered =
                    env.call_from("unknown", credentials(REGISTER, &email, PASSWORD)).await;
                let token = registered.data()["token"].as_str().unwrap().to_owned();
                let devices = env.call(Call::get(DEVICES).bearer(&token)).await.data();
                assert!(devices[0]["ip"].is_null(), "{devices}");
                let audit = env.call(Call::get("/api/v5/audit").bearer(&token)).await.data();
                let entry = &audit[0];
                assert!(entry["ip"].is_null(), "{audit}");
                assert_eq!(entry["details"]["nearest_hop"], "127.0.0.1", "{audit}");
            },
        ),
        row(
            "another application's cookie beside the tokens",
            "RFC 6265, 4.2.1; issue 20, 08",
            |env| async move {
                let browser = Browser::new(&env).await;
                for other in [
                    &b"name=Jos\xc3\xa9"[..],
                    b"name=Jos\xe9",
                    b"\xff\xfe",
                    b"\"",
                    b"=",
                    b"__Host-other-access=x",
                ] {
                    for line in [
                        [b"Cookie: ", other, b"; ", browser.cookies.as_bytes()].concat(),
                        [b"Cookie: ", browser.cookies.as_bytes(), b"; ", other].concat(),
                        [b"Cookie: ", other, b"\r\nCookie: ", browser.cookies.as_bytes()].concat(),
                    ] {
                        let answer = get(&env, ME, &line).await;
                        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&line));
                    }
                }
            },
        ),
        row(
            "a part that takes the place of the whole",
            "RFC 9110, 14.5; issue 20, 17",
            |env| async move {
                let signed_in = SignedInSession::at(
                    env.address(),
                    &format!("part{}@example.org", env.number()),
                )
                .await;
                let file = signed_in.part("files/a.txt");
                signed_in.call(Call::put(&file).body("0123456789")).await;
                let part = Call::put(&file).header("Content-Range", "bytes 0-2/10").body("abc");
                assert_eq!(signed_in.call(part).await.code(), "CONTENT_RANGE_NOT_SUPPORTED");
                let encoded = Call::put(&file).header("Content-Encoding", "gzip").body("abc");
                assert_eq!(signed_in.call(encoded).await.code(), "UNSUPPORTED_CONTENT_ENCODING");
                assert_eq!(signed_in.call(Call::get(&file)).await.body, b"0123456789");
            },
        ),
        row(
            "a host that two readers read differently",
            "RFC 9112, 3.2; CWE-444",
            |env| async move {
                for host in ["a@b", "a/b", "a b", "a,b", "a:80:90", "[::1", "a\\b", "%61"] {
                    let request = format!("GET /api/v5/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
                    assert_eq!(said(&env, request.as_bytes()).await.status, 400, "{host}");
                }
            },
        ),
        row(
            "a number that two readers round differently",
            "RFC 8259, 6; CWE-681",
            |env| async move {
                let victim = env.register().await;
                for number in
                    ["18446744073709551616", "-9223372036854775809", "100000000000000000000"]
                {
                    let body = format!(r#"{{"name":"x","settings":{{"n":{number}}}}}"#);
                    let answer = env
                        .call(
                            Call::post("/api/v5/sessions").bearer(&victim.device.token).json(body),
                        )
                        .await;
                    assert_eq!(answer.code(), "INTEGER_OUT_OF_RANGE", "{number}");
                }
            },
        ),
        row(
            "a field or a parameter that only another reader knows",
            "OWASP API Security 2023, API3; CWE-915",
            |env| async move {
                let victim = env.register().await;
                let body = serde_json::json!({
                    "email": format!("mass{}@example.org", env.number()),
                    "password": PASSWORD,
                    "role": "owner",
                });
                assert_eq!(
                    env.call(Call::post(REGISTER).value(&body)).await.code(),
                    "UNKNOWN_FIELD"
                );
                let list = Call::get("/api/v5/sessions?tenant_id=1").bearer(&victim.device.token);
                assert_eq!(env.call(list).await.code(), "INVALID_QUERY");
            },
        ),
        row(
            "a change of what a reader has not seen, by a read's condition",
            "RFC 9110, 13.1.1 and 13.2.2",
            |env| async move {
                let signed_in = SignedInSession::at(
                    env.address(),
                    &format!("seen{}@example.org", env.number()),
                )
                .await;
                for method in ["GET", "HEAD"] {
                    let read = Call::new(method, &signed_in.path).header("If-Match", "\"other\"");
                    assert_eq!(signed_in.call(read).await.status, 412);
                }
            },
        ),
    ]
}
