//! The frontend: the files that are answered outside of the API, the program's own or a folder's.
//!
//! All of them are read when the server starts, and a path is looked up among their names. So no path
//! reaches what was not read, whatever is in it, and an answer never waits for the disk; another
//! frontend is there from the next start. A page of the application, which has a path and no file, is
//! `index.html`. What a client may keep for good has a hash of the content in its name; the rest it
//! asks for again each time, and is told by a tag that it has it.
//!
//! Nothing here knows who asks.

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
    conditions::{Conditions, Tag},
    output::Shared,
    problem::Problem,
    respond,
};

/// What is answered where a path has no file.
const INDEX: &str = "index.html";

/// First segments of paths that are never the frontend's, so that nobody is given a page who asks for
/// something else.
const OTHERS: [&str; 5] = ["api", ".well-known", "healthz", "readyz", "metrics"];

/// Shorter ones fit in a packet as they are.
const SHORTEST_COMPRESSED_BYTES: usize = 512;

/// All files, by their names.
#[derive(Debug)]
pub(crate) struct Frontend {
    files: HashMap<String, File>,
    /// One content is compressed at a time: there are as many as there are files, once, and others have
    /// use for the processor.
    turn: Semaphore,
}

/// One file.
#[derive(Debug)]
struct File {
    content: Bytes,
    hash: String,
    media_type: MediaType,
    is_kept: bool,
    /// What it is once compressed, in the order of [`Encoding::ALL`], from when it is first asked for;
    /// none where that is no smaller.
    compressed: [OnceCell<Option<Bytes>>; Encoding::ALL.len()],
}

impl Frontend {
    /// The program's own, or that of `folder`.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, is too large, or has no `index.html`.
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

    /// The file that a request for `path` means.
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

    /// The content as `encoding` has it, if that is smaller.
    async fn compressed(&self, encoding: Encoding, turn: &Semaphore) -> Option<Bytes> {
        if !self.media_type.is_text || self.content.len() < SHORTEST_COMPRESSED_BYTES {
            return None;
        }
        let compress = || async {
            // Nobody closes the semaphore.
            let _turn = turn.acquire().await;
            let content = self.content.clone();
            let work = tokio::task::spawn_blocking(move || encoding.compress(&content));
            let compressed = work.await.ok()?.ok()?;
            (compressed.len() < self.content.len()).then(|| compressed.into())
        };
        self.compressed[encoding as usize].get_or_init(compress).await.clone()
    }
}

/// Whether `path` may be the frontend's: one that is meant for the API, and spelt wrong, is told so.
pub(crate) fn has(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    !OTHERS.iter().any(|other| other.eq_ignore_ascii_case(first))
}

impl Frontend {
    /// Answers a GET of any path that [may be](has) a file's, with `policy` as its Content-Security-Policy.
    ///
    /// # Errors
    ///
    /// Fails with 404 if no file has that path, and with 412 if a precondition fails.
    pub(crate) async fn respond(&self, request: &Request, policy: HeaderValue) -> HandlerResult {
        let conditions = Conditions::of(request)?;
        let file = self.find(request.uri().path()).ok_or_else(Problem::not_found)?;
        let form = match encoding::preferred(request.headers()) {
            Some(encoding) => {
                let compressed = file.compressed(encoding, &self.turn).await;
                compressed.map(|content| (content, encoding.name()))
            }
            None => None,
        };
        let tag = Tag::new(match &form {
            Some((_, encoding)) => format!("{}-{encoding}", file.hash),
            None => file.hash.clone(),
        });
        let encoding = form.as_ref().map(|(_, encoding)| *encoding);
        let content = form.map_or_else(|| file.content.clone(), |(content, _)| content);
        // All responses share these bytes, which live as long as the process.
        let shared = Shared(content.len() as u64);
        let mut answer = Response::new(respond::full(content));
        answer.extensions_mut().insert(shared);
        let mut answer = conditions.read(answer, &tag)?;
        let is_whole = answer.status().is_success();
        let headers = answer.headers_mut();
        let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
        if is_whole {
            say(header::CONTENT_TYPE, file.media_type.name);
            if let Some(encoding) = encoding {
                say(header::CONTENT_ENCODING, encoding);
            }
        }
        if file.media_type.is_text {
            say(header::VARY, "accept-encoding");
        }
        say(
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
    fn a_path_is_a_file_or_a_page_of_the_application_or_nothing() {
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
    fn what_is_not_the_frontends_is_told_by_the_first_segment() {
        for path in ["/api", "/api/v5/nothing", "//api", "/.well-known/x", "/healthz", "/metrics"] {
            assert!(!has(path), "{path}");
        }
        for path in ["/", "/apix", "/app/api", "/sessions"] {
            assert!(has(path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_text_is_compressed_once_and_what_grows_by_it_is_not() {
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
