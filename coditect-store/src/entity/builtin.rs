//! Subspaces of the store itself, which no entity declares.

use crate::keyspace::{Subspace, TenantId};

/// Subspace of the store's metadata.
pub(crate) const META: &str = "meta";

/// Subspace of the blobs' chunks.
pub(crate) const CHUNKS: Subspace<TenantId> = Subspace::tenant("blob_chunks").keyed(&["blob", "n"]);

/// Subspace of the counters of tenants.
pub(crate) const COUNTERS: Subspace<TenantId> = Subspace::tenant("counters").keyed(&["name"]);

/// Subspace of the counters of workspace sessions, which are deleted with them.
pub(crate) const SESSION_COUNTERS: Subspace<TenantId> =
    Subspace::tenant("session_counters").keyed(&["session", "name"]);

/// The undeclared subspaces of tenants, which have no index entries.
pub(crate) const PLAIN: [&str; 3] = [COUNTERS.name(), SESSION_COUNTERS.name(), CHUNKS.name()];
