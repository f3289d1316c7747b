//! Files, directories and drafts: versions, moves, and their quota.

use chrono::TimeDelta;
use coditect_store::{
    BatchSize, BlobReader, Clock, Counter, ErrorKind, Store,
    engine::Database,
    model::{Draft, File, FileKind, FilePolicy, FileRoot, FileVersion, OrphanBlob, Session},
    records::blob::CHUNK_BYTES,
};
use sha2::{Digest as _, Sha256};

use crate::{
    blobs::{chunks, content, faults, later, paths, put, read, upload, workspace},
    deletions::is_sound,
    planner::store,
    samples,
};

#[tokio::test]
async fn file_keeps_the_versions_of_the_policy() {
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

    // Versions that are not kept count until they are collected.
    let later = Clock::system().now() + TimeDelta::hours(2);
    assert_eq!(tx.counter(tenant, Counter::BYTES).await.unwrap(), 35);
    assert_eq!(store.collect_blobs(later).await.unwrap(), 2);
    assert_eq!(store.begin().counter(tenant, Counter::BYTES).await.unwrap(), 21);

    // A lower number applies from the next version.
    let policy = policy.versions(0);
    put(&store, "src/main.rs", b"", &policy).await.unwrap();
    let kept = file.contents(&store.begin()).await.unwrap();
    assert_eq!(kept.iter().map(|content| content.version).collect::<Vec<_>>(), [6]);
    store.collect_blobs(Clock::system().now() + TimeDelta::hours(2)).await.unwrap();
    assert_eq!(chunks(&store, tenant).await, 0);
}

#[tokio::test]
async fn removed_file_takes_its_versions() {
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
async fn removing_an_outdated_file_removes_its_newest_version() {
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
async fn tenant_over_a_lowered_limit_may_still_shrink_its_files() {
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
async fn oversized_write_is_rejected_without_effect() {
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
async fn replaced_version_frees_quota_and_counts_until_collected() {
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
    let create_parent_dirs = |path: &'static str| {
        store.run(move |tx| async move {
            File::create_parent_dirs(&tx, tenant, (home, path), policy, now).await
        })
    };
    for path in ["a/b/c/d", "a/b/x", "top"] {
        create_parent_dirs(path).await.unwrap();
    }
    assert_eq!(paths(&store).await, ["a", "a/b", "a/b/c"]);
    put(&store, "a/b/file", b"1", policy).await.unwrap();
    assert_eq!(
        create_parent_dirs("a/b/file/x").await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(store.begin().counter(tenant, Counter::FILES).await.unwrap(), 4);
}

#[tokio::test]
async fn directory_is_listed_moved_and_removed_with_its_entries() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let (home, policy, now) = (&workspace(), &FilePolicy::default(), Clock::system().now());
    let many: Vec<String> = (0..30).map(|n| format!("src/deep/{n:02}")).collect();
    for path in many.iter().map(String::as_str).chain(["src/main.rs", "src-2", "other"]) {
        let way = |tx| async move {
            File::create_parent_dirs(&tx, tenant, (home, path), policy, now).await
        };
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
    let size = &BatchSize::new(File::MAX_REMOVED);
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
async fn file_moved_over_another_adds_its_versions() {
    let store = store().await;
    let tenant = samples::tenant().id;
    store.run(|tx| async move { tx.insert(&samples::tenant()).await }).await.unwrap();
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
async fn draft_counts_while_it_exists() {
    let store = store().await;
    let tenant = samples::tenant().id;
    let session = &samples::session();
    store.run(|tx| async move { tx.insert(session).await }).await.unwrap();
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
    store.run(|tx| async move { tx.insert(made).await }).await.unwrap();
    let refused = put(&store, &directory.path, b"1", &FilePolicy::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);

    let session = &samples::session();
    let (home, policy) = (&FileRoot::Session(session.id), &FilePolicy::default());
    let now = Clock::system().now();
    for there in [false, true] {
        if there {
            store.run(|tx| async move { tx.insert::<Session>(session).await }).await.unwrap();
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
async fn concurrent_writes_of_one_file_are_all_versions() {
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
    assert_eq!(tx.list::<OrphanBlob>(tenant).all(9).await.unwrap(), []);
}

#[tokio::test]
async fn moved_tenant_takes_its_files() {
    let store = store().await;
    let tenant = samples::tenant().id;
    put(&store, "a", b"older", &FilePolicy::default()).await.unwrap();
    let content = content(30 * CHUNK_BYTES + 1);
    put(&store, "a", &content, &FilePolicy::default()).await.unwrap();
    let mut archive = Vec::new();
    store.export().tenant(tenant).run(&mut archive, |_| ()).await.unwrap();

    let database = Database::temporary().unwrap();
    let other = Store::open(database.clone()).await.unwrap();
    let import = Store::options().schema(coditect_store::model::schema()).import(database).unwrap();
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
