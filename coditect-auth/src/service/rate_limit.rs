//! Rate limits on password guessing. The delays are in [`throttle`](crate::throttle); this module
//! stores the failures and queues the attempts.
//!
//! # Invariants
//!
//! - An attempt is admitted or rejected before its password is hashed, whether the account exists
//!   or not. Attempts at one account are serialized, so each is checked against the failures of all
//!   before it.
//! - Failures of an account count wherever they come from. An address from which its user has
//!   logged in recently has a separate count, so that guessing from elsewhere does not lock the
//!   owner out.
//! - A client of unknown address shares the count of its nearest known hop and never has a separate
//!   count for an account, since other clients behind the same proxy would share it.
//! - A rejected attempt is not a failure and extends no delay.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{Transaction, keyspace::Global, model::User};
use futures_util::future::try_join;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Auth, ClientInfo,
    audit::{Action, Entry},
};
use crate::{
    Email, Error,
    model::LoginFailures,
    throttle::{self, FAILURE_LIFETIME, Failures},
};

/// Time for which an address is known after a login from it.
const KNOWN_ADDRESS_LIFETIME: TimeDelta = TimeDelta::days(30);

/// Maximum number of attempts that wait for one account.
const MAX_WAITERS: usize = 16;

/// Number of queues from which on unused ones are removed.
const PRUNE_THRESHOLD: usize = 1_024;

/// Keys under which the failures of an attempt are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailureKeys {
    account: [u8; 32],
    /// Key of the account with this address, if the address is known.
    address: Option<[u8; 32]>,
    ip: Option<IpAddr>,
}

/// An admitted attempt. Other attempts at the same account wait until it is dropped.
#[derive(Debug)]
pub(super) struct LoginAttempt {
    keys: FailureKeys,
    _permit: LoginPermit,
}

/// The permit of the one attempt at an account that runs.
#[derive(Debug)]
struct LoginPermit {
    // Dropped in this order: the queue must be shared while a permit of it exists.
    _running: OwnedSemaphorePermit,
    _waiter: OwnedSemaphorePermit,
    _queue: Arc<LoginQueue>,
}

/// Queues of login attempts, by account.
#[derive(Debug, Default)]
pub(super) struct LoginQueues(Mutex<HashMap<[u8; 32], Weak<LoginQueue>>>);

