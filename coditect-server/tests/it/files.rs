//! Files of a session over HTTP: contents, conditions, ranges, versions, directories, drafts.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    account::Device,
    client::{Answer, Call, Client, call},
    server::Running,
    signed_in_session::SignedInSession,
};

impl SignedInSession {
    /// A user with a session in a workspace.
    async fn in_workspace(server: &Running, email: &str, workspace: &str) -> Self {
        let mut signed_in = Self::new(server, email).await;
        signed_in.open(workspace).await;
        signed_in
    }

    /// Continues in another session with this workspace.
    async fn open(&mut self, workspace: &str) {
        let body = json!({"name": "shared", "workspacePath": workspace});
        let made = self.call(Call::post("/api/v5/sessions").value(&body)).await.data();
        self.path = format!("/api/v5/sessions/{}", made["id"].as_str().unwrap());
    }

    fn put_file(&self, path: &str, content: impl Into<Vec<u8>>) -> Call {
        Call::put(&self.part(&format!("files/{path}"))).body(content)
    }

    async fn write(&self, path: &str, content: impl Into<Vec<u8>>) -> Answer {
        self.call(self.put_file(path, content)).await
    }

    async fn read(&self, path: &str) -> Answer {
        self.get(&format!("files/{path}")).await
    }

    async fn remove(&self, path: &str) -> Answer {
        self.call(Call::delete(&self.part(&format!("files/{path}")))).await
    }

    async fn post(&self, what: &str, body: Value) -> Answer {
        self.call(Call::post(&self.part(what)).value(&body)).await
    }

    /// Returns the paths of a list, page by page.
    async fn listed(&self, query: &str) -> Vec<String> {
        let (mut paths, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("files?limit=2&{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.json());
            let items = page.data();
            let items = items.as_array().unwrap().iter();
            paths.extend(items.map(|file| file["path"].as_str().unwrap().to_owned()));
            match page.json()["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return paths,
            }
        }
    }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn etag(content: &[u8]) -> String {
    format!("\"{}\"", hash(content))
}

/// Returns bytes without repetition.
fn content(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(length).collect()
}

#[tokio::test]
async fn file_content_round_trips() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for (path, content) in [
        ("empty", Vec::new()),
        ("src/main.rs", b"fn main() {}\n".to_vec()),
        ("a/b/c/%C3%A9%20x.bin", content(3_000_000)),
    ] {
        let made = signed_in.write(path, content.clone()).await;
        assert_eq!(made.status, 201, "{}", made.json());
        assert_eq!(made.header("location").unwrap(), signed_in.part(&format!("files/{path}")));
        assert_eq!(made.header("etag").unwrap(), etag(&content));
        let told = made.data();
        assert_eq!(told["kind"], "file");
        assert_eq!(told["size"], content.len());
        assert_eq!(told["sha256"], hash(&content));
        assert_eq!(told["version"], 1);

        let read = signed_in.read(path).await;
        assert_eq!((read.status, read.body == content), (200, true), "{path}");
        assert_eq!(read.header("etag").unwrap(), etag(&content));
        assert_eq!(read.header("content-security-policy").unwrap(), "sandbox");
        let head =
            signed_in.call(Call::new("HEAD", &signed_in.part(&format!("files/{path}")))).await;
        assert_eq!(head.header("content-length").unwrap(), content.len().to_string());
        assert!(head.body.is_empty());
    }
    assert_eq!(
        signed_in.read("src/main.rs").await.header("content-type").unwrap(),
        "text/plain; charset=utf-8"
    );
    let again = signed_in.write("src/main.rs", "fn main() { }\n").await;
    assert_eq!((again.status, again.data()["version"].as_u64()), (200, Some(2)));
    let same = signed_in.write("src/main.rs", "fn main() { }\n").await;
    assert_eq!((same.status, same.data()["version"].as_u64()), (200, Some(2)), "nothing is new");
    assert_eq!(
        signed_in.listed("recursive=true").await,
        ["a", "a/b", "a/b/c", "a/b/c/é x.bin", "empty", "src", "src/main.rs"]
    );
}

#[tokio::test]
async fn unseen_change_is_not_overwritten() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let none = |call: Call| call.header("If-None-Match", "*");
    assert_eq!(signed_in.call(none(signed_in.put_file("a", "one"))).await.status, 201);
    let refused = signed_in.call(none(signed_in.put_file("a", "two"))).await;
    assert_eq!((refused.status, refused.code().as_str()), (412, "PRECONDITION_FAILED"));
    let seen = |call: Call, content: &[u8]| call.header("If-Match", &etag(content));
    assert_eq!(signed_in.call(seen(signed_in.put_file("a", "two"), b"one")).await.status, 200);
    assert_eq!(signed_in.call(seen(signed_in.put_file("a", "three"), b"one")).await.status, 412);
    assert_eq!(signed_in.call(seen(signed_in.put_file("b", "one"), b"one")).await.status, 412);
    assert_eq!(signed_in.read("a").await.body, b"two");

