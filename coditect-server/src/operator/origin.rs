//! Where an archive comes from: the server that runs on the store, or the store itself.

use coditect_store::{
    archive::{Progress, Summary},
    model::TenantId,
};
use tokio::io::AsyncWrite;

use super::{Error, open};
use crate::command::Data;

/// Writes the archive of the store, or of one tenant, to `sink`.
pub(super) async fn export<W: AsyncWrite + Unpin>(
    data: &Data,
    tenant: Option<TenantId>,
    sink: &mut W,
    observe: impl FnMut(Progress),
) -> Result<Summary, Error> {
    #[cfg(unix)]
    if let Some(server) = server::find(data).await? {
        return server.export(tenant, sink, observe).await;
    }
    let store = open(data).await?;
    let export = match tenant {
        Some(tenant) => store.export().tenant(tenant),
        None => store.export(),
    };
    let summary = export.run(sink, observe).await?;
    store.database().close().await;
    Ok(summary)
}

#[cfg(unix)]
mod server {
    use std::io;

    use coditect_store::archive;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixStream,
    };

    use super::{AsyncWrite, Data, Error, Progress, Summary, TenantId};
    use crate::{control::SOCKET, operator::target::of};

    /// A server that answers.
    pub(super) struct Server {
        stream: UnixStream,
        data: Data,
    }

    /// The one that runs on the store, if one does.
    pub(super) async fn find(data: &Data) -> Result<Option<Server>, Error> {
        let path = data.data.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Some(Server { stream, data: data.clone() })),
            // None, or one that was killed and left its socket behind.
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
        pub(super) async fn export<W: AsyncWrite + Unpin>(
            self,
            tenant: Option<TenantId>,
            sink: &mut W,
            observe: impl FnMut(Progress),
        ) -> Result<Summary, Error> {
            let path = self.data.data.join(SOCKET);
            let mut stream = BufReader::new(self.stream);
            let request = match tenant {
                Some(tenant) => format!("export {tenant}\n"),
                None => "export\n".to_owned(),
            };
            stream.get_mut().write_all(request.as_bytes()).await.map_err(of(&path))?;
            let mut reply = String::new();
            stream.read_line(&mut reply).await.map_err(of(&path))?;
            match reply.trim_end().split_once(' ') {
                None if reply == "ok\n" => Ok(archive::copy(stream, sink, observe).await?),
                Some(("error", why)) => Err(Error::Refused(why.to_owned())),
                _ => Err(of(&path)(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}
