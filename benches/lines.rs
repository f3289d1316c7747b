//! A table of rates, each compared with a named peer in the same run.

use std::{fmt::Write as _, thread, time::Duration};

/// A line of the table.
#[derive(Debug)]
pub struct Line {
    /// Name of the work.
    pub name: &'static str,
    /// Rates per second, one per round.
    pub rates: Vec<f64>,
    /// Index of the line that it is compared with.
    pub peer: Option<usize>,
}

impl Line {
    /// Returns a line without measurements.
    pub fn new((name, peer): (&'static str, Option<usize>)) -> Self {
        Self { name, rates: Vec::new(), peer }
    }
}

/// Returns the median rate per second.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than a float's digits")]
pub fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Returns the median.
pub fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Formats the lowest and the highest value in brackets, with the given number of decimals.
pub fn spread(rates: &[f64], decimals: usize) -> String {
    let (low, high) = rates
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    format!("({low:.decimals$} to {high:.decimals$})")
}

/// Formats the table in Markdown, below `title` and the text `said`.
pub fn table(title: &str, said: &str, lines: &[Line], rounds: usize) -> String {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut table = format!(
        "# {title}\n\nMedians of {rounds} interleaved rounds (lowest to highest), {cores} cores, \
         one disk. {said} Compare ratios of one run, not numbers of different runs.\n\n\
         | | per second | ratio |\n|---|---|---|\n",
    );
    for Line { name, rates, peer } in lines {
        let ratio = peer.map_or(String::new(), |peer| {
            format!("{:.2}", median(rates) / median(&lines[peer].rates))
        });
        // Writing into a string does not fail.
        let _ = writeln!(table, "| {name} | {:.0} {} | {ratio} |", median(rates), spread(rates, 0));
    }
    table
}
