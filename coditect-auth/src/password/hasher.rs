//! Password hashing with Argon2id, bounded in memory and queue length.
//!
//! A hash takes tens of milliseconds of a core and, by default, 19 MiB, so:
//!
//! - Hashes run on blocking threads, as many at once as there are cores, in buffers that are
//!   reused. The permit is moved into the blocking closure: a client that disconnects does not
//!   release it while its hash still runs.
//! - Up to 128 more wait, a second or two on two cores; the next one fails with [`Error::Busy`] at
//!   once. A waiting one holds only its password, so a flood of logins is bounded in memory and in
//!   time.
//! - A password for an account that does not exist costs a hash too: [`Hasher::verify_dummy`].
//!
//! A stored hash whose parameters exceed the limits is rejected before it is computed, so a damaged
//! or planted record cannot exhaust the server. One with other parameters than the current ones
//! verifies, and must be recomputed.

mod argon;
mod pepper;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use argon::{Memory, StoredHash, hash};

pub use argon::HashParams;
pub use pepper::Peppers;

use crate::{Error, Password, random::random};

/// Maximum number of waiting hashes.
const MAX_WAITERS: usize = 128;

/// Result of a password verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The password matches.
    Matches {
        /// Whether the hash has other parameters than the current ones: store a new one.
        needs_rehash: bool,
    },
    /// The password differs.
    Differs,
}

/// Hashes and verifies passwords. Clones share the permits.
#[derive(Clone)]
pub struct Hasher {
    params: HashParams,
    peppers: Arc<Peppers>,
    /// Hash of a random password, with the current parameters.
    absent: Arc<str>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    /// Idle buffers; at most one per permit.
    memory: Arc<Mutex<Vec<Memory>>>,
}

/// Permits held from admission to the end of the hash.
struct Permits {
    _admitted: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

impl Hasher {
    /// Creates a hasher that runs one hash per core at once. Computes one hash itself.
    pub fn new(params: HashParams) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::with_permits(params, cores)
    }

    /// Creates a hasher that runs at most `permits` hashes at once.
    pub fn with_permits(params: HashParams, permits: NonZeroUsize) -> Result<Self, Error> {
        let nobodys_password: [u8; 32] = *random()?;
        let peppers = Arc::<Peppers>::default();
        let mut memory = Memory::default();
        let absent = hash(&params, &peppers, &mut memory, &nobodys_password)?.into();
        Ok(Self {
            params,
            peppers,
            absent,
            running: Arc::new(Semaphore::new(permits.get())),
            admitted: Arc::new(Semaphore::new(permits.get() + MAX_WAITERS)),
            memory: Arc::new(Mutex::new(vec![memory])),
        })
    }

    /// Sets the peppers.
    #[must_use]
    pub fn with_peppers(self, peppers: Peppers) -> Self {
        Self { peppers: Arc::new(peppers), ..self }
    }

    /// Hashes a password with a new salt, and returns the PHC string.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if the queue is full.
    pub async fn hash(&self, password: &Password) -> Result<String, Error> {
        let (params, peppers) = (self.params.clone(), Arc::clone(&self.peppers));
        let password = password.clone();
        self.run(move |memory| hash(&params, &peppers, memory, password.expose().as_bytes())).await
    }

    /// Verifies a password against `stored`, a PHC string.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if the queue is full; [`Error::Internal`] if `stored` is not an Argon2id
    /// hash, or exceeds the limits.
    pub async fn verify(&self, password: &Password, stored: &str) -> Result<Verdict, Error> {
        let stored = StoredHash::parse(stored)?;
        let (params, peppers) = (self.params.clone(), Arc::clone(&self.peppers));
        let password = password.clone();
        self.run(move |memory| {
            stored.verify(&params, &peppers, memory, password.expose().as_bytes())
        })
        .await
    }

    /// Costs the same as [`verify`](Self::verify), for an account that does not exist, so that the
    /// response time does not reveal it. Respond as for a wrong password.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] as for `verify`.
    pub async fn verify_dummy(&self, password: &Password) -> Result<(), Error> {
        self.verify(password, &self.absent).await.map(|_| ())
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permits = self.admit().await?;
        let (idle, params) = (Arc::clone(&self.memory), self.params.clone());
        let done = tokio::task::spawn_blocking(move || {
            let _held_to_the_end = permits;
            let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory = lock().pop().unwrap_or_default();
            let done = work(&mut memory);
            memory.shrink(&params);
            lock().push(memory);
            done
        });
        done.await.map_err(Error::internal)?
    }

