//! The orderly end.

use std::time::{Duration, Instant};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    client::{Call, Client, PATIENCE},
    server::Running,
};

/// Sends a request that changes something at `path` and lets it begin.
async fn started(server: &Running, path: &str) -> Client {
    let mut client = Client::connect(server.address).await;
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    client.send(request.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client
}

#[tokio::test]
async fn a_stopping_server_finishes_what_runs_and_accepts_nothing_more() {
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
async fn what_runs_too_long_is_cut_off_when_the_time_is_up() {
    let server = Running::start_sample(&["--shutdown-timeout", "300ms"]).await;
    let mut client = started(&server, "/slow/60000").await;
    let begun_at = Instant::now();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(begun_at.elapsed() < Duration::from_secs(3));
    client.expect_close().await;
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_up_the_end() {
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
async fn a_handler_whose_client_has_left_is_waited_for() {
    let server = Running::start_sample(&[]).await;
    drop(started(&server, "/slow/1000").await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun_at = Instant::now();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(begun_at.elapsed() >= Duration::from_millis(500));
}
