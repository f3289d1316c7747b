//! Single records: writes, errors, lookups, and what remains.

use coditect_store::{
    ErrorKind, Revision, Transaction,
    engine::{KEY_SIZE_LIMIT, VALUE_SIZE_LIMIT},
    entity::hours_over,
    keyspace::Global,
    model::{AuthSession, Session, Tenant, User},
};

use crate::{
    planner::{Holiday, Task, TaskNumber, store, store_with, task, tenant},
    samples,
};

fn ticketed(number: u64, ticket: &str) -> Task {
    Task { ticket: Some(ticket.to_owned()), ..task(number) }
}

async fn numbers(tx: &Transaction) -> Vec<u64> {
    let tasks = tx.list::<Task>(tenant(1)).all(100).await.unwrap();
    tasks.iter().map(|task| task.number.0).collect()
}

#[tokio::test]
async fn record_exists_from_its_insert_to_its_delete() {
    let store = store().await;
    let record = &task(7);
    store.run(|tx| async move { tx.insert(record).await }).await.unwrap();

    let tx = store.begin();
    assert_eq!(tx.get::<Task>(tenant(1), TaskNumber(7)).await.unwrap().as_ref(), Some(record));
    assert_eq!(tx.get::<Task>(tenant(1), TaskNumber(8)).await.unwrap(), None);
    assert_eq!(tx.get::<Task>(tenant(2), TaskNumber(7)).await.unwrap(), None);

    assert_eq!(tx.delete::<Task>(tenant(1), TaskNumber(7)).await.unwrap().as_ref(), Some(record));
    assert_eq!(tx.delete::<Task>(tenant(1), TaskNumber(7)).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(store.begin().get::<Task>(tenant(1), TaskNumber(7)).await.unwrap(), None);
}

#[tokio::test]
async fn every_entity_of_the_product_round_trips() {
    let store = store().await;
    let tx = store.begin();
    tx.insert(&samples::tenant()).await.unwrap();
    tx.insert(&samples::user()).await.unwrap();
    tx.insert(&samples::auth_session()).await.unwrap();
    tx.insert(&samples::session()).await.unwrap();
    tx.commit().await.unwrap();

    let tx = store.begin();
    let tenant = samples::tenant();
    let (user, login, session) = (samples::user(), samples::auth_session(), samples::session());
    assert_eq!(tx.get::<Tenant>(tenant.id, ()).await.unwrap().as_ref(), Some(&tenant));
    assert_eq!(tx.get::<User>(tenant.id, user.id).await.unwrap().as_ref(), Some(&user));
    assert_eq!(tx.get::<AuthSession>(tenant.id, login.id).await.unwrap().as_ref(), Some(&login));
    assert_eq!(tx.get::<Session>(tenant.id, session.id).await.unwrap().as_ref(), Some(&session));

    let by_email = tx.find(&User::BY_EMAIL, Global, &user.email_normalized).await.unwrap();
    assert_eq!(by_email, Some(user.clone()));
    let by_family = tx.find(&AuthSession::BY_FAMILY, Global, login.token_family).await.unwrap();
    assert_eq!(by_family, Some(login.clone()));
    let of_user = tx.scan(&Session::BY_USER, tenant.id, user.id).all(10).await.unwrap();
    assert_eq!(of_user, std::slice::from_ref(&session));
    let there = tx.scan(&Session::BY_WORKSPACE, tenant.id, "/workspace/p").all(10).await.unwrap();
    assert_eq!(there, [session]);

    let logins = || tx.scan(&AuthSession::BY_USER, tenant.id, (user.id, user.login_epoch));
    assert_eq!(logins().all(10).await.unwrap(), [], "it was revoked");
    let live = AuthSession { revocation: None, ..login.clone() };
    tx.update(&live).await.unwrap();
    assert_eq!(logins().all(10).await.unwrap(), [live]);
    tx.update(&login).await.unwrap();
    let swept = |now| {
        let tx = tx.clone();
        let ended = hours_over(now);
        async move { tx.scan(&AuthSession::BY_EXPIRY, Global, ended).all(10).await.unwrap() }
    };
    assert_eq!(swept(login.expires_at()).await, [], "it ends in the hour that has begun");
    assert_eq!(swept(login.expires_at() + chrono::TimeDelta::hours(1)).await, [login]);
}

#[tokio::test]
async fn taken_key_is_rejected() {
    let store = store_with(&[task(1)]).await;
    let again = Task { slug: "another".into(), ..task(1) };
    let error = store.begin().insert(&again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let elsewhere = Task { tenant: tenant(2), ..task(1) };
    store.begin().insert(&elsewhere).await.unwrap();
}

#[tokio::test]
async fn taken_unique_value_is_rejected_by_index_name() {
    let store = store_with(&[ticketed(1, "T-1")]).await;
    let tx = store.begin();

    let slug = Task { slug: "task-1".into(), ..task(2) };
    let error = tx.insert(&slug).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("planner_tasks_by_slug"));
    tx.insert(&Task { tenant: tenant(2), ..slug }).await.expect("the slug is free over there");

    let ticket = Task { tenant: tenant(3), ..ticketed(2, "T-1") };
    let error = tx.insert(&ticket).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::UniqueViolation("planner_tasks_by_ticket"),
        "over all tenants"
    );

    tx.insert(&task(3)).await.unwrap();
    let error = tx.update(&ticketed(3, "T-1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("planner_tasks_by_ticket"));
}

#[tokio::test]
async fn rejected_write_has_no_effect_and_the_transaction_continues() {
    let store = store_with(&[task(1)]).await;
    let tx = store.begin();
    tx.insert(&Task { slug: "task-1".into(), day: 9, ..task(2) }).await.unwrap_err();
    tx.update(&task(9)).await.unwrap_err();
    tx.insert(&task(3)).await.unwrap();
    tx.commit().await.unwrap();

    let tx = store.begin();
    assert_eq!(numbers(&tx).await, [1, 3]);
    assert_eq!(tx.scan(&Task::BY_DAY, Global, 9).all(9).await.unwrap(), []);
}

#[tokio::test]
async fn an_update_needs_a_record_to_be_there() {
    let error = store().await.begin().update(&task(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn update_keeps_its_unique_values_and_frees_former_ones() {
    let store = store_with(&[ticketed(1, "T-1")]).await;
    let tx = store.begin();
    tx.update(&Task { day: 5, ..ticketed(1, "T-1") }).await.unwrap();
    tx.update(&ticketed(1, "T-2")).await.unwrap();
    tx.insert(&ticketed(2, "T-1")).await.unwrap();
    tx.commit().await.unwrap();

    let tx = store.begin();
    let found = |ticket: &str| {
        let (tx, ticket) = (tx.clone(), ticket.to_owned());
        async move {
            let found = tx.find(&Task::BY_TICKET, Global, ticket).await.unwrap();
            found.map(|task| task.number.0)
        }
    };
    assert_eq!(found("T-1").await, Some(2));
    assert_eq!(found("T-2").await, Some(1));
    assert_eq!(found("T-3").await, None);
}

#[tokio::test]
async fn update_at_an_outdated_revision_is_rejected() {
    let store = store_with(&[task(1)]).await;
    let read =
        store.begin().get_versioned::<Task>(tenant(1), TaskNumber(1)).await.unwrap().unwrap();
    let etag: Revision = read.revision().to_string().parse().unwrap();
    let change = Task { day: 9, ..read.into_record() };

    let other = store.begin();
    other.modify::<Task>(tenant(1), TaskNumber(1), |task| task.day = 5).await.unwrap();
    other.commit().await.unwrap();

    let tx = store.begin();
    assert_eq!(tx.update_at(&change, etag).await.unwrap_err().kind(), ErrorKind::RevisionMismatch);
    let deleted = tx.delete_at::<Task>(tenant(1), TaskNumber(1), etag).await;
    assert_eq!(deleted.unwrap_err().kind(), ErrorKind::RevisionMismatch);
    assert_eq!(tx.scan(&Task::BY_DAY, Global, 5).all(9).await.unwrap().len(), 1, "as it was");

    let now = tx.get_versioned::<Task>(tenant(1), TaskNumber(1)).await.unwrap().unwrap();
    assert_eq!(now.day, 5);
    tx.update_at(&change, now.revision()).await.unwrap();
    let after = tx.get_versioned::<Task>(tenant(1), TaskNumber(1)).await.unwrap().unwrap();
    assert_ne!(after.revision(), now.revision(), "its own writes count");
    let deleted = tx.delete_at::<Task>(tenant(1), TaskNumber(1), after.revision()).await.unwrap();
    assert_eq!(deleted, change);
    let gone = tx.delete_at::<Task>(tenant(1), TaskNumber(1), after.revision()).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    let gone = tx.update_at(&change, after.revision()).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn revision_check_conflicts_with_a_concurrent_writer() {
    let store = store_with(&[task(1)]).await;
    let (first, second) = (store.begin(), store.begin());
    for (tx, day) in [(&first, 1), (&second, 2)] {
        let read = tx.get_versioned::<Task>(tenant(1), TaskNumber(1)).await.unwrap().unwrap();
        tx.update_at(&Task { day, ..task(1) }, read.revision()).await.unwrap();
    }
    first.commit().await.unwrap();
    assert_eq!(second.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_modified_record_moves_its_entries_and_keeps_its_key() {
    let store = store_with(&[ticketed(1, "T-1"), task(2)]).await;
    let tx = store.begin();
    let after = tx.modify::<Task>(tenant(1), TaskNumber(1), |task| task.ticket = None);
    assert_eq!(after.await.unwrap(), task(1));
    let taken = tx.modify::<Task>(tenant(1), TaskNumber(1), |of| of.slug = task(2).slug).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::UniqueViolation("planner_tasks_by_slug"));
    let moved = tx.modify::<Task>(tenant(1), TaskNumber(1), |task| task.number.0 = 7).await;
    assert_eq!(moved.unwrap_err().kind(), ErrorKind::Invalid);
    let missing = tx.modify::<Task>(tenant(1), TaskNumber(9), |_| ()).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    tx.insert(&ticketed(3, "T-1")).await.unwrap();
    assert_eq!(numbers(&tx).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_transaction_sees_its_own_records_and_entries() {
    let store = store().await;
    let tx = store.begin();
    tx.insert(&ticketed(1, "T-1")).await.unwrap();
    let found = tx.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap();
    assert_eq!(found, Some(ticketed(1, "T-1")));
    assert_eq!(tx.insert(&task(1)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    tx.delete::<Task>(tenant(1), TaskNumber(1)).await.unwrap();
    let found = tx.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap();
    assert_eq!(found, None);
}

#[tokio::test]
async fn global_record_is_in_the_global_scope() {
    let store = store().await;
    let tx = store.begin();
    let holiday = Holiday { name: "Midsummer".into(), country: "SE".into() };
    tx.insert(&holiday).await.unwrap();
    let found = tx.get::<Holiday>(Global, "Midsummer".to_owned()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&holiday));
    let there = tx.scan(&Holiday::BY_COUNTRY, Global, "SE").all(9).await.unwrap();
    assert_eq!(there, [holiday]);
}

#[tokio::test]
async fn a_record_over_the_engines_limits_is_refused_by_the_engine() {
    let store = store().await;
    let large_value = &Session { name: "n".repeat(VALUE_SIZE_LIMIT), ..samples::session() };
    let long_key = &Task { slug: "s".repeat(KEY_SIZE_LIMIT), ..task(1) };
    let error = store.run(|tx| async move { tx.insert(large_value).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Limit, Some(2103)));
    let error = store.run(|tx| async move { tx.insert(long_key).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Limit, Some(2102)));
}

#[tokio::test]
async fn an_entry_without_its_record_is_corruption() {
    let store = store_with(&[ticketed(1, "T-1")]).await;
    let tx = store.begin();
    let key = store.root().key(&(tenant(1), ("planner_tasks".to_owned(), 1_u64)));
    assert!(tx.engine().get(&key).await.unwrap().is_some());
    tx.engine().clear(&key);

    let found = tx.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    let scanned = tx.scan(&Task::BY_OWNER, tenant(1), task(1).owner).page(9, None).await;
    let error = scanned.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.to_string(), "index planner_tasks_by_owner has an entry without its record");
}

#[tokio::test]
async fn a_record_under_another_tenants_key_is_corruption() {
    let store = store_with(&[task(1)]).await;
    let tx = store.begin();
    let key = |n| store.root().key(&(tenant(n), ("planner_tasks".to_owned(), 1_u64)));
    let bytes = tx.engine().get(&key(1)).await.unwrap().unwrap();
    tx.engine().set(&key(2), &bytes);
    let got = tx.get::<Task>(tenant(2), TaskNumber(1)).await;
    assert_eq!(got.unwrap_err().kind(), ErrorKind::Corrupt);
    let listed = tx.list::<Task>(tenant(2)).page(9, None).await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Corrupt);
}
