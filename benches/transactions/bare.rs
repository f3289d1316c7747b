//! Bare redb with hand-written keys: one synced transaction per operation, quick repair as in the
//! store, records in bincode.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bincode::config::standard;
use coditect_store::{
    Clock,
    model::{Session, SessionId, TenantId, User},
};
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    WriteTransaction,
};

use coditect_benches::{self as sample, Known, Outcome, Places, Sample};

use crate::{Client, Work};

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

const SESSIONS: Bytes = TableDefinition::new("sessions");
const BY_USER: Bytes = TableDefinition::new("sessions_by_user");
const BY_WORKSPACE: Bytes = TableDefinition::new("sessions_by_workspace");
const USERS: Bytes = TableDefinition::new("users");
const BY_EMAIL: Bytes = TableDefinition::new("users_by_email");

pub(crate) struct Bare {
    database: Arc<Database>,
    known: Arc<Known>,
    next: AtomicUsize,
}

/// The handle of one client.
pub(crate) struct Reader {
    database: Arc<Database>,
    known: Arc<Known>,
    places: Places,
}

impl Bare {
    pub(crate) fn open(folder: &Path, sample: &Sample) -> Outcome<Self> {
        let database =
            redb::Builder::new().set_cache_size(256 << 20).create(folder.join("bare.redb"))?;
        let load = begin(&database)?;
        for user in &sample.users {
            insert_user(&load, user)?;
        }
        for session in &sample.sessions {
            put(&load, session)?;
        }
        load.commit()?;
        let known = Arc::new(Known::from(sample));
        Ok(Self { database: Arc::new(database), known, next: AtomicUsize::new(0) })
    }

    pub(crate) fn client(&self) -> Reader {
        let start = self.next.fetch_add(101, Ordering::Relaxed);
        Reader {
            database: Arc::clone(&self.database),
            known: Arc::clone(&self.known),
            places: Places::new(start, self.known.sessions.len()),
        }
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> Outcome<usize> {
        use redb::ReadableTableMetadata as _;
        let length = self.database.begin_read()?.open_table(SESSIONS)?.len()?;
        Ok(length.try_into()?)
    }
}

impl Client for Reader {
    fn act(&mut self, work: Work) -> Outcome<usize> {
        let places = &mut self.places;
        let place = if work == Work::Page { places.next_full() } else { places.next() };
        let (tenant, (id, user)) = (self.known.tenant, self.known.sessions[place]);
        match work {
            Work::Create => {
                let session = sample::session(tenant, user, Clock::system().now());
                let write = begin(&self.database)?;
                put(&write, &session)?;
                write.commit()?;
                Ok(1)
            }
            Work::Update => {
                let write = begin(&self.database)?;
                let mut session: Session = {
                    let table = write.open_table(SESSIONS)?;
                    let found = table.get(key(tenant, id).as_slice())?.ok_or("it is not there")?;
                    decode(found.value())?
                };
                let left = workspace_key(&session);
                sample::changed(&mut session, place);
                write.open_table(BY_WORKSPACE)?.remove(left.as_slice())?;
                put(&write, &session)?;
                write.commit()?;
                Ok(1)
            }
            Work::Find => {
                let read = self.database.begin_read()?;
                let email = self.known.emails[place].as_bytes();
                let pointer = read.open_table(BY_EMAIL)?.get(email)?.ok_or("nobody")?;
                let found = read.open_table(USERS)?.get(pointer.value())?.ok_or("dangling")?;
                let _user: User = decode(found.value())?;
                Ok(1)
            }
            Work::Page => {
                let read = self.database.begin_read()?;
                let (index, sessions) = (read.open_table(BY_USER)?, read.open_table(SESSIONS)?);
                let first =
                    [tenant.0.as_bytes(), user.0.as_bytes()].map(<[u8; 16]>::as_slice).concat();
                let last = [first.as_slice(), &[0xff; 16]].concat();
                let mut page: Vec<Session> = Vec::with_capacity(50);
                for entry in index.range(first.as_slice()..=last.as_slice())?.rev().take(50) {
                    let (entry, _) = entry?;
                    let id = &entry.value()[32..];
                    let key = [tenant.0.as_bytes().as_slice(), id].concat();
                    let found = sessions.get(key.as_slice())?.ok_or("dangling")?;
                    page.push(decode(found.value())?);
                }
                Ok(page.len())
            }
            Work::Get | Work::Mixed => {
                let read = self.database.begin_read()?;
                let table = read.open_table(SESSIONS)?;
                let found = table.get(key(tenant, id).as_slice())?.ok_or("it is not there")?;
                let _session: Session = decode(found.value())?;
                Ok(1)
            }
        }
    }
}

fn begin(database: &Database) -> Outcome<WriteTransaction> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(true);
    Ok(write)
}

fn insert_user(write: &WriteTransaction, user: &User) -> Outcome<()> {
    let key = [user.tenant_id.0.as_bytes().as_slice(), user.id.0.as_bytes()].concat();
    let bytes = bincode::serde::encode_to_vec(user, standard())?;
    write.open_table(USERS)?.insert(key.as_slice(), bytes.as_slice())?;
    write.open_table(BY_EMAIL)?.insert(user.email_normalized.as_bytes(), key.as_slice())?;
    Ok(())
}

/// Writes a session with its index entries.
fn put(write: &WriteTransaction, session: &Session) -> Outcome<()> {
    let Session { tenant_id, id, user_id, .. } = *session;
    let bytes = bincode::serde::encode_to_vec(session, standard())?;
    let by_user =
        [tenant_id.0.as_bytes(), user_id.0.as_bytes(), id.0.as_bytes()].map(<[u8; 16]>::as_slice);
    let nothing = [].as_slice();
    write.open_table(SESSIONS)?.insert(key(tenant_id, id).as_slice(), bytes.as_slice())?;
    write.open_table(BY_USER)?.insert(by_user.concat().as_slice(), nothing)?;
    write.open_table(BY_WORKSPACE)?.insert(workspace_key(session).as_slice(), nothing)?;
    Ok(())
}

fn key(tenant: TenantId, id: SessionId) -> Vec<u8> {
    [tenant.0.as_bytes(), id.0.as_bytes()].map(<[u8; 16]>::as_slice).concat()
}

fn workspace_key(session: &Session) -> Vec<u8> {
    let path = session.workspace_path.as_deref().unwrap_or_default();
    let tenant = session.tenant_id.0.as_bytes().as_slice();
    [tenant, path.as_bytes(), &[0], session.id.0.as_bytes()].concat()
}

fn decode<R: serde::de::DeserializeOwned>(bytes: &[u8]) -> Outcome<R> {
    Ok(bincode::serde::decode_from_slice(bytes, standard())?.0)
}
