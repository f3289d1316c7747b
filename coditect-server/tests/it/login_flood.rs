//! A flood of logins has bounded cost, and every request gets a response.

#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    account::{Device, LOGIN, PASSWORD, credentials},
    client::{Call, call},
    folder::Folder,
    process::{Process, on},
};

/// Memory of one Argon2 hash, in bytes.
const HASH_BYTES: usize = 19 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn login_flood_is_served_or_delayed_in_bounded_memory() {
    let folder = Folder::new();
    let process = Process::start(on(folder.path(), &["--trusted-proxy", "127.0.0.1"])).await;
    let server = process.address;
    Device::register(server, "ada@example.org").await;
    let before = process.peak_memory();

    let flood = tokio::spawn(join_all((0..200).map(move |number| async move {
        let login = credentials(LOGIN, &format!("{number}@example.org"), "?").from(number);
        call(server, login).await
    })));
    let mut slowest = Duration::ZERO;
    while !flood.is_finished() {
        let started = Instant::now();
        let health = call(server, Call::get("/api/v5/health")).await;
        assert_eq!(health.status, 200);
        slowest = slowest.max(started.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    let mut counts = BTreeMap::new();
    for answer in flood.await.unwrap() {
        match answer.status {
            401 => assert_eq!(answer.code(), "INVALID_CREDENTIALS"),
            503 => assert!(answer.code() == "BUSY" && answer.header("retry-after") == Some("1")),
            other => panic!("{other}: {}", answer.json()),
        }
        *counts.entry(answer.status).or_insert(0) += 1;
    }
    assert!(counts.contains_key(&401) && counts.contains_key(&503), "{counts:?}");
    assert!(slowest < Duration::from_secs(5), "health took {slowest:?}");
    // One hash per core, plus the other memory of two hundred requests.
    let permits = available_parallelism().unwrap().get();
    let grown = process.peak_memory() - before;
    assert!(grown <= permits * HASH_BYTES + (48 << 20), "{grown} bytes more");
    Device::of(&call(server, credentials(LOGIN, "ada@example.org", PASSWORD)).await);
    process.terminate().await;
}
