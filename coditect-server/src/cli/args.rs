//! What the program is asked to do, as its arguments say it: to serve, which is what it does if
//! nothing is said, or one of an operator's verbs.
//!
//! Arguments are data; nothing is opened here. What a verb does is in [`operator`](crate::cli::commands).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use coditect_store::model::TenantId;
use hyper::Uri;

use crate::{
    config::{Config, LISTEN},
    place::Place,
};

/// All that the program takes.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "coditect-server",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Durations are written as 90s, 15m or 1h 30m, and are at most 24h. A flag is \
                  stronger than its variable, and that than the file of settings.\n\nThe master key, which seals the signing keys, is \
                  the file master.key in the data folder, made at the first start, or the \
                  variable CODITECT_MASTER_KEY: 32 bytes in hexadecimal or Base64. \
                  CODITECT_PEPPER holds keys that go into the hashes of passwords, as id:Base64, \
                  several with commas between; new hashes get the first.\n\nIt exits with \
                  0 when all is well, 1 on an error, 2 on arguments that it does not understand, \
                  and 3 when a check has found faults."
)]
pub struct Command {
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// File of settings, by the names of their flags, as TOML; else ./coditect.toml, if it is there.
    #[arg(long, env = "CODITECT_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// How to serve, if no verb is given.
    #[command(flatten)]
    pub serve: Config,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum Verb {
    /// Serve, as without a verb.
    Serve(Box<Config>),
    /// Print the settings that it would serve with, and where each is from, as a file of settings.
    Config(Box<Config>),
    /// Check every row, index and page of the store; the server must not be running.
    Check(Check),
    /// Show what the store has: an overview, or keys and records, without secrets. The server must
    /// not be running.
    Inspect(Inspect),
    /// Write the store, or one tenant, into an archive. A server that is running goes on.
    Export(Export),
    /// Make a store, or a tenant of one, of an archive. Stopped at any point it goes on where it was
    /// when it is run again.
    Import(Import),
    /// Write the store into an archive and read that back. A server that is running goes on.
    Backup(Backup),
    /// Make, list, disable users; let them in who have lost their password or their second factor. A
    /// server that is running goes on.
    User(User),
    /// List and rotate the keys that sign access tokens, or replace the master key. A server that is
    /// running goes on.
    Keys(Keys),
    /// Print the description of the API, OpenAPI 3.1 in JSON.
    Openapi,
    /// Ask a server that is running whether it is ready, as a container's health check does: exit code 0 if
    /// it is, 1 if it isn't.
    Health(Health),
}

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
    /// Correct index entries and counters that disagree with their records. Nothing else is changed.
    #[arg(long)]
    pub repair: bool,
    /// Open a store whose log is damaged or incomplete, as it was before the gap. Later commits are lost;
    /// the remaining files of the log are kept under other names. Restore a backup instead if there is one.
    #[arg(long, requires = "repair")]
    pub accept_data_loss: bool,
}

/// What to show.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Without --tenant, --space and --key it shows an overview.")]
pub struct Inspect {
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
    /// Rows of this tenant alone.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
    /// Rows of this space or index alone, such as `workspace_sessions`.
    #[arg(long, value_name = "NAME")]
    pub space: Option<String>,
    /// Rows alone whose key goes on like this after the space's name: UUIDs, numbers and text, with
    /// commas between.
    #[arg(long, value_name = "ELEMENTS", requires = "space")]
    pub key: Option<String>,
    /// The most rows to show.
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// One JSON object a row, or one for the overview.
    #[arg(long)]
    pub json: bool,
}

impl Inspect {
    /// Whether rows are asked for, rather than an overview.
    pub fn wants_rows(&self) -> bool {
        self.tenant.is_some() || self.space.is_some() || self.key.is_some()
    }
}

/// What to write into an archive.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// The archive, which must not be there; `-` for stdout.
    pub file: PathBuf,
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
    /// This tenant alone.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
}

/// What to make a store of.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The archive of a store goes into a folder that has none, that of a tenant \
                        into a store that does not have the tenant. A file is read to its end \
                        before anything is written. The master key is not in it: copy it into the \
                        folder, too."
)]
pub struct Import {
    /// The archive; `-` for stdin.
    #[arg(required_unless_present = "abandon", conflicts_with = "abandon")]
    pub file: Option<PathBuf>,
    /// Where the store is, or will be.
    #[command(flatten)]
    pub place: Place,
    /// Take back what an import has written that has not ended.
    #[arg(long)]
    pub abandon: bool,
}

