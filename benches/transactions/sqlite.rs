//! `SQLite` through rusqlite: WAL, `synchronous=FULL`, the same tables and indexes, one connection
//! with prepared statements per client. A mutex serializes the writers, which is faster for
//! `SQLite` than its busy handler.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, Utc};
use coditect_store::{
    Clock,
    model::{Json, Session, SessionId, SessionType, TenantId, User, UserId},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use coditect_benches::{self as sample, Known, Outcome, Places, Sample};

use crate::{Client, Work};

const SCHEMA: &str = "
    CREATE TABLE users (
        tenant BLOB, id BLOB, email TEXT, email_normalized TEXT, password_hash TEXT,
        first_name TEXT, last_name TEXT, status INTEGER, created_at INTEGER, updated_at INTEGER,
        PRIMARY KEY (tenant, id)) WITHOUT ROWID;
    CREATE UNIQUE INDEX users_by_email ON users (email_normalized);
    CREATE TABLE sessions (
        tenant BLOB, id BLOB, user BLOB, name TEXT, type INTEGER, workspace_path TEXT,
        settings TEXT, conversation BLOB, created_at INTEGER, updated_at INTEGER,
        last_accessed_at INTEGER,
        PRIMARY KEY (tenant, id)) WITHOUT ROWID;
    CREATE INDEX sessions_by_user ON sessions (tenant, user, id);
    CREATE INDEX sessions_by_workspace ON sessions (tenant, workspace_path, id);
";

const INSERT_SESSION: &str =
    "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

pub(crate) struct Sqlite {
    path: PathBuf,
    known: Arc<Known>,
    writing: Arc<Mutex<()>>,
    next: AtomicUsize,
}

pub(crate) struct Connected {
    connection: Connection,
    known: Arc<Known>,
    writing: Arc<Mutex<()>>,
    places: Places,
}

impl Sqlite {
    pub(crate) fn open(folder: &Path, sample: &Sample) -> Outcome<Self> {
        let path = folder.join("sqlite.db");
        let mut connection = connect(&path)?;
        connection.execute_batch(SCHEMA)?;
        let load = connection.transaction()?;
        for user in &sample.users {
            insert_user(&load, user)?;
        }
        for session in &sample.sessions {
            insert_session(&load, session)?;
        }
        load.commit()?;
        let known = Arc::new(Known::from(sample));
        Ok(Self { path, known, writing: Arc::default(), next: AtomicUsize::new(0) })
    }

    pub(crate) fn client(&self) -> Outcome<Connected> {
        let start = self.next.fetch_add(101, Ordering::Relaxed);
        Ok(Connected {
            connection: connect(&self.path)?,
            known: Arc::clone(&self.known),
            writing: Arc::clone(&self.writing),
            places: Places::new(start, self.known.sessions.len()),
        })
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> Outcome<usize> {
        let count = "SELECT count(*) FROM sessions";
        let count: i64 = connect(&self.path)?.query_row(count, [], |row| row.get(0))?;
        Ok(count.try_into()?)
    }
}

impl Client for Connected {
    fn act(&mut self, work: Work) -> Outcome<usize> {
        let places = &mut self.places;
        let place = if work == Work::Page { places.next_full() } else { places.next() };
        let (tenant, (id, user)) = (self.known.tenant.0, self.known.sessions[place]);
        match work {
            Work::Create => {
                let session = sample::session(self.known.tenant, user, Clock::system().now());
                let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                insert_session(&self.connection, &session)
            }
            Work::Update => {
                let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let change = self.connection.transaction()?;
                let mut session = get(&change, tenant, id)?.ok_or("it is not there")?;
                sample::changed(&mut session, place);
                let updated = change
                    .prepare_cached(
                        "UPDATE sessions SET name = ?3, workspace_path = ?4
                         WHERE tenant = ?1 AND id = ?2",
                    )?
                    .execute(params![tenant, id.0, session.name, session.workspace_path])?;
                change.commit()?;
                Ok(updated)
            }
            Work::Find => {
                let find = "SELECT id, email, password_hash, first_name, last_name, status,
                            created_at, updated_at FROM users WHERE email_normalized = ?1";
                let mut find = self.connection.prepare_cached(find)?;
                let found = find.query_row([&self.known.emails[place]], |row| {
                    let id: Uuid = row.get(0)?;
                    let (email, hash): (String, String) = (row.get(1)?, row.get(2)?);
                    Ok((id, email.len() + hash.len()))
                });
                Ok(usize::from(found.optional()?.is_some()))
            }
            Work::Page => {
                let page = "SELECT * FROM sessions WHERE tenant = ?1 AND user = ?2
                            ORDER BY id DESC LIMIT 50";
                let mut page = self.connection.prepare_cached(page)?;
                let rows = page.query_map(params![tenant, user.0], read)?;
                Ok(rows.collect::<Result<Vec<Session>, _>>()?.len())
            }
            Work::Get | Work::Mixed => {
                Ok(usize::from(get(&self.connection, tenant, id)?.is_some()))
            }
        }
    }
}

fn connect(path: &Path) -> Outcome<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -262_144)?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    Ok(connection)
}

fn insert_user(connection: &Connection, user: &User) -> Outcome<usize> {
    let insert = "INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    Ok(connection.prepare_cached(insert)?.execute(params![
        user.tenant_id.0,
        user.id.0,
        user.email,
        user.email_normalized,
        user.password_hash,
        user.first_name,
        user.last_name,
        0,
        user.created_at.timestamp_micros(),
        user.updated_at.timestamp_micros(),
    ])?)
}

fn insert_session(connection: &Connection, session: &Session) -> Outcome<usize> {
    Ok(connection.prepare_cached(INSERT_SESSION)?.execute(params![
        session.tenant_id.0,
        session.id.0,
        session.user_id.0,
        session.name,
        0,
        session.workspace_path,
        session.settings.0.to_string(),
        None::<Uuid>,
        session.created_at.timestamp_micros(),
        session.updated_at.timestamp_micros(),
        session.last_accessed_at.timestamp_micros(),
    ])?)
}

fn get(connection: &Connection, tenant: Uuid, id: SessionId) -> Outcome<Option<Session>> {
    let get = "SELECT * FROM sessions WHERE tenant = ?1 AND id = ?2";
    Ok(connection.prepare_cached(get)?.query_row(params![tenant, id.0], read).optional()?)
}

/// A complete session, as the repositories return it.
fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    let time = |at| -> rusqlite::Result<DateTime<Utc>> {
        Ok(DateTime::from_timestamp_micros(row.get(at)?).unwrap_or_default())
    };
    let settings: String = row.get(6)?;
    Ok(Session {
        tenant_id: TenantId(row.get(0)?),
        id: SessionId(row.get(1)?),
        user_id: UserId(row.get(2)?),
        name: row.get(3)?,
        session_type: SessionType::Workspace,
        workspace_path: row.get(5)?,
        settings: Json(serde_json::from_str(&settings).unwrap_or_default()),
        conversation_id: None,
        created_at: time(8)?,
        updated_at: time(9)?,
        last_accessed_at: time(10)?,
    })
}
