//! Atomic operations: their results, and that they never conflict with each other.

use futures_util::future::join_all;

use super::{AtomicOp, Database, VALUE_SIZE_LIMIT, Versionstamp};

type Bytes = &'static [u8];

/// An operation, the value before, its operand, and the value after.
const TABLE: [(AtomicOp, Option<Bytes>, Bytes, Option<Bytes>); 22] = [
    (AtomicOp::Add, Some(b"\xff\x01"), b"\x02\x00", Some(b"\x01\x02")),
    (AtomicOp::Add, Some(b"\xff\xff"), b"\x01\x00", Some(b"\x00\x00")),
    (AtomicOp::Add, Some(b"\x01\x02\x03"), b"\x01", Some(b"\x02")),
    (AtomicOp::Add, None, b"\x05\x00", Some(b"\x05\x00")),
    (AtomicOp::Min, Some(b"\x01\x02"), b"\x02\x01", Some(b"\x02\x01")),
    (AtomicOp::Min, Some(b"\x01"), b"\xff\xff", Some(b"\x01\x00")),
    (AtomicOp::Min, None, b"\x07", Some(b"\x07")),
    (AtomicOp::Max, Some(b"\x01\x02"), b"\x02\x01", Some(b"\x01\x02")),
    (AtomicOp::Max, Some(b"\x00\x01"), b"\x05", Some(b"\x05")),
    (AtomicOp::BitAnd, Some(b"\x0c\x0f"), b"\x0a\xf0", Some(b"\x08\x00")),
    (AtomicOp::BitAnd, None, b"\x07", Some(b"\x07")),
    (AtomicOp::BitOr, Some(b"\x0c"), b"\x0a\x01", Some(b"\x0e\x01")),
    (AtomicOp::BitXor, Some(b"\x0c\xff"), b"\x0a", Some(b"\x06")),
    (AtomicOp::ByteMin, Some(b"b"), b"ab", Some(b"ab")),
    (AtomicOp::ByteMax, Some(b"b"), b"ab", Some(b"b")),
    (AtomicOp::ByteMax, None, b"", Some(b"")),
    (AtomicOp::AppendIfFits, Some(b"ab"), b"cd", Some(b"abcd")),
    (AtomicOp::AppendIfFits, None, b"cd", Some(b"cd")),
    (AtomicOp::CompareAndClear, Some(b"ab"), b"ab", None),
    (AtomicOp::CompareAndClear, Some(b"ab"), b"a", Some(b"ab")),
    (AtomicOp::CompareAndClear, None, b"", None),
    (AtomicOp::CompareAndClear, Some(b""), b"", None),
];

/// Applies each operation to a stored value and to an own write, with and without a read before the
/// commit.
pub(super) async fn atomic_operations_return_documented_results(database: Database) {
    for (row, (op, before, operand, after)) in TABLE.iter().enumerate() {
        for is_own in [false, true] {
            let (seed, tx) = (database.begin(), database.begin());
            let writer = if is_own { &tx } else { &seed };
            match before {
                Some(before) => writer.set(b"k", before),
                None => writer.clear(b"k"),
            }
            seed.commit().await.unwrap();
            tx.atomic(*op, b"k", operand);
            if row % 2 == 0 {
                assert_eq!(tx.get(b"k").await.unwrap().as_deref(), *after, "{row}, {op:?}, within");
            }
            tx.commit().await.unwrap();
            let found = database.begin().get(b"k").await.unwrap();
            assert_eq!(found.as_deref(), *after, "{row}, {op:?}, own: {is_own}");
        }
    }
}

pub(super) async fn append_beyond_the_value_limit_is_ignored(database: Database) {
    let append = async |bytes: usize| {
        let tx = database.begin();
        tx.atomic(AtomicOp::AppendIfFits, b"k", &vec![7; bytes]);
        tx.commit().await.unwrap();
        database.begin().get(b"k").await.unwrap().unwrap().len()
    };
    assert_eq!(append(VALUE_SIZE_LIMIT - 1).await, VALUE_SIZE_LIMIT - 1);
    assert_eq!(append(2).await, VALUE_SIZE_LIMIT - 1);
    assert_eq!(append(1).await, VALUE_SIZE_LIMIT);
    assert_eq!(append(1).await, VALUE_SIZE_LIMIT);
}

pub(super) async fn versionstamp_is_filled_into_keys_and_values(database: Database) {
    let tx = database.begin();
    tx.set_versionstamped_key(b"log/", b"/end", b"key");
    tx.set_versionstamped_value(b"value", b"at ", b"!");
    tx.commit().await.unwrap();
    let stamp = tx.versionstamp().unwrap();
    let filled = |before: &[u8], after: &[u8]| [before, stamp.as_bytes(), after].concat();
    let reader = database.begin();
    assert_eq!(reader.get(&filled(b"log/", b"/end")).await.unwrap().unwrap(), b"key");
    assert_eq!(reader.get(b"value").await.unwrap().unwrap(), filled(b"at ", b"!"));
    assert_eq!(stamp.as_bytes().len(), Versionstamp::LEN);
}

pub(super) async fn atomic_operations_on_one_key_do_not_conflict(database: Database) {
    let adds = (0..64).map(|_| async {
        let tx = database.begin();
        tx.read_version().await.unwrap();
        tx.atomic(AtomicOp::Add, b"n", &1_u64.to_le_bytes());
        tx.commit().await
    });
    for outcome in join_all(adds).await {
        outcome.unwrap();
    }
    let sum = database.begin().get(b"n").await.unwrap().unwrap();
    assert_eq!(sum, 64_u64.to_le_bytes());
}

pub(super) async fn different_atomic_operations_do_not_conflict(database: Database) {
    let mut open = Vec::new();
    for (op, ..) in TABLE {
        let tx = database.begin();
        tx.read_version().await.unwrap();
        tx.atomic(op, b"k", b"\x01");
        open.push(tx);
    }
    let stamping = database.begin();
    stamping.read_version().await.unwrap();
    stamping.set_versionstamped_value(b"k", b"", b"");
    stamping.set_versionstamped_key(b"k", b"", b"");
    open.push(stamping);
    for tx in open {
        tx.commit().await.unwrap();
    }
}
