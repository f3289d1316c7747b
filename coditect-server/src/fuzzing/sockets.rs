//! Fuzzing of bytes on an open WebSocket.

use std::io::Write as _;

use serde_json::{Value, json};

use super::world::{Received, WORLD};

/// Types of the server's messages, and its close codes.
const KINDS: [&str; 7] =
    ["restore", "ack", "changed", "error", "pong", "expiring", "authenticated"];
const CODES: [u16; 8] = [1000, 1002, 1003, 1007, 1008, 1009, 4401, 4404];

/// Checks that the server sends known messages or closes with a client error, and that the session
/// can be opened afterwards.
///
/// The first byte selects the rest: raw bytes, or frames, each of a first byte, a length and that
/// many payload bytes, which are masked.
pub fn websocket_frames(bytes: &[u8]) {
    let session = WORLD.session();
    let Some((mode, rest)) = bytes.split_first() else { return };
    let sent = if mode % 2 == 0 { rest.to_vec() } else { frames(rest) };
    let received = talk(&session, &sent);
    let mut rest = received.as_slice();
    let mut is_first = true;
    while !rest.is_empty() {
        rest = after_frame(rest, is_first);
        is_first = false;
    }
    let again = talk(&session, &[]);
    after_frame(&again, true);
    WORLD.call("DELETE", &session, &json!({}));
}

fn frames(mut rest: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut sent = Vec::new();
    while let [first, length, after @ ..] = rest {
        let (payload, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        sent.push(*first);
        match payload.len() {
            short @ ..126 => sent.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                sent.push(0x80 + 126);
                sent.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        sent.extend(MASK);
        sent.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    sent
}

/// Returns everything that the server sends after `bytes` on a new socket.
fn talk(session: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = WORLD.connect();
    let request = format!(
        "GET {session}/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: \
         Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        WORLD.token
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = Received::default();
    let head = received.read_head(&mut stream);
    assert!(received.bytes.starts_with(b"HTTP/1.1 101 "), "{received}");
    // The server may have closed before reading everything.
    let _ = stream.write_all(bytes);
    received.read_all(&mut stream);
    received.bytes.split_off(head)
}

/// Returns the bytes after the first frame, which must be well-formed.
fn after_frame(bytes: &[u8], is_first: bool) -> &[u8] {
    let shown = bytes.escape_ascii();
    let [first, length, rest @ ..] = bytes else { panic!("{shown}") };
    let (length, rest) = match length {
        126 => {
            let (length, rest) = rest.split_first_chunk().unwrap();
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk().unwrap();
            (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
        }
        short => (usize::from(*short), rest),
    };
    assert!(length <= rest.len(), "{shown}");
    let (payload, rest) = rest.split_at(length);
    match first {
        0x81 => {
            let said: Value = serde_json::from_slice(payload).unwrap();
            let kind = said["type"].as_str().unwrap();
            assert!(KINDS.contains(&kind), "{said}");
            assert_eq!(kind == "restore", is_first, "{said}");
            if kind == "error" {
                let code = said["error"]["code"].as_str().unwrap();
                assert!(!["INTERNAL", "INTERNAL_ERROR"].contains(&code), "{said}");
            }
        }
        0x88 => {
            let code = payload.first_chunk().map_or(1000, |code| u16::from_be_bytes(*code));
            assert!(CODES.contains(&code) || (3000..4000).contains(&code), "{code}");
            assert!(rest.is_empty(), "bytes after a Close frame: {shown}");
        }
        0x89 | 0x8a => assert!(length < 126),
        _ => panic!("{shown}"),
    }
    rest
}
