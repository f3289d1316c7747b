//! The v5 HTTP server over `coditect-store` and `coditect-auth`.

mod config;

pub use config::{Config, LogFormat};
