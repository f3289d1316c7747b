//! The one thread that decides: it takes what waits and checks each commit in order, does what it
//! asks for to the newest state, and hands what came of it to the [`writer`](super::writer), batch by
//! batch.
//!
//! ```text
//! transactions ── bounded queue ──► sequencer ──► writer (one sync a batch) ──► applier (the B-tree)
//!       ▲                                             │
//!       └─────── published (version, snapshot) ◄──────┘
//! ```
//!
//! A batch stays open while the writer is busy with the one before it, so that it is as large as the
//! disk is slow; when the writer has nothing to do a batch goes to it at once. For a client that is alone
//! even that is too long a way, half as long as a sync: it [leads](lead) the sequencer itself, on its own
//! thread, while the disk is quick.
//!
//! What stays true: a version is published after its batch is on disk, and answered after it is
//! published, so that whoever begins then sees it; so is a refusal, so that whoever tries again reads
//! what it was refused for. All of a batch shares one version; its members are ordered within it. The
//! newest state is ahead of the published one by what is being written: if that fails, nobody has seen
//! it, and the engine is closed.

mod batch;
mod space;

use std::{
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::batch::Batch;
use super::{
    applier::{Progress, Turn},
    board::{Board, Published},
    conflicts::RecentWrites,
    log::{Applied, Draft, Log},
    ranges::KeyRange,
    snapshot::Snapshot,
    sync::{Instant, Mutex, mpsc::Sender, queue::UnboundedReceiver},
    writer::{Committed, Prepared, Writer, answer_all},
    writes::Mutation,
};
use crate::{Clock, Error, ErrorKind, Result, telemetry};

/// The longest that a batch is held back at once.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// When writing a commit takes longer than this, callers' threads are not used for it.
const LONGEST_LEAD: Duration = Duration::from_millis(1);

/// What a transaction asks to have written.
#[derive(Debug)]
pub(super) struct Commit {
    /// The version it read at, and since when; `None` if it never had one.
    pub(super) read: Option<ReadAt>,
    pub(super) read_ranges: Vec<KeyRange>,
    /// What counts as written beside what is.
    pub(super) write_ranges: Vec<KeyRange>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Committed>>,
    /// Its share of the queue's memory.
    pub(super) permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAt {
    pub(super) version: u64,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) enum Request {
    Commit(Commit),
    /// Makes all later versions greater than this one.
    Advance(u64, oneshot::Sender<()>),
    /// The writer is done with a batch.
    Written,
    /// What was committed has waited for long enough to go to the B-tree.
    Turn,
    /// What was to go to the B-tree found no space there, which holds the log up to this.
    CheckpointFailed(Applied),
    /// Something failed that nothing can be done after.
    Failed,
    /// Ends it; whom to tell, if somebody waits.
    Stop(Option<oneshot::Sender<()>>),
}

/// The sequencer's own state.
pub(super) struct Sequencer {
    /// What is decided and not handed over.
    open: Option<Batch>,
    /// The newest state, which may not be published yet.
    head: Snapshot,
    last_version: u64,
    /// The last frame of the log.
    reached: Applied,
    /// The version of the last state that the writer was given to show.
    shown: u64,
    log: Log,
    recent: RecentWrites,
    clock: Clock,
    board: Arc<Board>,
    progress: Arc<Progress>,
    /// Used from here when it has nothing else to do; `None` once it is to stop.
    writer: Option<Arc<Mutex<Writer>>>,
    batches: Option<Sender<Prepared>>,
    /// Batches that the writer has not said to be done with.
    in_flight: usize,
    /// The most memory that may wait for the B-tree, in bytes.
    overlay_bytes: usize,
    /// How long it took lately to write a commit here.
    pace: Duration,
    /// A state that nobody needs any more, to be freed while the disk is busy: it shares nearly all it has
    /// with later ones, and to find out takes time.
    leaving: Option<Snapshot>,
    /// The last frame of the log that is on its way to the B-tree, or in it.
    turned: Applied,
    /// Whether what is in the log has waited for long enough to go to the B-tree.
    is_turn_due: bool,
}

/// Where it is: nowhere once it has ended. Its thread has it while it works, or a client that is
/// [alone](lead).
pub(super) type Place = Mutex<Option<Sequencer>>;

/// Closes the board when the sequencer ends, by a panic too: nobody is to wait for it in vain.
struct CloseOnDrop(Arc<Board>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close_by_panic();
        }
        self.0.close();
    }
}

