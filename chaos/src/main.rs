//! Fault injection and measurement for Matriarch: each command is one folder or file.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod idle;

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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Idle(idle) => idle::run(&idle).map(|lines| println!("{lines}")).map_err(anyhow::Error::msg),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
