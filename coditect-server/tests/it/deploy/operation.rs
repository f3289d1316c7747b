//! nginx in front of the real program, for operators: hidden routes, logs, TLS and compression.

use serde_json::json;

use super::{
    nginx::{ADA, Site},
    proxy::Setup,
};
use crate::{
    client::{Call, call},
    signed_in_session::SignedInSession,
    tls,
};

#[tokio::test]
async fn operator_routes_are_hidden_and_others_served() {
    let Some(site) = Site::start(&["--metrics-allow", "0.0.0.0/0"]).await else { return };
    for path in ["/metrics", "/healthz", "/readyz", "/%6detrics", "//metrics", "/a/../readyz"] {
        assert_eq!(site.call(Call::get(path)).await.status, 404, "{path}");
    }
    let inner = Call::get("/.coditect/verify");
    assert_eq!(site.call(inner).await.status, 404);
    for path in ["/", "/a/page/of/it", "/api/v5/health", "/.well-known/jwks.json"] {
        let answer = site.call(Call::get(path)).await;
        assert_eq!(answer.status, 200, "{path}");
        // Exactly one, from the server.
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    }
    let moved = site.call(Call::get("/theia?x=1")).await;
    assert_eq!((moved.status, moved.header("location")), (308, Some("/theia/?x=1")));
    let device = site.register().await;
    let answer = site.call(Call::get("/theia/").bearer(&device.token)).await;
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
    let named = Call::get("/theia/").header("X-Request-Id", "mine");
    assert_eq!(site.call(named).await.json()["error"]["request_id"], "mine");
}

#[tokio::test]
async fn access_log_has_no_secrets() {
    let Some(site) = Site::start(&[]).await else { return };
    let device = site.register().await;
    let wanted = Call::get("/api/v5/auth/verify?token=secret1").bearer(&device.token);
    let wanted = wanted.header("Referer", "http://test/?token=secret2");
    site.call(wanted.header("X-Request-Id", "named-so")).await;
    site.call(Call::get("/theia/a?token=secret3").bearer(&device.token)).await;
    site.call(Call::get("/theia?token=secret4")).await;
    let unnamed = site.call(Call::get("/api/v5/health")).await;
    let log = site.proxy.logged().await;
    assert!(log.contains(unnamed.header("x-request-id").unwrap()), "one name in both: {log}");
    assert!(log.contains("\"GET /api/v5/auth/verify HTTP/1.1\" 204 "), "{log}");
    assert!(log.contains(" named-so\n"), "{log}");
    assert!(log.contains("\"GET /theia/a HTTP/1.1\" 200 "), "{log}");
    assert!(!log.contains("secret") && !log.contains(&device.token) && !log.contains('?'), "{log}");
}

#[tokio::test]
async fn stopped_server_is_reported_as_unavailable() {
    let Some(site) = Site::start(&[]).await else { return };
    let device = site.register().await;
    let Site { server, ide, proxy, data: _data } = site;
    server.kill().await;
    for path in ["/theia/", "/api/v5/auth/me", "/"] {
        let refused = call(proxy.address, Call::get(path).bearer(&device.token)).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"), "{path}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(ide.asked(), 0);
}

#[tokio::test]
async fn tls_sends_hsts_and_http_redirects() {
    let mut certificate = None;
    let site = Site::start_with(&[], |setup| {
        certificate = Some(tls::write(setup.folder.path()));
        setup.with_tls();
    });
    let Some(site) = site.await else { return };
    let certificate = certificate.unwrap();
    let offers: [&[&str]; 2] = [&["http/1.1"], &[]];
    for offered in offers {
        let stream = tls::connect(site.at(), &certificate, offered).await.unwrap();
        let answer = tls::over_http1(stream, "/api/v5/health").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    }
    let stream = tls::connect(site.at(), &certificate, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let moved = site.proxy.plain("GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(moved.starts_with("HTTP/1.1 308 "), "{moved}");
    assert!(moved.contains("\r\nLocation: https://ide.example.org/a?b=1\r\n"), "{moved}");
}

#[tokio::test]
async fn tags_stay_strong_behind_a_compressing_nginx() {
    let compressing = |setup: &mut Setup| {
        let gzip = "gzip on; gzip_types application/json text/plain; gzip_proxied any; \
                    gzip_min_length 1;\n";
        setup.text = format!("{gzip}{}", setup.text);
    };
    let Some(site) = Site::start_with(&[], compressing).await else { return };
    let signed_in = SignedInSession::at(site.at(), ADA).await;
    let file = signed_in.part("files/a.txt");
    let put = Call::put(&file).body("a".repeat(2_000)).header("Accept-Encoding", "gzip");
    assert_eq!(signed_in.call(put).await.status, 201);
    for path in [signed_in.part(""), signed_in.part("editor"), file] {
        let wanted = Call::get(&path).header("Accept-Encoding", "gzip");
        let read = signed_in.call(wanted).await;
        assert_eq!(read.header("content-encoding"), None, "{path}");
        let tag = read.header("etag").unwrap();
        assert!(!tag.starts_with("W/"), "{path}: {tag}");
        let change = if path.contains("/files/") {
            Call::put(&path).body("b")
        } else {
            Call::patch(&path).value(&json!({}))
        };
        let changed = signed_in.call(change.header("If-Match", tag)).await;
        assert_eq!(changed.status, 200, "{path}");
    }
}