/// Where to keep the store.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "`import` makes a store of it. The master key is not in it: keep a copy of \
                        that, too, and in another place."
)]
pub struct Backup {
    /// The archive, which must not be there.
    pub file: PathBuf,
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
}

/// What to do with users.
#[derive(Clone, Debug, Args)]
pub struct User {
    /// What to do.
    #[command(subcommand)]
    pub verb: UserVerb,
}

/// What to do with users.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum UserVerb {
    /// Make a user and their tenant, whoever may register. Without a password they get a token to set one
    /// with.
    Create(NewUser),
    /// All users, by their addresses: id, tenant, day of registration, state, address.
    List(Place),
    /// One of them.
    Show(OfUser),
    /// Give a user the right to use the IDE.
    GrantIde(OfUser),
    /// Take away a user's right to use the IDE, whichever way they have got it, and with it that of
    /// those whom they have invited.
    RevokeIde(OfUser),
    /// Let a user sign in again.
    Enable(OfUser),
    /// Don't let a user sign in any more, and end their sessions.
    Disable(OfUser),
    /// Print a token that a user sets their password anew with.
    ResetPassword(OfUser),
    /// End all sessions and personal tokens of a user.
    SignOut(OfUser),
    /// Take away a user's second factor, which they have lost.
    RemoveSecondFactor(OfUser),
}

/// Whose, and where.
#[derive(Clone, Debug, Args)]
pub struct OfUser {
    /// Their e-mail address.
    pub email: String,
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
}

/// Whom to make.
#[derive(Clone, Debug, Args)]
pub struct NewUser {
    /// Their e-mail address.
    pub email: String,
    /// Read their password from the first line of stdin.
    #[arg(long)]
    pub password_stdin: bool,
    /// Given name.
    #[arg(long, value_name = "NAME")]
    pub first_name: Option<String>,
    /// Family name.
    #[arg(long, value_name = "NAME")]
    pub last_name: Option<String>,
    /// Don't give them the right to use the IDE.
    #[arg(long)]
    pub no_ide: bool,
    /// Where the store is.
    #[command(flatten)]
    pub place: Place,
}

/// What to do with keys.
#[derive(Clone, Debug, Args)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub verb: KeysVerb,
}

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum KeysVerb {
    /// All signing keys, oldest first: id, algorithm, state, since when.
    List(Place),
    /// Have the next key sign. What the one before has signed holds until its time.
    Rotate(Place),
    /// Replace the master key: the file in the data folder by a new one, or, with `CODITECT_MASTER_KEY`,
    /// by that of `CODITECT_NEW_MASTER_KEY`. Nobody is signed out.
    ReplaceMaster(Place),
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Without --url it asks the server that these settings are of.")]
pub struct Health {
    /// Where the server is, or what else to ask, such as `https://127.0.0.1:8443`. Certificates are not looked
    /// at.
    #[arg(long, value_name = "URL")]
    pub url: Option<Uri>,
    /// Address and port that the server listens on.
    #[arg(long, env = "CODITECT_LISTEN", value_name = "ADDR:PORT", default_value = LISTEN)]
    pub listen: SocketAddr,
    /// File with the certificate that it speaks TLS with, if it does.
    #[arg(long, env = "CODITECT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(arguments: &[&str]) -> Command {
        let name = std::iter::once("coditect-server");
        Command::try_parse_from(name.chain(arguments.iter().copied())).unwrap()
    }

    #[test]
    fn without_a_verb_it_serves_with_the_same_settings_as_with_it() {
        let plain = parsed(&["--listen", "127.0.0.1:1", "--ephemeral"]);
        assert!(plain.verb.is_none());
        let Some(Verb::Serve(config)) =
            parsed(&["serve", "--listen", "127.0.0.1:1", "--ephemeral"]).verb
        else {
            panic!("it is to serve")
        };
        assert_eq!(format!("{:?}", plain.serve), format!("{config:?}"));
        assert!(parsed(&[]).verb.is_none());
    }

    #[test]
    fn the_arguments_fit_together() {
        Command::command().debug_assert();
    }

    #[test]
    fn the_help_of_the_program_says_what_its_settings_and_verbs_are() {
        let help = Command::command().render_long_help().to_string();
        for part in ["--listen", "CODITECT_MASTER_KEY", "backup", "inspect"] {
            assert!(help.contains(part), "{part} is not in {help}");
        }
    }
}
