//! What handlers take from a request beside its path and body: the caller, the idempotency key, and
//! merge patches.

pub(crate) mod caller;
pub(crate) mod idempotency;
pub(crate) mod merge_patch;
