//! The recorded single cases: limits, misuse, atomic operations on selected operands, watches. A
//! case is identified by its name, and implemented here.

use std::time::Duration;

use coditect_store::{
    Result,
    engine::{AtomicOp, Database, RangeQuery, Transaction, Watch},
};
use serde_json::{Value, json};

use super::{Disagreement, answer, atomic_op, bytes, disagreement, hex};

/// Size of one of several writes of a large transaction, about a megabyte.
const LARGE_VALUE: usize = 90_000;

pub(super) async fn replay(database: &Database, program: &Value) -> Result<(), Disagreement> {
    if program["atomic"].is_string() {
        return atomic(database, program).await;
    }
    let name = program["case"].as_str().unwrap_or_default();
    let answered = match case(database, name).await {
        Ok(answered) => answered,
        Err(error) => answer(Err(error)),
    };
    if answered == program["results"] {
        Ok(())
    } else {
        Err(disagreement(name, program["results"].clone(), answered))
    }
}

/// Runs one atomic operation on an existing value, with reads before and after the commit.
async fn atomic(database: &Database, program: &Value) -> Result<(), Disagreement> {
    let run = async {
        let same = program["old_set_in_same_transaction"] == json!(true);
        let (seed, tx) = (database.begin(), database.begin());
        if !program["old"].is_null() {
            (if same { &tx } else { &seed }).set(b"k", &bytes(&program["old"]));
        }
        seed.commit().await?;
        tx.atomic(atomic_op(&program["atomic"]), b"k", &bytes(&program["argument"]));
        let within = tx.get(b"k").await?;
        tx.commit().await?;
        let after = database.begin().get(b"k").await?;
        Result::Ok([within, after].map(|value| value.map_or(Value::Null, |v| json!(hex(&v)))))
    };
    let recorded = json!([program["read_in_transaction"], program["after_commit"]]);
    let answered = answer(run.await.map(|pair| json!(pair)));
    if answered == recorded {
        Ok(())
    } else {
        Err(disagreement("an atomic operation", recorded, answered))
    }
}

