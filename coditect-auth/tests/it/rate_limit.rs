//! Delays of guessers, and their absence for the account's owner.

use std::{net::IpAddr, time::Duration};

use chrono::TimeDelta;
use coditect_auth::{ClientInfo, Error};
use futures_util::future::join_all;

use crate::env::{PASSWORD, TestEnv, sign_in};

const EMAIL: &str = "ada@example.org";

fn from(ip: &str) -> ClientInfo {
    ClientInfo { ip: Some(ip.parse::<IpAddr>().unwrap()), ..ClientInfo::default() }
}

/// A client of unknown address behind a proxy at `hop`.
fn behind(hop: &str) -> ClientInfo {
    ClientInfo { nearest_hop: Some(hop.parse::<IpAddr>().unwrap()), ..ClientInfo::default() }
}

/// Returns a distinct address for attempt `number`.
fn somewhere(number: u32) -> ClientInfo {
    from(&format!("198.51.{}.{}", number / 200, number % 200))
}

async fn attempt(env: &TestEnv, password: &str, device: &ClientInfo) -> Result<(), Error> {
    env.auth.login(sign_in(EMAIL, password), device).await.map(|_| ())
}

fn wait(outcome: Result<(), Error>) -> Option<Duration> {
    match outcome {
        Err(Error::Throttled { retry_after }) => Some(retry_after),
        Ok(()) | Err(Error::InvalidCredentials) => None,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn account_waits_after_five_failures_whether_it_exists_or_not() {
    for registered in [true, false] {
        let env = TestEnv::new().await;
        if registered {
            env.register(EMAIL).await.unwrap();
        }
        for number in 0..5 {
            assert_eq!(wait(attempt(&env, "wrong", &somewhere(number)).await), None);
        }
        let refused = wait(attempt(&env, "wrong", &somewhere(6)).await);
        assert_eq!(refused, Some(Duration::from_secs(1)), "{registered}");
        env.clock.advance(TimeDelta::seconds(1));
        assert_eq!(wait(attempt(&env, "wrong", &somewhere(7)).await), None);
        let refused = wait(attempt(&env, "wrong", &somewhere(8)).await);
        assert_eq!(refused, Some(Duration::from_secs(2)), "{registered}");
    }
}

#[tokio::test]
async fn right_password_waits_too_and_clears_the_failures() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    for number in 0..5 {
        attempt(&env, "wrong", &somewhere(number)).await.unwrap_err();
    }
    assert!(wait(attempt(&env, PASSWORD, &somewhere(9)).await).is_some());
    env.clock.advance(TimeDelta::seconds(1));
    attempt(&env, PASSWORD, &somewhere(9)).await.unwrap();
    for number in 0..5 {
        assert_eq!(wait(attempt(&env, "wrong", &somewhere(number)).await), None);
    }
}

#[tokio::test]
async fn guessing_does_not_lock_out_the_owner_at_a_known_address() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let desk = from("192.0.2.77");
    attempt(&env, PASSWORD, &desk).await.unwrap();
    for number in 0..12 {
        env.clock.advance(TimeDelta::seconds(61));
        attempt(&env, "wrong", &somewhere(number)).await.unwrap_err();
    }
    assert!(wait(attempt(&env, PASSWORD, &somewhere(99)).await).is_some());
    attempt(&env, PASSWORD, &desk).await.unwrap();
    // The owner's login admits no guesser.
    assert!(wait(attempt(&env, "wrong", &somewhere(100)).await).is_some());
    // Failures from there delay as well.
    for _ in 0..5 {
        attempt(&env, "wrong", &desk).await.unwrap_err();
    }
    assert!(wait(attempt(&env, PASSWORD, &desk).await).is_some());
}

