//! Update sequence numbers of clients, which make updates exactly-once.

use chrono::{DateTime, TimeDelta, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Session, SessionId, TenantId};
use crate::{
    Entity, Result, Transaction,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::Subspace,
};

/// Time for which a record is kept after the client's last connection or update.
const KEPT: TimeDelta = TimeDelta::days(7);

/// The last applied update of a client that numbers its updates of a session. Each transaction that
/// applies updates also writes their highest number, so the applied ones are known after any
/// interruption.
///
/// The newest connection of a client owns its sequence. An older one, half-open or of a duplicated
/// tab, fails at its next update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSequence {
    /// Tenant of the session.
    pub tenant_id: TenantId,
    /// Session.
    pub session_id: SessionId,
    /// Client id, chosen by the client.
    pub client: String,
    /// Connection that owns the sequence.
    pub connection: Uuid,
    /// Highest applied number; 0 before the first update.
    pub seq: u64,
    /// Expiry of this record.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for ClientSequence {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Subspace<TenantId> =
        Subspace::tenant("client_sequences").keyed(&["session", "client"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String) {
        (self.session_id, self.client.clone())
    }
}

indexes! { ClientSequence =>
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("client_sequences_by_expiry", hour): GlobalMulti<i64> =
        |sequence| Some(expiry_hour(sequence.expires_at));
}

impl Expiring for ClientSequence {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl ClientSequence {
    /// Makes `connection` the owner of the sequence of `client`, and returns the sequence. Two
    /// rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist; errors of [`Transaction::upsert`].
    pub async fn claim(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        client: &str,
        connection: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let of_session = tx.get_required::<Session>(tenant, session);
        let sequence = tx.get::<Self>(tenant, (session, client.to_owned()));
        let (_, before) = try_join(of_session, sequence).await?;
        let claimed = Self {
            tenant_id: tenant,
            session_id: session,
            client: client.to_owned(),
            connection,
            seq: before.as_ref().map_or(0, |before| before.seq),
            expires_at: now + KEPT,
        };
        tx.upsert_over(before.as_ref(), &claimed).await?;
        Ok(claimed)
    }

    /// Records that this transaction applies the client's updates up to `seq`, sent by
    /// `connection`, and returns the highest number applied before: those updates are not applied
    /// again. Returns `None` without writing if another connection owns the sequence. Two rounds of
    /// reads.
    ///
    /// A connection may be idle for longer than the record is kept. No other connection has claimed
    /// the sequence then, so it continues after `known`, the last number acknowledged to the
    /// connection.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::upsert`].
    pub async fn advance(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (client, connection): (&str, Uuid),
        (known, seq): (u64, u64),
        now: DateTime<Utc>,
    ) -> Result<Option<u64>> {
        let before = tx.get::<Self>(tenant, (session, client.to_owned())).await?;
        let done = match &before {
            None => {
                tx.get_required::<Session>(tenant, session).await?;
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
        tx.upsert_over(before.as_ref(), &advanced).await?;
        Ok(Some(done))
    }
}
