//! A second factor: asked for once it is confirmed, and each code taken once.

use chrono::TimeDelta;
use coditect_auth::{
    ClientInfo, Error, FactorSecret, RecoveryCodes, SignIn, SignedIn, model::SecondFactor,
};
use totp_rs::{Builder, Secret};

use crate::{
    devices::audited,
    installation::{Installation, PASSWORD, sign_in},
};

const EMAIL: &str = "ada@example.org";

/// What an app shows at the clock's time.
fn code(home: &Installation, secret: &FactorSecret) -> String {
    let secret = Secret::new_stack(*secret.expose());
    let totp = Builder::new().with_secret(secret).build().unwrap();
    totp.generate(home.now().timestamp().try_into().unwrap()).to_string()
}

async fn login(home: &Installation, code: Option<&str>) -> Result<SignedIn, Error> {
    let sign_in = SignIn { code, ..sign_in(EMAIL, PASSWORD) };
    home.auth.login(sign_in, &ClientInfo::default()).await
}

/// Ada with a factor that is confirmed.
async fn with_factor(home: &Installation) -> (SignedIn, FactorSecret, RecoveryCodes) {
    let ada = home.register(EMAIL).await.unwrap();
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    home.auth.begin_factor(&asking, PASSWORD, secret.clone(), from).await.unwrap();
    assert!(login(home, None).await.is_ok(), "it is not asked for before it is confirmed");
    let now = code(home, &secret);
    home.auth.confirm_factor(&asking, &now, &codes, from).await.unwrap();
    home.clock.advance(TimeDelta::seconds(30));
    (ada, secret, codes)
}

#[tokio::test]
async fn a_code_is_asked_for_beside_the_password_and_taken_once() {
    let home = Installation::new().await;
    let (ada, secret, _) = with_factor(&home).await;
    assert!(matches!(login(&home, None).await, Err(Error::FactorRequired)));
    assert!(matches!(login(&home, Some("000000")).await, Err(Error::FactorWrong)));
    let now = code(&home, &secret);
    login(&home, Some(&now)).await.unwrap();
    assert!(matches!(login(&home, Some(&now)).await, Err(Error::FactorWrong)), "not twice");
    home.clock.advance(TimeDelta::seconds(30));
    login(&home, Some(&code(&home, &secret))).await.unwrap();
    let wrong = SignIn { code: Some("123456"), ..sign_in(EMAIL, "wrong password") };
    let refused = home.auth.login(wrong, &ClientInfo::default()).await;
    assert!(matches!(refused, Err(Error::InvalidCredentials)), "the password comes first");
    assert!(audited(&home, &ada).await.contains(&"user.second_factor_confirmed".to_owned()));
}

#[tokio::test]
async fn a_recovery_code_is_good_once() {
    let home = Installation::new().await;
    let (ada, _, codes) = with_factor(&home).await;
    let all: Vec<&str> = codes.texts().collect();
    login(&home, Some(&all[3].to_lowercase())).await.unwrap();
    assert!(matches!(login(&home, Some(all[3])).await, Err(Error::FactorWrong)));
    login(&home, Some(all[4])).await.unwrap();
    let used = audited(&home, &ada).await;
    assert_eq!(used.iter().filter(|action| *action == "user.recovery_code_used").count(), 2);
}

#[tokio::test]
async fn wrong_codes_count_as_failures() {
    let home = Installation::new().await;
    with_factor(&home).await;
    for _ in 0..5 {
        assert!(matches!(login(&home, Some("000000")).await, Err(Error::FactorWrong)));
    }
    assert!(matches!(login(&home, Some("000000")).await, Err(Error::Throttled { .. })));
}

#[tokio::test]
async fn one_code_at_once_signs_in_once() {
    let home = Installation::new().await;
    let (_, secret, _) = with_factor(&home).await;
    let now = code(&home, &secret);
    let (one, other) = tokio::join!(login(&home, Some(&now)), login(&home, Some(&now)));
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn it_is_removed_by_the_password_and_a_code_or_by_an_operator() {
    let home = Installation::new().await;
    let (ada, secret, _) = with_factor(&home).await;
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    let remove =
        async |password, code| home.auth.remove_factor(&asking, password, code, from).await;
    let now = code(&home, &secret);
    assert!(matches!(remove("wrong", Some(now.as_str())).await, Err(Error::InvalidCredentials)));
    assert!(matches!(remove(PASSWORD, None).await, Err(Error::FactorRequired)));
    assert!(matches!(remove(PASSWORD, Some("000000")).await, Err(Error::FactorWrong)));
    remove(PASSWORD, Some(now.as_str())).await.unwrap();
    login(&home, None).await.unwrap();
    assert!(matches!(remove(PASSWORD, None).await, Err(Error::FactorState)));

    home.auth.begin_factor(&asking, PASSWORD, secret, from).await.unwrap();
    home.auth.take_factor_away(EMAIL).await.unwrap();
    assert!(matches!(home.auth.take_factor_away(EMAIL).await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_factor_that_is_confirmed_is_not_replaced() {
    let home = Installation::new().await;
    let (ada, _, codes) = with_factor(&home).await;
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    let another = FactorSecret::generate().unwrap();
    let again = home.auth.begin_factor(&asking, PASSWORD, another, from).await;
    assert!(matches!(again, Err(Error::FactorState)));
    let again = home.auth.confirm_factor(&asking, "000000", &codes, from).await;
    assert!(matches!(again, Err(Error::FactorState)));
}

#[tokio::test]
async fn a_factor_that_came_from_another_installation_is_passed_by_a_recovery_code() {
    let home = Installation::new().await;
    let (ada, secret, codes) = with_factor(&home).await;
    let (tenant, user) = (ada.user.tenant_id, ada.user.id);
    let damage = |tx: coditect_store::Transaction| async move {
        tx.modify::<SecondFactor>(tenant, user, |factor| factor.secret.ciphertext[0] ^= 1).await
    };
    home.store.run(damage).await.unwrap();
    let now = code(&home, &secret);
    assert!(matches!(login(&home, Some(&now)).await, Err(Error::FactorWrong)));
    login(&home, codes.texts().next()).await.unwrap();
}

#[tokio::test]
async fn enrolment_requires_the_password_and_is_confirmed_soon() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    for wrong in ["", "wrong password"] {
        let refused = home.auth.begin_factor(&asking, wrong, secret.clone(), from).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)));
    }
    let refused = home.auth.confirm_factor(&asking, &code(&home, &secret), &codes, from).await;
    assert!(matches!(refused, Err(Error::FactorState)), "nothing was begun");

    home.auth.begin_factor(&asking, PASSWORD, secret.clone(), from).await.unwrap();
    home.clock.advance(TimeDelta::minutes(15));
    let late = home.auth.confirm_factor(&asking, &code(&home, &secret), &codes, from).await;
    assert!(matches!(late, Err(Error::FactorState)));
    login(&home, None).await.unwrap();
}