/// A call of a case; the last one is followed by the commit.
enum Call {
    Set(Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
    /// As `Get`, with the value in the answer, not only whether it exists.
    Value(&'static [u8]),
    Clear(Vec<u8>),
    Range(&'static [u8], &'static [u8]),
    ClearRange(&'static [u8], &'static [u8]),
    ReadConflict(&'static [u8], &'static [u8]),
    Atomic(AtomicOp, Vec<u8>, Vec<u8>),
    Fill(usize),
}

/// Returns the calls of a case before its commit; `None` if it is one of the [others](others).
fn calls(name: &str) -> Option<Vec<Call>> {
    use AtomicOp::{SetVersionstampedKey as StampedKey, SetVersionstampedValue as StampedValue};
    use Call::{Atomic, Clear, ClearRange, Fill, Get, Range, ReadConflict, Set, Value};
    let long = |length| vec![b'k'; length];
    let k = || b"k".to_vec();
    let one = || b"1".to_vec();
    let stamp_at = |place: &[u8], offset: u32| [place, &offset.to_le_bytes()].concat();
    Some(match name {
        "key of 10,000 bytes" => vec![Set(long(10_000), one())],
        "key of 10,001 bytes" => vec![Set(long(10_001), one())],
        "get a key of 10,001 bytes" => vec![Get(long(10_001))],
        "clear a key of 10,001 bytes" => vec![Clear(long(10_001))],
        "value of 100,000 bytes" => vec![Set(k(), long(100_000))],
        "value of 100,001 bytes" => vec![Set(k(), long(100_001))],
        "empty key" => vec![Set(Vec::new(), one()), Value(b"")],
        "key above 0xff" => vec![Set(b"\xff\x01".to_vec(), one())],
        "get above 0xff" => vec![Get(b"\xff\x01".to_vec())],
        "range to 0xff" => vec![Range(b"", b"\xff")],
        "range past 0xff" => vec![Range(b"", b"\xff\x01")],
        "inverted range read" => vec![Range(b"b", b"a")],
        "empty range read" => vec![Range(b"a", b"a")],
        "inverted clear_range" => vec![ClearRange(b"b", b"a")],
        "empty clear_range" => vec![ClearRange(b"a", b"a")],
        "inverted read conflict" => vec![ReadConflict(b"b", b"a")],
        "transaction of 9 MB" => vec![Fill(9_000_000)],
        "transaction of 11 MB" => vec![Fill(11_000_000)],
        "versionstamped key, offset past the end" => {
            vec![Atomic(StampedKey, stamp_at(b"k0123456789", 2), one())]
        }
        "versionstamped key, parameter too short" => vec![Atomic(StampedKey, k(), one())],
        "versionstamped value, offset past the end" => {
            vec![Atomic(StampedValue, k(), stamp_at(b"0123456789", 1))]
        }
        "read own versionstamped key's range" => {
            vec![Atomic(StampedKey, stamp_at(b"k0123456789", 1), one()), Range(b"k", b"l")]
        }
        "read own versionstamped value" => {
            vec![Atomic(StampedValue, k(), stamp_at(b"0123456789", 0)), Get(k())]
        }
        "set over own versionstamped value, then read" => {
            vec![Atomic(StampedValue, k(), stamp_at(b"0123456789", 0)), Set(k(), one()), Get(k())]
        }
        _ => return None,
    })
}

impl Call {
    /// Makes the call, and returns its name in the recordings and its result.
    async fn make(self, tx: &Transaction) -> (&'static str, Result<Value>) {
        let ok = || Ok(json!("ok"));
        match self {
            Self::Set(key, value) => {
                tx.set(&key, &value);
                ("set", ok())
            }
            Self::Get(key) => ("get", tx.get(&key).await.map(|value| json!(value.is_some()))),
            Self::Value(key) => {
                ("get", tx.get(key).await.map(|value| json!(value.map(|value| hex(&value)))))
            }
            Self::Clear(key) => {
                tx.clear(&key);
                ("clear", ok())
            }
            Self::Range(begin, end) => {
                let page = tx.get_range(&RangeQuery::new(begin, end)).await;
                ("get_range", page.map(|page| json!(page.rows.len())))
            }
            Self::ClearRange(begin, end) => {
                tx.clear_range(begin, end);
                ("clear_range", ok())
            }
            Self::ReadConflict(begin, end) => {
                ("conflict", tx.add_read_conflict_range(begin, end).map(|()| json!("ok")))
            }
            Self::Atomic(op, key, operand) => {
                tx.atomic(op, &key, &operand);
                ("atomic", ok())
            }
            Self::Fill(bytes) => {
                for number in 0..bytes / LARGE_VALUE {
                    tx.set(&number.to_be_bytes(), &vec![0; LARGE_VALUE]);
                }
                ("set", ok())
            }
        }
    }
}

async fn case(database: &Database, name: &str) -> Result<Value> {
    let Some(calls) = calls(name) else { return others(database, name).await };
    // One key exists, as when the cases were recorded.
    let seed = database.begin();
    seed.set(b"seed", b"1");
    seed.commit().await?;
    let tx = database.begin();
    let mut results = Vec::new();
    for call in calls {
        let (name, outcome) = call.make(&tx).await;
        results.push(json!([name, answer(outcome)]));
    }
    results.push(json!(["commit", answer(tx.commit().await.map(|()| json!("ok")))]));
    Ok(Value::Array(results))
}

/// The cases that continue after a commit, or wait.
async fn others(database: &Database, name: &str) -> Result<Value> {
    let tx = database.begin();
    Ok(match name {
        "append_if_fits past 100,000 bytes" => {
            tx.set(b"k", &vec![b'k'; 60_000]);
            tx.atomic(AtomicOp::AppendIfFits, b"k", &vec![b'k'; 60_000]);
            tx.atomic(AtomicOp::AppendIfFits, b"k", b"end");
            tx.commit().await?;
            let value = database.begin().get(b"k").await?;
            json!([["length", value.map(|value| value.len())]])
        }
        "committed version of a read-only transaction" => {
            tx.get(b"k").await?;
            tx.commit().await?;
            let version = tx.committed_version().map_or(json!(-1), |version| json!(version));
            json!([["version", version]])
        }
        "commit twice" => {
            tx.set(b"k", b"1");
            tx.commit().await?;
            json!([["second commit", answer(tx.commit().await.map(|()| json!("ok")))]])
        }
        "watch fires after a commit that changed it" => {
            let mut watch = tx.watch(b"k").await?;
            tx.commit().await?;
            let before = fired(&mut watch).await;
            let other = database.begin();
            other.set(b"k", b"changed");
            other.commit().await?;
            json!([["ready before", before], ["ready after", fired(&mut watch).await]])
        }
        "watch set in the transaction that writes the key" => {
            tx.set(b"k", b"mine");
            let mut watch = tx.watch(b"k").await?;
            tx.commit().await?;
            json!([["fired by own write", fired(&mut watch).await]])
        }
        "watch of a cancelled transaction" => {
            let watch = tx.watch(b"k").await?;
            tx.cancel();
            json!([["wait", answer(watch.await.map(|()| json!("fired")))]])
        }
        unknown => json!({ "unknown case": unknown }),
    })
}

/// Returns whether the watch fires within a moment, or has fired.
async fn fired(watch: &mut Watch) -> bool {
    matches!(tokio::time::timeout(Duration::from_millis(50), watch).await, Ok(Ok(())))
}
