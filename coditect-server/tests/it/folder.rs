//! Data of a test server: a temporary directory, and a key prefix that belongs to it if the
//! variable `CODITECT_CLUSTER_FILE` names a cluster. Both are removed on drop.

use std::{path::Path, thread};

use coditect_store::engine::{ClusterOptions, Database, cluster_file};
use tempfile::TempDir;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Returns the key prefix of `folder` in the cluster.
pub(crate) fn prefix_of(folder: &Path) -> String {
    format!("coditect-test/{}/", folder.display())
}

/// Opens the database of the servers of `folder`, while none runs or on a cluster.
pub(crate) fn database(folder: &Path) -> Database {
    let Some(file) = cluster_file() else { return Database::open(folder).unwrap() };
    let prefix = prefix_of(folder).into_bytes();
    Database::cluster_with(file, &ClusterOptions::default().prefix(prefix)).unwrap()
}

/// Returns whether servers keep their data in a cluster.
pub(crate) fn is_on_cluster() -> bool {
    cluster_file().is_some()
}

/// Returns whether to skip a test about the content of the data directory, which is empty with a
/// cluster.
pub(crate) fn is_about_the_folder() -> bool {
    if is_on_cluster() {
        say_skipped("it is about the data folder, and the data are in a cluster");
    }
    is_on_cluster()
}

/// Reports a skipped test with the reason.
#[expect(clippy::print_stdout, reason = "reports skipped tests")]
pub(crate) fn say_skipped(why: &str) {
    println!("skipped: {why}");
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !is_on_cluster() {
            return;
        }
        let folder = self.path().to_owned();
        let emptied = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(database(&folder).run(|tx| async move {
                tx.clear_range(b"", b"\xff");
                Ok::<_, coditect_store::Error>(())
            }))
        });
        if let Err(error) = emptied.join().unwrap() {
            assert!(thread::panicking(), "a test's keys are still there: {error}");
        }
    }
}
