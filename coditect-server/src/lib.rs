//! The v5 HTTP server over `coditect-store` and `coditect-auth`.
//!
//! ```text
//! main ─ Config ─ Server::bind ─ Server::run
//!                                   │ one task a connection
//!                      http/serve ──┴─ http/connection ─ HTTP/1.1 (http/wire) or HTTP/2
//!                                           │ one task a request
//!                                      http/service ─ routes (the table) ─ handlers/…
//!                                           │                                  │
//!                                        problem ◄─────── the only error → status map
//! ```
//!
//! What the table does not have is, outside of the API, a file of the [`frontend`].
//!
//! Beside serving there are an operator's verbs ([`operator`]): check, inspect, export, import,
//! backup. What they want of a running server they ask at a socket in its data folder.
//!
//! Only this crate knows HTTP. A handler parses its request, calls the store or auth, and gives
//! its answer to [`http::respond`]; it never chooses a status for an error, [`problem`] does.

#![forbid(unsafe_code)]

mod app;
pub mod command;
mod config;
mod contradictions;
#[cfg(unix)]
mod control;
pub mod frontend;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
pub mod http;
mod log;
pub mod openapi;
pub mod operator;
mod place;
pub mod problem;
pub mod routes;
pub mod settings;
mod socket;
pub mod telemetry;
mod upkeep;

pub use app::App;
pub use config::{Config, LogFormat};
pub use http::serve::{Error, Server};
pub use log::{start as start_log, start_for_operators as start_operators_log};
pub use place::Place;
