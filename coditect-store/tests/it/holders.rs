//! Records with blobs, and the fate of the blobs when a record is deleted or changed.

use chrono::TimeDelta;
use coditect_store::{
    Blob, BlobUpload, Clock, Counter, Entity, ErrorKind, ManualClock, Store, Transaction,
    check::Event,
    engine::Database,
    entity::Multi,
    indexes,
    keyspace::Subspace,
    model::{OrphanBlob, Tenant, TenantId},
    records::blob::READ_LEASE,
};
use serde::{Deserialize, Serialize};

use crate::{planner::tenant, samples};

/// A record of another crate with any number of blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Album {
    tenant: TenantId,
    id: u64,
    photos: Vec<Blob>,
}

impl Entity for Album {
    type Scope = TenantId;
    type Key = u64;
    const SPACE: Subspace<TenantId> = Subspace::tenant("albums");
    const VERSION: u8 = 1;
    const BLOBS: Option<fn(&Self) -> Vec<Blob>> = Some(|album| album.photos.clone());

    fn scope(&self) -> TenantId {
        self.tenant
    }

    fn key(&self) -> u64 {
        self.id
    }
}

indexes! { Album =>
    /// By number of photos.
    BY_SIZE ("albums_by_size", photos): Multi<u64> = |album| Some(album.photos.len() as u64);
}

struct World {
    store: Store,
    time: ManualClock,
    clock: Clock,
}

async fn world() -> World {
    let time = ManualClock::new(samples::tenant().created_at);
    let clock = Clock::from(&time);
    let options = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Album>()
        .clock(clock.clone());
    let store = options.open(Database::temporary().unwrap()).await.unwrap();
    let owner = &Tenant { id: tenant(1), ..samples::tenant() };
    store.run(|tx| async move { tx.insert(owner).await }).await.unwrap();
    World { store, time, clock }
}

impl World {
    async fn upload(&self) -> Blob {
        let mut upload = BlobUpload::begin(&self.store, tenant(1), &self.clock).await.unwrap();
        upload.write(&[7; 100]).await.unwrap();
        upload.finish().await.unwrap()
    }

    /// An album with that many photos.
    async fn album(&self, id: u64, photos: usize) -> Album {
        let mut album = Album { tenant: tenant(1), id, photos: Vec::new() };
        for _ in 0..photos {
            album.photos.push(self.upload().await);
        }
        let album = &album;
        let create = |tx: Transaction| async move {
            for photo in &album.photos {
                tx.attach(tenant(1), photo).await?;
            }
            tx.insert(album).await
        };
        self.store.run(create).await.unwrap();
        album.clone()
    }

    async fn detached(&self) -> Vec<OrphanBlob> {
        self.store.begin().list::<OrphanBlob>(tenant(1)).all(99).await.unwrap()
    }

    async fn is_sound(&self) {
        let mut findings = Vec::new();
        let observe = |event: Event<'_>| {
            if let Event::Found(found) = event {
                findings.push(found.to_string());
            }
        };
        self.store.check().run(observe).await.unwrap();
        assert!(findings.is_empty(), "{findings:?}");
    }

    async fn bytes(&self) -> i64 {
        self.store.begin().counter(tenant(1), Counter::BYTES).await.unwrap()
    }
}

#[tokio::test]
async fn deleted_record_detaches_its_blobs() {
    let world = world().await;
    let album = world.album(1, 3).await;
    assert_eq!((world.detached().await.len(), world.bytes().await), (0, 300));
    let delete = |tx: Transaction| async move { tx.delete::<Album>(tenant(1), 1).await };
    assert_eq!(world.store.run(delete).await.unwrap(), Some(album));
    world.is_sound().await;
    assert_eq!((world.detached().await.len(), world.bytes().await), (3, 300));
    // Readers may continue for a while.
    assert_eq!(world.store.collect_blobs(world.clock.now()).await.unwrap(), 0);
    world.time.advance(READ_LEASE + TimeDelta::seconds(5));
    assert_eq!(world.store.collect_blobs(world.clock.now()).await.unwrap(), 3);
    assert_eq!((world.detached().await.len(), world.bytes().await), (0, 0));
    world.is_sound().await;
}

