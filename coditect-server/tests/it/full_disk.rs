//! A server on a disk that becomes full, and has space again: on a tmpfs, where this may mount one.

#![cfg(target_os = "linux")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    client::{Call, PATIENCE, call},
    folder::{self, Folder},
    process::{Process, on},
    signed_in_session::SignedInSession,
};

/// A tmpfs over a folder, unmounted in the end.
struct Tmpfs(Folder);

impl Tmpfs {
    fn new(mib: u32) -> Option<Self> {
        let mounted = Self(Folder::new());
        let size = format!("size={mib}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        if run("mount", &arguments, mounted.0.path()) {
            return Some(mounted);
        }
        folder::say_skipped("no file system can be mounted here");
        None
    }

    fn resize(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        assert!(run("mount", &["-o", &options], self.0.path()));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &["-q", "-l"], self.0.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let done = Command::new(program).args(arguments).arg(path).output();
    done.is_ok_and(|done| done.status.success())
}

#[tokio::test]
async fn server_on_a_full_disk_is_alive_and_read_only_and_recovers_by_itself() {
    if folder::is_about_the_folder() {
        return;
    }
    let Some(disk) = Tmpfs::new(64) else { return };
    let process = Process::start(on(&disk.0.path().join("data"), &[])).await;
    let session = SignedInSession::at(process.address, "ada@example.org").await;
    let put = async |number: u32| {
        let path = session.part(&format!("files/{number}"));
        let content = number.to_le_bytes().repeat(250_000);
        session.call(Call::put(&path).body(content)).await
    };
    let status = async |path: &str| {
        let answer = call(process.address, Call::get(path)).await;
        (answer.status, answer.json()["data"]["status"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(status("/readyz").await, (200, "ready".to_owned()));
    let mut stored = 0;
    let refused = loop {
        let answer = put(stored).await;
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 200, "the disk is never full");
    };
    assert_eq!(refused.status, 503, "{}", refused.code());
    assert!(refused.header("retry-after").is_some());
    assert!(stored > 5, "{stored} files fit");

    // No restart is asked for, reads are answered, and clients see which writes are not.
    assert_eq!(status("/healthz").await, (200, "alive".to_owned()));
    assert_eq!(status("/readyz").await, (200, "read-only".to_owned()));
    assert_eq!(status("/api/v5/health").await.0, 200);
    for number in 0..stored {
        let read = session.get(&format!("files/{number}")).await;
        assert_eq!((read.status, read.body), (200, number.to_le_bytes().repeat(250_000)));
    }

    disk.resize(256);
    let started = Instant::now();
    while put(stored).await.status != 201 {
        assert!(started.elapsed() < PATIENCE, "it does not recover");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status("/readyz").await, (200, "ready".to_owned()));
    let ended = process.terminate().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("no space left"), "{}", ended.stderr);
    assert!(ended.stderr.contains("space is available again"), "{}", ended.stderr);
}
