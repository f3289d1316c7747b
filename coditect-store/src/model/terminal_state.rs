//! What terminals were about, in the JSON that a client sends and in a record alike.
//!
//! What stays true of every [`TerminalState`], however it was made:
//!
//! - A history holds its newest 1,000 commands and no more.
//! - A variable whose name looks secret is in none, unless it was named by who made it. So it is
//!   in no record either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The terminals of a session. It says what they were about, and nothing in it is ever run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TerminalState {
    /// Which of them is in front.
    pub active: Option<String>,
    /// All of them, by what the client calls them.
    pub terminals: BTreeMap<String, Terminal>,
}

/// One terminal. What JSON leaves out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Terminal {
    /// What is written on it.
    pub title: String,
    /// The directory it is in.
    pub cwd: String,
    /// What was run in it.
    pub command_history: CommandHistory,
    /// What its commands were told.
    pub environment_vars: EnvironmentVars,
}

/// How many commands a [`CommandHistory`] holds.
pub const COMMAND_HISTORY_LIMIT: usize = 1_000;

/// The newest [`COMMAND_HISTORY_LIMIT`] commands, oldest first. In JSON it is a list; of a longer
/// one the newest are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct CommandHistory(VecDeque<String>);

/// Variables, by name, none of which [looks secret](is_secret) unless it was
/// [named](Self::keeping). In JSON it is an object, of which those that look secret are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct EnvironmentVars(BTreeMap<String, String>);

impl TerminalState {
    /// The state that `json` says, with the variables whose names are in `named` even where they
    /// look secret. Without any it is what [`Deserialize`] gives.
    ///
    /// # Errors
    ///
    /// What of it is not as it should be.
    pub fn from_json(json: &Value, named: &BTreeSet<String>) -> serde_json::Result<Self> {
        let said: BTreeMap<String, Value> =
            json.get("terminals").map(Deserialize::deserialize).transpose()?.unwrap_or_default();
        let mut state = Self::deserialize(json)?;
        for (name, terminal) in &mut state.terminals {
            let vars = said.get(name).and_then(|terminal| terminal.get("environment_vars"));
            if let Some(vars) = vars {
                let vars = Deserialize::deserialize(vars)?;
                terminal.environment_vars = EnvironmentVars::keeping(vars, named);
            }
        }
        Ok(state)
    }
}

impl CommandHistory {
    /// Adds the newest command; the oldest goes if it is one too many.
    pub fn push(&mut self, command: String) {
        if self.0.len() == COMMAND_HISTORY_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(command);
    }

    /// The commands, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.0.iter().map(String::as_str)
    }
}

impl FromIterator<String> for CommandHistory {
    /// The newest of `commands`, which come oldest first.
    fn from_iter<I: IntoIterator<Item = String>>(commands: I) -> Self {
        let mut history = Self::default();
        for command in commands {
            history.push(command);
        }
        history
    }
}

impl<'de> Deserialize<'de> for CommandHistory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        VecDeque::<String>::deserialize(deserializer).map(|mut commands| {
            commands.drain(..commands.len().saturating_sub(COMMAND_HISTORY_LIMIT));
            Self(commands)
        })
    }
}

impl EnvironmentVars {
    /// Those of `vars` that don't look secret, and those that are `named`.
    pub fn keeping(mut vars: BTreeMap<String, String>, named: &BTreeSet<String>) -> Self {
        vars.retain(|name, _| named.contains(name) || !is_secret(name));
        Self(vars)
    }

    /// The value of the variable `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'de> Deserialize<'de> for EnvironmentVars {
    /// From JSON, which is from outside, nothing that looks secret is taken. In a record is what
    /// was kept.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let from_outside = deserializer.is_human_readable();
        let vars = BTreeMap::deserialize(deserializer)?;
        Ok(if from_outside { Self::keeping(vars, &BTreeSet::new()) } else { Self(vars) })
    }
}

/// Whether a variable of this name looks as if its value were a secret: `*TOKEN*`, `*SECRET*`,
/// `*PASSWORD*` or `*_KEY`, in letters of either case.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSWORD"].iter().any(|part| name.contains(part)) || name.ends_with("_KEY")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent() -> Value {
        json!({
            "active": "main",
            "terminals": {
                "main": {
                    "title": "zsh",
                    "cwd": "/workspace/p/src",
                    "command_history": ["npm install"],
                    "environment_vars": {"LANG": "C.UTF-8"},
                },
            },
        })
    }

    #[test]
    fn its_json_is_what_clients_send() {
        let state: TerminalState = serde_json::from_value(sent()).unwrap();
        assert_eq!(serde_json::to_value(&state).unwrap(), sent());
        let empty: TerminalState = serde_json::from_value(json!({})).unwrap();
        assert_eq!(empty, TerminalState::default());
    }

    #[test]
    fn a_history_keeps_its_newest_commands() {
        let commands = || (0..COMMAND_HISTORY_LIMIT + 7).map(|n| n.to_string());
        let list: Value = commands().collect();
        let parsed: CommandHistory = serde_json::from_value(list).unwrap();
        assert_eq!(parsed, commands().collect());
        assert_eq!(parsed.iter().len(), COMMAND_HISTORY_LIMIT);
        assert_eq!(parsed.iter().next(), Some("7"));
        assert_eq!(parsed.iter().next_back(), Some("1006"));
    }

    #[test]
    fn names_that_look_secret_are_known() {
        for name in ["TOKEN", "GITHUB_TOKEN_2", "MySecret", "pgpassword", "AWS_ACCESS_KEY", "_key"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["LANG", "KEY", "KEYBOARD", "MONKEY", "A_KEYS", "PATH", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_variable_that_looks_secret_is_dropped_unless_it_is_named() {
        let mut json = sent();
        json["terminals"]["main"]["environment_vars"] =
            json!({"LANG": "C", "API_KEY": "k", "DEPLOY_TOKEN": "t"});
        let vars = |state: &TerminalState| {
            let vars = state.terminals["main"].environment_vars.iter();
            vars.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        let parsed: TerminalState = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(vars(&parsed), ["LANG"]);
        let named = BTreeSet::from(["API_KEY".to_owned()]);
        let kept = TerminalState::from_json(&json, &named).unwrap();
        assert_eq!(vars(&kept), ["API_KEY", "LANG"]);
        assert_eq!(kept.terminals["main"].environment_vars.value("API_KEY"), Some("k"));
        assert_eq!(TerminalState::from_json(&json, &BTreeSet::new()).unwrap(), parsed);
    }

    #[test]
    fn json_of_another_shape_is_refused() {
        let named = BTreeSet::from(["API_KEY".to_owned()]);
        for terminals in [json!(7), json!({"main": 7}), json!({"main": {"cwd": null}})] {
            let json = json!({ "terminals": terminals });
            assert!(TerminalState::from_json(&json, &named).is_err(), "{terminals}");
        }
        for json in [json!(7), json!({"terminals": {"m": {"environment_vars": {"API_KEY": 7}}}})] {
            assert!(TerminalState::from_json(&json, &named).is_err(), "{json}");
        }
    }
}
