//! `WebSocket`s: the opening handshake, the frames, and the hub of each session.

pub(crate) mod frame;
pub mod handshake;
pub(crate) mod hub;

use std::sync::Arc;

use coditect_store::model::StatePart;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::hub::Rooms;

/// A part of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Editor,
    Terminal,
    Memory,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Editor, Self::Terminal, Self::Memory];

    /// Its name, in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Editor => "editor",
            Self::Terminal => "terminal",
            Self::Memory => "memory",
        }
    }

    /// The record that has its version.
    pub(crate) fn key(self) -> StatePart {
        match self {
            Self::Editor => StatePart::Editor,
            Self::Terminal => StatePart::Terminal,
            Self::Memory => StatePart::Memory,
        }
    }
}

/// The sockets of a server.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) rooms: Rooms,
    pub(crate) permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Sockets {
    /// None yet, and `most` at once.
    pub(crate) fn new(most: usize) -> Self {
        let permits = Arc::new(Semaphore::new(most));
        Self { rooms: Rooms::default(), permits, tasks: TaskTracker::new() }
    }

    /// Those that are open: a stopping server waits for them.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}
