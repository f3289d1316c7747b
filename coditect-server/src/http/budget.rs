//! Budgets for memory that clients can have the server hold, and the charges to them.
//!
//! A server has two: for [responses](super::output) until their clients have taken them, and for
//! [request bodies](super::intake) until their requests are answered. Each byte is charged to a
//! connection, a user and the process before it is held. What exceeds a limit waits for [`WAIT`]
//! and is then refused: with 429 if the connection or the user holds too much, with 503 if the
//! process does.
//!
//! # Invariants
//!
//! - A charge that may be refused never takes an account beyond its limit, unless it is the only
//!   one.
//! - An idle user gets a charge of up to [`ALWAYS_ADMITTED_BYTES`] although the process is at
//!   its limit, so that some clients never lock out the others.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coditect_store::model::UserId;
use hyper::StatusCode;
use tokio::{sync::Notify, time::timeout};

use super::problem::{Problem, SOON};

/// Time for which a charge waits for others to end before it is refused.
pub(crate) const WAIT: Duration = Duration::from_secs(1);

/// Fraction of the process's limit that one user, and one connection, may use: one in this many.
const SHARE: u64 = 8;

/// Size of a charge that an idle user always gets, in bytes.
const ALWAYS_ADMITTED_BYTES: u64 = 64 << 10;

/// Code of a refusal because a connection or a user holds too many responses.
pub(crate) const UNREAD: &str = "RESPONSES_UNREAD";

/// Code of a refusal because a connection or a user has too many request bodies.
const PENDING: &str = "REQUESTS_PENDING";

/// The memory that a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Responses that clients have not read yet.
    Responses,
    /// Bodies of requests that have no response yet.
    Requests,
}

/// Limits on memory of one purpose, and the bytes that are held.
#[derive(Debug)]
pub(crate) struct Budget {
    purpose: Purpose,
    process: Arc<Account>,
    /// All clients that are not authenticated.
    strangers: Arc<Account>,
    share_bytes: u64,
    users: Mutex<HashMap<UserId, Weak<Account>>>,
}

/// Bytes held by one connection, user or process.
#[derive(Debug)]
pub(crate) struct Account {
    limit_bytes: u64,
    held_bytes: AtomicU64,
    waiting_bytes: AtomicU64,
    released: Notify,
}

/// A charge, released on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    accounts: Vec<Arc<Account>>,
    bytes: AtomicU64,
}

/// The account that refused a charge.
#[derive(Debug)]
struct Exhausted(Arc<Account>);

impl Account {
    fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            held_bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            released: Notify::new(),
        })
    }

    pub(crate) fn held(&self) -> u64 {
        self.held_bytes.load(Ordering::Acquire)
    }

    fn is_exhausted(&self) -> bool {
        self.held() >= self.limit_bytes
    }

    /// Adds `bytes` unless the sum exceeds the limit. An empty account accepts any number.
    fn try_add(&self, bytes: u64) -> bool {
        let add = |held: u64| {
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= self.limit_bytes).then_some(sum)
        };
        self.held_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    fn add(&self, bytes: u64) {
        self.held_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.released.notify_waiters();
    }
}

impl Budget {
    /// Returns the budget of a process that holds at most `limit_bytes`, of which a user, a
    /// connection, and all clients that are not authenticated each hold an eighth, or `least_bytes`
    /// if that is more.
    pub(crate) fn new(purpose: Purpose, limit_bytes: u64, least_bytes: u64) -> Self {
        let share_bytes = (limit_bytes / SHARE).max(least_bytes);
        Self {
            purpose,
            process: Account::new(limit_bytes),
            strangers: Account::new(share_bytes),
            share_bytes,
            users: Mutex::default(),
        }
    }

    /// Returns the part of the limit that one user may hold, in bytes.
    pub(crate) fn share_bytes(&self) -> u64 {
        self.share_bytes
    }

    /// Returns the account of all clients that are not authenticated.
    pub(crate) fn strangers(&self) -> Arc<Account> {
        Arc::clone(&self.strangers)
    }

    /// Returns the account of a new connection.
    pub(crate) fn connection(&self) -> Arc<Account> {
        Account::new(self.share_bytes)
    }

