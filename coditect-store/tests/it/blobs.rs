//! Blobs and files: what was uploaded is what is read, and nothing else stays.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    BatchSize, Blob, BlobReader, BlobUpload, Clock, Counter, ErrorKind, ManualClock, Reservation,
    Result, Store,
    check::{Event, Fault},
    engine::{Database, RangeQuery},
    keyspace::KeyRange,
    model::{
        BlobId, BlobState, DetachedBlob, Draft, File, FileHome, FileKind, FilePolicy, FileVersion,
        Session, TenantId,
    },
    repository::blob::{BlobFault, CHUNK_BYTES, READ_LEASE, UPLOAD_LEASE},
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::{deletions::is_sound, planner::store, samples};

/// What no two places of have alike.
fn content(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(length).collect()
}

fn workspace() -> FileHome {
    FileHome::Workspace("/workspace/p".to_owned())
}

async fn upload(store: &Store, tenant: TenantId, content: &[u8]) -> Blob {
    let mut upload = BlobUpload::begin(store, tenant, &Clock::system()).await.unwrap();
    upload.write(content).await.unwrap();
    upload.finish().await.unwrap()
}

async fn read(mut reader: BlobReader) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend(piece);
    }
    Ok(all)
}

async fn put(store: &Store, path: &str, content: &[u8], policy: &FilePolicy) -> Result<File> {
    let tenant = samples::tenant().id;
    let (home, blob) = (&workspace(), upload(store, tenant, content).await);
    let now = Clock::system().now();
    store
        .run(|tx| async move { File::put(&tx, tenant, (home, path), blob, policy, now).await })
        .await
}

/// The paths of all that there is.
async fn paths(store: &Store) -> Vec<String> {
    let (tx, tenant) = (store.begin(), samples::tenant().id);
    let all = tx.scan(&File::BY_PATH, tenant, (workspace(),)).all(999).await.unwrap();
    all.into_iter().map(|file| file.path).collect()
}

/// So many hours from now.
fn later(hours: i64) -> DateTime<Utc> {
    Clock::system().now() + TimeDelta::hours(hours)
}

/// How many chunks there are in all.
async fn chunks(store: &Store, tenant: TenantId) -> usize {
    let prefix = store.root().key(&(tenant, "blob_chunks".to_owned()));
    let range = KeyRange::tuples(&prefix);
    let query = RangeQuery::new(range.begin, range.end);
    store.begin().engine().get_range(&query).await.unwrap().rows.len()
}

#[tokio::test]
async fn what_was_uploaded_is_what_is_read_whatever_its_length() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let batch = 90 * CHUNK_BYTES;
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, batch, batch + 1, 1 << 21] {
        let content = content(length);
        let blob = upload(&store, tenant, &content).await;
        assert_eq!(blob.size, length as u64);
        assert_eq!(blob.sha256[..], Sha256::digest(&content)[..]);
        let whole = read(BlobReader::new(&store, tenant, blob)).await.unwrap();
        assert!(whole == content, "{length} bytes");
    }
}

#[tokio::test]
async fn another_tenant_cannot_read_or_attach_a_blob() {
    let store = store().await;
    let blob = upload(&store, samples::tenant().id, &content(5)).await;
    let other = TenantId::new();
    let read = read(BlobReader::new(&store, other, blob)).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    let attached = store.begin().attach(other, &blob).await;
    assert_eq!(attached.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn any_pieces_and_any_range_give_the_bytes_that_are_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(store());
    let tenant = samples::tenant().id;
    let pieces = prop::collection::vec(0_usize..40_000, 0..8);
    proptest!(ProptestConfig::with_cases(64), |(pieces in pieces, from: u64, to: u64)| {
        let all = content(pieces.iter().sum());
        let range = {
            let (a, b) = (from % (all.len() as u64 + 1), to % (all.len() as u64 + 1));
            a.min(b)..a.max(b)
        };
        let part = runtime.block_on(async {
            let mut upload = BlobUpload::begin(&store, tenant, &Clock::system()).await?;
            let mut rest = all.as_slice();
            for piece in pieces {
                let (piece, behind) = rest.split_at(piece);
                upload.write(piece).await?;
                rest = behind;
            }
            let blob = upload.finish().await?;
            let reader = BlobReader::range(&store, tenant, blob, range.clone())?;
            assert_eq!(reader.remaining(), range.end - range.start);
            read(reader).await
        }).unwrap();
        let (from, to) = (range.start.try_into().unwrap(), range.end.try_into().unwrap());
        let expected: &[u8] = &all[std::ops::Range { start: from, end: to }];
        prop_assert!(part == expected, "{} bytes, {range:?}", all.len());
    });
}

#[tokio::test]
async fn a_range_past_the_end_is_refused() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(5)).await;
    for range in [0..6, 6..6, std::ops::Range { start: 3, end: 2 }] {
        let refused = BlobReader::range(&store, tenant, blob, range).map(|_| ());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_damaged_blob_is_never_given_whole() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(3 * CHUNK_BYTES)).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let key = store.root().key(&(tenant, "blob_chunks".to_owned(), blob.id, 1_u64));
    let damages: [Option<Vec<u8>>; 3] =
        [None, Some(vec![0; CHUNK_BYTES]), Some(vec![0; CHUNK_BYTES - 1])];
    for damage in damages {
        let tx = store.begin();
        match &damage {
            Some(bytes) => tx.engine().set(&key, bytes),
            None => tx.engine().clear(&key),
        }
        tx.commit().await.unwrap();
        let refused = read(BlobReader::new(&store, tenant, blob)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "{damage:?}");
    }
}

