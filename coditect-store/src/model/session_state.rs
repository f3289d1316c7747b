//! The state of a workspace session, in parts: what is open, what the terminals were about.
//!
//! It is apart from the [`Session`](super::Session), and each part from the others, so that saving
//! one, which is often, contends with nothing.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{EditorState, Session, SessionId, TenantId, TerminalState};
use crate::{
    Entity, Error, ErrorKind, Result, Transaction, indexes,
    keyspace::{KeyPart, Space},
};

/// One part of a session's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// The session's tenant.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// Counts what this part was saved as, from 1 on.
    pub version: u64,
    /// When it was last saved.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
    /// What it is.
    pub state: PartState,
}

/// What is saved as a part of a session's state. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PartState {
    /// The editor's tabs.
    Editor(EditorState),
    /// The terminals.
    Terminal(TerminalState),
    /// What is open, by path.
    ActiveFiles(ActiveFiles),
    /// The size of its [memory](super::SessionMemory), whose entries are records of their own. This
    /// record has the version of the memory as a whole.
    Memory(MemoryUsage),
}

/// The size of a session's [memory](super::SessionMemory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// The number of its entries.
    pub keys: u64,
    /// Its size as JSON, in bytes, as [`SessionMemory::entry_bytes`](super::SessionMemory::entry_bytes)
    /// counts them.
    pub bytes: u64,
}

/// Which part of a session's state.
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

/// The paths of the files that are open, in the order of their tabs. In JSON it is a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ActiveFiles(pub Vec<String>);

/// All parts of a session's state that were ever saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionStates {
    /// The editor's.
    pub editor: Option<Saved<EditorState>>,
    /// The terminals'.
    pub terminal: Option<Saved<TerminalState>>,
    /// What is open.
    pub active_files: Option<Saved<ActiveFiles>>,
    /// The version and the size of the memory, and when it was last changed.
    pub memory: Option<Saved<MemoryUsage>>,
}

/// A part as it was saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<S> {
    /// Counts what this part was saved as, from 1 on.
    pub version: u64,
    /// When that was.
    pub saved_at: DateTime<Utc>,
    /// What it is.
    pub state: S,
}

impl Entity for SessionState {
    type Scope = TenantId;
    type Key = (SessionId, StatePart);
    const SPACE: Space<TenantId> = Space::tenant("session_state").keyed(&["id", "part"]);
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
    /// Saves `state` over what its part was, and gives its version. Two rounds of reads; of two who save the same part meanwhile one conflicts.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; those of [`Transaction::upsert`]; `Limit`, at the commit, if it
    /// is longer than a value can be.
    pub async fn save(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        state: impl Into<PartState>,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let state = state.into();
        Self::save_part(tx, (tenant, session), state.part(), now, |_| Ok(state)).await
    }

    /// Saves what `change` returns, given the present state, as `part`, and returns its version.
    pub(super) async fn save_part(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        part: StatePart,
        now: DateTime<Utc>,
        change: impl FnOnce(Option<&PartState>) -> Result<PartState>,
    ) -> Result<u64> {
        let of_session = tx.require::<Session>(tenant, session);
        let of_part = tx.get::<Self>(tenant, (session, part));
        let (_, before) = try_join(of_session, of_part).await?;
        let state = change(before.as_ref().map(|before| &before.state))?;
        let version = before.map_or(0, |before| before.version) + 1;
        let next = Self { tenant_id: tenant, session_id: session, version, saved_at: now, state };
        tx.upsert(&next).await?;
        Ok(version)
    }

    /// All parts that `session` has. One read of one range.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::page`](crate::Scan::page).
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

impl PartState {
    /// Which part it is.
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Editor, Self::Terminal, Self::ActiveFiles, Self::Memory];

    /// Its name in keys. Persisted.
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
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "a session's state has a part of no known name")
        })
    }
}
