//! The memory of a workspace session: key-value pairs of agents.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::{try_join_all, try_join3};
use serde::{Deserialize, Serialize};

use super::{
    JsonText, LoadedPart, MemoryUsage, PartState, Saved, Session, SessionId, SessionState,
    StatePart, TenantId,
};
use crate::{
    Counter, Entity, Error, ErrorKind, Result, Transaction, indexes, keyspace::Subspace,
    records::MAX_PAGE_RECORDS,
};

/// An entry of a session's memory: any JSON under a key. `tx.list_keys::<SessionMemory>(tenant,
/// (session,))` scans all entries of a session, in key order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionMemory {
    /// Tenant of the session.
    pub tenant_id: TenantId,
    /// Session.
    pub session_id: SessionId,
    /// Key.
    pub key: String,
    /// Value.
    pub value: JsonText,
    /// Time of the last write.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for SessionMemory {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Subspace<TenantId> = Subspace::tenant("session_memory").keyed(&["id", "key"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String) {
        (self.session_id, self.key.clone())
    }
}

indexes! { SessionMemory => }

/// Limits on the state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateQuota {
    /// Maximum size of a session's memory, in bytes of JSON.
    pub memory_bytes: u64,
    /// Maximum size of a session's client state, in bytes, all kept versions included.
    pub client_bytes: i64,
    /// Maximum bytes of content of a tenant, the [`BYTES`](Counter::BYTES) counter: memory and
    /// client state count towards it like files.
    pub tenant_bytes: i64,
}

impl Default for StateQuota {
    /// Returns 8 MiB of memory and 16 MiB of client state per session, 10 GiB per tenant.
    fn default() -> Self {
        Self { memory_bytes: 8 << 20, client_bytes: 16 << 20, tenant_bytes: 10 << 30 }
    }
}

impl SessionMemory {
    /// Maximum number of entries of a session.
    pub const MAX_KEYS: usize = 1_000;

    /// Returns the size of an entry in JSON, in bytes: of `"key":value,`.
    pub fn entry_bytes(key: &str, value: &JsonText) -> u64 {
        /// Two quotes, a colon and a comma.
        const PUNCTUATION: usize = 4;
        let escaped = key.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        (key.len() + escaped + PUNCTUATION + value.as_str().len()) as u64
    }

    /// Writes the entry, replacing one under the same key, and returns whether it is new.
    /// Increments the [version](super::StatePart::Memory) of the memory. Two rounds of reads.
    ///
    /// # Errors
    ///
    /// Errors of [`change`](Self::change).
    pub async fn save(&self, tx: &Transaction, quota: &StateQuota) -> Result<bool> {
        let of = (self.tenant_id, self.session_id);
        let (_, usage, before) = try_join3(
            tx.get_required::<Session>(self.tenant_id, self.session_id),
            SessionState::load_part(tx, of, StatePart::Memory),
            Self::read_keys(tx, of, [self.key.as_str()]),
        )
        .await?;
        let after = [(self.key.clone(), Some(self.value.clone()))].into();
        Self::change(tx, &usage, (&before, after), quota, self.updated_at).await?;
        Ok(before.is_empty())
    }

    /// Returns the version and the size of a session's memory; `None` before its first change. One
    /// read.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::get`].
    pub async fn usage(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
    ) -> Result<Option<Saved<MemoryUsage>>> {
        let saved = tx.get::<SessionState>(tenant, (session, StatePart::Memory)).await?;
        Ok(saved.and_then(|SessionState { version, saved_at, state, .. }| match state {
            PartState::Memory(state) => Some(Saved { version, saved_at, state }),
            _ => None,
        }))
    }

    /// Returns all entries of a session as a JSON object, in key order. One range read per MiB.
    /// Uses the memory of the result, of size `usage`, and of one range read.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`](crate::Scan::page).
    pub async fn to_json(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        usage: MemoryUsage,
    ) -> Result<Vec<u8>> {
        let entries = tx.list_keys::<Self>(tenant, (session,));
        let mut json = Vec::with_capacity(usize::try_from(usage.bytes).unwrap_or_default() + 2);
        json.push(b'{');
        let mut next = None;
        loop {
            let page = entries.page(MAX_PAGE_RECORDS, next.as_ref()).await?;
            for Self { key, value, .. } in page.items {
                if json.len() > 1 {
                    json.push(b',');
                }
                json.extend(serde_json::Value::String(key).to_string().bytes());
                json.push(b':');
                json.extend(value.as_str().bytes());
            }
            next = page.next;
            if next.is_none() {
                json.push(b'}');
                return Ok(json);
            }
        }
    }

