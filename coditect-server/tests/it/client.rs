//! A small HTTP/1.1 client that can also send malformed requests.
//!
//! Well-formed requests are [`Call`]s; anything else is sent as bytes. Every wait is limited by
//! [`PATIENCE`], so that a test fails instead of hanging.

use std::{fmt::Write, io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::contract;

/// Limit of every wait; long, since a busy machine is slow without being at fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A well-formed request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    pub(crate) fn put(path: &str) -> Self {
        Self::new("PUT", path)
    }

    pub(crate) fn patch(path: &str) -> Self {
        Self::new("PATCH", path)
    }

    pub(crate) fn delete(path: &str) -> Self {
        Self::new("DELETE", path)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds the forwarding header of a proxy for the client `number`.
    pub(crate) fn from(self, number: usize) -> Self {
        self.header("X-Forwarded-For", &format!("192.0.2.{}", number % 256))
    }

    /// Sets a body of any type; the caller sets Content-Type.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets a body labelled as JSON, whether valid or not.
    pub(crate) fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    /// Sets a JSON body.
    pub(crate) fn value(self, body: &Value) -> Self {
        self.json(body.to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: test\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if let Some(body) = &self.body {
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends a request over this connection, which stays open if the server permits.
    pub(crate) async fn call(&mut self, call: Call) -> Answer {
        self.send(&call.bytes()).await;
        let answer = self.answer_to(call.method).await;
        contract::expect_described(call.method, &call.path, &answer);
        answer
    }

    /// Sends a request to a server that may be killed; `None` without a complete response.
    pub(crate) async fn try_call(&mut self, call: Call) -> Option<Answer> {
        self.try_send(&call.bytes()).await;
        let answer = timeout(PATIENCE, self.read_answer(call.method))
            .await
            .expect("an answer or a close in time")?;
        contract::expect_described(call.method, &call.path, &answer);
        Some(answer)
    }

    /// Sends raw bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends bytes to a server that may have closed already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes).await;
    }

    /// Reads the next response, to any method but HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("").await
    }

    /// Reads the next response to `method`, skipping 1xx.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        loop {
            let answer =
                timeout(PATIENCE, self.read_answer(method)).await.expect("an answer in time");
            let answer = answer.expect("a whole answer before the close");
            if answer.status >= 200 {
                return answer;
            }
        }
    }

    /// Waits until the next response starts to arrive, without reading it.
    pub(crate) async fn answer_begun(&self) {
        timeout(PATIENCE, self.stream.readable()).await.expect("an answer in time").unwrap();
    }

    /// Reads until the server closes; `None` if it does not within `within`.
    pub(crate) async fn rest_within(&mut self, within: Duration) -> Option<Vec<u8>> {
        timeout(within, async { while self.read_more().await {} }).await.ok()?;
        Some(std::mem::take(&mut self.received))
    }

    /// Asserts that the server closes without sending anything.
    pub(crate) async fn expect_close(&mut self) {
        let rest = self.rest_within(PATIENCE).await.expect("a close in time");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Returns `None` if the server closes before the response is complete.
    async fn read_answer(&mut self, method: &str) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..head_end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let mut answer = Answer {
            status: status.parse().unwrap(),
            headers: lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        };
        let bodiless =
            method == "HEAD" || answer.status < 200 || matches!(answer.status, 204 | 304);
        if !bodiless {
            let length = answer.header("content-length").expect("a known length");
            let length: usize = length.parse().unwrap();
            while self.received.len() < length {
                if !self.read_more().await {
                    return None;
                }
            }
            answer.body = self.received.drain(..length).collect();
        }
        Some(answer)
    }

    /// Returns whether more bytes arrived; a reset counts as a close.
    async fn read_more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.received).await;
        read.is_ok_and(|count| count > 0)
    }
}

impl Answer {
    /// Returns the header `name`, in lower case, which must not occur twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(it, _)| it == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Returns the data of a success.
    pub(crate) fn data(&self) -> Value {
        let mut body = self.json();
        assert_eq!(body["success"], true, "{body}");
        body["data"].take()
    }

    /// Returns the code of a failure, after checking its common parts.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        assert_eq!(body["success"], false, "{body}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        let error = &body["error"];
        assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"));
        error["code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request over a new connection.
pub(crate) async fn call(address: SocketAddr, call: Call) -> Answer {
    Client::connect(address).await.call(call).await
}
