//! Large responses that clients do not read: their memory is bounded per connection, user and
//! process, and other users are served.

#![cfg(target_os = "linux")]

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{Empty, StreamBody};
use hyper::{Request, body::Frame, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    client::Call,
    folder::Folder,
    process::{Process, on},
    signed_in_session::SignedInSession,
    socket::Socket,
};

/// Close to the limit of a session's memory.
const MEMORY_BYTES: usize = 7_900_000;

/// Maximum growth of the server's memory: a quarter of one copy per reader.
const MAX_GROWTH_BYTES: usize = 96 << 20;

async fn started(folder: &Folder) -> (Process, SignedInSession) {
    let process = Process::start(on(folder.path(), &["--log-level", "warn"])).await;
    let signed_in = SignedInSession::at(process.address, "ada@example.org").await;
    (process, signed_in)
}

/// Fills the session's memory.
async fn fill(signed_in: &SignedInSession) {
    let value = Value::from("x".repeat(79_000));
    for front in 0..10 {
        let keys = (0..10).map(|key| (format!("k{front}{key}"), value.clone()));
        let saved = signed_in.patch("memory", &Value::Object(keys.collect())).await;
        assert_eq!(saved.status, 200);
    }
}

async fn assert_bounded(process: &Process, before: usize) {
    let grace = SignedInSession::at(process.address, "grace@example.org").await;
    assert_eq!(grace.get("restore").await.status, 200);
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes more");
}

/// Opens a connection that reads nothing.
async fn deaf(signed_in: &SignedInSession) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(signed_in.server).await.unwrap()
}

#[tokio::test]
async fn readers_of_a_large_memory_share_it() {
    let folder = Folder::new();
    let (process, signed_in) = started(&folder).await;
    fill(&signed_in).await;
    let before = process.peak_memory();
    let mut streams = Vec::new();
    for path in ["memory", "restore"].repeat(12) {
        let mut stream = deaf(&signed_in).await;
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            signed_in.part(path),
            signed_in.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for number in 0..12 {
        let mut stream = deaf(&signed_in).await;
        let head = format!(
            "GET {}?client=c{number} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            signed_in.part("ws"),
            signed_in.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    sleep(Duration::from_secs(3)).await;
    assert_bounded(&process, before).await;
    // A client that reads gets the whole response.
    let whole = signed_in.get("memory").await;
    assert!(whole.body.len() > MEMORY_BYTES && whole.data().as_object().unwrap().len() == 100);
    let restored = signed_in.get("restore").await.data();
    assert_eq!(restored["session_memory"].as_object().unwrap().len(), 100);
    let (_socket, restored) = Socket::open(&signed_in, "reader").await;
    assert_eq!(restored["data"]["session_memory"].as_object().unwrap().len(), 100);
    drop(streams);
    process.terminate().await;
}

#[tokio::test]
async fn streams_of_one_http2_connection_are_bounded_together() {
    let folder = Folder::new();
    let (process, signed_in) = started(&folder).await;
    fill(&signed_in).await;
    let before = process.peak_memory();
    let address = signed_in.server;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let requests = (0..120).map(|_| {
        let request = Request::get(format!("http://{address}{}", signed_in.part("memory")))
            .header("authorization", format!("Bearer {}", signed_in.token));
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())
    });
    let responses = futures_util::future::join_all(requests).await;
    assert!(responses.iter().all(|response| response.as_ref().unwrap().status() == 200));
    assert_bounded(&process, before).await;
    drop((responses, sender));
    connection.abort();
    process.terminate().await;
}

#[tokio::test]
async fn unread_responses_that_share_static_bytes_are_not_charged() {
    let folder = Folder::new();
    let flags = ["--log-level", "warn", "--max-unread-responses", "16MiB"];
    let process = Process::start(on(folder.path(), &flags)).await;
    for path in ["/api/v5/openapi.json", "/", "/client/http.js"] {
        hold_static(&process, path).await;
    }
    process.terminate().await;
}

/// Holds more responses of `path` than responses may take together, if they were charged.
async fn hold_static(process: &Process, path: &str) {
    let size = crate::client::call(process.address, Call::get(path)).await.body.len();
    assert!(size > 100, "{path}");
    // Larger in total than the limit on unread responses.
    let connections = (16 << 20) / (size * 100) + 1;
    let mut held = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(process.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1)
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let requests = (0..100).map(|_| {
            let request = Request::get(format!("http://{}{path}", process.address));
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())
        });
        let responses = futures_util::future::try_join_all(requests).await.unwrap();
        assert!(responses.iter().all(|response| response.status() == 200));
        held.push((responses, sender, connection));
    }
}

#[tokio::test]
async fn responses_beyond_the_share_of_a_user_are_refused_until_earlier_ones_are_read() {
    let folder = Folder::new();
    let flags = ["--log-level", "warn", "--max-unread-responses", "160MiB"];
    let process = Process::start(on(folder.path(), &flags)).await;
    let signed_in = SignedInSession::at(process.address, "ada@example.org").await;
    let made = signed_in.call(Call::post("/api/v5/sessions").value(&json!({"name": "more"}))).await;
    let path = format!("/api/v5/sessions/{}", made.data()["id"].as_str().unwrap());
    let more = SignedInSession { path, token: signed_in.token.clone(), server: signed_in.server };
    fill(&signed_in).await;
    fill(&more).await;
    let mut stream = deaf(&signed_in).await;
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        signed_in.part("memory"),
        signed_in.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let refused = more.get("memory").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "RESPONSES_UNREAD"));
    assert!(refused.header("retry-after").is_some());
    let grace = SignedInSession::at(process.address, "grace@example.org").await;
    fill(&grace).await;
    assert_eq!(grace.get("memory").await.status, 200);
    drop(stream);
    let mut last = 0;
    for _ in 0..50 {
        last = more.get("memory").await.status;
        if last == 200 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, 200);
    process.terminate().await;
}

