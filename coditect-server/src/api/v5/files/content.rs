//! Contents of files: streamed reads with ranges and older versions, and streamed writes, which
//! become visible only as a whole.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use coditect_store::{
    Blob, BlobReader,
    model::{File, FileKind, FileVersion, TenantId},
};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, StatusCode,
    body::Frame,
    header::{self, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    FileView, Place, bytes, exists, file_response, hex, path, tag_of,
    upload::{Upload, Uploaded},
};
use crate::{
    config::FILE_POLICY,
    extract::caller,
    http::{
        Body, BodyError, HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        ranges, respond,
    },
    state::App,
};

/// Header with the hash of a content (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// A stored content of a file.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FileVersion")]
struct VersionView {
    version: u64,
    size: u64,
    sha256: String,
    #[serde(serialize_with = "respond::time")]
    saved_at: DateTime<Utc>,
}

impl From<&FileVersion> for VersionView {
    fn from(version: &FileVersion) -> Self {
        let FileVersion { version, blob, saved_at, .. } = version;
        let (size, sha256) = (blob.size, hex(&blob.sha256));
        Self { version: *version, size, sha256, saved_at: *saved_at }
    }
}

/// The requested part of a file.
enum Wanted {
    Present,
    Version(u64),
    Versions,
}

/// The requested data.
enum Found {
    Directory(File),
    Content(File, FileVersion),
    Versions(Vec<FileVersion>),
}

/// Handles `GET` and `HEAD /sessions/{id}/files/{path}`: the content, with `version` an older one,
/// with `versions` their list. Returns the metadata of a directory.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let path = path::parse("path", request.param("path")?)?;
    let query = Query::of(&request)?;
    let wanted = match (query.flag("versions")?, query.value("version")) {
        (false, None) => Wanted::Present,
        (true, None) => Wanted::Versions,
        (false, Some(text)) => Wanted::Version(text.parse().map_err(|_| Problem::not_found())?),
        (true, Some(_)) => {
            let message = "Use either version or versions, not both.";
            return Err(Problem::bad_request("INVALID_QUERY", message));
        }
    };
    let found = caller::transact(&app, &caller, |tx, identity| {
        let (path, wanted) = (&path, &wanted);
        async move {
            let file = Place::of(&tx, &identity, id).await?.existing(&tx, path).await?;
            let version = match wanted {
                Wanted::Versions => return Ok(Found::Versions(file.contents(&tx).await?)),
                Wanted::Present if file.kind == FileKind::Directory => {
                    return Ok(Found::Directory(file));
                }
                Wanted::Present => file.version,
                Wanted::Version(version) => *version,
            };
            let content = file.content(&tx, version).await?.ok_or_else(Problem::not_found)?;
            Ok(Found::Content(file, content))
        }
    })
    .await?;
    match found {
        Found::Versions(versions) => respond::list(&versions, VersionView::from),
        Found::Directory(file) => {
            conditions.read(respond::ok(&FileView::from(&file))?, &tag_of(&file))
        }
        Found::Content(file, content) => {
            let tag = ETag::new(hex(&content.blob.sha256)).modified(content.saved_at);
            if conditions.is_unchanged(&tag)? {
                return conditions.read(bytes(StatusCode::OK, respond::empty()), &tag);
            }
            sent(&app, &request, &file, &content, &tag)
        }
    }
}

/// Returns a response with a content or the requested range of it.
fn sent(
    app: &App,
    request: &Request,
    file: &File,
    content: &FileVersion,
    tag: &ETag,
) -> HandlerResult {
    let blob = content.blob;
    let part = ranges::wanted(request, tag, blob.size)?;
    let (status, range) = match &part {
        None => (StatusCode::OK, 0..blob.size),
        Some(part) => (StatusCode::PARTIAL_CONTENT, part.clone()),
    };
    let length = range.end - range.start;
    let reader = BlobReader::range(&app.store, file.tenant_id, blob, range)?;
    let mut answer = bytes(status, body(reader));
    let headers = answer.headers_mut();
    if let Some(part) = &part {
        headers.insert(header::CONTENT_RANGE, ranges::content_range(part, blob.size)?);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&file.path)));
    // A browser must not run any content in this origin.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    with_etag(answer, tag)
}

