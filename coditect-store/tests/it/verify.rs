//! Faults of an index are found, named and repaired.

use coditect_store::{
    ErrorKind, Store,
    keyspace::KeyPart,
    records::{Fault, Report},
};

use crate::{
    builds::{INDEXES, agrees, build_all, new, newer, written},
    planner::tenant,
};

async fn built() -> Store {
    let store = newer(&written().await.0).await;
    build_all(&store).await;
    store
}

async fn verified(store: &Store, index: &str) -> Report {
    store.verify(index).unwrap().rows(7).run(|_| ()).await.unwrap()
}

/// Asserts that a verification finds exactly `faults`, repairs them, and finds none then.
async fn repaired(store: &Store, index: &str, faults: &[Fault]) {
    let found = verified(store, index).await;
    let told: Vec<Fault> = found.findings.iter().map(|finding| finding.fault).collect();
    assert_eq!((told.as_slice(), found.faults), (faults, faults.len() as u64), "{index}");
    let repair = store.verify(index).unwrap().rows(7).repairing();
    assert!(repair.run(|_| ()).await.unwrap().repaired);
    assert_eq!(verified(store, index).await.faults, 0, "{index}");
    agrees(store).await;
}

/// Sets a key to a value, or clears it, bypassing the indexes.
pub(crate) async fn write(store: &Store, key: &[u8], value: Option<&[u8]>) {
    let tx = store.begin();
    match value {
        Some(value) => tx.engine().set(key, value),
        None => tx.engine().clear(key),
    }
    tx.commit().await.unwrap();
}

fn key(store: &Store, index: &str, rest: &impl KeyPart) -> Vec<u8> {
    let mut key = store.root().key(&(tenant(2), index.to_owned()));
    rest.pack(&mut key);
    key
}

#[tokio::test]
async fn a_sound_index_has_no_faults() {
    let store = built().await;
    for (index, rows) in INDEXES.into_iter().zip([120, 120, 297, 6]) {
        let report = verified(&store, index).await;
        assert_eq!((report.faults, report.findings.len()), (0, 0), "{index}");
        assert_eq!(report.examined, rows, "{index}");
    }
    agrees(&store).await;
}

#[tokio::test]
async fn a_missing_entry_is_found_and_made() {
    let store = built().await;
    write(&store, &key(&store, INDEXES[0], &"note 3 of 2".to_owned()), None).await;
    repaired(&store, INDEXES[0], &[Fault::Missing]).await;
    write(&store, &key(&store, INDEXES[1], &(0_u64, 3_u64)), None).await;
    repaired(&store, INDEXES[1], &[Fault::Missing]).await;
    write(&store, &key(&store, INDEXES[2], &("note".to_owned(), 3_u64)), None).await;
    repaired(&store, INDEXES[2], &[Fault::Missing]).await;
}

#[tokio::test]
async fn a_dangling_entry_is_found_and_removed() {
    let store = built().await;
    let pointer = store.root().key(&99_u64);
    write(&store, &key(&store, INDEXES[0], &"nobody's".to_owned()), Some(&pointer)).await;
    write(&store, &key(&store, INDEXES[0], &"unreadable".to_owned()), Some(b"\xff")).await;
    repaired(&store, INDEXES[0], &[Fault::Dangling; 2]).await;
    write(&store, &key(&store, INDEXES[1], &(2_u64, 3_u64)), Some(b"\x01\x00")).await;
    repaired(&store, INDEXES[1], &[Fault::Dangling]).await;
    write(&store, &key(&store, INDEXES[2], &("word".to_owned(), 3_u64)), Some(b"")).await;
    write(&store, &key(&store, INDEXES[2], &7_u64), Some(b"")).await;
    repaired(&store, INDEXES[2], &[Fault::Dangling; 2]).await;
}

#[tokio::test]
async fn a_wrong_entry_is_found_and_put_right() {
    let store = built().await;
    let pointer = store.root().key(&4_u64);
    write(&store, &key(&store, INDEXES[0], &"note 3 of 2".to_owned()), Some(&pointer)).await;
    // From the record's side it belongs to another; from the entry's, its record has none such.
    let found = verified(&store, INDEXES[0]).await;
    let told: Vec<Fault> = found.findings.iter().map(|finding| finding.fault).collect();
    assert_eq!(told, [Fault::Wrong, Fault::Dangling]);
    let repair = store.verify(INDEXES[0]).unwrap().repairing();
    assert_eq!(repair.run(|_| ()).await.unwrap().faults, 1);
    assert_eq!(verified(&store, INDEXES[0]).await.faults, 0);
    agrees(&store).await;

    write(&store, &key(&store, INDEXES[1], &(0_u64, 3_u64)), Some(b"\x01\x03old")).await;
    repaired(&store, INDEXES[1], &[Fault::Wrong, Fault::Wrong]).await;
}

#[tokio::test]
async fn numbers_are_counted_anew() {
    let store = built().await;
    let group = |colour: u64| store.root().key(&(INDEXES[3].to_owned(), colour));
    write(&store, &group(0), None).await;
    write(&store, &group(1), Some(&7_i64.to_le_bytes())).await;
    write(&store, &group(9), Some(&1_i64.to_le_bytes())).await;
    let found = verified(&store, INDEXES[3]).await;
    let told: Vec<Fault> = found.findings.iter().map(|finding| finding.fault).collect();
    assert_eq!(told, [Fault::Wrong, Fault::Dangling, Fault::Missing, Fault::Wrong]);
    let repair = store.verify(INDEXES[3]).unwrap().rows(7).repairing();
    assert_eq!(repair.run(|_| ()).await.unwrap().faults, 3);
    assert_eq!(verified(&store, INDEXES[3]).await.faults, 0);
    agrees(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_during_a_verification_are_no_faults() {
    let store = built().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..150_u64 {
                let change = |tx: coditect_store::Transaction| async move {
                    let note = new::Note { colour: number % 5, ..new::note(2, number % 25) };
                    if tx.delete::<new::Note>(note.tenant, note.number).await?.is_none() {
                        tx.insert(&note).await?;
                    }
                    Ok::<_, coditect_store::Error>(())
                };
                store.run(change).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        for index in INDEXES {
            let report = verified(&store, index).await;
            assert_eq!(report.findings, [], "{index}");
        }
    }
    writer.await.unwrap();
    agrees(&store).await;
}

#[tokio::test]
async fn an_index_that_is_not_built_is_not_verified() {
    let store = newer(&written().await.0).await;
    let error = store.verify(INDEXES[3]).unwrap().run(|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IndexBuilding(INDEXES[3]));
}
