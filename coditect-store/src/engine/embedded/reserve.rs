//! Space reserved for checkpoints that free more than they take: a file of allocated blocks without
//! content, which is removed before such a checkpoint on a full disk and created again afterwards.

use std::sync::Arc;

use super::{space::is_no_space, vfs::Vfs};

/// Name of the file.
pub(super) const FILE_NAME: &str = "reserve";
/// Size of its blocks, in bytes.
const RESERVE: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Reserve {
    disk: Arc<dyn Vfs>,
    is_there: bool,
}

impl Reserve {
    /// Returns the reserve on `disk`, which an earlier run may have left.
    pub(super) fn new(disk: Arc<dyn Vfs>) -> Self {
        let mut reserve = Self { disk, is_there: false };
        reserve.restore();
        reserve
    }

    /// Allocates the blocks if necessary; returns false if there is no space.
    pub(super) fn restore(&mut self) -> bool {
        if self.is_there {
            return true;
        }
        let file = self.disk.open(FILE_NAME).or_else(|_| self.disk.create(FILE_NAME));
        let allocated = file.and_then(|file| file.allocate(0, RESERVE));
        // Without support for allocation there is no reserve.
        self.is_there = !allocated.is_err_and(|error| is_no_space(&error));
        self.is_there
    }

    /// Frees the blocks.
    pub(super) fn release(&mut self) {
        self.is_there = self.disk.remove(FILE_NAME).is_err();
    }
}
