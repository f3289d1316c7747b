//! Whether the disk has space.
//!
//! Two things need new space: another WAL segment, and the pages of a checkpoint in the B-tree
//! file. While either lacks it, reads and watches continue, and commits fail unless they free more
//! than they write: these use the rest of the active segment, and the [reserve](super::reserve).
//! Both are retried every [`RETRY_INTERVAL`], so nothing has to be restarted once there is space.

use std::{sync::PoisonError, time::Duration};

use super::{
    reserve::Reserve,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use crate::{Error, ErrorKind};

/// Interval of attempts to get space.
pub(super) const RETRY_INTERVAL: Duration =
    Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });

/// Space for the WAL and for the B-tree file, on one disk.
#[derive(Debug, Default)]
pub(super) struct Space {
    folder: String,
    log_is_full: AtomicBool,
    tree_is_full: AtomicBool,
    /// Whether the B-tree file still records a clean shutdown, for lack of space for another
    /// record.
    log_is_unrequired: AtomicBool,
    reserve: Mutex<Option<Reserve>>,
}

impl Space {
    pub(super) fn new(folder: String) -> Self {
        Self { folder, ..Self::default() }
    }

    /// Keeps `reserve` for commits that free more than they take.
    pub(super) fn keep(&self, reserve: Reserve) {
        *self.reserve() = Some(reserve);
    }

    /// Frees the reserve, for a commit or a checkpoint that frees more than it takes.
    pub(super) fn release_reserve(&self) {
        if let Some(reserve) = &mut *self.reserve() {
            reserve.release();
        }
    }

    /// Allocates the reserve again if necessary; returns false if there is no space for it.
    pub(super) fn restore_reserve(&self) -> bool {
        self.reserve().as_mut().is_none_or(Reserve::restore)
    }

    fn reserve(&self) -> MutexGuard<'_, Option<Reserve>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether there is space for commits of any kind.
    pub(super) fn is_left(&self) -> bool {
        !self.log_is_full() && !self.tree_is_full() && !self.log_is_unrequired()
    }

    /// Returns whether the B-tree file does not require the WAL yet: nothing may be committed,
    /// since it could be lost without notice.
    pub(super) fn log_is_unrequired(&self) -> bool {
        self.log_is_unrequired.load(Ordering::SeqCst)
    }

    pub(super) fn set_log_unrequired(&self, is_unrequired: bool) {
        self.set(&self.log_is_unrequired, is_unrequired, "B-tree file");
    }

    pub(super) fn log_is_full(&self) -> bool {
        self.log_is_full.load(Ordering::SeqCst)
    }

    pub(super) fn tree_is_full(&self) -> bool {
        self.tree_is_full.load(Ordering::SeqCst)
    }

    pub(super) fn set_log_full(&self, is_full: bool) {
        self.set(&self.log_is_full, is_full, "log");
    }

    pub(super) fn set_tree_full(&self, is_full: bool) {
        self.set(&self.tree_is_full, is_full, "B-tree file");
    }

    fn set(&self, flag: &AtomicBool, is_full: bool, file: &str) {
        if flag.swap(is_full, Ordering::SeqCst) == is_full {
            return;
        }
        let folder = &self.folder;
        if is_full {
            tracing::error!(folder, file, "no space left: commits are refused until there is");
        } else {
            tracing::info!(folder, file, "space is available again");
        }
    }

    /// Returns the error of a commit that is refused for lack of space.
    pub(super) fn error(&self) -> Error {
        no_space(&self.folder)
    }
}

/// Returns the error that `folder` has no space left.
pub(super) fn no_space(folder: &str) -> Error {
    let message = format!("no space left in {folder}: free some, or enlarge the disk");
    Error::new(ErrorKind::Unavailable, message)
}
