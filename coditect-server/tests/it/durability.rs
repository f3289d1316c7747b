//! Acknowledged writes survive any end of the program.
//!
//! Clients register, refresh, create, change and delete without a pause, and remember the
//! acknowledged writes and the one in flight. The program is killed and restarted: every
//! acknowledged write must be there, and the one in flight completely or not at all. Then it
//! continues in the same directory. (The page cache survives a kill, so this test cannot detect a
//! missing sync.)
//!
//! By default it runs few rounds. For more:
//!
//! ```text
//! CODITECT_DURABILITY_ROUNDS=200 cargo test -p coditect-server --test it durability
//! ```

use std::{collections::BTreeMap, env, net::SocketAddr, path::Path, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    account::{Device, PASSWORD, REFRESH, REGISTER, credentials},
    client::{Answer, Call, Client, call},
    folder::Folder,
    process::{Process, on, program},
};

const SESSIONS: &str = "/api/v5/sessions";
const WRITERS: usize = 4;
const ROUNDS: u64 = 8;
/// Number of sessions above which a writer deletes some.
const MANY: usize = 100;
/// Tokens must outlive all rounds, and the grace the time of a restart.
const FLAGS: [&str; 6] =
    ["--access-token-ttl", "24h", "--refresh-grace", "1h", "--log-level", "warn"];

/// A client with its own sessions.
struct Writer {
    token: String,
    /// Number of the next session, part of its path.
    next: u64,
    /// Number of writes started.
    step: u64,
    /// Acknowledged sessions by number.
    known: BTreeMap<u64, Known>,
    /// The last request, if it got no response.
    in_flight: Option<Write>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    id: String,
    revision: u64,
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Create(u64),
    Change(u64, u64),
    Delete(u64),
}

/// A client that creates accounts and refreshes the tokens of the newest one.
struct Registrar {
    next: u64,
    devices: Vec<Device>,
    in_flight: Option<String>,
}

/// All clients, whose knowledge carries over between rounds.
struct Load {
    writers: Vec<Writer>,
    registrar: Registrar,
}

/// Returns all fields of a session, so that a partial write would be visible.
fn body(number: u64, revision: u64) -> Value {
    let filling = "x".repeat(usize::try_from(revision % 7).unwrap() * 500);
    json!({
        "name": format!("session {number} revision {revision}"),
        "workspace_path": format!("/{number}"),
        "settings": {"number": number, "revision": revision, "filling": filling},
    })
}

impl Writer {
    async fn new(server: SocketAddr, index: usize) -> Self {
        let device = Device::register(server, &format!("writer-{index}@example.org")).await;
        Self { token: device.token, next: 0, step: 0, known: BTreeMap::new(), in_flight: None }
    }

    /// Writes until the server is gone.
    async fn run(&mut self, server: SocketAddr) {
        let Ok(mut client) = Client::try_connect(server).await else { return };
        loop {
            let write = self.next_write();
            self.in_flight = Some(write);
            let call = self.call(write).bearer(&self.token);
            let Some(answer) = client.try_call(call).await else { return };
            // The server is stopping or does not know the outcome.
            if answer.status == 503 {
                return;
            }
            self.acknowledge(write, &answer);
            self.in_flight = None;
            if answer.header("connection") == Some("close") {
                return;
            }
        }
    }

    /// Three creations, a change, and a deletion if there are many sessions.
    fn next_write(&mut self) -> Write {
        self.step += 1;
        let oldest = self.known.first_key_value().map(|(number, _)| *number);
        match (oldest, self.step % 5) {
            (Some(oldest), 3) => Write::Change(oldest, self.step),
            (Some(oldest), 4) if self.known.len() > MANY => Write::Delete(oldest),
            _ => Write::Create(self.next),
        }
    }

    fn call(&self, write: Write) -> Call {
        let path = |number: u64| format!("{SESSIONS}/{}", self.known[&number].id);
        match write {
            Write::Create(number) => Call::post(SESSIONS).value(&body(number, 0)),
            Write::Change(number, revision) => {
                Call::patch(&path(number)).value(&body(number, revision))
            }
            Write::Delete(number) => Call::delete(&path(number)),
        }
    }

    fn acknowledge(&mut self, write: Write, answer: &Answer) {
        match write {
            Write::Create(number) => {
                assert_eq!(answer.status, 201, "{}", answer.json());
                let id = answer.data()["id"].as_str().unwrap().to_owned();
                self.known.insert(number, Known { id, revision: 0 });
                self.next = number + 1;
            }
            Write::Change(number, revision) => {
                assert_eq!(answer.status, 200, "{}", answer.json());
                self.known.get_mut(&number).unwrap().revision = revision;
            }
            Write::Delete(number) => {
                assert_eq!(answer.status, 204);
                self.known.remove(&number);
            }
        }
    }

    /// Asserts that the list has the acknowledged sessions, and determines the outcome of the write
    /// in flight.
    async fn verify(&mut self, server: SocketAddr) {
        let mut found = self.listed(server).await;
        match self.in_flight.take() {
            Some(Write::Create(number)) => {
                if let Some(made) = found.get(&number) {
                    assert_eq!(made.revision, 0);
                    self.known.insert(number, made.clone());
                }
                self.next = number + 1;
            }
            Some(Write::Change(number, revision)) => {
                let known = self.known.get_mut(&number).unwrap();
                if found[&number].revision == revision {
                    known.revision = revision;
                }
            }
            Some(Write::Delete(number)) if !found.contains_key(&number) => {
                self.known.remove(&number);
            }
            Some(Write::Delete(_)) | None => {}
        }
        for (number, known) in &self.known {
            assert_eq!(found.remove(number).as_ref(), Some(known), "session {number}");
        }
        assert!(found.is_empty(), "never acknowledged, or deleted: {found:?}");
    }

