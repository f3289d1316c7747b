//! Fuzzing of all routes: every request gets a success or a refusal with a message, never a 5xx or
//! no response.
//!
//! The routes are those of the OpenAPI document, so new ones are included; the requests derive from
//! a seed, which a failure prints. `CODITECT_FUZZ_ROUNDS=200` runs longer.

mod wild;

use std::{collections::BTreeSet, env};

use wild::Random;

use crate::{
    account::Device,
    client::{Call, Client},
    contract::{self, Described},
    server::Running,
    signed_in_session::SignedInSession,
};

/// Requests per operation and round.
const BODIES_A_ROUND: u64 = 6;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

const LABELS: [&str; 6] = [
    "application/json",
    "application/json",
    "application/json",
    "application/merge-patch+json",
    "text/plain",
    "",
];

/// Returns whether the operation ends the login of its caller, and so needs a new one each time.
fn ends_its_login(operation: &Described) -> bool {
    ["logout", "revokeDevice", "changePassword", "deleteTenant"].contains(&operation.id)
}

/// A user, and the number of requests sent.
struct Fuzz {
    server: Running,
    signed_in: SignedInSession,
    session: String,
    sent: usize,
    /// Operations that have succeeded.
    done: BTreeSet<&'static str>,
}

impl Fuzz {
    #[expect(clippy::print_stdout, reason = "a failure anywhere below shows what was sent last")]
    async fn send(&mut self, operation: &Described, seed: u64) {
        let random = &mut Random::new(seed);
        let method = METHODS.iter().find(|it| it.eq_ignore_ascii_case(operation.method)).unwrap();
        // Other operations need the session.
        let session = if operation.id == "deleteSession" { "x" } else { &self.session };
        let path = wild::path(random, operation.template, session)
            + &wild::query(random, operation.operation);
        self.sent += 1;
        let mut call = Call::new(method, &path).from(self.sent);
        if operation.operation.get("requestBody").is_some() {
            let label = random.one_of(&LABELS);
            call = call.header("Content-Type", label).body(wild::body(random, operation.operation));
        }
        call = wild::with_headers(random, call);
        // Printed before the token is added.
        println!("{} of seed {seed}: {}", operation.id, shown(&call));
        if !random.one_in(4) {
            call = call.bearer(&self.token_for(operation).await);
        }
        let mut client = Client::connect(self.server.address).await;
        let answer = client.try_call(call).await.expect("an answer");
        assert!((200..500).contains(&answer.status), "{}", answer.status);
        if answer.status < 300 {
            self.done.insert(operation.id);
        } else if answer.status >= 400 {
            answer.code();
        }
    }

    async fn token_for(&self, operation: &Described) -> String {
        if !ends_its_login(operation) {
            return self.signed_in.token.clone();
        }
        let email = format!("user{}@example.org", self.sent);
        Device::register(self.server.address, &email).await.token
    }
}

fn shown(call: &Call) -> String {
    format!("{call:?}").chars().take(2_000).collect()
}

#[tokio::test]
async fn random_requests_to_every_route_succeed_or_are_refused() {
    let rounds = env::var("CODITECT_FUZZ_ROUNDS").map_or(8, |it| it.parse().unwrap());
    let server = Running::start(&["--trusted-proxy", "127.0.0.1"]).await;
    let signed_in = SignedInSession::new(&server, "joan@example.org").await;
    let session = signed_in.path.rsplit('/').next().unwrap().to_owned();
    let mut fuzz = Fuzz { server, signed_in, session, sent: 0, done: BTreeSet::new() };
    for round in 1..=rounds {
        for (number, operation) in (0..).zip(contract::operations()) {
            let takes_body = operation.operation.get("requestBody").is_some();
            let times = if takes_body && !ends_its_login(&operation) { BODIES_A_ROUND } else { 2 };
            for time in 0..times {
                fuzz.send(&operation, round << 32 | number << 8 | time).await;
            }
        }
    }
    // The session still exists, and some requests succeeded.
    assert_eq!(fuzz.signed_in.get("").await.status, 200);
    let done = fuzz.done.len();
    assert!(3 * done > contract::operations().count(), "only {:?} did anything", fuzz.done);
}