/// What comes after a request.
enum Step {
    /// The next one, which may not come soon.
    Wait,
    /// What is there already, or else the batch is closed.
    Hurry,
    /// Nothing; whom to tell, if somebody asked for the end.
    End(Option<oneshot::Sender<()>>),
}

/// What a sequencer begins with.
pub(super) struct Start {
    pub(super) snapshot: Snapshot,
    pub(super) reached: Applied,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) progress: Arc<Progress>,
    pub(super) writer: Arc<Mutex<Writer>>,
    pub(super) batches: Sender<Prepared>,
    pub(super) overlay_bytes: usize,
}

/// Commits until it is stopped or something fails; `finish` waits for the other threads.
pub(super) fn run(
    place: &Place,
    board: Arc<Board>,
    mut queue: UnboundedReceiver<Request>,
    finish: impl FnOnce(),
) {
    let closing = CloseOnDrop(board);
    let serving = AssertUnwindSafe(|| serve(place, &mut queue));
    let stopped = panic::catch_unwind(serving).unwrap_or_else(|_| {
        closing.0.close_by_panic();
        None
    });
    let sequencer = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    queue.close();
    // Also those who are just coming in.
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Commit(commit) => drop(commit.answer.send(Err(closing.0.closed()))),
            Request::Stop(Some(done)) => drop(done.send(())),
            // Who asked to advance finds nobody to answer.
            _ => {}
        }
    }
    if let Some(mut sequencer) = sequencer {
        // With it goes the log: nobody writes to that any more when the folder is free.
        sequencer.finish();
    }
    finish();
    drop(closing);
    if let Some(done) = stopped {
        let _ = done.send(());
    }
}

/// Commits until there is an end to it; gives whom to tell, if somebody asked for the end.
fn serve(place: &Place, queue: &mut UnboundedReceiver<Request>) -> Option<oneshot::Sender<()>> {
    let mut is_hurried = false;
    loop {
        let next = if is_hurried { queue.try_recv().ok() } else { Some(queue.blocking_recv()?) };
        let mut sequencer = place.lock().unwrap_or_else(PoisonError::into_inner);
        match sequencer.as_mut()?.step(next, queue.len()) {
            Step::Wait => is_hurried = false,
            Step::Hurry => is_hurried = true,
            Step::End(done) => return done,
        }
    }
}

/// Commits on this thread, if the sequencer and the writer have nothing to do and the disk was quick
/// lately: a client that is alone then waits for its sync and for no other thread. Gives the commit back
/// if it is not to be done so. `failed` is called if nothing can be committed any more.
pub(super) fn lead(place: &Place, commit: Commit, failed: impl FnOnce()) -> Option<Commit> {
    let Ok(mut place) = place.try_lock() else { return Some(commit) };
    let Some(sequencer) = place.as_mut().filter(|sequencer| sequencer.may_be_led()) else {
        return Some(commit);
    };
    let commit = AssertUnwindSafe(|| sequencer.commit(commit, 0) && sequencer.close_open(0));
    let is_healthy = panic::catch_unwind(commit).unwrap_or_else(|_| {
        // It ends here, as it would on its own thread; the client is not to.
        if let Some(sequencer) = place.take() {
            sequencer.board.close_by_panic();
        }
        false
    });
    if !is_healthy {
        failed();
    }
    None
}

impl Sequencer {
    pub(super) fn new(start: Start) -> Self {
        let Start { snapshot, reached, log, clock, board, progress, writer, batches, .. } = start;
        Self {
            open: None,
            head: snapshot,
            last_version: reached.version,
            reached,
            shown: reached.version,
            log,
            recent: RecentWrites::new(reached.version),
            clock,
            board,
            progress,
            writer: Some(writer),
            batches: Some(batches),
            in_flight: 0,
            overlay_bytes: start.overlay_bytes,
            pace: Duration::ZERO,
            leaving: None,
            turned: reached,
            is_turn_due: false,
        }
    }

