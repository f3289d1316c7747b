//! JSON bodies: as the type of each route that takes one, and as what is merged.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::{api::openapi, extract::merge_patch, http::document};

/// How each route reads its body.
static READS: LazyLock<Vec<crate::openapi::Read>> = LazyLock::new(|| {
    openapi::operations().iter().filter_map(crate::openapi::Operation::read).collect()
});

/// A body is what a route takes, however it is written, or refused with a 400 or 422; merging a patch twice is
/// merging it once.
///
/// The first byte says what the rest is: a body; a document and a patch with a line feed between.
pub fn json_body(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if mode % 2 == 0 {
        is_taken_or_refused(rest);
    } else {
        let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        is_merged_once(&rest[..at], rest.get(at + 1..).unwrap_or_default());
    }
}

fn is_taken_or_refused(body: &[u8]) {
    let object = document::parse::<Map<String, Value>>(body);
    // What is written anew in other words says the same.
    let anew = object.as_ref().ok().map(|object| serde_json::to_vec(object).unwrap());
    let pretty = object.as_ref().ok().map(|object| serde_json::to_vec_pretty(object).unwrap());
    for read in READS.iter() {
        let taken = read(body);
        if let Err(problem) = &taken {
            assert!([400, 422].contains(&problem.status().as_u16()), "{problem:?}");
            let fields = problem.fields();
            assert!(fields.iter().all(|field| !field.message.is_empty()), "{problem:?}");
        }
        assert!(taken.is_err() || object.is_ok(), "it is no object");
        for anew in [&anew, &pretty].into_iter().flatten() {
            assert_eq!(read(anew).is_ok(), taken.is_ok(), "{taken:?}");
        }
    }
}

fn is_merged_once(document: &[u8], patch: &[u8]) {
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
    says_what_the_patch_does(&once, &patch);
    if let (Value::Object(_), Value::Object(_)) = (&before, &patch) {
        // What it does not name stays.
        let names = before.as_object().unwrap().iter();
        for (name, value) in names.filter(|(name, _)| patch.get(name).is_none()) {
            assert_eq!(once.get(name), Some(value));
        }
    }
}

fn says_what_the_patch_does(merged: &Value, patch: &Value) {
    let Value::Object(patch) = patch else { return assert_eq!(merged, patch) };
    for (name, value) in patch {
        match merged.get(name) {
            Some(merged) => says_what_the_patch_does(merged, value),
            None => assert!(value.is_null(), "{name} is missing"),
        }
    }
}
