//! The memory of a session, read as shared JSON text and changed entry by entry.
//!
//! A memory may have several MiB, so it is never parsed as a whole, and all readers of a version
//! share one text: [`Memories`] holds the texts that are being sent. Reading a large memory is
//! charged to its user before the read; see [`output`](crate::http::output). A change reads and
//! parses only the entries that it names, one at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    model::{
        JsonText, LoadedPart, MemoryUsage, Session, SessionId, SessionMemory, SessionState,
        StatePart, StateQuota, UserId,
    },
};
use serde_json::{Map, Value};
use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{
    owned::load_owned_session,
    parts::{UpdateMode, checked_key},
};
use crate::{
    extract::{
        caller::{self, Caller},
        merge_patch,
    },
    http::{
        HandlerResult, Request,
        budget::{self, Charge},
        conditions::{ETag, Preconditions, with_etag},
        problem::{Problem, SOON},
        respond,
    },
    memories::{Memory, Slot, Text},
    state::App,
};

/// Maximum size of a memory that is read without sharing, and charged with the rest of its
/// response.
const SMALL_BYTES: u64 = 64 << 10;

/// Maximum wait for another reader of the same memory.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of attempts of a read whose memory grows meanwhile.
const MAX_ATTEMPTS: usize = 6;

/// Reads memories within a transaction, which [`run`] repeats until there is room for them.
pub(crate) struct Reader {
    app: Arc<App>,
    turn: Option<Turn>,
    state: Mutex<State>,
}

/// The exclusive right to read one session's memory.
struct Turn {
    session: SessionId,
    slot: Arc<Slot>,
    _guard: OwnedMutexGuard<()>,
}

#[derive(Default)]
struct State {
    charge: Option<Arc<Charge>>,
    needed: Option<Needed>,
    /// The last result, to be shared with other readers.
    read: Option<Memory>,
}

/// A resource that a read is waiting for.
enum Needed {
    Turn(SessionId),
    Room { user: UserId, bytes: u64 },
}

impl Reader {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the memory of `session` as `tx` sees it. `is_changed` tells that `tx` has changed
    /// it.
    pub(crate) async fn read(
        &self,
        tx: &Transaction,
        session: &Session,
        is_changed: bool,
    ) -> Result<Memory, Problem> {
        let of = (session.tenant_id, session.id);
        let saved = SessionMemory::usage(tx, of).await?;
        let version = saved.as_ref().map_or(0, |saved| saved.version);
        let usage = saved.map(|saved| saved.state).unwrap_or_default();
        let app = &self.app;
        if !is_changed && let Some(memory) = app.memories.shown(session.id, version) {
            return Ok(memory);
        }
        let (mut charge, mut slot) = (None, None);
        if usage.bytes > SMALL_BYTES {
            let turn = self.turn.as_ref().filter(|turn| turn.session == session.id);
            let Some(turn) = turn else { return Err(self.need(Needed::Turn(session.id))) };
            // The pages and the text are in memory at the same time.
            let bytes = 2 * usage.bytes;
            let mut state = self.state();
            if state.charge.as_ref().is_none_or(|charge| charge.bytes() < bytes) {
                state.charge = None;
                let accounts = [app.output.user(session.user_id)];
                state.charge = app.output.try_charge(&accounts, bytes).ok().map(Arc::new);
            }
            charge = state.charge.clone();
            drop(state);
            if charge.is_none() {
                return Err(self.need(Needed::Room { user: session.user_id, bytes }));
            }
            slot = Some(Arc::clone(&turn.slot));
        }
        let json = SessionMemory::to_json(tx, of, usage).await?;
        let memory = Memory { version, text: Arc::new(Text { json, charge, _slot: slot }) };
        self.state().read = Some(memory.clone());
        Ok(memory)
    }

    fn need(&self, needed: Needed) -> Problem {
        self.state().needed = Some(needed);
        Problem::unavailable("BUSY", SOON)
    }