#[tokio::test]
async fn rejected_attempts_extend_no_delay() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    for number in 0..20 {
        env.clock.advance(TimeDelta::seconds(61));
        attempt(&env, "wrong", &somewhere(number)).await.unwrap_err();
    }
    for number in 0..100 {
        assert!(wait(attempt(&env, "wrong", &somewhere(number)).await).is_some());
    }
    env.clock.advance(TimeDelta::seconds(60));
    attempt(&env, PASSWORD, &somewhere(1)).await.unwrap();
}

#[tokio::test]
async fn failures_of_an_account_survive_a_restart() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    for number in 0..5 {
        attempt(&env, "wrong", &somewhere(number)).await.unwrap_err();
    }
    let restarted = env.another(env.master.clone()).await.unwrap();
    let outcome = restarted.login(sign_in(EMAIL, PASSWORD), &somewhere(9)).await;
    assert!(matches!(outcome, Err(Error::Throttled { .. })), "{outcome:?}");
    env.clock.advance(TimeDelta::hours(25));
    assert!(env.auth.purge_expired().await.unwrap() > 0);
    env.login(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_at_once_are_judged_one_after_the_other() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let devices: Vec<_> = (0..100).map(somewhere).collect();
    let guesses = devices.iter().map(|device| attempt(&env, "wrong", device));
    let outcomes = join_all(guesses).await;
    let looked_at =
        outcomes.iter().filter(|it| matches!(it, Err(Error::InvalidCredentials))).count();
    assert_eq!(looked_at, 5, "{outcomes:?}");
    let refused =
        |it: &&Result<(), Error>| matches!(it, Err(Error::Throttled { .. } | Error::Busy));
    assert_eq!(outcomes.iter().filter(refused).count(), 95);
}

#[tokio::test]
async fn address_waits_after_five_failures_at_any_accounts() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let here = from("192.0.2.1");
    for number in 0..5 {
        let email = format!("{number}@example.org");
        let guess = env.auth.login(sign_in(&email, "wrong"), &here).await;
        assert!(matches!(guess, Err(Error::InvalidCredentials)));
    }
    assert!(wait(attempt(&env, PASSWORD, &here).await).is_some());
    attempt(&env, PASSWORD, &from("192.0.2.2")).await.unwrap();
}

#[tokio::test]
async fn password_reset_clears_the_failures() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    for number in 0..8 {
        let _refused = attempt(&env, "wrong", &somewhere(number)).await;
    }
    let token = env.auth.reset_token(EMAIL).await.unwrap();
    let here = somewhere(50);
    env.auth.reset_password(token.expose(), "another password", &here).await.unwrap();
    attempt(&env, "another password", &here).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queue_of_guessers_does_not_delay_the_owner() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let desk = from("192.0.2.77");
    attempt(&env, PASSWORD, &desk).await.unwrap();
    let crowd: Vec<_> = (0..200).map(somewhere).collect();
    let guesses = join_all(crowd.iter().map(|device| attempt(&env, "wrong", device)));
    let (_, owner) = tokio::join!(guesses, attempt(&env, PASSWORD, &desk));
    owner.unwrap();
}

#[tokio::test]
async fn unknown_clients_behind_a_proxy_share_its_limit() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    for number in 0..5 {
        let email = format!("{number}@example.org");
        let guess = env.auth.login(sign_in(&email, "wrong"), &behind("10.0.0.1")).await;
        assert!(matches!(guess, Err(Error::InvalidCredentials)));
    }
    assert!(wait(attempt(&env, PASSWORD, &behind("10.0.0.1")).await).is_some());
    attempt(&env, PASSWORD, &behind("10.0.0.2")).await.unwrap();
}

#[tokio::test]
async fn login_of_an_unknown_client_exempts_no_other_from_the_accounts_limit() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    attempt(&env, PASSWORD, &behind("10.0.0.1")).await.unwrap();
    for number in 0..5 {
        attempt(&env, "wrong", &somewhere(number)).await.unwrap_err();
    }
    assert!(wait(attempt(&env, PASSWORD, &behind("10.0.0.1")).await).is_some());
}