#[tokio::test]
async fn a_blob_is_attached_once_and_detached_once() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(5)).await;
    let attach = || store.run(|tx| async move { tx.attach(tenant, &blob).await });
    let now = Clock::system().now();
    let detach = || store.run(|tx| async move { tx.detach(tenant, &blob, now).await });
    assert_eq!(
        detach().await.unwrap_err().kind(),
        ErrorKind::AlreadyExists,
        "it is being uploaded"
    );
    attach().await.unwrap();
    assert_eq!(attach().await.unwrap_err().kind(), ErrorKind::NotFound);
    detach().await.unwrap();
    assert_eq!(detach().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(attach().await.unwrap_err().kind(), ErrorKind::NotFound, "it was let go of");
}

#[tokio::test]
async fn what_was_left_alone_is_collected_and_what_is_written_to_is_not() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let clock = ManualClock::new(Clock::system().now());
    let time = Clock::from(&clock);
    let piece = content(90 * CHUNK_BYTES);
    let mut left = BlobUpload::begin(&store, tenant, &time).await.unwrap();
    left.write(&piece).await.unwrap();
    let held = {
        let blob = upload(&store, tenant, &piece).await;
        store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
        blob
    };
    let mut busy = BlobUpload::begin(&store, tenant, &time).await.unwrap();
    for _ in 0..5 {
        busy.write(&piece).await.unwrap();
        clock.advance(UPLOAD_LEASE - TimeDelta::minutes(2));
    }
    assert_eq!(store.collect_blobs(time.now()).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 90 + 5 * 90);

    let refused = left.write(&piece).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let busy = busy.finish().await.unwrap();
    assert_eq!(read(BlobReader::new(&store, tenant, busy)).await.unwrap().len(), 5 * piece.len());

    // Nobody came for it.
    clock.advance(TimeDelta::hours(3));
    assert_eq!(store.collect_blobs(time.now()).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 90);
    let gone = store.begin().attach(tenant, &busy).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    let gone = read(BlobReader::new(&store, tenant, busy)).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(read(BlobReader::new(&store, tenant, held)).await.unwrap() == piece);
}

#[tokio::test]
async fn a_detached_blob_is_read_to_its_end_if_its_reader_renews_the_lease() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let content = content(200 * CHUNK_BYTES);
    let blob = upload(&store, tenant, &content).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let mut reader = BlobReader::new(&store, tenant, blob);
    let mut all = Vec::new();
    let mut now = Clock::system().now();
    assert_eq!(store.renew_read_leases(now).await.unwrap(), 0, "it is not detached");
    store.run(|tx| async move { tx.detach(tenant, &blob, now).await }).await.unwrap();
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend(piece);
        now += READ_LEASE / 3;
        assert_eq!(store.renew_read_leases(now).await.unwrap(), 1);
        assert_eq!(store.collect_blobs(now).await.unwrap(), 0);
    }
    assert!(content == all);
    assert!(now - READ_LEASE > Clock::system().now(), "the first lease was over before");

    // Nobody reads it any more.
    drop(reader);
    assert_eq!(store.renew_read_leases(now).await.unwrap(), 0);
    assert_eq!(store.collect_blobs(now + READ_LEASE * 2).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn a_reader_that_does_not_renew_its_lease_fails_when_the_blob_is_collected() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let content = content(100 * CHUNK_BYTES);
    let blob = upload(&store, tenant, &content).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let mut reader = BlobReader::new(&store, tenant, blob);
    let mut all = reader.next().await.unwrap().unwrap();
    let now = Clock::system().now();
    store.run(|tx| async move { tx.detach(tenant, &blob, now).await }).await.unwrap();
    assert_eq!(store.collect_blobs(now + READ_LEASE / 2).await.unwrap(), 0);
    all.extend(reader.next().await.unwrap().unwrap());
    assert_eq!(store.collect_blobs(now + READ_LEASE * 2).await.unwrap(), 1);
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(content.starts_with(&all));
}

