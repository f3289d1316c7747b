//! Compares commits with the disk's own speed, and measures whether a high load can be sustained.
//!
//! `cargo run --profile dist -p coditect-benches --bin disk [-- --seconds 0.2 --rounds 51 --sustain
//! 600]`
//!
//! One client creates sessions, durable with their indexes, in turn with a loop that appends and
//! syncs the same number of bytes to a preallocated file. Then, for `--sustain` seconds, 64 clients
//! create sessions: for each ten seconds the table shows the rate, the 99.9th percentile and the
//! maximum of the latency, the maximum of a concurrent append and sync a hundred times per second,
//! and the memory of the process. The picture shows them over time.

mod plot;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _, stdout},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use coditect_benches::{
    Outcome, Sample,
    lines::{median, per_second, spread},
    load, progress, session,
};
use coditect_store::{Clock, Error, Store, engine::Options, model::Session};

use self::plot::{Curve, svg};

/// Compares commits with bare appends, and sustains them.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Duration of each contender in a round, in seconds.
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
    /// Number of rounds.
    #[arg(long, default_value_t = 51)]
    rounds: usize,
    /// Duration of the sustained load, in seconds; 0 disables it.
    #[arg(long, default_value_t = 600)]
    sustain: u64,
    /// File that the tables are written to.
    #[arg(long, default_value = "benches/disk.md")]
    markdown: PathBuf,
    /// File that the picture of the sustained load is written to.
    #[arg(long, default_value = "benches/disk.svg")]
    svg: PathBuf,
}

/// Measurements of one interval of the sustained load.
struct Stretch {
    /// End of the interval, in seconds since the start.
    after: f64,
    /// Creations per second.
    rate: f64,
    /// Latency of a creation: median, 99.9th percentile and maximum, in milliseconds.
    took: [f64; 3],
    /// Maximum latency of a bare append and sync, in milliseconds.
    bare: f64,
    /// Resident set size, in MiB; NaN if the system does not report it.
    memory: f64,
}

/// Number of clients of the sustained load.
const CLIENTS: usize = 64;
/// Length of an interval.
const LINE: Duration = Duration::from_secs(10);
/// Size of a session's creation in the WAL, in bytes: a record and two index entries.
const APPEND: usize = 424;
/// Length of the file of the bare loop, in bytes.
const FILE: u64 = 16 << 20;

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let (table, stretches) = run(&plan)?;
    stdout().write_all(table.as_bytes())?;
    fs::write(&plan.markdown, table)?;
    if !stretches.is_empty() {
        fs::write(&plan.svg, svg(&curves(&stretches)))?;
    }
    Ok(())
}

#[tokio::main]
async fn run(plan: &Plan) -> Outcome<(String, Vec<Stretch>)> {
    // On the disk of the working folder, since the temporary folder may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    let database = coditect_benches::database(&folder.path().join("store"), &Options::default())?;
    let store = Store::open(database).await?;
    let sample = Arc::new(Sample::new(1_000));
    load(&store, &sample).await?;
    let mut table = String::from("# Commits and the disk\n\n");
    compare(plan, folder.path(), &store, &sample, &mut table).await?;
    let probe = Probe::new(folder.path())?;
    let stretches = sustain(plan, &store, &sample, &probe).await?;
    if !stretches.is_empty() {
        table.push_str(&listed(&stretches));
    }
    store.database().close().await;
    progress("")?;
    Ok((table, stretches))
}

async fn compare(
    plan: &Plan,
    folder: &Path,
    store: &Store,
    sample: &Sample,
    table: &mut String,
) -> Outcome<()> {
    let mut bare = bare_file(folder)?;
    let turn = Duration::from_secs_f64(plan.seconds);
    let (mut ours, mut appends) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        progress(&format!("1 client, round {round} of {}", plan.rounds))?;
        let (mut took, mut done) = (Duration::ZERO, 0_u32);
        while took < turn {
            let session = &session(sample.tenant, sample.users[0].id, Clock::system().now());
            let began = Instant::now();
            create(store, session).await?;
            took += began.elapsed();
            done += 1;
        }
        ours.push(f64::from(done) / took.as_secs_f64());
        let (mut took, mut done) = (Duration::ZERO, 0_u32);
        while took < turn {
            let began = Instant::now();
            append(&mut bare)?;
            took += began.elapsed();
            done += 1;
        }
        appends.push(f64::from(done) / took.as_secs_f64());
    }
    let ratios: Vec<_> = ours.iter().zip(&appends).map(|(ours, bare)| ours / bare).collect();
    writeln!(
        table,
        "Medians of {} rounds in turn (lowest to highest), one client; the ratio is that of a \
         round.\n\n| sessions created | bare append and sync | ratio |\n|---|---|---|\n\
         | {:.0}/s {} | {:.0}/s {} | {:.2} {} |\n",
        plan.rounds,
        median(&ours),
        spread(&ours, 0),
        median(&appends),
        spread(&appends, 0),
        median(&ratios),
        spread(&ratios, 2)
    )?;
    Ok(())
}

