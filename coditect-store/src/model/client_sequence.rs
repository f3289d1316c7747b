//! How far a client's updates of a session have come, so that none is lost and none is done twice.

use chrono::{DateTime, TimeDelta, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Session, SessionId, TenantId};
use crate::{
    Entity, Result, Transaction,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::Space,
};

/// How long it is known after the client has connected or sent an update.
const KEPT: TimeDelta = TimeDelta::days(7);

/// What a client that numbers its updates of a session was told last. Each transaction that applies
/// some of them writes their highest number too, so after any break it is known which are done.
///
/// One connection at a time speaks for a client: the one that was made last. An older one, half open
/// or of a tab that was duplicated, finds out when it next writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSequence {
    /// The session's tenant.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// What the client calls itself.
    pub client: String,
    /// The connection that speaks for it.
    pub connection: Uuid,
    /// The highest number of its updates that is done; 0 before the first.
    pub seq: u64,
    /// Until when it is known.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for ClientSequence {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Space<TenantId> = Space::tenant("client_sequences").keyed(&["session", "client"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String) {
        (self.session_id, self.client.clone())
    }
}

indexes! { ClientSequence =>
    /// By the hour in which they end by themselves, for the sweep.
    BY_EXPIRY ("client_sequences_by_expiry", hour): GlobalMulti<i64> =
        |sequence| Some(expiry_hour(sequence.expires_at));
}

impl Expiring for ClientSequence {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl ClientSequence {
    /// Makes `connection` the one that speaks for `client`, and gives what is known of it. Two rounds of
    /// reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; those of [`Transaction::upsert`].
    pub async fn claim(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        client: &str,
        connection: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        tx.require::<Session>(tenant, session).await?;
        let before = tx.get::<Self>(tenant, (session, client.to_owned())).await?;
        let claimed = Self {
            tenant_id: tenant,
            session_id: session,
            client: client.to_owned(),
            connection,
            seq: before.map_or(0, |before| before.seq),
            expires_at: now + KEPT,
        };
        tx.upsert(&claimed).await?;
        Ok(claimed)
    }

    /// Records that this transaction applies the client's updates up to `seq`, sent by `connection`,
    /// and returns the number up to which they were applied before: those are not applied again.
    /// Returns `None`, and writes nothing, if another connection has claimed the client. One read.
    ///
    /// A connection may be idle for longer than the record is kept. No other one has claimed the
    /// client then, so it goes on from `known`, the number that it was told last.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::upsert`].
    pub async fn advance(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (client, connection): (&str, Uuid),
        (known, seq): (u64, u64),
        now: DateTime<Utc>,
    ) -> Result<Option<u64>> {
        let before = tx.get::<Self>(tenant, (session, client.to_owned())).await?;
        let done = match before {
            None => {
                tx.require::<Session>(tenant, session).await?;
                known
            }
            Some(before) if before.connection == connection => before.seq,
            Some(_) => return Ok(None),
        };
        let advanced = Self {
            tenant_id: tenant,
            session_id: session,
            client: client.to_owned(),
            connection,
            seq: seq.max(done),
            expires_at: now + KEPT,
        };
        tx.upsert(&advanced).await?;
        Ok(Some(done))
    }
}