fn body(reader: BlobReader) -> Body {
    let pieces = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(None) => None,
            Ok(Some(piece)) => Some((Ok(Frame::data(Bytes::from(piece))), Some(reader))),
            Err(error) => Some((Err(BodyError::from(error)), None)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Handles `PUT /sessions/{id}/files/{path}`. The file, preconditions and the quota for the
/// announced length are checked before the body is read. A failure leaves no bytes behind.
pub(crate) async fn put(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let path = path::parse("path", request.param("path")?)?;
    let digest = digest(request.headers())?;
    let announced = request.announced_bytes();
    if announced > app.config.file_limit as u64 {
        return Err(Problem::payload_too_large(app.config.file_limit));
    }
    let tenant = caller::transact(&app, &caller, |tx, identity| {
        let (path, conditions) = (&path, &conditions);
        async move {
            let place = Place::of(&tx, &identity, id).await?;
            let before = place.file(&tx, path).await?;
            require(conditions, before.as_ref())?;
            place.check_put(&tx, path, before.as_ref(), announced).await?;
            Ok(place.tenant)
        }
    })
    .await?;
    let uploaded = receive(&app, &mut request, tenant).await?;
    let blob = uploaded.blob;
    if digest.is_some_and(|digest| digest != blob.sha256) {
        uploaded.discard().await;
        let message = "The body does not match its Content-Digest.";
        return Err(Problem::bad_request("DIGEST_MISMATCH", message));
    }
    let written = caller::transact(&app, &caller, |tx, identity| {
        let (path, conditions) = (&path, &conditions);
        // After the body, so that the lease of a replaced content starts when it is detached.
        let now = app.clock.now();
        async move {
            let place = Place::of(&tx, &identity, id).await?;
            let before = place.file(&tx, path).await?;
            require(conditions, before.as_ref())?;
            let change = match before {
                Some(before) if is_the_same(&before, &blob) => return Ok((before, Change::None)),
                Some(_) => Change::Replaced,
                None => {
                    place.create_parent_dirs(&tx, path, now).await?;
                    Change::Created
                }
            };
            let at = (&place.home, path.as_str());
            let file = File::put(&tx, place.tenant, at, blob, &FILE_POLICY, now).await?;
            Ok((file, change))
        }
    })
    .await;
    match &written {
        Ok((_, Change::Created | Change::Replaced)) => uploaded.keep(),
        Ok((_, Change::None)) | Err(_) => uploaded.discard().await,
    }
    let (file, change) = written?;
    file_response(id, &file, change == Change::Created)
}

/// Effect of a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The file already had this content.
    None,
    Created,
    Replaced,
}

/// Uploads the body of `request`. On an error, its bytes are removed.
async fn receive(app: &App, request: &mut Request, tenant: TenantId) -> Result<Uploaded, Problem> {
    let mut upload = Upload::begin(app, tenant, request.announced_bytes()).await?;
    match receive_into(request, &mut upload, app.config.file_limit).await {
        Ok(()) => upload.finish().await,
        Err(problem) => {
            upload.discard().await;
            Err(problem)
        }
    }
}

async fn receive_into(
    request: &mut Request,
    upload: &mut Upload,
    limit_bytes: usize,
) -> Result<(), Problem> {
    while let Some(chunk) = request.next_chunk().await? {
        if upload.size() + chunk.len() as u64 > limit_bytes as u64 {
            return Err(Problem::payload_too_large(limit_bytes));
        }
        let buffered = usize::try_from(upload.size()).unwrap_or(usize::MAX);
        let buffered = buffered.saturating_add(chunk.len());
        request.charge(buffered.min(Upload::MAX_BUFFERED_BYTES)).await?;
        upload.write(&chunk).await?;
    }
    Ok(())
}

/// Fails if the preconditions do not hold, or for a directory.
fn require(conditions: &Preconditions, before: Option<&File>) -> Result<(), Problem> {
    conditions.require(before.map(tag_of).as_ref())?;
    match before {
        Some(file) if file.kind == FileKind::Directory => Err(exists()),
        _ => Ok(()),
    }
}

/// Returns whether the file already has this content.
fn is_the_same(file: &File, blob: &Blob) -> bool {
    file.kind == FileKind::File { size: blob.size, sha256: blob.sha256 }
}

/// Returns the SHA-256 that the client sent for its body. Other digests are ignored.
fn digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let lines = headers.get_all(CONTENT_DIGEST).iter();
    let texts: Vec<&str> = lines.map(|line| line.to_str().unwrap_or("?")).collect();
    let list = texts.join(",");
    let digests = list.split(',').filter_map(|item| item.trim().strip_prefix("sha-256="));
    let mut decoded = digests.map(|value| {
        let text = value.strip_prefix(':').and_then(|value| value.strip_suffix(':'))?;
        BASE64_STANDARD.decode(text).ok()?.try_into().ok()
    });
    match (decoded.next(), decoded.next()) {
        (None, _) => Ok(None),
        (Some(Some(digest)), None) => Ok(Some(digest)),
        _ => {
            let message =
                "Content-Digest must have exactly one SHA-256 of the form sha-256=:BASE64:.";
            Err(Problem::bad_request("INVALID_DIGEST", message))
        }
    }
}

/// Returns the media type for a file name.
fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "txt" | "md" | "rs" | "toml" | "ts" | "tsx" | "jsx" | "py" | "sh" | "c" | "h" | "cpp"
        | "go" | "java" | "yaml" | "yml" | "ini" | "log" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: &str) -> Result<Option<[u8; 32]>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, HeaderValue::from_str(value).unwrap());
        digest(&headers)
    }

    #[test]
    fn digest_is_found_among_others() {
        let encoded = BASE64_STANDARD.encode([7; 32]);
        assert_eq!(given(&format!("sha-256=:{encoded}:")).unwrap(), Some([7; 32]));
        let others = format!("md5=:AAAA:, sha-256=:{encoded}:, sha-512=:AAAA:");
        assert_eq!(given(&others).unwrap(), Some([7; 32]));
        assert_eq!(given("sha-512=:AAAA:").unwrap(), None);
        assert_eq!(digest(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn malformed_digest_is_refused() {
        let encoded = BASE64_STANDARD.encode([7; 32]);
        let twice = format!("sha-256=:{encoded}:, sha-256=:{encoded}:");
        for wrong in ["sha-256=", "sha-256=::", "sha-256=:AAAA:", "sha-256=AAAA", &twice] {
            assert_eq!(given(wrong).unwrap_err().code(), "INVALID_DIGEST", "{wrong}");
        }
    }

    #[test]
    fn media_type_depends_on_the_extension() {
        assert_eq!(media_type("src/main.rs"), "text/plain; charset=utf-8");
        assert_eq!(media_type("a.b/LOGO.PNG"), "image/png");
        for unknown in ["Makefile", "a.rs/b", "x."] {
            assert_eq!(media_type(unknown), "application/octet-stream", "{unknown}");
        }
    }
}