    let read = Call::get(&signed_in.part("files/a")).header("If-None-Match", &etag(b"two"));
    let unchanged = signed_in.call(read).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let remove = |content: &[u8]| seen(Call::delete(&signed_in.part("files/a")), content);
    assert_eq!(signed_in.call(remove(b"one")).await.status, 412);
    assert_eq!(signed_in.call(remove(b"two")).await.status, 204);
    assert_eq!(signed_in.read("a").await.status, 404);
}

#[tokio::test]
async fn one_of_two_concurrent_saves_is_refused() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.write("a", "0").await;
    for round in 0..10 {
        let seen = etag(round.to_string().as_bytes());
        let save =
            |text: String| signed_in.call(signed_in.put_file("a", text).header("If-Match", &seen));
        let next = (round + 1).to_string();
        let (one, two) = tokio::join!(save(next.clone()), save(format!("not {next}")));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
        if one.status != 200 {
            let now = etag(format!("not {next}").as_bytes());
            assert_eq!(
                signed_in.call(signed_in.put_file("a", next).header("If-Match", &now)).await.status,
                200
            );
        }
    }
}

#[tokio::test]
async fn range_is_served_for_a_matching_tag() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let whole = content(700_000);
    signed_in.write("a.bin", whole.clone()).await;
    let part = |range: &str| {
        let call = Call::get(&signed_in.part("files/a.bin")).header("Range", range);
        signed_in.call(call)
    };
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=9999-10000", 9_999, 10_000),
        ("bytes=320000-", 320_000, 699_999),
        ("bytes=-1", 699_999, 699_999),
    ] {
        let answer = part(range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, whole[first..=last], "{range}");
        let content_range = format!("bytes {first}-{last}/700000");
        assert_eq!(answer.header("content-range").unwrap(), content_range);
    }
    let refused = part("bytes=700000-").await;
    assert_eq!((refused.status, refused.code().as_str()), (416, "RANGE_NOT_SATISFIABLE"));
    assert_eq!(refused.header("content-range").unwrap(), "bytes */700000");
    assert_eq!(part("bytes=0-1,5-6").await.status, 200);
    let changed = Call::get(&signed_in.part("files/a.bin"))
        .header("Range", "bytes=0-1")
        .header("If-Range", "\"x\"");
    assert_eq!(signed_in.call(changed).await.body.len(), whole.len());
}

