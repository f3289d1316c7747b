//! Compares the throughput of the repositories with rusqlite and bare redb. Every write is durable
//! when it is answered.
//!
//! `cargo run --profile dist -p coditect-benches --bin transactions [-- --seconds 0.5 --rounds 5]`
//!
//! The work is that of a workspace session: create it with its two index entries, get it by id,
//! find a user by their unique e-mail address, read a page of 50 of a user's sessions, newest
//! first, update a session and move one of its entries, and nine reads per write. The peers work as
//! their users would: `SQLite` in WAL mode with `synchronous=FULL`, the same tables and indexes,
//! one connection with prepared statements per client, and writers serialized by a mutex, which is
//! faster than its busy handler; redb with hand-written keys and one transaction per operation.
//!
//! All contenders take turns in each round, on the same disk. The table shows medians, lowest and
//! highest, and the ratio of the medians; it is printed, and written as Markdown and as a picture.

mod bare;
mod ours;
mod sqlite;
mod table;

use std::{
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use coditect_benches::{Outcome, Sample, progress};

use self::table::{Line, Rates, Table, Turn};

/// Compares the repositories with rusqlite and bare redb.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Duration of each contender in a round, in seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Number of rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of concurrent clients; may be given several times.
    #[arg(long, default_values_t = [1, 8, 64])]
    clients: Vec<usize>,
    /// The work; may be given several times.
    #[arg(long, value_enum, default_values_t = Work::ALL)]
    work: Vec<Work>,
    /// Number of sessions, and of users, before the measurement.
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// File that the table is written to.
    #[arg(long, default_value = "benches/results.md")]
    markdown: PathBuf,
    /// File that the picture is written to.
    #[arg(long, default_value = "benches/results.svg")]
    svg: PathBuf,
}

/// The operation that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    Create,
    Get,
    Find,
    Page,
    Update,
    Mixed,
}

impl Work {
    const ALL: [Self; 6] =
        [Self::Create, Self::Get, Self::Find, Self::Page, Self::Update, Self::Mixed];

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create with its indexes",
            Self::Get => "get by id",
            Self::Find => "find by unique value",
            Self::Page => "page of 50",
            Self::Update => "update",
            Self::Mixed => "mixed, 9 reads to 1 write",
        }
    }

    /// Returns the operation of the `turn`th iteration.
    fn at(self, turn: u64) -> Self {
        match self {
            Self::Mixed => match turn % 20 {
                0 => Self::Create,
                10 => Self::Update,
                n if n % 5 == 1 => Self::Page,
                n if n % 2 == 0 => Self::Get,
                _ => Self::Find,
            },
            plain => plain,
        }
    }

    /// Times the operation if enabled, since reading the clock would slow single reads down.
    fn timed(self, took: &mut Vec<Duration>) -> Stopwatch<'_> {
        Stopwatch((self == Self::Mixed).then(|| (Instant::now(), took)))
    }
}

/// Records the elapsed time when it is dropped.
struct Stopwatch<'a>(Option<(Instant, &'a mut Vec<Duration>)>);

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        if let Some((began, took)) = &mut self.0 {
            took.push(began.elapsed());
        }
    }
}

/// A contender that runs on one thread per client.
trait Client: Send {
    /// Runs `work` once, and returns the number of records read.
    fn act(&mut self, work: Work) -> Outcome<usize>;
}

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let table = run(&plan)?;
    let markdown = table.markdown();
    say(&markdown)?;
    std::fs::write(&plan.markdown, markdown)?;
    std::fs::write(&plan.svg, table.svg())?;
    say(&format!("written to {} and {}", plan.markdown.display(), plan.svg.display()))
}

