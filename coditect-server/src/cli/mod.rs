//! The command line: arguments, the settings file, and the subcommands.

pub mod args;
pub mod commands;
mod contradictions;
pub mod settings;
