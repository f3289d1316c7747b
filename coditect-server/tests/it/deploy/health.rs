//! The health check of an image that has only the program: `coditect-server health`.

use std::{net::SocketAddr, process::Output};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
    time::timeout,
};

use crate::{
    client::PATIENCE,
    folder::Folder,
    process::{Process, on},
    tls,
};

/// Runs the subcommand.
async fn health(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-server"));
    command.arg("health").args(arguments).envs(variables.iter().copied()).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.expect("an answer in time").unwrap()
}

/// Returns the error of a server that is not ready, after checking the exit code.
fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn ready_server_is_found_by_url_and_by_settings() {
    let data = Folder::new();
    let server = Process::start(on(data.path(), &[])).await;
    let url = format!("http://{}", server.address);
    let everywhere = format!("0.0.0.0:{}", server.address.port());
    let file = data.path().join("settings.toml");
    std::fs::write(&file, format!("listen = \"{}\"\n", server.address)).unwrap();
    for (arguments, variables) in [
        (&["--url", &url][..], &[][..]),
        (&["--listen", &everywhere], &[]),
        (&[], &[("CODITECT_LISTEN", &everywhere[..])]),
        (&["--config", file.to_str().unwrap()], &[]),
    ] {
        let output = health(arguments, variables).await;
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    let elsewhere = format!("{url}/api/v5/nothing");
    let told = refused(health(&["--url", &elsewhere], &[]).await);
    assert!(told.contains("/api/v5/nothing is not ready: status 404 Not Found"), "{told}");
    let address = server.address;
    server.terminate().await;
    let told = refused(health(&["--url", &url], &[]).await);
    assert!(told.contains(&format!("http://{address}/readyz is not ready: ")), "{told}");
}

#[tokio::test]
async fn tls_server_is_checked_without_verifying_its_certificate() {
    let data = Folder::new();
    tls::write(data.path());
    let path = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let flags = ["--tls-cert", &certificate, "--tls-key", &key];
    let server = Process::start(on(data.path(), &flags)).await;
    let listen = server.address.to_string();
    let variables = [("CODITECT_LISTEN", &listen[..]), ("CODITECT_TLS_CERT", &certificate)];
    let output = health(&[], &variables).await;
    assert!(output.status.success(), "{output:?}");
    let url = format!("https://localhost:{}", server.address.port());
    let output = health(&["--url", &url], &[]).await;
    assert!(output.status.success(), "{output:?}");
    refused(health(&["--listen", &listen], &[]).await);
}

#[tokio::test]
async fn response_of_another_server_is_not_ready() {
    for body in ["", "ok", "<h1>It works!</h1>", r#"{"status":"ready"}"#, r#"{"success":true}"#] {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", other.local_addr().unwrap());
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = other.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let told = refused(health(&["--url", &url], &[]).await);
        assert!(told.contains("not that of a coditect-server"), "{told}");
        answering.await.unwrap();
    }
}

#[tokio::test]
async fn silent_server_and_invalid_url_are_reported() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    let told = refused(health(&["--url", &format!("http://{address}")], &[]).await);
    assert!(told.contains("timeout"), "{told}");
    for (url, why) in [("127.0.0.1:80", "not a URL"), ("ftp://127.0.0.1", "must begin with")] {
        let told = refused(health(&["--url", url], &[]).await);
        assert!(told.contains(why), "{told}");
    }
}
