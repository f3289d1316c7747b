//! A server to attack, and the best case of an attacker: former signing keys and own accounts.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use coditect_auth::{
    Auth, KeyState, MasterKey, SealedKey, Settings, SigningKey, WrappedRootKey, entities,
    load_master_key,
};
use coditect_store::{Clock, ManualClock, Store, keyspace::Global};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    account::{Device, LOGIN, ME, PASSWORD, REFRESH, REGISTER, credentials},
    client::{Answer, Call, call},
    folder::{self, Folder},
    process::{Process, on, program},
};

/// Short, since tests wait for its end.
pub(super) const GRACE_S: u64 = 2;

pub(super) struct TestServer {
    folder: Folder,
    process: Mutex<Option<Process>>,
    address: std::sync::Mutex<std::net::SocketAddr>,
    /// The active signing key, which no attacker has: tokens signed by it must fail because of
    /// their content.
    pub(super) active: SigningKey,
    /// A former signing key, now removed.
    pub(super) gone: SigningKey,
    /// Signing key of another installation.
    pub(super) foreign: SigningKey,
    next: AtomicUsize,
}

/// A user with an account.
#[derive(Clone, Debug)]
pub(super) struct Somebody {
    pub(super) email: String,
    pub(super) device: Device,
}

impl TestServer {
    pub(super) async fn new() -> Self {
        let folder = Folder::new();
        let (active, gone) = prepare(folder.path()).await;
        let elsewhere = Folder::new();
        let (foreign, _) = prepare(elsewhere.path()).await;
        let process = start(folder.path()).await;
        Self {
            address: std::sync::Mutex::new(process.address),
            process: Mutex::new(Some(process)),
            folder,
            active,
            gone,
            foreign,
            next: AtomicUsize::new(0),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.terminate().await;
        }
    }

    /// Kills the server and restarts it with the same data.
    pub(super) async fn restart(&self) {
        let mut process = self.process.lock().await;
        if let Some(process) = process.take() {
            process.kill().await;
        }
        let again = start(self.folder.path()).await;
        *self.address.lock().unwrap() = again.address;
        *process = Some(again);
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        *self.address.lock().unwrap()
    }

    /// Runs an operator's subcommand.
    pub(super) async fn operator(&self, arguments: &[&str]) -> String {
        let output = program(arguments, self.folder.path()).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns a unique number.
    pub(super) fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request from a unique address.
    pub(super) async fn call(&self, request: Call) -> Answer {
        let number = self.number();
        let ip = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
        self.call_from(&ip, request).await
    }

    pub(super) async fn call_from(&self, ip: &str, request: Call) -> Answer {
        call(self.address(), request.header("X-Forwarded-For", ip)).await
    }

    pub(super) async fn register(&self) -> Somebody {
        let email = format!("somebody{}@example.org", self.number());
        let answer = self.call(credentials(REGISTER, &email, PASSWORD)).await;
        Somebody { device: Device::of(&answer), email }
    }

    pub(super) async fn login(&self, email: &str, password: &str) -> Answer {
        self.call(credentials(LOGIN, email, password)).await
    }

    pub(super) async fn refresh(&self, token: &str) -> Answer {
        self.call(Call::post(REFRESH).value(&json!({ "refresh_token": token }))).await
    }

    pub(super) async fn me(&self, token: &str) -> Answer {
        self.call(Call::get(ME).bearer(token)).await
    }

    /// Asserts that a token is refused everywhere, without revealing the failed check.
    pub(super) async fn refuses(&self, token: &str) {
        let answer = self.me(token).await;
        assert_eq!(answer.status, 401, "{}", answer.json());
        let code = answer.code();
        assert!(matches!(code.as_str(), "UNAUTHORIZED" | "SESSION_REVOKED"), "{code}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
    }

    /// Asserts that a user is still signed in.
    pub(super) async fn spares(&self, somebody: &Somebody) {
        let answer = self.me(&somebody.device.token).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    /// Returns a token of these parts, signed by the active key.
    pub(super) fn signed(&self, header: &Value, claims: &Value) -> String {
        sign(&self.active, &header.to_string(), &claims.to_string())
    }

    /// Returns the header of a valid token.
    pub(super) fn header(&self) -> Value {
        json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": self.active.kid().to_string() })
    }
}

/// Returns the claims of a token.
pub(super) fn claims(token: &str) -> Value {
    part(token, 1)
}

pub(super) fn part(token: &str, at: usize) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

pub(super) fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Returns a token of these texts, signed by `key`.
pub(super) fn sign(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    format!("{message}.{}", encoded(key.sign(message.as_bytes())))
}

async fn start(folder: &Path) -> Process {
    let grace = format!("{GRACE_S}s");
    let flags = [
        "--refresh-grace",
        &grace,
        "--trusted-proxy",
        "127.0.0.1",
        "--cookies",
        "--log-level",
        "warn",
    ];
    Process::start(on(folder, &flags)).await
}

/// Creates an installation with a retired key; returns the active key and the retired one.
async fn prepare(folder: &Path) -> (SigningKey, SigningKey) {
    let store = entities(Store::options()).open(folder::database(folder)).await.unwrap();
    let master: MasterKey = load_master_key(&folder.join("master.key"), &store).await.unwrap();
    let clock = ManualClock::new(Clock::system().now() - TimeDelta::hours(30));
    let time = Clock::from(&clock);
    let auth = Auth::open(store.clone(), master.clone(), time, Settings::default()).await.unwrap();
    let root = store.begin().get::<WrappedRootKey>(Global, ()).await.unwrap().unwrap();
    let root = root.open(&master).unwrap();
    let opened = |keys: Vec<SealedKey>| {
        let active = keys.iter().find(|key| matches!(key.state, KeyState::Active { .. }));
        active.unwrap().open(&root).unwrap()
    };
    let gone = opened(auth.signing_keys().await.unwrap());
    auth.rotate_keys().await.unwrap();
    clock.advance(TimeDelta::hours(29));
    auth.rotate_due_keys().await.unwrap();
    let keys = auth.signing_keys().await.unwrap();
    assert!(matches!(keys[0].state, KeyState::Destroyed { .. }));
    let active = opened(keys);
    store.database().close().await;
    (active, gone)
}