#[tokio::test]
async fn a_read_lease_is_renewed_for_an_hour_at_most() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(100)).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let _reader = BlobReader::new(&store, tenant, blob);
    let mut now = Clock::system().now();
    let begun_at = now;
    store.renew_read_leases(now).await.unwrap();
    store.run(|tx| async move { tx.detach(tenant, &blob, now).await }).await.unwrap();
    while store.collect_blobs(now).await.unwrap() == 0 {
        store.renew_read_leases(now).await.unwrap();
        now += READ_LEASE / 3;
    }
    let held = now - begun_at;
    assert!(held > TimeDelta::hours(1) && held < TimeDelta::minutes(62), "{held}");
}

#[tokio::test]
async fn an_upload_given_up_leaves_nothing() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let mut upload = BlobUpload::begin(&store, tenant, &Clock::system()).await.unwrap();
    upload.write(&content(2_000 * CHUNK_BYTES)).await.unwrap();
    assert!(chunks(&store, tenant).await > 1_000);
    upload.abandon().await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 0);
    let left = store.begin().list::<DetachedBlob>(tenant).all(9).await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn a_collection_that_was_broken_off_is_finished_by_the_next() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(CHUNK_BYTES)).await;
    let release = |tx: coditect_store::Transaction| async move {
        tx.modify::<DetachedBlob>(tenant, blob.id, |blob| blob.state = BlobState::Released).await
    };
    store.run(release).await.unwrap();
    let attached = store.begin().attach(tenant, &blob).await;
    assert_eq!(attached.unwrap_err().kind(), ErrorKind::NotFound, "its chunks may be gone");
    let later = Clock::system().now() + TimeDelta::hours(2);
    assert_eq!(store.collect_blobs(later).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn a_file_keeps_as_many_contents_as_the_policy_says() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let policy = FilePolicy::default().versions(3);
    for n in 1..=5_u8 {
        let file = put(&store, "src/main.rs", &[n; 7], &policy).await.unwrap();
        assert_eq!(file.version, u64::from(n));
        let sha256 = Sha256::digest([n; 7]).into();
        assert_eq!(file.kind, FileKind::File { size: 7, sha256 });
    }
    let tx = store.begin();
    let file = File::at(&tx, tenant, &workspace(), "src/main.rs").await.unwrap().unwrap();
    let kept = file.contents(&tx).await.unwrap();
    let numbers: Vec<_> = kept.iter().map(|content| content.version).collect();
    assert_eq!(numbers, [5, 4, 3]);
    assert_eq!(tx.counter(tenant, Counter::FILES).await.unwrap(), 1);
    let older = file.content(&tx, 3).await.unwrap().unwrap();
    let older = read(BlobReader::new(&store, tenant, older.blob)).await.unwrap();
    assert_eq!(older, [3; 7]);

    // Those that are not kept are counted until they are collected.
    let later = Clock::system().now() + TimeDelta::hours(2);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 35);
    assert_eq!(store.collect_blobs(later).await.unwrap(), 2);
    assert_eq!(store.begin().counter(tenant, Counter::BYTES).await.unwrap(), 21);

    // A lower number takes hold with the next content.
    let policy = policy.versions(0);
    put(&store, "src/main.rs", b"", &policy).await.unwrap();
    let kept = file.contents(&store.begin()).await.unwrap();
    assert_eq!(kept.iter().map(|content| content.version).collect::<Vec<_>>(), [6]);
    store.collect_blobs(Clock::system().now() + TimeDelta::hours(2)).await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn a_file_that_is_removed_takes_its_contents_along() {
    let store = store().await;
    let tenant = samples::tenant().id;
    for n in 0..3 {
        put(&store, "a", &[n; 9], &FilePolicy::default()).await.unwrap();
    }
    let file = put(&store, "b", b"stays", &FilePolicy::default()).await.unwrap();
    let now = Clock::system().now();
    let home = &workspace();
    let remove = |tx: coditect_store::Transaction| async move {
        let file = File::at(&tx, tenant, home, "a").await?.unwrap();
        file.remove(&tx, now).await
    };
    store.run(remove).await.unwrap();
    store.collect_blobs(now + TimeDelta::hours(2)).await.unwrap();
    let tx = store.begin();
    assert_eq!(tx.list::<File>(tenant).all(9).await.unwrap(), std::slice::from_ref(&file));
    assert_eq!(tx.list::<FileVersion>(tenant).all(9).await.unwrap().len(), 1);
    assert_eq!(tx.counter(tenant, Counter::FILES).await.unwrap(), 1);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 5);
    assert_eq!(chunks(&store, tenant).await, 1);
}