#[tokio::test]
async fn older_versions_are_kept_up_to_the_limit() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for n in 1..=12 {
        signed_in.write("a", format!("content {n}")).await;
    }
    let versions = signed_in.get("files/a?versions").await.data();
    let numbers: Vec<u64> =
        versions.as_array().unwrap().iter().map(|it| it["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (3..=12).rev().collect::<Vec<_>>());
    let old = signed_in.get("files/a?version=3").await;
    assert_eq!(old.body, b"content 3");
    assert_eq!(old.header("etag").unwrap(), etag(b"content 3"));
    for gone in ["2", "13", "x", "-1"] {
        assert_eq!(signed_in.get(&format!("files/a?version={gone}")).await.status, 404, "{gone}");
    }
}

#[tokio::test]
async fn mismatching_or_oversized_body_changes_nothing() {
    let server = Running::start(&["--file-limit", "64KiB"]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.write("a", "before").await;
    let digest =
        |content: &[u8]| format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(content)));
    let put = |said: &str| {
        signed_in.call(signed_in.put_file("a", "after").header("Content-Digest", said))
    };
    assert_eq!(put(&digest(b"other")).await.code(), "DIGEST_MISMATCH");
    assert_eq!(put("sha-256=:AAAA:").await.code(), "INVALID_DIGEST");
    assert_eq!(signed_in.read("a").await.body, b"before");
    assert_eq!(put(&digest(b"after")).await.status, 200);

    let announced = signed_in.write("a", vec![0; (64 << 10) + 1]).await;
    assert_eq!((announced.status, announced.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let mut client = Client::connect(server.address).await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: \
         chunked\r\n\r\n",
        signed_in.part("files/a"),
        signed_in.token
    );
    client.send(head.as_bytes()).await;
    for _ in 0..9 {
        client.try_send(format!("2000\r\n{}\r\n", "x".repeat(0x2000)).as_bytes()).await;
    }
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(signed_in.write("a", vec![0; 64 << 10]).await.status, 200);
    // An incomplete body.
    let mut client = Client::connect(server.address).await;
    client.send(head.as_bytes()).await;
    client.send(b"5\r\nhello\r\n").await;
    drop(client);
    assert_eq!(signed_in.read("a").await.body.len(), 64 << 10);
}

#[tokio::test]
async fn directories_are_created_listed_and_deleted() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let made = signed_in.post("files:mkdir", json!({"path": "src/deep"})).await;
    assert_eq!((made.status, made.data()["kind"].as_str()), (201, Some("directory")));
    assert_eq!(signed_in.post("files:mkdir", json!({"path": "src/deep/"})).await.status, 200);
    for path in ["src/deep/a", "src/b", "src-2", "z"] {
        signed_in.write(path, path).await;
    }
    assert_eq!(signed_in.listed("").await, ["src", "src-2", "z"]);
    assert_eq!(signed_in.listed("path=src").await, ["src/b", "src/deep"]);
    assert_eq!(
        signed_in.listed("path=src&recursive=true").await,
        ["src/b", "src/deep", "src/deep/a"]
    );
    assert_eq!(signed_in.listed("recursive").await.len(), 6);
    assert_eq!(signed_in.get("files?path=nowhere").await.status, 404);
    assert_eq!(signed_in.get("files?path=z").await.code(), "NOT_A_DIRECTORY");
    assert_eq!(signed_in.read("src").await.data()["kind"], "directory");

    // Files and directories do not replace each other.
    assert_eq!(signed_in.write("src", "x").await.code(), "EXISTS");
    assert_eq!(signed_in.write("z/below", "x").await.status, 409);
    assert_eq!(signed_in.post("files:mkdir", json!({"path": "z"})).await.code(), "EXISTS");

    assert_eq!(signed_in.remove("src").await.code(), "NOT_EMPTY");
    assert_eq!(signed_in.remove("src?recursive=true").await.status, 204);
    assert_eq!(signed_in.remove("src").await.status, 404);
    assert_eq!(signed_in.listed("recursive=true").await, ["src-2", "z"]);
    for n in 0..50 {
        signed_in.write(&format!("many/{n}"), "x").await;
    }
    assert_eq!(signed_in.remove("many?recursive=true").await.status, 204);
    assert_eq!(signed_in.listed("").await, ["src-2", "z"]);
}

