//! Fuzzing of JSON bodies, as the type of each route and as merge patches.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::{api::openapi, extract::merge_patch, http::document};

/// Parsers of the routes' bodies.
static READS: LazyLock<Vec<crate::openapi::Read>> = LazyLock::new(|| {
    openapi::operations().iter().filter_map(crate::openapi::Operation::read).collect()
});

/// Checks that every route accepts a body regardless of its formatting, or refuses it with 400 or
/// 422, and that merging a patch twice equals merging it once.
///
/// The first byte selects the rest: a body, or a document and a patch separated by a line feed.
pub fn json_body(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if mode % 2 == 0 {
        expect_parsed_or_refused(rest);
    } else {
        let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        expect_merge_is_idempotent(&rest[..at], rest.get(at + 1..).unwrap_or_default());
    }
}

fn expect_parsed_or_refused(body: &[u8]) {
    let object = document::parse::<Map<String, Value>>(body);
    // A reformatted body has the same meaning.
    let anew = object.as_ref().ok().map(|object| serde_json::to_vec(object).unwrap());
    let pretty = object.as_ref().ok().map(|object| serde_json::to_vec_pretty(object).unwrap());
    for read in READS.iter() {
        let taken = read(body);
        if let Err(problem) = &taken {
            assert!([400, 422].contains(&problem.status().as_u16()), "{problem:?}");
            let fields = problem.fields();
            assert!(fields.iter().all(|field| !field.message.is_empty()), "{problem:?}");
        }
        assert!(taken.is_err() || object.is_ok(), "not an object");
        for anew in [&anew, &pretty].into_iter().flatten() {
            assert_eq!(read(anew).is_ok(), taken.is_ok(), "{taken:?}");
        }
    }
}

fn expect_merge_is_idempotent(document: &[u8], patch: &[u8]) {
    let (Ok(before), Ok(patch)) =
        (serde_json::from_slice::<Value>(document), serde_json::from_slice::<Value>(patch))
    else {
        return;
    };
    let mut merged = before.clone();
    merge_patch::apply(&mut merged, &patch);
    let once = merged.clone();
    merge_patch::apply(&mut merged, &patch);
    assert_eq!(merged, once, "twice");
    expect_patched(&once, &patch);
    if let (Value::Object(_), Value::Object(_)) = (&before, &patch) {
        // Members missing from the patch are unchanged.
        let names = before.as_object().unwrap().iter();
        for (name, value) in names.filter(|(name, _)| patch.get(name).is_none()) {
            assert_eq!(once.get(name), Some(value));
        }
    }
}

fn expect_patched(merged: &Value, patch: &Value) {
    let Value::Object(patch) = patch else { return assert_eq!(merged, patch) };
    for (name, value) in patch {
        match merged.get(name) {
            Some(merged) => expect_patched(merged, value),
            None => assert!(value.is_null(), "{name} is missing"),
        }
    }
}
