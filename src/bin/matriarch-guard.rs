//! `matriarch-guard`: the guard as a program of its own. A guard locks all of its program into memory, and this one is
//! small. `matriarch run` starts it if it lies beside `matriarch`, else `matriarch guard`, which does the same.

use std::io::Write;
use std::process::ExitCode;

use matriarch::fence;
use matriarch::os::error_chain::ErrorChain;

fn main() -> ExitCode {
    match fence::run_separate(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a reader of standard error, only the exit code shows it.
            let _ = writeln!(std::io::stderr(), "matriarch-guard: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
