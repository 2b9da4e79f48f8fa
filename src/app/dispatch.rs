//! From the command line to the command and its exit code.

use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;

use super::{check, guard, kubectl, run};
use crate::agent::ParameterCheck;
use crate::cli::args::{Cli, Command};
use crate::cli::called::CalledAs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::ui::Ui;
use crate::cli::{
    completions, dsn, edit_config, explain, failover, flush, generate_config, history, links, list, loss,
    man, operations, parameters, pause, query, reinit, reload, remove, restart, show_config, standby_cluster,
    switchover, topology, version, why,
};
use crate::config::{Config, Fault, Given};
use crate::demo;
use crate::observe;
use crate::os::output;

/// How long the end of a supervisor waits for a reader of its standard error.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// Runs the program; the result is its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = args.into_iter().collect();
    let called = CalledAs::read(&words);
    let ui = Ui::of(called);
    let say = |error: CliError| {
        ui.fail(error.render().trim_end());
        error.exit.code()
    };
    if called == CalledAs::Kubectl {
        return kubectl::execute(ui, words).unwrap_or_else(say);
    }
    let separated = match called {
        CalledAs::Matriarch | CalledAs::Kubectl => parameters::separate(words),
        CalledAs::Patronictl | CalledAs::Patroni => Ok((words, Vec::new())),
    };
    let (words, parameters) = match separated {
        Ok(separated) => separated,
        Err(error) => return say(error),
    };
    let cli = match links::parse(called, words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here, too, with code 0.
            let _ = error.print();
            return error.exit_code().clamp(0, 255) as u8;
        }
    };
    let context = Context { global: cli.global, ui, called };
    let supervises = matches!(cli.command, Command::Run(_));
    match dispatch(&context, cli.command, parameters) {
        Ok(exit) => exit.code(),
        // Standard error is its log, whose reader may have stopped. The next supervisor waits for this one's end.
        Err(error) if supervises => {
            output::say_to_stderr(&error.render(), SAY_WITHIN);
            error.exit.code()
        }
        Err(error) => say(error),
    }
}

fn dispatch(context: &Context, command: Command, parameters: Vec<(String, String)>) -> CliResult {
    match command {
        Command::Run(args) => run::execute(context, &args, parameters),
        Command::Guard(args) => guard::execute(&args),
        Command::Check(args) => wait(check::execute(context, &args)),
        Command::GenerateConfig(args) => wait(generate_config::execute(context, &args)),
        Command::List(args) => wait(list::execute(context, &args)),
        Command::Topology(args) => wait(topology::execute(context, &args)),
        Command::Dsn(args) => wait(dsn::execute(context, &args)),
        Command::Query(args) => wait(query::execute(context, &args)),
        Command::Switchover(args) => wait(switchover::execute(context, &args)),
        Command::Failover(args) => wait(failover::execute(context, &args)),
        Command::Restart(args) => wait(restart::execute(context, &args)),
        Command::Reload(args) => wait(reload::execute(context, &args)),
        Command::Reinit(args) => wait(reinit::execute(context, &args)),
        Command::Flush(args) => wait(flush::execute(context, &args)),
        Command::Remove(args) => wait(remove::execute(context, &args)),
        Command::History(args) => wait(history::execute(context, &args)),
        Command::Operations(args) => wait(operations::execute(context, &args)),
        Command::Observe(args) => wait(observe::execute(context, &args)),
        Command::Why(args) => wait(why::execute(context, &args)),
        Command::Loss(args) => wait(loss::execute(context, &args)),
        Command::Explain(args) => wait(explain::execute(context, &args)),
        Command::ShowConfig(args) => wait(show_config::execute(context, &args)),
        Command::EditConfig(args) => wait(edit_config::execute(context, &args, ask_programs)),
        Command::Pause(args) => wait(pause::execute(context, &args, pause::PauseRequest::Paused)),
        Command::Resume(args) => wait(pause::execute(context, &args, pause::PauseRequest::Running)),
        Command::DemoteCluster(args) => wait(standby_cluster::demote(context, &args)),
        Command::PromoteCluster(args) => wait(standby_cluster::promote(context, &args)),
        Command::Version(args) => wait(version::execute(context, &args)),
        Command::Demo(args) => wait_threaded(demo::execute(context, &args)),
        Command::Completions(args) => completions::execute(context, &args, Cli::command()),
        Command::Man(args) => man::execute(&args, Cli::command()),
    }
}

/// Checks parameters with the PostgreSQL programs of `config`.
async fn ask_programs(config: &Config, given: &[Given]) -> Result<Vec<Fault>, String> {
    ParameterCheck::of(config).faults(given).await
}

/// Runs a command to its end on one thread.
fn wait(work: impl Future<Output = CliResult>) -> CliResult {
    on_one_thread(work)?
}

/// Runs a future to its end on this thread.
pub(super) fn on_one_thread<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |error| CliError::failed("failed to start the runtime").because(&error);
    Ok(runtime.map_err(failed)?.block_on(work))
}

/// As [`wait`], on several threads: the demo's writer must not wait for the demo's other work.
fn wait_threaded(work: impl Future<Output = CliResult>) -> CliResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start the runtime").because(&error))?;
    runtime.block_on(work)
}
