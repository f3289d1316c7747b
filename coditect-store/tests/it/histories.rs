//! Concurrent clients append to lists and read, write and swap registers, several per transaction,
//! and the history is checked for strict serializability (see `coditect-histories`). The engine
//! fails meanwhile, so that outcomes are unknown, and is closed and reopened.
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
/// Number of successful transactions per client.
const TRANSACTIONS: u64 = 25;
const RESTARTS: u64 = 3;
/// Maximum time of a client, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const UNKNOWN: [Fault; 4] = [Fault::LostCommit, Fault::LostAnswer, Fault::Changed, Fault::Late];

/// The database of the clients, which a restart replaces.
#[derive(Clone)]
struct Place {
    database: Arc<Mutex<Database>>,
    faults: Faults,
    recorder: Arc<Recorder>,
    /// Number of successful transactions.
    done: Arc<AtomicU64>,
}

struct Client {
    place: Place,
    random: Random,
    /// The last value it read in each register.
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

    /// Waits for that many successful transactions, or until all `clients` end.
    async fn has_done(&self, enough: u64, clients: &[JoinHandle<()>]) {
        let are_busy = || clients.iter().any(|client| !client.is_finished());
        while self.done.load(Ordering::Relaxed) < enough && are_busy() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn restart(&self, folder: &Path) {
        let running = self.database.lock().unwrap().clone();
        running.close().await;
        // In use until the last transaction that has read is dropped.
        let opened = loop {
            match Database::open(folder) {
                Ok(opened) => break opened,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
            sleep(Duration::from_millis(1)).await;
        };
        *self.database.lock().unwrap() = opened;
    }

    /// Returns the final contents.
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
            // A commit ends with an unknown outcome.
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

    /// Runs a few operations, and records each.
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

    /// Blind writes.
    fn write(&mut self, tx: &Transaction, number: u32, ops: &mut Vec<Op>) {
        let key = self.random.one_of(&REGISTERS);
        tx.set(key.as_bytes(), &number.to_be_bytes());
        ops.push(Op::Write(key, number));
    }

    /// Sets two registers, if both are as last read.
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

/// Runs many clients at `place`, with `restarts` of the database in `folder`.
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

/// Checks the history, and returns the number of unknown outcomes.
fn judged(history: &[Call], seed: u64) -> usize {
    assert_strictly_serializable(history, seed, "-p coditect-store --test it histories");
    history.iter().filter(|call| call.outcome == Outcome::Unknown).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_of_many_clients_are_strictly_serializable() {
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
