//! Location of the store: a directory, or a FoundationDB cluster.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use coditect_auth::KeyError;
use coditect_store::engine::{ClusterOptions, Database, Options};

/// File with the master key in the data directory, created after the store at the first start.
pub(crate) const MASTER_KEY_FILE: &str = "master.key";

/// Location of the store, as given by the settings.
#[derive(Clone, Debug, Args)]
pub struct StoreLocation {
    /// Data directory of the embedded engine, created if it does not exist. Also holds the master
    /// key, unless `CODITECT_MASTER_KEY` is set.
    #[arg(long, env = "CODITECT_DATA", value_name = "FOLDER", default_value = "./coditect-data")]
    pub data: PathBuf,

    /// FoundationDB cluster file. The store is kept in that cluster instead of the data directory.
    #[arg(long, env = "CODITECT_CLUSTER_FILE", value_name = "FILE")]
    pub cluster_file: Option<PathBuf>,

    /// Prefix of all keys in the cluster, so that other applications can share it. Never change it
    /// for an existing store.
    #[arg(
        long,
        env = "CODITECT_CLUSTER_PREFIX",
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub cluster_prefix: String,

    /// Directory for FoundationDB client trace files, which contain every transaction with its keys
    /// and values. For debugging only.
    #[arg(long, env = "CODITECT_CLUSTER_TRACE", value_name = "FOLDER")]
    pub cluster_trace: Option<PathBuf>,
}

impl StoreLocation {
    /// Opens the database; creates the data directory if it does not exist. A cluster is contacted
    /// by the first operation, not here.
    pub(crate) fn database(&self, options: &Options) -> Result<Database, coditect_store::Error> {
        let Some(file) = &self.cluster_file else {
            return Database::open_with(&self.data, options);
        };
        let options = ClusterOptions::default()
            .prefix(self.cluster_prefix.clone().into_bytes())
            .report_conflicts(self.cluster_trace.is_some())
            .trace_folder(self.cluster_trace.clone());
        Database::cluster_with(file, &options)
    }

    /// Returns the data directory, or `None` for a cluster.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.cluster_file.is_none().then_some(&*self.data)
    }

    /// Returns whether a store may exist: `true` for every cluster, since only a read can tell.
    pub(crate) fn may_have_store(&self) -> Result<bool, coditect_store::Error> {
        self.folder().map_or(Ok(true), Database::exists)
    }

    /// Fails if the data directory has a master key without a store, whose files must have been
    /// lost: a new store in their place would have no data.
    pub(crate) fn refuse_missing_store(&self) -> Result<(), coditect_auth::Error> {
        let Some(folder) = self.folder() else { return Ok(()) };
        let key = folder.join(MASTER_KEY_FILE);
        let found = key.try_exists();
        let found =
            found.map_err(|source| KeyError::MasterKeyFile { path: key.clone(), source })?;
        if found && !Database::exists(folder)? {
            return Err(KeyError::StoreMissing { key }.into());
        }
        Ok(())
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster_file {
            Some(file) => write!(f, "the cluster that {} names", file.display()),
            None => self.data.display().fmt(f),
        }
    }
}
