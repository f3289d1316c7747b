//! Counters of a tenant, with limits that are never exceeded.
//!
//! A counter is one key, `(T, "counters", name)` → `i64`, changed by atomic additions. Checking it
//! by a read with conflicts would make that key hot: of several concurrent charges all but one
//! would be retried. So [`Transaction::charge`] reads it without a conflict, and then:
//!
//! - *Below half of the limit* it takes a slot: one of [`SLOTS`] keys that are never written, only
//!   used in conflict ranges, each worth its share of the other half. Charges with different slots
//!   do not conflict.
//! - *Otherwise*, or if the charge exceeds a slot's share, or if the transaction has changed the
//!   counter before, it reads the counter with a conflict, and conflicts with every slot.
//!
//! # Invariants
//!
//! If all additions to a counter are charges with the same limit, its committed value never exceeds
//! the limit, regardless of concurrency. A charge is rejected only if it does not fit the value
//! that it reads, which may have been released since. With two limits in use at the same time, such
//! as while one is lowered, the larger one holds.
//!
//! *Proof.* Let half be `⌊limit / 2⌋`, and take a commit after which the counter exceeds half. Let
//! `t` be the last commit that raised it from below half to half or more. Charges with slots that
//! commit after `t` read it below half, so they began before `t`: all of them overlap at `t`, and
//! any two of them, like each of them and `t`'s own if it has a slot, have different slots, since
//! otherwise the later one conflicts. All slots together are worth at most half. So while only
//! charges with slots commit, the counter is below half + half. Once a charge commits that reads
//! the counter itself, the value is exact (any addition since would have made it conflict), and so
//! within the limit; no charge with a slot that began before it commits after it, since it
//! conflicts with every slot. A release only lowers the value.

use std::sync::{PoisonError, atomic::Ordering};

use super::Transaction;
use crate::{
    Error, ErrorKind, Result,
    engine::AtomicOp,
    entity::COUNTERS,
    keyspace::{KeyPart as _, KeyRange, TenantId, is_name},
};

/// Maximum number of parts into which half of a limit is divided, and so of concurrent charges
/// without a conflict.
pub const SLOTS: u32 = 64;

/// A counter of a tenant.
///
/// ```
/// use coditect_store::{Result, Transaction, model::TenantId, records::Counter};
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
    /// Bytes of content.
    pub const BYTES: Self = Self::new("bytes");

    /// Creates the counter `name`: lower-case letters, digits and `_`. Persisted: never change or
    /// reuse it.
    ///
    /// # Panics
    ///
    /// If the name is invalid. In a `const` this is a compile error.
    pub const fn new(name: &'static str) -> Self {
        assert!(is_name(name), "a counter's name is lower-case letters, digits and `_`");
        Self(name)
    }

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl Transaction {
    /// Returns the value of `counter`, including this transaction's changes. One read, without a
    /// conflict: the value may have changed at the commit.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the stored value is not a number.
    pub async fn counter(&self, tenant: TenantId, counter: Counter) -> Result<i64> {
        self.counter_at(&self.counter_key(tenant, counter), counter).await
    }

    async fn counter_at(&self, key: &[u8], counter: Counter) -> Result<i64> {
        number(counter, self.engine.snapshot().get(key).await?)
    }

    /// Adds `amount`, 0 or more, to `counter`, unless the sum exceeds `limit`: see the
    /// [module](self). One or two sequential reads. Concurrent charges of one counter rarely
    /// conflict while it is below half of the limit, and always from there on.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` with the counter's name if the sum exceeds the limit; this call writes
    /// nothing then, and the transaction can continue. `Invalid` if `amount` is negative, `Corrupt`
    /// if the stored value is not a number.
    pub async fn charge(
        &self,
        tenant: TenantId,
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        self.charge_at(self.counter_key(tenant, counter), counter, amount, limit).await
    }

    /// As [`charge`](Self::charge), for the counter at `key`.
    pub(crate) async fn charge_at(
        &self,
        key: Vec<u8>,
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        if amount < 0 {
            return Err(Error::new(ErrorKind::Invalid, "cannot charge a negative amount"));
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

    /// Subtracts `amount`, 0 or more, from `counter`. No read; conflicts only with charges beyond
    /// half of a limit.
    ///
    /// # Errors
    ///
    /// `Invalid` if `amount` is negative.
    pub fn release(&self, tenant: TenantId, counter: Counter, amount: i64) -> Result<()> {
        self.release_at(&self.counter_key(tenant, counter), amount)
    }

    /// As [`release`](Self::release), for the counter at `key`.
    pub(crate) fn release_at(&self, key: &[u8], amount: i64) -> Result<()> {
        if amount < 0 {
            return Err(Error::new(ErrorKind::Invalid, "cannot release a negative amount"));
        }
        self.changes(key);
        self.engine.atomic(AtomicOp::Add, key, &(-amount).to_le_bytes());
        Ok(())
    }

    /// Removes the counter at `key`, and returns its value. One read, which conflicts with every
    /// change of the counter.
    pub(crate) async fn remove_counter_at(&self, key: &[u8], counter: Counter) -> Result<i64> {
        let value = number(counter, self.engine.get(key).await?)?;
        self.engine.clear(key);
        Ok(value)
    }

    /// Records that this transaction changes the counter at `key`, and returns whether it is the
    /// first time.
    fn changes(&self, key: &[u8]) -> bool {
        let counted = &self.progress.counted;
        counted.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec())
    }

    fn counter_key(&self, tenant: TenantId, counter: Counter) -> Vec<u8> {
        COUNTERS.key(self.root(), tenant, &counter.name().to_owned())
    }
}

/// The division of half of a limit into slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    half: i64,
    slots: u32,
    /// Value of a slot; all together are worth at most half.
    worth: i64,
}

impl Share {
    /// Returns the division of `limit`, or `None` if it is too small.
    fn of(limit: i64) -> Option<Self> {
        let half = limit / 2;
        let slots = u32::try_from(half).unwrap_or(u32::MAX).min(SLOTS);
        (half > 0).then(|| Self { half, slots, worth: half / i64::from(slots) })
    }

    /// Returns whether a slot covers a charge of `amount` that read `seen`.
    fn suffices(self, seen: i64, amount: i64) -> bool {
        seen < self.half && amount <= self.worth
    }
}

/// Returns the range of all slots of the counter at `key`.
fn slots(key: &[u8]) -> KeyRange {
    KeyRange::tuples(key).after(key.to_vec())
}

/// Decodes a counter; an absent one is 0.
fn number(counter: Counter, bytes: Option<Vec<u8>>) -> Result<i64> {
    let Some(bytes) = bytes else {
        return Ok(0);
    };
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| {
        let message = format!("counter {} is not a number", counter.name());
        Error::new(ErrorKind::Corrupt, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_worth_at_most_half_of_the_limit() {
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
    fn slots_follow_the_counters_key() {
        let mut slot = b"k".to_vec();
        (SLOTS - 1).pack(&mut slot);
        assert!(slots(b"k").contains(&slot));
        let mut slot = b"k".to_vec();
        0_u32.pack(&mut slot);
        assert!(slots(b"k").contains(&slot));
        assert!(!slots(b"k").contains(b"k"));
    }
}
