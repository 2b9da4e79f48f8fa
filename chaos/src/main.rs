//! Fault injection and measurement for Matriarch: each command is one folder or file.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod false_alarm;
mod fault;
mod fleet;
mod history;
mod idle;
mod invariant;
mod leads;
mod models;
mod oracle;
mod ranges;
mod register;
mod report;
mod rig;
mod rng;
mod scenario;
mod sim;
mod workload;

#[derive(Debug, Parser)]
#[command(name = "chaos", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What processes and etcd cost while nothing happens.
    Idle(idle::Idle),
    /// Faults on real processes, under clients whose history is checked.
    Rig(scenario::Arguments),
    /// The real decisions in a simulated world, seed by seed.
    Simulate(sim::command::Arguments),
    /// How long clients do without a primary: ours and the peer, in one run.
    Bench(bench::Arguments),
    /// The same for one of them, as `bench` calls it.
    #[command(hide = true)]
    Measure(bench::One),
    /// What many idle members cost etcd: ours and the peer's, in one run.
    Fleet(fleet::Arguments),
    /// Judges a saved history again.
    Check(check::Arguments),
    /// Small models, visited to the last state.
    Models(models::Models),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Idle(idle) => idle::run(&idle).map_err(anyhow::Error::msg).map(|lines| {
            println!("{lines}");
            ExitCode::SUCCESS
        }),
        Command::Rig(arguments) => scenario::run(&arguments),
        Command::Simulate(arguments) => sim::command::simulate(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Measure(one) => bench::measure(&one),
        Command::Fleet(arguments) => fleet::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Models(arguments) => Ok(models::run(&arguments)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
