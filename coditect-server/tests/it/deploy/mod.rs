//! The configuration in `deploy/`: nginx in front of the real program and a back end in place of
//! the IDE; and the manifests.
//!
//! Uses Debian's nginx; without it, these tests are reported as skipped, unless
//! `CODITECT_ALL_TOOLS` is set, as in CI.

mod health;
mod ide;

mod nginx;
mod operation;
mod proxy;
