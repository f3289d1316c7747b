//! Operators' tasks on users and keys with the real program: while a server runs, and on a stopped
//! store.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    account::{Device, LOGIN, ME, PASSWORD, credentials},
    client::{Answer, Call, PATIENCE, call},
    folder::Folder,
    process::{Process, on, program, refused},
};

const EMAIL: &str = "ada@example.org";
const CONFIRM: &str = "/api/v5/auth/password-reset/confirm";
const KEYS: &str = "/.well-known/jwks.json";

/// Runs the program with these arguments on `folder` and returns its output.
async fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = timeout(PATIENCE, program(arguments, folder).output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(output.stderr));
    text(output.stdout)
}

async fn fails(folder: &Path, arguments: &[&str]) -> String {
    refused(program(arguments, folder)).await.stderr
}

async fn log_in(server: &Process, password: &str) -> Answer {
    call(server.address, credentials(LOGIN, EMAIL, password)).await
}

fn token(said: &str) -> &str {
    said.split_whitespace().find(|word| word.starts_with("cpr_")).unwrap()
}

async fn reset(server: &Process, token: &str, password: &str) -> u16 {
    let body = json!({"token": token, "new_password": password});
    call(server.address, Call::post(CONFIRM).value(&body)).await.status
}

#[tokio::test]
async fn users_are_managed_with_and_without_a_running_server() {
    let folder = Folder::new();
    let folder = folder.path();
    Process::start(on(folder, &[])).await.terminate().await;
    for round in 0..2 {
        let running = if round == 0 { None } else { Some(Process::start(on(folder, &[])).await) };
        let email = format!("user{round}@example.org");
        let made = succeeds(folder, &["user", "create", &email]).await;
        assert!(made.contains(&email) && made.contains("cpr_"), "{made}");
        let again = fails(folder, &["user", "create", &email]).await;
        assert!(again.contains("taken"), "{again}");
        let listed = succeeds(folder, &["user", "list"]).await;
        assert_eq!(listed.lines().count(), round + 1, "{listed}");
        succeeds(folder, &["user", "disable", &email]).await;
        let shown = succeeds(folder, &["user", "show", &email]).await;
        assert!(shown.contains("disabled"), "{shown}");
        let refused = fails(folder, &["user", "reset-password", &email]).await;
        assert!(refused.contains("the user is disabled"), "{refused}");
        succeeds(folder, &["user", "enable", &email]).await;
        let nobody = fails(folder, &["user", "show", "nobody@example.org"]).await;
        assert!(nobody.contains("no user has the address nobody@example.org"), "{nobody}");
        let no_factor = fails(folder, &["user", "remove-second-factor", &email]).await;
        assert!(no_factor.contains("two-factor authentication is not enabled"), "{no_factor}");
        if let Some(server) = running {
            server.terminate().await;
        }
    }
}

#[tokio::test]
async fn operator_resets_a_lost_password() {
    let folder = Folder::new();
    let folder = folder.path();
    let server = Process::start(on(folder, &[])).await;
    let device = Device::register(server.address, EMAIL).await;
    let said = succeeds(folder, &["user", "reset-password", EMAIL]).await;
    assert_eq!(reset(&server, token(&said), "another password").await, 200);
    assert_eq!(reset(&server, token(&said), "a third password").await, 400, "it is good once");
    device.expect_dead(server.address, "SESSION_REVOKED").await;
    assert_eq!(log_in(&server, PASSWORD).await.status, 401);
    let device = Device::of(&log_in(&server, "another password").await);
    let said = succeeds(folder, &["user", "revoke-sessions", EMAIL]).await;
    assert_eq!(said, "revoked sessions: 1\n");
    device.expect_dead(server.address, "SESSION_REVOKED").await;
    succeeds(folder, &["user", "disable", EMAIL]).await;
    assert_eq!(log_in(&server, "another password").await.code(), "INVALID_CREDENTIALS");
    server.terminate().await;
}

#[tokio::test]
async fn password_is_read_from_stdin() {
    let folder = Folder::new();
    let server = Process::start(on(folder.path(), &[])).await;
    let mut command: Command =
        program(&["user", "create", EMAIL, "--password-stdin"], folder.path());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{PASSWORD}\nmore").as_bytes()).await.unwrap();
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8(output.stdout).unwrap().contains("cpr_"));
    Device::of(&log_in(&server, PASSWORD).await);
    server.terminate().await;
}

/// Returns the ids of the server's keys.
async fn kids(server: &Process) -> Vec<String> {
    let keys = call(server.address, Call::get(KEYS)).await.json();
    let kid = |key: &serde_json::Value| key["kid"].as_str().unwrap().to_owned();
    keys["keys"].as_array().unwrap().iter().map(kid).collect()
}

#[tokio::test]
async fn key_rotation_and_master_key_replacement_keep_sessions() {
    let folder = Folder::new();
    let folder = folder.path();
    let server = Process::start(on(folder, &[])).await;
    let device = Device::register(server.address, EMAIL).await;
    let before = kids(&server).await;
    succeeds(folder, &["keys", "rotate"]).await;
    let seen = async {
        loop {
            let after = kids(&server).await;
            if after.len() > before.len() {
                return after;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let after = timeout(PATIENCE, seen).await.expect("a running server sees the rotation");
    assert_eq!((before.len(), after.len()), (2, 3));
    assert!(before.iter().all(|kid| after.contains(kid)));
    let listed = succeeds(folder, &["keys", "list"]).await;
    let states: Vec<_> = listed.lines().map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(states, [Some("retired"), Some("active"), Some("next")], "{listed}");
    device.expect_alive(server.address).await;

    let master = || std::fs::read_to_string(folder.join("master.key")).unwrap();
    let first = master();
    succeeds(folder, &["keys", "replace-master"]).await;
    assert!(first != master() && !folder.join("master.key.new").exists());
    device.expect_alive(server.address).await;
    server.terminate().await;

    // Also on a stopped store; the server then starts with the last key.
    succeeds(folder, &["keys", "replace-master"]).await;
    let server = Process::start(on(folder, &[])).await;
    let device = device.refreshed(server.address).await;
    device.expect_alive(server.address).await;
    server.terminate().await;

    std::fs::write(folder.join("master.key"), first).unwrap();
    let told = refused(on(folder, &[])).await.stderr;
    assert!(told.contains("not the master key"), "{told}");
}

#[tokio::test]
async fn master_key_of_the_environment_is_replaced() {
    let folder = Folder::new();
    let folder = folder.path();
    let (first, second) = ("11".repeat(32), "22".repeat(32));
    let with = |mut command: Command, master: &str| {
        command.env("CODITECT_MASTER_KEY", master);
        command
    };
    let server = Process::start(with(on(folder, &[]), &first)).await;
    let device = Device::register(server.address, EMAIL).await;
    let replace = || with(program(&["keys", "replace-master"], folder), &first);
    let told = refused(replace()).await.stderr;
    assert!(told.contains("CODITECT_NEW_MASTER_KEY"), "{told}");
    let output = replace().env("CODITECT_NEW_MASTER_KEY", &second).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    server.terminate().await;

    let told = refused(with(on(folder, &[]), &first)).await.stderr;
    assert!(told.contains("not the master key"), "{told}");
    let server = Process::start(with(on(folder, &[]), &second)).await;
    device.refreshed(server.address).await.expect_alive(server.address).await;
    let me = call(server.address, Call::get(ME).bearer(&device.token)).await;
    assert_eq!(me.status, 200);
    server.terminate().await;
}