#[tokio::test]
async fn a_file_that_was_read_before_its_last_content_is_removed_with_that_too() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let (stale, now) = (&put(&store, "a", b"1", &FilePolicy::default()).await.unwrap(), later(1));
    put(&store, "a", b"22", &FilePolicy::default()).await.unwrap();
    store.run(|tx| async move { stale.remove(&tx, now).await }).await.unwrap();
    let tx = store.begin();
    assert_eq!(tx.list::<FileVersion>(tenant).all(9).await.unwrap(), []);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 3, "it is still stored");
    store.collect_blobs(later(4)).await.unwrap();
    assert_eq!(store.begin().counter(tenant, Counter::BYTES).await.unwrap(), 0);
    assert_eq!(chunks(&store, tenant).await, 0);
    let again = store.run(|tx| async move { stale.remove(&tx, now).await }).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn who_is_over_a_lowered_limit_may_still_write_what_is_no_longer() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let policy = FilePolicy::default().versions(1);
    put(&store, "a", b"12345678", &policy).await.unwrap();
    let lowered = policy.bytes(4);
    for content in [b"87654321".as_slice(), b"7654321"] {
        put(&store, "a", content, &lowered).await.unwrap();
    }
    let refused = put(&store, "a", b"12345678", &lowered).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    store.collect_blobs(later(2)).await.unwrap();
    assert_eq!(store.begin().counter(tenant, Counter::BYTES).await.unwrap(), 7);
}

#[tokio::test]
async fn who_has_finished_an_upload_has_the_whole_lease_to_attach_it() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let clock = ManualClock::new(Clock::system().now());
    let time = Clock::from(&clock);
    let mut upload = BlobUpload::begin(&store, tenant, &time).await.unwrap();
    upload.write(&content(5)).await.unwrap();
    clock.advance(UPLOAD_LEASE / 2);
    let blob = upload.finish().await.unwrap();
    clock.advance(UPLOAD_LEASE - TimeDelta::minutes(1));
    store.collect_blobs(time.now()).await.unwrap();
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
}

#[tokio::test]
async fn a_reader_whose_tenant_is_being_deleted_hears_that_it_is_gone_and_not_corrupt() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.create(&samples::tenant()).await }).await.unwrap();
    let blob = upload(&store, tenant, &content(100 * CHUNK_BYTES)).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let mut reader = BlobReader::new(&store, tenant, blob);
    reader.next().await.unwrap().unwrap();
    let now = later(0);
    store.run(|tx| async move { tx.delete_tenant(tenant, now).await }).await.unwrap();
    // The deletion has come as far as some of the chunks.
    let tx = store.begin();
    for n in 30..50_u64 {
        let chunk = (tenant, "blob_chunks".to_owned(), blob.id, n);
        tx.engine().clear(&store.root().key(&chunk));
    }
    tx.commit().await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_has_no_room_is_refused_and_changes_nothing() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let policy = FilePolicy::default().files(1).bytes(10).versions(9);
    let file = put(&store, "a", b"12345678", &policy).await.unwrap();
    let refused = put(&store, "a", b"123", &policy).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    let refused = put(&store, "b", b"1", &policy).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("files"));
    assert_eq!(store.collect_blobs(later(2)).await.unwrap(), 2, "the uploads");
    let tx = store.begin();
    assert_eq!(tx.list::<File>(tenant).all(9).await.unwrap(), [file]);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 8);
    assert_eq!(tx.counter(tenant, Counter::FILES).await.unwrap(), 1);
}

