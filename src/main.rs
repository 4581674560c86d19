//! The program: [`kiln::cli`] does it all.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln::cli::main()
}
