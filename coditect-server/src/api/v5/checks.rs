//! Checks of fields that are common to many bodies.

use std::ops::RangeInclusive;

use coditect_auth::text::is_plain_text;
use coditect_store::model::Json;
use serde_json::Value;

use crate::http::problem::Problem;

/// Length of a name, in characters.
pub(super) const NAME: RangeInclusive<usize> = 1..=200;
/// Maximum size of a record's settings as JSON, in bytes.
pub(super) const SETTINGS_BYTES: usize = 64 << 10;

/// Returns a line of text without surrounding blanks. Fails if its length or a character is
/// invalid.
pub(super) fn line(
    field: &str,
    chars: RangeInclusive<usize>,
    text: &str,
) -> Result<String, Problem> {
    let text = text.trim();
    if chars.contains(&text.chars().count()) && is_plain_text(text) {
        return Ok(text.to_owned());
    }
    let (least, most) = chars.into_inner();
    let message = format!(
        "must have {least} to {most} characters, none of them control, bidirectional or invisible"
    );
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}

/// Fails if a text has more than `chars` characters.
pub(super) fn at_most(field: &str, chars: usize, text: &str) -> Result<(), Problem> {
    if text.chars().count() <= chars {
        return Ok(());
    }
    let message = format!("must have at most {chars} characters");
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}

/// Returns any JSON of at most `limit_bytes`.
pub(super) fn json(field: &str, limit_bytes: usize, value: Value) -> Result<Json, Problem> {
    if value.to_string().len() <= limit_bytes {
        return Ok(Json(value));
    }
    let message = format!("must have at most {limit_bytes} bytes as JSON");
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}
