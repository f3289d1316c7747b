//! Measures whether the cost of get, find and page grows with the size of the store.
//!
//! `cargo run --profile dist -p coditect-benches --bin growth [-- --records 1000000]`
//!
//! Fills one store with a thousand records of each of two kinds, then with ten times as many, up to
//! a million. At each size it measures, with one client and random records, the median time of a
//! get by id, a find by a unique value and a page of 50. The table also shows the expected growth
//! of the tree's depth (the ratio of the logarithms of the sizes), and the same gets on bare redb,
//! which include the processor's cache misses.

use std::{
    fmt::Write as _,
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

use bincode::config::standard;
use clap::Parser;
use coditect_benches::{Outcome, Sample, load, progress};
use coditect_store::{
    Store,
    engine::Options,
    keyspace::Global,
    model::{Session, SessionId, TenantId, User, UserId},
};
use redb::{Durability, ReadableDatabase as _, TableDefinition};

/// Sessions in bare redb, by the bytes of their ids.
const SESSIONS: TableDefinition<'static, [u8; 16], &'static [u8]> =
    TableDefinition::new("sessions");

/// Measures reads of stores from a thousand to a million records.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Maximum number of records of each kind.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// Number of operations per median.
    #[arg(long, default_value_t = 5_000)]
    operations: usize,
    /// Cache of the B-tree file, in MiB. A cache smaller than the file measures page fetches
    /// instead of the tree.
    #[arg(long, default_value_t = 4_096)]
    cache_mib: usize,
    /// File that the table is written to.
    #[arg(long, default_value = "benches/growth.md")]
    markdown: PathBuf,
}

/// Median times at one size.
#[derive(Clone, Copy, Debug)]
struct Times {
    records: usize,
    get: Duration,
    find: Duration,
    page: Duration,
    bare: Duration,
}

fn main() -> Outcome<()> {
    let plan = Plan::parse();
    let table = shown(&plan, &run(&plan)?);
    stdout().write_all(table.as_bytes())?;
    fs::write(&plan.markdown, table)?;
    Ok(())
}

#[tokio::main]
async fn run(plan: &Plan) -> Outcome<Vec<Times>> {
    let folder = tempfile::tempdir_in(".")?;
    let options = Options::default().cache_bytes(plan.cache_mib << 20);
    let store = Store::open(coditect_benches::database(folder.path(), &options)?).await?;
    let bare = redb::Builder::new()
        .set_cache_size(options.cache_bytes)
        .create(folder.path().join("bare.redb"))?;
    let (mut known, mut times) = (Vec::new(), Vec::new());
    let tenant = TenantId::new();
    let mut size = 1_000;
    while size <= plan.records {
        fill(&store, &bare, tenant, &mut known, size).await?;
        times.push(measure(&store, &bare, tenant, &known, plan.operations).await?);
        size *= 10;
    }
    store.database().close().await;
    Ok(times)
}

/// Parameters of one read: a session, its user, and the user's address.
type Known = (SessionId, UserId, String);

/// Adds records until there are `size` of each kind.
async fn fill(
    store: &Store,
    bare: &redb::Database,
    tenant: TenantId,
    known: &mut Vec<Known>,
    size: usize,
) -> Outcome<()> {
    let started = Instant::now();
    let before = known.len();
    while known.len() < size {
        let mut sample = Sample::new((size - known.len()).min(500));
        let first = known.len();
        for (n, user) in sample.users.iter_mut().enumerate() {
            user.tenant_id = tenant;
            user.email_normalized = format!("user{}@example.org", first + n);
        }
        for session in &mut sample.sessions {
            session.tenant_id = tenant;
        }
        load(store, &sample).await?;
        load_bare(bare, &sample.sessions)?;
        let Sample { users, sessions, .. } = &sample;
        known.extend(
            users.iter().zip(sessions).map(|(user, session)| {
                (session.id, session.user_id, user.email_normalized.clone())
            }),
        );
        // Reports about ten times per size.
        if known.len() % (size / 10) < 500 {
            let (done, all) = (known.len() - before, size - before);
            let left = started.elapsed().mul_f64(ratio(all - done, done));
            progress(&format!("{} of {size} records of each kind, {left:.0?} left", known.len()))?;
        }
    }
    progress("")
}

