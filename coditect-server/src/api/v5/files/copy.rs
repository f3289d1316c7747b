//! Copies of files and directories.

use std::sync::Arc;

use coditect_store::{
    Blob, BlobReader, Transaction,
    model::{File, FileKind, SessionId, TenantId},
};

use super::{
    Overwrite, Place, exists, made, path, relocation, tag_of,
    upload::{Upload, Uploaded},
};
use crate::{
    config::FILE_POLICY,
    extract::{
        caller::{self, Caller},
        idempotency::{Idempotency, Outcome},
    },
    http::{HandlerResult, Request, conditions::Preconditions, problem::Problem},
    state::App,
};

/// Maximum number of files that one request copies.
const MAX_COPIED: usize = File::MAX_MOVED;

/// Handles `POST /sessions/{id}/files:copy`, for a directory file by file: an interrupted copy has
/// some of the files, each of them complete. The response is stored with the last one.
pub(crate) async fn copy(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let (from, to, overwrite) = relocation(&request.json().await?)?;
    if from == to {
        return Err(exists());
    }
    let (idempotency, conditions) = (Idempotency::of(&request)?, Preconditions::of(&request)?);
    let begun = caller::transact(&app, &caller, |tx, identity| {
        let (app, idempotency, from, to, conditions) =
            (&app, &idempotency, &from, &to, &conditions);
        async move {
            if let Some(before) = idempotency.before(app, &tx, &identity).await? {
                return Ok(Begun::Before(before));
            }
            let place = Place::of(&tx, &identity, id).await?;
            let source = place.existing(&tx, from).await?;
            conditions.require(Some(&tag_of(&source)))?;
            let below = match source.kind {
                FileKind::Directory => source.tree(&tx, MAX_COPIED).await?,
                FileKind::File { .. } => Vec::new(),
            };
            path::require_fit(&source, &below, to)?;
            let there = place.replaceable(&tx, &source, to, overwrite).await?;
            let sizes = below.iter().chain([&source]).map(size_of);
            let size = sizes.fold(0, u64::saturating_add);
            place.check_put(&tx, to, there.as_ref(), size).await?;
            FILE_POLICY.check_files(&tx, place.tenant, below.len()).await?;
            Ok(Begun::Copy { tenant: place.tenant, source, below })
        }
    })
    .await?;
    let (tenant, source, below) = match begun {
        Begun::Before(before) => return before.answer(),
        Begun::Copy { tenant, source, below } => (tenant, source, below),
    };
    // A piece that is read, and a batch that is written.
    request.charge(2 * Upload::MAX_BUFFERED_BYTES).await?;
    let copying = Copying { app: &app, caller: &caller, id, tenant, overwrite };
    let mut last = (source, to.clone());
    let mut copied = None;
    for file in below {
        let path = format!("{to}/{}", &file.path[from.len() + 1..]);
        let (file, path) = std::mem::replace(&mut last, (file, path));
        if let Copied::One(one) = copying.copy(&file, &path, None).await? {
            copied.get_or_insert(one);
        }
    }
    let (file, path) = last;
    match copying.copy(&file, &path, Some((&idempotency, copied.as_ref()))).await? {
        Copied::Before(outcome) | Copied::Last(outcome) => outcome.answer(),
        Copied::One(_) => Err(Problem::internal("a copy has no outcome")),
    }
}

/// The result of copying one file.
enum Copied {
    /// A file before the last one.
    One(File),
    /// The last file, with the outcome of the request.
    Last(Outcome),
    /// The same request was completed meanwhile.
    Before(Outcome),
}

/// The state at the start of a copy.
enum Begun {
    /// The request was completed before.
    Before(Outcome),
    Copy {
        tenant: TenantId,
        source: File,
        below: Vec<File>,
    },
}

/// A copy in progress.
struct Copying<'a> {
    app: &'a App,
    caller: &'a Caller,
    id: SessionId,
    tenant: TenantId,
    overwrite: Overwrite,
}

impl Copying<'_> {
    /// Copies `file` to `to`, without entries below it. For the last file of a request, `last` has
    /// the request and the first file that was copied, if that was another.
    async fn copy(
        &self,
        file: &File,
        to: &str,
        last: Option<(&Idempotency, Option<&File>)>,
    ) -> Result<Copied, Problem> {
        let Self { app, caller, id, tenant, overwrite } = *self;
        let uploaded = match file.kind {
            FileKind::Directory => None,
            FileKind::File { .. } => {
                let read = |tx: Transaction| async move { file.content(&tx, file.version).await };
                let content = app.store.run(read).await?.ok_or_else(Problem::not_found)?;
                Some(copy_content(app, tenant, content.blob).await?)
            }
        };
        let blob = uploaded.as_ref().map(|uploaded| uploaded.blob);
        let copied = caller::transact(app, caller, |tx, identity| async move {
            if let Some((idempotency, _)) = last
                && let Some(before) = idempotency.before(app, &tx, &identity).await?
            {
                // The same request was sent twice concurrently.
                return Ok(Copied::Before(before));
            }
            // The lease of a replaced content starts now, not with the request.
            let now = app.clock.now();
            let place = Place::of(&tx, &identity, id).await?;
            place.create_parent_dirs(&tx, to, now).await?;
            let at = (&place.home, to);
            let file = match blob {
                None => File::create_directory(&tx, tenant, at, &FILE_POLICY, now).await?,
                Some(blob) => {
                    if overwrite == Overwrite::Never && place.file(&tx, to).await?.is_some() {
                        return Err(exists());
                    }
                    File::put(&tx, tenant, at, blob, &FILE_POLICY, now).await?
                }
            };
            let Some((idempotency, first)) = last else { return Ok(Copied::One(file)) };
            let made = made(id, first.unwrap_or(&file), true)?;
            Ok(Copied::Last(idempotency.keep(app, &tx, &identity, made).await?))
        })
        .await;
        if let Some(uploaded) = uploaded {
            match &copied {
                Ok(Copied::One(_) | Copied::Last(_)) => uploaded.keep(),
                Ok(Copied::Before(_)) | Err(_) => uploaded.discard().await,
            }
        }
        copied
    }
}

/// Uploads the bytes of `content` again.
async fn copy_content(app: &App, tenant: TenantId, content: Blob) -> Result<Uploaded, Problem> {
    let mut upload = Upload::begin(app, tenant, content.size).await?;
    let mut reader = BlobReader::new(&app.store, tenant, content);
    let copied = async {
        while let Some(piece) = reader.next().await? {
            upload.write(&piece).await?;
        }
        Ok::<_, Problem>(())
    };
    match copied.await {
        Ok(()) => upload.finish().await,
        Err(problem) => {
            upload.discard().await;
            Err(problem)
        }
    }
}

/// Returns the size of a file's content, in bytes.
fn size_of(file: &File) -> u64 {
    match file.kind {
        FileKind::File { size, .. } => size,
        FileKind::Directory => 0,
    }
}
