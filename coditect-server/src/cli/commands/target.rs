//! The file of an archive, under a temporary name until it is complete and synced.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use coditect_store::filesystem;
use tokio::fs::File;

use super::Error;

/// A file being written. Dropping it before [`keep`](Self::keep) removes it.
pub(super) struct Target {
    path: PathBuf,
    draft: Draft,
    pub(super) file: File,
}

/// The temporary file, removed on drop.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // A kept file was renamed. After a kill, the `.part` name marks the incomplete file.
        let _gone = fs::remove_file(&self.0);
    }
}

impl Target {
    /// Creates the file `path`, which must not exist, with access for its owner only.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        refuse_existing(path)?;
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let draft = path.with_file_name(name);
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = match options.open(&draft) {
            // Left behind by an earlier process with the same id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&draft).and_then(|()| options.open(&draft))
            }
            opened => opened,
        };
        let file = File::from_std(file.map_err(of(path))?);
        Ok(Self { path: path.to_owned(), draft: Draft(draft), file })
    }

    /// Returns the temporary path.
    pub(super) fn draft(&self) -> &Path {
        &self.draft.0
    }

    /// Syncs the file to disk.
    pub(super) async fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_all().await.map_err(of(&self.path))
    }

    /// Syncs the file and gives it its final name. Never overwrites a file created meanwhile.
    pub(super) async fn keep(mut self) -> Result<(), Error> {
        self.sync().await?;
        let Self { path, draft, file } = self;
        drop(file);
        let renamed = match filesystem::rename_new(&draft.0, &path) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                refuse_existing(&path)?;
                fs::rename(&draft.0, &path)
            }
            outcome => outcome,
        };
        renamed.map_err(of(&path))?;
        filesystem::sync_name(&path).map_err(of(&path))
    }
}

fn refuse_existing(path: &Path) -> Result<(), Error> {
    if path.symlink_metadata().is_ok() {
        return Err(of(path)(io::ErrorKind::AlreadyExists.into()));
    }
    Ok(())
}

/// Returns a converter of errors about the file `path`.
pub(super) fn of(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}
