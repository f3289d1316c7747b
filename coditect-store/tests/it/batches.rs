//! Work over many records: its largest transaction stays within a budget of round trips, and a
//! transaction that is too old is retried with fewer records.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta};
use coditect_store::{
    BatchLimit, BatchSize, Blob, BlobUpload, Clock, Counter, Error, Result, Store, Transaction,
    engine::{Database, Fault, Faults, Options},
    model::{
        ClientSequence, Conversation, ConversationId, Draft, File, FilePolicy, FileRoot, Message,
        MessageId, Tenant, TenantId, Ticket,
    },
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::{
    builds::{new, old},
    planner::{Task, task, tenant},
    samples,
};

/// The maximum rounds of reads of one transaction, and the number of transactions.
#[derive(Debug, PartialEq)]
struct Cost {
    rounds: u64,
    transactions: usize,
}

/// Runs `prepare` and then `work` on a store whose reads take a round trip each, and returns the
/// cost of `work`.
fn cost<T, P, W>(prepare: impl FnOnce(Store) -> P, work: impl FnOnce(Store, T) -> W) -> Cost
where
    P: Future<Output = T>,
    W: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = Options::default().simulate_round_trips(true);
    let database = Database::temporary_with(&options).unwrap();
    let store = runtime
        .block_on(
            Store::options()
                .schema(coditect_store::model::schema())
                .entity::<Task>()
                .open(database),
        )
        .unwrap();
    let prepared = runtime.block_on(prepare(store.clone()));
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || runtime.block_on(work(store, prepared))).unwrap();
    let mut rounds = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let (name, DebugValue::Histogram(values)) = (key.key().name(), value)
            && name == "coditect_store_transaction_rounds"
        {
            rounds
                .extend(values.into_iter().map(|value| format!("{value}").parse::<u64>().unwrap()));
        }
    }
    Cost { rounds: rounds.iter().copied().max().unwrap_or(0), transactions: rounds.len() }
}

/// Fails if a transaction takes more than `most` rounds of reads.
#[track_caller]
fn assert_within(most: u64, cost: &Cost) {
    assert!(cost.rounds <= most, "{cost:?}, not {most}");
    assert!(cost.rounds * 2 > most, "{cost:?}: the budget of {most} is far too large");
}

fn policy() -> FilePolicy {
    FilePolicy::default()
}

fn home() -> FileRoot {
    FileRoot::Workspace("/w".to_owned())
}

async fn upload(store: &Store, of: TenantId) -> Blob {
    let mut upload = BlobUpload::begin(store, of, &Clock::system()).await.unwrap();
    upload.write(b"content").await.unwrap();
    upload.finish().await.unwrap()
}

/// Creates `count` directories below `top`, and returns it.
async fn directories(store: &Store, count: usize) -> File {
    let now = Clock::system().now();
    let create = |path: String| {
        let store = store.clone();
        async move {
            let at = &(home(), path);
            let create = |tx| async move {
                File::create_directory(&tx, tenant(1), (&at.0, &at.1), &policy(), now).await
            };
            store.run(create).await.unwrap()
        }
    };
    let top = create("top".to_owned()).await;
    for number in 0..count {
        create(format!("top/{number}")).await;
    }
    top
}

/// Writes `versions` versions of each of `count` files in `home`.
async fn files(store: &Store, of: TenantId, home: FileRoot, count: usize, versions: usize) {
    let now = Clock::system().now();
    for number in 0..count {
        for _ in 0..versions {
            let (blob, path) = (upload(store, of).await, &format!("top/{number}"));
            let mut policy = policy();
            policy.versions = 100;
            let (home, policy) = (&home, &policy);
            let put = |tx| async move { File::put(&tx, of, (home, path), blob, policy, now).await };
            store.run(put).await.unwrap();
        }
    }
}

#[test]
fn a_directory_of_990_entries_is_moved_in_few_rounds() {
    let cost = cost(
        async |store: Store| directories(&store, 990).await,
        async |store, top: File| {
            let top = &top;
            store.run(|tx| async move { top.move_to(&tx, "elsewhere").await }).await?;
            let all = |tx: Transaction| async move {
                tx.scan(&File::BY_PATH, tenant(1), (home(),)).all(2_000).await
            };
            let paths: Vec<String> =
                store.run(all).await?.into_iter().map(|file| file.path).collect();
            assert_eq!(paths.len(), 991);
            assert!(paths.iter().all(|path| path.starts_with("elsewhere")));
            Ok(())
        },
    );
    assert_within(42, &cost);
}

