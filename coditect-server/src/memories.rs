//! Serialized large session memories that are being sent, shared by all readers of a version.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use coditect_store::model::SessionId;
use tokio::sync::Mutex as AsyncMutex;

use crate::http::{budget::Charge, output::Shared};

/// Large memories that are being sent, by session.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<HashMap<SessionId, Weak<Slot>>>);

/// The memory of one session while responses use it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Held while the memory is read.
    pub(crate) turn: Arc<AsyncMutex<()>>,
    pub(crate) shown: Mutex<Option<(u64, Weak<Text>)>>,
}

/// The JSON of one version of a memory.
pub(crate) struct Text {
    pub(crate) json: Vec<u8>,
    pub(crate) charge: Option<Arc<Charge>>,
    pub(crate) _slot: Option<Arc<Slot>>,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("bytes", &self.json.len()).finish_non_exhaustive()
    }
}

/// A version of a session's memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) version: u64,
    pub(crate) text: Arc<Text>,
}

struct Owner(Arc<Text>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.json
    }
}

impl Memory {
    /// Returns the version; 0 before the first change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns the JSON object.
    pub(crate) fn json(&self) -> Bytes {
        Bytes::from_owner(Owner(Arc::clone(&self.text)))
    }

    /// Returns the number of bytes that are already charged.
    pub(crate) fn shared(&self) -> Shared {
        Shared(self.text.charge.as_ref().map_or(0, |charge| charge.bytes()))
    }
}

impl Memories {
    /// Returns the slot of `session`, created if no response uses its memory.
    pub(crate) fn slot(&self, session: SessionId) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&session).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::default());
        slots.insert(session, Arc::downgrade(&slot));
        slot
    }

    /// Returns the memory in `version` if a response uses it.
    pub(crate) fn shown(&self, session: SessionId, version: u64) -> Option<Memory> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(&session).and_then(Weak::upgrade)?;
        drop(slots);
        let shown = slot.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, text) = shown.as_ref().filter(|(at, _)| *at == version)?;
        Some(Memory { version: *at, text: text.upgrade()? })
    }
}
