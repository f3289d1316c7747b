//! Counters of a tenant, and limits that they never exceed.
//!
//! A counter is one key, `(T, "counters", name)` → `i64`, changed by atomic additions. To check it
//! by a read that conflicts would make that key hot: of those who add at the same time, all but one
//! would be run again. So [`Transaction::charge`] reads it without a conflict and does one of two
//! things, by what it reads:
//!
//! - *Below half of the limit* it takes a slot: one of [`SLOTS`] names that are never written, only
//!   conflicted on, each worth its share of the other half. Those who take different slots don't
//!   conflict.
//! - *From there on*, or if it asks for more than a slot is worth, or if the transaction has changed
//!   the counter before, it reads that with a conflict, and conflicts with every slot.
//!
//! **The guarantee:** if all that is added to a counter is added by `charge` with the same limit,
//! its committed value never exceeds the limit, however many add at once. A charge is refused only
//! if there is no room for it in what it reads, which may have been released since. Of two limits
//! in use at the same time (one is being lowered, say) it is the larger one that holds.
//!
//! *Why.* Let half be `⌊limit / 2⌋`, and take a commit after which the counter is past half. Let
//! `t` be the last commit that took it from below half to half or past it. Those who took slots and
//! commit after `t` saw it below half, so they began before `t`: all their times contain `t`, and
//! each two of them, like each of them and `t`'s own if it took one, have different slots, or the
//! later one would have conflicted. All slots together are worth no more than half. So while only
//! they have committed, the counter is below half + half. Once one commits that read the counter
//! itself, it is exact (whoever added since would have made it conflict), hence within the limit;
//! and none with a slot that began before it, as they all did, commits after it, since it conflicts
//! with every slot. What is released only makes it less.

use std::sync::{PoisonError, atomic::Ordering};

use super::{TenantTransaction, Transaction};
use crate::{
    Error, ErrorKind, Result,
    engine::AtomicOp,
    keyspace::{KeyPart as _, KeyRange, Space, is_name},
    model::{SessionId, TenantId},
};

/// Into how many parts the half of a limit is divided at the most: so many may be charged at the
/// same time without a conflict.
pub const SLOTS: u32 = 64;

/// Where counters lie.
pub(crate) const COUNTERS: Space<TenantId> = Space::tenant("counters").keyed(&["name"]);

/// Counters of a workspace session, which are deleted with it.
pub(crate) const SESSION_COUNTERS: Space<TenantId> =
    Space::tenant("session_counters").keyed(&["session", "name"]);