#[test]
fn a_directory_moves_to_one_of_its_own_parents() {
    // Without a directory at `a`, the entry at `a/b/b` moves to `a/b` as that one moves to `a`.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Database::temporary().unwrap()).await.unwrap();
        let now = Clock::system().now();
        let (home, policy) = (&home(), &policy());
        let make = |tx: Transaction| async move {
            for path in ["a/b/b", "a/b/b/b", "a/b/b/c"] {
                File::create_directory(&tx, tenant(1), (home, path), policy, now).await?;
            }
            File::create_directory(&tx, tenant(1), (home, "a/b"), policy, now).await
        };
        let top = &store.run(make).await.unwrap();
        store.run(|tx| async move { top.move_to(&tx, "a").await }).await.unwrap();
        let all = |tx: Transaction| async move {
            tx.scan(&File::BY_PATH, tenant(1), (home.clone(),)).all(9).await
        };
        let paths: Vec<String> =
            store.run(all).await.unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/b", "a/b/c"]);
    });
}

#[test]
fn a_tree_is_removed_in_few_rounds() {
    let cost = cost(
        async |store: Store| {
            let top = directories(&store, 0).await;
            files(&store, tenant(1), home(), 20, 25).await;
            top
        },
        async |store, top: File| {
            let (top, size) = (&top, &BatchSize::new(File::MAX_REMOVED));
            let remove = |tx: Transaction, limit: BatchLimit| async move {
                top.remove_tree(&tx, limit, Clock::system().now()).await
            };
            while !store.run_batch(size, remove).await? {}
            Ok(())
        },
    );
    // The entries; per five of them, the files, their versions, and more than a hundred versions;
    // itself.
    assert_within(2 + 4 * 4 + 2, &cost);
}

