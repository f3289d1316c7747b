//! What a real FoundationDB answered, the embedded engine answers too: every recorded program.
//!
//! The recordings are data, kept compressed in `tests/fixtures/conformance`; the `replay` example
//! runs any others.

use std::path::Path;

#[path = "../../examples/replay/recording/mod.rs"]
mod recording;

async fn agrees(file: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance");
    let programs = recording::load(&fixtures.join(file)).unwrap();
    assert!(!programs.is_empty());
    let report = recording::replay_all(&programs, recording::young_database).await;
    let told = report.first_disagreement.unwrap_or_default();
    assert_eq!(
        report.agree,
        programs.len(),
        "programs of {file} that agree; the first that does not, {told}"
    );
}

#[tokio::test]
async fn interleaved_transactions_answer_as_a_real_cluster_did() {
    agrees("core.jsonl.gz").await;
}

#[tokio::test]
async fn key_selectors_answer_as_a_real_cluster_did() {
    agrees("selectors.jsonl.gz").await;
}

#[tokio::test]
async fn limits_and_single_cases_answer_as_a_real_cluster_did() {
    agrees("limits.jsonl.gz").await;
}
