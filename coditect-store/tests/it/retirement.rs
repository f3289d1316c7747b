//! An index is retired permanently, and its entries are removed step by step.

use std::time::Duration;

use coditect_store::{
    ErrorKind, Store, StoreOptions,
    archive::Export,
    engine::{Database, RangeQuery},
    keyspace::{Global, KeyRange},
    model::Tenant,
};

use crate::{
    builds::{INDEXES, build_all, new, newer, old, older, written},
    planner::tenant,
    samples,
};

/// The older program's entity, without the indexes.
fn retiring() -> StoreOptions {
    INDEXES.into_iter().fold(
        Store::options().schema(coditect_store::model::schema()).entity::<old::Note>(),
        StoreOptions::retire,
    )
}

async fn with_all_built() -> (Database, Store) {
    let (database, _) = written().await;
    let store = newer(&database).await;
    build_all(&store).await;
    for of in 1..=3 {
        let owner = &Tenant { id: tenant(of), ..samples::tenant() };
        store.run(|tx| async move { tx.insert(owner).await }).await.unwrap();
    }
    (database, store)
}

/// The number of rows of each index, within tenants and global.
async fn entries(store: &Store) -> usize {
    let tx = store.begin();
    let mut count = 0;
    for name in INDEXES {
        let name = name.to_owned();
        let mut prefixes = vec![store.root().key(&name)];
        prefixes.extend((1..=3).map(|of| store.root().key(&(tenant(of), name.clone()))));
        for prefix in prefixes {
            let KeyRange { begin, end } = KeyRange::tuples(&prefix);
            count += tx.engine().get_range(&RangeQuery::new(begin, end)).await.unwrap().rows.len();
        }
    }
    count
}

#[tokio::test]
async fn retired_index_is_written_and_read_by_no_program() {
    let (database, running) = with_all_built().await;
    let refused = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<old::Note>()
        .open(database.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NewerFormat);
    assert!(refused.to_string().contains("retire("), "{refused}");

    let begun = running.begin();
    begun.insert(&new::note(1, 70)).await.unwrap();
    let store = retiring().open(database.clone()).await.unwrap();
    assert_eq!(begun.commit().await.unwrap_err().kind(), ErrorKind::Conflict);

    // A running program writes no entries any more, and does not read it once it knows.
    let note = &new::note(1, 71);
    let error = running.run(|tx| async move { tx.insert(note).await }).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SchemaMismatch(_)), "{error}");
    let scan = running.begin();
    let page = scan.scan(&new::Note::BY_WORD, tenant(1), "note").page(1, None).await;
    assert_eq!(page.unwrap_err().kind(), ErrorKind::SchemaMismatch(INDEXES[2]));
    let count = running.begin().count(&new::Note::COLOURS, Global, 1).await;
    assert_eq!(count.unwrap_err().kind(), ErrorKind::SchemaMismatch(INDEXES[3]));
    // A program that is started later is rejected.
    let error = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<new::Note>()
        .open(database.clone())
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SchemaMismatch(_)), "{error}");
    assert!(error.to_string().contains("retired"), "{error}");

    // Records are written without it, also by a program that never declared it.
    let note = &old::note(1, 72);
    store.run(|tx| async move { tx.insert(note).await }).await.unwrap();
    let plain = older(&database).await;
    plain.run(|tx| async move { tx.delete::<old::Note>(tenant(1), 72).await }).await.unwrap();
    assert!(plain.check().run(|_| ()).await.unwrap().is_sound());
}

#[tokio::test]
async fn entries_of_a_retired_index_are_removed_step_by_step_by_any_process() {
    let (database, _) = with_all_built().await;
    let store = retiring().open(database.clone()).await.unwrap();
    let mut left = entries(&store).await;
    assert!(left > 180, "{left}");
    let mut names = store.retired().await.unwrap();
    names.sort();
    let mut expected: Vec<String> = INDEXES.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(names, expected);

    for name in INDEXES {
        loop {
            // Each step in another process, which need not declare it as retired.
            let store = older(&database).await;
            let removal = store.remove_retired(name).rows(9).delay(Duration::ZERO);
            let done = removal.step().await.unwrap().done;
            assert!(store.check().run(|_| ()).await.unwrap().is_sound());
            let now = entries(&store).await;
            assert!(left - now <= 9, "a step is bounded");
            left = now;
            if done {
                break;
            }
        }
    }
    assert_eq!(left, 0);
    assert_eq!(store.retired().await.unwrap(), Vec::<String>::new());
    assert!(store.remove_retired(INDEXES[0]).delay(Duration::ZERO).step().await.unwrap().done);
    // The records are unchanged.
    let notes = store.begin().list::<old::Note>(tenant(2)).all(99).await.unwrap();
    assert_eq!(notes.len(), 20);
    // The name stays reserved, and retiring it again changes nothing.
    let error = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<new::Note>()
        .open(database.clone())
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SchemaMismatch(_)), "{error}");
    retiring().open(database.clone()).await.unwrap();
    assert_eq!(store.retired().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn removal_waits_until_no_process_trusts_its_cache() {
    let (database, _) = with_all_built().await;
    let store = retiring().open(database).await.unwrap();
    let before = entries(&store).await;
    let removal = store.remove_retired(INDEXES[0]);
    let waited = tokio::time::timeout(Duration::from_millis(50), removal.step()).await;
    assert!(waited.is_err(), "it waits for a minute");
    assert_eq!(entries(&store).await, before);
}

#[tokio::test]
async fn store_with_a_retired_index_is_exported_and_imported() {
    let (database, _) = with_all_built().await;
    let store = retiring().open(database).await.unwrap();
    for of in [None, Some(tenant(2))] {
        let mut archive = Vec::new();
        let export = of.into_iter().fold(store.export(), Export::tenant);
        export.run(&mut archive, |_| ()).await.unwrap();
        let target = Database::temporary().unwrap();
        if of.is_some() {
            older(&target).await;
        }
        let options =
            Store::options().schema(coditect_store::model::schema()).entity::<old::Note>();
        let import = options.import(target.clone()).unwrap();
        import.run_verified(std::io::Cursor::new(archive), |_| ()).await.unwrap();
        let imported = older(&target).await;
        assert!(imported.check().run(|_| ()).await.unwrap().is_sound());
        let notes = imported.begin().list::<old::Note>(tenant(2)).all(99).await.unwrap();
        assert_eq!(notes.len(), 20);
        assert_eq!(imported.retired().await.unwrap().len(), if of.is_some() { 0 } else { 4 });
    }
}

#[tokio::test]
async fn only_an_index_that_is_no_longer_declared_is_retired() {
    let (database, _) = with_all_built().await;
    let declared = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<new::Note>()
        .retire(INDEXES[0]);
    let error = declared.open(database.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let space = Store::options()
        .schema(coditect_store::model::schema())
        .retire("notes")
        .open(database.clone())
        .await
        .unwrap_err();
    assert_eq!(space.kind(), ErrorKind::Invalid);
    // Of an entity that this program does not declare.
    let of_another = Store::options()
        .schema(coditect_store::model::schema())
        .retire(INDEXES[0])
        .open(database.clone())
        .await
        .unwrap_err();
    assert_eq!(of_another.kind(), ErrorKind::Invalid);
    newer(&database).await;
    // An index that the store never had is ignored.
    let store = Store::options()
        .schema(coditect_store::model::schema())
        .retire("never_there")
        .open(Database::temporary().unwrap())
        .await;
    assert!(
        store
            .unwrap()
            .remove_retired("never_there")
            .delay(Duration::ZERO)
            .step()
            .await
            .unwrap()
            .done
    );
}
