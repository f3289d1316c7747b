//! Orderly shutdown.

use std::time::{Duration, Instant};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    client::{Call, Client, PATIENCE},
    server::Running,
};

/// Sends an unsafe request to `path` and waits until it has started.
async fn started(server: &Running, path: &str) -> Client {
    let mut client = Client::connect(server.address).await;
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    client.send(request.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client
}

#[tokio::test]
async fn shutdown_completes_running_requests_and_accepts_no_more() {
    let server = Running::start_sample(&[]).await;
    let address = server.address;
    let mut client = started(&server, "/slow/800").await;
    let stopped = server.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(address).await.is_err());
    let answer = client.answer().await;
    assert_eq!(answer.data(), "done");
    assert_eq!(answer.header("connection"), Some("close"));
    client.expect_close().await;
    drop(client);
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_timeout_cuts_off_long_requests() {
    let server = Running::start_sample(&["--shutdown-timeout", "300ms"]).await;
    let mut client = started(&server, "/slow/60000").await;
    let begun_at = Instant::now();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(begun_at.elapsed() < Duration::from_secs(3));
    client.expect_close().await;
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_delay_shutdown() {
    let server = Running::start_sample(&[]).await;
    let mut idle = Client::connect(server.address).await;
    assert_eq!(idle.call(Call::get("/empty")).await.status, 204);
    let silent = Client::connect(server.address).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun_at = Instant::now();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(begun_at.elapsed() < Duration::from_secs(3));
    idle.expect_close().await;
    drop(silent);
}

#[tokio::test]
async fn shutdown_waits_for_handlers_of_disconnected_clients() {
    let server = Running::start_sample(&[]).await;
    drop(started(&server, "/slow/1000").await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun_at = Instant::now();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(begun_at.elapsed() >= Duration::from_millis(500));
}
