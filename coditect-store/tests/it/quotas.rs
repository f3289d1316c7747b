//! Quotas: counting, rejection, and limits under concurrency.

use coditect_store::{
    Counter, Error, ErrorKind, Store, Transaction,
    engine::RangeQuery,
    model::{ClientState, JsonText, SessionMemory, StateQuota},
    retry::RetryPolicy,
};
use proptest::prelude::*;

use crate::{
    planner::{store, tenant},
    samples,
};

const FILES: Counter = Counter::FILES;

async fn count(store: &Store) -> i64 {
    store.begin().counter(tenant(1), FILES).await.unwrap()
}

async fn charge(store: &Store, amount: i64, limit: i64) -> Result<(), Error> {
    let policy = RetryPolicy::default().max_attempts(100_000);
    let charge = |tx: Transaction| async move { tx.charge(tenant(1), FILES, amount, limit).await };
    store.run_with(&policy, charge).await
}

#[tokio::test]
async fn a_counter_is_charged_up_to_its_limit_and_released() {
    let store = store().await;
    assert_eq!(count(&store).await, 0);
    for expected in 1..=10 {
        charge(&store, 1, 10).await.unwrap();
        assert_eq!(count(&store).await, expected);
    }
    let error = charge(&store, 1, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded("files"));
    charge(&store, 0, 10).await.unwrap();
    let release = |tx: Transaction| async move { tx.release(tenant(1), FILES, 4) };
    store.run(release).await.unwrap();
    assert_eq!(charge(&store, 5, 10).await.unwrap_err().kind(), ErrorKind::QuotaExceeded("files"));
    charge(&store, 4, 10).await.unwrap();
    assert_eq!(count(&store).await, 10);
    let tx = store.begin();
    assert_eq!(tx.counter(tenant(2), FILES).await.unwrap(), 0);
    assert_eq!(tx.counter(tenant(1), Counter::BYTES).await.unwrap(), 0);
}

#[tokio::test]
async fn rejected_charge_adds_nothing_and_the_transaction_continues() {
    let store = store().await;
    let tx = store.begin();
    let own = tenant(1);
    tx.charge(own, FILES, 3, 10).await.unwrap();
    assert_eq!(tx.counter(own, FILES).await.unwrap(), 3, "it sees its own");
    for amount in [8, i64::MAX] {
        let error = tx.charge(own, FILES, amount, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded("files"));
    }
    assert_eq!(tx.charge(own, FILES, -1, 10).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(tx.release(own, FILES, i64::MIN).unwrap_err().kind(), ErrorKind::Invalid);
    tx.charge(own, FILES, 7, 10).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&store).await, 10);
}

#[tokio::test]
async fn charges_far_below_the_limit_do_not_conflict() {
    let store = store().await;
    let open: Vec<Transaction> = (0..64).map(|_| store.begin()).collect();
    for tx in &open {
        tx.charge(tenant(1), FILES, 1, 1_000).await.unwrap();
    }
    for tx in open {
        tx.commit().await.unwrap();
    }
    assert_eq!(count(&store).await, 64);
}

#[tokio::test]
async fn concurrent_charges_never_exceed_the_limit() {
    for limit in [1, 2, 3, 10, 129, 200] {
        let store = store().await;
        let open: Vec<Transaction> = (0..400).map(|_| store.begin()).collect();
        for tx in &open {
            tx.charge(tenant(1), FILES, 1, limit).await.unwrap();
        }
        for tx in open {
            if let Err(error) = tx.commit().await {
                // On a distant cluster the last ones are too old.
                assert!(
                    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::TransactionTooOld),
                    "{error}"
                );
            }
            assert!(count(&store).await <= limit);
        }
    }
}

#[tokio::test]
async fn one_slot_is_not_charged_twice_by_one_transaction() {
    const LIMIT: i64 = 128;
    let store = store().await;
    charge(&store, 60, LIMIT).await.unwrap();
    let open: Vec<Transaction> = (0..64).map(|_| store.begin()).collect();
    // Slots are assigned round-robin: without this each would get its own a second time.
    for tx in open.iter().chain(&open) {
        tx.charge(tenant(1), FILES, 1, LIMIT).await.unwrap();
    }
    for tx in open {
        if let Err(error) = tx.commit().await {
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        assert!(count(&store).await <= LIMIT);
    }
}

#[tokio::test]
async fn slots_leave_no_key_behind() {
    let store = store().await;
    for _ in 0..20 {
        charge(&store, 1, 20).await.unwrap();
    }
    let tx = store.begin();
    let range = store.root().tenant(tenant(1));
    let rows = tx.engine().get_range(&RangeQuery::new(range.begin, range.end)).await.unwrap().rows;
    let key = store.root().key(&(tenant(1), ("counters".to_owned(), "files".to_owned())));
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].key, rows[0].value.as_slice()), (&key, 20_i64.to_le_bytes().as_slice()));
    tx.engine().set(&key, b"seven");
    assert_eq!(tx.counter(tenant(1), FILES).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_charges_fill_the_quota_exactly() {
    const LIMIT: i64 = 100;
    let store = store().await;
    let enter = |_| {
        let store = store.clone();
        tokio::spawn(async move { charge(&store, 1, LIMIT).await })
    };
    let running: Vec<_> = (0..160).map(enter).collect();
    let mut entered = 0;
    for one in running {
        match one.await.unwrap() {
            Ok(()) => entered += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::QuotaExceeded("files")),
        }
        assert!(count(&store).await <= LIMIT);
    }
    assert_eq!((entered, count(&store).await), (LIMIT, LIMIT));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Charge(usize, i64),
    Release(usize, i64),
    Commit(usize),
}

