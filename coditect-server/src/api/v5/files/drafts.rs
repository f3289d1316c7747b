//! Drafts: unsaved text with the entity tag of the file that it is based on, so that a client can
//! detect changes made meanwhile.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_store::{
    BlobReader, Transaction,
    model::{Draft, File, FileKind, Session},
};
use futures_util::future::try_join;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Place, hex, path, upload::Upload};
use crate::{
    api::v5::owned::load_owned_session,
    config::FILE_POLICY,
    extract::caller,
    http::{
        HandlerResult, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        respond,
    },
    openapi,
    state::App,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDraft {
    content: String,
    #[schemars(regex(pattern = openapi::CONTENT_TAG))]
    /// SHA-256 of the content that the draft is based on, in hexadecimal, with or without the
    /// quotes of an entity tag.
    #[serde(default, alias = "baseEtag")]
    base_etag: Option<String>,
}

/// Metadata of a draft.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Draft")]
pub(super) struct DraftView<'a> {
    path: &'a str,
    base_etag: Option<String>,
    size: u64,
    #[serde(serialize_with = "respond::time")]
    saved_at: DateTime<Utc>,
}

/// A draft with its text, and the entity tag of the present file.
#[derive(Serialize, JsonSchema)]
pub(super) struct WholeDraft<'a> {
    #[serde(flatten)]
    draft: DraftView<'a>,
    content: &'a str,
    current_etag: Option<String>,
}

impl<'a> From<&'a Draft> for DraftView<'a> {
    fn from(draft: &'a Draft) -> Self {
        let base_etag = draft.base.as_ref().map(|base| hex(base));
        let Draft { path, blob, saved_at, .. } = draft;
        Self { path, base_etag, size: blob.size, saved_at: *saved_at }
    }
}

/// Handles `GET /sessions/{id}/drafts`: all drafts of a session, by path.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let drafts = caller::transact(&app, &caller, |tx, identity| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        Ok(tx.list_keys::<Draft>(session.tenant_id, (id,)).all(Draft::MAX_PER_SESSION).await?)
    })
    .await?;
    respond::list(&drafts, DraftView::from)
}

/// Handles `GET /sessions/{id}/drafts/{path}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let path = path::parse("path", request.param("path")?)?;
    let (draft, file) = caller::transact(&app, &caller, |tx, identity| {
        let path = &path;
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let draft = tx.get_required::<Draft>(session.tenant_id, (id, path.clone())).await?;
            let file = Place::of_session(&session).file(&tx, path).await?;
            Ok((draft, file))
        }
    })
    .await?;
    let mut reader = BlobReader::new(&app.store, draft.tenant_id, draft.blob);
    let mut text = Vec::new();
    while let Some(piece) = reader.next().await? {
        text.extend(piece);
    }
    let content = str::from_utf8(&text).map_err(Problem::internal)?;
    let current_etag = current_etag(file.as_ref());
    let tag = tag_of(&draft, file.as_ref())?;
    let whole = WholeDraft { draft: DraftView::from(&draft), content, current_etag };
    conditions.read(respond::ok(&whole)?, &tag)
}

/// Returns the entity tag of the present file.
fn current_etag(file: Option<&File>) -> Option<String> {
    file.and_then(|file| match &file.kind {
        FileKind::File { sha256, .. } => Some(hex(sha256)),
        FileKind::Directory => None,
    })
}

/// Returns the entity tag of a draft, which covers all data of a GET, including the tag of the
/// present file.
fn tag_of(draft: &Draft, file: Option<&File>) -> Result<ETag, Problem> {
    ETag::of(&(DraftView::from(draft), hex(&draft.blob.sha256), current_etag(file)))
}

/// Checks the preconditions on the draft of `path` in `session`, and returns the draft and the file
/// at that path.
async fn require(
    conditions: &Preconditions,
    tx: &Transaction,
    session: &Session,
    path: &str,
) -> Result<(Option<Draft>, Option<File>), Problem> {
    let draft =
        async { Ok(tx.get::<Draft>(session.tenant_id, (session.id, path.to_owned())).await?) };
    let (draft, file) = try_join(draft, Place::of_session(session).file(tx, path)).await?;
    let tag = draft.as_ref().map(|draft| tag_of(draft, file.as_ref())).transpose()?;
    conditions.require(tag.as_ref())?;
    Ok((draft, file))
}

/// Handles `PUT /sessions/{id}/drafts/{path}`, replacing an existing draft.
pub(crate) async fn save(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let path = path::parse("path", request.param("path")?)?;
    let new: NewDraft = request.json().await?;
    let base = new.base_etag.as_deref().map(hash).transpose()?;
    let (conditions, now) = (Preconditions::of(&request)?, app.clock.now());
    let tenant_id = caller::transact(&app, &caller, |tx, identity| {
        let (path, conditions) = (&path, &conditions);
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            require(conditions, &tx, &session, path).await?;
            Ok(session.tenant_id)
        }
    })
    .await?;
    let mut upload = Upload::begin(&app, tenant_id, new.content.len() as u64).await?;
    upload.write(new.content.as_bytes()).await?;
    let uploaded = upload.finish().await?;
    let blob = uploaded.blob;
    let draft = Draft { tenant_id, session_id: id, path, base, blob, saved_at: now };
    let saved = caller::transact(&app, &caller, |tx, identity| {
        let (draft, conditions) = (&draft, &conditions);
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (before, file) = require(conditions, &tx, &session, &draft.path).await?;
            draft.save_over(&tx, before.as_ref(), &FILE_POLICY).await?;
            tag_of(draft, file.as_ref())
        }
    })
    .await;
    if saved.is_err() {
        uploaded.discard().await;
    } else {
        uploaded.keep();
    }
    let tag = saved?;
    with_etag(respond::ok(&DraftView::from(&draft))?, &tag)
}

/// Handles `DELETE /sessions/{id}/drafts/{path}`.
pub(crate) async fn discard(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let path = path::parse("path", request.param("path")?)?;
    let (conditions, now) = (Preconditions::of(&request)?, app.clock.now());
    caller::transact(&app, &caller, |tx, identity| {
        let (path, conditions) = (&path, &conditions);
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (draft, _) = require(conditions, &tx, &session, path).await?;
            let draft = draft.ok_or_else(Problem::not_found)?;
            Ok(draft.discard(&tx, now).await?)
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Returns the hash in an entity tag.
fn hash(tag: &str) -> Result<[u8; 32], Problem> {
    let digits = tag.trim_matches('"');
    let byte = |at: usize| u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok();
    let mut hash = [0; 32];
    let are_digits = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (at, value) in hash.iter_mut().enumerate() {
        *value = byte(at).filter(|_| are_digits).ok_or_else(|| {
            let message = "must be the entity tag of a file: 64 hexadecimal digits";
            Problem::invalid_field("VALIDATION_FAILED", "base_etag", message)
        })?;
    }
    Ok(hash)
}
