//! Paths outside of the API: the built-in page, or the files of a directory.

use std::{fs, path::Path};

use crate::{
    client::{Answer, Call, call},
    folder::Folder,
    server::Running,
};

/// A directory with a small application.
fn application() -> Folder {
    let folder = Folder::new();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("index.html", &format!("<!doctype html>{}", "<p>page</p>".repeat(200)));
    write("app.js", &"export const answer = 42;\n".repeat(200));
    write("assets/app-1f2e3d4c.js", "export {};");
    write("logo.png", &"not really".repeat(200));
    write(".env", "SECRET=1");
    folder
}

async fn serving(folder: &Path) -> Running {
    Running::start(&["--frontend", folder.to_str().unwrap()]).await
}

async fn get(server: &Running, path: &str) -> Answer {
    call(server.address, Call::get(path)).await
}

#[tokio::test]
async fn built_in_page_is_served_by_default() {
    let server = Running::start(&[]).await;
    for path in ["/", "/index.html", "/sessions/of/the/application"] {
        let page = get(&server, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(String::from_utf8(page.body).unwrap().contains("<title>"));
    }
}

#[tokio::test]
async fn files_of_a_directory_are_served_with_their_types() {
    let folder = application();
    let server = serving(folder.path()).await;
    let script = get(&server, "/app.js").await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(script.header("cache-control"), Some("no-cache"));
    assert_eq!(script.body, fs::read(folder.path().join("app.js")).unwrap());
    let hashed = get(&server, "/assets/app-1f2e3d4c.js").await;
    assert_eq!(hashed.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(get(&server, "/logo.png").await.header("vary"), None);
    let page = get(&server, "/any/page").await;
    assert!(page.body.starts_with(b"<!doctype html>"));
}

#[tokio::test]
async fn missing_asset_or_api_path_is_not_the_page() {
    let folder = application();
    let server = serving(folder.path()).await;
    for path in ["/missing.js", "/api", "/api/v5/nothing", "/api/v6/health", "/.well-known/x"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn only_visible_files_of_the_directory_are_served() {
    let folder = application();
    fs::write(folder.path().parent().unwrap().join("outside.txt"), "outside").unwrap();
    let server = serving(folder.path()).await;
    for path in [
        "/.env",
        "/%2eenv",
        "/../outside.txt",
        "/..%2foutside.txt",
        "/%2e%2e/outside.txt",
        "/assets/..%5c..%5coutside.txt",
        "/assets/../app.js",
        "//app.js",
        "/app.js%00.html",
        "/%252e%252e/outside.txt",
    ] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn frontend_only_supports_reads() {
    let server = Running::start(&[]).await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = call(server.address, Call::new(method, "/app")).await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let head = call(server.address, Call::new("HEAD", "/")).await;
    let length = get(&server, "/").await.body.len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
}

#[tokio::test]
async fn each_encoding_has_its_own_tag() {
    let folder = application();
    let server = serving(folder.path()).await;
    let mut tags = Vec::new();
    for (accepted, used) in
        [("br, gzip", Some("br")), ("gzip", Some("gzip")), ("br;q=0", None), ("identity", None)]
    {
        let wanted = Call::get("/app.js").header("Accept-Encoding", accepted);
        let answer = call(server.address, wanted.clone()).await;
        assert_eq!(answer.header("content-encoding"), used, "{accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let content = match used {
            Some("br") => {
                let mut content = Vec::new();
                brotli::BrotliDecompress(&mut answer.body.as_slice(), &mut content).unwrap();
                content
            }
            Some(_) => {
                let mut content = Vec::new();
                let mut reader = flate2::read::GzDecoder::new(answer.body.as_slice());
                std::io::copy(&mut reader, &mut content).unwrap();
                content
            }
            None => answer.body.clone(),
        };
        assert_eq!(content, fs::read(folder.path().join("app.js")).unwrap(), "{accepted}");
        let tag = answer.header("etag").unwrap().to_owned();
        let again = call(server.address, wanted.header("If-None-Match", &tag)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{accepted}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        assert_eq!(again.header("cache-control"), Some("no-cache"));
        assert_eq!(again.header("vary"), Some("accept-encoding"));
        tags.push(tag);
    }
    assert_eq!(tags[2], tags[3]);
    tags.dedup();
    assert_eq!(tags.len(), 3);
}

#[tokio::test]
async fn content_security_policy_is_configurable() {
    let folder = application();
    let flags =
        ["--frontend", folder.path().to_str().unwrap(), "--content-security-policy", "img-src *"];
    let server = Running::start(&flags).await;
    assert_eq!(get(&server, "/").await.header("content-security-policy"), Some("img-src *"));
}

#[tokio::test]
async fn directory_without_an_index_is_refused_at_startup() {
    let folder = Folder::new();
    let mut command = crate::process::on(folder.path(), &[]);
    let ended = crate::process::refused({
        command.args(["--frontend", folder.path().to_str().unwrap()]);
        command
    });
    let told = ended.await.stderr;
    assert!(told.contains("--frontend: no index.html in"), "{told}");
}
