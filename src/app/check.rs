//! `check`: every fault of a configuration at once.

use super::certificates::check_certificates;
use super::preflight;
use crate::agent::{EtcdAnswers, ParameterCheck, ask_etcd};
use crate::cli::called::CalledAs;
use crate::cli::check::CheckArgs;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::Exit;
use crate::cli::output::{document, sorted};
use crate::cli::target::environment;
use crate::config::{self, Checked, Config, Fault, Faults, Sources};
use crate::os::error_chain::ErrorChain;

/// Runs `check`.
pub(super) async fn execute(context: &Context, args: &CheckArgs) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let mut found = config::check(&Sources { path, environment: environment(), ..Sources::default() });
    if let Some(config) = found.config.take() {
        look_around(&config, args, &mut found).await;
        found.config = Some(config);
    }
    for warning in &found.warnings {
        context.ui.say(&format!("warning: {warning}"));
    }
    // Patroni's scripts expect no output for a valid configuration, and 1 for any other.
    let (is_quiet, refused) = match context.called {
        CalledAs::Patroni => (true, Exit::Failed),
        CalledAs::Matriarch | CalledAs::Patronictl | CalledAs::Kubectl => (false, Exit::Configuration),
    };
    if let Some(config) = found.config.as_ref().filter(|_| !is_quiet) {
        context.ui.say(&config.restapi.write_access().to_string());
    }
    if !found.faults.is_empty() {
        context.ui.say(&Faults(found.faults).to_string());
        return Ok(refused);
    }
    if args.strict && !found.warnings.is_empty() {
        context.ui.say("Warnings count as faults because of --strict");
        return Ok(refused);
    }
    if !is_quiet {
        context.ui.say("The configuration is valid");
    }
    if args.print {
        context.ui.data(&document(&sorted(&found.written), context.global.output)?);
    }
    Ok(Exit::Done)
}

/// Adds what this machine, its PostgreSQL and etcd say to a configuration.
async fn look_around(config: &Config, args: &CheckArgs, found: &mut Checked) {
    found.faults.extend(preflight::faults(config));
    found.warnings.extend(preflight::warnings(config));
    if !args.ignore_listen_port {
        found.faults.extend(preflight::ports_in_use(config));
    }
    // Programs that cannot be run are reported as faults already.
    if let Ok(refused) = ParameterCheck::of(config).faults(&found.parameters).await {
        found.warnings.extend(refused.into_iter().map(left_out));
    }
    // Without a sound section there is nothing to ask.
    let in_section = |fault: &Fault| fault.key.starts_with("etcd");
    if !args.ignore_etcd && !found.faults.iter().any(in_section) {
        match ask_etcd(config).await {
            Ok(answers) => judge_etcd(answers, found),
            Err(why) => found.faults.push(of_etcd(why)),
        }
    }
    if let Err(error) = check_certificates(config) {
        found.faults.push(Fault {
            key: "restapi".to_owned(),
            ..Fault::general("this machine", error.chain(), "name files that can be used for TLS")
        });
    }
}

/// One endpoint that answers is enough to run.
fn judge_etcd(answers: EtcdAnswers, found: &mut Checked) {
    let some_answer = answers.silent.len() < answers.asked;
    let faults =
        answers.silent.into_iter().map(|(url, why)| of_etcd(format!("{url} does not answer: {why}")));
    if some_answer { found.warnings.extend(faults) } else { found.faults.extend(faults) }
}

fn of_etcd(found: String) -> Fault {
    let expected = "write the address of etcd's client port, and the login and certificates that it asks for";
    Fault { key: "etcd3".to_owned(), ..Fault::general("this machine", found, expected) }
}

/// A member starts without a parameter that PostgreSQL refuses.
fn left_out(fault: Fault) -> Fault {
    Fault { expected: format!("this parameter is left out: {}", fault.expected), ..fault }
}
