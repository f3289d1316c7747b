//! Blobs: the bytes read are the bytes uploaded, and nothing else remains.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Blob, BlobReader, BlobUpload, Clock, Counter, ErrorKind, ManualClock, Reservation, Result,
    Store,
    check::{Event, Fault},
    engine::{Database, RangeQuery},
    keyspace::KeyRange,
    model::{BlobId, BlobState, File, FilePolicy, FileRoot, FileVersion, OrphanBlob, TenantId},
    records::blob::{BlobFault, CHUNK_BYTES, READ_LEASE, UPLOAD_LEASE},
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::{deletions::is_sound, planner::store, samples};

/// Bytes that differ at every position.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(length).collect()
}

pub(crate) fn workspace() -> FileRoot {
    FileRoot::Workspace("/workspace/p".to_owned())
}

pub(crate) async fn upload(store: &Store, tenant: TenantId, content: &[u8]) -> Blob {
    let mut upload = BlobUpload::begin(store, tenant, &Clock::system()).await.unwrap();
    upload.write(content).await.unwrap();
    upload.finish().await.unwrap()
}

pub(crate) async fn read(mut reader: BlobReader) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend(piece);
    }
    Ok(all)
}

pub(crate) async fn put(
    store: &Store,
    path: &str,
    content: &[u8],
    policy: &FilePolicy,
) -> Result<File> {
    let tenant = samples::tenant().id;
    let (home, blob) = (&workspace(), upload(store, tenant, content).await);
    let now = Clock::system().now();
    store
        .run(|tx| async move { File::put(&tx, tenant, (home, path), blob, policy, now).await })
        .await
}

/// Returns the paths of all entries.
pub(crate) async fn paths(store: &Store) -> Vec<String> {
    let (tx, tenant) = (store.begin(), samples::tenant().id);
    let all = tx.scan(&File::BY_PATH, tenant, (workspace(),)).all(999).await.unwrap();
    all.into_iter().map(|file| file.path).collect()
}

/// Returns the time in `hours`.
pub(crate) fn later(hours: i64) -> DateTime<Utc> {
    Clock::system().now() + TimeDelta::hours(hours)
}

/// Returns the number of all chunks.
pub(crate) async fn chunks(store: &Store, tenant: TenantId) -> usize {
    let prefix = store.root().key(&(tenant, "blob_chunks".to_owned()));
    let range = KeyRange::tuples(&prefix);
    let query = RangeQuery::new(range.begin, range.end);
    store.begin().engine().get_range(&query).await.unwrap().rows.len()
}

#[tokio::test]
async fn uploads_of_any_length_are_read_back() {
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
fn any_pieces_and_any_range_return_the_uploaded_bytes() {
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
async fn damaged_blob_is_never_returned_whole() {
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
async fn idle_upload_is_collected_and_active_one_is_not() {
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

    // No record attached it.
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

    // It has no readers left.
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
    upload.discard().await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 0);
    let left = store.begin().list::<OrphanBlob>(tenant).all(9).await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn interrupted_collection_is_resumed_by_the_next() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let blob = upload(&store, tenant, &content(CHUNK_BYTES)).await;
    let release = |tx: coditect_store::Transaction| async move {
        tx.modify::<OrphanBlob>(tenant, blob.id, |blob| blob.state = BlobState::Released).await
    };
    store.run(release).await.unwrap();
    let attached = store.begin().attach(tenant, &blob).await;
    assert_eq!(attached.unwrap_err().kind(), ErrorKind::NotFound, "its chunks may be gone");
    let later = Clock::system().now() + TimeDelta::hours(2);
    assert_eq!(store.collect_blobs(later).await.unwrap(), 1);
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn finished_upload_has_a_whole_lease_to_be_attached() {
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
async fn reader_of_a_tenant_being_deleted_gets_not_found() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
    let blob = upload(&store, tenant, &content(100 * CHUNK_BYTES)).await;
    store.run(|tx| async move { tx.attach(tenant, &blob).await }).await.unwrap();
    let mut reader = BlobReader::new(&store, tenant, blob);
    reader.next().await.unwrap().unwrap();
    let now = later(0);
    store.run(|tx| async move { tx.delete_tenant(tenant, now).await }).await.unwrap();
    // The deletion has removed some of the chunks.
    let tx = store.begin();
    for n in 30..50_u64 {
        let chunk = (tenant, "blob_chunks".to_owned(), blob.id, n);
        tx.engine().clear(&store.root().key(&chunk));
    }
    tx.commit().await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Interrupts an upload and its attachment at each wait, and begins again: the file exists once,
/// and nothing else remains.
#[tokio::test]
async fn upload_interrupted_anywhere_is_collected() {
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
        // An interrupted commit may complete later: this one follows it.
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

pub(crate) async fn counted(store: &Store) -> i64 {
    store.begin().counter(samples::tenant().id, Counter::BYTES).await.unwrap()
}

#[tokio::test]
async fn an_upload_is_counted_from_its_beginning_until_it_is_discarded() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
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

    // Bytes beyond the announced length count as they are written, up to the limit.
    let refused = upload.write(&content(2 * batch)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded("bytes"));
    assert_eq!(counted(&store).await, as_counted(2 * batch));
    is_sound(&store).await;
    upload.discard().await.unwrap();
    assert_eq!((counted(&store).await, chunks(&store, tenant).await), (0, 0));

    // Announced bytes that were not written are released by the attachment.
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
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
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
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
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

/// Returns the findings of a check about blobs.
pub(crate) async fn faults(store: &Store) -> Vec<BlobFault> {
    let mut faults = Vec::new();
    let told = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            match finding.fault {
                Fault::Blob(fault) => faults.push(fault),
                Fault::DanglingReference => assert!(finding.why.contains("tenant"), "{finding}"),
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
async fn check_finds_faulty_blobs() {
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
    store.run(|tx| async move { tx.delete::<OrphanBlob>(tenant, blob.id).await }).await.unwrap();
    let twice = &FileVersion { version: 2, ..held };
    store.run(|tx| async move { tx.insert(twice).await }).await.unwrap();
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
