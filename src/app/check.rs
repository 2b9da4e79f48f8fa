//! `check`: every fault of a configuration at once.

use super::certificates::check_certificates;
use super::preflight;
use crate::agent::ParameterCheck;
use crate::cli::check::CheckArgs;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::Exit;
use crate::cli::target::environment;
use crate::config::{self, Fault, Faults, Sources};
use crate::os::error_chain::ErrorChain;

/// Runs `check`.
pub(super) async fn execute(context: &Context, args: &CheckArgs) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let mut found = config::check(&Sources { path, environment: environment(), ..Sources::default() });
    if let Some(config) = &found.config {
        found.faults.extend(preflight::faults(config));
        found.warnings.extend(preflight::warnings(config));
        if !args.ignore_listen_port {
            found.faults.extend(preflight::ports_in_use(config));
        }
        // Programs that cannot be run are reported as faults already.
        if let Ok(refused) = ParameterCheck::of(config).faults(&found.parameters).await {
            found.warnings.extend(refused.into_iter().map(left_out));
        }
    }
    for warning in &found.warnings {
        context.ui.say(&format!("warning: {warning}"));
    }
    if let Some(config) = &found.config {
        context.ui.say(&config.restapi.write_access().to_string());
        if let Err(error) = check_certificates(config) {
            found.faults.push(Fault {
                key: "restapi".to_owned(),
                ..Fault::general("this machine", error.chain(), "name files that can be used for TLS")
            });
        }
    }
    if !found.faults.is_empty() {
        context.ui.say(&Faults(found.faults).to_string());
        return Ok(Exit::Configuration);
    }
    if args.strict && !found.warnings.is_empty() {
        context.ui.say("Warnings count as faults because of --strict");
        return Ok(Exit::Configuration);
    }
    context.ui.say("The configuration is valid");
    Ok(Exit::Done)
}

/// A member starts without a parameter that PostgreSQL refuses.
fn left_out(fault: Fault) -> Fault {
    Fault { expected: format!("this parameter is left out: {}", fault.expected), ..fault }
}
