//! Command-line arguments: `serve`, which is the default, and the operator's subcommands.
//!
//! Arguments are data; nothing is opened here. [`commands`](super::commands) runs the subcommands.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser};
use coditect_store::model::TenantId;
use hyper::Uri;

use crate::{
    config::{Config, LISTEN},
    place::StoreLocation,
};

/// The arguments of `coditect-server`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "coditect-server",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Durations are written as 90s, 15m or 1h 30m; the maximum is 24h unless stated \
                  otherwise. A flag overrides its environment variable, which overrides the \
                  settings file.\n\nSecrets are never flags. CODITECT_MASTER_KEY is the master \
                  key that encrypts the signing keys: 32 bytes as hexadecimal or Base64. Without \
                  it the server uses the file master.key in the data directory, created at the \
                  first start. CODITECT_PEPPER is a comma-separated list of password-hashing \
                  keys, each as id:Base64; the first one is used for new hashes.\n\nExit codes: \
                  0 success, 1 error, 2 invalid arguments or settings, 3 a check found faults."
)]
pub struct Command {
    /// The subcommand; `None` serves.
    #[command(subcommand)]
    pub subcommand: Option<Subcommand>,
    /// TOML file with settings, named like the flags without the leading dashes. Default:
    /// ./coditect.toml, if that file exists.
    #[arg(long, env = "CODITECT_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The settings of the server, if there is no subcommand.
    #[command(flatten)]
    pub serve: Config,
}

/// A subcommand.
#[derive(Clone, Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum Subcommand {
    /// Run the server. This is the default without a subcommand.
    Serve(Box<Config>),
    /// Print the effective settings and the source of each one, as a TOML settings file.
    Config(Box<Config>),
    /// Check every row, index and page of the store. The server must be stopped.
    Check(Check),
    /// Show an overview of the store, or keys and records without their secrets. The server must be
    /// stopped.
    Inspect(Inspect),
    /// Write the store, or one tenant, to an archive. Works while the server runs.
    Export(Export),
    /// Create a store, or add a tenant to one, from an archive. Run an interrupted import again to
    /// resume it.
    Import(Import),
    /// Write the store to an archive and verify the archive. Works while the server runs.
    Backup(Backup),
    /// Create, list, enable and disable users, reset passwords, revoke sessions. Works while the
    /// server runs.
    User(User),
    /// List or rotate the signing keys of access tokens, or replace the master key. Works while the
    /// server runs.
    Keys(Keys),
    /// Print the OpenAPI 3.1 description of the API as JSON.
    Openapi,
    /// Check whether a running server is ready, for container health checks. Exits with 0 if it is
    /// ready, otherwise with 1.
    Health(Health),
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
    /// Repair index entries and counters that disagree with their records, and a damaged high-water
    /// mark of versionstamps. Records are never changed.
    #[arg(long)]
    pub repair: bool,
    /// Open a store whose log is damaged or incomplete, as it was before the gap. Later commits are
    /// lost; the remaining files of the log are kept under other names. Restore a backup instead if
    /// there is one.
    #[arg(long, requires = "repair")]
    pub accept_data_loss: bool,
}

/// Arguments of `inspect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Without --tenant, --space and --key, an overview is shown.")]
pub struct Inspect {
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
    /// Show only rows of this tenant.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
    /// Show only rows of this record type or index, for example `workspace_sessions`.
    #[arg(long, value_name = "NAME")]
    pub space: Option<String>,
    /// Show only rows whose key starts with these elements after the name of --space: UUIDs,
    /// numbers and text, separated by commas.
    #[arg(long, value_name = "ELEMENTS", requires = "space")]
    pub key: Option<String>,
    /// Maximum number of rows to show.
    #[arg(long, value_name = "ROWS", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Print JSON: one object per row, or one object for the overview.
    #[arg(long)]
    pub json: bool,
}

impl Inspect {
    /// Returns whether the arguments select rows; otherwise an overview is shown.
    pub fn wants_rows(&self) -> bool {
        self.tenant.is_some() || self.space.is_some() || self.key.is_some()
    }
}

/// Arguments of `export`.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// Archive to create, which must not exist, or `-` for stdout.
    pub file: PathBuf,
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
    /// Export only this tenant.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
}

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The archive of a store needs a data directory without a store; the archive of \
                  a tenant needs a store without that tenant. A file is verified completely \
                  before anything is written. Archives do not contain the master key: copy it to \
                  the data directory separately."
)]
pub struct Import {
    /// Archive to read, or `-` for stdin.
    #[arg(required_unless_present = "rollback", conflicts_with = "rollback")]
    pub file: Option<PathBuf>,
    /// Location of the store to create or to add the tenant to.
    #[command(flatten)]
    pub place: StoreLocation,
    /// Roll back an unfinished import.
    #[arg(long)]
    pub rollback: bool,
}