fn run(plan: &Plan) -> Outcome<Table> {
    let turn = Duration::from_secs_f64(plan.seconds);
    let runs = plan.clients.len() * plan.work.len();
    let mut table = Table::new(plan.rounds, plan.records);
    // On the disk of the working folder, since the temporary folder may be in memory.
    let folder = tempfile::tempdir_in(".")?;
    let sample = Sample::new(plan.records);
    progress("loading")?;
    let ours = ours::Ours::open(folder.path(), &sample)?;
    let sqlite = sqlite::Sqlite::open(folder.path(), &sample)?;
    let bare = bare::Bare::open(folder.path(), &sample)?;
    for &clients in &plan.clients {
        for &work in &plan.work {
            let done = table.lines.len();
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=plan.rounds {
                let what = work.name();
                progress(&format!(
                    "{}% {what}, {clients} clients, round {round} of {}",
                    100 * done / runs,
                    plan.rounds
                ))?;
                a.push(ours.rate(work, clients, turn)?);
                b.push(rate(clients, turn, work, || sqlite.client())?);
                c.push(rate(clients, turn, work, || Ok(bare.client()))?);
            }
            let [ours, sqlite, bare] = [a, b, c].map(Rates);
            table.lines.push(Line { work: work.name(), clients, ours, sqlite, bare });
        }
    }
    progress("")?;
    ours.close();
    Ok(table)
}

/// Runs the work on one thread per client.
fn rate<C: Client>(
    clients: usize,
    turn: Duration,
    work: Work,
    client: impl Fn() -> Outcome<C>,
) -> Outcome<Turn> {
    let stop = AtomicBool::new(false);
    let clients: Vec<C> = (0..clients).map(|_| client()).collect::<Outcome<_>>()?;
    let started = Instant::now();
    let took = thread::scope(|scope| {
        let acting: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let stop = &stop;
                scope.spawn(move || -> Outcome<_> {
                    let (mut done, mut took) = (0, Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let _stopwatch = work.timed(&mut took);
                        client.act(work.at(done))?;
                        done += 1;
                    }
                    Ok((done, took))
                })
            })
            .collect();
        thread::sleep(turn);
        stop.store(true, Ordering::Relaxed);
        let joined = acting.into_iter().map(|one| one.join().map_err(|_| "a client panicked")?);
        joined.collect::<Outcome<Vec<_>>>()
    })?;
    Ok(Turn::new(took, started.elapsed()))
}

fn say(what: &str) -> Outcome<()> {
    Ok(writeln!(std::io::stdout(), "{what}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_contenders_meet_the_same_records() {
        let folder = tempfile::tempdir().unwrap();
        let sample = Sample::new(200);
        let ours = ours::Ours::open(folder.path(), &sample).unwrap();
        let sqlite = sqlite::Sqlite::open(folder.path(), &sample).unwrap();
        let bare = bare::Bare::open(folder.path(), &sample).unwrap();
        let (mut lite, mut redb) = (sqlite.client().unwrap(), bare.client());
        for (work, records) in [
            (Work::Get, 1),
            (Work::Find, 1),
            (Work::Page, 50),
            (Work::Update, 1),
            (Work::Create, 1),
        ] {
            let met = [ours.act(work), lite.act(work), redb.act(work)].map(Outcome::unwrap);
            assert_eq!(met, [records; 3], "{work:?}");
        }
        // The created record exists for each contender.
        assert_eq!(
            [ours.sessions(), sqlite.sessions(), bare.sessions()].map(Outcome::unwrap),
            [201; 3]
        );
        ours.close();
    }

    #[test]
    fn every_line_of_the_table_is_measured() {
        let plan = Plan {
            rounds: 1,
            seconds: 0.01,
            records: 60,
            clients: vec![2],
            ..Plan::parse_from([""])
        };
        let table = run(&plan).unwrap();
        assert_eq!(table.lines.len(), Work::ALL.len());
        assert!(table.lines.iter().all(|line| line.ours.median() > 0.0));
        assert_eq!(table.markdown().matches("| update |").count(), 1);
        assert!(table.svg().starts_with("<svg") && table.svg().ends_with("</svg>\n"));
    }
}
