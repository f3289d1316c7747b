//! Settings that exclude each other, or that mean nothing without another: they are refused, so that
//! none is ignored silently.

use clap::{ArgMatches, parser::ValueSource};

/// What a program without the feature `fdb` says of a cluster.
const NO_CLUSTER: &str = "--cluster-file: this program was built without FoundationDB support; build it \
                          with `cargo build --release -p coditect-server --features fdb` (it takes \
                          libclang and FoundationDB's client library), or leave the flag out";

/// Where a setting is from; the later one is the stronger one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// It is not set, or is no setting of this command.
    None,
    File,
    Variable,
    Flag,
}

/// The settings of a command as they were given.
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

    /// Returns whether a switch is on; one that this command does not have is off.
    fn is_on(&self, name: &str) -> bool {
        self.matches.try_get_one::<bool>(name).is_ok_and(|is_on| is_on == Some(&true))
    }

    /// Returns whether a text is set, to more than nothing.
    fn has_text(&self, name: &str) -> bool {
        let text = self.matches.try_get_one::<String>(&name.replace('-', "_"));
        self.has(name) && text.is_ok_and(|text| text.is_some_and(|text| !text.is_empty()))
    }
}

/// Returns what is wrong with the settings of a command, if anything is. `is_in_file` is whether the
/// file of settings has a setting of that name.
pub(crate) fn find(matches: &ArgMatches, is_in_file: &dyn Fn(&str) -> bool) -> Option<String> {
    let given = Given { matches, is_in_file };
    let without = |name: &str, other: &str| {
        Some(format!("--{name} means nothing without --{other}: give both, or neither"))
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
    // A flag for the time being goes over what is set up for every day.
    let folder = given.source("data");
    if given.is_on("ephemeral") && folder > Source::None && folder >= given.source("ephemeral") {
        let message =
            "--data means nothing with --ephemeral, which keeps nothing: give one of them";
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
                return Some(format!("--{other} means nothing with --url: give one of them"));
            }
        }
    }
    if given.has("limit") && !["tenant", "space", "key"].iter().any(|rows| given.has(rows)) {
        let message = "--limit is for rows: give --tenant, --space or --key, too";
        return Some(message.to_owned());
    }
    None
}
