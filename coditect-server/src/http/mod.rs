//! HTTP itself: connections, requests, answers. Nothing here knows a tenant or a
//! session; of users it knows that each has an account in `output`.
//!
//! From the socket up: [`serve`] accepts, [`tls`] shakes hands, `sniff` tells the protocol, `connection` drives it with
//! its deadlines (`wire` for HTTP/1.1, `activity` for HTTP/2), `service` makes of each request a
//! call of the route table. What a handler touches is [`Request`], [`respond`], [`bearer`],
//! `cookies` and [`RequestId`].

mod activity;
pub mod bearer;
mod body;
pub(crate) mod client;
pub(crate) mod conditions;
mod connection;
pub(crate) mod cookies;
mod cors;
#[cfg(unix)]
mod descriptors;
pub(crate) mod document;
mod forwarded;
mod headers;
pub(crate) mod origin;
pub(crate) mod output;
mod query;
pub(crate) mod ranges;
pub(crate) mod request;
mod request_id;
pub mod respond;
pub mod serve;
mod service;
mod sniff;
mod stream;
pub mod tls;
pub mod websocket;
mod wire;

pub use body::{Body, BodyError};
pub use client::{ClientAddress, ForwardedHeader};
pub use cookies::CookieNames;
pub use origin::Origin;
pub use query::Query;
pub use request::{BodyLimits, Request};
pub use request_id::RequestId;

/// The longest header block, in bytes: names, values and, on HTTP/1.1, the request line.
pub const HEADER_BLOCK_LIMIT_BYTES: usize = 32 * 1024;

/// Most headers in one request.
pub const HEADER_COUNT_LIMIT: usize = 100;
