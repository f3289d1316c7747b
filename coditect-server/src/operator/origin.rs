//! Where an archive comes from: the server that runs on the store, or the store itself.

use coditect_store::{
    archive::{Progress, Summary},
    model::TenantId,
};
use tokio::io::AsyncWrite;

use super::{Error, open};
use crate::Place;

/// Writes the archive of the store, or of one tenant, to `sink`.
pub(super) async fn export<W: AsyncWrite + Unpin>(
    place: &Place,
    tenant: Option<TenantId>,
    sink: &mut W,
    observe: impl FnMut(Progress),
) -> Result<Summary, Error> {
    #[cfg(unix)]
    if let Some(server) = super::door::find(place).await? {
        return server.export(tenant, sink, observe).await;
    }
    let store = open(place).await?;
    let export = match tenant {
        Some(tenant) => store.export().tenant(tenant),
        None => store.export(),
    };
    let summary = export.run(sink, observe).await?;
    store.database().close().await;
    Ok(summary)
}
