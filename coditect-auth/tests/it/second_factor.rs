//! The second factor: required once confirmed; each code is accepted once.

use chrono::TimeDelta;
use coditect_auth::{
    ClientInfo, Error, FactorSecret, RecoveryCodes, SignIn, SignedIn, model::SecondFactor,
};
use totp_rs::{Builder, Secret};

use crate::{
    env::{PASSWORD, TestEnv, sign_in},
    sessions::audited,
};

const EMAIL: &str = "ada@example.org";

/// Returns the code of an app at the clock's time.
fn code(env: &TestEnv, secret: &FactorSecret) -> String {
    let secret = Secret::new_stack(*secret.expose());
    let totp = Builder::new().with_secret(secret).build().unwrap();
    totp.generate(env.now().timestamp().try_into().unwrap()).to_string()
}

async fn login(env: &TestEnv, code: Option<&str>) -> Result<SignedIn, Error> {
    let sign_in = SignIn { code, ..sign_in(EMAIL, PASSWORD) };
    env.auth.login(sign_in, &ClientInfo::default()).await
}

/// Registers Ada with a confirmed second factor.
async fn with_factor(env: &TestEnv) -> (SignedIn, FactorSecret, RecoveryCodes) {
    let ada = env.register(EMAIL).await.unwrap();
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    env.auth.enroll_second_factor(&asking, PASSWORD, secret.clone(), from).await.unwrap();
    assert!(login(env, None).await.is_ok(), "it is not asked for before it is confirmed");
    let now = code(env, &secret);
    env.auth.confirm_second_factor(&asking, &now, &codes, from).await.unwrap();
    env.clock.advance(TimeDelta::seconds(30));
    (ada, secret, codes)
}

#[tokio::test]
async fn code_is_required_and_accepted_once() {
    let env = TestEnv::new().await;
    let (ada, secret, _) = with_factor(&env).await;
    assert!(matches!(login(&env, None).await, Err(Error::FactorRequired)));
    assert!(matches!(login(&env, Some("000000")).await, Err(Error::FactorWrong)));
    let now = code(&env, &secret);
    login(&env, Some(&now)).await.unwrap();
    assert!(matches!(login(&env, Some(&now)).await, Err(Error::FactorWrong)), "not twice");
    env.clock.advance(TimeDelta::seconds(30));
    login(&env, Some(&code(&env, &secret))).await.unwrap();
    let wrong = SignIn { code: Some("123456"), ..sign_in(EMAIL, "wrong password") };
    let refused = env.auth.login(wrong, &ClientInfo::default()).await;
    assert!(matches!(refused, Err(Error::InvalidCredentials)), "the password comes first");
    assert!(audited(&env, &ada).await.contains(&"user.second_factor_confirmed".to_owned()));
}

#[tokio::test]
async fn recovery_code_is_accepted_once() {
    let env = TestEnv::new().await;
    let (ada, _, codes) = with_factor(&env).await;
    let all: Vec<&str> = codes.texts().collect();
    login(&env, Some(&all[3].to_lowercase())).await.unwrap();
    assert!(matches!(login(&env, Some(all[3])).await, Err(Error::FactorWrong)));
    login(&env, Some(all[4])).await.unwrap();
    let used = audited(&env, &ada).await;
    assert_eq!(used.iter().filter(|action| *action == "user.recovery_code_used").count(), 2);
}

#[tokio::test]
async fn wrong_codes_count_as_failures() {
    let env = TestEnv::new().await;
    with_factor(&env).await;
    for _ in 0..5 {
        assert!(matches!(login(&env, Some("000000")).await, Err(Error::FactorWrong)));
    }
    assert!(matches!(login(&env, Some("000000")).await, Err(Error::Throttled { .. })));
}

#[tokio::test]
async fn concurrent_logins_with_one_code_succeed_once() {
    let env = TestEnv::new().await;
    let (_, secret, _) = with_factor(&env).await;
    let now = code(&env, &secret);
    let (one, other) = tokio::join!(login(&env, Some(&now)), login(&env, Some(&now)));
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn removal_needs_password_and_code_or_an_operator() {
    let env = TestEnv::new().await;
    let (ada, secret, _) = with_factor(&env).await;
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    let remove =
        async |password, code| env.auth.remove_second_factor(&asking, password, code, from).await;
    let now = code(&env, &secret);
    assert!(matches!(remove("wrong", Some(now.as_str())).await, Err(Error::InvalidCredentials)));
    assert!(matches!(remove(PASSWORD, None).await, Err(Error::FactorRequired)));
    assert!(matches!(remove(PASSWORD, Some("000000")).await, Err(Error::FactorWrong)));
    remove(PASSWORD, Some(now.as_str())).await.unwrap();
    login(&env, None).await.unwrap();
    assert!(matches!(remove(PASSWORD, None).await, Err(Error::FactorState(_))));

    env.auth.enroll_second_factor(&asking, PASSWORD, secret, from).await.unwrap();
    env.auth.reset_second_factor(EMAIL).await.unwrap();
    assert!(matches!(env.auth.reset_second_factor(EMAIL).await, Err(Error::FactorState(_))));
}

#[tokio::test]
async fn confirmed_factor_is_not_replaced() {
    let env = TestEnv::new().await;
    let (ada, _, codes) = with_factor(&env).await;
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    let another = FactorSecret::generate().unwrap();
    let again = env.auth.enroll_second_factor(&asking, PASSWORD, another, from).await;
    assert!(matches!(again, Err(Error::FactorState(_))));
    let again = env.auth.confirm_second_factor(&asking, "000000", &codes, from).await;
    assert!(matches!(again, Err(Error::FactorState(_))));
}

#[tokio::test]
async fn recovery_code_works_for_an_imported_factor() {
    let env = TestEnv::new().await;
    let (ada, secret, codes) = with_factor(&env).await;
    let (tenant, user) = (ada.user.tenant_id, ada.user.id);
    let damage = |tx: coditect_store::Transaction| async move {
        tx.modify::<SecondFactor>(tenant, user, |factor| factor.secret.ciphertext[0] ^= 1).await
    };
    env.store.run(damage).await.unwrap();
    let now = code(&env, &secret);
    assert!(matches!(login(&env, Some(&now)).await, Err(Error::FactorWrong)));
    login(&env, codes.texts().next()).await.unwrap();
}

#[tokio::test]
async fn enrolment_requires_the_password_and_is_confirmed_soon() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    for wrong in ["", "wrong password"] {
        let refused = env.auth.enroll_second_factor(&asking, wrong, secret.clone(), from).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)));
    }
    let refused = env.auth.confirm_second_factor(&asking, &code(&env, &secret), &codes, from).await;
    assert!(matches!(refused, Err(Error::FactorState(_))), "nothing was begun");

    env.auth.enroll_second_factor(&asking, PASSWORD, secret.clone(), from).await.unwrap();
    env.clock.advance(TimeDelta::minutes(15));
    let late = env.auth.confirm_second_factor(&asking, &code(&env, &secret), &codes, from).await;
    assert!(matches!(late, Err(Error::FactorState(_))));
    login(&env, None).await.unwrap();
}