#[tokio::test]
async fn a_content_that_is_replaced_makes_room_for_the_next_and_is_counted_until_it_is_collected() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let policy = FilePolicy::default().files(1).bytes(10).versions(1);
    for content in [b"12345678".as_slice(), b"1234567890", b"1", b"123"] {
        put(&store, "a", content, &policy).await.unwrap();
        store.collect_blobs(later(2)).await.unwrap();
        let counted = store.begin().counter(tenant, Counter::BYTES).await.unwrap();
        assert_eq!(counted, i64::try_from(content.len()).unwrap());
    }
    put(&store, "a", b"1234567", &policy).await.unwrap();
    let refused = put(&store, "a", b"12345678", &policy).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"), "3 bytes are still stored");
    store.collect_blobs(later(2)).await.unwrap();
    put(&store, "a", b"12345678", &policy).await.unwrap();
    let refused = put(&store, "a", b"12345678901", &policy).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
}

#[tokio::test]
async fn a_directory_counts_as_a_file_and_takes_its_path() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let (home, policy) = (&workspace(), &FilePolicy::default().files(1));
    let now = Clock::system().now();
    let make = |path: &'static str| {
        store.run(move |tx| async move {
            File::create_directory(&tx, tenant, (home, path), policy, now).await
        })
    };
    let directory = make("src").await.unwrap();
    assert_eq!(make("src").await.unwrap_err().kind(), ErrorKind::UniqueViolation("files_by_path"));
    assert_eq!(make("doc").await.unwrap_err().kind(), ErrorKind::QuotaExceeded("files"));
    let directory = &directory;
    store.run(|tx| async move { directory.remove(&tx, now).await }).await.unwrap();
    make("doc").await.unwrap();
}

#[tokio::test]
async fn a_way_is_made_once_and_not_through_a_file() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let (home, policy, now) = (&workspace(), &FilePolicy::default(), Clock::system().now());
    let make_way = |path: &'static str| {
        store.run(
            move |tx| async move { File::make_way(&tx, tenant, (home, path), policy, now).await },
        )
    };
    for path in ["a/b/c/d", "a/b/x", "top"] {
        make_way(path).await.unwrap();
    }
    assert_eq!(paths(&store).await, ["a", "a/b", "a/b/c"]);
    put(&store, "a/b/file", b"1", policy).await.unwrap();
    assert_eq!(make_way("a/b/file/x").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.begin().counter(tenant, Counter::FILES).await.unwrap(), 4);
}

#[tokio::test]
async fn a_directory_is_listed_moved_and_removed_with_all_that_lies_below() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let (home, policy, now) = (&workspace(), &FilePolicy::default(), Clock::system().now());
    let many: Vec<String> = (0..30).map(|n| format!("src/deep/{n:02}")).collect();
    for path in many.iter().map(String::as_str).chain(["src/main.rs", "src-2", "other"]) {
        let way = |tx| async move { File::make_way(&tx, tenant, (home, path), policy, now).await };
        store.run(way).await.unwrap();
        put(&store, path, path.as_bytes(), policy).await.unwrap();
    }
    let of = |directory: &str| {
        let (tx, key) = (store.begin(), (home.clone(), directory.to_owned()));
        async move {
            let all = tx.scan(&File::BY_DIRECTORY, tenant, key).all(99).await.unwrap();
            all.into_iter().map(|file| file.path).collect::<Vec<_>>()
        }
    };
    assert_eq!(of("").await, ["other", "src", "src-2"]);
    assert_eq!(of("src").await, ["src/deep", "src/main.rs"]);

    let at = |path: &'static str| {
        let tx = store.begin();
        async move { File::at(&tx, tenant, home, path).await.unwrap().unwrap() }
    };
    let src = &at("src").await;
    let into =
        |path: &'static str| store.run(move |tx| async move { src.move_to(&tx, path).await });
    assert_eq!(into("src/deep/in").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        into("other").await.unwrap_err().kind(),
        ErrorKind::UniqueViolation("files_by_path")
    );
    assert_eq!(into("lib").await.unwrap().id, src.id);
    assert_eq!(of("").await, ["lib", "other", "src-2"]);
    assert_eq!(of("lib/deep").await.len(), 30);
    let moved = at("lib/deep/07").await;
    let content = moved.content(&store.begin(), 1).await.unwrap().unwrap();
    let reader = BlobReader::new(&store, tenant, content.blob);
    assert_eq!(read(reader).await.unwrap(), b"src/deep/07");

    let lib = &at("lib").await;
    assert!(!lib.is_empty(&store.begin()).await.unwrap());
    let mut rounds = 1;
    let size = &BatchSize::new(File::MOST_REMOVED);
    while !store
        .run_batch(size, |tx, limit| async move { lib.remove_tree(&tx, limit, now).await })
        .await
        .unwrap()
    {
        rounds += 1;
    }
    assert_eq!(rounds, 2);
    assert_eq!(paths(&store).await, ["other", "src-2"]);
    assert_eq!(store.begin().counter(tenant, Counter::FILES).await.unwrap(), 2);
}

