//! How far a verb is, on stderr: a bar where somebody looks on, a line now and then where not.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written where nobody looks on.
const EVERY: Duration = Duration::from_secs(5);
/// How often a bar is drawn, a second.
const DRAWN_HZ: u8 = 8;

/// How far something is.
pub(super) struct Progress {
    what: String,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Of `what`, which is `total` bytes or rows long, if that is known.
    pub(super) fn new(what: &str, total: Option<u64>) -> Self {
        let shown = if io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWN_HZ));
            let template = match total {
                Some(_) => "{prefix} [{bar:30}] {percent}% {msg} {eta}",
                None => "{spinner} {prefix} {msg} {elapsed}",
            };
            // The templates are written here, and right.
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

    /// So many bytes and rows of an archive.
    pub(super) fn archive(&mut self, at: coditect_store::archive::Progress) {
        self.at(at.bytes, || format!("{} rows, {}", HumanCount(at.rows), HumanBytes(at.bytes)));
    }

    /// So many rows.
    pub(super) fn rows(&mut self, rows: u64) {
        self.at(rows, || format!("{} rows", HumanCount(rows)));
    }

    /// Something else from now on.
    pub(super) fn turn_to(&mut self, what: &str) {
        if what == self.what {
            return;
        }
        what.clone_into(&mut self.what);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_prefix(what.to_owned());
        }
    }

    /// Writes a line to stdout, past the bar.
    pub(super) fn line(&self, line: &str) -> io::Result<()> {
        let write = || writeln!(io::stdout(), "{line}");
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(write),
            Shown::Lines { .. } => write(),
        }
    }

    fn at(&mut self, position: u64, told: impl FnOnce() -> String) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(position);
                bar.set_message(told());
            }
            Shown::Lines { last } if last.elapsed() >= EVERY => {
                *last = Instant::now();
                say(&format!("{}: {}", self.what, told()));
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

/// Writes a line to stderr; where even that is gone there is nobody left to tell.
pub(super) fn say(line: &str) {
    let _unheard = writeln!(io::stderr(), "{line}");
}
