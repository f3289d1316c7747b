//! Hundreds of deliberately slow clients against the real program: other clients are served all the
//! time, memory is bounded, and slow clients are disconnected.
//!
//! Most of them are from [slowhttptest](https://github.com/shekyan/slowhttptest); without it, those
//! tests are reported as skipped.

#![cfg(target_os = "linux")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    account::Device,
    client::{Call, PATIENCE, call},
    folder::Folder,
    process::{Process, on},
};

/// Duration of an attack, in seconds.
const ATTACK_S: &str = "12";

/// Maximum growth of the server's memory.
const MOST_BYTES: usize = 64 << 20;

/// Maximum response time for other clients, for 99 % of requests, on any machine.
const SOON: Duration = Duration::from_secs(1);
const AT_LAST: Duration = Duration::from_secs(5);

/// Time between the starts of two clients.
const APART: Duration = Duration::from_millis(5);

/// Larger than the socket buffers of both sides.
const LARGE_BYTES: usize = 24 << 20;

/// Starts the program with short deadlines and a frontend with a large file.
async fn started(folder: &Path) -> Process {
    let frontend = folder.join("frontend");
    fs::create_dir(&frontend).unwrap();
    fs::write(frontend.join("index.html"), "<p>page").unwrap();
    fs::write(frontend.join("large.bin"), vec![7; LARGE_BYTES]).unwrap();
    let deadlines = ["--header-timeout", "--body-timeout", "--idle-timeout"];
    let flags = deadlines.iter().flat_map(|flag| [*flag, "2s"]);
    let flags: Vec<&str> =
        flags.chain(["--frontend", frontend.to_str().unwrap(), "--log-level", "warn"]).collect();
    Process::start(on(&folder.join("data"), &flags)).await
}

#[expect(clippy::print_stderr, reason = "who runs the tests is to know what was not tested")]
async fn is_installed() -> bool {
    let found = Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).status().await.is_ok();
    if !found {
        eprintln!("skipped: slowhttptest is not installed on this machine");
    }
    found
}

/// Requests the health route until `attack` ends, and asserts that other clients were not affected.
async fn withstand<T>(process: &Process, attack: impl Future<Output = T>) -> T {
    let before = process.peak_memory();
    let address = process.address;
    let mut took = Vec::new();
    let asking = async {
        loop {
            let asked_at = Instant::now();
            let answer = call(address, Call::get("/healthz")).await;
            assert_eq!(answer.status, 200);
            took.push(asked_at.elapsed());
            sleep(Duration::from_millis(30)).await;
        }
    };
    let ended = tokio::select! {
        ended = attack => ended,
        () = asking => unreachable!("it asks for ever"),
    };
    took.sort();
    assert!(took.len() > 20, "it was asked {} times alone", took.len());
    assert!(took[took.len() * 99 / 100 - 1] < SOON && took[took.len() - 1] < AT_LAST, "{took:?}");
    let grown = process.peak_memory() - before;
    assert!(grown < MOST_BYTES, "{grown} bytes more");
    ended
}