    /// Does what is asked for; nothing, if nothing is there.
    fn step(&mut self, request: Option<Request>, left: usize) -> Step {
        let healthy = match request {
            Some(Request::Commit(commit)) => self.commit(commit, left),
            None => self.close_open(left),
            Some(Request::Advance(version, done)) => {
                // The open batch has a version already, which later commits would share.
                let healthy = self.close_open(left);
                self.last_version = self.last_version.max(version);
                let _ = done.send(());
                healthy
            }
            Some(Request::Written) => {
                self.in_flight -= 1;
                true
            }
            Some(Request::Turn) if self.open.is_none() => self.turn_alone(),
            Some(Request::Turn) => {
                self.is_turn_due = true;
                true
            }
            Some(Request::CheckpointFailed(applied)) => {
                self.close_open(left) && self.take_back(applied)
            }
            Some(Request::Failed) => false,
            Some(Request::Stop(done)) => {
                self.close_open(left);
                return Step::End(done);
            }
        };
        if !healthy {
            if let Some(batch) = self.open.take() {
                answer_all(batch.prepared.decided, |_| Err(self.board.closed()));
            }
            return Step::End(None);
        }
        if self.open.is_some() && self.in_flight == 0 { Step::Hurry } else { Step::Wait }
    }

    /// Adds a commit to the open batch, and closes that if it is full.
    fn commit(&mut self, commit: Commit, left: usize) -> bool {
        if !self.board.space.is_left() {
            self.look_for_space();
            let space = &self.board.space;
            let is_admitted = !space.log_is_unrequired() && self.is_admitted_without_space(&commit);
            if !space.is_left() && !is_admitted {
                let _ = commit.answer.send(Err(self.board.space.error()));
                return true;
            }
            if self.board.space.log_is_full() {
                self.board.space.release_reserve();
            }
        }
        let mut batch = self.open.take().unwrap_or_else(|| self.open());
        match self.add(&mut batch, commit) {
            Ok(()) if batch.has_room() => {
                self.open = Some(batch);
                true
            }
            Ok(()) => self.close_batch(batch, left),
            Err(error) => self.refuse(batch, error),
        }
    }

    fn close_open(&mut self, left: usize) -> bool {
        self.open.take().is_none_or(|batch| self.close_batch(batch, left))
    }

    /// Whether a commit would be all there is to do, and likely to be done soon.
    fn may_be_led(&self) -> bool {
        let is_idle = self.open.is_none() && self.in_flight == 0 && self.writer.is_some();
        is_idle && self.pace < LONGEST_LEAD && self.waiting() <= self.overlay_bytes / 2
    }

    /// Ends it: what is in the log is moved to the B-tree, which records a clean shutdown.
    fn finish(&mut self) {
        let may_end = |board: &Board| board.check_open().is_ok() && !board.space.tree_is_full();
        while self.progress.is_busy() && may_end(&self.board) {
            self.progress.wait(LONGEST_WAIT);
        }
        let turn = self.checkpoint(true);
        self.hand_over(Prepared { turn, ..Prepared::default() });
        (self.writer, self.batches) = (None, None);
    }

    /// Hands a batch to the writer; false if nothing can be done any more.
    fn close_batch(&mut self, mut batch: Batch, left: usize) -> bool {
        telemetry::batched(batch.prepared.decided.len(), left);
        if batch.accepted > 0 {
            let may_use_reserve = !self.board.space.is_left();
            let draft = Draft::of(&batch.prepared.done);
            match self.log.append(draft, batch.version, may_use_reserve) {
                Ok((mut placed, reached)) => {
                    self.reached = reached;
                    self.shown = batch.version;
                    if self.is_to_write(&batch.prepared) && self.board.check_open().is_ok() {
                        // What follows is done while the disk is busy with it.
                        placed.begin();
                    }
                    self.redo(&mut batch);
                    self.note(&mut batch);
                    batch.prepared.frame = Some(placed);
                    batch.prepared.state = Some(Published::new(batch.version, self.head.clone()));
                }
                Err(error) => {
                    let error = self.cause_of(error);
                    return self.refuse(batch, error);
                }
            }
        }
        let Batch { prepared, bytes, before, .. } = batch;
        self.recent.forget(Instant::now());
        self.log.release(self.progress.first_segment());
        self.leaving = None;
        let healthy = self.hand_over(prepared);
        self.leaving = Some(before);
        self.wait_for_the_applier(bytes);
        healthy
    }

