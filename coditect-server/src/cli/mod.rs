//! The command line: arguments, settings file, subcommands.

pub mod args;
pub mod commands;
mod contradictions;
pub mod settings;
