//! Tests of the public interface, as another crate uses it.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod archives;
mod batches;
mod blobs;
mod budgets;
mod builds;
mod checks;
mod conformance;
mod crashes;
mod damaged_metadata;
mod declarations;
mod deletions;
mod derived;
mod engines;
mod faults;
mod files;
mod formats;
mod histories;
mod holders;
mod indexes;
mod interruptions;
mod joined;
mod keyspace;
mod lengths;
mod live_checks;
mod logs;
mod metrics;
mod model;
mod models;
mod pages;
mod planner;
mod quotas;
mod races;
mod readability;
mod records;
mod restores;
mod retirement;
mod runtimes;
mod samples;
mod sequences;
mod store;
mod tenant_archives;
mod tenants;
mod verify;
