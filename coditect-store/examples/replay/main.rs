//! Replays recorded programs of a real FoundationDB against the embedded engine:
//! `cargo run --release -p coditect-store --example replay -- FILE…`, each `.jsonl` or `.jsonl.gz`.
//!
//! For each file it prints how many programs agree, and the first disagreement in full. It exits
//! with 1 if any disagrees, with 2 if a file cannot be read.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

mod recording;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let files: Vec<_> = std::env::args().skip(1).collect();
    if files.is_empty() || files.iter().any(|file| file == "--help" || file == "-h") {
        eprintln!("usage: replay FILE…    each .jsonl or .jsonl.gz, one recorded program a line");
        return ExitCode::from(2);
    }
    let mut all_agree = true;
    for file in &files {
        let programs = match recording::load(file.as_ref()) {
            Ok(programs) => programs,
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        };
        let report = recording::replay_all(&programs, recording::young_database).await;
        println!("{file}: {} of {} programs agree", report.agree, programs.len());
        if let Some(first) = report.first_disagreement {
            println!("{first}");
        }
        all_agree &= report.agree == programs.len();
    }
    if all_agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
