//! Registration modes, address verification, and the right to use the IDE.

use chrono::TimeDelta;
use coditect_auth::{
    AddressProof, Auth, ClientInfo, Error, MAX_INVITATION_MAILS, NewInvitation, Notice,
    Registration, RegistrationMode, SignUp, SignedIn, VERIFICATION_LIFETIME, model::Invitation,
};
use coditect_store::{
    Transaction,
    keyspace::Global,
    model::{Role, User, UserStatus},
};

use crate::env::{PASSWORD, TestEnv};

const ADA: &str = "ada@example.org";
const BOB: &str = "bob@example.org";

fn of(email: &str) -> Registration<'_> {
    Registration { email, password: PASSWORD, first_name: None, last_name: None }
}

async fn sign_up(auth: &Auth, email: &str, proof: AddressProof<'_>) -> Result<SignUp, Error> {
    auth.sign_up(of(email), proof, &ClientInfo::default()).await
}

fn signed_in(outcome: Result<SignUp, Error>) -> SignedIn {
    match outcome.unwrap() {
        SignUp::SignedIn(signed_in) => *signed_in,
        SignUp::VerificationSent => panic!("a mail was sent"),
    }
}

/// Creates an account with an operator's grant of the IDE.
async fn operators(env: &TestEnv, auth: &Auth, email: &str) -> SignedIn {
    auth.create_user(of(email), true).await.unwrap();
    env.login(email, PASSWORD).await.unwrap()
}

/// Invites `email`, and returns the invitation with its token.
async fn invited(env: &TestEnv, by: &SignedIn, email: &str, ide: Option<bool>) -> String {
    invite(env, by.tokens.access.expose(), email, ide).await.unwrap().1
}

/// Invites `email` as an admin, with an access token, and returns the invitation with its token.
async fn invite(
    env: &TestEnv,
    access: &str,
    email: &str,
    ide: Option<bool>,
) -> Result<(Invitation, String), Error> {
    let asking = &env.caller(access).await.unwrap();
    let new = &NewInvitation::new(email, Role::Admin).unwrap().with_ide(ide);
    let (auth, device) = (&env.auth, &ClientInfo::default());
    let invite = env.store.run(|tx| async move { auth.invite(&tx, asking, new, device).await });
    Ok((invite.await?, new.text().expose().to_owned()))
}

async fn has_account(env: &TestEnv, email: &str) -> bool {
    let tx = env.store.begin();
    tx.find(&User::BY_EMAIL, Global, email.to_owned()).await.unwrap().is_some()
}

#[tokio::test]
async fn registration_mode_is_enforced() {
    let env = TestEnv::new().await;
    let open = env.with(|settings| settings.mailer = None).await;
    let invited_only = env.with(|settings| settings.registration = RegistrationMode::Invited).await;
    let closed = env.with(|settings| settings.registration = RegistrationMode::Closed).await;

    signed_in(sign_up(&open, "open@example.org", AddressProof::None).await);
    let refused = sign_up(&invited_only, BOB, AddressProof::None).await;
    assert!(matches!(refused, Err(Error::InvitationRequired)));
    let ada = operators(&env, &closed, ADA).await;
    let token = invited(&env, &ada, BOB, None).await;
    for proof in [AddressProof::None, AddressProof::Invitation(&token)] {
        let refused = sign_up(&closed, BOB, proof).await;
        assert!(matches!(refused, Err(Error::RegistrationClosed)));
    }
    assert!(!has_account(&env, BOB).await);

    for wrong in ["", "cin_", &token[..46]] {
        let refused = sign_up(&invited_only, BOB, AddressProof::Invitation(wrong)).await;
        assert!(matches!(refused, Err(Error::InvitationInvalid)));
    }
    let other = sign_up(&invited_only, "eve@example.org", AddressProof::Invitation(&token)).await;
    assert!(matches!(other, Err(Error::InvitationInvalid)), "it is for another address");
    let bob = signed_in(sign_up(&invited_only, BOB, AddressProof::Invitation(&token)).await);
    assert_eq!(bob.tokens.tenant_id, ada.user.tenant_id);
    let asking = env.caller(bob.tokens.access.expose()).await.unwrap();
    assert_eq!((asking.tenant_id, asking.role), (ada.user.tenant_id, Role::Admin));
    let again = sign_up(&invited_only, BOB, AddressProof::Invitation(&token)).await;
    assert!(matches!(again, Err(Error::InvitationInvalid)), "it is used up");
}

