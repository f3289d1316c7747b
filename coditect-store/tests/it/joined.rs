//! Joined calls of one transaction have the effect of sequential calls.

use coditect_store::{
    BlobUpload, Clock, Counter, Error, ErrorKind, Store, Transaction,
    engine::{Database, Options},
    keyspace::Global,
    model::{Message, MessageId, OrphanBlob, Tenant},
};
use futures_util::{
    FutureExt as _,
    future::{join, join_all},
};

use crate::{
    planner::{Holiday, Task, TaskNumber, task, tenant},
    samples,
};

/// A store whose joined reads overlap, as on a cluster.
async fn store() -> Store {
    let options = Options::default().simulate_round_trips(true);
    let database = Database::temporary_with(&options).unwrap();
    let store = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Task>()
        .entity::<Holiday>()
        .open(database)
        .await
        .unwrap();
    let fill = async |tx: Transaction| {
        for of in 1..=2 {
            tx.insert(&Tenant { id: tenant(of), ..samples::tenant() }).await?;
        }
        for number in 1..=3 {
            tx.insert(&task(number)).await?;
        }
        tx.commit().await
    };
    fill(store.begin()).await.unwrap();
    store
}

async fn is_sound(store: &Store) {
    let mut findings = Vec::new();
    let observe = |event: coditect_store::check::Event<'_>| {
        if let coditect_store::check::Event::Found(found) = event {
            findings.push(found.to_string());
        }
    };
    store.check().run(observe).await.unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

fn kinds<const N: usize>(outcomes: [Result<(), Error>; N]) -> Vec<Option<ErrorKind>> {
    outcomes.into_iter().map(|outcome| outcome.err().map(|error| error.kind())).collect()
}

#[tokio::test]
async fn joined_creates_take_a_unique_value_once() {
    let store = store().await;
    let tx = store.begin();
    let (one, other) = (task(10), Task { slug: "task-10".into(), ..task(11) });
    let outcomes: [_; 2] = join(tx.insert(&one), tx.insert(&other)).await.into();
    assert_eq!(kinds(outcomes), [None, Some(ErrorKind::UniqueViolation("planner_tasks_by_slug"))]);
    // In a global index as well.
    let ticket = Some("T-1".to_owned());
    let (one, other) = (Task { ticket: ticket.clone(), ..task(12) }, Task { ticket, ..task(13) });
    let other = Task { tenant: tenant(2), ..other };
    let outcomes: [_; 2] = join(tx.insert(&one), tx.insert(&other)).await.into();
    assert_eq!(
        kinds(outcomes),
        [None, Some(ErrorKind::UniqueViolation("planner_tasks_by_ticket"))]
    );
    tx.commit().await.unwrap();
    let tx = store.begin();
    let found = tx.find(&Task::BY_SLUG, tenant(1), "task-10".to_owned()).await.unwrap().unwrap();
    assert_eq!(found.number, TaskNumber(10));
    assert_eq!(tx.list::<Task>(tenant(2)).page(9, None).await.unwrap().items, []);
    is_sound(&store).await;
}

#[tokio::test]
async fn joined_writes_of_one_record_leave_no_entry_behind() {
    let store = store().await;
    let tx = store.begin();
    let day = |number, day| Task { day, slug: format!("{number}-{day}"), ..task(number) };
    let (a, b) = (day(20, 1), day(20, 2));
    let outcomes: [_; 2] = join(tx.insert(&a), tx.insert(&b)).await.into();
    assert_eq!(kinds(outcomes), [None, Some(ErrorKind::AlreadyExists)]);
    let (a, b) = (day(1, 1), day(1, 2));
    let outcomes: [_; 2] = join(tx.update(&a), tx.update(&b)).await.into();
    assert_eq!(kinds(outcomes), [None, None]);
    let (a, b) = (day(21, 1), day(21, 2));
    let outcomes: [_; 2] = join(tx.upsert(&a), tx.upsert(&b)).await.into();
    assert_eq!(kinds(outcomes), [None, None]);
    let add = || tx.modify::<Task>(tenant(1), TaskNumber(2), |task| task.day += 1);
    let added = join_all((0..5).map(|_| add())).await;
    let days: Vec<_> = added.into_iter().map(|task| task.unwrap().day).collect();
    assert_eq!(days.iter().max(), Some(&5), "no change is lost: {days:?}");
    let delete = || tx.delete::<Task>(tenant(1), TaskNumber(3));
    let (first, second) = join(delete(), delete()).await;
    assert!(first.unwrap().is_some() && second.unwrap().is_none());
    tx.commit().await.unwrap();
    is_sound(&store).await;
}

