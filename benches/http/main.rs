//! Measures the cost of a request: the server's responses per second against a bare hyper.
//!
//! `cargo run --profile dist -p coditect-benches --bin http [-- --seconds 2 --rounds 5 --clients
//! 32]`
//!
//! - Each client keeps one connection, with one request in flight. Clients, product and peers share
//!   the machine; all take turns in each round.
//! - The peer of requests is hyper with a handler that returns a constant; the peer of socket
//!   updates is a bare tungstenite echo, with frames of the same length.
//! - PUTs and updates are durable when they are answered. Each client has its own session.

mod peers;
mod wire;

use std::{
    fs,
    io::{Write as _, stdout},
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use coditect_benches::{
    Outcome,
    lines::{Line, per_second, table},
    progress,
};
use coditect_server::{Config, Server};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::wire::{Connection, Socket, request};

/// Measures the cost of a request.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Duration of each contender in a round, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Number of rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of concurrent clients.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// File that the table is written to.
    #[arg(long, default_value = "benches/http.md")]
    markdown: PathBuf,
}

/// Number of updates in flight per client.
const IN_FLIGHT: u64 = 16;
/// Sessions of each client: slightly more than a page.
const SESSIONS: usize = 60;

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let said = format!(
        "{} clients with one connection each. Writes are durable when they are answered; \
         {IN_FLIGHT} updates are in flight per client.",
        plan.clients
    );
    let table = table("Cost of a request", &said, &run(&plan)?, plan.rounds);
    stdout().write_all(table.as_bytes())?;
    Ok(fs::write(&plan.markdown, table)?)
}

/// A client of the product.
struct Client {
    token: String,
    session: String,
}

