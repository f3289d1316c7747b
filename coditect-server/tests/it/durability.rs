//! What was acknowledged is there after the real program was killed, stopped, or started on a folder
//! that it must not touch.
//!
//! The kill loop has a few rounds here; `CODITECT_KILL_ROUNDS=500 cargo test -p coditect-server
//! --test it killed` is its long form.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    client::{Call, Client, call},
    program::{Program, refused},
};

const PASSWORD: &str = "testpass123";

/// How many clients write at once.
const CLIENTS: usize = 4;

/// What a client was told that is kept: its sessions' names, by id.
type Acknowledged = BTreeMap<String, String>;

/// Registers `email`; gives the access token.
async fn register(address: SocketAddr, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD}).to_string();
    let answer = call(address, Call::post("/api/v5/auth/register").json(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.data()["token"].as_str().unwrap().to_owned()
}

fn as_user(call: Call, token: &str) -> Call {
    call.header("Authorization", &format!("Bearer {token}"))
}

/// Creates, renames and deletes sessions until the server is gone; gives what was acknowledged, and
/// what was asked last and not answered.
fn work(address: SocketAddr, token: String, client: usize) -> JoinHandle<(Acknowledged, Value)> {
    tokio::spawn(async move {
        let mut kept = Acknowledged::new();
        for number in 0.. {
            let name = format!("{client}-{number}");
            let oldest = kept.first_key_value().map(|(id, _)| id.clone());
            let (request, asked) = match (number % 4, oldest) {
                (2, Some(id)) => {
                    let request = Call::new("PUT", &format!("/api/v5/sessions/{id}"));
                    (
                        request.json(json!({ "name": name }).to_string()),
                        json!({"rename": id, "name": name}),
                    )
                }
                (3, Some(id)) => {
                    let request = Call::new("DELETE", &format!("/api/v5/sessions/{id}"));
                    (request, json!({ "delete": id }))
                }
                _ => {
                    let request = Call::post("/api/v5/sessions");
                    (request.json(json!({ "name": name }).to_string()), json!({ "create": name }))
                }
            };
            let Some(answer) = Client::try_call(address, as_user(request, &token)).await else {
                return (kept, asked);
            };
            match answer.status {
                201 => {
                    let id = answer.data()["id"].as_str().unwrap().to_owned();
                    kept.insert(id, name);
                }
                200 => {
                    kept.insert(asked["rename"].as_str().unwrap().to_owned(), name);
                }
                204 => {
                    kept.remove(asked["delete"].as_str().unwrap());
                }
                // Refused while the server stops: nothing was done.
                503 => return (kept, Value::Null),
                other => panic!("{other}: {}", answer.json()),
            }
        }
        unreachable!("the numbers don't end")
    })
}

/// All of a user's sessions, page by page.
async fn sessions(address: SocketAddr, token: &str) -> Acknowledged {
    let mut all = Acknowledged::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v5/sessions?limit=200{cursor}");
        let answer = call(address, as_user(Call::get(&path), token)).await;
        let page = answer.json();
        for session in page["data"].as_array().unwrap() {
            let [id, name] =
                ["id", "name"].map(|field| session[field].as_str().unwrap().to_owned());
            all.insert(id, name);
        }
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

/// Asserts that `found` is what was acknowledged, with the last request done wholly or not at all.
fn compare(found: &Acknowledged, acknowledged: &Acknowledged, asked: &Value) {
    let mut done = acknowledged.clone();
    if let Some(name) = asked["create"].as_str() {
        let new = found.iter().find(|(id, _)| !acknowledged.contains_key(*id));
        if let Some((id, found)) = new {
            assert_eq!(found, name);
            done.insert(id.clone(), name.to_owned());
        }
    } else if let Some(id) = asked["delete"].as_str() {
        done.remove(id);
    } else if let Some(id) = asked["rename"].as_str() {
        done.insert(id.to_owned(), asked["name"].as_str().unwrap().to_owned());
    }
    let sound = found == acknowledged || *found == done;
    assert!(sound, "found {found:#?}\nacknowledged {acknowledged:#?}\nasked last {asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing_that_it_acknowledged() {
    let rounds = std::env::var("CODITECT_KILL_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut kept: Vec<(String, Acknowledged)> = Vec::new();
    for round in 0..rounds {
        let program = Program::on(folder.path()).await;
        for (token, acknowledged) in &kept {
            assert_eq!(sessions(program.address, token).await, *acknowledged, "from rounds before");
        }
        let mut workers = Vec::new();
        for client in 0..CLIENTS {
            let token = register(program.address, &format!("{round}-{client}@example.org")).await;
            workers.push((token.clone(), work(program.address, token, client)));
        }
        sleep(Duration::from_millis(100 + 70 * (round % 5))).await;
        program.kill().await;

        let program = Program::on(folder.path()).await;
        for (token, worker) in workers {
            let (acknowledged, asked) = worker.await.unwrap();
            assert!(!acknowledged.is_empty(), "round {round} did no work");
            let found = sessions(program.address, &token).await;
            compare(&found, &acknowledged, &asked);
            kept.push((token, found));
        }
        // Access tokens hold for a quarter of an hour: the long form looks at the newest only.
        kept.drain(..kept.len().saturating_sub(8));
        program.kill().await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::on(folder.path()).await;
    let token = register(program.address, "ada@example.org").await;
    let worker = work(program.address, token.clone(), 0);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(program.terminate().await.code(), Some(0));
    let (acknowledged, asked) = worker.await.unwrap();
    let program = Program::on(folder.path()).await;
    compare(&sessions(program.address, &token).await, &acknowledged, &asked);
}

#[tokio::test]
async fn a_second_server_on_a_folder_says_so_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::on(folder.path()).await;
    let token = register(program.address, "ada@example.org").await;
    let output = refused(folder.path(), &[]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("in use by another process"), "{told}");
    assert!(output.stdout.is_empty());
    let me = call(program.address, as_user(Call::get("/api/v5/auth/me"), &token)).await;
    assert_eq!(me.status, 200);
}

/// A folder with a user in it, and the path of its store.
async fn used_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::on(folder.path()).await;
    register(program.address, "ada@example.org").await;
    program.kill().await;
    let path = folder.path().join("store.redb");
    (folder, path)
}

async fn is_refused(folder: &Path, variables: &[(&str, &str)], says: &str) {
    let output = refused(folder, variables).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(says), "{told}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_damaged_store_is_told_and_left_as_it_is() {
    let (folder, path) = used_folder().await;
    let whole = std::fs::read(&path).unwrap();
    let mut no_header = whole.clone();
    no_header[..4_096].fill(0);
    for damaged in [b"garbage".to_vec(), Vec::new(), no_header, whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&path, &damaged).unwrap();
        is_refused(folder.path(), &[], "is damaged").await;
        assert!(std::fs::read(&path).unwrap() == damaged, "it was written to");
    }
    std::fs::write(&path, &whole).unwrap();
    Program::on(folder.path()).await.kill().await;
}

#[tokio::test]
async fn a_master_key_that_is_wrong_or_missing_is_told_and_nothing_is_lost() {
    let (folder, _) = used_folder().await;
    let wrong = [("CODITECT_MASTER_KEY", "00".repeat(32))];
    let wrong: Vec<_> = wrong.iter().map(|(name, key)| (*name, key.as_str())).collect();
    is_refused(folder.path(), &wrong, "master key").await;

    let (key, aside) = (folder.path().join("master.key"), folder.path().join("aside"));
    std::fs::rename(&key, &aside).unwrap();
    is_refused(folder.path(), &[], "master key").await;
    std::fs::rename(&aside, &key).unwrap();
    Program::on(folder.path()).await.kill().await;
}
