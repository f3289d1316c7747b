//! How near does a commit come to what the disk gives, and does it stay there?
//!
//! `cargo run --release -p coditect-benches --bin disk [-- --seconds 1 --rounds 7 --sustain 600]`
//!
//! One client creates sessions, durable with their indexes, in turn with a bare loop that appends as many
//! bytes to a file that is there in its whole length, and syncs. Then, for `--sustain` seconds, 64 clients
//! create as many as they can: for each ten seconds the table has the rate, how long a creation took at
//! worst and at the 99.9th percentile, and the memory of the process.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _, stdout},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use coditect_benches::{
    Outcome, Sample,
    lines::{median, spread},
    load, progress, session,
};
use coditect_store::{Clock, Error, Store, engine::Options};

/// Compares commits with bare appends, and keeps them up.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// How long each contender runs in a round, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many rounds there are.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// For how long the load is kept up, in seconds; 0 leaves it out.
    #[arg(long, default_value_t = 600)]
    sustain: u64,
    /// Where the tables are written.
    #[arg(long, default_value = "benches/disk.md")]
    markdown: PathBuf,
}

/// How many clients keep the load up.
const CLIENTS: usize = 64;
/// How long a line of the second table is about.
const LINE: Duration = Duration::from_secs(10);
/// What a session's creation is in the log, in bytes: a record and two entries.
const APPEND: usize = 424;
/// How long the file of the bare loop is, in bytes.
const FILE: u64 = 16 << 20;

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let table = run(&plan)?;
    stdout().write_all(table.as_bytes())?;
    Ok(fs::write(&plan.markdown, table)?)
}

#[tokio::main]
async fn run(plan: &Plan) -> Outcome<String> {
    // On the disk of the working folder: a temporary one may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    let database = coditect_benches::database(&folder.path().join("store"), &Options::default())?;
    let store = Store::open(database).await?;
    let sample = Arc::new(Sample::new(1_000));
    load(&store, &sample).await?;
    let mut table = String::from("# Commits and the disk\n\n");
    compare(plan, folder.path(), &store, &sample, &mut table).await?;
    if plan.sustain > 0 {
        sustain(plan, &store, &sample, &mut table).await?;
    }
    store.database().close().await;
    progress("")?;
    Ok(table)
}

async fn compare(
    plan: &Plan,
    folder: &Path,
    store: &Store,
    sample: &Sample,
    table: &mut String,
) -> Outcome<()> {
    let mut bare = File::create(folder.join("bare"))?;
    bare.write_all(&vec![0; usize::try_from(FILE)?])?;
    bare.sync_all()?;
    let turn = Duration::from_secs_f64(plan.seconds);
    let (mut ours, mut appends) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        progress(&format!("1 client, round {round} of {}", plan.rounds))?;
        let (started, mut done) = (Instant::now(), 0_u32);
        while started.elapsed() < turn {
            create(store, sample, 0).await?;
            done += 1;
        }
        ours.push(f64::from(done) / started.elapsed().as_secs_f64());
        let (started, mut done) = (Instant::now(), 0_u32);
        while started.elapsed() < turn {
            append(&mut bare)?;
            done += 1;
        }
        appends.push(f64::from(done) / started.elapsed().as_secs_f64());
    }
    let [(ours, a), (appends, b)] = [&ours, &appends].map(|rates| shown(rates));
    writeln!(
        table,
        "Medians of {} rounds in turn (lowest to highest), one client.\n\n| sessions created | bare \
         append and sync | ratio |\n|---|---|---|\n| {a} | {b} | {:.2} |\n",
        plan.rounds,
        ours / appends
    )?;
    Ok(())
}

fn append(file: &mut File) -> Outcome<()> {
    if file.stream_position()? + APPEND as u64 > FILE {
        file.seek(SeekFrom::Start(0))?;
    }
    file.write_all(&[7; APPEND])?;
    Ok(file.sync_data()?)
}

async fn create(store: &Store, sample: &Sample, user: usize) -> Result<(), Error> {
    let user = sample.users[user % sample.users.len()].id;
    let session = &session(sample.tenant, user, Clock::system().now());
    store.run(|tx| async move { tx.create(session).await }).await
}

async fn sustain(
    plan: &Plan,
    store: &Store,
    sample: &Arc<Sample>,
    table: &mut String,
) -> Outcome<()> {
    writeln!(
        table,
        "{CLIENTS} clients for {} seconds.\n\n| after, s | created/s | p50, ms | p99.9, ms | worst, ms | \
         memory, MiB |\n|---|---|---|---|---|---|",
        plan.sustain
    )?;
    let started = Instant::now();
    let end = Duration::from_secs(plan.sustain);
    while started.elapsed() < end {
        let line = LINE.min(end.saturating_sub(started.elapsed()));
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (store, sample, stop) = (store.clone(), Arc::clone(sample), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        create(&store, &sample, client * 31 + took.len()).await?;
                        took.push(began.elapsed());
                    }
                    Ok::<_, Error>(took)
                })
            })
            .collect();
        tokio::time::sleep(line).await;
        stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await??);
        }
        let rate = ratio(took.len()) / began.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |part: usize| millis(took.get(took.len() * part / 1_000).copied());
        writeln!(
            table,
            "| {} | {rate:.0} | {:.1} | {:.1} | {:.1} | {} |",
            started.elapsed().as_secs(),
            at(500),
            at(999),
            millis(took.last().copied()),
            memory_mib()
        )?;
        progress(&format!("{} of {} s, {rate:.0}/s", started.elapsed().as_secs(), plan.sustain))?;
    }
    Ok(())
}

fn millis(time: Option<Duration>) -> f64 {
    time.unwrap_or_default().as_secs_f64() * 1_000.0
}

/// What the system says that the process has in memory; `?` where it says nothing.
fn memory_mib() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse().ok());
    kib.map_or_else(|| "?".to_owned(), |kib: u64| (kib >> 10).to_string())
}

/// The median, and how it is shown.
fn shown(rates: &[f64]) -> (f64, String) {
    let median = median(rates);
    (median, format!("{median:.0}/s {}", spread(rates)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than a float's digits")]
fn ratio(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_have_what_was_measured() {
        let plan = Plan { seconds: 0.02, rounds: 1, sustain: 1, ..Plan::parse_from([""]) };
        let table = run(&plan).unwrap();
        assert!(table.contains("bare append and sync"));
        let line = table.lines().last().unwrap();
        assert_eq!(line.matches('|').count(), 7, "{line}");
    }
}