/// Runs `steps` in several open transactions.
async fn interleave(limit: i64, steps: Vec<Step>) {
    let store = store().await;
    let mut open: Vec<(Transaction, i64)> = (0..6).map(|_| (store.begin(), 0)).collect();
    let mut expected = 0;
    for step in steps {
        match step {
            Step::Charge(at, amount) => {
                let (tx, sum) = &mut open[at];
                match tx.charge(tenant(1), FILES, amount, limit).await {
                    Ok(()) => *sum += amount,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::QuotaExceeded("files")),
                }
            }
            Step::Release(at, amount) => {
                let (tx, sum) = &mut open[at];
                tx.release(tenant(1), FILES, amount).unwrap();
                *sum -= amount;
            }
            Step::Commit(at) => {
                let (tx, sum) = std::mem::replace(&mut open[at], (store.begin(), 0));
                match tx.commit().await {
                    Ok(()) => expected += sum,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                }
                assert_eq!(count(&store).await, expected);
                assert!(expected <= limit, "{expected} of {limit}");
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = prop_oneof![4 => Just(1_i64), 1 => 0..5_i64];
    let step = prop_oneof![
        4 => (0..6_usize, amount.clone()).prop_map(|(at, amount)| Step::Charge(at, amount)),
        1 => (0..6_usize, amount).prop_map(|(at, amount)| Step::Release(at, amount)),
        3 => (0..6_usize).prop_map(Step::Commit),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_interleaving_exceeds_the_limit(limit in 0..16_i64, steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(interleave(limit, steps));
    }
}

#[tokio::test]
async fn memory_and_client_state_count_towards_the_tenants_bytes() {
    let store = store().await;
    let session = &samples::session();
    let (tenant, id, now) = (session.tenant_id, session.id, session.created_at);
    store.run(|tx| async move { session.insert(&tx, 10).await }).await.unwrap();
    let bytes = async || store.begin().counter(tenant, Counter::BYTES).await.unwrap();
    let text = |length| JsonText::from(&serde_json::Value::from("x".repeat(length)));
    let remember = async |key: &str, length, quota: &StateQuota| {
        let memory =
            &SessionMemory { key: key.into(), value: text(length), ..samples::session_memory() };
        store.run(|tx| async move { memory.save(&tx, quota).await }).await
    };
    let quota = StateQuota { memory_bytes: 1_000, client_bytes: 500, tenant_bytes: 1_200 };
    remember("a", 600, &quota).await.unwrap();
    let entry_bytes = SessionMemory::entry_bytes("a", &text(600));
    assert_eq!(bytes().await, i64::try_from(entry_bytes).unwrap());
    let more = remember("b", 600, &quota).await.unwrap_err();
    assert_eq!(more.kind(), ErrorKind::Limit);

    let keep = async |length| {
        let (of, quota) = ((tenant, id), &quota);
        store
            .run(|tx| async move {
                ClientState::save(&tx, of, ("k", vec![7; length]), quota, now).await
            })
            .await
    };
    let before = bytes().await;
    keep(300).await.unwrap();
    assert_eq!(bytes().await, before + 301);
    let more = keep(250).await.unwrap_err();
    assert_eq!(more.kind(), ErrorKind::QuotaExceeded("client_state_bytes"));
    remember("b", 200, &quota).await.unwrap();
    let more = keep(150).await.unwrap_err();
    assert_eq!(more.kind(), ErrorKind::QuotaExceeded("bytes"));
    remember("b", 1, &quota).await.unwrap();
    keep(150).await.unwrap();
    // Smaller ones replace the first, which no longer counts.
    for _ in 0..4 {
        keep(1).await.unwrap();
    }

    let deletion = store.run(|tx| async move { tx.delete_session(tenant, id, now).await });
    store.resume_deletion(&deletion.await.unwrap().unwrap()).await.unwrap();
    assert_eq!(bytes().await, 0);
}
