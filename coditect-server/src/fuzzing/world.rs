//! A server in this process, somebody who is signed in there, and bytes to and from it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{Config, Server};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// When nothing has come for so long, nothing more does.
const QUIET: Duration = Duration::from_millis(4);

pub(super) static WORLD: LazyLock<World> = LazyLock::new(World::new);

pub(super) struct World {
    address: SocketAddr,
    pub(super) token: String,
    _runtime: Runtime,
}

/// What came until the end.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// Whether the server has ended the connection.
    is_ended: bool,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let flags = ["--listen", "127.0.0.1:0", "--ephemeral", "--access-ttl", "24h"];
        let mut config = Config::from_flags(flags).unwrap();
        // A static is never dropped, and would leave its keys in a cluster.
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

    /// A new session's path.
    pub(super) fn session(&self) -> String {
        let made = self.call("POST", "/api/v5/sessions", &json!({"name": "work"}));
        format!("/api/v5/sessions/{}", made["data"]["id"].as_str().unwrap())
    }

    /// Whether it still answers.
    pub(super) fn expect_alive(&self) {
        let mut stream = self.connect();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut received = Received::default();
        received.read(&mut stream, PATIENCE);
        assert!(received.bytes.starts_with(b"HTTP/1.1 200 "), "{received}");
    }

    /// A request that is done.
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

    /// Sends `bytes`, waits until nothing more comes of them, and says that nothing more follows.
    pub(super) fn exchange(&self, bytes: &[u8]) -> Received {
        let mut stream = self.connect();
        // It may have left before it has read all.
        let _ = stream.write_all(bytes);
        let mut received = Received::default();
        received.read_all(&mut stream);
        received
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Received {
    /// Reads all that comes, and then, when the server has been told that nothing follows, its end.
    pub(super) fn read_all(&mut self, stream: &mut TcpStream) {
        self.read(stream, QUIET);
        let _ = stream.shutdown(Shutdown::Write);
        self.read(stream, PATIENCE);
        assert!(self.is_ended, "it stays: {self}");
    }

    /// Reads an answer's head, and something behind it at least; how long the head is.
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
            assert!(length > 0, "that is all: {self}");
            self.bytes.extend_from_slice(&piece[..length]);
        }
    }

    /// Reads on until the end, or until nothing comes for `patience`.
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
                // libFuzzer looks at its watch.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It had left.
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
