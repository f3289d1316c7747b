//! TLS: protocols, handshake, and renewal of the certificate.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::{Client, PATIENCE},
    folder::Folder,
    process::{Process, on, refused},
    server::Running,
};

/// A self-signed certificate in two files, and the client's configuration to trust it.
struct Pair {
    folder: Folder,
    certificate: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let folder = Folder::new();
        let certificate = write(folder.path());
        Self { folder, certificate }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn flags(&self) -> [String; 4] {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")]
    }

    async fn serving(&self, flags: &[&str]) -> Running {
        let own = self.flags();
        let all: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Running::start_sample(&all).await
    }
}

pub(crate) fn write(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    cert.der().clone()
}

pub(crate) async fn connect(
    address: SocketAddr,
    certificate: &CertificateDer<'static>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("https://localhost{path}");
    Request::builder().uri(uri).header("Host", "localhost").body(Empty::new()).unwrap()
}

pub(crate) async fn over_http1(stream: TlsStream<TcpStream>, path: &str) -> Response<Incoming> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request(path)).await.unwrap()
}

#[tokio::test]
async fn alpn_selects_http1_or_http2() {
    let pair = Pair::new();
    let server = pair.serving(&[]).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = connect(server.address, &pair.certificate, offered).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol().map(|it| str::from_utf8(it).unwrap());
        assert_eq!(agreed, chosen);
        let response = if chosen == Some("h2") {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request("/slow/0")).await.unwrap()
        } else {
            over_http1(stream, "/slow/0").await
        };
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"success":true,"data":"done"}"#);
    }
}

#[tokio::test]
async fn large_response_is_complete_over_tls() {
    let pair = Pair::new();
    let server = pair.serving(&[]).await;
    let stream = connect(server.address, &pair.certificate, &[]).await.unwrap();
    let body = over_http1(stream, "/large").await.into_body();
    assert!(body.collect().await.unwrap().to_bytes().len() > 32 << 20);
}

#[tokio::test]
async fn incomplete_handshake_times_out() {
    let pair = Pair::new();
    let server = pair.serving(&["--header-timeout", "300ms"]).await;
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::connect(server.address).await;
        client.send(sent).await;
        let begun_at = Instant::now();
        let rest = client.rest_within(PATIENCE).await.unwrap();
        assert!(!rest.starts_with(b"HTTP"), "nothing is answered in the clear");
        assert!(begun_at.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn header_deadline_includes_the_handshake() {
    let pair = Pair::new();
    let server = pair.serving(&["--header-timeout", "400ms"]).await;
    let mut silent = connect(server.address, &pair.certificate, &[]).await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(3), silent.read_to_end(&mut rest)).await;
    let _closed = read.expect("a close in time");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn tls_client_that_does_not_read_is_disconnected() {
    let pair = Pair::new();
    let server = pair.serving(&["--body-timeout", "300ms"]).await;
    let stream = connect(server.address, &pair.certificate, &[]).await.unwrap();
    let response = over_http1(stream, "/large").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err());
    let stopped = server.stop();
    timeout(Duration::from_secs(5), stopped).await.expect("nothing is left of it").unwrap();
}

#[tokio::test]
async fn sighup_loads_a_renewed_certificate_and_ignores_a_broken_one() {
    let mut pair = Pair::new();
    let data = Folder::new();
    let mut command = on(data.path(), &[]);
    command.args(pair.flags());
    let process = Process::start(command).await;
    let address = process.address;
    let before = pair.certificate.clone();
    drop(connect(address, &before, &[]).await.unwrap());

    fs::write(pair.path("cert.pem"), "half of it").unwrap();
    process.hang_up().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(connect(address, &before, &[]).await.unwrap());

    pair.certificate = write(pair.folder.path());
    process.hang_up().await;
    let begun_at = Instant::now();
    while connect(address, &pair.certificate, &[]).await.is_err() {
        assert!(begun_at.elapsed() < PATIENCE, "the new certificate is not there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(address, &before, &[]).await.is_err());
    let told = process.terminate().await.stderr;
    assert!(told.contains("cannot reload the TLS certificate"), "{told}");
    assert!(told.contains("TLS certificate reloaded"), "{told}");
}

#[tokio::test]
async fn url_has_its_scheme_and_errors_name_the_file() {
    let pair = Pair::new();
    let data = Folder::new();
    let mut command = on(data.path(), &[]);
    command.args(pair.flags());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 30];
    timeout(PATIENCE, child.stdout.as_mut().unwrap().read_exact(&mut line)).await.unwrap().unwrap();
    assert!(line.starts_with(b"listening on https://127.0.0."), "{line:?}");
    child.kill().await.unwrap();

    fs::remove_file(pair.path("key.pem")).unwrap();
    let mut command = on(data.path(), &[]);
    command.args(pair.flags());
    let told = refused(command).await.stderr;
    assert!(told.contains("--tls-key: cannot read ") && told.contains("key.pem"), "{told}");
    let mut command = on(data.path(), &[]);
    command.args(&pair.flags()[..2]);
    let told = refused(command).await.stderr;
    assert!(told.contains("--tls-cert and --tls-key must be set together"), "{told}");
}
