//! Charging of request bodies for the memory that they hold.
//!
//! A body that is read whole is charged as its bytes arrive, and from when it is parsed for the
//! memory of its values, until its request has a response; an upload, which is written piece by
//! piece, for one batch. The charge is to the connection, to the user, and to the process. Clients
//! that are not authenticated have one account together, and may send no more than
//! [`STRANGERS_BODY_BYTES`].
//!
//! # Invariants
//!
//! - The first [`FREE_BYTES`] of a body are not charged: less than a request's headers take. So
//!   clients whose bodies wait never keep others from signing in.
//! - A request is refused before its handler has changed anything.

use std::sync::Arc;

use super::{
    budget::{Account, Budget, Charge, WAIT},
    problem::Problem,
};

/// Bytes at the beginning of a body that are not charged.
pub(crate) const FREE_BYTES: u64 = 4 << 10;

/// Maximum size of a JSON body of a client that is not authenticated, in bytes.
pub(crate) const STRANGERS_BODY_BYTES: usize = 16 << 10;

/// Charges grow by multiples of this, in bytes.
const STEP_BYTES: u64 = 16 << 10;

/// Memory of a JSON value beside its text, in bytes: a `serde_json::Value` in a vector or a map,
/// whose capacity may be twice its length.
const VALUE_BYTES: u64 = 64;

/// The charge for the body of a request. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Intake {
    budget: Arc<Budget>,
    connection: Arc<Account>,
    charge: Option<Charge>,
    charged_bytes: u64,
}

impl Intake {
    /// Returns a charge of nothing, for a request of `connection`.
    pub(crate) fn new(budget: Arc<Budget>, connection: Arc<Account>) -> Self {
        Self { budget, connection, charge: None, charged_bytes: 0 }
    }

    /// Charges for a body that holds `bytes` now, to `user` if the client is authenticated. It
    /// waits for room, and never shrinks. A body that takes more than one user may hold is charged
    /// for that.
    ///
    /// # Errors
    ///
    /// 429 or 503 if there is no room after [`WAIT`].
    pub(crate) async fn grow(
        &mut self,
        user: Option<&Arc<Account>>,
        bytes: u64,
    ) -> Result<(), Problem> {
        if bytes <= FREE_BYTES || bytes <= self.charged_bytes {
            return Ok(());
        }
        let wanted = bytes.next_multiple_of(STEP_BYTES).min(self.budget.share_bytes());
        let more = wanted.saturating_sub(self.charged_bytes);
        if more == 0 {
            return Ok(());
        }
        let user = user.map_or_else(|| self.budget.strangers(), Arc::clone);
        let accounts = [Arc::clone(&self.connection), user];
        let charge = self.budget.charge(&accounts, more, WAIT).await?;
        match &self.charge {
            Some(held) => held.absorb(charge),
            None => self.charge = Some(charge),
        }
        self.charged_bytes = wanted;
        Ok(())
    }
}

/// Returns the memory of a parsed body, in bytes.
pub(crate) fn parsed_bytes(text_bytes: usize, values: u64) -> u64 {
    (text_bytes as u64).saturating_add(values.saturating_mul(VALUE_BYTES))
}

#[cfg(test)]
mod tests {
    use coditect_store::model::UserId;

    use super::*;
    use crate::http::budget::Purpose;

    const MIB: u64 = 1 << 20;

    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(Purpose::Requests, 8 * MIB, MIB))
    }

    async fn grown(budget: &Arc<Budget>, connection: &Arc<Account>, bytes: u64) -> Intake {
        let mut intake = Intake::new(Arc::clone(budget), Arc::clone(connection));
        let user = budget.user(UserId::new());
        intake.grow(Some(&user), bytes).await.unwrap();
        intake
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_a_connection_are_charged_together_as_they_grow() {
        let (budget, connection) = (budget(), budget().connection());
        let mut first = grown(&budget, &connection, FREE_BYTES).await;
        assert_eq!(connection.held(), 0, "the first bytes are free");
        let user = budget.user(UserId::new());
        first.grow(Some(&user), 600 << 10).await.unwrap();
        first.grow(Some(&user), 500 << 10).await.unwrap();
        assert_eq!((connection.held(), user.held()), (608 << 10, 608 << 10));
        let mut second = Intake::new(Arc::clone(&budget), Arc::clone(&connection));
        let other = budget.user(UserId::new());
        let refused = second.grow(Some(&other), 600 << 10).await.unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "REQUESTS_PENDING"));
        drop(first);
        second.grow(Some(&other), 600 << 10).await.unwrap();
        drop(second);
        assert_eq!((connection.held(), other.held()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn body_larger_than_a_share_is_charged_for_the_share() {
        let (budget, connection) = (budget(), budget().connection());
        let intake = grown(&budget, &connection, 100 * MIB).await;
        assert_eq!(connection.held(), budget.share_bytes());
        drop(intake);
        assert_eq!(connection.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_no_more_than_their_share_together() {
        let budget = budget();
        let mut held = Vec::new();
        let refused = loop {
            let mut intake = Intake::new(Arc::clone(&budget), budget.connection());
            match intake.grow(None, STRANGERS_BODY_BYTES as u64).await {
                Ok(()) => held.push(intake),
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused.code(), held.len() as u64), ("REQUESTS_PENDING", MIB / (16 << 10)));
        // A user, and the small body of another stranger, are not concerned.
        grown(&budget, &budget.connection(), MIB).await;
        let mut small = Intake::new(Arc::clone(&budget), budget.connection());
        small.grow(None, FREE_BYTES).await.unwrap();
    }
}
