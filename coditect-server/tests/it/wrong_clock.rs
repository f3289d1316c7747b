//! A start of the real program with a clock that is years ahead, and one with the clock corrected.
//!
//! The clock is that of a debug build, which a variable sets ahead.

#![cfg(all(unix, debug_assertions))]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};

use crate::{
    account::{Device, LOGIN, credentials},
    client::{Call, call},
    folder::Folder,
    process::{Process, on, program},
    signed_in_session::SignedInSession,
};

const EMAIL: &str = "ada@example.org";
const FLAGS: [&str; 4] = ["--sweep-interval", "1s", "--log-level", "warn"];

/// Time in which a server purges several times.
const SEVERAL_SWEEPS: Duration = Duration::from_secs(4);

async fn started(folder: &Folder, offset: Option<&str>) -> Process {
    let mut command = on(folder.path(), &FLAGS);
    if let Some(offset) = offset {
        command.env("CODITECT_TEST_CLOCK_OFFSET", offset);
    }
    Process::start(command).await
}

/// Creates something of each kind, and returns the paths that show it.
async fn fill(signed_in: &SignedInSession) -> Vec<String> {
    let file = Call::put(&signed_in.part("files/a.txt")).body(b"work".to_vec());
    assert_eq!(signed_in.call(file).await.status, 201);
    assert_eq!(signed_in.put("drafts/a.txt", &json!({"content": "unsaved"})).await.status, 200);
    assert_eq!(signed_in.patch("memory", &json!({"k": 1})).await.status, 200);
    assert_eq!(signed_in.keep("layout", b"bytes").await.status, 200);
    let post = async |path: &str, body: Value| {
        let made = signed_in.call(Call::post(path).value(&body)).await;
        assert_eq!(made.status, 201, "{path}: {}", made.json());
        made.data()
    };
    let talk = post("/api/v5/conversations", json!({})).await;
    let talk = format!("/api/v5/conversations/{}", talk["id"].as_str().unwrap());
    post(&format!("{talk}/messages"), json!({"content": "hello"})).await;
    post("/api/v5/agents", json!({"name": "helper"})).await;
    post("/api/v5/tenant/invitations", json!({"email": "bob@example.org", "role": "member"})).await;
    let days = json!({"name": "ci", "scopes": ["read"], "expires_in_days": 30});
    post("/api/v5/auth/tokens", days).await;
    let parts = ["", "files", "files/a.txt", "drafts", "memory", "state", "state/layout"];
    let mut paths: Vec<String> = parts.iter().map(|part| signed_in.part(part)).collect();
    paths.extend([format!("{talk}/messages"), talk]);
    paths.extend(["agents", "tenant/invitations", "auth/tokens"].map(|it| format!("/api/v5/{it}")));
    paths
}

async fn shown(signed_in: &SignedInSession, paths: &[String]) -> Vec<(String, Vec<u8>)> {
    let mut shown = Vec::new();
    for path in paths {
        let answer = signed_in.call(Call::get(path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        shown.push((path.clone(), answer.body.clone()));
    }
    shown
}

async fn reset_token(folder: &Folder) -> String {
    let mut command: Command = program(&["user", "reset-password", EMAIL], folder.path());
    let output = command.output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let word = printed.split_whitespace().find(|word| word.starts_with("cpr_"));
    word.unwrap_or_else(|| panic!("{printed}")).to_owned()
}

#[tokio::test]
async fn start_with_a_clock_years_ahead_removes_nothing_and_blocks_no_login() {
    let folder = Folder::new();
    let process = started(&folder, None).await;
    let signed_in = SignedInSession::at(process.address, EMAIL).await;
    let paths = fill(&signed_in).await;
    let before = shown(&signed_in, &paths).await;
    let device = Device::login(process.address, EMAIL).await;
    let reset = reset_token(&folder).await;
    process.terminate().await;

    // Ten years ahead it purges, refuses logins, and keeps what is written meanwhile.
    let process = started(&folder, Some("3650days")).await;
    for _ in 0..12 {
        call(process.address, credentials(LOGIN, EMAIL, "wrong password")).await;
    }
    let other = "grace@example.org";
    let grace = SignedInSession::at(process.address, other).await;
    let theirs = fill(&grace).await;
    sleep(SEVERAL_SWEEPS).await;
    let ended = process.terminate().await;
    assert!(ended.stderr.contains("clock is more than 30 days ahead"), "{}", ended.stderr);

    let process = started(&folder, None).await;
    sleep(SEVERAL_SWEEPS).await;
    let device = device.refreshed(process.address).await;
    let signed_in = SignedInSession {
        server: process.address,
        token: device.token.clone(),
        path: signed_in.path,
    };
    let after = shown(&signed_in, &paths).await;
    for ((path, before), (_, after)) in before.iter().zip(&after) {
        // The time of the last use, and the login that is the present one, are others.
        if !path.ends_with("/auth/tokens") && *path != signed_in.path {
            assert_eq!(String::from_utf8_lossy(before), String::from_utf8_lossy(after), "{path}");
        }
    }
    let device = Device::login(process.address, EMAIL).await;
    device.expect_alive(process.address).await;
    let token = Device::login(process.address, other).await.token;
    let grace = SignedInSession { server: process.address, token, path: grace.path };
    shown(&grace, &theirs).await;
    let next = json!({"token": reset, "new_password": "another password"});
    let confirm = Call::post("/api/v5/auth/password-reset/confirm").value(&next);
    let confirmed = call(process.address, confirm).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.json());
    let login = call(process.address, credentials(LOGIN, EMAIL, "another password")).await;
    assert_eq!(login.status, 200, "{}", login.json());
    process.terminate().await;
}
