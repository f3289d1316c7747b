//! The settings file, and the merging of all settings.
//!
//! `--config FILE`, or `coditect.toml` in the working directory, holds settings named like their
//! flags. A flag overrides its variable, which overrides the file, which overrides the default. A
//! value in the file is parsed like that of its flag; an error names the line. Unknown names are
//! refused. Every subcommand uses the file. Secrets have no setting.

use std::{
    env,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, parser::ValueSource};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::{
    args::{Command, Subcommand},
    contradictions,
};
use crate::config::Config;

/// Default settings file.
const USUAL: &str = "coditect.toml";

/// Variables that are no settings, because they are never shown.
const SECRETS: [&str; 3] = ["CODITECT_MASTER_KEY", "CODITECT_NEW_MASTER_KEY", "CODITECT_PEPPER"];

/// An error in the arguments, the variables or the settings file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Invalid arguments or variables; also a request for the help or the version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("--config: cannot read {}", .path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Settings exclude each other, or have no effect.
    #[error("{0}")]
    Contradiction(String),
    /// Invalid content of the file.
    #[error("{}:{line}: {message}", .path.display())]
    Wrong {
        /// Path of the file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Description.
        message: String,
    },
}

/// The parsed arguments, merged with the settings file.
#[derive(Clone, Debug)]
pub struct ParsedArgs {
    /// The command with its effective settings.
    pub command: Command,
    /// The effective settings as a settings file; only for the subcommand `config`.
    pub effective: Option<String>,
}

/// A parsed settings file.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// One setting of the file.
#[derive(Debug)]
struct Entry {
    name: String,
    /// The values, as the flag would get them.
    values: Vec<String>,
    line: usize,
}

/// Parses `arguments`, the first of which is the program's name, on top of the variables and the
/// settings file.
///
/// # Errors
///
/// [`enum@Error`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<ParsedArgs, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let named = Command::command().try_get_matches_from(&arguments)?;
    let file = match named.get_one::<PathBuf>("config") {
        Some(path) => Some(File::read(path)?),
        None if Path::new(USUAL).exists() => Some(File::read(Path::new(USUAL))?),
        None => None,
    };
    let file = file.unwrap_or_default();
    let matches = file.beneath(Command::command()).try_get_matches_from(&arguments)?;
    let command = Command::from_arg_matches(&matches)?;
    let mut innermost = &matches;
    while let Some((_, matches)) = innermost.subcommand() {
        innermost = matches;
    }
    let is_in_file = |name: &str| file.entries.iter().any(|entry| entry.name == name);
    if let Some(message) = contradictions::find(innermost, &is_in_file) {
        return Err(Error::Contradiction(message));
    }
    let effective = match (&command.subcommand, matches.subcommand()) {
        (Some(Subcommand::Config(_)), Some((_, matches))) => Some(file.effective(matches)),
        _ => None,
    };
    Ok(ParsedArgs { command, effective })
}

impl File {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let wrong = |line, message| Error::Wrong { path: path.to_owned(), line, message };
        let table = DeTable::parse(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(line(at), error.message().to_owned())
        })?;
        let mut entries = Vec::new();
        for (name, value) in table.get_ref() {
            let line = line(name.span().start);
            let name: &str = name.get_ref();
            let values = values(name, value.get_ref()).map_err(|message| wrong(line, message))?;
            entries.push(Entry { name: name.to_owned(), values, line });
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Makes the values of the file defaults of `command` and its subcommands.
    fn beneath(&self, mut command: clap::Command) -> clap::Command {
        for entry in &self.entries {
            let variable = setting(&entry.name).and_then(|it| it.get_env().map(ToOwned::to_owned));
            // Flags with the same variable are the same setting.
            let same = command.get_arguments().find(|it| it.get_env() == variable.as_deref());
            if let Some(id) = same.filter(|_| variable.is_some()).map(|it| it.get_id().clone()) {
                command = command.mut_arg(id, |it| it.default_values(&entry.values));
            }
        }
        command.mut_subcommands(|beneath| self.beneath(beneath))
    }

    /// Returns all settings as a settings file, with the source of each one.
    fn effective(&self, matches: &ArgMatches) -> String {
        let secrets = SECRETS.iter().filter(|name| env::var_os(name).is_some());
        let secrets = secrets.map(|name| format!("# {name} is set (value hidden)\n"));
        settings().map(|arg| self.line(&arg, matches)).chain(secrets).collect()
    }

    /// Returns the line of one setting.
    fn line(&self, arg: &clap::Arg, matches: &ArgMatches) -> String {
        let (id, name) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let values = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = values.map(|it| it.to_string_lossy().into_owned()).collect();
        let value = match (arg.get_action(), values.as_slice()) {
            (ArgAction::SetTrue, _) => toml::Value::Boolean(matches.get_flag(id)),
            (ArgAction::Append, values) => {
                toml::Value::Array(values.iter().cloned().map(toml::Value::String).collect())
            }
            (_, [value]) => match value.parse() {
                Ok(count) => toml::Value::Integer(count),
                Err(_) => toml::Value::String(value.clone()),
            },
            _ => return format!("# {name} is not set\n"),
        };
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => format!("--{name}"),
            Some(ValueSource::EnvVariable) => {
                arg.get_env().unwrap_or_default().to_string_lossy().into_owned()
            }
            _ => match self.entries.iter().find(|entry| entry.name == name) {
                Some(entry) => format!("{}:{}", self.path.display(), entry.line),
                None => "default".to_owned(),
            },
        };
        format!("{name} = {value} # {origin}\n")
    }
}

