//! The engine's conformance suite on each engine, in each mode; and that its documentation is
//! complete.

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

/// Each commit is checkpointed while the next is made.
fn moving() -> Database {
    Database::memory_with(&Options::default().memtable_bytes(1)).unwrap()
}

/// Each read and commit may fail, and concurrent reads overlap, as on a cluster.
fn waiting() -> Database {
    let waiting = Options::default().simulate_round_trips(true);
    Database::memory_with(&waiting).unwrap().with_faults(Faults::default())
}

/// A prefix of the cluster.
fn cluster() -> Subject {
    match cluster_file() {
        Some(file) => Database::temporary_in(file).unwrap().into(),
        None => Subject::skipped(format!("{CLUSTER_FILE_VARIABLE} names no cluster")),
    }
}

conformance_suite!(in_memory, memory);
// With several threads, an idle writer lets callers commit inline.
conformance_suite!(in_a_folder, folder, flavor = "multi_thread", worker_threads = 2);
conformance_suite!(moving_each_commit, moving, flavor = "multi_thread", worker_threads = 2);
conformance_suite!(behind_faults, waiting);
conformance_suite!(on_a_cluster, cluster);

#[test]
fn the_suites_documentation_names_each_case() {
    let text = include_str!("../../src/conformance/mod.rs");
    let rows = text.lines().filter(|line| line.starts_with("//! | "));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let named: BTreeSet<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let there: BTreeSet<_> = CASES.iter().copied().collect();
    assert_eq!(named, there);
    assert_eq!(CASES.len(), there.len(), "no name is there twice");
}
