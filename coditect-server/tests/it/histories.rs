//! Several clients of the real program, which is killed and restarted; their history must be
//! linearizable (checked by `coditect-histories`).
//!
//! The sections of a session's state are registers: a client saves numbers, with `If-Match` only
//! over the version it has seen. A session's memory has several registers, changed in one
//! transaction, and a page load reads all. A conversation is a list. A request interrupted by a
//! kill may or may not be applied.
//!
//! ```text
//! CODITECT_HISTORY_ROUNDS=100 cargo test -p coditect-server --test it histories
//! ```

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use coditect_histories::{Key, Op, Outcome, Random, Recorder, assert_strictly_serializable, seeds};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    client::{Answer, Call, Client as Connection, PATIENCE},
    durability::{checked, start},
    folder::Folder,
    signed_in_session::SignedInSession,
};

const CLIENTS: u64 = 6;
/// Number of successful requests per client.
const REQUESTS: u64 = 60;
const KILLS: u64 = 3;

/// Registers in a session's memory. Every change also writes the last one, which identifies the
/// version.
const MEMORY: [Key; 4] = ["a", "b", "c", "last"];
const SAID: Key = "said";

/// A unit of reads and writes with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Memory,
    Editor,
    Terminal,
    Kept(Key),
}

const KEPT: [Key; 2] = ["x", "y"];
const PARTS: [Part; 6] = [
    Part::Memory,
    Part::Memory,
    Part::Editor,
    Part::Terminal,
    Part::Kept(KEPT[0]),
    Part::Kept(KEPT[1]),
];

/// State shared by the clients of a round.
struct TestServer {
    seed: u64,
    signed_in: Mutex<SignedInSession>,
    messages: String,
    recorder: Recorder,
    answered: AtomicU64,
}

/// A version of a section as seen by a client; without a tag if there was none.
struct Known {
    tag: Option<String>,
    seen: Vec<Op>,
}

struct Client {
    env: Arc<TestServer>,
    random: Random,
    connection: Option<Connection>,
    known: BTreeMap<Part, Known>,
}

impl Part {
    fn path(self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Editor => "editor".to_owned(),
            Self::Terminal => "terminal".to_owned(),
            Self::Kept(key) => format!("state/{key}"),
        }
    }

    /// Returns the register that identifies the version.
    fn register(self) -> Key {
        match self {
            Self::Memory => "last",
            Self::Editor => "editor",
            Self::Terminal => "terminal",
            Self::Kept(key) => key,
        }
    }

    /// Returns the reads of a section's JSON.
    fn seen_in(self, data: &Value) -> Vec<Op> {
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap_or(0)).unwrap();
        let held = match self {
            Self::Memory => return MEMORY.map(|key| Op::Read(key, number(&data[key]))).to_vec(),
            Self::Editor => number(&data["layout"]),
            Self::Terminal => data["active"].as_str().map_or(0, |active| active.parse().unwrap()),
            Self::Kept(_) => unreachable!("its bytes are kept, and no JSON"),
        };
        vec![Op::Read(self.register(), held)]
    }

    /// Returns the reads in a response.
    fn seen(self, answer: &Answer) -> Vec<Op> {
        match (self, answer.status) {
            (Self::Kept(key), 404) => vec![Op::Read(key, 0)],
            (Self::Kept(key), 200) => vec![Op::Read(key, content(answer))],
            _ => self.seen_in(&answer.data()),
        }
    }
}

fn content(answer: &Answer) -> u32 {
    str::from_utf8(&answer.body).unwrap().parse().unwrap()
}

fn tag(answer: &Answer) -> Option<String> {
    answer.header("etag").map(str::to_owned)
}

