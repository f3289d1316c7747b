//! Serializes concurrent calls within one transaction that write the same key.
//!
//! A call reads keys, awaits the results, and then writes. Two joined calls of one transaction
//! would both read before either writes, and the engine reports no conflict within a transaction:
//! two records could take one unique value, an index entry could remain, or a counter exceed its
//! limit. So each call claims the keys that its writes depend on before it reads them, and waits
//! while another call has one of them. Calls on the same keys run one after another, all others
//! concurrently.
//!
//! Claims cannot deadlock: a call claims its record's key first, and then, in one claim, all of its
//! unique values; a call that holds the second claim waits for no other.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

/// The claimed keys of a transaction.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claimed: Mutex<BTreeSet<Vec<u8>>>,
    released: Notify,
}

/// A claim, released on drop.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    keys: Vec<Vec<u8>>,
}

impl Claims {
    /// Claims all of `keys` at once, when no other call has one of them.
    pub(super) async fn claim(&self, mut keys: Vec<Vec<u8>>) -> Claim<'_> {
        keys.sort_unstable();
        keys.dedup();
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            if self.try_claim(&keys) {
                return Claim { claims: self, keys };
            }
            released.await;
        }
    }

    fn try_claim(&self, keys: &[Vec<u8>]) -> bool {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.iter().any(|key| claimed.contains(key)) {
            return false;
        }
        claimed.extend(keys.iter().cloned());
        true
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.claims.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            claimed.remove(key);
        }
        drop(claimed);
        self.claims.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::Claims;

    fn keys(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[tokio::test]
    async fn claim_waits_for_all_of_its_keys_and_holds_none_meanwhile() {
        let claims = Claims::default();
        let first = claims.claim(keys(&["b"])).await;
        let mut second = Box::pin(claims.claim(keys(&["a", "b", "b"])));
        assert!(second.as_mut().now_or_never().is_none());
        let third = claims.claim(keys(&["a"])).now_or_never().expect("no call has it");
        drop(first);
        assert!(second.as_mut().now_or_never().is_none());
        drop(third);
        drop(second.await);
        assert!(claims.claimed.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn dropped_wait_claims_nothing() {
        let claims = Claims::default();
        let first = claims.claim(keys(&["a"])).await;
        assert!(claims.claim(keys(&["a"])).now_or_never().is_none());
        drop(first);
        assert!(claims.claim(keys(&["a"])).now_or_never().is_some());
    }
}
