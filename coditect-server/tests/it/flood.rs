//! A flood of sign-ins: what it costs is bounded, and everybody gets an answer.

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

/// Argon2's memory for one hash, in bytes.
const HASH_BYTES: usize = 19 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_sign_ins_at_once_are_answered_or_told_to_come_back_in_bounded_memory() {
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
    // As many hashes at once as there are cores, and what two hundred requests take beside.
    let permits = available_parallelism().unwrap().get();
    let grown = process.peak_memory() - before;
    assert!(grown <= permits * HASH_BYTES + (48 << 20), "{grown} bytes more");
    Device::of(&call(server, credentials(LOGIN, "ada@example.org", PASSWORD)).await);
    process.terminate().await;
}
