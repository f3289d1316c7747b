//! Records as JSON for display, without [secrets](Entity::SECRETS), with long content truncated.

use serde::Serialize;
use serde_json::Value;

use super::{Entity, EventStream, decode_at, decode_event_at};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{Root, digits},
};

/// Shown in place of a secret.
const SECRET: &str = "(secret)";
/// Minimum length of a list of bytes that is shown in hexadecimal.
const BYTES: usize = 16;
/// Maximum number of bytes shown.
const BYTES_SHOWN: usize = 64;

pub(super) fn record<E: Entity>(root: &Root, row: &KeyValue) -> Result<Value> {
    let record: E = decode_at(root, &row.key, &row.value)?;
    shown(&record, E::SECRETS)
}

pub(super) fn event<L: EventStream>(root: &Root, row: &KeyValue) -> Result<Value> {
    let (_, record) = decode_event_at::<L>(root, &row.key, &row.value)?;
    shown(&record, L::SECRETS)
}

fn shown(record: &impl Serialize, secrets: &[&str]) -> Result<Value> {
    let mut value = serde_json::to_value(record).map_err(|cause| {
        Error::new(ErrorKind::Invalid, "cannot convert a record to JSON").with_source(cause)
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

/// Replaces lists of bytes by hexadecimal text.
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
    fn secrets_are_hidden_and_bytes_are_hexadecimal() {
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
