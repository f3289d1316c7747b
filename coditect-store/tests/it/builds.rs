//! Indexes that are declared after their records, and changed declarations.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use coditect_store::{
    Entity, Error, ErrorKind, Store, Transaction,
    engine::Database,
    entity::{Covering, FanOut, GlobalCount, Multi, Unique},
    indexes,
    keyspace::{Global, Subspace},
    model::TenantId,
};
use serde::{Deserialize, Serialize};

use crate::planner::tenant;

macro_rules! note {
    () => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) struct Note {
            pub(crate) tenant: TenantId,
            pub(crate) number: u64,
            pub(crate) title: String,
            pub(crate) colour: u64,
        }

        impl Entity for Note {
            type Scope = TenantId;
            type Key = u64;
            const SPACE: Subspace<TenantId> = Subspace::tenant("notes").keyed(&["number"]);
            const VERSION: u8 = 1;

            fn scope(&self) -> TenantId {
                self.tenant
            }

            fn key(&self) -> u64 {
                self.number
            }
        }
    };
}

/// The notes of the older program, without indexes.
pub(crate) mod old {
    use super::*;

    note!();
    indexes! { Note => }

    pub(crate) fn note(of: u128, number: u64) -> Note {
        let title = format!("note {number} of {of}");
        Note { tenant: tenant(of), number, title, colour: number % 3 }
    }
}

/// The notes of the newer program.
pub(crate) mod new {
    use super::*;

    note!();
    indexes! { Note =>
        /// Titles are unique.
        BY_TITLE ("notes_by_title", title): Unique<String> = |note| Some(note.title.clone());
        /// By colour, with titles.
        BY_COLOUR ("notes_by_colour", colour): Covering<u64, String> =
            |note| Some((note.colour, note.title.clone()));
        /// By each word.
        BY_WORD ("notes_by_word", word): FanOut<String> =
            |note| note.title.split(' ').map(str::to_owned).collect();
        /// The number of notes of a colour.
        COLOURS ("note_colours", colour): GlobalCount<u64> = |note| Some(note.colour);
    }

    pub(crate) fn note(of: u128, number: u64) -> Note {
        let old::Note { tenant, number, title, colour } = old::note(of, number);
        Note { tenant, number, title, colour }
    }
}

/// The indexes of the newer program.
pub(crate) const INDEXES: [&str; 4] =
    ["notes_by_title", "notes_by_colour", "notes_by_word", "note_colours"];

