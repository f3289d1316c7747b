//! The records that all contenders use.

use chrono::{DateTime, Utc};
use coditect_store::{
    Clock, Error, Store, Transaction,
    model::{Json, Session, SessionId, SessionType, TenantId, User, UserId, UserStatus},
};

/// Number of sessions per user: enough for a page.
const SESSIONS_OF_USER: usize = 60;

/// An equal number of users and sessions of one tenant.
pub struct Sample {
    /// The tenant.
    pub tenant: TenantId,
    /// Users, each with a unique address.
    pub users: Vec<User>,
    /// Sessions; each user has a full page of them, except possibly the last.
    pub sessions: Vec<Session>,
}

impl Sample {
    /// Returns a sample with `size` users and sessions.
    pub fn new(records: usize) -> Self {
        let (tenant, now) = (TenantId::new(), Clock::system().now());
        let users: Vec<User> = (0..records).map(|n| user(tenant, n, now)).collect();
        let sessions =
            (0..records).map(|n| session(tenant, users[n / SESSIONS_OF_USER].id, now)).collect();
        Self { tenant, users, sessions }
    }
}

/// The parameters of reads from a sample.
pub struct Known {
    /// The tenant.
    pub tenant: TenantId,
    /// Each session with its user.
    pub sessions: Vec<(SessionId, UserId)>,
    /// Addresses of the users.
    pub emails: Vec<String>,
}

impl From<&Sample> for Known {
    fn from(sample: &Sample) -> Self {
        let sessions = sample.sessions.iter().map(|session| (session.id, session.user_id));
        let emails = sample.users.iter().map(|user| user.email_normalized.clone());
        Self { tenant: sample.tenant, sessions: sessions.collect(), emails: emails.collect() }
    }
}

/// Positions in the sample, visited in large steps.
pub struct Places {
    at: usize,
    of: usize,
}

impl Places {
    /// Returns positions below `of`, starting at `start`.
    pub fn new(start: usize, of: usize) -> Self {
        Self { at: start % of, of }
    }

    /// Returns the next position.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> usize {
        // A prime that does not divide round numbers, so that every position is visited.
        self.at = (self.at + 7_919) % self.of;
        self.at
    }

    /// Returns a user with a full page.
    pub fn next_full(&mut self) -> usize {
        let full = self.of - self.of % SESSIONS_OF_USER;
        self.next() % full.max(1)
    }
}

fn user(tenant_id: TenantId, n: usize, now: DateTime<Utc>) -> User {
    User {
        id: UserId::new(),
        tenant_id,
        email: format!("User{n}@example.org"),
        email_normalized: format!("user{n}@example.org"),
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA"
            .into(),
        first_name: Some("Ada".into()),
        last_name: None,
        status: UserStatus::Enabled,
        login_epoch: 0,
        created_at: now,
        updated_at: now,
    }
}

/// Returns a session of `user_id`.
pub fn session(tenant_id: TenantId, user_id: UserId, now: DateTime<Utc>) -> Session {
    Session {
        id: SessionId::new(),
        tenant_id,
        user_id,
        name: "A session of the bench".to_owned(),
        session_type: SessionType::Workspace,
        workspace_path: Some("/workspace/bench".to_owned()),
        settings: Json(serde_json::json!({"theme": "dark", "font_size": 13, "tabs": [1, 2, 3]})),
        conversation_id: None,
        created_at: now,
        updated_at: now,
        last_accessed_at: now,
    }
}

/// Returns the session with another name and another position in one index.
pub fn changed(session: &mut Session, turn: usize) {
    session.name = format!("Renamed {turn}");
    session.workspace_path = Some(format!("/workspace/{turn}"));
}

/// Writes the records of a sample, five hundred of each kind per transaction.
///
/// # Errors
///
/// Fails with the store's errors.
pub async fn load(store: &Store, sample: &Sample) -> Result<(), Error> {
    for (users, sessions) in sample.users.chunks(500).zip(sample.sessions.chunks(500)) {
        let load = |tx: Transaction| async move {
            for (user, session) in users.iter().zip(sessions) {
                tx.insert(user).await?;
                tx.insert(session).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(load).await?;
    }
    Ok(())
}
