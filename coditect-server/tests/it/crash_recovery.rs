//! The program is killed during uploads and WebSocket updates: acknowledged changes are there,
//! others are absent or complete, and a check of the store finds no fault.
//!
//! ```text
//! CODITECT_DURABILITY_ROUNDS=200 cargo test -p coditect-server --test it crash_recovery
//! ```

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Call, Client},
    durability::{checked, rounds, start},
    folder::Folder,
    signed_in_session::SignedInSession,
    socket::Socket,
};

/// Number of updates in flight.
const IN_FLIGHT: u64 = 16;

/// A WebSocket client: sent and acknowledged updates.
#[derive(Debug, Default)]
struct Tab {
    name: String,
    said: u64,
    acked: u64,
}

/// A client that overwrites one file repeatedly.
#[derive(Debug, Default)]
struct Uploader {
    path: String,
    begun: u64,
    acked: u64,
}

/// Returns the content of a revision: several transactions long, and unique.
fn content(revision: u64) -> Vec<u8> {
    let length = 400_000 + usize::try_from(revision % 5).unwrap() * 700_000;
    revision.to_le_bytes().into_iter().cycle().take(length).collect()
}

impl Tab {
    async fn run(mut self, signed_in: &SignedInSession) -> Self {
        // The server may be killed before the handshake completes.
        let Some((Socket(mut socket), restored)) = Socket::try_open(signed_in, &self.name).await
        else {
            return self;
        };
        self.settle(&restored);
        loop {
            while self.said < self.acked + IN_FLIGHT {
                self.said += 1;
                let patch = json!({ &self.name: self.said });
                let update = json!({"type": "memory.update", "seq": self.said, "data": patch});
                if socket.feed(Message::text(update.to_string())).await.is_err() {
                    return self;
                }
            }
            if socket.flush().await.is_err() {
                return self;
            }
            let Some(Ok(Message::Text(text))) = socket.next().await else { return self };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "ack" {
                assert_eq!(frame["seq"], self.acked + 1, "acknowledged once, in order");
                self.acked += 1;
            }
        }
    }

    /// Determines the outcome of the last updates from the restored state.
    fn settle(&mut self, restored: &Value) {
        let done = restored["seq"].as_u64().unwrap();
        assert!((self.acked..=self.said).contains(&done), "{done} is done of {self:?}");
        let kept = restored["data"]["session_memory"][&self.name].as_u64().unwrap_or_default();
        assert_eq!(kept, done, "what is numbered as done is what is done");
        (self.said, self.acked) = (done, done);
    }
}

impl Uploader {
    async fn run(mut self, signed_in: &SignedInSession) -> Self {
        let Ok(mut client) = Client::try_connect(signed_in.server).await else { return self };
        loop {
            self.begun += 1;
            let put = Call::put(&signed_in.part(&self.path))
                .bearer(&signed_in.token)
                .body(content(self.begun));
            let Some(answer) = client.try_call(put).await else { return self };
            assert!(matches!(answer.status, 200 | 201), "{}", answer.json());
            self.acked = self.begun;
        }
    }

    async fn verify(&mut self, signed_in: &SignedInSession) {
        let found = signed_in.get(&self.path).await;
        if found.status == 404 {
            assert_eq!(self.acked, 0);
            return;
        }
        let whole = [self.acked, self.begun].into_iter().find(|it| found.body == content(*it));
        self.acked = whole.expect("the last that was acknowledged, or the one after it, whole");
        self.begun = self.acked;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_and_updates_survive_a_kill_or_are_absent() {
    let folder = Folder::new();
    let mut server = start(folder.path()).await;
    let mut signed_in = SignedInSession::at(server.address, "ada@example.org").await;
    let mut tabs = ["one", "two", "three"].map(|name| Tab { name: name.into(), ..Tab::default() });
    let mut uploaders = ["files/a", "files/deep/b"]
        .map(|path| Uploader { path: path.into(), ..Uploader::default() });
    for round in 0..rounds() {
        let end = async {
            sleep(Duration::from_millis(200 + 83 * (round % 5))).await;
            server.kill().await
        };
        let [one, two, three] = tabs;
        let [first, second] = uploaders;
        let working = async {
            tokio::join!(
                one.run(&signed_in),
                two.run(&signed_in),
                three.run(&signed_in),
                first.run(&signed_in),
                second.run(&signed_in)
            )
        };
        let ((one, two, three, first, second), _) = tokio::join!(working, end);
        (tabs, uploaders) = ([one, two, three], [first, second]);
        checked(folder.path()).await;
        server = start(folder.path()).await;
        signed_in.server = server.address;
        for uploader in &mut uploaders {
            uploader.verify(&signed_in).await;
        }
    }
    for tab in &mut tabs {
        let (_, restored) = Socket::open(&signed_in, &tab.name).await;
        tab.settle(&restored);
        assert!(tab.acked > 0, "{tab:?}");
    }
    server.kill().await;
    checked(folder.path()).await;
}
