//! HTTP transport: connections, requests, responses. It knows no tenants or sessions; of users it
//! only knows their accounts in `budget`.
//!
//! From the bottom up: [`tls`] does the handshake, `sniff` detects the protocol, and `connection`
//! drives it with its deadlines (`wire` for HTTP/1.1, `activity` for HTTP/2). Handlers use
//! [`Request`], [`respond`], [`bearer`], `cookies` and [`RequestId`].

pub(crate) mod access_log;
mod activity;
pub mod bearer;
mod body;
pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod conditions;
pub(crate) mod connection;
pub(crate) mod cookies;
pub(crate) mod cors;
pub(crate) mod document;
mod forwarded;
pub(crate) mod headers;
pub(crate) mod intake;
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

/// Maximum size of a header block, in bytes: names, values and, in HTTP/1.1, the request line.
pub const HEADER_BLOCK_LIMIT_BYTES: usize = 32 * 1024;

/// Maximum number of headers in a request.
pub const HEADER_COUNT_LIMIT: usize = 100;
