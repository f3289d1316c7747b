//! WebSockets: handshake, frames, and the hub of each session.

pub(crate) mod frame;
pub mod handshake;
pub(crate) mod hub;
pub mod inbound;

use std::sync::Arc;

use coditect_store::model::StatePart;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::hub::SessionHubs;

/// A section of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StateSection {
    Editor,
    Terminal,
    Memory,
}

impl StateSection {
    /// All sections.
    pub(crate) const ALL: [Self; 3] = [Self::Editor, Self::Terminal, Self::Memory];

    /// Returns the name in WebSocket messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Editor => "editor",
            Self::Terminal => "terminal",
            Self::Memory => "memory",
        }
    }

    /// Returns the key of the record with the version.
    pub(crate) fn key(self) -> StatePart {
        match self {
            Self::Editor => StatePart::Editor,
            Self::Terminal => StatePart::Terminal,
            Self::Memory => StatePart::Memory,
        }
    }
}

/// The open WebSockets of a server.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) hubs: SessionHubs,
    pub(crate) permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Sockets {
    /// Creates an empty set that permits `most` WebSockets at once.
    pub(crate) fn new(most: usize) -> Self {
        let permits = Arc::new(Semaphore::new(most));
        Self { hubs: SessionHubs::default(), permits, tasks: TaskTracker::new() }
    }

    /// Returns the tasks of the open WebSockets, for which shutdown waits.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}
