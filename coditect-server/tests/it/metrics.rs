//! Metrics of the program.

use std::net::SocketAddr;

use serde_json::json;

use crate::{
    account::Device,
    client::{Call, Client, call},
    folder::{self, Folder},
    process::{Process, on},
    server::Running,
    signed_in_session::SignedInSession,
};

async fn metrics(address: SocketAddr) -> String {
    let answer = call(address, Call::get("/metrics")).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    String::from_utf8(answer.body).unwrap()
}

/// Returns the value of a series with its labels.
fn value(metrics: &str, series: &str) -> f64 {
    let found = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{series} is not in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn requests_connections_bytes_and_the_store_have_metrics() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let process = Process::start(on(folder.path(), &[])).await;
    let address = process.address;
    Device::register(address, "ada@example.org").await;
    for path in ["/api/v5/secret-path", "/api/v5/sessions/secret-id", "/secret-page"] {
        call(address, Call::get(path)).await;
    }
    call(address, Call::new("SECRET", "/healthz")).await;
    let mut kept = Client::connect(address).await;
    assert_eq!(kept.call(Call::get("/healthz")).await.status, 200);

    let told = metrics(address).await;
    let requests = |route: &str, method: &str, status: &str| {
        let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
        let count = format!("coditect_http_request_duration_seconds_count{labels}");
        let requests = value(&told, &format!("coditect_http_requests_total{labels}"));
        assert!((value(&told, &count) - requests).abs() < 0.5);
        requests
    };
    for (route, method, status) in [
        ("/api/v5/auth/register", "POST", "2xx"),
        ("/api/v5/sessions/{id}", "GET", "4xx"),
        ("-", "GET", "4xx"),
        ("/{*path}", "GET", "2xx"),
        ("/healthz", "other", "4xx"),
        ("/healthz", "GET", "2xx"),
    ] {
        assert!((requests(route, method, status) - 1.0).abs() < 0.5, "{route}");
    }
    assert!(!told.to_lowercase().contains("secret") && !told.contains("ada@"), "{told}");
    assert!(value(&told, "coditect_http_connections") >= 2.0);
    assert!((value(&told, "coditect_http_requests_in_flight") - 1.0).abs() < 0.5);
    assert!(value(&told, "coditect_http_received_bytes_total") > 200.0);
    assert!(value(&told, "coditect_http_sent_bytes_total") > 1000.0);
    assert!(value(&told, "coditect_store_commits_total{outcome=\"committed\"}") >= 1.0);
    assert!(value(&told, "coditect_store_sync_duration_seconds_count") >= 1.0);
    assert!(told.contains("coditect_http_request_duration_seconds_bucket{"), "{told}");
    assert!(value(&told, "process_start_time_seconds") > 1.7e9);
    let build = format!("coditect_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert!((value(&told, &build) - 1.0).abs() < 0.5);
    drop(kept);
    process.terminate().await;
}

/// Returns the least (transactions, reads) of five repetitions of `call`, so that background
/// transactions do not count.
async fn cost(address: SocketAddr, mut repeat: impl AsyncFnMut(usize)) -> (i64, i64) {
    let read = async || {
        let metrics = metrics(address).await;
        let of = |series: &str| format!("{:.0}", value(&metrics, series)).parse::<i64>().unwrap();
        let committed = of("coditect_store_transactions_total{outcome=\"committed\"}");
        (committed, of("coditect_store_transaction_reads_sum"))
    };
    let mut least = (i64::MAX, i64::MAX);
    for n in 0..5 {
        let before = read().await;
        repeat(n).await;
        let after = read().await;
        least = least.min((after.0 - before.0, after.1 - before.1));
    }
    least
}

#[tokio::test]
async fn requests_keep_their_budgets_of_transactions_and_reads() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let process = Process::start(on(folder.path(), &[])).await;
    let address = process.address;
    let signed_in = SignedInSession::at(address, "ada@example.org").await;
    let put = async |section: &str| {
        let put = signed_in.put(section, &json!({})).await;
        assert_eq!(put.status, 200, "{section}: {}", String::from_utf8_lossy(&put.body));
    };
    for section in ["editor", "terminal", "memory"] {
        put(section).await;
    }

    // The login, its user, the session, the section, and the epoch of the catalog.
    let editor = cost(address, async |_| put("editor").await).await;
    assert_eq!(editor, (1, 5), "PUT editor");
    // As well as the tenant's patterns of secrets.
    let terminal = cost(address, async |_| put("terminal").await).await;
    assert_eq!(terminal, (1, 6), "PUT terminal");
    // As well as the section after the change, for the response, and a range of entries.
    let memory = cost(address, async |_| put("memory").await).await;
    assert_eq!(memory, (1, 7), "PUT memory");
    let login = cost(address, async |_| {
        Device::login(address, "ada@example.org").await;
    });
    assert_eq!(login.await.0, 3, "login");
    process.terminate().await;
}

