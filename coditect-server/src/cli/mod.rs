//! The command line: arguments, settings file, subcommands.

pub mod args;
pub mod commands;
mod contradictions;
mod program;
pub mod settings;

pub use program::main;