#[test]
fn a_session_is_deleted_in_few_rounds() {
    let of = samples::tenant().id;
    let session = samples::session();
    let begun = move |store: Store| async move {
        let session = &samples::session();
        let fill = |tx: Transaction| async move {
            tx.insert(session).await?;
            for number in 0..150 {
                let client = number.to_string();
                tx.insert(&ClientSequence { client, ..samples::client_sequence() }).await?;
            }
            let conversation = Conversation {
                id: ConversationId::new(),
                session_id: Some(session.id),
                ..samples::conversation()
            };
            tx.insert(&conversation).await?;
            for _ in 0..150 {
                let id = MessageId::new();
                let conversation_id = conversation.id;
                tx.append(&Message { id, conversation_id, ..samples::message() }).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
        files(&store, of, FileRoot::Session(session.id), 4, 25).await;
        for number in 0..20 {
            let blob = upload(&store, of).await;
            let draft = &Draft { path: format!("{number}"), blob, ..samples::draft() };
            let save = |tx| async move { draft.save(&tx, &policy()).await };
            store.run(save).await.unwrap();
        }
    };
    let cost = cost(begun, async |store, ()| {
        let now = Clock::system().now();
        let delete = |tx: Transaction| async move { tx.delete_session(of, session.id, now).await };
        let deletion = store.run(delete).await?.unwrap();
        store.resume_deletion(&deletion).await
    });
    assert_within(6, &cost);
}

#[test]
fn a_tenant_is_deleted_in_few_rounds() {
    let fill = |store: Store| async move {
        let fill = |tx: Transaction| async move {
            let now = DateTime::UNIX_EPOCH;
            let (id, name) = (tenant(1), "one".to_owned());
            tx.insert(&Tenant { id, name, created_at: now, updated_at: now }).await?;
            for number in 0..250 {
                tx.insert(&task(number)).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
    };
    let cost = cost(fill, async |store, ()| {
        let now = Clock::system().now();
        let delete = |tx: Transaction| async move { tx.delete_tenant(tenant(1), now).await };
        let deletion = store.run(delete).await?.unwrap();
        store.resume_deletion(&deletion).await
    });
    assert_within(3, &cost);
}

#[test]
fn expired_records_are_purged_in_few_rounds() {
    let fill = |store: Store| async move {
        let of = samples::tenant().id;
        let fill = |tx: Transaction| async move {
            for number in 0..150_u8 {
                let id = coditect_store::model::TicketId(uuid::Uuid::from_u128(number.into()));
                tx.insert(&Ticket { id, hash: [number; 32], ..samples::ticket() }).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
        for _ in 0..150 {
            upload(&store, of).await;
        }
    };
    let cost = cost(fill, async |store, ()| {
        let swept = store.purge(Clock::system().now() + TimeDelta::days(1_000)).await?;
        assert_eq!((swept.tickets, swept.blobs), (150, 150));
        Ok(())
    });
    assert_within(4, &cost);
}

#[test]
fn an_index_is_verified_in_few_rounds() {
    for (index, rounds) in [("planner_tasks_by_slug", 9), ("planner_load", 4)] {
        let cost = cost(
            async |store: Store| fill_tasks(&store, 700).await,
            async |store, ()| {
                let report = store.verify(index)?.run(|_| ()).await?;
                assert_eq!(report.faults, 0);
                Ok(())
            },
        );
        assert_within(rounds, &cost);
    }
}

async fn fill_tasks(store: &Store, count: u64) {
    let fill = |tx: Transaction| async move {
        for number in 0..count {
            tx.insert(&Task { ticket: Some(number.to_string()), ..task(number) }).await?;
        }
        Ok::<_, Error>(())
    };
    store.run(fill).await.unwrap();
}

#[test]
fn a_store_is_checked_in_few_transactions() {
    let fill = |store: Store| async move {
        let fill = |tx: Transaction| async move {
            samples::write(&tx).await;
            tx.insert(&Tenant { id: tenant(1), ..samples::tenant() }).await?;
            for _ in 0..1_000 {
                let id = MessageId::new();
                tx.append(&Message { id, ..samples::message() }).await?;
            }
            let bytes = 1_000 * samples::message().counted_bytes();
            tx.charge(samples::tenant().id, Counter::BYTES, bytes, 10_000_000).await?;
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
        fill_tasks(&store, 1_000).await;
    };
    let mut rows = 0;
    let cost = cost(fill, async |store, ()| {
        let report = store.check().run(|_| ()).await?;
        rows = report.rows;
        assert!(report.is_sound(), "{report:?}");
        Ok(())
    });
    assert!(rows > 8_000, "{rows}");
    // One row per hundred, and one per page of an index; the blobs of a tenant are some more.
    assert!(cost.transactions < 200, "{cost:?}");
    assert_within(9, &cost);
}

#[test]
fn a_unique_index_is_built_in_few_rounds() {
    let fill = |store: Store| async move {
        let database = store.database().clone();
        let root = coditect_store::keyspace::Root::new(&"notes".to_owned());
        let older = Store::options()
            .schema(coditect_store::model::schema())
            .root(root.clone())
            .entity::<old::Note>();
        let older = older.open(database.clone()).await.unwrap();
        let fill = |tx: Transaction| async move {
            for number in 0..700 {
                tx.insert(&old::note(1, number)).await?;
            }
            Ok::<_, Error>(())
        };
        older.run(fill).await.unwrap();
        Store::options()
            .schema(coditect_store::model::schema())
            .root(root)
            .entity::<new::Note>()
            .open(database)
            .await
            .unwrap()
    };
    let cost = cost(fill, async |_, newer: Store| {
        newer.build("notes_by_title")?.run(|_| ()).await.map(|_| ())
    });
    assert_within(9, &cost);
}

#[test]
fn a_tenant_is_verified_and_imported_in_few_rounds() {
    let fill = |store: Store| async move {
        let tenant = Tenant { id: tenant(1), ..samples::tenant() };
        let create = |tx: Transaction| {
            let tenant = tenant.clone();
            async move { tx.insert(&tenant).await }
        };
        store.run(create).await.unwrap();
        fill_tasks(&store, 1_000).await;
        let mut archive = Vec::new();
        store.export().tenant(tenant.id).run(&mut archive, |_| ()).await.unwrap();
        archive
    };
    let cost = cost(fill, async |_, archive: Vec<u8>| {
        let options = Options::default().simulate_round_trips(true);
        let database = Database::temporary_with(&options)?;
        let stores = Store::options().schema(coditect_store::model::schema()).entity::<Task>();
        stores.clone().open(database.clone()).await?;
        let import = stores.import(database)?;
        import.run_verified(std::io::Cursor::new(archive), |_| ()).await.map(|_| ())
    });
    assert_within(22, &cost);
}

#[tokio::test]
async fn batch_that_is_too_old_is_retried_with_half() {
    let faults = Faults::default();
    let database = Database::temporary().unwrap().with_faults(faults.clone());
    let store = Store::open(database).await.unwrap();
    let (size, sizes) = (BatchSize::new(100), &Arc::new(Mutex::new(Vec::new())));
    let work = |tx: Transaction, limit: BatchLimit| {
        let sizes = Arc::clone(sizes);
        async move {
            sizes.lock().unwrap().push(limit.rows());
            tx.engine().get(b"key").await?;
            tx.engine().set(b"key", b"value");
            Ok::<_, Error>(())
        }
    };
    // At the read; at the commit; and then not again.
    for at in [0, 1] {
        faults.plan(at, Fault::TooOld);
        store.run_batch(&size, work).await.unwrap();
        assert!(faults.has_occurred());
    }
    store.run_batch(&size, work).await.unwrap();
    assert_eq!(*sizes.lock().unwrap(), [100, 50, 50, 25, 25]);
}