#[tokio::test]
async fn a_file_that_is_moved_over_another_adds_its_contents_to_the_others() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.create(&samples::tenant()).await }).await.unwrap();
    let policy = FilePolicy::default().versions(60);
    let (mut source, mut target) = (None, None);
    for n in 1..=60 {
        source = Some(put(&store, "a", &vec![1; n], &policy).await.unwrap());
        target = Some(put(&store, "b", &vec![2; n], &policy).await.unwrap());
    }
    let (source, target, now) = (&source.unwrap(), &target.unwrap(), later(0));
    let moved = store.run(|tx| async move { source.move_over(&tx, target, now).await }).await;
    let moved = moved.unwrap();
    assert_eq!((moved.id, moved.version, &moved.kind), (target.id, 120, &source.kind));
    let kept = moved.contents(&store.begin()).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|content| (content.version, content.blob.size)).collect();
    assert_eq!((kept.len(), kept[0], kept[99]), (100, (120, 60), (21, 21)));
    assert_eq!(paths(&store).await, ["b"]);
    is_sound(&store).await;
    let again = store.run(|tx| async move { source.move_over(&tx, target, now).await }).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
    store.collect_blobs(later(2)).await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 100);
    is_sound(&store).await;
}

#[tokio::test]
async fn a_draft_counts_while_it_is_there_and_is_let_go_of_when_it_is_not() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let session = &samples::session();
    store.run(|tx| async move { tx.create(session).await }).await.unwrap();
    let counted = || async { store.begin().counter(tenant, Counter::BYTES).await.unwrap() };
    let policy = &FilePolicy::default().bytes(12);
    for text in ["hello", "hello, world", ""] {
        let draft =
            &Draft { blob: upload(&store, tenant, text.as_bytes()).await, ..samples::draft() };
        store.run(|tx| async move { draft.save(&tx, policy).await }).await.unwrap();
        store.collect_blobs(later(2)).await.unwrap();
        assert_eq!(counted().await, i64::try_from(text.len()).unwrap());
    }
    let long = &Draft { blob: upload(&store, tenant, &[1; 13]).await, ..samples::draft() };
    let refused = store.run(|tx| async move { long.save(&tx, policy).await }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    let (draft, now) = (&samples::draft(), later(0));
    store.run(|tx| async move { draft.discard(&tx, now).await }).await.unwrap();
    assert_eq!(counted().await, 13);
    store.discard_blob(tenant, long.blob.id).await.unwrap();
    assert_eq!(counted().await, 0);
    assert_eq!(store.collect_blobs(later(2)).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn a_directory_is_not_overwritten_and_a_session_must_be_there() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let [_, directory] = samples::files();
    let made = &directory;
    store.run(|tx| async move { tx.create(made).await }).await.unwrap();
    let refused = put(&store, &directory.path, b"1", &FilePolicy::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);

    let session = &samples::session();
    let (home, policy) = (&FileHome::Session(session.id), &FilePolicy::default());
    let now = Clock::system().now();
    for there in [false, true] {
        if there {
            store.run(|tx| async move { tx.create::<Session>(session).await }).await.unwrap();
        }
        let blob = upload(&store, tenant, b"1").await;
        let put = |tx: coditect_store::Transaction| async move {
            File::put(&tx, tenant, (home, "a"), blob, policy, now).await
        };
        let outcome = store.run(put).await.map_err(|error| error.kind()).map(|file| file.version);
        assert_eq!(outcome, if there { Ok(1) } else { Err(ErrorKind::NotFound) });
    }
}

#[tokio::test]
async fn of_many_who_write_one_file_all_are_a_version_of_it() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let tasks: Vec<_> = (0..16_u8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let policy = FilePolicy::default().versions(100);
                put(&store, "a", &[n; 3], &policy).await.unwrap().version
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<u64>>());
    let tx = store.begin();
    assert_eq!(tx.list::<File>(tenant).all(9).await.unwrap().len(), 1);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 48);
    assert_eq!(tx.list::<DetachedBlob>(tenant).all(9).await.unwrap(), []);
}

