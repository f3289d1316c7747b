//! The frontend: files outside of the API, built in or from a directory.
//!
//! All files are read when the server starts, and request paths are looked up among their names, so
//! no path can reach another file, and no response waits for the disk. A restart loads a changed
//! frontend. A path without a file is a page of the application and gets `index.html`. Files with a
//! content hash in their name may be cached for ever; others are revalidated with an entity tag.
//!
//! No authentication happens here.

mod embedded;
mod encoding;
mod folder;
mod media_type;

use std::{collections::HashMap, path::Path};

use bytes::Bytes;
use hyper::{
    Response,
    header::{self, HeaderValue},
};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, Semaphore};

pub use self::folder::Error;
use self::{encoding::Encoding, media_type::MediaType};
use crate::http::{
    HandlerResult, Request,
    conditions::{ETag, Preconditions},
    output::Shared,
    problem::Problem,
    respond,
};

/// Response for a path without a file.
const INDEX: &str = "index.html";

/// First segments of paths that never belong to the frontend, so that a misspelt API path gets 404
/// instead of a page.
const OTHERS: [&str; 5] = ["api", ".well-known", "healthz", "readyz", "metrics"];

/// Minimum size for compression; smaller files fit into a packet.
const MIN_COMPRESSED_BYTES: usize = 512;

/// All files by name.
#[derive(Debug)]
pub(crate) struct Frontend {
    files: HashMap<String, File>,
    /// Limits compression to one file at a time. Each file is compressed once, and other work needs
    /// the processor as well.
    turn: Semaphore,
}

/// A file.
#[derive(Debug)]
struct File {
    content: Bytes,
    hash: String,
    media_type: MediaType,
    is_kept: bool,
    /// Compressed forms, in the order of [`Encoding::ALL`], created on the first request; `None` if
    /// not smaller.
    compressed: [OnceCell<Option<Bytes>>; Encoding::ALL.len()],
}

impl Frontend {
    /// Loads the built-in frontend, or that of `folder`.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, is too large, or has no `index.html`.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, Error> {
        Ok(match folder {
            Some(folder) => Self::of(folder::read(folder)?),
            None => Self::of(
                embedded::FILES
                    .iter()
                    .map(|(name, content)| ((*name).to_owned(), Bytes::from_static(content))),
            ),
        })
    }

    fn of(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let files = files.into_iter().map(|(name, content)| {
            let file = File::new(&name, content);
            (name, file)
        });
        Self { files: files.collect(), turn: Semaphore::new(1) }
    }

    /// Returns the file for a request path.
    fn find(&self, path: &str) -> Option<&File> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let name = decoded.strip_prefix('/')?;
        if let Some(file) = self.files.get(name) {
            return Some(file);
        }
        if (name.is_empty() || name.ends_with('/'))
            && let Some(file) = self.files.get(&format!("{name}{INDEX}"))
        {
            return Some(file);
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.contains('.') { None } else { self.files.get(INDEX) }
    }
}

impl File {
    fn new(name: &str, content: Bytes) -> Self {
        let hash = Sha256::digest(&content);
        Self {
            hash: hash[..16].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
            media_type: media_type::of(name),
            is_kept: media_type::has_hash(name),
            content,
            compressed: Default::default(),
        }
    }

    /// Returns the content in `encoding`, if that is smaller.
    async fn compressed(&self, encoding: Encoding, turn: &Semaphore) -> Option<Bytes> {
        if !self.media_type.is_text || self.content.len() < MIN_COMPRESSED_BYTES {
            return None;
        }
        let compress = || async {
            // The semaphore is never closed.
            let _turn = turn.acquire().await;
            let content = self.content.clone();
            let work = tokio::task::spawn_blocking(move || encoding.compress(&content));
            let compressed = work.await.ok()?.ok()?;
            (compressed.len() < self.content.len()).then(|| compressed.into())
        };
        self.compressed[encoding as usize].get_or_init(compress).await.clone()
    }
}

/// Returns whether `path` may belong to the frontend. A misspelt API path does not.
pub(crate) fn has(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    !OTHERS.iter().any(|other| other.eq_ignore_ascii_case(first))
}

