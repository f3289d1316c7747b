//! Model test of refresh tokens: several devices with several tabs, a thief, restarts and time, in
//! random order. An honest client is logged out only by its user (even if responses are lost and
//! retried at any time), each replay outside of the grace revokes its family and no other, and each
//! family has exactly one live token.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_auth::{
    Auth, ClientInfo, Credential, Error, Lifetimes, SignedIn, Tokens, VerifiedCredential,
};
use coditect_store::model::AuthSession;
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::env::{PASSWORD, TestEnv, sign_in};

const EMAIL: &str = "ada@example.org";

/// A step. Devices are numbered among the existing ones.
#[derive(Clone, Debug)]
enum Event {
    /// A login on another device.
    SignIn,
    /// Concurrent refreshes of a device's tabs, whose responses may be lost and retried.
    Refresh { device: usize, tabs: usize, lost: bool },
    /// A request of a device with its newest access token.
    Use { device: usize },
    /// A retry by a device whose newest responses were lost, at any time.
    AskAgain { device: usize },
    /// A replay of a token that was replaced a number of rotations ago.
    Replay { device: usize, back: usize },
    /// A logout of a device.
    SignOut { device: usize },
    /// A logout everywhere, from a device.
    SignOutEverywhere { device: usize },
    /// A change of the password, on a device.
    ChangePassword { device: usize },
    /// A restart of the server.
    Restart,
    /// Time passes, in seconds.
    Wait { seconds: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let device = 0..6_usize;
    let refresh = (device.clone(), 1..4_usize, any::<bool>())
        .prop_map(|(device, tabs, lost)| Event::Refresh { device, tabs, lost });
    let replay =
        (device.clone(), 1..4_usize).prop_map(|(device, back)| Event::Replay { device, back });
    let wait = prop_oneof![4 => 0..12_i64, 2 => 0..3_600_i64, 1 => 0..600_000_i64];
    let used = device.clone().prop_map(|device| Event::Use { device });
    let again = device.clone().prop_map(|device| Event::AskAgain { device });
    let event = prop_oneof![
        2 => Just(Event::SignIn),
        8 => refresh,
        4 => used,
        3 => again,
        2 => replay,
        1 => device.clone().prop_map(|device| Event::SignOut { device }),
        1 => device.clone().prop_map(|device| Event::SignOutEverywhere { device }),
        1 => device.prop_map(|device| Event::ChangePassword { device }),
        1 => Just(Event::Restart),
        4 => wait.prop_map(|seconds| Event::Wait { seconds }),
    ];
    prop::collection::vec(event, 1..40)
}

/// Expected state of a device.
struct Known {
    signed_in: SignedIn,
    /// Issued tokens, oldest first.
    tokens: Vec<String>,
    /// Newest access token.
    access: String,
    /// First use of an access token of the newest rotation.
    confirmed_at: Option<DateTime<Utc>>,
    /// Whether it was revoked.
    ended: bool,
}

struct World {
    env: TestEnv,
    server: Auth,
    devices: Vec<Known>,
    passwords: usize,
}

impl World {
    async fn new() -> Self {
        let env = TestEnv::new().await;
        let server = env.another(env.master.clone()).await.unwrap();
        let first = env.register(EMAIL).await.unwrap();
        let mut world = Self { env, server, devices: Vec::new(), passwords: 0 };
        world.know(first);
        world
    }

    fn know(&mut self, signed_in: SignedIn) {
        let tokens = vec![signed_in.tokens.refresh.expose().to_owned()];
        let access = signed_in.tokens.access.expose().to_owned();
        let (confirmed_at, ended) = (None, false);
        self.devices.push(Known { signed_in, tokens, access, confirmed_at, ended });
    }

    fn password(&self) -> String {
        if self.passwords == 0 {
            PASSWORD.to_owned()
        } else {
            format!("password no {}!", self.passwords)
        }
    }

    async fn session(&self, device: usize) -> AuthSession {
        let SignedIn { user, tokens } = &self.devices[device].signed_in;
        let tx = self.env.store.begin();
        tx.get::<AuthSession>(user.tenant_id, tokens.session_id).await.unwrap().unwrap()
    }

    /// Returns whether the device should be logged in.
    async fn should_hold(&self, device: usize) -> bool {
        !self.devices[device].ended && self.env.now() < self.session(device).await.expires_at()
    }

    async fn show(&self, token: &str) -> Result<Tokens, Error> {
        self.server.refresh(token, None, &ClientInfo::default()).await
    }