#[tokio::test]
async fn moves_and_copies_are_complete() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let big = content(400_000);
    signed_in.write("src/a", "a").await;
    signed_in.write("src/deep/big", big.clone()).await;
    signed_in.write("in-the-way", "x").await;

    let moved = signed_in.post("files:move", json!({"from": "src", "to": "lib/rs"})).await;
    assert_eq!((moved.status, moved.data()["path"].as_str()), (200, Some("lib/rs")));
    assert_eq!(signed_in.read("lib/rs/deep/big").await.body, big);
    assert_eq!(signed_in.read("src/a").await.status, 404);
    let copied = signed_in.post("files:copy", json!({"from": "lib", "to": "copy"})).await;
    assert_eq!(copied.status, 201, "{}", copied.json());
    assert_eq!(signed_in.read("copy/rs/deep/big").await.body, big);
    signed_in.write("copy/rs/a", "changed").await;
    assert_eq!(signed_in.read("lib/rs/a").await.body, b"a", "a copy is another file");

    for what in ["files:move", "files:copy"] {
        let refused = async |from: &str, to: &str| {
            let answer = signed_in.post(what, json!({"from": from, "to": to})).await;
            (answer.status, answer.code())
        };
        assert_eq!(refused("lib/rs/a", "in-the-way").await, (409, "EXISTS".into()), "{what}");
        assert_eq!(refused("lib", "copy").await, (409, "EXISTS".into()), "{what}");
        assert_eq!(refused("lib", "lib/in").await.0, 422, "{what}");
        assert_eq!(refused("nowhere", "x").await.0, 404, "{what}");
        assert_eq!(refused("lib/rs/a", "../x").await.0, 422, "{what}");
        assert_eq!(refused("lib/rs/a", "in-the-way/x").await.0, 409, "{what}");
        let over = json!({"from": "lib/rs/a", "to": "in-the-way", "overwrite": true});
        assert!(matches!(signed_in.post(what, over).await.status, 200 | 201), "{what}");
        assert_eq!(signed_in.read("in-the-way").await.body, b"a");
        signed_in.write("lib/rs/a", "a").await;
    }
}

