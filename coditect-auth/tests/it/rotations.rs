//! Model test of key rotation: several servers over one store, some of them unable to reload,
//! scheduled and manual rotations, forged key ids, restarts and time, in random order. A token
//! signed by any server is valid on all of them from that moment to its expiry, and exactly one key
//! signs.

use chrono::TimeDelta;
use coditect_auth::{Auth, ClientInfo, Error, HashParams, KeyState, Settings, TokenError, Tokens};
use coditect_store::Clock;
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::env::{PASSWORD, TestEnv, sign_in};

const EMAIL: &str = "ada@example.org";
const SERVERS: usize = 3;

/// A step; there are three servers.
#[derive(Clone, Debug)]
enum Event {
    /// The scheduled rotation of one server, unless it is blocked.
    Keep { server: usize },
    /// The scheduled rotation of all servers at once.
    KeepAll,
    /// A manual rotation on one server.
    Rotate { server: usize },
    /// Manual rotations on all servers at once.
    RotateAll,
    /// A token with an unknown key id.
    MakeUp { server: usize },
    /// A restart of a server.
    Restart { server: usize },
    /// A login on a server.
    Sign { server: usize },
    /// Time passes, in seconds.
    Wait { seconds: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let server = 0..SERVERS;
    let wait = prop_oneof![
        4 => 0..60_i64,
        3 => 60..1_000_i64,
        2 => 1_000..4_000_i64,
        1 => 4_000..200_000_i64,
    ];
    let event = prop_oneof![
        4 => server.clone().prop_map(|server| Event::Keep { server }),
        1 => Just(Event::KeepAll),
        2 => server.clone().prop_map(|server| Event::Rotate { server }),
        1 => Just(Event::RotateAll),
        2 => server.clone().prop_map(|server| Event::MakeUp { server }),
        1 => server.clone().prop_map(|server| Event::Restart { server }),
        6 => server.prop_map(|server| Event::Sign { server }),
        6 => wait.prop_map(|seconds| Event::Wait { seconds }),
    ];
    prop::collection::vec(event, 1..60)
}

struct World {
    env: TestEnv,
    servers: Vec<Auth>,
    /// Signed tokens with their expiry.
    signed: Vec<(String, i64)>,
    made_up: Tokens,
}

impl World {
    async fn new() -> Self {
        let env = TestEnv::in_memory().await;
        env.register(EMAIL).await.unwrap();
        let made_up = TestEnv::in_memory().await.register(EMAIL).await.unwrap().tokens;
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(started(&env).await);
        }
        Self { env, servers, signed: Vec::new(), made_up }
    }

    async fn happens(&mut self, event: &Event) {
        match *event {
            Event::Keep { server } => self.servers[server].rotate_due_keys().await.unwrap(),
            Event::KeepAll => {
                all_done(join_all(self.servers.iter().map(Auth::rotate_due_keys)).await);
            }
            Event::Rotate { server } => self.servers[server].rotate_keys().await.unwrap(),
            Event::RotateAll => {
                all_done(join_all(self.servers.iter().map(Auth::rotate_keys)).await);
            }
            Event::MakeUp { server } => {
                let outcome = self.servers[server].verify(self.made_up.access.expose()).await;
                let refused = matches!(outcome, Err(Error::TokenInvalid(TokenError::UnknownKey)));
                assert!(refused, "{outcome:?}");
            }
            Event::Restart { server } => self.servers[server] = started(&self.env).await,
            Event::Sign { server } => {
                let (who, device) = (sign_in(EMAIL, PASSWORD), ClientInfo::default());
                let tokens = self.servers[server].login(who, &device).await.unwrap().tokens;
                let token = tokens.access.expose().to_owned();
                let claims = self.servers[server].verify(&token).await.unwrap();
                self.signed.push((token, claims.exp));
            }
            Event::Wait { seconds } => self.env.clock.advance(TimeDelta::seconds(seconds)),
        }
    }

    /// Asserts that each token is valid on all servers until its expiry.
    async fn check(&mut self) {
        let now = self.env.now().timestamp();
        self.signed.retain(|(_, ends)| now < *ends);
        for (token, _) in &self.signed {
            for (at, server) in self.servers.iter().enumerate() {
                let outcome = server.verify(token).await;
                assert!(outcome.is_ok(), "server {at}: {outcome:?}");
            }
        }
        let keys = self.env.auth.signing_keys().await.unwrap();
        let active = keys.iter().filter(|key| matches!(key.state, KeyState::Active { .. }));
        assert_eq!(active.count(), 1);
    }
}

/// Opens a server with a rotation period of one day.
async fn started(env: &TestEnv) -> Auth {
    let settings =
        Settings::default().hash(HashParams::weak_for_tests()).key_rotation(TimeDelta::days(1));
    let clock = Clock::from(&env.clock);
    Auth::open(env.store.clone(), env.master.clone(), clock, settings).await.unwrap()
}

fn all_done(outcomes: Vec<Result<(), Error>>) {
    for outcome in outcomes {
        outcome.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tokens_verify_on_all_servers_until_they_expire(events in events()) {
        // Waits for the next reload use a clock that advances by itself.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for event in &events {
                world.happens(event).await;
                world.check().await;
            }
        });
    }
}
