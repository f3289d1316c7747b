//! Waiting for a key to change.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::limits;
use crate::{Error, Result};

/// Resolves once the watched key was changed by a later commit. That it resolves does not say what
/// the value is now, and changes that undo each other may go unseen: read again.
///
/// # Errors
///
/// `Closed` if the transaction that made it was dropped or cancelled before its commit (1025), or
/// the database was closed; the commit's own error if that failed.
#[derive(Debug)]
pub struct Watch(oneshot::Receiver<Result<()>>);

impl Watch {
    pub(super) fn new() -> (oneshot::Sender<Result<()>>, Self) {
        let (fire, fired) = oneshot::channel();
        (fire, Self(fired))
    }
}

impl Future for Watch {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|fired| fired.unwrap_or_else(|_| Err::<(), Error>(limits::cancelled())))
    }
}
