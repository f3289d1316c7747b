//! Tests of the server through sockets on the loopback interface, in this process or as the real
//! program.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "what helps a test may fail it")]

mod account;
mod attacks;
mod auth;
mod bad_input;
mod client;
mod conditions;
mod connections;
mod contract;
mod crash_recovery;
#[cfg(unix)]
mod deploy;
mod descriptors;
mod durability;
mod edge;
mod files;
mod folder;
mod frontend;
mod full_disk;
mod fuzz;
mod health;
mod histories;
mod holdings;
mod http2;
mod identity;
mod limits;
mod login_flood;
mod management;
mod metrics;
mod once;
mod operator;
mod process;
mod program;
mod readme;
mod reclaim;
mod records;
mod refusals;
mod requests;
mod secrecy;
mod server;
mod sessions;
mod settings;
mod signed_in_session;
mod slow;
mod socket;
mod socket_ends;
mod state;
mod stopping;
mod tls;
mod unread;
mod upkeep;
mod wrong_clock;