/// Arguments of `backup`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Restore the archive with `import`. It does not contain the master key: back \
                  that up separately, in another place."
)]
pub struct Backup {
    /// Archive to create, which must not exist.
    pub file: PathBuf,
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
}

/// Arguments of `user`.
#[derive(Clone, Debug, Args)]
pub struct User {
    /// The subcommand.
    #[command(subcommand)]
    pub subcommand: UserSubcommand,
}

/// A subcommand of `user`.
#[derive(Clone, Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum UserSubcommand {
    /// Create a user with a tenant, whatever --registration allows. Without a password, prints a
    /// token that sets one.
    Create(NewUser),
    /// List all users, ordered by e-mail address: id, tenant, registration date, state, address.
    List(StoreLocation),
    /// Show a user.
    Show(UserArgs),
    /// Grant a user access to the IDE.
    GrantIde(UserArgs),
    /// Revoke a user's access to the IDE, and that of the users whom they invited.
    RevokeIde(UserArgs),
    /// Let a disabled user sign in again.
    Enable(UserArgs),
    /// Disable a user: end all sessions and refuse new logins.
    Disable(UserArgs),
    /// Print a token that resets a user's password.
    ResetPassword(UserArgs),
    /// End all sessions of a user and revoke their personal access tokens.
    RevokeSessions(UserArgs),
    /// Remove a user's second factor, for example after its loss.
    RemoveSecondFactor(UserArgs),
}

/// A user and the location of the store.
#[derive(Clone, Debug, Args)]
pub struct UserArgs {
    /// E-mail address of the user.
    pub email: String,
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
}

/// The user to create.
#[derive(Clone, Debug, Args)]
pub struct NewUser {
    /// E-mail address of the user.
    pub email: String,
    /// Read the password from the first line of stdin.
    #[arg(long)]
    pub password_stdin: bool,
    /// Given name.
    #[arg(long, value_name = "NAME")]
    pub first_name: Option<String>,
    /// Family name.
    #[arg(long, value_name = "NAME")]
    pub last_name: Option<String>,
    /// Do not grant access to the IDE.
    #[arg(long)]
    pub no_ide: bool,
    /// Location of the store.
    #[command(flatten)]
    pub place: StoreLocation,
}

/// Arguments of `keys`.
#[derive(Clone, Debug, Args)]
pub struct Keys {
    /// The subcommand.
    #[command(subcommand)]
    pub subcommand: KeysSubcommand,
}

/// A subcommand of `keys`.
#[derive(Clone, Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum KeysSubcommand {
    /// List the signing keys, oldest first: id, algorithm, state, start of that state.
    List(StoreLocation),
    /// Make the next key the signing key. Tokens signed by the current key stay valid until they
    /// expire.
    Rotate(StoreLocation),
    /// Replace the master key: the file in the data directory, or, if `CODITECT_MASTER_KEY` is set,
    /// that key by `CODITECT_NEW_MASTER_KEY`. Sessions stay valid.
    ReplaceMaster(StoreLocation),
}

/// Arguments of `health`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Without --url, the URL is derived from the settings of the server.")]
pub struct Health {
    /// URL of the server, for example `https://127.0.0.1:8443`. The server's certificate is not
    /// verified.
    #[arg(long, value_name = "URL")]
    pub url: Option<Uri>,
    /// Address and port that the server listens on.
    #[arg(long, env = "CODITECT_LISTEN", value_name = "ADDR:PORT", default_value = LISTEN)]
    pub listen: SocketAddr,
    /// The server's certificate file, if it serves TLS.
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
    fn no_subcommand_parses_like_serve() {
        let plain = parsed(&["--listen", "127.0.0.1:1", "--ephemeral"]);
        assert!(plain.subcommand.is_none());
        let Some(Subcommand::Serve(config)) =
            parsed(&["serve", "--listen", "127.0.0.1:1", "--ephemeral"]).subcommand
        else {
            panic!("expected serve")
        };
        assert_eq!(format!("{:?}", plain.serve), format!("{config:?}"));
        assert!(parsed(&[]).subcommand.is_none());
    }

    #[test]
    fn arguments_are_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn help_lists_settings_and_subcommands() {
        let help = Command::command().render_long_help().to_string();
        for part in ["--listen", "CODITECT_MASTER_KEY", "backup", "inspect"] {
            assert!(help.contains(part), "{part} is not in {help}");
        }
    }
}
