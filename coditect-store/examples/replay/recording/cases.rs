//! The recorded single cases: limits, misuse, atomic operations over telling operands, watches.
//! A case is known by its name; what it does is written out here.

use std::time::Duration;

use coditect_store::{
    Result,
    engine::{AtomicOp, Database, RangeQuery, Transaction, Watch},
};
use serde_json::{Value, json};

use super::{Disagreement, answer, atomic_op, bytes, disagreement, hex};

/// A megabyte's share of a large transaction.
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

/// Runs one atomic operation over an old value, and reads before and after the commit.
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

/// A write, a read, and the commit, as the case's results list them.
struct Case<'a> {
    tx: &'a Transaction,
    results: Vec<Value>,
}

impl Case<'_> {
    fn call(mut self, name: &str, outcome: Result<Value>) -> Self {
        self.results.push(json!([name, answer(outcome)]));
        self
    }

    /// A call that says nothing.
    fn done(self, name: &str, (): ()) -> Self {
        self.call(name, Ok(json!("ok")))
    }

    async fn commit(self) -> Value {
        let outcome = self.tx.commit().await;
        Value::Array(self.call("commit", outcome.map(|()| json!("ok"))).results)
    }
}

async fn case(database: &Database, name: &str) -> Result<Value> {
    let tx = &database.begin();
    let case = Case { tx, results: Vec::new() };
    let long = |length| vec![b'k'; length];
    let stamped = |place: &[u8], offset: u32| [place, &offset.to_le_bytes()].concat();
    let count =
        |page: Result<coditect_store::engine::RangePage>| page.map(|page| json!(page.rows.len()));
    let present = |value: Result<Option<Vec<u8>>>| value.map(|value| json!(value.is_some()));
    Ok(match name {
        "key of 10,000 bytes" => case.done("set", tx.set(&long(10_000), b"1")).commit().await,
        "key of 10,001 bytes" => case.done("set", tx.set(&long(10_001), b"1")).commit().await,
        "get a key of 10,001 bytes" => {
            case.call("get", present(tx.get(&long(10_001)).await)).commit().await
        }
        "clear a key of 10,001 bytes" => case.done("clear", tx.clear(&long(10_001))).commit().await,
        "value of 100,000 bytes" => case.done("set", tx.set(b"k", &long(100_000))).commit().await,
        "value of 100,001 bytes" => case.done("set", tx.set(b"k", &long(100_001))).commit().await,
        "empty key" => {
            let case = case.done("set", tx.set(b"", b"1"));
            let value = tx.get(b"").await.map(|value| json!(value.map(|value| hex(&value))));
            case.call("get", value).commit().await
        }
        "key above 0xff" => case.done("set", tx.set(b"\xff\x01", b"1")).commit().await,
        "get above 0xff" => case.call("get", present(tx.get(b"\xff\x01").await)).commit().await,
        "range to 0xff" => {
            let seed = database.begin();
            seed.set(b"a", b"1");
            seed.commit().await?;
            case.call("get_range", count(tx.get_range(&RangeQuery::new(b"", b"\xff")).await))
                .commit()
                .await
        }
        "range past 0xff" => {
            let query = RangeQuery::new(b"", b"\xff\x01");
            case.call("get_range", count(tx.get_range(&query).await)).commit().await
        }
        "inverted range read" => {
            let query = RangeQuery::new(b"b", b"a");
            case.call("get_range", count(tx.get_range(&query).await)).commit().await
        }
        "empty range read" => {
            let query = RangeQuery::new(b"a", b"a");
            case.call("get_range", count(tx.get_range(&query).await)).commit().await
        }
        "inverted clear_range" => {
            case.done("clear_range", tx.clear_range(b"b", b"a")).commit().await
        }
        "empty clear_range" => case.done("clear_range", tx.clear_range(b"a", b"a")).commit().await,
        "inverted read conflict" => {
            let outcome = tx.add_read_conflict_range(b"b", b"a");
            case.call("conflict", outcome.map(|()| json!("ok"))).commit().await
        }
        "transaction of 9 MB" => case.done("set", fill(tx, 9_000_000)).commit().await,
        "transaction of 11 MB" => case.done("set", fill(tx, 11_000_000)).commit().await,
        "versionstamped key, offset past the end" => {
            let key = stamped(b"k0123456789", 2);
            case.done("atomic", tx.atomic(AtomicOp::SetVersionstampedKey, &key, b"1"))
                .commit()
                .await
        }
        "versionstamped key, parameter too short" => {
            case.done("atomic", tx.atomic(AtomicOp::SetVersionstampedKey, b"k", b"1"))
                .commit()
                .await
        }
        "versionstamped value, offset past the end" => {
            let value = stamped(b"0123456789", 1);
            case.done("atomic", tx.atomic(AtomicOp::SetVersionstampedValue, b"k", &value))
                .commit()
                .await
        }
        "read own versionstamped key's range" => {
            let case = case.done("atomic", tx.set_versionstamped_key(b"k", b"", b"1"));
            let read = count(tx.get_range(&RangeQuery::new(b"k", b"l")).await);
            case.call("get_range", read).commit().await
        }
        "read own versionstamped value" => {
            let case = case.done("atomic", tx.set_versionstamped_value(b"k", b""));
            case.call("get", present(tx.get(b"k").await)).commit().await
        }
        "set over own versionstamped value, then read" => {
            let case = case.done("atomic", tx.set_versionstamped_value(b"k", b""));
            let case = case.done("set", tx.set(b"k", b"1"));
            case.call("get", present(tx.get(b"k").await)).commit().await
        }
        "append_if_fits past 100,000 bytes" => {
            tx.set(b"k", &long(60_000));
            tx.atomic(AtomicOp::AppendIfFits, b"k", &long(60_000));
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

fn fill(tx: &Transaction, bytes: usize) {
    for number in 0..bytes / LARGE_VALUE {
        tx.set(&number.to_be_bytes(), &[0; LARGE_VALUE]);
    }
}

/// Whether the watch fires, or has fired, within a moment.
async fn fired(watch: &mut Watch) -> bool {
    matches!(tokio::time::timeout(Duration::from_millis(50), watch).await, Ok(Ok(())))
}