#[tokio::test]
async fn invitation_of_a_taken_address_is_refused_and_stays_open() {
    let env = TestEnv::new().await;
    let ada = operators(&env, &env.auth, ADA).await;
    let bob = env.register(BOB).await.unwrap();
    let token = invited(&env, &ada, BOB, None).await;
    let refused = sign_up(&env.auth, BOB, AddressProof::Invitation(&token)).await;
    assert!(matches!(refused, Err(Error::EmailTaken)));
    let asking = &env.caller(bob.tokens.access.expose()).await.unwrap();
    let (auth, token, from) = (&env.auth, &token, &ClientInfo::default());
    let accept = |tx: coditect_store::Transaction| async move {
        auth.accept_invitation(&tx, asking, token, from).await
    };
    env.store.run(accept).await.unwrap();
}

#[tokio::test]
async fn taken_and_free_addresses_are_indistinguishable_with_a_mailer() {
    let env = TestEnv::new().await;
    env.register(ADA).await.unwrap();
    for email in [ADA, BOB] {
        let outcome = sign_up(&env.auth, email, AddressProof::None).await.unwrap();
        assert!(matches!(outcome, SignUp::VerificationSent));
        env.auth.send_verification(email).await.unwrap();
    }
    assert!(!has_account(&env, BOB).await);
    assert_eq!(env.mailer.notices(ADA, 1).await, [Notice::AlreadyRegistered]);
    assert_eq!(env.mailer.last_token(ADA), None);
    let token = env.mailer.last_token(BOB).unwrap();

    let others = sign_up(&env.auth, "eve@example.org", AddressProof::Verification(&token)).await;
    assert!(matches!(others, Err(Error::VerificationInvalid)));
    for at in 4..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let outcome = sign_up(&env.auth, BOB, AddressProof::Verification(&forged)).await;
        assert!(matches!(outcome, Err(Error::VerificationInvalid)), "{at}");
    }
    env.clock.advance(VERIFICATION_LIFETIME);
    let late = sign_up(&env.auth, BOB, AddressProof::Verification(&token)).await;
    assert!(matches!(late, Err(Error::VerificationInvalid)));
    env.clock.advance(-TimeDelta::seconds(1));
    signed_in(sign_up(&env.auth, BOB, AddressProof::Verification(&token)).await);
    let again = sign_up(&env.auth, BOB, AddressProof::Verification(&token)).await;
    assert!(matches!(again, Err(Error::EmailTaken)), "only its owner has the token");
}

#[tokio::test]
async fn registrations_from_an_address_are_throttled_whatever_comes_of_them() {
    let env = TestEnv::new().await;
    let auth = env.with(|settings| settings.mailer = None).await;
    env.register(ADA).await.unwrap();
    let here = ClientInfo { ip: Some("192.0.2.1".parse().unwrap()), ..ClientInfo::default() };
    for _ in 0..50 {
        let taken = auth.sign_up(of(ADA), AddressProof::None, &here).await;
        assert!(matches!(taken, Err(Error::EmailTaken)));
    }
    for email in [ADA, BOB] {
        let refused = auth.sign_up(of(email), AddressProof::None, &here).await;
        assert!(matches!(refused, Err(Error::Throttled { .. })));
    }
    let there = ClientInfo { ip: Some("192.0.2.2".parse().unwrap()), ..ClientInfo::default() };
    signed_in(auth.sign_up(of(BOB), AddressProof::None, &there).await);
    // Two per minute are forgotten.
    env.clock.advance(TimeDelta::minutes(1));
    for email in ["carol@example.org", "dave@example.org"] {
        signed_in(auth.sign_up(of(email), AddressProof::None, &here).await);
    }
    let refused = auth.sign_up(of("eve@example.org"), AddressProof::None, &here).await;
    assert!(matches!(refused, Err(Error::Throttled { .. })));
}

#[tokio::test]
async fn registrations_without_a_known_address_are_throttled_by_the_nearest_hop() {
    let env = TestEnv::new().await;
    let auth = env.with(|settings| settings.mailer = None).await;
    env.register(ADA).await.unwrap();
    let hop =
        |hop: &str| ClientInfo { nearest_hop: Some(hop.parse().unwrap()), ..ClientInfo::default() };
    for _ in 0..50 {
        let taken = auth.sign_up(of(ADA), AddressProof::None, &hop("192.0.2.1")).await;
        assert!(matches!(taken, Err(Error::EmailTaken)));
    }
    let refused = auth.sign_up(of(BOB), AddressProof::None, &hop("192.0.2.1")).await;
    assert!(matches!(refused, Err(Error::Throttled { .. })));
    assert!(!has_account(&env, BOB).await);
    signed_in(auth.sign_up(of(BOB), AddressProof::None, &hop("192.0.2.2")).await);
}