    /// Returns the entries under `keys` that exist. One round of reads.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::get`].
    pub async fn read_keys<'a>(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, JsonText>> {
        let reads = keys.into_iter().map(|key| tx.get::<Self>(tenant, (session, key.to_owned())));
        let found = try_join_all(reads).await?.into_iter().flatten();
        Ok(found.map(|memory| (memory.key, memory.value)).collect())
    }

    /// Writes the entries of `after`, of which `None` removes one, and returns the new version of
    /// the memory. `loaded` is the part [`StatePart::Memory`] and `before` the current entries of
    /// the same keys, as `tx` has read them; no record is read again. At most two rounds of reads.
    ///
    /// # Errors
    ///
    /// `Limit` if the memory would exceed
    /// [`MAX_KEYS`](Self::MAX_KEYS) or the quota of a session, `QuotaExceeded` if the tenant would
    /// exceed its quota; errors of [`Transaction::upsert`].
    pub async fn change(
        tx: &Transaction,
        loaded: &LoadedPart,
        (before, after): (&BTreeMap<String, JsonText>, BTreeMap<String, Option<JsonText>>),
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let (tenant, session) = loaded.of();
        let mut added = MemoryUsage::default();
        let mut removed = MemoryUsage::default();
        let mut written = Vec::new();
        for (key, value) in after {
            let old = before.get(&key);
            if let Some(old) = old {
                removed.add(&key, old);
            }
            match value {
                None if old.is_none() => {}
                None => tx.clear_keys::<Self>(tenant, &(session, key)).await?,
                Some(value) => {
                    added.add(&key, &value);
                    if old != Some(&value) {
                        let (tenant_id, session_id) = (tenant, session);
                        written.push(Self { tenant_id, session_id, key, value, updated_at: now });
                    }
                }
            }
        }
        let version = Self::save_usage(tx, loaded, quota, now, |usage| MemoryUsage {
            keys: (usage.keys + added.keys).saturating_sub(removed.keys),
            bytes: (usage.bytes + added.bytes).saturating_sub(removed.bytes),
        });
        let version = version.await?;
        // Without indexes and blobs, what was read has nothing to be removed.
        try_join_all(written.iter().map(|entry| tx.upsert_over(None, entry))).await?;
        Ok(version)
    }

    /// Replaces all entries by `after`, without reading them, and returns the new version of the
    /// memory. At most two rounds of reads.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub async fn replace(
        tx: &Transaction,
        loaded: &LoadedPart,
        after: BTreeMap<String, JsonText>,
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let (tenant, session) = loaded.of();
        let mut usage = MemoryUsage::default();
        for (key, value) in &after {
            usage.add(key, value);
        }
        let version = Self::save_usage(tx, loaded, quota, now, |_| usage).await?;
        tx.clear_keys::<Self>(tenant, &session).await?;
        let (tenant_id, session_id) = (tenant, session);
        let entry = |(key, value)| Self { tenant_id, session_id, key, value, updated_at: now };
        let entries: Vec<Self> = after.into_iter().map(entry).collect();
        try_join_all(entries.iter().map(|entry| tx.upsert_over(None, entry))).await?;
        Ok(version)
    }

    /// Saves the usage that `change` returns, within the quota, and returns the new version of the
    /// memory.
    async fn save_usage(
        tx: &Transaction,
        loaded: &LoadedPart,
        quota: &StateQuota,
        now: DateTime<Utc>,
        change: impl FnOnce(MemoryUsage) -> MemoryUsage,
    ) -> Result<u64> {
        let before = loaded.memory_usage();
        let after = change(before);
        if after.keys > Self::MAX_KEYS as u64 && after.keys > before.keys {
            let message = format!("a session's memory would exceed {} keys", Self::MAX_KEYS);
            return Err(Error::new(ErrorKind::Limit, message));
        }
        if after.bytes > quota.memory_bytes && after.bytes > before.bytes {
            let most = quota.memory_bytes;
            let message = format!("a session's memory would exceed {most} bytes");
            return Err(Error::new(ErrorKind::Limit, message));
        }
        let (tenant, _) = loaded.of();
        let growth = signed(after.bytes) - signed(before.bytes);
        let version = loaded.save(tx, PartState::Memory(after), now).await?;
        match growth {
            1.. => tx.charge(tenant, Counter::BYTES, growth, quota.tenant_bytes).await?,
            0 => {}
            less => tx.release(tenant, Counter::BYTES, -less)?,
        }
        Ok(version)
    }
}

impl MemoryUsage {
    /// Adds an entry.
    pub fn add(&mut self, key: &str, value: &JsonText) {
        self.keys += 1;
        self.bytes += SessionMemory::entry_bytes(key, value);
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &str, value: &JsonText) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(SessionMemory::entry_bytes(key, value));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_size_is_that_of_its_json() {
        for key in ["k", "a\"b", "a\\b", "\u{e9}", "\u{7f}\u{85}\u{2028}"] {
            let value = JsonText::from(&serde_json::json!({"x": [1, "\n"]}));
            let object = serde_json::json!({ key: value.to_value().unwrap() }).to_string();
            // Without the braces of the object, with the comma.
            let expected = (object.len() - 2 + 1) as u64;
            assert_eq!(SessionMemory::entry_bytes(key, &value), expected, "{key}");
        }
    }
}
