//! Measures the cost of identity: access tokens verified, passwords hashed and refresh tokens
//! rotated per second.
//!
//! `cargo run --profile dist -p coditect-benches --bin identity [-- --seconds 1 --rounds 5]`
//!
//! - A token is verified with all checks, cached and not, against bare `jsonwebtoken` with the same
//!   algorithm, issuer and audience, on one thread.
//! - Passwords are verified through the hasher with all its permits, against the bare `argon2`
//!   crate on as many threads, with the same parameters.
//! - Refreshes are durable when they are answered, by one client and by 64. They have no peer: the
//!   ratio is to the first line of their kind.
//!
//! All contenders take turns in each round; the table shows medians, lowest and highest.

use std::{
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use clap::Parser;
use coditect_auth::{
    AccessSettings, Auth, ClientInfo, HashParams, Hasher, JwksVerifier, MasterKey, Password,
    Registration, Settings, entities,
};
use coditect_benches::{
    Outcome,
    lines::{Line, per_second, table},
    progress,
};
use coditect_store::{Clock, Store, engine::Options};
use futures_util::future::try_join_all;
use jsonwebtoken::{DecodingKey, Validation, decode, jwk::JwkSet};
use serde::Deserialize;
use tokio::runtime::Runtime;

/// Measures the cost of identity.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Duration of each contender in a round, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Number of rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// File that the table is written to.
    #[arg(long, default_value = "benches/identity.md")]
    markdown: PathBuf,
}

/// The claims that bare `jsonwebtoken` decodes.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "they are read to be compared with what the product reads")]
struct Read {
    sub: uuid::Uuid,
    tenant_id: uuid::Uuid,
    session_id: uuid::Uuid,
    token_family: uuid::Uuid,
    email: String,
    iat: i64,
    exp: i64,
}

const PASSWORD: &str = "correct horse battery";

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let table = shown(&run(&plan)?, plan.rounds);
    stdout().write_all(table.as_bytes())?;
    Ok(fs::write(&plan.markdown, table)?)
}

fn run(plan: &Plan) -> Outcome<Vec<Line>> {
    let runtime = Runtime::new()?;
    let turn = Duration::from_secs_f64(plan.seconds);
    let folder = tempfile::tempdir_in(".")?;
    let clock = Clock::system();
    let auth = runtime.block_on(opened(folder.path(), &clock))?;
    let devices = runtime.block_on(try_join_all((0..64).map(|n| register(&auth, n))))?;
    let token = devices[0].access.clone();

    let document = auth.jwks();
    let verifier = |remembered| {
        JwksVerifier::new(&document, AccessSettings::default().signature_cache_size(remembered))
    };
    let (remembering, forgetful) = (verifier(10_000)?, verifier(0)?);
    let set: JwkSet = serde_json::from_value(document.clone())?;
    let kid = jsonwebtoken::decode_header(&token)?.kid.ok_or("no kid")?;
    let key = DecodingKey::from_jwk(set.find(&kid).ok_or("no key")?)?;
    let mut validation = Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_issuer(&["coditect"]);
    validation.set_audience(&["coditect"]);
    let hasher = Hasher::new(HashParams::default())?;
    let password = Password::presented(PASSWORD)?;
    let stored = runtime.block_on(hasher.hash(&password))?;
    let threads = thread::available_parallelism()?.get();

    let mut lines = [
        ("bare jsonwebtoken: a token verified", None),
        ("a token verified", Some(0)),
        ("a cached token verified", Some(0)),
        ("bare argon2: a password verified", None),
        ("a password verified", Some(3)),
        ("a refresh, 1 client", None),
        ("refreshes, 64 clients", Some(5)),
    ]
    .map(Line::new);
    let mut refreshed = devices.into_iter().map(|device| device.refresh).collect::<Vec<_>>();
    for round in 1..=plan.rounds {
        progress(&format!("round {round} of {}", plan.rounds))?;
        let verify = |verifier: &JwksVerifier| -> Outcome<()> {
            verifier.verify(&token, clock.now())?;
            Ok(())
        };
        let decoded = || -> Outcome<()> {
            decode::<Read>(&token, &key, &validation)?;
            Ok(())
        };
        lines[0].rates.push(rate(turn, decoded)?);
        lines[1].rates.push(rate(turn, || verify(&forgetful))?);
        lines[2].rates.push(rate(turn, || verify(&remembering))?);
        lines[3].rates.push(bare_hashes(turn, threads, &stored)?);
        let done = runtime.block_on(hashes(turn, threads, &hasher, &password, &stored));
        lines[4].rates.push(done?);
        for (line, clients) in [(5, 1), (6, refreshed.len())] {
            let all = &mut refreshed[..clients];
            lines[line].rates.push(runtime.block_on(refreshes(turn, &auth, all))?);
        }
    }
    progress("")?;
    Ok(lines.into())
}