    /// Returns the account of `user`.
    pub(crate) fn user(&self, user: UserId) -> Arc<Account> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = users.get(&user).and_then(Weak::upgrade) {
            return account;
        }
        if users.len() == users.capacity() {
            users.retain(|_, account| account.strong_count() > 0);
        }
        let account = Account::new(self.share_bytes);
        users.insert(user, Arc::downgrade(&account));
        account
    }

    /// Charges `bytes` to all `accounts` and the process, or to none.
    ///
    /// # Errors
    ///
    /// 429 or 503 if one of them has no room.
    pub(crate) fn try_charge(
        &self,
        accounts: &[Arc<Account>],
        bytes: u64,
    ) -> Result<Charge, Problem> {
        self.charge_now(accounts, bytes).map_err(|exhausted| self.refusal(&exhausted))
    }

    /// Charges `bytes` to `accounts` and the process, waiting for room.
    ///
    /// # Errors
    ///
    /// 429 or 503 if there is none after `patience`, or if too much is waiting already.
    pub(crate) async fn charge(
        &self,
        accounts: &[Arc<Account>],
        bytes: u64,
        patience: Duration,
    ) -> Result<Charge, Problem> {
        let exhausted = match self.charge_now(accounts, bytes) {
            Ok(charge) => return Ok(charge),
            Err(exhausted) => exhausted,
        };
        let Some(_waiting) = Waiting::begin(&exhausted.0, bytes) else {
            return Err(self.refusal(&exhausted));
        };
        let mut last = exhausted;
        let charged = async {
            loop {
                let account = Arc::clone(&last.0);
                let released = account.released.notified();
                tokio::pin!(released);
                // No release after this is missed.
                released.as_mut().enable();
                match self.charge_now(accounts, bytes) {
                    Ok(charge) => return charge,
                    Err(exhausted) => last = exhausted,
                }
                if Arc::ptr_eq(&last.0, &account) {
                    released.await;
                }
            }
        };
        match timeout(patience, charged).await {
            Ok(charge) => Ok(charge),
            Err(_elapsed) => Err(self.refusal(&last)),
        }
    }

    fn charge_now(&self, accounts: &[Arc<Account>], bytes: u64) -> Result<Charge, Exhausted> {
        let small = bytes <= ALWAYS_ADMITTED_BYTES;
        let is_idle = small && accounts.iter().all(|account| account.held() == 0);
        let mut charged = Vec::with_capacity(accounts.len() + 1);
        for account in accounts.iter().chain([&self.process]) {
            if is_idle && Arc::ptr_eq(account, &self.process) {
                account.add(bytes);
            } else if !account.try_add(bytes) {
                let exhausted = Exhausted(Arc::clone(account));
                drop(Charge { accounts: charged, bytes: AtomicU64::new(bytes) });
                return Err(exhausted);
            }
            charged.push(Arc::clone(account));
        }
        Ok(Charge { accounts: charged, bytes: AtomicU64::new(bytes) })
    }

    /// Charges `bytes` regardless of the limits.
    pub(crate) fn charge_anyway(&self, accounts: &[Arc<Account>], bytes: u64) -> Charge {
        let accounts: Vec<_> = accounts.iter().chain([&self.process]).cloned().collect();
        for account in &accounts {
            account.add(bytes);
        }
        Charge { accounts, bytes: AtomicU64::new(bytes) }
    }

    /// Refuses a request of `account` if that is at its limit.
    ///
    /// # Errors
    ///
    /// 429 if it is.
    pub(crate) fn require_room(&self, account: &Arc<Account>) -> Result<(), Problem> {
        if account.is_exhausted() {
            return Err(self.refusal(&Exhausted(Arc::clone(account))));
        }
        Ok(())
    }

    /// Waits until `account` is below its limit.
    ///
    /// # Errors
    ///
    /// 429 if it is not after [`WAIT`].
    pub(crate) async fn admit(&self, account: &Arc<Account>) -> Result<(), Problem> {
        if !account.is_exhausted() {
            return Ok(());
        }
        let below = async {
            loop {
                let released = account.released.notified();
                tokio::pin!(released);
                released.as_mut().enable();
                if !account.is_exhausted() {
                    return;
                }
                released.await;
            }
        };
        let refused = |_elapsed| self.refusal(&Exhausted(Arc::clone(account)));
        timeout(WAIT, below).await.map_err(refused)
    }

    fn refusal(&self, exhausted: &Exhausted) -> Problem {
        if Arc::ptr_eq(&exhausted.0, &self.process) {
            return Problem::unavailable("BUSY", SOON);
        }
        let (code, message) = match self.purpose {
            Purpose::Responses => {
                (UNREAD, "Earlier responses have not been read yet. Read them and try again.")
            }
            Purpose::Requests => {
                (PENDING, "Earlier requests have no response yet. Wait for it, then try again.")
            }
        };
        Problem::new(StatusCode::TOO_MANY_REQUESTS, code, message).with_retry_after(SOON)
    }
}