#[tokio::test]
async fn right_to_use_the_ide_is_explicit() {
    let env = TestEnv::new().await;
    let auth = &env.auth;
    let may = async |email: &str| auth.has_ide_access(email).await.unwrap();
    let stranger = env.register("stranger@example.org").await.unwrap();
    assert!(!may("stranger@example.org").await, "an account alone does not have it");
    let ada = operators(&env, auth, ADA).await;
    assert!(may(ADA).await);

    // A user without the right cannot grant it.
    let asking = &env.caller(stranger.tokens.access.expose()).await.unwrap();
    let new = &NewInvitation::new(BOB, Role::Member).unwrap().with_ide(Some(true));
    let from = &ClientInfo::default();
    let given = env.store.run(|tx| async move { auth.invite(&tx, asking, new, from).await });
    assert!(matches!(given.await, Err(Error::Forbidden(_))));
    let token = invited(&env, &stranger, "guest@example.org", None).await;
    signed_in(sign_up(auth, "guest@example.org", AddressProof::Invitation(&token)).await);
    assert!(!may("guest@example.org").await);

    let token = invited(&env, &ada, "viewer@example.org", Some(false)).await;
    signed_in(sign_up(auth, "viewer@example.org", AddressProof::Invitation(&token)).await);
    assert!(!may("viewer@example.org").await);

    let token = invited(&env, &ada, BOB, None).await;
    let late = invited(&env, &ada, "late@example.org", None).await;
    let bob = signed_in(sign_up(auth, BOB, AddressProof::Invitation(&token)).await);
    assert!(may(BOB).await);
    let asking = &env.caller(ada.tokens.access.expose()).await.unwrap();
    let member = bob.user.id;
    let remove = |tx: coditect_store::Transaction| async move {
        auth.remove_member(&tx, asking, member, from).await
    };
    env.store.run(remove).await.unwrap();
    assert!(!may(BOB).await, "it ends with the membership");

    auth.set_ide_access(ADA, false).await.unwrap();
    assert!(!may(ADA).await);
    signed_in(sign_up(auth, "late@example.org", AddressProof::Invitation(&late)).await);
    assert!(!may("late@example.org").await, "the inviter has lost it meanwhile");
    auth.set_ide_access("late@example.org", true).await.unwrap();
    assert!(may("late@example.org").await);
}

#[tokio::test]
async fn invited_right_to_use_the_ide_is_not_passed_on() {
    let env = TestEnv::new().await;
    let auth = &env.auth;
    let may = async |email: &str| auth.has_ide_access(email).await.unwrap();
    let ada = operators(&env, auth, ADA).await;
    let token = invited(&env, &ada, BOB, None).await;
    let bob = signed_in(sign_up(auth, BOB, AddressProof::Invitation(&token)).await);
    assert!(may(BOB).await);

    // He can grant it neither in his own tenant nor, as an admin, in hers.
    let own = env.login(BOB, PASSWORD).await.unwrap();
    assert_eq!(own.tokens.tenant_id, bob.user.tenant_id);
    for (at, access) in [&own.tokens, &bob.tokens].into_iter().enumerate() {
        let eve = format!("eve{at}@example.org");
        let access = access.access.expose();
        let refused = invite(&env, access, &eve, Some(true)).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        let (invitation, token) = invite(&env, access, &eve, None).await.unwrap();
        assert!(!invitation.ide);
        signed_in(sign_up(auth, &eve, AddressProof::Invitation(&token)).await);
        assert!(!may(&eve).await);
    }
}