fn load_bare(bare: &redb::Database, sessions: &[Session]) -> Outcome<()> {
    let mut write = bare.begin_write()?;
    // Only reads are measured.
    write.set_durability(Durability::None)?;
    {
        let mut table = write.open_table(SESSIONS)?;
        for session in sessions {
            let bytes = bincode::serde::encode_to_vec(session, standard())?;
            table.insert(session.id.0.into_bytes(), bytes.as_slice())?;
        }
    }
    Ok(write.commit()?)
}

fn get_bare(bare: &redb::Database, id: SessionId) -> Outcome<Option<Session>> {
    let table = bare.begin_read()?.open_table(SESSIONS)?;
    let Some(found) = table.get(id.0.into_bytes())? else { return Ok(None) };
    Ok(Some(bincode::serde::decode_from_slice(found.value(), standard())?.0))
}

async fn measure(
    store: &Store,
    bare: &redb::Database,
    tenant: TenantId,
    known: &[Known],
    operations: usize,
) -> Outcome<Times> {
    let (mut get, mut find, mut page, mut bare_get) = (vec![], vec![], vec![], vec![]);
    for n in 0..operations {
        let (id, user, email) = &known[n * 7_919 % known.len()];
        let tx = store.begin();
        let started = Instant::now();
        assert!(tx.get::<Session>(tenant, id).await?.is_some());
        get.push(started.elapsed());
        let started = Instant::now();
        assert!(get_bare(bare, *id)?.is_some());
        bare_get.push(started.elapsed());
        let tx = store.begin();
        let started = Instant::now();
        assert!(tx.find(&User::BY_EMAIL, Global, email).await?.is_some());
        find.push(started.elapsed());
        if n % 10 == 0 {
            let tx = store.begin();
            let started = Instant::now();
            let scan = tx.scan(&Session::BY_USER, tenant, user).rev();
            assert!(!scan.page(50, None).await?.items.is_empty());
            page.push(started.elapsed());
        }
    }
    let [get, find, page, bare] = [get, find, page, bare_get].map(median);
    Ok(Times { records: known.len(), get, find, page, bare })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn shown(plan: &Plan, times: &[Times]) -> String {
    let Plan { operations, cache_mib, .. } = plan;
    let mut table = format!(
        "# Reads of a store that grows\n\nMedian times of {operations} operations by one client, \
         {cache_mib} MiB of cache; in parentheses the ratio to the smallest store.\n\n\
         | records of each kind | get | bare redb's get | find | page of 50 | deeper by |\n\
         |---|---|---|---|---|---|\n"
    );
    for of in times {
        let cell = |time: Duration, first: Duration| {
            format!("{time:.1?} ({:.2})", time.as_secs_f64() / first.as_secs_f64())
        };
        let first = times[0];
        let deeper = ratio(of.records, 1).ln() / ratio(first.records, 1).ln();
        // Writing into a string does not fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {deeper:.2} |",
            of.records,
            cell(of.get, first.get),
            cell(of.bare, first.bare),
            cell(of.find, first.find),
            cell(of.page, first.page),
        );
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than a float's digits")]
fn ratio(of: usize, to: usize) -> f64 {
    of as f64 / to as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_measured() {
        let plan = Plan { records: 1_000, operations: 20, ..Plan::parse_from([""]) };
        let times = run(&plan).unwrap();
        assert_eq!(times.len(), 1);
        assert!(times[0].get > Duration::ZERO && shown(&plan, &times).contains("| 1000 |"));
    }
}
