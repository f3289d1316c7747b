//! Update sequences of clients: no update is lost or applied twice.

use chrono::TimeDelta;
use coditect_store::{Clock, ErrorKind, Store, Transaction, model::ClientSequence};
use uuid::Uuid;

use crate::{planner::store, samples};

const CLIENT: &str = "tab-1";

async fn claim(store: &Store, connection: Uuid) -> coditect_store::Result<ClientSequence> {
    let of = (samples::tenant().id, samples::session().id);
    let now = Clock::system().now();
    let claim = |tx| async move { ClientSequence::claim(&tx, of, CLIENT, connection, now).await };
    store.run(claim).await
}

async fn advance(store: &Store, connection: Uuid, seq: u64) -> Option<u64> {
    let of = (samples::tenant().id, samples::session().id);
    let (now, by) = (Clock::system().now(), (CLIENT, connection));
    let advance = |tx| async move { ClientSequence::advance(&tx, of, by, (0, seq), now).await };
    store.run(advance).await.unwrap()
}

#[tokio::test]
async fn sequence_continues_for_the_newest_connection_only() {
    let store = store().await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(claim(&store, first).await.unwrap_err().kind(), ErrorKind::NotFound);
    let session = &samples::session();
    store.run(|tx| async move { tx.insert(session).await }).await.unwrap();

    assert_eq!(claim(&store, first).await.unwrap().seq, 0);
    assert_eq!(advance(&store, first, 3).await, Some(0));
    assert_eq!(advance(&store, first, 2).await, Some(3), "it never goes back");
    assert_eq!(claim(&store, second).await.unwrap().seq, 3);
    assert_eq!(advance(&store, first, 4).await, None, "another one speaks for the client");
    assert_eq!(advance(&store, second, 4).await, Some(3));
    assert_eq!(claim(&store, first).await.unwrap().seq, 4);
}

#[tokio::test]
async fn connection_idle_beyond_its_records_expiry_continues() {
    let store = store().await;
    let session = &samples::session();
    store.run(|tx| async move { tx.insert(session).await }).await.unwrap();
    let of = (samples::tenant().id, session.id);
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    claim(&store, first).await.unwrap();
    assert_eq!(advance(&store, first, 5).await, Some(0));
    let later = Clock::system().now() + TimeDelta::days(8);
    let key = (session.id, CLIENT.to_owned());
    let key = &key;
    let purge = |tx: Transaction| async move { tx.delete::<ClientSequence>(of.0, key).await };
    assert!(store.run(purge).await.unwrap().is_some());

    let by = (CLIENT, first);
    let resume = |tx| async move { ClientSequence::advance(&tx, of, by, (5, 6), later).await };
    assert_eq!(store.run(resume).await.unwrap(), Some(5));
    assert_eq!(claim(&store, second).await.unwrap().seq, 6);
    assert_eq!(store.run(resume).await.unwrap(), None);
}
