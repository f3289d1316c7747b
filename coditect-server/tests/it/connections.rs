//! Connections: keep-alive, pipelining, disconnects.

use std::time::{Duration, Instant};

use crate::{
    client::{Call, Client},
    server::Running,
};

#[tokio::test]
async fn idle_timeout_is_longer_than_the_header_timeout() {
    let server =
        Running::start_sample(&["--header-timeout", "500ms", "--idle-timeout", "5s"]).await;
    let mut client = Client::connect(server.address).await;
    for _ in 0..3 {
        assert_eq!(client.call(Call::get("/empty")).await.status, 204);
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
}

#[tokio::test]
async fn idle_connection_is_closed_without_a_response() {
    let server = Running::start_sample(&["--idle-timeout", "300ms"]).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.call(Call::get("/empty")).await.status, 204);
    let idle_since = Instant::now();
    client.expect_close().await;
    assert!(idle_since.elapsed() >= Duration::from_millis(250));
    assert!(idle_since.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn later_header_block_has_a_deadline_from_its_first_byte() {
    let server = Running::start_sample(&["--header-timeout", "300ms"]).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.call(Call::get("/empty")).await.status, 204);
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send(b"GET /em").await;
    assert_eq!(client.answer().await.code(), "REQUEST_TIMEOUT");
    client.expect_close().await;
}

#[tokio::test]
async fn pipelined_requests_get_responses_in_order() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    client
        .send(
            b"GET /slow/100 HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /slow/0 HTTP/1.1\r\nHost: a\r\n\r\nbad\r\n\r\n",
        )
        .await;
    for status in [200, 404, 200, 400] {
        let answer = client.answer().await;
        assert_eq!(answer.status, status);
        answer.json();
    }
    client.expect_close().await;
}

#[tokio::test]
async fn request_may_arrive_byte_by_byte() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    for byte in b"PUT /empty HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.answer().await.code(), "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let server = Running::start_sample(&["--max-connections", "1"]).await;
    let mut first = Client::connect(server.address).await;
    assert_eq!(first.call(Call::get("/empty")).await.status, 204);
    let mut second = Client::connect(server.address).await;
    second.send(b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let early = second.rest_within(Duration::from_millis(300)).await;
    assert!(early.is_none());
    drop(first);
    assert_eq!(second.answer().await.status, 204);
}
