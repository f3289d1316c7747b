//! The operator's door of a running server: a socket in the data folder, for who owns that.
//!
//! One process at a time uses a data folder, so what an operator wants of the store of a running
//! server is asked of the server:
//!
//! ```text
//! > export\n            or  export TENANT\n
//! < ok\n                and the archive, to the end of the stream
//! > do TASK\n           a task with users or keys, in JSON
//! < ok\n                and the reply, in JSON, to the end of the stream
//! < error MESSAGE\n     if there will be none
//! ```
//!
//! What stays true: only the user that the server runs as, and root, are answered; requests are
//! served one after the other; a client that stops reading is left. An archive that the server could
//! not end has no end, and is refused by who reads it.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coditect_store::{Error, Store, model::TenantId};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{Instant, Sleep, sleep, timeout},
};

use super::protocol::{self, Task};
use crate::state::App;

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "control.sock";
/// How long a client may take to ask, and to read on.
const PATIENCE: Duration = Duration::from_secs(60);
/// No request is longer.
const REQUEST_BYTES: u64 = 64 << 10;
/// The pause after a failure to accept.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Control {
    /// Listens in `folder`, whose store the caller has open: a socket that is there was left behind.
    pub(crate) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Whoever comes in before this is asked who they are all the same.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Answers until the server begins to stop.
    pub(crate) async fn serve(self, app: Arc<App>) {
        let stopping = app.stopping().clone();
        let serving = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => self.answer(stream, &app).await,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an operator");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = serving => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn answer(&self, stream: UnixStream, app: &App) {
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0) {
            tracing::warn!("somebody else came to the operator's door");
            return;
        }
        let (from, to) = stream.into_split();
        let mut line = String::new();
        let mut from = BufReader::new(from.take(REQUEST_BYTES));
        let asked = timeout(PATIENCE, from.read_line(&mut line)).await;
        if !matches!(asked, Ok(Ok(_))) {
            return;
        }
        let mut to = Patient::new(to);
        let done = match Request::parse(&line) {
            Some(Request::Export(tenant)) => export(&app.store, tenant, &mut to).await,
            Some(Request::Do(task)) => perform(app, task, &mut to).await.map(|()| None),
            None => refuse(&mut to, "this is not understood").await.map(|()| None),
        };
        match done {
            Ok(Some(rows)) => tracing::info!(rows, "an operator has exported the store"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "an operator was not answered to the end"),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // One that stays behind is taken away by the next server.
        let _left = fs::remove_file(&self.path);
    }
}

/// What is asked for.
#[derive(Debug)]
enum Request {
    /// An archive of all, or of one tenant.
    Export(Option<TenantId>),
    /// A task.
    Do(Task),
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        if let Some(task) = line.strip_prefix("do ") {
            return serde_json::from_str(task).ok().map(Self::Do);
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["export"] => Some(Self::Export(None)),
            ["export", tenant] => tenant.parse().ok().map(|tenant| Self::Export(Some(tenant))),
            _ => None,
        }
    }
}

/// Writes the archive, and gives how many rows it has; none if it was refused.
async fn export<W: AsyncWrite + Unpin>(
    store: &Store,
    tenant: Option<TenantId>,
    to: &mut W,
) -> io::Result<Option<u64>> {
    let export = match tenant {
        None => store.export(),
        Some(tenant) => store.export().tenant(tenant),
    };
    // What fails before the first byte is told; after it there is only the end to be missed.
    let mut told = Told { to, said: false };
    let done = export.run(&mut told, |_| ()).await;
    let said = told.said;
    match done {
        Ok(summary) => to.shutdown().await.map(|()| Some(summary.rows)),
        Err(error) if !said => refuse(to, &error.to_string()).await.map(|()| None),
        Err(error) => Err(io::Error::other(Failed(error))),
    }
}

/// Does a task, and writes what came of it.
async fn perform<W: AsyncWrite + Unpin>(app: &App, task: Task, to: &mut W) -> io::Result<()> {
    match protocol::perform(&app.auth, &app.store, &app.config.place.data, task).await {
        Ok(reply) => {
            let reply = serde_json::to_string(&reply).map_err(io::Error::other)?;
            to.write_all(format!("ok\n{reply}\n").as_bytes()).await?;
            to.shutdown().await
        }
        Err(error) => {
            let mut told = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                told.push_str(": ");
                told.push_str(&error.to_string());
                cause = error.source();
            }
            refuse(to, &told).await
        }
    }
}

async fn refuse<W: AsyncWrite + Unpin>(to: &mut W, why: &str) -> io::Result<()> {
    to.write_all(format!("error {why}\n").as_bytes()).await?;
    to.shutdown().await
}

/// Why an export has not ended.
#[derive(Debug, thiserror::Error)]
#[error("the export failed")]
struct Failed(#[source] Error);

/// Says `ok` before the first byte.
struct Told<'a, W> {
    to: &'a mut W,
    said: bool,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Told<'_, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.said {
            const OK: &[u8] = b"ok\n";
            let said = std::task::ready!(Pin::new(&mut *self.to).poll_write(context, OK))?;
            // Three bytes fit into a socket that nothing was written to.
            if said != OK.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said = true;
        }
        Pin::new(&mut *self.to).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.to).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.to).poll_shutdown(context)
    }
}

/// Gives up on a reader that does not read on: the store keeps what it overwrites meanwhile.
struct Patient<W> {
    to: W,
    deadline: Pin<Box<Sleep>>,
}

impl<W> Patient<W> {
    fn new(to: W) -> Self {
        Self { to, deadline: Box::pin(sleep(PATIENCE)) }
    }

    /// `outcome`, if there is one in time.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline.as_mut().reset(Instant::now() + PATIENCE);
            return outcome;
        }
        std::task::ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Patient<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.to).poll_write(context, bytes);
        self.in_time(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.to).poll_flush(context);
        self.in_time(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.to).poll_shutdown(context);
        self.in_time(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_export_or_a_task() {
        let tenant = TenantId::new();
        assert!(matches!(Request::parse("export\n"), Some(Request::Export(None))));
        let of_one = Request::parse(&format!("export {tenant}\n"));
        assert!(matches!(of_one, Some(Request::Export(of_one)) if of_one == Some(tenant)));
        assert!(matches!(Request::parse("do \"keys\"\n"), Some(Request::Do(Task::Keys))));
        let unknown = format!("export {tenant} x\n");
        for wrong in ["", "\n", "import\n", "export x\n", "do keys\n", "do \"x\"\n", &unknown] {
            assert!(Request::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_on_is_left() {
        let (to, _unread) = tokio::io::duplex(10);
        let error = Patient::new(to).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