    /// Shares the result with other readers, after the commit of its transaction.
    fn publish(&self) {
        let State { charge, read, .. } = std::mem::take(&mut *self.state());
        let (Some(turn), Some(memory), Some(charge)) = (&self.turn, read, charge) else { return };
        charge.shrink_to(memory.text.json.len() as u64);
        let mut shown = turn.slot.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = Some((memory.version, Arc::downgrade(&memory.text)));
    }
}

/// Runs `work`, which reads memories with the [`Reader`], like [`caller::transact`].
///
/// # Errors
///
/// 429 or 503 if there is no room for the memory; the errors of `work`.
pub(crate) async fn run<T, F, Fut>(app: &Arc<App>, caller: &Caller, work: F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity, Arc<Reader>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    let (mut turn, mut charge) = (None, None);
    for _ in 0..MAX_ATTEMPTS {
        let state = Mutex::new(State { charge: charge.take(), ..State::default() });
        let reader = Arc::new(Reader { app: Arc::clone(app), turn, state });
        let done = caller::transact(app, caller, |tx, identity| {
            reader.state().needed = None;
            work(tx, identity, Arc::clone(&reader))
        })
        .await;
        let needed = reader.state().needed.take();
        let Some(needed) = needed.filter(|_| done.is_err()) else {
            if done.is_ok() {
                reader.publish();
            }
            return done;
        };
        // The transaction has ended, so this is the only reference to the reader.
        turn = Arc::into_inner(reader).and_then(|reader| reader.turn);
        match needed {
            Needed::Turn(session) => {
                drop(turn.take());
                let slot = app.memories.slot(session);
                let guard = timeout(TURN_TIMEOUT, Arc::clone(&slot.turn).lock_owned()).await;
                let guard = guard.map_err(|_elapsed| Problem::unavailable("BUSY", SOON))?;
                turn = Some(Turn { session, slot, _guard: guard });
            }
            Needed::Room { user, bytes } => {
                let accounts = [app.output.user(user)];
                let charged = app.output.charge(&accounts, bytes, budget::WAIT).await?;
                charge = Some(Arc::new(charged));
            }
        }
    }
    Err(Problem::unavailable("BUSY", SOON))
}

/// A change of a session's memory, built from patches.
pub(crate) struct Draft {
    loaded: LoadedPart,
    usage: MemoryUsage,
    /// Stored entries named by patches.
    before: BTreeMap<String, JsonText>,
    /// New values of entries named by patches.
    after: BTreeMap<String, Option<JsonText>>,
    replaces: bool,
}

impl Draft {
    /// Starts a change of the memory of `session`. Costs one read.
    pub(crate) async fn of(tx: &Transaction, session: &Session) -> Result<Self, Problem> {
        let loaded = SessionState::load(tx, session, StatePart::Memory).await?;
        let usage = loaded.memory_usage();
        let (before, after) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { loaded, usage, before, after, replaces: false })
    }

    /// Returns the stored version.
    pub(crate) fn version(&self) -> u64 {
        self.loaded.version()
    }

    /// Applies `body`, or leaves the draft unchanged on an error.
    ///
    /// # Errors
    ///
    /// 422 if a key is malformed, or the memory would exceed a limit.
    pub(crate) async fn apply(
        &mut self,
        (tx, session): (&Transaction, &Session),
        (mode, body): (UpdateMode, &Map<String, Value>),
        quota: &StateQuota,
    ) -> Result<(), Problem> {
        body.keys().try_for_each(|key| checked_key(key))?;
        let too_many = || {
            let message =
                format!("A session's memory may have at most {} keys.", SessionMemory::MAX_KEYS);
            Problem::too_large(message)
        };
        if body.len() > SessionMemory::MAX_KEYS {
            return Err(too_many());
        }
        let mut usage =
            if mode == UpdateMode::Replace { MemoryUsage::default() } else { self.usage };
        let mut changed = Vec::with_capacity(body.len());
        if mode == UpdateMode::Merge && !self.replaces {
            let unread = body.keys().filter(|key| !self.after.contains_key(*key));
            let unread = unread.map(String::as_str);
            let of = (session.tenant_id, session.id);
            for (key, value) in SessionMemory::read_keys(tx, of, unread).await? {
                self.before.insert(key.clone(), value.clone());
                self.after.insert(key, Some(value));
            }
        }
        for (key, value) in body {
            let old = match mode {
                UpdateMode::Replace => None,
                UpdateMode::Merge => self.after.get(key).and_then(Option::as_ref),
            };
            let new = match mode {
                UpdateMode::Replace => Some(JsonText::from(value)),
                UpdateMode::Merge => merged(key, old, value)?,
            };
            if let Some(old) = old {
                usage.remove(key, old);
            }
            if let Some(new) = &new {
                usage.add(key, new);
            }
            changed.push((key.clone(), new));
        }
        if usage.keys > SessionMemory::MAX_KEYS as u64 && usage.keys > self.usage.keys {
            return Err(too_many());
        }
        if usage.bytes > quota.memory_bytes && usage.bytes > self.usage.bytes {
            let most = quota.memory_bytes;
            let message = format!("A session's memory may have at most {most} bytes of JSON.");
            return Err(Problem::too_large(message));
        }
        if mode == UpdateMode::Replace {
            self.after.clear();
            self.replaces = true;
        }
        self.after.extend(changed);
        self.usage = usage;
        Ok(())
    }

    /// Writes the change and returns its version.
    pub(crate) async fn write(
        self,
        tx: &Transaction,
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64, Problem> {
        let Self { loaded, before, after, replaces, .. } = self;
        let version = if replaces {
            let after = after.into_iter().filter_map(|(key, value)| Some((key, value?)));
            SessionMemory::replace(tx, &loaded, after.collect(), quota, now).await?
        } else {
            SessionMemory::change(tx, &loaded, (&before, after), quota, now).await?
        };
        Ok(version)
    }
}

