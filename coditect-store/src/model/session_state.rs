//! The state of a workspace session, in separately saved parts.
//!
//! Each part is a record of its own, apart from the [`Session`](super::Session), so that frequent
//! saves of one do not conflict with others.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{EditorState, Session, SessionId, TenantId, TerminalState};
use crate::{
    Entity, Error, ErrorKind, Result, Transaction, indexes,
    keyspace::{KeyPart, Subspace},
};

/// One part of a session's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// Tenant of the session.
    pub tenant_id: TenantId,
    /// Session.
    pub session_id: SessionId,
    /// Version of this part, from 1.
    pub version: u64,
    /// Time of the last save.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
    /// State.
    pub state: PartState,
}

/// The state of a part. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PartState {
    /// The editor's tabs.
    Editor(EditorState),
    /// The terminals.
    Terminal(TerminalState),
    /// Open files, by path.
    ActiveFiles(ActiveFiles),
    /// Size of the [memory](super::SessionMemory), whose entries are separate records. The version
    /// of this record is that of the whole memory.
    Memory(MemoryUsage),
}

/// The size of a session's [memory](super::SessionMemory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// Number of entries.
    pub keys: u64,
    /// Size in JSON, in bytes, by
    /// [`SessionMemory::entry_bytes`](super::SessionMemory::entry_bytes).
    pub bytes: u64,
}

/// A part of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatePart {
    /// [`EditorState`].
    Editor,
    /// [`TerminalState`].
    Terminal,
    /// [`ActiveFiles`].
    ActiveFiles,
    /// The version of the [memory](super::SessionMemory).
    Memory,
}

/// The paths of the open files, in the order of the tabs; a list in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ActiveFiles(pub Vec<String>);

/// All saved parts of a session's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionStates {
    /// Editor.
    pub editor: Option<Saved<EditorState>>,
    /// Terminals.
    pub terminal: Option<Saved<TerminalState>>,
    /// Open files.
    pub active_files: Option<Saved<ActiveFiles>>,
    /// Version, size and time of the last change of the memory.
    pub memory: Option<Saved<MemoryUsage>>,
}

/// A saved part.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<S> {
    /// Version, from 1.
    pub version: u64,
    /// Time of the save.
    pub saved_at: DateTime<Utc>,
    /// State.
    pub state: S,
}

/// A part of an existing session's state as a transaction has read it: the base of the next
/// version.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedPart {
    tenant: TenantId,
    session: SessionId,
    part: StatePart,
    saved: Option<SessionState>,
}

impl Entity for SessionState {
    type Scope = TenantId;
    type Key = (SessionId, StatePart);
    const SPACE: Subspace<TenantId> = Subspace::tenant("session_state").keyed(&["id", "part"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, StatePart) {
        (self.session_id, self.state.part())
    }
}

indexes! { SessionState => }

impl SessionState {
    /// Saves `state`, replacing its part, and returns the new version. Two rounds of reads;
    /// concurrent saves of one part conflict. A caller that reads the session and the part anyway
    /// [loads](Self::load) the part.
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist; errors of [`LoadedPart::save`].
    pub async fn save(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        state: impl Into<PartState>,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let state = state.into();
        let of_session = tx.get_required::<Session>(tenant, session);
        let of_part = Self::load_part(tx, (tenant, session), state.part());
        let (_, part) = try_join(of_session, of_part).await?;
        part.save(tx, state, now).await
    }

    /// Reads `part` of `session`, which `tx` has read. One read.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::get`].
    pub async fn load(tx: &Transaction, session: &Session, part: StatePart) -> Result<LoadedPart> {
        Self::load_part(tx, (session.tenant_id, session.id), part).await
    }

    pub(super) async fn load_part(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        part: StatePart,
    ) -> Result<LoadedPart> {
        let saved = tx.get::<Self>(tenant, (session, part)).await?;
        Ok(LoadedPart { tenant, session, part, saved })
    }

