//! The files of a session: those of its workspace, which it may share with other sessions of the
//! tenant, or its own if it has none.
//!
//! A file's tag is the SHA-256 of its content. A directory that is not there is made where a file is
//! put into it. What is done to a large directory is said where it is done; all else is one transaction.

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
    model::{File, FileHome, FileKind, Session, SessionId, TenantId},
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
        idempotency::{Made, Once},
    },
    http::{
        Body, HandlerResult, Query, Request,
        conditions::{Conditions, Tag, tagged},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// What is said of a file or a directory.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "File")]
struct FileView<'a> {
    path: &'a str,
    kind: &'static str,
    size: u64,
    /// In hexadecimal; of a directory there is none.
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

/// Where the caller's files are, and whose they are.
struct Place {
    tenant: TenantId,
    home: FileHome,
}

impl Place {
    /// The place of the caller's session `id`; 404 if they have none of that name.
    async fn of(tx: &Transaction, identity: &Identity, id: SessionId) -> Result<Self, Problem> {
        Ok(Self::of_session(&load_owned_session(tx, identity, id).await?))
    }

    fn of_session(session: &Session) -> Self {
        let home = match &session.workspace_path {
            Some(path) => FileHome::Workspace(path.clone()),
            None => FileHome::Session(session.id),
        };
        Self { tenant: session.tenant_id, home }
    }

    async fn file(&self, tx: &Transaction, path: &str) -> Result<Option<File>, Problem> {
        Ok(File::at(tx, self.tenant, &self.home, path).await?)
    }

    /// What there is at `path`; 404 if there is nothing.
    async fn existing(&self, tx: &Transaction, path: &str) -> Result<File, Problem> {
        self.file(tx, path).await?.ok_or_else(Problem::not_found)
    }

    /// Makes the directories that `path` lies in.
    async fn make_way(
        &self,
        tx: &Transaction,
        path: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Problem> {
        Ok(File::make_way(tx, self.tenant, (&self.home, path), &FILE_POLICY, now).await?)
    }

    /// Refuses a content of `size` bytes at `path`, where `before` is, if there is no room for it.
    async fn check_put(
        &self,
        tx: &Transaction,
        path: &str,
        before: Option<&File>,
        size: u64,
    ) -> Result<(), Problem> {
        Ok(FILE_POLICY.check_put(tx, self.tenant, (&self.home, path), before, size).await?)
    }

    /// Returns the file at `path` that `source` may replace, or `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// 409 if there is something that it may not replace: a file unless `overwrite` allows it, a directory,
    /// and anything in place of a directory.
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

/// Whether a file at the target is replaced: it gets another content, and keeps those it has as versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overwrite {
    Never,
    Files,
}

/// What the API's description says of these.
pub(crate) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/sessions/{id}/files";
    const ONE: &str = "/api/v5/sessions/{id}/files/{*path}";
    const DRAFT: &str = "/api/v5/sessions/{id}/drafts/{*path}";
    let directory = || json!({"type": "string", "pattern": openapi::DIRECTORY});
    let version = || json!({"type": "integer", "minimum": 1});
    vec![
        Operation::get(ALL, "listFiles", "What is in a directory")
            .query("path", directory(), "The directory; the top if nothing is said.")
            .query("recursive", openapi::flag(), "All that lies below it.")
            .pages::<FileView<'static>>()
            .fails(&[404, 409, 422]),
        Operation::get(ONE, "getFile", "A file's content; what is said of a directory")
            .query("version", version(), "An older content.")
            .query("versions", openapi::flag(), "Which contents there are.")
            .header("Range")
            .header("If-Range")
            .gives_bytes(200)
            .tells(&["Accept-Ranges", "Content-Disposition", "Last-Modified"])
            .gives_bytes(206)
            .tells(&["Accept-Ranges", "Content-Disposition", "Content-Range", "Last-Modified"])
            .tagged()
            .fails(&[416, 422]),
        Operation::put(ONE, "putFile", "Makes the body a file's content")
            .details("Directories that are not there are made.")
            .header("Content-Digest")
            .takes_bytes()
            .gives::<FileView<'static>>()
            .creates::<FileView<'static>>()
            .tagged()
            .fails(&[409]),
        Operation::delete(ONE, "deleteFile", "Removes a file, or a directory")
            .query("recursive", openapi::flag(), "A directory with all that lies below it.")
            .gives_nothing()
            .tagged()
            .fails(&[409, 422]),
        Operation::post(
            "/api/v5/sessions/{id}/files:move",
            "moveFile",
            "Moves a file or a directory",
        )
        .details("`If-Match` and `If-None-Match` are about `from`.")
        .takes::<Relocation>()
        .gives::<FileView<'static>>()
        .once()
        .conditional()
        .tagged()
        .fails(&[409]),
        Operation::post(
            "/api/v5/sessions/{id}/files:copy",
            "copyFile",
            "Copies a file or a directory",
        )
        .details("`If-Match` and `If-None-Match` are about `from`.")
        .takes::<Relocation>()
        .creates::<FileView<'static>>()
        .once()
        .conditional()
        .tagged()
        .fails(&[409]),
        Operation::post("/api/v5/sessions/{id}/files:mkdir", "makeDirectory", "Makes a directory")
            .takes::<NewDirectory>()
            .gives::<FileView<'static>>()
            .tells(&["Idempotency-Replayed"])
            .creates::<FileView<'static>>()
            .once()
            .conditional()
            .tagged()
            .fails(&[409]),
        Operation::get("/api/v5/sessions/{id}/drafts", "listDrafts", "What is not saved, by path")
            .lists::<drafts::DraftView<'static>>(),
        Operation::get(DRAFT, "getDraft", "Text that is not saved")
            .gives::<drafts::WholeDraft<'static>>()
            .tagged()
            .fails(&[422]),
        Operation::put(DRAFT, "saveDraft", "Keeps text that is not saved")
            .takes::<drafts::NewDraft>()
            .gives::<drafts::DraftView<'static>>()
            .tagged(),
        Operation::delete(DRAFT, "discardDraft", "Removes a draft")
            .gives_nothing()
            .tagged()
            .fails(&[422]),
    ]
}

/// `GET /sessions/{id}/files`: what is in a directory by name, or `recursive`, all that lies below it
/// by path.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let id = request.parse_param("id")?;
    let query = Query::of(&request)?;
    let directory = path::parse_directory("path", query.value("path").unwrap_or_default())?;
    let is_recursive = query.flag("recursive")?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let page: Page<File> = caller::run(&app, &caller, |tx, identity| {
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

/// `DELETE /sessions/{id}/files/{path}`: a file, an empty directory, or `?recursive=true` all of one. That
/// is done in steps if it is a lot: the deepest goes first, and what is left of a deletion that was
/// broken off is whole.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Conditions::of(&request)?);
    let path = path::parse("path", request.param("path")?)?;
    let is_recursive = Query::of(&request)?.flag("recursive")?;
    let mut begun = false;
    let size = &BatchSize::new(File::MOST_REMOVED);
    loop {
        let is_begun = begun;
        // Read in each step: leases of removed contents begin when they are detached.
        let now = app.clock.now();
        let step = caller::run(&app, &caller, |tx, identity| {
            let (path, conditions) = (&path, &conditions);
            async move {
                let place = Place::of(&tx, &identity, id).await?;
                let file = match place.file(&tx, path).await? {
                    Some(file) => file,
                    // Somebody else has removed the rest.
                    None if is_begun => return Ok(true),
                    None => return Err(Problem::not_found()),
                };
                conditions.require(Some(&tag_of(&file)))?;
                if file.kind == FileKind::Directory && !is_recursive && !file.is_empty(&tx).await? {
                    let message = "The directory is not empty. ?recursive=true removes all of it.";
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

/// `POST /sessions/{id}/files:mkdir`: a directory, with those that it lies in. One that is there is as
/// good.
pub(crate) async fn make_directory(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let id = request.parse_param("id")?;
    let new: NewDirectory = request.json().await?;
    let path = path::parse("path", &new.path)?;
    let (once, conditions, now) = (Once::of(&request)?, Conditions::of(&request)?, app.clock.now());
    once.run(&app, &caller, |tx, identity| {
        let (path, conditions) = (&path, &conditions);
        async move {
            let place = Place::of(&tx, &identity, id).await?;
            let there = place.file(&tx, path).await?;
            conditions.require(there.as_ref().map(tag_of).as_ref())?;
            match there {
                Some(there) if there.kind == FileKind::Directory => return made(id, &there, false),
                Some(_) => return Err(exists()),
                None => {}
            }
            place.make_way(&tx, path, now).await?;
            let at = (&place.home, path.as_str());
            let directory =
                File::create_directory(&tx, place.tenant, at, &FILE_POLICY, now).await?;
            made(id, &directory, true)
        }
    })
    .await
}

/// `POST /sessions/{id}/files:move`: a file, or a directory with all that lies below it, all or nothing.
pub(crate) async fn relocate(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let id = request.parse_param("id")?;
    let (from, to, overwrite) = relocation(&request.json().await?)?;
    let (once, conditions, now) = (Once::of(&request)?, Conditions::of(&request)?, app.clock.now());
    once.run(&app, &caller, |tx, identity| {
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
                FileKind::Directory => file.tree(&tx, File::MOST_MOVED).await?,
                FileKind::File { .. } => Vec::new(),
            };
            path::require_fit(&file, &below, to)?;
            place.make_way(&tx, to, now).await?;
            made(id, &file.move_to(&tx, to).await?, false)
        }
    })
    .await
}

/// From where, to where, and whether over a file.
fn relocation(asked: &Relocation) -> Result<(String, String, Overwrite), Problem> {
    let (from, to) = (path::parse("from", &asked.from)?, path::parse("to", &asked.to)?);
    if to.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with('/')) {
        let message = "must not lie below what it is made from";
        return Err(Problem::invalid_field("VALIDATION_FAILED", "to", message));
    }
    Ok((from, to, if asked.overwrite { Overwrite::Files } else { Overwrite::Never }))
}

/// The answer that tells of `file`: 201 if it `is_new`.
fn told(session: SessionId, file: &File, is_new: bool) -> HandlerResult {
    let view = FileView::from(file);
    let answer = if is_new {
        respond::created(&location(session, &file.path), &view)?
    } else {
        respond::ok(&view)?
    };
    tagged(answer, &tag_of(file))
}

/// The same, for requests that are done once.
fn made(session: SessionId, file: &File, is_new: bool) -> Result<Made, Problem> {
    let (view, tag) = (FileView::from(file), tag_of(file));
    if is_new {
        Made::at(location(session, &file.path), &view, Some(&tag))
    } else {
        Made::changed(&view, Some(&tag))
    }
}

/// Where a file of a session is found.
fn location(session: SessionId, path: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');
    format!("/api/v5/sessions/{session}/files/{}", utf8_percent_encode(path, &KEPT))
}

/// The tag of a file: the hash of its content. A directory's is its id, which another one of its name
/// does not have.
fn tag_of(file: &File) -> Tag {
    match &file.kind {
        FileKind::File { sha256, .. } => Tag::new(hex(sha256)).modified(file.modified_at),
        FileKind::Directory => Tag::new(file.id.0.simple().to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string never fails.
        let _never = write!(text, "{byte:02x}");
        text
    })
}

fn exists() -> Problem {
    Problem::conflict("EXISTS", "There is something of this name already.")
}

fn not_a_directory() -> Problem {
    Problem::conflict("NOT_A_DIRECTORY", "This is a file, not a directory.")
}

/// An answer without a body of JSON.
fn bytes(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
