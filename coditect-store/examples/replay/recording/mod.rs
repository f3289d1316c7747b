//! Recorded programs, and their replay: shared by this example and the conformance test.
//!
//! A program is a line of JSON: the initial contents of the database, steps of interleaved
//! transactions with the answers of a real FoundationDB, and the final contents. Keys and values
//! are hexadecimal; `<vs:N>` in an answer is the versionstamp of transaction N.

mod cases;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use chrono::DateTime;
use coditect_store::{
    Clock, Error, ManualClock, Result,
    engine::{AtomicOp, Database, KeySelector, Options, Order, RangeQuery, Transaction},
};
use serde_json::{Value, json};

/// The result of replaying a file of programs.
pub(crate) struct Report {
    /// Number of programs that agree.
    pub(crate) agree: usize,
    /// Number of skipped programs, for which there was no database.
    pub(crate) skipped: usize,
    /// The disagreements, in full.
    pub(crate) disagreements: Vec<String>,
}

/// A difference from a recorded answer.
#[derive(Debug)]
pub(crate) struct Disagreement {
    what: String,
    recorded: Value,
    answered: Value,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, recorded, answered } = self;
        write!(f, "at {what}\n  recorded: {recorded}\n  answered: {answered}")
    }
}

/// Returns the programs of a file.
pub(crate) fn load(path: &Path) -> io::Result<Vec<Value>> {
    let file = File::open(path)?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|ending| ending == "gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let lines = BufReader::new(reader).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// Returns an empty database whose versions begin at 1. The recordings are from a new cluster, and
/// some show the first bytes of a versionstamp.
///
/// With a small `memtable_bytes` each commit is checkpointed while the next is read.
pub(crate) fn young_database(memtable_bytes: usize) -> Result<Database> {
    let clock = Clock::from(&ManualClock::new(DateTime::UNIX_EPOCH));
    Database::memory_with(&Options::default().clock(clock).memtable_bytes(memtable_bytes))
}

/// Returns whether `program` behaves the same under a prefix of a database. Programs that count
/// keys or test limits do so only without other keys, and with keys of their own length.
fn may_share(program: &Value) -> bool {
    let counts = |step: &Value| {
        let places = ["begin", "end", "selector"];
        places.iter().any(|place| step[*place].is_array())
    };
    program["case"].is_null() && !steps(program).any(counts)
}

/// Returns whether it may show the first bytes of a versionstamp, which are zero in a new cluster.
fn shows_age(program: &Value) -> bool {
    let mut stamped = BTreeSet::new();
    steps(program).any(|step| match step["op"].as_str() {
        Some("set_versionstamped_value") => {
            stamped.insert(step["key"].as_str());
            false
        }
        Some("atomic") => stamped.contains(&step["key"].as_str()),
        _ => false,
    })
}

fn steps(program: &Value) -> impl Iterator<Item = &Value> {
    program["steps"].as_array().into_iter().flatten()
}

/// Returns an empty database for `program` in the cluster of `cluster_file`: a prefix, or the whole
/// cluster if `whole` allows it; `None` if the program needs more.
pub(crate) async fn database_in(
    cluster_file: &Path,
    whole: Option<&Database>,
    program: &Value,
) -> Result<Option<Database>> {
    let database = match whole {
        _ if may_share(program) => Database::temporary_in(cluster_file)?,
        Some(whole) => whole.clone(),
        None => return Ok(None),
    };
    let is_young = database.begin().read_version().await? < 1 << 40;
    Ok((is_young || !shows_age(program)).then_some(database))
}

/// Replays each program on the database that `database` returns for it; programs without one are
/// skipped.
pub(crate) async fn replay_all(
    programs: &[Value],
    database: impl AsyncFn(&Value) -> Result<Option<Database>>,
) -> Report {
    let mut report = Report { agree: 0, skipped: 0, disagreements: Vec::new() };
    for program in programs {
        let outcome = match database(program).await {
            Err(error) => Err(disagreement("opening a database", Value::Null, answer(Err(error)))),
            Ok(None) => {
                report.skipped += 1;
                continue;
            }
            Ok(Some(database)) if program["steps"].is_array() => replay(&database, program).await,
            Ok(Some(database)) => cases::replay(&database, program).await,
        };
        match outcome {
            Ok(()) => report.agree += 1,
            Err(differs) => {
                report.disagreements.push(format!("{differs}\n  program: {program}"));
            }
        }
    }
    report
}

async fn replay(database: &Database, program: &Value) -> Result<(), Disagreement> {
    let fail = |error: Error| disagreement("the setup", json!("committed"), answer(Err(error)));
    let setup = database.begin();
    for (key, value) in program["setup"].as_object().into_iter().flatten() {
        setup.set(&bytes_of(key), &bytes(value));
    }
    setup.commit().await.map_err(fail)?;

    let mut open = BTreeMap::new();
    let mut stamps = BTreeMap::new();
    for (number, step) in steps(program).enumerate() {
        let id = step["t"].as_u64().unwrap_or_default();
        let answered = match step["op"].as_str() {
            Some("begin") => {
                let tx = database.begin();
                if step["lazy"] != json!(true) {
                    tx.read_version().await.map_err(fail)?;
                }
                open.insert(id, tx);
                Value::Null
            }
            Some("drop") => {
                open.remove(&id);
                Value::Null
            }
            _ => {
                let tx = &open[&id];
                let answered = answer(run(tx, step).await);
                if let Some(stamp) = tx.versionstamp() {
                    stamps.insert(id, hex(stamp.as_bytes()));
                }
                answered
            }
        };
        let recorded = match (step.get("expect"), step.get("error")) {
            (Some(expected), _) => with_stamps(expected, &stamps),
            (None, Some(code)) => json!({ "error": code }),
            (None, None) => Value::Null,
        };
        if answered != recorded {
            return Err(disagreement(format!("step {number}, {step}"), recorded, answered));
        }
    }
    let end = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await;
    let answered = answer(end.map(|page| rows(&page.rows)));
    let recorded = with_stamps(&program["end"], &stamps);
    if answered == recorded { Ok(()) } else { Err(disagreement("the end", recorded, answered)) }
}

async fn run(tx: &Transaction, step: &Value) -> Result<Value> {
    let field = |name: &str| bytes(&step[name]);
    let snapshot = step["snapshot"] == json!(true);
    match step["op"].as_str().unwrap_or_default() {
        "get" => {
            let key = field("key");
            let value = if snapshot { tx.snapshot().get(&key).await } else { tx.get(&key).await };
            return Ok(value?.map_or(Value::Null, |value| json!(hex(&value))));
        }
        "get_key" => {
            let at = selector(&step["selector"]);
            let key =
                if snapshot { tx.snapshot().get_key(&at).await } else { tx.get_key(&at).await };
            return Ok(json!(hex(&key?)));
        }
        "get_range" => {
            let mut query = RangeQuery::between(selector(&step["begin"]), selector(&step["end"]));
            query.limit =
                step["limit"].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            if step["reverse"] == json!(true) {
                query.order = Order::Descending;
            }
            let page = if snapshot {
                tx.snapshot().get_range(&query).await
            } else {
                tx.get_range(&query).await
            };
            return Ok(rows(&page?.rows));
        }
        "set" => tx.set(&field("key"), &field("value")),
        "clear" => tx.clear(&field("key")),
        "clear_range" => tx.clear_range(&field("begin"), &field("end")),
        "atomic" => tx.atomic(atomic_op(&step["atomic"]), &field("key"), &field("value")),
        "set_versionstamped_key" => {
            tx.set_versionstamped_key(&field("prefix"), &field("suffix"), &field("value"));
        }
        "set_versionstamped_value" => {
            tx.set_versionstamped_value(&field("key"), &field("prefix"), b"");
        }
        "add_read_conflict" => tx.add_read_conflict_range(&field("begin"), &field("end"))?,
        "add_write_conflict" => tx.add_write_conflict_range(&field("begin"), &field("end"))?,
        "commit" => {
            tx.commit().await?;
            return Ok(json!("committed"));
        }
        unknown => return Ok(json!({ "unknown operation": unknown })),
    }
    Ok(Value::Null)
}

fn selector(value: &Value) -> KeySelector {
    match value {
        Value::Array(parts) => KeySelector {
            key: bytes(&parts[0]),
            or_equal: parts[1] == json!(true),
            offset: parts[2].as_i64().and_then(|offset| i32::try_from(offset).ok()).unwrap_or(0),
        },
        key => KeySelector::first_greater_or_equal(bytes(key)),
    }
}

fn atomic_op(name: &Value) -> AtomicOp {
    match name.as_str().unwrap_or_default() {
        "add" => AtomicOp::Add,
        "max" => AtomicOp::Max,
        "min" => AtomicOp::Min,
        "byte_max" => AtomicOp::ByteMax,
        "byte_min" => AtomicOp::ByteMin,
        "bit_and" => AtomicOp::BitAnd,
        "bit_or" => AtomicOp::BitOr,
        "bit_xor" => AtomicOp::BitXor,
        "append_if_fits" => AtomicOp::AppendIfFits,
        "compare_and_clear" => AtomicOp::CompareAndClear,
        unknown => panic!("the recording has an unknown atomic operation: {unknown}"),
    }
}

fn rows(rows: &[coditect_store::engine::KeyValue]) -> Value {
    rows.iter().map(|row| json!([hex(&row.key), hex(&row.value)])).collect()
}

/// Formats an answer as the recordings do.
fn answer(outcome: Result<Value>) -> Value {
    outcome.unwrap_or_else(|error| match error.code() {
        Some(code) => json!({ "error": code }),
        None => json!({ "error": format!("{error:?}") }),
    })
}

/// Returns the recorded answer with the actual versionstamps.
fn with_stamps(recorded: &Value, stamps: &BTreeMap<u64, String>) -> Value {
    match recorded {
        Value::String(text) if text.contains("<vs:") => {
            let filled = stamps
                .iter()
                .fold(text.clone(), |text, (id, stamp)| text.replace(&format!("<vs:{id}>"), stamp));
            json!(filled)
        }
        Value::Array(items) => items.iter().map(|item| with_stamps(item, stamps)).collect(),
        other => other.clone(),
    }
}

fn disagreement(what: impl Into<String>, recorded: Value, answered: Value) -> Disagreement {
    Disagreement { what: what.into(), recorded, answered }
}

fn bytes(value: &Value) -> Vec<u8> {
    bytes_of(value.as_str().unwrap_or_default())
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..hex.len()).step_by(2).filter_map(digit).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
