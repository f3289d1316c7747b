//! The three health routes.

use crate::{
    client::{Call, call},
    folder::{self, Folder},
    server::Running,
};

#[tokio::test]
async fn health_has_status_version_engine_and_uptime() {
    let server = Running::start(&[]).await;
    let answer = call(server.address, Call::get("/api/v5/health")).await;
    assert_eq!(answer.status, 200);
    let data = answer.data();
    assert_eq!(data["status"], "ok");
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
    let engine = if folder::is_on_cluster() { "foundationdb" } else { "memory" };
    assert_eq!(data["engine"], engine);
    assert!(data["uptime_seconds"].is_u64());
}

#[tokio::test]
async fn data_directory_uses_the_embedded_engine() {
    if folder::is_about_the_folder() {
        return;
    }
    let folder = Folder::new();
    let server = Running::start_in(folder.path(), &[]).await;
    let answer = call(server.address, Call::get("/api/v5/health")).await;
    assert_eq!(answer.data()["engine"], "embedded");
    server.stopped().await;
}

#[tokio::test]
async fn running_server_is_alive_and_ready() {
    let server = Running::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(call(server.address, Call::get(path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn head_is_like_get_without_the_body() {
    let server = Running::start(&[]).await;
    let get = call(server.address, Call::get("/healthz")).await;
    let head = call(server.address, Call::new("HEAD", "/healthz")).await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    let length = get.body.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
}
