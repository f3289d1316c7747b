//! The file that an archive is written to: under a name of its own until it is whole and on disk.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use coditect_store::filesystem;
use tokio::fs::File;

use super::Error;

/// A file while it is written. Dropped before it is [kept](Self::keep), it is gone.
pub(super) struct Target {
    path: PathBuf,
    draft: Draft,
    pub(super) file: File,
}

/// The name that it has until then.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was kept has another name by now; what a kill leaves behind says by its name
        // that it is a part.
        let _gone = fs::remove_file(&self.0);
    }
}

impl Target {
    /// Begins the file `path`, which must not be there; it is for its owner's eyes only.
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
            // One that an earlier process of this number left behind.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&draft).and_then(|()| options.open(&draft))
            }
            opened => opened,
        };
        let file = File::from_std(file.map_err(of(path))?);
        Ok(Self { path: path.to_owned(), draft: Draft(draft), file })
    }

    /// The file's name for now.
    pub(super) fn draft(&self) -> &Path {
        &self.draft.0
    }

    /// Brings what was written to the disk.
    pub(super) async fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_all().await.map_err(of(&self.path))
    }

    /// Gives it its name, for good. What has come to be there meanwhile is not overwritten.
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

/// An error of the file `path`.
pub(super) fn of(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}
