//! Durable names of the files that programs keep beside a store, such as keys and archives.

use std::{io, path::Path};

use crate::engine::names::SYSTEM;

/// Renames the file `from` to `to` in one step, which never replaces a file.
///
/// # Errors
///
/// `AlreadyExists` if there is a file of that name; `Unsupported`, with the reason, if the file
/// system has no way to do this.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    SYSTEM.rename_new(from, to)
}

/// Makes the names of the files in the folder of `file` durable.
///
/// # Errors
///
/// `Unsupported`, with the reason, if the file system cannot.
pub fn sync_name(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    SYSTEM.sync_parent(folder, file)
}