    /// Returns all sessions, checking that each is complete.
    async fn listed(&self, server: SocketAddr) -> BTreeMap<u64, Known> {
        let mut found = BTreeMap::new();
        let mut query = "?limit=50".to_owned();
        loop {
            let page = Call::get(&format!("{SESSIONS}{query}")).bearer(&self.token);
            let page = call(server, page).await;
            assert_eq!(page.status, 200, "{}", page.json());
            let page = page.json();
            for session in page["data"].as_array().unwrap() {
                let number = session["settings"]["number"].as_u64().unwrap();
                let revision = session["settings"]["revision"].as_u64().unwrap();
                let whole = body(number, revision);
                for member in ["name", "workspace_path", "settings"] {
                    assert_eq!(session[member], whole[member]);
                }
                let id = session["id"].as_str().unwrap().to_owned();
                let twice = found.insert(number, Known { id, revision });
                assert!(twice.is_none(), "session {number} is there twice");
            }
            let Some(cursor) = page["next_cursor"].as_str() else { return found };
            query = format!("?limit=50&cursor={cursor}");
        }
    }
}

impl Registrar {
    /// Registers and refreshes until the server is gone.
    async fn run(&mut self, server: SocketAddr) {
        let Ok(mut client) = Client::try_connect(server).await else { return };
        loop {
            let email = format!("registered-{}@example.org", self.next);
            self.next += 1;
            self.in_flight = Some(email.clone());
            let register = credentials(REGISTER, &email, PASSWORD);
            let Some(answer) = client.try_call(register).await else { return };
            self.devices.push(Device::of(&answer));
            self.in_flight = None;
            for _ in 0..5 {
                let newest = self.devices.last_mut().unwrap();
                let token = json!({"refresh_token": newest.refresh_token});
                let refresh = Call::post(REFRESH).value(&token);
                let Some(answer) = client.try_call(refresh).await else { return };
                *newest = Device::of(&answer);
            }
        }
    }

    /// Asserts that every account exists with its newest tokens, and that the one in flight exists
    /// completely or not at all.
    async fn verify(&mut self, server: SocketAddr) {
        for device in &mut self.devices {
            device.expect_alive(server).await;
        }
        if let Some(newest) = self.devices.last_mut() {
            *newest = newest.refreshed(server).await;
        }
        if let Some(email) = self.in_flight.take() {
            let again = call(server, credentials(REGISTER, &email, PASSWORD)).await;
            self.devices.push(match again.status {
                409 => Device::login(server, &email).await,
                _ => Device::of(&again),
            });
        }
    }
}

impl Load {
    async fn new(server: SocketAddr) -> Self {
        let writers = join_all((0..WRITERS).map(|index| Writer::new(server, index))).await;
        Self { writers, registrar: Registrar { next: 0, devices: Vec::new(), in_flight: None } }
    }

    /// Works for `time`, then ends the server under load with `end`.
    async fn run<E>(
        self,
        server: SocketAddr,
        time: Duration,
        end: impl Future<Output = E>,
    ) -> (Self, E) {
        let mut writing = JoinSet::new();
        for mut writer in self.writers {
            writing.spawn(async move {
                writer.run(server).await;
                writer
            });
        }
        let mut registrar = self.registrar;
        let registering = tokio::spawn(async move {
            registrar.run(server).await;
            registrar
        });
        sleep(time).await;
        let ended = end.await;
        let load =
            Self { writers: writing.join_all().await, registrar: registering.await.unwrap() };
        (load, ended)
    }

    async fn verify(&mut self, server: SocketAddr) {
        for writer in &mut self.writers {
            writer.verify(server).await;
        }
        self.registrar.verify(server).await;
    }

    fn writes(&self) -> u64 {
        self.writers.iter().map(|writer| writer.step).sum()
    }
}

/// Starts the program on `folder` with long-lived tokens.
pub(crate) async fn start(folder: &Path) -> Process {
    Process::start(on(folder, &FLAGS)).await
}

/// Asserts that `check` finds no fault in the store of the killed program.
pub(crate) async fn checked(folder: &Path) {
    let checked = program(&["check"], folder).output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Number of kills.
pub(crate) fn rounds() -> u64 {
    env::var("CODITECT_DURABILITY_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_a_kill_under_load() {
    let folder = Folder::new();
    let mut server = start(folder.path()).await;
    let mut load = Load::new(server.address).await;
    for round in 0..rounds() {
        let time = Duration::from_millis(150 + 97 * (round % 6));
        let address = server.address;
        (load, _) = load.run(address, time, server.kill()).await;
        checked(folder.path()).await;
        server = start(folder.path()).await;
        load.verify(server.address).await;
    }
    assert!(load.writes() > 20, "{} writes", load.writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sigterm_under_load_exits_with_zero_and_keeps_acknowledged_writes() {
    let folder = Folder::new();
    let server = start(folder.path()).await;
    let load = Load::new(server.address).await;
    let address = server.address;
    let (mut load, ended) = load.run(address, Duration::from_millis(400), server.terminate()).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(load.writes() > 20, "{} writes", load.writes());
    load.verify(start(folder.path()).await.address).await;
}
