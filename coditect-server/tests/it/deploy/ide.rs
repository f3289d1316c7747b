//! A back end in place of the IDE: it reports its requests, and its WebSockets echo.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// Runs until dropped.
pub(super) struct Ide {
    pub(super) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Ide {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                let answer = service_fn(move |request| {
                    count.fetch_add(1, Ordering::Relaxed);
                    answer(request)
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { address, asked, task }
    }

    /// Returns the number of requests.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Ide {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        let told = request.headers().get("x-auth-user").cloned();
        tokio::spawn(echo(hyper::upgrade::on(&mut request)));
        let mut answer = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "upgrade")
            .header(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(user) = told {
            answer = answer.header("x-told-user", user);
        }
        return Ok(answer.body(Full::default()).unwrap());
    }
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let mut headers = serde_json::Map::new();
    for (name, value) in &head.headers {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        values.as_array_mut().unwrap().push(value);
    }
    let told = json!({
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "headers": headers,
        "bytes": bytes,
    });
    let answer = Response::builder().header("x-frame-options", "ALLOWALL");
    Ok(answer.body(Full::from(told.to_string())).unwrap())
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let stream = TokioIo::new(upgrade.await.unwrap());
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (sink, stream) = socket.split();
    let echoed = stream.filter(|message| {
        let is_said = message.as_ref().is_ok_and(|it| it.is_text() || it.is_binary());
        std::future::ready(is_said)
    });
    // Until either side disconnects.
    let _left = echoed.forward(sink).await;
}