/// Breaks off an upload and its publication at one wait or another, and begins it again: the file is
/// there, once, and nothing is left behind.
#[tokio::test]
async fn an_upload_that_is_broken_off_anywhere_leaves_nothing_that_is_not_collected() {
    use std::{future::Future as _, pin::pin, task::Poll};

    let content = content(200 * CHUNK_BYTES);
    let mut broken_off = 0;
    for polls in (1..8).cycle().take(28) {
        let store = Store::open(Database::temporary().unwrap()).await.unwrap();
        let tenant = samples::tenant().id;
        let policy = FilePolicy::default();
        let done = {
            let mut work = pin!(put(&store, "a", &content, &policy));
            let mut left = polls;
            std::future::poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(false);
                }
                left -= 1;
                work.as_mut().poll(context).map(|outcome| outcome.is_ok())
            })
            .await
        };
        broken_off += u32::from(!done);
        // A commit that was broken off may still come in: this one comes in behind it.
        let behind = store.begin();
        behind.engine().set(b"behind", b"");
        behind.commit().await.unwrap();
        let written = store.begin().list::<File>(tenant).all(9).await.unwrap();
        assert!(written.len() <= 1);
        store.collect_blobs(Clock::system().now() + TimeDelta::hours(2)).await.unwrap();
        assert_eq!(chunks(&store, tenant).await, written.len() * 200, "after {polls} polls");
        let file = put(&store, "a", &content, &policy).await.unwrap();
        let version = file.content(&store.begin(), file.version).await.unwrap().unwrap();
        assert!(read(BlobReader::new(&store, tenant, version.blob)).await.unwrap() == content);
    }
    assert!(broken_off > 3, "it waits at its commits");
}

async fn counted(store: &Store) -> i64 {
    store.begin().counter(samples::tenant().id, Counter::BYTES).await.unwrap()
}

#[tokio::test]
async fn an_upload_is_counted_from_its_beginning_until_it_is_discarded() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.create(&samples::tenant()).await }).await.unwrap();
    let time = Clock::system();
    let batch = 90 * CHUNK_BYTES;
    let reservation = |bytes: usize| Reservation {
        id: BlobId::new(),
        bytes: bytes as u64,
        limit: i64::try_from(2 * batch).unwrap(),
    };
    let reserve =
        async |bytes| BlobUpload::reserve(&store, tenant, reservation(bytes), &time).await;
    let as_counted = |bytes: usize| i64::try_from(bytes).unwrap();

    let mut upload = reserve(batch + 5).await.unwrap();
    assert_eq!(counted(&store).await, as_counted(batch + 5), "as much as was announced");
    let refused = reserve(batch).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    upload.write(&content(batch)).await.unwrap();
    assert_eq!(counted(&store).await, as_counted(batch + 5));
    is_sound(&store).await;

    // What comes beyond the announced length is counted as it comes, up to the limit.
    let refused = upload.write(&content(2 * batch)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    assert_eq!(counted(&store).await, as_counted(2 * batch));
    is_sound(&store).await;
    upload.abandon().await.unwrap();
    assert_eq!((counted(&store).await, chunks(&store, tenant).await), (0, 0));

    // What was announced and did not come is released with the attachment.
    let mut upload = reserve(batch).await.unwrap();
    upload.write(b"short").await.unwrap();
    let blob = upload.finish().await.unwrap();
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    assert_eq!(counted(&store).await, 5);
    store.discard_blob(tenant, blob.id).await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 1, "a record holds it");
}

#[tokio::test]
async fn many_uploads_at_once_stay_within_the_limit() {
    let store = store().await;
    store.run(|tx| async move { tx.create(&samples::tenant()).await }).await.unwrap();
    let policy = FilePolicy::default().bytes(100).versions(3);
    let tasks: Vec<_> = (0..24_u8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let path = format!("f{}", n % 6);
                let written = put(&store, &path, &[n; 12], &policy).await;
                written.map(|_| ()).map_err(|error| error.kind())
            })
        })
        .collect();
    let mut written = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => written += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::QuotaExceeded("bytes")),
        }
    }
    store.collect_blobs(later(2)).await.unwrap();
    assert!(counted(&store).await <= 100);
    // Uploads that all count at once may each be refused; none stays so.
    if written == 0 {
        put(&store, "f0", &[0; 12], &policy).await.unwrap();
    }
    is_sound(&store).await;
}