/// Something that is counted for each tenant.
///
/// ```
/// use coditect_store::{Result, Transaction, model::TenantId, repository::Counter};
///
/// const INVOICES: Counter = Counter::new("invoices");
///
/// async fn another_invoice(tx: &Transaction, tenant: TenantId) -> Result<()> {
///     tx.charge(tenant, INVOICES, 1, 10_000).await
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(&'static str);

impl Counter {
    /// How many workspace sessions a tenant has.
    pub const SESSIONS: Self = Self::new("sessions");
    /// Number of agents of a tenant.
    pub const AGENTS: Self = Self::new("agents");
    /// How many files a tenant has.
    pub const FILES: Self = Self::new("files");
    /// How many bytes of content a tenant has.
    pub const BYTES: Self = Self::new("bytes");
    /// Bytes of client state of a session.
    pub(crate) const CLIENT_STATE_BYTES: Self = Self::new("client_state_bytes");

    /// The counter named `name`: lower-case letters, digits and `_`. Persisted: never rename it,
    /// never count something else by it.
    ///
    /// # Panics
    ///
    /// On any other name; in a `const`, where it belongs, that is an error of the compiler.
    pub const fn new(name: &'static str) -> Self {
        assert!(is_name(name), "a counter's name is lower-case letters, digits and `_`");
        Self(name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl Transaction {
    /// The value of `counter`, with what this transaction has added. One read, which conflicts with
    /// nothing: others may have changed it when this transaction commits.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is no number.
    pub async fn counter(&self, tenant: TenantId, counter: Counter) -> Result<i64> {
        self.counter_at(&self.counter_key(tenant, counter), counter).await
    }

    async fn counter_at(&self, key: &[u8], counter: Counter) -> Result<i64> {
        number(counter, self.engine.snapshot().get(key).await?)
    }

    /// Adds `amount`, 0 or more, to `counter`, unless it exceeds `limit` then: the
    /// [module](self) says what is guaranteed. One read or two, one after the other. It seldom
    /// conflicts with others who charge the same counter while that is below half of the limit, and
    /// always does from there on.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` with the counter's name if it would exceed the limit; nothing is added then, and the
    /// transaction can go on. `Invalid` if `amount` is negative, `Corrupt` if what is stored is no
    /// number.
    pub async fn charge(
        &self,
        tenant: TenantId,
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        self.charge_at(self.counter_key(tenant, counter), counter, amount, limit).await
    }

    /// As [`charge`](Self::charge), of a counter of `session`.
    pub(crate) async fn charge_session(
        &self,
        (tenant, session): (TenantId, SessionId),
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        self.charge_at(self.session_counter_key(tenant, session, counter), counter, amount, limit)
            .await
    }

    async fn charge_at(
        &self,
        key: Vec<u8>,
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        if amount < 0 {
            return Err(Error::new(ErrorKind::Invalid, "less than nothing cannot be charged"));
        }
        let _claim = self.claim(vec![key.clone()]).await;
        let seen = self.counter_at(&key, counter).await?;
        let first = self.changes(&key);
        let share = Share::of(limit).filter(|share| first && share.suffices(seen, amount));
        if let Some(share) = share {
            let next = self.context.next_slot.fetch_add(1, Ordering::Relaxed);
            let mut slot = key.clone();
            (next % share.slots).pack(&mut slot);
            let slot = KeyRange::tuples(&slot);
            self.engine.add_read_conflict_range(&slot.begin, &slot.end)?;
            self.engine.add_write_conflict_range(&slot.begin, &slot.end)?;
        } else {
            let exact = number(counter, self.engine.get(&key).await?)?;
            if exact.checked_add(amount).is_none_or(|sum| sum > limit) {
                let message = format!("counter {} would exceed {limit}", counter.name());
                return Err(Error::new(ErrorKind::QuotaExceeded(counter.name()), message));
            }
            let slots = slots(&key);
            self.engine.add_write_conflict_range(&slots.begin, &slots.end)?;
        }
        self.engine.atomic(AtomicOp::Add, &key, &amount.to_le_bytes());
        Ok(())
    }

    /// Takes `amount`, 0 or more, off `counter`: what was charged before and is there no more. It
    /// reads nothing, and conflicts only with who charges past half of a limit.
    ///
    /// # Errors
    ///
    /// `Invalid` if `amount` is negative.
    pub fn release(&self, tenant: TenantId, counter: Counter, amount: i64) -> Result<()> {
        self.release_at(&self.counter_key(tenant, counter), amount)
    }

    /// As [`release`](Self::release), of a counter of `session`.
    pub(crate) fn release_session(
        &self,
        (tenant, session): (TenantId, SessionId),
        counter: Counter,
        amount: i64,
    ) -> Result<()> {
        self.release_at(&self.session_counter_key(tenant, session, counter), amount)
    }

    fn release_at(&self, key: &[u8], amount: i64) -> Result<()> {
        if amount < 0 {
            return Err(Error::new(ErrorKind::Invalid, "less than nothing cannot be released"));
        }
        self.changes(key);
        self.engine.atomic(AtomicOp::Add, key, &(-amount).to_le_bytes());
        Ok(())
    }

    /// Removes a counter of `session` and returns its value. One read, which conflicts with every
    /// change of the counter.
    pub(crate) async fn remove_session_counter(
        &self,
        (tenant, session): (TenantId, SessionId),
        counter: Counter,
    ) -> Result<i64> {
        let key = self.session_counter_key(tenant, session, counter);
        let value = number(counter, self.engine.get(&key).await?)?;
        self.engine.clear(&key);
        Ok(value)
    }

    /// Notes that this transaction changes the counter at `key`, and says whether it does so for
    /// the first time.
    fn changes(&self, key: &[u8]) -> bool {
        let counted = &self.progress.counted;
        counted.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec())
    }

    fn counter_key(&self, tenant: TenantId, counter: Counter) -> Vec<u8> {
        COUNTERS.key(self.root(), tenant, &counter.name().to_owned())
    }

    fn session_counter_key(
        &self,
        tenant: TenantId,
        session: SessionId,
        counter: Counter,
    ) -> Vec<u8> {
        SESSION_COUNTERS.key(self.root(), tenant, &(session, counter.name().to_owned()))
    }
}

impl TenantTransaction {
    /// As [`Transaction::counter`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn counter(&self, counter: Counter) -> Result<i64> {
        self.tx.counter(self.tenant, counter).await
    }

    /// As [`Transaction::charge`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn charge(&self, counter: Counter, amount: i64, limit: i64) -> Result<()> {
        self.tx.charge(self.tenant, counter, amount, limit).await
    }

    /// As [`Transaction::release`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(&self, counter: Counter, amount: i64) -> Result<()> {
        self.tx.release(self.tenant, counter, amount)
    }
}

/// How the half of a limit is divided into slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    half: i64,
    slots: u32,
    /// What a slot is worth; all of them are worth no more than half.
    worth: i64,
}

impl Share {
    /// That of `limit`; none of one so small that there is nothing to divide.
    fn of(limit: i64) -> Option<Self> {
        let half = limit / 2;
        let slots = u32::try_from(half).unwrap_or(u32::MAX).min(SLOTS);
        (half > 0).then(|| Self { half, slots, worth: half / i64::from(slots) })
    }

    /// Whether a slot is enough to charge `amount` who has seen the counter at `seen`.
    fn suffices(self, seen: i64, amount: i64) -> bool {
        seen < self.half && amount <= self.worth
    }
}

/// The names of all slots of the counter at `key`: what goes on from it.
fn slots(key: &[u8]) -> KeyRange {
    KeyRange::tuples(key).after(key.to_vec())
}

/// A counter's value; 0 if it was never changed.
fn number(counter: Counter, bytes: Option<Vec<u8>>) -> Result<i64> {
    let Some(bytes) = bytes else {
        return Ok(0);
    };
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| {
        let message = format!("counter {} holds no number", counter.name());
        Error::new(ErrorKind::Corrupt, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_worth_no_more_than_half_of_the_limit() {
        for limit in [2, 3, 7, 100, 127, 128, 129, 1_000_003, i64::MAX] {
            let share = Share::of(limit).unwrap();
            assert!(share.worth > 0 && share.slots > 0, "{share:?}");
            let all = share.worth.checked_mul(i64::from(share.slots)).unwrap();
            assert!(all <= share.half && share.half + all <= limit, "{share:?} of {limit}");
        }
        for limit in [1, 0, -1, i64::MIN] {
            assert_eq!(Share::of(limit), None);
        }
    }

    #[test]
    fn slots_go_on_from_the_counters_key() {
        let mut slot = b"k".to_vec();
        (SLOTS - 1).pack(&mut slot);
        assert!(slots(b"k").contains(&slot));
        let mut slot = b"k".to_vec();
        0_u32.pack(&mut slot);
        assert!(slots(b"k").contains(&slot));
        assert!(!slots(b"k").contains(b"k"));
    }
}
