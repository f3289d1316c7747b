//! How a cluster is reached, whether or not this program can.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::Options;

/// Options of the engine on a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// What all keys begin with, so that others may use the same cluster; nothing by default. It counts
    /// towards the size of keys, and does not begin with `0xff`.
    pub prefix: Vec<u8>,
    /// How long one read or one commit waits for the cluster; 10 s by default.
    pub patience: Duration,
    /// Names the keys that a conflict was about, in the [source](std::error::Error::source) of its error.
    /// Costs the cluster some work with every conflict. Not so by default.
    pub report_conflicts: bool,
    /// A folder in which FoundationDB's library writes down what it does, each transaction with all of
    /// its reads and writes (keys and values too): for finding faults, not for every day. The first
    /// database that a process opens decides. None by default.
    pub trace_folder: Option<PathBuf>,
}

impl ClusterOptions {
    /// Sets `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: Vec<u8>) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets `patience`.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
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
            patience: Duration::from_secs(10),
            report_conflicts: false,
            trace_folder: None,
        }
    }
}

/// The environment variable that names a cluster file, for tests and examples.
pub const CLUSTER_FILE_VARIABLE: &str = "CODITECT_FDB_CLUSTER_FILE";

/// The cluster file that `CODITECT_FDB_CLUSTER_FILE` names, if it names one.
pub fn cluster_file() -> Option<PathBuf> {
    std::env::var_os(CLUSTER_FILE_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from)
}

impl super::Database {
    /// Opens the cluster that the file `cluster_file` names (manual: "Cluster file"). It is reached when
    /// something is asked of it, and looked for again each time while it is not there.
    ///
    /// FoundationDB's library is started in this process with the first one, and stopped when the process
    /// exits.
    ///
    /// # Errors
    ///
    /// `Invalid` if the file cannot be read; `Unavailable` if this program was built without the feature `fdb`,
    /// or finds a library that is too old. That what it names is no cluster may show only when something is
    /// asked of it.
    pub fn cluster(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        Self::cluster_with(cluster_file, &ClusterOptions::default())
    }

    /// As [`cluster`](Self::cluster), with options.
    #[cfg(feature = "fdb")]
    pub fn cluster_with(
        cluster_file: impl AsRef<Path>,
        options: &ClusterOptions,
    ) -> crate::Result<Self> {
        let cluster = super::foundationdb::Cluster::open(cluster_file.as_ref(), options)?;
        Ok(Self::of(super::Engine::Cluster(cluster)))
    }

    /// As [`cluster`](Self::cluster), with options.
    #[cfg(not(feature = "fdb"))]
    pub fn cluster_with(_: impl AsRef<Path>, _: &ClusterOptions) -> crate::Result<Self> {
        Err(crate::Error::new(
            crate::ErrorKind::Unavailable,
            "this program was built without FoundationDB: build it with `--features fdb`",
        ))
    }

    /// An empty database that is gone with its last handle, for tests and examples: in memory, or, where
    /// the variable `CODITECT_FDB_CLUSTER_FILE` names a cluster file, under a prefix of its own in that
    /// cluster.
    ///
    /// # Errors
    ///
    /// As [`memory`](Self::memory), or [`cluster`](Self::cluster).
    pub fn scratch() -> crate::Result<Self> {
        Self::scratch_with(&Options::default())
    }

    /// As [`scratch`](Self::scratch), with options for the one in memory.
    ///
    /// # Errors
    ///
    /// As [`scratch`](Self::scratch).
    pub fn scratch_with(options: &Options) -> crate::Result<Self> {
        match cluster_file() {
            Some(file) => Self::scratch_in(file),
            None => Self::memory_with(options),
        }
    }

    /// As [`scratch`](Self::scratch), in the cluster that the file `cluster_file` names.
    ///
    /// # Errors
    ///
    /// As [`cluster`](Self::cluster).
    #[cfg(feature = "fdb")]
    pub fn scratch_in(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        let cluster = super::foundationdb::Cluster::scratch(cluster_file.as_ref())?;
        Ok(Self::of(super::Engine::Cluster(cluster)))
    }

    /// As [`scratch`](Self::scratch), in the cluster that the file `cluster_file` names.
    ///
    /// # Errors
    ///
    /// As [`cluster`](Self::cluster).
    #[cfg(not(feature = "fdb"))]
    pub fn scratch_in(cluster_file: impl AsRef<Path>) -> crate::Result<Self> {
        Self::cluster(cluster_file)
    }
}