#[derive(Debug)]
struct LoginQueue {
    waiters: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl LoginQueues {
    fn of(&self, account: [u8; 32]) -> Arc<LoginQueue> {
        let mut login_queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = login_queues.get(&account).and_then(Weak::upgrade) {
            return queue;
        }
        if login_queues.len() >= PRUNE_THRESHOLD {
            login_queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(LoginQueue {
            waiters: Arc::new(Semaphore::new(MAX_WAITERS + 1)),
            running: Arc::new(Semaphore::new(1)),
        });
        login_queues.insert(account, Arc::downgrade(&queue));
        queue
    }

    /// Waits for the account's permit. Fails with [`Error::Busy`] at once if the queue is full.
    async fn acquire(&self, account: [u8; 32]) -> Result<LoginPermit, Error> {
        let queue = self.of(account);
        let waiter = Arc::clone(&queue.waiters).try_acquire_owned().map_err(|_| Error::Busy)?;
        let running = Arc::clone(&queue.running).acquire_owned().await.map_err(Error::internal)?;
        Ok(LoginPermit { _running: running, _waiter: waiter, _queue: queue })
    }
}

impl Auth {
    /// Fails if too many attempts from the client's address have failed.
    pub(super) fn check_address(
        &self,
        client: &ClientInfo,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Some(ip) = client.throttled_ip() else { return Ok(()) };
        self.addresses.check(ip, now).map_err(throttled)
    }

    /// Counts a failed attempt against the client's address.
    pub(super) fn record_address_failure(&self, client: &ClientInfo, now: DateTime<Utc>) {
        if let Some(ip) = client.throttled_ip() {
            self.addresses.failed(ip, now);
        }
    }

    /// Acquires an attempt at the account of `email`: waits behind the other attempts at it, then
    /// checks its failures.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if too many attempts wait; [`Error::Throttled`], [`Error::Store`].
    pub(super) async fn acquire_attempt(
        &self,
        email: &Email,
        client: &ClientInfo,
    ) -> Result<LoginAttempt, Error> {
        let attempt = self.enter_queue(email, client).await?;
        let keys = attempt.keys;
        let failures = self.store.run(|tx| async move { keys.read(&tx).await }).await?;
        self.check_failures(failures)?;
        Ok(attempt)
    }

    /// Acquires an attempt as [`acquire_attempt`](Self::acquire_attempt) does, and reads the
    /// account's user in the same transaction as its failures. Returns no user if the account does
    /// not exist.
    pub(super) async fn acquire_login(
        &self,
        email: &Email,
        client: &ClientInfo,
    ) -> Result<(LoginAttempt, Option<User>), Error> {
        let attempt = self.enter_queue(email, client).await?;
        let keys = attempt.keys;
        let read = self.store.run(|tx| async move {
            let user = tx.find(&User::BY_EMAIL, Global, email.normalized().to_owned());
            try_join(keys.read(&tx), user).await
        });
        let (failures, user) = read.await?;
        self.check_failures(failures)?;
        Ok((attempt, user))
    }

    /// Waits for a permit of the account of `email`. Attempts from a known address have a queue of
    /// their own, so that attempts from elsewhere do not delay the account's owner.
    async fn enter_queue(&self, email: &Email, client: &ClientInfo) -> Result<LoginAttempt, Error> {
        let account = throttle::account_key(&self.throttle_key, email);
        let keys = FailureKeys {
            account,
            address: client.ip.map(|ip| throttle::address_key(&self.throttle_key, email, ip)),
            ip: client.throttled_ip(),
        };
        let (_, known) = self.store.run(|tx| async move { keys.read(&tx).await }).await?;
        let permit = self.login_queues.acquire(known.map_or(account, |known| known.key)).await?;
        Ok(LoginAttempt { keys, _permit: permit })
    }

    /// Fails while the account, or its known address if there is one, must wait.
    fn check_failures(
        &self,
        (of_account, from_address): (Option<LoginFailures>, Option<LoginFailures>),
    ) -> Result<(), Error> {
        let counted = from_address.or(of_account);
        let wait = counted.and_then(|failures| counts(&failures).wait(self.clock.now()));
        wait.map_or(Ok(()), |wait| Err(throttled(wait)))
    }

    /// Deletes the failures of an account whose owner has proved their identity in another way.
    pub(super) async fn clear_failures(
        &self,
        tx: &Transaction,
        email: &Email,
    ) -> coditect_store::Result<()> {
        let account = throttle::account_key(&self.throttle_key, email);
        tx.delete::<LoginFailures>(Global, account).await.map(|_| ())
    }

    /// Counts a failed attempt, and audits it if the account exists.
    pub(super) async fn record_failure(
        &self,
        attempt: &LoginAttempt,
        user: Option<&User>,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        if let Some(ip) = attempt.keys.ip {
            self.addresses.failed(ip, now);
        }
        let keys = attempt.keys;
        // An unknown outcome may count it twice, which is harmless.
        self.store
            .run_idempotent(|tx| async move {
                let (of_account, from_address) = keys.read(&tx).await?;
                let (key, before) = match (keys.address, from_address) {
                    (Some(key), Some(known)) => (key, Some(known)),
                    _ => (keys.account, of_account),
                };
                let forgotten_after =
                    if key == keys.account { FAILURE_LIFETIME } else { KNOWN_ADDRESS_LIFETIME };
                let failures = before.map_or_else(Failures::default, |it| counts(&it)).failed(now);
                write(&tx, key, failures, now + forgotten_after).await?;
                // A deleted account gets no entry in its tenant.
                let user = match user {
                    Some(user) => tx.get::<User>(user.tenant_id, user.id).await?,
                    None => None,
                };
                if let Some(user) = user {
                    Entry::new(Action::LoginRefused, user.tenant_id, None, client)
                        .target(user.id)
                        .write(&tx, now)
                        .await?;
                }
                Ok::<_, coditect_store::Error>(())
            })
            .await?;
        Ok(())
    }
}

impl LoginAttempt {
    /// Deletes the failures of the account or of its known address, and stores the address as
    /// known.
    pub(super) async fn record_success(
        &self,
        tx: &Transaction,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<()> {
        let (_, from_address) = self.keys.read(tx).await?;
        if from_address.is_none() {
            tx.delete::<LoginFailures>(Global, self.keys.account).await?;
        }
        match self.keys.address {
            None => Ok(()),
            Some(key) => {
                write(tx, key, Failures { count: 0, last_at: now }, now + KNOWN_ADDRESS_LIFETIME)
                    .await
            }
        }
    }
}

impl FailureKeys {
    /// Reads the failures of the account, and of the account from this address.
    async fn read(
        self,
        tx: &Transaction,
    ) -> coditect_store::Result<(Option<LoginFailures>, Option<LoginFailures>)> {
        let from_address = async {
            match self.address {
                Some(key) => tx.get::<LoginFailures>(Global, key).await,
                None => Ok(None),
            }
        };
        try_join(tx.get::<LoginFailures>(Global, self.account), from_address).await
    }
}

async fn write(
    tx: &Transaction,
    key: [u8; 32],
    Failures { count, last_at }: Failures,
    expires_at: DateTime<Utc>,
) -> coditect_store::Result<()> {
    tx.upsert(&LoginFailures { key, count, last_at, expires_at }).await
}

fn counts(failures: &LoginFailures) -> Failures {
    Failures { count: failures.count, last_at: failures.last_at }
}

pub(super) fn throttled(retry_after: Duration) -> Error {
    Error::Throttled { retry_after }
}
