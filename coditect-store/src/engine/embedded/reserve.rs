//! Space reserved for checkpoints that free more than they take: a file of allocated blocks without
//! content, which is removed before such a checkpoint on a full disk and created again afterwards.

use std::{io::ErrorKind, sync::Arc};

use super::vfs::{Vfs, is_no_space};

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
        if !self.is_there {
            // It may have got some of its blocks.
            self.release();
        }
        self.is_there
    }

    /// Frees the blocks, if there are any.
    pub(super) fn release(&mut self) {
        let removed = self.disk.remove(FILE_NAME);
        self.is_there = removed.is_err_and(|error| error.kind() != ErrorKind::NotFound);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::vfs::Memory, *};

    #[test]
    fn reserve_that_was_released_twice_is_allocated_again() {
        let disk = Arc::new(Memory::default());
        let mut reserve = Reserve::new(Arc::clone(&disk) as Arc<dyn Vfs>);
        assert_eq!(disk.names().unwrap(), [FILE_NAME]);
        // Once for each slice of a checkpoint, and each commit, on a full disk.
        reserve.release();
        reserve.release();
        assert!(disk.names().unwrap().is_empty());
        assert!(reserve.restore());
        assert_eq!(disk.names().unwrap(), [FILE_NAME], "there is no reserve any more");
    }
}