    /// Returns all parts of `session`. One range read.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`](crate::Scan::page).
    pub async fn all(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<SessionStates> {
        let mut states = SessionStates::default();
        for part in tx.list_keys::<Self>(tenant, (session,)).all(StatePart::ALL.len()).await? {
            let Self { version, saved_at, state, .. } = part;
            match state {
                PartState::Editor(state) => {
                    states.editor = Some(Saved { version, saved_at, state });
                }
                PartState::Terminal(state) => {
                    states.terminal = Some(Saved { version, saved_at, state });
                }
                PartState::ActiveFiles(state) => {
                    states.active_files = Some(Saved { version, saved_at, state });
                }
                PartState::Memory(state) => {
                    states.memory = Some(Saved { version, saved_at, state });
                }
            }
        }
        Ok(states)
    }
}

impl LoadedPart {
    /// Returns the tenant and the session.
    pub fn of(&self) -> (TenantId, SessionId) {
        (self.tenant, self.session)
    }

    /// Returns the version; 0 if the part was never saved.
    pub fn version(&self) -> u64 {
        self.saved.as_ref().map_or(0, |saved| saved.version)
    }

    /// Returns the saved part.
    pub fn saved(&self) -> Option<&SessionState> {
        self.saved.as_ref()
    }

    /// Returns the size of the memory, if this is [`StatePart::Memory`]; otherwise zero.
    pub fn memory_usage(&self) -> MemoryUsage {
        match self.saved.as_ref().map(|saved| &saved.state) {
            Some(PartState::Memory(usage)) => *usage,
            _ => MemoryUsage::default(),
        }
    }

    /// Saves `state` as the next version, and returns that. `tx` is the transaction that loaded the
    /// part; no record is read again.
    ///
    /// # Errors
    ///
    /// `Invalid` if `state` is of another part; `Limit` if it exceeds the maximum size of a value;
    /// errors of [`Transaction::upsert`].
    pub async fn save(
        &self,
        tx: &Transaction,
        state: impl Into<PartState>,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let state = state.into();
        if state.part() != self.part {
            let message = format!("a state of {:?} cannot replace {:?}", state.part(), self.part);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let version = self.version() + 1;
        let (tenant_id, session_id) = self.of();
        let next = SessionState { tenant_id, session_id, version, saved_at: now, state };
        tx.upsert_over(self.saved.as_ref(), &next).await?;
        Ok(version)
    }
}

impl PartState {
    /// Returns the part of this state.
    pub fn part(&self) -> StatePart {
        match self {
            Self::Editor(_) => StatePart::Editor,
            Self::Terminal(_) => StatePart::Terminal,
            Self::ActiveFiles(_) => StatePart::ActiveFiles,
            Self::Memory(_) => StatePart::Memory,
        }
    }
}

impl From<EditorState> for PartState {
    fn from(state: EditorState) -> Self {
        Self::Editor(state)
    }
}

impl From<TerminalState> for PartState {
    fn from(state: TerminalState) -> Self {
        Self::Terminal(state)
    }
}

impl From<ActiveFiles> for PartState {
    fn from(state: ActiveFiles) -> Self {
        Self::ActiveFiles(state)
    }
}

impl StatePart {
    /// All parts.
    pub const ALL: [Self; 4] = [Self::Editor, Self::Terminal, Self::ActiveFiles, Self::Memory];

    /// Returns the name in keys. Persisted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Editor => "editor",
            Self::Terminal => "terminal",
            Self::ActiveFiles => "active_files",
            Self::Memory => "memory",
        }
    }
}

/// One element, the name.
impl KeyPart for StatePart {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        String::element_types()
    }

    fn pack(&self, key: &mut Vec<u8>) {
        self.name().to_owned().pack(key);
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let name = String::unpack(rest)?;
        Self::ALL
            .into_iter()
            .find(|part| part.name() == name)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a session's state has an unknown part"))
    }
}
