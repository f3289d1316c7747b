//! Minimal clients, so that the measurement is dominated by the server.

use std::{fmt::Write as _, net::SocketAddr};

use coditect_benches::Outcome;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

/// Returns the bytes of a request.
pub(crate) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n");
    let body = body.map(Value::to_string).unwrap_or_default();
    // Writing into a string does not fail.
    if let Some(token) = token {
        let _ = write!(text, "Authorization: Bearer {token}\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    let _ = write!(text, "\r\n{body}");
    text.into_bytes()
}

/// A persistent connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(64 << 10) })
    }

    /// Returns the body of the successful response to `request`.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Outcome<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the server has left".into());
            }
            if let Some(body) = whole(&self.received)? {
                return Ok(body.to_vec());
            }
        }
    }
}

/// Returns the body of a response once it is complete.
fn whole(received: &[u8]) -> Outcome<Option<&[u8]>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&received[..end])?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(head.into());
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>())
    });
    let body = &received[end + 4..];
    let length = length.transpose()?.unwrap_or_default();
    Ok((body.len() >= length).then_some(body))
}

/// A WebSocket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn open(server: SocketAddr, path: &str, token: Option<&str>) -> Outcome<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://bench{path}").into_client_request()?;
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
            request.headers_mut().insert("authorization", bearer);
        }
        Ok(Self(client_async(request, stream).await?.0))
    }

    pub(crate) async fn feed(&mut self, text: String) -> Outcome<()> {
        Ok(self.0.feed(Message::text(text)).await?)
    }

    pub(crate) async fn flush(&mut self) -> Outcome<()> {
        Ok(self.0.flush().await?)
    }

    /// Returns the next text message.
    pub(crate) async fn hear(&mut self) -> Outcome<String> {
        loop {
            match self.0.next().await.ok_or("the server has left")?? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(close) => return Err(format!("closed: {close:?}").into()),
                _ => {}
            }
        }
    }
}