impl Frontend {
    /// Handles `GET` of any path that [may belong](has) to the frontend, with `policy` as its
    /// Content-Security-Policy.
    ///
    /// # Errors
    ///
    /// Fails with 404 if no file has that path, and with 412 if a precondition fails.
    pub(crate) async fn respond(&self, request: &Request, policy: HeaderValue) -> HandlerResult {
        let conditions = Preconditions::of(request)?;
        let file = self.find(request.uri().path()).ok_or_else(Problem::not_found)?;
        let form = match encoding::preferred(request.headers()) {
            Some(encoding) => {
                let compressed = file.compressed(encoding, &self.turn).await;
                compressed.map(|content| (content, encoding.name()))
            }
            None => None,
        };
        let tag = ETag::new(match &form {
            Some((_, encoding)) => format!("{}-{encoding}", file.hash),
            None => file.hash.clone(),
        });
        let encoding = form.as_ref().map(|(_, encoding)| *encoding);
        let content = form.map_or_else(|| file.content.clone(), |(content, _)| content);
        // All responses share these bytes, which are never freed.
        let shared = Shared(content.len() as u64);
        let mut answer = Response::new(respond::full(content));
        answer.extensions_mut().insert(shared);
        let mut answer = conditions.read(answer, &tag)?;
        let is_whole = answer.status().is_success();
        let headers = answer.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        if is_whole {
            set(header::CONTENT_TYPE, file.media_type.name);
            if let Some(encoding) = encoding {
                set(header::CONTENT_ENCODING, encoding);
            }
        }
        if file.media_type.is_text {
            set(header::VARY, "accept-encoding");
        }
        set(
            header::CACHE_CONTROL,
            if file.is_kept { "public, max-age=31536000, immutable" } else { "no-cache" },
        );
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frontend {
        let files = ["index.html", "app.js", "docs/index.html", "docs/a b.txt"];
        Frontend::of(files.map(|name| (name.to_owned(), Bytes::from(name))))
    }

    fn found(path: &str) -> Option<String> {
        let frontend = sample();
        frontend.find(path).map(|file| String::from_utf8(file.content.to_vec()).unwrap())
    }

    #[test]
    fn path_is_a_file_a_page_or_nothing() {
        for (path, wanted) in [
            ("/", Some("index.html")),
            ("/index.html", Some("index.html")),
            ("/app.js", Some("app.js")),
            ("/docs/", Some("docs/index.html")),
            ("/docs/a%20b.txt", Some("docs/a b.txt")),
            ("/sessions/7", Some("index.html")),
            ("/app.css", None),
            ("/docs/app.js", None),
            ("/docs/a%2520b.txt", None),
            ("/%ff", None),
            ("*", None),
        ] {
            assert_eq!(found(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn first_segment_separates_api_and_frontend() {
        for path in ["/api", "/api/v5/nothing", "//api", "/.well-known/x", "/healthz", "/metrics"] {
            assert!(!has(path), "{path}");
        }
        for path in ["/", "/apix", "/app/api", "/sessions"] {
            assert!(has(path), "{path}");
        }
    }

    #[tokio::test]
    async fn text_is_compressed_once_if_that_is_smaller() {
        let turn = Semaphore::new(1);
        let long = File::new("a.js", Bytes::from("let x = 1;\n".repeat(500)));
        let small = long.compressed(Encoding::Brotli, &turn).await.unwrap();
        let again = long.compressed(Encoding::Brotli, &turn).await.unwrap();
        assert_eq!(small.as_ptr(), again.as_ptr());
        let short = File::new("a.js", Bytes::from("let x = 1;"));
        assert_eq!(short.compressed(Encoding::Brotli, &turn).await, None);
        let image = File::new("a.png", long.content.clone());
        assert_eq!(image.compressed(Encoding::Gzip, &turn).await, None);
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let noise = File::new("a.txt", noise.take(2000).collect());
        assert_eq!(noise.compressed(Encoding::Gzip, &turn).await, None);
    }
}