/// The tokens of one user.
struct Tokens {
    access: String,
    refresh: String,
}

async fn opened(folder: &std::path::Path, clock: &Clock) -> Outcome<Auth> {
    let store = entities(Store::options())
        .open(coditect_benches::database(folder, &Options::default())?)
        .await?;
    let settings = Settings::default().hash(HashParams::weak_for_tests());
    Ok(Auth::open(store, MasterKey::generate()?, clock.clone(), settings).await?)
}

async fn register(auth: &Auth, number: usize) -> Outcome<Tokens> {
    let email = &format!("user{number}@example.org");
    let new = Registration { email, password: PASSWORD, first_name: None, last_name: None };
    let tokens = auth.register(new, &ClientInfo::default()).await?.tokens;
    let text = |text: &str| text.to_owned();
    Ok(Tokens { access: text(tokens.access.expose()), refresh: text(tokens.refresh.expose()) })
}

/// Returns the rate of `work` per second, run sequentially.
fn rate(turn: Duration, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < turn {
        for _ in 0..64 {
            work()?;
        }
        done += 64;
    }
    Ok(per_second(done, started.elapsed()))
}

fn bare_hashes(turn: Duration, threads: usize, stored: &str) -> Outcome<f64> {
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    let hash = PasswordHash::new(stored).map_err(|error| error.to_string())?;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < turn {
                    let verified = Argon2::default().verify_password(PASSWORD.as_bytes(), &hash);
                    assert!(verified.is_ok());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(per_second(done.into_inner(), started.elapsed()))
}

async fn hashes(
    turn: Duration,
    permits: usize,
    hasher: &Hasher,
    password: &Password,
    stored: &str,
) -> Outcome<f64> {
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    // One more than the permits, so that a permit is never idle.
    let client = || async {
        while started.elapsed() < turn {
            hasher.verify(password, stored).await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, coditect_auth::Error>(())
    };
    try_join_all((0..=permits).map(|_| client())).await?;
    Ok(per_second(done.load(Ordering::Relaxed), started.elapsed()))
}

/// Rotates all of `tokens` repeatedly and concurrently.
async fn refreshes(turn: Duration, auth: &Auth, tokens: &mut [String]) -> Outcome<f64> {
    let (started, done) = (Instant::now(), AtomicU64::new(0));
    let clients = tokens.iter_mut().map(|token| async {
        while started.elapsed() < turn {
            let next = auth.refresh(token, None, &ClientInfo::default()).await?;
            next.refresh.expose().clone_into(token);
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, coditect_auth::Error>(())
    });
    try_join_all(clients).await?;
    Ok(per_second(done.load(Ordering::Relaxed), started.elapsed()))
}

fn shown(lines: &[Line], rounds: usize) -> String {
    let said = "A refresh is durable when it is answered.";
    table("Cost of identity", said, lines, rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_measured() {
        let plan = Plan { seconds: 0.01, rounds: 1, ..Plan::parse_from([""]) };
        let lines = run(&plan).unwrap();
        assert!(lines.iter().all(|line| line.rates.len() == 1 && line.rates[0] > 0.0));
        assert_eq!(shown(&lines, 1).matches('\n').count(), 6 + lines.len());
    }
}