/// Returns the flags that are settings.
fn settings() -> impl Iterator<Item = clap::Arg> {
    let command = Config::command();
    let arguments: Vec<_> = command.get_arguments().cloned().collect();
    arguments.into_iter().filter(|it| it.get_env().is_some())
}

/// Returns the setting named `name`.
fn setting(name: &str) -> Option<clap::Arg> {
    settings().find(|it| it.get_long() == Some(name))
}

/// Returns the values for the flag `name`, or the message with which the flag would refuse them.
fn values(name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let arg = setting(name).ok_or_else(|| format!("unknown setting {name}"))?;
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !is_switch => Ok(text.clone().into_owned()),
        DeValue::Integer(count) if !is_switch && count.radix() == 10 => {
            Ok(count.as_str().to_owned())
        }
        DeValue::Boolean(is_on) if is_switch => Ok(is_on.to_string()),
        other => {
            let wanted = if is_switch { "true or false" } else { "a string or an integer" };
            Err(format!("{name} must be {wanted}, not of type {}", other.type_str()))
        }
    };
    let values = match value {
        DeValue::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| one(value.get_ref())).collect::<Result<Vec<_>, _>>()?
        }
        value => vec![one(value)?],
    };
    if !is_switch {
        let given = values.iter().map(|value| format!("--{name}={value}"));
        let alone = clap::Command::new("coditect-server").no_binary_name(true).arg(arg);
        alone.try_get_matches_from(given).map_err(|error| OneLine(&error).to_string())?;
    }
    Ok(values)
}

/// An error of clap in one line.
struct OneLine<'a>(&'a clap::Error);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let lines = text.lines().take_while(|line| !line.starts_with("For more"));
        let lines: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
        let line = lines.join(" ");
        f.write_str(line.strip_prefix("error: ").unwrap_or(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `text` as a settings file.
    fn read(text: &str) -> Result<File, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, text).unwrap();
        File::read(&path).map_err(|error| {
            let told = error.to_string();
            told.rsplit_once("c.toml:").unwrap().1.to_owned()
        })
    }

    #[test]
    fn errors_name_the_line_and_match_those_of_the_flag() {
        for (text, told) in [
            ("\n\nlisten-on = \"x\"", "3: unknown setting listen-on"),
            ("[server]\nlisten = \"x\"", "1: unknown setting server"),
            ("config = \"x\"", "1: unknown setting config"),
            (
                "access-token-ttl = \"25h\"",
                "1: invalid value '25h' for '--access-token-ttl <DURATION>': must be at most 24h",
            ),
            ("# a\ncookies = \"yes\"", "2: cookies must be true or false, not of type string"),
            ("listen = true", "1: listen must be a string or an integer, not of type boolean"),
            (
                "listen = [\"127.0.0.1:0\"]",
                "1: listen must be a string or an integer, not of type array",
            ),
            (
                "trusted-proxy = [\"10.0.0.0/8\", 7]",
                "1: invalid value '7' for '--trusted-proxy <NETWORK>'",
            ),
            (
                "max-connections = 0",
                "1: invalid value '0' for '--max-connections <COUNT>': must be at least 1",
            ),
            (
                "log-format = \"xml\"",
                "1: invalid value 'xml' for '--log-format <FORMAT>' [possible values: text, json]",
            ),
            ("ephemeral = true\nephemeral = true", "2: duplicate key"),
            ("listen = ", "1: "),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.starts_with(told), "{refused}");
        }
    }

    #[test]
    fn values_equal_those_of_the_flag() {
        let text = "cookies = true\nbody-limit = 65536\ntrusted-proxy = [\"10.0.0.1\", \"::1\"]\n\
                    metrics-allow = \"10.0.0.0/8\"\n";
        let file = read(text).unwrap();
        let values = |name: &str| {
            let found = file.entries.iter().find(|entry| entry.name == name).unwrap();
            (found.line, found.values.join(" "))
        };
        assert_eq!(values("cookies"), (1, "true".to_owned()));
        assert_eq!(values("body-limit"), (2, "65536".to_owned()));
        assert_eq!(values("trusted-proxy"), (3, "10.0.0.1 ::1".to_owned()));
        assert_eq!(values("metrics-allow"), (4, "10.0.0.0/8".to_owned()));
        assert!(read("").unwrap().entries.is_empty());
    }

    #[test]
    fn every_setting_has_a_variable_and_no_secret_is_a_setting() {
        let names: Vec<_> = settings().map(|it| it.get_long().unwrap().to_owned()).collect();
        assert!(names.contains(&"listen".to_owned()) && names.contains(&"tls-key".to_owned()));
        let variables: Vec<_> =
            settings().map(|it| it.get_env().unwrap().to_str().unwrap().to_owned()).collect();
        assert!(SECRETS.iter().all(|secret| !variables.contains(&(*secret).to_owned())));
    }
}
