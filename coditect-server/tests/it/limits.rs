//! Limits on size, number and time.

use std::time::{Duration, Instant};

use crate::{
    client::{Call, Client, PATIENCE, call},
    server::Running,
};

#[tokio::test]
async fn header_block_above_the_limit_is_a_431() {
    let server = Running::start_sample(&[]).await;
    let large = Call::get("/empty").header("X-Large", &"x".repeat(33 * 1024));
    let mut client = Client::connect(server.address).await;
    let answer = client.call(large).await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "HEADER_TOO_LARGE"));
    assert_eq!(answer.header("connection"), Some("close"));
    client.expect_close().await;
}

#[tokio::test]
async fn endless_header_block_is_a_431() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    client.send(b"GET /empty HTTP/1.1\r\nHost: test\r\n").await;
    client.send(&b"X-Endless: xxxxxxxx\r\n".repeat(10_000)).await;
    assert_eq!(client.answer().await.code(), "HEADER_TOO_LARGE");
}

#[tokio::test]
async fn header_block_just_under_the_limit_is_accepted() {
    let server = Running::start_sample(&[]).await;
    let large = Call::get("/empty").header("X-Large", &"x".repeat(32_000));
    assert_eq!(call(server.address, large).await.status, 204);
}

#[tokio::test]
async fn hundred_headers_are_accepted_and_one_more_is_a_431() {
    let server = Running::start_sample(&[]).await;
    let with_headers = |count: usize| {
        // The client's own Host is one of them.
        (1..count).fold(Call::get("/empty"), |call, index| call.header(&format!("X-{index}"), "x"))
    };
    assert_eq!(call(server.address, with_headers(100)).await.status, 204);
    let answer = call(server.address, with_headers(101)).await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "HEADER_TOO_LARGE"));
}

#[tokio::test]
async fn malformed_http_is_a_400() {
    let server = Running::start_sample(&[]).await;
    for bytes in [
        "hello\r\n\r\n",
        "GET /empty HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        "GET /empty HTTP/9.9\r\nHost: a\r\n\r\n",
        "POST /echo/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /echo/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut client = Client::connect(server.address).await;
        client.send(bytes.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{bytes}");
        client.expect_close().await;
    }
}

#[tokio::test]
async fn malformed_later_request_is_a_400() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.call(Call::get("/slow/0")).await.status, 200);
    client.send(b"nonsense\r\n\r\n").await;
    assert_eq!(client.answer().await.code(), "BAD_REQUEST");
    client.expect_close().await;
}

#[tokio::test]
async fn too_long_target_is_a_414_or_431() {
    let server = Running::start_sample(&[]).await;
    let answer = call(server.address, Call::get(&format!("/{}", "x".repeat(70_000)))).await;
    assert!(matches!(answer.status, 414 | 431), "{}", answer.status);
    answer.code();
}

#[tokio::test]
async fn content_length_with_transfer_encoding_closes_the_connection() {
    let server = Running::start_sample(&[]).await;
    let mut client = Client::connect(server.address).await;
    client
        .send(
            b"POST /echo/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
              Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\n{}\r\n0\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 422);
    client.expect_close().await;
}

#[tokio::test]
async fn announced_body_above_the_limit_is_a_413_before_it_is_sent() {
    let server = Running::start_sample(&["--body-limit", "1KiB"]).await;
    let mut client = Client::connect(server.address).await;
    client
        .send(
            b"POST /echo/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
              Content-Length: 1025\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn client_that_keeps_sending_still_gets_the_413() {
    let server = Running::start_sample(&["--body-limit", "1KiB"]).await;
    let large = Call::post("/echo/x").json(vec![b' '; 900 * 1024]);
    assert_eq!(call(server.address, large).await.code(), "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn unannounced_body_above_the_limit_is_a_413() {
    let server = Running::start_sample(&["--body-limit", "1KiB"]).await;
    let mut client = Client::connect(server.address).await;
    client
        .send(
            b"POST /echo/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
              Transfer-Encoding: chunked\r\n\r\n800\r\n",
        )
        .await;
    client.send(&[b' '; 0x800]).await;
    assert_eq!(client.answer().await.code(), "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn stalled_body_is_a_408() {
    let server = Running::start_sample(&["--body-timeout", "200ms"]).await;
    let mut client = Client::connect(server.address).await;
    client
        .send(
            b"POST /echo/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
              Content-Length: 20\r\n\r\n{",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    client.expect_close().await;
}

#[tokio::test]
async fn trickling_header_block_times_out() {
    let server = Running::start_sample(&["--header-timeout", "400ms"]).await;
    let mut client = Client::connect(server.address).await;
    let started_at = Instant::now();
    client.send(b"GET /empty HTTP/1.1\r\nHost: a\r\n").await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.try_send(b"X-Slow: x\r\n").await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    client.expect_close().await;
    assert!(started_at.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn incomplete_http2_preface_times_out() {
    let server = Running::start_sample(&["--header-timeout", "200ms"]).await;
    let mut client = Client::connect(server.address).await;
    client.send(b"PRI * HT").await;
    assert_eq!(client.answer().await.code(), "REQUEST_TIMEOUT");
}

#[tokio::test]
async fn silent_client_is_disconnected() {
    let server = Running::start_sample(&["--header-timeout", "200ms"]).await;
    let mut client = Client::connect(server.address).await;
    let started_at = Instant::now();
    client.expect_close().await;
    assert!(started_at.elapsed() >= Duration::from_millis(200));
    assert!(started_at.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected() {
    let server = Running::start_sample(&["--body-timeout", "300ms"]).await;
    let mut client = Client::connect(server.address).await;
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer_begun().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let rest = client.rest_within(PATIENCE).await.unwrap();
    assert!(rest.len() < 32 << 20, "{} bytes", rest.len());
}