#[tokio::test]
async fn joined_updates_take_a_unique_value_once_and_others_run_together() {
    let store = store().await;
    let tx = store.begin();
    let (a, b) = (Task { slug: "new".into(), ..task(1) }, Task { slug: "new".into(), ..task(2) });
    let (unrelated, holiday) = (task(30), Holiday { name: "h".into(), country: "c".into() });
    let of_others = join(tx.insert(&unrelated), tx.insert(&holiday));
    let ((one, other), (unrelated, holiday)) =
        join(join(tx.update(&a), tx.update(&b)), of_others).await;
    assert_eq!(kinds([unrelated, holiday]), [None, None]);
    assert_eq!(
        kinds([one, other]),
        [None, Some(ErrorKind::UniqueViolation("planner_tasks_by_slug"))]
    );
    tx.commit().await.unwrap();
    is_sound(&store).await;
    assert!(store.begin().get::<Holiday>(Global, "h".to_owned()).await.unwrap().is_some());
}

#[tokio::test]
async fn joined_changes_of_a_stream_leave_no_stale_entry() {
    let store = store().await;
    let message = samples::message();
    let fill = |tx: Transaction| async move {
        samples::write(&tx).await;
        Ok::<_, Error>(())
    };
    store.run(fill).await.unwrap();
    let (of, conversation) = (message.tenant_id, message.conversation_id);
    let tx = store.begin();
    let page = tx.events::<Message>(of, conversation, ..).page(1, None).await.unwrap();
    let position = page.items[0].position;
    let renamed = || Message { id: MessageId::new(), ..page.items[0].record.clone() };
    let (a, b) = (renamed(), renamed());
    let outcomes: [_; 2] =
        join(tx.update_event(position, &a), tx.update_event(position, &b)).await.into();
    assert_eq!(kinds(outcomes), [None, None]);
    for id in [a.id, b.id, page.items[0].record.id] {
        let found = tx.find_event(&Message::BY_ID, of, id).await.unwrap();
        assert_eq!(found.is_some(), id == b.id);
    }
    let (first, second) = join(
        tx.remove_event::<Message>(of, conversation, position),
        tx.remove_event::<Message>(of, conversation, position),
    )
    .await;
    assert_eq!((first.unwrap(), second.unwrap()), (Some(b), None));
}

#[tokio::test]
async fn joined_charges_do_not_exceed_the_limit() {
    let store = store().await;
    for limit in [3_u8, 10, 100] {
        let (tx, of, most) = (store.begin(), tenant(u128::from(limit)), i64::from(limit));
        let charges = (0..2 * limit).map(|_| tx.charge(of, Counter::FILES, 1, most));
        let refused = join_all(charges).await.into_iter().filter(Result::is_err).count();
        assert_eq!(refused, usize::from(limit));
        assert_eq!(tx.counter(of, Counter::FILES).await.unwrap(), most);
    }
}

#[tokio::test]
async fn joined_attachments_attach_a_blob_once() {
    let store = store().await;
    let upload = BlobUpload::begin(&store, tenant(1), &Clock::system()).await.unwrap();
    let blob = upload.finish().await.unwrap();
    let tx = store.begin();
    let attach = || tx.attach(tenant(1), &blob);
    let outcomes: [_; 2] = join(attach(), attach()).await.into();
    assert_eq!(kinds(outcomes), [None, Some(ErrorKind::NotFound)]);
    tx.commit().await.unwrap();
    assert!(store.begin().get::<OrphanBlob>(tenant(1), blob.id).await.unwrap().is_none());
}

#[tokio::test]
async fn dropped_call_holds_nothing() {
    let store = store().await;
    let tx = store.begin();
    let (one, other) = (task(10), Task { slug: "task-10".into(), ..task(11) });
    {
        let mut creating = Box::pin(tx.insert(&one));
        assert!(creating.as_mut().now_or_never().is_none());
    }
    tx.insert(&other).await.unwrap();
    tx.commit().await.unwrap();
    is_sound(&store).await;
}
