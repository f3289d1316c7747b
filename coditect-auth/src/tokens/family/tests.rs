use chrono::DateTime;
use coditect_store::model::{AuthSessionId, TenantId, TokenFamilyId, UserId};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{RefreshKeys, RefreshSecret, RootKey};

const GRACE: TimeDelta = TimeDelta::seconds(10);
const IDLE: TimeDelta = TimeDelta::days(7);

const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];
const OTHER: [u8; 32] = [99; 32];
const EPOCH: u64 = 7;

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn after(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

/// A new session.
fn session(secret_hash: [u8; 32]) -> AuthSession {
    AuthSession {
        id: AuthSessionId::new(),
        tenant_id: TenantId::new(),
        user_id: UserId::new(),
        token_family: TokenFamilyId::new(),
        generation: 0,
        secret_hash,
        previous_secret_hash: None,
        salt: [0; 32],
        rotated_at: start(),
        created_at: start(),
        last_used_at: start(),
        idle_expires_at: start() + IDLE,
        absolute_expires_at: start() + TimeDelta::days(30),
        revocation: None,
        user_agent: None,
        ip: None,
        name: None,
        active_membership: None,
        confirmed_at: None,
        login_epoch: EPOCH,
    }
}

/// A session in generation 1: `FIRST` was replaced by `SECOND` at the start, and confirmed.
fn once_rotated() -> AuthSession {
    confirmed(&unconfirmed(), 1, start()).unwrap()
}

/// A session in generation 1, unconfirmed.
fn unconfirmed() -> AuthSession {
    rotated(&session(FIRST), [7; 32], SECOND, start(), IDLE)
}

fn presented(generation: u32, secret_hash: [u8; 32]) -> PresentedToken {
    PresentedToken { generation, secret_hash, salt: [0xee; 32] }
}

fn ask(session: &AuthSession, presented: &PresentedToken, now: DateTime<Utc>) -> Decision {
    let user = UserStatus::Enabled;
    decide(Some(Stored { session, user, login_epoch: EPOCH }), presented, now, GRACE)
}

#[test]
fn row_1_an_unknown_family_is_revoked() {
    let decision = decide(None, &presented(0, FIRST), start(), GRACE);
    assert_eq!(decision, Decision::Revoked);
}

#[test]
fn row_1_a_revoked_session_is_revoked_for_every_token_it_ever_had() {
    let ended = revoked(&once_rotated(), RevocationReason::Logout, start());
    for token in [presented(0, FIRST), presented(1, SECOND), presented(2, OTHER)] {
        assert_eq!(ask(&ended, &token, start()), Decision::Revoked);
    }
}

#[test]
fn row_1_a_disabled_user_has_no_session() {
    let session = session(FIRST);
    let stored = Stored { session: &session, user: UserStatus::Disabled, login_epoch: EPOCH };
    let decision = decide(Some(stored), &presented(0, FIRST), start(), GRACE);
    assert_eq!(decision, Decision::Revoked);
}

#[test]
fn row_2_a_session_is_over_at_its_idle_expiry_and_not_before() {
    let session = session(FIRST);
    let last = session.idle_expires_at - TimeDelta::microseconds(1);
    assert_eq!(ask(&session, &presented(0, FIRST), last), Decision::Rotate);
    let at = session.idle_expires_at;
    assert_eq!(ask(&session, &presented(0, FIRST), at), Decision::Expired);
}

#[test]
fn row_2_a_session_is_over_at_its_absolute_expiry_however_often_it_was_refreshed() {
    let mut session = session(FIRST);
    let end = session.absolute_expires_at;
    for day in 1..30 {
        let now = start() + TimeDelta::days(day);
        session = rotated(&session, [0; 32], SECOND, now, IDLE);
    }
    assert_eq!(session.absolute_expires_at, end);
    assert_eq!(session.idle_expires_at, end);
    assert_eq!(ask(&session, &presented(29, SECOND), end), Decision::Expired);
}

#[test]
fn row_2_an_old_token_of_a_session_that_is_over_revokes_nothing() {
    let session = once_rotated();
    let late = session.absolute_expires_at;
    assert_eq!(ask(&session, &presented(0, FIRST), late), Decision::Expired);
}

#[test]
fn row_2_a_family_whose_generations_are_used_up_is_over() {
    let session = AuthSession { generation: u32::MAX, ..session(FIRST) };
    let token = presented(u32::MAX, FIRST);
    assert_eq!(ask(&session, &token, start()), Decision::Expired);
}

#[test]
fn row_3_the_newest_token_rotates() {
    assert_eq!(ask(&session(FIRST), &presented(0, FIRST), start()), Decision::Rotate);
    assert_eq!(ask(&once_rotated(), &presented(1, SECOND), start()), Decision::Rotate);
}

#[test]
fn row_4_the_token_before_is_repeated_up_to_the_end_of_the_grace_and_then_is_reuse() {
    let session = once_rotated();
    let token = presented(0, FIRST);
    assert_eq!(ask(&session, &token, after(0)), Decision::ReplayWithinGrace);
    assert_eq!(ask(&session, &token, after(9)), Decision::ReplayWithinGrace);
    assert_eq!(ask(&session, &token, after(10)), Decision::ReplayWithinGrace);
    let past = after(10) + TimeDelta::microseconds(1);
    assert_eq!(ask(&session, &token, past), Decision::Reused);
    assert_eq!(ask(&session, &token, after(11)), Decision::Reused);
}

#[test]
fn row_4_a_grace_of_zero_is_none_even_when_the_clock_goes_backwards() {
    let session = once_rotated();
    let user = UserStatus::Enabled;
    for now in [after(0), after(-60), after(60)] {
        for grace in [TimeDelta::zero(), TimeDelta::seconds(-1)] {
            let stored = Stored { session: &session, user, login_epoch: EPOCH };
            let decision = decide(Some(stored), &presented(0, FIRST), now, grace);
            assert_eq!(decision, Decision::Reused);
        }
    }
}

#[test]
fn row_4_a_clock_that_goes_backwards_does_not_read_as_theft() {
    let session = once_rotated();
    assert_eq!(ask(&session, &presented(0, FIRST), after(-3600)), Decision::ReplayWithinGrace);
}

#[test]
fn predecessor_of_an_unconfirmed_rotation_is_repeated_up_to_the_expiry() {
    let session = unconfirmed();
    let last = session.expires_at() - TimeDelta::microseconds(1);
    for now in [after(0), after(11), after(86_400), after(-3_600), last] {
        assert_eq!(ask(&session, &presented(0, FIRST), now), Decision::ReplayWithinGrace);
    }
    assert_eq!(ask(&session, &presented(0, FIRST), session.expires_at()), Decision::Expired);
    assert_eq!(ask(&session, &presented(0, OTHER), after(60)), Decision::StoreDiverged);
}

#[test]
fn grace_is_counted_from_the_confirmation() {
    let session = confirmed(&unconfirmed(), 1, after(3_600)).unwrap();
    assert_eq!(ask(&session, &presented(0, FIRST), after(3_610)), Decision::ReplayWithinGrace);
    assert_eq!(ask(&session, &presented(0, FIRST), after(3_611)), Decision::Reused);
}

#[test]
fn rotation_is_confirmed_once_and_by_a_token_of_its_generation() {
    assert_eq!(confirmed(&session(FIRST), 0, after(1)), None, "it was never rotated");
    for other in [0, 2, u32::MAX] {
        assert_eq!(confirmed(&unconfirmed(), other, after(1)), None);
    }
    let once = confirmed(&unconfirmed(), 1, after(1)).unwrap();
    assert_eq!(once, AuthSession { confirmed_at: Some(after(1)), ..unconfirmed_as(&once) });
    assert_eq!(confirmed(&once, 1, after(2)), None);
    let next = rotated(&once, [8; 32], [3; 32], after(3), IDLE);
    assert_eq!(next.confirmed_at, None);
    assert_eq!(confirmed(&next, 1, after(4)), None, "an older access token confirms nothing");
}

/// The same session before its confirmation.
fn unconfirmed_as(session: &AuthSession) -> AuthSession {
    AuthSession { confirmed_at: None, ..session.clone() }
}

#[test]
fn use_of_the_successor_ends_the_predecessor() {
    let session = rotated(&unconfirmed(), [8; 32], [3; 32], after(1), IDLE);
    assert_eq!(ask(&session, &presented(0, FIRST), after(1)), Decision::Reused);
    assert_eq!(ask(&session, &presented(1, SECOND), after(3_600)), Decision::ReplayWithinGrace);
}

#[test]
fn row_5_a_token_two_generations_old_is_reuse_inside_the_grace_too() {
    let session = rotated(&once_rotated(), [8; 32], [3; 32], start(), IDLE);
    assert_eq!(ask(&session, &presented(0, FIRST), start()), Decision::Reused);
}

#[test]
fn row_6_a_token_ahead_of_the_store_revokes_nothing() {
    assert_eq!(ask(&session(FIRST), &presented(1, SECOND), start()), Decision::TokenAheadOfStore);
    assert_eq!(
        ask(&session(FIRST), &presented(u32::MAX, OTHER), start()),
        Decision::TokenAheadOfStore
    );
}

#[test]
fn valid_tag_with_unknown_secret_revokes_nothing() {
    let session = once_rotated();
    for now in [after(0), after(3600)] {
        assert_eq!(ask(&session, &presented(1, OTHER), now), Decision::StoreDiverged);
        assert_eq!(ask(&session, &presented(0, OTHER), now), Decision::StoreDiverged);
    }
}

#[test]
fn retry_recognizes_its_own_rotation_without_grace() {
    let token = presented(0, FIRST);
    let session = rotated(&session(FIRST), token.salt, SECOND, start(), IDLE);
    let session = confirmed(&session, 1, start()).unwrap();
    let decide_at = |presented: &PresentedToken, now| {
        let stored = Stored { session: &session, user: UserStatus::Enabled, login_epoch: EPOCH };
        decide(Some(stored), presented, now, TimeDelta::zero())
    };
    assert_eq!(decide_at(&token, after(60)), Decision::ReplayWithinGrace);

    let another_request = PresentedToken { salt: [0xdd; 32], ..token };
    assert_eq!(decide_at(&another_request, after(0)), Decision::Reused);
    let another_secret = PresentedToken { secret_hash: OTHER, ..token };
    assert_eq!(decide_at(&another_secret, after(0)), Decision::StoreDiverged);
}

#[test]
fn salt_of_an_unrotated_session_is_no_rotation() {
    let session = session(FIRST);
    assert!(!is_own_rotation(&session, &session.salt));
}

#[test]
fn idle_expiry_never_decreases() {
    let session = session(FIRST);
    for (now, idle) in [
        (after(-86_400), IDLE),
        (start(), TimeDelta::seconds(1)),
        (start(), TimeDelta::seconds(-1)),
    ] {
        let next = rotated(&session, [0; 32], SECOND, now, idle);
        assert_eq!(next.idle_expires_at, session.idle_expires_at);
        assert_eq!(next.last_used_at, session.last_used_at);
    }
}

#[test]
fn times_at_the_end_of_the_calendar_saturate() {
    let session = session(FIRST);
    let next = rotated(&session, [0; 32], SECOND, DateTime::<Utc>::MAX_UTC, TimeDelta::MAX);
    assert_eq!(next.idle_expires_at, session.absolute_expires_at);
    let decision = ask(&next, &presented(0, FIRST), DateTime::<Utc>::MIN_UTC);
    assert_eq!(decision, Decision::ReplayWithinGrace);
    let next = confirmed(&next, 1, DateTime::<Utc>::MAX_UTC).unwrap();
    let decision = ask(&next, &presented(0, FIRST), DateTime::<Utc>::MIN_UTC);
    assert_eq!(decision, Decision::ReplayWithinGrace);
}

#[test]
fn revocation_keeps_its_first_reason() {
    let once = revoked(&session(FIRST), RevocationReason::Reuse, start());
    let twice = revoked(&once, RevocationReason::Logout, after(5));
    assert_eq!(once, twice);
}

/// A step of a random run.
#[derive(Clone, Debug)]
struct Step {
    /// Index of the presented token among the issued ones, counted back from the newest.
    token_back: usize,
    /// Time since the previous step.
    pause_seconds: i64,
    /// Whether the access token issued with it is used first.
    uses_access_token: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let token_back = prop_oneof![6 => Just(0_usize), 3 => Just(1), 1 => 2..5_usize];
    let pause_seconds = prop_oneof![5 => 0..15_i64, 2 => 0..86_400_i64, 1 => 0..700_000_i64];
    let step = (token_back, pause_seconds, any::<bool>()).prop_map(
        |(token_back, pause_seconds, uses_access_token)| Step {
            token_back,
            pause_seconds,
            uses_access_token,
        },
    );
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Drives one family with real tokens in random order and at random times against the rules: an
    /// honest client that has never used a successor is never rejected.
    #[test]
    fn family_has_one_live_successor_and_ends_at_first_reuse(steps in steps()) {
        let keys = RefreshKeys::derive(&RootKey::new(Zeroizing::new([1; 32])));
        let secret = RefreshSecret::new(Zeroizing::new([1; 32]));
        let mut session = session(secret.hash());
        let absolute_end = session.absolute_expires_at;
        let first = RefreshToken { family: session.token_family, generation: 0, secret };
        let mut tokens = vec![first];
        let (mut now, mut confirmed_at) = (start(), None);

        for (count, step) in steps.into_iter().enumerate() {
            now += TimeDelta::seconds(step.pause_seconds);
            let index = tokens.len().saturating_sub(1 + step.token_back);
            let token = tokens[index].clone();
            let mut salt = [0; 32];
            salt[..8].copy_from_slice(&count.to_be_bytes());
            if step.uses_access_token && session.holds_at(now) {
                let used = confirmed(&session, token.generation, now);
                let is_first = confirmed_at.is_none() && index > 0 && index == tokens.len() - 1;
                prop_assert_eq!(used.is_some(), is_first);
                confirmed_at = used.as_ref().map_or(confirmed_at, |_| Some(now));
                session = used.unwrap_or(session);
            }

            let decision = ask(&session, &PresentedToken::new(&token, salt), now);
            let back = tokens.len() - 1 - index;
            let expected = match back {
                _ if session.revocation.is_some() => Decision::Revoked,
                _ if now >= session.expires_at() => Decision::Expired,
                0 => Decision::Rotate,
                1 if confirmed_at.is_none_or(|at| now - at <= GRACE) => Decision::ReplayWithinGrace,
                _ => Decision::Reused,
            };
            prop_assert_eq!(decision, expected);

            match decision {
                Decision::Rotate => {
                    let next = keys.successor(&token, &salt).unwrap();
                    session = rotated(&session, salt, next.secret.hash(), now, IDLE);
                    prop_assert_eq!(session.generation, next.generation);
                    tokens.push(next);
                    confirmed_at = None;
                }
                Decision::ReplayWithinGrace => {
                    let again = keys.successor(&token, &session.salt).unwrap();
                    prop_assert_eq!(Some(&again), tokens.last());
                }
                Decision::Reused => {
                    session = revoked(&session, RevocationReason::Reuse, now);
                }
                _ => {}
            }

            prop_assert_eq!(session.absolute_expires_at, absolute_end);
            prop_assert!(session.idle_expires_at <= absolute_end);
            // Exactly one of the issued tokens is live, or none after the end.
            let live = tokens
                .iter()
                .filter(|token| {
                    let presented = PresentedToken::new(token, [0xee; 32]);
                    ask(&session, &presented, now) == Decision::Rotate
                })
                .count();
            let over = session.revocation.is_some() || now >= session.expires_at();
            prop_assert_eq!(live, usize::from(!over));
        }
    }

    /// Replays do not extend the grace, which starts with the first use of the successor.
    #[test]
    fn grace_never_slides(mut pauses in prop::collection::vec(0..20_i64, 1..20)) {
        let session = once_rotated();
        let mut passed = 0;
        pauses.push(11);
        for pause in pauses {
            passed += pause;
            let before = ask(&unconfirmed(), &presented(0, FIRST), after(passed * 1_000));
            prop_assert_eq!(before, Decision::ReplayWithinGrace);
            let is_within_grace = passed <= 10;
            let expected =
                if is_within_grace { Decision::ReplayWithinGrace } else { Decision::Reused };
            prop_assert_eq!(ask(&session, &presented(0, FIRST), after(passed)), expected);
        }
    }

    #[test]
    fn no_session_is_valid_at_or_after_either_expiry(
        generation in 0..3_u32,
        idle in -5..5_i64,
        absolute in -5..5_i64,
    ) {
        let session = AuthSession {
            idle_expires_at: after(idle),
            absolute_expires_at: after(absolute),
            ..once_rotated()
        };
        let decision = ask(&session, &presented(generation, SECOND), start());
        prop_assert_eq!(decision == Decision::Expired, idle <= 0 || absolute <= 0);
    }
}
