//! To be written.
use super::dispatch::Context;
use super::error::{CliError, CliResult};
use clap::Args;
/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}
/// Runs `demo`.
pub async fn execute(_context: &Context, _args: &DemoArgs) -> CliResult {
    Err(CliError::failed("not yet"))
}
