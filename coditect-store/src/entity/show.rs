//! Records for people to read: as JSON, without what is [secret](Entity::SECRETS), and with long
//! content cut short.

use serde::Serialize;
use serde_json::Value;

use super::{Entity, Log, decode_at, decode_logged_at};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{Root, digits},
};

/// What is shown instead of a secret.
const SECRET: &str = "(secret)";
/// So many numbers of one byte each, or more, are shown as hexadecimal digits.
const BYTES: usize = 16;
/// Of bytes so many are shown.
const BYTES_SHOWN: usize = 64;

pub(super) fn record<E: Entity>(root: &Root, row: &KeyValue) -> Result<Value> {
    let record: E = decode_at(root, &row.key, &row.value)?;
    shown(&record, E::SECRETS)
}

pub(super) fn logged<L: Log>(root: &Root, row: &KeyValue) -> Result<Value> {
    let (_, record) = decode_logged_at::<L>(root, &row.key, &row.value)?;
    shown(&record, L::SECRETS)
}

fn shown(record: &impl Serialize, secrets: &[&str]) -> Result<Value> {
    let mut value = serde_json::to_value(record).map_err(|cause| {
        Error::new(ErrorKind::Invalid, "a record cannot be shown as JSON").with_source(cause)
    })?;
    if let Value::Object(fields) = &mut value {
        for (_, field) in fields.iter_mut().filter(|(name, _)| secrets.contains(&name.as_str())) {
            if !field.is_null() {
                *field = SECRET.into();
            }
        }
    }
    abbreviate(&mut value);
    Ok(value)
}

/// Makes bytes, which JSON has as lists of numbers, a line.
fn abbreviate(value: &mut Value) {
    match value {
        Value::Array(items) => match bytes(items) {
            Some(bytes) => *value = hexadecimal(&bytes).into(),
            None => items.iter_mut().for_each(abbreviate),
        },
        Value::Object(fields) => fields.values_mut().for_each(abbreviate),
        _ => {}
    }
}

fn bytes(items: &[Value]) -> Option<Vec<u8>> {
    let byte = |item: &Value| item.as_u64().and_then(|number| u8::try_from(number).ok());
    if items.len() < BYTES { None } else { items.iter().map(byte).collect() }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(BYTES_SHOWN)];
    let digits = digits(shown);
    if shown.len() < bytes.len() { format!("{digits}… ({} bytes)", bytes.len()) } else { digits }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_bytes_are_a_line() {
        let record = json!({
            "id": 7,
            "hash": [1, 2, 3],
            "none": null,
            "sum": vec![0xab; 16],
            "content": vec![7; 100],
            "numbers": [1, 2, 300],
        });
        let shown = shown(&record, &["hash", "none", "absent"]).unwrap();
        assert_eq!(shown["hash"], SECRET);
        assert_eq!(shown["none"], Value::Null);
        assert_eq!(shown["sum"], "ab".repeat(16));
        assert_eq!(shown["content"], format!("{}… (100 bytes)", "07".repeat(64)));
        assert_eq!(shown["numbers"], json!([1, 2, 300]));
    }
}