/// A database in which the older program has written notes of three tenants, twenty each.
pub(crate) async fn written() -> (Database, Store) {
    let database = Database::temporary().unwrap();
    let store = older(&database).await;
    let tx = store.begin();
    for of in 1..=3 {
        for number in 0..20 {
            tx.insert(&old::note(of, number)).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    (database, store)
}

pub(crate) async fn older(database: &Database) -> Store {
    Store::options()
        .schema(coditect_store::model::schema())
        .entity::<old::Note>()
        .open(database.clone())
        .await
        .unwrap()
}

pub(crate) async fn newer(database: &Database) -> Store {
    Store::options()
        .schema(coditect_store::model::schema())
        .entity::<new::Note>()
        .open(database.clone())
        .await
        .unwrap()
}

pub(crate) async fn build_all(store: &Store) {
    for index in store.pending_indexes().await.unwrap() {
        store.build(index).unwrap().rows(7).run(|_| ()).await.unwrap();
    }
}

/// Compares each index with the records.
pub(crate) async fn agrees(store: &Store) {
    let tx = store.begin();
    let mut colours = BTreeMap::new();
    for of in 1..=3 {
        let notes = tx.list::<new::Note>(tenant(of)).all(999).await.unwrap();
        let mut by_title = notes.clone();
        by_title.sort_by(|a, b| a.title.cmp(&b.title));
        let scan = tx.scan(&new::Note::BY_TITLE, tenant(of), ..);
        assert_eq!(scan.all(999).await.unwrap(), by_title);
        let mut by_colour = notes.clone();
        by_colour.sort_by_key(|note| note.colour);
        let covered =
            tx.scan_index_only(&new::Note::BY_COLOUR, tenant(of), ..).all(999).await.unwrap();
        let told: Vec<_> = covered.iter().map(|of| (of.value, of.key, &of.fields)).collect();
        let expected: Vec<_> = by_colour.iter().map(|n| (n.colour, n.number, &n.title)).collect();
        assert_eq!(told, expected);
        let words = tx.scan(&new::Note::BY_WORD, tenant(of), "note").all(999).await.unwrap();
        let with_word: Vec<_> =
            notes.iter().filter(|n| n.title.contains("note")).cloned().collect();
        assert_eq!(words, with_word);
        for note in notes {
            *colours.entry(note.colour).or_insert(0_i64) += 1;
        }
    }
    let counted = tx.scan_counts(&new::Note::COLOURS, Global, ..).all(99).await.unwrap();
    assert_eq!(counted, colours.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn new_index_of_existing_records_is_built_by_several_processes() {
    let (database, _) = written().await;
    let store = newer(&database).await;
    assert_eq!(store.pending_indexes().await.unwrap(), INDEXES);
    let tx = store.begin();
    let refused = [
        tx.find(&new::Note::BY_TITLE, tenant(1), "note 1 of 1".to_owned()).await.unwrap_err(),
        tx.scan(&new::Note::BY_WORD, tenant(1), "note").page(1, None).await.unwrap_err(),
        tx.scan_index_only(&new::Note::BY_COLOUR, tenant(1), ..).page(1, None).await.unwrap_err(),
        tx.count(&new::Note::COLOURS, Global, 1).await.unwrap_err(),
    ];
    let kinds = refused.map(|error| error.kind());
    let named = |at: usize| ErrorKind::IndexBuilding(INDEXES[at]);
    assert_eq!(kinds, [named(0), named(2), named(1), named(3)]);
    assert_eq!(tx.list::<new::Note>(tenant(1)).all(99).await.unwrap().len(), 20, "still listed");

    for index in INDEXES {
        let mut examined = Vec::new();
        loop {
            // Each step in another process, as after a kill.
            let build = newer(&database).await.build(index).unwrap().rows(9);
            assert_eq!(build.total().await.unwrap(), 60);
            let progress = build.step().await.unwrap();
            examined.push(progress.examined);
            if progress.done {
                break;
            }
        }
        assert_eq!(examined, [9, 18, 27, 36, 45, 54, 60], "{index}");
        assert!(store.build(index).unwrap().step().await.unwrap().done);
    }
    assert!(store.pending_indexes().await.unwrap().is_empty());
    agrees(&store).await;
}

#[tokio::test]
async fn indexes_of_a_new_entity_or_of_one_without_records_are_readable_at_once() {
    let database = Database::temporary().unwrap();
    Store::options()
        .schema(coditect_store::model::schema())
        .entity::<old::Note>()
        .open(database.clone())
        .await
        .unwrap();
    let store = newer(&database).await;
    assert!(store.pending_indexes().await.unwrap().is_empty());
    let note = &new::note(1, 1);
    store.run(|tx| async move { tx.insert(note).await }).await.unwrap();
    agrees(&newer(&database).await).await;
}

#[tokio::test]
async fn a_program_that_does_not_know_an_index_is_refused_where_it_would_leave_entries_out() {
    let (database, old) = written().await;
    let running = old.begin();
    running.insert(&old::note(1, 50)).await.unwrap();
    let store = newer(&database).await;
    assert_eq!(running.commit().await.unwrap_err().kind(), ErrorKind::Conflict);

    let note = &old::note(1, 50);
    let error = old.run(|tx| async move { tx.insert(note).await }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("notes_by_word"), "{error}");
    let opened = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<old::Note>()
        .open(database.clone())
        .await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::NewerFormat);
    assert!(old.begin().get::<old::Note>(tenant(1), 1).await.unwrap().is_some(), "it may read");

    // A program without the entity is not affected.
    let other = Store::open(database).await.unwrap();
    let record = &crate::samples::tenant();
    other.run(|tx| async move { tx.insert(record).await }).await.unwrap();
    build_all(&store).await;
    agrees(&store).await;
}

#[tokio::test]
async fn build_fails_on_a_duplicate_value_and_resumes_when_it_is_free() {
    let (database, old) = written().await;
    let tx = old.begin();
    tx.update(&old::Note { title: "note 3 of 2".into(), ..old::note(2, 15) }).await.unwrap();
    tx.commit().await.unwrap();
    let store = newer(&database).await;
    let build = store.build("notes_by_title").unwrap().rows(4);
    let error = build.run(|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("notes_by_title"));
    let note = &new::note(2, 15);
    store.run(|tx| async move { tx.update(note).await }).await.unwrap();
    build_all(&store).await;
    agrees(&store).await;
}

async fn write_at_random(tx: Transaction, seed: u64) -> Result<(), Error> {
    let (of, number) = (u128::from(seed % 3) + 1, seed / 3 % 25);
    let note = new::Note { colour: seed / 75 % 4, ..new::note(of, number) };
    match seed / 300 % 3 {
        0 => tx.delete::<new::Note>(note.tenant, number).await.map(drop),
        _ if tx.get::<new::Note>(note.tenant, number).await?.is_some() => tx.update(&note).await,
        _ => tx.insert(&note).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_written_during_a_build_are_indexed_once() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let (database, _) = written().await;
    let store = newer(&database).await;
    let write = |writer: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut seed = writer;
            let mut written = 0;
            while written < 20 || !DONE.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
                store.run(|tx| write_at_random(tx, seed >> 20)).await.unwrap();
                written += 1;
            }
        })
    };
    let writers: Vec<_> = (1..=3).map(write).collect();
    let builder = || {
        let database = database.clone();
        tokio::spawn(async move {
            let store = newer(&database).await;
            for index in INDEXES {
                store.build(index).unwrap().rows(2).run(|_| ()).await.unwrap();
            }
        })
    };
    for builder in [builder(), builder()] {
        builder.await.unwrap();
    }
    DONE.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    agrees(&store).await;
}

/// The same names, with other declarations.
mod changed {
    use super::*;

    note!();
    indexes! { Note =>
        /// It was unique.
        BY_TITLE ("notes_by_title", title): Multi<String> = |note| Some(note.title.clone());
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Card(u64);

    impl Entity for Card {
        type Scope = Global;
        type Key = u64;
        const SPACE: Subspace<Global> = Subspace::global("notes").keyed(&["number"]);
        const VERSION: u8 = 1;

        fn scope(&self) -> Global {
            Global
        }

        fn key(&self) -> u64 {
            self.0
        }
    }

    indexes! { Card => }
}

#[tokio::test]
async fn changed_declaration_is_rejected_by_name() {
    let database = Database::temporary().unwrap();
    newer(&database).await;
    let index = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<changed::Note>()
        .open(database.clone())
        .await;
    assert_eq!(index.unwrap_err().kind(), ErrorKind::SchemaMismatch("notes_by_title"));
    let space = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<changed::Card>()
        .open(database.clone())
        .await;
    assert_eq!(space.unwrap_err().kind(), ErrorKind::SchemaMismatch("notes"));
    newer(&database).await;
}

#[tokio::test]
async fn undeclared_index_has_no_build() {
    let store = newer(&Database::temporary().unwrap()).await;
    assert_eq!(store.build("notes").unwrap_err().kind(), ErrorKind::Invalid);
}
