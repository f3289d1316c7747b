//! Batches: admitting commits one by one, and resolving their atomic operations.

use super::{
    super::{
        super::{
            limits::{self, LIFETIME},
            versionstamp::{self, Versionstamp},
        },
        messages::{Commit, PreparedBatch},
        ranges::KeyRange,
        snapshot::Snapshot,
        wal::{Mutation, MutationBatch},
        write_map::PendingMutation,
    },
    CommitPipeline,
};
use crate::{Result, engine::AtomicOp};

/// Maximum number of commits in a batch; their order must fit the two bytes of a versionstamp.
const MAX_BATCH_COMMITS: usize = 1_024;
/// Size of a batch from which no more commits are added, in bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Maximum size of a commit's resolved mutations, in bytes. A short atomic operation may resolve to
/// a long value.
const MAX_COMMIT_BYTES: usize = 64 << 20;
/// The mutable memtable is checkpointed at this fraction of the memtable budget.
const CHECKPOINT_FRACTION: usize = 8;

/// Commits that share a version and a sync.
pub(super) struct Batch {
    pub(super) version: u64,
    /// The resolved mutations, not necessarily applied to the head snapshot or the conflict set
    /// yet.
    pub(super) prepared: PreparedBatch,
    pub(super) accepted: usize,
    /// Size of the commits as submitted, in bytes.
    pub(super) bytes: usize,
    /// Size of the resolved mutations, in bytes.
    length: usize,
    /// Number of mutation batches applied to the head snapshot.
    applied: usize,
    /// Number of mutation batches recorded in the conflict set.
    recorded: usize,
    /// Write conflict ranges that are not recorded yet.
    ranges: Vec<KeyRange>,
    /// The head snapshot before the batch.
    pub(super) before: Snapshot,
}

impl Batch {
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.bytes.max(self.length);
        self.prepared.replies.len() < MAX_BATCH_COMMITS && bytes < MAX_BATCH_BYTES
    }

    fn push(&mut self, changes: MutationBatch) {
        self.length += changes.bytes().len();
        self.prepared.mutations.push(changes);
    }
}

impl CommitPipeline {
    /// Opens a batch, and starts a checkpoint if it is due.
    pub(super) fn open(&mut self) -> Batch {
        // Without space a checkpoint is retried at intervals, not for each batch.
        let is_large = self.head.mutable.bytes() >= self.memtable_bytes / CHECKPOINT_FRACTION
            && !self.registry.space.tree_is_full();
        let checkpoint =
            if is_large || self.is_checkpoint_due { self.begin_checkpoint() } else { None };
        self.last_version = self.next_version();
        Batch {
            version: self.last_version,
            prepared: PreparedBatch { checkpoint, ..PreparedBatch::default() },
            accepted: 0,
            bytes: 0,
            length: 0,
            applied: 0,
            recorded: 0,
            ranges: Vec::new(),
            before: self.head.clone(),
        }
    }

    /// Checks a commit for conflicts, and resolves its mutations if it is accepted.
    pub(super) fn admit(&mut self, batch: &mut Batch, commit: Commit) -> Result<()> {
        self.apply(batch);
        self.record(batch);
        batch.bytes += commit.bytes;
        let verdict = self.check_conflicts(&commit);
        let is_accepted = verdict.is_ok();
        // Never saturates: a batch has at most `MAX_BATCH_COMMITS`.
        let order = u16::try_from(batch.prepared.replies.len()).unwrap_or(u16::MAX);
        let stamp = Versionstamp::new(batch.version, order);
        batch.prepared.permits.push(commit.permit);
        batch.prepared.replies.push((commit.reply, verdict.map(|()| stamp)));
        if !is_accepted {
            return Ok(());
        }
        // Plain mutations are applied lazily, and are hardly longer than submitted.
        let is_plain = commit.mutations.iter().all(|one| matches!(one, PendingMutation::Plain(_)));
        let before = (!is_plain).then(|| self.head.clone());
        let (count, length) = (batch.prepared.mutations.len(), batch.length);
        self.resolve(batch, commit.mutations, stamp)?;
        if let Some(before) = before.filter(|_| batch.length - length > MAX_COMMIT_BYTES) {
            // Undoes the commit.
            batch.prepared.mutations.truncate(count);
            (batch.length, batch.applied) = (length, count);
            self.head = before;
            if let Some((_, verdict)) = batch.prepared.replies.last_mut() {
                *verdict = Err(limits::transaction_too_large());
            }
        } else {
            batch.ranges.extend(commit.write_ranges);
            batch.accepted += 1;
        }
        Ok(())
    }