/// A connection of HTTP/2, and requests to be sent by it.
async fn http2(address: SocketAddr) -> (SendRequest<PendingBody>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// A body of which `bytes` are sent at once, and the end never.
fn unfinished(bytes: usize) -> PendingBody {
    let beginning = format!("{{\"text\":\"{}", "x".repeat(bytes));
    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(beginning)));
    StreamBody::new(Box::pin(stream::iter([frame]).chain(stream::pending())))
}

type PendingBody = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

#[tokio::test]
async fn request_bodies_of_one_http2_connection_are_bounded_together() {
    let folder = Folder::new();
    let (process, signed_in) = started(&folder).await;
    let before = process.peak_memory();
    let (mut sender, connection) = http2(signed_in.server).await;
    // 120 bodies of 800 kB whose ends do not come, of each kind of route that has one in memory.
    let routes =
        [("PATCH", "memory"), ("PUT", "drafts/a.txt"), ("PUT", "files/b"), ("PUT", "state/c")];
    let requests = (0..120).map(|number| {
        let (method, part) = routes[number % routes.len()];
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{}", signed_in.server, signed_in.part(part)))
            .header("authorization", format!("Bearer {}", signed_in.token))
            .header("content-type", "application/json");
        sender.send_request(request.body(unfinished(800_000)).unwrap())
    });
    let responses = requests.map(tokio::spawn).collect::<Vec<_>>();
    sleep(Duration::from_secs(5)).await;
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes more");
    // Those beyond the share of the connection are refused, the others wait for their clients.
    let mut refused = 0;
    for response in responses {
        if response.is_finished() {
            let response = response.await.unwrap().unwrap();
            assert!(matches!(response.status().as_u16(), 413 | 429), "{}", response.status());
            refused += 1;
        } else {
            response.abort();
        }
    }
    assert!(refused > 60, "{refused}");
    let grace = SignedInSession::at(process.address, "grace@example.org").await;
    assert_eq!(grace.patch("memory", &json!({"k": "x".repeat(90_000)})).await.status, 200);
    drop(sender);
    connection.abort();
    process.terminate().await;
}

#[tokio::test]
async fn bodies_of_strangers_keep_nobody_from_signing_in() {
    let folder = Folder::new();
    let flags = ["--log-level", "warn", "--max-request-bodies", "16MiB"];
    let process = Process::start(on(folder.path(), &flags)).await;
    SignedInSession::at(process.address, "ada@example.org").await;
    let mut connections = Vec::new();
    let mut responses = Vec::new();
    for _ in 0..4 {
        let (mut sender, connection) = http2(process.address).await;
        for _ in 0..100 {
            let request = Request::post(format!("http://{}/api/v5/auth/login", process.address))
                .header("content-type", "application/json");
            let request = sender.send_request(request.body(unfinished(15_000)).unwrap());
            responses.push(tokio::spawn(request));
        }
        connections.push((sender, connection));
    }
    sleep(Duration::from_secs(3)).await;
    // An eighth of the limit is held, by bodies of 16 KiB.
    let held = responses.iter().filter(|response| !response.is_finished()).count();
    assert!((100..=128).contains(&held), "{held}");
    crate::account::Device::login(process.address, "ada@example.org").await;
    // A body of a stranger is limited itself.
    let large = Call::post("/api/v5/auth/login").value(&json!({"email": "x".repeat(20_000)}));
    let refused = crate::client::call(process.address, large).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    drop(connections);
    process.terminate().await;
}

#[tokio::test]
async fn unfinished_messages_of_a_users_sockets_are_bounded_together() {
    let folder = Folder::new();
    let (process, signed_in) = started(&folder).await;
    let before = process.peak_memory();
    // The beginning of a message, which is not the last frame, and its key.
    let mut frame = vec![0x01, 0x80 | 127];
    frame.extend(250_000_u64.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(vec![b'x'; 250_000]);
    let mut sockets = Vec::new();
    for session in 0..5 {
        let made =
            signed_in.call(Call::post("/api/v5/sessions").value(&json!({"name": "s"}))).await;
        let path = format!("/api/v5/sessions/{}", made.data()["id"].as_str().unwrap());
        let at = SignedInSession { server: signed_in.server, token: signed_in.token.clone(), path };
        for number in 0..64 {
            let (mut socket, _) = Socket::open(&at, &format!("c{session}-{number}")).await;
            // Those beyond the share of the user are closed meanwhile.
            let _closed = socket.0.get_mut().write_all(&frame).await;
            sockets.push(socket);
        }
    }
    assert_bounded(&process, before).await;
    let mut closed = 0;
    for socket in &mut sockets {
        closed += usize::from(!socket.is_silent().await);
    }
    assert!((100..300).contains(&closed), "{closed}");
    // A user's own sockets work again when those are gone.
    drop(sockets);
    let (mut socket, _) = Socket::open(&signed_in, "again").await;
    socket.update("memory", 1, json!({"k": "x".repeat(90_000)})).await;
    assert_eq!(socket.expect("ack").await["seq"], 1);
    process.terminate().await;
}