#[tokio::test]
async fn a_counter_that_differs_from_its_records_is_found_and_repaired() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.create(&samples::tenant()).await }).await.unwrap();
    put(&store, "a", &content(15_000), &FilePolicy::default()).await.unwrap();
    upload(&store, tenant, &content(100)).await;
    is_sound(&store).await;
    let counters = [Counter::BYTES, Counter::FILES, Counter::SESSIONS, Counter::AGENTS];
    for counter in counters {
        let release =
            |tx: coditect_store::Transaction| async move { tx.release(tenant, counter, 1) };
        store.run(release).await.unwrap();
    }
    let mut found = Vec::new();
    let note = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            found.push(finding.fault);
        }
    };
    let report = store.check().repairing().run(note).await.unwrap();
    assert_eq!(found, counters.map(|counter| Fault::Counter(counter.name())));
    assert_eq!((report.faults, report.repaired), (4, 4));
    is_sound(&store).await;
}

/// What a check finds of blobs.
async fn faults(store: &Store) -> Vec<BlobFault> {
    let mut faults = Vec::new();
    let told = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            match finding.fault {
                Fault::Blob(fault) => faults.push(fault),
                Fault::Hanging => assert!(finding.why.contains("tenant"), "{finding}"),
                // The blobs' records are changed here without their counters.
                Fault::Counter("bytes") => {}
                other => panic!("{other:?}: {finding}"),
            }
        }
    };
    store.check().run(told).await.unwrap();
    faults
}

#[tokio::test]
async fn a_check_finds_what_is_wrong_with_blobs() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let file = put(&store, "a", &content(3 * CHUNK_BYTES), &FilePolicy::default()).await.unwrap();
    put(&store, "empty", b"", &FilePolicy::default()).await.unwrap();
    upload(&store, tenant, &content(100)).await;
    assert_eq!(faults(&store).await, []);
    let held = file.content(&store.begin(), 1).await.unwrap().unwrap();
    let blob = held.blob;
    let chunk = |n: u64| store.root().key(&(tenant, "blob_chunks".to_owned(), blob.id, n));

    // Each is undone before the next.
    for n in 0..3 {
        let whole = store.begin().engine().get(&chunk(n)).await.unwrap().unwrap();
        let damages =
            [None, Some(whole[1..].to_vec()), Some(content(CHUNK_BYTES + 4)[4..].to_vec())];
        for damage in damages.into_iter().chain([Some(whole.clone())]) {
            let sound = damage.as_ref() == Some(&whole);
            let tx = store.begin();
            match damage {
                Some(bytes) => tx.engine().set(&chunk(n), &bytes),
                None => tx.engine().clear(&chunk(n)),
            }
            tx.commit().await.unwrap();
            let expected = if sound { &[][..] } else { &[BlobFault::Damaged] };
            assert_eq!(faults(&store).await, expected);
        }
    }
    let now = Clock::system().now();
    store.run(|tx| async move { tx.detach(tenant, &blob, now).await }).await.unwrap();
    assert_eq!(faults(&store).await, [BlobFault::HeldAndDetached]);
    store.run(|tx| async move { tx.delete::<DetachedBlob>(tenant, blob.id).await }).await.unwrap();
    let twice = &FileVersion { version: 2, ..held };
    store.run(|tx| async move { tx.create(twice).await }).await.unwrap();
    assert_eq!(faults(&store).await, [BlobFault::HeldTwice]);
    let tx = store.begin();
    for version in 1..=2_u64 {
        tx.engine().clear(&<FileVersion as coditect_store::Entity>::SPACE.key(
            store.root(),
            tenant,
            &(twice.file_id, version),
        ));
    }
    tx.commit().await.unwrap();
    assert_eq!(faults(&store).await, [BlobFault::Lost]);
}

#[tokio::test]
async fn a_tenant_that_is_moved_takes_its_files_along() {
    let store = store().await;
    let tenant = samples::tenant().id;
    put(&store, "a", b"older", &FilePolicy::default()).await.unwrap();
    let content = content(30 * CHUNK_BYTES + 1);
    put(&store, "a", &content, &FilePolicy::default()).await.unwrap();
    let mut archive = Vec::new();
    store.export().tenant(tenant).run(&mut archive, |_| ()).await.unwrap();

    let database = Database::temporary().unwrap();
    let other = Store::open(database.clone()).await.unwrap();
    let import = Store::options().import(database).unwrap();
    import.run(archive.as_slice(), |_| ()).await.unwrap();
    assert_eq!(faults(&other).await, []);
    let tx = other.begin();
    let file = File::at(&tx, tenant, &workspace(), "a").await.unwrap().unwrap();
    let kept = file.contents(&tx).await.unwrap();
    assert_eq!(kept.len(), 2);
    let moved = read(BlobReader::new(&other, tenant, kept[0].blob)).await.unwrap();
    assert!(moved == content);
    let bytes = i64::try_from(content.len() + 5).unwrap();
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), bytes);
}
