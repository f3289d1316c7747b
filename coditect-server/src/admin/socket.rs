//! Admin socket of a running server: a Unix socket in the data directory, for the owner of the
//! directory.
//!
//! Only one process can use a data directory, so operators' subcommands on a running server go
//! through the server:
//!
//! ```text
//! > export\n            or  export TENANT\n
//! < ok\n                and the archive, up to the end of the stream
//! > do TASK\n           a task on users or keys, as JSON
//! < ok\n                and the reply as JSON, up to the end of the stream
//! < error MESSAGE\n     instead of `ok`
//! ```
//!
//! **Invariants.** Only the user of the server process and root are served. Requests are served one
//! after the other; a client that stops reading is disconnected. An incomplete archive has no end
//! marker and is refused by its reader.

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

use super::protocol::{self, AdminRequest};
use crate::{http::access_log::ErrorChain, state::App};

/// Name of the socket in the data directory.
pub(crate) const SOCKET: &str = "control.sock";
/// Time limit for the request, and for each pause in reading the response.
const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum length of a request, in bytes.
const REQUEST_BYTES: u64 = 64 << 10;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl AdminSocket {
    /// Listens in `folder`. The caller holds the store open, so an existing socket is stale.
    pub(crate) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Connections made before this are still subject to the credential check.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Serves requests until shutdown begins.
    pub(crate) async fn serve(self, app: Arc<App>) {
        let stopping = app.stopping().clone();
        let serving = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => self.answer(stream, &app).await,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an admin connection");
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
            tracing::warn!("rejected admin connection: peer uid does not own the data directory");
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
            None => refuse(&mut to, "invalid request").await.map(|()| None),
        };
        match done {
            Ok(Some(rows)) => tracing::info!(rows, "store exported by an operator"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot send the response to an operator"),
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // The next server removes a socket that could not be removed here.
        let _left = fs::remove_file(&self.path);
    }
}

/// A request.
#[derive(Debug)]
enum Request {
    /// Export the store, or one tenant.
    Export(Option<TenantId>),
    /// Run a task.
    Do(AdminRequest),
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

/// Writes the archive and returns its number of rows, or `None` if the export was refused.
async fn export<W: AsyncWrite + Unpin>(
    store: &Store,
    tenant: Option<TenantId>,
    to: &mut W,
) -> io::Result<Option<u64>> {
    let export = match tenant {
        None => store.export(),
        Some(tenant) => store.export().tenant(tenant),
    };
    // A failure before the first byte is reported. After it, the missing end of the archive shows
    // it.
    let mut writer = OkFirst { to, is_sent: false };
    let done = export.run(&mut writer, |_| ()).await;
    let is_sent = writer.is_sent;
    match done {
        Ok(summary) => to.shutdown().await.map(|()| Some(summary.rows)),
        Err(error) if !is_sent => refuse(to, &error.to_string()).await.map(|()| None),
        Err(error) => Err(io::Error::other(Failed(error))),
    }
}

/// Runs a task and writes its reply.
async fn perform<W: AsyncWrite + Unpin>(
    app: &App,
    task: AdminRequest,
    to: &mut W,
) -> io::Result<()> {
    match protocol::perform(&app.auth, &app.store, &app.config.place.data, task).await {
        Ok(reply) => {
            let reply = serde_json::to_string(&reply).map_err(io::Error::other)?;
            to.write_all(format!("ok\n{reply}\n").as_bytes()).await?;
            to.shutdown().await
        }
        Err(error) => {
            let message = ErrorChain(&error).to_string();
            refuse(to, &message).await
        }
    }
}

async fn refuse<W: AsyncWrite + Unpin>(to: &mut W, why: &str) -> io::Result<()> {
    to.write_all(format!("error {why}\n").as_bytes()).await?;
    to.shutdown().await
}

/// A failed export.
#[derive(Debug, thiserror::Error)]
#[error("export failed")]
struct Failed(#[source] Error);

/// A writer that sends `ok` before the first byte.
struct OkFirst<'a, W> {
    to: &'a mut W,
    is_sent: bool,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for OkFirst<'_, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_sent {
            const OK: &[u8] = b"ok\n";
            let written = std::task::ready!(Pin::new(&mut *self.to).poll_write(context, OK))?;
            // Three bytes fit into the buffer of an unused socket.
            if written != OK.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_sent = true;
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

/// A writer that fails if the reader pauses for too long, since the store retains overwritten
/// versions during an export.
struct Patient<W> {
    to: W,
    deadline: Pin<Box<Sleep>>,
}

impl<W> Patient<W> {
    fn new(to: W) -> Self {
        Self { to, deadline: Box::pin(sleep(PATIENCE)) }
    }

    /// Returns `outcome` when ready, or a timeout error after the deadline.
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
    fn request_is_an_export_or_a_task() {
        let tenant = TenantId::new();
        assert!(matches!(Request::parse("export\n"), Some(Request::Export(None))));
        let of_one = Request::parse(&format!("export {tenant}\n"));
        assert!(matches!(of_one, Some(Request::Export(of_one)) if of_one == Some(tenant)));
        assert!(matches!(Request::parse("do \"keys\"\n"), Some(Request::Do(AdminRequest::Keys))));
        let unknown = format!("export {tenant} x\n");
        for wrong in ["", "\n", "import\n", "export x\n", "do keys\n", "do \"x\"\n", &unknown] {
            assert!(Request::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_reader_times_out() {
        let (to, _unread) = tokio::io::duplex(10);
        let error = Patient::new(to).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
