//! Recorded programs of a real FoundationDB, replayed on the embedded engine, and on the cluster
//! named by `CODITECT_CLUSTER_FILE`, if any, as far as the programs can share it.
//!
//! The recordings are compressed data in `tests/fixtures/conformance`; the `replay` example runs
//! any others, including recordings that need a cluster of their own.

use std::path::Path;

use coditect_store::{
    Result,
    engine::{CLUSTER_FILE_VARIABLE, Database, Options, cluster_file},
};
use serde_json::Value;

#[path = "../../examples/replay/recording/mod.rs"]
mod recording;

#[expect(clippy::print_stdout, reason = "reports skipped recordings")]
async fn agrees(file: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance");
    let programs = recording::load(&fixtures.join(file)).unwrap();
    assert!(!programs.is_empty());
    for memtable_bytes in [Options::default().memtable_bytes, 1] {
        let young = async |_: &Value| recording::young_database(memtable_bytes).map(Some);
        check(file, &programs, young).await;
    }
    if let Some(cluster) = cluster_file() {
        let shared = async |program: &Value| recording::database_in(&cluster, None, program).await;
        check(file, &programs, shared).await;
    } else {
        println!("skipped on a cluster: {CLUSTER_FILE_VARIABLE} is not set");
    }
}

async fn check(
    file: &str,
    programs: &[Value],
    database: impl AsyncFn(&Value) -> Result<Option<Database>>,
) {
    let report = recording::replay_all(programs, database).await;
    let first = report.disagreements.first().map_or("", String::as_str);
    assert_eq!(
        report.agree + report.skipped,
        programs.len(),
        "programs of {file} that agree; the first that does not, {first}"
    );
}

#[tokio::test]
async fn interleaved_transactions_answer_as_a_real_cluster_did() {
    agrees("core.jsonl.gz").await;
}

#[tokio::test]
async fn key_selectors_answer_as_a_real_cluster_did() {
    agrees("selectors.jsonl.gz").await;
    agrees("selectors-2.jsonl.gz").await;
}

#[tokio::test]
async fn limits_and_single_cases_answer_as_a_real_cluster_did() {
    agrees("limits.jsonl.gz").await;
}
