//! Messages of the WebSocket protocol, in JSON.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::StateSection;
use crate::http::{RequestId, document, problem::Problem};

/// A message of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum ClientMessage {
    /// A change of a section.
    Update(Update),
    /// A new credential.
    Authenticate(Credential),
    /// A request for a `pong`.
    Ping,
}

/// A merge patch of a section, with the client's sequence number.
#[derive(Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) seq: u64,
    pub(crate) part: StateSection,
    pub(crate) patch: Map<String, Value>,
}

/// A credential. `Debug` does not show it.
#[derive(PartialEq)]
pub(crate) enum Credential {
    Token(String),
    Ticket(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown(redacted)")
    }
}

/// A message as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    ticket: Option<String>,
}

impl ClientMessage {
    /// Parses a message.
    ///
    /// # Errors
    ///
    /// `text` is not JSON, or not a known message.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let Frame { kind, seq, data, token, ticket } = document::parse(text.as_bytes())?;
        let part = match kind.as_str() {
            "editor.update" => StateSection::Editor,
            "terminal.update" => StateSection::Terminal,
            "memory.update" => StateSection::Memory,
            "ping" => return Ok(Self::Ping),
            "authenticate" => {
                return match (token, ticket) {
                    (Some(token), None) => Ok(Self::Authenticate(Credential::Token(token))),
                    (None, Some(ticket)) => Ok(Self::Authenticate(Credential::Ticket(ticket))),
                    _ => Err(bad("authenticate needs either a token or a ticket.")),
                };
            }
            _ => return Err(bad("Unknown message type.")),
        };
        match (seq, data) {
            (Some(seq @ 1..), Some(patch)) => Ok(Self::Update(Update { seq, part, patch })),
            _ => Err(bad("An update needs a positive seq and an object as data.")),
        }
    }
}

fn bad(message: &str) -> Problem {
    Problem::bad_request("BAD_FRAME", message)
}

/// Returns a `restore` message in pieces, which include the pieces of `data`, the state of a
/// session.
pub(crate) fn restore(
    client: &str,
    seq: u64,
    versions: &Value,
    data: impl IntoIterator<Item = Bytes>,
) -> Vec<Bytes> {
    let head = json!({"type": "restore", "client": client, "seq": seq, "versions": versions});
    with_data(&head, data)
}

/// Returns the object `head` with the member `data`, which is JSON already, in pieces.
fn with_data(head: &Value, data: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut head = head.to_string();
    head.truncate(head.len() - "}".len());
    head.push_str(r#","data":"#);
    let end = Bytes::from_static(b"}");
    [Bytes::from(head)].into_iter().chain(data).chain([end]).collect()
}

pub(crate) fn ack(seq: u64, part: StateSection, version: u64) -> String {
    json!({"type": "ack", "seq": seq, "part": part.name(), "version": version}).to_string()
}

/// Returns a `changed` message in pieces, like [`restore`].
pub(crate) fn changed(part: StateSection, version: u64, data: Bytes) -> Vec<Bytes> {
    let head = json!({"type": "changed", "part": part.name(), "version": version});
    with_data(&head, [data])
}

/// Returns an `error` message, with the sequence number of the update that failed.
pub(crate) fn error(seq: Option<u64>, problem: &Problem) -> String {
    json!({"type": "error", "seq": seq, "error": problem.shown(&RequestId::new())}).to_string()
}

pub(crate) fn expiring(at: DateTime<Utc>) -> String {
    json!({"type": "expiring", "expires_at": time(at)}).to_string()
}

pub(crate) fn authenticated(until: DateTime<Utc>) -> String {
    json!({"type": "authenticated", "expires_at": time(until)}).to_string()
}

pub(crate) fn pong() -> String {
    json!({"type": "pong"}).to_string()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_messages_are_parsed() {
        let update =
            ClientMessage::parse(r#"{"type":"terminal.update","seq":7,"data":{"active":"a"}}"#);
        let patch = json!({"active": "a"}).as_object().unwrap().clone();
        let expected = Update { seq: 7, part: StateSection::Terminal, patch };
        assert_eq!(update.unwrap(), ClientMessage::Update(expected));
        assert_eq!(ClientMessage::parse(r#"{"type":"ping"}"#).unwrap(), ClientMessage::Ping);
        let shown = ClientMessage::parse(r#"{"type":"authenticate","token":"t"}"#).unwrap();
        assert_eq!(shown, ClientMessage::Authenticate(Credential::Token("t".into())));
    }

    #[test]
    fn invalid_messages_are_refused() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            "null",
            r#"{"type":7}"#,
            r#"{"type":"other"}"#,
            r#"{"type":"editor.update"}"#,
            r#"{"type":"editor.update","seq":0,"data":{}}"#,
            r#"{"type":"editor.update","seq":-1,"data":{}}"#,
            r#"{"type":"editor.update","seq":1,"data":[]}"#,
            r#"{"type":"editor.update","seq":1,"seq":2,"data":{}}"#,
            r#"{"type":"authenticate"}"#,
            r#"{"type":"ping","more":1}"#,
            r#"{"type":"editor.update","seq":1,"data":{"layout":18446744073709551616}}"#,
            r#"{"type":"authenticate","token":"a","ticket":"b"}"#,
        ] {
            assert!(ClientMessage::parse(text).unwrap_err().status().is_client_error(), "{text}");
        }
        let deep = format!(r#"{{"type":"ping","x":{}1{}}}"#, "[".repeat(999), "]".repeat(999));
        assert!(ClientMessage::parse(&deep).is_err());
    }
}
