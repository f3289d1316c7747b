//! Replays recorded programs of a real FoundationDB: see `--help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

mod recording;

use std::{path::PathBuf, process::ExitCode};

use coditect_store::{
    Error, Result,
    engine::{Database, Options, RangeQuery, Transaction},
};
use serde_json::Value;

const HELP: &str = "\
Replays recorded programs of a real FoundationDB on the embedded engine or on a cluster, and prints
the number of programs that agree, with the first disagreement in full.

usage: replay [--cluster-file FILE] PROGRAMS…

  PROGRAMS             files of programs, one per line: .jsonl or .jsonl.gz
  --cluster-file FILE  run them on this cluster, each under a prefix of its own, which is cleared
                       afterwards. Programs that count keys or test limits need an empty cluster,
                       and are skipped on others; so are programs that depend on a cluster's age, on
                       one that is some days old

Exit codes: 0 if all programs that ran agree, 1 if one does not, 2 if an input cannot be read.";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut cluster_file, mut files) = (None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            "--cluster-file" => cluster_file = arguments.next().map(PathBuf::from),
            _ => files.push(argument),
        }
    }
    if files.is_empty() {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    }
    match replay(cluster_file, &files).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all programs agree.
async fn replay(
    cluster_file: Option<PathBuf>,
    files: &[String],
) -> Result<bool, Box<dyn std::error::Error>> {
    let cluster = match cluster_file {
        Some(file) => Some(Cluster::open(file).await?),
        None => None,
    };
    let mut all_agree = true;
    for file in files {
        let programs =
            recording::load(file.as_ref()).map_err(|error| format!("{file}: {error}"))?;
        let report = recording::replay_all(&programs, async |program: &Value| match &cluster {
            Some(cluster) => cluster.database(program).await,
            None => recording::young_database(Options::default().memtable_bytes).map(Some),
        });
        let report = report.await;
        let run = programs.len() - report.skipped;
        println!("{file}: {} of {run} programs agree", report.agree);
        if report.skipped > 0 {
            println!("{file}: {} skipped: they need an empty, young cluster", report.skipped);
        }
        for disagreement in &report.disagreements {
            println!("{disagreement}");
        }
        all_agree &= report.agree == run;
    }
    if let Some(cluster) = cluster {
        cluster.empty().await?;
    }
    Ok(all_agree)
}

/// A cluster to run programs on.
struct Cluster {
    file: PathBuf,
    whole: Database,
    /// Whether it was empty: then all of its keys belong to this run.
    was_empty: bool,
}

impl Cluster {
    async fn open(file: PathBuf) -> Result<Self> {
        let whole = Database::cluster(&file)?;
        let was_empty = whole.run(|tx| async move { is_empty(&tx).await }).await?;
        Ok(Self { file, whole, was_empty })
    }

    async fn database(&self, program: &Value) -> Result<Option<Database>> {
        self.empty().await?;
        let whole = self.was_empty.then_some(&self.whole);
        recording::database_in(&self.file, whole, program).await
    }

    async fn empty(&self) -> Result<()> {
        let clear = |tx: Transaction| async move {
            if !is_empty(&tx).await? {
                tx.clear_range(b"", b"\xff");
            }
            Ok(())
        };
        if self.was_empty { self.whole.run(clear).await } else { Ok(()) }
    }
}

async fn is_empty(tx: &Transaction) -> Result<bool, Error> {
    let all = RangeQuery::new(b"", b"\xff").limit(1);
    Ok(tx.snapshot().get_range(&all).await?.rows.is_empty())
}
