//! Refusal of settings that exclude each other or have no effect without another setting, so that
//! no setting is ignored silently.

use clap::{ArgMatches, parser::ValueSource};

/// Error of a server without the feature `fdb` for `--cluster-file`.
const NO_CLUSTER: &str = "--cluster-file: this program was built without FoundationDB support; \
                          build it with `cargo build --release -p coditect-server --features fdb` \
                          (needs libclang and the FoundationDB client library), or omit the flag";

/// Source of a setting, in ascending precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// Not set, or no setting of this command.
    None,
    File,
    Variable,
    Flag,
}

/// The settings of a command with their sources.
struct Given<'a> {
    matches: &'a ArgMatches,
    is_in_file: &'a dyn Fn(&str) -> bool,
}

impl Given<'_> {
    fn source(&self, name: &str) -> Source {
        let id = name.replace('-', "_");
        if self.matches.try_contains_id(&id).is_err() {
            return Source::None;
        }
        match self.matches.value_source(&id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Variable,
            _ if (self.is_in_file)(name) => Source::File,
            _ => Source::None,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.source(name) > Source::None
    }

    /// Returns whether a switch is on. A switch that the command does not have is off.
    fn is_on(&self, name: &str) -> bool {
        self.matches.try_get_one::<bool>(name).is_ok_and(|is_on| is_on == Some(&true))
    }

    /// Returns whether a text setting has a non-empty value.
    fn has_text(&self, name: &str) -> bool {
        let text = self.matches.try_get_one::<String>(&name.replace('-', "_"));
        self.has(name) && text.is_ok_and(|text| text.is_some_and(|text| !text.is_empty()))
    }
}

/// Returns an error message for contradictory settings, or `None`. `is_in_file` returns whether the
/// settings file has a setting of that name.
pub(crate) fn find(matches: &ArgMatches, is_in_file: &dyn Fn(&str) -> bool) -> Option<String> {
    let given = Given { matches, is_in_file };
    let without = |name: &str, other: &str| {
        Some(format!("--{name} has no effect without --{other}: set both or neither"))
    };
    if given.has("cluster-file") && !cfg!(feature = "fdb") {
        return Some(NO_CLUSTER.to_owned());
    }
    if !given.has("cluster-file") {
        if given.has_text("cluster-prefix") {
            return without("cluster-prefix", "cluster-file");
        }
        if given.has("cluster-trace") {
            return without("cluster-trace", "cluster-file");
        }
    }
    // A flag may override a setting of lower precedence.
    let folder = given.source("data");
    if given.is_on("ephemeral") && folder > Source::None && folder >= given.source("ephemeral") {
        let message =
            "--data has no effect with --ephemeral, which stores nothing: set only one of them";
        return Some(message.to_owned());
    }
    if given.has("cookie-prefix") && !given.is_on("cookies") {
        return without("cookie-prefix", "cookies");
    }
    if given.has("forwarded-header") && !given.has("trusted-proxy") {
        return without("forwarded-header", "trusted-proxy");
    }
    if given.has("url") {
        for other in ["listen", "tls-cert"] {
            if given.source(other) == Source::Flag {
                return Some(format!("--{other} has no effect with --url: set only one of them"));
            }
        }
    }
    if given.has("limit") && !["tenant", "space", "key"].iter().any(|rows| given.has(rows)) {
        let message = "--limit applies to rows: add --tenant, --space or --key";
        return Some(message.to_owned());
    }
    None
}