/// Runs slowhttptest in `mode` on `path`, and returns its result.
async fn slowhttptest(address: SocketAddr, mode: &[&str], path: &str) -> String {
    let url = format!("http://{address}{path}");
    let mut command = Command::new("slowhttptest");
    command.args(mode).args(["-l", ATTACK_S, "-p", "1", "-v", "1", "-u", &url]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until only this test's connection is left, for the server and for the system.
async fn all_are_gone(address: SocketAddr) {
    let begun_at = Instant::now();
    loop {
        let metrics = call(address, Call::get("/metrics")).await;
        let metrics = String::from_utf8(metrics.body).unwrap();
        let open = metrics
            .lines()
            .find_map(|line| line.strip_prefix("coditect_http_connections "))
            .expect("the gauge of connections");
        let kept = kept_by_the_system(address.port());
        if open == "1" && kept == 0 {
            return;
        }
        assert!(
            begun_at.elapsed() < Duration::from_secs(6),
            "{open} are left, {kept} by the system"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the number of connections that the server has closed and that have unsent bytes.
fn kept_by_the_system(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let kept = table.lines().filter(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (address, _, state) = (columns.next(), columns.next(), columns.next());
        // FIN-WAIT-1, LAST-ACK and CLOSING.
        address.is_some_and(|it| it.ends_with(&local)) && matches!(state, Some("04" | "09" | "0B"))
    });
    kept.count()
}

/// Asserts that all connections were closed before the end of the attack.
#[track_caller]
fn assert_cut_off(told: &str) {
    assert!(told.contains("No open connections left"), "{told}");
}

#[tokio::test]
async fn slow_header_blocks_do_not_affect_others() {
    if !is_installed().await {
        return;
    }
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let mode = ["-H", "-c", "500", "-r", "250", "-i", "1", "-x", "24"];
    let attack = slowhttptest(process.address, &mode, "/api/v5/health");
    assert_cut_off(&withstand(&process, attack).await);
    all_are_gone(process.address).await;
    process.terminate().await;
}

#[tokio::test]
async fn slow_bodies_time_out_without_stalling() {
    if !is_installed().await {
        return;
    }
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let mode = ["-B", "-c", "300", "-r", "300", "-i", "1", "-f", "application/json"];
    let attack = slowhttptest(process.address, &mode, "/api/v5/auth/login");
    assert_cut_off(&withstand(&process, attack).await);
    all_are_gone(process.address).await;
    process.terminate().await;
}

#[tokio::test]
async fn slow_uploads_time_out_and_unauthorized_ones_are_refused_at_once() {
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let address = process.address;
    let token = Device::register(address, "ada@example.org").await.token;
    let session = Call::post("/api/v5/sessions").bearer(&token).json(r#"{"name":"s"}"#);
    let id = call(address, session).await.data()["id"].as_str().unwrap().to_owned();
    let upload = |number: usize, token: String| {
        let head = format!(
            "PUT /api/v5/sessions/{id}/files/{number}.bin HTTP/1.1\r\nHost: a\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n"
        );
        async move {
            sleep(APART * u32::try_from(number).unwrap()).await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reading, mut writing) = stream.into_split();
            let trickle = async {
                while writing.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(500)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut told = Vec::new();
            tokio::select! {
                // A reset after the response is a valid end as well.
                _end = reading.read_to_end(&mut told) => {}
                () = trickle => {}
            }
            String::from_utf8_lossy(&told).into_owned()
        }
    };
    let theirs = (0..100).map(|number| upload(number, token.clone()));
    let others = (0..100).map(|number| upload(number, "no-token".to_owned()));
    let attack = async {
        let both = futures_util::future::join(
            futures_util::future::join_all(theirs),
            futures_util::future::join_all(others),
        );
        timeout(PATIENCE, both).await.expect("an end in time")
    };
    let (theirs, others) = withstand(&process, attack).await;
    for told in theirs {
        assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("REQUEST_TIMEOUT"), "{told}");
    }
    for told in others {
        assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
    }
    all_are_gone(address).await;
    process.terminate().await;
}

#[tokio::test]
async fn slow_readers_are_disconnected_without_buffered_bytes() {
    if !is_installed().await {
        return;
    }
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let mode = ["-X", "-c", "200", "-r", "200", "-w", "10", "-y", "20", "-n", "1", "-z", "10"];
    let attack = slowhttptest(process.address, &mode, "/large.bin");
    // Its clients have enough to read to notice nothing until it is over.
    let watching = async {
        sleep(Duration::from_secs(5)).await;
        all_are_gone(process.address).await;
    };
    let (told, ()) = withstand(&process, futures_util::future::join(attack, watching)).await;
    assert!(told.contains("Hit test time limit"), "{told}");
    process.terminate().await;
}

#[tokio::test]
async fn idle_connections_do_not_affect_others_and_time_out() {
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let address = process.address;
    let attack = async {
        let mut idle = Vec::new();
        for number in 0..1000 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some have sent a request before, most never will.
            if number % 4 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            }
            idle.push(stream);
        }
        for mut stream in idle {
            let mut rest = Vec::new();
            let _closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("a close");
        }
    };
    withstand(&process, attack).await;
    all_are_gone(address).await;
    process.terminate().await;
}

#[tokio::test]
async fn http2_clients_that_never_read_are_disconnected() {
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let address = process.address;
    let client = || async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        // A window for everything, but the client does not read from its socket.
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(16 << 20)
                .initial_connection_window_size(1 << 30)
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
        let asking = async {
            let requests = (0..100).map(|_| {
                let uri = format!("http://{address}/large.bin");
                sender.send_request(Request::get(uri).body(Empty::<Bytes>::new()).unwrap())
            });
            futures_util::future::join_all(requests).await
        };
        // The connection is driven until the first responses arrive, and then left alone.
        let mut connection = Box::pin(connection);
        tokio::select! {
            _ended = connection.as_mut() => {}
            _answers = asking => {}
        }
        sleep(Duration::from_secs(6)).await;
        Some(connection)
    };
    let attack = futures_util::future::join_all((0..20).map(|_| client()));
    let connections = withstand(&process, attack).await;
    all_are_gone(address).await;
    drop(connections);
    process.terminate().await;
}

#[tokio::test]
async fn silent_http2_clients_are_disconnected() {
    let folder = Folder::new();
    let process = started(folder.path()).await;
    let address = process.address;
    let silent = |number| async move {
        sleep(APART * number).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The preface and an empty SETTINGS, without any acknowledgement afterwards.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        let _closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("a close");
    };
    let attack = futures_util::future::join_all((0..300).map(silent));
    withstand(&process, attack).await;
    all_are_gone(address).await;
    process.terminate().await;
}