/// A preallocated file.
fn bare_file(folder: &Path) -> Outcome<File> {
    let mut file = File::create(folder.join("bare"))?;
    file.write_all(&vec![0; usize::try_from(FILE)?])?;
    file.sync_all()?;
    Ok(file)
}

fn append(file: &mut File) -> Outcome<()> {
    if file.stream_position()? + APPEND as u64 > FILE {
        file.seek(SeekFrom::Start(0))?;
    }
    file.write_all(&[7; APPEND])?;
    Ok(file.sync_data()?)
}

async fn create(store: &Store, session: &Session) -> Result<(), Error> {
    store.run(|tx| async move { tx.insert(session).await }).await
}

/// Appends and syncs a hundred times per second until it is dropped, and records the latency.
struct Probe(Arc<AtomicU64>);

impl Probe {
    fn new(folder: &Path) -> Outcome<Self> {
        let mut file = bare_file(folder)?;
        let worst = Arc::new(AtomicU64::new(0));
        let noted = Arc::downgrade(&worst);
        thread::spawn(move || {
            while let Some(worst) = noted.upgrade() {
                let began = Instant::now();
                // Failures are not timed.
                if append(&mut file).is_ok() {
                    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    worst.fetch_max(micros, Ordering::Relaxed);
                }
                drop(worst);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self(worst))
    }

    /// Returns the maximum latency since the last call, in milliseconds.
    fn worst(&self) -> f64 {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed)).as_secs_f64() * 1_000.0
    }
}

/// Sustains the load for the configured time.
async fn sustain(
    plan: &Plan,
    store: &Store,
    sample: &Arc<Sample>,
    probe: &Probe,
) -> Outcome<Vec<Stretch>> {
    let started = Instant::now();
    let end = Duration::from_secs(plan.sustain);
    let mut stretches = Vec::new();
    while started.elapsed() < end {
        let began = Instant::now();
        let mut took = work(store, sample, LINE.min(end.saturating_sub(started.elapsed()))).await?;
        let rate = per_second(took.len() as u64, began.elapsed());
        took.sort_unstable();
        let at = |part: usize| took[(took.len() * part / 1_000).min(took.len() - 1)];
        let after = started.elapsed().as_secs_f64();
        stretches.push(Stretch {
            after,
            rate,
            took: [at(500), at(999), at(1_000)].map(|time| time.as_secs_f64() * 1_000.0),
            bare: probe.worst(),
            memory: memory(),
        });
        progress(&format!("{after:.0} of {} s, {rate:.0}/s", plan.sustain))?;
    }
    Ok(stretches)
}

/// Returns the latency of each creation of all clients in this interval.
async fn work(store: &Store, sample: &Arc<Sample>, time: Duration) -> Outcome<Vec<Duration>> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (store, sample, stop) = (store.clone(), Arc::clone(sample), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let user = sample.users[(client * 31 + took.len()) % sample.users.len()].id;
                    let session = &session(sample.tenant, user, Clock::system().now());
                    let began = Instant::now();
                    create(&store, session).await?;
                    took.push(began.elapsed());
                }
                Ok::<_, Error>(took)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    Ok(took)
}

fn listed(stretches: &[Stretch]) -> String {
    let mut table = format!(
        "{CLIENTS} clients that create sessions as fast as they can, over ten seconds each.\n\n\
         | after, s | created/s | p50, ms | p99.9, ms | worst, ms | worst bare append, ms | \
         memory, MiB |\n|---|---|---|---|---|---|---|\n"
    );
    for Stretch { after, rate, took: [middle, most, worst], bare, memory } in stretches {
        // Writing into a string does not fail.
        let _ = writeln!(
            table,
            "| {after:.0} | {rate:.0} | {middle:.1} | {most:.1} | {worst:.1} | {bare:.1} | \
             {memory:.0} |"
        );
    }
    table
}

fn curves(stretches: &[Stretch]) -> [Curve; 5] {
    let curve = |name, value: fn(&Stretch) -> f64| Curve {
        name,
        points: stretches.iter().map(|stretch| (stretch.after, value(stretch))).collect(),
    };
    [
        curve("sessions created a second", |stretch| stretch.rate),
        curve("a creation at the 99.9th percentile, ms", |stretch| stretch.took[1]),
        curve("the longest creation, ms", |stretch| stretch.took[2]),
        curve("the longest bare append, ms", |stretch| stretch.bare),
        curve("memory of the process, MiB", |stretch| stretch.memory),
    ]
}

fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_what_was_measured() {
        let plan = Plan { seconds: 0.02, rounds: 1, sustain: 1, ..Plan::parse_from([""]) };
        let (table, stretches) = run(&plan).unwrap();
        assert!(table.contains("bare append and sync"));
        let line = table.lines().last().unwrap();
        assert_eq!(line.matches('|').count(), 8, "{line}");
        assert!(stretches.iter().all(|stretch| stretch.rate > 0.0 && stretch.memory > 1.0));
    }
}