#[tokio::test]
async fn invited_right_to_use_the_ide_ends_with_that_of_its_inviter() {
    let env = TestEnv::new().await;
    let auth = &env.auth;
    let may = async |email: &str| auth.has_ide_access(email).await.unwrap();
    let ada = operators(&env, auth, ADA).await;
    let token = invited(&env, &ada, BOB, None).await;
    let bob = signed_in(sign_up(auth, BOB, AddressProof::Invitation(&token)).await);
    assert!(may(BOB).await);

    auth.set_ide_access(ADA, false).await.unwrap();
    assert!(!may(BOB).await, "it was lent by one who has it no more");
    // A member cannot return it to its former owner.
    let own = env.login(BOB, PASSWORD).await.unwrap();
    for access in [&own.tokens, &bob.tokens] {
        let refused = invite(&env, access.access.expose(), ADA, Some(true)).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    auth.set_ide_access(BOB, true).await.unwrap();
    assert!(may(BOB).await);
    assert!(!may(ADA).await);
}

#[tokio::test]
async fn lent_right_to_use_the_ide_is_suspended_while_the_inviter_is_disabled() {
    let env = TestEnv::new().await;
    let auth = &env.auth;
    let may = async |email: &str| auth.has_ide_access(email).await.unwrap();
    let ada = operators(&env, auth, ADA).await;
    let token = invited(&env, &ada, BOB, None).await;
    let late = invited(&env, &ada, "late@example.org", None).await;
    signed_in(sign_up(auth, BOB, AddressProof::Invitation(&token)).await);
    assert!(may(BOB).await);

    auth.set_status(ADA, UserStatus::Disabled).await.unwrap();
    assert!(!may(BOB).await);
    let joined = sign_up(auth, "late@example.org", AddressProof::Invitation(&late)).await;
    assert!(matches!(joined, Err(Error::InvitationInvalid)));
    auth.set_status(ADA, UserStatus::Enabled).await.unwrap();
    assert!(may(BOB).await);
}

#[tokio::test]
async fn verification_mails_of_an_address_are_limited_and_the_last_one_works() {
    let env = TestEnv::new().await;
    env.register(ADA).await.unwrap();
    for _ in 0..10 {
        for email in [ADA, BOB] {
            env.auth.send_verification(email).await.unwrap();
        }
    }
    assert_eq!((env.mailer.sent(), env.mailer.notices(ADA, 1).await.len()), (1, 1));
    for _minute in 0..24 * 60 {
        env.clock.advance(TimeDelta::minutes(1));
        env.auth.send_verification(BOB).await.unwrap();
    }
    // One at the beginning, after 1, 2, 4, … and 128 minutes more, and then each four hours.
    assert_eq!(env.mailer.sent(), 13);
    env.auth.send_verification("eve@example.org").await.unwrap();
    assert_eq!(env.mailer.sent(), 14, "another address has its own limit");
    let token = env.mailer.last_token(BOB).unwrap();
    env.clock.advance(TimeDelta::hours(4));
    signed_in(sign_up(&env.auth, BOB, AddressProof::Verification(&token)).await);
    // A clock that was ahead delays nothing.
    let fay = "fay@example.org";
    env.clock.advance(TimeDelta::days(3_650));
    env.auth.send_verification(fay).await.unwrap();
    env.clock.advance(-TimeDelta::days(3_650));
    env.auth.send_verification(fay).await.unwrap();
    assert_eq!(env.mailer.sent(), 16);
}

#[tokio::test]
async fn invitation_mails_are_limited_by_address_and_by_inviter() {
    let env = TestEnv::new().await;
    let (ada, bob) = (env.register(ADA).await.unwrap(), env.register(BOB).await.unwrap());
    let may = async |by: &SignedIn, email: &str| {
        let asking = &env.caller(by.tokens.access.expose()).await.unwrap();
        let (auth, new) = (&env.auth, &NewInvitation::new(email, Role::Member).unwrap());
        let take =
            |tx: Transaction| async move { auth.may_send_invitation(&tx, asking, new).await };
        env.store.run(take).await.unwrap()
    };
    assert!(may(&ada, "eve@example.org").await);
    assert!(!may(&ada, "eve@example.org").await);
    assert!(!may(&bob, "Eve@Example.org").await, "from another tenant, too");
    for number in 1..MAX_INVITATION_MAILS {
        assert!(may(&ada, &format!("{number}@example.org")).await);
    }
    assert!(!may(&ada, "fay@example.org").await);
    assert!(may(&bob, "gus@example.org").await);
    env.clock.advance(TimeDelta::hours(24));
    let ada = env.login(ADA, PASSWORD).await.unwrap();
    assert!(may(&ada, "fay@example.org").await);

    let without_mailer = env.with(|settings| settings.mailer = None).await;
    let asking = &env.caller(ada.tokens.access.expose()).await.unwrap();
    let new = &NewInvitation::new("hal@example.org", Role::Member).unwrap();
    let tx = env.store.begin();
    assert!(!without_mailer.may_send_invitation(&tx, asking, new).await.unwrap());
}
