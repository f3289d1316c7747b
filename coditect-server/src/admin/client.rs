//! Client of a running server's [admin socket](super::socket).

use std::{
    io,
    path::{Path, PathBuf},
};

use coditect_store::{
    archive::{self, Progress, Summary},
    model::TenantId,
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{
    protocol::{AdminRequest, AdminResponse},
    socket::SOCKET,
};
use crate::StoreLocation;

/// An error of a request to a running server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket cannot be used.
    #[error("{}", .path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The archive that the server sent.
    #[error(transparent)]
    Archive(#[from] coditect_store::Error),
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// Returns how an error of the socket `path` is reported.
fn of(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Socket { path: path.to_owned(), source }
}

/// A connection to a running server.
pub(crate) struct Server {
    stream: UnixStream,
    path: PathBuf,
}

/// Connects to the server that runs on the store, if there is one.
pub(crate) async fn find(place: &StoreLocation) -> Result<Option<Server>, Error> {
    // A cluster is shared, so that no server has to be asked.
    let Some(folder) = place.folder() else { return Ok(None) };
    let path = folder.join(SOCKET);
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Some(Server { stream, path })),
        // There is no server, or a killed one left its socket behind.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(of(&path)(error)),
    }
}

impl Server {
    /// Lets the server write an archive.
    pub(crate) async fn export<W: AsyncWrite + Unpin>(
        self,
        tenant: Option<TenantId>,
        sink: &mut W,
        observe: impl FnMut(Progress),
    ) -> Result<Summary, Error> {
        let request = match tenant {
            Some(tenant) => format!("export {tenant}\n"),
            None => "export\n".to_owned(),
        };
        Ok(archive::copy(self.asked(&request).await?, sink, observe).await?)
    }

    /// Lets the server run a task.
    pub(crate) async fn perform(self, task: &AdminRequest) -> Result<AdminResponse, Error> {
        let path = self.path.clone();
        let task = serde_json::to_string(task).map_err(io::Error::from).map_err(of(&path))?;
        let mut stream = self.asked(&format!("do {task}\n")).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await.map_err(of(&path))?;
        serde_json::from_str(&reply).map_err(io::Error::from).map_err(of(&path))
    }

    /// Sends `request` and returns the rest of the stream after the server's confirmation.
    async fn asked(self, request: &str) -> Result<BufReader<UnixStream>, Error> {
        let path = self.path.clone();
        let mut stream = BufReader::new(self.stream);
        stream.get_mut().write_all(request.as_bytes()).await.map_err(of(&path))?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await.map_err(of(&path))?;
        match reply.trim_end().split_once(' ') {
            None if reply == "ok\n" => Ok(stream),
            Some(("error", why)) => Err(Error::Refused(why.to_owned())),
            _ => Err(of(&path)(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
