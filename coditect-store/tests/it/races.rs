//! Concurrent writers: exactly one succeeds.

use coditect_store::{Error, ErrorKind, Store, keyspace::Global};

use crate::planner::{Task, TaskNumber, store, store_with, task, tenant};

const WRITERS: u64 = 64;

/// Returns the results of `WRITERS` concurrent runs of `attempt`.
async fn race<Fut>(store: &Store, attempt: impl Fn(Store, u64) -> Fut) -> Vec<Result<(), Error>>
where
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let spawn = |writer| tokio::spawn(attempt(store.clone(), writer));
    let running: Vec<_> = (1..=WRITERS).map(spawn).collect();
    let mut outcomes = Vec::new();
    for writer in running {
        outcomes.push(writer.await.unwrap());
    }
    outcomes
}

fn one_wins(outcomes: &[Result<(), Error>], others: ErrorKind) {
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(lost.clone().all(|error| error.kind() == others), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_inserts_of_a_unique_value_succeeds() {
    let store = store().await;
    let outcomes = race(&store, |store, writer| async move {
        let task =
            &Task { tenant: tenant(writer.into()), ticket: Some("T-1".into()), ..task(writer) };
        store.run(|tx| async move { tx.insert(task).await }).await
    });
    one_wins(&outcomes.await, ErrorKind::UniqueViolation("planner_tasks_by_ticket"));
    let days = store.begin().scan(&Task::BY_DAY, Global, ..).all(100).await.unwrap();
    assert_eq!(days.len(), 1, "nothing of the others is left");
}

/// `CODITECT_RACE_ROUNDS` is the number of rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_each_round_one_writer_wins_and_the_index_matches_a_scan() {
    let rounds =
        std::env::var("CODITECT_RACE_ROUNDS").map_or(1_000, |rounds| rounds.parse().unwrap());
    let store = store().await;
    for round in 0..rounds {
        let value = &format!("T-{round}");
        let outcomes = race(&store, |store, writer| {
            let ticket = Some(value.clone());
            async move {
                let number = round * WRITERS + writer;
                let task = &Task { tenant: tenant(writer.into()), ticket, ..task(number) };
                store.run(|tx| async move { tx.insert(task).await }).await
            }
        });
        one_wins(&outcomes.await, ErrorKind::UniqueViolation("planner_tasks_by_ticket"));
    }
    let report = store.verify("planner_tasks_by_ticket").unwrap().run(|_| ()).await.unwrap();
    assert!(report.faults == 0, "{report:?}");
    let taken = store.begin().scan(&Task::BY_TICKET, Global, ..).page(200, None).await.unwrap();
    assert_eq!(taken.items.len() as u64, rounds.min(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_updates_to_a_unique_value_succeeds() {
    let tasks: Vec<Task> = (1..=WRITERS).map(task).collect();
    let store = store_with(&tasks).await;
    let outcomes = race(&store, |store, writer| async move {
        let task = &Task { slug: "wanted".into(), ..task(writer) };
        store.run(|tx| async move { tx.update(task).await }).await
    });
    one_wins(&outcomes.await, ErrorKind::UniqueViolation("planner_tasks_by_slug"));
    let slugs = store.begin().scan(&Task::BY_SLUG, tenant(1), ..).all(100).await.unwrap();
    assert_eq!(slugs.len(), tasks.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_inserts_of_a_record_succeeds() {
    let store = store().await;
    let outcomes = race(&store, |store, writer| async move {
        let task = &Task { slug: format!("slug-{writer}"), ..task(1) };
        store.run(|tx| async move { tx.insert(task).await }).await
    });
    one_wins(&outcomes.await, ErrorKind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_of_a_record_is_lost() {
    let store = store_with(&[task(1)]).await;
    let outcomes = race(&store, |store, _| async move {
        let add = |tx: coditect_store::Transaction| async move {
            let task = tx.get::<Task>(tenant(1), TaskNumber(1)).await?;
            let mut task = task.expect("nobody deletes it");
            task.day += 1;
            tx.update(&task).await
        };
        store.run(add).await
    });
    assert!(outcomes.await.iter().all(Result::is_ok));
    let days = store.begin().scan(&Task::BY_DAY, Global, ..).all(100).await.unwrap();
    assert_eq!(days.iter().map(|task| task.day).collect::<Vec<_>>(), [64]);
}

#[tokio::test]
async fn a_unique_value_taken_meanwhile_is_a_conflict() {
    let ticketed = |n| Task { tenant: tenant(n), ticket: Some("T-1".into()), ..task(1) };
    let store = store_with(&[Task { ticket: None, ..ticketed(3) }]).await;
    let (first, second, third) = (store.begin(), store.begin(), store.begin());
    first.insert(&ticketed(1)).await.unwrap();
    second.insert(&ticketed(2)).await.unwrap();
    third.update(&ticketed(3)).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(third.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn lookup_of_an_absent_value_conflicts_with_its_writer() {
    let store = store().await;
    let (reader, writer) = (store.begin(), store.begin());
    let found = reader.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap();
    assert_eq!(found, None);
    writer.insert(&Task { ticket: Some("T-1".into()), ..task(1) }).await.unwrap();
    writer.commit().await.unwrap();
    reader.insert(&task(2)).await.unwrap();
    assert_eq!(reader.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn page_conflicts_with_a_record_inserted_into_it() {
    let store = store_with(&[task(1), task(5)]).await;
    let (reader, writer) = (store.begin(), store.begin());
    let page = reader.scan(&Task::BY_OWNER, tenant(1), task(1).owner).page(9, None).await.unwrap();
    assert_eq!(page.items.len(), 2);
    reader.insert(&Task { tenant: tenant(2), ..task(1) }).await.unwrap();
    writer.insert(&task(3)).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(reader.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}
