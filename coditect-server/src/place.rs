//! Where the store is: in a folder, or in a cluster.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use coditect_store::{
    Result,
    engine::{ClusterOptions, Database, Options},
};

/// Where the store is, as settings say it.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Folder that the embedded engine keeps its data in, made if it isn't there; the master key too, if
    /// that isn't a variable.
    #[arg(long, env = "CODITECT_DATA", value_name = "FOLDER", default_value = "./coditect-data")]
    pub data: PathBuf,

    /// Keep the store in the FoundationDB cluster that this file names, and not in the folder.
    #[arg(long, env = "CODITECT_FDB_CLUSTER_FILE", value_name = "FILE")]
    pub cluster_file: Option<PathBuf>,

    /// What the store's keys in the cluster begin with, so that others may use it too.
    #[arg(
        long,
        env = "CODITECT_CLUSTER_PREFIX",
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub cluster_prefix: String,

    /// Folder for what FoundationDB's library has to tell, every transaction with what it read and wrote:
    /// for finding faults.
    #[arg(long, env = "CODITECT_CLUSTER_TRACE", value_name = "FOLDER")]
    pub cluster_trace: Option<PathBuf>,
}

impl Place {
    /// Opens the database there, and makes it if it is to be a folder's and isn't there. A cluster is
    /// reached when something is asked of it.
    pub(crate) fn database(&self, options: &Options) -> Result<Database> {
        let Some(file) = &self.cluster_file else {
            return Database::open_with(&self.data, options);
        };
        let options = ClusterOptions::default()
            .prefix(self.cluster_prefix.clone().into_bytes())
            .report_conflicts(self.cluster_trace.is_some())
            .trace_folder(self.cluster_trace.clone());
        Database::cluster_with(file, &options)
    }

    /// The folder of its data; none if that is in a cluster.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.cluster_file.is_none().then_some(&*self.data)
    }

    /// Whether there may be a store: no file says so of a cluster.
    pub(crate) fn may_have_store(&self) -> Result<bool> {
        self.folder().map_or(Ok(true), Database::is_in)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster_file {
            Some(file) => write!(f, "the cluster that {} names", file.display()),
            None => self.data.display().fmt(f),
        }
    }
}
