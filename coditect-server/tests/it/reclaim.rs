//! Disk space of uploads: refused ones are removed at once, deleted ones soon, and all count until
//! then.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use coditect_auth::entities;
use coditect_store::{
    Clock, Counter, Store,
    check::Event,
    engine::RangeQuery,
    keyspace::KeyRange,
    model::{OrphanBlob, TenantId},
    records::blob::READ_LEASE,
};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    account::ME,
    client::{Answer, Call, Client, call},
    folder::{self, Folder},
    server::Running,
    signed_in_session::SignedInSession,
};

const SIZE: usize = 1_500_000;

fn content(first: u8) -> Vec<u8> {
    let mut content = vec![7; SIZE];
    content[0] = first;
    content
}

struct Site {
    folder: Folder,
    server: Running,
    signed_in: SignedInSession,
    tenant: TenantId,
}

/// Stored data of a tenant.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    chunk_bytes: usize,
    detached: usize,
    counted: i64,
}

impl Site {
    async fn new() -> Self {
        let folder = Folder::new();
        let server = Running::start_in(folder.path(), &[]).await;
        let signed_in = SignedInSession::new(&server, "ada@example.org").await;
        let me = signed_in.call(Call::get(ME)).await.data();
        let tenant = me["tenant"]["id"].as_str().unwrap().parse().unwrap();
        Self { folder, server, signed_in, tenant }
    }

    fn put(&self, path: &str, content: Vec<u8>) -> Call {
        Call::put(&self.signed_in.part(&format!("files/{path}"))).body(content)
    }

    async fn written(&self, path: &str, content: Vec<u8>) {
        assert_eq!(self.signed_in.call(self.put(path, content)).await.status, 201);
    }

    async fn refused(&self, call: Call, status: u16, code: &str) {
        let answer = self.signed_in.call(call).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }

    async fn copy(&self, from: &str, to: &str) -> Answer {
        let body = json!({"from": from, "to": to});
        self.signed_in.call(Call::post(&self.signed_in.part("files:copy")).value(&body)).await
    }

    /// Stops the server and reads its store.
    async fn stored(self) -> Stored {
        self.server.stopped().await;
        stored(self.folder.path(), self.tenant).await
    }
}

async fn stored(folder: &Path, tenant: TenantId) -> Stored {
    let store = entities(Store::options()).open(folder::database(folder)).await.unwrap();
    let told = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            panic!("{finding}")
        }
    };
    assert!(store.check().run(told).await.unwrap().is_sound());
    let tx = store.begin();
    let range = KeyRange::tuples(&store.root().key(&(tenant, "blob_chunks".to_owned())));
    let chunks = tx.engine().get_range(&RangeQuery::new(range.begin, range.end)).await.unwrap();
    let stored = Stored {
        chunk_bytes: chunks.rows.iter().map(|row| row.value.len()).sum(),
        detached: tx.list::<OrphanBlob>(tenant).all(999).await.unwrap().len(),
        counted: tx.counter(tenant, Counter::BYTES).await.unwrap(),
    };
    store.database().close().await;
    stored
}

/// Returns the state with only contents of `bytes` in total.
fn nothing_but(bytes: usize) -> Stored {
    Stored { chunk_bytes: bytes, detached: 0, counted: i64::try_from(bytes).unwrap() }
}

#[tokio::test]
async fn refused_upload_leaves_no_bytes() {
    let site = Site::new().await;
    site.written("f", content(1)).await;
    // The same content again, like a save without changes.
    assert_eq!(site.signed_in.call(site.put("f", content(1))).await.status, 200);
    let wrong = format!("sha-256=:{}:", BASE64_STANDARD.encode([0; 32]));
    let wrong = site.put("g", content(2)).header("Content-Digest", &wrong);
    site.refused(wrong, 400, "DIGEST_MISMATCH").await;
    let draft = json!({"content": "text", "base_etag": null});
    let part = site.signed_in.part("drafts/f");
    let draft = Call::put(&part).value(&draft);
    assert_eq!(site.signed_in.call(draft).await.status, 200);
    assert_eq!(site.signed_in.call(Call::delete(&part)).await.status, 204);

    // One of the concurrent uploads wins; the others are refused at the end.
    let puts = (0..6)
        .map(|n| site.signed_in.call(site.put("new", content(n)).header("If-None-Match", "*")));
    let mut statuses: Vec<u16> = join_all(puts).await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412, 412, 412, 412, 412]);
    let copies = join_all((0..8).map(|_| site.copy("f", "copy"))).await;
    let made = copies.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1);

    // An incomplete upload.
    let mut client = Client::connect(site.signed_in.server).await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {SIZE}\r\n\r\n",
        site.signed_in.part("files/half"),
        site.signed_in.token
    );
    client.send(head.as_bytes()).await;
    client.send(&vec![7; SIZE / 2 * 2 - 2]).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stored = site.stored().await;
    // A draft of four bytes is kept for its readers.
    assert!(stored.detached <= 1, "{stored:?}");
    let draft = if stored.detached == 1 { 4 } else { 0 };
    assert_eq!(Stored { detached: 0, ..stored }, nothing_but(3 * SIZE + draft));
}