    /// Resolves atomic operations against the head snapshot. Stops early once the commit is too
    /// large.
    fn resolve(
        &mut self,
        batch: &mut Batch,
        mutations: Vec<PendingMutation>,
        stamp: Versionstamp,
    ) -> Result<()> {
        let limit = batch.length + MAX_COMMIT_BYTES;
        let mut mutations = mutations.into_iter().peekable();
        while batch.length <= limit
            && let Some(mutation) = mutations.next()
        {
            let (op, key, operand) = match mutation {
                PendingMutation::Plain(changes) => {
                    batch.push(changes);
                    continue;
                }
                PendingMutation::Atomic { op, key, operand } => (op, key, operand),
            };
            // Templates were validated when they were written.
            let (key, value) = match op {
                AtomicOp::SetVersionstampedKey => {
                    (versionstamp::fill(&key, stamp).unwrap_or(key), Some(operand))
                }
                AtomicOp::SetVersionstampedValue => {
                    (key, Some(versionstamp::fill(&operand, stamp).unwrap_or(operand)))
                }
                _ => {
                    self.apply(batch);
                    let stored = self.head.value(&key);
                    let stored = stored.map_err(|error| self.registry.close_cause(error))?;
                    let mut value = op.apply(stored.as_deref(), &operand);
                    // Consecutive operations on a key become one mutation.
                    let is_same_key = |next: &PendingMutation| {
                        matches!(next, PendingMutation::Atomic { op, key: other, .. }
                            if op.reads_value() && *other == key)
                    };
                    while let Some(PendingMutation::Atomic { op, operand, .. }) =
                        mutations.next_if(is_same_key)
                    {
                        value = op.apply(value.as_deref(), &operand);
                    }
                    (key, value)
                }
            };
            let change = match &value {
                Some(value) => Mutation::Set { key: &key, value },
                None => Mutation::Clear { key: &key },
            };
            batch.push([change].into_iter().collect());
        }
        Ok(())
    }

    /// Applies the resolved mutations to the head snapshot.
    pub(super) fn apply(&mut self, batch: &mut Batch) {
        let mutations = &batch.prepared.mutations;
        mutations[batch.applied..].iter().for_each(|changes| self.head.mutable.apply(changes));
        batch.applied = mutations.len();
    }

    /// Records the writes in the conflict set.
    pub(super) fn record(&mut self, batch: &mut Batch) {
        let mutations = &batch.prepared.mutations;
        mutations[batch.recorded..]
            .iter()
            .for_each(|changes| self.conflicts.record(batch.version, changes));
        batch.recorded = mutations.len();
        for range in batch.ranges.drain(..) {
            self.conflicts.record_range(batch.version, &range);
        }
    }

    fn next_version(&self) -> u64 {
        let micros = u64::try_from(self.clock.now().timestamp_micros()).unwrap_or(0);
        micros.max(self.last_version + 1)
    }

    /// Fails if a key that the transaction read was written after its read version.
    fn check_conflicts(&self, commit: &Commit) -> Result<()> {
        let Some(read) = commit.read else { return Ok(()) };
        if self.conflicts.is_too_old(read.version) || read.since.elapsed() > LIFETIME {
            return Err(limits::too_old());
        }
        let conflicts = |range| self.conflicts.conflicts_with(read.version, range);
        if commit.read_ranges.iter().any(conflicts) {
            return Err(limits::conflict());
        }
        Ok(())
    }
}
