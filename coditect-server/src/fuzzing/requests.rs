//! Fuzzing of bytes on a connection.

use serde_json::Value;

use super::world::WORLD;

/// Connection preface of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Checks that every request gets a response below 500, the connection ends, and the server stays
/// alive.
///
/// `{token}` in the bytes is replaced by the token of a signed-in user.
pub fn http_request(bytes: &[u8]) {
    let received = WORLD.exchange(&with_token(bytes));
    // HTTP/2 frames are not decoded.
    if !received.bytes.is_empty() && !PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())])
    {
        let mut rest = received.bytes.as_slice();
        while !rest.is_empty() {
            rest = after_answer(rest);
        }
    }
    WORLD.expect_alive();
}

fn with_token(bytes: &[u8]) -> Vec<u8> {
    const PLACE: &[u8] = b"{token}";
    match bytes.windows(PLACE.len()).position(|window| window == PLACE) {
        Some(at) => [&bytes[..at], WORLD.token.as_bytes(), &bytes[at + PLACE.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Returns the bytes after the first response, which must be well-formed.
fn after_answer(bytes: &[u8]) -> &[u8] {
    let shown = bytes.escape_ascii();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    // A client that shut down its side may not get the whole response.
    let Some(end) = end else { return &[] };
    let head = str::from_utf8(&bytes[..end]).unwrap();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.or_else(|| head.strip_prefix("HTTP/1.0 "));
    let status: u16 = status
        .and_then(|status| status.get(..3)?.parse().ok())
        .unwrap_or_else(|| panic!("{shown}"));
    assert!((100..500).contains(&status), "{shown}");
    let value = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    if status == 101 {
        return &[];
    }
    let length: usize = value("content-length").map_or(0, |length| length.parse().unwrap());
    // Whether the request was a HEAD is unknown here; the following bytes decide.
    if length == 0 || rest.starts_with(b"HTTP/1.") || rest.len() < length {
        return if rest.starts_with(b"HTTP/1.") { rest } else { &[] };
    }
    let (body, rest) = rest.split_at(length);
    if status >= 400 {
        let body: Value = serde_json::from_slice(body).unwrap();
        assert!(body["error"]["code"].is_string() && body["success"] == false, "{shown}");
    }
    rest
}
