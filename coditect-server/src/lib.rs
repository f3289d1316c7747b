//! The v5 HTTP server on top of `coditect-store` and `coditect-auth`.
//!
//! Modules, lowest first; each imports only those above it in this list:
//!
//! | module | contents |
//! |---|---|
//! | [`http`] | transport: connections, TLS, HTTP/1.1 and HTTP/2, bodies, headers, responses; no tenant, no session |
//! | `openapi` | builds the description of one operation |
//! | `config`, `place` | settings as data; the location of the store |
//! | [`frontend`], [`websocket`] | static files; handshake, frames and session hubs |
//! | `state` | [`App`]: the components shared by all requests |
//! | `extract` | caller, idempotency key, merge patches |
//! | [`api`] | route table, handlers (`v5`), OpenAPI document, the only error → status map |
//! | `admin` | admin socket in the data directory, and its client |
//! | [`server`] | bind, run, background tasks, shutdown |
//! | [`cli`] | arguments, settings file, subcommands |
//!
//! A request passes through `http::connection`, `server::service` and [`api::router`] to its
//! handler in `api::v5`. Only this crate knows HTTP. A handler parses its request, calls the store
//! or auth, and returns a response built with [`http::respond`] or an error, which `api::errors`
//! maps to a status.

#![forbid(unsafe_code)]

mod admin;
pub mod api;
pub mod cli;
mod config;
mod extract;
pub mod frontend;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod log;
mod memories;
pub mod openapi;
mod place;
pub mod server;
mod state;
pub mod telemetry;
pub mod websocket;

pub use config::{Config, LogFormat};
pub use log::{start as start_log, start_for_operators as start_operators_log};
pub use place::StoreLocation;
pub use server::{Error, Server};
pub use state::App;
