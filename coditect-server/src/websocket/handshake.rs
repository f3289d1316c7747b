//! The opening handshake of a WebSocket (RFC 6455, section 4.2).
//!
//! The caller authorizes the client before: a refusal is an HTTP status without an upgrade.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error,
        error::ProtocolError,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::inbound::{Charged, Inbound};
use crate::http::{Body, Request, problem::Problem, respond};

/// Size of the read buffer, which each socket keeps, in bytes.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// An open WebSocket.
pub type WebSocket = WebSocketStream<Charged<TokioIo<hyper::upgrade::Upgraded>>>;

/// A valid handshake: its response, and the upgrade of the connection after that was sent.
#[derive(Debug)]
pub struct Handshake {
    /// The response, 101.
    pub answer: Response<Body>,
    upgrade: OnUpgrade,
    inbound: Option<Inbound>,
}

impl Handshake {
    /// Checks the handshake of `request` and accepts it with the subprotocol `protocol`.
    ///
    /// # Errors
    ///
    /// 426 without an upgrade to a WebSocket, or for another version; 400 if the handshake is
    /// malformed.
    pub fn of(request: Request, protocol: Option<&'static str>) -> Result<Self, Problem> {
        let key = key(request.method(), request.version(), request.headers())?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let mut answer = Response::new(respond::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.map_err(Problem::internal)?);
        if let Some(protocol) = protocol {
            let protocol = HeaderValue::from_static(protocol);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let request = request.into_hyper().ok_or_else(|| Problem::internal("the body was read"))?;
        Ok(Self { answer, upgrade: hyper::upgrade::on(request), inbound: None })
    }

    /// Charges for the messages that the socket receives.
    #[must_use]
    pub(crate) fn charged(self, inbound: Inbound) -> Self {
        Self { inbound: Some(inbound), ..self }
    }

    /// Returns the response, and a future with the socket after it was sent; `None` if the client
    /// has disconnected. Messages have at most `limit_bytes`, in one or more frames.
    pub fn split(
        self,
        limit_bytes: usize,
    ) -> (Response<Body>, impl Future<Output = Option<WebSocket>> + Send) {
        let (upgrade, inbound) = (self.upgrade, self.inbound);
        let socket = async move {
            let connection = Charged::new(TokioIo::new(upgrade.await.ok()?), inbound);
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .max_message_size(Some(limit_bytes))
                .max_frame_size(Some(limit_bytes));
            Some(WebSocket::from_raw_socket(connection, Role::Server, Some(config)).await)
        };
        (self.answer, socket)
    }
}

/// Returns the close code for `error` (RFC 6455, section 7.4.1); `None` if the client has
/// disconnected.
pub fn close_code(error: &Error) -> Option<u16> {
    match error {
        Error::Utf8(_) => Some(1007),
        Error::Capacity(_) => Some(1009),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(1002),
        _ => None,
    }
}

/// Returns the subprotocols that a request offers, in order (`Sec-WebSocket-Protocol`).
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',').map(str::trim))
}

/// Returns the key of a well-formed handshake.
fn key(method: &Method, version: Version, headers: &HeaderMap) -> Result<String, Problem> {
    let has = |name, wanted: &str| {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines
            .flat_map(|line| line.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if method != Method::GET
        || version != Version::HTTP_11
        || !has(header::UPGRADE, "websocket")
        || !has(header::CONNECTION, "upgrade")
    {
        return Err(upgrade_required("This path requires a WebSocket upgrade."));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("The WebSocket version must be 13."));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none()).and_then(|key| key.to_str().ok());
    key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
        .map(str::to_owned)
        .ok_or_else(|| {
            let message = "There must be exactly one Sec-WebSocket-Key of 16 bytes in Base64.";
            Problem::bad_request("INVALID_HANDSHAKE", message)
        })
}

fn upgrade_required(message: &str) -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, "UPGRADE_REQUIRED", message)
        .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(header::CONNECTION, HeaderValue::from_static("upgrade"))
        .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn asked(
        headers: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Result<String, Problem> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, HeaderValue::from_static(value));
        }
        key(&Method::GET, Version::HTTP_11, &all)
    }

    #[test]
    fn handshake_of_the_rfc_is_accepted() {
        assert_eq!(
            derive_accept_key(asked(GOOD).unwrap().as_bytes()),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn other_requests_get_upgrade_required() {
        for (missing, _) in &GOOD[..3] {
            let refused = asked(GOOD.into_iter().filter(|(name, _)| name != missing)).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED, "{missing}");
            assert_eq!(refused.header(header::SEC_WEBSOCKET_VERSION).unwrap(), "13");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(key(&Method::POST, Version::HTTP_11, &headers).is_err());
        assert!(key(&Method::GET, Version::HTTP_2, &headers).is_err());
    }

    #[test]
    fn malformed_key_is_refused() {
        for wrong in ["", "AAAA", "not base64 at all......"] {
            let headers = GOOD[..3].iter().copied().chain([("sec-websocket-key", wrong)]);
            assert_eq!(asked(headers).unwrap_err().code(), "INVALID_HANDSHAKE", "{wrong}");
        }
        let twice = GOOD.into_iter().chain([GOOD[3]]);
        assert_eq!(asked(twice).unwrap_err().code(), "INVALID_HANDSHAKE");
    }

    #[test]
    fn protocols_are_read_from_all_header_lines() {
        let mut headers = HeaderMap::new();
        for line in ["coditect.v1, ticket.abc", "x"] {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
        }
        assert_eq!(protocols(&headers).collect::<Vec<_>>(), ["coditect.v1", "ticket.abc", "x"]);
    }
}