    /// Waits for a permit; fails at once if the queue is full. A future dropped while it waits
    /// leaves the queue.
    async fn admit(&self) -> Result<Permits, Error> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| Error::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        Ok(Permits { _admitted: admitted, _running: running.map_err(Error::internal)? })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("params", &self.params)
            .field("permits_free", &self.running.available_permits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn hasher() -> Hasher {
        Hasher::with_permits(HashParams::weak_for_tests(), NonZeroUsize::MIN).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::presented(text).unwrap()
    }

    #[tokio::test]
    async fn password_matches_only_its_own_hash() {
        let hasher = hasher();
        let stored = hasher.hash(&password("testpass123")).await.unwrap();
        let verdict = hasher.verify(&password("testpass123"), &stored).await;
        let needs_rehash = false;
        assert_eq!(verdict.unwrap(), Verdict::Matches { needs_rehash });
        for other in ["testpass124", "Testpass123", "testpass123 ", ""] {
            let verdict = hasher.verify(&password(other), &stored).await.unwrap();
            assert_eq!(verdict, Verdict::Differs);
        }
    }

    #[tokio::test]
    async fn all_bytes_are_significant() {
        let hasher = hasher();
        for (left, right) in [
            (format!("{}a", "x".repeat(72)), format!("{}b", "x".repeat(72))),
            (format!("{}a", "x".repeat(255)), format!("{}b", "x".repeat(255))),
            ("same\0one".to_owned(), "same\0two".to_owned()),
        ] {
            let stored = hasher.hash(&password(&left)).await.unwrap();
            let verdict = hasher.verify(&password(&right), &stored).await.unwrap();
            assert_eq!(verdict, Verdict::Differs);
        }
    }

    #[tokio::test]
    async fn hashes_of_one_password_differ() {
        let hasher = hasher();
        let first = hasher.hash(&password("testpass123")).await.unwrap();
        assert_ne!(first, hasher.hash(&password("testpass123")).await.unwrap());
    }

    #[tokio::test]
    async fn default_is_argon2id_with_19_mib_two_passes_and_one_lane() {
        let hasher = Hasher::new(HashParams::default()).unwrap();
        let stored = hasher.hash(&password("testpass123")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    }

    #[tokio::test]
    async fn hash_of_other_parameters_matches_and_needs_rehash() {
        let stored = hasher().hash(&password("testpass123")).await.unwrap();
        let today = Hasher::new(HashParams::default()).unwrap();
        let verdict = today.verify(&password("testpass123"), &stored).await;
        let needs_rehash = true;
        assert_eq!(verdict.unwrap(), Verdict::Matches { needs_rehash });
    }

    #[tokio::test]
    async fn dummy_verification_uses_the_same_parameters() {
        let hasher = hasher();
        let made = hasher.hash(&password("testpass123")).await.unwrap();
        let params_of = |phc: &str| phc.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(params_of(&hasher.absent), params_of(&made));
        hasher.verify_dummy(&password("testpass123")).await.unwrap();
    }

    /// Occupies the one permit until the sender is dropped.
    async fn occupied(hasher: &Hasher) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (release, wait) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let hasher = hasher.clone();
        let task = tokio::spawn(async move {
            let work = move |_: &mut Memory| {
                let _ = started.send(());
                let _ = wait.recv();
                Ok(())
            };
            hasher.run(work).await.unwrap();
        });
        has_started.await.unwrap();
        (release, task)
    }

    #[tokio::test]
    async fn full_queue_rejects_until_it_drains() {
        let hasher = hasher();
        let (release, running) = occupied(&hasher).await;
        let waiting: Vec<_> = (0..MAX_WAITERS)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.hash(&password("testpass123")).await })
            })
            .collect();
        while hasher.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = hasher.hash(&password("testpass123")).await;
        assert!(matches!(refused, Err(Error::Busy)));
        let refused = hasher.verify_dummy(&password("testpass123")).await;
        assert!(matches!(refused, Err(Error::Busy)));

        drop(release);
        running.await.unwrap();
        for hash in waiting {
            hash.await.unwrap().unwrap();
        }
        hasher.hash(&password("testpass123")).await.unwrap();
    }

    #[tokio::test]
    async fn disconnect_keeps_the_permit_of_a_running_hash() {
        let hasher = hasher();
        let (release, client) = occupied(&hasher).await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(hasher.running.available_permits(), 0);

        drop(release);
        while hasher.running.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn disconnect_while_waiting_leaves_the_queue() {
        let hasher = hasher();
        let (release, running) = occupied(&hasher).await;
        let free = hasher.admitted.available_permits();
        let waits = {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.hash(&password("testpass123")).await })
        };
        while hasher.admitted.available_permits() == free {
            tokio::task::yield_now().await;
        }
        waits.abort();
        let _ = waits.await;
        assert_eq!(hasher.admitted.available_permits(), free);
        drop(release);
        running.await.unwrap();
    }
}
