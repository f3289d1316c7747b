//! The program `coditect-server`: see `cli::main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    coditect_server::cli::main()
}
