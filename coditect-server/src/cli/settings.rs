//! The file of settings, and what all settings together come to.
//!
//! `--config FILE`, or `coditect.toml` where the program is started, holds settings by the names of their
//! flags. A flag is stronger than its variable, that is stronger than the file, and the file than the
//! default. What the file says is read as the flag would read it and refused in the same words, with the
//! line; a key that is no flag's is refused, too. Every verb heeds it. No secret has a place in it.

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
    args::{Command, Verb},
    contradictions,
};
use crate::config::Config;

/// The file that is read if none is named.
const USUAL: &str = "coditect.toml";

/// Variables that are no settings, since nobody is to see them.
const SECRETS: [&str; 3] = ["CODITECT_MASTER_KEY", "CODITECT_NEW_MASTER_KEY", "CODITECT_PEPPER"];

/// Why it isn't known what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The arguments, or a variable; or help is asked for, which is no failure.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("--config: {} cannot be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Settings exclude each other, or mean nothing as they are.
    #[error("{0}")]
    Contradiction(String),
    /// Something in the file is wrong.
    #[error("{}:{line}: {message}", .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What.
        message: String,
    },
}

/// What is asked for, with everything that was heeded.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What to do.
    pub command: Command,
    /// The effective settings, as a file that says the same; for the verb `config`.
    pub effective: Option<String>,
}

/// The file.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// A setting in it.
#[derive(Debug)]
struct Entry {
    name: String,
    /// What the flag would be given, each time.
    values: Vec<String>,
    line: usize,
}

/// What these arguments, the first of which is the program's name, ask for.
///
/// # Errors
///
/// [`enum@Error`].
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, Error> {
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
    let effective = match (&command.verb, matches.subcommand()) {
        (Some(Verb::Config(_)), Some((_, matches))) => Some(file.effective(matches)),
        _ => None,
    };
    Ok(Asked { command, effective })
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

    /// `command`, and all that is beneath it, with what the file says for its defaults.
    fn beneath(&self, mut command: clap::Command) -> clap::Command {
        for entry in &self.entries {
            let variable = setting(&entry.name).and_then(|it| it.get_env().map(ToOwned::to_owned));
            // The same variable, the same setting.
            let same = command.get_arguments().find(|it| it.get_env() == variable.as_deref());
            if let Some(id) = same.filter(|_| variable.is_some()).map(|it| it.get_id().clone()) {
                command = command.mut_arg(id, |it| it.default_values(&entry.values));
            }
        }
        command.mut_subcommands(|beneath| self.beneath(beneath))
    }

    /// All settings as a file, each with where it is from.
    fn effective(&self, matches: &ArgMatches) -> String {
        let secrets = SECRETS.iter().filter(|name| env::var_os(name).is_some());
        let secrets = secrets.map(|name| format!("# {name} is set, and not shown\n"));
        settings().map(|arg| self.line(&arg, matches)).chain(secrets).collect()
    }

    /// The line of one setting.
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

/// The flags that are settings.
fn settings() -> impl Iterator<Item = clap::Arg> {
    let command = Config::command();
    let arguments: Vec<_> = command.get_arguments().cloned().collect();
    arguments.into_iter().filter(|it| it.get_env().is_some())
}

/// The flag that is called so.
fn setting(name: &str) -> Option<clap::Arg> {
    settings().find(|it| it.get_long() == Some(name))
}

/// What the flag `name` would be given, in whose words it is refused.
fn values(name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let arg = setting(name).ok_or_else(|| format!("there is no setting {name}"))?;
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !is_switch => Ok(text.clone().into_owned()),
        DeValue::Integer(count) if !is_switch && count.radix() == 10 => {
            Ok(count.as_str().to_owned())
        }
        DeValue::Boolean(is_on) if is_switch => Ok(is_on.to_string()),
        other => {
            let wanted = if is_switch { "true or false" } else { "a text or a whole number" };
            Err(format!("{name} must be {wanted}, and is of type {}", other.type_str()))
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
        alone.try_get_matches_from(given).map_err(|error| Told(&error).to_string())?;
    }
    Ok(values)
}

/// What clap says of a value, in one line.
struct Told<'a>(&'a clap::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.to_string();
        let lines = told.lines().take_while(|line| !line.starts_with("For more"));
        let told: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
        let told = told.join(" ");
        f.write_str(told.strip_prefix("error: ").unwrap_or(&told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file with `text` is, or why it isn't.
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
    fn what_is_wrong_is_told_with_its_line_and_in_the_flags_words() {
        for (text, told) in [
            ("\n\nlisten-on = \"x\"", "3: there is no setting listen-on"),
            ("[server]\nlisten = \"x\"", "1: there is no setting server"),
            ("config = \"x\"", "1: there is no setting config"),
            (
                "access-ttl = \"25h\"",
                "1: invalid value '25h' for '--access-ttl <DURATION>': must be at most 24h",
            ),
            ("# a\ncookies = \"yes\"", "2: cookies must be true or false, and is of type string"),
            ("listen = true", "1: listen must be a text or a whole number, and is of type boolean"),
            (
                "listen = [\"127.0.0.1:0\"]",
                "1: listen must be a text or a whole number, and is of type array",
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
    fn values_are_given_as_the_flag_would_be() {
        let text = "cookies = true\nbody-limit = 65536\ntrusted-proxy = [\"10.0.0.1\", \"::1\"]\n\
                    metrics-from = \"10.0.0.0/8\"\n";
        let file = read(text).unwrap();
        let values = |name: &str| {
            let found = file.entries.iter().find(|entry| entry.name == name).unwrap();
            (found.line, found.values.join(" "))
        };
        assert_eq!(values("cookies"), (1, "true".to_owned()));
        assert_eq!(values("body-limit"), (2, "65536".to_owned()));
        assert_eq!(values("trusted-proxy"), (3, "10.0.0.1 ::1".to_owned()));
        assert_eq!(values("metrics-from"), (4, "10.0.0.0/8".to_owned()));
        assert!(read("").unwrap().entries.is_empty());
    }

    #[test]
    fn every_setting_has_a_variable_and_every_secret_is_none_of_them() {
        let names: Vec<_> = settings().map(|it| it.get_long().unwrap().to_owned()).collect();
        assert!(names.contains(&"listen".to_owned()) && names.contains(&"tls-key".to_owned()));
        let variables: Vec<_> =
            settings().map(|it| it.get_env().unwrap().to_str().unwrap().to_owned()).collect();
        assert!(SECRETS.iter().all(|secret| !variables.contains(&(*secret).to_owned())));
    }
}
