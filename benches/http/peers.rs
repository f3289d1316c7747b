//! The peers of the server: the same crates without the product.

use std::{convert::Infallible, net::SocketAddr, thread};

use coditect_benches::Outcome;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::{
    Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// hyper with a handler that returns a constant.
pub(crate) fn hello() -> Outcome<SocketAddr> {
    let serve = |stream| async {
        let hello = service_fn(|_: hyper::Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
        });
        // A client that disconnects is no failure.
        let _left = http1::Builder::new().serve_connection(TokioIo::new(stream), hello).await;
    };
    listen(serve)
}

/// A tungstenite echo.
pub(crate) fn echo() -> Outcome<SocketAddr> {
    let serve = |stream| async {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    };
    listen(serve)
}

/// Serves the connections of an ephemeral port on its own threads until the end.
fn listen<F, Fut>(serve: F) -> Outcome<SocketAddr>
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let _slower = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
        });
    });
    Ok(address)
}
