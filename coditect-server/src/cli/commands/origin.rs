//! Where an archive comes from: the server that runs on the store, or the store itself.

use std::{env, path::Path};

use coditect_auth::{Auth, Settings};
use coditect_store::{
    Clock, Store,
    archive::{Progress, Summary},
    model::TenantId,
};
use tokio::io::AsyncWrite;

use super::{Error, open};
use crate::{
    StoreLocation,
    admin::{
        client,
        protocol::{AdminRequest, AdminResponse, NEXT_MASTER_KEY_VARIABLE, perform, replace},
    },
    state::{MASTER_KEY_VARIABLE, master_key},
};

/// Writes the archive of the store, or of one tenant, to `sink`.
pub(super) async fn export<W: AsyncWrite + Unpin>(
    place: &StoreLocation,
    tenant: Option<TenantId>,
    sink: &mut W,
    observe: impl FnMut(Progress),
) -> Result<Summary, Error> {
    if let Some(server) = client::find(place).await? {
        return Ok(server.export(tenant, sink, observe).await?);
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

/// Runs `task` in the server that has the store open, or here if there is none.
pub(super) async fn run(place: &StoreLocation, task: AdminRequest) -> Result<AdminResponse, Error> {
    if let Some(server) = client::find(place).await? {
        return Ok(server.perform(&task).await?);
    }
    let store = open(place).await?;
    let performed = perform_here(&store, &place.data, task).await;
    store.database().close().await;
    performed
}

async fn perform_here(
    store: &Store,
    folder: &Path,
    task: AdminRequest,
) -> Result<AdminResponse, Error> {
    if let AdminRequest::ReplaceMasterKey { given } = task {
        return Ok(replace(store, folder, given).await?);
    }
    let master = master_key(folder, store).await?;
    let auth = Auth::open(store.clone(), master, Clock::system(), Settings::default()).await?;
    Ok(perform(&auth, store, folder, task).await?)
}

/// Returns the present and the next master key of the environment, if both are set.
///
/// # Errors
///
/// Only one of them is set.
pub(super) fn given_master_keys() -> Result<Option<[String; 2]>, Error> {
    let of = |name| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    match (of(MASTER_KEY_VARIABLE), of(NEXT_MASTER_KEY_VARIABLE)) {
        (None, None) => Ok(None),
        (Some(present), Some(next)) => Ok(Some([present, next])),
        (Some(_), None) => Err(Error::Variable(NEXT_MASTER_KEY_VARIABLE)),
        (None, Some(_)) => Err(Error::Variable(MASTER_KEY_VARIABLE)),
    }
}
