//! Purging of expired records, by a trusted clock.

use chrono::TimeDelta;
use coditect_store::{PurgeReport, keyspace::Global};

use super::Auth;
use crate::{Error, model::ClockMark};

/// Result of a [purge](Auth::purge).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Expired records were removed: a report of the store, and the number of this crate's records.
    Done(PurgeReport, u64),
    /// Nothing was removed, since the clock has jumped ahead.
    Suspended {
        /// Distance from the last trusted reading.
        ahead: TimeDelta,
        /// Whether this is the first such reading.
        is_new: bool,
    },
}

impl Auth {
    /// Removes expired records of the store and of this crate, and trims audit logs to their
    /// [retention](super::AuditRetention). If the clock is more than
    /// [`MAX_DOWNTIME`](crate::model::MAX_DOWNTIME) ahead of the last purge, nothing is removed
    /// until it has run for [`CLOCK_SETTLE_TIME`](crate::model::CLOCK_SETTLE_TIME), so that a start
    /// with a wrong clock removes no user's records. Purges at most `step` apart count as running.
    /// Expired records are rejected when read, purged or not: a suspended purge costs only space.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]. Records of other types are purged nevertheless.
    pub async fn purge(&self, step: TimeDelta) -> Result<Purge, Error> {
        let now = self.clock.now();
        let mark = self.store.run_idempotent(|tx| async move {
            let before = tx.get::<ClockMark>(Global, ()).await?;
            let is_new = before.as_ref().is_some_and(|mark| mark.ahead_at.is_none());
            let mark = match before {
                Some(before) => before.after(now, step),
                None => ClockMark::trusting(now),
            };
            tx.upsert(&mark).await?;
            Ok::<_, coditect_store::Error>((mark, is_new))
        });
        let (mark, is_new) = mark.await?;
        if mark.trusted_at != now {
            let ahead = now.signed_duration_since(mark.trusted_at);
            return Ok(Purge::Suspended { ahead, is_new });
        }
        let swept = self.store.purge(now).await;
        let own = self.purge_expired().await;
        let trimmed = self.trim_audit(now).await?;
        Ok(Purge::Done(swept?, own? + trimmed))
    }
}
