//! Files of a session: the files of its workspace, which several sessions of the tenant may share,
//! or its own if it has no workspace.
//!
//! The entity tag of a file is the SHA-256 of its content. Writing a file creates missing parent
//! directories. Every operation is one transaction, except for large directories, as documented at
//! the handlers.

mod content;
mod copy;
mod drafts;
mod path;
mod upload;

use std::{fmt::Write as _, sync::Arc};

use chrono::{DateTime, Utc};
use coditect_auth::Identity;
use coditect_store::{
    BatchSize, Page, Transaction,
    model::{File, FileKind, FileRoot, Session, SessionId, TenantId},
};
use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) use content::{put, show};
pub(crate) use copy::copy;
pub(crate) use drafts::{discard, list as drafts, save as save_draft, show as show_draft};

use super::owned::load_owned_session;
use crate::{
    config::FILE_POLICY,
    extract::{
        caller,
        idempotency::{Created, Idempotency},
    },
    http::{
        Body, HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Metadata of a file or a directory.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "File")]
struct FileView<'a> {
    path: &'a str,
    kind: &'static str,
    size: u64,
    /// SHA-256 in hexadecimal; null for a directory.
    sha256: Option<String>,
    #[serde(serialize_with = "respond::time")]
    mtime: DateTime<Utc>,
    version: u64,
}

