//! Keeps calls that run together in one transaction from writing the same key at once.
//!
//! A call reads keys, awaits the answers, and then writes. Two that are joined in one transaction would
//! both read before either writes, and the engine reports no conflict within a transaction: two records
//! would take one unique value, one index entry would be left behind, or a counter would exceed its
//! limit. So each call claims the keys that its writes depend on before it reads them, and waits while
//! another call has one of them: calls on the same keys have the effect of calls made one after
//! another, and all others run together.
//!
//! There is no deadlock: a call claims the key of its record first, and all of its unique values at
//! once, last; nothing waits for a claim while it holds one of the second kind.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

/// The keys that calls in progress have claimed.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claimed: Mutex<BTreeSet<Vec<u8>>>,
    released: Notify,
}

/// Keys that one call has claimed, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    keys: Vec<Vec<u8>>,
}

impl Claims {
    /// Claims `keys`, all at once, as soon as no other call has one of them.
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
