//! Retention of audit logs: by age, and by the number of entries of a tenant.
//!
//! # Invariants
//!
//! - Only the oldest entries of a tenant are removed, and by a trusted clock: see
//!   [`purge`](super::Auth::purge).
//! - An entry is counted once, by the first purge after it was written. Until then a log may exceed
//!   its maximum.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Cursor, Transaction,
    keyspace::Global,
    model::{AuditEntry, Tenant, TenantId, User},
    records::MAX_PAGE_RECORDS,
};

use super::Auth;
use crate::model::AuditExtent;

/// Maximum number of tenants whose logs one purge trims; the next continues after them.
const MAX_TENANTS: usize = 1_000;

/// Entries that one transaction removes.
const BATCH: usize = 100;

/// Retention of audit logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRetention {
    /// Time after which an entry is removed.
    pub age: TimeDelta,
    /// Maximum number of entries of a tenant.
    pub max_entries: u64,
}

impl AuditRetention {
    /// Returns a retention for `age`, of at most `max_entries` of a tenant.
    pub const fn new(age: TimeDelta, max_entries: u64) -> Self {
        Self { age, max_entries }
    }
}

impl Default for AuditRetention {
    /// 400 days, and a million entries of a tenant.
    fn default() -> Self {
        Self::new(TimeDelta::days(400), 1_000_000)
    }
}

impl Auth {
    /// Trims the audit logs of the next tenants, in the order of their users' addresses, and
    /// returns the number of removed entries. Three reads for a tenant without new entries.
    pub(super) async fn trim_audit(&self, now: DateTime<Utc>) -> coditect_store::Result<u64> {
        let mut next = self.trimmed_to.lock().await;
        let mut removed = 0;
        let mut tenants = 0;
        while tenants < MAX_TENANTS {
            let after: Option<&Cursor> = next.as_ref();
            let users = self.store.run(|tx| async move {
                tx.scan(&User::BY_EMAIL, Global, ..).page(BATCH, after).await
            });
            let users = users.await?;
            tenants += users.items.len();
            for user in &users.items {
                removed += self.trim_audit_of(user.tenant_id, now).await?;
            }
            *next = users.next;
            if next.is_none() {
                break;
            }
        }
        Ok(removed)
    }

    /// Trims the audit log of `tenant`.
    async fn trim_audit_of(
        &self,
        tenant: TenantId,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<u64> {
        let retention = self.audit_retention;
        let mut removed = 0;
        loop {
            let step = |tx: Transaction| async move { trim(&tx, tenant, retention, now).await };
            let Trimmed { entries, is_done } = self.store.run_idempotent(step).await?;
            removed += entries;
            if is_done {
                return Ok(removed);
            }
        }
    }
}

/// Result of one transaction.
struct Trimmed {
    /// The number of entries that were removed.
    entries: u64,
    /// Whether no entry is left to be counted or removed.
    is_done: bool,
}

/// Counts a page of entries, and removes a batch of the oldest.
async fn trim(
    tx: &Transaction,
    tenant: TenantId,
    retention: AuditRetention,
    now: DateTime<Utc>,
) -> coditect_store::Result<Trimmed> {
    // A tenant that is being deleted loses its log as a whole.
    if tx.get::<Tenant>(tenant, ()).await?.is_none() {
        return Ok(Trimmed { entries: 0, is_done: true });
    }
    let before = tx.get::<AuditExtent>(tenant, ()).await?;
    let before = before.unwrap_or(AuditExtent { tenant_id: tenant, entries: 0, counted_to: None });
    let new = match before.counted_to {
        Some(position) => tx.events::<AuditEntry>(tenant, (), position..),
        None => tx.events::<AuditEntry>(tenant, (), ..),
    };
    let new = new.page(MAX_PAGE_RECORDS, None).await?;
    let uncounted = new.items.iter().filter(|it| Some(it.position) != before.counted_to).count();
    let counted_to = new.items.last().map(|last| last.position).or(before.counted_to);
    let counted = before.entries.saturating_add(uncounted as u64);
    let surplus = counted.saturating_sub(retention.max_entries);
    let limit = usize::try_from(counted).unwrap_or(usize::MAX).min(BATCH);
    let mut removed = 0;
    if limit > 0 {
        let oldest_kept = now.checked_sub_signed(retention.age).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let has_expired = |entry: &AuditEntry| entry.at < oldest_kept;
        removed = tx.trim::<AuditEntry>(tenant, (), (limit, has_expired)).await?;
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX).min(limit);
        if removed < surplus {
            let more = (surplus - removed, |_: &AuditEntry| true);
            removed += tx.trim::<AuditEntry>(tenant, (), more).await?;
        }
    }
    let entries = counted.saturating_sub(removed as u64);
    let extent = AuditExtent { tenant_id: tenant, entries, counted_to };
    if extent != before {
        tx.upsert(&extent).await?;
    }
    Ok(Trimmed { entries: removed as u64, is_done: removed == 0 && new.next.is_none() })
}