#[tokio::test]
async fn record_written_without_a_blob_detaches_it() {
    let world = world().await;
    let album = world.album(1, 6).await;
    let keeping = |kept: usize| Album { photos: album.photos[..kept].to_vec(), ..album.clone() };
    let tx = world.store.begin();
    tx.update(&keeping(5)).await.unwrap();
    tx.upsert(&keeping(4)).await.unwrap();
    tx.modify::<Album>(tenant(1), 1, |album| album.photos.truncate(3)).await.unwrap();
    let revision = tx.get_versioned::<Album>(tenant(1), 1).await.unwrap().unwrap().revision();
    tx.update_at(&keeping(2), revision).await.unwrap();
    tx.commit().await.unwrap();
    world.is_sound().await;
    assert_eq!(world.detached().await.len(), 4);
    let tx = world.store.begin();
    let revision = tx.get_versioned::<Album>(tenant(1), 1).await.unwrap().unwrap().revision();
    tx.delete_at::<Album>(tenant(1), 1, revision).await.unwrap();
    tx.commit().await.unwrap();
    world.is_sound().await;
    assert_eq!(world.detached().await.len(), 6);
}

#[tokio::test]
async fn blob_is_taken_over_by_another_record_in_one_transaction() {
    let world = world().await;
    let album = world.album(1, 2).await;
    let tx = world.store.begin();
    tx.delete::<Album>(tenant(1), 1).await.unwrap();
    tx.attach(tenant(1), &album.photos[0]).await.unwrap();
    tx.insert(&Album { id: 2, photos: vec![album.photos[0]], ..album.clone() }).await.unwrap();
    let again = tx.attach(tenant(1), &album.photos[0]).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound, "it is the other's");
    tx.commit().await.unwrap();
    world.is_sound().await;
    let detached = world.detached().await;
    assert_eq!(detached.iter().map(|blob| blob.id).collect::<Vec<_>>(), [album.photos[1].id]);
    assert_eq!(world.bytes().await, 200);
    // Later it may be half collected.
    let late = world.store.begin().attach(tenant(1), &album.photos[1]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn blob_taken_over_by_another_record_stays_attached() {
    let world = world().await;
    let album = world.album(1, 1).await;
    let other = |id| Album { id, ..album.clone() };
    let tx = world.store.begin();
    tx.delete::<Album>(tenant(1), 1).await.unwrap();
    tx.insert(&other(2)).await.unwrap();
    // In the other order, too, and through an update.
    tx.insert(&other(3)).await.unwrap();
    tx.delete::<Album>(tenant(1), 2).await.unwrap();
    tx.insert(&Album { photos: Vec::new(), ..other(4) }).await.unwrap();
    tx.update(&Album { photos: Vec::new(), ..other(3) }).await.unwrap();
    tx.update(&other(4)).await.unwrap();
    tx.commit().await.unwrap();
    world.is_sound().await;
    assert_eq!((world.detached().await, world.bytes().await), (Vec::new(), 100));
    // The last record that has it detaches it.
    let tx = world.store.begin();
    tx.insert(&other(5)).await.unwrap();
    tx.delete::<Album>(tenant(1), 4).await.unwrap();
    tx.delete::<Album>(tenant(1), 5).await.unwrap();
    tx.commit().await.unwrap();
    world.is_sound().await;
    assert_eq!(world.detached().await.len(), 1);
}

#[tokio::test]
async fn blob_of_a_new_record_stays_attached_when_the_old_record_is_deleted_or_changed() {
    let world = world().await;
    let (album, other) = (world.album(1, 1).await, world.album(2, 1).await);
    let tx = world.store.begin();
    tx.insert(&Album { id: 3, ..album.clone() }).await.unwrap();
    tx.delete::<Album>(tenant(1), 1).await.unwrap();
    tx.insert(&Album { id: 4, ..other.clone() }).await.unwrap();
    tx.update(&Album { photos: Vec::new(), ..other.clone() }).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((world.detached().await, world.bytes().await), (Vec::new(), 200));
    world.is_sound().await;
    world.time.advance(READ_LEASE + TimeDelta::seconds(5));
    assert_eq!(world.store.collect_blobs(world.clock.now()).await.unwrap(), 0);
    world.is_sound().await;
}

#[tokio::test]
async fn caller_may_detach_before_or_after_deleting_the_record() {
    let world = world().await;
    let (album, other) = (world.album(1, 1).await, world.album(2, 1).await);
    let soon = world.clock.now() - READ_LEASE;
    let tx = world.store.begin();
    tx.detach(tenant(1), &album.photos[0], soon).await.unwrap();
    tx.delete::<Album>(tenant(1), 1).await.unwrap();
    tx.delete::<Album>(tenant(1), 2).await.unwrap();
    tx.detach(tenant(1), &other.photos[0], soon).await.unwrap();
    let twice = tx.detach(tenant(1), &other.photos[0], soon).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    tx.commit().await.unwrap();
    let due: Vec<_> = world.detached().await.iter().map(|blob| blob.collect_after).collect();
    assert_eq!(due, [world.clock.now(); 2]);
    world.is_sound().await;
}
