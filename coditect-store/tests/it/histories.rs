//! Many clients at once, who append to lists and read, write and swap registers, several in one transaction;
//! and whether all of that could have been done one after the other (`coditect-histories` says how that is
//! told). The engine fails under them, so that they do not know what became of a commit, and is closed and
//! opened again.
//!
//! ```text
//! CODITECT_HISTORY_ROUNDS=200 cargo test -p coditect-store --test it histories
//! ```

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coditect_histories::{
    Call, Key, Op, Outcome, Random, Recorder, assert_strictly_serializable, seeds,
};
use coditect_store::{
    Error, ErrorKind, Result,
    engine::{AtomicOp, Database, Fault, Faults, Transaction},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

const LISTS: [Key; 3] = ["list 1", "list 2", "list 3"];
const REGISTERS: [Key; 4] = ["a", "b", "c", "d"];
const CLIENTS: u64 = 8;
/// Those of each client that come through.
const TRANSACTIONS: u64 = 25;
const RESTARTS: u64 = 3;
/// How long a client takes at the most, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);

const UNKNOWN: [Fault; 4] = [Fault::LostCommit, Fault::LostAnswer, Fault::Changed, Fault::Late];

/// Where the clients find the database, which is another one after a restart.
#[derive(Clone)]
struct Place {
    database: Arc<Mutex<Database>>,
    faults: Faults,
    recorder: Arc<Recorder>,
    /// How many transactions came through.
    done: Arc<AtomicU64>,
}

struct Client {
    place: Place,
    random: Random,
    /// What it saw last in each register.
    known: BTreeMap<Key, u32>,
}

fn numbers(value: Option<Vec<u8>>) -> Vec<u32> {
    let value = value.unwrap_or_default();
    value.chunks(4).map(|number| u32::from_be_bytes(number.try_into().unwrap())).collect()
}

async fn list(tx: &Transaction, key: Key) -> Result<Vec<u32>> {
    Ok(numbers(tx.get(key.as_bytes()).await?))
}

async fn register(tx: &Transaction, key: Key) -> Result<u32> {
    Ok(list(tx, key).await?.pop().unwrap_or(0))
}

impl Place {
    fn new(database: Database) -> Self {
        let (faults, database) = (Faults::default(), Arc::new(Mutex::new(database)));
        Self { database, faults, recorder: Arc::default(), done: Arc::default() }
    }

    fn begin(&self) -> Transaction {
        self.database.lock().unwrap().with_faults(self.faults.clone()).begin()
    }

    /// Waits until so many transactions came through, or the `clients` are at their ends.
    async fn has_done(&self, enough: u64, clients: &[JoinHandle<()>]) {
        let are_busy = || clients.iter().any(|client| !client.is_finished());
        while self.done.load(Ordering::Relaxed) < enough && are_busy() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn restart(&self, folder: &Path) {
        let running = self.database.lock().unwrap().clone();
        running.close().await;
        // In use until the last transaction is gone that has read.
        let opened = loop {
            match Database::open(folder) {
                Ok(opened) => break opened,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
            sleep(Duration::from_millis(1)).await;
        };
        *self.database.lock().unwrap() = opened;
    }

    /// What is there in the end.
    async fn read_all(&self) {
        let (from, tx) = (self.recorder.now(), self.database.lock().unwrap().begin());
        let mut ops = Vec::new();
        for key in LISTS {
            ops.push(Op::List(key, list(&tx, key).await.unwrap()));
        }
        for key in REGISTERS {
            ops.push(Op::Read(key, register(&tx, key).await.unwrap()));
        }
        self.recorder.note(from, Outcome::Done, ops);
    }
}

impl Client {
    async fn run(mut self) {
        let mut left = TRANSACTIONS;
        while left > 0 {
            // Somebody's commit ends in a way that its client is not told of.
            if self.random.below(8) == 0 {
                self.place.faults.plan(self.random.below(8), self.random.one_of(&UNKNOWN));
            }
            if self.transact().await == Outcome::Done {
                self.place.done.fetch_add(1, Ordering::Relaxed);
                left -= 1;
            }
        }
    }

    async fn transact(&mut self) -> Outcome {
        let (from, tx, mut ops) = (self.place.recorder.now(), self.place.begin(), Vec::new());
        let worked = self.work(&tx, &mut ops).await;
        let has_worked = worked.is_ok();
        let ended = if has_worked { tx.commit().await } else { worked };
        let outcome = match ended.as_ref().map_err(Error::kind) {
            Ok(()) => Outcome::Done,
            Err(ErrorKind::MaybeCommitted | ErrorKind::Closed) if has_worked => Outcome::Unknown,
            Err(_) => Outcome::GivenUp,
        };
        self.place.recorder.note(from, outcome, ops);
        drop(tx);
        if ended.is_err_and(|error| error.kind() == ErrorKind::Closed) {
            sleep(Duration::from_millis(1)).await;
        }
        outcome
    }

    /// Does a few things, and notes each.
    async fn work(&mut self, tx: &Transaction, ops: &mut Vec<Op>) -> Result<()> {
        for _ in 0..=self.random.below(3) {
            let (key, number) = (self.random.one_of(&LISTS), self.place.recorder.number());
            match self.random.below(6) {
                0 => ops.push(Op::List(key, list(tx, key).await?)),
                1 => {
                    tx.atomic(AtomicOp::AppendIfFits, key.as_bytes(), &number.to_be_bytes());
                    ops.push(Op::Append(key, number));
                }
                2 => {
                    let seen = list(tx, key).await?;
                    let value = seen.iter().chain([&number]).flat_map(|it| it.to_be_bytes());
                    tx.set(key.as_bytes(), &value.collect::<Vec<_>>());
                    ops.extend([Op::List(key, seen), Op::Append(key, number)]);
                }
                3 => {
                    let key = self.random.one_of(&REGISTERS);
                    self.read(tx, key, ops).await?;
                }
                4 => self.write(tx, number, ops),
                _ => self.swap(tx, number, ops).await?,
            }
        }
        Ok(())
    }

    async fn read(&mut self, tx: &Transaction, key: Key, ops: &mut Vec<Op>) -> Result<u32> {
        let seen = register(tx, key).await?;
        ops.push(Op::Read(key, seen));
        self.known.insert(key, seen);
        Ok(seen)
    }

    /// Without a look.
    fn write(&mut self, tx: &Transaction, number: u32, ops: &mut Vec<Op>) {
        let key = self.random.one_of(&REGISTERS);
        tx.set(key.as_bytes(), &number.to_be_bytes());
        ops.push(Op::Write(key, number));
    }

    /// Sets two registers, if both are as it saw them last.
    async fn swap(&mut self, tx: &Transaction, number: u32, ops: &mut Vec<Op>) -> Result<()> {
        let first = usize::try_from(self.random.below(4)).unwrap();
        let keys = [REGISTERS[first], REGISTERS[(first + 1) % REGISTERS.len()]];
        let known = keys.map(|key| self.known.get(key).copied());
        let seen = [self.read(tx, keys[0], ops).await?, self.read(tx, keys[1], ops).await?];
        if known.iter().zip(seen).all(|(known, seen)| known.is_none_or(|known| known == seen)) {
            for key in keys {
                tx.set(key.as_bytes(), &number.to_be_bytes());
                ops.push(Op::Write(key, number));
            }
        }
        Ok(())
    }
}

/// What many clients do at `place`, with `restarts` of the database in `folder` meanwhile.
async fn history(seed: u64, place: &Place, folder: Option<&Path>) -> Vec<Call> {
    let mut random = Random::new(seed);
    let clients = (0..CLIENTS).map(|_| {
        let (place, random) = (place.clone(), random.split());
        tokio::spawn(Client { place, random, known: BTreeMap::new() }.run())
    });
    let clients: Vec<_> = clients.collect();
    for restart in 1..=folder.map_or(0, |_| RESTARTS) {
        place.has_done(restart * CLIENTS * TRANSACTIONS / (RESTARTS + 1), &clients).await;
        place.restart(folder.unwrap()).await;
    }
    for client in clients {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
    if let Some(folder) = folder {
        place.restart(folder).await;
    }
    place.read_all().await;
    place.recorder.calls()
}

/// How many of these ended in a way that nobody was told of, after all are judged.
fn judged(history: &[Call], seed: u64) -> usize {
    assert_strictly_serializable(history, seed, "-p coditect-store --test it histories");
    history.iter().filter(|call| call.outcome == Outcome::Unknown).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_clients_did_and_saw_could_have_been_done_in_turn() {
    let mut unknown = 0;
    for seed in seeds(6) {
        let place = Place::new(Database::temporary().unwrap());
        unknown += judged(&history(seed, &place, None).await, seed);
    }
    assert!(unknown > 0, "nothing failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn through_restarts_too_it_could_have_been_done_in_turn() {
    let mut unknown = 0;
    for seed in seeds(6) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(Database::open(folder.path()).unwrap());
        unknown += judged(&history(seed, &place, Some(folder.path())).await, seed);
    }
    assert!(unknown > 0, "nothing failed");
}