impl<'a> From<&'a File> for FileView<'a> {
    fn from(file: &'a File) -> Self {
        let (kind, size, sha256) = match &file.kind {
            FileKind::File { size, sha256 } => ("file", *size, Some(hex(sha256))),
            FileKind::Directory => ("directory", 0, None),
        };
        let File { path, modified_at: mtime, version, .. } = file;
        Self { path, kind, size, sha256, mtime: *mtime, version: *version }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Relocation {
    #[schemars(regex(pattern = openapi::PATH))]
    from: String,
    #[schemars(regex(pattern = openapi::PATH))]
    to: String,
    #[serde(default)]
    overwrite: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewDirectory {
    #[schemars(regex(pattern = openapi::PATH))]
    path: String,
}

/// The root of the caller's files, and its tenant.
struct Place {
    tenant: TenantId,
    home: FileRoot,
}

impl Place {
    /// Returns the root of the caller's session `id`. Fails with 404 if the caller has no such
    /// session.
    async fn of(tx: &Transaction, identity: &Identity, id: SessionId) -> Result<Self, Problem> {
        Ok(Self::of_session(&load_owned_session(tx, identity, id).await?))
    }

    fn of_session(session: &Session) -> Self {
        let home = match &session.workspace_path {
            Some(path) => FileRoot::Workspace(path.clone()),
            None => FileRoot::Session(session.id),
        };
        Self { tenant: session.tenant_id, home }
    }

    async fn file(&self, tx: &Transaction, path: &str) -> Result<Option<File>, Problem> {
        Ok(File::at(tx, self.tenant, &self.home, path).await?)
    }

    /// Returns the file or directory at `path`. Fails with 404 if there is none.
    async fn existing(&self, tx: &Transaction, path: &str) -> Result<File, Problem> {
        self.file(tx, path).await?.ok_or_else(Problem::not_found)
    }

    /// Creates the parent directories of `path`.
    async fn create_parent_dirs(
        &self,
        tx: &Transaction,
        path: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Problem> {
        Ok(File::create_parent_dirs(tx, self.tenant, (&self.home, path), &FILE_POLICY, now).await?)
    }

    /// Fails if the quotas do not permit a content of `size` bytes at `path` in place of `before`.
    async fn check_put(
        &self,
        tx: &Transaction,
        path: &str,
        before: Option<&File>,
        size: u64,
    ) -> Result<(), Problem> {
        Ok(FILE_POLICY.check_put(tx, self.tenant, (&self.home, path), before, size).await?)
    }

    /// Returns the file at `path` that `source` may replace, or `None` if the path is free.
    ///
    /// # Errors
    ///
    /// 409 if the target may not be replaced: a file without `overwrite`, a directory, and anything
    /// in place of a directory.
    async fn replaceable(
        &self,
        tx: &Transaction,
        source: &File,
        path: &str,
        overwrite: Overwrite,
    ) -> Result<Option<File>, Problem> {
        let there = self.file(tx, path).await?;
        let is_in_the_way = there.as_ref().is_some_and(|there| {
            overwrite == Overwrite::Never
                || [&there.kind, &source.kind].contains(&&FileKind::Directory)
        });
        if is_in_the_way { Err(exists()) } else { Ok(there) }
    }
}

/// Whether to replace a file at the target. It gets a new content and keeps the old ones as
/// versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overwrite {
    Never,
    Files,
}

/// Describes the operations of files and drafts for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/sessions/{id}/files";
    const ONE: &str = "/api/v5/sessions/{id}/files/{*path}";
    const DRAFT: &str = "/api/v5/sessions/{id}/drafts/{*path}";
    let directory = || json!({"type": "string", "pattern": openapi::DIRECTORY});
    let version = || json!({"type": "integer", "minimum": 1});
    vec![
        Operation::get(ALL, "listFiles", "List a directory")
            .query("path", directory(), "Path of the directory; default is the root.")
            .query("recursive", openapi::flag(), "Include all entries below the directory.")
            .page::<FileView<'static>>()
            .fails(&[404, 409, 422]),
        Operation::get(ONE, "getFile", "Get the content of a file or the metadata of a directory")
            .query("version", version(), "Version of the content; default is the newest.")
            .query(
                "versions",
                openapi::flag(),
                "List the versions instead of returning the content.",
            )
            .request_header("Range")
            .request_header("If-Range")
            .response_bytes(200)
            .response_headers(&["Accept-Ranges", "Content-Disposition", "Last-Modified"])
            .response_bytes(206)
            .response_headers(&[
                "Accept-Ranges",
                "Content-Disposition",
                "Content-Range",
                "Last-Modified",
            ])
            .with_etag()
            .fails(&[416, 422]),
        Operation::put(ONE, "putFile", "Write the content of a file")
            .details("Creates missing parent directories.")
            .request_header("Content-Digest")
            .request_bytes()
            .response::<FileView<'static>>()
            .created::<FileView<'static>>()
            .with_etag()
            .fails(&[409]),
        Operation::delete(ONE, "deleteFile", "Delete a file or a directory")
            .query("recursive", openapi::flag(), "Delete a directory with all entries below it.")
            .no_content()
            .with_etag()
            .fails(&[409, 422]),
        Operation::post(
            "/api/v5/sessions/{id}/files:move",
            "moveFile",
            "Move a file or a directory",
        )
        .details("`If-Match` and `If-None-Match` apply to `from`.")
        .request::<Relocation>()
        .response::<FileView<'static>>()
        .idempotent()
        .conditional()
        .with_etag()
        .fails(&[409]),
        Operation::post(
            "/api/v5/sessions/{id}/files:copy",
            "copyFile",
            "Copy a file or a directory",
        )
        .details("`If-Match` and `If-None-Match` apply to `from`.")
        .request::<Relocation>()
        .created::<FileView<'static>>()
        .idempotent()
        .conditional()
        .with_etag()
        .fails(&[409]),
        Operation::post(
            "/api/v5/sessions/{id}/files:mkdir",
            "createDirectory",
            "Create a directory",
        )
        .request::<NewDirectory>()
        .response::<FileView<'static>>()
        .response_headers(&["Idempotency-Replayed"])
        .created::<FileView<'static>>()
        .idempotent()
        .conditional()
        .with_etag()
        .fails(&[409]),
        Operation::get(
            "/api/v5/sessions/{id}/drafts",
            "listDrafts",
            "List the drafts of a session, by path",
        )
        .list::<drafts::DraftView<'static>>(),
        Operation::get(DRAFT, "getDraft", "Get a draft")
            .response::<drafts::WholeDraft<'static>>()
            .with_etag()
            .fails(&[422]),
        Operation::put(DRAFT, "putDraft", "Save a draft")
            .request::<drafts::NewDraft>()
            .response::<drafts::DraftView<'static>>()
            .with_etag(),
        Operation::delete(DRAFT, "deleteDraft", "Delete a draft")
            .no_content()
            .with_etag()
            .fails(&[422]),
    ]
}

/// Handles `GET /sessions/{id}/files`: the entries of a directory by name, or with `recursive` all
/// below it by path.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let query = Query::of(&request)?;
    let directory = path::parse_directory("path", query.value("path").unwrap_or_default())?;
    let is_recursive = query.flag("recursive")?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let page: Page<File> = caller::transact(&app, &caller, |tx, identity| {
        let (directory, cursor) = (&directory, cursor.as_ref());
        async move {
            let place = Place::of(&tx, &identity, id).await?;
            if !directory.is_empty() {
                let found = place.existing(&tx, directory).await?;
                if found.kind != FileKind::Directory {
                    return Err(not_a_directory());
                }
            }
            let Place { tenant, home } = place;
            let page = if !is_recursive {
                tx.scan(&File::BY_DIRECTORY, tenant, (home, directory.clone()))
                    .page(limit, cursor)
                    .await
            } else if directory.is_empty() {
                tx.scan(&File::BY_PATH, tenant, (home,)).page(limit, cursor).await
            } else {
                let below = File::below(home, directory);
                tx.scan(&File::BY_PATH, tenant, below).page(limit, cursor).await
            };
            page.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, FileView::from)
}

/// Handles `DELETE /sessions/{id}/files/{path}`: a file, an empty directory, or with `recursive` a
/// whole directory. A large directory takes several transactions, deepest entries first; after an
/// interruption, the rest is intact.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let path = path::parse("path", request.param("path")?)?;
    let is_recursive = Query::of(&request)?.flag("recursive")?;
    let mut begun = false;
    let size = &BatchSize::new(File::MAX_REMOVED);
    loop {
        let is_begun = begun;
        // Per transaction: leases on removed contents start when they are detached.
        let now = app.clock.now();
        let step = caller::transact(&app, &caller, |tx, identity| {
            let (path, conditions) = (&path, &conditions);
            async move {
                let place = Place::of(&tx, &identity, id).await?;
                let file = match place.file(&tx, path).await? {
                    Some(file) => file,
                    // Another request has removed the rest.
                    None if is_begun => return Ok(true),
                    None => return Err(Problem::not_found()),
                };
                conditions.require(Some(&tag_of(&file)))?;
                if file.kind == FileKind::Directory && !is_recursive && !file.is_empty(&tx).await? {
                    let message = "The directory is not empty. Use ?recursive=true to delete it \
                        with all its entries.";
                    return Err(Problem::conflict("NOT_EMPTY", message));
                }
                Ok(file.remove_tree(&tx, size.attempt(), now).await?)
            }
        });
        if step.await? {
            return Ok(respond::no_content());
        }
        size.committed();
        begun = true;
    }
}

/// Handles `POST /sessions/{id}/files:mkdir`, with parent directories. An existing directory is a
/// success.
pub(crate) async fn make_directory(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let new: NewDirectory = request.json().await?;
    let path = path::parse("path", &new.path)?;
    let (idempotency, conditions, now) =
        (Idempotency::of(&request)?, Preconditions::of(&request)?, app.clock.now());
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (path, conditions) = (&path, &conditions);
            async move {
                let place = Place::of(&tx, &identity, id).await?;
                let there = place.file(&tx, path).await?;
                conditions.require(there.as_ref().map(tag_of).as_ref())?;
                match there {
                    Some(there) if there.kind == FileKind::Directory => {
                        return made(id, &there, false);
                    }
                    Some(_) => return Err(exists()),
                    None => {}
                }
                place.create_parent_dirs(&tx, path, now).await?;
                let at = (&place.home, path.as_str());
                let directory =
                    File::create_directory(&tx, place.tenant, at, &FILE_POLICY, now).await?;
                made(id, &directory, true)
            }
        })
        .await
}

