//! The subcommands `user` and `keys`.

use std::io::{self, Read, Write, stdin, stdout};

use super::{
    Error, Outcome,
    origin::{given_master_keys, run},
};
use crate::{
    Place,
    admin::protocol::{Reply, Task, UserRow},
    cli::args::{KeysVerb, UserVerb},
};

/// Maximum length of a password on stdin, in bytes.
const PASSWORD_BYTES: u64 = 8192;

pub(super) async fn user(verb: &UserVerb) -> Result<Outcome, Error> {
    match verb {
        UserVerb::Create(new) => {
            let password = if new.password_stdin { Some(read_password()?) } else { None };
            let task = Task::CreateUser {
                email: new.email.clone(),
                password,
                first_name: new.first_name.clone(),
                last_name: new.last_name.clone(),
                ide: !new.no_ide,
            };
            show(&run(&new.place, task).await?)?;
        }
        UserVerb::List(list) => {
            let mut after = None;
            loop {
                let reply = run(list, Task::Users { after }).await?;
                show(&reply)?;
                match reply {
                    Reply::Users { next: next @ Some(_), .. } => after = next,
                    _ => break,
                }
            }
        }
        UserVerb::Show(of) => {
            show(&run(&of.place, Task::User { email: of.email.clone() }).await?)?;
        }
        UserVerb::GrantIde(of) => set_ide_access(&of.place, &of.email, true).await?,
        UserVerb::RevokeIde(of) => set_ide_access(&of.place, &of.email, false).await?,
        UserVerb::Enable(of) => set_enabled(&of.place, &of.email, true).await?,
        UserVerb::Disable(of) => set_enabled(&of.place, &of.email, false).await?,
        UserVerb::ResetPassword(of) => {
            let task = Task::ResetPassword { email: of.email.clone() };
            show(&run(&of.place, task).await?)?;
        }
        UserVerb::RevokeSessions(of) => {
            show(&run(&of.place, Task::RevokeSessions { email: of.email.clone() }).await?)?;
        }
        UserVerb::RemoveSecondFactor(of) => {
            let task = Task::RemoveSecondFactor { email: of.email.clone() };
            show(&run(&of.place, task).await?)?;
        }
    }
    Ok(Outcome::Done)
}

async fn set_enabled(place: &Place, email: &str, enabled: bool) -> Result<(), Error> {
    let task = Task::SetEnabled { email: email.to_owned(), enabled };
    show(&run(place, task).await?)
}

async fn set_ide_access(place: &Place, email: &str, granted: bool) -> Result<(), Error> {
    show(&run(place, Task::SetIde { email: email.to_owned(), granted }).await?)
}

pub(super) async fn keys(verb: &KeysVerb) -> Result<Outcome, Error> {
    let (place, task) = match verb {
        KeysVerb::List(place) => (place, Task::Keys),
        KeysVerb::Rotate(place) => (place, Task::RotateKeys),
        KeysVerb::ReplaceMaster(place) => {
            (place, Task::ReplaceMasterKey { given: given_master_keys()? })
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

fn show(reply: &Reply) -> Result<(), Error> {
    let mut out = stdout().lock();
    write(reply, &mut out).and_then(|()| out.flush()).map_err(Error::Stdout)
}

fn write(reply: &Reply, out: &mut impl Write) -> io::Result<()> {
    let line = |out: &mut dyn Write, user: &UserRow| {
        let UserRow { id, tenant_id, email, enabled, created_at } = user;
        let state = if *enabled { "enabled" } else { "disabled" };
        let created = created_at.format("%Y-%m-%d");
        writeln!(out, "{id}  {tenant_id}  {created}  {state:<8}  {email}")
    };
    match reply {
        Reply::Done => writeln!(out, "done"),
        Reply::User { user, reset_token, ide } => {
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
        Reply::Users { users, .. } => users.iter().try_for_each(|user| line(out, user)),
        Reply::SignedOut { sessions } => writeln!(out, "revoked sessions: {sessions}"),
        Reply::Keys { keys } => keys.iter().try_for_each(|key| {
            let since = key.since.format("%Y-%m-%dT%H:%M:%SZ");
            writeln!(out, "{}  {}  {:<7}  since {since}", key.kid, key.algorithm, key.state)
        }),
    }
}
