//! HTTP transport: connections, requests, responses. Nothing here knows a tenant or a session; of users
//! it knows that each has an account in `output`.
//!
//! [`tls`] performs the handshake, `sniff` detects the protocol, `connection` drives the connection with
//! its deadlines (`wire` for HTTP/1.1, `activity` for HTTP/2) and passes each request to a
//! `connection::Respond`. Handlers use [`Request`], [`respond`], [`bearer`], `cookies` and [`RequestId`].

pub(crate) mod access_log;
mod activity;
pub mod bearer;
mod body;
pub(crate) mod client;
pub(crate) mod conditions;
pub(crate) mod connection;
pub(crate) mod cookies;
pub(crate) mod cors;
pub(crate) mod document;
mod forwarded;
pub(crate) mod headers;
pub(crate) mod origin;
pub(crate) mod output;
pub mod problem;
mod query;
pub(crate) mod ranges;
pub(crate) mod request;
mod request_id;
pub mod respond;
mod sniff;
mod stream;
pub mod tls;
pub(crate) mod wire;

pub use body::{Body, BodyError, BodyLimits};
pub use client::{ClientAddress, ForwardedHeader};
pub use cookies::CookieNames;
pub use origin::Origin;
pub use problem::Problem;
pub use query::Query;
pub use request::Request;
pub use request_id::RequestId;

/// The outcome of a handler.
pub type HandlerResult = Result<hyper::Response<Body>, Problem>;

/// The longest header block, in bytes: names, values and, on HTTP/1.1, the request line.
pub const HEADER_BLOCK_LIMIT_BYTES: usize = 32 * 1024;

/// Most headers in one request.
pub const HEADER_COUNT_LIMIT: usize = 100;
