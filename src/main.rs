//! The binary: parse, call the library, map the result to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(matriarch::app::main(std::env::args_os()))
}
