//! Stub.
use super::members::Fleet;
use crate::cli::dispatch::Context;
use crate::cli::error::*;
/// x
pub async fn execute(_: &Context, _: &mut Fleet, _: u16, _: bool) -> CliResult {
    Err(CliError::failed("x"))
}