#[tokio::test]
async fn upload_that_cannot_succeed_is_refused_before_its_body() {
    let site = Site::new().await;
    site.written("f", b"1".to_vec()).await;
    let made = Call::post(&site.signed_in.part("files:mkdir")).value(&json!({"path": "d"}));
    assert_eq!(site.signed_in.call(made).await.status, 201);
    for (path, header, status) in [
        ("f", "If-None-Match: *\r\n", "412"),
        ("none", "If-Match: *\r\n", "412"),
        ("d", "", "409"),
        ("f/below", "", "409"),
    ] {
        let mut client = Client::connect(site.signed_in.server).await;
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{header}\
             Content-Length: {SIZE}\r\n\r\n",
            site.signed_in.part(&format!("files/{path}")),
            site.signed_in.token
        );
        client.send(head.as_bytes()).await;
        assert_eq!(client.answer().await.status.to_string(), status, "{path}");
    }
    assert_eq!(site.stored().await, nothing_but(1));
}

#[tokio::test]
async fn deleted_content_counts_until_it_is_collected() {
    let site = Site::new().await;
    for n in 0..3 {
        site.written("f", content(n)).await;
        let delete = Call::delete(&site.signed_in.part("files/f"));
        assert_eq!(site.signed_in.call(delete).await.status, 204);
    }
    let Site { folder, server, tenant, .. } = site;
    server.stopped().await;
    let at_first = stored(folder.path(), tenant).await;
    assert_eq!(usize::try_from(at_first.counted).unwrap(), at_first.chunk_bytes);

    let server = Running::start_in(folder.path(), &[]).await;
    tokio::time::sleep(Duration::from_secs(24)).await;
    server.stopped().await;
    assert_eq!(stored(folder.path(), tenant).await, nothing_but(0));
}

/// Returns the detached contents of a tenant, from the stopped store.
async fn detached(site: Site) -> Vec<OrphanBlob> {
    site.server.stopped().await;
    let database = folder::database(site.folder.path());
    let store = entities(Store::options()).open(database).await.unwrap();
    let detached = store.begin().list::<OrphanBlob>(site.tenant).all(999).await.unwrap();
    store.database().close().await;
    detached
}

#[tokio::test]
async fn lease_of_a_replaced_content_begins_when_the_upload_ends() {
    let site = Site::new().await;
    // One content more than a file keeps.
    for version in 0..10 {
        let written = site.signed_in.call(site.put("f", vec![version; 10])).await;
        assert!(written.status < 300);
    }
    let mut client = Client::connect(site.signed_in.server).await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\r\na",
        site.signed_in.part("files/f"),
        site.signed_in.token
    );
    client.send(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended_at = Clock::system().now();
    client.send(b"b").await;
    assert_eq!(client.answer().await.status, 200);
    let last = detached(site).await.into_iter().map(|blob| blob.collect_after).max();
    assert!(last >= Some(ended_at + READ_LEASE), "{last:?}");
}

#[tokio::test]
async fn lease_of_a_replaced_content_begins_when_the_copy_ends() {
    let site = Site::new().await;
    site.written("large", vec![7; 48 << 20]).await;
    // The next content is one more than a file keeps.
    for version in 0..10 {
        let written = site.signed_in.call(site.put("f", vec![version; 10])).await;
        assert!(written.status < 300);
    }
    let body = json!({"from": "large", "to": "f", "overwrite": true});
    let copy =
        Call::post(&site.signed_in.part("files:copy")).value(&body).bearer(&site.signed_in.token);
    let copying = tokio::spawn(call(site.signed_in.server, copy));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!copying.is_finished(), "the content is too small");
    let ended_at = Clock::system().now();
    assert_eq!(copying.await.unwrap().status, 201);
    let last = detached(site).await.into_iter().map(|blob| blob.collect_after).max();
    assert!(last >= Some(ended_at + READ_LEASE), "{last:?}");
}

#[tokio::test]
async fn leases_of_removed_contents_begin_with_each_step_of_a_removal() {
    let site = Site::new().await;
    for number in 0..30 {
        site.written(&format!("d/{number}"), vec![number; 10]).await;
    }
    let remove = Call::delete(&site.signed_in.part("files/d?recursive=true"));
    assert_eq!(site.signed_in.call(remove).await.status, 204);
    let mut ends: Vec<_> =
        detached(site).await.into_iter().map(|blob| blob.collect_after).collect();
    assert_eq!(ends.len(), 30);
    ends.sort_unstable();
    assert!(ends[0] < ends[29], "two steps have one time: {}", ends[0]);
}