impl TestServer {
    async fn new(signed_in: &SignedInSession, seed: u64) -> Self {
        let made = |path, named: &'static str| async move {
            let made = signed_in.call(Call::post(path).value(&json!({named: "history"}))).await;
            format!("{path}/{}", made.data()["id"].as_str().unwrap())
        };
        let path = made("/api/v5/sessions", "name").await;
        let messages = made("/api/v5/conversations", "title").await + "/messages";
        let signed_in = SignedInSession { path, token: signed_in.token.clone(), ..*signed_in };
        Self {
            seed,
            signed_in: Mutex::new(signed_in),
            messages,
            recorder: Recorder::default(),
            answered: 0.into(),
        }
    }

    fn part(&self, part: &str) -> String {
        self.signed_in.lock().unwrap().part(part)
    }

    fn server(&self) -> SocketAddr {
        self.signed_in.lock().unwrap().server
    }

    async fn has_answered(&self, enough: u64) {
        while self.answered.load(Ordering::Relaxed) < enough {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Client {
    fn new(env: &Arc<TestServer>, random: Random) -> Self {
        Self { env: Arc::clone(env), random, connection: None, known: BTreeMap::new() }
    }

    async fn run(mut self) {
        let mut left = REQUESTS;
        while left > 0 {
            let part = self.random.one_of(&PARTS);
            let is_answered = match self.random.below(8) {
                0 | 1 => self.read(part).await,
                2 | 3 => self.save(part, true).await,
                4 => self.save(part, false).await,
                5 => self.load_or_keep().await,
                6 => self.say().await,
                _ => self.listen().await,
            };
            if is_answered {
                self.env.answered.fetch_add(1, Ordering::Relaxed);
                left -= 1;
            }
        }
    }

    /// Sends a request to the running server. `None` if it was killed, or does not know the
    /// outcome.
    async fn ask(&mut self, call: Call) -> Option<Answer> {
        let call = call.bearer(&self.env.signed_in.lock().unwrap().token);
        let mut connection = loop {
            if let Some(connection) = self.connection.take() {
                break connection;
            }
            self.connection = Connection::try_connect(self.env.server()).await.ok();
            if self.connection.is_none() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let answer = connection.try_call(call).await.filter(|answer| answer.status != 503)?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Some(answer)
    }

    /// Sends a read and records what `seen` finds in the response.
    async fn look(&mut self, call: Call, seen: impl FnOnce(&Answer) -> Vec<Op>) -> bool {
        let from = self.env.recorder.now();
        let Some(answer) = self.ask(call).await else { return false };
        self.env.recorder.note(from, Outcome::Done, seen(&answer));
        true
    }

    async fn read(&mut self, part: Part) -> bool {
        let mut call = Call::get(&self.env.part(&part.path()));
        let known = self.known.remove(&part);
        if let Some(tag) = known.as_ref().and_then(|known| known.tag.as_ref()) {
            call = call.header("If-None-Match", tag);
        }
        let mut now = None;
        let is_answered = self.look(call, |answer| {
            let seen = match answer.status {
                304 => known.unwrap().seen,
                _ => part.seen(answer),
            };
            now = Some(Known { tag: tag(answer), seen: seen.clone() });
            seen
        });
        let is_answered = is_answered.await;
        self.known.extend(now.map(|now| (part, now)));
        is_answered
    }

    /// Saves a new number; if `is_swap`, only over the version it has seen, if any.
    async fn save(&mut self, part: Part, is_swap: bool) -> bool {
        let (from, number) = (self.env.recorder.now(), self.env.recorder.number());
        let path = self.env.part(&part.path());
        let mut written = vec![Op::Write(part.register(), number)];
        let mut call = match part {
            Part::Memory => {
                let mut change = json!({ part.register(): number });
                for key in &MEMORY[..3] {
                    if self.random.below(2) == 0 {
                        change[*key] = json!(number);
                        written.push(Op::Write(key, number));
                    }
                }
                Call::patch(&path).value(&change)
            }
            Part::Editor => Call::put(&path).value(&json!({"tabs": [], "layout": number})),
            Part::Terminal => Call::put(&path).value(&json!({"active": number.to_string()})),
            Part::Kept(_) => Call::put(&path).body(number.to_string()),
        };
        let known = self.known.remove(&part).filter(|_| is_swap);
        if let Some(known) = &known {
            call = match &known.tag {
                Some(tag) => call.header("If-Match", tag),
                None => call.header("If-None-Match", "*"),
            };
        }
        let mut ops = known.map_or(Vec::new(), |known| known.seen);
        let Some(answer) = self.ask(call).await else {
            self.env.recorder.note(from, Outcome::Unknown, [ops, written].concat());
            return false;
        };
        if answer.status == 412 {
            ops.retain(|op| matches!(op, Op::Read(key, _) if *key == part.register()));
            let [Op::Read(key, number)] = ops[..] else { panic!("refused without a condition") };
            self.env.recorder.note(from, Outcome::Done, vec![Op::Other(key, number)]);
            return true;
        }
        assert_eq!(answer.status, 200, "{}", answer.json());
        let seen = match part {
            Part::Kept(key) => vec![Op::Read(key, number)],
            _ => part.seen(&answer),
        };
        ops.extend(written.into_iter().chain(seen.iter().cloned()));
        self.env.recorder.note(from, Outcome::Done, ops);
        self.known.insert(part, Known { tag: tag(&answer), seen });
        true
    }

    /// Loads a page, or saves two blobs at once.
    async fn load_or_keep(&mut self) -> bool {
        if self.random.below(3) > 0 {
            return self.load().await;
        }
        let (from, number) = (self.env.recorder.now(), self.env.recorder.number());
        let content = BASE64_STANDARD.encode(number.to_string());
        let put = KEPT.map(|key| json!({"key": key, "content": content}));
        let call = Call::post(&self.env.part("state:batch")).value(&json!({"put": put}));
        let answer = self.ask(call).await;
        let outcome = if answer.is_some() { Outcome::Done } else { Outcome::Unknown };
        self.env.recorder.note(from, outcome, KEPT.map(|key| Op::Write(key, number)).to_vec());
        if let Some(answer) = &answer {
            assert_eq!(answer.status, 200, "{}", answer.json());
        }
        answer.is_some()
    }

    async fn load(&mut self) -> bool {
        let call = Call::get(&self.env.part("restore"));
        let parts = [
            (Part::Memory, "session_memory"),
            (Part::Editor, "editor_state"),
            (Part::Terminal, "terminal_state"),
        ];
        self.look(call, |answer| {
            let data = answer.data();
            parts.iter().flat_map(|(part, name)| part.seen_in(&data[name])).collect()
        })
        .await
    }

    /// Adds a message; usually retries until it is acknowledged, which must happen once.
    async fn say(&mut self) -> bool {
        let (from, number) = (self.env.recorder.now(), self.env.recorder.number());
        let is_stubborn = self.random.below(3) > 0;
        let call = Call::post(&self.env.messages)
            .header("Idempotency-Key", &format!("{}-{number}", self.env.seed))
            .value(&json!({"content": number.to_string()}));
        let answer = loop {
            let answer = self.ask(call.clone()).await;
            if answer.is_some() || !is_stubborn {
                break answer;
            }
        };
        let outcome = if answer.is_some() { Outcome::Done } else { Outcome::Unknown };
        self.env.recorder.note(from, outcome, vec![Op::Append(SAID, number)]);
        if let Some(answer) = &answer {
            assert_eq!(answer.status, 201, "{}", answer.json());
        }
        answer.is_some()
    }

    async fn listen(&mut self) -> bool {
        let call = Call::get(&format!("{}?limit=200", self.env.messages));
        self.look(call, |answer| {
            let page = answer.json();
            assert_eq!(page["next_cursor"], Value::Null, "all of it");
            let said = page["data"].as_array().unwrap().iter();
            let number = |said: &Value| said["content"].as_str().unwrap().parse().unwrap();
            vec![Op::List(SAID, said.map(number).collect())]
        })
        .await
    }

    /// Reads the final state.
    async fn read_all(mut self) {
        assert!(self.load().await && self.listen().await);
        for key in KEPT {
            assert!(self.read(Part::Kept(key)).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn history_across_kills_is_linearizable() {
    let folder = Folder::new();
    let mut server = start(folder.path()).await;
    let mut signed_in = SignedInSession::at(server.address, "ada@example.org").await;
    let mut cut_off = 0;
    for seed in seeds(6) {
        let (env, mut random) =
            (Arc::new(TestServer::new(&signed_in, seed).await), Random::new(seed));
        let clients = (0..CLIENTS).map(|_| Client::new(&env, random.split()).run());
        let clients: Vec<_> = clients.collect();
        let killing = async {
            for kill in 1..=KILLS {
                env.has_answered(kill * CLIENTS * REQUESTS / (KILLS + 1)).await;
                server.kill().await;
                checked(folder.path()).await;
                server = start(folder.path()).await;
                env.signed_in.lock().unwrap().server = server.address;
            }
            server
        };
        let round = async { tokio::join!(killing, join_all(clients)) };
        (server, _) = timeout(3 * PATIENCE, round).await.expect("a round in time");
        signed_in.server = server.address;
        Client::new(&env, random.split()).read_all().await;
        let history = env.recorder.calls();
        cut_off += history.iter().filter(|call| call.outcome == Outcome::Unknown).count();
        assert_strictly_serializable(&history, seed, "-p coditect-server --test it histories");
    }
    assert!(cut_off > 0, "no request was cut off");
}
