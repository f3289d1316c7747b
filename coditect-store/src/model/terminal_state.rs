//! The state of terminals, with the same structure in JSON and in records.
//!
//! # Invariants
//!
//! Every [`TerminalState`] read by [`TerminalState::from_json`]:
//!
//! - has at most the newest 1,000 commands per history;
//! - has secrets detected by [`SecretRules`] redacted in titles and commands;
//! - has no variable with a secret, except variables that the session keeps by name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::SecretRules;

/// The terminals of a session, for display: commands in it are never run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TerminalState {
    /// Id of the active terminal.
    pub active: Option<String>,
    /// Terminals, by the client's ids.
    pub terminals: BTreeMap<String, Terminal>,
}

/// A terminal. Fields missing in JSON are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Terminal {
    /// Title, with secrets replaced by `***`.
    pub title: String,
    /// Working directory.
    pub cwd: String,
    /// Commands run in it, with secrets replaced by `***`.
    pub command_history: CommandHistory,
    /// Environment of its commands, without variables that contain secrets.
    pub environment_vars: EnvironmentVars,
}

/// Maximum number of commands in a [`CommandHistory`].
pub const COMMAND_HISTORY_LIMIT: usize = 1_000;

/// The newest [`COMMAND_HISTORY_LIMIT`] commands, oldest first, with secrets redacted by
/// [`TerminalState::from_json`]. A list in JSON, of which the newest are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct CommandHistory(VecDeque<String>);

/// Variables by name, without variables that [contain secrets](SecretRules::is_secret_variable),
/// unless they are [kept by name](Self::keeping). An object in JSON, of which secrets are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct EnvironmentVars(BTreeMap<String, String>);

impl TerminalState {
    /// Reads `json`, without the secrets detected by `rules`, except variables in `kept`.
    ///
    /// # Errors
    ///
    /// Fails if `json` has another structure.
    pub fn from_json(
        json: &Value,
        rules: &SecretRules,
        kept: &BTreeSet<String>,
    ) -> serde_json::Result<Self> {
        let sent: BTreeMap<String, Value> =
            json.get("terminals").map(Deserialize::deserialize).transpose()?.unwrap_or_default();
        let mut state = Self::deserialize(json)?;
        for (name, terminal) in &mut state.terminals {
            redact(&mut terminal.title, rules);
            for command in &mut terminal.command_history.0 {
                redact(command, rules);
            }
            let vars = sent.get(name).and_then(|terminal| terminal.get("environment_vars"));
            if let Some(vars) = vars {
                let vars = Deserialize::deserialize(vars)?;
                terminal.environment_vars = EnvironmentVars::keeping(vars, rules, kept);
            }
        }
        Ok(state)
    }
}

fn redact(text: &mut String, rules: &SecretRules) {
    if let Some(redacted) = rules.redact(text) {
        *text = redacted;
    }
}

impl CommandHistory {
    /// Appends a command, and removes the oldest one of a full history.
    pub fn push(&mut self, command: String) {
        if self.0.len() == COMMAND_HISTORY_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(command);
    }

    /// Returns the commands, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.0.iter().map(String::as_str)
    }
}

impl FromIterator<String> for CommandHistory {
    /// Collects the newest of `commands`, oldest first.
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
    /// Returns the variables in `kept`, and those without a secret detected by `rules`.
    pub fn keeping(
        mut vars: BTreeMap<String, String>,
        rules: &SecretRules,
        kept: &BTreeSet<String>,
    ) -> Self {
        vars.retain(|name, value| kept.contains(name) || !rules.is_secret_variable(name, value));
        Self(vars)
    }

    /// Returns the value of the variable `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns names and values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'de> Deserialize<'de> for EnvironmentVars {
    /// Drops secrets from JSON, which a client has sent, by the built-in rules. A record is read
    /// unchanged.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let from_outside = deserializer.is_human_readable();
        let vars = BTreeMap::deserialize(deserializer)?;
        Ok(if from_outside {
            Self::keeping(vars, &SecretRules::default(), &BTreeSet::new())
        } else {
            Self(vars)
        })
    }
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
    fn json_has_the_clients_structure() {
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
        let kept = TerminalState::from_json(&json, &SecretRules::default(), &named).unwrap();
        assert_eq!(vars(&kept), ["API_KEY", "LANG"]);
        assert_eq!(kept.terminals["main"].environment_vars.value("API_KEY"), Some("k"));
        assert_eq!(
            TerminalState::from_json(&json, &SecretRules::default(), &BTreeSet::new()).unwrap(),
            parsed
        );
    }

    #[test]
    fn json_of_another_shape_is_refused() {
        let named = BTreeSet::from(["API_KEY".to_owned()]);
        for terminals in [json!(7), json!({"main": 7}), json!({"main": {"cwd": null}})] {
            let json = json!({ "terminals": terminals });
            assert!(
                TerminalState::from_json(&json, &SecretRules::default(), &named).is_err(),
                "{terminals}"
            );
        }
        for json in [json!(7), json!({"terminals": {"m": {"environment_vars": {"API_KEY": 7}}}})] {
            assert!(
                TerminalState::from_json(&json, &SecretRules::default(), &named).is_err(),
                "{json}"
            );
        }
    }
}
