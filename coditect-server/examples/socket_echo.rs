//! A server with one route, a WebSocket that says what it is told: for suites of the protocol, and
//! as a peer for benches. It stands on the same HTTP and the same handshake as the product's own.
//!
//! ```text
//! cargo run -p coditect-server --example socket_echo -- --listen 127.0.0.1:9001
//! ```

use std::sync::Arc;

use coditect_server::{
    App, Config, Server,
    api::router::{Routes, route},
    http::{HandlerResult, Request},
    websocket::handshake::{Handshake, WebSocket, close_code},
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Method;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

/// The longest message that a suite of the protocol sends.
const LIMIT_BYTES: usize = 64 << 20;

async fn echo(_: Arc<App>, request: Request) -> HandlerResult {
    let (answer, socket) = Handshake::of(request, None)?.split(LIMIT_BYTES);
    tokio::spawn(async move {
        if let Some(socket) = socket.await {
            repeat(socket).await;
        }
    });
    Ok(answer)
}

async fn repeat(mut socket: WebSocket) {
    while let Some(said) = socket.next().await {
        let answered = match said {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await,
            Ok(_) => socket.flush().await,
            Err(error) => {
                if let Some(code) = close_code(&error) {
                    let close = CloseFrame { code: code.into(), reason: "".into() };
                    // Whoever has said nonsense may be gone by now.
                    let _gone = socket.close(Some(close)).await;
                }
                return;
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = ["--ephemeral".to_owned()].into_iter().chain(std::env::args().skip(1));
    let routes = Routes::of(vec![route(Method::GET, "/", echo)])?;
    let server = Server::bind_with(Config::from_flags(flags)?, routes).await?;
    print_address(&server);
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is how whoever starts it learns the port")]
fn print_address(server: &Server) {
    println!("listening on http://{}", server.local_addr());
}
