//! The real program on a data directory, as a process that a test can end in any way.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{client::PATIENCE, folder};

/// A running program, killed on drop.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
    /// Read continuously, since a full pipe would block the log.
    stderr: JoinHandle<String>,
}

/// Exit status and output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Returns a command that serves `folder` on a free port.
pub(crate) fn on(folder: &Path, flags: &[&str]) -> Command {
    let mut command = program(&["--listen", "127.0.0.1:0"], folder);
    command.args(flags);
    command
}

/// Returns a command of the program on `folder`, with `front` as its first arguments.
pub(crate) fn program(front: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-server"));
    if folder::is_on_cluster() {
        command.env("CODITECT_CLUSTER_PREFIX", folder::prefix_of(folder));
    }
    command
        .args(front)
        .args(["--data", folder.to_str().unwrap()])
        .env_remove("CODITECT_MASTER_KEY")
        .env_remove("CODITECT_NEW_MASTER_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Process {
    /// Starts it and waits for its address.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut told = Vec::new();
            let _closed = pipe.read_to_end(&mut told).await;
            String::from_utf8_lossy(&told).into_owned()
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, stdout.next_line()).await.expect("a first line in time");
        let Some(line) = line.unwrap() else { panic!("{}", stderr.await.unwrap()) };
        let address = line.rsplit_once("://").unwrap().1.parse().unwrap();
        Self { address, child, stderr }
    }

    /// Returns the peak memory, in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// Kills it, like a power cut as far as a process is concerned.
    pub(crate) async fn kill(mut self) -> Ended {
        self.child.start_kill().unwrap();
        self.ended().await
    }

    /// Sends SIGHUP.
    pub(crate) async fn hang_up(&self) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-HUP", &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Terminates it.
    pub(crate) async fn terminate(self) -> Ended {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(sent.unwrap().success());
        self.ended().await
    }

    async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("an end in time");
        Ended { status: status.unwrap(), stderr: self.stderr.await.unwrap() }
    }
}

/// Runs a program that must refuse to start.
pub(crate) async fn refused(mut command: Command) -> Ended {
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{stderr}");
    Ended { status: output.status, stderr }
}