impl Charge {
    /// Adds `other`, a charge to the same accounts.
    pub(crate) fn absorb(&self, mut other: Self) {
        self.bytes.fetch_add(mem::take(other.bytes.get_mut()), Ordering::AcqRel);
    }

    /// Releases all but `bytes`.
    pub(crate) fn shrink_to(&self, bytes: u64) {
        let before = self.bytes.fetch_min(bytes, Ordering::AcqRel);
        for account in &self.accounts {
            account.remove(before.saturating_sub(bytes));
        }
    }

    /// Returns the number of charged bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.remove(*self.bytes.get_mut());
        }
    }
}

/// The bytes of a charge that waits for room.
struct Waiting {
    account: Arc<Account>,
    bytes: u64,
}

impl Waiting {
    /// Returns `None` if as much is waiting as may be: an eighth of the limit, or one charge.
    fn begin(account: &Arc<Account>, bytes: u64) -> Option<Self> {
        let most = account.limit_bytes / SHARE;
        let add = |waiting: u64| {
            let sum = waiting.saturating_add(bytes);
            (waiting == 0 || sum <= most).then_some(sum)
        };
        let waiting = &account.waiting_bytes;
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Self { account: Arc::clone(account), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.account.waiting_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn budget() -> Budget {
        Budget::new(Purpose::Responses, 800 * KIB, 100 * KIB)
    }

    fn refusal(result: Result<Charge, Problem>) -> (u16, &'static str) {
        let problem = result.unwrap_err();
        assert!(problem.header(hyper::header::RETRY_AFTER).is_some());
        (problem.status().as_u16(), problem.code())
    }

    #[tokio::test(start_paused = true)]
    async fn user_at_the_limit_is_refused_and_others_are_not() {
        let budget = budget();
        let (ada, grace) = (budget.user(UserId::new()), budget.user(UserId::new()));
        let held = budget.charge(&[Arc::clone(&ada)], 90 * KIB, WAIT).await.unwrap();
        let refused = budget.charge(&[Arc::clone(&ada)], 20 * KIB, WAIT).await;
        assert_eq!(refusal(refused), (429, "RESPONSES_UNREAD"));
        budget.charge(&[grace], 20 * KIB, WAIT).await.unwrap();
        drop(held);
        budget.charge(&[ada], 20 * KIB, WAIT).await.unwrap();
        assert_eq!(budget.process.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn process_at_the_limit_refuses_large_responses_and_admits_small_ones() {
        let budget = budget();
        let user = || [budget.user(UserId::new())];
        let _held: Vec<_> =
            (0..8).map(|_| budget.try_charge(&user(), 100 * KIB).unwrap()).collect();
        assert_eq!(refusal(budget.charge(&user(), 70 * KIB, WAIT).await), (503, "BUSY"));
        let small = user();
        let _first = budget.charge(&small, 60 * KIB, WAIT).await.unwrap();
        assert_eq!(refusal(budget.try_charge(&small, 20 * KIB)), (503, "BUSY"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_response_is_admitted_when_another_is_taken() {
        let budget = budget();
        let user = [budget.user(UserId::new())];
        let held = budget.try_charge(&user, 100 * KIB).unwrap();
        let waiting = budget.charge(&user, 8 * KIB, WAIT);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        // At most an eighth of the limit waits.
        assert!(budget.charge(&user, 8 * KIB, WAIT).await.is_err());
        held.shrink_to(50 * KIB);
        assert_eq!(waiting.await.unwrap().bytes(), 8 * KIB);
    }

    #[test]
    fn empty_accounts_are_removed() {
        let budget = budget();
        for _ in 0..1000 {
            budget.user(UserId::new());
        }
        assert!(budget.users.lock().unwrap().len() < 1000);
    }
}
