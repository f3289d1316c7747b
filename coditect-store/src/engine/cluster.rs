//! Opening a cluster, with or without the feature `fdb`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::Options;

/// Options of the engine on a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// Prefix of all keys, so that others may share the cluster; empty by default. It counts
    /// towards the size of keys, and does not begin with `0xff`.
    pub prefix: Vec<u8>,
    /// Timeout of a read or a commit; 10 s by default.
    pub timeout: Duration,
    /// Whether the [source](std::error::Error::source) of a conflict names the conflicting keys.
    /// Costs the cluster some work for every conflict. Disabled by default.
    pub report_conflicts: bool,
    /// Folder of the trace files of FoundationDB's client, with every transaction's reads and
    /// writes (keys and values included): for diagnosis. The first database that a process opens
    /// decides. None by default.
    pub trace_folder: Option<PathBuf>,
}

impl ClusterOptions {
    /// Sets `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: Vec<u8>) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets `report_conflicts`.
    #[must_use]
    pub fn report_conflicts(mut self, report_conflicts: bool) -> Self {
        self.report_conflicts = report_conflicts;
        self
    }

    /// Sets `trace_folder`.
    #[must_use]
    pub fn trace_folder(mut self, trace_folder: Option<PathBuf>) -> Self {
        self.trace_folder = trace_folder;
        self
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            prefix: Vec::new(),
            timeout: Duration::from_secs(10),
            report_conflicts: false,
            trace_folder: None,
        }
    }
}

/// The environment variable with the cluster file for tests and examples.
pub const CLUSTER_FILE_VARIABLE: &str = "CODITECT_CLUSTER_FILE";

/// The same variable under its former name, so that scripts do not test the embedded engine
/// unnoticed.
const FORMER_VARIABLE: &str = "CODITECT_FDB_CLUSTER_FILE";

/// Returns the cluster file that `CODITECT_CLUSTER_FILE`, or else `CODITECT_FDB_CLUSTER_FILE`,
/// names.
pub fn cluster_file() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|file| !file.is_empty());
    of(CLUSTER_FILE_VARIABLE).or_else(|| of(FORMER_VARIABLE)).map(PathBuf::from)
}

impl super::Database {
    /// Opens the cluster of the file `cluster_file` (manual: "Cluster file"). It connects when it
    /// is used, and reconnects as long as the cluster is unreachable.
    ///
    /// FoundationDB's client library is started in this process with the first cluster, and stopped
    /// when the process exits.
    ///
    /// # Errors
    ///
    /// Returns `Invalid` if the file cannot be read; `Unavailable` if this program was built
    /// without the feature `fdb`, or finds a library that is too old. An unreachable cluster is
    /// reported by its operations.
    pub fn cluster(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        Self::cluster_with(cluster_file, &ClusterOptions::default())
    }

    /// Opens it as [`cluster`](Self::cluster) does, with options.
    #[cfg(feature = "fdb")]
    pub fn cluster_with(
        cluster_file: impl AsRef<Path>,
        options: &ClusterOptions,
    ) -> crate::Result<Self> {
        let cluster = super::foundationdb::Cluster::open(cluster_file.as_ref(), options)?;
        Ok(Self::of(super::Engine::Cluster(cluster)))
    }

    /// Opens it as [`cluster`](Self::cluster) does, with options.
    #[cfg(not(feature = "fdb"))]
    pub fn cluster_with(_: impl AsRef<Path>, _: &ClusterOptions) -> crate::Result<Self> {
        Err(crate::Error::new(
            crate::ErrorKind::Unavailable,
            "this program was built without FoundationDB: build it with `--features fdb`",
        ))
    }

    /// Opens an empty database that is dropped with its last handle, for tests and examples: in
    /// memory, or, if `CODITECT_CLUSTER_FILE` names a cluster file, under a unique prefix in that
    /// cluster.
    ///
    /// # Errors
    ///
    /// Fails as [`memory`](Self::memory) or [`cluster`](Self::cluster) do.
    pub fn temporary() -> crate::Result<Self> {
        Self::temporary_with(&Options::default())
    }

    /// Opens it as [`temporary`](Self::temporary) does, with options for the one in memory.
    ///
    /// # Errors
    ///
    /// Fails as [`temporary`](Self::temporary) does.
    pub fn temporary_with(options: &Options) -> crate::Result<Self> {
        match cluster_file() {
            Some(file) => Self::temporary_in(file),
            None => Self::memory_with(options),
        }
    }

    /// Opens it as [`temporary`](Self::temporary) does, in the cluster of the file `cluster_file`.
    ///
    /// # Errors
    ///
    /// Fails as [`cluster`](Self::cluster) does.
    #[cfg(feature = "fdb")]
    pub fn temporary_in(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        let cluster = super::foundationdb::Cluster::temporary(cluster_file.as_ref())?;
        Ok(Self::of(super::Engine::Cluster(cluster)))
    }

    /// Opens it as [`temporary`](Self::temporary) does, in the cluster of the file `cluster_file`.
    ///
    /// # Errors
    ///
    /// Fails as [`cluster`](Self::cluster) does.
    #[cfg(not(feature = "fdb"))]
    pub fn temporary_in(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        Self::cluster(cluster_file)
    }
}
