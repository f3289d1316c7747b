//! Attacks over HTTP on the real program. Each row of the table has the attempt and its source;
//! none succeeds.
//!
//! Attacks that take longer than a test (a refresh that extends a session beyond its end, for
//! example) are tested with a controlled clock in `coditect-auth`.

mod accounts;
mod credentials;
mod edge;
mod families;
mod files;
mod http;
mod jwt;
mod memberships;
mod resources;
mod tenancy;
mod test_server;

use std::{collections::HashSet, pin::Pin, sync::Arc};

use self::test_server::TestServer;

/// An attack.
struct Row {
    name: &'static str,
    /// Source: an RFC, a rule of OWASP ASVS 5, an advisory.
    source: &'static str,
    attempt: Attempt,
}

type Attempt =
    Box<dyn Fn(Arc<TestServer>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn row<F, Fut>(name: &'static str, source: &'static str, attempt: F) -> Row
where
    F: Fn(Arc<TestServer>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Row { name, source, attempt: Box::new(move |env| Box::pin(attempt(env))) }
}

/// Minimum number of attacks in the table.
const LEAST: usize = 125;

#[test]
fn table_is_complete_and_has_sources() {
    let areas = [
        jwt::rows(),
        families::rows(),
        accounts::rows(),
        credentials::rows(),
        http::rows(),
        edge::rows(),
        tenancy::rows(),
        memberships::rows(),
        resources::rows(),
        files::rows(),
    ];
    let rows: Vec<Row> = areas.into_iter().flatten().collect();
    let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a name is there twice");
    assert!(rows.iter().all(|row| row.source.len() > 4));
    assert!(rows.len() >= LEAST, "{}", rows.len());
}

/// Attempts all attacks and reports every success.
async fn attempt_all(rows: Vec<Row>) {
    let env = Arc::new(TestServer::new().await);
    let mut succeeded = Vec::new();
    for Row { name, source, attempt } in rows {
        if let Err(error) = tokio::spawn(attempt(Arc::clone(&env))).await {
            succeeded.push(format!("{name} ({source}): {error}"));
        }
    }
    env.stop().await;
    assert!(succeeded.is_empty(), "{}", succeeded.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_access_token_is_forged() {
    attempt_all(jwt::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_refresh_token_is_stolen_and_no_owner_is_signed_out() {
    attempt_all(families::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_account_is_taken_over_or_enumerated() {
    attempt_all(accounts::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_factor_or_personal_token_gives_more_than_its_right() {
    attempt_all(credentials::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_ambiguous() {
    attempt_all(http::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_chooses_its_address_or_its_parser() {
    attempt_all(edge::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_exceeds_its_resources() {
    attempt_all(resources::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_is_lost_and_no_disk_space_is_uncounted() {
    attempt_all(files::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_isolated() {
    attempt_all(tenancy::rows()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_its_right_or_leaves_no_trace() {
    attempt_all(memberships::rows()).await;
}
