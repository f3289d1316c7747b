//! Messages between transactions, the commit pipeline, the writer and the checkpointer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    super::versionstamp::Versionstamp,
    memtable::Memtable,
    ranges::KeyRange,
    snapshot::{Snapshot, SnapshotBase},
    sync::Instant,
    version_registry::CommittedVersion,
    wake::QueuePermit,
    wal::{LogPosition, MutationBatch, PendingFrame},
    write_map::PendingMutation,
};
use crate::Result;

/// A transaction's writes and conflict ranges, as submitted to the commit pipeline.
#[derive(Debug)]
pub(super) struct Commit {
    /// The version that is checked for conflicts; `None` if the transaction has no read version.
    pub(super) read: Option<ReadAt>,
    pub(super) read_ranges: Vec<KeyRange>,
    /// Explicit write conflict ranges; mutations conflict without them.
    pub(super) write_ranges: Vec<KeyRange>,
    pub(super) mutations: Vec<PendingMutation>,
    /// Size of the writes and conflict ranges, in bytes.
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<CommitReceipt>>,
    /// The commit's share of the queue's memory.
    pub(super) permit: QueuePermit,
}

/// A transaction's read version.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAt {
    pub(super) version: u64,
    /// The time from which the transaction's lifetime counts.
    pub(super) since: Instant,
}

/// The outcome of a successful commit.
#[derive(Clone, Debug)]
pub(super) struct CommitReceipt {
    pub(super) stamp: Versionstamp,
    pub(super) state: Arc<CommittedVersion>,
}

/// A message to the commit pipeline.
#[derive(Debug)]
pub(super) enum Request {
    Commit(Commit),
    /// Makes all later versions greater than this one.
    AdvanceVersion(u64, oneshot::Sender<()>),
    /// The writer has completed a batch.
    BatchWritten,
    /// The checkpointer is idle: start a checkpoint if the WAL has frames that the B-tree lacks.
    Checkpoint,
    /// A checkpoint found no space; the B-tree file contains the WAL up to this position.
    CheckpointFailed(LogPosition),
    /// A thread of the engine failed with an unrecoverable error.
    Failed,
    /// Shuts the pipeline down, and signals completion if there is a sender.
    Stop(Option<oneshot::Sender<()>>),
}

/// A commit's reply channel and its outcome, which takes effect when the batch is durable.
pub(super) type PendingReply = (oneshot::Sender<Result<CommitReceipt>>, Result<Versionstamp>);

/// A batch that is ready for the writer.
#[derive(Debug, Default)]
pub(super) struct PreparedBatch {
    /// The WAL frame to write and sync before any commit of the batch is answered.
    pub(super) frame: Option<PendingFrame>,
    pub(super) replies: Vec<PendingReply>,
    /// The members' shares of the queue's memory.
    pub(super) permits: Vec<QueuePermit>,
    /// The mutations of the accepted commits.
    pub(super) mutations: Vec<MutationBatch>,
    /// The version to publish once the frame is durable.
    pub(super) state: Option<Arc<CommittedVersion>>,
    /// A checkpoint of earlier batches, to be handed to the checkpointer.
    pub(super) checkpoint: Option<Checkpoint>,
    /// A published version and an equivalent snapshot that replaces its own.
    pub(super) replacement: Option<(u64, Snapshot)>,
}

/// An immutable memtable to write to the B-tree: all commits up to `log_end` that the B-tree lacks.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) memtable: Memtable,
    pub(super) log_end: LogPosition,
    /// The snapshot base that contains the memtable until the checkpoint is installed.
    pub(super) base: Arc<SnapshotBase>,
    /// Whether this is the last checkpoint before a clean shutdown.
    pub(super) is_last: bool,
}
