//! Progress on stderr: a bar on a terminal, otherwise a line at intervals.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval between lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Redraws of the bar per second.
const DRAWN_HZ: u8 = 8;

/// Progress of an operation.
pub(super) struct Progress {
    what: String,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Starts the progress of `what`, with `total` bytes or rows, if known.
    pub(super) fn new(what: &str, total: Option<u64>) -> Self {
        let shown = if io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWN_HZ));
            let template = match total {
                Some(_) => "{prefix} [{bar:30}] {percent}% {msg} {eta}",
                None => "{spinner} {prefix} {msg} {elapsed}",
            };
            // The templates are constants and valid.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: Instant::now() }
        };
        Self { what: what.to_owned(), shown }
    }

    /// Reports a position in an archive.
    pub(super) fn archive(&mut self, at: coditect_store::archive::Progress) {
        self.at(at.bytes, || format!("{} rows, {}", HumanCount(at.rows), HumanBytes(at.bytes)));
    }

    /// Reports the number of processed rows.
    pub(super) fn rows(&mut self, rows: u64) {
        self.at(rows, || format!("{} rows", HumanCount(rows)));
    }

    /// Continues with the next step, `what`.
    pub(super) fn turn_to(&mut self, what: &str) {
        if what == self.what {
            return;
        }
        what.clone_into(&mut self.what);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_prefix(what.to_owned());
        }
    }

    /// Writes a line to stdout without disturbing the bar.
    pub(super) fn line(&self, line: &str) -> io::Result<()> {
        let write = || writeln!(io::stdout(), "{line}");
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(write),
            Shown::Lines { .. } => write(),
        }
    }

    fn at(&mut self, position: u64, message: impl FnOnce() -> String) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(position);
                bar.set_message(message());
            }
            Shown::Lines { last } if last.elapsed() >= LINE_INTERVAL => {
                *last = Instant::now();
                say(&format!("{}: {}", self.what, message()));
            }
            Shown::Lines { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line to stderr. Errors are ignored, since there is no other place to report them.
pub(super) fn say(line: &str) {
    let _unreported = writeln!(io::stderr(), "{line}");
}
