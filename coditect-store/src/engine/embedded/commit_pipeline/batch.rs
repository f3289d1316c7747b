//! What becomes of the commits of a batch, one after the other.

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

/// The most commits in a batch: their order must fit a versionstamp's two bytes.
const BATCH_COMMITS: usize = 1_024;
/// No commit is added to a batch that is this large, in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// The longest that a commit may be in the log, in bytes: operations on long values are short, and
/// what comes of them is not.
const LONGEST_COMMIT: usize = 64 << 20;
/// When so many times as much as the active memtable may wait for the B-tree, it is time for a
/// turn.
const CHECKPOINT_FRACTION: usize = 8;

/// Commits that share a version and a sync.
pub(super) struct Batch {
    pub(super) version: u64,
    /// What it does is in there; the newest state and what was written lately may not have it yet.
    pub(super) prepared: PreparedBatch,
    pub(super) accepted: usize,
    /// Of what its members ask for.
    pub(super) bytes: usize,
    /// Of what comes of it.
    length: usize,
    /// How much of what it does the newest state has.
    redone: usize,
    /// How much of it is noted as written.
    noted: usize,
    /// What else counts as written, and is not noted.
    ranges: Vec<KeyRange>,
    /// The newest state before it.
    pub(super) before: Snapshot,
}

impl Batch {
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.bytes.max(self.length);
        self.prepared.replies.len() < BATCH_COMMITS && bytes < BATCH_BYTES
    }

    fn push(&mut self, changes: MutationBatch) {
        self.length += changes.bytes().len();
        self.prepared.mutations.push(changes);
    }
}

impl CommitPipeline {
    /// Begins a batch, and a turn if it is time for one.
    pub(super) fn open(&mut self) -> Batch {
        // Without space the B-tree is tried again from time to time, not with each batch.
        let is_much = self.head.mutable.bytes() >= self.memtable_bytes / CHECKPOINT_FRACTION
            && !self.registry.space.tree_is_full();
        let checkpoint =
            if is_much || self.is_checkpoint_due { self.begin_checkpoint() } else { None };
        self.last_version = self.next_version();
        Batch {
            version: self.last_version,
            prepared: PreparedBatch { checkpoint, ..PreparedBatch::default() },
            accepted: 0,
            bytes: 0,
            length: 0,
            redone: 0,
            noted: 0,
            ranges: Vec::new(),
            before: self.head.clone(),
        }
    }

    /// Decides about a commit, and what comes of it.
    pub(super) fn admit(&mut self, batch: &mut Batch, commit: Commit) -> Result<()> {
        self.apply(batch);
        self.record(batch);
        batch.bytes += commit.bytes;
        let verdict = self.check_conflicts(&commit);
        let is_accepted = verdict.is_ok();
        // There are fewer than that.
        let order = u16::try_from(batch.prepared.replies.len()).unwrap_or(u16::MAX);
        let stamp = Versionstamp::new(batch.version, order);
        batch.prepared.permits.push(commit.permit);
        batch.prepared.replies.push((commit.reply, verdict.map(|()| stamp)));
        if !is_accepted {
            return Ok(());
        }
        // What is plain is not redone at once, nor can it be too long: it is little more than was
        // asked for.
        let is_plain = commit.mutations.iter().all(|one| matches!(one, PendingMutation::Plain(_)));
        let before = (!is_plain).then(|| self.head.clone());
        let (done, length) = (batch.prepared.mutations.len(), batch.length);
        self.resolve(batch, commit.mutations, stamp)?;
        if let Some(before) = before.filter(|_| batch.length - length > LONGEST_COMMIT) {
            // It is as if it had not been there.
            batch.prepared.mutations.truncate(done);
            (batch.length, batch.redone) = (length, done);
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

    /// Finds out what a commit comes to, now that what was there is known. It stops when that is
    /// too much.
    fn resolve(
        &mut self,
        batch: &mut Batch,
        mutations: Vec<PendingMutation>,
        stamp: Versionstamp,
    ) -> Result<()> {
        let limit = batch.length + LONGEST_COMMIT;
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
            // Templates were checked when they were written: one that doesn't fit never gets here.
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
                    // Of what follows for the same key only the outcome matters.
                    let goes_on = |next: &PendingMutation| matches!(next, PendingMutation::Atomic { op, key: other, .. } if op.reads_value() && *other == key);
                    while let Some(PendingMutation::Atomic { op, operand, .. }) =
                        mutations.next_if(goes_on)
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

    /// Does to the newest state what was decided.
    pub(super) fn apply(&mut self, batch: &mut Batch) {
        let done = &batch.prepared.mutations;
        done[batch.redone..].iter().for_each(|changes| self.head.mutable.apply(changes));
        batch.redone = done.len();
    }

    /// Notes what was written, for those who have read it before.
    pub(super) fn record(&mut self, batch: &mut Batch) {
        let done = &batch.prepared.mutations;
        done[batch.noted..]
            .iter()
            .for_each(|changes| self.conflicts.record(batch.version, changes));
        batch.noted = done.len();
        for range in batch.ranges.drain(..) {
            self.conflicts.record_range(batch.version, &range);
        }
    }

    fn next_version(&self) -> u64 {
        let micros = u64::try_from(self.clock.now().timestamp_micros()).unwrap_or(0);
        micros.max(self.last_version + 1)
    }

    /// Whether nothing that it read was written since.
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
