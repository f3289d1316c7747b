//! HTTP/2 with prior knowledge on the same port.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::{client::PATIENCE, server::Running};

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(server: &Running) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(Empty::new()).unwrap()
}

async fn json(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn http2_preface_selects_http2() {
    let server = Running::start_sample(&[]).await;
    let (mut sender, _connection) = connect(&server).await;
    let slow = sender.send_request(request("GET", "/slow/200"));
    let missing = sender.send_request(request("GET", "/nowhere")).await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.headers().contains_key("x-request-id"));
    assert_eq!(json(missing).await["error"]["code"], "NOT_FOUND");
    assert_eq!(json(slow.await.unwrap()).await["data"], "done");
}

#[tokio::test]
async fn head_over_http2_has_no_body() {
    let server = Running::start_sample(&[]).await;
    let (mut sender, _connection) = connect(&server).await;
    let head = sender.send_request(request("HEAD", "/slow/0")).await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.headers().contains_key("content-length"));
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn too_large_and_too_many_headers_over_http2_are_a_431_with_an_envelope() {
    let server = Running::start_sample(&[]).await;
    let (mut sender, _connection) = connect(&server).await;
    let mut large = request("GET", "/empty");
    let value = "x".repeat(33 * 1024).parse().unwrap();
    large.headers_mut().insert("x-large", value);
    let mut many = request("GET", "/empty");
    for index in 0..=100 {
        let name = hyper::header::HeaderName::try_from(format!("x-{index}")).unwrap();
        many.headers_mut().insert(name, "x".parse().unwrap());
    }
    for refused in [large, many] {
        let response = sender.send_request(refused).await.unwrap();
        assert_eq!(response.status(), 431);
        assert_eq!(json(response).await["error"]["code"], "HEADER_TOO_LARGE");
    }
}

#[tokio::test]
async fn http2_client_without_requests_is_disconnected() {
    let server = Running::start_sample(&["--header-timeout", "300ms"]).await;
    let (sender, connection) = connect(&server).await;
    let begun_at = Instant::now();
    let _ended = timeout(PATIENCE, connection).await.unwrap().unwrap();
    assert!(begun_at.elapsed() < Duration::from_secs(3));
    assert!(sender.is_closed());
}

#[tokio::test]
async fn idle_http2_connection_is_closed() {
    let server =
        Running::start_sample(&["--header-timeout", "500ms", "--idle-timeout", "1500ms"]).await;
    let (mut sender, connection) = connect(&server).await;
    for _ in 0..2 {
        let response = sender.send_request(request("GET", "/empty")).await.unwrap();
        assert_eq!(response.status(), 204);
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    let _ended = timeout(PATIENCE, connection).await.unwrap().unwrap();
    assert!(sender.is_closed());
}

#[tokio::test]
async fn http2_client_that_does_not_read_is_disconnected() {
    let server = Running::start_sample(&["--body-timeout", "300ms"]).await;
    let (mut sender, connection) = connect(&server).await;
    let response = sender.send_request(request("GET", "/large")).await.unwrap();
    let _ended = timeout(PATIENCE, connection).await.unwrap().unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn shutdown_lets_an_http2_request_complete() {
    let server = Running::start_sample(&[]).await;
    let (mut sender, _connection) = connect(&server).await;
    let slow = tokio::spawn(sender.send_request(request("GET", "/slow/600")));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = server.stop();
    let response = slow.await.unwrap().unwrap();
    assert_eq!(json(response).await["data"], "done");
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
}