#[tokio::test]
async fn guesses_at_the_first_code_are_throttled() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let (secret, codes) = (FactorSecret::generate().unwrap(), RecoveryCodes::generate().unwrap());
    let from = &ClientInfo::default();
    home.auth.begin_factor(&asking, PASSWORD, secret, from).await.unwrap();
    for _ in 0..5 {
        let wrong = home.auth.confirm_factor(&asking, "000000", &codes, from).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)));
    }
    let next = home.auth.confirm_factor(&asking, "000000", &codes, from).await;
    assert!(matches!(next, Err(Error::Throttled { .. })));
}

#[tokio::test]
async fn owner_is_notified_of_changes() {
    use coditect_auth::Notice::{RecoveryCodeUsed, SecondFactorEnabled, SecondFactorRemoved};
    let home = Installation::new().await;
    let (ada, secret, codes) = with_factor(&home).await;
    login(&home, codes.texts().next()).await.unwrap();
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let now = code(&home, &secret);
    home.auth.remove_factor(&asking, PASSWORD, Some(&now), &ClientInfo::default()).await.unwrap();
    let sent = home.mailer.notices(EMAIL, 3).await;
    assert_eq!(sent, [SecondFactorEnabled, RecoveryCodeUsed, SecondFactorRemoved]);
}

#[tokio::test]
async fn after_100_wrong_codes_in_a_row_only_a_recovery_code_is_accepted() {
    let home = Installation::new().await;
    let (_, secret, codes) = with_factor(&home).await;
    for round in 0..99 {
        let wrong = login(&home, Some("000000")).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)), "{round}: {wrong:?}");
        home.clock.advance(TimeDelta::minutes(1));
    }
    login(&home, Some(&code(&home, &secret))).await.unwrap();
    // A right code starts the count anew.
    for _ in 0..100 {
        home.clock.advance(TimeDelta::minutes(1));
        assert!(matches!(login(&home, Some("000000")).await, Err(Error::FactorWrong)));
    }
    for _ in 0..3 {
        home.clock.advance(TimeDelta::days(30));
        let right = login(&home, Some(&code(&home, &secret))).await;
        assert!(matches!(right, Err(Error::FactorLocked)), "{right:?}");
    }
    let sent = home.mailer.notices(EMAIL, 2).await;
    assert_eq!(sent[1..], [coditect_auth::Notice::SecondFactorLocked]);
    login(&home, codes.texts().next()).await.unwrap();
    home.clock.advance(TimeDelta::minutes(1));
    login(&home, Some(&code(&home, &secret))).await.unwrap();
}

#[tokio::test]
async fn locked_factor_is_not_removed_by_guessing() {
    let home = Installation::new().await;
    let (_, secret, codes) = with_factor(&home).await;
    for _ in 0..100 {
        home.clock.advance(TimeDelta::minutes(1));
        assert!(matches!(login(&home, Some("000000")).await, Err(Error::FactorWrong)));
    }
    home.clock.advance(TimeDelta::minutes(1));
    let in_again = login(&home, codes.texts().next()).await.unwrap();
    let asking = home.caller(in_again.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    for _ in 0..100 {
        home.clock.advance(TimeDelta::minutes(1));
        let wrong = home.auth.remove_factor(&asking, PASSWORD, Some("000000"), from).await;
        assert!(matches!(wrong, Err(Error::FactorWrong)), "{wrong:?}");
    }
    home.clock.advance(TimeDelta::minutes(1));
    let right = code(&home, &secret);
    let locked = home.auth.remove_factor(&asking, PASSWORD, Some(&right), from).await;
    assert!(matches!(locked, Err(Error::FactorLocked)));
    home.clock.advance(TimeDelta::minutes(1));
    let recovery = codes.texts().nth(1);
    home.auth.remove_factor(&asking, PASSWORD, recovery, from).await.unwrap();
}

#[tokio::test]
async fn code_taken_by_a_clock_that_was_ahead_blocks_no_later_one() {
    let home = Installation::new().await;
    let (_, secret, _) = with_factor(&home).await;
    home.clock.advance(TimeDelta::days(10 * 365));
    login(&home, Some(&code(&home, &secret))).await.unwrap();
    home.clock.advance(-TimeDelta::days(10 * 365));
    let now = code(&home, &secret);
    login(&home, Some(&now)).await.unwrap();
    assert!(matches!(login(&home, Some(&now)).await, Err(Error::FactorWrong)), "not twice");
}