#[tokio::test]
async fn guesses_at_the_first_code_are_throttled() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    env.auth.enroll_second_factor(&asking, PASSWORD, secret, from).await.unwrap();
    for _ in 0..5 {
        let wrong = env.auth.confirm_second_factor(&asking, "000000", &codes, from).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)));
    }
    let next = env.auth.confirm_second_factor(&asking, "000000", &codes, from).await;
    assert!(matches!(next, Err(Error::Throttled { .. })));
}

#[tokio::test]
async fn owner_is_notified_of_changes() {
    use coditect_auth::Notice::{RecoveryCodeUsed, SecondFactorEnabled, SecondFactorRemoved};
    let env = TestEnv::new().await;
    let (ada, secret, codes) = with_factor(&env).await;
    login(&env, codes.texts().next()).await.unwrap();
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let now = code(&env, &secret);
    env.auth
        .remove_second_factor(&asking, PASSWORD, Some(&now), &ClientInfo::default())
        .await
        .unwrap();
    let sent = env.mailer.notices(EMAIL, 3).await;
    assert_eq!(sent, [SecondFactorEnabled, RecoveryCodeUsed, SecondFactorRemoved]);
}

#[tokio::test]
async fn after_100_wrong_codes_in_a_row_only_a_recovery_code_is_accepted() {
    let env = TestEnv::new().await;
    let (_, secret, codes) = with_factor(&env).await;
    for round in 0..99 {
        let wrong = login(&env, Some("000000")).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)), "{round}: {wrong:?}");
        env.clock.advance(TimeDelta::minutes(1));
    }
    login(&env, Some(&code(&env, &secret))).await.unwrap();
    // A right code resets the count.
    for _ in 0..100 {
        env.clock.advance(TimeDelta::minutes(1));
        assert!(matches!(login(&env, Some("000000")).await, Err(Error::FactorWrong)));
    }
    for _ in 0..3 {
        env.clock.advance(TimeDelta::days(30));
        let right = login(&env, Some(&code(&env, &secret))).await;
        assert!(matches!(right, Err(Error::FactorLocked)), "{right:?}");
    }
    let sent = env.mailer.notices(EMAIL, 2).await;
    assert_eq!(sent[1..], [coditect_auth::Notice::SecondFactorLocked]);
    login(&env, codes.texts().next()).await.unwrap();
    env.clock.advance(TimeDelta::minutes(1));
    login(&env, Some(&code(&env, &secret))).await.unwrap();
}

#[tokio::test]
async fn locked_factor_is_not_removed_by_guessing() {
    let env = TestEnv::new().await;
    let (_, secret, codes) = with_factor(&env).await;
    for _ in 0..100 {
        env.clock.advance(TimeDelta::minutes(1));
        assert!(matches!(login(&env, Some("000000")).await, Err(Error::FactorWrong)));
    }
    env.clock.advance(TimeDelta::minutes(1));
    let in_again = login(&env, codes.texts().next()).await.unwrap();
    let asking = env.caller(in_again.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    for _ in 0..100 {
        env.clock.advance(TimeDelta::minutes(1));
        let wrong = env.auth.remove_second_factor(&asking, PASSWORD, Some("000000"), from).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)), "{wrong:?}");
    }
    env.clock.advance(TimeDelta::minutes(1));
    let right = code(&env, &secret);
    let locked = env.auth.remove_second_factor(&asking, PASSWORD, Some(&right), from).await;
    assert!(matches!(locked, Err(Error::FactorLocked)));
    env.clock.advance(TimeDelta::minutes(1));
    let recovery = codes.texts().nth(1);
    env.auth.remove_second_factor(&asking, PASSWORD, recovery, from).await.unwrap();
}

#[tokio::test]
async fn code_taken_by_a_clock_that_was_ahead_blocks_no_later_one() {
    let env = TestEnv::new().await;
    let (_, secret, _) = with_factor(&env).await;
    env.clock.advance(TimeDelta::days(10 * 365));
    login(&env, Some(&code(&env, &secret))).await.unwrap();
    env.clock.advance(-TimeDelta::days(10 * 365));
    let now = code(&env, &secret);
    login(&env, Some(&now)).await.unwrap();
    assert!(matches!(login(&env, Some(&now)).await, Err(Error::FactorWrong)), "not twice");
}
