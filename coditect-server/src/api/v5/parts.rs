//! The sections of a session's state, for HTTP requests and WebSockets.
//!
//! Each section has its own version, and is read and written on its own.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{
        EditorState, LoadedPart, PartState, SecretRules, Session, SessionState, Setting,
        SettingScope, TerminalState,
    },
};
use serde_json::{Map, Value};

use crate::{
    extract::merge_patch,
    http::{
        conditions::ETag,
        document,
        problem::{Field, Problem},
    },
    websocket::StateSection,
};

/// Maximum length of a key, in bytes.
const MAX_KEY_BYTES: usize = 200;
/// Setting of the tenant with additional patterns of secrets.
pub(super) const SECRET_PATTERNS: &str = "secret_patterns";
/// Setting of the session with the variables to keep even if they match a rule for secrets.
const KEPT_VARIABLES: &str = "kept_environment_vars";

/// A section that is one document, read and written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Document {
    Editor,
    Terminal,
}

/// Whether a body replaces a section or is merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateMode {
    Replace,
    Merge,
}

/// The rules for secrets to remove from a document before it is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecretFilter {
    rules: SecretRules,
    kept_variables: BTreeSet<String>,
}

/// A section as JSON, with its version; 0 if it was never saved.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) json: Map<String, Value>,
    pub(crate) version: u64,
}

impl Stored {
    pub(crate) fn tag(&self) -> ETag {
        ETag::new(self.version.to_string())
    }

    /// Returns the result of applying `body`.
    pub(crate) fn changed(
        &self,
        mode: UpdateMode,
        body: &Map<String, Value>,
    ) -> Map<String, Value> {
        match mode {
            UpdateMode::Replace => body.clone(),
            UpdateMode::Merge => {
                let mut json = self.json.clone();
                merge_patch::merge(&mut json, body);
                json
            }
        }
    }
}

impl Document {
    /// Returns the document of `part`, or `None` for the memory, which has
    /// [entries](super::memory).
    pub(crate) fn of(part: StateSection) -> Option<Self> {
        match part {
            StateSection::Editor => Some(Self::Editor),
            StateSection::Terminal => Some(Self::Terminal),
            StateSection::Memory => None,
        }
    }

    /// Returns the section of this document.
    pub(crate) fn part(self) -> StateSection {
        match self {
            Self::Editor => StateSection::Editor,
            Self::Terminal => StateSection::Terminal,
        }
    }

    /// Reads this document of `session`, and the base of its next version. Reads no other section,
    /// so that writes to those do not conflict.
    pub(crate) async fn read(
        self,
        tx: &Transaction,
        session: &Session,
    ) -> Result<(Stored, LoadedPart), Problem> {
        let loaded = SessionState::load(tx, session, self.part().key()).await?;
        let json = match (self, loaded.saved().map(|saved| &saved.state)) {
            (Self::Editor, None) => json_of(&PartState::Editor(EditorState::default()))?,
            (Self::Terminal, None) => json_of(&PartState::Terminal(TerminalState::default()))?,
            (_, Some(state)) => json_of(state)?,
        };
        Ok((Stored { json, version: loaded.version() }, loaded))
    }

    /// Reads the rules for secrets: the built-in ones and the tenant's patterns, except for the
    /// variables that the session keeps. Reads nothing for the editor, whose state has no such
    /// filter.
    ///
    /// # Errors
    ///
    /// 422 if the tenant's patterns are invalid.
    pub(crate) async fn secret_filter(
        self,
        tx: &Transaction,
        session: &Session,
    ) -> Result<SecretFilter, Problem> {
        if self == Self::Editor {
            return Ok(SecretFilter::default());
        }
        let key = (SettingScope::Tenant, SECRET_PATTERNS.to_owned());
        let rules = match tx.get::<Setting>(session.tenant_id, key).await? {
            Some(setting) => secret_rules(SECRET_PATTERNS, &setting.value.0)?,
            None => SecretRules::default(),
        };
        let kept = session.settings.0[KEPT_VARIABLES].as_array().into_iter().flatten();
        let kept_variables = kept.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(SecretFilter { rules, kept_variables })
    }

    /// Returns `json` in the stored form of this document, without the secrets that match `filter`.
    ///
    /// # Errors
    ///
    /// 422 if `json` does not have the shape of this document.
    pub(crate) fn parse(
        self,
        json: Map<String, Value>,
        filter: &SecretFilter,
    ) -> Result<Map<String, Value>, Problem> {
        json_of(&self.state(&Value::Object(json), filter)?)
    }

    /// Stores `after`, the result of [`parse`](Self::parse), over the version that `tx` has read.
    pub(crate) async fn write(
        self,
        tx: &Transaction,
        loaded: &LoadedPart,
        (after, filter): (Map<String, Value>, &SecretFilter),
        now: DateTime<Utc>,
    ) -> Result<Stored, Problem> {
        let state = self.state(&Value::Object(after.clone()), filter)?;
        let version = loaded.save(tx, state, now).await?;
        Ok(Stored { json: after, version })
    }

    fn state(self, json: &Value, filter: &SecretFilter) -> Result<PartState, Problem> {
        match self {
            Self::Editor => document::from_value::<EditorState>(json).map(PartState::Editor),
            Self::Terminal => {
                let SecretFilter { rules, kept_variables } = filter;
                let state = TerminalState::from_json(json, rules, kept_variables);
                // Parsed again to get the path of the invalid field.
                let state = state.map_err(|error| {
                    let problem = document::from_value::<TerminalState>(json).err();
                    problem.unwrap_or_else(|| Problem::internal(error))
                })?;
                Ok(PartState::Terminal(state))
            }
        }
    }
}

/// Compiles the patterns of secrets in the field `field`.
///
/// # Errors
///
/// 422 if a pattern is invalid, or there are too many.
pub(super) fn secret_rules(field: &str, patterns: &Value) -> Result<SecretRules, Problem> {
    SecretRules::with_patterns(patterns).map_err(|error| {
        let dot = if error.path.is_empty() { "" } else { "." };
        let field = format!("{field}{dot}{}", error.path);
        Problem::invalid_field("VALIDATION_FAILED", &field, &error.reason)
    })
}

fn json_of(state: &PartState) -> Result<Map<String, Value>, Problem> {
    let json = match state {
        PartState::Editor(state) => serde_json::to_value(state),
        PartState::Terminal(state) => serde_json::to_value(state),
        PartState::ActiveFiles(_) | PartState::Memory(_) => Ok(Value::Object(Map::new())),
    };
    match json.map_err(Problem::internal)? {
        Value::Object(json) => Ok(json),
        _ => Err(Problem::internal("a section of a session's state is not an object")),
    }
}

/// Fails if a key is empty, too long, or has control characters.
pub(super) fn checked_key(key: &str) -> Result<(), Problem> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.contains(char::is_control) {
        return Ok(());
    }
    let message = format!("must be 1 to {MAX_KEY_BYTES} bytes long, without control characters");
    Err(Problem::validation(vec![Field::new("key", message)]))
}
