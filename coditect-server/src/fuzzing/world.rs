//! A server in this process with a signed-in user, and functions to exchange bytes with it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{Config, Server};

/// Maximum wait for anything.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which no more bytes are expected.
const SILENCE: Duration = Duration::from_millis(4);

pub(super) static WORLD: LazyLock<TestServer> = LazyLock::new(TestServer::new);

pub(super) struct TestServer {
    address: SocketAddr,
    pub(super) token: String,
    _runtime: Runtime,
}

/// Received bytes.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// Whether the server has closed the connection.
    is_ended: bool,
}

impl TestServer {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let flags = ["--listen", "127.0.0.1:0", "--ephemeral", "--access-token-ttl", "24h"];
        let mut config = Config::from_flags(flags).unwrap();
        // A static is never dropped, so that its keys would remain in a cluster.
        config.place.cluster_file = None;
        let server = runtime.block_on(Server::bind(config)).unwrap();
        let address = server.local_addr();
        runtime.spawn(server.run(std::future::pending()));
        let mut world = Self { address, token: String::new(), _runtime: runtime };
        let account = json!({"email": "ada@example.org", "password": "correct horse battery"});
        let registered = world.call("POST", "/api/v5/auth/register", &account);
        registered["data"]["token"].as_str().unwrap().clone_into(&mut world.token);
        world
    }

    /// Creates a session and returns its path.
    pub(super) fn session(&self) -> String {
        let made = self.call("POST", "/api/v5/sessions", &json!({"name": "work"}));
        format!("/api/v5/sessions/{}", made["data"]["id"].as_str().unwrap())
    }

    /// Fails unless the server still responds.
    pub(super) fn expect_alive(&self) {
        let mut stream = self.connect();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut received = Received::default();
        received.read(&mut stream, TIMEOUT);
        assert!(received.bytes.starts_with(b"HTTP/1.1 200 "), "{received}");
    }

    /// Sends a request that must succeed, and returns the body of its response.
    pub(super) fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (body, token) = (body.to_string(), &self.token);
        let identity = if token.is_empty() {
            String::new()
        } else {
            format!("Authorization: Bearer {token}\r\n")
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{identity}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        answer
            .split_once("\r\n\r\n")
            .map_or(Value::Null, |(_, body)| serde_json::from_str(body).unwrap_or_default())
    }

    /// Sends `bytes`, waits for silence, and then shuts down this side.
    pub(super) fn exchange(&self, bytes: &[u8]) -> Received {
        let mut stream = self.connect();
        // The server may have closed before reading everything.
        let _ = stream.write_all(bytes);
        let mut received = Received::default();
        received.read_all(&mut stream);
        received
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }
}

impl Received {
    /// Reads everything, shuts down this side after a silence, and reads up to the close.
    pub(super) fn read_all(&mut self, stream: &mut TcpStream) {
        self.read(stream, SILENCE);
        let _ = stream.shutdown(Shutdown::Write);
        self.read(stream, TIMEOUT);
        assert!(self.is_ended, "connection still open: {self}");
    }

    /// Reads the head of a response and at least one byte after it; returns the length of the head.
    pub(super) fn read_head(&mut self, stream: &mut TcpStream) -> usize {
        let mut piece = [0; 1 << 10];
        loop {
            let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end.filter(|end| end + 4 < self.bytes.len()) {
                return end + 4;
            }
            let length = match stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(length > 0, "connection closed early: {self}");
            self.bytes.extend_from_slice(&piece[..length]);
        }
    }

    /// Reads up to the close, or until no byte arrives for `patience`.
    fn read(&mut self, stream: &mut TcpStream, patience: Duration) {
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut piece = [0; 16 << 10];
        while !self.is_ended {
            match stream.read(&mut piece) {
                Ok(0) => self.is_ended = true,
                Ok(length) => self.bytes.extend_from_slice(&piece[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return;
                }
                // Interrupted by the timer of libFuzzer.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The server had closed the connection.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    self.is_ended = true;
                }
            }
        }
    }
}

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.bytes.escape_ascii())
    }
}
