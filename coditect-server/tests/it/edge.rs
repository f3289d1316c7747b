//! Security headers and CORS.

use serde_json::json;

use crate::{
    account::{PASSWORD, REGISTER},
    client::{Answer, Call, call},
    server::Running,
};

const IDE: &str = "https://ide.example.org";
const LIST: [&str; 2] = ["--allowed-origin", "https://ide.example.org,http://localhost:3000"];

fn preflight(path: &str, origin: &str) -> Call {
    Call::new("OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "PUT")
        .header("Access-Control-Request-Headers", "authorization, if-match")
}

fn cors(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let server = Running::start(&[]).await;
    for (path, status, policy) in [
        ("/api/v5/health", 200, "default-src 'none'; frame-ancestors 'none'"),
        ("/api/v5/nothing", 404, "default-src 'none'; frame-ancestors 'none'"),
        (
            "/",
            200,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
              img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; \
              frame-ancestors 'none'; require-trusted-types-for 'script'",
        ),
    ] {
        let answer = call(server.address, Call::get(path)).await;
        assert_eq!(answer.status, status);
        for (name, value) in [
            ("content-security-policy", policy),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        assert!(answer.header("permissions-policy").unwrap().contains("camera=()"));
    }
}

#[tokio::test]
async fn responses_have_timing_except_for_authentication() {
    let server = Running::start_sample(&[]).await;
    let answer = call(server.address, Call::get("/slow/120")).await;
    let took = answer.header("server-timing").unwrap().strip_prefix("app;dur=").unwrap();
    assert!((100..10_000).contains(&took.parse::<u64>().unwrap()), "{took}");
    let server = Running::start(&[]).await;
    let answer = call(server.address, Call::post("/api/v5/auth/login").json("{}")).await;
    assert_eq!((answer.status, answer.header("server-timing")), (422, None));
}

#[tokio::test]
async fn hsts_is_sent_over_known_tls() {
    let server = Running::start(&["--trusted-proxy", "127.0.0.1"]).await;
    let told = |value: &'static str| {
        let wanted = Call::get("/healthz").header("X-Forwarded-Proto", value);
        async move {
            let answer = call(server.address, wanted).await;
            answer.header("strict-transport-security").map(ToOwned::to_owned)
        }
    };
    assert_eq!(told("https").await.as_deref(), Some("max-age=31536000"));
    // The last value is from the trusted proxy, the ones before from its client.
    assert_eq!(told("http, https").await.as_deref(), Some("max-age=31536000"));
    assert_eq!(told("https, http").await, None);
    assert_eq!(told("http").await, None);

    let flags = ["--trusted-proxy", "127.0.0.1", "--forwarded-header", "forwarded"];
    let server = Running::start(&flags).await;
    let wanted = Call::get("/healthz").header("Forwarded", "for=192.0.2.1;Proto=\"https\"");
    let answer = call(server.address, wanted).await;
    assert!(answer.header("strict-transport-security").is_some());

    let server = Running::start(&[]).await;
    let wanted = Call::get("/healthz").header("X-Forwarded-Proto", "https");
    let answer = call(server.address, wanted).await;
    assert_eq!(answer.header("strict-transport-security"), None);
}

#[tokio::test]
async fn preflight_of_a_listed_origin_is_allowed() {
    let server = Running::start(&LIST).await;
    let path = "/api/v5/sessions/7";
    let answer = call(server.address, preflight(path, IDE)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(IDE));
    let methods = answer.header("access-control-allow-methods");
    assert_eq!(methods, Some("GET, PUT, PATCH, DELETE, HEAD, OPTIONS"));
    let headers = answer.header("access-control-allow-headers").unwrap();
    for name in ["authorization", "content-type", "if-match", "idempotency-key", "range"] {
        assert!(headers.split(", ").any(|it| it == name), "{name}");
    }
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("vary"), Some("origin"));
}

#[tokio::test]
async fn listed_origin_can_read_responses_and_failures() {
    let server = Running::start(&LIST).await;
    for (path, status) in [("/api/v5/health", 200), ("/api/v5/auth/me", 401), ("/api/x", 404)] {
        let answer = call(server.address, Call::get(path).header("Origin", IDE)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(IDE));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["etag", "location", "retry-after", "x-request-id", "www-authenticate"] {
            assert!(exposed.split(", ").any(|it| it == name), "{name}");
        }
    }
    let page = Call::get("/").header("Accept-Encoding", "br");
    let page = call(server.address, page).await;
    assert_eq!(page.header("vary"), Some("accept-encoding, origin"));
}

#[tokio::test]
async fn unlisted_origin_gets_no_cors_headers() {
    let server = Running::start(&LIST).await;
    for origin in [
        "http://ide.example.org",
        "https://ide.example.org:8443",
        "https://ide.example.org.evil.example",
        "https://evil.example",
        "null",
        "*",
    ] {
        for wanted in
            [preflight("/api/v5/sessions", origin), Call::get("/healthz").header("Origin", origin)]
        {
            let answer = call(server.address, wanted).await;
            assert_eq!(cors(&answer), [""; 0], "{origin}");
            assert_eq!(answer.header("vary"), Some("origin"));
        }
    }
    let twice =
        Call::get("/healthz").header("Origin", IDE).header("Origin", "https://evil.example");
    assert_eq!(cors(&call(server.address, twice).await), [""; 0]);

    let server = Running::start(&[]).await;
    let answer = call(server.address, preflight("/api/v5/sessions", IDE)).await;
    assert_eq!((cors(&answer), answer.header("vary")), (vec![], None));
}

#[tokio::test]
async fn listed_origin_may_send_cookies_if_enabled() {
    let server = Running::start(&[LIST[0], LIST[1], "--cookies"]).await;
    for wanted in [preflight("/api/v5/auth/me", IDE), Call::get("/healthz").header("Origin", IDE)] {
        let answer = call(server.address, wanted).await;
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    }
}

#[tokio::test]
async fn only_listed_origins_may_write_with_cookies() {
    let server = Running::start(&[LIST[0], LIST[1], "--cookies"]).await;
    let body = json!({"email": "ada@example.org", "password": PASSWORD, "cookies": true});
    let signed_in = call(server.address, Call::post(REGISTER).value(&body)).await;
    let csrf = signed_in.data()["csrf_token"].as_str().unwrap().to_owned();
    let cookies: Vec<&str> = signed_in
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .map(|(_, cookie)| cookie.split(';').next().unwrap())
        .collect();
    for (page, status) in [(IDE, 201), ("https://evil.example", 403), ("http://test", 403)] {
        let create = Call::post("/api/v5/sessions")
            .header("Cookie", &cookies.join("; "))
            .header("X-CSRF-Token", &csrf)
            .header("Sec-Fetch-Site", "same-site")
            .header("Origin", page)
            .value(&json!({"name": "x"}));
        assert_eq!(call(server.address, create).await.status, status, "{page}");
    }
}