/// Returns the sizes of a file's contents, newest first.
async fn kept(signed_in: &SignedInSession, path: &str) -> Vec<u64> {
    let versions = signed_in.read(&format!("{path}?versions")).await.data();
    versions.as_array().unwrap().iter().map(|kept| kept["size"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn overwriting_moves_and_copies_keep_older_versions() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for content in ["1", "12", "123"] {
        signed_in.write("target", content).await;
    }
    for content in ["1234", "12345"] {
        signed_in.write("from", content).await;
    }
    let over = json!({"from": "from", "to": "target", "overwrite": true});
    let copied = signed_in.post("files:copy", over.clone()).await;
    assert_eq!((copied.status, copied.data()["version"].as_u64()), (201, Some(4)));
    assert_eq!(kept(&signed_in, "target").await, [5, 3, 2, 1]);
    let moved = signed_in.post("files:move", over).await;
    assert_eq!((moved.status, moved.data()["version"].as_u64()), (200, Some(6)));
    assert_eq!(kept(&signed_in, "target").await, [5, 4, 5, 3, 2, 1]);
    assert_eq!(signed_in.read("target").await.body, b"12345");
    assert_eq!(signed_in.read("target?version=3").await.body, b"123");
    assert_eq!(signed_in.read("from").await.status, 404);
    signed_in.write("target", "123456").await;
    assert_eq!(kept(&signed_in, "target").await, [6, 5, 4, 5, 3, 2, 1]);
}

#[tokio::test]
async fn move_or_copy_to_an_invalid_path_is_refused() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let deep = |name: &str, depth: usize| vec![name; depth].join("/");
    let wide = |letter: &str, depth: usize| vec![letter.repeat(200); depth].join("/");
    assert_eq!(signed_in.write(&format!("{}/f", deep("a", 60)), "precious").await.status, 201);
    assert_eq!(signed_in.write(&format!("{}/f", wide("w", 18)), "precious").await.status, 201);
    let before = signed_in.listed("recursive=true").await;
    for what in ["files:move", "files:copy"] {
        for (from, to) in [("a".to_owned(), deep("b", 5)), ("w".repeat(200), wide("m", 4))] {
            let answer = signed_in.post(what, json!({"from": from, "to": to})).await;
            assert_eq!((answer.status, answer.code().as_str()), (422, "VALIDATION_FAILED"));
            assert_eq!(answer.json()["error"]["fields"][0]["field"], "to");
        }
    }
    assert_eq!(signed_in.listed("recursive=true").await, before);
    // One name less fits.
    let to = deep("b", 4);
    assert_eq!(signed_in.post("files:move", json!({"from": "a", "to": to})).await.status, 200);
    let moved = format!("{to}/{}/f", deep("a", 59));
    assert_eq!(signed_in.read(&moved).await.body, b"precious");
    assert_eq!(signed_in.remove(&moved).await.status, 204);
}

#[tokio::test]
async fn sessions_of_a_workspace_share_its_files_exclusively() {
    let server = Running::start(&[]).await;
    let mut signed_in =
        SignedInSession::in_workspace(&server, "ada@example.org", "/workspace/p").await;
    signed_in.write("shared", "x").await;
    let first = signed_in.path.clone();
    signed_in.open("/workspace/p").await;
    assert_ne!(signed_in.path, first);
    assert_eq!(signed_in.read("shared").await.body, b"x");
    signed_in.open("/workspace/q").await;
    assert_eq!(signed_in.read("shared").await.status, 404);

    let other = SignedInSession::in_workspace(&server, "eve@example.org", "/workspace/p").await;
    assert_eq!(other.read("shared").await.status, 404);
    let foreign = format!("{first}/files");
    let stranger = Device::login(server.address, "eve@example.org").await.token;
    for call_ in [
        Call::get(&foreign),
        Call::get(&format!("{foreign}/shared")),
        Call::put(&format!("{foreign}/shared")).body("mine"),
        Call::delete(&format!("{foreign}/shared")),
        Call::post(&format!("{foreign}:mkdir")).value(&json!({"path": "d"})),
        Call::post(&format!("{foreign}:move")).value(&json!({"from": "shared", "to": "d"})),
        Call::post(&format!("{foreign}:copy")).value(&json!({"from": "shared", "to": "d"})),
        Call::get(&format!("{first}/drafts")),
        Call::put(&format!("{first}/drafts/shared")).value(&json!({"content": "x"})),
    ] {
        assert_eq!(
            call(server.address, call_.clone().bearer(&stranger)).await.status,
            404,
            "{call_:?}"
        );
        assert_eq!(call(server.address, call_).await.status, 401);
    }
}

#[tokio::test]
async fn paths_cannot_leave_the_root() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for path in ["..", "a/../b", "%2e%2e/x", "a//b", "a/./b", "a%00b", "a%0Ab", &"n".repeat(256)] {
        let refused = signed_in.write(path, "x").await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "VALIDATION_FAILED"), "{path}");
    }
    assert_eq!(signed_in.write("%ff", "x").await.status, 400);
    assert!(signed_in.listed("recursive=true").await.is_empty());
}

