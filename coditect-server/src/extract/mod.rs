//! Parts of a request besides its path and body: caller, idempotency key, merge patches.

pub(crate) mod caller;
pub(crate) mod idempotency;
pub(crate) mod merge_patch;
