//! The repositories, with one task per client.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use coditect_store::{
    Clock, Error, Store,
    engine::Options,
    keyspace::Global,
    model::{Session, User},
};
use tokio::runtime::Runtime;

use coditect_benches::{self as sample, Known, Outcome, Places, Sample};

use crate::{Work, table::Turn};

pub(crate) struct Ours {
    runtime: Runtime,
    store: Store,
    known: Arc<Known>,
    next: AtomicUsize,
}

impl Ours {
    pub(crate) fn open(folder: &Path, sample: &Sample) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let database = coditect_benches::database(&folder.join("ours"), &Options::default())?;
        let store = runtime.block_on(async {
            let store = Store::open(database).await?;
            coditect_benches::load(&store, sample).await?;
            Ok::<_, Error>(store)
        })?;
        let known = Arc::new(Known::from(sample));
        Ok(Self { runtime, store, known, next: AtomicUsize::new(0) })
    }

    /// Runs the work on one task per client.
    pub(crate) fn rate(&self, work: Work, clients: usize, turn: Duration) -> Outcome<Turn> {
        let stop = Arc::new(AtomicBool::new(false));
        self.runtime.block_on(async {
            let started = Instant::now();
            let tasks: Vec<_> = (0..clients)
                .map(|_| {
                    let (store, known, stop) =
                        (self.store.clone(), Arc::clone(&self.known), Arc::clone(&stop));
                    let mut places = self.places();
                    tokio::spawn(async move {
                        let (mut done, mut took) = (0, Vec::new());
                        while !stop.load(Ordering::Relaxed) {
                            let _stopwatch = work.timed(&mut took);
                            act(&store, &known, &mut places, work.at(done)).await?;
                            done += 1;
                        }
                        Ok::<_, Error>((done, took))
                    })
                })
                .collect();
            tokio::time::sleep(turn).await;
            stop.store(true, Ordering::Relaxed);
            let mut did = Vec::new();
            for task in tasks {
                did.push(task.await??);
            }
            Ok(Turn::new(did, started.elapsed()))
        })
    }

    #[cfg(test)]
    pub(crate) fn act(&self, work: Work) -> Outcome<usize> {
        let mut places = self.places();
        Ok(self.runtime.block_on(act(&self.store, &self.known, &mut places, work))?)
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> Outcome<usize> {
        let tx = self.store.begin();
        let all = tx.list::<Session>(self.known.tenant);
        Ok(self.runtime.block_on(all.all(10_000))?.len())
    }

    pub(crate) fn close(self) {
        self.runtime.block_on(self.store.database().close());
    }

    fn places(&self) -> Places {
        let start = self.next.fetch_add(101, Ordering::Relaxed);
        Places::new(start, self.known.sessions.len())
    }
}

async fn act(
    store: &Store,
    known: &Known,
    places: &mut Places,
    work: Work,
) -> Result<usize, Error> {
    let place = if work == Work::Page { places.next_full() } else { places.next() };
    let (tenant, (id, user)) = (known.tenant, known.sessions[place]);
    match work {
        Work::Create => {
            let session = &sample::session(tenant, user, Clock::system().now());
            store.run(|tx| async move { tx.insert(session).await }).await?;
            Ok(1)
        }
        Work::Update => {
            let change = |session: &mut Session| sample::changed(session, place);
            store.run(|tx| async move { tx.modify(tenant, id, change).await }).await?;
            Ok(1)
        }
        Work::Find => {
            let email = known.emails[place].clone();
            let found = store.begin().find(&User::BY_EMAIL, Global, email).await?;
            Ok(usize::from(found.is_some()))
        }
        Work::Page => {
            let tx = store.begin();
            let scan = tx.scan(&Session::BY_USER, tenant, user).rev();
            Ok(scan.page(50, None).await?.items.len())
        }
        Work::Get | Work::Mixed => {
            let found = store.begin().get::<Session>(tenant, id).await?;
            Ok(usize::from(found.is_some()))
        }
    }
}
