//! The real program: its first line, signals and exit codes.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::client::{Call, PATIENCE, call};

fn program(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-server"));
    command
        .args(["--listen", "127.0.0.1:0", "--ephemeral"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts it and waits for its address.
async fn started(flags: &[&str]) -> (Child, SocketAddr, Lines<BufReader<ChildStdout>>) {
    let mut child = program(flags).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    let line = line.expect("a first line");
    let address = line.strip_prefix("listening on http://").unwrap();
    (child, address.parse().unwrap(), lines)
}

#[tokio::test]
async fn first_line_of_stdout_has_the_actual_port() {
    let (_child, address, _lines) = started(&[]).await;
    assert_ne!(address.port(), 0);
    let answer = call(address, Call::get("/api/v5/health")).await;
    assert_eq!(answer.data()["status"], "ok");
}

#[tokio::test]
async fn sigterm_and_sigint_exit_with_zero() {
    for signal in ["-TERM", "-INT"] {
        let (mut child, _, mut lines) = started(&[]).await;
        let id = child.id().unwrap().to_string();
        let killed = Command::new("kill").args([signal, &id]).status().await;
        assert!(killed.unwrap().success());
        let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(lines.next_line().await.unwrap(), None);
    }
}

#[tokio::test]
async fn address_in_use_exits_with_one() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-server"));
    command.args(["--ephemeral", "--listen", &address]);
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("cannot listen on {address}: ")), "{told}");
    // The cause occurs once.
    assert_eq!((told.lines().count(), told.matches("os error").count()), (1, 1), "{told}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn setting_out_of_bounds_is_refused_by_name() {
    let output = program(&["--access-token-ttl", "25h"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("--access-token-ttl") && told.contains("at most 24h"), "{told}");
}

#[tokio::test]
async fn log_has_one_line_per_request_without_client_data() {
    let (child, address, _lines) = started(&["--log-format", "json"]).await;
    let secret = Call::get("/api/v5/secret-path?token=secret-query")
        .header("Authorization", "Bearer secret-token")
        .header("X-Request-Id", "id-1");
    assert_eq!(call(address, secret).await.status, 404);
    let health = Call::get("/api/v5/health").header("X-Request-Id", "id-2");
    assert_eq!(call(address, health).await.status, 200);
    let id = child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!log.contains("secret"), "{log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["message"] == "request")
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!(lines[0]["route"], "-");
    assert_eq!(lines[0]["request_id"], "id-1");
    assert_eq!(lines[1]["route"], "/api/v5/health");
    assert_eq!((&lines[1]["method"], &lines[1]["status"]), (&"GET".into(), &200.into()));
    assert!(lines[1]["duration_ms"].is_number());
}
