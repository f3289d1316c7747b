//! The measurements, as a table and as a picture.

use std::{fmt::Write as _, thread, time::Duration};

use coditect_benches::lines::{median, per_second, spread};

/// The work of all clients in one turn.
pub(crate) struct Turn {
    /// Operations per second.
    rate: f64,
    /// 99th percentile of the latency, if it was timed.
    p99: Option<Duration>,
}

/// One turn per round.
pub(crate) struct Rates(pub(crate) Vec<Turn>);

/// The measurements of one kind of work with one number of clients.
pub(crate) struct Line {
    pub(crate) work: &'static str,
    pub(crate) clients: usize,
    pub(crate) ours: Rates,
    pub(crate) sqlite: Rates,
    pub(crate) bare: Rates,
}

/// All measurements.
pub(crate) struct Table {
    pub(crate) lines: Vec<Line>,
    rounds: usize,
    records: usize,
}

impl Turn {
    /// Returns the turn of clients that each did some operations, with their latencies, in `time`.
    pub(crate) fn new(clients: Vec<(u64, Vec<Duration>)>, time: Duration) -> Self {
        let done = clients.iter().map(|(done, _)| done).sum();
        let mut took: Vec<_> = clients.into_iter().flat_map(|(_, took)| took).collect();
        took.sort_unstable();
        Self { rate: per_second(done, time), p99: took.get(took.len() * 99 / 100).copied() }
    }
}

impl Rates {
    fn all(&self) -> Vec<f64> {
        self.0.iter().map(|turn| turn.rate).collect()
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.all())
    }

    fn shown(&self) -> String {
        let rates = self.all();
        format!("{:.0}/s {}", median(&rates), spread(&rates, 0))
    }

    /// Returns the median of the 99th percentiles, in milliseconds.
    fn p99(&self) -> Option<f64> {
        let turns = self.0.iter().map(|turn| turn.p99.map(|p99| p99.as_secs_f64() * 1_000.0));
        Some(median(&turns.collect::<Option<Vec<_>>>()?))
    }
}

impl Line {
    fn against_sqlite(&self) -> f64 {
        self.ours.median() / self.sqlite.median()
    }

    fn against_bare(&self) -> f64 {
        self.ours.median() / self.bare.median()
    }
}

impl Table {
    pub(crate) fn new(rounds: usize, records: usize) -> Self {
        Self { lines: Vec::new(), rounds, records }
    }

    /// Formats the measurements as Markdown, with the environment.
    pub(crate) fn markdown(&self) -> String {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let (rounds, records) = (self.rounds, self.records);
        let mut table = format!(
            "# Operations per second\n\nMedians of {rounds} interleaved rounds (lowest to \
             highest), {records} sessions and users before, {cores} cores, one disk. A ratio \
             above 1 means that the repositories are faster. Every write was durable when it was \
             answered. Compare ratios of one run, not numbers of different runs.\n\n\
             | work | clients | repositories | rusqlite | ratio | bare redb | ratio |\n\
             |---|---|---|---|---|---|---|\n"
        );
        for line in &self.lines {
            let Line { work, clients, ours, sqlite, bare } = line;
            let (ours, sqlite, bare) = (ours.shown(), sqlite.shown(), bare.shown());
            let (of_sqlite, of_bare) = (line.against_sqlite(), line.against_bare());
            // Writing into a string does not fail.
            let _ = writeln!(
                table,
                "| {work} | {clients} | {ours} | {sqlite} | {of_sqlite:.2} | {bare} | \
                 {of_bare:.2} |"
            );
        }
        table.push_str(
            "\n99th percentile of the latency, in milliseconds:\n\n\
             | work | clients | repositories | rusqlite | bare redb |\n|---|---|---|---|---|\n",
        );
        for Line { work, clients, ours, sqlite, bare } in &self.lines {
            if let (Some(ours), Some(sqlite), Some(bare)) = (ours.p99(), sqlite.p99(), bare.p99()) {
                let _ =
                    writeln!(table, "| {work} | {clients} | {ours:.2} | {sqlite:.2} | {bare:.2} |");
            }
        }
        table
    }

    /// Draws a bar per ratio on a logarithmic scale.
    pub(crate) fn svg(&self) -> String {
        const ROW: usize = 34;
        const LEFT: f64 = 250.0;
        const MIDDLE: f64 = 520.0;
        const WIDTH: f64 = 800.0;
        let height = 60 + self.lines.len() * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n\
             <text x=\"10\" y=\"20\">the repositories' rate, as a multiple of rusqlite's \
             (upper bar) and bare redb's (lower bar)</text>\n\
             <line x1=\"{MIDDLE}\" y1=\"30\" x2=\"{MIDDLE}\" y2=\"{height}\" stroke=\"#777\"/>\n"
        );
        for (row, line) in self.lines.iter().enumerate() {
            let y = 40 + row * ROW;
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{}\">{}, {} clients</text>",
                y + 14,
                line.work,
                line.clients
            );
            let bars =
                [(line.against_sqlite(), "#4a7fb5", 0), (line.against_bare(), "#b5854a", 12)];
            for (ratio, colour, down) in bars {
                // From 1/64 to 64.
                let reach = (ratio.log2() / 6.0).clamp(-1.0, 1.0) * (MIDDLE - LEFT);
                let x = if reach < 0.0 { MIDDLE + reach } else { MIDDLE };
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{}\" width=\"{:.1}\" height=\"10\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{ratio:.2}</text>",
                    y + down,
                    reach.abs().max(1.0),
                    MIDDLE + reach.max(0.0) + 4.0,
                    y + down + 9
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}
