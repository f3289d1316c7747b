//! Timers that do not depend on the caller's runtime, which may have none, or have been dropped.
//!
//! All of a process's timers share one thread, which is started with the first of them.

use std::{
    future,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Handle};

use crate::{Error, ErrorKind, Result};

/// Waits for `time`.
///
/// # Errors
///
/// Returns `Unavailable` if the timer thread cannot be started.
pub(crate) async fn sleep(time: Duration) -> Result<()> {
    let sleep = {
        let _within = driver()?.enter();
        tokio::time::sleep(time)
    };
    sleep.await;
    Ok(())
}

/// Waits for `answer`, at most for `time`. Returns `None` on a timeout.
///
/// # Errors
///
/// Fails as [`sleep`] does.
#[cfg(feature = "fdb")]
pub(crate) async fn timeout<T>(
    time: Duration,
    answer: impl Future<Output = T>,
) -> Result<Option<T>> {
    let timeout = {
        let _within = driver()?.enter();
        tokio::time::timeout(time, answer)
    };
    Ok(timeout.await.ok())
}

/// Returns the runtime whose thread drives the timers.
fn driver() -> Result<&'static Handle> {
    static DRIVER: OnceLock<Handle> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(driver) = DRIVER.get() {
        return Ok(driver);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(driver) = DRIVER.get() {
        return Ok(driver);
    }
    let runtime = Builder::new_current_thread().enable_time().build().map_err(cannot_start)?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("coditect-timer".to_owned())
        .spawn(move || runtime.block_on(future::pending::<()>()))
        .map_err(cannot_start)?;
    Ok(DRIVER.get_or_init(|| handle))
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot start the timer thread").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn sleep_needs_no_timers_of_the_runtime() {
        for _ in 0..2 {
            let runtime = Builder::new_current_thread().build().unwrap();
            let started = Instant::now();
            runtime.block_on(sleep(Duration::from_millis(5))).unwrap();
            assert!(started.elapsed() >= Duration::from_millis(5));
        }
    }
}
