//! The subcommands `user` and `keys`.

use std::io::{self, Read, Write, stdin, stdout};

use super::{
    Error, Outcome,
    origin::{given_master_keys, run},
};
use crate::{
    StoreLocation,
    admin::protocol::{AdminRequest, AdminResponse, UserRow},
    cli::args::{KeysSubcommand, UserSubcommand},
};

/// Maximum length of a password on stdin, in bytes.
const PASSWORD_BYTES: u64 = 8192;

pub(super) async fn user(subcommand: &UserSubcommand) -> Result<Outcome, Error> {
    match subcommand {
        UserSubcommand::Create(new) => {
            let password = if new.password_stdin { Some(read_password()?) } else { None };
            let task = AdminRequest::CreateUser {
                email: new.email.clone(),
                password,
                first_name: new.first_name.clone(),
                last_name: new.last_name.clone(),
                ide: !new.no_ide,
            };
            show(&run(&new.place, task).await?)?;
        }
        UserSubcommand::List(list) => {
            let mut after = None;
            loop {
                let reply = run(list, AdminRequest::Users { after }).await?;
                show(&reply)?;
                match reply {
                    AdminResponse::Users { next: next @ Some(_), .. } => after = next,
                    _ => break,
                }
            }
        }
        UserSubcommand::Show(of) => {
            show(&run(&of.place, AdminRequest::User { email: of.email.clone() }).await?)?;
        }
        UserSubcommand::GrantIde(of) => set_ide_access(&of.place, &of.email, true).await?,
        UserSubcommand::RevokeIde(of) => set_ide_access(&of.place, &of.email, false).await?,
        UserSubcommand::Enable(of) => set_enabled(&of.place, &of.email, true).await?,
        UserSubcommand::Disable(of) => set_enabled(&of.place, &of.email, false).await?,
        UserSubcommand::ResetPassword(of) => {
            let task = AdminRequest::ResetPassword { email: of.email.clone() };
            show(&run(&of.place, task).await?)?;
        }
        UserSubcommand::RevokeSessions(of) => {
            show(&run(&of.place, AdminRequest::RevokeSessions { email: of.email.clone() }).await?)?;
        }
        UserSubcommand::RemoveSecondFactor(of) => {
            let task = AdminRequest::RemoveSecondFactor { email: of.email.clone() };
            show(&run(&of.place, task).await?)?;
        }
    }
    Ok(Outcome::Done)
}

async fn set_enabled(place: &StoreLocation, email: &str, enabled: bool) -> Result<(), Error> {
    let task = AdminRequest::SetEnabled { email: email.to_owned(), enabled };
    show(&run(place, task).await?)
}

async fn set_ide_access(place: &StoreLocation, email: &str, granted: bool) -> Result<(), Error> {
    show(&run(place, AdminRequest::SetIde { email: email.to_owned(), granted }).await?)
}

pub(super) async fn keys(subcommand: &KeysSubcommand) -> Result<Outcome, Error> {
    let (place, task) = match subcommand {
        KeysSubcommand::List(place) => (place, AdminRequest::Keys),
        KeysSubcommand::Rotate(place) => (place, AdminRequest::RotateKeys),
        KeysSubcommand::ReplaceMaster(place) => {
            (place, AdminRequest::ReplaceMasterKey { given: given_master_keys()? })
        }
    };
    show(&run(place, task).await?)?;
    Ok(Outcome::Done)
}

/// Reads the first line of stdin. Unlike an argument, it appears in no process list or shell
/// history.
fn read_password() -> Result<String, Error> {
    let mut text = String::new();
    stdin().take(PASSWORD_BYTES).read_to_string(&mut text).map_err(Error::Stdin)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn show(reply: &AdminResponse) -> Result<(), Error> {
    let mut out = stdout().lock();
    write(reply, &mut out).and_then(|()| out.flush()).map_err(Error::Stdout)
}

fn write(reply: &AdminResponse, out: &mut impl Write) -> io::Result<()> {
    let line = |out: &mut dyn Write, user: &UserRow| {
        let UserRow { id, tenant_id, email, enabled, created_at } = user;
        let state = if *enabled { "enabled" } else { "disabled" };
        let created = created_at.format("%Y-%m-%d");
        writeln!(out, "{id}  {tenant_id}  {created}  {state:<8}  {email}")
    };
    match reply {
        AdminResponse::Done => writeln!(out, "done"),
        AdminResponse::User { user, reset_token, ide } => {
            line(out, user)?;
            if let Some(ide) = ide {
                writeln!(out, "IDE: {}", if *ide { "allowed" } else { "not allowed" })?;
            }
            match reset_token {
                None => Ok(()),
                Some(token) => writeln!(
                    out,
                    "reset token, valid once within 30 minutes: {token}\nThe user sends it with \
                     the new password to POST /api/v5/auth/password-reset/confirm."
                ),
            }
        }
        AdminResponse::Users { users, .. } => users.iter().try_for_each(|user| line(out, user)),
        AdminResponse::SignedOut { sessions } => writeln!(out, "revoked sessions: {sessions}"),
        AdminResponse::Keys { keys } => keys.iter().try_for_each(|key| {
            let since = key.since.format("%Y-%m-%dT%H:%M:%SZ");
            writeln!(out, "{}  {}  {:<7}  since {since}", key.kid, key.algorithm, key.state)
        }),
    }
}