/// Handles `POST /sessions/{id}/files:move`, atomically with all below a directory.
pub(crate) async fn relocate(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let (from, to, overwrite) = relocation(&request.json().await?)?;
    let (idempotency, conditions, now) =
        (Idempotency::of(&request)?, Preconditions::of(&request)?, app.clock.now());
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (from, to, conditions) = (&from, &to, &conditions);
            async move {
                let place = Place::of(&tx, &identity, id).await?;
                let file = place.existing(&tx, from).await?;
                conditions.require(Some(&tag_of(&file)))?;
                if from == to {
                    return made(id, &file, false);
                }
                if let Some(target) = place.replaceable(&tx, &file, to, overwrite).await? {
                    return made(id, &file.move_over(&tx, &target, now).await?, false);
                }
                let below = match file.kind {
                    FileKind::Directory => file.tree(&tx, File::MAX_MOVED).await?,
                    FileKind::File { .. } => Vec::new(),
                };
                path::require_fit(&file, &below, to)?;
                place.create_parent_dirs(&tx, to, now).await?;
                made(id, &file.move_to(&tx, to).await?, false)
            }
        })
        .await
}

/// Returns source, target and overwrite mode of a request.
fn relocation(asked: &Relocation) -> Result<(String, String, Overwrite), Problem> {
    let (from, to) = (path::parse("from", &asked.from)?, path::parse("to", &asked.to)?);
    if to.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with('/')) {
        let message = "must not be below the source";
        return Err(Problem::invalid_field("VALIDATION_FAILED", "to", message));
    }
    Ok((from, to, if asked.overwrite { Overwrite::Files } else { Overwrite::Never }))
}

/// Returns a response with `file`; 201 if it `is_new`.
fn file_response(session: SessionId, file: &File, is_new: bool) -> HandlerResult {
    let view = FileView::from(file);
    let answer = if is_new {
        respond::created(&location(session, &file.path), &view)?
    } else {
        respond::ok(&view)?
    };
    with_etag(answer, &tag_of(file))
}

/// Like [`file_response`], for idempotent requests.
fn made(session: SessionId, file: &File, is_new: bool) -> Result<Created, Problem> {
    let (view, tag) = (FileView::from(file), tag_of(file));
    if is_new {
        Created::at(location(session, &file.path), &view, Some(&tag))
    } else {
        Created::changed(&view, Some(&tag))
    }
}

/// Returns the path of a session's file in the API.
fn location(session: SessionId, path: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');
    format!("/api/v5/sessions/{session}/files/{}", utf8_percent_encode(path, &KEPT))
}

/// Returns the entity tag: the hash of a file's content, or the id of a directory, which a new
/// directory with the same name does not have.
fn tag_of(file: &File) -> ETag {
    match &file.kind {
        FileKind::File { sha256, .. } => ETag::new(hex(sha256)).modified(file.modified_at),
        FileKind::Directory => ETag::new(file.id.0.simple().to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _never = write!(text, "{byte:02x}");
        text
    })
}

fn exists() -> Problem {
    Problem::conflict("EXISTS", "A file or directory with this name already exists.")
}

fn not_a_directory() -> Problem {
    Problem::conflict("NOT_A_DIRECTORY", "It is a file, not a directory.")
}

/// Returns a response with a body that is not JSON.
fn bytes(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
