//! Metrics: counters and durations of store operations.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use coditect_store::{
    Error, ErrorKind, Store, Transaction,
    engine::Database,
    entity::EventStream as _,
    model::{Message, Session, Tenant},
    telemetry,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::samples;

/// Counters by name and label, and the number of values of each histogram.
fn told(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    let values = all.map(|(key, _, _, value)| {
        let (_, key) = key.into_parts();
        let labels = key.labels().fold(String::new(), |all, label| all + " " + label.value());
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(value) => format!("{value}").parse().unwrap(),
        };
        (format!("{}{labels}", key.name().trim_start_matches("coditect_store_")), value)
    });
    values.collect()
}

/// Runs `work` on one thread, with a recorder of its own. Its result is kept until everything is
/// recorded.
fn recorded<Fut: Future>(work: impl FnOnce(Store) -> Fut) -> BTreeMap<String, u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(Store::open(Database::temporary().unwrap())).unwrap();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        let _given = runtime.block_on(work(store));
        told(&snapshotter)
    })
}

/// Returns the size of the record under `key`, in bytes.
async fn length(store: &Store, key: &[u8]) -> u64 {
    store.begin().engine().get(key).await.unwrap().unwrap().len() as u64
}

#[test]
fn commits_conflicts_and_retries_are_counted_as_they_were() {
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let told = recorded(|store| async move {
        let tenant = &samples::tenant();
        store.run(|tx| async move { tx.insert(tenant).await }).await.unwrap();
        // Another transaction commits in between, twice.
        let meddle = |tx: Transaction, store: Store, times: &'static AtomicU32| async move {
            let read = tx.get::<Tenant>(tenant.id, ()).await?.unwrap();
            if times.fetch_add(1, Ordering::Relaxed) < 2 {
                let other = store.begin();
                let change = |tenant: &mut Tenant| tenant.name.push('!');
                other.modify::<Tenant>(tenant.id, (), change).await?;
                other.commit().await?;
            }
            tx.update(&read).await
        };
        store.run(|tx| meddle(tx, store.clone(), &TIMES)).await.unwrap();
        let refused = store.run(|tx| async move { tx.insert(tenant).await }).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::AlreadyExists);
        store.begin().commit().await.unwrap();
    });
    let count = |name: &str| told.get(name).copied().unwrap_or_default();
    assert_eq!(count("commits_total conflict"), 2, "{told:?}");
    assert_eq!(count("commits_total committed"), 5, "{told:?}");
    assert_eq!(count("retries_total conflict"), 2);
    assert_eq!(count("transactions_total committed"), 2);
    assert_eq!(count("transactions_total refused"), 1);
    assert_eq!(count("transaction_attempts"), 3);
    assert_eq!(count("transaction_duration_seconds"), 3);
    assert_eq!(count("commit_duration_seconds"), 5);
    assert_eq!(count("transaction_rounds"), 5);
}

#[test]
fn pending_watches_fire() {
    let told = recorded(|store| async move {
        let mut waiting = Vec::new();
        for n in 0..3_u8 {
            let tx = store.begin();
            waiting.push(tx.engine().watch(&[n]).await.unwrap());
            tx.commit().await.unwrap();
        }
        waiting
    });
    assert_eq!(told.get("watches"), Some(&3), "{told:?}");
}

#[test]
fn bytes_are_counted_by_repository() {
    let lengths = std::sync::Mutex::new((0, 0));
    let told = recorded(|store| {
        let lengths = &lengths;
        async move {
            let (tenant, session, message) =
                (&samples::tenant(), &samples::session(), &samples::message());
            let write = |tx: Transaction| async move {
                tx.insert(tenant).await?;
                tx.insert(session).await?;
                tx.append(message).await?;
                Ok::<_, Error>(())
            };
            store.run(write).await.unwrap();
            let tx = store.begin();
            let scan = tx.scan(&Session::BY_USER, tenant.id, session.user_id);
            assert_eq!(scan.page(9, None).await.unwrap().items.len(), 1);
            tx.get::<Session>(tenant.id, session.id).await.unwrap().unwrap();
            let log = tx.events::<Message>(tenant.id, message.stream(), ..);
            let said = log.page(9, None).await.unwrap().items.remove(0);
            let prefix = (tenant.id, "messages".to_owned(), message.stream(), said.position);
            let of_message = length(&store, &store.root().key(&prefix)).await;
            let key = (tenant.id, "workspace_sessions".to_owned(), session.id);
            *lengths.lock().unwrap() = (length(&store, &store.root().key(&key)).await, of_message);
        }
    });
    let (session, message) = *lengths.lock().unwrap();
    let count = |name: &str| told.get(name).copied().unwrap_or_default();
    assert_eq!(count("written_records_total workspace_sessions"), 1, "{told:?}");
    assert_eq!(count("written_bytes_total workspace_sessions"), session);
    assert_eq!(count("read_records_total workspace_sessions"), 2);
    assert_eq!(count("read_bytes_total workspace_sessions"), 2 * session);
    assert_eq!(count("written_records_total messages"), 1);
    assert_eq!(count("written_bytes_total messages"), message);
    assert_eq!(count("read_bytes_total messages"), message);
    assert_eq!(count("written_records_total tenant"), 1);
}
