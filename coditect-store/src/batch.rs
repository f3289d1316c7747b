//! Batches of records: concurrent reads, and sizes that fit into a transaction's lifetime.
//!
//! A transaction lives five seconds on every engine, and on a cluster each round of reads costs a
//! round trip. So work over many records reads them [concurrently](map_concurrent), and work that
//! spans transactions takes its [`BatchSize`] from how the earlier ones went: a unit of work stops
//! after [`MAX_BATCH_TIME`], and each attempt after a failed one is half as large.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::Result;

/// Maximum number of records that one transaction reads or changes concurrently.
pub(crate) const MAX_CONCURRENT: usize = 100;

/// Time after which a unit of work ends early: a fifth of a transaction's lifetime.
const MAX_BATCH_TIME: Duration = Duration::from_secs(1);

/// Applies `work` to `items`, up to [`MAX_CONCURRENT`] of them at once, and returns the results in
/// the order of the items. Fails with the first error.
pub(crate) async fn map_concurrent<I, T, Fut>(
    items: impl IntoIterator<Item = I>,
    work: impl FnMut(I) -> Fut,
) -> Result<Vec<T>>
where
    Fut: Future<Output = Result<T>>,
{
    map_bounded(MAX_CONCURRENT, items, work).await
}

/// As [`map_concurrent`], with up to `limit` items at once.
pub(crate) async fn map_bounded<I, T, Fut>(
    limit: usize,
    items: impl IntoIterator<Item = I>,
    mut work: impl FnMut(I) -> Fut,
) -> Result<Vec<T>>
where
    Fut: Future<Output = Result<T>>,
{
    let mut items = items.into_iter();
    let mut results = Vec::new();
    loop {
        let chunk: Vec<Fut> = items.by_ref().take(limit.max(1)).map(&mut work).collect();
        if chunk.is_empty() {
            return Ok(results);
        }
        results.extend(try_join_all(chunk).await?);
    }
}

/// The adaptive size of the batches of one long operation, such as a deletion or an import. It
/// begins at its maximum; an attempt that follows a failed one is half as large, and a batch that
/// commits at its first attempt lets the next one grow again.
///
/// A handle that is cheap to clone. One operation uses it, one batch after the other.
#[derive(Clone, Debug)]
pub struct BatchSize(Arc<Size>);

#[derive(Debug)]
struct Size {
    max: usize,
    rows: AtomicUsize,
    /// Attempts of the present batch so far.
    attempts: AtomicUsize,
}

/// The limits of one attempt at a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    rows: usize,
    max: usize,
    began: Instant,
}

impl BatchSize {
    /// Returns a size of at most `max` rows a batch, and at least one.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self(Arc::new(Size { max, rows: AtomicUsize::new(max), attempts: AtomicUsize::new(0) }))
    }

    /// Begins an attempt at a batch. If the previous one has not [committed](Self::committed), this
    /// one is half as large.
    pub fn attempt(&self) -> BatchLimit {
        let Size { max, rows, attempts } = &*self.0;
        if attempts.fetch_add(1, Ordering::Relaxed) > 0 {
            let half = (rows.load(Ordering::Relaxed) / 2).max(1);
            rows.store(half, Ordering::Relaxed);
        }
        let rows = rows.load(Ordering::Relaxed);
        BatchLimit { rows, max: *max, began: Instant::now() }
    }

    /// Records that the last attempt has committed.
    pub fn committed(&self) {
        let Size { max, rows, attempts } = &*self.0;
        if attempts.swap(0, Ordering::Relaxed) == 1 {
            let double = rows.load(Ordering::Relaxed).saturating_mul(2);
            rows.store(double.min(*max), Ordering::Relaxed);
        }
    }
}

impl BatchLimit {
    /// Maximum number of rows of this attempt.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Scales `bytes`, a limit of a batch of the largest size, to this attempt.
    pub fn scale(self, bytes: usize) -> usize {
        bytes.saturating_mul(self.rows).div_ceil(self.max)
    }

    /// Returns whether the attempt has used up its time, and should commit its work so far.
    pub fn is_spent(self) -> bool {
        self.began.elapsed() > MAX_BATCH_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_attempts_halve_a_batch_and_commits_let_it_grow() {
        let size = BatchSize::new(100);
        let attempts = |count: usize| {
            let rows: Vec<usize> = (0..count).map(|_| size.attempt().rows()).collect();
            size.committed();
            rows
        };
        assert_eq!(attempts(1), [100]);
        assert_eq!(attempts(4), [100, 50, 25, 12]);
        // The size that has just committed is used again, then doubled.
        assert_eq!(attempts(1), [12]);
        assert_eq!(attempts(1), [24]);
        assert_eq!(attempts(8), [48, 24, 12, 6, 3, 1, 1, 1]);
        assert_eq!(BatchSize::new(0).attempt().rows(), 1);
    }

    #[test]
    fn byte_limits_shrink_with_the_rows() {
        let size = BatchSize::new(8);
        assert_eq!(size.attempt().scale(1_000), 1_000);
        assert_eq!(size.attempt().scale(1_000), 500);
        assert_eq!((0..5).map(|_| size.attempt().scale(1)).min(), Some(1));
    }

    #[tokio::test]
    async fn no_more_than_the_maximum_runs_at_once() {
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let work = async |n: usize| {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(n)
        };
        let results = map_concurrent(0..250, work).await.unwrap();
        assert_eq!(results, (0..250).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), MAX_CONCURRENT);
    }
}