fn run(plan: &Plan) -> Outcome<Vec<Line>> {
    let folder = tempfile::tempdir_in(".")?;
    let (ours, stop) = serve(folder.path())?;
    let hello = peers::hello()?;
    let echo = peers::echo()?;
    let runtime = Runtime::new()?;
    let clients = runtime.block_on(async {
        let mut clients = Vec::new();
        for n in 0..plan.clients {
            clients.push(register(ours, n).await?);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(clients)
    })?;
    let turn = Duration::from_secs_f64(plan.seconds);
    let mut lines = [
        ("bare hyper: hello", None),
        ("GET /healthz", Some(0)),
        ("GET /auth/verify", Some(0)),
        ("GET /sessions/{id}", Some(0)),
        ("GET /sessions, 50 of them", Some(0)),
        ("PUT /sessions/{id}/editor", Some(0)),
        ("bare tungstenite: echo", None),
        ("updates over a socket", Some(6)),
    ]
    .map(Line::new);
    for round in 1..=plan.rounds {
        progress(&format!("round {round} of {}", plan.rounds))?;
        let of = |server: SocketAddr, ask: &dyn Fn(&Client) -> Vec<u8>| {
            let asked = clients.iter().map(ask).collect();
            runtime.block_on(requests(turn, server, asked))
        };
        let get = |path: &str, token: &str| request("GET", path, Some(token), None);
        let api = |path: &str| format!("/api/v5{path}");
        let editor =
            json!({"tabs": [{"path": "src/main.rs", "cursor": {"line": 120, "column": 6}}]});
        lines[0].rates.push(of(hello, &|_| request("GET", "/", None, None))?);
        lines[1].rates.push(of(ours, &|_| request("GET", "/healthz", None, None))?);
        lines[2].rates.push(of(ours, &|it| get(&api("/auth/verify"), &it.token))?);
        let session = |it: &Client| api(&format!("/sessions/{}", it.session));
        lines[3].rates.push(of(ours, &|it| get(&session(it), &it.token))?);
        lines[4].rates.push(of(ours, &|it| get(&api("/sessions?limit=50"), &it.token))?);
        let put = |it: &Client| {
            let path = format!("{}/editor", session(it));
            request("PUT", &path, Some(&it.token), Some(&editor))
        };
        lines[5].rates.push(of(ours, &put)?);
        lines[6].rates.push(runtime.block_on(said(turn, echo, plan.clients))?);
        lines[7].rates.push(runtime.block_on(updates(turn, ours, &clients))?);
    }
    progress("")?;
    // If it has already ended, the rates show it.
    let _ended = stop.send(());
    Ok(lines.into())
}

/// The product, on its own threads.
fn serve(folder: &std::path::Path) -> Outcome<(SocketAddr, oneshot::Sender<()>)> {
    let data = folder.to_str().ok_or("the folder's name is not UTF-8")?;
    let flags = ["--listen", "127.0.0.1:0", "--data", data, "--access-token-ttl", "24h"];
    let config = Config::from_flags(flags)?;
    let runtime = Runtime::new()?;
    let server = runtime.block_on(Server::bind(config))?;
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::spawn(move || {
        runtime.block_on(server.run(async {
            let _dropped = stopped.await;
        }));
    });
    Ok((address, stop))
}

async fn register(server: SocketAddr, number: usize) -> Outcome<Client> {
    let mut connection = Connection::open(server).await?;
    let new =
        json!({"email": format!("user{number}@example.org"), "password": "correct horse battery"});
    let mut post = async |path: &str, token: Option<&str>, body: &Value| -> Outcome<Value> {
        let answer = connection.ask(&request("POST", path, token, Some(body))).await?;
        Ok(serde_json::from_slice::<Value>(&answer)?["data"].take())
    };
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("no such member");
    let token = text(&post("/api/v5/auth/register", None, &new).await?["token"])?;
    let mut session = String::new();
    for n in 0..SESSIONS {
        let new = json!({"name": format!("session {n}"), "workspacePath": "/workspace/bench"});
        session = text(&post("/api/v5/sessions", Some(&token), &new).await?["id"])?;
    }
    Ok(Client { token, session })
}

/// Returns the rate of responses per second, each client repeating its request on one connection.
async fn requests(turn: Duration, server: SocketAddr, asked: Vec<Vec<u8>>) -> Outcome<f64> {
    let done = AtomicU64::new(0);
    let mut connections = Vec::new();
    for request in asked {
        connections.push((Connection::open(server).await?, request));
    }
    let started = Instant::now();
    let clients = connections.iter_mut().map(|(connection, request)| async {
        while started.elapsed() < turn {
            connection.ask(request).await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    try_join_all(clients).await?;
    Ok(per_second(done.load(Ordering::Relaxed), started.elapsed()))
}

/// Returns a frame that moves a cursor.
fn moved(seq: u64) -> String {
    let data = json!({"tabs": [{"path": "src/main.rs", "cursor": {"line": seq, "column": 6}}]});
    json!({"type": "editor.update", "seq": seq, "data": data}).to_string()
}

async fn said(turn: Duration, echo: SocketAddr, clients: usize) -> Outcome<f64> {
    let mut sockets = Vec::new();
    for _ in 0..clients {
        sockets.push((Socket::open(echo, "/", None).await?, 0));
    }
    exchange(turn, sockets).await
}

async fn updates(turn: Duration, server: SocketAddr, clients: &[Client]) -> Outcome<f64> {
    let mut sockets = Vec::new();
    for Client { token, session } in clients {
        let path = format!("/api/v5/sessions/{session}/ws?client=bench");
        let mut socket = Socket::open(server, &path, Some(token)).await?;
        let restored: Value = serde_json::from_str(&socket.hear().await?)?;
        sockets.push((socket, restored["seq"].as_u64().ok_or("no seq")?));
    }
    exchange(turn, sockets).await
}

/// Returns the rate of acknowledged frames per second.
async fn exchange(turn: Duration, mut sockets: Vec<(Socket, u64)>) -> Outcome<f64> {
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    let clients = sockets.iter_mut().map(|(socket, seq)| async {
        let mut heard = *seq;
        while started.elapsed() < turn {
            while *seq < heard + IN_FLIGHT {
                *seq += 1;
                socket.feed(moved(*seq)).await?;
            }
            socket.flush().await?;
            socket.hear().await?;
            heard += 1;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    try_join_all(clients).await?;
    Ok(per_second(done.load(Ordering::Relaxed), started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_measured() {
        let plan = Plan { seconds: 0.05, rounds: 1, clients: 2, ..Plan::parse_from([""]) };
        let lines = run(&plan).unwrap();
        assert!(lines.iter().all(|line| line.rates.len() == 1 && line.rates[0] > 0.0), "{lines:?}");
    }
}
