//! `guard`: the process that `run` starts beside PostgreSQL. It has no runtime and allocates no memory after its start.

use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::Exit;
use crate::cli::guard::GuardArgs;
use crate::fence::{self, DeviceDriver, GuardSetup};

/// Runs the guard until there is nothing left to guard.
pub(super) fn execute(args: &GuardArgs) -> CliResult {
    let driver = if args.testing { DeviceDriver::Testing } else { DeviceDriver::Linux };
    let setup = GuardSetup { watchdog: args.watchdog.clone().map(|device| (device, driver)) };
    fence::run(&setup).map(|()| Exit::Done).map_err(|error| CliError::of(&error))
}
