//! Attacks, over HTTP, against the real program: each row of the table says what it tries, and who has
//! described it. None gets anywhere.
//!
//! What cannot be tried within a test's time (that no refresh moves the end of a session, say) is tried
//! over a store and a clock in `coditect-auth`'s own tests.

#![cfg(unix)]

mod accounts;
mod edge;
mod families;
mod files;
mod http;
mod jwt;
mod resources;
mod tenancy;
mod world;

use std::{collections::HashSet, pin::Pin, sync::Arc};

use self::world::World;

/// One attack.
struct Row {
    name: &'static str,
    /// Who describes it: an RFC, a rule of OWASP's ASVS 5, an advisory.
    source: &'static str,
    attempt: Attempt,
}

type Attempt = Box<dyn Fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn row<F, Fut>(name: &'static str, source: &'static str, attempt: F) -> Row
where
    F: Fn(Arc<World>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Row { name, source, attempt: Box::new(move |world| Box::pin(attempt(world))) }
}

/// The attacks that the table has at the least.
const LEAST: usize = 70;

#[test]
fn the_table_is_as_long_as_it_is_to_be_and_names_its_sources() {
    let areas = [
        jwt::rows(),
        families::rows(),
        accounts::rows(),
        http::rows(),
        edge::rows(),
        tenancy::rows(),
        resources::rows(),
        files::rows(),
    ];
    let rows: Vec<Row> = areas.into_iter().flatten().collect();
    let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a name is there twice");
    assert!(rows.iter().all(|row| row.source.len() > 4));
    assert!(rows.len() >= LEAST, "{}", rows.len());
}

/// Tries all of them, and tells of all that got anywhere.
async fn attempt_all(rows: Vec<Row>) {
    let world = Arc::new(World::new().await);
    let mut succeeded = Vec::new();
    for Row { name, source, attempt } in rows {
        if let Err(error) = tokio::spawn(attempt(Arc::clone(&world))).await {
            succeeded.push(format!("{name} ({source}): {error}"));
        }
    }
    world.stop().await;
    assert!(succeeded.is_empty(), "{}", succeeded.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_access_token_is_forged() {
    attempt_all(jwt::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_refresh_token_is_stolen_and_no_owner_is_logged_out() {
    attempt_all(families::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_account_is_taken_or_found_out() {
    attempt_all(accounts::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_understood_in_two_ways() {
    attempt_all(http::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_chooses_its_address_or_its_parser() {
    attempt_all(edge::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_takes_more_than_is_its_due() {
    attempt_all(resources::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_is_lost_and_no_disk_is_taken_uncounted() {
    attempt_all(files::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_sees_another() {
    attempt_all(tenancy::rows()).await;
}
