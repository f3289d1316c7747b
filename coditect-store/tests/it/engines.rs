//! The engine's conformance suite on each engine, in each mode; and that its documentation has all of it.

use std::collections::BTreeSet;

use coditect_store::{
    conformance_suite,
    engine::{
        CLUSTER_FILE_VARIABLE, Database, Faults, Options, cluster_file,
        conformance::{CASES, Subject},
    },
};

fn memory() -> Database {
    Database::memory().unwrap()
}

fn folder() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    Subject::keeping(Database::open(folder.path()).unwrap(), folder)
}

/// Each commit is on its way into the B-tree while the next is done.
fn moving() -> Database {
    Database::memory_with(&Options::default().memtable_bytes(1)).unwrap()
}

/// Each read and each commit may fail, and reads that run together overlap, as on a cluster.
fn waiting() -> Database {
    let waiting = Options::default().simulate_round_trips(true);
    Database::memory_with(&waiting).unwrap().with_faults(Faults::default())
}

/// A part of the cluster, under a prefix.
fn cluster() -> Subject {
    match cluster_file() {
        Some(file) => Database::temporary_in(file).unwrap().into(),
        None => Subject::skipped(format!("{CLUSTER_FILE_VARIABLE} names no cluster")),
    }
}

conformance_suite!(in_memory, memory);
// Where a runtime has several threads, whoever is alone commits on their own.
conformance_suite!(in_a_folder, folder, flavor = "multi_thread", worker_threads = 2);
conformance_suite!(moving_each_commit, moving, flavor = "multi_thread", worker_threads = 2);
conformance_suite!(behind_faults, waiting);
conformance_suite!(on_a_cluster, cluster);

#[test]
fn the_suites_documentation_names_each_case() {
    let text = include_str!("../../src/engine/conformance/mod.rs");
    let rows = text.lines().filter(|line| line.starts_with("//! | "));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let named: BTreeSet<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let there: BTreeSet<_> = CASES.iter().copied().collect();
    assert_eq!(named, there);
    assert_eq!(CASES.len(), there.len(), "no name is there twice");
}
