//! `guard`: the helper process of `run`. It has no runtime and asks for no memory once it has begun.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::fence::{self, Driver, GuardSetup};

/// Options of `guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// The watchdog device.
    #[arg(long, value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
    /// The device is a named pipe that records every operation (for tests).
    #[arg(long, requires = "watchdog")]
    testing: bool,
}

/// Guards until there is nothing left to guard.
pub fn execute(args: &GuardArgs) -> CliResult {
    let driver = if args.testing { Driver::Testing } else { Driver::Linux };
    let setup = GuardSetup { watchdog: args.watchdog.clone().map(|device| (device, driver)) };
    fence::run(&setup).map(|()| Exit::Done).map_err(|error| {
        let failed = CliError::failed(error.to_string());
        match error.source() {
            Some(cause) => failed.because(cause),
            None => failed,
        }
    })
}
