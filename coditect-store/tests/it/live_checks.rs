//! Checks of a store that is written meanwhile, on a database whose views are not of one version,
//! as a cluster's are: what is found was true at one version.

use std::cell::Cell;

use chrono::TimeDelta;
use coditect_store::{
    BatchSize, Clock, Store, Transaction,
    check::{Fault, Finding},
    engine::{Database, Options},
    model::{
        BlobId, Conversation, ConversationId, File, FilePolicy, FileVersion, Message, MessageId,
        Session, SessionId, Tenant, TenantId,
    },
    records::{Counter, Fault as EntryFault, blob::BlobFault},
};
use futures_util::future::join_all;

use crate::{
    blobs::{content, later, put, workspace},
    checks::{checked, faults, fill, key, value},
    planner::{Task, task},
    samples,
    verify::write,
};

/// A store whose views read each page at another version.
async fn paged() -> Store {
    let database = Database::memory_with(&Options::default().simulate_round_trips(true)).unwrap();
    let options = Store::options().schema(coditect_store::model::schema()).entity::<Task>();
    options.open(database).await.unwrap()
}

/// Number of writers beside the check.
const WRITERS: u128 = 6;

/// Checks the store `times` times while writers with a number each run `writing`, which ends when
/// the given cell is set.
async fn checked_meanwhile(
    store: &Store,
    times: usize,
    writing: impl AsyncFn(u128, &Cell<bool>),
) -> Vec<Finding> {
    let is_done = Cell::new(false);
    let checking = async {
        let mut findings = Vec::new();
        for _ in 0..times {
            let (report, found) = checked(store).await;
            assert_eq!(report.uncompared, 0);
            findings.extend(found);
        }
        is_done.set(true);
        findings
    };
    let writers = join_all((0..WRITERS).map(|writer| writing(writer, &is_done)));
    tokio::join!(writers, checking).1
}

/// Messages of several pages, between the counters and the sessions of the samples' tenant.
async fn fill_pages(store: &Store) {
    let tenant = samples::tenant().id;
    for _ in 0..12 {
        let content = "x".repeat(60_000);
        let message = &Message { id: MessageId::new(), content, ..samples::message() };
        let append = |tx: Transaction| async move {
            tx.charge(tenant, Counter::BYTES, message.counted_bytes(), i64::MAX).await?;
            tx.append(message).await.map(|_| ())
        };
        store.run(append).await.unwrap();
    }
}

#[tokio::test]
async fn check_reports_no_counter_that_changes_while_it_runs() {
    let store = paged().await;
    fill(&store).await;
    // Pages between the counters, the files and the sessions.
    fill_pages(&store).await;
    let writing = async |writer, is_done: &Cell<bool>| {
        let mut open = Vec::new();
        while writer == 0 && !is_done.get() {
            let session = &Session { id: SessionId::new(), ..samples::session() };
            store.run(|tx| async move { session.insert(&tx, 1_000).await }).await.unwrap();
            open.push(session.id);
            if open.len() > 3 {
                let (tenant, id) = (samples::tenant().id, open.remove(0));
                let delete = |tx: Transaction| async move {
                    tx.delete_session(tenant, id, samples::session().created_at).await
                };
                store.run(delete).await.unwrap();
            }
        }
    };
    assert_eq!(checked_meanwhile(&store, 20, writing).await, []);
    // One that is wrong is found all the same.
    let files = key(&store, "counters", &"files".to_owned());
    write(&store, &files, Some(&7_i64.to_le_bytes())).await;
    assert_eq!(faults(&store).await, [Fault::Counter("files")]);
}

#[tokio::test]
async fn check_reports_no_fault_of_sessions_and_messages_that_are_created_and_deleted() {
    let store = paged().await;
    fill(&store).await;
    fill_pages(&store).await;
    let tenant = samples::tenant().id;
    let writing = async |_, is_done: &Cell<bool>| {
        let mut open = Vec::new();
        while !is_done.get() {
            let session = &Session { id: SessionId::new(), ..samples::session() };
            store.run(|tx| async move { session.insert(&tx, 1_000).await }).await.unwrap();
            let conversation = &Conversation {
                id: ConversationId::new(),
                session_id: Some(session.id),
                ..samples::conversation()
            };
            let talk = |tx: Transaction| async move {
                tx.insert(conversation).await?;
                for _ in 0..40 {
                    let message = Message {
                        id: MessageId::new(),
                        conversation_id: conversation.id,
                        ..samples::message()
                    };
                    tx.charge(tenant, Counter::BYTES, message.counted_bytes(), i64::MAX).await?;
                    tx.append(&message).await?;
                }
                Ok::<_, coditect_store::Error>(())
            };
            store.run(talk).await.unwrap();
            open.push(session.id);
            if open.len() > 2 {
                let id = open.remove(0);
                let delete = |tx: Transaction| async move {
                    tx.delete_session(tenant, id, samples::session().created_at).await
                };
                store.run(delete).await.unwrap();
                store.resume_deletions().await.unwrap();
            }
        }
    };
    assert_eq!(checked_meanwhile(&store, 40, writing).await, []);
}