#[tokio::test]
async fn metrics_are_limited_to_allowed_networks() {
    let folder = Folder::new();
    let process = Process::start(on(folder.path(), &["--metrics-allow", "192.0.2.0/24"])).await;
    let refused = call(process.address, Call::get("/metrics")).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    process.terminate().await;

    let process = Process::start(on(folder.path(), &[])).await;
    let forwarded = Call::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
    let refused = call(process.address, forwarded).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    process.terminate().await;

    let flags = ["--trusted-proxy", "127.0.0.1", "--metrics-allow", "192.0.2.0/24"];
    let process = Process::start(on(folder.path(), &flags)).await;
    for (client, status) in [
        ("192.0.2.7", 200),
        ("198.51.100.1", 403),
        ("\", 198.51.100.1", 403),
        ("192.0.2.7, ", 403),
        ("unknown", 403),
    ] {
        let wanted = Call::get("/metrics").header("X-Forwarded-For", client);
        assert_eq!(call(process.address, wanted).await.status, status, "{client}");
    }
    process.terminate().await;
}

#[tokio::test]
async fn metrics_are_refused_to_clients_whose_address_is_unknown() {
    let folder = Folder::new();
    for flags in [
        &[][..],
        &["--trusted-proxy", "10.0.0.0/8"],
        &["--trusted-proxy", "127.0.0.1"],
        &["--trusted-proxy", "127.0.0.1", "--forwarded-header", "forwarded"],
    ] {
        let process = Process::start(on(folder.path(), flags)).await;
        let is_trusted = flags.contains(&"127.0.0.1");
        let direct = call(process.address, Call::get("/metrics")).await;
        assert_eq!(direct.status, if is_trusted { 403 } else { 200 }, "{flags:?}");
        let is_rfc = flags.contains(&"forwarded");
        for (name, value, is_read) in [
            ("X-Forwarded-For", "127.0.0.1", is_trusted && !is_rfc),
            ("Forwarded", "for=127.0.0.1", is_rfc),
            ("X-Forwarded-For", "unknown", false),
            ("Forwarded", "for=unknown", false),
            ("Forwarded", "for=_hidden;proto=https", false),
            ("Via", "1.1 proxy", false),
            ("X-Real-IP", "127.0.0.1", false),
        ] {
            let answer = call(process.address, Call::get("/metrics").header(name, value)).await;
            let expected = if is_read { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{flags:?} {name}: {value}");
        }
        for probe in ["/healthz", "/readyz", "/api/v5/health"] {
            let answer = call(process.address, Call::get(probe).header("Via", "1.1 proxy")).await;
            assert_eq!(answer.status, 200, "{probe}");
        }
        process.terminate().await;
    }
}

#[tokio::test]
async fn embedded_server_installs_no_recorder() {
    let server = Running::start(&[]).await;
    let answer = call(server.address, Call::get("/metrics")).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"));
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own_that_trusts_no_proxy() {
    // An address that no other test uses, so that its port stays free.
    let free = std::net::TcpListener::bind("127.0.7.7:0").unwrap();
    let scraped = free.local_addr().unwrap();
    drop(free);
    let (folder, address) = (Folder::new(), scraped.to_string());
    let flags = ["--trusted-proxy", "127.0.0.0/8", "--metrics-listen", &address];
    let process = Process::start(on(folder.path(), &flags)).await;
    let shown = call(scraped, Call::get("/metrics")).await;
    assert_eq!(shown.status, 200);
    assert!(String::from_utf8_lossy(&shown.body).contains("coditect_build_info"));
    assert_eq!(call(scraped, Call::get("/readyz")).await.status, 200);
    assert_eq!(call(scraped, Call::get("/healthz")).await.status, 200);
    for other in ["/", "/api/v5/nothing", "/client/http.js"] {
        assert_eq!(call(scraped, Call::get(other)).await.code(), "NOT_FOUND", "{other}");
    }
    let forwarded = Call::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
    assert_eq!(call(scraped, forwarded).await.status, 403, "a proxy asks for another");
    let named = Call::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
    assert_eq!(call(process.address, named).await.status, 404);
    assert_eq!(call(process.address, Call::get("/healthz")).await.status, 200);
    let ended = process.terminate().await;
    assert!(ended.stderr.contains(&format!("metrics listener started address={address}")));
    assert!(tokio::net::TcpStream::connect(scraped).await.is_err());

    let flags = ["--metrics-listen", &address, "--metrics-allow", "192.0.2.0/24"];
    let process = Process::start(on(folder.path(), &flags)).await;
    assert_eq!(call(scraped, Call::get("/metrics")).await.status, 403);
    process.terminate().await;
}
