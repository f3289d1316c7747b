//! The parts of a session's state, whoever reads and changes them: a request, or a socket.
//!
//! Each part has a version of its own, is read alone, and is written alone.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{EditorState, PartState, Session, SessionState, StatePart, TerminalState},
};
use serde_json::{Map, Value};

use super::merge_patch;
use crate::{
    http::{conditions::Tag, document},
    problem::{Field, Problem},
};

/// The longest key, in bytes.
const KEY_BYTES: usize = 200;
/// The setting of a session that names variables which are kept though they look secret.
const KEPT_VARIABLES: &str = "kept_environment_vars";

/// A part of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Editor,
    Terminal,
    Memory,
}

/// A part that is one document, which is read and written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Document {
    Editor,
    Terminal,
}

/// Whether a body takes a part's place, or is merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Replace,
    Merge,
}

/// A part as it is, in JSON, and which version of it that is: 0 before it was ever saved.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) json: Map<String, Value>,
    pub(crate) version: u64,
}

impl Stored {
    pub(crate) fn tag(&self) -> Tag {
        Tag::new(self.version.to_string())
    }

    /// What becomes of it by `body`.
    pub(crate) fn changed(&self, how: How, body: &Map<String, Value>) -> Map<String, Value> {
        match how {
            How::Replace => body.clone(),
            How::Merge => {
                let mut json = self.json.clone();
                merge_patch::merge(&mut json, body);
                json
            }
        }
    }
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Editor, Self::Terminal, Self::Memory];

    /// Its name, in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Editor => "editor",
            Self::Terminal => "terminal",
            Self::Memory => "memory",
        }
    }

    /// The record that has its version.
    pub(crate) fn key(self) -> StatePart {
        match self {
            Self::Editor => StatePart::Editor,
            Self::Terminal => StatePart::Terminal,
            Self::Memory => StatePart::Memory,
        }
    }

    /// Returns the document that the part is; `None` of the memory, which has
    /// [entries](super::memory).
    pub(crate) fn document(self) -> Option<Document> {
        match self {
            Self::Editor => Some(Document::Editor),
            Self::Terminal => Some(Document::Terminal),
            Self::Memory => None,
        }
    }
}

impl Document {
    /// Returns the part that it is.
    pub(crate) fn part(self) -> Part {
        match self {
            Self::Editor => Part::Editor,
            Self::Terminal => Part::Terminal,
        }
    }

    /// It of `session`. It alone is read: who saves another part meanwhile is no conflict.
    pub(crate) async fn read(self, tx: &Transaction, session: &Session) -> Result<Stored, Problem> {
        let (tenant, id) = (session.tenant_id, session.id);
        let saved = tx.get::<SessionState>(tenant, (id, self.part().key())).await?;
        let version = saved.as_ref().map_or(0, |saved| saved.version);
        let json = match (self, saved.map(|saved| saved.state)) {
            (Self::Editor, None) => json_of(&PartState::Editor(EditorState::default()))?,
            (Self::Terminal, None) => json_of(&PartState::Terminal(TerminalState::default()))?,
            (_, Some(state)) => json_of(&state)?,
        };
        Ok(Stored { json, version })
    }

    /// What `json` means as this part of `session`, in the form that is kept. Variables that look secret
    /// are dropped, but for those that the session's settings name.
    ///
    /// # Errors
    ///
    /// 422: it means nothing.
    pub(crate) fn parse(
        self,
        json: Map<String, Value>,
        session: &Session,
    ) -> Result<Map<String, Value>, Problem> {
        json_of(&self.state(&Value::Object(json), session)?)
    }

    /// Makes it be `after`, which was [parsed](Self::parse).
    pub(crate) async fn write(
        self,
        tx: &Transaction,
        session: &Session,
        after: Map<String, Value>,
        now: DateTime<Utc>,
    ) -> Result<Stored, Problem> {
        let (tenant, id) = (session.tenant_id, session.id);
        let state = self.state(&Value::Object(after.clone()), session)?;
        let version = SessionState::save(tx, tenant, id, state, now).await?;
        Ok(Stored { json: after, version })
    }

    fn state(self, json: &Value, session: &Session) -> Result<PartState, Problem> {
        match self {
            Self::Editor => document::from_value::<EditorState>(json).map(PartState::Editor),
            Self::Terminal => {
                let named = session.settings.0[KEPT_VARIABLES].as_array().into_iter().flatten();
                let named: BTreeSet<String> =
                    named.filter_map(|name| name.as_str().map(str::to_owned)).collect();
                // What is wrong with it is told by its path.
                let state = TerminalState::from_json(json, &named)
                    .or_else(|_| document::from_value(json))?;
                Ok(PartState::Terminal(state))
            }
        }
    }
}

fn json_of(state: &PartState) -> Result<Map<String, Value>, Problem> {
    let json = match state {
        PartState::Editor(state) => serde_json::to_value(state),
        PartState::Terminal(state) => serde_json::to_value(state),
        PartState::ActiveFiles(_) | PartState::Memory(_) => Ok(Value::Object(Map::new())),
    };
    match json.map_err(Problem::internal)? {
        Value::Object(json) => Ok(json),
        _ => Err(Problem::internal("a part of a session's state is no object")),
    }
}

/// Refuses a key that is too long, or has none.
pub(super) fn checked_key(key: &str) -> Result<(), Problem> {
    if (1..=KEY_BYTES).contains(&key.len()) && !key.contains(char::is_control) {
        return Ok(());
    }
    let message = format!("must be 1 to {KEY_BYTES} bytes long, without control characters");
    Err(Problem::validation(vec![Field::new("key", message)]))
}
