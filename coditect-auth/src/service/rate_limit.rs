//! Slowing down who guesses passwords: what is remembered of failures, and who waits.
//!
//! What stays true:
//!
//! - An attempt is let through or refused before a password is hashed, whether there is such an account
//!   or not, and one account's passwords are looked at one after the other, so that each is judged by
//!   what the one before has come to.
//! - Failures of an account count wherever they come from. An address from which its user has signed in
//!   lately has its own count instead: who guesses from elsewhere does not keep the owner out.
//! - A client whose address is not known shares the count of the nearest known hop, and never has a count
//!   of its own for an account: another client behind the same proxy would share that exemption.
//! - What is refused here is no failure, and makes nobody wait longer.

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
    throttle::{self, FORGOTTEN_AFTER, Failures},
};

/// How long an address is known from which somebody has signed in.
const ADDRESS_KNOWN_FOR: TimeDelta = TimeDelta::days(30);

/// How many attempts at one account may wait for the one that is looked at.
const WAITING: usize = 16;

/// With fewer accounts than this it is not worth looking for those that nobody is at any more.
const FEW_ACCOUNTS: usize = 1_024;

/// By what the failures of an attempt are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    account: [u8; 32],
    /// Of the account from this address, if the address is known.
    device: Option<[u8; 32]>,
    ip: Option<IpAddr>,
}

/// An attempt that was let through. Others at the same account wait until it is dropped.
#[derive(Debug)]
pub(super) struct Attempt {
    keys: Keys,
    _permit: LoginPermit,
}

/// A permit at an account, which is its queue.
#[derive(Debug)]
struct LoginPermit {
    // Permits first: while one is out the account's queue must be found by others.
    _one: OwnedSemaphorePermit,
    _waiter: OwnedSemaphorePermit,
    _queue: Arc<LoginQueue>,
}

/// Who is at which account.
#[derive(Debug, Default)]
pub(super) struct LoginQueues(Mutex<HashMap<[u8; 32], Weak<LoginQueue>>>);

#[derive(Debug)]
struct LoginQueue {
    waiters: Arc<Semaphore>,
    one: Arc<Semaphore>,
}

impl LoginQueues {
    fn of(&self, account: [u8; 32]) -> Arc<LoginQueue> {
        let mut login_queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = login_queues.get(&account).and_then(Weak::upgrade) {
            return queue;
        }
        if login_queues.len() >= FEW_ACCOUNTS {
            login_queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(LoginQueue {
            waiters: Arc::new(Semaphore::new(WAITING + 1)),
            one: Arc::new(Semaphore::new(1)),
        });
        login_queues.insert(account, Arc::downgrade(&queue));
        queue
    }

    /// Refused at once when too many wait; else waits for its queue.
    async fn take(&self, account: [u8; 32]) -> Result<LoginPermit, Error> {
        let queue = self.of(account);
        let waiter = Arc::clone(&queue.waiters).try_acquire_owned().map_err(|_| Error::Busy)?;
        let one = Arc::clone(&queue.one).acquire_owned().await.map_err(Error::internal)?;
        Ok(LoginPermit { _one: one, _waiter: waiter, _queue: queue })
    }
}

impl Auth {
    /// Refuses an address from which too many attempts have failed.
    pub(super) fn admit_address(
        &self,
        device: &ClientInfo,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Some(ip) = device.throttled_ip() else { return Ok(()) };
        self.addresses.check(ip, now).map_err(throttled)
    }

    /// That an attempt from there has failed.
    pub(super) fn address_failed(&self, device: &ClientInfo, now: DateTime<Utc>) {
        if let Some(ip) = device.throttled_ip() {
            self.addresses.failed(ip, now);
        }
    }

    /// Lets an attempt at the account of `email` through when it is its queue, or refuses it.
    pub(super) async fn admit(&self, email: &Email, device: &ClientInfo) -> Result<Attempt, Error> {
        let account = throttle::account_key(&self.throttle_key, email);
        let keys = Keys {
            account,
            device: device.ip.map(|ip| throttle::device_key(&self.throttle_key, email, ip)),
            ip: device.throttled_ip(),
        };
        let read = async || self.store.run(|tx| async move { keys.read(&tx).await }).await;
        // Who has signed in from there does not wait for those who come from elsewhere.
        let (_, known) = read().await?;
        let permit = self.login_queues.take(known.map_or(account, |known| known.key)).await?;
        let now = self.clock.now();
        let (of_account, of_device) = read().await?;
        let counted = of_device.or(of_account);
        match counted.and_then(|failures| counts(&failures).wait(now)) {
            Some(wait) => Err(throttled(wait)),
            None => Ok(Attempt { keys, _permit: permit }),
        }
    }

    /// Forgets the failures of an account whose owner has shown who they are in another way.
    pub(super) async fn forget_failures(
        &self,
        tx: &Transaction,
        email: &Email,
    ) -> coditect_store::Result<()> {
        let account = throttle::account_key(&self.throttle_key, email);
        tx.delete::<LoginFailures>(Global, account).await.map(|_| ())
    }

    /// Writes down that an attempt has failed, of whose account if there is one.
    pub(super) async fn failed(
        &self,
        attempt: &Attempt,
        user: Option<&User>,
        device: &ClientInfo,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        if let Some(ip) = attempt.keys.ip {
            self.addresses.failed(ip, now);
        }
        let keys = attempt.keys;
        // Counting one twice, when an outcome was unknown, is not worth a marker.
        self.store
            .run_idempotent(|tx| async move {
                let (of_account, of_device) = keys.read(&tx).await?;
                let (key, before) = match (keys.device, of_device) {
                    (Some(key), Some(known)) => (key, Some(known)),
                    _ => (keys.account, of_account),
                };
                let forgotten_after =
                    if key == keys.account { FORGOTTEN_AFTER } else { ADDRESS_KNOWN_FOR };
                let failures = before.map_or_else(Failures::default, |it| counts(&it)).failed(now);
                write(&tx, key, failures, now + forgotten_after).await?;
                // An account that was deleted meanwhile leaves nothing behind in its tenant.
                let user = match user {
                    Some(user) => tx.get::<User>(user.tenant_id, user.id).await?,
                    None => None,
                };
                if let Some(user) = user {
                    Entry::new(Action::LoginRefused, user.tenant_id, None, device)
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

impl Attempt {
    /// Forgets the failures of the account, or of the address that it is known by, and knows the address
    /// from now on.
    pub(super) async fn succeeded(
        &self,
        tx: &Transaction,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<()> {
        let (_, of_device) = self.keys.read(tx).await?;
        if of_device.is_none() {
            tx.delete::<LoginFailures>(Global, self.keys.account).await?;
        }
        match self.keys.device {
            None => Ok(()),
            Some(key) => {
                write(tx, key, Failures { count: 0, last_at: now }, now + ADDRESS_KNOWN_FOR).await
            }
        }
    }
}

impl Keys {
    /// What is remembered of the account, and of it from this address.
    async fn read(
        self,
        tx: &Transaction,
    ) -> coditect_store::Result<(Option<LoginFailures>, Option<LoginFailures>)> {
        let of_device = async {
            match self.device {
                Some(key) => tx.get::<LoginFailures>(Global, key).await,
                None => Ok(None),
            }
        };
        try_join(tx.get::<LoginFailures>(Global, self.account), of_device).await
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
