//! Comparing the counters of a tenant with the records that they count.

use super::{Fault, at_one_version};
use crate::{
    Entity as _, Result, Store,
    engine::{KeyValue, View},
    entity::{COUNTERS, EventStream as _, SESSION_COUNTERS, decode_at, decode_event_at},
    keyspace::{KeyRange, Root, TenantId, unpack_all},
    model::{Agent, File, IdempotencyEntry, Message, PartState, Session, SessionId, SessionState},
    records::{Counter, blob},
};

/// Bytes that are read at once.
const PAGE_BYTES: usize = 1 << 20;

/// The counters of a tenant: as they are stored, and as its records come to.
pub(super) struct Tally {
    pub(super) tenant: TenantId,
    /// The bytes of its blobs; `None` if they are unknown.
    bytes: Option<u64>,
    /// The counted bytes of its sessions' memories and client states, its messages, and its answers
    /// to requests with an idempotency key.
    state_bytes: i64,
    files: i64,
    sessions: i64,
    agents: i64,
    /// The stored counters, by name.
    stored: Vec<(String, i64)>,
}

/// A counter that differs from its records.
pub(super) struct Difference {
    pub(super) counter: Counter,
    pub(super) value: i64,
    pub(super) expected: i64,
}

impl Tally {
    /// The tally of a tenant whose blobs come to `bytes`, if that is known.
    pub(super) fn new(tenant: TenantId, bytes: Option<u64>) -> Self {
        let (state_bytes, files, sessions, agents) = (0, 0, 0, 0);
        Self { tenant, bytes, state_bytes, files, sessions, agents, stored: Vec::new() }
    }

    pub(super) fn add_stored(&mut self, name: &str, value: i64) {
        self.stored.push((name.to_owned(), value));
    }

    /// Adds a counter of a session.
    pub(super) fn add_session(&mut self, name: &str, value: i64) {
        if name == Counter::CLIENT_STATE_BYTES.name() {
            self.state_bytes = self.state_bytes.saturating_add(value);
        }
    }

    /// Adds a record of the space `name`. One that is unreadable is a finding of its own.
    pub(super) fn add_record(&mut self, root: &Root, name: &str, row: &KeyValue) {
        self.files += i64::from(name == File::SPACE.name());
        self.sessions += i64::from(name == Session::SPACE.name());
        self.agents += i64::from(name == Agent::SPACE.name());
        let KeyValue { key, value } = row;
        let counted = if name == SessionState::SPACE.name() {
            decode_at::<SessionState>(root, key, value).map(|saved| match saved.state {
                PartState::Memory(usage) => i64::try_from(usage.bytes).unwrap_or(i64::MAX),
                _ => 0,
            })
        } else if name == Message::SPACE.name() {
            let message = decode_event_at::<Message>(root, key, value);
            message.map(|(_, message)| message.counted_bytes())
        } else if name == IdempotencyEntry::SPACE.name() {
            let entry = decode_at::<IdempotencyEntry>(root, key, value);
            entry.map(|entry| entry.counted_bytes())
        } else {
            Ok(0)
        };
        match counted {
            Ok(bytes) => self.state_bytes = self.state_bytes.saturating_add(bytes),
            Err(_) => self.bytes = None,
        }
    }

    /// Returns the counters that differ from the records.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let bytes = self
            .bytes
            .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(self.state_bytes));
        let counters = [
            (Counter::BYTES, bytes),
            (Counter::FILES, Some(self.files)),
            (Counter::SESSIONS, Some(self.sessions)),
            (Counter::AGENTS, Some(self.agents)),
        ];
        let difference = |(counter, expected): (Counter, Option<i64>)| {
            let stored = self.stored.iter().find(|(stored, _)| stored == counter.name());
            let (value, expected) = (stored.map_or(0, |(_, value)| *value), expected?);
            (value != expected).then_some(Difference { counter, value, expected })
        };
        counters.into_iter().filter_map(difference).collect()
    }
}

/// Returns the name and the value of a tenant's counter, or why it is none.
pub(super) fn of_tenant(rest: &[u8], value: &[u8]) -> Result<(String, i64), Fault> {
    let name = unpack_all::<String>(rest).map_err(|_| Fault::UnknownKey)?;
    Ok((name, number(value)?))
}

/// Returns the name and the value of a session's counter, or why it is none.
pub(super) fn of_session(rest: &[u8], value: &[u8]) -> Result<(String, i64), Fault> {
    let (_, name) = unpack_all::<(SessionId, String)>(rest).map_err(|_| Fault::UnknownKey)?;
    Ok((name, number(value)?))
}

fn number(value: &[u8]) -> Result<i64, Fault> {
    value.try_into().map(i64::from_le_bytes).map_err(|_| Fault::UnreadableNumber)
}

/// Counts the records of `tenant` at one version, in one transaction. Returns `None` if that takes
/// longer than a transaction lives.
pub(super) async fn recount(store: &Store, tenant: TenantId) -> Result<Option<Tally>> {
    at_one_version(store, |view| count(store, view, tenant)).await
}

async fn count(store: &Store, view: View, tenant: TenantId) -> Result<Tally> {
    let (root, schema) = (store.root(), store.schema());
    let bytes = blob::counted_bytes(&view, root, schema, tenant).await?;
    let mut tally = Tally::new(tenant, bytes);
    let records = [File::SPACE, Session::SPACE, SessionState::SPACE, Agent::SPACE];
    let counted = [Message::SPACE, IdempotencyEntry::SPACE];
    let spaces = [COUNTERS, SESSION_COUNTERS].into_iter().chain(records).chain(counted);
    for space in spaces {
        let prefix = space.prefix(root, tenant);
        let mut pages = view.stream(KeyRange::tuples(&prefix), PAGE_BYTES);
        while let Some(rows) = pages.next_page().await? {
            for row in rows {
                let rest = &row.key[prefix.len()..];
                let Some(value) = row.value else { continue };
                if space.name() == COUNTERS.name() {
                    if let Ok((name, value)) = of_tenant(rest, &value) {
                        tally.add_stored(&name, value);
                    }
                } else if space.name() == SESSION_COUNTERS.name() {
                    if let Ok((name, value)) = of_session(rest, &value) {
                        tally.add_session(&name, value);
                    }
                } else {
                    let row = KeyValue { key: row.key, value };
                    tally.add_record(root, space.name(), &row);
                }
            }
        }
    }
    Ok(tally)
}