/// Returns the result of merging `patch` into the entry `old` under `key`; `None` removes the
/// entry.
fn merged(key: &str, old: Option<&JsonText>, patch: &Value) -> Result<Option<JsonText>, Problem> {
    if !patch.is_object() {
        return Ok((!patch.is_null()).then(|| JsonText::from(patch)));
    }
    let mut entry = Map::new();
    if let Some(old) = old {
        entry.insert(key.to_owned(), old.to_value()?);
    }
    let patch = Map::from_iter([(key.to_owned(), patch.clone())]);
    merge_patch::merge(&mut entry, &patch);
    Ok(entry.get(key).map(JsonText::from))
}

/// Returns the entity tag of a version.
fn tag_of(version: u64) -> ETag {
    ETag::new(version.to_string())
}

fn shown(memory: &Memory) -> HandlerResult {
    let response = respond::ok_pieces([memory.json()], memory.shared());
    with_etag(response, &tag_of(memory.version()))
}

/// Handles `GET /sessions/{id}/memory`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let conditions = &conditions;
    let read = run(&app, &caller, |tx, identity, reader| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        let saved = SessionMemory::usage(&tx, (session.tenant_id, session.id)).await?;
        let tag = tag_of(saved.map_or(0, |saved| saved.version));
        if conditions.is_unchanged(&tag)? {
            return Ok(Err(tag));
        }
        Ok(Ok(reader.read(&tx, &session, false).await?))
    });
    match read.await? {
        Ok(memory) => shown(&memory),
        Err(tag) => conditions.read(hyper::Response::new(respond::empty()), &tag),
    }
}

/// Handles `PUT` and `PATCH /sessions/{id}/memory`. PUT stores a `null`; PATCH removes the entry.
pub(crate) async fn save(app: Arc<App>, mut request: Request, mode: UpdateMode) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let body: Map<String, Value> = request.json().await?;
    let (now, quota) = (app.clock.now(), app.config.state_quota());
    let (conditions, body, quota) = (&conditions, &body, &quota);
    let memory = run(&app, &caller, |tx, identity, reader| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        let mut draft = Draft::of(&tx, &session).await?;
        conditions.require(Some(&tag_of(draft.version())))?;
        draft.apply((&tx, &session), (mode, body), quota).await?;
        draft.write(&tx, quota, now).await?;
        reader.read(&tx, &session, true).await
    })
    .await?;
    shown(&memory)
}
