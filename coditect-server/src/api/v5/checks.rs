//! Checks of what bodies say, the same for every kind of record.

use std::ops::RangeInclusive;

use coditect_auth::text::is_plain_text;
use coditect_store::model::Json;
use serde_json::Value;

use crate::http::problem::Problem;

/// How long what a record is called by may be, in characters.
pub(super) const NAME: RangeInclusive<usize> = 1..=200;
/// The largest settings of a record, in bytes of JSON.
pub(super) const SETTINGS_BYTES: usize = 64 << 10;

/// A line of text, without the blanks around it.
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
        "must be {least} to {most} characters long, without control, bidirectional or invisible characters"
    );
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}

/// A text that is not longer than so many characters.
pub(super) fn at_most(field: &str, chars: usize, text: &str) -> Result<(), Problem> {
    if text.chars().count() <= chars {
        return Ok(());
    }
    let message = format!("must be at most {chars} characters long");
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}

/// JSON of any kind, of at most `limit_bytes`.
pub(super) fn json(field: &str, limit_bytes: usize, value: Value) -> Result<Json, Problem> {
    if value.to_string().len() <= limit_bytes {
        return Ok(Json(value));
    }
    let message = format!("must be at most {limit_bytes} bytes of JSON");
    Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
}
