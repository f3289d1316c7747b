//! How many workspace sessions a second are created durably through the repository, beside bare
//! redb writing the same rows in one transaction each, and beside a bare append and fdatasync?
//!
//! `cargo run --release -p coditect-benches --bin transactions [-- --seconds 2 --rounds 5]`
//!
//! All contenders take turns within each round, on the same disk; the table shows medians over the
//! rounds, the spread (lowest to highest), and the ratio of the medians. One session is its record
//! and two index entries; each is synced before its creation is answered.
#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::{
    error::Error,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use coditect_store::{
    Store,
    engine::{Database, RangeQuery},
    model::{Json, Session, SessionId, SessionType, TenantId, UserId},
};
use redb::{Durability, TableDefinition};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Where the appended file begins again; it is written once before, so that no append makes it grow.
const APPEND_BYTES: u64 = 64 << 20;

/// How long each contender runs in a round, and how many rounds there are.
#[derive(Clone, Copy)]
struct Plan {
    turn: Duration,
    rounds: usize,
}

/// Sessions a second, one for each round.
struct Rates(Vec<f64>);

fn main() -> Outcome<()> {
    let mut plan = Plan { turn: Duration::from_secs(2), rounds: 5 };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--seconds" => plan.turn = Duration::from_secs_f64(value.parse()?),
            "--rounds" => plan.rounds = value.parse::<usize>()?.max(1),
            _ => return Err(format!("unknown flag {flag}; there are --seconds, --rounds").into()),
        }
    }
    run(plan)
}

#[tokio::main]
async fn run(plan: Plan) -> Outcome<()> {
    // On the disk of the working folder: a temporary one may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    let rows = session_rows().await?;
    println!("| clients | repository | bare redb | ratio | append + fdatasync | ratio |");
    println!("|---|---|---|---|---|---|");
    for clients in [1, 64] {
        let store =
            Store::open(Database::open(folder.path().join(format!("store-{clients}")))?).await?;
        let bare = Arc::new(bare_redb(&folder, clients)?);
        let file = appended(folder.path())?;
        let (mut ours, mut redb, mut append) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            ours.push(repository(&store, clients, plan.turn).await?);
            redb.push(tokio::task::block_in_place(|| {
                transactions(&bare, &rows, clients, plan.turn)
            })?);
            append.push(tokio::task::block_in_place(|| appends(&file, &rows, plan.turn))?);
        }
        let (ours, redb, append) = (Rates(ours), Rates(redb), Rates(append));
        println!(
            "| {clients} | {} | {} | {:.2} | {} | {:.2} |",
            ours.shown(),
            redb.shown(),
            ours.median() / redb.median(),
            append.shown(),
            ours.median() / append.median(),
        );
        store.database().close().await;
    }
    Ok(())
}

impl Rates {
    fn sorted(&self) -> Vec<f64> {
        let mut rates = self.0.clone();
        rates.sort_by(f64::total_cmp);
        rates
    }

    fn median(&self) -> f64 {
        let rates = self.sorted();
        rates[rates.len() / 2]
    }

    fn shown(&self) -> String {
        let rates = self.sorted();
        format!("{:.0}/s ({:.0} to {:.0})", self.median(), rates[0], rates[rates.len() - 1])
    }
}

/// Creates sessions through the repository, from as many tasks as there are clients.
async fn repository(store: &Store, clients: usize, turn: Duration) -> Outcome<f64> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let (tenant, user) = (TenantId::new(), UserId::new());
                let mut created = 0_u64;
                while started.elapsed() < turn {
                    let session = session(tenant, user);
                    let session = &session;
                    store.run(|tx| async move { tx.create(session).await }).await?;
                    created += 1;
                }
                Ok::<_, coditect_store::Error>(created)
            })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        created += task.await??;
    }
    Ok(rate(created, started))
}

/// Writes the same rows to redb, a transaction a session, from as many threads.
fn transactions(
    database: &Arc<redb::Database>,
    rows: &[(Vec<u8>, Vec<u8>)],
    clients: usize,
    turn: Duration,
) -> Outcome<f64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = Instant::now();
    let write = || -> Outcome<u64> {
        let mut written = 0;
        while started.elapsed() < turn {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_quick_repair(true);
            {
                let mut table = transaction.open_table(ROWS)?;
                let id = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                for (key, value) in rows {
                    let mut key = key.clone();
                    let at = key.len() - id.len();
                    key[at..].copy_from_slice(&id);
                    table.insert(key.as_slice(), value.as_slice())?;
                }
            }
            transaction.commit()?;
            written += 1;
        }
        Ok(written)
    };
    let written = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(write)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a writer panicked")?)
            .sum::<Outcome<u64>>()
    })?;
    Ok(rate(written, started))
}

/// Appends the same bytes to a file that is long enough already, with a sync after each session.
fn appends(file: &File, rows: &[(Vec<u8>, Vec<u8>)], turn: Duration) -> Outcome<f64> {
    let session: Vec<u8> =
        rows.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
    let length = session.len() as u64;
    let started = Instant::now();
    let mut written = 0;
    while started.elapsed() < turn {
        file.write_all_at(&session, written * length % (APPEND_BYTES - length))?;
        file.sync_data()?;
        written += 1;
    }
    Ok(rate(written, started))
}

fn bare_redb(folder: &TempDir, clients: usize) -> Outcome<redb::Database> {
    let path = folder.path().join(format!("bare-{clients}.redb"));
    Ok(redb::Builder::new().set_cache_size(256 << 20).create(path)?)
}

fn appended(folder: &Path) -> Outcome<File> {
    let mut file = File::create(folder.join("appended"))?;
    let block = vec![0; 1 << 20];
    for _ in 0..APPEND_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// The rows that one session really is, for the peers to write.
async fn session_rows() -> Outcome<Vec<(Vec<u8>, Vec<u8>)>> {
    let store = Store::open(Database::memory()?).await?;
    let all = || RangeQuery::new(b"", b"\xff");
    let before = store.begin().engine().get_range(&all()).await?.rows;
    let session = session(TenantId::new(), UserId::new());
    let session = &session;
    store.run(|tx| async move { tx.create(session).await }).await?;
    let after = store.begin().engine().get_range(&all()).await?.rows;
    let new = after.into_iter().filter(|row| !before.contains(row));
    Ok(new.map(|row| (row.key, row.value)).collect())
}

fn session(tenant_id: TenantId, user_id: UserId) -> Session {
    let now = coditect_store::Clock::system().now();
    Session {
        id: SessionId::new(),
        tenant_id,
        user_id,
        name: "A session of the bench".to_owned(),
        session_type: SessionType::Workspace,
        workspace_path: Some("/workspace/bench".to_owned()),
        settings: Json(serde_json::json!({"theme": "dark", "font_size": 13, "tabs": [1, 2, 3]})),
        conversation_id: None,
        created_at: now,
        updated_at: now,
        last_accessed_at: now,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than a float's digits")]
fn rate(count: u64, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_runs() {
        run(Plan { turn: Duration::from_millis(50), rounds: 1 }).unwrap();
    }
}