#[tokio::test]
async fn check_reports_no_fault_of_files_and_blobs_that_are_written_moved_and_removed() {
    let store = paged().await;
    fill(&store).await;
    fill_pages(&store).await;
    let tenant = samples::tenant().id;
    let writing = async |writer, is_done: &Cell<bool>| {
        let policy = &FilePolicy::DEFAULT.versions(2);
        let mut round = 0;
        while !is_done.get() {
            round += 1;
            let (path, other) = (&format!("f{writer}"), &format!("g{writer}"));
            for length in [10, 30_000] {
                put(&store, path, &content(length), policy).await.unwrap();
            }
            let move_it = |tx: Transaction| async move {
                let home = &workspace();
                let file = File::at(&tx, tenant, home, path).await?.unwrap();
                match File::at(&tx, tenant, home, other).await? {
                    Some(target) if round % 2 == 0 => {
                        file.move_over(&tx, &target, later(0)).await.map(|_| ())
                    }
                    Some(target) => {
                        let size = BatchSize::new(100);
                        target.remove_tree(&tx, size.attempt(), later(0)).await?;
                        file.move_to(&tx, other).await.map(|_| ())
                    }
                    None => file.move_to(&tx, other).await.map(|_| ()),
                }
            };
            store.run(move_it).await.unwrap();
            // After the leases of detached blobs, and before those of uploads.
            store.collect_blobs(later(0) + TimeDelta::minutes(1)).await.unwrap();
        }
    };
    assert_eq!(checked_meanwhile(&store, 16, writing).await, []);
}

#[tokio::test]
async fn check_reports_no_fault_of_tenants_that_are_created_and_deleted() {
    let store = paged().await;
    fill(&store).await;
    let writing = async |_, is_done: &Cell<bool>| {
        while !is_done.get() {
            let tenant = TenantId::new();
            let create = |tx: Transaction| async move {
                tx.insert(&Tenant { id: tenant, ..samples::tenant() }).await?;
                for number in 0..20 {
                    tx.insert(&Task { tenant, ..task(number) }).await?;
                }
                Ok::<_, coditect_store::Error>(())
            };
            store.run(create).await.unwrap();
            let delete = |tx: Transaction| async move {
                tx.delete_tenant(tenant, Clock::system().now()).await
            };
            store.run(delete).await.unwrap();
            store.resume_deletions().await.unwrap();
        }
    };
    assert_eq!(checked_meanwhile(&store, 16, writing).await, []);
}

#[tokio::test]
async fn faults_are_found_without_a_single_version() {
    let store = paged().await;
    fill(&store).await;
    let tenant = samples::tenant().id;
    // References.
    let session = key(&store, "workspace_sessions", &samples::session().id);
    let record = value(&store, &session).await;
    write(&store, &session, None).await;
    let found = faults(&store).await;
    let dangling = found.iter().filter(|fault| **fault == Fault::DanglingReference).count();
    assert_eq!(dangling, 8, "{found:?}");
    write(&store, &session, Some(&record)).await;
    assert_eq!(faults(&store).await, []);
    // Entries of events.
    let by_id = key(&store, "messages_by_id", &samples::message().id);
    let entry = value(&store, &by_id).await;
    write(&store, &by_id, None).await;
    assert_eq!(faults(&store).await, [Fault::Index("messages_by_id", EntryFault::Missing)]);
    write(&store, &by_id, Some(&entry)).await;
    // The tenant.
    let of_tenant = store.root().key(&(tenant, "tenant".to_owned()));
    let record = value(&store, &of_tenant).await;
    write(&store, &of_tenant, None).await;
    assert_eq!(faults(&store).await, [Fault::DanglingReference]);
    write(&store, &of_tenant, Some(&record)).await;
    // Blobs.
    let file = put(&store, "f", &content(30_000), &FilePolicy::DEFAULT).await.unwrap();
    let version = file.contents(&store.begin()).await.unwrap().remove(0);
    let held = version.blob.id;
    let chunk = key(&store, "blob_chunks", &(held, 1_u64));
    let bytes = value(&store, &chunk).await;
    write(&store, &chunk, Some(&bytes[1..])).await;
    assert_eq!(faults(&store).await, [Fault::Blob(BlobFault::Damaged)]);
    write(&store, &chunk, Some(&bytes)).await;
    let lost = key(&store, "blob_chunks", &(BlobId::new(), 0_u64));
    write(&store, &lost, Some(&bytes)).await;
    assert_eq!(faults(&store).await, [Fault::Blob(BlobFault::Lost)]);
    write(&store, &lost, None).await;
    let twice = &FileVersion { version: 7, ..version };
    store.run(|tx| async move { tx.insert(twice).await }).await.unwrap();
    assert!(faults(&store).await.contains(&Fault::Blob(BlobFault::HeldTwice)));
}
