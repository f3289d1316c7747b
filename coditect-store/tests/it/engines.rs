//! The conformance suite on each engine and in each mode, and a check of its documentation.

use std::collections::BTreeSet;

use coditect_store::{
    conformance::{CASES, Subject},
    conformance_suite,
    engine::{CLUSTER_FILE_VARIABLE, Database, Faults, Options, cluster_file},
};

fn memory() -> Database {
    Database::memory().unwrap()
}

fn folder() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    Subject::keeping(Database::open(folder.path()).unwrap(), folder)
}

/// Returns a database that checkpoints each commit during the next one.
fn checkpointing() -> Database {
    Database::memory_with(&Options::default().memtable_bytes(1)).unwrap()
}

/// Returns a database whose reads overlap and may fail, as on a cluster.
fn faulty() -> Database {
    let options = Options::default().simulate_round_trips(true);
    Database::memory_with(&options).unwrap().with_faults(Faults::default())
}

/// Returns an empty prefix of the cluster, if there is one.
fn cluster() -> Subject {
    match cluster_file() {
        Some(file) => Database::temporary_in(file).unwrap().into(),
        None => Subject::skipped(format!("{CLUSTER_FILE_VARIABLE} names no cluster")),
    }
}

conformance_suite!(in_memory, memory);
// With several threads, an idle writer lets callers commit inline.
conformance_suite!(in_a_folder, folder, flavor = "multi_thread", worker_threads = 2);
conformance_suite!(
    checkpointing_each_commit,
    checkpointing,
    flavor = "multi_thread",
    worker_threads = 2
);
conformance_suite!(behind_faults, faulty);
conformance_suite!(on_a_cluster, cluster);

#[test]
fn documentation_lists_every_case() {
    let text = include_str!("../../src/conformance/mod.rs");
    let rows = text.lines().filter(|line| line.starts_with("//! | "));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let named: BTreeSet<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let cases: BTreeSet<_> = CASES.iter().copied().collect();
    assert_eq!(named, cases);
    assert_eq!(CASES.len(), cases.len(), "duplicate names");
}
