//! The limit on open files: connections leave some to the store.

#![cfg(target_os = "linux")]

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, process::Command, time::sleep};

use crate::{
    client::{Call, Client},
    folder::Folder,
    process::{Process, on, refused},
    signed_in_session::SignedInSession,
};

/// Runs `command` under limits on open files, in the syntax of `ulimit`.
fn under(limits: &str, command: &Command) -> Command {
    let command = command.as_std();
    let mut limited = Command::new("bash");
    limited.args(["-c", &format!("{limits}; exec \"$@\""), "bash"]).arg(command.get_program());
    limited.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.stdin(std::process::Stdio::null());
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    limited.kill_on_drop(true);
    limited
}

#[tokio::test]
async fn idle_connections_leave_descriptors_to_the_store() {
    let folder = Folder::new();
    let flags = ["--idle-timeout", "10m"];
    let process = Process::start(under("ulimit -n 512", &on(folder.path(), &flags))).await;
    let signed_in = SignedInSession::at(process.address, "ada@example.org").await;
    let mut own = Client::connect(process.address).await;
    assert_eq!(own.call(Call::get("/healthz")).await.status, 200);
    let mut idle = Vec::new();
    // More than the descriptors, but fewer than the listen queue.
    for _ in 0..320 {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        idle.push(stream);
    }
    sleep(Duration::from_secs(1)).await;
    // More than a log segment.
    for number in 0..60 {
        let patch = json!({"k": format!("{number}{}", "x".repeat(90_000))});
        let call = Call::patch(&signed_in.part("memory")).bearer(&signed_in.token).value(&patch);
        assert_eq!(own.call(call).await.status, 200, "{number}");
    }
    drop(idle);
    let ended = process.terminate().await;
    assert!(ended.stderr.contains("too low for --max-connections"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("Too many open files"), "{}", ended.stderr);
}

#[tokio::test]
async fn soft_limit_is_raised_for_the_connections() {
    let folder = Folder::new();
    let flags = ["--max-connections", "1000"];
    let process = Process::start(under("ulimit -Sn 64", &on(folder.path(), &flags))).await;
    let ended = process.terminate().await;
    assert!(!ended.stderr.contains("too low for --max-connections"), "{}", ended.stderr);
}

#[tokio::test]
async fn limit_without_room_for_connections_is_refused() {
    let folder = Folder::new();
    let told = refused(under("ulimit -n 128", &on(folder.path(), &[]))).await.stderr;
    assert!(told.contains("the limit on open files is 128"), "{told}");
}