    async fn happen(&mut self, event: Event) {
        let device = match &event {
            Event::Refresh { device, .. }
            | Event::Use { device }
            | Event::AskAgain { device }
            | Event::Replay { device, .. }
            | Event::SignOut { device }
            | Event::SignOutEverywhere { device }
            | Event::ChangePassword { device } => device % self.devices.len(),
            Event::SignIn | Event::Restart | Event::Wait { .. } => 0,
        };
        let holds = self.should_hold(device).await;
        let newest = self.devices[device].tokens.last().unwrap().clone();
        let from = &ClientInfo::default();
        match event {
            Event::SignIn => {
                let password = self.password();
                let signed_in = self.server.login(sign_in(EMAIL, &password), from).await.unwrap();
                self.know(signed_in);
            }
            Event::Refresh { tabs, lost, .. } => {
                let answers = join_all((0..tabs).map(|_| self.show(&newest))).await;
                if !holds {
                    assert!(answers.iter().all(Result::is_err));
                    return;
                }
                let answers: Vec<Tokens> = answers.into_iter().map(Result::unwrap).collect();
                let given: Vec<&str> =
                    answers.iter().map(|answer| answer.refresh.expose()).collect();
                assert!(given.iter().all(|token| *token == given[0]), "one successor");
                if lost {
                    self.env.clock.advance(TimeDelta::seconds(3));
                    let again = self.show(&newest).await.unwrap();
                    assert_eq!(again.refresh.expose(), given[0]);
                }
                let known = &mut self.devices[device];
                known.tokens.push(given[0].to_owned());
                answers[0].access.expose().clone_into(&mut known.access);
                known.confirmed_at = None;
            }
            Event::Use { .. } => {
                // An access token may have expired before its session.
                if let Ok(credential) =
                    self.server.verify_credential(&self.devices[device].access).await
                {
                    assert_eq!(self.env.identity(&credential).await.is_ok(), holds);
                    let now = self.env.now();
                    let known = &mut self.devices[device];
                    if holds && known.tokens.len() > 1 {
                        known.confirmed_at.get_or_insert(now);
                    }
                }
            }
            Event::AskAgain { .. } => {
                let known = &self.devices[device];
                let Some(at) = known.tokens.len().checked_sub(2) else { return };
                if holds && known.confirmed_at.is_none() {
                    let again = self.show(&known.tokens[at]).await.unwrap();
                    assert_eq!(again.refresh.expose(), newest, "an honest client stays signed in");
                }
            }
            Event::Replay { back, .. } => self.replay(device, back, holds).await,
            Event::SignOut { .. } => {
                self.server.logout(Credential::Refresh(&newest), from).await.unwrap();
                self.devices[device].ended = true;
            }
            Event::SignOutEverywhere { .. } => {
                let done = self.server.logout_everywhere(Credential::Refresh(&newest), from).await;
                if holds {
                    done.unwrap();
                    self.devices.iter_mut().for_each(|device| device.ended = true);
                }
            }
            Event::ChangePassword { .. } if holds => {
                let identity = self.env.identity(&self.credential(device)).await.unwrap();
                let (present, next) =
                    (self.password(), format!("password no {}!", self.passwords + 1));
                self.server.change_password(&identity, &present, &next, from).await.unwrap();
                self.passwords += 1;
                for (at, other) in self.devices.iter_mut().enumerate() {
                    other.ended |= at != device;
                }
            }
            Event::ChangePassword { .. } => {}
            Event::Restart => {
                self.server = self.env.another(self.env.master.clone()).await.unwrap();
            }
            Event::Wait { seconds } => self.env.clock.advance(TimeDelta::seconds(seconds)),
        }
    }

    /// Presents a token of a device that was replaced `back` rotations ago.
    async fn replay(&mut self, device: usize, back: usize, holds: bool) {
        let newest = self.devices[device].tokens.last().unwrap().clone();
        let tokens = &self.devices[device].tokens;
        let Some(at) = tokens.len().checked_sub(1 + back) else { return };
        let (now, grace) = (self.env.now(), Lifetimes::default().grace);
        let confirmed_at = self.devices[device].confirmed_at;
        let repeats = back == 1 && confirmed_at.is_none_or(|at| now - at <= grace);
        let answer = self.show(&tokens[at]).await;
        match answer {
            Ok(again) => {
                assert!(holds && repeats);
                assert_eq!(again.refresh.expose(), newest, "nothing new");
            }
            Err(Error::RefreshReused) => {
                assert!(holds && !repeats);
                self.devices[device].ended = true;
            }
            Err(Error::SessionRevoked | Error::SessionExpired) => assert!(!holds),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn credential(&self, device: usize) -> VerifiedCredential {
        let SignedIn { user, tokens } = &self.devices[device].signed_in;
        VerifiedCredential::Session {
            primary_tenant: user.tenant_id,
            id: tokens.session_id,
            user: user.id,
            active_membership: None,
        }
    }

    /// Compares all devices with their expected state.
    async fn check(&self) {
        for device in 0..self.devices.len() {
            let holds = self.env.identity(&self.credential(device)).await.is_ok();
            assert_eq!(holds, self.should_hold(device).await, "device {device}");
            let session = self.session(device).await;
            let rotations = self.devices[device].tokens.len() - 1;
            assert_eq!(session.generation as usize, rotations, "one live successor");
            assert_eq!(session.confirmed_at, self.devices[device].confirmed_at);
            assert!(session.idle_expires_at <= session.absolute_expires_at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn honest_clients_stay_logged_in_and_thieves_do_not(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for event in events {
                world.happen(event).await;
                world.check().await;
            }
        });
    }
}
