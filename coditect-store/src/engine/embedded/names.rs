//! Durable names: creating, renaming and syncing folders on file systems of all kinds.
//!
//! The name of a file is durable once its folder is synced, that of a folder once its parent is.
//! Files are renamed atomically and without replacing another file: by renameat2(2) with
//! `RENAME_NOREPLACE` on Linux, else by a hard link. exFAT and some network and FUSE file systems
//! lack one of the two. A file system that lacks both, or cannot sync folders, is refused, since a
//! power loss could lose commits there.

use std::{
    fs,
    io::{self, ErrorKind as Io},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// The system calls on names. Tests replace them by failing ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// Ways to rename a file unless its new name is taken, the preferred one first.
    pub(super) renames: &'static [fn(&Path, &Path) -> io::Result<()>],
    /// Makes the names in a folder durable.
    pub(super) sync: fn(&Path) -> io::Result<()>,
    /// Makes everything on the file system of a file or folder durable.
    pub(super) sync_all: fn(&Path) -> io::Result<()>,
}

/// The real system calls.
pub(crate) const SYSTEM: Calls = Calls {
    renames: &[
        #[cfg(target_os = "linux")]
        rename_noreplace,
        link_and_unlink,
    ],
    sync: |folder| fs::File::open(folder)?.sync_all(),
    sync_all: sync_file_system,
};

impl Calls {
    /// Creates the folder at `path` with its missing ancestors, makes their names durable, and
    /// returns its absolute path, which neither a change of the working directory nor of a symbolic
    /// link affects.
    pub(super) fn create_folder(&self, path: &Path) -> io::Result<PathBuf> {
        let path = std::path::absolute(path)?;
        let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let path = fs::canonicalize(path)?;
        // A crash may have come between creating a folder and syncing its parent, so the parent of
        // an existing folder is synced, too.
        for (folder, parent) in path.ancestors().zip(path.ancestors().skip(1)).take(missing.max(1))
        {
            // A mount point's name is on another file system.
            if fs::metadata(folder)?.dev() == fs::metadata(parent)?.dev() {
                self.sync_parent(parent, &path)?;
            }
        }
        Ok(path)
    }

    /// Syncs `parent`, or, if it is not readable, the file system that it and its `child` are on.
    pub(crate) fn sync_parent(&self, parent: &Path, child: &Path) -> io::Result<()> {
        match self.sync_folder(parent) {
            Err(error) if error.kind() == Io::PermissionDenied => (self.sync_all)(child),
            outcome => outcome,
        }
    }

    /// Makes the names in `folder` durable. Fails with `Unsupported` if its file system cannot.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        (self.sync)(folder).map_err(|error| {
            if !is_unsupported(&error) {
                return error;
            }
            let folder = folder.display();
            let message = format!(
                "the file system of {folder} cannot sync folders ({error}), so a power loss could \
                 lose files: use a local file system such as ext4, xfs, btrfs or ZFS"
            );
            io::Error::new(Io::Unsupported, message)
        })
    }

    /// Renames the file `from` to `to`; fails with `AlreadyExists` if there is a file of that name,
    /// and with `Unsupported` if the file system has no way to do both in one step.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut refused = None;
        for rename in self.renames {
            match rename(from, to) {
                Err(error) if is_unsupported(&error) => refused = Some(error),
                outcome => return outcome,
            }
        }
        let refused = refused.map_or_else(String::new, |error| format!(" ({error})"));
        let message = format!(
            "the file system of {} has neither RENAME_NOREPLACE nor hard links{refused}: use a \
             local file system such as ext4, xfs, btrfs or ZFS",
            to.display()
        );
        Err(io::Error::new(Io::Unsupported, message))
    }
}

/// Operation not permitted: the answer of FAT and exFAT to a hard link.
const EPERM: i32 = 1;

/// Returns whether `error` is about the kind of the file system, rather than the files.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), Io::Unsupported | Io::InvalidInput | Io::TooManyLinks)
        || error.raw_os_error() == Some(EPERM)
}

#[cfg(target_os = "linux")]
fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(Into::into)
}

fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    rustix::fs::syncfs(fs::File::open(folder)?).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    let message =
        format!("the parent of {} is not readable, and cannot be synced", folder.display());
    Err(io::Error::new(Io::PermissionDenied, message))
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command, sync::Arc};

    use super::{
        super::{
            Embedded, Options,
            vfs::{Directory, Vfs as _},
        },
        *,
    };
    use crate::{
        Error, ErrorKind,
        engine::{Database, Engine},
    };

    /// The error numbers of Linux by which file systems refuse: EPERM, EINVAL, EMLINK, ENOSYS,
    /// EOPNOTSUPP.
    #[cfg(target_os = "linux")]
    const REFUSALS: [i32; 5] = [1, 22, 31, 38, 95];

    fn refused(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(EPERM))
    }

    const SECOND_WAY: &[fn(&Path, &Path) -> io::Result<()>] = &[refused, link_and_unlink];

    fn cannot_sync(_: &Path) -> io::Result<()> {
        Err(Io::InvalidInput.into())
    }

    fn folder_with(calls: Calls) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Directory::make_with(folder.path(), calls).unwrap();
        (folder, disk)
    }

    fn open(disk: Directory) -> Result<Database, Error> {
        let engine = Embedded::start("embedded", Arc::new(disk), &Options::default())?;
        Ok(Database::of(Engine::Embedded(engine)))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn refusals_of_file_systems_are_recognized() {
        for code in REFUSALS {
            assert!(is_unsupported(&io::Error::from_raw_os_error(code)), "{code}");
        }
        // EACCES, EEXIST, ENOSPC, EIO.
        for code in [13, 17, 28, 5] {
            assert!(!is_unsupported(&io::Error::from_raw_os_error(code)), "{code}");
        }
    }

    #[test]
    fn each_way_renames_and_never_replaces() {
        let each = SYSTEM.renames.iter().map(std::slice::from_ref);
        for renames in each.chain([SYSTEM.renames, SECOND_WAY]) {
            let (folder, disk) = folder_with(Calls { renames, ..SYSTEM });
            disk.create("draft").unwrap().write(0, b"1").unwrap();
            disk.publish("draft", "file").unwrap();
            disk.create("draft").unwrap().write(0, b"2").unwrap();
            let error = disk.publish("draft", "file").unwrap_err();
            assert_eq!(error.kind(), Io::AlreadyExists);
            assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"1");
            assert_eq!(fs::read(folder.path().join("draft")).unwrap(), b"2");
        }
    }

    #[test]
    fn failure_other_than_a_refusal_is_returned_at_once() {
        fn denied(_: &Path, _: &Path) -> io::Result<()> {
            Err(Io::StorageFull.into())
        }
        let (_folder, disk) = folder_with(Calls { renames: &[denied, link_and_unlink], ..SYSTEM });
        disk.create("draft").unwrap();
        assert_eq!(disk.publish("draft", "file").unwrap_err().kind(), Io::StorageFull);
        assert_eq!(disk.names().unwrap(), ["draft"]);
    }

    #[tokio::test]
    async fn store_works_where_only_one_way_to_rename_does() {
        for renames in [SECOND_WAY, &SYSTEM.renames[..1]] {
            let (folder, disk) = folder_with(Calls { renames, ..SYSTEM });
            let database = open(disk).unwrap();
            let tx = database.begin();
            tx.set(b"a", b"1");
            tx.commit().await.unwrap();
            database.close().await;
            let database = Database::open(folder.path()).unwrap();
            assert_eq!(database.begin().get(b"a").await.unwrap(), Some(b"1".to_vec()));
        }
    }

    fn refusal(error: &Error) -> String {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        std::error::Error::source(error).unwrap().to_string()
    }

    #[test]
    fn store_is_refused_where_nothing_renames_in_one_step() {
        let (folder, disk) = folder_with(Calls { renames: &[refused, refused], ..SYSTEM });
        let message = refusal(&open(disk).unwrap_err());
        assert!(message.contains("neither RENAME_NOREPLACE nor hard links"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn store_is_refused_where_folders_cannot_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        let calls = Calls { sync: cannot_sync, ..SYSTEM };
        let error = Directory::make_with(&folder.path().join("new"), calls).unwrap_err();
        assert_eq!(error.kind(), Io::Unsupported);
        assert!(error.to_string().contains("cannot sync folders"), "{error}");
        // A store that was created without the check is refused, too.
        let (_folder, mut disk) = folder_with(SYSTEM);
        disk.set_calls(calls);
        let message = refusal(&open(disk).unwrap_err());
        assert!(message.contains("cannot sync folders"), "{message}");
    }

    #[test]
    fn every_new_folder_is_synced_into_its_parent() {
        use std::cell::RefCell;
        thread_local! {
            static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
        }
        #[expect(clippy::unnecessary_wraps, reason = "it stands in for a system call")]
        fn note(folder: &Path) -> io::Result<()> {
            SYNCED.with_borrow_mut(|synced| synced.push(folder.to_owned()));
            Ok(())
        }
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let calls = Calls { sync: note, ..SYSTEM };
        let path = calls.create_folder(&root.join("a/b/c")).unwrap();
        assert_eq!(path, root.join("a/b/c"));
        assert_eq!(SYNCED.take(), [root.join("a/b"), root.join("a"), root.clone()]);
        calls.create_folder(&path).unwrap();
        assert_eq!(SYNCED.take(), [root.join("a/b")]);
    }

    #[test]
    fn unreadable_parent_has_its_file_system_synced() {
        fn denied(_: &Path) -> io::Result<()> {
            Err(Io::PermissionDenied.into())
        }
        fn failed(_: &Path) -> io::Result<()> {
            Err(io::Error::other("synced"))
        }
        let folder = tempfile::tempdir().unwrap();
        Calls { sync: denied, ..SYSTEM }.create_folder(&folder.path().join("a")).unwrap();
        let calls = Calls { sync: denied, sync_all: failed, ..SYSTEM };
        let error = calls.create_folder(&folder.path().join("b")).unwrap_err();
        assert_eq!(error.to_string(), "synced");
    }

    /// Runs as another user if this one is root, since file modes do not restrict root.
    #[cfg(target_os = "linux")]
    #[test]
    fn store_opens_below_a_parent_that_is_not_readable() {
        use std::os::unix::fs::{PermissionsExt as _, chown};

        use rustix::{process::Uid, thread::set_thread_res_uid};

        const NOBODY: u32 = 65_534;
        let root = tempfile::tempdir().unwrap();
        let mode = |folder: &Path, mode| {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        };
        let is_root = fs::metadata(root.path()).unwrap().uid() == 0;
        mode(root.path(), 0o711);
        // An existing folder below an unreadable parent, and a new one below its own parent.
        let parents = ["existing", "own"].map(|name| root.path().join(name));
        for parent in &parents {
            fs::create_dir(parent).unwrap();
        }
        let folders = parents.each_ref().map(|parent| parent.join("data"));
        fs::create_dir(&folders[0]).unwrap();
        if is_root {
            for folder in [&folders[0], &parents[1]] {
                chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        mode(&parents[0], if is_root { 0o711 } else { 0o311 });
        mode(&parents[1], 0o311);
        let opening = folders.clone();
        let opened = std::thread::spawn(move || {
            if is_root {
                let nobody = Uid::from_raw(NOBODY);
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            for folder in opening {
                let parent = folder.parent().unwrap();
                assert_eq!(fs::read_dir(parent).unwrap_err().kind(), Io::PermissionDenied);
                drop(Database::open(&folder).unwrap());
            }
        });
        let outcome = opened.join();
        for parent in &parents {
            mode(parent, 0o700);
        }
        outcome.unwrap();
        assert!(folders.iter().all(|folder| folder.join("store.redb").exists()));
    }

    const CHILD: &str = "CODITECT_TEST_WORKING_DIRECTORY";

    /// Runs in a child process, since the working directory belongs to the process.
    #[test]
    fn relative_path_is_resolved_once() {
        let folder = tempfile::tempdir().unwrap();
        let name = "engine::embedded::names::tests::child_changes_its_working_directory";
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--include-ignored", "--nocapture"])
            .env(CHILD, "1")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && stdout.contains("1 passed"), "{child:?}");
        assert!(folder.path().join("data/store.redb").exists());
        assert_eq!(fs::read_dir(folder.path().join("elsewhere")).unwrap().count(), 0);
    }

    #[tokio::test]
    #[ignore = "run by relative_path_is_resolved_once in a process of its own"]
    async fn child_changes_its_working_directory() {
        assert!(env::var_os(CHILD).is_some(), "it changes the working directory of all tests");
        let database = Database::open("data").unwrap();
        fs::create_dir("elsewhere").unwrap();
        env::set_current_dir("elsewhere").unwrap();
        // More than a segment, so that files are created.
        for n in 0..30_u8 {
            let tx = database.begin();
            tx.set(&[n], &vec![n; 90_000]);
            tx.commit().await.unwrap();
        }
        database.close().await;
        drop(database);
        let database = Database::open("../data").unwrap();
        for n in 0..30_u8 {
            assert!(database.begin().get(&[n]).await.unwrap().is_some());
        }
    }
}
