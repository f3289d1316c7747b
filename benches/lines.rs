//! A table of rates, each compared with that of a named peer in the same run.

use std::{fmt::Write as _, thread, time::Duration};

/// A line of the table: how many a second, in each round.
#[derive(Debug)]
pub struct Line {
    /// What is done.
    pub name: &'static str,
    /// How often a second, in each round.
    pub rates: Vec<f64>,
    /// The line that it is compared with, by its place.
    pub peer: Option<usize>,
}

impl Line {
    /// One that is not measured yet.
    pub fn new((name, peer): (&'static str, Option<usize>)) -> Self {
        Self { name, rates: Vec::new(), peer }
    }
}

/// How many a second that are.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than a float's digits")]
pub fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The one in the middle.
pub fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// From the lowest to the highest, in brackets, with so many decimals.
pub fn spread(rates: &[f64], decimals: usize) -> String {
    let (low, high) = rates
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    format!("({low:.decimals$} to {high:.decimals$})")
}

/// The table, in Markdown, below `title` and what `said` says of it.
pub fn table(title: &str, said: &str, lines: &[Line], rounds: usize) -> String {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut table = format!(
        "# {title}\n\nMedians of {rounds} rounds in which all took turns (lowest to highest), {cores} \
         cores, one disk. {said} Machines are noisy: compare ratios of one run, not numbers of two.\n\n\
         | | a second | ratio |\n|---|---|---|\n",
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