    /// Refuses a batch whole: nothing of it is written. False if nothing can be done any more.
    fn refuse(&mut self, batch: Batch, error: Error) -> bool {
        let Batch { version, mut prepared, before, .. } = batch;
        tracing::error!(error = &error as &dyn std::error::Error, "a batch of commits is refused");
        self.head = before;
        let error = Arc::new(error);
        for (_, verdict) in &mut prepared.decided {
            if verdict.is_ok() {
                *verdict =
                    Err(error.clone_without_source().with_source(Box::new(Arc::clone(&error))));
            }
        }
        // The state is as it was. Its version is not, since the batch's writes are noted as of this
        // one: who tries again must not read before it.
        prepared.done.clear();
        prepared.state = Some(Published::new(version, self.head.clone()));
        self.shown = version;
        self.hand_over(prepared) && error.kind() != ErrorKind::Corrupt
    }

    /// Whether the batch is to be written here, as neither the writer has anything else to do.
    fn is_to_write(&self, prepared: &Prepared) -> bool {
        self.writer.is_some() && self.in_flight == 0 && prepared.decided.len() <= 1
    }

    /// Gives a batch to the writer, or [writes it here](Self::is_to_write).
    fn hand_over(&mut self, prepared: Prepared) -> bool {
        match (&self.writer, &self.batches) {
            (Some(writer), _) if self.is_to_write(&prepared) => {
                let began = Instant::now();
                let healthy = writer.lock().unwrap_or_else(PoisonError::into_inner).write(prepared);
                self.pace = (self.pace * 7 + began.elapsed()) / 8;
                healthy
            }
            (_, Some(batches)) => {
                self.in_flight += 1;
                batches.send(prepared).is_ok()
            }
            _ => false,
        }
    }

    /// Begins a new active layer, unless there is nothing in this one or the one before it is still
    /// on its way.
    fn turn(&mut self) -> Option<Turn> {
        if self.reached == self.turned { None } else { self.checkpoint(false) }
    }

    /// Begins a new active layer, unless the one before it is still on its way. After the last one
    /// nothing is committed.
    fn checkpoint(&mut self, is_last: bool) -> Option<Turn> {
        if !self.progress.begin(self.head.active.bytes()) {
            return None;
        }
        (self.turned, self.is_turn_due) = (self.reached, false);
        let layer = mem::take(&mut self.head.active);
        self.head.ground = Arc::new(self.head.ground.under(layer.clone()));
        Some(Turn { layer, reached: self.reached, ground: Arc::clone(&self.head.ground), is_last })
    }

    /// A turn while nothing is committed.
    fn turn_alone(&mut self) -> bool {
        self.leaving = None;
        self.look_for_space();
        self.log.release(self.progress.first_segment());
        let Some(turn) = self.turn() else { return true };
        let same = Some((self.shown, self.head.clone()));
        self.hand_over(Prepared { turn: Some(turn), same, ..Prepared::default() })
    }

    /// Slows down while much waits for the B-tree, more and more, so that it never is too much and
    /// nobody waits for long: at half of what may wait not at all, at the end twice as long as the
    /// B-tree takes for as much.
    fn wait_for_the_applier(&self, bytes: usize) {
        let soft = self.overlay_bytes / 2;
        let waiting = self.waiting();
        if waiting <= soft {
            return;
        }
        let fullness = lossy(waiting - soft) / lossy(self.overlay_bytes - soft).max(1.0);
        let wait = self.progress.time_for(bytes).mul_f64(2.0 * fullness.min(1.0));
        self.progress.wait(wait.min(LONGEST_WAIT));
        // What is above the limit can't be, however long it takes.
        while self.waiting() > self.overlay_bytes
            && self.progress.is_busy()
            && self.board.check_open().is_ok()
            && !self.board.space.tree_is_full()
        {
            self.progress.wait(LONGEST_WAIT);
        }
    }

    /// The memory of what waits for the B-tree, in bytes.
    fn waiting(&self) -> usize {
        self.head.active.bytes() + self.progress.on_its_way()
    }
}

/// A count of bytes for a ratio.
#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than a float's digits")]
fn lossy(bytes: usize) -> f64 {
    bytes as f64
}