#[tokio::test]
async fn draft_is_kept_until_deleted_with_its_base() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    signed_in.write("a/b", "saved").await;
    let draft = json!({"content": "typed é", "base_etag": hash(b"saved")});
    let kept = signed_in.put("drafts/a/b", &draft).await;
    assert_eq!((kept.status, kept.data()["size"].as_u64()), (200, Some(8)), "{}", kept.json());
    signed_in.put("drafts/new", &json!({"content": "", "baseEtag": null})).await;
    let listed = signed_in.get("drafts").await.data();
    assert_eq!(listed[0]["path"], "a/b");
    assert_eq!(listed[1]["path"], "new");

    signed_in.write("a/b", "saved by somebody else").await;
    let found = signed_in.get("drafts/a/b").await.data();
    assert_eq!(found["content"], "typed é");
    assert_eq!(found["base_etag"], hash(b"saved"));
    assert_eq!(found["current_etag"], hash(b"saved by somebody else"));
    let refused = signed_in.put("drafts/a/b", &json!({"content": "x", "base_etag": "xyz"})).await;
    assert_eq!(refused.status, 422);

    signed_in.put("drafts/a/b", &json!({"content": "more", "base_etag": etag(b"saved")})).await;
    assert_eq!(signed_in.get("drafts/a/b").await.data()["content"], "more");
    let discard = || signed_in.call(Call::delete(&signed_in.part("drafts/a/b")));
    assert_eq!(discard().await.status, 204);
    assert_eq!(discard().await.status, 404);
    assert_eq!(signed_in.get("drafts/a/b").await.status, 404);
    assert_eq!(signed_in.get("drafts").await.data().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn preconditions_hold_for_drafts_moves_copies_and_directories() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let save = |text: &str, header: (&str, &str)| {
        let call = Call::put(&signed_in.part("drafts/a")).value(&json!({"content": text}));
        if header.0.is_empty() { call } else { call.header(header.0, header.1) }
    };
    let status = async |call: Call| signed_in.call(call).await.status;
    assert_eq!(status(save("x", ("If-Match", "*"))).await, 412);
    let first = signed_in.call(save("one", ("If-None-Match", "*"))).await;
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(signed_in.get("drafts/a").await.header("etag"), Some(tag.as_str()));
    assert_eq!(status(save("x", ("If-None-Match", "*"))).await, 412);
    let second = signed_in.call(save("two", ("If-Match", &tag))).await;
    assert_eq!(second.status, 200);
    assert_eq!(status(save("x", ("If-Match", &tag))).await, 412);
    assert_eq!(signed_in.get("drafts/a").await.data()["content"], "two");
    let fresh = Call::get(&signed_in.part("drafts/a"));
    let fresh = fresh.header("If-None-Match", second.header("etag").unwrap());
    assert_eq!(status(fresh).await, 304);
    // The tag of a draft covers the file shown by GET.
    signed_in.write("a", "saved").await;
    let draft = signed_in.get("drafts/a").await;
    assert_ne!(draft.header("etag"), second.header("etag"));
    let discard = |tag: &str| Call::delete(&signed_in.part("drafts/a")).header("If-Match", tag);
    assert_eq!(status(discard(&tag)).await, 412);
    assert_eq!(status(discard(draft.header("etag").unwrap())).await, 204);

    let post = |what: &str, body: Value, name: &str, value: &str| {
        Call::post(&signed_in.part(what)).value(&body).header(name, value)
    };
    let (old, new) = (format!("\"{}\"", etag(b"other").trim_matches('"')), etag(b"saved"));
    for what in ["files:copy", "files:move"] {
        let body = json!({"from": "a", "to": what});
        assert_eq!(status(post(what, body.clone(), "If-Match", &old)).await, 412, "{what}");
        assert_eq!(status(post(what, body.clone(), "If-None-Match", &new)).await, 412, "{what}");
        let done = status(post(what, body, "If-Match", &new)).await;
        assert!(matches!(done, 200 | 201), "{what}: {done}");
    }
    let made = json!({"path": "d"});
    assert_eq!(status(post("files:mkdir", made.clone(), "If-Match", "*")).await, 412);
    assert_eq!(status(post("files:mkdir", made.clone(), "If-None-Match", "*")).await, 201);
    assert_eq!(status(post("files:mkdir", made, "If-None-Match", "*")).await, 412);
}
