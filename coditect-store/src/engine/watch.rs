//! Watches: futures that resolve when a key changes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::limits;
use crate::{Error, Result};

/// Resolves when a later commit has changed the watched key. It does not return the new value, and
/// changes that revert each other may be missed: read the key again.
///
/// # Errors
///
/// Returns `Closed` if the transaction was dropped or cancelled before its commit (1025), or the
/// database was closed; the commit's error if that failed.
pub struct Watch(Source);

enum Source {
    Fired(oneshot::Receiver<Result<()>>),
    #[cfg(feature = "fdb")]
    Future(Pin<Box<dyn Future<Output = Result<()>> + Send + Sync>>),
}

impl Watch {
    pub(super) fn new() -> (oneshot::Sender<Result<()>>, Self) {
        let (fire, fired) = oneshot::channel();
        (fire, Self(Source::Fired(fired)))
    }

    #[cfg(feature = "fdb")]
    pub(super) fn from_future(
        future: impl Future<Output = Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Future(Box::pin(future)))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Future for Watch {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Source::Fired(fired) => Pin::new(fired)
                .poll(context)
                .map(|fired| fired.unwrap_or_else(|_| Err::<(), Error>(limits::cancelled()))),
            #[cfg(feature = "fdb")]
            Source::Future(future) => future.as_mut().poll(context),
        }
    }
}
